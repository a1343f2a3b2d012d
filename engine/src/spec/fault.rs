//! What ends the reading of a node's options.

use std::fmt::Display;

use serde::de;

use super::{Diagnostic, Span, nearest};

/// A fault that ends the reading of one node.
#[derive(Debug)]
pub(super) enum Fault {
    Plain(String),
    Placed(Diagnostic),
    /// Already among the problems.
    Reported,
}

impl Fault {
    pub(super) fn at(self, span: Span) -> Self {
        match self {
            Self::Plain(message) => Self::Placed(Diagnostic::new(span, message)),
            placed => placed,
        }
    }

    pub(super) fn into_diagnostic(self, span: Span) -> Option<Diagnostic> {
        match self.at(span) {
            Self::Placed(diagnostic) => Some(diagnostic),
            Self::Plain(_) | Self::Reported => None,
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(message) => f.write_str(message),
            Self::Placed(diagnostic) => f.write_str(&diagnostic.message),
            Self::Reported => f.write_str("already reported"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::Plain(message.to_string())
    }

    /// Of a mapping that could also have been something else, so that its keys were not known before it was read.
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let near = nearest(field, expected.iter().copied()).map(|near| format!(": did you mean `{near}`?"));
        Self::Plain(format!("unknown option `{field}`{}", near.unwrap_or_default()))
    }
}

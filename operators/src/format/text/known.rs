//! What a server's format names, and the column that it becomes.

use std::borrow::Cow;

use super::build::{Item, Want};
use super::escape::Escape;
use super::template::{Shape, Transform};
use super::transform::{self, same};

/// A name of a server's format and its column. A table of these is what the parser reads by and what `list formats` shows.
#[derive(Clone, Copy, Debug)]
pub(in crate::format) struct Known {
    /// As the format writes it.
    pub name: &'static str,
    /// Its column; empty if the value is passed over.
    pub column: &'static str,
    /// Where several become the same column, the greatest counts.
    pub rank: u8,
    /// What bytes it can have.
    pub shape: Shape,
    /// What is made of it.
    pub with: Transform,
}

/// A name of a format.
pub(in crate::format) const fn of(name: &'static str, column: &'static str, rank: u8, shape: Shape) -> Known {
    Known { name, column, rank, shape, with: same }
}

impl Known {
    /// Of which something else is made than the text as it is.
    pub(in crate::format) const fn with(self, with: Transform) -> Self {
        Self { with, ..self }
    }

    /// The value of a line, whose name stands at a byte of the format.
    pub(in crate::format) fn item(&self, at: usize, escape: Escape) -> Item {
        Item::value(self.name, at, self.shape, escape, self.wants())
    }

    /// What its value says.
    pub(in crate::format) fn wants(&self) -> Vec<Want> {
        match self.column {
            "" => Vec::new(),
            column => vec![Want::Column { name: Cow::Borrowed(column), rank: self.rank, with: self.with }],
        }
    }
}

/// What a request's header becomes. Of a cookie and of credentials there is only whether they came.
pub(in crate::format) fn header(name: &str) -> Vec<Want> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let want = |name: String, rank, with| Want::Column { name: Cow::Owned(name), rank, with };
    match name.as_str() {
        "cookie" => vec![want("has_cookie".to_owned(), 1, transform::is_present)],
        "authorization" | "proxy_authorization" => vec![want(format!("has_{name}"), 1, transform::is_present)],
        "host" => vec![want(name, 2, transform::host)],
        "x_forwarded_for" => vec![
            want("header_x_forwarded_for".to_owned(), 1, same),
            want("forwarded_first".to_owned(), 1, transform::forwarded_first),
            want("forwarded_last".to_owned(), 1, transform::forwarded_last),
        ],
        _ => vec![want(format!("header_{name}"), 1, same)],
    }
}

/// What a response's header becomes.
pub(in crate::format) fn response_header(name: &str) -> Vec<Want> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    match name.as_str() {
        "set_cookie" => Vec::new(),
        _ => vec![Want::Column { name: format!("response_header_{name}").into(), rank: 1, with: same }],
    }
}

//! Rules as written: in the pipeline or in files of their own.

use std::collections::HashMap;

use arrow::datatypes::Schema;
use engine::contract::{PlanContext, Scalar};
use engine::spec::Located;

use crate::entries::{Given, Template, condition, read, template};

/// A rule.
#[derive(Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleOptions {
    /// The rule's name, which no other has. Without commas.
    #[schemars(with = "String")]
    name: Located<String>,
    /// How grave a match is.
    level: Level,
    /// An SQL condition over the input's columns; null counts as false.
    #[schemars(with = "String")]
    when: Located<String>,
    /// Why, for people: `{column}` is the row's value, `{column:%}` a share as a whole percentage, `{column:.2}` a number
    /// with two decimals, `{{` and `}}` are braces.
    #[schemars(with = "String")]
    reason: Located<String>,
}

/// How grave a match is, from the least to the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Level {
    Low,
    Medium,
    High,
    Critical,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

/// A rule that can be applied.
#[derive(Clone)]
pub(super) struct Rule {
    pub name: String,
    pub level: Level,
    pub when: Scalar,
    pub reason: Template,
}

/// Checks the rules; every fault is reported where it stands.
pub(super) fn check(
    given: Located<Given<RuleOptions>>,
    schema: &Schema,
    context: &mut PlanContext<'_>,
) -> Option<Vec<Rule>> {
    let (written, mut complete) = read(given, "rules", context)?;
    let mut names = HashMap::new();
    let mut rules = Vec::with_capacity(written.len());
    for rule in written {
        let name = &rule.name;
        if name.value.is_empty() || name.value.contains(|c: char| c == ',' || c.is_control()) {
            context.error(name.span, "a rule's name is text without commas");
            complete = false;
        }
        if names.insert(name.value.clone(), ()).is_some() {
            context.error(name.span, format!("there is another rule `{}`", name.value));
            complete = false;
        }
        match (condition(&rule.when, schema, context), template(&rule.reason, schema, context)) {
            (Some(when), Some(reason)) => rules.push(Rule { name: rule.name.value, level: rule.level, when, reason }),
            _ => complete = false,
        }
    }
    complete.then_some(rules)
}

//! Rules as written: in the pipeline or in a file of their own.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use arrow::datatypes::Schema;
use engine::contract::PlanContext;
use engine::contract::{ExprFault, Scalar};
use engine::spec::{Diagnostic, Located, Tree, Value, nearest, options};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor, value::SeqAccessDeserializer};

use super::reason::{Fault, Template};

/// A rule.
#[derive(Clone, serde::Deserialize, schemars::JsonSchema)]
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

/// Where the rules stand.
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
pub(super) enum Given {
    /// A YAML file with a list of rules.
    File(PathBuf),
    /// The rules themselves.
    List(Vec<RuleOptions>),
}

impl<'de> Deserialize<'de> for Given {
    /// By hand: an untagged enum would lose the places of the rules.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Given;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's path or a list of rules")
            }
            fn visit_str<E>(self, path: &str) -> Result<Given, E> {
                Ok(Given::File(path.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Given, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(seq)).map(Given::List)
            }
        }
        deserializer.deserialize_any(Either)
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
pub(super) fn check(given: Located<Given>, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Vec<Rule>> {
    let span = given.span;
    let (written, mut complete) = match given.value {
        Given::List(rules) => (rules, true),
        Given::File(path) => from_file(&context.yaml(&Located::new(path, span))?, context)?,
    };
    if written.is_empty() && complete {
        context.error(span, "there are no rules");
        return None;
    }
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

/// The rules of a file that can be read, and whether that is all of them.
fn from_file(tree: &Tree, context: &mut PlanContext<'_>) -> Option<(Vec<RuleOptions>, bool)> {
    let Value::List(items) = &tree.value else {
        context.error(tree.span, format!("a rule file is a list of rules, not {}", tree.kind()));
        return None;
    };
    if items.is_empty() {
        context.error(tree.span, "there are no rules");
        return None;
    }
    let mut problems: Vec<Diagnostic> = Vec::new();
    let rules: Vec<RuleOptions> = items.iter().filter_map(|item| options::read(item, &mut problems)).collect();
    let complete = problems.is_empty();
    for problem in problems {
        context.report(problem);
    }
    Some((rules, complete))
}

fn condition(sql: &Located<String>, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Scalar> {
    match context.scalar(sql, schema)?.truth() {
        Ok(condition) => Some(condition),
        Err(fault) => {
            context.expression_fault(sql, &fault);
            None
        }
    }
}

fn template(text: &Located<String>, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Template> {
    let fault = match Template::parse(&text.value, schema) {
        Ok(template) => return Some(template),
        Err(fault) => fault,
    };
    let fault = match fault {
        Fault::Other { message, part } => ExprFault { part, ..ExprFault::new(message) },
        Fault::Unknown(name) => {
            let near = nearest(&name, schema.fields().iter().map(|f| f.name().as_str()));
            ExprFault {
                help: near.map(|near| format!("did you mean `{near}`?")),
                ..ExprFault { part: Some(name.clone()), ..ExprFault::new(format!("no column `{name}`")) }
            }
        }
    };
    context.expression_fault(text, &fault);
    None
}

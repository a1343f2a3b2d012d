//! A policy as it is written: rules and thresholds in the order in which Anubis asks them, from its file and from those that
//! it imports.
//!
//! What Anubis refuses at its start is refused here, at its place. What it would take, but cannot be known here, such as a
//! key that a later version has, is noted with the rule, which is then not evaluated.

mod imports;
mod rule;

use std::path::PathBuf;

use engine::contract::PlanContext;
use engine::spec::{Diagnostic, Located, Span, Tree, Value};
use ipnet::IpNet;

use super::cel::Expr;

/// Rules at most.
pub(super) const MAX_RULES: usize = 4_096;
/// Networks of all rules at most.
const MAX_NETWORKS: usize = 100_000;
/// Thresholds at most.
const MAX_THRESHOLDS: usize = 256;

/// A policy.
pub(super) struct Policy {
    /// The rules; a rule's id is its place among them, from 1.
    pub rules: Vec<Rule>,
    /// What follows from the sum of weights: the first that holds.
    pub thresholds: Vec<Threshold>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It passes.
    Allow,
    /// It is refused.
    Deny,
    /// It must solve something.
    Challenge,
    /// A page for the authors of Anubis.
    Benchmark,
    /// So much is added to its weight, and the next rules are asked.
    Weigh(i32),
}

impl Action {
    /// The word for it in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Challenge => "CHALLENGE",
            Self::Benchmark => "DEBUG_BENCHMARK",
            Self::Weigh(_) => "WEIGH",
        }
    }
}

/// A rule. All matchers that it has must hold.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Its name, which others may have too.
    pub name: Located<String>,
    /// What follows if it matches.
    pub action: Action,
    /// The folder of its file.
    pub category: String,
    /// A regex of the crate `regex` for the User-Agent.
    pub user_agent: Option<String>,
    /// One for the path.
    pub path: Option<String>,
    /// One for each of these headers, by the names that Go gives them.
    pub headers: Vec<(String, String)>,
    /// Networks of the address; none if it does not matter.
    pub addresses: Vec<IpNet>,
    /// Autonomous systems of the address.
    pub asns: Option<Vec<u32>>,
    /// Countries of the address, in small letters.
    pub countries: Option<Vec<String>>,
    /// A condition.
    pub expression: Option<Expr>,
    /// Why it cannot be evaluated, if that is known from what is written.
    pub unknown: Option<String>,
}

/// What follows from the sum of weights.
#[derive(Clone, Debug)]
pub(super) struct Threshold {
    /// Its name.
    pub name: Located<String>,
    /// What follows.
    pub action: Action,
    /// A condition of `weight`.
    pub expression: Expr,
}

/// Reads a policy. What is wrong goes to the context.
pub(super) fn read(
    policy: &Located<PathBuf>,
    data: Option<&Located<PathBuf>>,
    context: &mut PlanContext<'_>,
) -> Option<Policy> {
    let tree = context.yaml(policy)?;
    let mut reader = imports::Reader::new(policy, data, context);
    let Some(entries) = tree.entries() else {
        let message = format!("a policy is a mapping with `bots`, not {}", tree.kind());
        reader
            .report(Diagnostic::new(tree.span, message).help("a file that is a list of rules is imported by a policy"));
        return None;
    };
    match tree.get("bots").map(|bots| (&bots.value, bots.span)) {
        Some((Value::List(items), span)) if items.is_empty() => reader.error(span, "a policy has at least one rule"),
        Some((Value::List(items), _)) => reader.rules(items),
        Some((_, span)) => reader.error(span, "`bots` is a list of rules and imports"),
        None => reader.error(tree.span, "a policy is a mapping with `bots`, a list of rules and imports"),
    }
    if let Some((key, _)) = entries.iter().find(|(key, value)| key.value == "dnsbl" && is_true(value)) {
        let message = "`dnsbl` asks a name server and is not applied";
        reader.warn(Diagnostic::new(key.span, message));
    }
    let thresholds = match tree.get("thresholds") {
        Some(Tree { value: Value::List(items), .. }) if !items.is_empty() => reader.thresholds(items),
        None | Some(Tree { value: Value::Null | Value::List(_), .. }) => vec![default_threshold(tree.span)],
        Some(other) => {
            reader.error(other.span, "`thresholds` is a list");
            Vec::new()
        }
    };
    let rules = reader.finish()?;
    Some(Policy { rules, thresholds })
}

fn is_true(tree: &Tree) -> bool {
    tree.text().is_some_and(|text| text.value == "true")
}

/// Anubis' threshold where a policy has none.
fn default_threshold(span: Span) -> Threshold {
    let weight = Box::new(Expr::Name("weight".to_owned()));
    Threshold {
        name: Located::new("legacy-anubis-behaviour".to_owned(), span),
        action: Action::Challenge,
        expression: Expr::Relation(super::cel::Relation::Greater, weight, Box::new(Expr::Int(0))),
    }
}

//! What an expression may not hold: patterns of regular expressions and of LIKE that are no constants of a bounded size, and
//! functions whose result nests.
//!
//! A pattern is compiled for each batch. One that comes out of a row would be compiled for each row, at the cost that
//! whoever sends the row chooses.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Operator};
use regex::RegexBuilder;

use super::ExprFault;

/// The most bytes of a pattern's text.
const MAX_TEXT: usize = 16 << 10;

/// The most bytes that a pattern may take once it is compiled.
const MAX_COMPILED: usize = 1 << 20;

/// Functions whose second argument is a pattern.
const FUNCTIONS: [&str; 5] = ["regexp_count", "regexp_instr", "regexp_like", "regexp_match", "regexp_replace"];

/// Functions that are not known in expressions.
const UNKNOWN: [&str; 2] = ["named_struct", "struct"];

/// What is said of a pattern that is none.
type Fault = (String, Option<String>);

/// Whether what is no constant yet may become one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// As it was written: `'^' || '/x'` is an expression.
    Written,
    /// As it is computed.
    Simplified,
}

/// Refuses patterns that are no constants, are too large, or are none; and functions that are not known here.
pub(super) fn check(expr: &Expr, stage: Stage) -> Result<(), ExprFault> {
    let mut found = None;
    // The closure never fails.
    let _ = expr.apply(|part| {
        found = check_part(part, stage).err();
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    let Some((message, part)) = found else { return Ok(()) };
    Err(ExprFault { part, ..ExprFault::new(message) })
}

fn check_part(part: &Expr, stage: Stage) -> Result<(), Fault> {
    let is_open = |pattern: &Expr| stage == Stage::Written && !matches!(pattern, Expr::Literal(..));
    let regex = |pattern: &Expr, of: &str| if is_open(pattern) { Ok(()) } else { regex(pattern, of) };
    let like = |pattern: &Expr| if is_open(pattern) { Ok(()) } else { constant(pattern, "like").map(drop) };
    match part {
        Expr::ScalarFunction(call) => {
            let name = call.func.name();
            if UNKNOWN.contains(&name) {
                let message = "`struct` cannot be used: what it makes doubles with each column that is derived from it";
                return Err((message.to_owned(), Some("struct".to_owned())));
            }
            let Some(pattern) = call.args.get(1).filter(|_| FUNCTIONS.contains(&name)) else { return Ok(()) };
            regex(pattern, name)
        }
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch => {
                regex(&binary.right, &binary.op.to_string())
            }
            Operator::LikeMatch | Operator::ILikeMatch | Operator::NotLikeMatch | Operator::NotILikeMatch => {
                like(&binary.right)
            }
            _ => Ok(()),
        },
        Expr::SimilarTo(similar) => regex(&similar.pattern, "similar to"),
        Expr::Like(part) => like(&part.pattern),
        _ => Ok(()),
    }
}

fn regex(pattern: &Expr, of: &str) -> Result<(), Fault> {
    let Some(text) = constant(pattern, of)? else { return Ok(()) };
    let Err(error) = RegexBuilder::new(&text).size_limit(MAX_COMPILED).build() else { return Ok(()) };
    let message = match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("the pattern takes more than {limit} bytes when it is compiled: repeat less, or less often")
        }
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("the pattern is no regular expression: {last}")
        }
    };
    Err((message, Some(text)))
}

/// The text of a pattern; `None` if it is null.
fn constant(pattern: &Expr, of: &str) -> Result<Option<String>, Fault> {
    let literal = match pattern {
        Expr::Literal(value, _) => value,
        Expr::Cast(cast) => return constant(&cast.expr, of),
        Expr::Alias(alias) => return constant(&alias.expr, of),
        _ => {
            let message = format!("the pattern of `{of}` is not a constant: it would be compiled for each row");
            return Err((message, Some(of.to_owned())));
        }
    };
    let text = literal.try_as_str().flatten().map(str::to_owned);
    match text {
        Some(text) if text.len() > MAX_TEXT => {
            Err((format!("the pattern of `{of}` has {} bytes; {MAX_TEXT} at most", text.len()), Some(of.to_owned())))
        }
        text => Ok(text),
    }
}

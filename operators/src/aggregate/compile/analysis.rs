//! What an expression says of itself: which columns it uses, what it costs, and whether it can fail.

use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::Expr;

use crate::aggregate::program::is_of_order;

/// The names of the columns that an expression uses, in order.
pub(super) fn columns(expr: &Expr) -> Vec<String> {
    let mut names: Vec<String> = expr.column_refs().into_iter().map(|c| c.name.clone()).collect();
    names.sort_unstable();
    names
}

/// Whether an expression uses a column that is known only when the order of the rows is.
pub(super) fn depends_on_order(expr: &Expr) -> bool {
    columns(expr).iter().any(|name| is_of_order(name))
}

/// Whether it pays to compute an expression for distinct values only.
pub(super) fn is_costly(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::ScalarFunction(_) | Expr::Like(_) | Expr::SimilarTo(_))))
        .unwrap_or(false)
}

/// Functions of text that have a value for any text, but one that would be too large.
const TOTAL: [&str; 18] = [
    "btrim",
    "character_length",
    "coalesce",
    "concat",
    "contains",
    "ends_with",
    "lower",
    "ltrim",
    "regexp_like",
    "regexp_replace",
    "replace",
    "reverse",
    "rtrim",
    "split_part",
    "starts_with",
    "string_concat",
    "strpos",
    "substr",
];

/// Whether an expression holds something that can fail for a value, so that it must not be computed for rows that a
/// condition beside it excludes.
pub(super) fn can_fail(expr: &Expr) -> bool {
    use datafusion::logical_expr::Operator::{Divide, Modulo};
    expr.exists(|part| {
        Ok(match part {
            Expr::Cast(_) => true,
            Expr::ScalarFunction(call) => !TOTAL.contains(&call.func.name()),
            Expr::BinaryExpr(binary) => matches!(binary.op, Divide | Modulo),
            _ => false,
        })
    })
    .unwrap_or(true)
}

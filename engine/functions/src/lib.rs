//! The SQL functions that are this project's own, beside DataFusion's: known in expressions and over HTTP alike. This
//! crate knows DataFusion and nothing else.

mod cidr;
mod network;
mod query;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// All of them.
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    network::all().into_iter().chain(query::all()).map(Arc::new).collect()
}

/// What each function gives, as Markdown: a part of the operator reference.
pub fn markdown() -> String {
    let mut out = String::from(
        "\n## SQL functions\n\nExpressions are SQL with DataFusion's functions and these, in filters, derived columns, features, rules and `POST /sql`. \
         An address is text; an IPv4-mapped IPv6 address, such as `::ffff:192.0.2.1`, is the IPv4 address, in networks too, and no network of IPv6 \
         has an IPv4 address. What is no address gives null, as null does. A network that is written as a constant is checked when \
         the pipeline is loaded; one of a column that is none gives null. To have a network as a client, derive it: \
         `- { name: net, expr: \"ip_prefix(src_ip, 24, 64)\" }`, and group by it.\n\n| function | what it gives |\n|---|---|\n",
    );
    for (usage, meaning) in network::REFERENCE.into_iter().chain(query::REFERENCE) {
        out.push_str(&format!("| `{usage}` | {meaning} |\n"));
    }
    out
}

/// An argument that no row can make right, such as a network that is none. It is found when an expression is planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadArgument {
    /// What is wrong, in one lower-case sentence.
    pub message: String,
    /// The argument as it is written.
    pub part: String,
    /// What was probably meant.
    pub help: Option<String>,
}

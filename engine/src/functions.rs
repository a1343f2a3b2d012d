//! The SQL functions that are this project's own, beside DataFusion's: known in expressions and over HTTP alike.

mod network;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// All of them.
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    network::all().into_iter().map(Arc::new).collect()
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

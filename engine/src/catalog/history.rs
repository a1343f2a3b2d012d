//! Rows of a served table that are kept where they must be asked for, such as a database server.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::Expr;

use crate::batch::Time;

/// The place that has a table's older rows.
///
/// It has every row of a message time before what [`crate::catalog::Table::commit`] was last told, and possibly later ones,
/// which are in memory as well.
pub trait History: Debug + Send + Sync {
    /// Whether the place can apply a filter by itself, with the very result that DataFusion would have.
    fn supports(&self, filter: &Expr) -> bool;

    /// What another process needs to read from the place, such as addresses. It may hold a password: it is never shown.
    fn describe(&self) -> serde_json::Value;

    /// Asks for rows when the stream is first polled. Faults are `DataFusionError::External` with a [`HistoryError`]. To drop
    /// the stream is to stop the query there.
    fn read(&self, wanted: Wanted) -> SendableRecordBatchStream;
}

/// Which rows are asked for, and what of them.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Rows of message times before this, in ms.
    pub before: Time,
    /// Columns of the table by position, in this order; of none only the number of rows is wanted.
    pub columns: Vec<usize>,
    /// Conditions that all rows must meet; each is supported.
    pub filters: Vec<Expr>,
    /// The most rows, any of them.
    pub limit: Option<usize>,
    /// How long the place may take.
    pub timeout: Duration,
}

/// Why older rows cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HistoryError(pub String);

/// The part of a table that is read from its [`History`].
#[derive(Clone, Debug)]
pub struct Stored {
    /// Where it is.
    pub place: Arc<dyn History>,
    /// Rows of message times before this are there and not in memory, in ms. `None` if that is not known yet.
    pub before: Option<Time>,
    /// Whether rows that are not known to be there have been forgotten, because too many were in memory.
    pub gap: bool,
}

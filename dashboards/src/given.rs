//! A table as one query is given it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use engine::catalog::{Segment, Stored, Table};

/// A table at one moment. Every mention of it in the query reads the same rows.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub name: String,
    pub schema: SchemaRef,
    /// Rows in memory.
    pub hot: Vec<RecordBatch>,
    /// Rows on disk.
    pub segments: Vec<Segment>,
    /// Rows elsewhere, if the table has such.
    pub stored: Option<Stored>,
    /// About how many settled rows are kept in memory.
    pub hot_rows: usize,
    /// Whether the rows are there. Those of a table that the statement does not name are not.
    pub is_read: bool,
}

impl Given {
    /// The table now, for a query in this process.
    pub(crate) fn now(table: &Table) -> Self {
        table.look_for_missing();
        let snapshot = table.without_gone(table.snapshot());
        Self {
            name: table.name.clone(),
            schema: Arc::clone(&table.schema),
            hot: snapshot.hot,
            segments: snapshot.segments,
            stored: snapshot.stored,
            hot_rows: table.hot_rows(),
            is_read: true,
        }
    }
}

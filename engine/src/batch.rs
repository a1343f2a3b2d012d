//! What travels on an edge, and what is known of an edge.

use arrow::datatypes::SchemaRef;

pub use spool::batch::{Batch, MAX_ROWS, Origin, SEQ, TIME, Time, WINDOW_START, stream_schema, time_array, time_type};

/// A timely stream of batches.
pub type Stream<'s> = timely::dataflow::Stream<'s, Time, Vec<Batch>>;

/// What is known of an edge when the pipeline is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeType {
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// Whether rows may be taken back.
    pub class: EdgeClass,
}

/// Facts or something that changes its mind.
#[derive(Clone, Debug, PartialEq)]
pub enum EdgeClass {
    /// Append-only; has the columns [`TIME`] and [`SEQ`].
    Stream,
    /// A collection with at most one row per key at any time; a change is a retraction and an insertion.
    Relation {
        /// Names of the key's columns.
        key: Vec<String>,
    },
}

impl EdgeType {
    /// An append-only stream.
    pub fn stream(schema: SchemaRef) -> Self {
        Self { schema, class: EdgeClass::Stream }
    }

    /// The same class with other columns.
    pub fn with_schema(&self, schema: SchemaRef) -> Self {
        Self { schema, class: self.class.clone() }
    }

    /// Whether rows can be taken back.
    pub fn is_relation(&self) -> bool {
        matches!(self.class, EdgeClass::Relation { .. })
    }
}

/// An edge while the dataflow is built.
pub struct Edge<'s> {
    /// The batches.
    pub stream: Stream<'s>,
    /// Their type.
    pub ty: EdgeType,
}

//! What travels on an edge: Arrow record batches with a multiplicity.
//!
//! A batch is homogeneous: all of its rows are insertions or all are retractions, all are on time or all are late.
//! Operators that work row by row (filters, derived columns, look-ups, rules) therefore never look at these marks:
//! they keep them with [`Batch::with_rows`], which makes every such operator linear in the sense of differential dataflow.

mod wire;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The dataflow's timestamp: a watermark in milliseconds since the Unix epoch.
///
/// A message at time `t` carries no on-time row whose event time is before `t`.
pub type Time = u64;

/// Name of the event-time column that every stream has: `Timestamp(Nanosecond, "UTC")`, never null.
pub const TIME: &str = "time";

/// Name of the column with a row's position in its source: `UInt64`, never null. Orders rows of equal event time.
pub const SEQ: &str = "seq";

/// The most rows that a batch should have.
pub const MAX_ROWS: usize = 8192;

/// A timely stream of batches.
pub type Stream<'s> = timely::dataflow::Stream<'s, Time, Vec<Batch>>;

/// Rows of one schema with the marks that they share.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows; the schema is that of the edge.
    pub rows: RecordBatch,
    /// `1` inserts the rows, `-1` takes back rows that were inserted before. Always `1` on a stream.
    pub diff: i8,
    /// The rows' event time was before their source's watermark when they were read.
    pub late: bool,
    /// The rows will never be taken back. Always true on a stream.
    pub settled: bool,
    /// Which worker an exchange sends the batch to, modulo the number of workers.
    pub route: u64,
}

impl Batch {
    /// Insertions that will not be taken back, on time.
    pub fn new(rows: RecordBatch) -> Self {
        Self { rows, diff: 1, late: false, settled: true, route: 0 }
    }

    /// Other rows with the same marks.
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        Self { rows, ..*self }
    }

    /// Event times in nanoseconds since the epoch, if the batch has a column [`TIME`].
    pub fn times(&self) -> Option<&TimestampNanosecondArray> {
        self.rows.column_by_name(TIME)?.as_any().downcast_ref()
    }

    /// Positions in the source, if the batch has a column [`SEQ`].
    pub fn seqs(&self) -> Option<&UInt64Array> {
        self.rows.column_by_name(SEQ)?.as_any().downcast_ref()
    }
}

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

/// The Arrow type of event times.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// The two columns that every stream starts with, then `fields`.
pub fn stream_schema(fields: impl IntoIterator<Item = Field>) -> SchemaRef {
    let head = [Field::new(TIME, time_type(), false), Field::new(SEQ, DataType::UInt64, false)];
    Arc::new(Schema::new(head.into_iter().chain(fields).collect::<Vec<_>>()))
}

/// An array of event times from nanoseconds since the epoch.
pub fn time_array(ns: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(ns).with_timezone("UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_survives_the_wire() {
        let schema = stream_schema([Field::new("host", DataType::Utf8, true)]);
        let host = arrow::array::StringArray::from(vec![Some("a"), None]);
        let columns: Vec<ArrayRef> =
            vec![time_array(vec![1, 2]), Arc::new(UInt64Array::from(vec![7, 8])), Arc::new(host)];
        let batch = Batch { diff: -1, route: 9, ..Batch::new(RecordBatch::try_new(schema, columns).expect("valid")) };
        let text = serde_json::to_string(&batch).expect("encodes");
        let back: Batch = serde_json::from_str(&text).expect("decodes");
        assert_eq!((back.rows, back.diff, back.route), (batch.rows, -1, 9));
    }
}

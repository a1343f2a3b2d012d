//! Rows as they travel on an edge, lie in a log and pass between processes: Arrow record batches with a multiplicity.
//!
//! A batch is homogeneous: all of its rows are insertions or all are retractions, all are on time or all are late.
//! Operators that work row by row (filters, derived columns, look-ups, rules) therefore never look at these marks:
//! they keep them with [`Batch::with_rows`], which makes every such operator linear in the sense of differential dataflow.

mod wire;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampNanosecondArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The dataflow's timestamp: a watermark in milliseconds since the Unix epoch.
///
/// A message at time `t` carries no on-time row whose event time is before `t`.
pub type Time = u64;

/// Name of the event-time column that every stream has: `Timestamp(Nanosecond, "UTC")`, never null.
pub const TIME: &str = "time";

/// Name of the column with a row's position in its source: `UInt64`, never null. Orders rows of equal event time.
pub const SEQ: &str = "seq";

/// Name of the column of a relation by window with the time at which the window begins.
pub const WINDOW_START: &str = "window_start";

/// The most rows that a batch should have.
pub const MAX_ROWS: usize = 8192;

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
    /// The log that the rows came from: its number among those that the dataflow reads, from 1; 0 if they came from
    /// several, or from none.
    pub origin: Origin,
}

/// Number of a log among those that a dataflow reads, from 1; see [`Batch::origin`].
pub type Origin = u16;

impl Batch {
    /// Insertions that will not be taken back, on time.
    pub fn new(rows: RecordBatch) -> Self {
        Self { rows, diff: 1, late: false, settled: true, route: 0, origin: 0 }
    }

    /// Other rows with the same marks.
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        Self { rows, ..*self }
    }

    /// Event times in nanoseconds since the epoch, if the batch has a column [`TIME`].
    pub fn times(&self) -> Option<&TimestampNanosecondArray> {
        self.rows.column_by_name(TIME)?.as_any().downcast_ref()
    }

    /// The rows whose time, in ns, is in a range, with the same marks: by the column [`TIME`], else by [`WINDOW_START`].
    /// All rows if there is neither; `None` if no row is left.
    pub fn within(&self, range: &Range<i64>) -> Option<Self> {
        let times = [TIME, WINDOW_START].into_iter().find_map(|name| self.rows.column_by_name(name));
        let Some(times) = times.and_then(|column| column.as_any().downcast_ref::<TimestampNanosecondArray>()) else {
            return Some(self.clone());
        };
        let wanted: BooleanArray =
            times.iter().map(|time| Some(time.is_some_and(|time| range.contains(&time)))).collect();
        let rows = filter_record_batch(&self.rows, &wanted).ok().filter(|rows| rows.num_rows() > 0)?;
        Some(self.with_rows(rows))
    }

    /// Positions in the source, if the batch has a column [`SEQ`].
    pub fn seqs(&self) -> Option<&UInt64Array> {
        self.rows.column_by_name(SEQ)?.as_any().downcast_ref()
    }
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
        let rows = RecordBatch::try_new(schema, columns).expect("valid");
        let batch = Batch { diff: -1, route: 9, origin: 2, ..Batch::new(rows) };
        let text = serde_json::to_string(&batch).expect("encodes");
        let back: Batch = serde_json::from_str(&text).expect("decodes");
        assert_eq!((back.rows, back.diff, back.route, back.origin), (batch.rows, -1, 9, 2));
    }

    #[test]
    fn rows_of_a_time_keep_their_marks() {
        let columns: Vec<ArrayRef> = vec![time_array(vec![10, 20, 30]), Arc::new(UInt64Array::from(vec![1, 2, 3]))];
        let batch =
            Batch { late: true, ..Batch::new(RecordBatch::try_new(stream_schema([]), columns).expect("valid")) };
        let some = batch.within(&(10..30)).expect("two rows");
        assert_eq!((some.rows, some.late), (batch.rows.slice(0, 2), true));
        assert!(batch.within(&(31..i64::MAX)).is_none());
        let other = Batch::new(batch.rows.project(&[1]).expect("a column"));
        assert_eq!(other.within(&(0..1)).expect("rows without a time").rows.num_rows(), 3);
    }
}

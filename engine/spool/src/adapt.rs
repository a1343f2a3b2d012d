//! Rows of earlier schemas in today's.

use arrow::array::{Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray, new_null_array};
use arrow::datatypes::SchemaRef;

use crate::batch::TIME;

/// `rows` with the columns of `schema`, by name: what is missing is null. `None` if a type differs, or if a column that
/// is never null is missing or has nulls.
pub(crate) fn adapt(rows: RecordBatch, schema: &SchemaRef) -> Option<RecordBatch> {
    if rows.schema_ref() == schema {
        return Some(rows);
    }
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) => (column.data_type() == field.data_type()).then(|| column.clone()),
        None => field.is_nullable().then(|| new_null_array(field.data_type(), rows.num_rows())),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Option<_>>()?, &options).ok()
}

/// Least and greatest event time in ns: `i64::MAX` and `i64::MIN` if there is none.
pub(crate) fn event_times(rows: &RecordBatch) -> (i64, i64) {
    let times = rows.column_by_name(TIME).and_then(|column| column.as_any().downcast_ref::<TimestampNanosecondArray>());
    match times {
        Some(times) if times.null_count() == 0 => fold(times.values().iter().copied()),
        Some(times) => fold(times.iter().flatten()),
        None => fold(std::iter::empty()),
    }
}

fn fold(times: impl Iterator<Item = i64>) -> (i64, i64) {
    times.fold((i64::MAX, i64::MIN), |(least, greatest), time| (least.min(time), greatest.max(time)))
}

/// Bytes of memory that the rows of a batch take, without what its buffers hold beside them.
pub(crate) fn bytes_of(rows: &RecordBatch) -> u64 {
    let bytes = |column: &dyn Array| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    rows.columns().iter().map(|column| bytes(column.as_ref()) as u64).sum()
}

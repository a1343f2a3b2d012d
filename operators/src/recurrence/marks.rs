//! What of a detection counts, and what is said of a key's detections.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use engine::batch::{Batch, Time, time_array};
use engine::contract::NodeMetrics;
use serde::{Deserialize, Serialize};

use super::Columns;
use crate::detect::rules::levels;
use crate::relation::Row;
use crate::relation::windows::{Ages, number, ordered};

/// The columns of `by`, row-encoded.
pub(crate) type Key = Box<[u8]>;

/// Encodes keys, the same on every worker.
pub(crate) struct Keys {
    converter: RowConverter,
    by: Vec<usize>,
}

impl Keys {
    pub fn new(schema: &Schema, by: &[usize]) -> Result<Self, ArrowError> {
        let fields = by.iter().map(|index| SortField::new(schema.field(*index).data_type().clone()));
        Ok(Self { converter: RowConverter::new(fields.collect())?, by: by.to_vec() })
    }

    /// The keys of rows.
    pub fn of(&self, rows: &RecordBatch) -> Result<Rows, ArrowError> {
        let columns: Vec<ArrayRef> = self.by.iter().map(|index| rows.column(*index).clone()).collect();
        self.converter.convert_columns(&columns)
    }

    fn columns<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Result<Vec<ArrayRef>, ArrowError> {
        let parser = self.converter.parser();
        self.converter.convert_rows(keys.map(|key| parser.parse(key)))
    }
}

/// What of a detection counts. Detections of a key that are equal in this are one row that is there several times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Start of the window, in ns.
    pub window: i64,
    /// Index into [`levels`].
    pub level: Option<u8>,
    /// A score as an integer of the same order; see [`ordered`].
    pub score: Option<i64>,
}

/// Reads detections as rows of a collection.
pub(crate) struct Reader {
    keys: Rc<Keys>,
    columns: Columns,
    ages: Ages,
    without_window: Arc<AtomicU64>,
}

impl Reader {
    pub fn new(keys: Rc<Keys>, columns: Columns, ages: Ages, metrics: &NodeMetrics) -> Self {
        Self { keys, columns, ages, without_window: metrics.counter("without_window") }
    }

    /// Adds a batch's rows. A row without a window belongs nowhere; the counter `without_window` has it.
    pub fn read(&mut self, batch: &Batch, time: Time, into: &mut Vec<Row<Key, Mark>>) -> Result<(), ArrowError> {
        let rows = &batch.rows;
        let keys = self.keys.of(rows)?;
        let windows = rows.column(self.columns.window).as_primitive::<TimestampNanosecondType>();
        let names = self.columns.level.map(|index| rows.column(index).as_string::<i32>());
        let scores = self.columns.score.map(|index| cast(rows.column(index), &DataType::Float64)).transpose()?;
        let scores: Option<&Float64Array> = scores.as_ref().map(|scores| scores.as_primitive::<Float64Type>());
        let events = batch.times();
        for row in 0..rows.num_rows() {
            if windows.is_null(row) {
                NodeMetrics::add(&self.without_window, 1);
                continue;
            }
            let level = names.filter(|names| names.is_valid(row)).and_then(|names| rank(names.value(row)));
            let score = scores.filter(|scores| scores.is_valid(row)).and_then(|scores| ordered(scores.value(row)));
            let window = windows.value(row);
            into.push(Row {
                key: keys.row(row).data().into(),
                value: Mark { window, level, score },
                at: self.ages.at(time, events.map(|events| events.value(row))),
                until: self.ages.until(window),
                diff: isize::from(batch.diff),
            });
        }
        Ok(())
    }
}

/// Place of a level among [`levels`]; what is none of them has none.
fn rank(level: &str) -> Option<u8> {
    levels().iter().position(|name| *name == level).and_then(|rank| u8::try_from(rank).ok())
}

/// What is said of a key's detections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Summary {
    windows: u32,
    detections: u64,
    level: Option<u8>,
    score: Option<i64>,
    first: i64,
    last: i64,
}

impl Summary {
    /// The sum of marks, which are in their order: by window first. There is at least one.
    pub fn of(marks: &[(&Mark, isize)]) -> Self {
        let mut sum = Self { windows: 0, detections: 0, level: None, score: None, first: i64::MAX, last: i64::MIN };
        for (mark, count) in marks {
            sum.windows = sum.windows.saturating_add(u32::from(sum.windows == 0 || sum.last != mark.window));
            sum.detections = sum.detections.saturating_add(count.unsigned_abs() as u64);
            sum.level = sum.level.max(mark.level);
            sum.score = sum.score.into_iter().chain(mark.score).min();
            sum.first = sum.first.min(mark.window);
            sum.last = sum.last.max(mark.window);
        }
        sum
    }
}

/// Makes rows of summaries.
pub(crate) struct Writer {
    keys: Rc<Keys>,
    has_level: bool,
    has_score: bool,
    schema: SchemaRef,
}

impl Writer {
    pub fn new(keys: Rc<Keys>, columns: &Columns, schema: SchemaRef) -> Self {
        Self { keys, has_level: columns.level.is_some(), has_score: columns.score.is_some(), schema }
    }

    pub fn write(&self, rows: &[(Key, Summary)]) -> Result<RecordBatch, ArrowError> {
        let sums = || rows.iter().map(|(_, sum)| sum);
        let mut columns = self.keys.columns(rows.iter().map(|(key, _)| key))?;
        columns.push(Arc::new(UInt32Array::from_iter_values(sums().map(|sum| sum.windows))));
        columns.push(Arc::new(UInt64Array::from_iter_values(sums().map(|sum| sum.detections))));
        if self.has_level {
            let names = levels();
            let name = |rank: u8| names.get(usize::from(rank)).copied();
            columns.push(Arc::new(sums().map(|sum| sum.level.and_then(name)).collect::<StringArray>()));
        }
        if self.has_score {
            columns.push(Arc::new(sums().map(|sum| sum.score.map(number)).collect::<Float64Array>()));
        }
        columns.push(time_array(sums().map(|sum| sum.first).collect()));
        columns.push(time_array(sums().map(|sum| sum.last).collect()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// Starts of windows in ns; null where a row has none.
pub(crate) fn windows<'a>(rows: &'a RecordBatch, columns: &Columns) -> &'a TimestampNanosecondArray {
    rows.column(columns.window).as_primitive::<TimestampNanosecondType>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_windows_once_and_rows_as_often_as_they_are_there() {
        let mark = |window, level, score| Mark { window, level, score };
        let marks = [mark(10, None, None), mark(10, Some(3), Some(5)), mark(20, Some(1), Some(-7))];
        let counted: Vec<(&Mark, isize)> = marks.iter().zip([1, 2, 1]).collect();
        let expected = Summary { windows: 2, detections: 4, level: Some(3), score: Some(-7), first: 10, last: 20 };
        assert_eq!(Summary::of(&counted), expected);
    }
}

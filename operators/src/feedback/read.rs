//! Between batches and what is held.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use engine::batch::{Batch, MAX_ROWS, SEQ, TIME, Time};
use engine::contract::NodeMetrics;
use twox_hash::XxHash64;

use super::held::{Bytes, Given, Held, Leaving};
use super::said::{Saying, Who, Word};
use crate::source::feedback::{ABOUT, Label};

/// When rows take effect: at the close of the tick in which they come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    pub tick: Time,
    /// The messages' times are when rows change; else rows have a time of their own.
    pub is_relation: bool,
}

impl Ticks {
    fn at(self, stamp: Time, event: Option<i64>) -> Time {
        let time = match event.filter(|_| !self.is_relation) {
            Some(ns) => stamp.max(millis(ns)).saturating_add(1),
            None => stamp,
        };
        time.checked_next_multiple_of(self.tick).unwrap_or(time)
    }
}

/// ns since the epoch as a time of the dataflow: rounded down.
fn millis(ns: i64) -> Time {
    Time::try_from(ns.div_euclid(1_000_000)).unwrap_or(0)
}

/// Encodes rows, and gives them back with what was said of them.
pub(super) struct Rows {
    whole: RowConverter,
    client: RowConverter,
    /// Where the rows have the columns [`ABOUT`], if they do.
    about: [Option<usize>; ABOUT.len()],
    ticks: Ticks,
    out: SchemaRef,
}

impl Rows {
    pub fn new(
        schema: &Schema,
        about: [Option<usize>; ABOUT.len()],
        ticks: Ticks,
        out: SchemaRef,
    ) -> Result<Self, ArrowError> {
        let field = |index: usize| SortField::new(schema.field(index).data_type().clone());
        Ok(Self {
            whole: RowConverter::new((0..schema.fields().len()).map(field).collect())?,
            client: RowConverter::new(about.iter().flatten().map(|index| field(*index)).collect())?,
            about,
            ticks,
            out,
        })
    }

    fn clients(&self, rows: &RecordBatch) -> Result<arrow::row::Rows, ArrowError> {
        let columns: Vec<ArrayRef> = self.about.iter().flatten().map(|index| Arc::clone(rows.column(*index))).collect();
        self.client.convert_columns(&columns)
    }

    /// A hash of whose each row is.
    pub fn hash(&self, rows: &RecordBatch, hashes: &mut Vec<u64>) -> Result<(), ArrowError> {
        let clients = self.clients(rows)?;
        hashes.extend(clients.iter().map(|client| XxHash64::oneshot(0, client.data())));
        Ok(())
    }

    /// Adds the rows of a batch that came at a time.
    pub fn read(&self, batch: &Batch, stamp: Time, held: &mut Held) -> Result<(), ArrowError> {
        let (whole, clients) = (self.whole.convert_columns(batch.rows.columns())?, self.clients(&batch.rows)?);
        let columns: [Option<&StringArray>; ABOUT.len()] =
            self.about.map(|index| index.and_then(|index| batch.rows.column(index).as_string_opt::<i32>()));
        let events = batch.times();
        for row in 0..batch.rows.num_rows() {
            let who = || -> Who { columns.map(|column| Some(column.filter(|c| c.is_valid(row))?.value(row).into())) };
            let at = self.ticks.at(stamp, events.map(|events| events.value(row)));
            let arrivals = held.waiting.entry(at).or_default();
            let client: Bytes = clients.row(row).data().into();
            arrivals.row((client, who), whole.row(row).data().into(), isize::from(batch.diff), batch.settled);
        }
        Ok(())
    }

    /// Batches of what leaves: first what is taken back, then what may be, then what stays.
    pub fn write(&self, leaving: Leaving, mut give: impl FnMut(Batch)) -> Result<(), ArrowError> {
        let mut parts: [Vec<Given>; 3] = Default::default();
        for (given, count) in leaving.open {
            parts[usize::from(count > 0)].extend(std::iter::repeat_n(given, count.unsigned_abs()));
        }
        parts[2] = leaving.settled;
        for ((diff, settled), rows) in [(-1, false), (1, false), (1, true)].into_iter().zip(parts) {
            for rows in rows.chunks(MAX_ROWS) {
                give(Batch { diff, settled, ..Batch::new(self.batch(rows)?) });
            }
        }
        Ok(())
    }

    fn batch(&self, rows: &[Given]) -> Result<RecordBatch, ArrowError> {
        let parser = self.whole.parser();
        let mut columns = self.whole.convert_rows(rows.iter().map(|(row, _)| parser.parse(row)))?;
        let words = || rows.iter().map(|(_, word)| word.as_deref());
        let text = |of: fn(&Word) -> &str| Arc::new(words().map(|word| word.map(of)).collect::<StringArray>());
        columns.push(text(|word| word.label.name()));
        columns.push(text(|word| &word.by));
        let times = words().map(|word| word.map(|word| word.at)).collect::<Vec<_>>();
        let times = arrow::array::TimestampNanosecondArray::from(times).with_timezone("UTC");
        columns.push(Arc::new(times));
        RecordBatch::try_new(Arc::clone(&self.out), columns)
    }
}

/// Reads what is said.
pub(super) struct Sayings {
    tick: Time,
    not_understood: Arc<AtomicU64>,
}

impl Sayings {
    pub fn new(tick: Time, metrics: &NodeMetrics) -> Self {
        Self { tick, not_understood: metrics.counter("not_understood") }
    }

    /// Adds what a batch says that came at a time. It has the columns of `source.feedback`.
    pub fn read(&self, batch: &Batch, stamp: Time, held: &mut Held) -> Result<(), ArrowError> {
        let missing = |name: &str| ArrowError::SchemaError(format!("the column {name} is missing"));
        let column = |name: &str| batch.rows.column_by_name(name).ok_or_else(|| missing(name));
        let text = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| missing(name));
        let times =
            |name: &str| column(name)?.as_primitive_opt::<TimestampNanosecondType>().ok_or_else(|| missing(name));
        let [src_ip, host, ja4] = ABOUT;
        let about = [text(src_ip)?, text(host)?, text(ja4)?];
        let (labels, by, given_at, until) = (text("label")?, text("who")?, times("given_at")?, times("until")?);
        let (events, seqs) = (times(TIME)?, batch.seqs().ok_or_else(|| missing(SEQ))?);
        let ticks = Ticks { tick: self.tick, is_relation: false };
        for row in 0..batch.rows.num_rows() {
            let about: Who = about.map(|column| column.is_valid(row).then(|| column.value(row).into()));
            let label = labels.is_valid(row).then(|| Label::of(labels.value(row)));
            if about.iter().all(Option::is_none) || label == Some(None) {
                NodeMetrics::add(&self.not_understood, 1);
                continue;
            }
            let word = |label| Rc::new(Word { at: given_at.value(row), label, by: by.value(row).into() });
            let until = millis(until.value(row));
            let until = until.checked_next_multiple_of(self.tick).unwrap_or(until);
            let event = events.value(row);
            let arrivals = held.waiting.entry(ticks.at(stamp, Some(event))).or_default();
            arrivals.saying((event, seqs.value(row)), Saying { about, word: label.flatten().map(word), until });
        }
        Ok(())
    }
}

//! Rows that wait until the frontier has passed their event time, so that they are taken in order.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{TimestampNanosecondType, UInt64Type};
use arrow::row::{RowConverter, Rows};
use datafusion::error::DataFusionError;
use engine::batch::MAX_ROWS;

use super::hash::seeded;
use super::program::Program;

/// Rows that are in order already are taken without a copy if there are at least this many.
const RUN: usize = 1024;

/// Waiting rows, computed as far as that is possible without their order.
#[derive(Default)]
pub(super) struct Pending {
    /// By event time of the next row and by number of arrival.
    batches: BTreeMap<(i64, u64), (Prepared, usize)>,
    arrivals: u64,
}

/// Rows of one batch.
pub(super) struct Prepared {
    /// Event time, seq and row, in this order.
    order: Vec<(i64, u64, u32)>,
    keys: Rows,
    hashes: Vec<u64>,
    columns: Vec<ArrayRef>,
}

impl Pending {
    /// Takes in rows that have the program's needed columns.
    ///
    /// # Errors
    /// If a column cannot be computed.
    pub(super) fn push(
        &mut self,
        program: &Program,
        converter: &RowConverter,
        rows: &RecordBatch,
    ) -> Result<(), DataFusionError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let prepared = Prepared::new(program, converter, rows)?;
        self.arrivals += 1;
        self.batches.insert((prepared.order[0].0, self.arrivals), (prepared, 0));
        Ok(())
    }

    /// Event time of the first waiting row, in ns since the epoch.
    pub(super) fn first(&self) -> Option<i64> {
        self.batches.first_key_value().map(|((time, _), _)| *time)
    }

    /// Takes out the rows up to and including event time `last`.
    pub(super) fn take(&mut self, last: i64) -> Ordered {
        let mut ordered = Ordered::default();
        while let Some(entry) = self.batches.first_entry().filter(|e| e.key().0 <= last) {
            let ((_, arrival), (batch, from)) = entry.remove_entry();
            let to = from + batch.order[from..].partition_point(|row| row.0 <= last);
            let number = ordered.batches.len() as u32;
            ordered.order.extend(batch.order[from..to].iter().map(|(time, seq, row)| (*time, *seq, number, *row)));
            if let Some((next, _, _)) = batch.order.get(to) {
                ordered.rest.push((number, (*next, arrival), to));
            }
            ordered.batches.push(batch);
        }
        if !ordered.order.is_sorted() {
            ordered.order.sort_unstable();
        }
        ordered
    }

    /// Takes back the batches of `taken` that have rows left.
    pub(super) fn give_back(&mut self, taken: Ordered) {
        let mut rest = taken.rest.into_iter().peekable();
        for (number, batch) in taken.batches.into_iter().enumerate() {
            if let Some((_, key, from)) = rest.next_if(|(n, _, _)| *n as usize == number) {
                self.batches.insert(key, (batch, from));
            }
        }
    }
}

impl Prepared {
    fn new(program: &Program, converter: &RowConverter, rows: &RecordBatch) -> Result<Self, DataFusionError> {
        let times = rows.column(program.time).as_primitive::<TimestampNanosecondType>().values();
        let seqs = rows.column(program.seq).as_primitive::<UInt64Type>().values();
        let mut order: Vec<(i64, u64, u32)> =
            times.iter().zip(seqs).zip(0..).map(|((time, seq), row)| (*time, *seq, row)).collect();
        if !order.is_sorted() {
            order.sort_unstable();
        }
        let keys = converter.convert_columns(&rows.columns()[..program.by])?;
        let state = seeded();
        let hashes = keys.iter().map(|key| state.hash_one(key.data())).collect();
        Ok(Self { order, keys, hashes, columns: program.early(rows)? })
    }
}

/// Rows in the order in which they are to be processed.
#[derive(Default)]
pub(super) struct Ordered {
    batches: Vec<Prepared>,
    /// Event time, seq, batch and row.
    order: Vec<(i64, u64, u32, u32)>,
    /// Batches that have rows left: number, key, next row.
    rest: Vec<(u32, (i64, u64), usize)>,
    at: usize,
}

impl Ordered {
    /// Event time of the next row.
    pub(super) fn next_time(&self) -> Option<i64> {
        self.order.get(self.at).map(|row| row.0)
    }

    /// Event time of the first row that is held but not to be processed now.
    pub(super) fn rest_time(&self) -> Option<i64> {
        self.rest.iter().map(|(_, (time, _), _)| *time).min()
    }

    /// How many of the next rows to take at once, all of them before event time `end`.
    pub(super) fn chunk(&self, end: i64) -> usize {
        let rows = &self.order[self.at..];
        let rows = &rows[..rows.len().min(MAX_ROWS)];
        let rows = &rows[..rows.partition_point(|row| row.0 < end)];
        let Some(first) = rows.first() else { return 0 };
        let run = rows.iter().zip(first.3..).take_while(|(row, at)| row.2 == first.2 && row.3 == *at).count();
        if run >= RUN { run } else { rows.len() }
    }

    /// Event time, key hash and key of one of the next rows.
    pub(super) fn row(&self, ahead: usize) -> (i64, u64, &[u8]) {
        let (time, _, batch, row) = self.order[self.at + ahead];
        let batch = &self.batches[batch as usize];
        (time, batch.hashes[row as usize], batch.keys.row(row as usize).data())
    }

    /// The columns of the next `rows` rows, in order.
    pub(super) fn columns(&self, rows: usize) -> Result<Vec<ArrayRef>, DataFusionError> {
        let order = &self.order[self.at..self.at + rows];
        let Some(&(_, _, number, first)) = order.first() else { return Ok(Vec::new()) };
        let columns = &self.batches[number as usize].columns;
        if order.iter().all(|row| row.2 == number) {
            if order.iter().zip(first..).all(|(row, at)| row.3 == at) {
                return Ok(columns.iter().map(|c| c.slice(first as usize, rows)).collect());
            }
            let indices = order.iter().map(|row| row.3).collect::<UInt32Array>();
            return Ok(columns.iter().map(|c| take(c, &indices, None)).collect::<Result<_, _>>()?);
        }
        let indices: Vec<(usize, usize)> = order.iter().map(|row| (row.2 as usize, row.3 as usize)).collect();
        let mut gathered = Vec::with_capacity(columns.len());
        for column in 0..columns.len() {
            let parts: Vec<&dyn Array> = self.batches.iter().map(|b| b.columns[column].as_ref()).collect();
            gathered.push(interleave(&parts, &indices)?);
        }
        Ok(gathered)
    }

    /// The next `rows` rows are done.
    pub(super) fn advance(&mut self, rows: usize) {
        self.at += rows;
    }
}

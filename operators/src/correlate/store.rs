//! Rows that wait, kept in the batches in which they came.
//!
//! A row is named by a [`Row`]; nothing is copied until rows leave. A batch is freed with its last waiting row. Batches
//! of which little is left, and very small ones, are copied together, a few at a time ([`Store::tidy`]).

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use engine::batch::{MAX_ROWS, Origin};

use super::gather::Gather;
use crate::cut::row_units;

/// Names a row in a [`Store`] for as long as it waits.
pub(super) type Row = u32;

/// More batches than this that are small or mostly left are copied together.
const MANY: usize = 512;

/// The place of a row that does not wait.
const GONE: (u32, u32) = (u32::MAX, 0);

/// A batch of fewer rows is small: its arrays take more memory than its rows.
const SMALL: usize = 256;

/// Batches with waiting rows.
#[derive(Default)]
pub(super) struct Store {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// For each row its batch and place there; [`GONE`] for names that are free.
    places: Vec<(u32, u32)>,
    /// What each row counts for against a bound, by its name.
    row_units: Vec<u32>,
    /// What all that wait count for.
    units: usize,
    free_rows: Vec<Row>,
    held: usize,
    waiting: usize,
    thin: usize,
    /// Where the search for thin batches goes on.
    cursor: usize,
    /// The log that the first rows came from.
    first_origin: Option<Origin>,
    is_mixed: bool,
}

struct Slot {
    batch: RecordBatch,
    origin: Origin,
    /// The names of the rows.
    rows: Vec<Row>,
    waiting: usize,
}

impl Slot {
    /// Whether it is worth copying what waits to another batch.
    fn is_thin(&self) -> bool {
        self.rows.len() < SMALL || self.waiting * 4 < self.rows.len()
    }
}

impl Store {
    /// Keeps a batch, all of whose rows wait. Returns their names.
    pub fn insert(&mut self, batch: RecordBatch, origin: Origin) -> Vec<Row> {
        let count = batch.num_rows();
        self.is_mixed |= *self.first_origin.get_or_insert(origin) != origin;
        let reused = self.free_rows.len().min(count);
        let mut rows = self.free_rows.split_off(self.free_rows.len() - reused);
        let fresh = self.places.len()..self.places.len() + count - reused;
        self.places.resize(fresh.end, GONE);
        self.row_units.resize(fresh.end, 0);
        rows.extend(fresh.map(|row| row as Row));
        for (row, units) in rows.iter().zip(row_units(&batch)) {
            self.row_units[*row as usize] = units;
            self.units += units as usize;
        }
        self.keep(batch, origin, rows.clone());
        rows
    }

    /// A row waits no longer.
    pub fn release(&mut self, row: Row) {
        let (slot, _) = self.place(row);
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        let Some(kept) = entry else { return };
        self.places[row as usize] = GONE;
        self.free_rows.push(row);
        self.units -= self.row_units[row as usize] as usize;
        self.waiting -= 1;
        let was_thin = kept.is_thin();
        kept.waiting -= 1;
        let is_thin = kept.is_thin();
        self.thin += usize::from(is_thin && !was_thin);
        if kept.waiting == 0 {
            self.held -= kept.rows.len();
            self.thin -= usize::from(is_thin);
            *entry = None;
            self.free.push(slot);
        }
    }

    /// What all rows that wait count for against a bound: one with long texts counts for several.
    pub fn units(&self) -> usize {
        self.units
    }

    /// What a row counts for.
    pub fn units_of(&self, row: Row) -> u32 {
        self.row_units.get(row as usize).copied().unwrap_or(0)
    }

    /// The batch of a row, and its place there.
    pub fn find(&self, row: Row) -> Option<(&RecordBatch, usize)> {
        let (slot, at) = self.place(row);
        Some((self.batch(slot)?, at as usize))
    }

    /// Whether rows of more than one log have come.
    pub fn is_mixed(&self) -> bool {
        self.is_mixed
    }

    /// The log that a row came from.
    pub fn origin(&self, row: Row) -> Origin {
        let slot = self.slots.get(self.place(row).0 as usize).and_then(Option::as_ref);
        slot.map_or(0, |slot| slot.origin)
    }

    /// The number of a row's batch, below [`Store::slots`], and its place there.
    pub fn place(&self, row: Row) -> (u32, u32) {
        self.places.get(row as usize).copied().unwrap_or(GONE)
    }

    /// A batch by its number.
    pub fn batch(&self, slot: u32) -> Option<&RecordBatch> {
        self.slots.get(slot as usize)?.as_ref().map(|slot| &slot.batch)
    }

    /// How many batches there may be.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Copies rows of thin batches of one origin together, at most [`MAX_ROWS`], if there is much to gain.
    pub fn tidy(&mut self) -> Result<(), ArrowError> {
        if self.thin <= MANY && self.held <= 4 * self.waiting + 8 * MAX_ROWS {
            return Ok(());
        }
        let (mut picked, mut rows) = (Vec::new(), Vec::new());
        let mut origin = None;
        for _ in 0..self.slots.len() {
            self.cursor = if self.cursor >= self.slots.len() { 0 } else { self.cursor };
            if let Some(slot) = self.slots[self.cursor].as_ref().filter(|slot| slot.is_thin())
                && *origin.get_or_insert(slot.origin) == slot.origin
            {
                if !rows.is_empty() && rows.len() + slot.waiting > MAX_ROWS {
                    break;
                }
                picked.push(self.cursor as u32);
                let here = |row: &Row, at: usize| self.places[*row as usize] == (self.cursor as u32, at as u32);
                rows.extend(slot.rows.iter().enumerate().filter(|(at, row)| here(row, *at)).map(|(_, row)| *row));
            }
            self.cursor += 1;
        }
        self.join(&picked, origin.unwrap_or_default(), rows)
    }

    /// Copies rows, all that wait in the batches `picked`, into a batch of their own.
    fn join(&mut self, picked: &[u32], origin: Origin, rows: Vec<Row>) -> Result<(), ArrowError> {
        let mut gather = Gather::default();
        gather.pick(self, rows.iter().map(|row| Some(*row)));
        let Some(schema) = picked.first().and_then(|slot| self.batch(*slot)).map(RecordBatch::schema) else {
            return Ok(());
        };
        let columns = schema.fields().iter().enumerate();
        let columns = columns.map(|(at, field)| gather.column(self, at, field.data_type()));
        let columns = columns.collect::<Result<_, _>>()?;
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        for slot in picked {
            if let Some(gone) = self.slots[*slot as usize].take() {
                self.held -= gone.rows.len();
                self.waiting -= gone.waiting;
                self.thin -= 1;
                self.free.push(*slot);
            }
        }
        self.keep(batch, origin, rows);
        Ok(())
    }

    fn keep(&mut self, batch: RecordBatch, origin: Origin, rows: Vec<Row>) {
        if rows.is_empty() {
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        for (at, row) in rows.iter().enumerate() {
            self.places[*row as usize] = (slot, at as u32);
        }
        self.held += rows.len();
        self.waiting += rows.len();
        let kept = Slot { batch, origin, waiting: rows.len(), rows };
        self.thin += usize::from(kept.is_thin());
        self.slots[slot as usize] = Some(kept);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, UInt64Array};
    use arrow::datatypes::{DataType, Field, Schema, UInt64Type};

    use super::*;

    fn batch(values: std::ops::Range<u64>) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("n", DataType::UInt64, false)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(UInt64Array::from_iter_values(values))]).expect("valid")
    }

    fn value(store: &Store, row: Row) -> Option<u64> {
        let (batch, at) = store.find(row)?;
        Some(batch.column(0).as_primitive::<UInt64Type>().value(at))
    }

    #[test]
    fn small_batches_are_copied_together_and_keep_their_rows() {
        let mut store = Store::default();
        let rows: Vec<Row> = (0..5_000).flat_map(|n| store.insert(batch(n..n + 1), (n % 2) as Origin)).collect();
        rows.iter().step_by(3).for_each(|row| store.release(*row));
        while store.thin > MANY {
            store.tidy().expect("copies");
        }
        for (n, row) in rows.iter().enumerate() {
            assert_eq!(value(&store, *row), (n % 3 != 0).then_some(n as u64));
            assert!(n % 3 == 0 || store.origin(*row) == (n % 2) as Origin, "rows of two logs were put together");
        }
        assert!(store.slots.iter().flatten().count() <= MANY + 1);
    }

    #[test]
    fn batches_of_which_little_is_left_give_their_memory_back() {
        let mut store = Store::default();
        let mut kept = Vec::new();
        for n in 0..200 {
            let rows = store.insert(batch(n * 8192..(n + 1) * 8192), 0);
            kept.push((n * 8192 + 77, rows[77]));
            rows.iter().enumerate().filter(|(at, _)| *at != 77).for_each(|(_, row)| store.release(*row));
            store.tidy().expect("copies");
            assert!(store.held <= 4 * store.waiting + 9 * MAX_ROWS, "{}", store.held);
        }
        assert!(kept.iter().all(|(n, row)| value(&store, *row) == Some(*n)));
        kept.iter().for_each(|(_, row)| store.release(*row));
        assert_eq!((store.held, store.waiting, store.thin, store.units()), (0, 0, 0, 0));
    }
}

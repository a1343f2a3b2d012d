//! Rows that wait, kept in the batches in which they came.
//!
//! A row is named by its batch and position; nothing is copied until rows leave, when [`Gather`] takes them from all
//! their batches at once. A batch is freed with its last waiting row; [`Store::is_sparse`] says when moving the rows
//! together would free much.

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use hashbrown::HashMap;

/// Names a row in a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowRef {
    pub batch: u32,
    pub row: u32,
}

/// Batches with waiting rows.
#[derive(Default)]
pub(super) struct Store {
    slots: Vec<Option<(RecordBatch, usize)>>,
    free: Vec<u32>,
    held: usize,
    waiting: usize,
}

impl Store {
    /// Keeps a batch, all of whose rows wait. Returns its number.
    pub fn insert(&mut self, batch: RecordBatch) -> u32 {
        let rows = batch.num_rows();
        self.held += rows;
        self.waiting += rows;
        let entry = Some((batch, rows));
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// A row waits no longer.
    pub fn release(&mut self, row: RowRef) {
        let Some(slot) = self.slots.get_mut(row.batch as usize) else { return };
        let Some((batch, waiting)) = slot else { return };
        *waiting -= 1;
        self.waiting -= 1;
        if *waiting == 0 {
            self.held -= batch.num_rows();
            *slot = None;
            self.free.push(row.batch);
        }
    }

    /// Whether most of what is held no longer waits.
    pub fn is_sparse(&self) -> bool {
        self.held > 4 * self.waiting + 8 * engine::batch::MAX_ROWS
    }

    /// Copies the waiting rows together and renames them.
    pub fn compact<'a>(&mut self, rows: impl Iterator<Item = &'a mut RowRef>) -> Result<(), ArrowError> {
        let mut rows: Vec<&mut RowRef> = rows.collect();
        let mut fresh = Store::default();
        for chunk in rows.chunks_mut(engine::batch::MAX_ROWS) {
            let mut gather = Gather::default();
            let picks: Vec<(usize, usize)> = chunk.iter().map(|row| gather.pick(self, **row)).collect();
            let Some(first) = gather.batches.first() else { continue };
            let schema = first.schema();
            let columns = (0..schema.fields().len())
                .map(|column| gather.column(column, &picks, schema.field(column).data_type()))
                .collect::<Result<Vec<_>, _>>()?;
            let batch = fresh.insert(RecordBatch::try_new(schema, columns)?);
            for (at, row) in chunk.iter_mut().enumerate() {
                **row = RowRef { batch, row: at as u32 };
            }
        }
        *self = fresh;
        Ok(())
    }
}

/// Collects rows of several batches into arrays.
#[derive(Default)]
pub(super) struct Gather {
    batches: Vec<RecordBatch>,
    places: HashMap<(usize, u32), usize>,
}

/// The pick that gives null.
pub(super) const NOTHING: (usize, usize) = (0, 0);

impl Gather {
    /// Notes a row; the result goes into the picks of [`Gather::column`].
    pub fn pick(&mut self, store: &Store, row: RowRef) -> (usize, usize) {
        let place = *self.places.entry((std::ptr::from_ref(store).addr(), row.batch)).or_insert_with(|| {
            if let Some(Some((batch, _))) = store.slots.get(row.batch as usize) {
                self.batches.push(batch.clone());
            }
            // Place 0 is the null that `column` puts in front.
            self.batches.len()
        });
        (place, row.row as usize)
    }

    /// The picked values of one column of the stored batches.
    pub fn column(&self, column: usize, picks: &[(usize, usize)], ty: &DataType) -> Result<ArrayRef, ArrowError> {
        let null = new_null_array(ty, 1);
        let arrays: Vec<&dyn Array> =
            std::iter::once(null.as_ref()).chain(self.batches.iter().map(|b| b.column(column).as_ref())).collect();
        interleave(&arrays, picks)
    }
}

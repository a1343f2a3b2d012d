//! The hot rows of a table that nothing changes any more, oldest first.
//!
//! A batch of two rows and fifty columns takes some twenty kilobytes, nearly all of it bookkeeping. So small batches are
//! copied together once there are enough of them; each row is copied at most once.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use system::Sealed;

use crate::batch::{MAX_ROWS, Time};

/// Small batches that are kept as they came before they are copied together.
const MAX_SMALL: usize = 64;

/// Rows from which on a batch is not small.
const LARGE: usize = MAX_ROWS / 8;

/// Rows by the time of the message that brought them.
#[derive(Debug, Default)]
pub(super) struct Settled {
    chunks: VecDeque<Chunk>,
    /// How many chunks at the end are small ones.
    small: usize,
    rows: usize,
    /// The number of the chunk that was made last.
    made: u64,
}

/// Time and number of the rows of each message, in order.
type Runs = Vec<(Time, usize)>;

/// Rows of one message, or of several that were copied together.
#[derive(Debug)]
struct Chunk {
    /// Tells it from every other chunk that the table has had.
    id: u64,
    runs: Runs,
    rows: RecordBatch,
    /// The file that `rows` point into, once other processes have asked for them, and which of its batches they are.
    sealed: Option<(Arc<Sealed>, usize)>,
}

/// The rows of a chunk, to be handed to another process.
#[derive(Debug)]
pub(super) struct Part {
    pub id: u64,
    pub rows: RecordBatch,
    pub sealed: Option<(Arc<Sealed>, usize)>,
}

impl Settled {
    /// None yet, in the place of others: a chunk's number never comes again.
    pub fn after(other: &Self) -> Self {
        Self { made: other.made, ..Self::default() }
    }

    /// Adds the rows of a message.
    pub fn push(&mut self, time: Time, rows: RecordBatch) {
        self.rows += rows.num_rows();
        let is_small = rows.num_rows() < LARGE;
        if !is_small {
            self.gather();
        }
        self.add(vec![(time, rows.num_rows())], rows);
        self.small += usize::from(is_small);
        let small = self.chunks.iter().rev().take(self.small);
        if self.small >= MAX_SMALL || small.map(|chunk| chunk.rows.num_rows()).sum::<usize>() >= MAX_ROWS {
            self.gather();
        }
    }

    fn add(&mut self, runs: Runs, rows: RecordBatch) {
        self.made += 1;
        self.chunks.push_back(Chunk { id: self.made, runs, rows, sealed: None });
    }

    /// Copies the small batches together.
    fn gather(&mut self) {
        let small = self.chunks.split_off(self.chunks.len() - std::mem::take(&mut self.small));
        let Some(first) = small.front() else { return };
        let batches: Vec<&RecordBatch> = small.iter().map(|chunk| &chunk.rows).collect();
        match concat_batches(first.rows.schema_ref(), batches) {
            Ok(rows) => {
                let runs = small.into_iter().flat_map(|chunk| chunk.runs).collect();
                self.add(runs, rows);
            }
            // Not of one schema; they stay as they are.
            Err(_) => self.chunks.extend(small),
        }
    }

    /// Forgets the oldest rows, a chunk at a time, until no more than about `most` are left; says how many, and the latest
    /// time of their messages.
    pub fn shrink(&mut self, most: usize) -> (u64, Option<Time>) {
        let (mut forgotten, mut last) = (0, None);
        while self.rows > most && self.chunks.len() > 1 {
            let Some(gone) = self.chunks.pop_front() else { break };
            forgotten += gone.rows.num_rows();
            last = last.max(gone.runs.iter().map(|(time, _)| *time).max());
            self.rows -= gone.rows.num_rows();
            self.small = self.small.min(self.chunks.len());
        }
        (forgotten as u64, last)
    }

    /// Forgets the rows of every message before a time.
    pub fn forget_before(&mut self, time: Time) {
        let large = self.chunks.len() - self.small;
        let (mut kept, mut small) = (VecDeque::with_capacity(self.chunks.len()), 0);
        for (at, chunk) in std::mem::take(&mut self.chunks).into_iter().enumerate() {
            let before = kept.len();
            kept.extend(chunk.from(time, &mut self.made));
            if at >= large {
                small += kept.len() - before;
            }
        }
        self.small = small;
        self.rows = kept.iter().map(|chunk| chunk.rows.num_rows()).sum();
        self.chunks = kept;
    }

    /// The rows of every message before a time, with that time.
    pub fn before(&self, time: Time) -> Vec<(Time, RecordBatch)> {
        let mut found = Vec::new();
        for chunk in &self.chunks {
            let mut row = 0;
            for (at, rows) in &chunk.runs {
                if *at < time {
                    found.push((*at, chunk.rows.slice(row, *rows)));
                }
                row += rows;
            }
        }
        found
    }

    /// The chunks, and those of small batches, which will be copied together.
    pub fn parts(&self) -> (Vec<Part>, Vec<Part>) {
        let part = |chunk: &Chunk| Part { id: chunk.id, rows: chunk.rows.clone(), sealed: chunk.sealed.clone() };
        let large = self.chunks.len() - self.small;
        (self.chunks.range(..large).map(part).collect(), self.chunks.range(large..).map(part).collect())
    }

    /// Takes the rows of these chunks from a sealed file, which has a batch for each, from now on.
    pub fn seal(&mut self, ids: &[u64], sealed: &Arc<Sealed>) {
        for chunk in &mut self.chunks {
            let at = ids.iter().position(|id| *id == chunk.id);
            if let Some((at, rows)) = at.and_then(|at| Some((at, sealed.batches().get(at)?))) {
                chunk.rows = rows.clone();
                chunk.sealed = Some((Arc::clone(sealed), at));
            }
        }
    }

    /// The rows.
    pub fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.chunks.iter().map(|chunk| &chunk.rows)
    }
}

impl Chunk {
    /// What is left of it without the messages before a time: itself, parts of it, or nothing.
    fn from(self, time: Time, made: &mut u64) -> Vec<Self> {
        if self.runs.iter().all(|(at, _)| *at >= time) {
            return vec![self];
        }
        let mut kept: Vec<(Range<usize>, Runs)> = Vec::new();
        let mut row = 0;
        for (at, rows) in self.runs {
            let range = row..row + rows;
            row = range.end;
            if at < time {
                continue;
            }
            match kept.last_mut().filter(|(last, _)| last.end == range.start) {
                Some((last, runs)) => {
                    last.end = range.end;
                    runs.push((at, rows));
                }
                None => kept.push((range, vec![(at, rows)])),
            }
        }
        let part = |(range, runs): (Range<usize>, _)| {
            *made += 1;
            Self { id: *made, runs, rows: self.rows.slice(range.start, range.len()), sealed: None }
        };
        kept.into_iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn rows(values: Range<i64>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(values))]).expect("one column")
    }

    fn values(settled: &Settled) -> Vec<i64> {
        settled.batches().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn small_batches_are_copied_together_and_nothing_else_changes() {
        let mut settled = Settled::default();
        for at in 0..1000 {
            settled.push(at / 3, rows(2 * at as i64..2 * at as i64 + 2));
        }
        assert_eq!(values(&settled), (0..2000).collect::<Vec<_>>());
        assert!(settled.chunks.len() < 1000 / MAX_SMALL + MAX_SMALL, "{} chunks", settled.chunks.len());
        settled.push(400, rows(2000..2000 + LARGE as i64));
        assert_eq!(settled.small, 0, "what comes before a large batch is copied together too");
    }

    #[test]
    fn messages_are_forgotten_by_their_time_wherever_they_stand() {
        let mut settled = Settled::default();
        for at in 0..200_u64 {
            // Workers bring their rows in no common order of time.
            settled.push(if at % 2 == 0 { at } else { 1000 }, rows(at as i64..at as i64 + 1));
        }
        settled.forget_before(151);
        let kept: Vec<i64> = (0..200).filter(|at| at % 2 == 1 || *at >= 151).collect();
        assert_eq!(values(&settled), kept);
        assert_eq!(settled.rows, kept.len());
        settled.push(1000, rows(200..201));
        assert_eq!(values(&settled).last(), Some(&200));
        let before: Vec<_> = settled.before(1000).iter().map(|(at, rows)| (*at, rows.num_rows())).collect();
        assert_eq!(before, (152..200).step_by(2).map(|at| (at, 1)).collect::<Vec<_>>());
        settled.forget_before(2000);
        assert_eq!((values(&settled), settled.rows, settled.small), (Vec::new(), 0, 0));
    }

    #[test]
    fn the_oldest_rows_go_when_there_are_too_many() {
        let mut settled = Settled::default();
        let mut forgotten = 0;
        for at in 0..10_000_u64 {
            settled.push(at, rows(at as i64..at as i64 + 1));
            forgotten += settled.shrink(500).0;
        }
        let kept = values(&settled);
        assert!(kept.len() <= 500 && kept.len() + MAX_SMALL > 500, "{} rows", kept.len());
        assert_eq!(kept.last(), Some(&9999));
        assert_eq!(forgotten, 10_000 - kept.len() as u64);
    }
}

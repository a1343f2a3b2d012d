//! Rows in memory as other processes read them: in sealed memory files, without a copy for each query.
//!
//! A chunk of settled rows never changes. The first time that it is asked for it is copied into a sealed file, and the table itself
//! reads it from there from then on, so that it is in memory once. What is still being gathered, which is at most a batch, and
//! the live rows of a relation are copied when they have changed since they were last asked for.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use system::Sealed;

use super::settled::Part;
use super::{Snapshot, Table, live_rows};
use crate::batch::MAX_ROWS;

/// Chunks in one file at most, and rows: the file is kept as long as one of its chunks is.
const CHUNKS: usize = 64;
const ROWS: usize = 4 * MAX_ROWS;

/// Rows of a file that is written anew together with its neighbours.
const FEW: usize = MAX_ROWS / 8;

/// A table at one moment, for another process.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The table's columns: a file without rows, the same at every moment.
    pub schema: Arc<Sealed>,
    /// Rows in memory: files, and which of their batches. A file that an earlier moment has had as well is the same value.
    pub parts: Vec<(Arc<Sealed>, usize)>,
    /// All else. Its `hot` is empty, and its segments are there.
    pub snapshot: Snapshot,
}

/// What was handed out and may be wanted again.
#[derive(Debug, Default)]
pub(super) struct Kept {
    schema: Option<Arc<Sealed>>,
    /// Small chunks in one file, and which they are.
    small: Option<(Vec<u64>, Arc<Sealed>)>,
    /// Live rows, and how often they had changed.
    live: Option<(u64, Arc<Sealed>)>,
}

/// The live rows at one moment.
enum Live {
    None,
    AsBefore(Arc<Sealed>),
    Changed(u64, RecordBatch),
}

impl Table {
    /// The table now, for another process.
    ///
    /// # Errors
    /// If the system has no memory or no descriptor left for what was not asked for before.
    pub fn hand_out(&self) -> io::Result<Handed> {
        // One at a time, so that no chunk is copied twice.
        let mut kept = self.kept.lock();
        self.look_for_missing();
        let (large, small, live, snapshot) = self.parts(&kept)?;
        let schema = kept.schema(self)?;
        let mut parts = self.seal(&large)?;
        for sealed in [kept.small(small)?, kept.live(live)?].into_iter().flatten() {
            parts.extend((0..sealed.batches().len()).map(|at| (Arc::clone(&sealed), at)));
        }
        Ok(Handed { schema, parts, snapshot: self.without_gone(snapshot) })
    }

    /// The table without its rows, for a query that does not read it.
    ///
    /// # Errors
    /// As [`Table::hand_out`].
    pub fn hand_out_nothing(&self) -> io::Result<Handed> {
        let schema = self.kept.lock().schema(self)?;
        let snapshot = Snapshot { segments: Vec::new(), ..self.snapshot_of(&self.lock(), Vec::new()) };
        Ok(Handed { schema, parts: Vec::new(), snapshot })
    }

    /// Copies those of the chunks that were never asked for, and with them neighbours whose files have few rows: each file takes a
    /// descriptor in every process.
    fn seal(&self, chunks: &[Part]) -> io::Result<Vec<(Arc<Sealed>, usize)>> {
        let has_few = |chunk: &Part| chunk.sealed.as_ref().is_none_or(|(sealed, _)| sealed.rows() < FEW);
        let mut parts = Vec::with_capacity(chunks.len());
        for run in chunks.chunk_by(|a, b| has_few(a) && has_few(b) && a.rows.schema_ref() == b.rows.schema_ref()) {
            let mut rest = run;
            while let Some(first) = rest.first() {
                let mut rows = 0;
                let fits = |chunk: &&Part| {
                    rows += chunk.rows.num_rows();
                    rows <= ROWS
                };
                let (group, others) = rest.split_at(rest.iter().take(CHUNKS).take_while(fits).count().max(1));
                rest = others;
                if group.iter().all(|chunk| chunk.sealed.is_some()) {
                    parts.extend(group.iter().filter_map(|chunk| chunk.sealed.clone()));
                    continue;
                }
                let sealed = Arc::new(Sealed::write(&first.rows.schema(), group.iter().map(|chunk| &chunk.rows))?);
                let ids: Vec<u64> = group.iter().map(|chunk| chunk.id).collect();
                self.lock().settled.seal(&ids, &sealed);
                parts.extend((0..group.len()).map(|at| (Arc::clone(&sealed), at)));
            }
        }
        Ok(parts)
    }

    /// What there is to hand out, all of the same moment.
    fn parts(&self, kept: &Kept) -> io::Result<(Vec<Part>, Vec<Part>, Live, Snapshot)> {
        let state = self.lock();
        let (large, small) = state.settled.parts();
        let live = match &kept.live {
            _ if state.live.is_empty() => Live::None,
            Some((changes, sealed)) if *changes == state.live_changes => Live::AsBefore(Arc::clone(sealed)),
            _ => Live::Changed(state.live_changes, live_rows(&state).map_err(io::Error::other)?),
        };
        Ok((large, small, live, self.snapshot_of(&state, Vec::new())))
    }

    /// The snapshot without the segments whose files are gone or damaged; later ones are without them too.
    pub fn without_gone(&self, mut snapshot: Snapshot) -> Snapshot {
        let mut gone = BTreeSet::new();
        // An object store takes no `..`, which a pipeline's `data_dir` may have.
        snapshot.segments.retain_mut(|segment| match segment.path.canonicalize() {
            // A segment never changes: one of another length is damaged, or another file.
            Ok(path) if path.metadata().is_ok_and(|m| !m.is_file() || m.len() != segment.bytes) => {
                gone.insert(segment.path.clone());
                false
            }
            Ok(path) => {
                segment.path = path;
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                gone.insert(segment.path.clone());
                false
            }
            // The query says what is wrong with it.
            Err(_) => true,
        });
        if !gone.is_empty() {
            self.lose(&gone);
        }
        snapshot
    }
}

impl Kept {
    fn schema(&mut self, table: &Table) -> io::Result<Arc<Sealed>> {
        Ok(match &self.schema {
            Some(schema) => Arc::clone(schema),
            None => Arc::clone(self.schema.insert(Arc::new(Sealed::write(&table.schema, [])?))),
        })
    }

    fn small(&mut self, parts: Vec<Part>) -> io::Result<Option<Arc<Sealed>>> {
        let Some(first) = parts.first() else {
            self.small = None;
            return Ok(None);
        };
        let ids: Vec<u64> = parts.iter().map(|part| part.id).collect();
        if let Some((_, sealed)) = self.small.as_ref().filter(|(kept, _)| *kept == ids) {
            return Ok(Some(Arc::clone(sealed)));
        }
        let sealed = Arc::new(Sealed::write(&first.rows.schema(), parts.iter().map(|part| &part.rows))?);
        self.small = Some((ids, Arc::clone(&sealed)));
        Ok(Some(sealed))
    }

    fn live(&mut self, live: Live) -> io::Result<Option<Arc<Sealed>>> {
        let (changes, rows) = match live {
            Live::None => {
                self.live = None;
                return Ok(None);
            }
            Live::AsBefore(sealed) => return Ok(Some(sealed)),
            Live::Changed(changes, rows) => (changes, rows),
        };
        let sealed = Arc::new(Sealed::write(&rows.schema(), [&rows])?);
        self.live = Some((changes, Arc::clone(&sealed)));
        Ok(Some(sealed))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, UInt64Array};
    use arrow::datatypes::{DataType, Field, UInt64Type};

    use super::*;
    use crate::batch::{Batch, EdgeType, stream_schema, time_array};

    fn table() -> Table {
        Table::new("t", &EdgeType::stream(stream_schema([Field::new("n", DataType::UInt64, false)])), 1_000_000)
    }

    fn rows(table: &Table, from: u64, to: u64) -> Batch {
        let column = || Arc::new(UInt64Array::from_iter_values(from..to)) as ArrayRef;
        let time = time_array((from..to).map(|n| n as i64).collect());
        let rows = RecordBatch::try_new(Arc::clone(&table.schema), vec![time, column(), column()]);
        Batch::new(rows.expect("columns fit"))
    }

    fn values(handed: &Handed) -> Vec<u64> {
        let batches = handed.parts.iter().map(|(sealed, at)| &sealed.batches()[*at]);
        batches.flat_map(|batch| batch.column(2).as_primitive::<UInt64Type>().values().to_vec()).collect()
    }

    #[test]
    fn every_row_is_handed_out_and_a_chunk_is_copied_once() {
        let table = table();
        let large = MAX_ROWS as u64;
        table.push(1, &rows(&table, 0, large)).expect("pushed");
        table.push(2, &rows(&table, large, large + 5)).expect("pushed");
        let first = table.hand_out().expect("memory");
        assert_eq!(values(&first), (0..large + 5).collect::<Vec<_>>());
        assert!(Arc::ptr_eq(&first.parts[1].0, &table.hand_out().expect("memory").parts[1].0), "nothing has changed");
        table.push(3, &rows(&table, large + 5, large + 9)).expect("pushed");
        let second = table.hand_out().expect("memory");
        assert_eq!(values(&second), (0..large + 9).collect::<Vec<_>>());
        assert!(Arc::ptr_eq(&first.parts[0].0, &second.parts[0].0) && Arc::ptr_eq(&first.schema, &second.schema));
        // The table's own rows are those of the file now.
        let own = table.snapshot().hot[0].column(2).to_data().buffers()[0].as_ptr();
        assert_eq!(own, first.parts[0].0.batches()[0].column(2).to_data().buffers()[0].as_ptr());
        // One row at a time, asked for each time: files with few rows become one.
        for n in 0..3000 {
            let at = large + 9 + n;
            table.push(4 + n, &rows(&table, at, at + 1)).expect("pushed");
            if n % 50 == 0 {
                table.hand_out().expect("memory");
            }
        }
        let third = table.hand_out().expect("memory");
        assert_eq!(values(&third), (0..large + 3009).collect::<Vec<_>>());
        let files: BTreeSet<u64> = third.parts.iter().map(|(sealed, _)| sealed.id()).collect();
        assert!(files.len() <= 6, "{} files", files.len());
        table.commit([], 2);
        assert_eq!(values(&table.hand_out().expect("memory")), (large..large + 3009).collect::<Vec<_>>());
        assert_eq!(values(&first).len(), large as usize + 5, "an earlier moment stays as it was");
    }
}

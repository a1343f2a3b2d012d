//! Fewer and larger records: what is committed together is merged before it is encoded.
//!
//! A record of a few rows and many columns is mostly Arrow's own words, and every operator behind the log pays for each
//! batch once more. Rows keep their order within a port. They may come at an earlier time than they were sent at, never
//! at a later one, so nothing that was on time becomes late.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use crate::batch::MAX_ROWS;
use crate::{Entry, Time};

/// Records are written together up to this many bytes; so many bytes of rows do not wait for the next commit.
pub(crate) const GROUP: u64 = 4 << 20;

/// Entries with what each counts for in the queue.
pub(crate) type Queued = (Entry, u64);

/// The same rows, the last note and the last watermark. A note stays behind all that came before it: a write may be
/// cut off at any record, and a note says that what it counts is there.
pub(crate) fn merge(entries: VecDeque<Queued>) -> Vec<Queued> {
    let mut merged = Vec::new();
    let mut notes = entries.iter().filter(|(entry, _)| matches!(entry, Entry::Note(_))).count();
    let mut group = Group::default();
    for (entry, queued) in entries {
        match entry {
            Entry::Batch { port, time, late, rows } => group.add(port, time, late, rows, queued),
            Entry::Watermark(time) => group.watermark = group.watermark.max(Some(time)),
            Entry::Note(text) => {
                notes -= 1;
                let before = group.note.take().map_or(0, |(_, queued)| queued);
                group.note = Some((text, before + queued));
                if notes == 0 || group.bytes >= GROUP {
                    std::mem::take(&mut group).finish(&mut merged);
                }
            }
        }
    }
    group.finish(&mut merged);
    merged
}

#[derive(Default)]
struct Group {
    runs: Vec<Run>,
    note: Option<(Vec<u8>, u64)>,
    watermark: Option<Time>,
    bytes: u64,
}

/// Batches of one port that become one.
struct Run {
    port: usize,
    late: bool,
    time: Time,
    batches: Vec<RecordBatch>,
    rows: usize,
    queued: u64,
}

impl Group {
    fn add(&mut self, port: usize, time: Time, late: bool, rows: RecordBatch, queued: u64) {
        self.bytes += queued;
        let last = self.runs.iter_mut().rfind(|run| run.port == port && run.late == late);
        match last.filter(|run| run.takes(&rows)) {
            Some(run) => {
                run.time = run.time.min(time);
                run.rows += rows.num_rows();
                run.queued += queued;
                run.batches.push(rows);
            }
            None => {
                self.runs.push(Run { port, late, time, rows: rows.num_rows(), batches: vec![rows], queued });
            }
        }
    }

    fn finish(self, merged: &mut Vec<Queued>) {
        self.runs.into_iter().for_each(|run| run.finish(merged));
        merged.extend(self.note.map(|(text, queued)| (Entry::Note(text), queued)));
        match (self.watermark, merged.last_mut()) {
            (Some(time), Some((Entry::Watermark(last), _))) => *last = (*last).max(time),
            (Some(time), _) => merged.push((Entry::Watermark(time), 0)),
            (None, _) => {}
        }
    }
}

impl Run {
    fn takes(&self, rows: &RecordBatch) -> bool {
        self.queued < GROUP
            && self.rows + rows.num_rows() <= MAX_ROWS
            && self.batches.first().is_some_and(|first| first.schema_ref() == rows.schema_ref())
    }

    fn finish(self, merged: &mut Vec<Queued>) {
        let Self { port, late, time, mut batches, queued, .. } = self;
        if let [first, _, ..] = batches.as_slice()
            && let Ok(rows) = concat_batches(first.schema_ref(), &batches)
        {
            batches = vec![rows];
        }
        // What it counts for in the queue counts once, however many records it is.
        let queued = std::iter::once(queued).chain(std::iter::repeat(0));
        merged.extend(batches.into_iter().zip(queued).map(|(rows, q)| (Entry::Batch { port, time, late, rows }, q)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn rows(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(values))]).expect("one column")
    }

    fn batch(port: usize, time: Time, late: bool, values: impl IntoIterator<Item = i64>) -> Queued {
        (Entry::Batch { port, time, late, rows: rows(values) }, 10)
    }

    fn note(text: &str) -> Queued {
        (Entry::Note(text.as_bytes().to_vec()), 1)
    }

    /// What each entry is, in one word.
    fn shown(entries: &[Queued]) -> Vec<String> {
        let word = |(entry, _): &Queued| match entry {
            Entry::Batch { port, time, late, rows } => {
                let column = arrow::array::AsArray::as_primitive::<Int64Type>(rows.column(0));
                format!("{port}{}@{time}:{:?}", if *late { "l" } else { "" }, column.values().as_ref())
            }
            Entry::Note(text) => String::from_utf8_lossy(text).into_owned(),
            Entry::Watermark(time) => format!("w{time}"),
        };
        entries.iter().map(word).collect()
    }

    #[test]
    fn rows_of_a_port_become_one_record_and_a_note_stays_behind_what_it_counts() {
        let entries = VecDeque::from([
            batch(0, 5, false, [1, 2]),
            note("a"),
            (Entry::Watermark(6), 0),
            batch(0, 6, true, [3]),
            batch(0, 6, false, [4]),
            batch(1, 6, false, [5]),
            note("b"),
            (Entry::Watermark(7), 0),
            batch(0, 7, false, [6]),
        ]);
        let total: u64 = entries.iter().map(|(_, queued)| queued).sum();
        let merged = merge(entries);
        assert_eq!(shown(&merged), ["0@5:[1, 2, 4]", "0l@6:[3]", "1@6:[5]", "b", "w6", "0@7:[6]", "w7"]);
        assert_eq!(
            merged.iter().map(|(_, queued)| queued).sum::<u64>(),
            total,
            "bytes in the queue are kept account of"
        );
    }

    #[test]
    fn a_record_has_no_more_rows_than_a_batch_should_have() {
        let entries = (0..40).map(|at| batch(0, 1, false, at * 1000..(at + 1) * 1000)).collect();
        let merged = merge(entries);
        let counts: Vec<usize> = merged
            .iter()
            .map(|(entry, _)| match entry {
                Entry::Batch { rows, .. } => rows.num_rows(),
                _ => 0,
            })
            .collect();
        assert_eq!(counts, [8000; 5]);
    }

    #[test]
    fn rows_of_two_schemas_stay_apart() {
        let schema = Arc::new(Schema::new(vec![Field::new("other", DataType::Int64, false)]));
        let other = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1]))]).expect("one column");
        let other = (Entry::Batch { port: 0, time: 1, late: false, rows: other }, 10);
        assert_eq!(merge(VecDeque::from([batch(0, 1, false, [1]), other])).len(), 2);
    }
}

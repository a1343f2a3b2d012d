//! What a log is told of its source, so that another run goes on where it was.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;

use crate::contract::{Cursor, Resume};
use crate::spool::{Entry, Log, Next, SpoolError};

/// How many entries at the end of a log are searched for the last note, and the rows it does not count, at first.
const NOTES_WITHIN: u64 = 256;

/// Where a source can go on, in its own words, and the position of the row that follows there.
pub(crate) type Place = (u64, Vec<u8>);

/// What a log is told of its source: the position of the next row, and where the source can go on.
pub(crate) fn note(seq: u64, cursor: Option<&Place>) -> Entry {
    let mut words = seq.to_le_bytes().to_vec();
    if let Some((seq, place)) = cursor {
        words.extend(seq.to_le_bytes());
        words.extend(place);
    }
    Entry::Note(words)
}

/// What [`note`] has written.
fn noted(words: &[u8]) -> Option<(u64, Option<Place>)> {
    let (seq, rest) = words.split_first_chunk()?;
    let cursor = rest.split_first_chunk().map(|(seq, place)| (u64::from_le_bytes(*seq), place.to_vec()));
    Some((u64::from_le_bytes(*seq), cursor))
}

/// Where the source goes on: the last note, and what was logged behind it.
pub(super) fn resume(log: &Arc<Log>) -> Result<Resume, SpoolError> {
    let mut found = Resume { watermark: log.last_watermark(), ..Resume::default() };
    let mut within = NOTES_WITHIN;
    loop {
        let from = log.first().max(log.end().saturating_sub(within));
        let mut reader = log.reader(from);
        // Rows before the first note that is found have positions before its own.
        let (mut first_note, mut logged) = (None, Vec::new());
        while reader.position() < log.end() {
            let Next::Entry(_, entry) = reader.next()? else { break };
            match entry {
                Entry::Note(words) => {
                    let Some((next, cursor)) = noted(&words) else { continue };
                    first_note.get_or_insert(next);
                    found.seq = found.seq.max(next);
                    if let Some((seq, place)) = cursor {
                        found.cursor = Some(Cursor { seq, place, logged: Vec::new() });
                    }
                }
                Entry::Batch { rows, .. } => {
                    found.seq = found.seq.max(after(&rows));
                    logged.extend(seqs(&rows).into_iter().flatten());
                }
                Entry::Watermark(_) => {}
            }
        }
        let is_whole = first_note.is_some_and(|first| found.cursor.as_ref().is_none_or(|cursor| first <= cursor.seq));
        if is_whole || from == log.first() {
            if let Some(cursor) = &mut found.cursor {
                logged.retain(|seq| *seq >= cursor.seq);
                cursor.logged = logged;
            }
            return Ok(found);
        }
        within = within.saturating_mul(16);
    }
}

/// The positions of rows in their source.
fn seqs(rows: &RecordBatch) -> Option<Vec<u64>> {
    let column = rows.column_by_name(crate::batch::SEQ)?.as_primitive_opt::<UInt64Type>()?;
    Some(column.values().to_vec())
}

/// The position in the source behind the last of these rows.
pub(crate) fn after(rows: &RecordBatch) -> u64 {
    seqs(rows).and_then(|seqs| seqs.into_iter().max()).map_or(0, |seq| seq.saturating_add(1))
}

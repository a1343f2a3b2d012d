//! Reading a log: from memory near its end, else from its files.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use arrow::buffer::Buffer;

use crate::adapt::adapt;
use crate::counters::add;
use crate::format::{Frame, Kind, decode_rows};
use crate::index::Place;
use crate::segment::{Segment, Step};
use crate::state::LogState;
use crate::{Entry, SpoolError};

/// What [`LogReader::next`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// A record with its position.
    Entry(u64, Entry),
    /// Everything durable was read; more may come.
    Wait,
    /// Everything was read, and the log is closed.
    End,
}

/// Reads a log in order. Positions that were deleted or damaged are passed over.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<LogState>,
    next: u64,
    missed: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    place: Place,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<LogState>, from: u64) -> Self {
        Self { shared, next: from, missed: 0, open: None }
    }

    /// The position that is read next, if it exists.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Positions that this reader has passed over, because they were deleted, damaged or of another schema.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The next record. Never waits for one.
    ///
    /// # Errors
    /// If a segment cannot be read; the next call tries again.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator that says None would be finished, a log that says Wait is not"
    )]
    pub fn next(&mut self) -> Result<Next, SpoolError> {
        loop {
            // In this order: what is committed last is committed before the log ends.
            let ended = self.shared.ended.load(Acquire);
            let end = self.shared.committed.load(Acquire);
            if self.next >= end {
                return Ok(if ended { Next::End } else { Next::Wait });
            }
            let recent = self.shared.tail.lock().at(self.next).filter(|(position, _)| *position < end);
            if let Some((position, entry)) = recent {
                self.open = None;
                self.pass(position);
                self.next = position + 1;
                return Ok(Next::Entry(position, Entry::clone(&entry)));
            }
            if let Some((position, entry)) = self.read(end)? {
                return Ok(Next::Entry(position, entry));
            }
        }
    }

    /// The next record of the files; `None` if the search goes on elsewhere.
    fn read(&mut self, end: u64) -> Result<Option<(u64, Entry)>, SpoolError> {
        let mut open = match self.open.take() {
            Some(open) if self.next < open.place.until => open,
            old => return self.open_next(old, end).map(|()| None),
        };
        let path = &open.place.path;
        loop {
            match open.segment.step().map_err(SpoolError::io(path))? {
                Step::Record(frame, _) if frame.kind == Kind::Gap => self.shared.known_gap(frame.position, frame.time),
                Step::Record(frame, _) if frame.kind == Kind::Seal || frame.position < self.next => {}
                Step::Record(frame, _) if frame.position >= open.place.until => break,
                Step::Record(frame, body) => {
                    self.pass(frame.position);
                    self.next = frame.position + 1;
                    if let Some(entry) = self.entry(&open.segment, &frame, &body) {
                        self.open = Some(open);
                        return Ok(Some((frame.position, entry)));
                    }
                    self.missed += 1;
                }
                Step::Damage { from, to, frame } => self.shared.damage(open.place.first, from, to, frame),
                Step::End => break,
            }
        }
        self.pass(open.place.until);
        self.next = self.next.max(open.place.until);
        // Kept: the segment may be the last one, which grows.
        self.open = Some(open);
        Ok(None)
    }

    /// Opens the segment with the next position, or reads on in the one that has grown.
    fn open_next(&mut self, old: Option<Open>, end: u64) -> Result<(), SpoolError> {
        let (place, mark) = {
            let index = self.shared.index.lock();
            (index.locate(self.next), index.mark)
        };
        let Some(place) = place else {
            self.pass(end);
            self.next = end;
            return Ok(());
        };
        let old = old.filter(|old| old.place.first == place.first).map(|old| Ok(old.segment));
        let mut segment = match old.unwrap_or_else(|| Segment::open(&place.path, Some(mark))) {
            Ok(segment) => segment,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Deleted by the log since it was looked up, or by somebody else.
                if self.shared.index.lock().locate(self.next).is_some_and(|now| now.first == place.first) {
                    self.pass(place.until);
                    self.next = place.until;
                }
                return Ok(());
            }
            Err(error) => return Err(SpoolError::io(&place.path)(error)),
        };
        segment
            .set_limit(place.bytes)
            .and_then(|()| segment.skip_to(self.next))
            .map_err(SpoolError::io(&place.path))?;
        self.open = Some(Open { segment, place });
        Ok(())
    }

    /// Positions before `to` that were not found.
    fn pass(&mut self, to: u64) {
        if self.next < to {
            self.missed += to - self.next;
            self.shared.lost(self.next, to);
        }
    }

    fn entry(&self, segment: &Segment, frame: &Frame, body: &Buffer) -> Option<Entry> {
        let entry = match frame.kind {
            Kind::Watermark => return Some(Entry::Watermark(frame.time)),
            Kind::Note => return Some(Entry::Note(body.to_vec())),
            Kind::Batch | Kind::Seal | Kind::Gap => self.batch(segment, frame, body),
        };
        if entry.is_none() {
            add(&self.shared.counters.unreadable_records, 1);
            add(&self.shared.counters.unreadable_rows, u64::from(frame.rows));
        }
        entry
    }

    fn batch(&self, segment: &Segment, frame: &Frame, body: &Buffer) -> Option<Entry> {
        let ports = match &segment.header {
            Some(header) => header.ports.clone(),
            None => self.shared.index.lock().known.get(&frame.ports)?.clone(),
        };
        let (name, schema) = ports.list.get(usize::from(frame.port))?;
        let today = &self.shared.ports.list;
        let port = today.iter().position(|(today, _)| today == name)?;
        let rows = decode_rows(body, frame, schema).ok()?;
        Some(Entry::Batch { port, time: frame.time, late: frame.late, rows: adapt(rows, &today[port].1)? })
    }
}

//! Which segments a log has, what they hold, and which may be deleted.

use std::collections::{HashMap, VecDeque};
use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::Files;
use crate::format::{FRAME, Frame, Mark, Ports, SECTOR};
use crate::segment::{Segment, Step, Summary, list};

const NS_PER_MS: i64 = 1_000_000;

/// One segment.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub first: u64,
    pub path: PathBuf,
    /// What is durable: readers go no further.
    pub bytes: u64,
    /// What the file occupies.
    pub disk: u64,
    /// Of the durable records.
    pub summary: Summary,
}

/// Where to read on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub first: u64,
    /// Records from here on are in a later segment, or not durable.
    pub until: u64,
    pub path: PathBuf,
    pub bytes: u64,
}

/// The segments of a log in order, at least one once something was written.
#[derive(Debug)]
pub(crate) struct Index {
    pub segments: VecDeque<Meta>,
    pub mark: Mark,
    /// Ports of earlier runs and of this one, by [`Ports::id`].
    pub known: HashMap<u32, Arc<Ports>>,
    /// Everything before it was asked to be deleted.
    pub trimmed: u64,
    /// Greatest event time of the log in ns.
    pub newest: i64,
    /// No row from this event time (ms) on has been deleted, as far as it is known; 0 if none has.
    pub whole_from: u64,
}

/// What opening found out.
#[derive(Debug)]
pub(crate) struct Found {
    pub index: Index,
    /// Position of the next record.
    pub next: u64,
    /// Positions from here up to `next` were skipped.
    pub skipped_from: u64,
    pub watermark: u64,
    /// Bytes cut off the last segment.
    pub torn: u64,
    /// Positions that earlier runs skipped.
    pub skipped: Vec<(u64, u64)>,
}

impl Index {
    /// Reads a directory, and cuts the last segment off after its last whole record.
    pub fn open(dir: &Path, ports: &Arc<Ports>) -> io::Result<Found> {
        let files = list(dir)?;
        let mut segments = Vec::new();
        let mut mark = None;
        // The newest first: a damaged header's mark is taken from another segment, and nearly always the last will do.
        for (first, path) in files.iter().rev() {
            let segment = Segment::open(path, mark)?;
            mark = mark.or(segment.header.as_ref().map(|header| header.mark));
            segments.push((*first, path, segment));
        }
        segments.reverse();
        let mut index = Self {
            segments: VecDeque::new(),
            mark: mark.unwrap_or_else(|| RandomState::new().hash_one(dir).to_le_bytes()),
            known: HashMap::from([(ports.id, ports.clone())]),
            trimmed: 0,
            newest: i64::MIN,
            whole_from: 0,
        };
        let mut found = (0, 0, 0, 0, Vec::new());
        let (next, skipped_from, watermark, torn, skipped) = &mut found;
        let count = segments.len();
        for (number, (first, path, mut segment)) in segments.into_iter().enumerate() {
            if segment.header.is_none() {
                // Those after the damaged header's segment may have told the mark only now.
                segment = Segment::open(path, Some(index.mark))?;
            }
            if let Some(header) = &segment.header {
                index.known.entry(header.ports.id).or_insert_with(|| header.ports.clone());
                skipped.push((header.skipped_from, header.first));
                *watermark = header.watermark.max(*watermark);
                if number == 0 && first > 0 {
                    index.whole_from = header.watermark;
                }
            }
            let mut bytes = path.metadata()?.len();
            let summary = if number + 1 < count {
                segment.summary()?
            } else {
                let last = Last::read(&mut segment, first, path, bytes)?;
                (*next, *skipped_from, *torn, bytes) = (last.next, last.summary.end, last.torn, last.bytes);
                last.summary
            };
            *watermark = summary.watermark.max(*watermark);
            index.newest = index.newest.max(summary.newest);
            index.segments.push_back(Meta { first, path: path.clone(), bytes, disk: bytes, summary });
        }
        let (next, skipped_from, watermark, torn, skipped) = found;
        Ok(Found { index, next, skipped_from, watermark, torn, skipped })
    }

    /// Position after the last record of a segment that can be used.
    fn end_of(&self, number: usize) -> u64 {
        let end = self.segments[number].summary.end;
        self.segments.get(number + 1).map_or(end, |next| end.min(next.first))
    }

    /// The first position that there is.
    pub fn first(&self) -> Option<u64> {
        self.segments.front().map(|meta| meta.first)
    }

    /// The segment with a position, or the next one after it.
    pub fn locate(&self, position: u64) -> Option<Place> {
        let number = (0..self.segments.len()).find(|&number| self.end_of(number) > position)?;
        let meta = &self.segments[number];
        Some(Place { first: meta.first, until: self.end_of(number), path: meta.path.clone(), bytes: meta.bytes })
    }

    /// The first segment with a row at or after an event time in ns.
    pub fn locate_time(&self, ns: i64) -> Option<Place> {
        let number = (0..self.segments.len()).find(|&number| self.segments[number].summary.newest >= ns)?;
        self.locate(self.segments[number].first)
    }

    /// Bytes on disk.
    pub fn disk(&self) -> u64 {
        self.segments.iter().map(|meta| meta.disk).sum()
    }

    /// Deletes what was trimmed and is older than `keep_ns` relative to the newest row, or fills the log: less than `room`
    /// bytes stay.
    pub fn trim(&mut self, keep_ns: Option<i64>, room: Option<u64>, files: &dyn Files) -> io::Result<()> {
        let old =
            |meta: &Meta, newest: i64| keep_ns.is_none_or(|keep| meta.summary.newest < newest.saturating_sub(keep));
        let full = |index: &Self| room.is_some_and(|room| index.disk() >= room);
        while self.is_spare() && (full(self) || self.segments.front().is_some_and(|meta| old(meta, self.newest))) {
            self.remove_first(files)?;
        }
        Ok(())
    }

    /// Whether the first segment was trimmed, and is not the last: its name says where positions go on.
    pub fn is_spare(&self) -> bool {
        self.segments.len() > 1 && self.end_of(0) <= self.trimmed
    }

    /// Deletes the first segment; returns records and rows that were not trimmed.
    pub fn remove_first(&mut self, files: &dyn Files) -> io::Result<(u64, u64)> {
        let Some(meta) = self.segments.front() else { return Ok((0, 0)) };
        let (end, whole) = (self.end_of(0), self.trimmed <= meta.first);
        let lost = match end <= self.trimmed {
            true => (0, 0),
            false if whole => (meta.summary.records, meta.summary.rows),
            // Trimmed in part: what it says of itself is too much.
            false => self.rest_of(meta, end).unwrap_or((meta.summary.records, meta.summary.rows)),
        };
        files.remove(&meta.path)?;
        let newest = u64::try_from(meta.summary.newest / NS_PER_MS).map_or(0, |newest| newest.saturating_add(1));
        self.whole_from = self.whole_from.max(newest);
        self.segments.pop_front();
        Ok(lost)
    }

    fn rest_of(&self, meta: &Meta, end: u64) -> io::Result<(u64, u64)> {
        let mut segment = Segment::open(&meta.path, Some(self.mark))?;
        segment.set_limit(meta.bytes)?;
        let (mut records, mut rows) = (0, 0);
        loop {
            match segment.step_headers()? {
                Step::Record(frame, _) if frame.is_entry() && (self.trimmed..end).contains(&frame.position) => {
                    records += 1;
                    rows += u64::from(frame.rows);
                }
                Step::Record(..) | Step::Damage { .. } => {}
                Step::End => return Ok((records, rows)),
            }
        }
    }
}

/// The last segment of a log that is opened.
struct Last {
    summary: Summary,
    next: u64,
    torn: u64,
    bytes: u64,
}

impl Last {
    /// Reads all of it, and cuts off what is no record at its end.
    fn read(segment: &mut Segment, first: u64, path: &Path, bytes: u64) -> io::Result<Self> {
        let mut summary = Summary::new(first);
        let mut whole = segment.offset();
        let mut unread = Unread::default();
        loop {
            match segment.step()? {
                Step::Record(frame, _) => {
                    summary.add(&frame);
                    whole = segment.offset();
                    unread = Unread::default();
                }
                Step::Damage { from, to, frame } => unread.add(to - from, frame),
                Step::End => break,
            }
        }
        let torn = bytes - whole.min(bytes);
        // Nothing of it can be read. The header is written before the first record.
        if segment.header.is_none() && summary.records == 0 && bytes > 2 * SECTOR {
            unread.add(bytes, None);
        }
        let next = unread.next(summary.end);
        let file = OpenOptions::new().write(true).open(path)?;
        if torn > 0 {
            file.set_len(whole)?;
        }
        // What the process before this one wrote and did not sync is read from now on.
        file.sync_all()?;
        Ok(Self { summary, next, torn, bytes: whole.min(bytes) })
    }
}

/// What cannot be read at the end of a log.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    end: u64,
    longest: u64,
}

impl Unread {
    /// A range of this length, and the header of its frame if that much is known.
    pub fn add(&mut self, length: u64, frame: Option<Frame>) {
        match frame {
            Some(frame) => self.end = self.end.max(frame.end()),
            None => self.longest = self.longest.max(length),
        }
    }

    /// How many records it was at least, after a last whole record that ends at `end`.
    pub fn known(&self, end: u64) -> u64 {
        self.end.saturating_sub(end)
    }

    /// The next position of a log whose last whole record ends at `end`.
    ///
    /// A write that was cut short leaves a whole header, or less than one. Anything else may have been records that
    /// somebody has read: their positions are not used again.
    pub fn next(&self, end: u64) -> u64 {
        let records = if self.longest >= FRAME { self.longest / FRAME + 1 } else { 0 };
        end.max(self.end) + records
    }
}

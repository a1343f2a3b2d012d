//! A log that is only read, from its files as they were at one moment. The process that writes it may be running.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;

use crate::adapt::adapt;
use crate::batch::Batch;
use crate::format::{Frame, Kind, decode_rows};
use crate::index::Unread;
use crate::inspect::Segments;
use crate::segment::{Segment, Step};
use crate::{Entry, Next, SpoolError};

/// The files of a log, and which of their rows are wanted. Nothing is locked or written.
#[derive(Debug)]
pub struct Archive {
    files: Segments,
    /// How much of each file there was.
    bytes: Vec<u64>,
    ports: Vec<(String, SchemaRef)>,
    range: Range<i64>,
    missed: AtomicU64,
}

impl Archive {
    /// What the log in `dir` has now, of rows with an event time in `range` (ns); all of them with
    /// `i64::MIN..i64::MAX`. `ports` are names and schemas in the order by which entries name them.
    ///
    /// # Errors
    /// If the directory or a file in it cannot be read.
    pub fn open(dir: &Path, ports: &[(String, SchemaRef)], range: Range<i64>) -> Result<Arc<Self>, SpoolError> {
        let files = Segments::list(dir)?;
        let mut bytes = Vec::with_capacity(files.list.len());
        for (_, path) in &files.list {
            bytes.push(match fs::metadata(path) {
                Ok(metadata) => metadata.len(),
                // The log let go of it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => 0,
                Err(error) => return Err(SpoolError::io(path)(error)),
            });
        }
        Ok(Arc::new(Self { files, bytes, ports: ports.to_vec(), range, missed: AtomicU64::new(0) }))
    }

    /// Reads everything from the start.
    pub fn reader(self: &Arc<Self>) -> ArchiveReader {
        ArchiveReader { archive: Arc::clone(self), number: 0, open: None, passed: 0 }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// Records that readers have passed over, because they were damaged, deleted or of another schema.
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    fn path(&self, number: usize) -> Option<&(u64, PathBuf)> {
        self.files.list.get(number)
    }

    fn is_whole(&self) -> bool {
        self.range == (i64::MIN..i64::MAX)
    }
}

/// Reads an archive in order. What is damaged is passed over and counted.
#[derive(Debug)]
pub struct ArchiveReader {
    archive: Arc<Archive>,
    /// The segment that is read now or next.
    number: usize,
    open: Option<Open>,
    /// Bytes of the segments before.
    passed: u64,
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    /// The position of the next record.
    expected: u64,
    /// The first position of the next segment.
    until: u64,
    /// Something after the last whole record cannot be read.
    damaged: bool,
    unread: Unread,
}

impl ArchiveReader {
    /// The next record with rows that are wanted, or the end. Never says that more may come.
    ///
    /// # Errors
    /// If a file cannot be read.
    #[expect(clippy::should_implement_trait, reason = "the same as LogReader::next, which is no iterator")]
    pub fn next(&mut self) -> Result<Next, SpoolError> {
        loop {
            if self.open.is_none() {
                match self.open_next()? {
                    true => {}
                    false => return Ok(Next::End),
                }
            }
            if let Some((position, entry)) = self.read()? {
                return Ok(Next::Entry(position, entry));
            }
        }
    }

    /// Bytes that have been read or passed over.
    pub fn bytes_read(&self) -> u64 {
        self.passed + self.open.as_ref().map_or(0, |open| open.segment.offset())
    }

    /// Opens the next segment that may have something; false if there is none.
    fn open_next(&mut self) -> Result<bool, SpoolError> {
        let archive = Arc::clone(&self.archive);
        while let Some((first, path)) = archive.path(self.number) {
            let until = archive.path(self.number + 1).map_or(u64::MAX, |(first, _)| *first);
            let opened = archive.files.open(path)?;
            let Some(mut segment) = opened.filter(|_| archive.bytes[self.number] > 0) else {
                // Deleted by the log; of the last segment nobody knows how much it had.
                archive.missed.fetch_add(if until == u64::MAX { 0 } else { until - first }, Relaxed);
                self.leave();
                continue;
            };
            if until != u64::MAX && !archive.is_whole() {
                let summary = segment.summary().map_err(SpoolError::io(path))?;
                if summary.newest < archive.range.start || summary.least >= archive.range.end {
                    self.leave();
                    continue;
                }
                // Without a seal the summary has read to the end.
                let Some(again) = archive.files.open(path)? else { continue };
                segment = again;
            }
            segment.set_limit(archive.bytes[self.number]).map_err(SpoolError::io(path))?;
            let unreadable = segment.header.is_none() && segment.offset() >= segment.length();
            let mut unread = Unread::default();
            if unreadable && until != u64::MAX {
                unread.add(segment.length(), None);
            }
            self.open = Some(Open { segment, expected: *first, until, damaged: unreadable, unread });
            return Ok(true);
        }
        Ok(false)
    }

    /// The segment has been read.
    fn leave(&mut self) {
        self.open = None;
        self.passed += self.archive.bytes[self.number];
        self.number += 1;
    }

    /// The next wanted record of the open segment; `None` if it has no more.
    fn read(&mut self) -> Result<Option<(u64, Entry)>, SpoolError> {
        let archive = Arc::clone(&self.archive);
        let (Some(open), Some((_, path))) = (&mut self.open, archive.path(self.number)) else { return Ok(None) };
        loop {
            match open.segment.step().map_err(SpoolError::io(path))? {
                Step::Damage { from, to, frame } => {
                    open.damaged = true;
                    open.unread.add(to - from, frame);
                }
                Step::Record(frame, body) if frame.position < open.until => {
                    archive.missed.fetch_add(frame.position.saturating_sub(open.expected), Relaxed);
                    open.expected = frame.end().max(open.expected);
                    (open.damaged, open.unread) = (false, Unread::default());
                    match archive.entry(&open.segment, &frame, &body) {
                        Found::Wanted(entry) => return Ok(Some((frame.position, entry))),
                        Found::Unwanted => {}
                        Found::Unreadable => _ = archive.missed.fetch_add(1, Relaxed),
                    }
                }
                Step::Record(..) | Step::End => break,
            }
        }
        let (expected, until) = (open.expected, open.until);
        let lost = match archive.path(self.number + 1) {
            // Positions that the log has skipped hold nothing.
            Some((next, path)) => {
                let header = archive.files.open(path)?.and_then(|segment| segment.header);
                let skipped = header.map_or(*next, |header| header.skipped_from);
                skipped.clamp(expected.min(until), until) - expected.min(until)
            }
            // At the end, a write that has not been completed is no loss.
            None if open.damaged && open.unread.next(expected) > expected + 1 => open.unread.known(expected).max(1),
            None => 0,
        };
        archive.missed.fetch_add(lost, Relaxed);
        self.leave();
        Ok(None)
    }
}

/// What a record is to a reader.
enum Found {
    Wanted(Entry),
    Unwanted,
    Unreadable,
}

impl Archive {
    fn entry(&self, segment: &Segment, frame: &Frame, body: &Buffer) -> Found {
        match frame.kind {
            Kind::Watermark => return Found::Wanted(Entry::Watermark(frame.time)),
            Kind::Batch => {}
            Kind::Seal | Kind::Gap | Kind::Note => return Found::Unwanted,
        }
        let untimed = frame.greatest == i64::MIN;
        if !untimed && (frame.least >= self.range.end || frame.greatest < self.range.start) {
            return Found::Unwanted;
        }
        let rows = || {
            let ports = self.files.ports(segment.header.as_ref(), frame.ports)?;
            let (name, schema) = ports.list.get(usize::from(frame.port))?;
            // A port that the pipeline no longer has is not missed.
            let Some(port) = self.ports.iter().position(|(port, _)| port == name) else { return Some(None) };
            let rows = decode_rows(body, frame, schema).ok()?;
            Some(Some((port, adapt(rows, &self.ports[port].1)?)))
        };
        let (port, rows) = match rows() {
            Some(Some(found)) => found,
            Some(None) => return Found::Unwanted,
            None => return Found::Unreadable,
        };
        match if self.is_whole() { Some(Batch::new(rows)) } else { Batch::new(rows).within(&self.range) } {
            Some(batch) => Found::Wanted(Entry::Batch { port, time: frame.time, late: frame.late, rows: batch.rows }),
            None => Found::Unwanted,
        }
    }
}

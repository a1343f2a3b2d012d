//! Reading the segments of a log from the first record to the last, past damage.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;

use super::{Fault, Report};
use crate::SpoolError;
use crate::format::{FRAME, Frame, Header, Kind, Mark, Ports, SECTOR, decode_rows};
use crate::index::Unread;
use crate::segment::{Segment, Step, list};

/// The files of a log, and what their headers say.
#[derive(Debug)]
pub(crate) struct Segments {
    pub list: Vec<(u64, PathBuf)>,
    pub mark: Option<Mark>,
    pub latest: Option<Arc<Ports>>,
    known: HashMap<u32, Arc<Ports>>,
}

/// A part of a segment that can be used.
pub(crate) enum Whole<'a> {
    /// A batch, its port's name and its rows.
    Rows(&'a Frame, &'a str, &'a RecordBatch),
    /// Each record, seals left out, with its body.
    Record(&'a Frame, &'a Buffer),
    /// Positions that hold nothing and are not known to do so.
    Lost(u64, u64),
}

/// Takes what a walk finds, or says why it cannot.
type Visit<'a> = dyn FnMut(Whole<'_>) -> Result<(), &'static str> + 'a;

impl Segments {
    pub fn list(log: &Path) -> Result<Self, SpoolError> {
        let list = list(log).map_err(SpoolError::io(log))?;
        let mut all = Self { list, mark: None, latest: None, known: HashMap::new() };
        for (_, path) in &all.list {
            let Some(header) = all.open(path)?.and_then(|segment| segment.header) else { continue };
            all.mark = Some(header.mark);
            all.latest = Some(header.ports.clone());
            all.known.insert(header.ports.id, header.ports);
        }
        Ok(all)
    }

    /// `None` if the file was deleted meanwhile.
    pub fn open(&self, path: &Path) -> Result<Option<Segment>, SpoolError> {
        match Segment::open(path, self.mark) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).map_err(SpoolError::io(path)),
        }
    }

    /// Ports that a segment's records were written with.
    pub fn ports(&self, header: Option<&Header>, id: u32) -> Option<Arc<Ports>> {
        header.map(|header| &header.ports).filter(|ports| ports.id == id).or_else(|| self.known.get(&id)).cloned()
    }

    /// Reads a segment and the gap up to the next one. What `visit` refuses is a fault too.
    pub fn walk(&self, number: usize, report: &mut Report, visit: &mut Visit<'_>) -> Result<(), SpoolError> {
        let Some((first, path)) = self.list.get(number) else { return Ok(()) };
        let Some(mut segment) = self.open(path)? else { return Ok(()) };
        let next = self.list.get(number + 1);
        if segment.header.is_none() && next.is_none() && segment.length() < 2 * SECTOR {
            // The start of a segment that was never written.
            report.unfinished += segment.length();
            return Ok(());
        }
        let mut walk =
            Walk { files: self, path, expected: *first, bad: None, unread: Unread::default(), report, visit };
        walk.header(&segment);
        walk.records(&mut segment, next.map_or(u64::MAX, |(first, _)| *first))?;
        match next {
            Some((first, path)) => {
                let header = self.open(path)?.and_then(|next| next.header);
                let skipped_from = header.map_or(*first, |header| header.skipped_from);
                walk.end_before(*first, skipped_from, segment.offset());
            }
            None => walk.end_of_log(),
        }
        Ok(())
    }
}

/// A damaged range of a file.
#[derive(Clone, Copy)]
struct Bad {
    from: u64,
    to: u64,
    rows: u64,
}

/// A segment while it is read.
struct Walk<'a, 'v> {
    files: &'a Segments,
    path: &'a Path,
    /// Position that the next record has if none is lost.
    expected: u64,
    /// What is damaged since the last whole record.
    bad: Option<Bad>,
    /// The same, for how many records it may have been.
    unread: Unread,
    report: &'a mut Report,
    visit: &'a mut Visit<'v>,
}

impl Walk<'_, '_> {
    /// Notes what is wrong with the header.
    fn header(&mut self, segment: &Segment) {
        let (start, length) = (segment.offset(), segment.length());
        if segment.header.is_none() && start == length {
            // Nothing of it can be read.
            self.bad = Some(Bad { from: 0, to: length, rows: 0 });
            self.unread.add(length, None);
        } else if segment.header_damaged {
            self.report.fault(self.path, 0..start, (0, 0), "damaged header");
        }
    }

    /// Reads the records whose positions are before `until`, where the next segment begins.
    fn records(&mut self, segment: &mut Segment, until: u64) -> Result<(), SpoolError> {
        loop {
            let at = segment.offset();
            match segment.step().map_err(SpoolError::io(self.path))? {
                Step::Damage { from, to, frame } => self.damage(from..to, frame),
                Step::Record(frame, body) if frame.position < until => self.record(segment, at, &frame, &body),
                Step::Record(..) | Step::End => return Ok(()),
            }
        }
    }

    /// Damaged ranges that follow each other count as one.
    fn damage(&mut self, range: Range<u64>, frame: Option<Frame>) {
        let Range { start: from, end: to } = range;
        let rows = frame.map_or(0, |frame| u64::from(frame.rows));
        let so_far = self.bad.unwrap_or(Bad { from, to, rows: 0 });
        self.bad = Some(Bad { from: so_far.from, to, rows: so_far.rows + rows });
        self.unread.add(to - from, frame);
    }

    /// A record at an offset that is whole by its checksums: what was missing before it is lost.
    fn record(&mut self, segment: &Segment, at: u64, frame: &Frame, body: &Buffer) {
        if frame.position > self.expected || self.bad.is_some() {
            self.lost(frame.position, at);
        }
        self.expected = frame.end();
        self.unread = Unread::default();
        if let Err(what) = self.whole(segment, frame, body) {
            self.report.fault(self.path, at..at + frame.bytes(), (1, u64::from(frame.rows)), what);
            let _ = (self.visit)(Whole::Lost(frame.position, frame.end()));
        }
    }

    /// Looks at a record that is whole by its checksums.
    fn whole(&mut self, segment: &Segment, frame: &Frame, body: &Buffer) -> Result<(), &'static str> {
        if frame.kind == Kind::Batch {
            let ports = self.files.ports(segment.header.as_ref(), frame.ports).ok_or("rows of an unknown schema")?;
            let (name, schema) = ports.list.get(usize::from(frame.port)).ok_or("rows of an unknown port")?;
            let rows = decode_rows(body, frame, schema).map_err(|_| "rows that cannot be decoded")?;
            (self.visit)(Whole::Rows(frame, name, &rows))?;
        }
        if frame.is_entry() {
            self.report.records += 1;
            self.report.rows += u64::from(frame.rows);
        }
        if frame.kind != Kind::Seal {
            (self.visit)(Whole::Record(frame, body))?;
        }
        Ok(())
    }

    /// What was expected before the position `to` is lost: it was in what is damaged, or is missing at offset `at`.
    fn lost(&mut self, to: u64, at: u64) {
        let bad = self.bad.take().unwrap_or(Bad { from: at, to: at, rows: 0 });
        self.report.lost(self.path, bad, to.saturating_sub(self.expected));
        let _ = (self.visit)(Whole::Lost(self.expected, to));
    }

    /// Another segment follows, which begins with position `first` and says from where on positions were skipped. This one
    /// has been read up to offset `end`.
    fn end_before(mut self, first: u64, skipped_from: u64, end: u64) {
        let to = skipped_from.clamp(self.expected.min(first), first);
        if self.bad.is_some() || to > self.expected {
            self.lost(to, end);
        }
    }

    /// No other segment follows.
    fn end_of_log(self) {
        let next = self.unread.next(self.expected);
        let Some(bad) = self.bad else { return };
        if next > self.expected + 1 {
            // How many they were is unknown unless the headers are whole.
            self.report.lost(self.path, bad, self.unread.known(self.expected).max(1));
        } else {
            // An interrupted write is no fault.
            self.report.unfinished += bad.to - bad.from;
        }
        let _ = (self.visit)(Whole::Lost(self.expected, next));
    }
}

impl Report {
    fn lost(&mut self, path: &Path, bad: Bad, records: u64) {
        let what = match (bad.to - bad.from, records) {
            (0, _) => "missing records",
            (_, 0) => "damaged bytes beside the records",
            (1..FRAME, _) => "damaged record header",
            _ => "damaged records",
        };
        self.fault(path, bad.from..bad.to, (records, bad.rows), what);
    }

    fn fault(&mut self, path: &Path, range: Range<u64>, (records, rows): (u64, u64), what: &'static str) {
        self.faults.push(Fault { path: path.to_owned(), from: range.start, to: range.end, records, rows, what });
    }
}

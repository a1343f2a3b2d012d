//! Looking at logs from outside: what they hold, and whether it is whole. Works beside the process that writes.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;

use super::adapt::adapt;
use super::format::{FRAME, Frame, Header, Kind, Mark, Ports, SECTOR, decode_rows};
use super::index::Unread;
use super::log::LOCK;
use super::segment::{Segment, Step, Summary, list};
use super::{SpoolError, Time};

/// The logs in a directory, by name: the directory itself if it is a log, else those in it.
///
/// # Errors
/// If the directory cannot be read.
pub fn logs(dir: &Path) -> Result<Vec<(String, PathBuf)>, SpoolError> {
    let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let is_log = |path: &Path| list(path).map(|files| !files.is_empty()).map_err(SpoolError::io(path));
    if is_log(dir)? {
        return Ok(vec![(name(dir), dir.to_owned())]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(SpoolError::io(dir))? {
        let path = entry.map_err(SpoolError::io(dir))?.path();
        if path.is_dir() && is_log(&path)? {
            found.push((name(&path), path));
        }
    }
    found.sort();
    Ok(found)
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Number of segments.
    pub segments: u64,
    /// Number of records.
    pub records: u64,
    /// Number of rows.
    pub rows: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// The first position.
    pub first: u64,
    /// The position after the last one.
    pub end: u64,
    /// Least event time in ns.
    pub oldest: Option<i64>,
    /// Greatest event time in ns; of rows without one, the time of their message.
    pub newest: Option<i64>,
    /// The last watermark in ms; 0 if there is none.
    pub watermark: Time,
}

/// What a log holds, by its seals and headers: bodies are not read.
///
/// # Errors
/// If a file cannot be read.
pub fn contents(log: &Path) -> Result<Contents, SpoolError> {
    let files = Segments::list(log)?;
    let mut total = Summary::new(files.list.first().map_or(0, |(first, _)| *first));
    let first = total.end;
    let mut bytes = 0;
    for (_, path) in &files.list {
        let Some(mut segment) = files.open(path)? else { continue };
        bytes += segment.length();
        let summary = segment.summary().map_err(SpoolError::io(path))?;
        total.end = total.end.max(summary.end);
        total.records += summary.records;
        total.rows += summary.rows;
        total.least = total.least.min(summary.least);
        total.newest = total.newest.max(summary.newest);
        let before = segment.header.map_or(0, |header| header.watermark);
        total.watermark = total.watermark.max(summary.watermark).max(before);
    }
    Ok(Contents {
        segments: files.list.len() as u64,
        records: total.records,
        rows: total.rows,
        bytes,
        first,
        end: total.end,
        oldest: (total.least != i64::MAX).then_some(total.least),
        newest: (total.newest != i64::MIN).then_some(total.newest),
        watermark: total.watermark,
    })
}

/// Something that is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The segment.
    pub path: PathBuf,
    /// Offset of the first byte.
    pub from: u64,
    /// Offset after the last byte; equal to `from` where bytes are missing.
    pub to: u64,
    /// Records that are lost by it.
    pub records: u64,
    /// Rows that are lost by it, of records whose header can be read.
    pub rows: u64,
    /// What it is.
    pub what: &'static str,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, in order.
    pub faults: Vec<Fault>,
    /// Bytes at the end that are no whole record yet: one that is being written, or whose writing was interrupted. The
    /// next start cuts them off.
    pub unfinished: u64,
    /// Records that are whole.
    pub records: u64,
    /// Rows of whole records.
    pub rows: u64,
}

/// Reads all of a log.
///
/// # Errors
/// If a file cannot be read.
pub fn check(log: &Path) -> Result<Report, SpoolError> {
    let files = Segments::list(log)?;
    let mut report = Report::default();
    for number in 0..files.list.len() {
        files.walk(number, &mut report, &mut |_| Ok(()))?;
    }
    Ok(report)
}

/// Whether a process has the log open for writing.
pub fn is_in_use(log: &Path) -> bool {
    let lock = OpenOptions::new().read(true).open(log.join(LOCK));
    lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// Rows of a record.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Position of the record.
    pub position: u64,
    /// Time of the message in ms.
    pub time: Time,
    /// Whether the rows are late.
    pub late: bool,
    /// The rows, of the port's latest schema.
    pub rows: RecordBatch,
}

/// The ports of a log with their latest schemas.
///
/// # Errors
/// If a file cannot be read.
pub fn ports(log: &Path) -> Result<Vec<(String, SchemaRef)>, SpoolError> {
    Ok(Segments::list(log)?.latest.map(|ports| ports.list.clone()).unwrap_or_default())
}

/// Hands out the rows of a port whose event times may be in `from_ns..to_ns`, until `visit` says false. What does not fit
/// `schema` is left out. Returns what is damaged or was left out.
///
/// # Errors
/// If a file cannot be read.
pub fn export(
    log: &Path,
    port: &str,
    schema: &SchemaRef,
    (from_ns, to_ns): (i64, i64),
    visit: &mut dyn FnMut(Rows) -> bool,
) -> Result<Report, SpoolError> {
    let files = Segments::list(log)?;
    let mut report = Report::default();
    let mut more = true;
    for number in 0..files.list.len() {
        let mut rows_of = |item: Whole<'_>| {
            let Whole::Rows(frame, name, rows) = item else { return Ok(()) };
            let in_range = frame.greatest == i64::MIN || (frame.least < to_ns && frame.greatest >= from_ns);
            if more && name == port && in_range {
                let rows = adapt(rows.clone(), schema).ok_or("rows of another schema")?;
                more = visit(Rows { position: frame.position, time: frame.time, late: frame.late, rows });
            }
            Ok(())
        };
        files.walk(number, &mut report, &mut rows_of)?;
        if !more {
            break;
        }
    }
    Ok(report)
}

/// The files of a log, and what their headers say.
#[derive(Debug)]
pub(super) struct Segments {
    pub list: Vec<(u64, PathBuf)>,
    pub mark: Option<Mark>,
    pub latest: Option<Arc<Ports>>,
    known: HashMap<u32, Arc<Ports>>,
}

/// A part of a segment that can be used.
pub(super) enum Whole<'a> {
    /// A batch, its port's name and its rows.
    Rows(&'a Frame, &'a str, &'a RecordBatch),
    /// Each record, seals left out, with its body.
    Record(&'a Frame, &'a Buffer),
    /// Positions that hold nothing and are not known to do so.
    Lost(u64, u64),
}

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
    pub fn walk(
        &self,
        number: usize,
        report: &mut Report,
        visit: &mut dyn FnMut(Whole<'_>) -> Result<(), &'static str>,
    ) -> Result<(), SpoolError> {
        let Some((first, path)) = self.list.get(number) else { return Ok(()) };
        let Some(mut segment) = self.open(path)? else { return Ok(()) };
        let following = self.list.get(number + 1);
        let until = following.map_or(u64::MAX, |(first, _)| *first);
        let (start, length) = (segment.offset(), segment.length());
        let (mut expected, mut bad, mut unread): (u64, Option<Bad>, _) = (*first, None, Unread::default());
        if segment.header.is_none() && following.is_none() && length < 2 * SECTOR {
            // The start of a segment that was never written.
            report.unfinished += length;
            return Ok(());
        } else if segment.header.is_none() && start == length {
            // Nothing of it can be read.
            bad = Some(Bad { from: 0, to: length, rows: 0 });
            unread.add(length, None);
        } else if segment.header_damaged {
            report.fault(path, 0..start, (0, 0), "damaged header");
        }
        loop {
            let at = segment.offset();
            match segment.step().map_err(SpoolError::io(path))? {
                Step::Damage { from, to, frame } => {
                    let rows = frame.map_or(0, |frame| u64::from(frame.rows));
                    let so_far = bad.unwrap_or(Bad { from, to, rows: 0 });
                    bad = Some(Bad { from: so_far.from, to, rows: so_far.rows + rows });
                    unread.add(to - from, frame);
                }
                Step::Record(frame, body) if frame.position < until => {
                    if frame.position > expected || bad.is_some() {
                        report.lost(
                            path,
                            bad.take().unwrap_or(Bad { from: at, to: at, rows: 0 }),
                            frame.position - expected,
                        );
                        let _ = visit(Whole::Lost(expected, frame.position));
                    }
                    expected = frame.end();
                    unread = Unread::default();
                    if let Err(what) = self.whole(&segment, &frame, &body, report, visit) {
                        report.fault(path, at..at + frame.bytes(), (1, u64::from(frame.rows)), what);
                        let _ = visit(Whole::Lost(frame.position, frame.end()));
                    }
                }
                Step::Record(..) | Step::End => break,
            }
        }
        let end = segment.offset();
        let Some((next, path_of_next)) = following else {
            let next = unread.next(expected);
            match bad {
                // How many they were is unknown unless the headers are whole.
                Some(bad) if next > expected + 1 => report.lost(path, bad, unread.known(expected).max(1)),
                // An interrupted write is no fault.
                Some(bad) => report.unfinished += bad.to - bad.from,
                None => {}
            }
            if bad.is_some() {
                let _ = visit(Whole::Lost(expected, next));
            }
            return Ok(());
        };
        let skipped = self.open(path_of_next)?.and_then(|next| next.header).map_or(*next, |header| header.skipped_from);
        let to = skipped.clamp(expected.min(*next), *next);
        if bad.is_some() || to > expected {
            report.lost(path, bad.unwrap_or(Bad { from: end, to: end, rows: 0 }), to.saturating_sub(expected));
            let _ = visit(Whole::Lost(expected, to));
        }
        Ok(())
    }

    /// Looks at a record that is whole by its checksums.
    fn whole(
        &self,
        segment: &Segment,
        frame: &Frame,
        body: &Buffer,
        report: &mut Report,
        visit: &mut dyn FnMut(Whole<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        if frame.kind == Kind::Batch {
            let ports = self.ports(segment.header.as_ref(), frame.ports).ok_or("rows of an unknown schema")?;
            let (name, schema) = ports.list.get(usize::from(frame.port)).ok_or("rows of an unknown port")?;
            let rows = decode_rows(body, frame, schema).map_err(|_| "rows that cannot be decoded")?;
            visit(Whole::Rows(frame, name, &rows))?;
        }
        if frame.is_entry() {
            report.records += 1;
            report.rows += u64::from(frame.rows);
        }
        if frame.kind != Kind::Seal {
            visit(Whole::Record(frame, body))?;
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

    fn fault(&mut self, path: &Path, range: std::ops::Range<u64>, (records, rows): (u64, u64), what: &'static str) {
        self.faults.push(Fault { path: path.to_owned(), from: range.start, to: range.end, records, rows, what });
    }
}

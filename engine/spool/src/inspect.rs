//! Looking at logs from outside: what they hold, and whether it is whole. Works beside the process that writes.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::adapt::adapt;
use crate::lock::LOCK;
use crate::segment::{Summary, list};
use crate::{SpoolError, Time};

mod walk;

pub(crate) use walk::{Segments, Whole};

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

//! `spool`: what the logs hold, whether they are whole, and their rows.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use clap::{Subcommand, ValueEnum};
use engine::batch::{Batch, Time};
use engine::spool::inspect::{Contents, Report, check, contents, export, is_in_use, logs, ports};
use engine::spool::{SpoolError, repair};
use engine::text::{ReadableJson, line};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use crate::summary::number;
use crate::{Exit, complain, print, print_json};

#[derive(Debug, Subcommand)]
pub(crate) enum Spool {
    /// List the logs with what they hold; their engine may be running
    Ls {
        /// Directory of the spool, or of one log
        dir: PathBuf,
        /// As JSON, one object for each log
        #[arg(long)]
        json: bool,
    },
    /// Read everything and report what is damaged; exit code 1 if something is
    Check {
        /// Directory of the spool, or of one log
        dir: PathBuf,
        /// Write damaged segments again without what is damaged; the engine must not be running
        #[arg(long)]
        repair: bool,
    },
    /// Write the rows of a log to stdout; its engine may be running
    Export {
        /// Directory of the spool, or of one log
        dir: PathBuf,
        /// Node whose rows are wanted, or a port of it as in `requests.rejected`; a node alone is its first port
        #[arg(value_name = "NODE[.PORT]")]
        port: String,
        /// Only rows from this event time on, such as 2026-05-01T12:00:00Z, or in ms since 1970
        #[arg(long, value_name = "TIME", value_parser = event_time)]
        from: Option<i64>,
        /// Only rows before this event time
        #[arg(long, value_name = "TIME", value_parser = event_time)]
        to: Option<i64>,
        /// Format of the rows
        #[arg(long, value_enum, default_value_t)]
        format: RowFormat,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum RowFormat {
    /// One JSON object a row
    #[default]
    Jsonl,
    /// An Arrow IPC stream
    Arrow,
}

/// Nanoseconds since the epoch, from RFC 3339 or milliseconds since the epoch.
pub(crate) fn event_time(text: &str) -> Result<i64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let ns = text.parse::<i64>().ok().and_then(|ms| ms.checked_mul(1_000_000));
        return ns.ok_or_else(|| "after 2262".to_owned());
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| error.to_string())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    i64::try_from(since.as_nanos()).map_err(|_| "after 2262".to_owned())
}

/// The logs in a folder, of which there must be one: a check of the wrong folder would find no damage.
fn found(dir: &Path) -> Result<Vec<(String, PathBuf)>, Exit> {
    let found = logs(dir).map_err(|error| said(&error))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let beneath = dir.join("spool");
    let hint = match beneath.is_dir() {
        true => format!("; did you mean {}?", beneath.display()),
        false => String::new(),
    };
    complain(&format!("there is no log in {}{hint}", dir.display()));
    Err(Exit::Refused)
}

fn said(error: &SpoolError) -> Exit {
    complain(&error.to_string());
    match error {
        SpoolError::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => Exit::Permission,
        SpoolError::InUse(_) => Exit::Refused,
        _ => Exit::Failed,
    }
}

pub(crate) fn spool(command: Spool) -> Exit {
    let (Spool::Ls { dir, .. } | Spool::Check { dir, .. } | Spool::Export { dir, .. }) = &command;
    let logs = match found(dir) {
        Ok(logs) => logs,
        Err(exit) => return exit,
    };
    let done = match command {
        Spool::Ls { json, .. } => ls(&logs, json),
        Spool::Check { repair, .. } => report(&logs, repair),
        Spool::Export { dir, port, from, to, format } => {
            rows((&dir, &logs), &port, (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX)), format)
        }
    };
    done.unwrap_or_else(|error| said(&error))
}

fn ls(logs: &[(String, PathBuf)], json: bool) -> Result<Exit, SpoolError> {
    let mut out = String::new();
    for (name, path) in logs {
        let contents = contents(path)?;
        match json {
            true => drop(writeln!(out, "{}", entry(name, path, &contents))),
            false => text(&mut out, name, path, &contents),
        }
    }
    Ok(if json { print_json(&out) } else { print(&out) })
}

fn entry(name: &str, path: &Path, contents: &Contents) -> Value {
    json!({
        "log": name,
        "path": path.to_string_lossy(),
        "in_use": is_in_use(path),
        "segments": contents.segments,
        "records": contents.records,
        "rows": contents.rows,
        "bytes": contents.bytes,
        "first": contents.first,
        "end": contents.end,
        "oldest": contents.oldest.map(rfc3339),
        "newest": contents.newest.map(rfc3339),
        "watermark": (contents.watermark > 0).then(|| rfc3339(millis(contents.watermark))),
    })
}

fn text(out: &mut String, name: &str, path: &Path, contents: &Contents) {
    let state = if is_in_use(path) { ", in use" } else { "" };
    let _ = writeln!(out, "{}{state}", line(name));
    let Contents { segments, records, rows, bytes, first, end, oldest, newest, watermark } = contents;
    let [segments, records, rows] = [segments, records, rows].map(|n| number(*n));
    let _ = writeln!(out, "  {rows} rows in {records} records in {segments} segments, {}", HumanBytes(*bytes));
    let _ = writeln!(out, "  positions {first} up to {end}");
    if let (Some(oldest), Some(newest)) = (oldest, newest) {
        let _ = writeln!(out, "  event times {} to {}", rfc3339(*oldest), rfc3339(*newest));
    }
    if *watermark > 0 {
        let _ = writeln!(out, "  watermark {}", rfc3339(millis(*watermark)));
    }
}

fn millis(ms: Time) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

/// A time as text; before 1970 as the number of ns.
pub(crate) fn rfc3339(ns: i64) -> String {
    match u64::try_from(ns) {
        Ok(ns) => humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(ns)).to_string(),
        Err(_) => format!("{ns} ns"),
    }
}

fn report(logs: &[(String, PathBuf)], mend: bool) -> Result<Exit, SpoolError> {
    let mut out = String::new();
    let mut exit = Exit::Ok;
    for (name, path) in logs {
        let report = if mend { repair(path)? } else { check(path)? };
        damage(&mut out, &report);
        let name = line(name);
        let whole = format!("{} rows in {} whole records", number(report.rows), number(report.records));
        let lost: u64 = report.faults.iter().map(|fault| fault.records).sum();
        let _ = match (report.faults.is_empty(), mend) {
            (true, _) => writeln!(out, "{name}: no damage, {whole}"),
            (false, true) => writeln!(out, "{name}: repaired, {} records lost, {whole}", number(lost)),
            (false, false) => writeln!(out, "{name}: damaged, {} records lost, {whole}", number(lost)),
        };
        if !report.faults.is_empty() && !mend {
            exit = Exit::Failed;
        }
        if report.unfinished > 0 && !mend && !is_in_use(path) {
            let _ = writeln!(
                out,
                "{name}: {} bytes of an interrupted write, which the next start cuts off",
                report.unfinished
            );
        }
    }
    Ok(match print(&out) {
        Exit::Ok => exit,
        failed => failed,
    })
}

fn damage(out: &mut String, report: &Report) {
    for fault in &report.faults {
        let path = fault.path.display().to_string();
        let length = fault.to - fault.from;
        let _ = write!(out, "{}:{}: {}, {length} bytes", line(&path), fault.from, fault.what);
        let _ = match (fault.records, fault.rows) {
            (0, _) => writeln!(out, ", nothing lost"),
            (records, 0) => writeln!(out, ", {} records lost", number(records)),
            (records, rows) => writeln!(out, ", {} records lost, at least {} rows", number(records), number(rows)),
        };
    }
}

fn rows(
    (dir, all): (&Path, &[(String, PathBuf)]),
    port: &str,
    range: (i64, i64),
    format: RowFormat,
) -> Result<Exit, SpoolError> {
    let (node, name) = match all.iter().any(|(log, _)| log == port) {
        true => (port, None),
        false => port.split_once('.').map_or((port, None), |(node, port)| (node, Some(port))),
    };
    let Some((_, path)) = all.iter().find(|(log, _)| log == node) else {
        let names: Vec<&str> = all.iter().map(|(log, _)| log.as_str()).collect();
        complain(&format!("there is no log `{node}` in {}; there is: {}", dir.display(), names.join(", ")));
        return Ok(Exit::Refused);
    };
    let ports = ports(path)?;
    let Some((name, schema)) = ports.iter().find(|(port, _)| name.is_none_or(|name| name == port)) else {
        let names: Vec<&str> = ports.iter().map(|(port, _)| port.as_str()).collect();
        complain(&format!("`{port}` has no such port; `{node}` has: {}", names.join(", ")));
        return Ok(Exit::Refused);
    };
    let stdout = io::stdout().lock();
    let is_seen = stdout.is_terminal();
    if is_seen && matches!(format, RowFormat::Arrow) {
        complain("an Arrow stream is not for a terminal: send it to a file or a program");
        return Ok(Exit::Refused);
    }
    // Rows have what clients have sent. Files and programs get it as it is.
    let to: Box<dyn Write + '_> = match is_seen {
        true => Box::new(ReadableJson::new(stdout)),
        false => Box::new(stdout),
    };
    let mut out = Output::new(format, schema, BufWriter::new(to));
    let mut failed = out.as_ref().err().map(ToString::to_string);
    let mut write = |rows: RecordBatch| match &mut out {
        Ok(out) => out.write(&rows).map_err(|error| failed = broken(&error)).is_ok(),
        Err(_) => false,
    };
    let report = export(path, name, schema, range, &mut |found| match in_range(found.rows, range) {
        Some(rows) => write(rows),
        None => true,
    })?;
    if let (Ok(out), None) = (out, &failed) {
        failed = out.finish().err().and_then(|error| broken(&error));
    }
    let lost: u64 = report.faults.iter().map(|fault| fault.records).sum();
    if lost > 0 {
        complain(&format!("{lost} records are damaged or of another schema and were left out; see `spool check`"));
    }
    match failed {
        Some(error) if !error.is_empty() => {
            complain(&format!("stdout cannot be written: {error}"));
            Ok(Exit::Failed)
        }
        _ => Ok(Exit::Ok),
    }
}

/// The rows with an event time in a range; all of them if they have none.
fn in_range(rows: RecordBatch, (from, to): (i64, i64)) -> Option<RecordBatch> {
    if (from, to) == (i64::MIN, i64::MAX) {
        return Some(rows);
    }
    Batch::new(rows).within(&(from..to)).map(|batch| batch.rows)
}

/// Why stdout failed; empty if its reader has gone away, which has what it wanted.
fn broken(error: &ArrowError) -> Option<String> {
    match error {
        ArrowError::IoError(_, error) if error.kind() == io::ErrorKind::BrokenPipe => Some(String::new()),
        error => Some(error.to_string()),
    }
}

enum Output<W: Write> {
    Jsonl(Box<LineDelimitedWriter<W>>),
    Arrow(Box<StreamWriter<W>>),
}

impl<W: Write> Output<W> {
    fn new(format: RowFormat, schema: &SchemaRef, to: W) -> Result<Self, ArrowError> {
        Ok(match format {
            RowFormat::Jsonl => {
                let builder = WriterBuilder::new().with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.9fZ".to_owned());
                Self::Jsonl(Box::new(builder.build::<W, LineDelimited>(to)))
            }
            RowFormat::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(to, schema)?)),
        })
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        match self {
            Self::Jsonl(out) => out.write(rows),
            Self::Arrow(out) => out.write(rows),
        }
    }

    fn finish(self) -> Result<(), ArrowError> {
        match self {
            Self::Jsonl(mut out) => {
                out.finish()?;
                Ok(out.into_inner().flush()?)
            }
            Self::Arrow(out) => Ok(out.into_inner()?.flush()?),
        }
    }
}

//! Lines to batches: parses, judges each row by the watermark, and keeps what is refused.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use engine::batch::{Batch, Time};
use engine::logged::Resume;
use engine::time::{Arrival, Watermark, wall_clock_ns};

use super::lines::Line;
use crate::format::{Format, LineParser, Reject, Rejects, Rows};

/// Rows of a batch.
const BATCH_ROWS: usize = 4096;

/// Text of a batch in bytes, a line more or less.
const BATCH_BYTES: usize = 1 << 20;

/// Port of the rows.
const OUT: usize = 0;

/// Port of the refused lines.
const REJECTED: usize = 1;

/// What a source of lines has read and not handed on.
#[derive(Debug)]
pub(super) struct Intake {
    parser: LineParser,
    watermark: Watermark,
    on_time: Rows,
    late: Rows,
    rejects: Rejects,
    max_line: usize,
    /// Lines so far, empty and refused ones included.
    lines: u64,
    /// Lines that are in the log already, though the source reads them again.
    logged: HashSet<u64>,
    /// Bytes of the lines in the batch.
    bytes: usize,
}

impl Intake {
    pub(super) fn new(
        format: Arc<Format>,
        (lateness, tick): (Duration, Duration),
        max_line: usize,
        resume: &Resume,
    ) -> Self {
        let mut watermark = Watermark::new(lateness, tick);
        watermark.resume(resume.watermark);
        Self {
            on_time: Rows::new(&format),
            late: Rows::new(&format),
            rejects: Rejects::default(),
            parser: LineParser::new(format, wall_clock_ns()),
            watermark,
            max_line,
            lines: resume.cursor.as_ref().map_or(resume.seq, |cursor| cursor.seq),
            logged: resume.cursor.iter().flat_map(|cursor| &cursor.logged).copied().collect(),
            bytes: 0,
        }
    }

    /// Takes a line; whether the batch is full now.
    pub(super) fn take(&mut self, line: Line<'_>) -> bool {
        let seq = self.lines;
        self.lines += 1;
        if self.logged.remove(&seq) {
            return false;
        }
        let (text, row) = match line {
            Line::Whole(text) => {
                let text = text.trim_ascii();
                if text.is_empty() {
                    return false;
                }
                (text, self.parser.parse(text))
            }
            Line::TooLong(head) => (head, Err(Reject::TooLong(self.max_line))),
        };
        self.bytes += text.len();
        match row {
            Ok(row) => match self.watermark.observe(row.time) {
                Arrival::OnTime => self.on_time.push(seq, &row),
                Arrival::Late => self.late.push(seq, &row),
            },
            Err(reason) => {
                let now = i64::try_from(self.watermark.time().saturating_mul(1_000_000)).unwrap_or(i64::MAX);
                self.rejects.push(now, seq, text, &reason.to_string());
            }
        }
        self.on_time.len() + self.late.len() + self.rejects.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Moves time on while a live source is idle.
    pub(super) fn idle(&mut self, drained_ns: i64) {
        self.watermark.idle(drained_ns);
    }

    /// Says what the wall clock is: event times far ahead of it are refused.
    pub(super) fn look_at_clock(&mut self) {
        self.parser.set_now(wall_clock_ns());
    }

    pub(super) fn watermark(&self) -> Time {
        self.watermark.time()
    }

    /// Whether any line came.
    /// The position of the next line.
    pub(super) fn seq(&self) -> u64 {
        self.lines
    }

    pub(super) fn has_read(&self) -> bool {
        self.lines > 0
    }

    /// Hands on what has been read.
    pub(super) fn flush(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<(), String> {
        self.bytes = 0;
        let fault = |error: arrow::error::ArrowError| format!("rows do not fit their columns: {error}");
        if !self.on_time.is_empty() {
            out.push((OUT, Batch::new(self.on_time.take().map_err(fault)?)));
        }
        if !self.late.is_empty() {
            out.push((OUT, Batch { late: true, ..Batch::new(self.late.take().map_err(fault)?) }));
        }
        if !self.rejects.is_empty() {
            out.push((REJECTED, Batch::new(self.rejects.take().map_err(fault)?)));
        }
        Ok(())
    }
}

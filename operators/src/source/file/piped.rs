//! A named pipe or standard input, read to its end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use engine::batch::{Batch, Time};
use engine::source_log::Resume;
use engine::metrics::NodeMetrics;
use engine::shared::Shared;
use engine::source::{Poll, Reader};
use engine::time::wall_clock_ns;

use super::super::intake::{Intake, Settings};
use super::super::lines::Lines;
use super::super::pipe::{Got, Pipe};

/// Reads lines of a pipe on the worker that owns the source.
pub(super) struct PipeReader {
    pipe: Pipe,
    lines: Lines,
    intake: Intake,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    id: String,
    stopping: bool,
}

impl PipeReader {
    /// Opens a named pipe, or standard input if there is no path.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn open(
        path: Option<&Path>,
        settings: &Settings,
        resume: &Resume,
        shared: &Arc<Shared>,
        metrics: &Arc<NodeMetrics>,
        id: &str,
    ) -> Result<Self, String> {
        Ok(Self {
            pipe: Pipe::open(path)?,
            lines: Lines::new(settings.max_line),
            intake: Intake::new(settings, resume, metrics.counter("repaired")),
            shared: Arc::clone(shared),
            metrics: Arc::clone(metrics),
            id: id.to_owned(),
            stopping: false,
        })
    }

    /// Reads until a batch is full or there is nothing to read.
    fn read(&mut self) -> Result<Poll, String> {
        loop {
            while let Some(line) = self.lines.next() {
                if self.intake.take(line) {
                    return Ok(Poll::Ready);
                }
            }
            super::count_zeros(&mut self.lines, &self.metrics);
            // Bytes that were taken before the stop may still come, which nobody else can read.
            if self.stopping && !self.pipe.is_draining() {
                self.intake.finish();
                // What is left is not a whole line yet, or was never asked for.
                return Ok(Poll::Done);
            }
            match self.pipe.read()? {
                Got::Chunk(chunk) => {
                    self.lines.push(&chunk);
                    NodeMetrics::add(&self.metrics.bytes, chunk.len());
                    self.shared.progress.read.fetch_add(chunk.len() as u64, Relaxed);
                }
                Got::Nothing if self.stopping => return Ok(Poll::Idle),
                Got::Nothing => {
                    // What comes through a pipe is happening now, or it was recorded: then time is not the clock's.
                    let now = wall_clock_ns();
                    if let Some(drained) = self.pipe.drained(now).filter(|_| self.intake.is_current(now)) {
                        self.intake.idle(drained);
                    }
                    return Ok(Poll::Idle);
                }
                Got::End => {
                    // Of a pipe that is left to the next reader the end is not that of a line; the thread ends the last one.
                    if !self.stopping
                        && let Some(line) = self.lines.finish()
                    {
                        self.intake.take(line);
                    }
                    self.intake.finish();
                    if !self.intake.has_read() && !self.stopping {
                        tracing::warn!(node = self.id, "the file is empty");
                    }
                    return Ok(Poll::Done);
                }
            }
        }
    }
}

impl Reader for PipeReader {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        self.intake.look_at_clock();
        let result = self.read();
        self.intake.flush(out)?;
        result
    }

    fn watermark(&self) -> Time {
        self.intake.watermark()
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.pipe.stop();
    }
}

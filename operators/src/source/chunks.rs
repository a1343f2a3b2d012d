//! The read loop of sources whose bytes a thread of theirs receives.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use engine::batch::{Batch, Time};
use engine::contract::NodeMetrics;
use engine::contract::Resume;
use engine::contract::{Poll, Reader};

use super::intake::{Intake, Settings};
use super::lines::Lines;

/// What a read says.
pub(super) enum Got {
    Chunk(Vec<u8>),
    Nothing,
    /// Nothing comes any more.
    End,
}

/// Where chunks come from.
pub(super) trait Chunks {
    /// The next bytes, if there are any.
    ///
    /// # Errors
    /// What keeps the source from being read.
    fn receive(&mut self) -> Result<Got, String>;

    /// There is nothing now: time may pass.
    fn idle(&mut self, intake: &mut Intake);

    /// Nothing comes any more. Whether the source is done; it is asked again if it is only idle.
    fn end(&mut self, lines: &mut Lines, intake: &mut Intake) -> Poll;

    /// Takes no more than what was begun.
    fn stop(&mut self);
}

/// Reads lines out of chunks on the worker that owns the source.
pub(super) struct ChunkReader<C> {
    chunks: C,
    lines: Lines,
    intake: Intake,
    metrics: Arc<NodeMetrics>,
}

impl<C: Chunks> ChunkReader<C> {
    /// Goes on with the positions of an earlier run.
    pub(super) fn new(chunks: C, settings: &Settings, resume: &Resume, metrics: &Arc<NodeMetrics>) -> Self {
        Self {
            chunks,
            lines: Lines::new(settings.max_line),
            intake: Intake::new(settings, resume, metrics),
            metrics: Arc::clone(metrics),
        }
    }

    /// Reads until a batch is full or there is nothing to read.
    fn read(&mut self) -> Result<Poll, String> {
        loop {
            while let Some(line) = self.lines.next() {
                if self.intake.take(line) {
                    return Ok(Poll::Ready);
                }
            }
            count_zeros(&mut self.lines, &self.metrics);
            match self.chunks.receive()? {
                Got::Chunk(chunk) => {
                    NodeMetrics::add(&self.metrics.bytes, chunk.len());
                    self.lines.push(&chunk);
                }
                Got::Nothing => {
                    self.chunks.idle(&mut self.intake);
                    return Ok(Poll::Idle);
                }
                Got::End => return Ok(self.chunks.end(&mut self.lines, &mut self.intake)),
            }
        }
    }
}

impl<C: Chunks> Reader for ChunkReader<C> {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        self.intake.look_at_clock();
        let result = self.read();
        // Also what comes before a fault.
        self.intake.flush(out)?;
        result
    }

    fn watermark(&self) -> Time {
        self.intake.watermark()
    }

    fn stop(&mut self) {
        self.chunks.stop();
    }
}

/// Adds zeros that were passed over to their counter.
pub(super) fn count_zeros(lines: &mut Lines, metrics: &NodeMetrics) {
    let zeros = lines.zeros();
    if zeros > 0 {
        metrics.counter("nul_bytes").fetch_add(zeros, Relaxed);
    }
}

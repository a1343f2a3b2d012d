//! A named pipe or standard input, read to its end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use engine::contract::Poll;
use engine::contract::Shared;
use engine::contract::wall_clock_ns;

use super::super::chunks::{Chunks, Got};
use super::super::intake::Intake;
use super::super::lines::Lines;
use super::super::pipe::Pipe;

/// Chunks of a pipe.
pub(super) struct Piped {
    pipe: Pipe,
    shared: Arc<Shared>,
    id: String,
    stopping: bool,
}

impl Piped {
    /// Opens a named pipe, or standard input if there is no path.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn open(path: Option<&Path>, shared: &Arc<Shared>, id: &str) -> Result<Self, String> {
        Ok(Self { pipe: Pipe::open(path)?, shared: Arc::clone(shared), id: id.to_owned(), stopping: false })
    }
}

impl Chunks for Piped {
    fn receive(&mut self) -> Result<Got, String> {
        // Bytes that were taken before the stop may still come, which nobody else can read.
        if self.stopping && !self.pipe.is_draining() {
            return Ok(Got::End);
        }
        let got = self.pipe.read()?;
        if let Got::Chunk(chunk) = &got {
            self.shared.progress.read.fetch_add(chunk.len() as u64, Relaxed);
        }
        Ok(got)
    }

    fn idle(&mut self, intake: &mut Intake) {
        // What comes through a pipe is happening now, or it was recorded: then time is not the clock's.
        let now = wall_clock_ns();
        if !self.stopping
            && let Some(drained) = self.pipe.drained(now).filter(|_| intake.is_current(now))
        {
            intake.idle(drained);
        }
    }

    fn end(&mut self, lines: &mut Lines, intake: &mut Intake) -> Poll {
        // Of a pipe that is left to the next reader the end is not that of a line; the thread ends the last one.
        if !self.stopping
            && let Some(line) = lines.finish()
        {
            intake.take(line);
        }
        intake.finish();
        if !intake.has_read() && !self.stopping {
            tracing::warn!(node = self.id, "the file is empty");
        }
        Poll::Done
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.pipe.stop();
    }
}

//! What a thread has received, for the worker that reads it.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use engine::contract::{Poll, wall_clock_ns};

use super::chunks::{Chunks, Got};
use super::intake::Intake;
use super::lines::Lines;

/// The longest that time is let pass for what a stopped source has received.
const DRAIN: Duration = Duration::from_secs(1);

/// Bytes that a thread hands over at once.
pub(super) const CHUNK: usize = 64 << 10;

/// How many such chunks wait at most.
const QUEUE: usize = 64;

/// The receiving thread's end.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    /// Chunks of whole lines; waits while the queue is full. Fails if nobody reads any more.
    pub sender: Sender<Result<Vec<u8>, String>>,
    /// The thread is to stop.
    pub stop: Arc<AtomicBool>,
    /// Wall clock in ns: all that had come by then has been handed over. Time may pass up to here, not up to the
    /// reader's own clock: what waits in the kernel or in the thread is not late because the dataflow was busy.
    pub drained: Arc<AtomicI64>,
}

/// Chunks that the thread has received.
pub(super) struct Received {
    queue: Receiver<Result<Vec<u8>, String>>,
    stop: Arc<AtomicBool>,
    drained: Arc<AtomicI64>,
    /// What `drained` was before the queue was looked at: what is handed over in between counts for the next time.
    before: i64,
    /// Another run goes on where this one stops.
    spooled: bool,
    /// When the last row came.
    ended: Option<Instant>,
}

impl Received {
    /// Both ends of a queue. Of a source with a log another run goes on where this one stops.
    pub fn new(is_logged: bool) -> (Handover, Self) {
        let (sender, queue) = bounded(QUEUE);
        let (stop, drained) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let handover = Handover { sender, stop: Arc::clone(&stop), drained: Arc::clone(&drained) };
        (handover, Self { queue, stop, drained, before: 0, spooled: is_logged, ended: None })
    }
}

impl Chunks for Received {
    fn receive(&mut self) -> Result<Got, String> {
        self.before = self.drained.load(Acquire);
        match self.queue.try_recv() {
            Ok(chunk) => chunk.map(Got::Chunk),
            Err(TryRecvError::Empty) => Ok(Got::Nothing),
            Err(TryRecvError::Disconnected) => Ok(Got::End),
        }
    }

    fn idle(&mut self, intake: &mut Intake) {
        intake.idle(self.before);
    }

    /// Nothing more comes in this run: whether time has moved on as far as it should.
    fn end(&mut self, _: &mut Lines, intake: &mut Intake) -> Poll {
        if !self.spooled {
            intake.close();
            return Poll::Done;
        }
        // Time passes as for any source that is idle. What a longer lateness holds back is in the log, and rows as old as it
        // allows may come to the next run.
        let since = *self.ended.get_or_insert_with(Instant::now);
        intake.idle(wall_clock_ns());
        if intake.has_passed_all() || since.elapsed() >= DRAIN { Poll::Done } else { Poll::Idle }
    }

    fn stop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.stop();
    }
}

//! The socket that records go to. Sending never waits: a record that cannot go now is lost, and that is counted and reported.

use std::io::{Error, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::{Level, Target};
use crate::counters::Counters;
use crate::record::{MAX_RECORD, MIN_RECORD, Record};

/// A process's way to a socket, shared by its threads.
pub struct Channel {
    target: Target,
    /// Bytes of a record; less than [`MAX_RECORD`] where the system takes no datagram as long.
    limit: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    socket: Option<Arc<UnixDatagram>>,
    /// Before this moment there is no further attempt to reach the socket.
    next_attempt: Option<Instant>,
    /// Lost since the last record that was sent.
    lost_before: u64,
    /// Lost since the last report.
    unreported: u64,
    last_report: Option<Instant>,
}

/// A message for the server's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How important it is.
    pub level: Level,
    /// One line.
    pub text: String,
}

/// Why a record is lost.
enum Loss {
    Full,
    Unreachable(Error),
    TooLarge,
}

/// Errors of Linux that have no name in `ErrorKind`: a datagram that is too long, and no memory for it.
const EMSGSIZE: i32 = 90;
const ENOBUFS: i32 = 105;

impl Channel {
    /// One that is not connected yet.
    pub fn new(target: Target) -> Self {
        Self { target, limit: AtomicUsize::new(MAX_RECORD), state: Mutex::default() }
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a record, or loses it. What there is to report.
    pub fn send(&self, record: &Record, now: Instant, counters: &Counters) -> Option<Report> {
        let lost_before = std::mem::take(&mut self.lock().lost_before);
        let mut connected = None;
        match self.attempt(record, lost_before, now, &mut connected) {
            Ok(cut) => {
                Counters::add(&counters.sent);
                if cut {
                    Counters::add(&counters.cut);
                }
                connected
            }
            Err(loss) => self.lose(&loss, lost_before, now, counters),
        }
    }

    /// What has been lost and not been reported, at a process's end.
    pub fn last_report(&self) -> Option<Report> {
        let lost = std::mem::take(&mut self.lock().unreported);
        let text = format!("{lost} records lost since the last report ({})", self.target.socket.display());
        (lost > 0).then_some(Report { level: Level::Error, text })
    }

    /// Sends a record; whether it was cut.
    fn attempt(
        &self,
        record: &Record,
        lost_before: u64,
        now: Instant,
        connected: &mut Option<Report>,
    ) -> Result<bool, Loss> {
        let mut socket = self.socket(None, now, connected)?;
        let mut has_reconnected = false;
        loop {
            let limit = self.limit.load(Relaxed);
            let (text, cut) = record.render(limit, lost_before);
            let Err(error) = socket.send(text.as_bytes()) else { return Ok(cut) };
            match (error.kind(), error.raw_os_error()) {
                (ErrorKind::Interrupted, _) => {}
                (ErrorKind::WouldBlock | ErrorKind::OutOfMemory, _) | (_, Some(ENOBUFS)) => return Err(Loss::Full),
                (_, Some(EMSGSIZE)) if limit > MIN_RECORD => {
                    self.limit.store((limit / 2).max(MIN_RECORD), Relaxed);
                }
                (_, Some(EMSGSIZE)) => return Err(Loss::TooLarge),
                _ if has_reconnected => return Err(self.gone(&socket, error, now)),
                // The receiver has been started again, or is gone.
                _ => {
                    has_reconnected = true;
                    socket = self.socket(Some(&socket), now, connected)?;
                }
            }
        }
    }

    /// The socket, connected to its path: another one than `broken`.
    fn socket(
        &self,
        broken: Option<&Arc<UnixDatagram>>,
        now: Instant,
        connected: &mut Option<Report>,
    ) -> Result<Arc<UnixDatagram>, Loss> {
        let mut state = self.lock();
        if let Some(socket) = &state.socket
            && broken.is_none_or(|broken| !Arc::ptr_eq(broken, socket))
        {
            return Ok(Arc::clone(socket));
        }
        state.socket = None;
        if state.next_attempt.is_some_and(|next| now < next) {
            return Err(Loss::Unreachable(ErrorKind::NotConnected.into()));
        }
        match connect(&self.target) {
            Ok(socket) => {
                let socket = Arc::new(socket);
                state.socket = Some(Arc::clone(&socket));
                state.next_attempt = None;
                let text = format!("records go to {}", self.target.socket.display());
                *connected = Some(Report { level: Level::Info, text });
                Ok(socket)
            }
            Err(error) => {
                state.next_attempt = now.checked_add(self.target.reconnect_interval);
                Err(Loss::Unreachable(error))
            }
        }
    }

    /// A socket that has just been connected and takes nothing.
    fn gone(&self, socket: &Arc<UnixDatagram>, error: Error, now: Instant) -> Loss {
        let mut state = self.lock();
        if state.socket.as_ref().is_some_and(|current| Arc::ptr_eq(current, socket)) {
            state.socket = None;
            state.next_attempt = now.checked_add(self.target.reconnect_interval);
        }
        Loss::Unreachable(error)
    }

    fn lose(&self, loss: &Loss, lost_before: u64, now: Instant, counters: &Counters) -> Option<Report> {
        let counter: &AtomicU64 = match loss {
            Loss::Full => &counters.lost_full,
            Loss::Unreachable(_) => &counters.lost_unreachable,
            Loss::TooLarge => &counters.lost_too_large,
        };
        Counters::add(counter);
        let mut state = self.lock();
        state.lost_before = state.lost_before.saturating_add(lost_before).saturating_add(1);
        state.unreported = state.unreported.saturating_add(1);
        let since = state.last_report.map(|last| now.saturating_duration_since(last));
        let path = self.target.socket.display();
        let why = match loss {
            Loss::Full => {
                "its queue is full: the receiver is too slow, or net.unix.max_dgram_qlen too small".to_owned()
            }
            Loss::Unreachable(error) => format!("nobody receives there ({error})"),
            Loss::TooLarge => format!("the system takes no datagram of {MIN_RECORD} bytes"),
        };
        if since.is_some_and(|since| since < self.target.error_report_interval) {
            return Some(Report { level: Level::Debug, text: format!("a record for {path} is lost: {why}") });
        }
        state.last_report = Some(now);
        let lost = std::mem::take(&mut state.unreported);
        Some(Report { level: Level::Error, text: format!("{lost} records for {path} are lost: {why}") })
    }

    /// A thread that panicked has left nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(target: &Target) -> Result<UnixDatagram, Error> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(&target.socket)?;
    Ok(socket)
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;

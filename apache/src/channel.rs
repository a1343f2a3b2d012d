//! The socket that records go to. Sending never waits: a record that cannot go now is lost, and that is counted and reported.

use std::io::{Error, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::config::{Level, Target};
use crate::counters::Counters;
use crate::record::{MAX_RECORD, MIN_RECORD, Record};

/// A process's way to a socket, shared by its threads. They meet in nothing but atomic numbers, and in a lock that is written only
/// to connect.
pub struct Channel {
    target: Target,
    /// Bytes of a record; less than [`MAX_RECORD`] where the system takes no datagram as long.
    limit: AtomicUsize,
    socket: RwLock<Option<Arc<UnixDatagram>>>,
    /// From which times in µs are counted, from 1.
    origin: Instant,
    /// Before this time there is no further attempt to reach the socket.
    next_attempt: AtomicU64,
    /// Before this time there is no further report.
    next_report: AtomicU64,
    /// Lost since the last record that was sent.
    lost_before: AtomicU64,
    /// Lost since the last report.
    unreported: AtomicU64,
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
        Self {
            target,
            limit: AtomicUsize::new(MAX_RECORD),
            socket: RwLock::default(),
            origin: Instant::now(),
            next_attempt: AtomicU64::new(0),
            next_report: AtomicU64::new(0),
            lost_before: AtomicU64::new(0),
            unreported: AtomicU64::new(0),
        }
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a record, or loses it. What there is to report of the level, or more important.
    pub fn send(&self, record: &Record, now: Instant, counters: &Counters, level: Level) -> Option<Report> {
        let lost_before = match self.lost_before.load(Relaxed) {
            0 => 0,
            _ => self.lost_before.swap(0, Relaxed),
        };
        let now = self.since_origin(now);
        let mut connected = None;
        let report = match self.attempt(record, lost_before, now, &mut connected) {
            Ok(cut) => {
                Counters::add(&counters.sent);
                if cut {
                    Counters::add(&counters.cut);
                }
                connected
            }
            Err(loss) => self.lose(&loss, lost_before, now, counters, level),
        };
        report.filter(|report| report.level <= level)
    }

    /// What has been lost and not been reported, at a process's end.
    pub fn last_report(&self) -> Option<Report> {
        let lost = self.unreported.swap(0, Relaxed);
        let text = format!("{lost} records lost since the last report ({})", self.target.socket.display());
        (lost > 0).then_some(Report { level: Level::Error, text })
    }

    /// Sends a record; whether it was cut.
    fn attempt(
        &self,
        record: &Record,
        lost_before: u64,
        now: u64,
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
        now: u64,
        connected: &mut Option<Report>,
    ) -> Result<Arc<UnixDatagram>, Loss> {
        if broken.is_none()
            && let Some(socket) = &*self.socket.read().unwrap_or_else(PoisonError::into_inner)
        {
            return Ok(Arc::clone(socket));
        }
        // Not while another thread holds the lock: with a broken socket it has to be looked at again below.
        if broken.is_none() && now < self.next_attempt.load(Relaxed) {
            return Err(Loss::Unreachable(ErrorKind::NotConnected.into()));
        }
        let mut current = self.socket.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = &*current
            && broken.is_none_or(|broken| !Arc::ptr_eq(broken, socket))
        {
            return Ok(Arc::clone(socket));
        }
        *current = None;
        if now < self.next_attempt.load(Relaxed) {
            return Err(Loss::Unreachable(ErrorKind::NotConnected.into()));
        }
        match connect(&self.target) {
            Ok(socket) => {
                let socket = Arc::new(socket);
                *current = Some(Arc::clone(&socket));
                self.next_attempt.store(0, Relaxed);
                let text = format!("records go to {}", self.target.socket.display());
                *connected = Some(Report { level: Level::Info, text });
                Ok(socket)
            }
            Err(error) => {
                self.next_attempt.store(after(now, self.target.reconnect_interval), Relaxed);
                Err(Loss::Unreachable(error))
            }
        }
    }

    /// A socket that has just been connected and takes nothing.
    fn gone(&self, socket: &Arc<UnixDatagram>, error: Error, now: u64) -> Loss {
        let mut current = self.socket.write().unwrap_or_else(PoisonError::into_inner);
        if current.take_if(|current| Arc::ptr_eq(current, socket)).is_some() {
            self.next_attempt.store(after(now, self.target.reconnect_interval), Relaxed);
        }
        Loss::Unreachable(error)
    }

    fn lose(&self, loss: &Loss, lost_before: u64, now: u64, counters: &Counters, level: Level) -> Option<Report> {
        Counters::add(match loss {
            Loss::Full => &counters.lost_full,
            Loss::Unreachable(_) => &counters.lost_unreachable,
            Loss::TooLarge => &counters.lost_too_large,
        });
        self.lost_before.fetch_add(lost_before.saturating_add(1), Relaxed);
        self.unreported.fetch_add(1, Relaxed);
        let due = self.next_report.load(Relaxed);
        let next = after(now, self.target.error_report_interval);
        // Of threads that lose at once, one reports.
        let reports = now >= due && self.next_report.compare_exchange(due, next, Relaxed, Relaxed).is_ok();
        if !reports && level < Level::Debug {
            return None;
        }
        let path = self.target.socket.display();
        let why = match loss {
            Loss::Full => {
                "its queue is full: the receiver is too slow, or net.unix.max_dgram_qlen too small".to_owned()
            }
            Loss::Unreachable(error) => format!("nobody receives there ({error})"),
            Loss::TooLarge => format!("the system takes no datagram of {MIN_RECORD} bytes"),
        };
        if !reports {
            return Some(Report { level: Level::Debug, text: format!("a record for {path} is lost: {why}") });
        }
        let lost = self.unreported.swap(0, Relaxed);
        Some(Report { level: Level::Error, text: format!("{lost} records for {path} are lost: {why}") })
    }

    fn since_origin(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.origin)).saturating_add(1)
    }
}

fn after(now: u64, interval: Duration) -> u64 {
    now.saturating_add(micros(interval))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
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

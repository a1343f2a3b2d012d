//! The queue and the thread that sends what is in it, each record until the receiver has taken it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use engine::batch::Time;
use engine::contract::NodeMetrics;
use engine::contract::Reopen;
use parking_lot::{Condvar, Mutex, MutexGuard};

/// How long a call waits for a receiver whose queue is full, before the thread looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(100);

/// The pause before a receiver that is away is looked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// How often a thread without work looks whether anybody is left to give it some.
const LOOK: Duration = Duration::from_millis(500);

/// EMSGSIZE of Linux.
const TOO_LARGE: i32 = 90;

/// Records on their way to one socket.
pub(super) struct Sender {
    path: PathBuf,
    queue: usize,
    max_wait: Duration,
    state: Mutex<State>,
    changed: Condvar,
    dropped: Arc<AtomicU64>,
}

struct State {
    records: VecDeque<(Time, Box<[u8]>)>,
    /// When the receiver took a record for the last time, or a record came after there had been none.
    progress: Instant,
    /// The path is to be looked up again.
    reopen: bool,
    stopped: bool,
    /// Records that were dropped since the receiver took one.
    lost: u64,
}

/// What is left to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Records.
    pub waiting: usize,
    /// The tick of the first of them.
    pub first: Option<Time>,
    /// The receiver has taken nothing for longer than it is waited for.
    pub stalled: bool,
}

impl Sender {
    /// Starts the thread.
    pub fn new(path: &Path, queue: usize, max_wait: Duration, metrics: &NodeMetrics) -> Arc<Self> {
        let state =
            State { records: VecDeque::new(), progress: Instant::now(), reopen: false, stopped: false, lost: 0 };
        let dropped = metrics.counter("dropped");
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let sender = Arc::new(Self { path: path.to_owned(), queue, max_wait, state, changed, dropped });
        let thread = Thread {
            sender: Arc::downgrade(&sender),
            path: path.to_owned(),
            socket: None,
            away: false,
            datagrams: metrics.counter("datagrams"),
            too_large: metrics.counter("too_large"),
            lost: metrics.counter("receiver_lost"),
        };
        if let Err(error) = std::thread::Builder::new().name("unix_socket".into()).spawn(move || thread.run()) {
            // Rows then wait and are dropped, which is counted.
            tracing::error!(path = %path.display(), %error, "no thread to send with");
        }
        sender
    }

    /// Takes in the lines of a tick, each a record; how many there are.
    pub fn push(&self, tick: Time, text: &[u8]) -> usize {
        let mut state = self.lock();
        if state.records.is_empty() {
            state.progress = Instant::now();
        }
        let before = state.records.len();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        state.records.extend(lines.map(|line| (tick, Box::from(line))));
        let pushed = state.records.len() - before;
        self.changed.notify_one();
        pushed
    }

    /// What is left to send. Of a receiver that is waited for no longer, records beyond the queue are dropped first; if
    /// this is the `end`, all.
    pub fn look(&self, end: bool) -> Left {
        let mut state = self.lock();
        let stalled = !state.records.is_empty() && state.progress.elapsed() >= self.max_wait;
        if stalled {
            let most = if end { 0 } else { self.queue };
            let excess = state.records.len().saturating_sub(most);
            if excess > 0 {
                if state.lost == 0 {
                    tracing::warn!(path = %self.path.display(), "the receiver takes nothing: the oldest rows are dropped");
                }
                state.records.drain(..excess);
                state.lost += excess as u64;
                self.dropped.fetch_add(excess as u64, Relaxed);
            }
        }
        Left { waiting: state.records.len(), first: state.records.front().map(|(tick, _)| *tick), stalled }
    }

    /// Ends the thread; what is left is not sent.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Reopen for Sender {
    fn reopen(&self) -> Result<bool, String> {
        let mut state = self.lock();
        state.reopen = true;
        Ok(!state.stopped)
    }
}

/// The thread that sends.
struct Thread {
    sender: Weak<Sender>,
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// The last attempt failed, and it was said.
    away: bool,
    datagrams: Arc<AtomicU64>,
    too_large: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Thread {
    fn run(mut self) {
        while let Some(sender) = self.sender.upgrade() {
            let mut state = sender.lock();
            if state.records.is_empty() && !state.stopped {
                sender.changed.wait_for(&mut state, LOOK);
            }
            if state.stopped {
                return;
            }
            if std::mem::take(&mut state.reopen) {
                self.socket = None;
            }
            // It stays in the queue until it is taken, so that the queue says what is left.
            let Some((_, record)) = state.records.front() else { continue };
            let record = record.clone();
            drop(state);
            let outcome = self.send(&record);
            let mut state = sender.lock();
            match outcome {
                Ok(()) => self.datagrams.fetch_add(1, Relaxed),
                Err(error) if error.raw_os_error() == Some(TOO_LARGE) => self.too_large.fetch_add(1, Relaxed),
                Err(error) => {
                    drop(state);
                    drop(sender);
                    self.failed(&error);
                    continue;
                }
            };
            // Unless it was dropped meanwhile.
            if state.records.front().is_some_and(|(_, first)| *first == record) {
                state.records.pop_front();
            }
            state.progress = Instant::now();
            let lost = std::mem::take(&mut state.lost);
            drop(state);
            if std::mem::take(&mut self.away) || lost > 0 {
                tracing::warn!(path = %self.path.display(), dropped = lost, "the receiver takes rows again");
            }
        }
    }

    fn send(&mut self, record: &[u8]) -> io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket.set_write_timeout(Some(WAIT))?;
                none.insert(socket)
            }
        };
        socket.send(record).map(drop)
    }

    fn failed(&mut self, error: &io::Error) {
        // A full queue: the call has waited already.
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) {
            return;
        }
        self.socket = None;
        if !self.away {
            self.away = true;
            self.lost.fetch_add(1, Relaxed);
            tracing::warn!(path = %self.path.display(), %error, "no receiver; rows wait for it");
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the sender's state is as wanted.
    fn until(sender: &Sender, what: impl Fn(Left) -> bool) -> Left {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let left = sender.look(false);
            if what(left) {
                return left;
            }
            assert!(Instant::now() < end, "{left:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn bound(path: &Path) -> UnixDatagram {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        socket
    }

    #[test]
    fn records_wait_for_a_receiver_and_for_another_in_its_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("socket");
        let metrics = NodeMetrics::default();
        let sender = Sender::new(&path, 10, Duration::from_secs(3600), &metrics);
        assert_eq!(sender.push(1, b"{\"a\":1}\n{\"a\":2}\n"), 2);
        assert_eq!(sender.look(false), Left { waiting: 2, first: Some(1), stalled: false });
        let socket = bound(&path);
        assert_eq!((received(&socket), received(&socket)), ("{\"a\":1}".to_owned(), "{\"a\":2}".to_owned()));
        until(&sender, |left| left.waiting == 0);
        drop(socket);
        std::fs::remove_file(&path).expect("there");
        sender.push(2, b"{\"a\":3}\n");
        let socket = bound(&path);
        assert_eq!(received(&socket), "{\"a\":3}");
        until(&sender, |left| left.first.is_none());
        assert_eq!(metrics.counter("datagrams").load(Relaxed), 3);
        assert_eq!(metrics.counter("dropped").load(Relaxed), 0);
    }

    #[test]
    fn of_a_receiver_that_takes_nothing_the_oldest_are_dropped_and_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let metrics = NodeMetrics::default();
        let sender = Sender::new(&dir.path().join("nobody"), 2, Duration::from_millis(30), &metrics);
        sender.push(1, b"1\n2\n3\n");
        sender.push(2, b"4\n5\n");
        let left = until(&sender, |left| left.stalled);
        assert_eq!(left, Left { waiting: 2, first: Some(2), stalled: true });
        assert_eq!(metrics.counter("dropped").load(Relaxed), 3);
        assert_eq!(sender.look(true).waiting, 0);
        assert_eq!(metrics.counter("dropped").load(Relaxed), 5);
        let socket = bound(&dir.path().join("nobody"));
        sender.push(3, b"6\n");
        assert_eq!(received(&socket), "6");
    }
}

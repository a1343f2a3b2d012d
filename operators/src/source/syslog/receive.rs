//! The thread that receives messages, from all places of a source.
//!
//! Nothing is dropped here: when the queue is full the thread waits, and so do senders over streams. Datagrams over UDP that the
//! kernel has no room for then are lost, and counted by it.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use engine::contract::{NodeMetrics, wall_clock_ns};
use parking_lot::Mutex;
use tokio::net::{TcpListener, UdpSocket, UnixDatagram, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connections::{accept_tcp, accept_unix};
use super::kernel::{dropped, inode};
use super::listen::{Limits, Socket};
use crate::source::received::{CHUNK, Handover};
use crate::source::socket_file::SocketFile;

/// How often the thread looks whether it is to stop, and says that there is nothing to read.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// How often the kernel is asked how many datagrams it has dropped, in [`LOOK`]s.
const ASK: u32 = 20;

/// The longest that connections are read at the end.
const LAST: Duration = Duration::from_secs(1);

/// The most of a datagram.
const MAX_DATAGRAM: usize = 1 << 20;

/// Starts the thread.
///
/// # Errors
/// If there can be none.
pub(super) fn start(
    sockets: Vec<Socket>,
    handover: Handover,
    limits: Limits,
    metrics: &NodeMetrics,
) -> Result<(), String> {
    let counter = |name: &'static str| metrics.counter(name);
    let shared = Arc::new(Shared {
        limits,
        chunk: Mutex::default(),
        handover,
        busy: AtomicUsize::new(0),
        open: AtomicUsize::new(0),
        stopping: watch::Sender::new(false),
        messages: counter("messages"),
        datagrams: counter("datagrams"),
        truncated: counter("truncated"),
        connections: counter("connections"),
        connections_refused: counter("connections_refused"),
        connections_idle: counter("connections_idle"),
        senders_refused: counter("senders_refused"),
        kernel_dropped: counter("kernel_dropped"),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no thread to receive with: {error}"))?;
    let work = move || {
        let outcome = runtime.block_on(run(sockets, &shared));
        // Connections end here, and with them what they still held.
        drop(runtime);
        shared.hand_over();
        if let Err(error) = outcome {
            // Nobody reads any more if this fails.
            let _ = shared.handover.sender.send(Err(format!("messages cannot be received: {error}")));
        }
    };
    let builder = std::thread::Builder::new().name("syslog".into());
    builder.spawn(work).map(drop).map_err(|error| format!("no thread to receive with: {error}"))
}

/// What the tasks of the thread share.
pub(super) struct Shared {
    pub limits: Limits,
    /// Lines that were received and not handed over.
    chunk: Mutex<Vec<u8>>,
    handover: Handover,
    /// Tasks that have not yet seen that there is nothing more to read.
    busy: AtomicUsize,
    /// Connections.
    pub open: AtomicUsize,
    /// They read what has come, and end.
    pub stopping: watch::Sender<bool>,
    messages: Arc<AtomicU64>,
    datagrams: Arc<AtomicU64>,
    truncated: Arc<AtomicU64>,
    pub connections: Arc<AtomicU64>,
    pub connections_refused: Arc<AtomicU64>,
    pub connections_idle: Arc<AtomicU64>,
    pub senders_refused: Arc<AtomicU64>,
    kernel_dropped: Arc<AtomicU64>,
}

impl Shared {
    /// Takes a message as a line.
    pub fn take(&self, message: &[u8]) {
        let message = message.trim_ascii_end();
        let message = message.strip_suffix(b"\0").unwrap_or(message);
        if message.is_empty() {
            return;
        }
        self.messages.fetch_add(1, Relaxed);
        let mut chunk = self.chunk.lock();
        let start = chunk.len();
        chunk.extend_from_slice(message);
        // One message is one line: what follows a line feed in it must not pass for another.
        chunk[start..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        chunk.push(b'\n');
        let is_full = self.handover.sender.is_empty() || chunk.len() >= CHUNK;
        drop(chunk);
        // Batches form by themselves: while the dataflow is busy the chunk grows.
        if is_full {
            self.hand_over();
        }
    }

    /// Waits while the queue is full.
    fn hand_over(&self) {
        let chunk = std::mem::take(&mut *self.chunk.lock());
        if !chunk.is_empty() && self.handover.sender.send(Ok(chunk)).is_err() {
            // Nobody reads any more.
            self.handover.stop.store(true, Relaxed);
        }
    }
}

/// Runs until it is to stop.
async fn run(sockets: Vec<Socket>, shared: &Arc<Shared>) -> io::Result<()> {
    let mut files = Vec::new();
    let mut inodes = Vec::new();
    let (mut tasks, mut datagrams) = (Vec::new(), Vec::new());
    for socket in sockets {
        match socket {
            Socket::Udp(socket) => {
                inodes.extend(inode(&socket));
                let socket = Arc::new(UdpSocket::from_std(socket)?);
                datagrams.push(Datagrams::Udp(socket));
            }
            Socket::UnixDatagram(socket, file) => {
                files.push(file);
                datagrams.push(Datagrams::Unix(Arc::new(UnixDatagram::from_std(socket)?)));
            }
            Socket::Tcp(socket) => {
                tasks.push(tokio::spawn(accept_tcp(TcpListener::from_std(socket)?, Arc::clone(shared))));
            }
            Socket::UnixStream(socket, file) => {
                files.push(file);
                tasks.push(tokio::spawn(accept_unix(UnixListener::from_std(socket)?, Arc::clone(shared))));
            }
        }
    }
    for socket in &datagrams {
        tasks.push(tokio::spawn(read_datagrams(socket.clone(), Arc::clone(shared))));
    }
    let mut looks = 0_u32;
    while !shared.handover.stop.load(Relaxed) {
        if let Some(task) = tasks.iter_mut().find(|task| task.is_finished()) {
            return task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        }
        tokio::time::sleep(LOOK).await;
        let before = wall_clock_ns();
        // What had come by then is known to its task after this, which runs behind them.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        shared.hand_over();
        if shared.busy.load(Relaxed) == 0 && !shared.handover.stop.load(Relaxed) {
            shared.handover.drained.store(before, Release);
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(ASK) && !inodes.is_empty() {
            shared.kernel_dropped.store(dropped(&inodes), Relaxed);
        }
    }
    end(&files, &datagrams, tasks, shared).await;
    Ok(())
}

/// Nobody new can send; what senders were told is taken is taken.
async fn end(files: &[SocketFile], datagrams: &[Datagrams], tasks: Vec<JoinHandle<io::Result<()>>>, shared: &Shared) {
    files.iter().for_each(SocketFile::unlink);
    for task in tasks {
        task.abort();
        // It ends at its next pause.
        let _ = task.await;
    }
    shared.stopping.send_replace(true);
    let ended = async {
        while shared.open.load(Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // A sender that goes on and on is cut off.
    let _ = tokio::time::timeout(LAST, ended).await;
    for socket in datagrams {
        socket.shut();
        let mut datagram = vec![0; shared.limits.max_message.min(MAX_DATAGRAM) + 1];
        while let Ok(bytes) = socket.try_receive(&mut datagram, shared) {
            shared.datagram(&datagram, bytes);
        }
    }
}

/// A socket with one message a datagram.
#[derive(Clone)]
enum Datagrams {
    Udp(Arc<UdpSocket>),
    Unix(Arc<UnixDatagram>),
}

impl Datagrams {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.readable().await,
            Self::Unix(socket) => socket.readable().await,
        }
    }

    /// The length of a datagram; `None` if its sender may not send.
    fn try_receive(&self, into: &mut [u8], shared: &Shared) -> io::Result<Option<usize>> {
        match self {
            Self::Udp(socket) => {
                let (bytes, sender) = socket.try_recv_from(into)?;
                Ok(shared.limits.allows(sender.ip()).then_some(bytes))
            }
            Self::Unix(socket) => socket.try_recv(into).map(Some),
        }
    }

    /// Senders on this machine are told that nothing is taken any more.
    fn shut(&self) {
        if let Self::Unix(socket) = self {
            // It is read to its end all the same.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}

impl Shared {
    /// Takes what a datagram has.
    fn datagram(&self, datagram: &[u8], bytes: Option<usize>) {
        let Some(bytes) = bytes else {
            self.senders_refused.fetch_add(1, Relaxed);
            return;
        };
        self.datagrams.fetch_add(1, Relaxed);
        if bytes == datagram.len() {
            self.truncated.fetch_add(1, Relaxed);
        }
        self.take(&datagram[..bytes]);
    }
}

async fn read_datagrams(socket: Datagrams, shared: Arc<Shared>) -> io::Result<()> {
    // One byte more than a message may have, to see that it was cut.
    let mut datagram = vec![0; shared.limits.max_message.min(MAX_DATAGRAM) + 1];
    loop {
        socket.readable().await?;
        let _busy = Busy::new(&shared);
        loop {
            match socket.try_receive(&mut datagram, &shared) {
                Ok(bytes) => shared.datagram(&datagram, bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // Also while datagrams come without end.
            tokio::task::coop::consume_budget().await;
            if shared.handover.stop.load(Relaxed) {
                break;
            }
        }
    }
}

/// Counts a task as busy for as long as it is there.
pub(super) struct Busy<'s>(&'s AtomicUsize);

impl<'s> Busy<'s> {
    /// Of one more task.
    pub fn new(shared: &'s Shared) -> Self {
        shared.busy.fetch_add(1, Relaxed);
        Self(&shared.busy)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

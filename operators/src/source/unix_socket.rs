//! `source.unix_socket`: JSON lines that come as datagrams on a unix socket.
//!
//! The source's own queue never drops: when it is full the thread waits, datagrams stay in the kernel's queue
//! (`net.unix.max_dgram_qlen`), and when that is full too a sender's call blocks or fails with `EAGAIN`. What is lost is
//! therefore known to the sender and to nobody else.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::Privileges;
use engine::contract::wall_clock_ns;
use engine::contract::{Facts, Inputs, Node, Operator, Port, Recorded};
use engine::contract::{Poll, source};
use engine::contract::{Seen, Sign};
use engine::spec::{Beside, Bytes, Diagnostic, Located, humantime_duration};

use super::chunks::{ChunkReader, Chunks, Got};
use super::file::FileSource;
use super::intake::{Intake, Settings};
use super::lines::Lines;
use super::sign;
use crate::format::{LineOptions, Rejects};

/// How long the thread waits for a datagram before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);

/// The longest that time is let pass for what a stopped source has received.
const DRAIN: Duration = Duration::from_secs(1);

/// Bytes that the thread hands over at once.
const CHUNK: usize = 64 << 10;

/// How many such chunks wait at most.
const QUEUE: usize = 64;

/// Receives JSON lines as datagrams.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// Where the socket is made, relative to the pipeline's file. A socket that an earlier run left there is removed. A datagram may
    /// hold several lines.
    path: Located<PathBuf>,
    /// How far a row's time may be before the greatest time seen without being late. While nothing comes, the same
    /// distance to the wall clock. Default 500ms.
    #[serde(default = "default_lateness", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    lateness: Duration,
    /// How far a row's time may be ahead of this machine's clock; further ahead it is rejected, so that one wrong time
    /// does not make all that follow late. Default 10s.
    #[serde(default = "super::default_max_ahead", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    max_ahead: Duration,
    /// Permissions of the socket's file in octal; who may write may send. Default "0660".
    mode: Option<Located<String>>,
    /// The largest datagram in bytes; the rest of a larger one is lost and counted as `truncated`. Default 256KiB, more
    /// than Linux lets a process send by default.
    recv_buffer: Option<Bytes>,
}

fn default_lateness() -> Duration {
    Duration::from_millis(500)
}

/// The default of `recv_buffer`.
const RECV_BUFFER: usize = 256 << 10;

/// The most of it; no datagram is as large.
const MAX_RECV_BUFFER: usize = 1 << 30;

/// `source.unix_socket`.
pub struct UnixSocket {
    path: PathBuf,
    mode: u32,
    settings: Settings,
    recv_buffer: usize,
}

impl Operator for UnixSocket {
    type Options = Beside<Options, LineOptions>;
    const KIND: &'static str = "source.unix_socket";
    const SUMMARY: &'static str = "Receives JSON lines as datagrams on a unix socket";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = super::PORTS;
    const GIVES: &'static str = "`time`, `seq` and the columns of `format` (`list formats`) or `columns`; `rejected` has `time`, `seq`, `line` and `reason`";
    const RECORDED: Option<Recorded> =
        Some(Recorded { kind: FileSource::KIND, path: "path", without: &["mode", "recv_buffer"] });

    fn plan(
        Beside { own: options, shared: lines }: Self::Options,
        context: &mut PlanContext<'_>,
    ) -> Option<Box<dyn Node>> {
        let format = lines.choose(context);
        let mode = match &options.mode {
            None => Some(0o660),
            Some(text) => {
                let mode = u32::from_str_radix(text.value.trim_start_matches("0o"), 8).ok().filter(|m| *m <= 0o777);
                if mode.is_some_and(|mode| mode & 0o002 != 0) {
                    let message = format!("with `{}` every user of this machine can write to the socket", text.value);
                    context.warn(Diagnostic::new(text.span, message).help("0660 lets the owner and the group"));
                }
                if mode.is_none() {
                    context.error(text.span, format!("`{}` is not a permission such as \"0660\"", text.value));
                }
                mode
            }
        };
        let path = context.path(&options.path.value);
        if let Err(message) = only_a_socket(&path) {
            context.error(options.path.span, message);
            return None;
        }
        Some(Box::new(Self {
            path,
            mode: mode?,
            settings: Settings {
                format: format?,
                lateness: options.lateness,
                tick: context.tick,
                max_line: lines.max_line(),
                max_ahead: Some(options.max_ahead),
            },
            recv_buffer: options.recv_buffer.map_or(RECV_BUFFER, Bytes::in_memory).clamp(1, MAX_RECV_BUFFER),
        }))
    }
}

/// Whether a socket stands at `path`; anything else there is somebody's file.
fn only_a_socket(path: &Path) -> Result<bool, String> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => Err(format!("{} exists and is not a socket", path.display())),
        Err(_) => Ok(false),
    }
}

impl Node for UnixSocket {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(Arc::clone(&self.settings.format.schema)), EdgeType::stream(Rejects::schema())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        source(context, 2, || {
            let (sender, queue) = bounded(QUEUE);
            let stop = Arc::new(AtomicBool::new(false));
            let socket = Bound::new(&self.path, self.mode)?;
            let drained = Arc::new(AtomicI64::new(0));
            let receiver = Receive {
                drained: Arc::clone(&drained),
                socket,
                datagram: vec![0; self.recv_buffer + 1],
                chunk: Vec::new(),
                sender,
                stop: Arc::clone(&stop),
                truncated: context.metrics.counter("truncated"),
                datagrams: context.metrics.counter("datagrams"),
            };
            let thread = std::thread::Builder::new().name("unix_socket".into());
            thread.spawn(move || receiver.run()).map_err(|error| format!("no thread to receive with: {error}"))?;
            let spooled = context.is_logged();
            let received = Received { queue, stop, drained, before: 0, spooled, ended: None };
            Ok(ChunkReader::new(received, &self.settings, &context.resume(), &context.metrics))
        })
    }

    fn sign(&self, seen: &Seen) -> Sign {
        sign::lines(seen)
    }

    fn facts(&self) -> Facts {
        Facts { is_live: true, ..Facts::default() }
    }

    fn probe(&self, _: &Privileges) -> Result<(), String> {
        only_a_socket(&self.path)?;
        // Beside it, under a name no longer than most: a socket of its own name would be taken from who has it.
        let probe = self.path.with_file_name(format!(".{}", std::process::id()));
        let bound = UnixDatagram::bind(&probe).and_then(|_| std::fs::remove_file(&probe));
        bound.map_err(|error| format!("the socket {} cannot be made: {error}", self.path.display()))
    }
}

/// A socket with its file, which goes when the socket does.
struct Bound {
    socket: UnixDatagram,
    path: PathBuf,
    inode: u64,
}

impl Bound {
    fn new(path: &Path, mode: u32) -> Result<Self, String> {
        let fault =
            |what: &str, error: std::io::Error| format!("the socket {} cannot be {what}: {error}", path.display());
        if only_a_socket(path)? {
            let answers = UnixDatagram::unbound().and_then(|probe| probe.connect(path));
            if answers.is_ok() {
                return Err(format!("the socket {} is in use by another process", path.display()));
            }
            std::fs::remove_file(path).map_err(|error| fault("replaced", error))?;
        }
        let socket = UnixDatagram::bind(path).map_err(|error| fault("made", error))?;
        let inode = std::fs::symlink_metadata(path).map_err(|error| fault("made", error))?.ino();
        let bound = Self { socket, path: path.to_owned(), inode };
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).map_err(|error| fault("given its permissions", error))?;
        bound.socket.set_read_timeout(Some(WAIT)).map_err(|error| fault("read", error))?;
        Ok(bound)
    }

    /// After this nobody new can send.
    fn unlink(&self) {
        let own = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if own && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// The thread that receives.
struct Receive {
    socket: Bound,
    /// One byte more than a datagram may have, to see that it was cut.
    datagram: Vec<u8>,
    chunk: Vec<u8>,
    sender: Sender<Result<Vec<u8>, String>>,
    stop: Arc<AtomicBool>,
    truncated: Arc<AtomicU64>,
    datagrams: Arc<AtomicU64>,
    /// Wall clock in ns: all that had come by then has been handed over. Time may pass up to here, not up to the
    /// reader's own clock: what waits in the kernel or in this thread is not late because the dataflow was busy.
    drained: Arc<AtomicI64>,
}

impl Receive {
    fn run(mut self) {
        if let Err(error) = self.receive_all() {
            self.hand_over();
            // Nobody reads any more if this fails.
            let _ = self.sender.send(Err(format!("the socket {} cannot be read: {error}", self.socket.path.display())));
        }
    }

    fn receive_all(&mut self) -> std::io::Result<()> {
        while !self.stop.load(Relaxed) {
            let before = wall_clock_ns();
            let received = self.receive()?;
            // Batches form by themselves: while the dataflow is busy the chunk grows.
            if (self.sender.is_empty() || self.chunk.len() >= CHUNK) && !self.hand_over() {
                return Ok(());
            }
            if !received && self.chunk.is_empty() {
                self.drained.store(before, Release);
            }
        }
        self.socket.unlink();
        self.socket.socket.set_nonblocking(true)?;
        // From here on every sender is told that its datagram is not taken. Those that were are in the kernel's queue.
        self.socket.socket.shutdown(Shutdown::Read)?;
        while self.receive()? {
            if self.chunk.len() >= CHUNK && !self.hand_over() {
                return Ok(());
            }
        }
        self.hand_over();
        Ok(())
    }

    /// Receives a datagram; false if there was none.
    fn receive(&mut self) -> std::io::Result<bool> {
        let bytes = match self.socket.socket.recv(&mut self.datagram) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.datagrams.fetch_add(1, Relaxed);
        if bytes == self.datagram.len() {
            self.truncated.fetch_add(1, Relaxed);
        }
        self.chunk.extend_from_slice(&self.datagram[..bytes]);
        // A line ends with its datagram.
        if self.chunk.last() != Some(&b'\n') {
            self.chunk.push(b'\n');
        }
        Ok(true)
    }

    /// Waits while the queue is full; false if nobody reads any more.
    fn hand_over(&mut self) -> bool {
        self.chunk.is_empty() || self.sender.send(Ok(std::mem::take(&mut self.chunk))).is_ok()
    }
}

/// Chunks that the thread has received.
struct Received {
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

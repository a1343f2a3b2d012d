//! `source.unix_socket`: lines that come as datagrams on a unix socket.
//!
//! The source's own queue never drops: when it is full the thread waits, datagrams stay in the kernel's queue
//! (`net.unix.max_dgram_qlen`), and when that is full too a sender's call blocks or fails with `EAGAIN`. What is lost is
//! therefore known to the sender and to nobody else.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::Privileges;
use engine::contract::source;
use engine::contract::wall_clock_ns;
use engine::contract::{Facts, Inputs, Node, Operator, Port, Recorded};
use engine::contract::{Seen, Sign};
use engine::spec::{Beside, Bytes, Located, humantime_duration};

use super::chunks::ChunkReader;
use super::file::FileSource;
use super::intake::Settings;
use super::received::{CHUNK, Handover, Received};
use super::sign;
use super::socket_file::{self, SocketFile};
use crate::format::{LineOptions, Rejects};

/// How long the thread waits for a datagram before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);

/// Receives lines as datagrams.
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
    const SUMMARY: &'static str = "Receives lines as datagrams on a unix socket";
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
        let mode = socket_file::mode(options.mode.as_ref(), context);
        let path = context.path(&options.path.value);
        if let Err(message) = socket_file::only_a_socket(&path) {
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
                max_rejected: lines.max_rejected(),
                max_ahead: Some(options.max_ahead),
            },
            recv_buffer: options.recv_buffer.map_or(RECV_BUFFER, Bytes::in_memory).clamp(1, MAX_RECV_BUFFER),
        }))
    }
}

impl Node for UnixSocket {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(Arc::clone(&self.settings.format.schema)), EdgeType::stream(Rejects::schema())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        source(context, 2, || {
            let (handover, received) = Received::new(context.is_logged());
            let (file, socket) = SocketFile::bind(&self.path, self.mode, |path| UnixDatagram::bind(path))?;
            let fault = |error| format!("the socket {} cannot be read: {error}", self.path.display());
            socket.set_read_timeout(Some(WAIT)).map_err(fault)?;
            let receiver = Receive {
                handover,
                file,
                socket,
                datagram: vec![0; self.recv_buffer + 1],
                chunk: Vec::new(),
                truncated: context.metrics.counter("truncated"),
                datagrams: context.metrics.counter("datagrams"),
            };
            let thread = std::thread::Builder::new().name("unix_socket".into());
            thread.spawn(move || receiver.run()).map_err(|error| format!("no thread to receive with: {error}"))?;
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
        socket_file::probe(&self.path)
    }
}

/// The thread that receives.
struct Receive {
    file: SocketFile,
    socket: UnixDatagram,
    /// One byte more than a datagram may have, to see that it was cut.
    datagram: Vec<u8>,
    chunk: Vec<u8>,
    handover: Handover,
    truncated: Arc<AtomicU64>,
    datagrams: Arc<AtomicU64>,
}

impl Receive {
    fn run(mut self) {
        if let Err(error) = self.receive_all() {
            self.hand_over();
            // Nobody reads any more if this fails.
            let _ = self
                .handover
                .sender
                .send(Err(format!("the socket {} cannot be read: {error}", self.file.path().display())));
        }
    }

    fn receive_all(&mut self) -> std::io::Result<()> {
        while !self.handover.stop.load(Relaxed) {
            let before = wall_clock_ns();
            let received = self.receive()?;
            // Batches form by themselves: while the dataflow is busy the chunk grows.
            if (self.handover.sender.is_empty() || self.chunk.len() >= CHUNK) && !self.hand_over() {
                return Ok(());
            }
            if !received && self.chunk.is_empty() {
                self.handover.drained.store(before, Release);
            }
        }
        self.file.unlink();
        self.socket.set_nonblocking(true)?;
        // From here on every sender is told that its datagram is not taken. Those that were are in the kernel's queue.
        self.socket.shutdown(Shutdown::Read)?;
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
        let bytes = match self.socket.recv(&mut self.datagram) {
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
        self.chunk.is_empty() || self.handover.sender.send(Ok(std::mem::take(&mut self.chunk))).is_ok()
    }
}

//! One query process, as the run sees it.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use system::{MAX_DESCRIPTORS, Sealed};

use super::now::Now;
use super::pool::{Fault, Program};
use super::wire::{self, Begin, Order, Reply};
use crate::Limits;

/// How often it is looked whether a query is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// How long a process may take to start.
const START: Duration = Duration::from_secs(10);

/// A query process and the socket to it.
pub(super) struct Process {
    child: Child,
    pub socket: UnixStream,
    pub readable: BTreeSet<PathBuf>,
    pub connects: bool,
    /// Rows that it has.
    known: HashMap<u64, Weak<Sealed>>,
    /// Whether the other end of the socket is closed.
    closed: bool,
    /// What of its confinement this system does not have.
    pub missing: Vec<String>,
}

impl Process {
    pub fn start(
        limits: &Limits,
        program: &Program,
        readable: BTreeSet<PathBuf>,
        connects: bool,
    ) -> Result<Self, Fault> {
        let (socket, other) = UnixStream::pair().map_err(Fault::Rows)?;
        socket.set_read_timeout(Some(LOOK)).map_err(Fault::Rows)?;
        socket.set_write_timeout(Some(START)).map_err(Fault::Rows)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).arg0("ja4-engine").env_clear().current_dir("/").process_group(0);
        // The environment may hold passwords. These say where certificates are, and keep the allocator from reserving a GiB.
        let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter();
        command.envs(certificates.filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("MIMALLOC_ARENA_RESERVE", "64MiB").env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        command.stdin(OwnedFd::from(other)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(Fault::Rows)?;
        let mut process =
            Self { child, socket, readable, connects, known: HashMap::new(), closed: false, missing: Vec::new() };
        let begin = Begin {
            limits: limits.clone(),
            memory: limits.process_memory,
            readable: process.readable.iter().cloned().collect(),
            connects,
        };
        let until = Instant::now() + START;
        let sent = wire::send(&process.socket, &Order::Begin(begin), &[]).map_err(Fault::Process);
        let ready =
            sent.and_then(|()| process.reply(|| if Instant::now() >= until { Err(Fault::Late) } else { Ok(()) }));
        let Ok(Reply::Ready(missing)) = ready else {
            return Err(Fault::Start(process.end()));
        };
        process.missing = missing;
        Ok(process)
    }

    pub fn is_alive(&mut self) -> bool {
        !self.closed && matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it if it has not ended; the signal that has ended it.
    pub fn end(&mut self) -> Option<i32> {
        // A process that has closed its socket is ending by itself: how, is worth knowing.
        let by_itself =
            matches!(self.child.try_wait(), Ok(Some(_))) || self.closed && self.ends_within(Duration::from_secs(1));
        if !by_itself {
            // It may have ended just now.
            let _ = self.child.kill();
        }
        let status = self.child.wait().ok()?;
        if by_itself { status.signal() } else { None }
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Hands over the rows that it does not have.
    pub fn hand_over(&mut self, tables: &[Now]) -> io::Result<()> {
        self.forget()?;
        let mut new: Vec<&Arc<Sealed>> = Vec::new();
        for sealed in
            tables.iter().flat_map(|table| table.handed.parts.iter().map(|(s, _)| s).chain([&table.handed.schema]))
        {
            if self.known.insert(sealed.id(), Arc::downgrade(sealed)).is_none() {
                new.push(sealed);
            }
        }
        for new in new.chunks(MAX_DESCRIPTORS) {
            let descriptors: Vec<_> = new.iter().map(|sealed| sealed.as_fd()).collect();
            wire::send(&self.socket, &Order::Take(new.iter().map(|sealed| sealed.id()).collect()), &descriptors)?;
        }
        Ok(())
    }

    /// Names the rows that no table has any more.
    pub fn forget(&mut self) -> io::Result<()> {
        let gone: Vec<u64> = self.known.extract_if(|_, rows| rows.strong_count() == 0).map(|(id, _)| id).collect();
        if gone.is_empty() { Ok(()) } else { wire::send(&self.socket, &Order::Forget(gone), &[]) }
    }

    pub fn reply(&mut self, go_on: impl Fn() -> Result<(), Fault>) -> Result<Reply, Fault> {
        let mut first = [0; 4];
        self.fill(&mut first, &go_on)?;
        let mut bytes = vec![0; wire::length(first, wire::MAX_REPLY).map_err(Fault::Process)?];
        self.fill(&mut bytes, &go_on)?;
        serde_json::from_slice(&bytes).map_err(|error| Fault::Process(error.into()))
    }

    /// Reads so many bytes.
    pub fn fill(&mut self, bytes: &mut [u8], go_on: impl Fn() -> Result<(), Fault>) -> Result<(), Fault> {
        let mut filled = 0;
        while filled < bytes.len() {
            go_on()?;
            match (&self.socket).read(&mut bytes[filled..]) {
                Ok(0) => {
                    self.closed = true;
                    return Err(Fault::Process(ErrorKind::UnexpectedEof.into()));
                }
                Ok(read) => filled += read,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    self.closed = true;
                    return Err(Fault::Process(error));
                }
            }
        }
        Ok(())
    }
}

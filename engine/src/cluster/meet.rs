//! How the processes meet: each listens at its own address and calls those above it in the hosts file.
//!
//! One thread does it all and never waits for a single connection, so that neither a stranger who connects and says
//! nothing nor a host that does not answer keeps the others waiting for long. A process that goes away before all have met
//! is waited for again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::hello::{Answer, Hello, LENGTH, Purpose};
use super::hosts::resolve;
use super::monitor::BEAT;
use super::{Cluster, Peer};

/// How often is looked for news.
const LOOK: Duration = Duration::from_millis(10);

/// How long a call may take to be answered by the host; all else waits meanwhile.
const CALL: Duration = Duration::from_millis(500);

/// How long after a call in vain the next one is made.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a connection may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// How many connections may be about to say who they are.
const MAX_PENDING: usize = 128;

/// How often is said who is waited for.
const REMIND: Duration = Duration::from_secs(10);

/// The byte on the watch that says: I have met everyone.
const READY: u8 = b'R';

/// The two connections with a process.
#[derive(Debug)]
pub(super) struct Sockets {
    /// For timely.
    pub data: TcpStream,
    /// For the watch.
    pub watch: TcpStream,
}

/// Why the processes did not meet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// This process cannot listen at its address.
    #[error("{address}: cannot listen there: {cause}")]
    Listen {
        /// Its line in the hosts file.
        address: String,
        /// What the system says.
        cause: String,
    },
    /// Processes are missing.
    #[error("waited {} s in vain for {}", .waited.as_secs_f64(), listed(.missing))]
    Missing {
        /// How long was waited.
        waited: Duration,
        /// Who, and what is known of it.
        missing: Vec<(Peer, String)>,
    },
    /// A process runs something else.
    #[error("{0}")]
    Differs(String),
    /// A process went away while the run was about to start.
    #[error("{0} was lost: start all processes again")]
    Lost(Peer),
    /// The wait was cancelled.
    #[error("stopped while waiting for other processes")]
    Cancelled,
    /// A connection cannot be set up.
    #[error("cannot set up a connection: {0}")]
    Socket(String),
}

fn listed(peers: &[(Peer, String)]) -> String {
    let shown = peers.iter().map(|(peer, why)| format!("{peer}: {why}"));
    shown.collect::<Vec<_>>().join(", ")
}

/// Connects with all processes; the result is by process.
pub(super) fn meet(
    cluster: &Cluster,
    digest: [u8; 32],
    timeout: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Option<Sockets>>, ConnectError> {
    let mut meeting = Meeting::new(cluster, digest)?;
    let start = Instant::now();
    let mut reminded = start;
    while !meeting.complete() {
        if cancelled() {
            return Err(ConnectError::Cancelled);
        }
        if start.elapsed() >= timeout {
            return Err(ConnectError::Missing { waited: timeout, missing: meeting.missing() });
        }
        if reminded.elapsed() >= REMIND {
            reminded = Instant::now();
            tracing::info!("waiting for {}", listed(&meeting.missing()));
        }
        meeting.look()?;
    }
    meeting.gather(timeout.saturating_sub(start.elapsed()).max(INTRODUCTION), cancelled)
}

struct Meeting<'a> {
    cluster: &'a Cluster,
    hello: Hello,
    listener: TcpListener,
    pending: Vec<Pending>,
    peers: Vec<Met>,
}

/// A connection that has not said yet who it is.
struct Pending {
    socket: TcpStream,
    said: [u8; LENGTH],
    length: usize,
    since: Instant,
    /// Whom we have called, and for what. Otherwise we were called.
    called: Option<(usize, Purpose)>,
}

/// What we have of a process so far.
struct Met {
    sockets: [Option<TcpStream>; 2],
    instance: u64,
    /// Why it is missing.
    why: String,
    next_call: Instant,
}

impl<'a> Meeting<'a> {
    fn new(cluster: &'a Cluster, digest: [u8; 32]) -> Result<Self, ConnectError> {
        let address = cluster.peer(cluster.process).address;
        let listen = || {
            let listener = TcpListener::bind(resolve(&address)?.as_slice())?;
            listener.set_nonblocking(true)?;
            io::Result::Ok(listener)
        };
        let listener =
            listen().map_err(|cause| ConnectError::Listen { address: address.clone(), cause: cause.to_string() })?;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let hello = Hello {
            version: Hello::version(),
            digest,
            from: number(cluster.process),
            to: number(cluster.process),
            processes: number(cluster.processes()),
            threads: number(cluster.threads),
            // Only to be told apart; the hasher's keys are random in each process.
            instance: RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now())),
            purpose: Purpose::Data,
            answer: Answer::Offer,
        };
        let why = |process| if process < cluster.process { "not called yet" } else { "has not called" };
        let met = |process| Met {
            sockets: [None, None],
            instance: 0,
            why: why(process).to_owned(),
            next_call: Instant::now(),
        };
        let peers = (0..cluster.processes()).map(met).collect();
        Ok(Self { cluster, hello, listener, pending: Vec::new(), peers })
    }

    fn complete(&self) -> bool {
        self.incomplete().next().is_none()
    }

    fn incomplete(&self) -> impl Iterator<Item = usize> {
        let others = (0..self.peers.len()).filter(|process| *process != self.cluster.process);
        others.filter(|process| self.peers[*process].sockets.iter().any(Option::is_none))
    }

    fn missing(&self) -> Vec<(Peer, String)> {
        self.incomplete().map(|process| (self.cluster.peer(process), self.peers[process].why.clone())).collect()
    }

    /// Looks once for news, and sleeps for a moment if there are none.
    fn look(&mut self) -> Result<(), ConnectError> {
        self.forget_the_gone();
        let mut news = self.accept();
        self.call();
        for mut pending in std::mem::take(&mut self.pending) {
            match pending.listen() {
                Heard::Nothing if pending.since.elapsed() < INTRODUCTION => self.pending.push(pending),
                Heard::Nothing => self.in_vain(pending.called, "does not say who it is"),
                Heard::End => self.in_vain(pending.called, "has closed the connection"),
                Heard::Hello(hello) => {
                    news = true;
                    match hello.zip(Some(pending.called)) {
                        Some((hello, None)) => self.was_called(pending.socket, hello)?,
                        Some((hello, Some((process, purpose)))) => {
                            self.has_answered(process, purpose, pending.socket, &hello)?;
                        }
                        None => {
                            let from = pending.socket.peer_addr().ok();
                            tracing::warn!(?from, "closed a connection that does not speak this program's protocol");
                            self.in_vain(pending.called, "something else answers at this address");
                        }
                    }
                }
            }
        }
        if !news {
            sleep(LOOK);
        }
        Ok(())
    }

    /// A process may go away while others are waited for.
    fn forget_the_gone(&mut self) {
        for met in &mut self.peers {
            if met.sockets.iter().flatten().any(is_gone) {
                met.sockets = [None, None];
                met.why = "was connected, and has gone away".into();
            }
        }
    }

    fn accept(&mut self) -> bool {
        let mut news = false;
        // A bounded number each time: whoever calls without end must not keep us from the rest.
        for _ in 0..MAX_PENDING {
            let (socket, from) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Of this one connection, such as that it is closed already; or of our own, such as too many files.
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    break;
                }
            };
            news = true;
            if !self.cluster.hosts.holds(from.ip()) {
                let file = self.cluster.hosts.file();
                tracing::warn!(%from, "refused a connection: the address is not in {file}");
            } else if self.pending.len() >= MAX_PENDING || socket.set_nonblocking(true).is_err() {
                tracing::warn!(%from, "refused a connection: too many are open");
            } else {
                self.pending.push(Pending::new(socket, None));
            }
        }
        news
    }

    /// Calls the processes above us.
    fn call(&mut self) {
        for process in 0..self.cluster.process {
            for purpose in [Purpose::Data, Purpose::Watch] {
                let met = &self.peers[process];
                let called = self.pending.iter().any(|pending| pending.called == Some((process, purpose)));
                if called || met.sockets[purpose as usize].is_some() || Instant::now() < met.next_call {
                    continue;
                }
                let hello = Hello { to: u32::try_from(process).unwrap_or(u32::MAX), purpose, ..self.hello.clone() };
                match call(&self.cluster.peer(process).address, &hello) {
                    Ok(socket) => self.pending.push(Pending::new(socket, Some((process, purpose)))),
                    Err(error) => self.in_vain(Some((process, purpose)), &error.to_string()),
                }
            }
        }
    }

    fn in_vain(&mut self, called: Option<(usize, Purpose)>, why: &str) {
        if let Some((process, _)) = called {
            let met = &mut self.peers[process];
            met.why = why.to_owned();
            met.next_call = Instant::now() + AGAIN;
        }
    }

    /// Another process has called us.
    fn was_called(&mut self, mut socket: TcpStream, hello: Hello) -> Result<(), ConnectError> {
        let process = usize::try_from(hello.from).unwrap_or(usize::MAX);
        let mut answer = |answer| {
            let hello = Hello { to: hello.from, purpose: hello.purpose, answer, ..self.hello.clone() };
            socket.write_all(&hello.to_bytes())
        };
        let known = process < self.peers.len() && process > self.cluster.process && hello.answer == Answer::Offer;
        let caller = if known { self.cluster.peer(process) } else { self.stranger(&hello) };
        if let Err(difference) = hello.agrees(&self.hello, &caller) {
            // So that the other sees the difference too.
            let _ = answer(Answer::Refused);
            return Err(ConnectError::Differs(difference));
        }
        if !known {
            let _ = answer(Answer::Refused);
            return Err(ConnectError::Differs(format!("{caller} calls this process as if it were before it")));
        }
        let met = &mut self.peers[process];
        let other = met.instance != hello.instance && met.sockets.iter().any(Option::is_some);
        let accepted = answer(if other { Answer::Taken } else { Answer::Accepted }).is_ok();
        if accepted && !other {
            met.instance = hello.instance;
            met.sockets[hello.purpose as usize] = Some(socket);
            met.why = "has called once and is to call again".into();
        }
        Ok(())
    }

    fn stranger(&self, hello: &Hello) -> Peer {
        let process = usize::try_from(hello.from).unwrap_or(usize::MAX);
        let address = self.cluster.hosts.addresses().get(process).cloned();
        Peer { process, address: address.unwrap_or_else(|| format!("not in {}", self.cluster.hosts.file())) }
    }

    /// Whom we have called has answered.
    fn has_answered(
        &mut self,
        process: usize,
        purpose: Purpose,
        socket: TcpStream,
        hello: &Hello,
    ) -> Result<(), ConnectError> {
        let peer = self.cluster.peer(process);
        if usize::try_from(hello.from) != Ok(process) {
            return Err(ConnectError::Differs(format!(
                "process {} answers at the address of {peer}: give all processes the same hosts file",
                hello.from
            )));
        }
        hello.agrees(&self.hello, &peer).map_err(ConnectError::Differs)?;
        match hello.answer {
            Answer::Accepted => {
                let met = &mut self.peers[process];
                if met.instance != hello.instance {
                    met.sockets = [None, None];
                    met.instance = hello.instance;
                }
                met.sockets[purpose as usize] = Some(socket);
            }
            Answer::Taken => {
                let us = self.cluster.process;
                self.in_vain(Some((process, purpose)), &format!("another process {us} is connected with it"));
            }
            Answer::Offer | Answer::Refused => self.in_vain(Some((process, purpose)), "refuses this process"),
        }
        Ok(())
    }

    /// Everyone is here; waits until everyone has seen everyone.
    fn gather(self, limit: Duration, cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Sockets>>, ConnectError> {
        let setup = |error: io::Error| ConnectError::Socket(error.to_string());
        let mut all = Vec::new();
        for met in self.peers {
            let [data, watch] = met.sockets;
            let Some((data, watch)) = data.zip(watch) else {
                all.push(None);
                continue;
            };
            for socket in [&data, &watch] {
                socket.set_nonblocking(false).map_err(setup)?;
                socket.set_nodelay(true).map_err(setup)?;
            }
            watch.set_write_timeout(Some(BEAT)).map_err(setup)?;
            watch.set_read_timeout(Some(LOOK)).map_err(setup)?;
            all.push(Some(Sockets { data, watch }));
        }
        let start = Instant::now();
        let watches = || all.iter().enumerate().filter_map(|(process, s)| Some((process, &s.as_ref()?.watch)));
        for (process, mut watch) in watches() {
            watch.write_all(&[READY]).map_err(|_| ConnectError::Lost(self.cluster.peer(process)))?;
        }
        for (process, mut watch) in watches() {
            let mut said = [0];
            loop {
                match watch.read(&mut said) {
                    Ok(1) if said == [READY] => break,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => return Err(ConnectError::Lost(self.cluster.peer(process))),
                }
                if cancelled() {
                    return Err(ConnectError::Cancelled);
                }
                if start.elapsed() >= limit {
                    let why = "is connected, but waits for others".to_owned();
                    let missing = vec![(self.cluster.peer(process), why)];
                    return Err(ConnectError::Missing { waited: limit, missing });
                }
            }
            watch.set_read_timeout(Some(BEAT)).map_err(setup)?;
        }
        Ok(all)
    }
}

enum Heard {
    Nothing,
    End,
    /// `None` for something that is not a hello.
    Hello(Option<Hello>),
}

impl Pending {
    fn new(socket: TcpStream, called: Option<(usize, Purpose)>) -> Self {
        Self { socket, said: [0; LENGTH], length: 0, since: Instant::now(), called }
    }

    fn listen(&mut self) -> Heard {
        while self.length < LENGTH {
            match self.socket.read(&mut self.said[self.length..]) {
                Ok(0) => return Heard::End,
                Ok(read) => self.length += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::End,
            }
        }
        Heard::Hello(Hello::from_bytes(&self.said))
    }
}

/// Connects and says who we are. The hello fits into the buffer of a new connection, so this does not wait.
fn call(address: &str, hello: &Hello) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in resolve(address)? {
        match connect(&address) {
            Ok(mut socket) => {
                socket.write_all(&hello.to_bytes())?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect(address: &SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(address, CALL)?;
    // A call to a port of this machine on which nobody listens may be given that very port, and then reaches itself.
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether the other side has closed the connection. What it may have said is left.
fn is_gone(socket: &TcpStream) -> bool {
    match socket.peek(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

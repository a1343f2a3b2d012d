//! How the processes are connected: each listens at its own address and calls those above it in the hosts file.
//!
//! One thread does it all and never waits for a single connection, so that neither a stranger who connects and says
//! nothing nor a host that does not answer keeps the others waiting for long. A process that goes away before all are
//! connected is waited for again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{self, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::handshake::{Heard, INTRODUCTION, LOOK, Pending, Sockets, call, is_gone, wait_until_all_are_ready};
use crate::hello::{Answer, Hello, Purpose};
use crate::hosts::resolve;
use crate::{Cluster, Peer};

/// How long after a call in vain the next one is made.
const AGAIN: Duration = Duration::from_millis(200);

/// How many connections may be about to say who they are.
const MAX_PENDING: usize = 128;

/// How often is said who is waited for.
const REMIND: Duration = Duration::from_secs(10);

/// Why the processes could not be connected.
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
pub(crate) fn connect(
    cluster: &Cluster,
    digest: [u8; 32],
    timeout: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Option<Sockets>>, ConnectError> {
    let mut connecting = Connecting::new(cluster, digest)?;
    let start = Instant::now();
    let mut reminded = start;
    while !connecting.is_complete() {
        if cancelled() {
            return Err(ConnectError::Cancelled);
        }
        if start.elapsed() >= timeout {
            return Err(ConnectError::Missing { waited: timeout, missing: connecting.missing() });
        }
        if reminded.elapsed() >= REMIND {
            reminded = Instant::now();
            tracing::info!("waiting for {}", listed(&connecting.missing()));
        }
        connecting.look()?;
    }
    connecting.finish(timeout.saturating_sub(start.elapsed()).max(INTRODUCTION), cancelled)
}

/// The processes while they are being connected.
struct Connecting<'a> {
    cluster: &'a Cluster,
    /// What we say of ourselves.
    hello: Hello,
    listener: TcpListener,
    pending: Vec<Pending>,
    /// By process; our own place stays empty.
    peers: Vec<PeerState>,
}

/// What we have of a process so far.
struct PeerState {
    /// By [`Purpose`].
    sockets: [Option<TcpStream>; 2],
    instance: u64,
    /// Why it is missing.
    why: String,
    next_call: Instant,
}

impl<'a> Connecting<'a> {
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
        let state = |process| PeerState {
            sockets: [None, None],
            instance: 0,
            why: why(process).to_owned(),
            next_call: Instant::now(),
        };
        let peers = (0..cluster.processes()).map(state).collect();
        Ok(Self { cluster, hello, listener, pending: Vec::new(), peers })
    }

    fn is_complete(&self) -> bool {
        self.incomplete().next().is_none()
    }

    /// The other processes that a connection is missing with.
    fn incomplete(&self) -> impl Iterator<Item = usize> {
        let others = (0..self.peers.len()).filter(|process| *process != self.cluster.process);
        others.filter(|process| self.peers[*process].sockets.iter().any(Option::is_none))
    }

    /// The same with what is known of each.
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
                Heard::Nothing if !pending.is_overdue() => self.pending.push(pending),
                Heard::Nothing => self.in_vain(pending.called, "does not say who it is"),
                Heard::End => self.in_vain(pending.called, "has closed the connection"),
                Heard::Hello(hello) => {
                    news = true;
                    self.introduced(pending, hello)?;
                }
            }
        }
        if !news {
            sleep(LOOK);
        }
        Ok(())
    }

    /// A connection has said who it is, or something else.
    fn introduced(
        &mut self,
        Pending { socket, called, .. }: Pending,
        hello: Option<Hello>,
    ) -> Result<(), ConnectError> {
        match (hello, called) {
            (Some(hello), None) => self.was_called(socket, hello),
            (Some(hello), Some((process, purpose))) => self.has_answered(process, purpose, socket, &hello),
            (None, _) => {
                let from = socket.peer_addr().ok();
                tracing::warn!(?from, "closed a connection that does not speak this program's protocol");
                self.in_vain(called, "something else answers at this address");
                Ok(())
            }
        }
    }

    /// A process may go away while others are waited for.
    fn forget_the_gone(&mut self) {
        for peer in &mut self.peers {
            if peer.sockets.iter().flatten().any(is_gone) {
                peer.sockets = [None, None];
                peer.why = "was connected, and has gone away".into();
            }
        }
    }

    /// Takes new connections; whether there were any.
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
                let peer = &self.peers[process];
                let called = self.pending.iter().any(|pending| pending.called == Some((process, purpose)));
                if called || peer.sockets[purpose as usize].is_some() || Instant::now() < peer.next_call {
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

    /// A call was in vain, if it was a call; the next one is made after a while.
    fn in_vain(&mut self, called: Option<(usize, Purpose)>, why: &str) {
        if let Some((process, _)) = called {
            let peer = &mut self.peers[process];
            peer.why = why.to_owned();
            peer.next_call = Instant::now() + AGAIN;
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
        let peer = &mut self.peers[process];
        let other = peer.instance != hello.instance && peer.sockets.iter().any(Option::is_some);
        let accepted = answer(if other { Answer::Taken } else { Answer::Accepted }).is_ok();
        if accepted && !other {
            peer.instance = hello.instance;
            peer.sockets[hello.purpose as usize] = Some(socket);
            peer.why = "has called once and is to call again".into();
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
                let peer = &mut self.peers[process];
                if peer.instance != hello.instance {
                    peer.sockets = [None, None];
                    peer.instance = hello.instance;
                }
                peer.sockets[purpose as usize] = Some(socket);
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
    fn finish(self, limit: Duration, cancelled: &dyn Fn() -> bool) -> Result<Vec<Option<Sockets>>, ConnectError> {
        let sockets = |PeerState { sockets: [data, watch], .. }: PeerState| {
            data.zip(watch).map(|(data, watch)| Sockets::new(data, watch)).transpose()
        };
        let all: io::Result<Vec<_>> = self.peers.into_iter().map(sockets).collect();
        let all = all.map_err(|error| ConnectError::Socket(error.to_string()))?;
        wait_until_all_are_ready(self.cluster, &all, limit, cancelled)?;
        Ok(all)
    }
}

//! Several processes that run one dataflow: who they are, how they connect, and how they notice that one of them is
//! gone. This crate knows timely's connections, and no pipeline: that all run the same one is a digest that they compare.
//!
//! A hosts file names the processes, one `address:port` a line; process K listens on line K (from 0) and connects to the
//! lines above its own. Between each two processes there are two connections: one that timely's workers exchange batches
//! and progress over, and one of our own, the *watch*, over which the processes say that they live, stop, fail or are
//! done.
//!
//! Timely alone waits for its peers without end, panics when a stranger connects, and panics in every thread when a peer
//! is gone. Here the connections are made before timely gets them, and what timely gets is a stream that never
//! fails: a broken connection is reported to the [`Monitor`], which calls the run off, and looks to timely's
//! threads like an orderly end.
//!
//! ```text
//! Hosts ── Cluster::connect ──> Connected ── start ──> Running { builders, others, monitor }
//!             (connect)                                     └ timely::execute::execute_from
//! ```
//!
//! **The network must be trusted.** Connections are accepted from the addresses of the hosts file only, and a peer must run
//! the same version, pipeline and number of workers; but nothing is encrypted and no secret is checked. The ports must be
//! reachable by the peers alone.

mod connect;
mod handshake;
mod hello;
mod hosts;
mod link;
mod monitor;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{AllocatorBuilder, Hooks};

pub use connect::ConnectError;
pub use hosts::{Hosts, HostsError};
pub use monitor::{Event, Monitor};

use handshake::Sockets;
use link::Links;

/// This process among its peers.
#[derive(Clone, Debug)]
pub struct Cluster {
    hosts: Hosts,
    process: usize,
    threads: usize,
}

/// Which process of a cluster, as it is shown to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number, from 0: its line in the hosts file.
    pub process: usize,
    /// Its line in the hosts file.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.process, self.address)
    }
}

impl Cluster {
    /// Process number `process` of those in `hosts`, with `threads` workers (at least one).
    ///
    /// # Errors
    /// If the hosts file has no such line.
    pub fn new(hosts: Hosts, process: usize, threads: usize) -> Result<Self, HostsError> {
        if process >= hosts.addresses().len() {
            return Err(hosts.no_such_process(process));
        }
        Ok(Self { hosts, process, threads: threads.max(1) })
    }

    /// The number of processes.
    pub fn processes(&self) -> usize {
        self.hosts.addresses().len()
    }

    /// This process's number, from 0.
    pub fn process(&self) -> usize {
        self.process
    }

    /// The number of workers of each process.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Listens, and returns when all processes are connected with each other.
    ///
    /// `digest` says what is to be run: processes with different digests refuse each other. `cancelled` is asked
    /// several times a second.
    ///
    /// # Errors
    /// If this process's address cannot be listened on, a peer runs something else, peers are missing after `timeout`,
    /// or the wait was cancelled.
    pub fn connect(
        &self,
        digest: [u8; 32],
        timeout: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Connected, ConnectError> {
        let sockets = connect::connect(self, digest, timeout, cancelled)?;
        Ok(Connected { cluster: self.clone(), sockets })
    }

    fn peer(&self, process: usize) -> Peer {
        let address = self.hosts.addresses().get(process).cloned().unwrap_or_default();
        Peer { process, address }
    }
}

/// All processes are connected; nothing runs yet.
#[derive(Debug)]
pub struct Connected {
    cluster: Cluster,
    sockets: Vec<Option<Sockets>>,
}

/// What a run needs.
pub struct Running {
    /// For `timely::execute::execute_from`: one for each worker of this process.
    pub builders: Vec<AllocatorBuilder>,
    /// For `timely::execute::execute_from`, which keeps it until the workers have ended: dropping it ends the
    /// communication threads, after what was sent has left.
    pub others: Box<dyn Any + Send>,
    /// Watches the peers until it is dropped.
    pub monitor: Arc<Monitor>,
}

impl Connected {
    /// Starts the communication threads and the watch. `on_event` is called from the watch's threads: for each wish of a
    /// peer to stop, and once when the run is over because a process was lost or has failed. It must not block.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(self, on_event: impl Fn(&Event) + Send + Sync + 'static) -> std::io::Result<Running> {
        let Self { cluster, sockets } = self;
        let (data, watch): (Vec<_>, Vec<_>) = sockets.into_iter().map(|s| s.map(|s| (s.data, s.watch)).unzip()).unzip();
        let links = Arc::new(Links::new(data, watch));
        let monitor = Monitor::start(&cluster, Arc::clone(&links), Box::new(on_event))?;
        let hooks = Hooks::default();
        let local = ProcessBuilder::new_typed_vector(cluster.threads, hooks.refill.clone(), None);
        let (builders, comms) =
            initialize_networking_from_sockets(local, links.streams(), cluster.process, cluster.threads, hooks)?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        Ok(Running { builders, others: Box::new(link::Guard::new(comms, links)), monitor: Arc::new(monitor) })
    }
}

//! What a node sees while it is built.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use timely::dataflow::Scope;
use timely::dataflow::operators::probe::Handle;

use super::running::Running;
use super::sink_handle::SinkHandle;
use super::source::Resume;
use crate::batch::Time;
use crate::catalog::Table;
use crate::metrics::NodeMetrics;
use crate::reference::{Place, Reading, Reference};
use crate::shared::{FailureClass, Shared};

/// What a node sees while it is built.
pub struct BuildContext<'s> {
    /// Where operators are added.
    pub scope: Scope<'s, Time>,
    /// The node's id.
    pub id: String,
    /// The node's counters. Ports are counted by the engine: rows out, and rows on ports named `late`, `rejected`
    /// and `evicted`.
    pub metrics: Arc<NodeMetrics>,
    /// The number of this worker, from 0.
    pub worker: usize,
    /// How many workers there are, in all processes.
    pub peers: usize,
    /// How many workers each process has.
    pub threads: usize,
    /// How far everything downstream has got.
    pub probe: Handle<Time>,
    /// What the run shares.
    pub shared: Arc<Shared>,
    /// Whether anything reads each output port.
    pub connected: Vec<bool>,
    /// Whether each output port leads, however far down, to a sink that records every change of a relation.
    pub recorded: Vec<bool>,
    /// Watermarks move in steps of this, in ms.
    pub tick: Time,
    /// What leaves at message times from this on is complete and right. Before it rows may be missing, which were read and
    /// written earlier.
    pub complete_from: Time,
    /// For each input the served table that shows the same port, if there is one and the node
    /// [keeps tables](crate::contract::Facts::keeps_tables).
    pub tables: Vec<Option<Arc<Table>>>,
    /// For each input the name that the user gave it.
    pub input_names: Vec<String>,
    /// Whether every source of the run ends by itself.
    pub bounded: bool,
    /// The worker that owns this node, if it works on one worker only.
    pub(crate) home: usize,
    /// The dataflow that the node is built into.
    pub(crate) dataflow: Arc<dyn Running>,
    /// The files that the node makes.
    pub(crate) writes: Vec<PathBuf>,
}

impl BuildContext<'_> {
    /// Whether this worker owns the node. Sources and single files are spread over the workers of their process in
    /// pipeline order.
    pub fn is_home(&self) -> bool {
        self.worker == self.home
    }

    /// Whether this worker is in the process that owns the node. All rows of a sink come there.
    pub fn is_here(&self) -> bool {
        self.worker / self.threads == self.home / self.threads
    }

    /// Routes batches to the worker that owns the node: the value for [`Batch::route`](crate::batch::Batch::route).
    pub fn home(&self) -> u64 {
        self.home as u64
    }

    /// Routes batches to the worker that owns the `nth` part of a node that consists of several, in the same process.
    pub fn home_of(&self, nth: usize) -> u64 {
        (self.home - self.home % self.threads + (self.home + nth) % self.threads) as u64
    }

    /// The dataflow that the node is built into.
    pub(crate) fn dataflow(&self) -> &Arc<dyn Running> {
        &self.dataflow
    }

    /// Where a source goes on: behind what its log has.
    pub fn resume(&self) -> Resume {
        self.dataflow.resume().unwrap_or_default()
    }

    /// Whether what the source receives goes into a log.
    pub fn is_logged(&self) -> bool {
        self.dataflow.resume().is_some()
    }

    /// Whether the run can be continued by another, so that sinks note how far they are.
    pub fn is_noted(&self) -> bool {
        self.dataflow.notes().is_some()
    }

    /// The worker that writes for a sink asks this what to write. `name` is that of its note; `address` is the operator's,
    /// which is woken when the answer may have changed.
    ///
    /// # Errors
    /// If what an earlier run noted cannot be read; the message names the file.
    pub fn sink(&self, name: &str, address: Rc<[usize]>) -> Result<SinkHandle, String> {
        self.dataflow.add_waker(self.scope.worker().sync_activator_for(address.to_vec()));
        SinkHandle::new(&self.dataflow, (name, self.writes.clone()), &self.shared, &self.metrics)
    }

    /// Sinks of the dataflow may hold at least so many rows that are not confirmed before sources wait.
    pub fn allow_held(&self, rows: usize) {
        self.dataflow.held().allow(rows);
    }

    /// A file that the node reads, whose content may change while the run goes on. Its versions are kept with the logs. The
    /// node's counters show from when its data is.
    ///
    /// # Errors
    /// If it cannot be read, unless it may be absent and is; the message says where and why.
    pub fn reference<V: Send + Sync + 'static>(
        &self,
        path: &Path,
        reading: Reading<V>,
    ) -> Result<Arc<Reference<V>>, String> {
        let name = format!("{} {}", self.id, path.display());
        // Another path is another file, with versions of its own.
        let of_path = Sha256::digest(path.as_os_str().as_bytes());
        let folder = format!("{}-{:02x}{:02x}{:02x}{:02x}", self.id, of_path[0], of_path[1], of_path[2], of_path[3]);
        let dir = self.dataflow.versions().map(|versions| versions.join(folder));
        let place = || Place {
            dir: dir.filter(|dir| !self.shared.references.are_fixed() && (self.is_noted() || dir.is_dir())),
            takes_new: !self.dataflow.is_replay(),
            labelled_before: self.dataflow.received_before(),
            tick: self.tick,
        };
        let open = || Reference::open(path.to_owned(), place(), reading, &self.metrics);
        self.shared.references.get(&name, (&self.metrics, reading.max_age), open)
    }

    /// How a source keeps in step with the others.
    pub fn pace(&self) -> InStep {
        InStep { dataflow: Arc::clone(&self.dataflow), shared: Arc::clone(&self.shared), id: self.id.clone() }
    }

    /// Whether a node that has failed lets time pass; see [`SinkHandle::lets_go`].
    pub fn lets_go(&self) -> impl Fn() -> bool + 'static + use<> {
        let dataflow = Arc::clone(&self.dataflow);
        move || dataflow.lets_go()
    }

    /// Reports an error that ends the run, or the change that the node is part of.
    pub fn failure(&self) -> impl Fn(String) + 'static + use<> {
        let fail = self.failure_as();
        move |message| fail(FailureClass::Node, message)
    }

    /// [`BuildContext::failure`] with the sort of failure.
    pub fn failure_as(&self) -> impl Fn(FailureClass, String) + 'static + use<> {
        let (shared, dataflow, id) = (Arc::clone(&self.shared), Arc::clone(&self.dataflow), self.id.clone());
        move |class, message| {
            let message = format!("{id}: {message}");
            if !dataflow.fail(&message) {
                shared.fail_as(class, message);
            }
        }
    }
}

/// A source among those that it keeps in step with.
pub struct InStep {
    dataflow: Arc<dyn Running>,
    shared: Arc<Shared>,
    id: String,
}

impl InStep {
    /// The source is at a time; `Time::MAX` once it has ended.
    pub fn advance(&self, to: Time) {
        self.dataflow.pace().advance(&self.id, to);
    }

    /// Whether the source must wait with rows of a time: others are behind, or workers have too many rows to take in.
    pub fn must_wait(&self, time: Time) -> bool {
        self.dataflow.pace().any_behind(&self.id, time) || self.shared.backlog.is_full()
    }
}

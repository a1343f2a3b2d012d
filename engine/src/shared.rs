//! What the workers of a run share with each other, with the web service and with the terminal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::files::Claims;
use crate::intake::Intakes;
use crate::metrics::Metrics;
use crate::outputs::Outputs;
use crate::privileges::Privileges;
use crate::reference::References;
use crate::reload::{Outcome, Reloads};
use crate::start::Start;
use crate::store::Store;
use crate::time::Backlog;

/// What a run shares.
#[derive(Debug, Default)]
pub struct Shared {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Served tables.
    pub catalog: Arc<Catalog>,
    /// Bytes that bounded sources have to read, and have read.
    pub progress: Progress,
    /// Rows on their way between workers.
    pub backlog: Backlog,
    /// What became of changes while the run went on.
    pub reloads: Arc<Reloads>,
    /// What SIGHUP opens again.
    pub outputs: Outputs,
    /// Where documents come in.
    pub intakes: Arc<Intakes>,
    /// Files whose content may change.
    pub references: References,
    /// Rights that were kept when the run started.
    pub privileges: Privileges,
    /// Whether the start is sure.
    pub start: Start,
    /// The folder of the run's state.
    pub store: Store,
    /// What is written to, until sinks open it.
    pub(crate) claims: Claims,
    stopping: AtomicBool,
    aborted: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

/// Why a node ended the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort of failure it is; decides the exit code.
    pub class: FailureClass,
    /// Node and cause, lower-case. May quote what came from the network: escape it before it goes to a terminal.
    pub message: String,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { class: FailureClass::Node, message }
    }
}

/// Sorts of failures that a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// Any other: a file cannot be read, a sink refuses, a value cannot be computed.
    Node,
    /// The process lacks a right, such as CAP_NET_RAW for a capture.
    Permission,
}

/// How far bounded sources are.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of all files.
    pub total: AtomicU64,
    /// Bytes read so far.
    pub read: AtomicU64,
}

impl Shared {
    /// Answers the request for a change that was taken, and opens outputs again if that was asked for too.
    pub(crate) fn answer(&self, outcome: Outcome) {
        let asked = self.reloads.take_reopen();
        if asked {
            self.references.look(true);
        }
        let said = asked.then(|| self.outputs.reopen()).flatten();
        self.reloads.record(outcome.with_outputs(said));
    }

    /// Ends the run: sources stop, what they have received is processed or kept for the next run.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the run is to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends the run where it stands: workers drop the dataflow, what is in flight is lost.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// A sink has opened a file that it writes to.
    pub fn outputs_opened(&self, path: &Path) {
        self.claims.opened(path);
    }

    /// Whether the start has failed: the run never begins, and nothing that it writes to is changed.
    pub fn is_called_off(&self) -> bool {
        let is_over = || self.failure.lock().is_some() || self.start.has_others() && self.is_stopping();
        !self.start.has_begun() && is_over()
    }

    /// Whether the workers are to drop the dataflow.
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Ends the run with an error; the first one counts.
    pub fn fail(&self, message: String) {
        self.fail_as(FailureClass::Node, message);
    }

    /// [`Shared::fail`] with the sort of failure.
    pub fn fail_as(&self, class: FailureClass, message: String) {
        tracing::debug!("a node ends the run: {message}");
        self.failure.lock().get_or_insert(Failure { class, message });
        self.stop();
    }

    /// The first error.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.lock().clone()
    }
}

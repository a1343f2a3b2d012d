//! What each worker of this process does: it installs dataflows as they come and steps them, until all have ended or it has
//! to give up.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use timely::communication::{AllocatorBuilder, WorkerGuards};
use timely::dataflow::operators::probe::Handle;
use timely::execute::execute_from;
use timely::worker::Worker;
use timely::{CommunicationConfig, Config, WorkerConfig};

use super::{Observe, RunError};
use crate::batch::Time;
use crate::cluster::Monitor;
use crate::contract::panicked_in;
use crate::dataflow::{Dataflow, Dataflows};
use crate::expr::panic_message;
use crate::processes::Place;
use crate::render::render;
use crate::shared::Shared;

/// The longest that a worker sleeps. Messages, and timers set with `activate_after`, wake it earlier; this is only how
/// often it looks whether the run was aborted.
const LONGEST_PARK: Duration = Duration::from_millis(50);

/// The workers' ways to those of other processes.
pub(super) type Network = (Vec<AllocatorBuilder>, Box<dyn Any + Send>);

/// What the workers of this process share.
pub(super) struct Workers {
    place: Place,
    shared: Arc<Shared>,
    dataflows: Arc<Dataflows>,
    observe: Option<Observe>,
    /// Tells the other processes, if there are others.
    monitor: Option<Arc<Monitor>>,
    /// The first panic.
    panicked: Arc<Mutex<Option<RunError>>>,
}

/// A dataflow that a worker steps: its number there, and how far it is.
struct Installed {
    number: usize,
    dataflow: Arc<Dataflow>,
    probe: Handle<Time>,
}

impl Workers {
    pub fn new(
        (place, shared, dataflows): (Place, &Arc<Shared>, &Arc<Dataflows>),
        observe: Option<Observe>,
        monitor: Option<Arc<Monitor>>,
    ) -> Self {
        let (shared, dataflows) = (Arc::clone(shared), Arc::clone(dataflows));
        Self { place, shared, dataflows, observe, monitor, panicked: Arc::default() }
    }

    /// Where the first panic is noted.
    pub fn panicked(&self) -> Arc<Mutex<Option<RunError>>> {
        Arc::clone(&self.panicked)
    }

    /// Starts the threads. Without a network there is no other process.
    pub fn start(self, network: Option<Network>) -> Result<WorkerGuards<()>, String> {
        let worker = WorkerConfig::default();
        let communication = match self.place.threads {
            1 => CommunicationConfig::Thread,
            n => CommunicationConfig::Process(n),
        };
        let run = move |worker: &mut Worker| self.run(worker);
        match network {
            Some((builders, others)) => execute_from(builders, others, worker, run),
            None => timely::execute(Config { communication, worker }, run),
        }
    }

    /// All that a worker does.
    fn run(&self, worker: &mut Worker) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.work(worker))) {
            self.note_panic(worker.index(), payload.as_ref());
        }
        // Of the workers' peers one is gone for good: what is left of the dataflow would wait for it for ever. Or the
        // run is parked: what is left of it is in the spool.
        if self.shared.is_aborted() || self.dataflows.is_parked() {
            drop_dataflows(worker);
        }
    }

    /// Notes a panic and calls the run off.
    fn note_panic(&self, worker: usize, payload: &(dyn Any + Send)) {
        let node = panicked_in().map(|node| format!("{node}: ")).unwrap_or_default();
        let error = RunError::Panicked { worker, message: format!("{node}{}", panic_message(payload)) };
        if let Some(monitor) = &self.monitor {
            monitor.fail(&error.to_string());
        }
        self.panicked.lock().get_or_insert(error);
        self.shared.abort();
    }

    /// Installs dataflows as they come and steps them.
    fn work(&self, worker: &mut Worker) {
        // Dataflows from the list that were looked at.
        let mut seen = 0;
        let mut open: Vec<Installed> = Vec::new();
        let mut has_built = false;
        loop {
            // Asked before the list is: what was installed before is in it.
            let closed = self.dataflows.is_closed();
            for dataflow in self.dataflows.from(seen) {
                seen += 1;
                let Some(dataflow) = dataflow else { continue };
                open.push(self.install(worker, dataflow));
            }
            if !std::mem::replace(&mut has_built, true) {
                self.shared.start.built(self.place.threads, || self.shared.failure().is_some());
            }
            if self.shared.is_aborted() || self.dataflows.is_parked() || closed && !worker.has_dataflows() {
                break;
            }
            worker.step_or_park(Some(LONGEST_PARK));
            self.note_frontiers(worker, &mut open);
            if let Some(observe) = &self.observe {
                observe(&self.shared, &self.dataflows);
            }
        }
    }

    fn install(&self, worker: &mut Worker, dataflow: Arc<Dataflow>) -> Installed {
        let (index, number) = (worker.index(), worker.next_dataflow_index());
        let probe = worker.dataflow::<Time, _, _>(|scope| render(&dataflow, scope, index, self.place, &self.shared));
        Installed { number, dataflow, probe }
    }

    /// Notes how far dataflows are, and lets go of those that have ended here.
    fn note_frontiers(&self, worker: &Worker, open: &mut Vec<Installed>) {
        let running = worker.installed_dataflows();
        // What one worker of the process sees is enough.
        let is_first = worker.index().is_multiple_of(self.place.threads);
        open.retain(|Installed { number, dataflow, probe }| {
            let ended = !running.contains(number);
            if is_first {
                dataflow.set_frontier(probe.with_frontier(|frontier| frontier.first().copied()).unwrap_or(Time::MAX));
            }
            if ended {
                dataflow.ended();
            }
            !ended
        });
    }
}

/// Drops what a worker has, wherever it stands.
fn drop_dataflows(worker: &mut Worker) {
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    }));
    if dropped.is_err() {
        tracing::error!(worker = worker.index(), "operators panicked while they were dropped");
    }
}

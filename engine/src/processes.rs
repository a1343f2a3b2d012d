//! The other processes of a run: what this one tells them, what it has heard of them, and how the run ends with one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::batch::Time;
use crate::cluster::{Cluster, Event, Monitor};
use crate::dataflow::Dataflows;
use crate::plan::PlannedNode;
use crate::shared::Shared;

/// How often a process tells the others how far it is.
const TELL: Duration = Duration::from_millis(50);

/// Why a pipeline of several processes cannot be changed.
pub(crate) const FIXED: &str =
    "a pipeline of several processes cannot be changed while it runs: stop all and start them with the new file";

/// This process and its workers among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its number, from 0.
    pub process: usize,
    /// How many there are.
    pub processes: usize,
    /// Workers of each.
    pub threads: usize,
}

impl Place {
    /// The only process.
    pub fn alone(threads: usize) -> Self {
        Self { process: 0, processes: 1, threads }
    }

    /// One of several.
    pub fn of(cluster: &Cluster) -> Self {
        Self { process: cluster.process(), processes: cluster.processes(), threads: cluster.threads() }
    }

    /// Whether there are others.
    pub fn is_shared(&self) -> bool {
        self.processes > 1
    }

    /// Whether this process reads or writes for the node.
    pub fn owns(&self, node: &PlannedNode) -> bool {
        node.process == self.process
    }
}

/// How far a process is with the end of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// It is not ready to begin.
    #[default]
    Starting,
    /// It works, or would if the others were ready.
    Running,
    /// What its sources received is through, as far as it can be.
    Through,
    /// Its sinks have made durable what they have.
    Parked,
}

/// What a process tells the others.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    stage: Stage,
    /// Rows that left its workers for others, less those that arrived at its workers.
    backlog: i64,
    /// What it knows of the sources' watermarks, by dataflow.
    sources: Vec<Vec<Time>>,
    /// Rows that its sinks hold unconfirmed, by dataflow.
    #[serde(default)]
    held: Vec<i64>,
}

/// What is known of the other processes.
pub(crate) struct Heard {
    shared: Arc<Shared>,
    dataflows: Arc<Dataflows>,
    /// How many others there are.
    others: usize,
    own: Mutex<Stage>,
    reports: Mutex<BTreeMap<usize, Report>>,
    /// The others know that the run is to end.
    stop_told: AtomicBool,
}

impl Heard {
    pub fn new(shared: &Arc<Shared>, dataflows: &Arc<Dataflows>, place: Place) -> Self {
        let (own, reports) = (Mutex::default(), Mutex::default());
        Self {
            shared: Arc::clone(shared),
            dataflows: Arc::clone(dataflows),
            others: place.processes - 1,
            own,
            reports,
            stop_told: AtomicBool::new(false),
        }
    }

    /// Takes in what the watch says.
    pub fn event(&self, event: &Event) {
        match event {
            Event::Stopped(peer) => {
                tracing::info!("{peer} was asked to stop");
                self.stop_told.store(true, SeqCst);
                self.shared.stop();
            }
            Event::Told(peer, note) => match serde_json::from_slice(note) {
                Ok(report) => self.report(peer.process, report),
                Err(error) => tracing::warn!(%error, "{peer} says something that is not understood"),
            },
            Event::Lost(_) | Event::Silent(_) | Event::Failed(..) => {
                self.stop_told.store(true, SeqCst);
                self.shared.abort();
            }
        }
    }

    fn report(&self, process: usize, report: Report) {
        for (dataflow, times) in self.dataflows.from(0).iter().zip(&report.sources) {
            if let Some(dataflow) = dataflow {
                dataflow.sources.learn(times);
            }
        }
        let mut reports = lock(&self.reports);
        reports.insert(process, report);
        self.shared.backlog.set_elsewhere(reports.values().map(|report| report.backlog).fold(0, i64::saturating_add));
        for (nth, dataflow) in self.dataflows.from(0).iter().enumerate() {
            let held = reports.values().filter_map(|report| report.held.get(nth));
            if let Some(dataflow) = dataflow {
                dataflow.held.set_elsewhere(held.copied().fold(0, i64::saturating_add));
            }
        }
    }

    /// Notes how far this process is; the others hear of it soon. One that is not ready does not run.
    pub fn set_stage(&self, stage: Stage) {
        if stage > Stage::Running || self.shared.start.is_ready() {
            *lock(&self.own) = stage;
        }
    }

    /// Begins the run once all processes are ready, unless it is to end.
    fn begin(&self) {
        let start = &self.shared.start;
        if start.has_begun() || !start.is_ready() {
            return;
        }
        let mut own = lock(&self.own);
        *own = (*own).max(Stage::Running);
        drop(own);
        if self.have_reached(Stage::Running) && !self.shared.is_stopping() {
            start.begin();
        }
    }

    /// Whether all other processes are at this stage or behind it.
    pub fn have_reached(&self, stage: Stage) -> bool {
        let reports = lock(&self.reports);
        reports.len() >= self.others && reports.values().all(|report| report.stage >= stage)
    }

    /// What to tell.
    fn note(&self) -> Result<Vec<u8>, serde_json::Error> {
        let all = self.dataflows.from(0);
        let sources = all.iter().map(|one| one.as_ref().map(|one| one.sources.known()).unwrap_or_default());
        let held = all.iter().map(|one| one.as_ref().map_or(0, |one| one.held.balance()));
        let report = Report {
            stage: *lock(&self.own),
            backlog: self.shared.backlog.balance(),
            sources: sources.collect(),
            held: held.collect(),
        };
        serde_json::to_vec(&report)
    }
}

/// Tells the others how this process is, on a thread of its own: a network that does not take it must not keep workers.
pub(crate) struct Telling {
    heard: Arc<Heard>,
    monitor: Arc<Monitor>,
    until: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Telling {
    /// # Errors
    /// If there is no thread for it.
    pub fn start(heard: &Arc<Heard>, monitor: &Arc<Monitor>) -> std::io::Result<Self> {
        let (until, ended) = mpsc::channel();
        let (told, teller) = (Arc::clone(heard), Arc::clone(monitor));
        let thread = std::thread::Builder::new().name("tell".into()).spawn(move || {
            while ended.recv_timeout(TELL) == Err(RecvTimeoutError::Timeout) {
                tell(&told, &teller);
            }
        })?;
        Ok(Self { heard: Arc::clone(heard), monitor: Arc::clone(monitor), until, thread })
    }

    /// To be called when the workers have ended; `failure` is why, if not well. Waits for the others to end too. Returns
    /// whether any process was told to stop, on which all agree: what the others hear before the end counts for all.
    ///
    /// # Errors
    /// How the run ended instead, if another process was lost or has failed before.
    pub fn finish(self, failure: Option<&str>) -> Result<bool, Event> {
        let Self { heard, monitor, until, thread } = self;
        drop(until);
        if thread.join().is_err() {
            tracing::error!("the thread that tells other processes how this one is panicked");
        }
        if let Some(event) = monitor.ended_by() {
            return Err(event);
        }
        match failure {
            Some(failure) => {
                monitor.fail(failure);
                Ok(true)
            }
            None => {
                tell(&heard, &monitor);
                monitor.finish()?;
                Ok(heard.stop_told.load(SeqCst))
            }
        }
    }
}

fn tell(heard: &Heard, monitor: &Monitor) {
    let shared = &heard.shared;
    heard.begin();
    if shared.is_stopping() && !heard.stop_told.swap(true, SeqCst) {
        monitor.stop();
    }
    // What the others have in flight is in the spool too, and waits for this process in vain.
    if heard.dataflows.is_parked()
        && let Some(failure) = shared.failure()
    {
        return monitor.fail(&failure.message);
    }
    let told = heard.note().map_err(|error| error.to_string());
    if let Err(error) = told.and_then(|note| monitor.tell(&note).map_err(|error| error.to_string())) {
        shared.fail(format!("other processes cannot be told how far the sources are, which may be too many: {error}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Peer;

    #[test]
    fn a_run_begins_when_every_process_is_ready() {
        let shared = Arc::new(Shared::default());
        shared.start.wait_for_others();
        let heard = Heard::new(&shared, &Arc::default(), Place { process: 0, processes: 3, threads: 1 });
        let ready = || Report { stage: Stage::Running, ..Report::default() };
        heard.event(&told(1, &ready()));
        heard.event(&told(2, &Report::default()));
        shared.start.built(1, || false);
        heard.begin();
        assert!(!shared.start.has_begun(), "process 2 is not ready");
        heard.event(&told(2, &ready()));
        heard.begin();
        assert!(shared.start.has_begun());
    }

    fn told(process: usize, report: &Report) -> Event {
        let peer = Peer { process, address: String::new() };
        Event::Told(peer, serde_json::to_vec(report).expect("JSON"))
    }

    #[test]
    fn a_stage_is_reached_when_every_other_process_has_said_so() {
        let shared = Arc::new(Shared::default());
        let heard = Heard::new(&shared, &Arc::default(), Place { process: 0, processes: 3, threads: 1 });
        let report = |stage| Report { stage, ..Report::default() };
        heard.event(&told(1, &report(Stage::Parked)));
        assert!(!heard.have_reached(Stage::Through), "nothing was heard of process 2");
        heard.event(&told(2, &report(Stage::Through)));
        assert!(heard.have_reached(Stage::Through) && !heard.have_reached(Stage::Parked));
        heard.event(&told(2, &report(Stage::Running)));
        assert!(!heard.have_reached(Stage::Through), "rows came");
    }

    #[test]
    fn rows_on_their_way_are_the_sum_over_all_processes() {
        let shared = Arc::new(Shared::default());
        let heard = Heard::new(&shared, &Arc::default(), Place { process: 0, processes: 3, threads: 1 });
        let report = |backlog| Report { backlog, ..Report::default() };
        shared.backlog.sent(10_000_000);
        heard.event(&told(1, &report(-6_000_000)));
        heard.event(&told(1, &report(-9_000_000)));
        assert!(shared.backlog.is_full());
        heard.event(&told(2, &report(-1_000_000)));
        assert!(!shared.backlog.is_full());
    }

    #[test]
    fn a_note_that_is_not_understood_changes_nothing() {
        let shared = Arc::new(Shared::default());
        let heard = Heard::new(&shared, &Arc::default(), Place { process: 0, processes: 2, threads: 1 });
        heard.event(&Event::Told(Peer { process: 1, address: String::new() }, b"{".to_vec()));
        assert!(!heard.have_reached(Stage::Running) && !shared.is_stopping());
        heard.event(&Event::Stopped(Peer { process: 1, address: String::new() }));
        assert!(shared.is_stopping() && !shared.is_aborted());
    }
}

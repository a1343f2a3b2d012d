//! Runs a plan on a number of workers until its sources have ended, and says how it went.
//!
//! Every worker is a thread that renders the whole graph and then steps it. A run ends in one of three ways: the sources
//! have ended and everything has been processed; [`Shared::stop`] or [`Shared::fail`] has made the sources end, and what
//! they had received has been processed; or a worker has panicked, and all workers drop the dataflow where it stands.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use timely::WorkerConfig;
use timely::dataflow::operators::probe::Handle;
use timely::execute::execute_from;
use timely::worker::Worker;
use timely::{CommunicationConfig, Config};

use crate::batch::Time;
use crate::cluster::{Cluster, ConnectError, Event, Running};
use crate::contract::Inputs;
pub use crate::control::Loader;
use crate::control::{Control, LOOK};
use crate::dataflow::{Dataflow, Dataflows};
use crate::metrics::NodeMetrics;
use crate::plan::{Digest, Plan};
use crate::processes::{self, Heard, Place, Telling};
use crate::reload::Outcome;
use crate::render::render;
use crate::shared::{Failure, Shared};
use crate::signs::Signs;

/// The longest that a worker sleeps. Messages, and timers set with `activate_after`, wake it earlier; this is only how
/// often it looks whether the run was aborted.
const LONGEST_PARK: Duration = Duration::from_millis(50);

/// Why a pipeline without a spool cannot be changed.
const FIXED: &str = "what this pipeline receives is not kept in a spool: stop it and start the new one";

/// Why a run did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A node ended the run.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// A worker panicked: a defect of the program.
    #[error("worker {worker} panicked: {message}")]
    Panicked {
        /// Its number, from 0.
        worker: usize,
        /// The panic's message.
        message: String,
    },
    /// The workers could not be started.
    #[error("the workers could not be started: {0}")]
    NotStarted(String),
    /// The processes did not meet.
    #[error(transparent)]
    NotConnected(#[from] ConnectError),
    /// Another process was lost or has failed.
    #[error("{0}")]
    Other(Event),
}

/// Runs `plan` on `workers` threads (at least one) and returns when all of them have ended.
///
/// # Errors
/// If a node reported a failure, a worker panicked, the threads could not be started, or the spool cannot be used.
pub fn execute(plan: Arc<Plan>, workers: usize, shared: &Arc<Shared>) -> Result<(), RunError> {
    execute_with(plan, shared, Options { workers, ..Options::default() })
}

/// Looks at a run from its workers.
pub type Observe = Arc<Look>;

/// See [`Observe`].
type Look = dyn Fn(&Shared, &Dataflows) + Send + Sync;

/// How a plan is run.
#[derive(Default)]
pub struct Options {
    /// Threads of this process; at least one is used.
    pub workers: usize,
    /// The processes that run the plan together, each with so many threads; `None` if this one runs it alone.
    pub cluster: Option<Together>,
    /// Loads the pipeline again when a change is asked for.
    pub loader: Option<Loader>,
    /// Dataflows to run in place of the plan's, all of which end by themselves.
    pub dataflows: Option<Vec<Dataflow>>,
    /// Called by every worker after each of its steps.
    pub observe: Option<Observe>,
}

/// How processes come together.
#[derive(Clone, Debug)]
pub struct Together {
    /// This process among the others. Its number of threads counts.
    pub cluster: Cluster,
    /// How long the others are waited for.
    pub timeout: Duration,
}

/// [`execute`] with all options.
///
/// # Errors
/// As [`execute`]; and if other processes do not come, are lost or fail.
pub fn execute_with(plan: Arc<Plan>, shared: &Arc<Shared>, options: Options) -> Result<(), RunError> {
    let place = match &options.cluster {
        Some(together) => Place::of(&together.cluster),
        None => Place::alone(options.workers.max(1)),
    };
    plan.check_processes(place.processes).map_err(RunError::NotStarted)?;
    if place.is_shared() {
        shared.references.fix();
    }
    let dataflows: Arc<Dataflows> = Arc::default();
    let heard = options.cluster.as_ref().map(|_| Arc::new(Heard::new(shared, &dataflows, place)));
    let (loader, fixed_loader) = match plan.is_spooled() {
        true => (options.loader, None),
        false => (None, options.loader),
    };
    let mut control = match options.dataflows {
        Some(all) => {
            all.into_iter().for_each(|dataflow| dataflows.install(Arc::new(dataflow)));
            dataflows.close();
            None
        }
        None => Control::start(&plan, place, heard.clone(), (shared, &dataflows), loader).map_err(|message| {
            shared.fail(message.clone());
            RunError::Failed(Failure::from(message))
        })?,
    };
    let others = match options.cluster.zip(heard) {
        Some((together, heard)) => Some(connect(&together, &plan, shared, heard)?),
        None => None,
    };
    let monitor = others.as_ref().map(|(running, _)| Arc::clone(&running.monitor));
    let panicked: Arc<Mutex<Option<RunError>>> = Arc::default();
    let (run, noted, observe) = (Arc::clone(shared), Arc::clone(&panicked), options.observe);
    let installed = Arc::clone(&dataflows);
    let run_worker = move |worker: &mut Worker| {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(worker, place, (&run, &installed), observe.as_deref())));
        if let Err(payload) = outcome {
            let message = panic_message(payload.as_ref());
            let error = RunError::Panicked { worker: worker.index(), message };
            if let Some(monitor) = &monitor {
                monitor.fail(&error.to_string());
            }
            noted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            run.abort();
        }
        // Of the workers' peers one is gone for good: what is left of the dataflow would wait for it for ever. Or the
        // run is parked: what is left of it is in the spool.
        if run.is_aborted() || installed.is_parked() {
            let dropped = catch_unwind(AssertUnwindSafe(|| {
                for dataflow in worker.installed_dataflows() {
                    worker.drop_dataflow(dataflow);
                }
            }));
            if dropped.is_err() {
                tracing::error!(worker = worker.index(), "operators panicked while they were dropped");
            }
        }
    };
    let (guards, telling) = match others {
        Some((Running { builders, others, .. }, telling)) => {
            (execute_from(builders, others, WorkerConfig::default(), run_worker), Some(telling))
        }
        None => {
            let communication = match place.threads {
                1 => CommunicationConfig::Thread,
                n => CommunicationConfig::Process(n),
            };
            (timely::execute(Config { communication, worker: WorkerConfig::default() }, run_worker), None)
        }
    };
    let guards = guards.map_err(RunError::NotStarted)?;
    let (ended, directing) = mpsc::channel::<()>();
    let (run, digest) = (Arc::clone(shared), plan.digest());
    let fixed = if place.is_shared() { processes::FIXED } else { FIXED };
    let watches = !plan.is_bounded();
    let mut signs = Signs::default();
    let started = Arc::clone(&plan);
    let director = std::thread::Builder::new().name("control".into()).spawn(move || {
        let directed = catch_unwind(AssertUnwindSafe(|| {
            while directing.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                signs.look(control.as_ref().map_or(&started, Control::plan), &run);
                if watches {
                    run.references.look(false);
                }
                match &mut control {
                    Some(control) => control.look(),
                    None if run.reloads.take() => run.answer(unchanged(fixed_loader.as_ref(), digest, fixed)),
                    None => {}
                }
            }
        }));
        // Nobody else would end the dataflows.
        if let Err(payload) = directed {
            run.fail(format!("the thread that directs the run panicked: {}", panic_message(payload.as_ref())));
            run.abort();
            return None;
        }
        if run.failure().is_none() {
            signs.finish(control.as_ref().map_or(&started, Control::plan), &run);
        }
        control
    });
    let director = match director {
        Ok(director) => Some(director),
        Err(error) => {
            shared.fail(format!("no thread to direct the run with: {error}"));
            shared.abort();
            None
        }
    };
    for outcome in guards.join() {
        if let Err(message) = outcome {
            shared.fail(format!("a worker ended out of order: {message}"));
            shared.abort();
        }
    }
    drop(ended);
    let control = director.and_then(|director| {
        director.join().unwrap_or_else(|_| {
            shared.fail("the thread that directs the run ended out of order".to_owned());
            None
        })
    });
    // A panic is a defect; a failure that another worker reported because of it explains less.
    let panicked = panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut error = panicked.or_else(|| shared.failure().map(RunError::Failed));
    let mut stopped = shared.is_stopping();
    if let Some(telling) = telling {
        match telling.finish(error.as_ref().map(RunError::to_string).as_deref()) {
            Ok(any_stopped) => stopped = any_stopped,
            Err(event) => error = Some(RunError::Other(event)),
        }
    }
    match error {
        Some(error) => Err(error),
        None => {
            if let Some(control) = control.filter(|_| !stopped) {
                control.finish();
            }
            Ok(())
        }
    }
}

/// What becomes of a request for a change where there can be none: whether one would be needed.
fn unchanged(loader: Option<&Loader>, running: Digest, fixed: &str) -> Outcome {
    match loader.map(|loader| loader()) {
        Some(Ok(plan)) if plan.digest() == running => Outcome::Unchanged(String::new()),
        Some(Err(faults)) => Outcome::Refused(faults),
        Some(Ok(_)) | None => Outcome::Refused(fixed.to_owned()),
    }
}

/// Waits for the other processes and starts to talk with them.
fn connect(
    together: &Together,
    plan: &Plan,
    shared: &Arc<Shared>,
    heard: Arc<Heard>,
) -> Result<(Running, Telling), RunError> {
    let connected = together.cluster.connect(plan.digest(), together.timeout, &|| shared.is_stopping())?;
    let no_threads = |error: std::io::Error| RunError::NotStarted(error.to_string());
    let events = Arc::clone(&heard);
    let running = connected.start(move |event| events.event(event)).map_err(no_threads)?;
    let telling = Telling::start(&heard, &running.monitor).map_err(no_threads)?;
    Ok((running, telling))
}

/// Installs dataflows as they come and steps them.
fn work(worker: &mut Worker, place: Place, (shared, dataflows): (&Arc<Shared>, &Dataflows), observe: Option<&Look>) {
    let index = worker.index();
    let mut installed = 0;
    let mut open: Vec<(usize, Arc<Dataflow>, Handle<Time>)> = Vec::new();
    loop {
        // Asked before the list is: what was installed before is in it.
        let closed = dataflows.is_closed();
        for dataflow in dataflows.from(installed) {
            installed += 1;
            let Some(dataflow) = dataflow else { continue };
            let number = worker.next_dataflow_index();
            let probe = worker.dataflow::<Time, _, _>(|scope| render(&dataflow, scope, index, place, shared));
            open.push((number, dataflow, probe));
        }
        if shared.is_aborted() || dataflows.is_parked() || closed && !worker.has_dataflows() {
            break;
        }
        worker.step_or_park(Some(LONGEST_PARK));
        let running = worker.installed_dataflows();
        open.retain(|(number, dataflow, probe)| {
            let ended = !running.contains(number);
            if index.is_multiple_of(place.threads) {
                dataflow.set_frontier(probe.with_frontier(|frontier| frontier.first().copied()).unwrap_or(Time::MAX));
            }
            if ended {
                dataflow.ended();
            }
            !ended
        });
        if let Some(observe) = observe {
            observe(shared, dataflows);
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

/// What a run has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How long it took by the wall clock.
    pub wall: Duration,
    /// Counters of the nodes, in the order of the plan.
    pub nodes: Vec<NodeSummary>,
}

/// Counters of one node at the end; see [`NodeMetrics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// The node's id.
    pub id: String,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it has no input.
    pub is_source: bool,
    /// Rows that arrived.
    pub rows_in: u64,
    /// Rows that left.
    pub rows_out: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// Rows older than the watermark.
    pub late: u64,
    /// Input that was not understood.
    pub rejected: u64,
    /// Rows that a bound pushed out of state.
    pub evicted: u64,
    /// What only this kind counts.
    pub named: Vec<(&'static str, u64)>,
}

impl Summary {
    /// The counters as they are now.
    pub fn new(plan: &Plan, shared: &Shared, wall: Duration) -> Self {
        let nodes = plan
            .nodes
            .iter()
            .map(|node| {
                let metrics: Arc<NodeMetrics> = shared.metrics.node(&node.id, node.kind.name);
                NodeSummary {
                    id: node.id.clone(),
                    kind: node.kind.name,
                    is_source: node.kind.inputs == Inputs::None,
                    rows_in: metrics.rows_in.load(Relaxed),
                    rows_out: metrics.rows_out.load(Relaxed),
                    bytes: metrics.bytes.load(Relaxed),
                    late: metrics.late.load(Relaxed),
                    rejected: metrics.rejected.load(Relaxed),
                    evicted: metrics.evicted.load(Relaxed),
                    named: metrics.named(),
                }
            })
            .collect();
        Self { wall, nodes }
    }

    /// Rows that left the sources.
    pub fn source_rows(&self) -> u64 {
        self.nodes.iter().filter(|n| n.is_source).map(|n| n.rows_out).sum()
    }

    /// Rows that left the sources per second of wall clock.
    pub fn rows_per_second(&self) -> f64 {
        let seconds = self.wall.as_secs_f64();
        if seconds > 0.0 { self.source_rows() as f64 / seconds } else { 0.0 }
    }

    /// Rows that were late anywhere.
    pub fn late(&self) -> u64 {
        self.nodes.iter().map(|n| n.late).sum()
    }

    /// The ids of sources of which nothing was understood, though something came.
    pub fn not_understood(&self) -> Vec<&str> {
        let none = |n: &&NodeSummary| n.is_source && n.rejected > 0 && n.rows_out == 0;
        self.nodes.iter().filter(none).map(|n| n.id.as_str()).collect()
    }

    /// Input that was not understood anywhere.
    pub fn rejected(&self) -> u64 {
        self.nodes.iter().map(|n| n.rejected).sum()
    }
}

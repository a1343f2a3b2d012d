//! Runs a plan on a number of workers until its sources have ended, and says how it went.
//!
//! Every worker is a thread that renders the whole graph and then steps it. A run ends in one of three ways: the sources
//! have ended and everything has been processed; [`Shared::stop`] or [`Shared::fail`] has made the sources end, and what
//! they had received has been processed; or a worker has panicked, and all workers drop the dataflow where it stands.

use std::sync::Arc;
use std::time::Duration;

use timely::communication::WorkerGuards;

use crate::cluster::{Cluster, ConnectError, Event, Running};
use crate::control::Control;
use crate::dataflow::{Dataflow, Dataflows};
use crate::plan::Plan;
use crate::processes::{self, Heard, Place, Telling};
use crate::shared::{Failure, Shared};

mod director;
mod summary;
mod workers;

use director::{Directing, Director};
use workers::Workers;

pub use crate::control::Loader;
pub use summary::{NodeSummary, Summary};

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
    /// The processes could not be connected.
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
    if place.is_shared() {
        shared.start.wait_for_others();
    } else {
        take_outputs(&plan, place, options.dataflows.as_deref(), shared)?;
    }
    let outcome = execute_claimed((plan, place), shared, options);
    shared.claims.end(shared.start.has_begun());
    outcome
}

/// Takes what the nodes of this process write to, before anything is changed. Of a replay not all nodes may run.
fn take_outputs(plan: &Plan, place: Place, dataflows: Option<&[Dataflow]>, shared: &Shared) -> Result<(), RunError> {
    let runs = |at: usize| dataflows.is_none_or(|all| all.iter().any(|one| one.island.nodes.contains(&at)));
    for (_, node) in plan.nodes.iter().enumerate().filter(|(at, node)| place.owns(node) && runs(*at)) {
        let claims = node.claim(plan.is_spooled()).map_err(|message| {
            shared.claims.end(false);
            shared.fail(message.clone());
            RunError::Failed(Failure::from(message))
        })?;
        shared.claims.keep(claims);
    }
    Ok(())
}

/// Runs a plan whose outputs have been taken.
fn execute_claimed((plan, place): (Arc<Plan>, Place), shared: &Arc<Shared>, options: Options) -> Result<(), RunError> {
    let dataflows: Arc<Dataflows> = Arc::default();
    let heard = options.cluster.as_ref().map(|_| Arc::new(Heard::new(shared, &dataflows, place)));
    let (loader, fixed_loader) = match plan.is_spooled() {
        true => (options.loader, None),
        false => (None, options.loader),
    };
    let control = match options.dataflows {
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
    if let Some(dir) = plan.used_data_dir() {
        shared.store.watch(dir, control.as_ref().map(Control::folders).unwrap_or_default(), place.process);
    }
    // The monitor is kept to the end: the others take it for a loss when it is gone.
    let (network, monitor, telling) = match options.cluster.zip(heard) {
        Some((together, heard)) => {
            let (Running { builders, others, monitor }, telling) = connect(&together, &plan, shared, heard)?;
            (Some((builders, others)), Some(monitor), Some(telling))
        }
        None => (None, None, None),
    };
    if place.is_shared() {
        // The others hear of a failure from the run, which has still to be told to them. It does not begin.
        let _ = take_outputs(&plan, place, None, shared);
    }
    let workers = Workers::new((place, shared, &dataflows), options.observe, monitor.clone());
    let panicked = workers.panicked();
    let guards = workers.start(network).map_err(RunError::NotStarted)?;
    let fixed = if place.is_shared() { processes::FIXED } else { FIXED };
    let directing = Director::new(plan, shared, control, (fixed_loader, fixed)).start();
    join_workers(guards, shared);
    let control = directing.and_then(Directing::join);
    // A panic is a defect; a failure that another worker reported because of it explains less.
    let panicked = panicked.lock().take();
    let failure = panicked.or_else(|| shared.failure().map(RunError::Failed));
    let stopped = agree(failure, telling, shared)?;
    if let Some(control) = control.filter(|_| !stopped) {
        control.finish();
    }
    Ok(())
}

/// Waits until all workers have ended.
fn join_workers(guards: WorkerGuards<()>, shared: &Shared) {
    for outcome in guards.join() {
        if let Err(message) = outcome {
            shared.fail(format!("a worker ended out of order: {message}"));
            shared.abort();
        }
    }
}

/// How the run has ended, on which all processes agree: why not well, or whether it was told to stop.
fn agree(failure: Option<RunError>, telling: Option<Telling>, shared: &Shared) -> Result<bool, RunError> {
    let stopped = match telling {
        Some(telling) => {
            let failure = failure.as_ref().map(RunError::to_string);
            telling.finish(failure.as_deref()).map_err(RunError::Other)?
        }
        None => shared.is_stopping(),
    };
    failure.map_or(Ok(stopped), Err)
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

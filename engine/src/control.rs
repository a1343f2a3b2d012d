//! Directs a run while its workers work: opens logs, notes how far everything is, trims what nobody needs any more,
//! changes the pipeline, and brings a spooled run to a stop from which the next one goes on.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::batch::Time;
use crate::catalog::Table;
use crate::flow::{Feed, Flow, Flows};
use crate::ledger;
use crate::logged::{Kept, Logged};
use crate::metrics::Metrics;
use crate::plan::{LogPorts, Part, Plan, Stages};
use crate::processes::{FIXED, Heard, Place, Stage};
use crate::reload::{Loader, Outcome};
use crate::shared::Shared;
use crate::spool::SpoolError;
use crate::time::Sources;

mod change;

/// How often the run is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// How often it is noted how far the run is, and logs are trimmed.
const NOTE: Duration = Duration::from_secs(1);

/// The sources that keep in step with each other, but for those of a change that is under way.
const RUNNING: u64 = 0;

/// The longest that a stopping run waits for what its sources received to get through. What does not is in the spool.
const DRAIN: Duration = Duration::from_secs(20);

/// A run whose counters stand still for so long has done what there was to do.
const QUIET: Duration = Duration::from_millis(150);

/// What to do about a damaged note of that.
const ADVICE: &str = "it says from where on the spool is needed: put back a copy, or remove it, and the run reads all that the spool \
    has; what sinks have confirmed they do not write again";

/// How far a run is, for the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// Every sink has confirmed what is before this message time (ms).
    upto: Time,
}

/// The state of a run that can be continued and changed.
pub(crate) struct Control {
    shared: Arc<Shared>,
    /// Workers of this process.
    workers: usize,
    place: Place,
    /// What is known of the other processes, if there are others.
    heard: Option<Arc<Heard>>,
    loader: Option<Loader>,
    plan: Arc<Plan>,
    /// By the source's id; those of this process.
    logs: HashMap<String, Arc<Logged>>,
    receiving: Vec<Arc<Flow>>,
    /// Where the sources of the stages are.
    sources: Arc<Sources>,
    /// The stages of the plan, in its order.
    computing: Vec<Arc<Flow>>,
    /// Stages that are to take others' places, and copies that give them the past: they read their logs from far back.
    coming: Vec<Arc<Flow>>,
    /// How many changes there have been.
    changes: u64,
    progress: Progress,
    noted: Instant,
    stop: Option<Stop>,
}

/// How far a stop is.
struct Stop {
    since: Instant,
    /// What the counters said, and since when they have.
    quiet: (u64, Instant),
    parking: bool,
}

impl Control {
    /// Opens the logs and installs the dataflows of a plan. `None` if there is nothing to direct: a run without a spool
    /// is one dataflow that ends by itself or when it is told to.
    ///
    /// # Errors
    /// If the spool cannot be used.
    pub fn start(
        plan: &Arc<Plan>,
        place: Place,
        heard: Option<Arc<Heard>>,
        shared: &Arc<Shared>,
        loader: Option<Loader>,
    ) -> Result<Option<Self>, String> {
        if !plan.is_spooled() {
            let tables = shared.catalog.tables();
            let flow = Flow::new(Arc::clone(plan), plan.whole(), Arc::clone(&shared.metrics), &tables);
            shared.flows.install(Arc::new(flow));
            shared.flows.close();
            return Ok(None);
        }
        let mut control = Self {
            shared: Arc::clone(shared),
            workers: place.threads,
            place,
            heard,
            loader,
            plan: Arc::clone(plan),
            logs: HashMap::new(),
            receiving: Vec::new(),
            sources: Arc::default(),
            computing: Vec::new(),
            coming: Vec::new(),
            changes: 0,
            progress: ledger::read(&progress_path(plan, place), ADVICE)?.unwrap_or_default(),
            noted: Instant::now(),
            stop: None,
        };
        let tables = shared.catalog.tables();
        for part in plan.parts().0 {
            let flow = control.receive(plan, part, &tables).map_err(|error| error.to_string())?;
            control.receiving.push(Arc::new(flow));
        }
        let stages = plan.stages();
        let all: Vec<&Part> = stages.parts.iter().collect();
        let metrics = Arc::clone(&shared.metrics);
        let building = Building { plan, all: &all, group: RUNNING, metrics, tables: &tables };
        for (part, upstream) in stages.parts.iter().zip(&stages.upstream) {
            let feeds = upstream.iter().map(|at| Feed::of(&control.computing[*at])).collect();
            let flow = control.compute(&building, part, feeds).map_err(|error| error.to_string())?;
            control.computing.push(Arc::new(flow));
        }
        follow(&stages, &control.computing, &[]);
        for flow in control.computing.iter().chain(&control.receiving) {
            shared.flows.install(Arc::clone(flow));
        }
        Ok(Some(control))
    }

    /// The dataflow of a live source, up to its log.
    fn receive(&mut self, plan: &Arc<Plan>, part: Part, tables: &[Arc<Table>]) -> Result<Flow, SpoolError> {
        let mut writes = None;
        let own = |ports: &&LogPorts| self.place.owns(&plan.nodes[ports.source]);
        if let Some(ports) = part.writes.as_ref().filter(own) {
            let id = plan.nodes[ports.source].id.clone();
            let logged = match self.logs.get(&id) {
                Some(logged) => Arc::clone(logged),
                None => {
                    let logged = Logged::open(plan, ports)?;
                    self.shared.metrics.spool(&id, logged.log.counters());
                    self.logs.insert(id, Arc::clone(&logged));
                    logged
                }
            };
            let resume = logged.resume();
            writes = Some((logged, resume));
        }
        let flow = Flow::new(Arc::clone(plan), part, Arc::clone(&self.shared.metrics), tables);
        Ok(Flow { writes, ..flow })
    }

    /// The dataflow of a stage. The reader of a log begins as far back as all that is built with it needs.
    fn compute(&self, building: &Building<'_>, part: &Part, feeds: Vec<Feed>) -> Result<Flow, SpoolError> {
        let Building { plan, all, group, metrics, tables } = building;
        let mut logs = Vec::with_capacity(part.reads.len());
        for ports in &part.reads {
            let Some(logged) = self.logs.get(&plan.nodes[ports.source].id) else {
                logs.push(None);
                continue;
            };
            let from = match self.progress.upto {
                0 => logged.log.first(),
                upto => logged.log.start_for(plan.needs_of(all.iter().copied(), ports, upto))?,
            };
            logs.push(Some((Arc::clone(logged), from)));
        }
        let flow = Flow::new(Arc::clone(plan), part.clone(), Arc::clone(metrics), tables).reading(logs);
        let flow = flow.in_step(&self.sources, *group);
        Ok(Flow { ledgers: Some(ledgers(plan)), is_stage: true, feeds, ..flow })
    }

    /// The pipeline that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Looks at the run once; called every [`LOOK`] until the workers have ended.
    pub fn look(&mut self) {
        let workers = self.workers;
        let ended = |flow: &Arc<Flow>| flow.has_ended(workers);
        if self.shared.is_aborted() || self.shared.flows.is_parked() {
            return;
        }
        if self.receiving.iter().all(ended) && self.computing.iter().all(ended) {
            self.shared.flows.close();
        } else if self.shared.is_stopping() {
            self.bring_to_a_stop();
        } else if self.shared.reloads.take() {
            let outcome = match self.place.is_shared() {
                true => Outcome::Refused(FIXED.to_owned()),
                false => self.change(),
            };
            self.shared.answer(outcome);
        }
        if self.noted.elapsed() >= NOTE {
            self.note();
        }
    }

    /// All workers have ended, well and without having been told to. A run whose sources have all ended by themselves
    /// leaves nothing to go on with.
    pub fn finish(mut self) {
        if !self.logs.values().all(|logged| logged.is_complete()) {
            return;
        }
        let dir = self.plan.spool_dir();
        let mut gone: Vec<PathBuf> = self.logs.keys().map(|id| dir.join(id)).collect();
        gone.push(ledgers(&self.plan));
        self.receiving.clear();
        self.computing.clear();
        self.logs.clear();
        for path in gone {
            if let Err(error) = std::fs::remove_dir_all(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "the spool of a finished run cannot be removed");
            }
        }
        let _ = std::fs::remove_file(progress_path(&self.plan, self.place));
    }

    /// Everything that is before this has been confirmed by every sink.
    fn upto(&self) -> Time {
        self.computing.iter().map(|flow| flow.frontier()).min().unwrap_or(0)
    }

    /// Notes how far the run is, then lets go of what nobody needs any more.
    fn note(&mut self) {
        self.noted = Instant::now();
        // Such as those of a change that was refused.
        self.flows().forget(self.workers);
        if self.place.is_shared() && self.logs.is_empty() {
            // Those who have the logs say where the next run begins.
            return;
        }
        let upto = self.upto();
        // Asked after the frontier: what failed may have let time pass without its rows.
        if self.shared.failure().is_some() || upto <= self.progress.upto || upto == Time::MAX {
            return;
        }
        let progress = Progress { upto };
        match ledger::write(&progress_path(&self.plan, self.place), &progress) {
            Ok(()) => self.progress = progress,
            // What is kept is more than is needed, until it can be noted again.
            Err(error) => return tracing::warn!(error, "how far the run is cannot be noted"),
        }
        let mut needed: HashMap<&str, u64> = HashMap::new();
        let stages = self.plan.stages();
        for part in &stages.parts {
            for ports in &part.reads {
                let id = self.plan.nodes[ports.source].id.as_str();
                let Some(logged) = self.logs.get(id) else { continue };
                let need = self.plan.needs_of(stages.parts.iter(), ports, upto);
                let position = match logged.log.start_for(need) {
                    Ok(position) => position,
                    Err(error) => return tracing::warn!(%error, "the spool cannot be trimmed"),
                };
                needed.entry(id).and_modify(|first| *first = position.min(*first)).or_insert(position);
            }
        }
        for flow in &self.coming {
            for (ports, kept) in flow.part.reads.iter().zip(&flow.reads) {
                let Some(Kept::Log(_, from)) = kept else { continue };
                let id = flow.plan.nodes[ports.source].id.as_str();
                needed.entry(id).and_modify(|first| *first = (*from).min(*first)).or_insert(*from);
            }
        }
        for (id, position) in needed {
            if let Some(logged) = self.logs.get(id) {
                logged.log.trim(position);
            }
        }
    }

    /// Sources have been told to end. What they received goes through as far as it can without closing a window that
    /// is not over; the rest is in the spool, where the next run finds it.
    fn bring_to_a_stop(&mut self) {
        let activity = self.activity();
        let stop = self.stop.get_or_insert_with(|| Stop {
            since: Instant::now(),
            quiet: (activity, Instant::now()),
            parking: false,
        });
        if stop.quiet.0 != activity {
            stop.quiet = (activity, Instant::now());
        }
        let workers = self.workers;
        let ended = self.receiving.iter().all(|flow| flow.has_ended(workers));
        if ended {
            // Also those of sources that made room for others, which have not come or are gone.
            self.logs.values().for_each(|logged| logged.log.close());
        }
        let received = ended && self.logs.values().all(|logged| logged.log.has_ended());
        let read = self.computing.iter().all(|flow| flow.has_caught_up());
        let through = received && read && stop.quiet.1.elapsed() >= QUIET;
        let failed = self.shared.failure().is_some();
        let late = stop.since.elapsed() >= DRAIN;
        if !stop.parking
            && let Some(heard) = &self.heard
        {
            heard.set_stage(if through { Stage::Through } else { Stage::Running });
        }
        let others = |stage| self.heard.as_ref().is_none_or(|heard| heard.have_reached(stage));
        if !stop.parking && (through && others(Stage::Through) || late || failed && received) {
            stop.parking = true;
            stop.quiet.1 = Instant::now();
            if !through && !failed {
                tracing::warn!("not all that was received got through within {} s", DRAIN.as_secs());
            }
            self.computing.iter().for_each(|flow| flow.start_parking());
        }
        let parked = self.computing.iter().all(|flow| flow.has_parked(workers) || flow.has_ended(workers));
        // A failed sink does not answer. Counters stand still for a while more so that frontiers get around.
        let done = stop.parking && parked && stop.quiet.1.elapsed() >= QUIET;
        if done && let Some(heard) = &self.heard {
            heard.set_stage(Stage::Parked);
        }
        if done && others(Stage::Parked) || stop.parking && (failed || stop.since.elapsed() >= 2 * DRAIN) {
            self.note();
            self.leave_behind();
            self.shared.flows.park();
        }
    }

    /// Fails the run for what was received and is in no log: the disk takes it no more.
    fn leave_behind(&self) {
        for (id, logged) in self.logs.iter().filter(|(_, logged)| !logged.log.has_ended()) {
            let bytes = logged.log.counters().queued_bytes.load(Relaxed);
            if bytes == 0 {
                continue;
            }
            let lost = format!("{id}: the spool does not take what was received last: {bytes} bytes are lost");
            tracing::error!("{lost}");
            self.shared.fail(lost);
        }
    }

    /// Changes whenever a row moves.
    fn activity(&self) -> u64 {
        let nodes = self.computing.iter().flat_map(|flow| flow.metrics.nodes());
        nodes.map(|(_, _, m)| m.rows_in.load(Relaxed) + m.rows_out.load(Relaxed) + m.bytes.load(Relaxed)).sum()
    }

    /// Whether the workers run no more dataflows, or soon will not.
    fn flows(&self) -> &Flows {
        &self.shared.flows
    }
}

/// What dataflows that are built together have in common.
struct Building<'a> {
    plan: &'a Arc<Plan>,
    all: &'a [&'a Part],
    /// See [`Sources::enter`].
    group: u64,
    metrics: Arc<Metrics>,
    /// Those of the plan.
    tables: &'a [Arc<Table>],
}

/// Tells each stage which others its rows go on to; `more` besides, whoever they read.
fn follow(stages: &Stages, flows: &[Arc<Flow>], more: &[Arc<Flow>]) {
    let mut behind: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); flows.len()];
    for at in (0..flows.len()).rev() {
        for &from in &stages.upstream[at] {
            let further = behind[at].clone();
            behind[from].extend(further);
            behind[from].insert(at);
        }
    }
    for (flow, behind) in flows.iter().zip(behind) {
        flow.set_followers(behind.into_iter().map(|at| Arc::clone(&flows[at])).chain(more.iter().cloned()).collect());
    }
}

/// Where sinks note how far they are.
fn ledgers(plan: &Plan) -> PathBuf {
    plan.spool_dir().join("confirmed")
}

/// Processes on one machine may share the folder.
fn progress_path(plan: &Plan, place: Place) -> PathBuf {
    plan.spool_dir().join(match place.process {
        0 => "progress.json".to_owned(),
        process => format!("progress-{process}.json"),
    })
}

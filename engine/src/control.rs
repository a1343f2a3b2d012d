//! Directs a run while its workers work: opens logs, notes how far everything is, trims what nobody needs any more,
//! changes the pipeline, and brings a spooled run to a stop from which the next one goes on.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::batch::Time;
use crate::catalog::Table;
use crate::contract::{Running, SinkState};
use crate::dataflow::{Dataflow, Dataflows};
use crate::metrics::Metrics;
use crate::plan::{Island, LogPorts, Plan};
use crate::processes::{FIXED, Heard, Place};
use crate::progress;
use crate::reload::Outcome;
use crate::shared::Shared;
use crate::source_log::{LogInput, SourceLog};
use crate::spool::SpoolError;
use crate::time::Sources;

mod change;
mod folder;
mod reach;
mod stop;

pub(crate) use folder::look as look_at_folder;
use stop::Stop;

/// Loads the pipeline again. The error is what a user reads: every fault with its place.
pub type Loader = Box<dyn Fn() -> Result<Plan, String> + Send>;

/// How often the run is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// How often it is noted how far the run is, and logs are trimmed.
const NOTE: Duration = Duration::from_secs(1);

/// The sources that keep in step with each other, but for those of a change that is under way.
const RUNNING: u64 = 0;

/// What to do about a damaged note of that.
const ADVICE: &str = "it says from where on the spool is needed: put back a copy, or remove it, and the run reads all that the spool \
    has; what sinks have confirmed they do not write again";

/// How far a run is, for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// Every sink has confirmed what is before this message time (ms).
    upto: Time,
    /// Logs of which that is not so yet: they came with a change, and are needed from their beginning.
    #[serde(default)]
    behind: Vec<String>,
    /// By log: rows before this event time (ms) were not needed any more.
    #[serde(default)]
    needed: BTreeMap<String, Time>,
}

/// The state of a run that can be continued and changed.
pub(crate) struct Control {
    shared: Arc<Shared>,
    /// What the workers run.
    dataflows: Arc<Dataflows>,
    /// Workers of this process.
    workers: usize,
    place: Place,
    /// What is known of the other processes, if there are others.
    heard: Option<Arc<Heard>>,
    loader: Option<Loader>,
    plan: Arc<Plan>,
    /// By the source's id; those of this process.
    logs: HashMap<String, Arc<SourceLog>>,
    /// Live sources, each up to its log.
    receiving: Vec<Arc<Dataflow>>,
    /// The islands behind the logs.
    computing: Vec<Arc<Dataflow>>,
    /// Islands that are to take others' places: they may read their logs from far back.
    coming: Vec<Arc<Dataflow>>,
    /// Islands whose place others have, and whose sinks still write what is theirs.
    leaving: Vec<Arc<Dataflow>>,
    /// Where the sources of the islands are.
    sources: Arc<Sources>,
    /// How many changes there have been.
    changes: u64,
    progress: Progress,
    noted: Instant,
    stop: Option<Stop>,
}

/// What islands that are built together have in common.
struct Building<'a> {
    plan: &'a Arc<Plan>,
    metrics: Arc<Metrics>,
    /// The served tables of the plan.
    tables: &'a [Arc<Table>],
    /// See [`Sources::enter`].
    group: u64,
    /// Logs that came with a change are read from their beginning.
    new_logs: Vec<String>,
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
        (shared, dataflows): (&Arc<Shared>, &Arc<Dataflows>),
        loader: Option<Loader>,
    ) -> Result<Option<Self>, String> {
        let tables = shared.catalog.tables();
        if !plan.is_spooled() {
            let dataflow = Dataflow::new(Arc::clone(plan), plan.whole(), Arc::clone(&shared.metrics), &tables);
            dataflows.install(Arc::new(dataflow));
            dataflows.close();
            return Ok(None);
        }
        let mut control = Self {
            shared: Arc::clone(shared),
            dataflows: Arc::clone(dataflows),
            workers: place.threads,
            place,
            heard,
            loader,
            plan: Arc::clone(plan),
            logs: HashMap::new(),
            receiving: Vec::new(),
            computing: Vec::new(),
            coming: Vec::new(),
            leaving: Vec::new(),
            sources: Arc::default(),
            changes: 0,
            progress: progress::read(&progress_path(plan, place), ADVICE)?.unwrap_or_default(),
            noted: Instant::now(),
            stop: None,
        };
        // Whoever notes something later makes no folder: it would take the place of one that is gone.
        crate::files::make_dirs(&notes(plan)).map_err(|error| progress::cannot(&notes(plan), &error))?;
        let (receiving, computing) = plan.islands();
        for island in receiving {
            let dataflow = control.receive(plan, island, &tables).map_err(|error| error.to_string())?;
            control.receiving.push(Arc::new(dataflow));
        }
        control.open_kept_logs(plan, &computing).map_err(|error| error.to_string())?;
        for said in control.gaps(plan, &computing).into_iter().chain(control.missing(plan, &computing)) {
            tracing::warn!("{said}");
        }
        let building = Building {
            plan,
            metrics: Arc::clone(&shared.metrics),
            tables: &tables,
            group: RUNNING,
            new_logs: Vec::new(),
        };
        for island in computing {
            let dataflow = control.compute(&building, island).map_err(|error| error.to_string())?;
            control.computing.push(Arc::new(dataflow));
        }
        for dataflow in control.computing.iter().chain(&control.receiving) {
            dataflows.install(Arc::clone(dataflow));
        }
        Ok(Some(control))
    }

    /// The dataflow of a live source, up to its log.
    fn receive(&mut self, plan: &Arc<Plan>, island: Island, tables: &[Arc<Table>]) -> Result<Dataflow, SpoolError> {
        let mut writes = None;
        let own = |ports: &&LogPorts| self.place.owns(&plan.nodes[ports.source]);
        if let Some(ports) = island.writes.as_ref().filter(own) {
            let log = self.open_log(plan, ports)?;
            let resume = log.resume();
            writes = Some((log, resume));
        }
        let mut dataflow = Dataflow::new(Arc::clone(plan), island, Arc::clone(&self.shared.metrics), tables);
        dataflow.writes = writes;
        Ok(dataflow)
    }

    /// The log of a source, or of a durable node.
    fn open_log(&mut self, plan: &Plan, ports: &LogPorts) -> Result<Arc<SourceLog>, SpoolError> {
        let id = &plan.nodes[ports.source].id;
        if let Some(log) = self.logs.get(id) {
            return Ok(Arc::clone(log));
        }
        let log = SourceLog::open(plan, ports)?;
        self.shared.metrics.spool(id, log.log.counters());
        self.logs.insert(id.clone(), Arc::clone(&log));
        Ok(log)
    }

    /// Opens the logs of durable nodes, before anybody reads them.
    fn open_kept_logs(&mut self, plan: &Plan, islands: &[Island]) -> Result<(), SpoolError> {
        for ports in islands.iter().flat_map(|island| &island.keeps) {
            if self.place.owns(&plan.nodes[ports.source]) {
                self.open_log(plan, ports)?;
            }
        }
        Ok(())
    }

    /// The dataflow of an island, which reads its logs from as far back as what it still has to give needs.
    fn compute(&self, building: &Building<'_>, island: Island) -> Result<Dataflow, SpoolError> {
        let Building { plan, metrics, tables, group, new_logs } = building;
        let needs = plan.needs(&island, self.progress.upto);
        let mut logs = Vec::with_capacity(island.reads.len());
        for (ports, need) in island.reads.iter().zip(needs) {
            let id = &plan.nodes[ports.source].id;
            let Some(log) = self.logs.get(id) else {
                logs.push(None);
                continue;
            };
            let is_new = self.progress.upto == 0 || self.progress.behind.contains(id) || new_logs.contains(id);
            let from = if is_new { log.log.first() } else { log.log.start_for(need)? };
            logs.push(Some(LogInput::Log(Arc::clone(log), from)));
        }
        let kept = |ports: &LogPorts| self.logs.get(&plan.nodes[ports.source].id).cloned();
        let keeps = island.keeps.iter().map(kept).collect();
        let dataflow = Dataflow::new(Arc::clone(plan), island, Arc::clone(metrics), tables).reading(logs);
        let mut dataflow = dataflow.in_step(&self.sources, *group);
        (dataflow.notes, dataflow.complete_from, dataflow.keeps) = (Some(notes(plan)), self.progress.upto, keeps);
        Ok(dataflow)
    }

    /// The folders beneath the spool's that it needs.
    pub fn folders(&self) -> Vec<PathBuf> {
        let dir = self.plan.spool_dir();
        self.logs.keys().map(|id| dir.join(id)).chain([notes(&self.plan)]).collect()
    }

    /// The pipeline that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Looks at the run once; called every [`LOOK`] until the workers have ended.
    pub fn look(&mut self) {
        if self.shared.is_aborted() || self.dataflows.is_parked() {
            return;
        }
        self.see_off();
        let all = self.receiving.iter().chain(&self.computing).chain(&self.leaving);
        if all.clone().all(|dataflow| dataflow.has_ended(self.workers)) {
            self.dataflows.close();
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

    /// Ends the islands whose sinks have written all that was theirs.
    fn see_off(&mut self) {
        let workers = self.workers;
        self.leaving.retain(|dataflow| {
            if !dataflow.is_ending() && dataflow.all_sinks(workers, SinkState::has_finished) {
                dataflow.end();
            }
            !dataflow.has_ended(workers)
        });
    }

    /// All workers have ended, well and without having been told to. A run whose sources have all ended by themselves
    /// leaves nothing to go on with.
    pub fn finish(mut self) {
        if !self.logs.values().all(|log| log.is_complete()) {
            return;
        }
        let dir = self.plan.spool_dir();
        let mut gone: Vec<PathBuf> = self.logs.keys().map(|id| dir.join(id)).collect();
        gone.push(notes(&self.plan));
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
        self.computing.iter().chain(&self.leaving).map(|dataflow| dataflow.frontier()).min().unwrap_or(0)
    }

    /// Notes how far the run is, then lets go of what nobody needs any more.
    fn note(&mut self) {
        self.noted = Instant::now();
        // Such as those of a change that was refused.
        self.dataflows.forget(self.workers);
        if self.place.is_shared() && self.logs.is_empty() {
            // Those who have the logs say where the next run begins.
            return;
        }
        let upto = self.upto();
        // Asked after the frontier: what failed may have let time pass without its rows.
        if self.shared.failure().is_some() || upto <= self.progress.upto || upto == Time::MAX {
            return;
        }
        if self.note_progress(Progress { upto, behind: Vec::new(), needed: self.needed(upto) }).is_ok() {
            self.trim(upto);
            self.shared.references.forget_before(self.labelled_from(upto));
        }
    }

    /// No start, change or replay labels rows before this again, when all before `upto` is confirmed.
    fn labelled_from(&self, upto: Time) -> Time {
        let (_, computing) = self.plan.islands();
        let needs = computing.iter().flat_map(|island| self.plan.needs(island, upto));
        let derived = self.plan.nodes.iter().filter_map(|node| node.durable);
        let retain = self.plan.spool.iter().map(|spool| spool.retain).chain(derived).max().unwrap_or_default();
        let retain = Time::try_from(retain.as_millis()).unwrap_or(Time::MAX);
        needs.min().unwrap_or(upto).saturating_sub(retain)
    }

    /// Makes durable how far the run is.
    fn note_progress(&mut self, progress: Progress) -> Result<(), String> {
        let path = progress_path(&self.plan, self.place);
        match progress::write(&path, &progress) {
            Ok(()) => self.progress = progress,
            Err(error) => {
                // What is kept is more than is needed, until it can be noted again.
                let error = progress::cannot(&path, &error);
                tracing::warn!(error, "how far the run is cannot be noted");
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets go of what of the logs nobody needs from a time on.
    fn trim(&self, upto: Time) {
        let mut needed: BTreeMap<&str, u64> = BTreeMap::new();
        for (id, need) in self.needed(upto) {
            let Some((id, log)) = self.logs.get_key_value(&id) else { continue };
            match log.log.start_for(need) {
                Ok(position) => _ = needed.insert(id, position),
                Err(error) => return tracing::warn!(%error, "the spool cannot be trimmed"),
            }
        }
        for dataflow in &self.coming {
            for (id, input) in dataflow.logs().zip(&dataflow.reads) {
                let Some(LogInput::Log(_, from)) = input else { continue };
                needed.entry(id).and_modify(|first| *first = (*from).min(*first)).or_insert(*from);
            }
        }
        for (id, log) in &self.logs {
            let is_read = |one: &Arc<Dataflow>| one.logs().any(|read| read == id);
            match needed.get(id.as_str()) {
                Some(position) => log.log.trim(*position),
                // What nobody reads is kept as long as its age allows.
                None if !self.leaving.iter().any(is_read) => log.log.trim(log.log.end()),
                None => {}
            }
        }
    }
}

/// Where sinks note how far they are.
fn notes(plan: &Plan) -> PathBuf {
    plan.spool_dir().join("confirmed")
}

/// Processes on one machine may share the folder.
fn progress_path(plan: &Plan, place: Place) -> PathBuf {
    plan.spool_dir().join(match place.process {
        0 => "progress.json".to_owned(),
        process => format!("progress-{process}.json"),
    })
}

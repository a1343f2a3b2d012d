//! A pipeline again over what its live sources received: the islands behind the logs as dataflows that end, which read
//! the logs' files. Sources and what stands before the logs do not run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::Time;
use crate::dataflow::Dataflow;
use crate::plan::{Island, LogPorts, Plan};
use crate::run::Options;
use crate::shared::Shared;
use crate::source_log::LogInput;
use crate::spool::inspect::{self, Contents};
use crate::spool::{Archive, SpoolError};

/// What keeps a pipeline from being replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Live sources without a spool.
    #[error(
        "the pipeline keeps no spool: name the directory of one, or a recording for each of its live sources ({0})"
    )]
    NoSpool(String),
    /// A source of which nothing is kept.
    #[error(
        "the spool {} has no log of `{log}`; it has: {found} (of several processes each has the logs of its own sources)",
        .spool.display()
    )]
    NoLog {
        /// The source.
        log: String,
        /// The spool.
        spool: PathBuf,
        /// The logs that there are.
        found: String,
    },
    /// A log cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// What is replayed.
#[derive(Clone, Debug, Default)]
pub struct Of<'a> {
    /// The spool; by default the pipeline's own.
    pub spool: Option<&'a Path>,
    /// Sinks get the rows of this event time, in ns; rows before and after it are read as far as these depend on them. `None`
    /// is all.
    pub time: Option<Range<i64>>,
    /// Whether the logs of durable edges are read, too, and what they keep is not computed again for those behind them.
    pub durable: bool,
}

/// A replay that can be run.
pub struct Replay {
    /// What is run.
    pub dataflows: Vec<Dataflow>,
    /// The logs that are read, by the ids of their sources, with what each had at the start.
    pub logs: BTreeMap<String, Contents>,
    /// Nodes before the logs: what they have made is read, their options change nothing.
    pub recorded: Vec<String>,
    /// Nodes that work on what no log keeps, such as packets, and do not run.
    pub left_out: Vec<String>,
    /// Nodes that look back further than a log that they depend on, of which earlier rows have been deleted: what they give
    /// first is made from a part of the rows.
    pub in_part: Vec<String>,
    archives: Vec<(String, Arc<Archive>)>,
}

impl Replay {
    /// Prepares to run a plan over the logs in a spool, whose process may be running.
    ///
    /// # Errors
    /// If a log is missing or cannot be read.
    pub fn prepare(plan: &Arc<Plan>, shared: &Shared, of: &Of<'_>) -> Result<Self, ReplayError> {
        let Of { spool, time, durable } = of;
        let mut replay = Self {
            dataflows: Vec::new(),
            logs: BTreeMap::new(),
            recorded: Vec::new(),
            left_out: Vec::new(),
            in_part: Vec::new(),
            archives: Vec::new(),
        };
        let dataflow = |island: Island, logs: Vec<Option<LogInput>>| {
            let mut dataflow = Dataflow::new(Arc::clone(plan), island, Arc::clone(&shared.metrics), &[]).reading(logs);
            (dataflow.bounded, dataflow.only) = (true, time.clone());
            dataflow
        };
        if plan.is_bounded() {
            // Nothing is served, so no table is filled.
            replay.dataflows.push(dataflow(Island { tables: Vec::new(), ..plan.whole() }, Vec::new()));
            return Ok(replay);
        }
        let (receiving, computing) = plan.islands_with(*durable);
        let live = receiving.iter().filter_map(|island| island.nodes.first().map(|node| plan.nodes[*node].id.as_str()));
        let own = || plan.spool.is_some().then(|| plan.spool_dir());
        let Some(spool) = spool.map(Path::to_owned).or_else(own) else {
            return Err(ReplayError::NoSpool(live.collect::<Vec<_>>().join(", ")));
        };
        for island in &receiving {
            let kept = |node: &usize| {
                plan.nodes[*node].node.facts().is_live
                    || island.writes.iter().any(|log| log.ports.iter().any(|(kept, _)| kept == node))
            };
            for node in &island.nodes {
                let list = if kept(node) { &mut replay.recorded } else { &mut replay.left_out };
                list.push(plan.nodes[*node].id.clone());
            }
        }
        for island in computing.into_iter().filter(|island| !island.nodes.is_empty()) {
            let mut logs = Vec::with_capacity(island.reads.len());
            for (ports, range) in island.reads.iter().zip(ranges(plan, &island, time.as_ref())) {
                logs.push(Some(LogInput::Archive(replay.open(plan, &spool, ports, range)?)));
            }
            replay.note_in_part(plan, &island, time.as_ref());
            replay.dataflows.push(dataflow(Island { tables: Vec::new(), keeps: Vec::new(), ..island }, logs));
        }
        Ok(replay)
    }

    fn open(
        &mut self,
        plan: &Plan,
        spool: &Path,
        ports: &LogPorts,
        range: Range<i64>,
    ) -> Result<Arc<Archive>, ReplayError> {
        let id = &plan.nodes[ports.source].id;
        let dir = spool.join(id);
        if !dir.is_dir() {
            let found = inspect::logs(spool)?;
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            let found = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            return Err(ReplayError::NoLog { log: id.clone(), spool: spool.to_owned(), found });
        }
        if !self.logs.contains_key(id) {
            self.logs.insert(id.clone(), inspect::contents(&dir)?);
        }
        let archive = Archive::open(&dir, &plan.log_schemas(ports), range)?;
        self.archives.push((id.clone(), Arc::clone(&archive)));
        Ok(archive)
    }

    /// Notes the nodes of an island that look back to what its logs do not have any more.
    fn note_in_part(&mut self, plan: &Plan, island: &Island, time: Option<&Range<i64>>) {
        let of = |ports: &LogPorts| self.logs.get(&plan.nodes[ports.source].id).filter(|log| log.first > 0);
        let Some(oldest) = island.reads.iter().filter_map(of).filter_map(|log| log.oldest).max() else { return };
        let begin = time.map_or(oldest, |time| time.start.max(oldest));
        let begin = Time::try_from(begin / NS_PER_MS).unwrap_or(0);
        let whole_from = Time::try_from(oldest / NS_PER_MS).unwrap_or(0);
        let looks_back = |node: &&usize| begin.saturating_sub(plan.nodes[**node].look_back()) < whole_from;
        self.in_part.extend(island.nodes.iter().filter(looks_back).map(|node| plan.nodes[*node].id.clone()));
    }

    /// The options to run it with, and what can be asked afterwards.
    pub fn start(self, workers: usize) -> (Options, Missed) {
        (Options { workers, dataflows: Some(self.dataflows), ..Options::default() }, Missed(self.archives))
    }
}

/// What a replay passes over.
#[derive(Clone, Debug)]
pub struct Missed(Vec<(String, Arc<Archive>)>);

impl Missed {
    /// By log, how many records were passed over so far because they were damaged, deleted meanwhile or of another
    /// schema. Logs of which nothing is missed are left out.
    pub fn records(&self) -> BTreeMap<&str, u64> {
        let mut missed = BTreeMap::new();
        for (id, archive) in self.0.iter().filter(|(_, archive)| archive.missed() > 0) {
            let most: &mut u64 = missed.entry(id.as_str()).or_default();
            *most = archive.missed().max(*most);
        }
        missed
    }
}

/// Which event times of its logs an island needs, so that its rows of `time` are those of a run over everything.
fn ranges(plan: &Plan, island: &Island, time: Option<&Range<i64>>) -> Vec<Range<i64>> {
    let Some(time) = time else { return vec![i64::MIN..i64::MAX; island.reads.len()] };
    let needs = |ns: i64| plan.needs(island, Time::try_from(ns / NS_PER_MS).unwrap_or(0));
    let ns = |ms: Time| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(NS_PER_MS);
    let since = match time.start {
        i64::MIN => vec![i64::MIN; island.reads.len()],
        start => needs(start).into_iter().map(ns).collect(),
    };
    let until = match time.end {
        i64::MAX => vec![i64::MAX; island.reads.len()],
        // As far as a row looks back, one may look ahead.
        end => needs(end).into_iter().map(|back| end.saturating_add(end.saturating_sub(ns(back)))).collect(),
    };
    since.into_iter().zip(until).map(|(since, until)| since..until).collect()
}

const NS_PER_MS: i64 = 1_000_000;

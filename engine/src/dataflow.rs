//! The dataflows of a run. A pipeline is one dataflow, or, if what its live sources receive is kept in logs, several: one
//! for each live source, up to its log, and one for each island behind the logs. An island can be replaced while the run
//! goes on: another dataflow is built beside it from the same logs, and takes its place, sink by sink.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use parking_lot::{Mutex, RwLock};
use timely::scheduling::SyncActivator;

use crate::batch::Time;
use crate::catalog::Table;
use crate::contract::{Resume, Running, SinkState};
use crate::metrics::Metrics;
use crate::plan::{Island, Plan};
use crate::source_log::{LogInput, SourceLog};
use crate::time::{Backlog, Pace, Sources};

mod switch;

pub(crate) use switch::hand_over;

/// The dataflows that workers install, all in the same order.
#[derive(Debug, Default)]
pub struct Dataflows {
    /// A dataflow that has ended leaves its place empty.
    list: RwLock<Vec<Option<Arc<Dataflow>>>>,
    closed: AtomicBool,
    parked: AtomicBool,
}

impl Dataflows {
    /// Adds a dataflow; workers install it soon.
    pub fn install(&self, dataflow: Arc<Dataflow>) {
        self.list.write().push(Some(dataflow));
    }

    /// The dataflows from the `nth` on; a place is empty if its dataflow has ended everywhere.
    pub fn from(&self, nth: usize) -> Vec<Option<Arc<Dataflow>>> {
        self.list.read().iter().skip(nth).cloned().collect()
    }

    /// Lets go of dataflows that have ended on all workers.
    pub(crate) fn forget(&self, workers: usize) {
        for place in self.list.write().iter_mut() {
            if place.as_ref().is_some_and(|dataflow| dataflow.has_ended(workers)) {
                *place = None;
            }
        }
    }

    /// No more dataflows will be installed: workers end with the last of them.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// Whether [`Dataflows::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Workers drop all dataflows where they stand; what is in flight is in the logs.
    pub fn park(&self) {
        self.parked.store(true, SeqCst);
    }

    /// Whether [`Dataflows::park`] was called.
    pub fn is_parked(&self) -> bool {
        self.parked.load(SeqCst)
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// One dataflow, on all workers.
#[derive(Debug)]
pub struct Dataflow {
    /// The pipeline that it is of.
    pub plan: Arc<Plan>,
    /// Which nodes, logs and tables are in it.
    pub island: Island,
    /// Counters of its nodes.
    pub metrics: Arc<Metrics>,
    /// The served tables that it fills, in the order of the island.
    pub tables: Vec<Arc<Table>>,
    /// Where its sources are, among those that they keep in step with.
    pub sources: Pace,
    /// The log that it writes, and what the log knew of the source when it was opened. `None` in processes that do not
    /// own the log.
    pub writes: Option<(Arc<SourceLog>, Resume)>,
    /// The logs that it reads, in the order of the island; `None` for a log of another process.
    pub reads: Vec<Option<LogInput>>,
    /// The logs that keep its rows, in the order of the island; as `reads`.
    pub keeps: Vec<Option<Arc<SourceLog>>>,
    /// Its sinks get only rows of this time, in ns; see [`crate::batch::Batch::within`]. `None` is all.
    pub only: Option<Range<i64>>,
    /// Whether every source of it ends by itself.
    pub bounded: bool,
    /// What leaves its nodes at message times from this on is complete and right; before that it may lack rows.
    pub complete_from: Time,
    /// Where its sinks note how far they are, beneath the spool's folder; `None` if a run cannot be continued.
    pub notes: Option<PathBuf>,
    /// Rows that its sinks have taken and not confirmed: its sources wait while these are too many.
    pub held: Arc<Backlog>,
    /// Whose place it takes.
    pub(crate) predecessors: Mutex<Vec<Arc<Dataflow>>>,
    /// The logs that there were before the change which it is part of.
    pub(crate) known_logs: Vec<String>,
    pub(crate) sinks: Mutex<Vec<Arc<SinkState>>>,
    /// The run depends on it.
    in_charge: AtomicBool,
    /// Readers of logs that have not reached the end yet.
    behind: AtomicUsize,
    /// Its source has been opened.
    receiving: AtomicBool,
    frontier: AtomicU64,
    ending: AtomicBool,
    parking: AtomicBool,
    /// What went wrong in it while the run did not depend on it.
    failure: Mutex<Option<String>>,
    /// Workers that have built it, and those that have seen its end.
    built: AtomicUsize,
    ended: AtomicUsize,
    wakers: Mutex<Vec<SyncActivator>>,
}

impl Dataflow {
    /// A part of a plan, which fills some of the plan's `tables`. The run depends on it, and its sinks write everything.
    pub fn new(plan: Arc<Plan>, island: Island, metrics: Arc<Metrics>, tables: &[Arc<Table>]) -> Self {
        Self {
            sources: Arc::<Sources>::default().enter(NEXT.fetch_add(1, SeqCst), 0, sources_of(&plan, &island)),
            bounded: plan.is_bounded(),
            tables: island.tables.iter().filter_map(|at| tables.get(*at).cloned()).collect(),
            plan,
            island,
            metrics,
            writes: None,
            reads: Vec::new(),
            keeps: Vec::new(),
            only: None,
            complete_from: 0,
            notes: None,
            held: Arc::default(),
            predecessors: Mutex::default(),
            known_logs: Vec::new(),
            sinks: Mutex::default(),
            in_charge: AtomicBool::new(true),
            behind: AtomicUsize::new(0),
            receiving: AtomicBool::new(false),
            frontier: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            parking: AtomicBool::new(false),
            failure: Mutex::default(),
            built: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            wakers: Mutex::default(),
        }
    }

    /// Reads logs; `None` for a log of another process.
    pub fn reading(mut self, logs: Vec<Option<LogInput>>) -> Self {
        self.behind = AtomicUsize::new(logs.iter().flatten().count());
        self.reads = logs;
        self
    }

    /// Its sources keep in step with the others of a group.
    pub(crate) fn in_step(mut self, sources: &Arc<Sources>, group: u64) -> Self {
        let id = NEXT.fetch_add(1, SeqCst);
        self.sources = sources.enter(id, group, sources_of(&self.plan, &self.island));
        self
    }

    /// The run does not depend on it until [`Dataflow::take_charge`]: it is built to take the place of others, in a change
    /// before which there were the logs `known`.
    pub(crate) fn in_place_of(mut self, others: &[Arc<Dataflow>], known: &[String]) -> Self {
        self.in_charge = AtomicBool::new(false);
        (self.predecessors, self.known_logs) = (Mutex::new(others.to_vec()), known.to_vec());
        self
    }

    /// The run depends on it from now on.
    pub(crate) fn take_charge(&self) {
        self.in_charge.store(true, SeqCst);
    }

    /// Whether its source, in this process, has been opened.
    pub(crate) fn is_receiving(&self) -> bool {
        self.receiving.load(SeqCst)
    }

    /// Its sinks are to make durable what is complete, because the run ends.
    pub fn start_parking(&self) {
        self.parking.store(true, SeqCst);
        self.wake();
    }

    /// Everything before this time has left through the sinks and is kept there.
    pub fn frontier(&self) -> Time {
        self.frontier.load(SeqCst)
    }

    /// Notes how far a worker sees it.
    pub(crate) fn set_frontier(&self, time: Time) {
        self.frontier.store(time, SeqCst);
    }

    /// Whether the readers of logs have been at their end once.
    pub fn has_caught_up(&self) -> bool {
        self.behind.load(SeqCst) == 0
    }

    /// A reader has reached the end of its log for the first time.
    pub(crate) fn caught_up(&self) {
        self.behind.fetch_sub(1, SeqCst);
    }

    /// A worker has built it.
    pub(crate) fn built(&self) {
        self.built.fetch_add(1, SeqCst);
    }

    /// A worker has seen its end.
    pub(crate) fn ended(&self) {
        self.ended.fetch_add(1, SeqCst);
    }

    /// Whether it has ended on all of `workers` workers.
    pub fn has_ended(&self, workers: usize) -> bool {
        self.ended.load(SeqCst) >= workers
    }

    /// Whether it is built on all of `workers` workers, and all of its sinks are so.
    pub(crate) fn all_sinks(&self, workers: usize, are: impl Fn(&SinkState) -> bool) -> bool {
        self.built.load(SeqCst) >= workers && self.sinks.lock().iter().all(|sink| are(sink))
    }

    /// Has sinks and readers of logs look at what was decided.
    pub fn wake(&self) {
        for waker in self.wakers.lock().iter() {
            // A worker that has gone needs no waking.
            let _ = waker.activate();
        }
    }

    /// By origin: whether rows come from a log that is new. The first is of rows that come from several logs, or from none.
    pub(crate) fn new_logs(&self) -> Vec<bool> {
        let mut new: Vec<bool> = self.logs().map(|log| !self.known_logs.iter().any(|known| known == log)).collect();
        new.insert(0, !new.is_empty() && new.iter().all(|new| *new));
        new
    }

    /// The names of the logs that it reads.
    pub(crate) fn logs(&self) -> impl Iterator<Item = &str> {
        self.island.reads.iter().map(|log| self.plan.nodes[log.source].id.as_str())
    }

    /// The ids of its nodes.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.island.nodes.iter().map(|node| self.plan.nodes[*node].id.as_str())
    }
}

impl Running for Dataflow {
    fn read_logs(&self) -> Vec<(String, bool)> {
        let is_derived = |source: usize| self.plan.nodes[source].durable.is_some();
        self.logs().map(str::to_owned).zip(self.island.reads.iter().map(|log| is_derived(log.source))).collect()
    }

    fn known_logs(&self) -> Vec<String> {
        self.known_logs.clone()
    }

    fn resume(&self) -> Option<Resume> {
        self.writes.as_ref().map(|(_, resume)| resume.clone())
    }

    fn is_log_full(&self) -> bool {
        self.writes.as_ref().is_some_and(|(log, _)| log.log.must_wait())
    }

    fn has_opened_source(&self) {
        self.receiving.store(true, SeqCst);
    }

    fn pace(&self) -> &Pace {
        &self.sources
    }

    fn notes(&self) -> Option<PathBuf> {
        self.notes.clone()
    }

    fn versions(&self) -> Option<PathBuf> {
        self.plan.is_spooled().then(|| self.plan.spool_dir().join("versions"))
    }

    fn is_replay(&self) -> bool {
        self.reads.iter().flatten().any(|input| matches!(input, LogInput::Archive(_)))
    }

    fn received_before(&self) -> Time {
        let last = |input: &LogInput| match input {
            LogInput::Log(log, _) => log.log.last_watermark().saturating_add(1),
            LogInput::Archive(_) => Time::MAX,
        };
        self.reads.iter().flatten().map(last).max().unwrap_or(0)
    }

    fn held(&self) -> Arc<Backlog> {
        Arc::clone(&self.held)
    }

    fn is_in_charge(&self) -> bool {
        self.in_charge.load(SeqCst)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    fn is_parking(&self) -> bool {
        self.parking.load(SeqCst)
    }

    fn lets_go(&self) -> bool {
        self.notes.is_none() || self.is_ending()
    }

    fn end(&self) {
        self.ending.store(true, SeqCst);
        self.wake();
    }

    fn fail(&self, message: &str) -> bool {
        // Noted before it is asked who is in charge: who takes charge looks for failures after that.
        self.failure.lock().get_or_insert_with(|| message.to_owned());
        let spare = !self.is_in_charge();
        if !spare {
            self.failure.lock().take();
        }
        spare
    }

    fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    fn add_waker(&self, waker: SyncActivator) {
        self.wakers.lock().push(waker);
    }

    fn add_sink(&self, sink: Arc<SinkState>) {
        self.sinks.lock().push(sink);
    }

    fn earlier_sinks(&self) -> Vec<Arc<SinkState>> {
        self.predecessors.lock().iter().flat_map(|other| other.sinks.lock().clone()).collect()
    }
}

/// The ids of an island's sources: those among its nodes, and those whose logs it reads.
fn sources_of(plan: &Plan, island: &Island) -> Vec<String> {
    let own = island.nodes.iter().copied().filter(|node| plan.nodes[*node].inputs.is_empty());
    own.chain(island.reads.iter().map(|log| log.source)).map(|node| plan.nodes[node].id.clone()).collect()
}

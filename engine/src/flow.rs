//! The dataflows of a run. A pipeline is one dataflow, or, if what its live sources receive is kept in a spool, several:
//! one for each live source, up to its log, and one for each stage behind the logs (see [`crate::plan::Plan::stages`]),
//! which read each other through taps. A stage can be replaced while the run goes on: another dataflow is
//! built beside it, is given what it needs of the past by copies of those before it, and takes over at one tick.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use timely::dataflow::operators::probe::Handle;
use timely::scheduling::SyncActivator;

use crate::batch::Time;
use crate::catalog::Table;
use crate::logged::{Kept, Logged, Resume};
use crate::metrics::Metrics;
use crate::plan::{Part, Plan};
use crate::time::{Backlog, Pace, Sources};

mod gate;
mod outlet;
mod seam;

pub use gate::Gate;
pub use outlet::{Outlet, Turn};
pub(crate) use seam::Seam;
pub use seam::Stepper;

/// The dataflows that workers install, all in the same order.
#[derive(Debug, Default)]
pub struct Flows {
    /// A dataflow that has ended leaves its place empty.
    list: RwLock<Vec<Option<Arc<Flow>>>>,
    closed: AtomicBool,
    parked: AtomicBool,
}

impl Flows {
    /// Adds a dataflow; workers install it soon.
    pub fn install(&self, flow: Arc<Flow>) {
        self.list.write().unwrap_or_else(PoisonError::into_inner).push(Some(flow));
    }

    /// The dataflows from the `nth` on; a place is empty if its dataflow has ended everywhere.
    pub fn from(&self, nth: usize) -> Vec<Option<Arc<Flow>>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).iter().skip(nth).cloned().collect()
    }

    /// Lets go of dataflows that have ended on all workers.
    pub(crate) fn forget(&self, workers: usize) {
        for place in self.list.write().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if place.as_ref().is_some_and(|flow| flow.has_ended(workers)) {
                *place = None;
            }
        }
    }

    /// No more dataflows will be installed: workers end with the last of them.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// Whether [`Flows::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Workers drop all dataflows where they stand; what is in flight is in the spool.
    pub fn park(&self) {
        self.parked.store(true, SeqCst);
    }

    /// Whether [`Flows::park`] was called.
    pub fn is_parked(&self) -> bool {
        self.parked.load(SeqCst)
    }
}

/// Where a tap leads: to a dataflow of the same workers.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    /// The one that is read from the beginning; `None` if nothing of the past is needed.
    pub first: Option<u64>,
    /// The one that is read from the seam's boundary on.
    pub then: Option<(u64, Arc<Seam>)>,
}

impl Feed {
    /// From one dataflow alone.
    pub fn of(flow: &Flow) -> Self {
        Self { first: Some(flow.id), then: None }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// One dataflow.
#[derive(Debug)]
pub struct Flow {
    /// Tells it from all others.
    pub(crate) id: u64,
    /// The pipeline that it is of.
    pub plan: Arc<Plan>,
    /// Which nodes, logs and tables are in it.
    pub part: Part,
    /// Counters of its nodes.
    pub metrics: Arc<Metrics>,
    /// The served tables that it fills, in the order of the part.
    pub tables: Vec<Arc<Table>>,
    /// Where its sources are, among those that they keep in step with.
    pub sources: Pace,
    /// The log that it writes, and what the log knew of the source when it was opened. `None` in processes that do not
    /// own the log.
    pub writes: Option<(Arc<Logged>, Resume)>,
    /// The logs that it reads, in the order of the part; `None` for a log of another process.
    pub reads: Vec<Option<Kept>>,
    /// Whether others read its ports, and it those of others.
    pub(crate) is_stage: bool,
    /// Where its taps lead, in the order of the part.
    pub(crate) feeds: Vec<Feed>,
    /// Those that its rows go on to, however far down: its sources wait for them too.
    pub(crate) followers: Mutex<Vec<Arc<Flow>>>,
    pub(crate) stepping: Mutex<seam::Stepping>,
    /// Its sinks get only rows of this time, in ns; see [`crate::batch::Batch::within`]. `None` is all.
    pub only: Option<Range<i64>>,
    /// Whether every source of it ends by itself.
    pub bounded: bool,
    /// When its sinks write.
    pub gate: Gate,
    /// Whose place it takes.
    pub predecessors: Mutex<Vec<Arc<Flow>>>,
    /// Sinks note here how far they are, beneath the spool's folder; `None` if a run cannot be continued.
    pub ledgers: Option<std::path::PathBuf>,
    /// Readers of logs that have not reached the end yet.
    pub(crate) behind: AtomicUsize,
    /// Its source has been opened.
    pub(crate) receiving: AtomicBool,
    /// Rows that its sinks have taken and not confirmed: its sources wait while these are too many.
    pub held: Backlog,
    pub(crate) frontier: AtomicU64,
    pub(crate) ending: AtomicBool,
    pub(crate) parking: AtomicBool,
    /// What went wrong in it while nothing depended on it.
    pub(crate) failure: Mutex<Option<String>>,
    /// Workers that have it, and those among them that have seen its end.
    pub(crate) workers: [AtomicUsize; 2],
    /// Outlets, those that have opened what they write to, those that have written everything, those that have made
    /// durable what they have because the run ends, and those that were given all that they should write.
    pub(crate) outlets: [AtomicUsize; 5],
    /// Sinks that do not know yet whether they may write.
    pub(crate) unready: AtomicUsize,
    pub(crate) wakers: Mutex<Vec<SyncActivator>>,
}

impl Flow {
    /// A part of a plan, which fills some of the plan's `tables`. Without a gate its sinks write everything.
    pub fn new(plan: Arc<Plan>, part: Part, metrics: Arc<Metrics>, tables: &[Arc<Table>]) -> Self {
        let id = NEXT.fetch_add(1, SeqCst);
        Self {
            id,
            sources: Arc::<Sources>::default().enter(id, 0, sources_of(&plan, &part)),
            is_stage: false,
            feeds: Vec::new(),
            followers: Mutex::default(),
            stepping: Mutex::default(),
            bounded: plan.is_bounded(),
            tables: part.tables.iter().filter_map(|at| tables.get(*at).cloned()).collect(),
            plan,
            part,
            metrics,
            writes: None,
            reads: Vec::new(),
            only: None,
            gate: Gate::open(),
            predecessors: Mutex::default(),
            failure: Mutex::default(),
            ledgers: None,
            behind: AtomicUsize::new(0),
            receiving: AtomicBool::new(false),
            held: Backlog::default(),
            frontier: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            parking: AtomicBool::new(false),
            workers: Default::default(),
            outlets: Default::default(),
            unready: AtomicUsize::new(0),
            wakers: Mutex::default(),
        }
    }

    /// Reads logs, such as each from a position on; `None` for a log of another process.
    pub fn reading<L: Into<Kept>>(mut self, logs: Vec<Option<L>>) -> Self {
        self.behind = AtomicUsize::new(logs.iter().flatten().count());
        self.reads = logs.into_iter().map(|log| log.map(Into::into)).collect();
        self
    }

    /// Its sources keep in step with the others of a group.
    pub(crate) fn in_step(mut self, sources: &Arc<Sources>, group: u64) -> Self {
        self.sources = sources.enter(self.id, group, sources_of(&self.plan, &self.part));
        self
    }

    /// Its sources are to end; what is in it drains. For a dataflow whose sinks have written all that they should.
    pub fn end(&self) {
        self.ending.store(true, SeqCst);
        self.wake();
    }

    /// Whether [`Flow::end`] was called.
    pub fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    /// Whether a node that has failed lets time pass. Where a frontier says what is confirmed it must not, or the rows
    /// that it has taken would count as written; a dataflow that is given up ends all the same.
    pub fn lets_go(&self) -> bool {
        self.ledgers.is_none() || self.is_ending()
    }

    /// Whether its source, in this process, has been opened.
    pub(crate) fn is_receiving(&self) -> bool {
        self.receiving.load(SeqCst)
    }

    /// Whether it has taken over while its sinks wait for those before them: what they are given meanwhile piles up. Not
    /// as long as those before them lack a part of what they have to write.
    fn is_waiting(&self, workers: usize) -> bool {
        if self.gate.is_shut() {
            return false;
        }
        let others = lock(&self.predecessors);
        others.iter().any(|other| !other.has_finished(workers)) && others.iter().all(|other| other.was_given_all())
    }

    /// Whether sinks hold as much as they may: sources before them wait.
    pub(crate) fn is_held(&self, workers: usize) -> bool {
        let full = |flow: &Flow| flow.held.is_full() || flow.is_waiting(workers);
        full(self) || lock(&self.followers).iter().any(|other| full(other))
    }

    /// Whether this dataflow, of which `probe` is the end, and all that its rows go on to are past a time.
    pub(crate) fn is_past(&self, probe: &Handle<Time>, time: Time) -> bool {
        !probe.less_equal(&time) && lock(&self.followers).iter().all(|other| other.frontier() > time)
    }

    /// Those whose place it takes are done.
    pub(crate) fn forget_predecessors(&self) {
        lock(&self.predecessors).clear();
    }

    /// Its rows go on to these.
    pub(crate) fn set_followers(&self, flows: Vec<Arc<Self>>) {
        *lock(&self.followers) = flows;
    }

    /// Its sinks are to make durable what is complete, because the run ends.
    pub fn start_parking(&self) {
        self.parking.store(true, SeqCst);
        self.wake();
    }

    /// Whether [`Flow::start_parking`] was called.
    pub fn is_parking(&self) -> bool {
        self.parking.load(SeqCst)
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
        self.workers[0].fetch_add(1, SeqCst);
    }

    /// A worker has seen its end.
    pub(crate) fn ended(&self) {
        self.workers[1].fetch_add(1, SeqCst);
    }

    /// Whether it has ended on all of `workers` workers.
    pub fn has_ended(&self, workers: usize) -> bool {
        self.workers[1].load(SeqCst) >= workers
    }

    /// While it is built: a sink of it has to ask somebody whether it may write. Until it says [`Flow::ready`], or fails,
    /// this dataflow takes nobody's place.
    pub fn unready(&self) {
        self.unready.fetch_add(1, SeqCst);
    }

    /// One of those that said [`Flow::unready`] has its answer, or waits for it no longer.
    pub fn ready(&self) {
        self.unready.fetch_sub(1, SeqCst);
    }

    /// Whether it is built on all of `workers` workers, and no sink of it waits to know whether it may write.
    pub(crate) fn is_ready(&self, workers: usize) -> bool {
        self.workers[0].load(SeqCst) >= workers && self.unready.load(SeqCst) == 0
    }

    /// Whether every sink, on all of `workers` workers, has opened what it writes to.
    pub fn has_opened(&self, workers: usize) -> bool {
        self.workers[0].load(SeqCst) >= workers && self.outlets[1].load(SeqCst) >= self.outlets[0].load(SeqCst)
    }

    /// Whether every sink, on all of `workers` workers, has written all that it should.
    pub fn has_finished(&self, workers: usize) -> bool {
        self.workers[0].load(SeqCst) >= workers && self.outlets[2].load(SeqCst) >= self.outlets[0].load(SeqCst)
    }

    /// Whether every sink has been given all that it should write.
    fn was_given_all(&self) -> bool {
        self.outlets[4].load(SeqCst) >= self.outlets[0].load(SeqCst)
    }

    /// Whether every sink, on all of `workers` workers, has made durable what it has.
    pub fn has_parked(&self, workers: usize) -> bool {
        self.workers[0].load(SeqCst) >= workers && self.outlets[3].load(SeqCst) >= self.outlets[0].load(SeqCst)
    }

    /// Notes a failure while nothing depends on this dataflow yet. False if something does: then the run has failed.
    pub(crate) fn fail(&self, message: &str) -> bool {
        // Noted before the gate is looked at: who opens it looks for failures after that.
        lock(&self.failure).get_or_insert_with(|| message.to_owned());
        let spare = self.gate.is_shut();
        if !spare {
            lock(&self.failure).take();
        }
        spare
    }

    /// The first failure while nothing depended on it.
    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    /// Has an operator woken by [`Flow::wake`].
    pub(crate) fn add_waker(&self, waker: SyncActivator) {
        lock(&self.wakers).push(waker);
    }

    /// Has sinks and readers of logs look at what was decided.
    pub fn wake(&self) {
        for waker in lock(&self.wakers).iter() {
            // A worker that has gone needs no waking.
            let _ = waker.activate();
        }
    }
}

/// The ids of a part's sources: those among its nodes, and those whose logs it reads.
fn sources_of(plan: &Plan, part: &Part) -> Vec<String> {
    let own = part.nodes.iter().copied().filter(|node| plan.nodes[*node].inputs.is_empty());
    own.chain(part.reads.iter().map(|log| log.source)).map(|node| plan.nodes[node].id.clone()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

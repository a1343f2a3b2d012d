//! The dataflows of a run. A pipeline is one dataflow, or, if what its live sources receive is kept in a spool, several:
//! one for each live source, up to its log, and one for each island of nodes behind the logs. An island can be replaced
//! while the run goes on: another dataflow is built beside it, reads the logs from as far back as it needs, and takes
//! over at one tick.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use timely::scheduling::SyncActivator;

use crate::batch::Time;
use crate::catalog::Table;
use crate::logged::{Kept, Logged, Resume};
use crate::metrics::Metrics;
use crate::plan::{Part, Plan};
use crate::time::{Backlog, Sources};

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

/// One dataflow.
#[derive(Debug)]
pub struct Flow {
    /// The pipeline that it is of.
    pub plan: Arc<Plan>,
    /// Which nodes, logs and tables are in it.
    pub part: Part,
    /// Counters of its nodes.
    pub metrics: Arc<Metrics>,
    /// The served tables of the plan, in its order. Those of the part are filled by this dataflow.
    pub tables: Vec<Arc<Table>>,
    /// Where the sources of this dataflow are.
    pub sources: Sources,
    /// The log that it writes, and what the log knew of the source when it was opened. `None` in processes that do not
    /// own the log.
    pub writes: Option<(Arc<Logged>, Resume)>,
    /// The logs that it reads, in the order of the part; `None` for a log of another process.
    pub reads: Vec<Option<Kept>>,
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
    /// Outlets, those that have opened what they write to, those that have written everything, and those that have made
    /// durable what they have because the run ends.
    pub(crate) outlets: [AtomicUsize; 4],
    /// Sinks that do not know yet whether they may write.
    pub(crate) unready: AtomicUsize,
    pub(crate) wakers: Mutex<Vec<SyncActivator>>,
}

impl Flow {
    /// A part of a plan. Without `gate` its sinks write everything.
    pub fn new(plan: Arc<Plan>, part: Part, metrics: Arc<Metrics>, tables: Vec<Arc<Table>>) -> Self {
        let is_source = |node: &&usize| plan.nodes[**node].inputs.is_empty();
        let own = part.nodes.iter().filter(is_source).map(|node| plan.nodes[*node].id.clone());
        let logs = part.reads.iter().map(|log| plan.nodes[log.source].id.clone());
        Self {
            sources: Sources::new(own.chain(logs)),
            bounded: plan.is_bounded(),
            plan,
            part,
            metrics,
            tables,
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

    /// Whether it has taken over while its sinks wait for those before them: what they are given meanwhile piles up.
    pub(crate) fn is_waiting(&self, workers: usize) -> bool {
        !self.gate.is_shut() && lock(&self.predecessors).iter().any(|other| !other.has_finished(workers))
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

/// Which ticks the sinks of a dataflow write. Two dataflows share a boundary: one writes the ticks before it, the other
/// those from it on.
#[derive(Debug)]
pub struct Gate(Mutex<GateState>);

#[derive(Clone, Copy, Debug)]
struct GateState {
    /// Ticks before this have been decided on by some sink: no boundary can be before it any more.
    closed: Time,
    from: Time,
    until: Time,
}

impl Gate {
    /// Sinks write everything.
    pub fn open() -> Self {
        Self(Mutex::new(GateState { closed: 0, from: 0, until: Time::MAX }))
    }

    /// Sinks write nothing, until [`Gate::hand_over`] gives this gate its part.
    pub fn shut() -> Self {
        Self(Mutex::new(GateState { closed: 0, from: Time::MAX, until: Time::MAX }))
    }

    /// Ticks before `frontier` are complete: which ticks are written, now and up to now. Once said it stays.
    fn decide(&self, frontier: Time) -> Range<Time> {
        let mut state = self.lock();
        state.closed = state.closed.max(frontier);
        state.from..state.until
    }

    /// The latest tick before which sinks have decided.
    pub fn closed(&self) -> Time {
        self.lock().closed
    }

    /// From the returned tick on the sinks behind `new` write and those behind `old` do not: the first tick that none of
    /// them has decided on.
    pub fn hand_over(old: &[&Gate], new: &[&Gate]) -> Time {
        let mut old: Vec<_> = old.iter().map(|gate| gate.lock()).collect();
        let mut new: Vec<_> = new.iter().map(|gate| gate.lock()).collect();
        let boundary = old.iter().chain(&new).map(|state| state.closed).max().unwrap_or(0);
        old.iter_mut().for_each(|state| state.until = state.until.min(boundary));
        new.iter_mut().for_each(|state| state.from = boundary);
        boundary
    }

    /// Sinks write everything from now on, in nobody's place.
    pub(crate) fn unlock(&self) {
        self.lock().from = 0;
    }

    /// Whether nothing is written, so far.
    pub fn is_shut(&self) -> bool {
        self.lock().from == Time::MAX
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a sink has to do with ticks that are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Keep them: the dataflow whose place this one takes is still writing.
    Wait,
    /// Write those in the range, forget the others.
    Write(Range<Time>),
}

/// One worker's instance of a sink, as the run sees it.
#[derive(Debug)]
pub struct Outlet {
    flow: Arc<Flow>,
    pub(crate) workers: usize,
    /// What was said already; in the order of [`Flow`]'s counters.
    said: [bool; 4],
}

impl Outlet {
    pub(crate) fn new(flow: Arc<Flow>, workers: usize) -> Self {
        flow.outlets[0].fetch_add(1, SeqCst);
        Self { flow, workers, said: [false; 4] }
    }

    /// Whether what is written to may be opened: nobody else writes to it any more.
    pub fn may_open(&self) -> bool {
        if self.flow.gate.is_shut() {
            return false;
        }
        let mut others = lock(&self.flow.predecessors);
        // Let go, so that no chain of all that ever ran is kept.
        others.retain(|other| !other.has_finished(self.workers));
        others.is_empty()
    }

    /// What is written to is open.
    pub fn opened(&mut self) {
        self.say(1);
    }

    /// Asks what to do with the ticks before `frontier`, all of which are complete.
    pub fn turn(&mut self, frontier: Time) -> Turn {
        let range = self.flow.gate.decide(frontier);
        if range.start == Time::MAX || self.may_open() {
            return Turn::Write(range);
        }
        if self.is_parking() {
            // It has written nothing yet, and those before it may not be done before the end of the run.
            self.parked();
        }
        Turn::Wait
    }

    /// Whether the run ends, so that what is complete should be made durable now.
    pub fn is_parking(&self) -> bool {
        self.flow.is_parking()
    }

    /// Everything up to the end of the range is written and durable.
    pub fn finished(&mut self) {
        self.say(2);
    }

    /// What is complete has been made durable because the run ends.
    pub fn parked(&mut self) {
        self.say(3);
    }

    fn say(&mut self, what: usize) {
        if !self.said[what] {
            self.said[what] = true;
            self.flow.outlets[what].fetch_add(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_the_first_tick_that_neither_has_decided_on() {
        let (old, new) = (Gate::open(), Gate::shut());
        assert_eq!(old.decide(500), 0..Time::MAX);
        assert_eq!(new.decide(700), Time::MAX..Time::MAX);
        assert!(new.is_shut());
        assert_eq!(Gate::hand_over(&[&old], &[&new]), 700);
        assert_eq!((old.decide(900), new.decide(900)), (0..700, 700..Time::MAX));
    }
}

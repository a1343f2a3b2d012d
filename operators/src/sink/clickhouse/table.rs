//! The operator that hands one table's rows to its sender, and confirms what the server has taken.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use engine::batch::{Batch, Stream, Time};
use engine::catalog::Table;
use engine::flow::{Flow, Outlet, Turn};
use engine::ledger::{Confirmed, Ledger};
use engine::metrics::NodeMetrics;
use engine::render::BuildContext;
use engine::time::MAX_IN_FLIGHT;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::super::cuts::{Cut, Cuts};
use super::super::operator::{self, CLOSED, Step, Work};
use super::handed::{Handed, Shape};
use super::history::Reader;
use super::queue::{Bound, Next, Queue, Size};
use super::sender::{self, Job, Shared, Target};

/// Cuts that the sender has at a time before further ones wait, and may go together: one is on its way while the next is
/// encoded. Its inserts, of which a large cut has several, are bounded by `concurrency`.
const AT_A_TIME: usize = 2;

/// Builds the operator; the table belongs to worker `owner`. The stream's frontier is how far the server has confirmed.
pub(super) fn build<'s>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    runtime: Result<Handle, String>,
    target: Target,
    cuts: Cuts,
    owner: u64,
    live: bool,
) -> Stream<'s> {
    let name = target.name.clone();
    // One cut on its way and the next being gathered. In all processes: what is held is one count in all.
    context.flow.held.allow(held_rows(&cuts).saturating_mul(2));
    let keep = move |batch: &Batch| live || batch.settled && batch.diff > 0;
    operator::at_owner(context, input, (&name, owner), keep, |address| {
        Owner::new(context, &runtime?, target, cuts, address)
    })
}

/// Half of the rows that may be held: as [`engine::time::Backlog`] has it, never few.
fn held_rows(cuts: &Cuts) -> usize {
    cuts.max_rows().max(MAX_IN_FLIGHT / 2)
}

/// A table on the worker that owns it.
struct Owner {
    cuts: Cuts,
    layout: super::encode::Layout,
    /// Complete cuts that the sender does not have yet.
    queue: Queue,
    jobs: UnboundedSender<Job>,
    shared: Arc<Shared>,
    /// Jobs that are not done: up to where all is sent with them, and what they hold.
    waiting: VecDeque<(Time, Size)>,
    /// The most that cuts which wait have together to be one insert.
    most: Bound,
    done: u64,
    flow: Arc<Flow>,
    ledger: Option<Ledger>,
    handed: Handed,
    outlet: Outlet,
    opened: bool,
    /// Everything before this tick is confirmed, or not this table's to write.
    upto: Time,
    /// The last cut has been handed over.
    closed: bool,
    /// The served table that is read back from here.
    shown: Option<Arc<Table>>,
    metrics: Arc<NodeMetrics>,
}

impl Owner {
    fn new(
        context: &BuildContext<'_>,
        runtime: &Handle,
        mut target: Target,
        cuts: Cuts,
        address: Rc<[usize]>,
    ) -> Result<Self, String> {
        let shown = target.shown.take();
        if let (Some(shown), Some(stored)) = (&shown, &target.stored) {
            shown.keep(&target.name)?;
            shown.set_history(Arc::new(Reader(Arc::clone(stored))));
        }
        let (jobs, receiver) = unbounded_channel();
        let shared = Arc::new(Shared::default());
        let metrics = Arc::clone(&context.metrics);
        let waker = context.scope.worker().sync_activator_for(address.to_vec());
        let ledger = context.ledger(&target.name)?;
        let layout = target.layout.clone();
        let most = Bound { rows: cuts.max_rows(), bytes: target.max_bytes };
        let handed = Handed::new(Shape {
            until: 0,
            every: cuts.period(),
            rows: cuts.max_rows(),
            insert: (target.max_rows, target.max_bytes),
        });
        let (shared_too, metrics_too) = (Arc::clone(&shared), Arc::clone(&metrics));
        let successor = context.flow.gate.is_shut().then(|| Arc::clone(&context.flow));
        if let Some(flow) = &successor {
            flow.unready();
        }
        runtime.spawn(sender::run(target, receiver, successor, shared_too, metrics_too, waker));
        let mut work = Self {
            cuts,
            layout,
            queue: Queue::default(),
            jobs,
            shared,
            waiting: VecDeque::new(),
            most,
            done: 0,
            flow: Arc::clone(&context.flow),
            ledger,
            handed,
            outlet: context.outlet(address),
            opened: false,
            upto: 0,
            closed: false,
            shown,
            metrics,
        };
        if work.outlet.may_open() {
            work.open(0)?;
        }
        Ok(work)
    }

    /// Goes on behind what was confirmed; ticks before `from` are not written.
    fn open(&mut self, from: Time) -> Result<(), String> {
        if let Some(ledger) = &mut self.ledger {
            // Another run or another dataflow may have confirmed more since the ledger was read.
            ledger.refresh()?;
            self.upto = ledger.upto();
            if let Some(confirmed) = ledger.confirmed() {
                self.handed.resume(&confirmed.detail)?;
                self.cuts.as_before(self.handed.bounds());
            }
        }
        self.upto = self.upto.max(from);
        self.opened = true;
        self.skip(self.upto);
        self.confirm(self.upto)?;
        self.outlet.opened();
        Ok(())
    }

    /// Hands over the cuts that wait, as far as it is their turn.
    ///
    /// How rows are cut is noted before they are sent: a start after a crash, with whatever options, must cut those that are
    /// not confirmed at the same places, or they would be there twice. Without a place to note it every cut goes alone:
    /// then it depends on the rows only, and not on how fast the server is.
    fn hand_over(&mut self) -> Result<(), String> {
        let notes = self.ledger.is_some();
        while !notes || self.waiting.len() < AT_A_TIME {
            let most = if notes { self.most } else { Bound::default() };
            let Some(Next { cut, joined, size }) = self.queue.next(most, self.handed.fixed()) else { break };
            let upto = end(&cut);
            if !cut.batches.is_empty() && self.handed.reach(upto, joined) {
                self.write_note()?;
            }
            self.waiting.push_back((upto, size));
            // The sender ends early only with a failure, which `collect` finds.
            let _ =
                self.jobs.send(Job { first: cut.first, batches: cut.batches, limits: self.handed.limits(cut.first) });
        }
        Ok(())
    }

    /// Confirms what the server has taken. Whether the last attempt failed.
    fn collect(&mut self) -> Result<bool, String> {
        let (done, troubled) = {
            let mut state = self.shared.lock();
            if let Some(failure) = state.failure.take() {
                return Err(failure);
            }
            (state.done, state.troubled > 0)
        };
        let mut upto = self.upto;
        while self.done < done {
            let Some((end, size)) = self.waiting.pop_front() else { break };
            self.done += 1;
            self.flow.held.arrived(size.held);
            self.metrics.state_rows.fetch_sub(size.rows as i64, Relaxed);
            upto = upto.max(end);
        }
        if upto > self.upto {
            self.confirm(upto)?;
        }
        Ok(troubled)
    }

    /// Forgets ticks that are not written.
    fn skip(&mut self, before: Time) {
        let held = self.cuts.held();
        self.cuts.skip(before);
        self.metrics.state_rows.fetch_sub((held - self.cuts.held()) as i64, Relaxed);
    }

    /// The served table forgets what it has of the ticks before `upto`: they are read from the server from now on.
    fn commit(&self, upto: Time) {
        if let Some(shown) = &self.shown {
            shown.commit([], upto);
        }
    }

    fn confirm(&mut self, upto: Time) -> Result<(), String> {
        self.upto = self.upto.max(upto);
        self.handed.confirmed(self.upto);
        self.commit(self.upto);
        self.write_note()
    }

    fn write_note(&mut self) -> Result<(), String> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        ledger.confirm(Confirmed { upto: self.upto, detail: self.handed.detail(self.upto) })
    }
}

impl Work for Owner {
    fn take(&mut self, tick: Time, mut batches: Vec<Batch>) -> Result<(), String> {
        // What is taken back goes before what takes its place.
        batches.sort_by_key(|batch| batch.diff);
        for Batch { diff, rows, .. } in batches {
            if tick >= self.upto && rows.num_rows() > 0 {
                self.metrics.state_rows.fetch_add(rows.num_rows() as i64, Relaxed);
                let complete = self.layout.complete(tick, i64::from(diff), rows);
                self.cuts.push(tick, complete.map_err(|error| format!("rows do not fit: {error}"))?);
            }
        }
        Ok(())
    }

    fn advance(&mut self, frontier: Time) -> Result<Step, String> {
        if !self.opened
            && let Some(failure) = self.shared.lock().failure.take()
        {
            // A dataflow that is to take the place of another is given up before it does.
            return Err(failure);
        }
        let range = match self.outlet.turn(frontier) {
            Turn::Wait => return Ok(Step { hold: self.upto, again: true }),
            Turn::Write(range) => range,
        };
        if range.start == Time::MAX {
            // Another dataflow writes; so far this one only gets ready.
            self.skip(frontier);
            return Ok(Step { hold: frontier, again: false });
        }
        if !self.opened {
            self.open(range.start)?;
        }
        let ends = range.end < CLOSED && frontier >= range.end;
        let parks = self.outlet.is_parking() && frontier < CLOSED;
        if !self.closed {
            let cuts = match frontier {
                _ if ends => self.cuts.flush(range.end),
                CLOSED => self.cuts.close(None),
                // With a spool the next start cuts the rest where it would have been: part of a period, sent now and
                // not confirmed, would be sent again with what follows it, under another name.
                frontier if parks && self.ledger.is_none() => self.cuts.flush(frontier.max(self.upto)),
                frontier => self.cuts.close(Some(frontier)),
            };
            self.closed = ends || frontier == CLOSED;
            for cut in cuts {
                // Twice `max_bytes` count as much as all rows that may be held.
                let size = Size::of(&cut, Bound { rows: held_rows(&self.cuts), ..self.most });
                self.flow.held.sent(size.held);
                self.queue.push(cut, size);
            }
        }
        let troubled = self.collect()?;
        self.hand_over()?;
        let through = self.waiting.is_empty() && self.queue.is_empty();
        if ends && through {
            self.confirm(range.end)?;
            self.skip(Time::MAX);
            self.outlet.finished();
        }
        // A server that takes nothing must not keep the run from ending: what it has not confirmed is in the spool.
        if parks && (through || troubled) {
            self.outlet.parked();
        }
        if frontier == CLOSED && through {
            self.outlet.finished();
            self.outlet.parked();
            self.commit(CLOSED);
            return Ok(Step { hold: CLOSED, again: false });
        }
        let hold = if ends && through { frontier } else { self.upto.min(frontier) };
        Ok(Step { hold, again: !through })
    }
}

/// With this cut all rows of all ticks before are given.
pub(super) fn end(cut: &Cut) -> Time {
    if cut.upto == CLOSED { cut.last_end() } else { cut.upto }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let waiting: usize = self.waiting.iter().map(|(_, size)| size.held).sum();
        self.flow.held.arrived(waiting + self.queue.held());
    }
}

//! The sink that hands one table's rows to its sender, and knows what the server has taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use engine::batch::{Batch, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::NodeMetrics;
use engine::contract::SinkHandle;
use engine::contract::Table;
use engine::contract::{Backlog, MAX_IN_FLIGHT};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::super::cuts::{Cut, Cuts};
use super::history::Reader;
use super::insert_bounds::{InsertBounds, Shape};
use super::queue::{Bound, Next, Queue, Size};
use super::sender::{self, Job, Shared, Target};
use engine::contract::sink::{self, CLOSED, Sink, Then, Written};

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
    context.allow_held(held_rows(&cuts).saturating_mul(2));
    let keep = move |batch: &Batch| live || batch.settled && batch.diff > 0;
    sink::build(context, input, (&name, owner), keep, |address, handle| {
        Owner::new(context, handle, &runtime?, (target, cuts), &address)
    })
}

/// Half of the rows that may be held: as [`engine::contract::Backlog`] has it, never few.
fn held_rows(cuts: &Cuts) -> usize {
    cuts.max_rows().max(MAX_IN_FLIGHT / 2)
}

/// A table on the worker that owns it.
struct Owner {
    address: String,
    cuts: Cuts,
    layout: super::encode::Layout,
    /// Complete cuts that the sender does not have yet.
    queue: Queue,
    /// Cuts for the sender that wait until it is noted how they were made.
    prepared: VecDeque<Job>,
    jobs: UnboundedSender<Job>,
    shared: Arc<Shared>,
    /// Jobs that are not done: up to where all is sent with them, and what they hold.
    waiting: VecDeque<(Time, Size)>,
    /// The most that cuts which wait have together to be one insert.
    most: Bound,
    done: u64,
    held: Arc<Backlog>,
    /// Whether the run can be continued by another.
    is_noted: bool,
    bounds: InsertBounds,
    is_open: bool,
    /// Everything before this tick is confirmed, or not this table's to write.
    upto: Time,
    /// The last cut has been made.
    closed: bool,
    /// The served table that is read back from here.
    shown: Option<Arc<Table>>,
    metrics: Arc<NodeMetrics>,
}

impl Owner {
    fn new(
        context: &BuildContext<'_>,
        handle: &SinkHandle,
        runtime: &Handle,
        (mut target, cuts): (Target, Cuts),
        address: &[usize],
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
        let layout = target.layout.clone();
        let most = Bound { rows: cuts.max_rows(), bytes: target.max_bytes };
        let bounds = InsertBounds::new(Shape {
            until: 0,
            every: cuts.period(),
            rows: cuts.max_rows(),
            insert: (target.max_rows, target.max_bytes),
        });
        let address = format!("{} {}.{}", target.address.url, target.database, target.table);
        let (shared_too, metrics_too) = (Arc::clone(&shared), Arc::clone(&metrics));
        let asking = handle.is_preparing().then(|| handle.asks());
        runtime.spawn(sender::run(target, receiver, asking, shared_too, metrics_too, waker));
        Ok(Self {
            address,
            cuts,
            layout,
            queue: Queue::default(),
            prepared: VecDeque::new(),
            jobs,
            shared,
            waiting: VecDeque::new(),
            most,
            done: 0,
            held: handle.held(),
            is_noted: handle.is_noted(),
            bounds,
            is_open: false,
            upto: 0,
            closed: false,
            shown,
            metrics,
        })
    }

    /// Makes jobs of the cuts that wait, as far as it is their turn.
    ///
    /// How rows are cut is noted before they are sent: a start after a crash, with whatever options, must cut those that are
    /// not confirmed at the same places, or they would be there twice. Without a place to note it every cut goes alone:
    /// then it depends on the rows only, and not on how fast the server is.
    fn prepare(&mut self) {
        while !self.is_noted || self.waiting.len() < AT_A_TIME {
            let most = if self.is_noted { self.most } else { Bound::default() };
            let Some(Next { cut, joined, size }) = self.queue.next(most, self.bounds.fixed()) else { break };
            let upto = end(&cut);
            let must_note = !cut.batches.is_empty() && self.bounds.reach(upto, joined) && self.is_noted;
            self.waiting.push_back((upto, size));
            let limits = self.bounds.limits(cut.first);
            self.prepared.push_back(Job { first: cut.first, batches: cut.batches, limits });
            if !must_note && self.prepared.len() == 1 {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        for job in self.prepared.drain(..) {
            // The sender ends early only with a failure, which `collect` finds.
            let _ = self.jobs.send(job);
        }
    }

    /// Takes in what the server has confirmed. Whether the last attempt failed.
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
            self.held.arrived(size.held);
            self.metrics.state_rows.fetch_sub(size.rows as i64, Relaxed);
            upto = upto.max(end);
        }
        if upto > self.upto {
            self.upto = upto;
            self.bounds.confirmed(upto);
            self.commit(upto);
        }
        Ok(troubled)
    }

    /// The served table forgets what it has of the ticks before `upto`: they are read from the server from now on.
    fn commit(&self, upto: Time) {
        if let Some(shown) = &self.shown {
            shown.commit([], upto);
        }
    }
}

impl Sink for Owner {
    fn target(&self) -> String {
        self.address.clone()
    }

    fn writes_changes(&self) -> bool {
        self.layout.is_ordered()
    }

    /// A dataflow that is to take the place of another is given up before it does.
    fn check(&mut self) -> Result<(), String> {
        self.shared.lock().failure.take().map_or(Ok(()), Err)
    }

    fn open(&mut self, from: Time, detail: &Value) -> Result<(), String> {
        if !self.is_open {
            self.bounds.resume(detail)?;
            self.cuts.as_before(self.bounds.bounds());
        }
        (self.is_open, self.upto) = (true, from);
        self.cuts.skip(from);
        self.bounds.confirmed(from);
        self.commit(from);
        Ok(())
    }

    fn write(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
        let rows = self.layout.adapted(batch.rows).map_err(|error| format!("rows do not fit: {error}"))?;
        self.metrics.state_rows.fetch_add(rows.num_rows() as i64, Relaxed);
        let complete = self.layout.complete(tick, i64::from(batch.diff), rows);
        self.cuts.push(tick, complete.map_err(|error| format!("rows do not fit: {error}"))?);
        Ok(())
    }

    fn flush(&mut self, upto: Time, then: Then) -> Result<(), String> {
        if self.closed {
            return Ok(());
        }
        let cuts = match then {
            _ if upto == CLOSED => self.cuts.close(None),
            Then::Another => self.cuts.flush(upto),
            // With a note the next start cuts the rest where it would have been: part of a period, sent now and not
            // confirmed, would be sent again with what follows it, under another name.
            Then::Stop if !self.is_noted => self.cuts.flush(upto.max(self.upto)),
            _ => self.cuts.close(Some(upto)),
        };
        self.closed = upto == CLOSED || then == Then::Another;
        for cut in cuts {
            // Twice `max_bytes` count as much as all rows that may be held.
            let size = Size::of(&cut, Bound { rows: held_rows(&self.cuts), ..self.most });
            self.held.sent(size.held);
            self.queue.push(cut, size);
        }
        Ok(())
    }

    fn written(&mut self) -> Result<Written, String> {
        let is_stalled = self.collect()?;
        self.prepare();
        let is_idle = self.waiting.is_empty() && self.queue.is_empty();
        if is_idle && self.closed {
            self.commit(CLOSED);
        }
        Ok(Written { upto: self.upto, detail: self.bounds.detail(self.upto), is_idle, is_stalled, goes_on: false })
    }

    fn noted(&mut self) -> Result<(), String> {
        self.send();
        Ok(())
    }
}

/// With this cut all rows of all ticks before are given.
pub(super) fn end(cut: &Cut) -> Time {
    if cut.upto == CLOSED { cut.last_end() } else { cut.upto }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let waiting: usize = self.waiting.iter().map(|(_, size)| size.held).sum();
        self.held.arrived(waiting + self.queue.held());
    }
}

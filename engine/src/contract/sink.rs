//! What all sinks have in common: rows come to the worker that writes, wait until their tick is complete, are written,
//! and time passes as far as they are confirmed. A sink that takes another's place first waits until that is done.

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::scheduling::Activator;

use super::build_context::BuildContext;
use super::exchange::{arrivals, kept};
use super::here::Here;
use super::sink_handle::SinkHandle;
use crate::batch::{Batch, Stream, Time};

mod writer;

use writer::{Step, Writer};

/// How soon a sink that waits, for another writer or for what it writes to, looks again.
const PATIENCE: Duration = Duration::from_millis(20);

/// The end of all input.
pub const CLOSED: Time = Time::MAX;

/// What a sink does with rows.
pub trait Sink {
    /// What it writes to, so that two sinks that write to the same are known.
    fn target(&self) -> String;

    /// Before it is its turn: whether it can write at all.
    ///
    /// # Errors
    /// If it cannot; then it never gets its turn.
    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Opens what it writes to, once. No row of a tick before `from` will come; `detail` is what was noted last, or null.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn open(&mut self, from: Time, detail: &Value) -> Result<(), String>;

    /// Takes rows of a tick. Ticks come in order, unless the sink writes [at once](Sink::writes_at_once).
    ///
    /// # Errors
    /// If the rows cannot be taken. As after any error, the run ends, and the sink is dropped.
    fn write(&mut self, tick: Time, batch: Batch) -> Result<(), String>;

    /// Every row of the ticks before `upto` was given.
    ///
    /// # Errors
    /// If they cannot be written.
    fn flush(&mut self, upto: Time, then: Then) -> Result<(), String>;

    /// How far it is.
    ///
    /// # Errors
    /// If that cannot be made durable.
    fn written(&mut self) -> Result<Written, String>;

    /// What [`Sink::written`] said last has been noted, durably.
    ///
    /// # Errors
    /// If what waited for that fails.
    fn noted(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Whether rows are written when they come and not when their tick is complete.
    fn writes_at_once(&self) -> bool {
        false
    }

    /// Whether it writes rows that may change, so that its changes must add up.
    fn writes_changes(&self) -> bool {
        false
    }
}

/// What follows the rows that a sink was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More rows.
    More,
    /// The end of the run: what is complete should be made durable. The next run goes on.
    Stop,
    /// Another sink writes what follows.
    Another,
    /// Nothing: all input has ended.
    Nothing,
}

/// How far a sink is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// Every row of a tick before this is durable.
    pub upto: Time,
    /// What it needs besides to go on there.
    pub detail: Value,
    /// Nothing that it was given is on its way.
    pub is_idle: bool,
    /// What it writes to takes nothing: it must not keep the run from ending.
    pub is_stalled: bool,
    /// It goes on as soon as this is noted.
    pub goes_on: bool,
}

/// Builds a sink all of whose rows that are to be `keep`t go to worker `owner`, which makes it with the address of the
/// operator. The stream's frontier is how far they are confirmed.
pub fn build<'s, S: Sink + 'static>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    (name, owner): (&str, u64),
    keep: impl Fn(&Batch) -> bool + 'static,
    make: impl FnOnce(Rc<[usize]>, &SinkHandle) -> Result<S, String>,
) -> Stream<'s> {
    let kept = kept(input, context, keep);
    let is_owner = context.worker as u64 == owner;
    let (fail, arrived) = (context.failure(), arrivals(context));
    let exchange = Exchange::new(move |_: &Batch| owner);
    kept.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(exchange, name, move |capability, info| {
        let activator = context.scope.activator_for(info.address.clone());
        // Also if there is no sink because it failed: what is behind this frontier counts as confirmed.
        let held = is_owner.then_some(capability);
        let lets_go = context.lets_go();
        let made = is_owner.then(|| {
            let handle = context.sink(name, info.address.clone())?;
            let sink = make(info.address, &handle)?;
            Writer::new(sink, handle)
        });
        let writer = made.and_then(|made| made.map_err(&fail).ok());
        let mut operator = SinkOperator { writer, held, activator, fail, lets_go };
        let here = Here::new(name);
        move |(input, frontier), _output| {
            let _here = here.enter();
            let mut taken = Ok(());
            input.for_each_stamp(|time, data| {
                let tick = time.least().copied().unwrap_or_default();
                let batches = data.inspect(|batches| arrived(batches)).flat_map(|batches| batches.drain(..));
                for batch in batches {
                    if taken.is_ok() {
                        taken = operator.take(tick, batch);
                    }
                }
            });
            operator.advance(taken, frontier.frontier().first().copied().unwrap_or(CLOSED));
        }
    })
}

/// The operator of a sink on one worker.
struct SinkOperator<S, F, L> {
    /// Only on the worker that owns the sink, and until it fails.
    writer: Option<Writer<S>>,
    /// Holds time back until rows are confirmed; as `writer`, but kept after a failure for as long as that must show.
    held: Option<Capability<Time>>,
    activator: Activator,
    fail: F,
    /// Whether a sink that has failed lets time pass.
    lets_go: L,
}

impl<S: Sink, F: Fn(String), L: Fn() -> bool> SinkOperator<S, F, L> {
    /// Takes rows of a tick.
    fn take(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
        match &mut self.writer {
            Some(writer) => writer.take(tick, batch),
            None => Ok(()),
        }
    }

    /// Writes what is complete at `frontier`, unless rows could not be `taken`, and lets time pass as far as it is confirmed.
    fn advance(&mut self, taken: Result<(), String>, frontier: Time) {
        let writer = self.writer.as_mut();
        match taken.and_then(|()| writer.map(|writer| writer.advance(frontier)).transpose()) {
            Ok(Some(step)) => self.follow(&step),
            Ok(None) => {}
            Err(message) => {
                (self.fail)(message);
                self.writer = None;
            }
        }
        if self.writer.is_none() && self.held.is_some() {
            if (self.lets_go)() {
                self.held = None;
            } else {
                // Nothing else wakes it once its input has ended.
                self.activator.activate_after(PATIENCE);
            }
        }
    }

    /// Does what the writer says is next.
    fn follow(&mut self, Step { hold, again }: &Step) {
        if let Some(held) = self.held.as_mut().filter(|held| held.time() < hold) {
            held.downgrade(hold);
        }
        // One whose turn has not come yet still has something to open when it has.
        if *hold == CLOSED && self.writer.as_ref().is_none_or(Writer::is_over) {
            self.held = None;
        }
        if *again {
            self.activator.activate_after(PATIENCE);
        }
    }
}

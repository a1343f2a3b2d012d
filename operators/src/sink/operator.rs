//! The operator around what a sink writes: rows go to it, and time passes as far as it has confirmed them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::batch::{Batch, Stream, Time};
use engine::render::BuildContext;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, ParallelizationContract, Pipeline};
use timely::dataflow::operators::generic::operator::Operator as _;

use crate::exchange::{arrivals, kept};

/// How soon a sink that waits, for another writer or for what it writes to, looks again.
const PATIENCE: Duration = Duration::from_millis(20);

/// The end of all input.
pub(super) const CLOSED: Time = Time::MAX;

/// What a sink does next.
pub(super) struct Step {
    /// All that this worker has to write before this time is confirmed: nothing more is to come from here.
    pub hold: Time,
    /// It must look again, also if nothing arrives.
    pub again: bool,
}

/// What one worker does for a sink.
pub(super) trait Work {
    /// Takes rows of a tick, in the order in which they came.
    ///
    /// # Errors
    /// If nothing may be confirmed any more because of them. As after an error of `advance`, the run ends, and this is
    /// dropped.
    fn take(&mut self, tick: Time, batches: Vec<Batch>) -> Result<(), String>;

    /// Every tick before `frontier` is complete.
    ///
    /// # Errors
    /// If what is complete cannot be written or confirmed.
    fn advance(&mut self, frontier: Time) -> Result<Step, String>;
}

/// Builds a sink all of whose rows that are to be `keep`t go to worker `owner`, which makes its work with the address
/// of the operator. The stream's frontier is how far they are confirmed.
pub(super) fn at_owner<'s, W: Work + 'static>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    (name, owner): (&str, u64),
    keep: impl Fn(&Batch) -> bool + 'static,
    make: impl FnOnce(Rc<[usize]>) -> Result<W, String>,
) -> Stream<'s> {
    let kept = kept(input, context, keep);
    let make = (context.worker as u64 == owner).then_some(make);
    build(context, kept, Exchange::new(move |_: &Batch| owner), name, arrivals(context), make)
}

/// Builds a sink to which every worker brings its own rows; as [`at_owner`].
pub(super) fn everywhere<'s, W: Work + 'static>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    make: impl FnOnce(Rc<[usize]>) -> Result<W, String>,
) -> Stream<'s> {
    build(context, input, Pipeline, &context.id, |_| {}, Some(make))
}

fn build<'s, W, P, F>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    pact: P,
    name: &str,
    arrived: impl Fn(&[Batch]) + 'static,
    make: Option<F>,
) -> Stream<'s>
where
    W: Work + 'static,
    P: ParallelizationContract<Time, Vec<Batch>>,
    F: FnOnce(Rc<[usize]>) -> Result<W, String>,
{
    let (fail, flow) = (context.failure(), Arc::clone(&context.flow));
    input.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(pact, name, move |capability, info| {
        let activator = context.scope.activator_for(info.address.clone());
        // Also if there is no work because it failed: what is behind this frontier counts as confirmed.
        let mut held = make.is_some().then_some(capability);
        let mut work = make.and_then(|make| make(info.address).map_err(&fail).ok());
        move |(input, frontier), _output| {
            let mut step = Ok(None);
            input.for_each_stamp(|time, data| {
                let tick = time.least().copied().unwrap_or_default();
                let batches: Vec<Batch> =
                    data.inspect(|batches| arrived(batches)).flat_map(|batches| batches.drain(..)).collect();
                if let Some(work) = work.as_mut().filter(|_| step.is_ok())
                    && let Err(message) = work.take(tick, batches)
                {
                    step = Err(message);
                }
            });
            let frontier = frontier.frontier().first().copied().unwrap_or(CLOSED);
            if let Some(work) = &mut work {
                step = step.and_then(|_| work.advance(frontier).map(Some));
            }
            match step {
                Ok(Some(Step { hold, again })) => {
                    if let Some(held) = held.as_mut().filter(|held| *held.time() < hold) {
                        held.downgrade(&hold);
                    }
                    // One that is not in charge yet still has something to open when it is.
                    if hold == CLOSED && (!flow.gate.is_shut() || flow.is_ending()) {
                        held = None;
                    }
                    if again {
                        activator.activate_after(PATIENCE);
                    }
                }
                Ok(None) => {}
                Err(message) => {
                    fail(message);
                    work = None;
                }
            }
            if work.is_none() && held.is_some() {
                if flow.lets_go() {
                    held = None;
                } else {
                    // Nothing else wakes it once its input has ended.
                    activator.activate_after(PATIENCE);
                }
            }
        }
    })
}

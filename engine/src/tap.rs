//! What passes from one dataflow to another on the same worker.
//!
//! `tap` ends a stage's output, `read` is a source of the stages behind it. Batches pass as they are, at their message times,
//! and so does how far time is. A stage that is built while the run goes on first reads copies of those before it, and then
//! those that go on, from the boundary of its [`Seam`] on.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::{self, Arc};

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::scheduling::Activator;

use crate::batch::{Batch, Stream, Time};
use crate::flow::{Feed, Flow, Seam};
use crate::render::BuildContext;

/// The end of all time.
const CLOSED: Time = Time::MAX;

/// The taps of one worker, by dataflow. They stay after its end, for those who read it in a later change.
#[derive(Default)]
pub(crate) struct Taps(HashMap<u64, (sync::Weak<Flow>, Ports)>);

/// By node and output port.
type Ports = HashMap<(String, usize), Rc<RefCell<Tap>>>;

impl Taps {
    /// Forgets what led out of a dataflow that nobody will read again.
    pub fn forget(&mut self, flow: &Flow) {
        self.0.remove(&flow.id);
    }

    fn find(&self, flow: u64, node: &str, port: usize) -> Option<Rc<RefCell<Tap>>> {
        self.0.get(&flow)?.1.get(&(node.to_owned(), port)).cloned()
    }
}

/// A port, as those who read it see it.
#[derive(Default)]
struct Tap {
    /// Everything before this was given.
    passed: Time,
    /// The latest time of a row that was given.
    latest: Time,
    queues: Vec<Weak<RefCell<Queue>>>,
}

/// What was given to one reader and not taken yet.
struct Queue {
    batches: VecDeque<(Time, Batch)>,
    passed: Time,
    activator: Activator,
}

impl Tap {
    /// A queue for all that comes from now on, from which time on that is everything, and the time of the latest row before.
    fn listen(&mut self, activator: Activator) -> (Rc<RefCell<Queue>>, [Time; 2]) {
        let queue = Queue { batches: VecDeque::new(), passed: self.passed, activator };
        let queue = Rc::new(RefCell::new(queue));
        self.queues.push(Rc::downgrade(&queue));
        (queue, [self.passed.max(self.latest.saturating_add(1)), self.latest])
    }

    fn give(&mut self, arrived: &mut Vec<(Time, Batch)>, passed: Time) {
        self.latest = arrived.iter().map(|(time, _)| *time).fold(self.latest, Time::max);
        let moved = passed > self.passed;
        self.passed = self.passed.max(passed);
        if arrived.is_empty() && !moved {
            return;
        }
        self.queues.retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            let mut queue = queue.borrow_mut();
            queue.batches.extend(arrived.iter().cloned());
            queue.passed = passed.max(queue.passed);
            queue.activator.activate();
            true
        });
        arrived.clear();
    }
}

/// Lets other dataflows read a port of this one. The stream's frontier is how far they have been given it.
pub(crate) fn tap<'s>(
    stream: Stream<'s>,
    taps: &RefCell<Taps>,
    flow: &Arc<Flow>,
    (node, port): (&str, usize),
) -> Stream<'s> {
    let tap = Rc::new(RefCell::new(Tap::default()));
    let all = &mut taps.borrow_mut().0;
    // Of those that ended by themselves and that no plan has any more.
    all.retain(|_, (flow, _)| flow.strong_count() > 0);
    let (_, ports) = all.entry(flow.id).or_insert_with(|| (Arc::downgrade(flow), Ports::default()));
    ports.insert((node.to_owned(), port), Rc::clone(&tap));
    stream.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "tap", move |capability, _| {
        drop(capability);
        let mut arrived: Vec<(Time, Batch)> = Vec::new();
        move |(input, frontier), _output| {
            input.for_each_stamp(|stamp, data| {
                let time = stamp.least().copied().unwrap_or_default();
                arrived.extend(data.flat_map(|batches| batches.drain(..)).map(|batch| (time, batch)));
            });
            tap.borrow_mut().give(&mut arrived, frontier.frontier().first().copied().unwrap_or(CLOSED));
        }
    })
}

/// Which port is read, and where it is.
pub(crate) struct Port<'p> {
    pub node: &'p str,
    pub port: usize,
    pub feed: &'p Feed,
}

/// A source: what is given at a tap of another dataflow of this worker, or of one after the other.
pub(crate) fn read<'s>(context: &BuildContext<'s>, taps: &RefCell<Taps>, from: &Port<'_>) -> Stream<'s> {
    let mut builder = OperatorBuilder::new(format!("{} of {}", from.port, from.node), context.scope);
    let address = builder.operator_info().address;
    let (output, stream) = builder.new_output::<Vec<Batch>>();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Batch>>>::from(output);
    // Woken when the dataflow is to end, and when there is something to know of the seam.
    context.flow.add_waker(context.scope.worker().sync_activator_for(address.to_vec()));
    let activator = || context.scope.activator_for(address.clone());
    let find = |flow: u64| taps.borrow().find(flow, from.node, from.port);
    let first = from.feed.first.and_then(find).map(|tap| tap.borrow_mut().listen(activator()).0);
    let missing = from.feed.first.is_some() && first.is_none()
        || from.feed.then.as_ref().is_some_and(|(flow, _)| find(*flow).is_none());
    if missing {
        // A defect; without an error it would read as an end.
        context.failure()(format!("nobody gives {} of {} here", from.port, from.node));
    }
    let crossing = from.feed.then.as_ref().map(|(flow, seam)| Crossing {
        seam: Arc::clone(seam),
        tap: find(*flow),
        activator: Some(activator()),
        listened: None,
        is_all: first.is_none(),
    });
    let flow = Arc::clone(&context.flow);
    builder.build(move |mut capabilities: Vec<Capability<Time>>| {
        let mut reading = Reading { queue: first, crossing, floor: 0 };
        if reading.queue.is_none() && reading.crossing.is_none() {
            capabilities.clear();
        }
        let mut batches = Vec::new();
        let mut latest = 0;
        move |_frontiers| {
            let Some(capability) = capabilities.first_mut() else { return };
            if flow.is_ending() {
                (reading.queue, reading.crossing) = (None, None);
                capabilities.clear();
                return;
            }
            let passed = reading.take(&mut batches);
            for (time, batch) in batches.drain(..) {
                latest = time.max(latest);
                output.activate().session(&capability.delayed(&time.max(*capability.time()))).give(batch);
            }
            if passed == CLOSED {
                flow.gate.ended_at(latest);
                capabilities.clear();
                reading.queue = None;
            } else if passed > *capability.time() {
                capability.downgrade(&passed);
            }
        }
    });
    stream
}

/// A reader on its way from one dataflow to another.
struct Crossing {
    seam: Arc<Seam>,
    /// Of the dataflow that goes on; `None` if it has none here, which is a defect.
    tap: Option<Rc<RefCell<Tap>>>,
    activator: Option<Activator>,
    /// What the dataflow that goes on has given since it was listened to.
    listened: Option<Rc<RefCell<Queue>>>,
    /// Nothing is read before the boundary.
    is_all: bool,
}

struct Reading {
    queue: Option<Rc<RefCell<Queue>>>,
    crossing: Option<Crossing>,
    /// What is before this came from the copy, also if the dataflow that goes on gives it later.
    floor: Time,
}

impl Reading {
    /// Takes what there is to pass on; the time before which that is all.
    fn take(&mut self, out: &mut Vec<(Time, Batch)>) -> Time {
        let mut passed = 0;
        if let Some(queue) = &self.queue {
            let mut queue = queue.borrow_mut();
            out.extend(queue.batches.drain(..).filter(|(time, _)| *time >= self.floor));
            passed = queue.passed.max(self.floor);
        }
        let Some(crossing) = &mut self.crossing else { return passed };
        let seam = Arc::clone(&crossing.seam);
        if crossing.listened.is_none()
            && seam.is_attaching()
            && let Some((tap, activator)) = crossing.tap.as_ref().zip(crossing.activator.take())
        {
            let (queue, [from, latest]) = tap.borrow_mut().listen(activator);
            crossing.listened = Some(queue);
            seam.attached(from, latest);
        }
        let latest = out.iter().map(|(time, _)| time.saturating_add(1)).fold(passed, Time::max);
        let Some(boundary) = seam.decide(latest) else {
            if passed == CLOSED {
                // The copy has given all that there ever will be.
                if crossing.listened.is_none() {
                    seam.attached(CLOSED, 0);
                }
                seam.crossed();
                self.crossing = None;
            }
            return passed;
        };
        out.retain(|(time, _)| *time < boundary);
        if !crossing.is_all && passed < boundary {
            return passed;
        }
        // All before the boundary is there. What is behind it comes from the dataflow that goes on.
        self.queue = crossing.listened.take();
        self.crossing = None;
        self.floor = boundary;
        seam.crossed();
        if self.queue.is_none() { CLOSED } else { self.take(out) }
    }
}

#[cfg(test)]
mod tests;

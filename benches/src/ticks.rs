//! Runs a node on one tick of changes after the other, and says how long each took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::contract::{BuildContext, Inputs, Kind, Node, Operator, PlanContext, Port};
use engine::shared::Shared;
use parking_lot::Mutex;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

use crate::memory::{Step, run_with, source};

/// Makes the changes of each tick.
type Make = Arc<dyn Fn() -> Box<dyn Iterator<Item = Vec<Batch>> + Send> + Send + Sync>;

/// A relation that changes once a tick.
#[derive(Clone)]
pub struct Ticks {
    /// The type of the rows.
    pub ty: EdgeType,
    /// The time of the first change, in ms: a whole number of ticks.
    pub start: Time,
    /// The changes of each tick.
    pub make: Make,
}

static TICKS: Mutex<Option<Ticks>> = Mutex::new(None);
static TOOK: Mutex<Vec<Duration>> = Mutex::new(Vec::new());
/// Ticks are a second of event time apart.
const TICK: Time = 1_000;

/// Runs `nodes`, lines of YAML, on `workers` workers. The relation is node `changes`; the kind `bench.sink` takes what
/// leaves. A tick is sent when all of the last one has passed. How long each took, from its first row until all has
/// passed.
///
/// # Errors
/// What is wrong with the pipeline, or with the run.
pub fn run(ticks: Ticks, nodes: &str, workers: usize) -> Result<(Arc<Shared>, Vec<Duration>), String> {
    *TICKS.lock() = Some(ticks);
    TOOK.lock().clear();
    let text = format!("name: bench\ntick: 1s\nnodes:\n  - {{ id: changes, kind: bench.ticks }}\n{nodes}");
    let (shared, _) = run_with(&text, [Kind::of::<Source>(), Kind::of::<Sink>()], workers)?;
    Ok((shared, std::mem::take(&mut *TOOK.lock())))
}

/// Sends a tick when the last one has passed.
struct Source;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

impl Operator for Source {
    type Options = Nothing;
    const KIND: &'static str = "bench.ticks";
    const SUMMARY: &'static str = "Sends the changes of a tick when the last one has passed.";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "the changes" }];

    fn plan(_options: Nothing, _context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        Some(Box::new(TICKS.lock().clone()?))
    }
}

impl Node for Ticks {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.ty.clone()]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let (mut time, probe) = (self.start, context.probe.clone());
        let mut sent: Option<Instant> = None;
        let ticks = context.is_home().then(|| (self.make)());
        let stream = source(context, ticks, move |ticks, at| {
            if let Some(start) = sent {
                if probe.less_than(&at) {
                    return Step::Wait;
                }
                TOOK.lock().push(start.elapsed());
            }
            let Some(batches) = ticks.next() else { return Step::End };
            sent = Some(Instant::now());
            let now = time;
            time += TICK;
            // All of the tick has been said.
            Step::Send { time: now, batches, then: now + 1 }
        });
        vec![stream]
    }
}

/// Takes what leaves.
struct Sink;

impl Operator for Sink {
    type Options = Nothing;
    const KIND: &'static str = "bench.sink";
    const SUMMARY: &'static str = "Takes what leaves.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[];

    fn plan(_options: Nothing, _context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        Some(Box::new(Self))
    }
}

impl Node for Sink {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn build<'s>(&self, _context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let take = |input: Edge<'s>| {
            input.stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "take", |_, _| {
                |input, _output| input.for_each_stamp(|_time, data| data.for_each(|batches| batches.clear()))
            })
        };
        inputs.into_iter().map(take).collect()
    }
}

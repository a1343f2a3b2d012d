//! Kinds for tests: `test.replay` gives batches at given times, `test.collect` keeps what arrives.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Facts, Inputs, Kind, Node, Operator, Port, Registry};
use engine::dataflow::Dataflows;
use engine::plan::Plan;
use engine::run::{Options, RunError, execute_with};
use engine::shared::Shared;
use parking_lot::Mutex;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

/// What a `test.replay` gives, in the order of times.
#[derive(Clone)]
pub struct Recording {
    /// The type of its only port.
    pub ty: EdgeType,
    /// Batches and when they are sent.
    pub batches: Vec<(Time, Batch)>,
    /// Says that the source never ends by itself, though it does.
    pub live: bool,
}

static RECORDINGS: Mutex<Option<HashMap<String, Recording>>> = Mutex::new(None);
static COLLECTED: Mutex<Option<HashMap<String, Vec<Batch>>>> = Mutex::new(None);

/// A name that no other test has.
pub fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("r{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes a recording known to `test.replay`.
pub fn record(name: &str, recording: Recording) {
    let mut recordings = RECORDINGS.lock();
    recordings.get_or_insert_default().insert(name.to_owned(), recording);
}

/// What a `test.collect` kept.
pub fn collected(name: &str) -> Vec<Batch> {
    let mut collected = COLLECTED.lock();
    collected.get_or_insert_default().remove(name).unwrap_or_default()
}

/// Loads a pipeline; faults come as the text that a user sees.
pub fn load(path: &Path, yaml: &str) -> Result<Plan, String> {
    std::fs::write(path, yaml).expect("the pipeline can be written");
    parse(path)
}

/// [`load`] of a file that is there.
pub fn parse(path: &Path) -> Result<Plan, String> {
    let mut kinds: Vec<Kind> = operators::registry().kinds().to_vec();
    kinds.extend([Kind::of::<Replay>(), Kind::of::<Collect>()]);
    Plan::load(path, &Registry::new(kinds)).map_err(|(problems, sources)| sources.render(&problems, false))
}

/// Runs a pipeline on `workers` workers to its end.
pub fn run(plan: Plan, workers: usize) -> Arc<Shared> {
    let shared = Arc::new(Shared::new(&plan));
    run_with(plan, workers, &shared, |_, _| {});
    shared
}

/// [`run`], calling `observe` on every worker after each of its steps.
pub fn run_with(
    plan: Plan,
    workers: usize,
    shared: &Arc<Shared>,
    observe: impl Fn(&Shared, &Dataflows) + Send + Sync + 'static,
) {
    let options = Options { workers, observe: Some(Arc::new(observe)), ..Options::default() };
    match execute_with(Arc::new(plan), shared, options) {
        // A node's failure is the test's to look at.
        Ok(()) | Err(RunError::Failed(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

struct Replay;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Named {
    /// The recording's or collection's name.
    name: String,
}

impl Operator for Replay {
    type Options = Named;
    const KIND: &'static str = "test.replay";
    const SUMMARY: &'static str = "Gives a recording.";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "the batches" }];

    fn plan(options: Named, _context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let recordings = RECORDINGS.lock();
        Some(Box::new(recordings.as_ref()?.get(&options.name)?.clone()))
    }
}

impl Node for Recording {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.ty.clone()]
    }

    fn facts(&self) -> Facts {
        Facts { is_live: self.live, ..Facts::default() }
    }

    /// The batches are dealt out to the workers; one batch an activation, so that workers interleave.
    fn build<'s>(&self, context: &BuildContext<'s>, _inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let own = |(at, _): &(usize, &(Time, Batch))| at % context.peers == context.worker;
        let mut batches =
            self.batches.iter().enumerate().filter(own).map(|(_, b)| b.clone()).collect::<Vec<_>>().into_iter();
        let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
        let activator = context.scope.activator_for(builder.operator_info().address);
        let (output, stream) = builder.new_output::<Vec<Batch>>();
        let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Batch>>>::from(output);
        builder.build(move |mut capabilities| {
            let mut capability = capabilities.pop();
            move |_frontiers| {
                let Some((time, batch)) = batches.next() else {
                    capability = None;
                    return;
                };
                if let Some(capability) = &mut capability {
                    capability.downgrade(&time);
                    output.activate().session(capability).give(batch);
                }
                activator.activate();
            }
        });
        vec![stream]
    }
}

struct Collect;

impl Operator for Collect {
    type Options = Named;
    const KIND: &'static str = "test.collect";
    const SUMMARY: &'static str = "Keeps what arrives.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[];

    fn plan(options: Named, _context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        Some(Box::new(CollectNode(options.name)))
    }
}

struct CollectNode(String);

impl Node for CollectNode {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn build<'s>(&self, _context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let unary = |input: Edge<'s>| {
            let name = self.0.clone();
            input.stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "collect", move |_, _| {
                move |input, _output| {
                    input.for_each_stamp(|_time, data| {
                        let mut collected = COLLECTED.lock();
                        let kept = collected.get_or_insert_default().entry(name.clone()).or_default();
                        kept.extend(data.flat_map(|batches| batches.drain(..)));
                    });
                }
            })
        };
        inputs.into_iter().map(unary).collect()
    }
}

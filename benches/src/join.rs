//! Runs `correlate` on events in memory.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::plan::{Plan, PlanContext};
use engine::registry::{Inputs, Kind, Node, Operator, Port, Registry};
use engine::render::{BuildContext, Shared};
use engine::run::execute;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// Makes the batches of a side anew, each with the time at which it is sent.
type Make = Arc<dyn Fn() -> Box<dyn Iterator<Item = (Time, Batch)> + Send> + Send + Sync>;

/// One side of the join.
#[derive(Clone)]
pub struct Input {
    /// The type of the rows.
    pub ty: EdgeType,
    /// The batches.
    pub make: Make,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that left.
    pub rows: u64,
    /// Requests with a hello.
    pub correlated: u64,
    /// From the first batch to the last row.
    pub elapsed: Duration,
}

static INPUTS: Mutex<[Option<Input>; 2]> = Mutex::new([None, None]);

/// Joins hellos with requests on `workers` workers; `options` are further ones of `correlate`.
///
/// # Errors
/// What is wrong with the pipeline, or with the run.
pub fn run(hellos: Input, requests: Input, workers: usize, options: &str) -> Result<Outcome, String> {
    *INPUTS.lock().unwrap_or_else(PoisonError::into_inner) = [Some(hellos), Some(requests)];
    let path = pipeline(options).map_err(|error| error.to_string())?;
    let mut kinds: Vec<Kind> = operators::registry().kinds().to_vec();
    kinds.push(Kind::of::<Source>());
    let plan = Plan::load(&path, &Registry::new(kinds));
    std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    let plan = Arc::new(plan.map_err(|(problems, sources)| sources.render(&problems, false))?);
    let shared = Arc::new(Shared::new(&plan));
    let start = Instant::now();
    execute(plan, workers, &shared).map_err(|error| error.to_string())?;
    let elapsed = start.elapsed();
    let node = shared.metrics.node("joined", "correlate");
    let correlated = node.counter("correlated").load(Relaxed);
    Ok(Outcome { rows: node.rows_out.load(Relaxed), correlated, elapsed })
}

fn pipeline(options: &str) -> std::io::Result<PathBuf> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("ja4-engine-bench-{}-{}.yaml", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::write(
        &path,
        format!(
            "name: bench\nnodes:\n  - {{ id: hellos, kind: bench.source, side: 0 }}\n  - {{ id: requests, kind: bench.source, side: 1 }}\n  \
             - {{ id: joined, kind: correlate, from: {{ hello: hellos, request: requests }}{options} }}\n"
        ),
    )?;
    Ok(path)
}

/// Sends batches that are made beforehand or on the way, the two sides at the same pace.
struct Source;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Options {
    /// Which of the two inputs.
    side: usize,
}

impl Operator for Source {
    type Options = Options;
    const KIND: &'static str = "bench.source";
    const SUMMARY: &'static str = "Sends what the benchmark has made.";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "the batches" }];

    fn plan(options: Options, _context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let inputs = INPUTS.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Box::new(inputs.get(options.side)?.clone()?))
    }
}

impl Node for Input {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.ty.clone()]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let mut batches = context.is_home().then(|| (self.make)().peekable());
        let (shared, flow, id) = (Arc::clone(&context.shared), Arc::clone(&context.flow), context.id.clone());
        let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
        let activator = context.scope.activator_for(builder.operator_info().address);
        let (output, stream) = builder.new_output::<Vec<Batch>>();
        let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Batch>>>::from(output);
        builder.build(move |mut capabilities| {
            let mut capability = capabilities.pop();
            move |_frontiers| {
                let (Some(own), Some(at)) = (&mut batches, &mut capability) else {
                    capability = None;
                    return;
                };
                match own.peek().map(|(time, _)| *time) {
                    Some(time) => {
                        flow.sources.advance(&id, time);
                        if !flow.sources.any_behind(&id, time)
                            && !shared.backlog.is_full()
                            && let Some((time, batch)) = own.next()
                        {
                            at.downgrade(&time);
                            output.activate().session(at).give(batch);
                        }
                        activator.activate();
                    }
                    None => {
                        flow.sources.advance(&id, Time::MAX);
                        (batches, capability) = (None, None);
                    }
                }
            }
        });
        vec![stream]
    }
}

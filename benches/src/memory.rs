//! Runs nodes of a pipeline on batches in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Inputs, Kind, Node, Operator, Port, Registry};
use engine::plan::Plan;
use engine::run::execute;
use engine::shared::Shared;
use parking_lot::Mutex;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// Makes the batches anew, each with the time at which it is sent.
type Make = Arc<dyn Fn() -> Box<dyn Iterator<Item = (Time, Batch)> + Send> + Send + Sync>;

/// What a source sends.
#[derive(Clone)]
pub struct Input {
    /// The type of the rows.
    pub ty: EdgeType,
    /// The batches.
    pub make: Make,
}

static INPUTS: Mutex<Vec<Input>> = Mutex::new(Vec::new());

/// Runs `nodes`, lines of YAML, on `workers` workers; the inputs are nodes `input0`, `input1` and so on. Counters of the run, and
/// the time from the first batch until the last row is through.
///
/// # Errors
/// What is wrong with the pipeline, or with the run.
pub fn run(inputs: Vec<Input>, nodes: &str, workers: usize) -> Result<(Arc<Shared>, Duration), String> {
    let sources = (0..inputs.len()).map(|n| format!("  - {{ id: input{n}, kind: bench.source, number: {n} }}\n"));
    let text = format!("name: bench\nnodes:\n{}{nodes}", sources.collect::<String>());
    *INPUTS.lock() = inputs;
    run_with(&text, [Kind::of::<Source>()], workers)
}

/// Runs a pipeline that has kinds of the benchmarks. Counters of the run, and how long it took.
pub(crate) fn run_with(
    text: &str,
    own: impl IntoIterator<Item = Kind>,
    workers: usize,
) -> Result<(Arc<Shared>, Duration), String> {
    let path = written(text).map_err(|error| error.to_string())?;
    let mut kinds: Vec<Kind> = operators::registry().kinds().to_vec();
    kinds.extend(own);
    let plan = Plan::load(&path, &Registry::new(kinds));
    std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    let plan = Arc::new(plan.map_err(|(problems, sources)| sources.render(&problems, false))?);
    let shared = Arc::new(Shared::new(&plan));
    let start = Instant::now();
    execute(plan, workers, &shared).map_err(|error| error.to_string())?;
    Ok((shared, start.elapsed()))
}

/// Writes a pipeline to a file of its own.
fn written(text: &str) -> std::io::Result<PathBuf> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("ja4-engine-bench-{}-{}.yaml", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Sends batches that are made beforehand or on the way, all inputs at the same pace.
struct Source;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Options {
    /// Which of the inputs.
    number: usize,
}

impl Operator for Source {
    type Options = Options;
    const KIND: &'static str = "bench.source";
    const SUMMARY: &'static str = "Sends what the benchmark has made.";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "the batches" }];

    fn plan(options: Options, _context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let inputs = INPUTS.lock();
        Some(Box::new(inputs.get(options.number)?.clone()))
    }
}

impl Node for Input {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.ty.clone()]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let pace = context.pace();
        let batches = context.is_home().then(|| (self.make)().peekable());
        let stream = source(context, batches, move |batches, _at| {
            let Some((time, _)) = batches.peek() else {
                pace.advance(Time::MAX);
                return Step::End;
            };
            pace.advance(*time);
            if pace.must_wait(*time) {
                return Step::Wait;
            }
            batches.next().map_or(Step::End, |(time, batch)| Step::Send { time, batches: vec![batch], then: time })
        });
        vec![stream]
    }
}

/// What a source does when it is asked.
pub(crate) enum Step {
    /// It sends batches at a time; what follows is not before `then`.
    Send {
        time: Time,
        batches: Vec<Batch>,
        then: Time,
    },
    Wait,
    End,
}

/// A source that sends what `next` says, which is given the time before which nothing more comes. Workers without
/// anything to send have `None`.
pub(crate) fn source<'s, I: 'static>(
    context: &BuildContext<'s>,
    own: Option<I>,
    mut next: impl FnMut(&mut I, Time) -> Step + 'static,
) -> Stream<'s> {
    let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
    let activator = context.scope.activator_for(builder.operator_info().address);
    let (output, stream) = builder.new_output::<Vec<Batch>>();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Batch>>>::from(output);
    builder.build(move |mut capabilities| {
        let mut running = own.zip(capabilities.pop());
        move |_frontiers| {
            let Some((own, at)) = &mut running else { return };
            match next(own, *at.time()) {
                Step::Send { time, batches, then } => {
                    at.downgrade(&time);
                    output.activate().session(at).give_iterator(batches.into_iter());
                    at.downgrade(&then);
                }
                Step::Wait => {}
                Step::End => {
                    running = None;
                    return;
                }
            }
            activator.activate();
        }
    });
    stream
}

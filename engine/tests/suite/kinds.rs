//! Kinds of nodes that exist only here: a source of numbers, a filter that shuffles, a relation, a join, a sink.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use engine::batch::{Batch, Edge, EdgeClass, EdgeType, Stream, Time, stream_schema, time_array};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Facts, Inputs, Kind, Node, Operator, Port, Registry};
use engine::contract::{Poll, Reader, source};
use engine::expr::Scalar;
use engine::shared::FailureClass;
use engine::spec::Located;
use parking_lot::Mutex;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::operator::Operator as _;

pub fn registry() -> Registry {
    Registry::new(vec![
        Kind::of::<Numbers>(),
        Kind::of::<Keep>(),
        Kind::of::<Latest>(),
        Kind::of::<Both>(),
        Kind::of::<Collect>(),
    ])
}

/// Rows that `test.collect` has seen, by its option `into`.
static COLLECTED: Mutex<BTreeMap<String, Vec<i64>>> = Mutex::new(BTreeMap::new());

/// What was collected under a name, sorted.
pub fn collected(into: &str) -> Vec<i64> {
    let all = COLLECTED.lock();
    let mut rows = all.get(into).cloned().unwrap_or_default();
    rows.sort_unstable();
    rows
}

fn numbers_schema() -> SchemaRef {
    stream_schema([Field::new("n", DataType::Int64, false), Field::new("host", DataType::Utf8, true)])
}

#[derive(Clone, serde::Deserialize, schemars::JsonSchema)]
struct NumbersOptions {
    /// How many numbers.
    rows: u64,
    /// How many in a batch.
    #[serde(default = "ten")]
    batch: u64,
    /// What the column `host` says.
    host: Option<String>,
    /// At which number the source breaks.
    breaks_at: Option<u64>,
    /// What sort of failure that is.
    #[serde(default)]
    breaks: Breaks,
    /// Whether it goes on until it is stopped.
    #[serde(default)]
    live: bool,
    /// Whether its numbers are no facts yet.
    #[serde(default)]
    raw: bool,
    /// Whether it goes on even then.
    #[serde(default)]
    deaf: bool,
    /// Watermark behind the newest row.
    #[serde(default = "second", deserialize_with = "engine::spec::humantime_duration::deserialize")]
    #[schemars(with = "String")]
    lateness: Duration,
}

#[derive(Clone, Copy, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Breaks {
    #[default]
    Plainly,
    ForWantOfRights,
}

fn ten() -> u64 {
    10
}

fn second() -> Duration {
    Duration::from_secs(1)
}

struct Numbers(NumbersOptions);

impl Operator for Numbers {
    type Options = NumbersOptions;
    const KIND: &'static str = "test.numbers";
    const SUMMARY: &'static str = "Numbers from 0, one for each second.";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] =
        &[Port { name: "out", summary: "The numbers." }, Port { name: "late", summary: "Nothing." }];
    fn plan(options: NumbersOptions, _: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        Some(Box::new(Numbers(options)))
    }
}

impl Node for Numbers {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(numbers_schema()), EdgeType::stream(numbers_schema())]
    }
    fn facts(&self) -> Facts {
        Facts { is_live: self.0.live, yields_facts: !self.0.raw, ..Facts::default() }
    }
    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let (options, shared) = (self.0.clone(), Arc::clone(&context.shared));
        source(context, 2, move || {
            if options.breaks == Breaks::ForWantOfRights {
                let message = "no permission to capture".to_owned();
                shared.fail_as(FailureClass::Permission, message.clone());
                return Err(message);
            }
            Ok(NumbersReader { options, next: 0, stopped: false })
        })
    }
}

struct NumbersReader {
    options: NumbersOptions,
    next: u64,
    stopped: bool,
}

impl Reader for NumbersReader {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        let end = (self.next + self.options.batch).min(self.options.rows);
        if self.options.breaks_at.is_some_and(|at| at < end) {
            return Err("the numbers \u{1b}[31mran out".to_owned());
        }
        if self.next < end {
            let n: Vec<u64> = (self.next..end).collect();
            let hosts: StringArray = n.iter().map(|_| self.options.host.clone()).collect();
            let columns: Vec<ArrayRef> = vec![
                time_array(n.iter().map(|n| *n as i64 * 1_000_000_000).collect()),
                Arc::new(UInt64Array::from(n.clone())),
                Arc::new(n.iter().map(|n| *n as i64).collect::<Int64Array>()),
                Arc::new(hosts),
            ];
            out.push((0, Batch::new(RecordBatch::try_new(numbers_schema(), columns).map_err(|e| e.to_string())?)));
            self.next = end;
        }
        match self.next < self.options.rows {
            true => Ok(Poll::Ready),
            false if self.options.live && !self.stopped => Ok(Poll::Idle),
            false => Ok(Poll::Done),
        }
    }
    fn watermark(&self) -> Time {
        (self.next * 1000).saturating_sub(self.options.lateness.as_millis() as u64)
    }
    fn stop(&mut self) {
        self.stopped = !self.options.deaf;
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct KeepOptions {
    /// Which rows stay.
    #[serde(rename = "where")]
    condition: Located<String>,
    /// YAML that is read, for nothing.
    yaml: Option<Located<PathBuf>>,
    /// A file that is only named.
    data: Option<PathBuf>,
}

struct Keep(Scalar, EdgeType);

impl Operator for Keep {
    type Options = KeepOptions;
    const KIND: &'static str = "test.keep";
    const SUMMARY: &'static str = "Keeps rows for which a condition is true, after an exchange by number.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "The rows that stay." }];
    fn plan(options: KeepOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let ty = context.stream_input(0)?;
        if let Some(path) = &options.yaml {
            context.yaml(path)?;
        }
        options.data.map(|path| context.path(&path));
        let scalar = context.scalar(&options.condition, &ty.schema)?;
        match scalar.truth() {
            Ok(scalar) => Some(Box::new(Keep(scalar, ty))),
            Err(fault) => {
                context.expression_fault(&options.condition, &fault);
                None
            }
        }
    }
}

impl Node for Keep {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.1.clone()]
    }
    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let (scalar, fail) = (self.0.clone(), context.failure());
        let input = inputs.into_iter().next().unwrap().stream;
        let spread = input.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "spread", |_, _| {
            |input, output| {
                input.for_each_stamp(|time, data| {
                    let mut session = output.session(&time);
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        for row in 0..batch.rows.num_rows() {
                            session.give(Batch { route: row as u64, ..batch.with_rows(batch.rows.slice(row, 1)) });
                        }
                    }
                });
            }
        });
        let exchange = Exchange::new(|batch: &Batch| batch.route);
        vec![spread.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(exchange, "keep", move |_, _| {
            move |input, output| {
                input.for_each_stamp(|time, data| {
                    let mut session = output.session(&time);
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        let kept =
                            scalar.mask(&batch.rows).and_then(|mask| Ok(filter_record_batch(&batch.rows, &mask)?));
                        match kept {
                            Ok(rows) => session.give(batch.with_rows(rows)),
                            Err(error) => fail(error.to_string()),
                        }
                    }
                });
            }
        })]
    }
}

/// No options.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

struct Latest(EdgeType);

impl Operator for Latest {
    type Options = Nothing;
    const KIND: &'static str = "test.latest";
    const SUMMARY: &'static str = "A relation of the same rows.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "The relation." }];
    fn plan(_: Nothing, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let ty = context.stream_input(0)?;
        Some(Box::new(Latest(EdgeType { class: EdgeClass::Relation { key: vec!["n".into()] }, ..ty })))
    }
}

impl Node for Latest {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.0.clone()]
    }
    fn build<'s>(&self, _: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        inputs.into_iter().map(|edge| edge.stream).collect()
    }
}

struct Both(EdgeType);

impl Operator for Both {
    type Options = Nothing;
    const KIND: &'static str = "test.both";
    const SUMMARY: &'static str = "The rows of two inputs.";
    const INPUTS: Inputs = Inputs::Named(&["left", "right"]);
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "All rows." }];
    fn plan(_: Nothing, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        Some(Box::new(Both(context.stream_input(0)?)))
    }
}

impl Node for Both {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.0.clone()]
    }
    fn build<'s>(&self, _: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let mut streams = inputs.into_iter().map(|edge| edge.stream);
        let left = streams.next().unwrap();
        vec![streams.fold(left, |all, stream| all.concat(stream))]
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct CollectOptions {
    /// The name to collect under.
    into: String,
    /// The number at which the sink panics.
    panics_at: Option<i64>,
    /// The number at which the sink fails.
    fails_at: Option<i64>,
    /// The number at which the run is told to stop.
    stops_at: Option<i64>,
}

struct Collect(Arc<CollectOptions>);

impl Operator for Collect {
    type Options = CollectOptions;
    const KIND: &'static str = "test.collect";
    const SUMMARY: &'static str = "Collects rows for a test.";
    const INPUTS: Inputs = Inputs::Any;
    const OUTPUTS: &'static [Port] = &[];
    fn plan(options: CollectOptions, _: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        Some(Box::new(Collect(Arc::new(options))))
    }
}

impl Node for Collect {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }
    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let seen = context.metrics.counter("collected");
        let mut ends = Vec::new();
        for edge in inputs {
            let (options, fail, shared) = (Arc::clone(&self.0), context.failure(), Arc::clone(&context.shared));
            let seen = Arc::clone(&seen);
            ends.push(edge.stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(
                Pipeline,
                "collect",
                |_, _| {
                    move |input, _| {
                        input.for_each_stamp(|_, data| {
                            for batch in data.flat_map(|batches| batches.drain(..)) {
                                let n = batch
                                    .rows
                                    .column_by_name("n")
                                    .unwrap()
                                    .as_any()
                                    .downcast_ref::<Int64Array>()
                                    .unwrap();
                                for n in n.values() {
                                    assert!(options.panics_at != Some(*n), "cannot stand {n}");
                                    if options.fails_at == Some(*n) {
                                        fail(format!("refuses {n}"));
                                    }
                                    if options.stops_at == Some(*n) {
                                        shared.stop();
                                    }
                                    engine::metrics::NodeMetrics::add(&seen, 1);
                                    let mut all = COLLECTED.lock();
                                    all.entry(options.into.clone()).or_default().push(*n);
                                }
                            }
                        });
                    }
                },
            ));
        }
        let first = ends.swap_remove(0);
        vec![ends.into_iter().fold(first, |all, end| all.concat(end))]
    }
}

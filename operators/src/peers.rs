//! `peers`: each row seen beside the other rows of its partition.
//!
//! Features such as a rank, a share or a rarity need to see all rows of a window at once. Rows of one partition are
//! brought to one worker and held there; at the close of a tick the partitions that changed are computed, and what has
//! changed leaves. `layout` says how a row is held, `state` holds the rows of a worker, `tick` computes them.

mod columns;
mod layout;
mod state;
mod tick;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use differential_dataflow::Hashable;
use engine::batch::{Batch, Edge, EdgeType, Stream, Time, WINDOW_START, time_type};
use engine::contract::exchange::{arrivals, partition};
use engine::contract::{BuildContext, Facts, Here, Inputs, Node, Operator, PlanContext, Port, Windows};
use engine::spec::{Located, humantime_duration};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::vec::Filter;

use crate::entries::Given;
use crate::relation::{hold_until, keep_least};
pub(crate) use columns::column_schema;
use layout::{Codec, Layout};
use state::State;

/// See [`Operator::SUMMARY`].
pub struct Peers;

/// Options of `peers`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The columns whose values make a partition, such as `[window_start]` for all groups of a window.
    by: Vec<Located<String>>,
    /// The columns to add: a list, or the path of a YAML file with such a list, relative to the pipeline's file. Items of
    /// the list in the pipeline may be such paths too. An expression is
    /// SQL over the row's columns, the columns above it, and window functions over the rows of the partition:
    /// `count(*) over (partition by ja4)`, `percent_rank() over (order by hits)`. Rows that an `order by` does not tell
    /// apart have an order of their own, which is the same in every run. What cannot be computed, such as a
    /// quotient of integers whose divisor is 0, is null, and the counter `not_computed` counts it.
    columns: Located<Given<columns::Column>>,
    /// Rows whose window began less than this before are peers of rows that come, although they are settled. Whole
    /// milliseconds. It needs `window_start`. Without it a row is forgotten once it is settled: the rows of a partition
    /// settle at the same tick, as those of one window do. The counter `too_old` counts rows that come when their own
    /// window began longer ago: peers of theirs may be forgotten.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    look_back: Option<Duration>,
    /// The most rows that are held, all workers together; each worker has its share, and a partition is on one worker.
    /// When a worker has no room left, it forgets 1/64 of its share at once: first settled rows, then others, the oldest
    /// windows first. The counter `evicted` counts them. Added columns of rows that may still change become null.
    /// A row of more than 1 KiB counts as one more for each KiB. Default 4000000.
    #[serde(default = "four_million")]
    max_rows: usize,
    /// The most rows of a partition that is computed. The added columns of a larger one are null, and the counter
    /// `too_many_peers` counts it at each tick at which it changes. Default 1000000.
    #[serde(default = "million")]
    max_peers: usize,
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    humantime_duration::deserialize(deserializer).map(Some)
}

fn million() -> usize {
    1_000_000
}

fn four_million() -> usize {
    4_000_000
}

/// The most that `max_peers` may be: rows of a partition are numbered with 32 bits.
const MAX_PEERS: usize = 1 << 30;

/// A node whose options have been checked.
struct Planned {
    input: EdgeType,
    out: SchemaRef,
    layout: Arc<Layout>,
    windows: Arc<Windows>,
    settings: Settings,
}

/// What is fixed when the node is planned.
#[derive(Clone, Copy)]
struct Settings {
    /// Length of a tick in ms.
    tick: Time,
    /// In ms.
    look_back: Option<Time>,
    /// For all workers; in [`State`] for one.
    max_rows: usize,
    max_peers: usize,
    is_relation: bool,
}

impl Operator for Peers {
    type Options = Options;
    const KIND: &'static str = "peers";
    const SUMMARY: &'static str =
        "Adds columns that see a row beside the other rows of its partition: ranks, quantiles, shares, rarity, drift.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port {
        name: "out",
        summary: "The rows with the added columns. Those of a stream leave once, at the close of their tick, with what \
                  is known then. A row of a relation is replaced whenever an added column changes, up to the tick at which \
                  the input says that the row is settled; then it is settled here too, and later rows do not change it. \
                  State: each row that may change in full, each settled one of `look_back` with the columns that the \
                  expressions read, in a sorted binary form and about 200 bytes besides. Cost: a partition that changed is \
                  computed anew at the tick, in time proportional to its rows.",
    }];
    const NEEDS: &'static str = "the columns of `by` and those in the expressions; `window_start` with `look_back`";
    const GIVES: &'static str = "the columns of the input and `columns`";

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.input(0);
        let by = by(&options.by, &input.schema, context)?;
        let settings = settings(&options, &input, context)?;
        let columns = columns::read(options.columns, context)?;
        let windows = columns::compile(&columns, &input.schema, context)?;
        let layout = Layout::new(&input, &by, windows.read());
        if let Some(name) = layout.unordered(&input.schema, &windows) {
            context.error(context.span, format!("`{name}` has a type that rows cannot be ordered by"));
            return None;
        }
        // The same once more over the columns that are kept for peers.
        let windows = columns::compile(&columns, &layout.head_schema(&input.schema), context)?;
        let added = windows.fields().iter().cloned().map(Arc::new);
        let fields = input.schema.fields().iter().cloned().chain(added);
        let out = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Some(Box::new(Planned { input, out, layout: Arc::new(layout), windows: Arc::new(windows), settings }))
    }
}

fn by(names: &[Located<String>], schema: &Schema, context: &mut PlanContext<'_>) -> Option<Vec<usize>> {
    let mut by = Vec::new();
    for name in names {
        let index = context.column(schema, &name.value, name.span)?;
        if by.contains(&index) {
            context.error(name.span, format!("`{}` is there already", name.value));
            return None;
        }
        by.push(index);
    }
    if by.is_empty() {
        context.error(context.span, "`by` names no column");
        return None;
    }
    Some(by)
}

fn settings(options: &Options, input: &EdgeType, context: &mut PlanContext<'_>) -> Option<Settings> {
    let look_back = match options.look_back {
        None => None,
        Some(look_back) => {
            let ms = Time::try_from(look_back.as_millis()).ok();
            let ms = ms.filter(|ms| *ms > 0 && look_back.subsec_nanos().is_multiple_of(1_000_000));
            if ms.is_none() {
                context.error(context.span, "`look_back` is whole milliseconds, at least one");
                return None;
            }
            let span = context.input_span(0);
            let index = context.column(&input.schema, WINDOW_START, span)?;
            if *input.schema.field(index).data_type() != time_type() {
                context.error(span, format!("the input's `{WINDOW_START}` is not an event time"));
                return None;
            }
            ms
        }
    };
    if options.max_rows == 0 || !(1..=MAX_PEERS).contains(&options.max_peers) {
        let message = format!("`max_rows` is at least 1, and `max_peers` is 1 to {MAX_PEERS}");
        context.error(context.span, message);
        return None;
    }
    Some(Settings {
        tick: Time::try_from(context.tick.as_millis()).unwrap_or(1).max(1),
        look_back,
        max_rows: options.max_rows,
        max_peers: options.max_peers,
        is_relation: input.is_relation(),
    })
}

impl Node for Planned {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.input.with_schema(self.out.clone())]
    }

    /// Rows settle with what was so at a tick.
    fn facts(&self) -> Facts {
        Facts { records_changes: self.settings.is_relation, ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        match Codec::new(&self.layout, &self.out) {
            Ok(codec) => vec![self.render(context, input.stream, codec)],
            Err(error) => {
                context.failure()(format!("rows cannot be held: {error}"));
                vec![input.stream.filter(|_: &Batch| false)]
            }
        }
    }

    /// What leaves at a time may have been computed from all rows of its tick, and from those of `look_back`.
    fn needs_from(&self, time: Time) -> Time {
        time.saturating_sub(self.settings.look_back.unwrap_or(0)).saturating_sub(self.settings.tick)
    }
}

impl Planned {
    fn render<'s>(&self, context: &BuildContext<'s>, rows: Stream<'s>, codec: Codec) -> Stream<'s> {
        let codec = Rc::new(codec);
        let (keys, fail) = (Rc::clone(&codec), context.failure());
        let rows = partition(rows, context, move |rows, hashes| match keys.by(rows) {
            Ok(keys) => hashes.extend(keys.iter().map(|key| key.data().hashed())),
            Err(error) => {
                fail(format!("keys cannot be read: {error}"));
                hashes.resize(rows.num_rows(), 0);
            }
        });
        let settings = Settings { max_rows: (self.settings.max_rows / context.peers).max(1), ..self.settings };
        let mut state = State::new(codec, Arc::clone(&self.windows), settings, Arc::clone(&context.metrics));
        let (note, fail) = (arrivals(context), context.failure());
        let by_route = Exchange::new(|batch: &Batch| batch.route);
        rows.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(by_route, &context.id, |initial, _info| {
            drop(initial);
            let (mut capability, mut out, here) = (None, Vec::new(), Here::new(&context.id));
            move |(input, frontier), output| {
                let _here = here.enter();
                input.for_each_stamp(|stamp, data| {
                    keep_least(&mut capability, &stamp);
                    let time = stamp.least().copied().unwrap_or_default();
                    for batches in data {
                        note(batches);
                        for batch in batches.drain(..) {
                            let pushed = state.push(batch, time);
                            pushed.unwrap_or_else(|error| fail(format!("rows cannot be read: {error}")));
                        }
                    }
                });
                let advanced = state.advance(frontier.frontier().first().copied(), &mut out);
                advanced.unwrap_or_else(|error| fail(format!("rows cannot be computed: {error}")));
                for (time, batch) in out.drain(..) {
                    if let Some(capability) = &capability {
                        output.session(&capability.delayed(&time)).give(batch);
                    }
                }
                hold_until(&mut capability, state.next());
            }
        })
    }
}

#[cfg(test)]
mod tests;

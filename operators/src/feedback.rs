//! `feedback`: rows with what analysts have said of their clients, corrected as soon as something else is said.
//!
//! Each worker has all that is in effect, and its share of the rows by whose they are. What is said takes effect at the close
//! of its tick, so it does not matter in which batch and on which worker a row comes. A row that came as one that stays may
//! still be labelled otherwise for `look_back`; so it leaves as one that may be taken back, and stays after that time.

pub mod command;
mod held;
mod read;
mod said;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use engine::batch::{Batch, Edge, EdgeClass, EdgeType, SEQ, Stream, TIME, Time, time_type};
use engine::contract::exchange::{arrivals, partition};
use engine::contract::{BuildContext, Facts, Here, Inputs, Node, NodeMetrics, Operator, PlanContext, Port};
use engine::spec::humantime_duration;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::vec::Broadcast;

use crate::relation::{hold_until, keep_least};
use crate::source::feedback::{ABOUT, MOST_ENTRIES, REPEATED, schema};
use held::{Held, Leaving};
use read::{Rows, Sayings, Ticks};

/// See [`Operator::SUMMARY`].
pub struct Feedback;

/// Options of `feedback`.
///
/// A start reads the rows again from `look_back` before, and what is behind looks back further by as much. For more than
/// hours put a durable edge before it (`durable: true` on the node that gives the final detections).
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// How long a row that has come to stay, such as that of a window that has ended, is still labelled otherwise when
    /// something is said. Sinks that write only rows that stay write it then, not before. Rows that may change anyway, such
    /// as those of an open window, are labelled as long as they are there. Whole milliseconds; 0 labels rows as they come.
    /// Default 1h.
    #[serde(default = "hour", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    look_back: Duration,
    /// The most rows that are held, all workers together; each worker has its share. When a worker has no room, the row that
    /// would stay first does so at once (`evicted`); a row of an open window then goes through without a label (`not_held`).
    /// A row takes about the bytes of its columns and 200 besides. Default 100000.
    #[serde(default = "hundred_thousand")]
    max_rows: usize,
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

fn hundred_thousand() -> usize {
    100_000
}

/// A node whose options have been checked.
struct Planned {
    rows: EdgeType,
    /// Where the rows have the columns [`ABOUT`].
    about: [Option<usize>; ABOUT.len()],
    look_back: Time,
    tick: Time,
    max_rows: usize,
    out: EdgeType,
}

impl Operator for Feedback {
    type Options = Options;
    const KIND: &'static str = "feedback";
    const SUMMARY: &'static str =
        "Adds what analysts have said of a row's client, and corrects the row when they say something else.";
    const INPUTS: Inputs = Inputs::Named(&["rows", "feedback"]);
    const OUTPUTS: &'static [Port] =
        &[Port { name: "out", summary: "Every row, replaced when something is said, taken back or ends." }];
    const NEEDS: &'static str =
        "`rows`: at least one of `src_ip`, `host` and `ja4`, as text; `feedback`: the columns of `source.feedback`";
    const GIVES: &'static str = "the columns of `rows`, `feedback` (false_positive, true_positive or null), `feedback_by` and `feedback_at`. Of all \
         that is said of a row's client by equal values of all columns it names, that with the most columns counts, then the \
         latest. A relation; of a stream its key is `time` and `seq`";

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let rows = context.input(0);
        let about = columns(&rows.schema, context)?;
        if !says(context) || !can_be_held(&rows.schema, context) {
            return None;
        }
        let look_back = Time::try_from(options.look_back.as_millis()).ok();
        let whole = options.look_back.subsec_nanos().is_multiple_of(1_000_000);
        let Some(look_back) = look_back.filter(|_| whole && options.max_rows > 0) else {
            context.error(context.span, "`look_back` is whole milliseconds, and `max_rows` at least 1");
            return None;
        };
        let added = [
            Field::new("feedback", DataType::Utf8, true),
            Field::new("feedback_by", DataType::Utf8, true),
            Field::new("feedback_at", time_type(), true),
        ];
        if let Some(taken) = added.iter().find(|field| rows.schema.index_of(field.name()).is_ok()) {
            let message = format!("the rows have a column `{}` already: rename it with `derive`", taken.name());
            context.error(context.input_span(0), message);
            return None;
        }
        let fields = rows.schema.fields().iter().cloned().chain(added.map(Arc::new));
        let class = match &rows.class {
            EdgeClass::Stream => EdgeClass::Relation { key: vec![TIME.to_owned(), SEQ.to_owned()] },
            relation => relation.clone(),
        };
        Some(Box::new(Planned {
            about,
            look_back,
            tick: Time::try_from(context.tick.as_millis()).unwrap_or(1).max(1),
            max_rows: options.max_rows,
            out: EdgeType { schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())), class },
            rows,
        }))
    }
}

/// Where rows have the columns that feedback names.
fn columns(schema: &Schema, context: &mut PlanContext<'_>) -> Option<[Option<usize>; ABOUT.len()]> {
    let about = ABOUT.map(|name| schema.index_of(name).ok());
    let span = context.input_span(0);
    if about.iter().all(Option::is_none) {
        context.error(span, format!("the rows have none of the columns {}, which feedback is about", ABOUT.join(", ")));
        return None;
    }
    for index in about.iter().flatten() {
        let field = schema.field(*index);
        if *field.data_type() != DataType::Utf8 {
            context.error(span, format!("`{}` is {}, and not text", field.name(), field.data_type()));
            return None;
        }
    }
    Some(about)
}

/// Whether the second input has the columns of feedback.
fn says(context: &mut PlanContext<'_>) -> bool {
    let Some(feedback) = context.stream_input(1) else { return false };
    let lacks = |field: &Field| {
        feedback.schema.field_with_name(field.name()).map_or(true, |found| found.data_type() != field.data_type())
    };
    let wanted: SchemaRef = schema();
    let Some(missing) = wanted.fields().iter().find(|field| lacks(field)) else { return true };
    let span = context.input_span(1);
    let (name, ty) = (missing.name(), missing.data_type());
    context.error(
        span,
        format!("feedback has a column `{name}` ({ty}), as `source.feedback` gives it; this input has not"),
    );
    false
}

/// Whether rows can be encoded, and come back as they were.
fn can_be_held(schema: &Schema, context: &mut PlanContext<'_>) -> bool {
    let cannot = |field: &&Arc<Field>| {
        let sort = [SortField::new(field.data_type().clone())];
        matches!(field.data_type(), DataType::Dictionary(..)) || !RowConverter::supports_fields(&sort)
    };
    let Some(field) = schema.fields().iter().find(cannot) else { return true };
    let span = context.input_span(0);
    context.error(span, format!("`{}` is {}, which cannot be held: cast or drop it", field.name(), field.data_type()));
    false
}

impl Node for Planned {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.out.clone()]
    }

    fn facts(&self) -> Facts {
        Facts { corrects: true, ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let mut inputs = inputs.into_iter();
        let (Some(rows), Some(feedback)) = (inputs.next(), inputs.next()) else { return Vec::new() };
        match self.render(context, rows.stream.clone(), feedback.stream) {
            Ok(stream) => vec![stream],
            Err(error) => {
                context.failure()(format!("rows cannot be held: {error}"));
                vec![rows.stream]
            }
        }
    }

    fn needs_from(&self, time: Time) -> Time {
        time.saturating_sub(self.look_back).saturating_sub(self.tick)
    }

    /// All that is in effect is said again and again.
    fn input_needs_from(&self, input: usize, time: Time) -> Time {
        let repeated = Time::try_from(REPEATED.as_millis()).unwrap_or(0);
        if input == 0 { self.needs_from(time) } else { time.saturating_sub(2 * repeated) }
    }
}

impl Planned {
    fn encoder(&self) -> Result<Rows, ArrowError> {
        let ticks = Ticks { tick: self.tick, is_relation: self.rows.is_relation() };
        Rows::new(&self.rows.schema, self.about, ticks, Arc::clone(&self.out.schema))
    }

    /// Rows with the worker that has the rows of their client.
    fn by_client<'s>(&self, context: &BuildContext<'s>, rows: Stream<'s>) -> Result<Stream<'s>, ArrowError> {
        let (encoder, fail) = (self.encoder()?, context.failure());
        Ok(partition(rows, context, move |rows, hashes| {
            if let Err(error) = encoder.hash(rows, hashes) {
                fail(format!("rows cannot be read: {error}"));
                hashes.resize(rows.num_rows(), 0);
            }
        }))
    }

    fn render<'s>(
        &self,
        context: &BuildContext<'s>,
        rows: Stream<'s>,
        feedback: Stream<'s>,
    ) -> Result<Stream<'s>, ArrowError> {
        let (rows, encoder) = (self.by_client(context, rows)?, self.encoder()?);
        let sayings = Sayings::new(self.tick, &context.metrics);
        let share = (self.max_rows / context.peers).max(1);
        let mut held = Held::new((share, MOST_ENTRIES), self.look_back, self.tick);
        let mut counts = Counts::new(context);
        let (arrived, fail) = (arrivals(context), context.failure());
        let by_route = Exchange::new(|batch: &Batch| batch.route);
        let feedback = if context.peers > 1 { feedback.broadcast() } else { feedback };
        type Builder = CapacityContainerBuilder<Vec<Batch>>;
        let out = rows.binary_frontier::<_, Builder, _, _, _, _>(
            feedback,
            by_route,
            Pipeline,
            &context.id,
            |initial, _info| {
                drop(initial);
                let (mut capability, here) = (None, Here::new(&context.id));
                move |(rows, rows_frontier), (feedback, feedback_frontier), output| {
                    let _here = here.enter();
                    let unread = |error: ArrowError| fail(format!("rows cannot be read: {error}"));
                    rows.for_each_stamp(|stamp, data| {
                        keep_least(&mut capability, &stamp);
                        let time = stamp.least().copied().unwrap_or_default();
                        for batch in data.inspect(|batches| arrived(batches)).flat_map(|batches| batches.drain(..)) {
                            encoder.read(&batch, time, &mut held).unwrap_or_else(unread);
                        }
                    });
                    feedback.for_each_stamp(|stamp, data| {
                        keep_least(&mut capability, &stamp);
                        let time = stamp.least().copied().unwrap_or_default();
                        for batch in data.flat_map(|batches| batches.drain(..)) {
                            sayings.read(&batch, time, &mut held).unwrap_or_else(unread);
                        }
                    });
                    let frontiers = [rows_frontier, feedback_frontier].map(|one| one.frontier().first().copied());
                    let frontier = frontiers.into_iter().flatten().min();
                    held.advance(frontier, |time: Time, leaving: Leaving| {
                        let Some(capability) = &capability else { return };
                        let capability = capability.delayed(&time);
                        let given = encoder.write(leaving, |batch| output.session(&capability).give(batch));
                        given.unwrap_or_else(|error| fail(format!("rows cannot be made: {error}")));
                    });
                    counts.update(&mut held);
                    hold_until(&mut capability, held.next());
                }
            },
        );
        Ok(out)
    }
}

/// What is counted of a worker's rows.
struct Counts {
    metrics: Arc<NodeMetrics>,
    /// One worker says what is in effect: all have the same.
    says: bool,
    rows: i64,
}

impl Counts {
    fn new(context: &BuildContext<'_>) -> Self {
        Self { metrics: Arc::clone(&context.metrics), says: context.worker == 0, rows: 0 }
    }

    fn update(&mut self, held: &mut Held) {
        let rows = i64::try_from(held.len()).unwrap_or(i64::MAX);
        self.metrics.state_rows.fetch_add(rows - self.rows, Relaxed);
        self.rows = rows;
        NodeMetrics::add(&self.metrics.evicted, std::mem::take(&mut held.evicted));
        let add = |name, count: &mut usize| match std::mem::take(count) {
            0 => {}
            count => NodeMetrics::add(&self.metrics.counter(name), count),
        };
        add("not_held", &mut held.not_held);
        add("not_heard", &mut held.not_heard);
        if self.says {
            self.metrics.gauge("in_effect").store(i64::try_from(held.said()).unwrap_or(i64::MAX), Relaxed);
        }
    }
}

#[cfg(test)]
#[path = "feedback/tests.rs"]
mod tests;

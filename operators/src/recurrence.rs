//! `recurrence`: in how many windows of the last days an address, or another key, was a detection.
//!
//! Each row of the input counts from the tick in which it comes until its window is `look_back` old, or until it is taken
//! back. `relation.rs` holds the rows for that time; differential-dataflow's `reduce` sums them up by key, so every
//! cause of a change is the same to it: a row that comes, is taken back, ages, or is evicted.

mod joined;
mod marks;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::batch::{Batch, Edge, EdgeClass, EdgeType, Stream, TIME, Time, WINDOW_START, time_type};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Facts, Inputs, Node, Operator, Port};
use engine::spec::{Located, Span, humantime_duration};
use timely::dataflow::operators::vec::Filter;

use crate::relation::windows::{Ages, optional};
use crate::relation::{batches, changes, hold};
use marks::{Keys, Reader, Summary, Writer};

/// See [`Operator::SUMMARY`].
pub struct Recurrence;

/// Options of `recurrence`.
///
/// A start reads its input again from `look_back` before. Put a durable edge in front of it (`durable: true` on the node
/// that gives the final detections): a week of detections is small, a week of requests is not.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The columns that say who recurs. Default `[src_ip]`.
    #[serde(default = "src_ip")]
    by: Vec<Located<String>>,
    /// For how long a window counts, from its start on: whole milliseconds. Default 7d.
    #[serde(default = "week", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    look_back: Duration,
    /// Windows age in steps of this: one that is `look_back` old counts up to the next multiple of it. A smaller step
    /// corrects rows more often. Whole milliseconds. Default 1h.
    #[serde(default = "hour", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    granularity: Duration,
    /// The name of the column with the number of windows. Default `recurrence`.
    #[serde(default = "recurrence")]
    column: Located<String>,
    /// The column with the level of a detection (LOW, MEDIUM, HIGH, CRITICAL), of which the worst is kept. Default
    /// `threat_level`, if the input has it.
    #[serde(default)]
    level: Option<Located<String>>,
    /// A column of numbers of which the least is the worst, and is kept. Default `anomaly_score`, if the input has it.
    #[serde(default)]
    score: Option<Located<String>>,
    /// The most rows that are held, all workers together; each worker has its share. Rows that differ in nothing but
    /// columns that do not matter here are one. When a worker has no room left, the rows of its oldest windows are
    /// forgotten, 1/64 of the bound at once, and the counter `evicted` counts them. For a relation, the port `joined`
    /// remembers as many rows that may be taken back; the counter `not_joined` counts those beyond, whose number is
    /// null. Default 1000000.
    #[serde(default = "million")]
    max_rows: usize,
}

fn src_ip() -> Vec<Located<String>> {
    vec![Located::new("src_ip".to_owned(), Span::default())]
}

fn recurrence() -> Located<String> {
    Located::new("recurrence".to_owned(), Span::default())
}

fn week() -> Duration {
    Duration::from_secs(7 * 24 * 3600)
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

fn million() -> usize {
    1_000_000
}

/// A node whose options have been checked.
pub(crate) struct Planned {
    input: EdgeType,
    by: Vec<String>,
    columns: Columns,
    ages: Ages,
    max_rows: usize,
    /// Columns of the port `out`.
    out: SchemaRef,
    /// Columns of the port `joined`.
    joined: SchemaRef,
}

/// The input's columns that matter.
#[derive(Clone)]
pub(crate) struct Columns {
    by: Vec<usize>,
    window: usize,
    level: Option<usize>,
    score: Option<usize>,
}

impl Operator for Recurrence {
    type Options = Options;
    const KIND: &'static str = "recurrence";
    const SUMMARY: &'static str = "In how many windows of the last days an address was a detection: a row for each address, corrected as it changes.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[
        Port {
            name: "out",
            summary: "One row for each key that has a window. It is replaced when a detection comes, is taken back or \
                      grows too old, and goes with the last one. It never settles: serve it, or write its changes.",
        },
        Port {
            name: "joined",
            summary: "The input's rows with the number of other, earlier windows of their key, as it was when the row \
                      came.",
        },
    ];
    const NEEDS: &'static str = "detections, as a stream or a relation, with the columns of `by` and `window_start`";
    const GIVES: &'static str = "the columns of `by`, `recurrence` (UInt32: windows), `detections` (UInt64: rows), `worst_threat_level` and \
         `worst_score` if the input has them, `first_seen` and `last_seen` (starts of the first and the last window); \
         `joined` has the input's columns and `recurrence`";

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.input(0);
        let columns = columns(&options, &input.schema, context)?;
        let ages = Ages::plan(options.look_back, options.granularity, input.is_relation(), context)?;
        if options.max_rows == 0 {
            context.error(context.span, "`max_rows` is at least 1");
            return None;
        }
        let span = place(&options.column, context);
        if input.schema.index_of(&options.column.value).is_ok() {
            let message = format!("the input has a column `{0}` already: set `column`", options.column.value);
            context.error(span, message);
            return None;
        }
        let fields = columns.by.iter().map(|index| input.schema.field(*index).clone()).chain(added(&options, &columns));
        let out: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut names: Vec<&str> = out.fields().iter().map(|field| field.name().as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            context.error(span, format!("`{}` would be there twice", twice[0]));
            return None;
        }
        let count = Field::new(&options.column.value, DataType::UInt32, true);
        let fields = input.schema.fields().iter().cloned().chain([Arc::new(count)]);
        Some(Box::new(Planned {
            by: options.by.into_iter().map(|name| name.value).collect(),
            columns,
            ages,
            max_rows: options.max_rows,
            joined: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            out,
            input,
        }))
    }
}

/// Where a name stands; a default stands nowhere, so the input is shown.
fn place(name: &Located<String>, context: &PlanContext<'_>) -> Span {
    if name.span == Span::default() { context.input_span(0) } else { name.span }
}

fn columns(options: &Options, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Columns> {
    let mut by = Vec::new();
    for name in &options.by {
        let span = place(name, context);
        let index = context.column(schema, &name.value, span)?;
        if by.contains(&index) {
            context.error(span, format!("`{}` is there already", name.value));
            return None;
        }
        by.push(index);
    }
    if by.is_empty() {
        context.error(context.span, "`by` names no column");
        return None;
    }
    let span = context.input_span(0);
    let window = context.column(schema, WINDOW_START, span)?;
    for name in [WINDOW_START, TIME] {
        if schema.field_with_name(name).is_ok_and(|field| *field.data_type() != time_type()) {
            context.error(span, format!("the input's `{name}` is not an event time"));
            return None;
        }
    }
    let level = optional(options.level.as_ref(), "threat_level", schema, context, |ty| *ty == DataType::Utf8)?;
    let score = optional(options.score.as_ref(), "anomaly_score", schema, context, DataType::is_numeric)?;
    Some(Columns { by, window, level, score })
}

/// What `out` has behind the key.
fn added(options: &Options, columns: &Columns) -> Vec<Field> {
    let mut fields = vec![
        Field::new(&options.column.value, DataType::UInt32, false),
        Field::new("detections", DataType::UInt64, false),
    ];
    fields.extend(columns.level.map(|_| Field::new("worst_threat_level", DataType::Utf8, true)));
    fields.extend(columns.score.map(|_| Field::new("worst_score", DataType::Float64, true)));
    fields.extend(["first_seen", "last_seen"].map(|name| Field::new(name, time_type(), false)));
    fields
}

impl Node for Planned {
    fn outputs(&self) -> Vec<EdgeType> {
        let class = EdgeClass::Relation { key: self.by.clone() };
        vec![EdgeType { schema: self.out.clone(), class }, self.input.with_schema(self.joined.clone())]
    }

    /// Rows settle with what was so at a tick.
    fn facts(&self) -> Facts {
        Facts { records_changes: self.ages.is_relation, ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        match self.render(context, input.stream.clone()) {
            Ok(streams) => streams,
            Err(error) => {
                context.failure()(format!("keys cannot be read: {error}"));
                vec![silent(input.stream.clone()), silent(input.stream)]
            }
        }
    }

    /// What leaves counts the windows of `look_back` before.
    fn needs_from(&self, time: Time) -> Time {
        self.ages.needs_from(time)
    }
}

impl Planned {
    fn render<'s>(&self, context: &BuildContext<'s>, rows: Stream<'s>) -> Result<Vec<Stream<'s>>, ArrowError> {
        let keys = Rc::new(Keys::new(&self.input.schema, &self.columns.by)?);
        let writer = Writer::new(Rc::clone(&keys), &self.columns, self.out.clone());
        let mut reader = Reader::new(Rc::clone(&keys), self.columns.clone(), self.ages, &context.metrics);
        let is_read = |port: usize| context.connected.get(port) == Some(&true);
        let changes = changes(rows.clone(), context, move |batch, time, rows| reader.read(batch, time, rows));
        let marks = hold(changes, context, self.max_rows);
        let out = if is_read(0) {
            let sums = marks.clone().reduce_named(&context.id, |_key, marks, out| {
                out.push((Summary::of(marks), 1_isize));
            });
            batches(sums, context, move |rows| writer.write(rows), |_row, _time| false)
        } else {
            silent(rows.clone())
        };
        let joined = if is_read(1) {
            let windows = marks.map(|(key, mark)| (key, mark.window)).distinct();
            joined::joined(rows, windows, context, self, keys)?
        } else {
            silent(rows)
        };
        Ok(vec![out, joined])
    }
}

/// A port that nobody reads: nothing but the frontier.
fn silent(stream: Stream<'_>) -> Stream<'_> {
    stream.filter(|_: &Batch| false)
}

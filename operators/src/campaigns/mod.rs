//! `campaigns`: addresses, or other members, that share rare values: connected components of detections.
//!
//! Each row of the input counts from the tick in which it comes until its window is `look_back` old, or until it is
//! taken back. `relation.rs` holds the rows for that time. From them differential-dataflow keeps the links, the
//! components (`graph.rs`), and what is said of each (`flow.rs`), so every cause of a change is the same to it: a row
//! that comes, is taken back, ages, or is evicted, and a value that too many members share.

mod evidence;
mod flow;
mod graph;
mod id;
mod joined;
mod known;
mod remembered;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::batch::{Batch, Edge, EdgeClass, EdgeType, Stream, TIME, Time, WINDOW_START, time_type};
use engine::contract::{BuildContext, Facts, Inputs, Node, Operator, PlanContext, Port, Scalar};
use engine::spec::{Located, Span, humantime_duration};
use timely::dataflow::operators::vec::Filter;

use crate::linear::edge_type;
use crate::relation::windows::{Ages, optional};
use crate::relation::{batches, changes, hold};
use crate::value::has_text;
use evidence::{Evidence, Reader};
use flow::Limits;
use summary::Writer;

/// See [`Operator::SUMMARY`].
pub struct Campaigns;

/// Options of `campaigns`.
///
/// A start reads its input again from `look_back` before. Put a durable edge in front of it (`durable: true` on the
/// node that gives the detections).
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The column that says who is a member. Default `src_ip`.
    #[serde(default = "src_ip")]
    member: Located<String>,
    /// What links members: a list of links, each a list of SQL expressions over the input's columns. Members that have
    /// all values of a link in common are linked, such as by `[ja4, "ip_prefix(src_ip, 24, 64)"]`. A row in which one
    /// of the values is null or empty does not have that link.
    #[schemars(with = "Vec<Vec<String>>")]
    link: Vec<Vec<Located<String>>>,
    /// An SQL condition over the input's columns: only rows for which it is true count. Default: all rows.
    #[serde(default, rename = "where")]
    condition: Option<Located<String>>,
    /// A value that more members share links nobody, such as the JA4 of a common browser. It links again when members
    /// have left. The gauge `common_values` is how many there are. Default 1000.
    #[serde(default = "thousand")]
    max_linked: u32,
    /// Members that are at most so many links apart, from one member to the next, are in one campaign. A wider campaign
    /// may be cut, so that a chain that somebody makes does not cost a step for each member: of those farther apart, the
    /// ones that the same member's label comes to are one. The gauge `cut` is not 0 then. 1 to 1000. Default 24.
    #[serde(default = "twenty_four")]
    max_distance: u32,
    /// `campaign_members` counts up to this, so that a campaign that goes on growing does not give all its rows anew each
    /// time. Default 10000.
    #[serde(default = "ten_thousand")]
    max_members: u32,
    /// How many members make a campaign. At least 2. Default 3.
    #[serde(default = "three")]
    min_members: u32,
    /// For how long a window counts, from its start on: whole milliseconds. Default 24h.
    #[serde(default = "day", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    look_back: Duration,
    /// Windows age in steps of this: one that is `look_back` old counts up to the next multiple of it. Whole
    /// milliseconds. Default 10m.
    #[serde(default = "ten_minutes", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    granularity: Duration,
    /// The column with the level of a detection (LOW, MEDIUM, HIGH, CRITICAL), of which the worst is kept. Default
    /// `threat_level`, if the input has it.
    #[serde(default)]
    level: Option<Located<String>>,
    /// A column of numbers of which the least is the worst, and is kept. Default `anomaly_score`, if the input has it.
    #[serde(default)]
    score: Option<Located<String>>,
    /// The column with the autonomous system of a member. Default `src_asn`, if the input has it.
    #[serde(default)]
    asn: Option<Located<String>>,
    /// In `joined`, a row of level HIGH becomes CRITICAL if its campaign has at least so many members; 0 for never.
    /// Default 5.
    #[serde(default = "five")]
    raise_from: u32,
    /// The most rows that are held, all workers together; each worker has its share. Rows that differ in nothing but
    /// columns that do not matter here are one. When a worker has no room left, the rows of its oldest windows are
    /// forgotten, 1/64 of the bound at once, and the counter `evicted` counts them. For a relation, the port `joined`
    /// remembers as many rows; the counter `not_joined` counts those beyond, which are in no campaign. Default 1000000.
    #[serde(default = "million")]
    max_rows: usize,
}

fn src_ip() -> Located<String> {
    Located::new("src_ip".to_owned(), Span::default())
}

fn thousand() -> u32 {
    1000
}

fn twenty_four() -> u32 {
    24
}

fn ten_thousand() -> u32 {
    10_000
}

fn three() -> u32 {
    3
}

fn five() -> u32 {
    5
}

fn day() -> Duration {
    Duration::from_secs(24 * 3600)
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn million() -> usize {
    1_000_000
}

/// A node whose options have been checked.
struct Planned {
    input: EdgeType,
    columns: Columns,
    evidence: Evidence,
    ages: Ages,
    limits: Limits,
    raise_from: u32,
    max_rows: usize,
    /// Columns of the port `out`.
    out: SchemaRef,
    /// Columns of the port `joined`.
    joined: SchemaRef,
}

/// The input's columns that matter.
#[derive(Clone, Copy)]
struct Columns {
    member: usize,
    window: usize,
    level: Option<usize>,
    score: Option<usize>,
    system: Option<usize>,
}

/// A part of a link.
#[derive(Clone)]
struct Expression {
    /// As it was written.
    sql: String,
    value: Scalar,
}

impl Operator for Campaigns {
    type Options = Options;
    const KIND: &'static str = "campaigns";
    const SUMMARY: &'static str =
        "Addresses that share rare values are one campaign: a row for each, corrected as it changes.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[
        Port {
            name: "out",
            summary: "One row for each campaign. It is replaced when a detection comes, is taken back or grows too old. It \
                      never settles: serve it, or write its changes.",
        },
        Port {
            name: "joined",
            summary: "The input's rows with the campaign of their member. A stream's rows have what was known when their \
                      tick closed; late ones are in none, and do not count. A relation's rows are corrected until \
                      their window is `look_back` old; then they settle with what they had.",
        },
    ];
    const NEEDS: &'static str = "detections, as a stream or a relation, with the columns of `member` and `window_start`, and those in `link` and `where`";
    const GIVES: &'static str = "`campaign_id` (Int32: a hash of the member that was seen first), `members`, `networks` (of /24 or \
         /64) and `asns` (UInt32: how many different), `detections` (UInt64: rows), `worst_threat_level` and `worst_score` if the input has \
         them, `density` (Float64: the share of the pairs of members that a value links directly; a pair with several values counts for \
         each, up to 1), `score` (Float64: members · density / log2(asns + 2)), `linked_by` (the values that link most members), \
         `sample_members` (those that were seen first), `first_seen` and `last_seen` (starts of the first and the last window); `joined` \
         has the input's columns, `campaign_id` (-1 for none) and `campaign_members` (UInt32)";

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.input(0);
        let columns = columns(&options, &input.schema, context)?;
        let ages = Ages::plan(options.look_back, options.granularity, input.is_relation(), context)?;
        let evidence = evidence(&options, &input.schema, context)?;
        let least = [
            ("max_rows", options.max_rows, 1),
            ("max_linked", options.max_linked as usize, 2),
            ("min_members", options.min_members as usize, 2),
            ("max_members", options.max_members as usize, options.min_members.max(options.raise_from) as usize),
        ];
        if let Some((name, _, least)) = least.into_iter().find(|(_, value, least)| value < least) {
            context.error(context.span, format!("`{name}` is at least {least}"));
            return None;
        }
        if !(1..=1000).contains(&options.max_distance) {
            context.error(context.span, "`max_distance` is between 1 and 1000");
            return None;
        }
        let added = [
            Field::new("campaign_id", DataType::Int32, false),
            Field::new("campaign_members", DataType::UInt32, false),
        ];
        if let Some(twice) = added.iter().find(|field| input.schema.index_of(field.name()).is_ok()) {
            context.error(context.input_span(0), format!("the input has a column `{}` already", twice.name()));
            return None;
        }
        let fields = input.schema.fields().iter().cloned().chain(added.map(Arc::new));
        Some(Box::new(Planned {
            columns,
            evidence,
            ages,
            limits: Limits {
                max_linked: options.max_linked,
                min_members: options.min_members,
                max_distance: options.max_distance,
                max_members: options.max_members,
            },
            raise_from: options.raise_from,
            max_rows: options.max_rows,
            out: summary::schema(&columns),
            joined: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            input,
        }))
    }
}

fn columns(options: &Options, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Columns> {
    let input = context.input_span(0);
    // A default stands nowhere, so the input is shown.
    let span = if options.member.span == Span::default() { input } else { options.member.span };
    let member = context.column(schema, &options.member.value, span)?;
    let ty = schema.field(member).data_type();
    if !has_text(ty) {
        context.error(span, format!("`{}` is {ty}, which cannot be used here", options.member.value));
        return None;
    }
    let window = context.column(schema, WINDOW_START, input)?;
    for name in [WINDOW_START, TIME] {
        if schema.field_with_name(name).is_ok_and(|field| *field.data_type() != time_type()) {
            context.error(input, format!("the input's `{name}` is not an event time"));
            return None;
        }
    }
    let level = optional(options.level.as_ref(), "threat_level", schema, context, |ty| *ty == DataType::Utf8)?;
    let score = optional(options.score.as_ref(), "anomaly_score", schema, context, DataType::is_numeric)?;
    let system = optional(options.asn.as_ref(), "src_asn", schema, context, has_text)?;
    Some(Columns { member, window, level, score, system })
}

fn evidence(options: &Options, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Evidence> {
    if options.link.is_empty() || options.link.iter().any(Vec::is_empty) {
        context.error(context.span, "`link` is a list of links, each a list of at least one expression");
        return None;
    }
    let mut complete = true;
    let mut links = Vec::with_capacity(options.link.len());
    for link in &options.link {
        let parts: Vec<Expression> = link.iter().filter_map(|sql| part(sql, schema, context)).collect();
        complete &= parts.len() == link.len();
        links.push(parts);
    }
    let condition = match &options.condition {
        None => None,
        Some(sql) => Some(condition(sql, schema, context)?),
    };
    complete.then(|| Evidence { condition, links: links.into() })
}

fn condition(sql: &Located<String>, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Scalar> {
    match context.scalar(sql, schema)?.truth() {
        Ok(condition) => Some(condition),
        Err(fault) => {
            context.expression_fault(sql, &fault);
            None
        }
    }
}

fn part(sql: &Located<String>, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Expression> {
    let value = context.scalar(sql, schema)?;
    if !has_text(&edge_type(&value.data_type)) {
        context.error(sql.span, format!("this expression is {}, which has no text", value.data_type));
        return None;
    }
    Some(Expression { sql: sql.value.clone(), value })
}

impl Node for Planned {
    fn outputs(&self) -> Vec<EdgeType> {
        let class = EdgeClass::Relation { key: vec!["campaign_id".to_owned()] };
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
                context.failure()(format!("rows cannot be remembered: {error}"));
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
        let is_read = |port: usize| context.connected.get(port) == Some(&true);
        let mut reader = Reader::new(self.columns, self.evidence.clone(), self.ages, &context.metrics);
        let changes = changes(rows.clone(), context, move |batch, time, rows| reader.read(batch, time, rows));
        let marks = hold(changes, context, self.max_rows);
        let campaigns = flow::Campaigns::of(marks, self.limits, &context.metrics);
        let out = if is_read(0) {
            let writer = Writer { columns: self.columns, schema: self.out.clone() };
            batches(campaigns.shown(), context, move |rows| writer.write(rows), |_row, _time| false)
        } else {
            silent(rows.clone())
        };
        let joined =
            if is_read(1) { joined::joined(rows, campaigns.membership(), context, self)? } else { silent(rows) };
        Ok(vec![out, joined])
    }
}

/// A port that nobody reads: nothing but the frontier.
fn silent(stream: Stream<'_>) -> Stream<'_> {
    stream.filter(|_: &Batch| false)
}

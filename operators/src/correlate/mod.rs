//! `correlate`: gives every HTTP request the ClientHello of its connection.
//!
//! An interval join in event time. Both inputs are partitioned by the connection's key; requests wait until both
//! inputs' frontiers say that nothing earlier can come, and are then decided in the order of event time by the rules
//! in `matcher`. Which rows meet therefore does not depend on arrival, batches or workers.

mod emit;
mod keys;
mod matcher;
mod operator;
mod store;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use engine::batch::{Edge, EdgeType, SEQ, Stream, TIME};
use engine::plan::PlanContext;
use engine::registry::{Inputs, Node, Operator, Port};
use engine::render::BuildContext;
use engine::spec::humantime_duration::deserialize as duration;
use engine::time::nanos;

use matcher::Rules;

/// The operator.
pub struct Correlate;

/// Options of `correlate`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// The most time between a hello and the first request on its connection. Default 10s.
    #[serde(default = "default_window", deserialize_with = "duration")]
    #[schemars(with = "String")]
    window: Duration,
    /// The most time between one request and the next on a connection. Default 120s.
    #[serde(default = "default_keepalive_ttl", deserialize_with = "duration")]
    #[schemars(with = "String")]
    keepalive_ttl: Duration,
    /// How many requests a hello can be given to. Default `one_to_many`.
    #[serde(default)]
    mode: Mode,
    /// What identifies a connection. Default `source`.
    #[serde(default)]
    key: KeyColumns,
    /// What happens to rows that find no partner.
    #[serde(default)]
    orphans: Orphans,
    /// The most hellos that are held, over all workers; the one that would expire first is evicted. Default 1000000.
    #[serde(default = "default_bound")]
    max_hellos: usize,
    /// The most requests that wait, over all workers; the oldest is decided early, with the hellos known by then.
    /// Default 1000000.
    #[serde(default = "default_bound")]
    max_requests: usize,
}

/// How many requests a hello can be given to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every request on the connection.
    #[default]
    OneToMany,
    /// The first request only.
    OneToOne,
}

/// What identifies a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyColumns {
    /// src_ip and src_port: right where all sensors see the client's own address.
    #[default]
    Source,
    /// src_ip, src_port, dst_ip and dst_port.
    Connection,
}

/// What happens to rows that find no partner.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
pub struct Orphans {
    /// How long a request waits for a hello that is after it; also how far the two sensors' clocks may differ.
    /// Default 500ms.
    #[serde(default = "default_emit_after", deserialize_with = "duration")]
    #[schemars(with = "String")]
    emit_after: Duration,
    /// Whether hellos that no request matched are emitted when they expire. Delays every result downstream by
    /// `window`. Default false.
    #[serde(default)]
    hello: bool,
}

impl Default for Orphans {
    fn default() -> Self {
        Self { emit_after: default_emit_after(), hello: false }
    }
}

fn default_window() -> Duration {
    Duration::from_secs(10)
}

fn default_keepalive_ttl() -> Duration {
    Duration::from_secs(120)
}

fn default_emit_after() -> Duration {
    Duration::from_millis(500)
}

fn default_bound() -> usize {
    1_000_000
}

impl Operator for Correlate {
    type Options = Options;
    const KIND: &'static str = "correlate";
    const SUMMARY: &'static str = "Gives every HTTP request the ClientHello of its connection";
    const INPUTS: Inputs = Inputs::Named(&["hello", "request"]);
    const OUTPUTS: &'static [Port] = &[
        Port { name: "out", summary: "requests with the hello's columns; orphans have correlated = 0" },
        Port { name: "late", summary: "rows of either input that were older than the watermark" },
        Port { name: "evicted", summary: "hellos that a bound pushed out" },
    ];

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let hello = context.stream_input(0);
        let request = context.stream_input(1);
        let (hello, request) = (hello?, request?);
        let mut keys = vec!["src_ip", "src_port"];
        if options.key == KeyColumns::Connection {
            keys.extend(["dst_ip", "dst_port"]);
        }
        let mut complete = true;
        for (index, side) in [(0, &hello), (1, &request)] {
            let span = context.input_span(index);
            for (name, ty) in [(TIME, engine::batch::time_type()), (SEQ, DataType::UInt64)]
                .into_iter()
                .chain(keys.iter().map(|k| (*k, if k.ends_with("port") { DataType::UInt16 } else { DataType::Utf8 })))
            {
                let Some(at) = context.column(&side.schema, name, span) else {
                    complete = false;
                    continue;
                };
                let found = side.schema.field(at).data_type();
                if *found != ty {
                    context.error(span, format!("the column `{name}` must be {ty}, but is {found}"));
                    complete = false;
                }
            }
        }
        let has = |side: &EdgeType, column: &str| side.schema.index_of(column).is_ok();
        if has(&request, "ja4") && !has(&hello, "ja4") {
            context.error(
                context.input_span(0),
                "the inputs look swapped: `request` has the column `ja4`, `hello` has not",
            );
            complete = false;
        }
        for field in request.schema.fields() {
            if let Ok(other) = hello.schema.field_with_name(field.name())
                && other.data_type() != field.data_type()
            {
                let message = format!(
                    "both inputs have a column `{}`, but of type {} and {}",
                    field.name(),
                    other.data_type(),
                    field.data_type()
                );
                context.error(context.span, message);
                complete = false;
            }
        }
        if options.max_hellos == 0 || options.max_requests == 0 {
            context.error(context.span, "a bound of 0 rows leaves nothing to correlate");
            complete = false;
        }
        let schema = output_schema(&request.schema, &hello.schema);
        complete.then(|| Box::new(Planned { options, schema, tick: context.tick }) as Box<dyn Node>)
    }
}

/// The columns that the operator itself adds, behind those of both inputs.
const ADDED: [(&str, DataType); 5] = [
    ("correlated", DataType::UInt8),
    ("orphan_side", DataType::Utf8),
    ("keepalives", DataType::UInt16),
    ("a_timestamp", DataType::UInt64),
    ("b_timestamp", DataType::UInt64),
];

/// Request columns, the hello's further columns, then [`ADDED`].
fn output_schema(request: &Schema, hello: &Schema) -> SchemaRef {
    let both = |name: &str| name == TIME || name == SEQ;
    let further = hello.fields().iter().filter(|f| request.index_of(f.name()).is_err());
    let mut fields: Vec<Field> = request
        .fields()
        .iter()
        .chain(further)
        .map(|f| Field::new(f.name(), f.data_type().clone(), !both(f.name())))
        .filter(|f| ADDED.iter().all(|(name, _)| name != f.name()))
        .collect();
    fields.extend(ADDED.iter().map(|(name, ty)| Field::new(*name, ty.clone(), name.ends_with("timestamp"))));
    Arc::new(Schema::new(fields))
}

struct Planned {
    options: Options,
    schema: SchemaRef,
    tick: Duration,
}

impl Planned {
    fn rules(&self) -> Rules {
        Rules {
            window: nanos(self.options.window),
            keepalive_ttl: nanos(self.options.keepalive_ttl),
            tolerance: nanos(self.options.orphans.emit_after),
            one_to_one: self.options.mode == Mode::OneToOne,
        }
    }
}

impl Node for Planned {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(Arc::clone(&self.schema)); 3]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        operator::build(self, context, inputs)
    }
}

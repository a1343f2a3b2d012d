//! `correlate`: gives every HTTP request the ClientHello of its connection.
//!
//! An interval join in event time. Both inputs are partitioned by the connection's key; rows wait until both inputs'
//! frontiers say that nothing earlier can come, and are then taken in, hellos and requests merged in the order of event
//! time, by the rules in `matcher`. A request that has a column `begin_time` is compared with hellos by that. Which rows meet therefore does not depend on arrival, batches or workers. A request
//! whose hello is known leaves at once; only one without waits for a hello after it.

mod checks;
mod connections;
mod emit;
mod gather;
mod join;
mod keys;
mod matcher;
mod operator;
mod server_tls;
mod sightings;
mod sign;
mod skew;
mod store;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use engine::batch::{Edge, EdgeType, SEQ, Stream, TIME, Time};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::nanos;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::contract::{Seen, Sign};
use engine::spec::Located;
use engine::spec::humantime_duration::deserialize as duration;
use serde::Deserializer;

use crate::format::BEGIN_TIME;
use crate::source::packets::INTERFACE;
use checks::Checks;
use keys::{Filters, KeySpec};
use matcher::{Rules, SIGHTINGS_WITHIN};
use server_tls::{Comparison, DIFFERS};

/// The operator.
pub struct Correlate;

/// Options of `correlate`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// How long a hello waits for the first request on its connection. It is held until the later of `window` after it and
    /// `keepalive_ttl` after the last request. Default 10s.
    #[serde(default = "default_window", deserialize_with = "duration")]
    #[schemars(with = "String")]
    window: Duration,
    /// How long a hello is held after the end of each request that got it, for the next one on the connection. Where it
    /// is less than `window`, it counts only once `window` is over. While one slow request is served nothing ends, so others
    /// on its connection that begin later than that are orphans, as are those of any client that waits so long; they are
    /// counted as `orphans_after_expiry` while the hello is held for `longest_request`. Default 120s.
    #[serde(default = "default_keepalive_ttl", deserialize_with = "duration")]
    #[schemars(with = "String")]
    keepalive_ttl: Duration,
    /// The longest that a hello is held, however often it is matched. Default 1h, after which servers such as nginx
    /// close a connection (`keepalive_time`).
    #[serde(default = "default_max_age", deserialize_with = "duration")]
    #[schemars(with = "String")]
    max_age: Duration,
    /// The longest request that still finds its hello, for requests with the column `begin_time` (formats that know how
    /// long a request took have it; it goes on as `a_timestamp`). A server logs a request at its end, so hellos are held for so much longer. A request
    /// that took longer is an orphan, and counted as `requests_too_long`. Default 15m.
    #[serde(default = "default_longest_request", deserialize_with = "duration")]
    #[schemars(with = "String")]
    longest_request: Duration,
    /// How far a hello may be after the begin of its request, because the two sensors' clocks differ. The gauge `clock_skew_us` shows
    /// by how much they do: how far requests are behind their hellos at the least (the 5th percentile of the last 1024
    /// first requests on a connection); near 0 is right, and below it requests are logged before their hellos are seen.
    /// Default: `orphans.emit_after`.
    #[serde(default, deserialize_with = "some_duration")]
    #[schemars(with = "Option<String>")]
    tolerance: Option<Duration>,
    /// How many requests a hello can be given to. Default `one_to_many`.
    #[serde(default)]
    mode: Mode,
    /// What identifies a connection, with its transport: `udp` for a hello whose column `transport` says so, or whose
    /// `ja4` begins with `q`, and for a request over HTTP/3; otherwise `tcp`. A request without a source port is an orphan
    /// at once (`orphans_without_port`, a part of `orphan_requests`): nothing tells which of its client's connections it
    /// was on. Default `source`.
    #[serde(default)]
    key: KeyColumns,
    /// Whether `sensor_id` is part of the key, for networks that use the same private addresses; both inputs must have
    /// it. Otherwise a hello that two sensors see within 2 s counts once (`duplicate_hellos`). Default false.
    #[serde(default)]
    match_sensor: bool,
    /// Rows from these addresses and networks are dropped, hellos and requests, and counted as `failed_ip_excluded`.
    /// Default: none.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    exclude_source_ips: Vec<Located<String>>,
    /// Rows to another `dst_port` are dropped, and counted as `failed_dest_port_filtered`; those without one are not.
    /// An empty list means all ports. Default: all.
    #[serde(default)]
    include_dest_ports: Vec<u16>,
    /// What happens to rows that find no partner.
    #[serde(default)]
    orphans: Orphans,
    /// The most hellos that are held, over all workers; the one that would expire first is evicted. One that only a slow
    /// request could still match is counted as `hellos_expired_early` instead. As many again, but
    /// at least 65536 on each worker, may wait until both inputs are complete up to their time; beyond, the oldest is
    /// evicted and counted as `evicted_waiting`. A key holds 256 at most. A hello whose texts have more than 1 KiB counts as one
    /// more for each KiB. Default 1000000.
    #[serde(default = "default_bound")]
    max_hellos: usize,
    /// The most requests that wait, over all workers; the oldest is decided early, with the hellos known by then, and
    /// counted as `requests_decided_early`. One whose texts have more than 1 KiB counts as one more for each KiB. Default
    /// 1000000.
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
    /// How long a request without a hello waits, in event time; never less than `tolerance`. A request whose hello is
    /// known does not wait. Default 500ms.
    #[serde(default = "default_emit_after", deserialize_with = "duration")]
    #[schemars(with = "String")]
    emit_after: Duration,
    /// Whether hellos that no request matched are emitted when they expire. Delays every result downstream by
    /// `window`, and by `longest_request` where requests have the column `begin_time`. Default false.
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

fn default_max_age() -> Duration {
    Duration::from_secs(3600)
}

fn default_longest_request() -> Duration {
    Duration::from_secs(15 * 60)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
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
    const NEEDS: &'static str = "`src_ip` (Utf8) and `src_port` (UInt16) of both inputs; with `key: connection` also `dst_ip` and `dst_port`, with `match_sensor` \
         `sensor_id`. A column that a source declares as `integer` is Int64 and has to be cast";
    const GIVES: &'static str = "the request's columns, those that only the hello has, `correlated` (UInt8), `orphan_side`, `keepalives` (UInt16), \
         `a_timestamp` and `b_timestamp` (UInt64, ns); where requests have what their server says of TLS (`server_ja4`, `server_ja3`, \
         `server_tls_sni`, `server_tls_version`) also `server_tls_differs`: which of these are not those of the hello, such as \
         `ja4,sni`, empty if none, null if there was nothing to compare";

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let hello = context.stream_input(0);
        let request = context.stream_input(1);
        let (hello, request) = (hello?, request?);
        let checks = Checks { hello: &hello.schema, request: &request.schema, options: &options };
        let excluded = checks.run(context)?;
        let filters = Filters::new(&excluded, &options.include_dest_ports);
        let schema = output_schema(&request.schema, &hello.schema);
        let longest = if has_begin(&request.schema) { options.longest_request } else { Duration::ZERO };
        let (skews, tick) = (Arc::default(), context.tick);
        Some(Box::new(Planned { options, filters, schema, longest, tick, skews }))
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

/// The hello's column of this name. That of its interface stays behind: it says which of a sensor's mirrors saw the hello, which is of
/// no use to whoever looks at requests, and every table of them would have it.
fn of_hello(hello: &Schema, name: &str) -> Option<usize> {
    hello.index_of(name).ok().filter(|_| name != INTERFACE)
}

/// Request columns, the hello's further columns, then [`ADDED`], and last [`DIFFERS`] if servers say what they have seen. When a request began is `a_timestamp`.
fn output_schema(request: &Schema, hello: &Schema) -> SchemaRef {
    let both = |name: &str| name == TIME || name == SEQ;
    let begin = has_begin(request);
    let is_further = |name: &str| request.index_of(name).is_err() && of_hello(hello, name).is_some();
    let further = hello.fields().iter().filter(|f| is_further(f.name()));
    let mut fields: Vec<Field> = request
        .fields()
        .iter()
        .chain(further)
        .map(|f| Field::new(f.name(), f.data_type().clone(), !both(f.name())))
        .filter(|f| ADDED.iter().all(|(name, _)| name != f.name()) && !(begin && f.name() == BEGIN_TIME))
        .collect();
    fields.extend(ADDED.iter().map(|(name, ty)| Field::new(*name, ty.clone(), name.ends_with("timestamp"))));
    if Comparison::is_possible(request, hello) {
        fields.retain(|field| field.name() != DIFFERS);
        fields.push(Field::new(DIFFERS, DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}

/// Whether requests say when they began.
fn has_begin(request: &Schema) -> bool {
    request.field_with_name(BEGIN_TIME).is_ok_and(|field| *field.data_type() == engine::batch::time_type())
}

/// The operator with its options, checked.
struct Planned {
    options: Options,
    filters: Filters,
    schema: SchemaRef,
    longest: Duration,
    tick: Duration,
    /// Shared by the workers.
    skews: Arc<skew::Board>,
}

impl Planned {
    fn rules(&self, peers: usize) -> Rules {
        let wait = nanos(self.options.orphans.emit_after);
        let tolerance = self.options.tolerance.map_or(wait, nanos);
        Rules {
            window: nanos(self.options.window),
            keepalive_ttl: nanos(self.options.keepalive_ttl),
            max_age: nanos(self.options.max_age),
            longest: nanos(self.longest),
            tolerance,
            wait: wait.max(tolerance),
            one_to_one: self.options.mode == Mode::OneToOne,
            max_hellos: (self.options.max_hellos / peers).max(1),
        }
    }

    fn keys(&self) -> KeySpec {
        KeySpec { columns: self.options.key, sensor: self.options.match_sensor }
    }
}

impl Node for Planned {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(Arc::clone(&self.schema)); 3]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        operator::build(self, context, inputs)
    }

    fn sign(&self, seen: &Seen) -> Sign {
        sign::requests(seen)
    }

    /// A request may have a hello of `max_age` before its begin, whose earlier requests may be before it by the tolerance, and
    /// which may be another sensor's sighting of one before it. A hello without a request leaves at its own time, so it
    /// needs no more than that either.
    fn needs_from(&self, time: Time) -> Time {
        let rules = self.rules(1);
        let back = [rules.window.max(rules.max_age), rules.longest, rules.tolerance, SIGHTINGS_WITHIN];
        let back = back.into_iter().fold(0i64, i64::saturating_add);
        // Up to a whole ms, so that nothing needed is left out.
        time.saturating_sub(u64::try_from(back).unwrap_or(0).div_ceil(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, Unit, hello_schema};

    #[test]
    fn all_columns_of_a_hello_go_on_but_its_interface() {
        let (requests, hellos) = (Arc::clone(&Format::reqin_log(Unit::Ns).schema), hello_schema());
        let schema = output_schema(&requests, &hellos);
        let left_out: Vec<&String> =
            hellos.fields().iter().map(|field| field.name()).filter(|name| schema.index_of(name).is_err()).collect();
        assert_eq!(left_out, [INTERFACE]);
        assert!(requests.index_of(BEGIN_TIME).is_ok() && schema.index_of(BEGIN_TIME).is_err(), "it is a_timestamp");
        // A request's own column of that name is the request's alone.
        let mut fields: Vec<Field> = requests.fields().iter().map(|field| Field::clone(field)).collect();
        fields.push(Field::new(INTERFACE, DataType::UInt16, true));
        let schema = output_schema(&Schema::new(fields), &hellos);
        assert!(schema.field_with_name(INTERFACE).is_ok_and(|field| *field.data_type() == DataType::UInt16));
        assert_eq!(of_hello(&hellos, INTERFACE), None);
    }
}

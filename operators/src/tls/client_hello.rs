//! `tls.client_hello`: from packets to the ClientHellos of TLS over TCP, QUIC and DTLS, with JA4 and JA3.
//!
//! A node that follows connections must see all packets of a connection in order, so it runs on the worker where the
//! packets arrive: that of their source.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arrow::array::{Array, BinaryArray, Int32Array, StringArray, TimestampNanosecondArray, UInt32Array, UInt64Array};
use engine::batch::{Batch, Edge, EdgeType, SEQ, Stream, TIME, Time};
use engine::metrics::NodeMetrics;
use engine::plan::PlanContext;
use engine::registry::{Inputs, Node, Operator, Port};
use engine::render::BuildContext;
use engine::spec::{Diagnostic, humantime_duration};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::hint::{self, Hint};
use super::rows::HelloRows;
use crate::format::hello_schema;
use crate::source::interfaces::Interfaces;
use crate::source::packet_schema;
use crate::source::packets::INTERFACE;
use client_hello::{Frame, Hello, HelloExtractor, Limits, Tunnels};
use ipnet::IpNet;

/// Finds ClientHellos in packets.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// Ports of the servers; hellos to other ports are not looked for. Default: any port.
    #[serde(default)]
    ports: Vec<u16>,
    /// A connection is forgotten when no packet came for this long, in the time of the packets. Default 30s.
    #[serde(default = "default_flow_timeout", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    flow_timeout: Duration,
    /// How long a hello waits for its server's acknowledgement, in the time of the packets. That shows which bytes the server took if
    /// its client has sent two versions of them, one of which the server drops. It leaves with the acknowledgement, mostly
    /// within a ms; only where the server's packets are not captured it waits for as long as this. `0s`: hellos leave at once,
    /// and one that was forged is followed by another that is `ambiguous`. Default 400ms.
    #[serde(default = "default_hold", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    hold: Duration,
    /// Connections followed at a time; beyond, finished and then the oldest ones are forgotten and counted.
    /// Default 100000.
    #[serde(default = "default_max_flows")]
    max_flows: usize,
    /// Name of this sensor, the column `sensor_id`. Default: the machine's host name.
    sensor_id: Option<String>,
    /// Whether the second hello of a connection, the answer to a HelloRetryRequest, is a row too. Default false.
    #[serde(default)]
    retries: bool,
    /// Whether the columns `ja4_r`, `ja4_o` and `ja4_ro` are filled in. Default false.
    #[serde(default)]
    variants: bool,
    /// Tunnels that are looked into: `gre` (and ERSPAN, and IP in IP), `vxlan`, `geneve`, `tzsp`, `gtp`. Default [gre].
    #[serde(default = "default_tunnels")]
    tunnels: Vec<Tunnel>,
    /// Look for hellos behind the plain text of SMTP, IMAP, POP3 and PostgreSQL too. Default false.
    #[serde(default)]
    starttls: bool,
    /// Segments that a hello may be spread over, repetitions included; beyond, its connection is given up and counted.
    /// Default 8192.
    #[serde(default = "default_max_segments")]
    max_segments: usize,
    /// Bytes that a hello may have; beyond, its connection is given up and counted. Default 65536.
    #[serde(default = "default_max_hello_bytes")]
    max_hello_bytes: usize,
    /// Bytes buffered for all connections together; beyond, the oldest are forgotten and counted. Default 134217728.
    #[serde(default = "default_max_buffered_bytes")]
    max_buffered_bytes: usize,
    /// Clients, as addresses and networks (`192.0.2.0/24`), whose hellos are rows; others are counted in
    /// `excluded_sources`. Default: all.
    #[serde(default)]
    include_sources: Vec<Network>,
    /// Clients, as addresses and networks, whose hellos are no rows; they are counted in `excluded_sources`. Default: none.
    #[serde(default)]
    exclude_sources: Vec<Network>,
    /// Addresses of this machine or its servers: only hellos to them are rows; others are counted in `other_destinations`.
    /// Default: any.
    #[serde(default)]
    local_ips: Vec<Network>,
}

fn default_flow_timeout() -> Duration {
    Limits::default().flow_timeout
}

fn default_hold() -> Duration {
    Limits::default().hold
}

fn default_max_flows() -> usize {
    Limits::default().max_flows
}

fn default_max_segments() -> usize {
    Limits::default().max_segments
}

fn default_max_hello_bytes() -> usize {
    Limits::default().max_hello_bytes
}

fn default_max_buffered_bytes() -> usize {
    Limits::default().max_buffered_bytes
}

fn default_tunnels() -> Vec<Tunnel> {
    vec![Tunnel::Gre]
}

/// An encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Tunnel {
    Gre,
    Vxlan,
    Geneve,
    Tzsp,
    Gtp,
}

/// An address or a network.
#[derive(Clone, Copy, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
struct Network(#[schemars(with = "String")] IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        let network = text.parse().or_else(|_| address());
        network.map(Self).map_err(|_| format!("`{text}` is no address or network; 192.0.2.1 and 2001:db8::/32 are"))
    }
}

/// Whose hellos are rows.
#[derive(Clone, Debug, Default)]
struct Wanted {
    include: Vec<Network>,
    exclude: Vec<Network>,
    local: Vec<Network>,
}

impl Wanted {
    fn source(&self, address: IpAddr) -> bool {
        let among = |networks: &[Network]| networks.iter().any(|network| network.0.contains(&address));
        (self.include.is_empty() || among(&self.include)) && !among(&self.exclude)
    }

    fn destination(&self, address: IpAddr) -> bool {
        self.local.is_empty() || self.local.iter().any(|network| network.0.contains(&address))
    }
}

/// `tls.client_hello`.
pub struct ClientHello {
    variants: bool,
    wanted: Wanted,
    limits: Limits,
    sensor: Arc<str>,
    retries: bool,
    tick: Duration,
}

impl Operator for ClientHello {
    type Options = Options;
    const KIND: &'static str = "tls.client_hello";
    const SUMMARY: &'static str = "Finds TLS ClientHellos in packets, with JA4, JA3, IP and TCP metadata";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "a row for each ClientHello" }];

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.stream_input(0)?;
        let wanted = packet_schema();
        // The interface is not always known, nor needed.
        let wrong = wanted.fields().iter().filter(|field| !field.is_nullable()).find(|field| {
            !input.schema.field_with_name(field.name()).is_ok_and(|found| found.data_type() == field.data_type())
        });
        if let Some(field) = wrong {
            let message =
                format!("the input has no packets: the column `{}` ({}) is missing", field.name(), field.data_type());
            let fault = Diagnostic::new(context.input_span(0), message);
            context.report(fault.help("packets come from source.pcap"));
            return None;
        }
        let limits = Limits {
            ports: options.ports,
            flow_timeout: options.flow_timeout,
            hold: options.hold,
            max_flows: options.max_flows,
            max_segments: options.max_segments,
            max_hello_bytes: options.max_hello_bytes,
            max_buffered_bytes: options.max_buffered_bytes,
            tunnels: Tunnels {
                gre: options.tunnels.contains(&Tunnel::Gre),
                vxlan: options.tunnels.contains(&Tunnel::Vxlan),
                geneve: options.tunnels.contains(&Tunnel::Geneve),
                tzsp: options.tunnels.contains(&Tunnel::Tzsp),
                gtp: options.tunnels.contains(&Tunnel::Gtp),
            },
            starttls: options.starttls,
        };
        Some(Box::new(Self {
            limits,
            tick: context.tick,
            sensor: options.sensor_id.unwrap_or_else(host_name).into(),
            retries: options.retries,
            variants: options.variants,
            wanted: Wanted {
                include: options.include_sources,
                exclude: options.exclude_sources,
                local: options.local_ips,
            },
        }))
    }
}

/// The machine's name as the kernel has it; `localhost` if that cannot be read.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

impl Node for ClientHello {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(hello_schema())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        inputs.into_iter().map(|input| self.run(context, input.stream)).collect()
    }
}

impl ClientHello {
    /// Hellos leave some time after the packets that complete them. Until then a capability is held for their time: so
    /// they leave on time, and nothing is held back beyond them.
    fn run<'s>(&self, context: &BuildContext<'s>, stream: Stream<'s>) -> Stream<'s> {
        let fail = context.failure();
        let tick = u64::try_from(self.tick.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut work = Work::new(self, Arc::clone(&context.metrics));
        let name = &context.id;
        stream.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, name, move |capability, _| {
            drop(capability);
            let mut held: Option<Capability<Time>> = None;
            move |(input, frontier), output| {
                input.for_each_stamp(|stamp, data| {
                    let earlier = held.as_ref().zip(stamp.least()).is_some_and(|(held, time)| held.time() <= time);
                    if !earlier && let Some(capability) = stamp.retain_least(0) {
                        held = Some(capability);
                    }
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        if let Err(message) = work.packets(&batch) {
                            fail(message);
                        }
                    }
                });
                match frontier.frontier().first() {
                    Some(time) => work.advance(*time),
                    None => work.finish(),
                }
                match (work.take(), &held) {
                    (Ok(batches), Some(held)) => output.session(held).give_iterator(batches.into_iter().flatten()),
                    (Ok(_), None) => {}
                    (Err(message), _) => fail(message),
                }
                let Some(waiting) = work.oldest_waiting() else {
                    held = None;
                    return;
                };
                if let Some(held) = held.as_mut().filter(|held| *held.time() < waiting - waiting % tick) {
                    held.downgrade(&(waiting - waiting % tick));
                }
            }
        })
    }
}

/// The connections of one worker.
struct Work {
    extractor: HelloExtractor,
    /// Of packets that were on time, and of late ones.
    rows: [HelloRows; 2],
    interfaces: Interfaces,
    hint: Hint,
    finished: bool,
    retries: bool,
    wanted: Wanted,
    excluded: Arc<AtomicU64>,
    elsewhere: Arc<AtomicU64>,
    metrics: Arc<NodeMetrics>,
    /// The extractor's counters as shown, and as they were when they were shown the last time.
    counters: Vec<(Arc<AtomicU64>, u64)>,
    flows: i64,
}

/// The columns of a batch of packets.
struct Packets<'b> {
    times: &'b TimestampNanosecondArray,
    seqs: &'b UInt64Array,
    linktypes: &'b Int32Array,
    wire_lens: &'b UInt32Array,
    data: &'b BinaryArray,
    interfaces: Option<&'b StringArray>,
}

impl<'b> Packets<'b> {
    fn of(batch: &'b Batch) -> Option<Self> {
        let column = |name: &str| batch.rows.column_by_name(name).map(|column| column.as_any());
        Some(Self {
            times: column(TIME)?.downcast_ref()?,
            seqs: column(SEQ)?.downcast_ref()?,
            linktypes: column("linktype")?.downcast_ref()?,
            wire_lens: column("wire_len")?.downcast_ref()?,
            data: column("data")?.downcast_ref()?,
            interfaces: column(INTERFACE).and_then(|column| column.downcast_ref()),
        })
    }

    fn interface(&self, at: usize) -> Option<&'b str> {
        self.interfaces.filter(|names| names.is_valid(at)).map(|names| names.value(at))
    }
}

impl Work {
    fn new(node: &ClientHello, metrics: Arc<NodeMetrics>) -> Self {
        let extractor = HelloExtractor::new(node.limits.clone());
        let counters = extractor.counters().iter().map(|(name, value)| (metrics.counter(name), value)).collect();
        let rows = [(); 2].map(|()| HelloRows::new(Arc::clone(&node.sensor), node.variants));
        let (excluded, elsewhere) = (metrics.counter("excluded_sources"), metrics.counter("other_destinations"));
        let (retries, wanted) = (node.retries, node.wanted.clone());
        let (interfaces, hint) = (Interfaces::default(), Hint::default());
        Self {
            extractor,
            rows,
            interfaces,
            hint,
            finished: false,
            retries,
            wanted,
            excluded,
            elsewhere,
            metrics,
            counters,
            flows: 0,
        }
    }

    /// Takes the packets of a batch. Their hellos are late if they are.
    fn packets(&mut self, batch: &Batch) -> Result<(), String> {
        let packets = Packets::of(batch).ok_or("the input has no packets")?;
        for at in 0..packets.data.len() {
            let frame = Frame {
                time: packets.times.value(at),
                linktype: packets.linktypes.value(at),
                data: packets.data.value(at),
                wire_len: packets.wire_lens.value(at),
                origin: packets.seqs.value(at) << 1 | u64::from(batch.late),
                interface: self.interfaces.number(packets.interface(at)),
            };
            let (extractor, mut emit) = self.emitter();
            extractor.packet(&frame, &mut emit);
        }
        Ok(())
    }

    /// No packet on time is before this any more.
    fn advance(&mut self, time: Time) {
        let now = i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let (extractor, mut emit) = self.emitter();
        extractor.advance(now, &mut emit);
    }

    /// There will be no more packets.
    fn finish(&mut self) {
        {
            let (extractor, mut emit) = self.emitter();
            extractor.finish(&mut emit);
        }
        if let Some(hint) = hint::no_hello(self.extractor.counters()).filter(|_| !self.finished) {
            tracing::warn!("{hint}");
        }
        self.finished = true;
    }

    /// The extractor, and what becomes of its hellos.
    fn emitter(&mut self) -> (&mut HelloExtractor, impl FnMut(Hello)) {
        let Self { extractor, rows, interfaces, retries, wanted, excluded, elsewhere, .. } = self;
        let emit = |hello: Hello| {
            if !wanted.source(hello.src) {
                excluded.fetch_add(1, Relaxed);
            } else if !wanted.destination(hello.dst) {
                elsewhere.fetch_add(1, Relaxed);
            } else if *retries || hello.index == 0 {
                rows[(hello.origin & 1) as usize].push(hello.origin >> 1, &hello, interfaces.name(hello.interface));
            }
        };
        (extractor, emit)
    }

    /// The earliest time, in ms since the epoch, that a hello may have which leaves later; `None` if none waits.
    fn oldest_waiting(&self) -> Option<Time> {
        self.extractor.oldest_waiting().map(|ns| u64::try_from(ns / 1_000_000).unwrap_or(0))
    }

    /// The hellos that leave now, on time and late.
    fn take(&mut self) -> Result<[Option<Batch>; 2], String> {
        self.count();
        if let Some(hint) = self.hint.due(self.extractor.counters()) {
            tracing::warn!("{hint}");
        }
        let [on_time, late] = &mut self.rows;
        let batch = |rows: &mut HelloRows, late: bool| -> Result<Option<Batch>, String> {
            if rows.is_empty() {
                return Ok(None);
            }
            let rows = rows.take().map_err(|error| format!("hellos do not fit their columns: {error}"))?;
            Ok(Some(Batch { late, ..Batch::new(rows) }))
        };
        Ok([batch(on_time, false)?, batch(late, true)?])
    }

    /// Shows what has changed; several workers may add to the same counters.
    fn count(&mut self) {
        for ((_, value), (counter, shown)) in self.extractor.counters().iter().zip(&mut self.counters) {
            counter.fetch_add(value - *shown, Relaxed);
            *shown = value;
        }
        let flows = i64::try_from(self.extractor.flows()).unwrap_or(i64::MAX);
        self.metrics.state_rows.fetch_add(flows - self.flows, Relaxed);
        self.flows = flows;
    }
}

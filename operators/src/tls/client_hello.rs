//! `tls.client_hello`: from packets to the ClientHellos of TLS over TCP, QUIC and DTLS, with JA4 and JA3.
//!
//! A node that follows connections must see all packets of a connection in order, so it runs on the worker where the
//! packets arrive: that of their source.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::contract::{Seen, Sign};
use engine::spec::{Bytes, Diagnostic, humantime_duration};

use crate::format::hello_schema;
use crate::source::packet_schema;
use client_hello::{Limits, Tunnels};
use ipnet::IpNet;

use super::hint;

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
    /// Bytes that a hello may have; beyond, its connection is given up and counted. Default 64KiB.
    #[serde(default = "default_max_hello_bytes")]
    max_hello_bytes: Bytes,
    /// Bytes buffered for all connections together; beyond, the oldest are forgotten and counted. Default 128MiB.
    #[serde(default = "default_max_buffered_bytes")]
    max_buffered_bytes: Bytes,
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

fn default_max_hello_bytes() -> Bytes {
    Bytes(Limits::default().max_hello_bytes as u64)
}

fn default_max_buffered_bytes() -> Bytes {
    Bytes(Limits::default().max_buffered_bytes as u64)
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
pub(super) struct Wanted {
    include: Vec<Network>,
    exclude: Vec<Network>,
    local: Vec<Network>,
}

impl Wanted {
    pub(super) fn source(&self, address: IpAddr) -> bool {
        let among = |networks: &[Network]| networks.iter().any(|network| network.0.contains(&address));
        (self.include.is_empty() || among(&self.include)) && !among(&self.exclude)
    }

    pub(super) fn destination(&self, address: IpAddr) -> bool {
        self.local.is_empty() || self.local.iter().any(|network| network.0.contains(&address))
    }
}

/// `tls.client_hello`.
pub struct ClientHello {
    pub(super) variants: bool,
    pub(super) wanted: Wanted,
    pub(super) limits: Limits,
    pub(super) sensor: Arc<str>,
    pub(super) retries: bool,
    pub(super) tick: Duration,
}

impl Operator for ClientHello {
    type Options = Options;
    const KIND: &'static str = "tls.client_hello";
    const SUMMARY: &'static str = "Finds TLS ClientHellos in packets, with JA4, JA3, IP and TCP metadata";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "a row for each ClientHello" }];
    const NEEDS: &'static str = "the columns of `source.pcap`";
    const GIVES: &'static str = "`time`, `seq` and the columns of the format `ja4sentinel` (`list formats`)";

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
            max_hello_bytes: options.max_hello_bytes.in_memory(),
            max_buffered_bytes: options.max_buffered_bytes.in_memory(),
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

    fn sign(&self, seen: &Seen) -> Sign {
        hint::sign(seen)
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        inputs.into_iter().map(|input| self.run(context, input.stream)).collect()
    }
}

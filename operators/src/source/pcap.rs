//! `source.pcap`: packets of a capture file, or of a network interface by libpcap.

use std::path::PathBuf;
use std::time::Duration;

use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::source;
use engine::contract::{Facts, Inputs, Node, Operator, Port, Recorded};
use engine::contract::{Need, Privileges};
use engine::spec::{Bytes, Located};
use pcap::{Capture, Linktype};

use super::bpf::{Filter, message};
use super::capture::{Live, Settings};
use super::file_filter;
use super::packets::{Packets, packet_schema};
use super::pcap_file::{self, FileReader};

/// How far the packets of one interface may be out of order: several queues of a card hand over what they have one after the
/// other.
const QUEUES_APART: Duration = Duration::from_millis(20);

/// Reads packets from a file or captures them.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// A capture file, relative to the pipeline's: pcap or pcapng, as it is or compressed with gzip, zstd or xz. One that cannot be
    /// understood or read further fails the run; one that just ends in the middle of a packet is used up to there, and counted
    /// in `truncated_file`. Default: none, then `interface` is needed.
    file: Option<Located<PathBuf>>,
    /// The network interface to capture on, or `any`. Needs root or CAP_NET_RAW. Default: none.
    interface: Option<Located<String>>,
    /// Several interfaces, in place of `interface`: one stream of packets, with one watermark. The kernel's counters are
    /// also shown for each, such as `kernel_dropped:eth0`. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    interfaces: Option<Located<Vec<Located<String>>>>,
    /// Whether the run keeps CAP_NET_RAW, in one thread that does nothing but open interfaces, so that a pipeline that is
    /// changed while it runs may capture elsewhere. If false for all sources it is given up when they are open; a change
    /// of such a source is then refused. All other capabilities are given up at the start of any run that captures.
    /// Default true.
    #[serde(default = "yes")]
    keep_capability: bool,
    /// Ports of the servers; TCP and UDP from and to them and fragments are read, with up to two VLAN tags, and what others
    /// may be in: MPLS, PPPoE, GRE and the like, and the ports of VXLAN and other tunnels. An
    /// empty list means all packets. Default: all packets of a file, be it a recording in place of an interface; on an
    /// interface [443, 8443], or all packets that pass `filter` if there is one.
    ports: Option<Vec<u16>>,
    /// A filter in libpcap's language, such as `not host 192.0.2.1`. With `ports`, packets must pass both. What they leave out of
    /// a file is counted in `filtered`; on an interface the kernel leaves it out, and does not say how much. Default: none.
    filter: Option<Located<String>>,
    /// Bytes of a packet that are captured on an interface. Default 65535.
    #[serde(default = "default_snaplen")]
    snaplen: u16,
    /// Capture packets of other machines too. Default false.
    #[serde(default)]
    promiscuous: bool,
    /// Bytes of the kernel's buffer for a capture on an interface. Default 16MiB.
    #[serde(default = "default_buffer_size")]
    buffer_size: Bytes,
    /// How far a packet's time may be before the greatest time seen without being late. Within it packets of a file or of
    /// several interfaces leave in the order of their time; those of a single interface within 20ms. On an interface where nothing
    /// comes, the same distance to the wall clock; the kernel hands packets over up to 100ms after their time.
    /// Default 60s for a file, 500ms for an interface.
    #[serde(default, deserialize_with = "super::optional_duration")]
    #[schemars(with = "Option<String>")]
    lateness: Option<Duration>,
}

fn yes() -> bool {
    true
}

fn default_snaplen() -> u16 {
    u16::MAX
}

fn default_buffer_size() -> Bytes {
    Bytes(16 << 20)
}

/// `source.pcap`.
pub struct PcapSource {
    input: Input,
    lateness: Duration,
    tick: Duration,
    keep_capability: bool,
}

enum Input {
    File { path: PathBuf, filter: Filter },
    Interfaces(Settings),
}

impl Operator for PcapSource {
    type Options = Options;
    const KIND: &'static str = "source.pcap";
    const SUMMARY: &'static str = "Reads packets from a capture file or a network interface";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "packets" }];
    const GIVES: &'static str =
        "`time`, `seq`, `linktype` (Int32), `wire_len` (UInt32), `data` (Binary) and `interface` (Utf8)";
    const RECORDED: Option<Recorded> = Some(Recorded {
        kind: Self::KIND,
        path: "file",
        without: &["interface", "interfaces", "keep_capability", "snaplen", "promiscuous", "buffer_size"],
    });

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let interfaces = interfaces(options.interface, options.interfaces, context)?;
        let ports = options.ports.unwrap_or_else(|| match (&interfaces, &options.filter) {
            (Some(_), None) => vec![443, 8443],
            _ => Vec::new(),
        });
        let filter_span = options.filter.as_ref().map_or(context.span, |filter| filter.span);
        let filter = Filter::new(options.filter.map(|filter| filter.value), ports);
        let not_understood = |error: String| format!("the filter is not understood: {error}");
        let (input, lateness) = match (options.file, interfaces) {
            (Some(file), None) => {
                let path = context.path(&file.value);
                let linktypes = pcap_file::linktypes(&path).map_err(|fault| context.error(file.span, fault)).ok()?;
                file_filter::check(&filter, &linktypes)
                    .map_err(|error| context.error(filter_span, not_understood(error)))
                    .ok()?;
                (Input::File { path, filter }, Duration::from_secs(60))
            }
            (None, Some(interfaces)) => {
                // Which linktype the interface has is known when it is opened; nearly all have Ethernet's.
                let dead =
                    Capture::dead(Linktype::ETHERNET).map_err(|e| context.error(interfaces.span, message(&e))).ok()?;
                filter.check(&dead).map_err(|error| context.error(filter_span, not_understood(error))).ok()?;
                let settings = Settings {
                    interfaces: interfaces.value,
                    filter,
                    snaplen: options.snaplen.into(),
                    promiscuous: options.promiscuous,
                    buffer_size: i32::try_from(options.buffer_size.0).unwrap_or(i32::MAX),
                };
                (Input::Interfaces(settings), Duration::from_millis(500))
            }
            (Some(_), Some(interfaces)) => {
                context
                    .error(interfaces.span, "packets come from `file` or from an interface; leave out one of the two");
                return None;
            }
            (None, None) => {
                context.error(context.span, "the source needs `file` or `interface` (or `interfaces`)");
                return None;
            }
        };
        let (lateness, tick) = (options.lateness.unwrap_or(lateness), context.tick);
        Some(Box::new(Self { input, lateness, tick, keep_capability: options.keep_capability }))
    }
}

/// The interfaces to capture on. `None` if what is written makes no sense, which is reported; an inner `None` if none is.
fn interfaces(
    one: Option<Located<String>>,
    several: Option<Located<Vec<Located<String>>>>,
    context: &mut PlanContext<'_>,
) -> Option<Option<Located<Vec<String>>>> {
    let (names, span) = match (one, several) {
        (None, None) => return Some(None),
        (Some(one), None) => (vec![Located { span: one.span, value: one.value }], None),
        (None, Some(several)) => (several.value, Some(several.span)),
        (Some(_), Some(several)) => {
            context.error(several.span, "`interface` is for one, `interfaces` for several; leave out one of the two");
            return None;
        }
    };
    let Some(first) = names.first() else {
        context.error(span.unwrap_or(context.span), "there is no interface in the list");
        return None;
    };
    let span = span.unwrap_or(first.span);
    for (nth, name) in names.iter().enumerate() {
        let twice = names[..nth].iter().any(|other| other.value == name.value);
        if twice || names.len() > 1 && name.value == "any" {
            let fault = if twice { "is listed twice" } else { "has the packets of all interfaces already" };
            context.error(name.span, format!("`{}` {fault}: each packet would come twice", name.value));
            return None;
        }
    }
    Some(Some(Located { span, value: names.into_iter().map(|name| name.value).collect() }))
}

impl Node for PcapSource {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(packet_schema())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let resume = context.resume();
        let window = match &self.input {
            // The queues of one interface are a little apart at most.
            Input::Interfaces(settings) if settings.interfaces.len() == 1 => QUEUES_APART,
            _ => self.lateness,
        };
        let times = [self.lateness, window, self.tick];
        let packets = || Packets::new(times, &context.metrics, &resume);
        match &self.input {
            Input::File { path, filter } => {
                source(context, 1, || FileReader::new(path, filter, packets(), &context.shared, &context.metrics))
            }
            Input::Interfaces(settings) => source(context, 1, || {
                Live::start(settings, &context.shared.privileges, &context.metrics, packets()).map_err(|failure| {
                    // Noted with its class before `source` reports the text: the first report counts.
                    context.failure_as()(failure.class, failure.message.clone());
                    failure.message
                })
            }),
        }
    }

    fn facts(&self) -> Facts {
        let facts = Facts { yields_facts: false, ..Facts::default() };
        match &self.input {
            Input::File { path, .. } => Facts { reads: vec![path.clone()], ..facts },
            Input::Interfaces(_) => {
                let needs = if self.keep_capability { Need::CaptureAlways } else { Need::Capture };
                Facts { is_live: true, needs: Some(needs), ..facts }
            }
        }
    }

    fn probe(&self, privileges: &Privileges) -> Result<(), String> {
        match &self.input {
            Input::Interfaces(settings) => settings.open_with(privileges).map(drop).map_err(|failure| failure.message),
            Input::File { .. } => Ok(()),
        }
    }
}

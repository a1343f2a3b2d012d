//! `source.pcap`: packets of a capture file (pcap or pcapng) or of a network interface, by libpcap.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::plan::PlanContext;
use engine::privileges::{Need, Privileges};
use engine::registry::{Inputs, Node, Operator, Port, Recorded};
use engine::render::{BuildContext, Shared};
use engine::source::{Poll, Reader, source};
use engine::spec::{Located, Span};
use pcap::{Capture, Linktype, Offline, Precision};

use super::bpf::{Filter, message};
use super::capture::{Live, Settings};
use super::packets::{Packets, packet_schema, timestamp};

/// Bytes of a packet's header in a pcap file.
const PACKET_HEADER: u64 = 16;

/// Reads packets from a file or captures them.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// A pcap or pcapng file, relative to the pipeline's. Default: none, then `interface` is needed.
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
    /// Ports of the servers; TCP and UDP from and to them and fragments are read, with up to two VLAN tags. An empty list means all
    /// packets. Default [443, 8443], or all packets that pass `filter` if there is one.
    ports: Option<Vec<u16>>,
    /// A filter in libpcap's language, such as `not host 192.0.2.1`. With `ports`, packets must pass both. Default: none.
    filter: Option<Located<String>>,
    /// Bytes of a packet that are captured on an interface. Default 65535.
    #[serde(default = "default_snaplen")]
    snaplen: u16,
    /// Capture packets of other machines too. Default false.
    #[serde(default)]
    promiscuous: bool,
    /// Bytes of the kernel's buffer for a capture on an interface. Default 16777216.
    #[serde(default = "default_buffer_size")]
    buffer_size: u32,
    /// How far a packet's time may be before the greatest time seen without being late. On an interface where nothing
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

fn default_buffer_size() -> u32 {
    16 << 20
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
    const RECORDED: Option<Recorded> = Some(Recorded {
        kind: Self::KIND,
        path: "file",
        without: &["interface", "interfaces", "keep_capability", "snaplen", "promiscuous", "buffer_size"],
    });

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let ports = match (&options.ports, &options.filter) {
            (Some(ports), _) => ports.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![443, 8443],
        };
        let filter_span = options.filter.as_ref().map_or(context.span, |filter| filter.span);
        let filter = Filter::new(options.filter.map(|filter| filter.value), ports);
        let interfaces = interfaces(options.interface, options.interfaces, context)?;
        let (input, lateness) = match (options.file, interfaces) {
            (Some(file), None) => {
                let path = context.path(&file.value);
                let capture = open(&path).map_err(|message| context.error(file.span, message)).ok()?;
                compiles(&filter, &capture, filter_span, context)?;
                (Input::File { path, filter }, Duration::from_secs(60))
            }
            (None, Some(interfaces)) => {
                // Which linktype the interface has is known when it is opened; nearly all have Ethernet's.
                let dead =
                    Capture::dead(Linktype::ETHERNET).map_err(|e| context.error(interfaces.span, message(&e))).ok()?;
                compiles(&filter, &dead, filter_span, context)?;
                let settings = Settings {
                    interfaces: interfaces.value,
                    filter,
                    snaplen: options.snaplen.into(),
                    promiscuous: options.promiscuous,
                    buffer_size: i32::try_from(options.buffer_size).unwrap_or(i32::MAX),
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

/// Reports a filter that cannot be compiled.
fn compiles<T: pcap::Activated + ?Sized>(
    filter: &Filter,
    capture: &Capture<T>,
    span: Span,
    context: &mut PlanContext<'_>,
) -> Option<()> {
    filter.check(capture).map_err(|error| context.error(span, format!("the filter is not understood: {error}"))).ok()
}

/// Opens a capture file.
pub(crate) fn open(path: &Path) -> Result<Capture<Offline>, String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    if metadata.len() == 0 {
        return Err(format!("{shown} is empty; a capture without packets has a file header"));
    }
    std::fs::File::open(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    // The wrapper would hand libpcap no name at all.
    if path.to_str().is_none() {
        return Err(format!("{shown}: the name of a capture file must be UTF-8"));
    }
    Capture::from_file_with_precision(path, Precision::Nano)
        .map_err(|error| format!("{shown} is not a pcap or pcapng file: {}", message(&error)))
}

impl Node for PcapSource {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(packet_schema())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let resume = context.resume();
        let packets = || Packets::new((self.lateness, self.tick), &context.metrics, &resume);
        match &self.input {
            Input::File { path, filter } => source(context, 1, || {
                let mut capture = open(path)?;
                filter.set(&mut capture)?;
                let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
                context.shared.progress.total.fetch_add(bytes, Relaxed);
                Ok(FileReader {
                    packets: packets(),
                    linktype: capture.get_datalink().0,
                    capture,
                    unread: bytes,
                    shared: Arc::clone(&context.shared),
                    truncated: context.metrics.counter("truncated_file"),
                    path: path.clone(),
                    stopping: false,
                })
            }),
            Input::Interfaces(settings) => source(context, 1, || {
                Live::start(settings, &context.shared.privileges, &context.metrics, packets()).map_err(|failure| {
                    // Noted with its class before `source` reports the text: the first report counts.
                    context.failure_as()(failure.class, failure.message.clone());
                    failure.message
                })
            }),
        }
    }

    fn reads(&self) -> Vec<PathBuf> {
        match &self.input {
            Input::File { path, .. } => vec![path.clone()],
            _ => Vec::new(),
        }
    }

    fn is_live(&self) -> bool {
        matches!(self.input, Input::Interfaces(_))
    }

    fn needs(&self) -> Option<Need> {
        self.is_live().then_some(if self.keep_capability { Need::CaptureAlways } else { Need::Capture })
    }

    fn probe(&self, privileges: &Privileges) -> Result<(), String> {
        match &self.input {
            Input::Interfaces(settings) => settings.open_with(privileges).map(drop).map_err(|failure| failure.message),
            Input::File { .. } => Ok(()),
        }
    }

    fn yields_facts(&self) -> bool {
        false
    }
}

/// Reads a file on the worker that owns the source.
struct FileReader {
    capture: Capture<Offline>,
    linktype: i32,
    packets: Packets,
    /// Bytes of the file that progress does not show as read yet.
    unread: u64,
    shared: Arc<Shared>,
    truncated: Arc<std::sync::atomic::AtomicU64>,
    path: PathBuf,
    stopping: bool,
}

impl Reader for FileReader {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        let poll = self.read();
        self.packets.flush(out)?;
        Ok(poll)
    }

    fn watermark(&self) -> Time {
        self.packets.watermark()
    }

    fn stop(&mut self) {
        self.stopping = true;
    }
}

impl FileReader {
    fn read(&mut self) -> Poll {
        if self.stopping {
            return Poll::Done;
        }
        let mut read = 0;
        let poll = loop {
            match self.capture.next_packet() {
                Ok(packet) => {
                    read += PACKET_HEADER + packet.data.len() as u64;
                    if self.packets.take(timestamp(packet.header), self.linktype, packet.header.len, packet.data) {
                        break Poll::Ready;
                    }
                }
                Err(pcap::Error::NoMorePackets) => break Poll::Done,
                Err(error) => {
                    // What stands before the break is as good as in a whole file.
                    self.truncated.fetch_add(1, Relaxed);
                    let error = message(&error);
                    tracing::warn!(file = %self.path.display(), error, "the capture breaks off; the packets before are used");
                    break Poll::Done;
                }
            }
        };
        // Packets that the filter keeps back are not seen here; at the end everything has been read.
        let read = if poll == Poll::Done { self.unread } else { read.min(self.unread) };
        self.unread -= read;
        self.shared.progress.read.fetch_add(read, Relaxed);
        poll
    }
}

//! `ja4-engine fingerprint`: one line a ClientHello, of capture files or of interfaces, without a pipeline.

mod fields;
mod live;
mod output;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use capture_file::{CaptureFile, Error, Kind};
use clap::{Args, FromArgMatches, ValueEnum};
use client_hello::{Frame, Hello, HelloExtractor, Limits, Tunnels};
use command_line::{Exit, Extra};
use engine::contract::{Failure, FailureClass};

use self::fields::{Field, Line};
use self::output::{Format, Output};
use crate::source::bpf::Filter;
use crate::source::file_filter::{self, FileFilter};
use crate::source::interfaces::Interfaces;
use crate::source::order::{Order, Packet};
use crate::tls::client_hello::host_name;

/// Print the TLS, QUIC and DTLS ClientHellos of capture files or interfaces with their fingerprints
#[derive(Debug, Args)]
struct Options {
    /// Capture files, pcap or pcapng, also compressed with gzip, zstd or xz; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "interface")]
    files: Vec<PathBuf>,
    /// Capture on this interface, or on `any`; as often as needed. Needs root or CAP_NET_RAW
    #[arg(short, long, value_name = "NAME", conflicts_with = "files")]
    interface: Vec<String>,
    /// A filter in libpcap's language
    #[arg(short = 'f', long, value_name = "BPF")]
    filter: Option<String>,
    /// Ports of the servers
    #[arg(short, long, value_name = "PORT", value_delimiter = ',')]
    ports: Vec<u16>,
    /// Format of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Fields to print, comma-separated [default: all; for a table a choice]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    fields: Vec<Field>,
    /// Name of this sensor, the field sensor_id [default: the machine's host name]
    #[arg(long, value_name = "NAME")]
    sensor_id: Option<String>,
    /// Tunnels to look into, comma-separated
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',', default_value = "gre")]
    tunnels: Vec<Tunnel>,
    /// Look for hellos behind the plain text of SMTP, IMAP, POP3 and PostgreSQL too
    #[arg(long)]
    starttls: bool,
    /// Connections tracked at a time
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_flows)]
    max_flows: usize,
    /// Packets may be out of order by so many milliseconds, as in captures that were merged: they are put in order
    /// [default: 0, with several interfaces 200]
    #[arg(long, value_name = "MS")]
    reorder: Option<u32>,
    /// Bytes of a packet that are captured on an interface
    #[arg(long, value_name = "BYTES", default_value_t = 65_535)]
    snaplen: u16,
    /// Bytes of the kernel's buffer of an interface
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    buffer_size: u32,
    /// Capture packets of other machines too
    #[arg(long)]
    promiscuous: bool,
    /// Stop after so many hellos
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Stop a capture after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Print what happened to the packets on standard error, one counter a line, in place of the summary of a capture
    #[arg(long)]
    counters: bool,
}

/// An encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tunnel {
    /// GRE with ERSPAN in it, and IP in IP.
    Gre,
    /// UDP ports 4789 and 8472; 4790 for VXLAN-GPE.
    Vxlan,
    /// UDP port 6081.
    Geneve,
    /// UDP port 37008.
    Tzsp,
    /// GTP-U, UDP port 2152.
    Gtp,
    /// Look into no tunnel.
    None,
}

/// The command, for [`command_line::main`].
pub fn command() -> Extra {
    let command = clap::Command::new("fingerprint");
    Extra {
        command: Options::augment_args(command),
        run: |matches, _| Options::from_arg_matches(matches).map_or(Exit::Refused, |options| run(&options)),
    }
}

fn run(options: &Options) -> Exit {
    let has = |tunnel| options.tunnels.contains(&tunnel);
    let limits = Limits {
        ports: options.ports.clone(),
        max_flows: options.max_flows,
        tunnels: Tunnels {
            gre: has(Tunnel::Gre),
            vxlan: has(Tunnel::Vxlan),
            geneve: has(Tunnel::Geneve),
            tzsp: has(Tunnel::Tzsp),
            gtp: has(Tunnel::Gtp),
        },
        starttls: options.starttls,
        ..Limits::default()
    };
    let fields = match (&options.fields[..], options.format) {
        ([], Format::Table) => fields::TABLE.to_vec(),
        ([], _) => Field::all().collect(),
        (chosen, _) => chosen.to_vec(),
    };
    let mut work = Work {
        limits,
        output: Output::new(options.format, fields, io::stdout().lock()),
        sensor_id: options.sensor_id.clone().unwrap_or_else(host_name),
        interfaces: Interfaces::default(),
        left: options.count.unwrap_or(u64::MAX),
        counters: options.counters,
        order: None,
        taken: 0,
    };
    let done = match options.interface.is_empty() {
        true => work.files(options),
        false => work.interfaces(options),
    };
    match done.and_then(|exit| work.output.flush().map(|()| exit).map_err(Stop::from)) {
        Ok(exit) => exit,
        // A reader that has gone away, such as `head`, has what it wanted.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(Stop::Output(error)) => complain(&format!("the output cannot be written: {error}"), Exit::Failed),
        Err(Stop::Capture(failure)) => {
            let exit = match failure.class {
                FailureClass::Permission => Exit::Permission,
                _ => Exit::Failed,
            };
            complain(&failure.message, exit)
        }
    }
}

fn complain(message: &str, exit: Exit) -> Exit {
    command_line::complain(message);
    exit
}

/// Why there is nothing more to do.
enum Stop {
    Output(io::Error),
    Capture(Failure),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Capture(failure)
    }
}

struct Work<W: Write> {
    limits: Limits,
    output: Output<W>,
    sensor_id: String,
    interfaces: Interfaces,
    /// Hellos still wanted.
    left: u64,
    counters: bool,
    /// Packets that wait for earlier ones, if they may be out of order.
    order: Option<Order>,
    /// Packets so far.
    taken: u64,
}

/// How far packets of several interfaces are out of order: they are read in turn.
const INTERFACES_APART: u32 = 200;

impl<W: Write> Work<W> {
    /// Files one after the other; one that cannot be read does not keep the others back.
    fn files(&mut self, options: &Options) -> Result<Exit, Stop> {
        let mut exit = Exit::Ok;
        for path in &options.files {
            let done = match path.as_os_str() == "-" {
                true => self.file("standard input", CaptureFile::new(io::stdin().lock()), options)?,
                false => self.file(&path.display().to_string(), CaptureFile::open(path), options)?,
            };
            if let Err(message) = done {
                exit = complain(&message, Exit::Failed);
            }
        }
        Ok(exit)
    }

    /// A file. The inner error is what is wrong with it.
    fn file<R: Read>(
        &mut self,
        name: &str,
        opened: Result<CaptureFile<R>, Error>,
        options: &Options,
    ) -> Result<Result<(), String>, Stop> {
        let filter = Filter::new(options.filter.clone(), Vec::new());
        let checked = opened.map_err(|error| format!("{name} {error}")).and_then(|capture| {
            decodable(name, capture.linktypes())?;
            let checked = file_filter::check(&filter, capture.linktypes());
            checked.map(|()| capture).map_err(|error| format!("the filter is not understood: {error}"))
        });
        let mut capture = match checked {
            Ok(capture) => capture,
            Err(message) => return Ok(Err(message)),
        };
        let (mut filter, mut filtered) = (FileFilter::new(&filter), 0);
        let mut extractor = self.begin(options);
        let outcome = loop {
            let record = match capture.next_record() {
                Ok(Some(record)) => record,
                // Which linktypes pcapng has is known when all interfaces are.
                Ok(None) => break decodable(name, capture.linktypes()),
                // What stands before the break is as good as in a whole file.
                Err(error) if error.kind() == Kind::Truncated => break Err(format!("{name} breaks off: it {error}")),
                Err(error) => break Err(format!("{name} {error}")),
            };
            match filter
                .as_mut()
                .map_or(Ok(true), |filter| filter.passes(record.linktype, record.wire_len, record.data))
            {
                Ok(true) => {}
                Ok(false) => {
                    filtered += 1;
                    continue;
                }
                Err(error) => {
                    let linktype = record.linktype;
                    break Err(format!("the filter does not suit packets of linktype {linktype} in {name}: {error}"));
                }
            }
            let interface = self.interfaces.number(record.interface_name);
            let whole = Frame::whole(record.time, record.linktype, record.data);
            self.packet(&mut extractor, &Frame { wire_len: record.wire_len, interface, ..whole })?;
            if self.left == 0 {
                break Ok(());
            }
        };
        self.end(&mut extractor)?;
        let more = [("filtered", filtered)];
        self.count(&extractor, if filter.is_some() { &more } else { &[] });
        Ok(outcome)
    }

    /// Begins with a file or with interfaces.
    fn begin(&mut self, options: &Options) -> HelloExtractor {
        let apart = if options.interface.len() > 1 { INTERFACES_APART } else { 0 };
        let window = options.reorder.unwrap_or(apart);
        self.order = (window > 0).then(|| Order::new(i64::from(window) * 1_000_000));
        HelloExtractor::new(self.limits.clone())
    }

    fn packet(&mut self, extractor: &mut HelloExtractor, frame: &Frame<'_>) -> Result<(), Stop> {
        let Some(order) = &mut self.order else { return self.hand_on(|emit| extractor.packet(frame, emit)) };
        let &Frame { time, linktype, wire_len, interface, data, .. } = frame;
        order.push(Packet { time, seq: self.taken, linktype, wire_len, interface, data: data.into() });
        self.taken += 1;
        self.ordered(extractor)
    }

    /// The packets that have waited for long enough.
    fn ordered(&mut self, extractor: &mut HelloExtractor) -> Result<(), Stop> {
        while let Some(packet) = self.order.as_mut().and_then(Order::pop) {
            let Packet { time, linktype, wire_len, interface, data, .. } = packet;
            let frame = Frame { wire_len, interface, ..Frame::whole(time, linktype, &data) };
            self.hand_on(|emit| extractor.packet(&frame, emit))?;
        }
        Ok(())
    }

    /// No packet comes any more that is older than this, in ns since the epoch.
    fn advance(&mut self, extractor: &mut HelloExtractor, now: i64) -> Result<(), Stop> {
        if let Some(order) = &mut self.order {
            order.pass(now);
            self.ordered(extractor)?;
        }
        self.hand_on(|emit| extractor.advance(now, emit))
    }

    /// There are no more packets.
    fn end(&mut self, extractor: &mut HelloExtractor) -> Result<(), Stop> {
        self.advance(extractor, i64::MAX)?;
        self.hand_on(|emit| extractor.finish(emit))
    }

    /// Writes the hellos that `find` hands on.
    fn hand_on(&mut self, find: impl FnOnce(&mut dyn FnMut(Hello))) -> Result<(), Stop> {
        let mut written = Ok(());
        find(&mut |hello| self.hello(&hello, &mut written));
        Ok(written?)
    }

    fn hello(&mut self, hello: &Hello, written: &mut io::Result<()>) {
        if self.left > 0 && written.is_ok() {
            self.left -= 1;
            let interface = self.interfaces.name(hello.interface);
            *written = self.output.hello(&Line { hello, sensor_id: &self.sensor_id, interface });
        }
    }

    fn count(&self, extractor: &HelloExtractor, more: &[(&'static str, u64)]) {
        if self.counters {
            for (name, value) in more.iter().copied().chain(extractor.counters().iter()) {
                let _ = writeln!(io::stderr(), "{name} {value}");
            }
        }
    }
}

/// Whether packets of one of these linktypes can be decoded, if there are any yet.
fn decodable(name: &str, linktypes: &BTreeSet<i32>) -> Result<(), String> {
    if linktypes.is_empty() || linktypes.iter().any(|linktype| client_hello::is_supported(*linktype)) {
        return Ok(());
    }
    let list: Vec<String> = linktypes.iter().take(10).map(i32::to_string).collect();
    Err(format!("{name}: packets of linktype {} cannot be decoded", list.join(", ")))
}

//! `ja4-engine fingerprint`: one line a ClientHello, of capture files or of interfaces, without a pipeline.

mod fields;
mod output;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, FromArgMatches, ValueEnum};
use client_hello::{HelloExtractor, Limits, Tunnels};
use engine::cli::{Exit, Extra};
use engine::render::{Failure, FailureClass};

use self::fields::Field;
use self::output::{Format, Output};
use crate::source::bpf::{Filter, message};
use crate::source::capture::Settings;
use crate::source::packets::timestamp;

/// Packets of one interface before the others are looked at.
const BURST: usize = 4096;
/// How long to sleep when no interface has packets.
const SLEEP: Duration = Duration::from_millis(5);

/// Print the TLS, QUIC and DTLS ClientHellos of capture files or interfaces with their fingerprints
#[derive(Debug, Args)]
struct Options {
    /// Capture files, pcap or pcapng; `-` is standard input
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
    /// Tunnels to look into, comma-separated
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',', default_value = "gre")]
    tunnels: Vec<Tunnel>,
    /// Look for hellos behind the plain text of SMTP, IMAP, POP3 and PostgreSQL too
    #[arg(long)]
    starttls: bool,
    /// Connections tracked at a time
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_flows)]
    max_flows: usize,
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
    /// Print what happened to the packets on standard error, one counter a line
    #[arg(long)]
    counters: bool,
}

/// An encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tunnel {
    /// GRE and IP in IP.
    Gre,
    /// UDP ports 4789 and 8472.
    Vxlan,
    /// UDP port 6081.
    Geneve,
    /// Look into no tunnel.
    None,
}

/// The command, for [`engine::cli::main`].
pub fn command() -> Extra {
    let command = clap::Command::new("fingerprint");
    Extra {
        command: Options::augment_args(command),
        run: |matches| Options::from_arg_matches(matches).map_or(Exit::Refused, |options| run(&options)),
    }
}

fn run(options: &Options) -> Exit {
    let has = |tunnel| options.tunnels.contains(&tunnel);
    let limits = Limits {
        ports: options.ports.clone(),
        max_flows: options.max_flows,
        tunnels: Tunnels { gre: has(Tunnel::Gre), vxlan: has(Tunnel::Vxlan), geneve: has(Tunnel::Geneve) },
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
        left: options.count.unwrap_or(u64::MAX),
        counters: options.counters,
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
    engine::cli::complain(message);
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
    /// Hellos still wanted.
    left: u64,
    counters: bool,
}

impl<W: Write> Work<W> {
    /// Files one after the other; one that cannot be read does not keep the others back.
    fn files(&mut self, options: &Options) -> Result<Exit, Stop> {
        let mut exit = Exit::Ok;
        for path in &options.files {
            let shown = path.display().to_string();
            let opened = match path.as_os_str() == "-" {
                true => {
                    pcap::Capture::from_file_with_precision("-", pcap::Precision::Nano).map_err(|error| message(&error))
                }
                false => crate::source::pcap::open(path),
            };
            let filter = Filter::new(options.filter.clone(), Vec::new());
            let capture = opened.and_then(|mut capture| filter.set(&mut capture).map(|()| capture));
            let mut capture = match capture {
                Ok(capture) => capture,
                Err(error) => {
                    exit = complain(&error, Exit::Failed);
                    continue;
                }
            };
            let linktype = capture.get_datalink().0;
            if !client_hello::is_supported(linktype) {
                exit = complain(&format!("{shown}: packets of linktype {linktype} cannot be decoded"), Exit::Failed);
                continue;
            }
            let mut extractor = HelloExtractor::new(self.limits.clone());
            loop {
                match capture.next_packet() {
                    Ok(packet) => self.packet(&mut extractor, linktype, &packet)?,
                    Err(pcap::Error::NoMorePackets) => break,
                    Err(error) => {
                        // What stands before the break is as good as in a whole file.
                        exit = complain(&format!("{shown} breaks off: {}", message(&error)), Exit::Failed);
                        break;
                    }
                }
                if self.left == 0 {
                    break;
                }
            }
            extractor.finish();
            self.count(&extractor, &[]);
        }
        Ok(exit)
    }

    /// Interfaces side by side, until the time or the number of hellos is over.
    fn interfaces(&mut self, options: &Options) -> Result<Exit, Stop> {
        let mut captures = Vec::new();
        for interface in &options.interface {
            let settings = Settings {
                interface: interface.clone(),
                filter: Filter::new(options.filter.clone(), Vec::new()),
                snaplen: options.snaplen.into(),
                promiscuous: options.promiscuous,
                buffer_size: i32::try_from(options.buffer_size).unwrap_or(i32::MAX),
            };
            captures.push(settings.open()?);
        }
        let dropped = crate::source::capabilities::drop_all();
        if let Err(error) = dropped {
            complain(&format!("capabilities are kept: {error}"), Exit::Ok);
        }
        let mut extractor = HelloExtractor::new(self.limits.clone());
        let end = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        while self.left > 0 && end.is_none_or(|end| Instant::now() < end) {
            let mut idle = true;
            for (capture, interface) in captures.iter_mut().zip(&options.interface) {
                let linktype = capture.get_datalink().0;
                for _ in 0..BURST {
                    match capture.next_packet() {
                        Ok(packet) => self.packet(&mut extractor, linktype, &packet)?,
                        Err(pcap::Error::TimeoutExpired) => break,
                        Err(error) => {
                            let text = format!("the capture on {interface} ended: {}", message(&error));
                            return Err(Stop::Capture(text.into()));
                        }
                    }
                    idle = false;
                    if self.left == 0 {
                        break;
                    }
                }
            }
            self.output.flush()?;
            if idle {
                std::thread::sleep(SLEEP);
            }
        }
        let mut kernel = [("kernel_received", 0), ("kernel_dropped", 0)];
        for capture in &mut captures {
            if let Ok(stats) = capture.stats() {
                kernel[0].1 += u64::from(stats.received);
                kernel[1].1 += u64::from(stats.dropped) + u64::from(stats.if_dropped);
            }
        }
        self.count(&extractor, &kernel);
        Ok(Exit::Ok)
    }

    fn packet(&mut self, extractor: &mut HelloExtractor, linktype: i32, packet: &pcap::Packet<'_>) -> Result<(), Stop> {
        let mut written = Ok(());
        extractor.packet(timestamp(packet.header), linktype, packet.data, packet.header.len, &mut |hello| {
            if self.left > 0 && written.is_ok() {
                self.left -= 1;
                written = self.output.hello(&hello);
            }
        });
        Ok(written?)
    }

    fn count(&self, extractor: &HelloExtractor, more: &[(&'static str, u64)]) {
        if self.counters {
            for (name, value) in more.iter().copied().chain(extractor.counters().iter()) {
                let _ = writeln!(io::stderr(), "{name} {value}");
            }
        }
    }
}

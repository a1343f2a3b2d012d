//! `ja4-engine fingerprint`: one line a ClientHello, of capture files or of interfaces, without a pipeline.

mod fields;
mod live;
mod output;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches, ValueEnum};
use client_hello::{Frame, Hello, HelloExtractor, Limits, Tunnels};
use engine::cli::{Exit, Extra};
use engine::render::{Failure, FailureClass};

use self::fields::Field;
use self::output::{Format, Output};
use crate::source::bpf::{Filter, message};
use crate::source::packets::timestamp;
use crate::source::pcap_file::PcapFile;

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
            let done = match path.as_os_str() == "-" || options.filter.is_some() {
                true => self.by_libpcap(path, options)?,
                false => match PcapFile::open(path) {
                    Ok(Some(file)) => self.by_pieces(path, file)?,
                    // Whatever it is, libpcap reads it or says why not.
                    Ok(None) | Err(_) => self.by_libpcap(path, options)?,
                },
            };
            if let Err(message) = done {
                exit = complain(&message, Exit::Failed);
            }
        }
        Ok(exit)
    }

    /// A file in the classic format. The inner error is what is wrong with the file.
    fn by_pieces(&mut self, path: &Path, mut file: PcapFile<File>) -> Result<Result<(), String>, Stop> {
        let linktype = file.linktype();
        if let Err(message) = decodable(path, linktype) {
            return Ok(Err(message));
        }
        let mut extractor = HelloExtractor::new(self.limits.clone());
        let outcome = loop {
            match file.next() {
                Ok(Some(packet)) => self.packet(&mut extractor, packet.time, linktype, packet.wire_len, packet.data)?,
                Ok(None) => break Ok(()),
                // What stands before the break is as good as in a whole file.
                Err(error) => break Err(format!("{} breaks off: {error}", path.display())),
            }
            if self.left == 0 {
                break Ok(());
            }
        };
        self.hand_on(|emit| extractor.finish(emit))?;
        self.count(&extractor, &[]);
        Ok(outcome)
    }

    /// Any capture file that libpcap reads, and standard input; as [`Work::by_pieces`].
    fn by_libpcap(&mut self, path: &Path, options: &Options) -> Result<Result<(), String>, Stop> {
        let opened = match path.as_os_str() == "-" {
            true => {
                pcap::Capture::from_file_with_precision("-", pcap::Precision::Nano).map_err(|error| message(&error))
            }
            false => crate::source::pcap::open(path),
        };
        let filter = Filter::new(options.filter.clone(), Vec::new());
        let opened = opened.and_then(|mut capture| filter.set(&mut capture).map(|()| capture));
        let checked = opened.and_then(|capture| decodable(path, capture.get_datalink().0).map(|()| capture));
        let mut capture = match checked {
            Ok(capture) => capture,
            Err(message) => return Ok(Err(message)),
        };
        let linktype = capture.get_datalink().0;
        let mut extractor = HelloExtractor::new(self.limits.clone());
        let outcome = loop {
            match capture.next_packet() {
                Ok(packet) => {
                    let time = timestamp(packet.header);
                    self.packet(&mut extractor, time, linktype, packet.header.len, packet.data)?;
                }
                Err(pcap::Error::NoMorePackets) => break Ok(()),
                Err(error) => break Err(format!("{} breaks off: {}", path.display(), message(&error))),
            }
            if self.left == 0 {
                break Ok(());
            }
        };
        self.hand_on(|emit| extractor.finish(emit))?;
        self.count(&extractor, &[]);
        Ok(outcome)
    }

    fn packet(
        &mut self,
        extractor: &mut HelloExtractor,
        time: i64,
        linktype: i32,
        wire_len: u32,
        data: &[u8],
    ) -> Result<(), Stop> {
        let frame = Frame { wire_len, ..Frame::whole(time, linktype, data) };
        self.hand_on(|emit| extractor.packet(&frame, emit))
    }

    /// Writes the hellos that `find` hands on.
    fn hand_on(&mut self, find: impl FnOnce(&mut dyn FnMut(Hello))) -> Result<(), Stop> {
        let mut written = Ok(());
        find(&mut |hello| {
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

fn decodable(path: &Path, linktype: i32) -> Result<(), String> {
    match client_hello::is_supported(linktype) {
        true => Ok(()),
        false => Err(format!("{}: packets of linktype {linktype} cannot be decoded", path.display())),
    }
}

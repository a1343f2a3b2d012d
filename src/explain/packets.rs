//! The packets behind hellos: copied out of captures, and fingerprinted again by the sensor's code.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufWriter;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use capture_file::{CaptureFile, Kind, PcapWriter};
use client_hello::{Endpoints, Frame, Hello, HelloExtractor, Limits, Tunnels};
use serde::Serialize;
use serde_json::Value;

use super::gather::nanoseconds;
use crate::history::Row;

/// How long before its hello a connection may have begun, in ns: longer than the sensor waits.
const BEFORE: i64 = 60_000_000_000;

/// How long after it packets are still copied, in ns: for the server's acknowledgement.
const AFTER: i64 = 1_000_000_000;

/// The most packets of a connection.
const MAX_OF_CONNECTION: u32 = 1000;

/// The furthest in time that a hello of the capture may be from its row to be taken for the same, in ns.
const SAME: i64 = 60_000_000_000;

/// The most hellos of a capture that are compared: a bundle has far fewer, but a folder comes from anybody.
const MAX_FOUND: usize = 100_000;

/// A connection: the client, its port, the server and its port.
type Connection = (IpAddr, u16, IpAddr, u16);

/// A hello as a row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    connection: Connection,
    /// Nanoseconds since the epoch.
    time: i64,
    ja4: String,
    /// 0 for the first hello of a connection.
    index: u64,
}

/// What became of copying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Packets that were copied.
    pub packets: u64,
    /// Packets of these connections that were not: beyond a connection's bound, or of another link than the first.
    pub left_out: u64,
}

/// How the hellos of a capture agree with rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Rows whose JA4 the sensor finds again.
    pub agree: usize,
    /// Rows whose connection has another JA4 in the capture, each as a sentence.
    pub disagree: Vec<String>,
    /// Rows whose hello is not in the capture.
    pub missing: usize,
    /// Hellos of the capture that are of no row, each as a sentence.
    pub unknown: Vec<String>,
}

/// The hello of a row, if it says which.
fn known(row: &Row) -> Option<Known> {
    let address = |name: &str| Some(row.get(name)?.as_str()?.parse::<IpAddr>().ok()?.to_canonical());
    let port = |name: &str| u16::try_from(row.get(name)?.as_u64()?).ok();
    Some(Known {
        connection: (address("src_ip")?, port("src_port")?, address("dst_ip")?, port("dst_port")?),
        time: nanoseconds(row.get("time")?.as_str()?)?,
        ja4: row.get("ja4")?.as_str()?.to_owned(),
        index: row.get("hello").and_then(Value::as_u64).unwrap_or(0),
    })
}

/// Copies the packets of the connections of these hellos from captures, in their order, to `out`. `None` if there are none, and
/// then there is no file.
///
/// # Errors
/// If a capture cannot be read, or the file not written.
pub fn copy(captures: &[PathBuf], rows: &[Row], out: &Path) -> Result<Option<Copied>, String> {
    let mut wanted: HashMap<Connection, Vec<i64>> = HashMap::new();
    for known in rows.iter().filter_map(known) {
        wanted.entry(known.connection).or_default().push(known.time);
    }
    let mut copy = Copy { wanted, counts: HashMap::new(), out, writer: None, copied: Copied::default() };
    for capture in captures {
        copy.capture(capture)?;
    }
    let Some(writer) = copy.writer else { return Ok(None) };
    writer.finish().map_err(|error| format!("{} cannot be written: {error}", out.display()))?;
    Ok(Some(copy.copied))
}

struct Copy<'a> {
    wanted: HashMap<Connection, Vec<i64>>,
    /// Packets copied of each connection.
    counts: HashMap<Connection, u32>,
    out: &'a Path,
    writer: Option<PcapWriter<BufWriter<File>>>,
    copied: Copied,
}

impl Copy<'_> {
    fn capture(&mut self, path: &Path) -> Result<(), String> {
        let fault = |error: capture_file::Error| format!("{} {error}", path.display());
        let mut capture = CaptureFile::open(path).map_err(fault)?;
        loop {
            let record = match capture.next_record() {
                Ok(Some(record)) => record,
                // What stands before the break is as good as in a whole file.
                Err(error) if error.kind() == Kind::Truncated => return Ok(()),
                Ok(None) => return Ok(()),
                Err(error) => return Err(fault(error)),
            };
            let Some(ends) = client_hello::endpoints(record.linktype, record.data, Tunnels::ALL) else { continue };
            let Some(connection) = self.connection(&ends, record.time) else { continue };
            let count = self.counts.entry(connection).or_default();
            if *count >= MAX_OF_CONNECTION {
                self.copied.left_out += 1;
                continue;
            }
            *count += 1;
            let cannot = |error: std::io::Error| format!("{} cannot be written: {error}", self.out.display());
            let writer = match &mut self.writer {
                Some(writer) => writer,
                none => {
                    let file = super::bundle::create(self.out)?;
                    none.insert(PcapWriter::new(BufWriter::new(file), record.linktype).map_err(cannot)?)
                }
            };
            match writer.write(&record).map_err(cannot)? {
                true => self.copied.packets += 1,
                false => self.copied.left_out += 1,
            }
        }
    }

    /// The connection of a packet of either direction, if it is wanted at this time. A fragment without ports is of any between
    /// its addresses.
    fn connection(&self, ends: &Endpoints, time: i64) -> Option<Connection> {
        let near = |connection: &Connection| {
            let times = self.wanted.get(connection)?;
            times
                .iter()
                .any(|at| (at.saturating_sub(BEFORE)..=at.saturating_add(AFTER)).contains(&time))
                .then_some(*connection)
        };
        match ends.ports {
            Some((src, dst)) => near(&(ends.src, src, ends.dst, dst)).or_else(|| near(&(ends.dst, dst, ends.src, src))),
            None => self.wanted.keys().find_map(|connection| {
                let between = (connection.0, connection.2);
                let is_of = between == (ends.src, ends.dst) || between == (ends.dst, ends.src);
                near(connection).filter(|_| is_of)
            }),
        }
    }
}

/// Fingerprints the hellos of a capture and compares them with rows.
///
/// # Errors
/// If the capture cannot be read.
pub fn compare(capture: &Path, rows: &[Row]) -> Result<Agreement, String> {
    let mut found: BTreeMap<Connection, Vec<Known>> = BTreeMap::new();
    for hello in fingerprint(capture)? {
        found.entry(hello.connection).or_default().push(hello);
    }
    let mut agreement = Agreement::default();
    let said = |hello: &Known, ja4: &str| {
        let (src, src_port, dst, dst_port) = hello.connection;
        format!("{} from port {src_port} to {dst} port {dst_port}: {ja4}", src)
    };
    for row in rows {
        let Some(known) = known(row) else {
            agreement.missing += 1;
            continue;
        };
        let hellos = found.entry(known.connection).or_default();
        let distance = |hello: &Known| (hello.time.abs_diff(known.time), hello.index.abs_diff(known.index));
        let nearest = (0..hellos.len()).min_by_key(|at| distance(&hellos[*at]));
        let Some(nearest) = nearest.filter(|at| distance(&hellos[*at]).0 <= SAME.unsigned_abs()) else {
            agreement.missing += 1;
            continue;
        };
        let hello = hellos.swap_remove(nearest);
        match hello.ja4 == known.ja4 {
            true => agreement.agree += 1,
            false => {
                let both = format!("the row says {}, the capture {}", known.ja4, hello.ja4);
                agreement.disagree.push(said(&known, &both));
            }
        }
    }
    // The second hello of a connection is a row only where the pipeline says so.
    let unknown = found.into_values().flatten().filter(|hello| hello.index == 0);
    agreement.unknown = unknown.map(|hello| said(&hello, &hello.ja4)).collect();
    Ok(agreement)
}

/// The hellos of a capture.
fn fingerprint(path: &Path) -> Result<Vec<Known>, String> {
    let fault = |error: capture_file::Error| format!("{} {error}", path.display());
    let mut capture = CaptureFile::open(path).map_err(fault)?;
    let mut extractor = HelloExtractor::new(Limits { tunnels: Tunnels::ALL, starttls: true, ..Limits::default() });
    let mut found = Vec::new();
    while let Some(record) = capture.next_record().map_err(fault)? {
        let whole = Frame::whole(record.time, record.linktype, record.data);
        extractor.packet(&Frame { wire_len: record.wire_len, ..whole }, &mut |hello| found.push(known_of(hello)));
        if found.len() > MAX_FOUND {
            return Err(format!("{} has more than {MAX_FOUND} hellos, which no bundle has", path.display()));
        }
    }
    extractor.finish(&mut |hello| found.push(known_of(hello)));
    Ok(found)
}

fn known_of(hello: Hello) -> Known {
    Known {
        connection: (hello.src, hello.src_port, hello.dst, hello.dst_port),
        time: hello.time,
        ja4: hello.ja4,
        index: hello.index.into(),
    }
}

//! An evidence folder: what an explanation is made of, as files, with the hash of each.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::gather::Evidence;
use super::packets::{self, Agreement, Copied};
use super::render::{self, Extent};
use crate::history::{Row, text};

/// The version of the folder's format.
pub const FORMAT: u64 = 1;

/// The list of the other files.
pub const MANIFEST: &str = "manifest.json";

/// The hellos, a line each.
pub const HELLOS: &str = "hellos.jsonl";

/// Their packets.
pub const PACKETS: &str = "hellos.pcap";

/// What the manifest says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub format: u64,
    /// The version of the engine that made the folder.
    pub engine: String,
    /// The pipeline's name, where it is known.
    pub pipeline: Option<String>,
    /// When, in RFC 3339, by the clock of that machine.
    pub made: String,
    /// Whom it is about.
    pub client: String,
    /// Where the rows come from.
    pub origin: String,
    /// The models that scored the client.
    pub models: Vec<String>,
    /// What was asked, in order.
    pub queries: Vec<String>,
    /// Packets of the hellos, if a capture was named.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub packets: Value,
    /// Name, hash and size of each file.
    pub files: BTreeMap<String, Content>,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 in hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The hash of the manifest.
    pub sha256: String,
    /// Packets and how their hellos agree, if a capture was named and has any.
    pub packets: Option<(Copied, Agreement)>,
}

/// Writes the folder, which must not be there or be empty. Only the user may read it: it has addresses and paths of people.
///
/// # Errors
/// If a file cannot be written or a capture not read; the message names it.
pub fn write(
    dir: &Path,
    evidence: &Evidence,
    queries: Vec<String>,
    captures: &[PathBuf],
    extent: Extent,
) -> Result<Made, String> {
    prepare(dir)?;
    let mut report = evidence.report.clone();
    put(dir, "report.txt", render::render(&report, extent).as_bytes())?;
    put(dir, "requests.jsonl", lines(&report.requests.rows)?.as_bytes())?;
    put(dir, HELLOS, lines(&evidence.hellos)?.as_bytes())?;
    let groups = |of: fn(&super::report::Group) -> Value| {
        let group = |group: &super::report::Group| {
            json!({"window_start": group.window_start, "host": group.host, "src_ip": group.src_ip, "ja4": group.ja4,
                "said": of(group)})
        };
        Value::Array(report.groups.iter().map(group).collect())
    };
    put(dir, "features.json", text::json(&groups(|group| json!(group.features)))?.as_bytes())?;
    put(dir, "rules.json", text::json(&groups(|group| json!(group.judgements)))?.as_bytes())?;
    let packets = match packets::copy(captures, &evidence.hellos, &dir.join(PACKETS))? {
        Some(copied) => Some((copied, packets::compare(&dir.join(PACKETS), &evidence.hellos)?)),
        None => None,
    };
    // The rows are files of their own.
    report.requests.rows.truncate(extent.requests);
    report.hellos.rows.clear();
    put(dir, "report.json", text::json(&report)?.as_bytes())?;
    let mut files = BTreeMap::new();
    for name in names(dir)? {
        files.insert(name.clone(), content(&dir.join(&name))?);
    }
    let manifest = Manifest {
        format: FORMAT,
        engine: env!("CARGO_PKG_VERSION").to_owned(),
        pipeline: report.pipeline,
        made: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        client: report.client,
        origin: report.origin,
        models: report.models.into_iter().collect(),
        queries,
        packets: packets
            .as_ref()
            .map_or(Value::Null, |(copied, agreement)| json!({"copied": copied, "hellos": agreement})),
        files,
    };
    put(dir, MANIFEST, text::json(&manifest)?.as_bytes())?;
    Ok(Made { sha256: content(&dir.join(MANIFEST))?.sha256, packets })
}

fn prepare(dir: &Path) -> Result<(), String> {
    let fault = |error: io::Error| format!("{} cannot be made: {error}", dir.display());
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(fault)?;
    match fs::read_dir(dir).map_err(fault)?.next() {
        None => Ok(()),
        Some(_) => Err(format!("{} is not empty: a bundle is a folder of its own", dir.display())),
    }
}

/// A new file that its user alone may read.
///
/// # Errors
/// If it is there already, or cannot be made; the message names it.
pub fn create(path: &Path) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let path = dir.join(name);
    let mut file = create(&path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn lines(rows: &[Row]) -> Result<String, String> {
    let mut out = String::new();
    for row in rows {
        out.push_str(&serde_json::to_string(row).map_err(|error| format!("no JSON: {error}"))?);
        out.push('\n');
    }
    Ok(out)
}

/// The names of everything in a folder, in order.
///
/// # Errors
/// If it cannot be read; the message names it.
pub fn names(dir: &Path) -> Result<Vec<String>, String> {
    let fault = |error: io::Error| format!("{} cannot be read: {error}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(fault)? {
        names.push(entry.map_err(fault)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The hash and the size of a file.
///
/// # Errors
/// If it cannot be read, or is none but a link, a pipe or a folder; the message names it.
pub fn content(path: &Path) -> Result<Content, String> {
    let fault = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    if !fs::symlink_metadata(path).map_err(fault)?.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    let mut file = File::open(path).map_err(fault)?;
    let (mut sha, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; 64 << 10]);
    loop {
        match file.read(&mut piece).map_err(fault)? {
            0 => break,
            read => {
                sha.update(&piece[..read]);
                bytes += read as u64;
            }
        }
    }
    let sha256 = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Content { sha256, bytes })
}

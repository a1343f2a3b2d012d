//! `ja4-engine explain`: why a client was flagged, from the verdict down to its requests and hellos; and the evidence folder
//! that another machine verifies.

mod bundle;
mod client;
mod columns;
mod distribution;
mod gather;
mod hellos;
mod packets;
mod population;
mod render;
mod report;
mod verify;

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use command_line::{Exit, Extra, complain, print, print_json};

use client::Client;
use gather::{Evidence, Wanted, When, gather, nanoseconds};
use render::Extent;

use crate::history::roles::Roles;
use crate::history::{History, Origin, text};

/// The most requests that can be asked for.
const MAX_REQUESTS: u64 = 100_000;

/// Requests of a report, and of a bundle.
const REQUESTS: [usize; 2] = [20, 1000];

/// The format of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Why was a client flagged: verdict, score, features beside those of all groups, rules, labels, requests, hellos
#[derive(Debug, Args)]
struct Options {
    /// An address, or `address,host,ja4`: an empty part is any, `-` is none
    #[arg(required_unless_present = "verify")]
    client: Option<String>,
    #[command(flatten)]
    origin: Origin,
    /// Look at the window that this time is in: RFC 3339, such as 2026-11-23T15:40:00Z [default: the latest with the client]
    #[arg(long, value_name = "TIME", conflicts_with = "window")]
    at: Option<String>,
    /// Look at the windows that begin in this span, such as 2026-11-23T00:00:00Z/2026-11-24T00:00:00Z
    #[arg(long, value_name = "FROM/TO")]
    window: Option<String>,
    /// Compare features with the groups for which this SQL condition holds, such as "asn_label = 'human'" [default: all]
    #[arg(long, value_name = "SQL")]
    baseline: Option<String>,
    /// Features to show of each group
    #[arg(long, value_name = "N", default_value_t = 15)]
    features: usize,
    /// The latest requests to show, at most 100000 [default: 20; a bundle has 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=MAX_REQUESTS))]
    requests: Option<u64>,
    /// Which table is which, if their columns do not tell: ROLE=NAME; a role is requests, features, detections or hellos
    /// (repeatable)
    #[arg(long, value_name = "ROLE=NAME")]
    table: Vec<String>,
    /// Format of the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write an evidence folder: the report, requests, hellos, features, rules, and a manifest with the hash of each
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Capture files out of which the packets of the hellos are copied into the folder (repeatable)
    #[arg(long, value_name = "FILE", requires = "bundle")]
    pcap: Vec<PathBuf>,
    /// Check an evidence folder: the hash of each file, and the JA4 of each hello of which it has the packets
    #[arg(long, value_name = "DIR", conflicts_with_all = ["client", "bundle", "at", "window", "data"])]
    verify: Option<PathBuf>,
}

/// The command, for [`command_line::main`].
pub fn command() -> Extra {
    let command = Options::augment_args(clap::Command::new("explain"));
    Extra {
        command,
        run: |matches: &ArgMatches, _| match Options::from_arg_matches(matches) {
            Ok(options) => run(&options).unwrap_or_else(|(message, exit)| {
                complain(&message);
                exit
            }),
            Err(error) => {
                let _ = error.print();
                Exit::Refused
            }
        },
    }
}

/// Why there is no explanation.
type Fault = (String, Exit);

fn run(options: &Options) -> Result<Exit, Fault> {
    if let Some(dir) = &options.verify {
        return verified(dir);
    }
    let refused = |message| (message, Exit::Refused);
    let failed = |message| (message, Exit::Failed);
    let default = REQUESTS[usize::from(options.bundle.is_some())];
    let wanted = Wanted {
        client: Client::parse(options.client.as_deref().unwrap_or_default()).map_err(refused)?,
        when: when(options).map_err(refused)?,
        requests: options.requests.map_or(default, |requests| requests as usize),
        baseline: options.baseline.clone(),
    };
    let history = History::open(&options.origin).map_err(failed)?;
    let roles = Roles::find(&history, &options.table).map_err(refused)?;
    let Some(mut evidence) = gather(&history, &roles, &wanted).map_err(failed)? else {
        let message = format!(
            "nothing is stored of {} in {}: looked into the tables {}",
            wanted.client.written,
            history.origin,
            history.table_names()
        );
        return Err((message, Exit::NotFound));
    };
    let extent = Extent { features: options.features, requests: options.requests.map_or(REQUESTS[0], |n| n as usize) };
    if let Some(dir) = &options.bundle {
        let made = bundle::write(dir, &evidence, history.asked(), &options.pcap, extent).map_err(failed)?;
        say_made(dir, &made, !options.pcap.is_empty());
    }
    Ok(match options.format {
        Format::Text => print(&render::render(&evidence.report, extent)),
        Format::Json => print_json(&json(&mut evidence, extent).map_err(failed)?),
    })
}

fn json(evidence: &mut Evidence, extent: Extent) -> Result<String, String> {
    evidence.report.requests.rows.truncate(extent.requests);
    text::json(&evidence.report)
}

/// The hash belongs where the folder is not: who can change the folder can change the manifest in it.
fn say_made(dir: &std::path::Path, made: &bundle::Made, wanted_packets: bool) {
    text::say(&format!("{}: {} SHA-256 {}", dir.display(), bundle::MANIFEST, made.sha256));
    match &made.packets {
        Some((copied, agreement)) => text::say(&format!(
            "{} packets copied, {} left out; {} hellos have the JA4 of their row, {} another, {} are not in the captures",
            copied.packets,
            copied.left_out,
            agreement.agree,
            agreement.disagree.len(),
            agreement.missing
        )),
        None if wanted_packets => text::say("no packet of these hellos is in the captures"),
        None => {}
    }
}

fn verified(dir: &std::path::Path) -> Result<Exit, Fault> {
    let verified = verify::verify(dir).map_err(|message| (message, Exit::Failed))?;
    let mut lines = verified.lines.join("\n");
    lines.push_str(if verified.agrees { "\nverified\n" } else { "\nNOT verified\n" });
    match print(&lines) {
        Exit::Ok if !verified.agrees => Ok(Exit::Failed),
        exit => Ok(exit),
    }
}

/// Which windows are meant, with their times in RFC 3339.
fn when(options: &Options) -> Result<When, String> {
    let time = |text: &str| {
        let fault = || format!("`{text}` is no time: 2026-11-23T15:40:00Z is one");
        let ns = nanoseconds(text.trim()).and_then(|ns| u64::try_from(ns).ok()).ok_or_else(fault)?;
        Ok::<_, String>(humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(ns)).to_string())
    };
    match (&options.at, &options.window) {
        (Some(at), _) => Ok(When::At(time(at)?)),
        (None, Some(window)) => {
            let fault = || format!("`{window}` is no span: FROM/TO, two times in RFC 3339");
            let (from, to) = window.split_once('/').ok_or_else(fault)?;
            let (from, to) = (time(from)?, time(to)?);
            if from >= to {
                return Err(format!("`{window}` ends before it begins"));
            }
            Ok(When::Between(from, to))
        }
        (None, None) => Ok(When::Latest),
    }
}

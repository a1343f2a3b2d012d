//! `ja4-engine rules export`: from a query over detections to rules of other programs, each with its reason and its end.

mod dry_run;
mod entity;
mod entries;
mod formats;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{ArgMatches, Args, FromArgMatches, Subcommand};
use command_line::{Exit, Extra, complain, print};
use ipnet::IpNet;

use entity::Guard;
use entries::{By, Entries};
use formats::{About, Action, Format};

use crate::history::roles::Roles;
use crate::history::text::say;
use crate::history::{History, Origin};

/// How long an entry can last.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

#[derive(Debug, Subcommand)]
enum Rules {
    /// Write the clients of a query as rules of another program, each with its reason and its expiry
    Export(Box<Options>),
}

#[derive(Debug, Args)]
struct Options {
    /// The program that the rules are for
    #[arg(long, value_enum)]
    format: Format,
    /// Whom: SELECT src_ip, reason FROM detections WHERE …; ip_prefix(src_ip, 24, 64) AS src_ip for networks; `ja4` too for
    /// --by address-and-ja4
    #[arg(long, value_name = "SQL")]
    query: String,
    #[command(flatten)]
    origin: Origin,
    /// By what clients are told apart
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// Allow `--by ja4`. A JA4 is a program and not a client: that of a common browser hits everybody who uses it
    #[arg(long)]
    ja4_alone: bool,
    /// How long an entry lasts, such as 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Where to write, in place of what is there [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write no rules; say whom they would have hit in what is stored
    #[arg(long, conflicts_with = "out")]
    dry_run: bool,
    /// A dry run looks no further back than this time, RFC 3339
    #[arg(long, value_name = "TIME", requires = "dry_run", value_parser = since)]
    since: Option<String>,
    /// Let private and local addresses pass, and those of this machine and its servers
    #[arg(long)]
    allow_private: bool,
    /// Addresses or networks that never become a rule, besides those of this machine and the servers in the request log
    /// (repeatable)
    #[arg(long, value_name = "NETWORK", value_parser = entity::network)]
    own: Vec<IpNet>,
    /// The most entries; more are refused
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_entries: usize,
    /// Which table is which, if their columns do not tell: ROLE=NAME; a role is requests, features, detections or hellos
    /// (repeatable)
    #[arg(long, value_name = "ROLE=NAME")]
    table: Vec<String>,
    /// What Anubis does
    #[arg(long, value_enum, default_value_t)]
    action: Action,
    /// The request header in which Anubis finds the JA4
    #[arg(long, value_name = "NAME", default_value = "X-JA4", value_parser = header)]
    ja4_header: String,
}

fn header(text: &str) -> Result<String, &'static str> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain { Ok(text.to_owned()) } else { Err("a header's name has letters, digits and `-`") }
}

fn since(text: &str) -> Result<String, String> {
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| error.to_string())?;
    Ok(humantime::format_rfc3339_nanos(time).to_string())
}

/// The command, for [`command_line::main`].
pub fn command() -> Extra {
    let command = Rules::augment_subcommands(clap::Command::new("rules"))
        .about("From detections to action: rules for nftables, HAProxy, nginx, Anubis and CrowdSec")
        .subcommand_required(true)
        .arg_required_else_help(true);
    Extra { command, run: |matches: &ArgMatches, _| main(matches) }
}

fn main(matches: &ArgMatches) -> Exit {
    match Rules::from_arg_matches(matches) {
        Ok(Rules::Export(options)) => export(&options).unwrap_or_else(|(message, exit)| {
            complain(&message);
            exit
        }),
        Err(error) => {
            let _ = error.print();
            Exit::Refused
        }
    }
}

/// Why there are no rules.
type Fault = (String, Exit);

fn export(options: &Options) -> Result<Exit, Fault> {
    let refused = |message: String| (message, Exit::Refused);
    let failed = |message: String| (message, Exit::Failed);
    options.format.supports(options.by).map_err(|reason| refused(reason.to_owned()))?;
    if options.by == By::Ja4 && !options.ja4_alone {
        let message = "a JA4 is a program and not a client: a rule by it alone hits everybody who uses that program, which for a \
                       common browser is most people. --by address-and-ja4 is for one client; --ja4-alone says that this is meant";
        return Err(refused(message.to_owned()));
    }
    if options.ttl.as_secs() == 0 || options.ttl > LONGEST {
        return Err(refused("--ttl is from 1s to 10 years".to_owned()));
    }
    let history = History::open(&options.origin).map_err(failed)?;
    let roles = Roles::find(&history, &options.table).map_err(refused)?;
    let found = find(options, &history, &roles)?;
    for (reason, (count, first)) in &found.refused {
        say(&format!("{count} rows became no entry: {reason}, such as {first}"));
    }
    if found.within > 0 {
        say(&format!("{} entries are within the network of another", found.within));
    }
    if found.entries.is_empty() {
        return Err((format!("the query gives nobody to write rules for, in {}", history.origin), Exit::NotFound));
    }
    if options.dry_run {
        let hits = dry_run::dry_run(&history, &roles, &found.entries, options.since.as_deref()).map_err(failed)?;
        return Ok(print(&hits.text()));
    }
    let about = About {
        made: SystemTime::now(),
        ttl: options.ttl,
        origin: history.origin.clone(),
        query: options.query.clone(),
        by: options.by,
        ja4_header: options.ja4_header.clone(),
        action: options.action,
    };
    let text = options.format.write(&found.entries, &about);
    let Some(out) = &options.out else { return Ok(print(&text)) };
    replace(out, &text).map_err(|error| failed(format!("{} cannot be written: {error}", out.display())))?;
    say(&format!("{}: {} entries", out.display(), found.entries.len()));
    Ok(Exit::Ok)
}

/// The entries of the query.
fn find(options: &Options, history: &History, roles: &Roles) -> Result<Entries, Fault> {
    let failed = |message: String| (message, Exit::Failed);
    let mut guard = Guard { allow_private: options.allow_private, own: options.own.clone() };
    if !options.allow_private {
        guard.own.extend(entity::local_addresses());
        guard.own.extend(dry_run::servers(history, roles).map_err(failed)?);
    }
    let answer = history.ask(&options.query).map_err(failed)?;
    if answer.truncated {
        let message = "the query gives more rows than the service answers: narrow it, or SELECT DISTINCT";
        return Err(failed(message.to_owned()));
    }
    let mut columns = Vec::new();
    if let Some(batch) = answer.batches.first() {
        columns.extend(batch.schema().fields().iter().map(|field| field.name().clone()));
    }
    let rows = answer.rows().map_err(failed)?;
    if rows.is_empty() {
        return Ok(Entries::default());
    }
    entries::entries(&rows, &columns, options.by, &guard, options.max_entries)
        .map_err(|message| (message, Exit::Refused))
}

/// Puts a file in place of another: a program that reads it meanwhile sees one or the other.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create_new(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is left of it is of no use.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("rules");
        for text in ["first", "second"] {
            replace(&path, text).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
        assert!(replace(&dir.path().join("none/rules"), "x").is_err());
    }

    #[test]
    fn names_of_headers_are_plain() {
        assert!(header("X-JA4").is_ok());
        assert!(["", "X:", "a b", "a\n"].iter().all(|text| header(text).is_err()));
        assert_eq!(since("2026-11-23 15:00:00").as_deref(), Ok("2026-11-23T15:00:00.000000000Z"));
    }
}

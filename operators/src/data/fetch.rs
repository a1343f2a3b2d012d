//! `data fetch`: gets lists, converts them to what nodes read, and puts them in place of those that are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, NaiveDate};
use command_line::{Exit, complain, print};
use engine::contract::{age, day, file_time, read_content};
use engine::spec::nearest;
use engine::text::line;

use super::known::{self, Known, Origin};
use super::notes::{self, Note};
use super::{package, prefixes, tools, write};
use crate::enrich::inspect::{About, List};

/// A list as it was got.
struct Got {
    content: Vec<u8>,
    /// From when it is.
    made: Option<SystemTime>,
    /// Where it comes from, for people.
    source: String,
    /// Whether it is what the table of lists says, so that its licence is known; a file from elsewhere may be anything.
    is_known: bool,
}

impl Got {
    fn licence(&self, known: &Known) -> &'static str {
        if self.is_known { known.licence } else { "not known; it came by --from" }
    }

    fn attribution(&self, known: &Known) -> Option<&'static str> {
        known.attribution.filter(|_| self.is_known)
    }
}

pub(super) fn fetch(names: &[String], from: Option<&str>, to: &Path) -> Exit {
    let mut wanted: Vec<&Known> = Vec::new();
    for name in names {
        let found = known::find(name);
        if found.is_empty() {
            let near =
                nearest(name, known::names()).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
            complain(&format!("no list is called `{name}`{near}; `ja4-engine data status` lists the names"));
            return Exit::Refused;
        }
        for known in found {
            if !wanted.iter().any(|other| other.name == known.name) {
                wanted.push(known);
            }
        }
    }
    if from.is_some() && wanted.len() != 1 {
        let names: Vec<&str> = wanted.iter().map(|known| known.name).collect();
        complain(&format!("--from gives one list; say which of {}", names.join(", ")));
        return Exit::Refused;
    }
    if let Err(error) = fs::create_dir_all(to) {
        complain(&format!("{} cannot be made: {error}", to.display()));
        return Exit::Failed;
    }
    // One list that cannot be had does not keep the others from being fetched.
    let mut exit = Exit::Ok;
    for known in wanted {
        match one(known, from, to) {
            Ok(said) => _ = print(&said),
            Err(why) => {
                complain(&format!("{}: {why}; what was there stays", known.name));
                exit = Exit::Failed;
            }
        }
    }
    exit
}

/// Fetches a list: what there is to say of it.
fn one(known: &Known, from: Option<&str>, to: &Path) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("there is no temporary folder: {error}"))?;
    let (path, source) = get(known, from, folder.path())?;
    let content = read_content(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let made = fs::metadata(&path).ok().and_then(|metadata| file_time(&metadata));
    let got = Got { content, made, source, is_known: from.is_none() };
    let got = match &known.origin {
        Origin::Package { name, members } => of_package(got, name, members)?,
        Origin::Prefixes { crawler, agents, .. } => of_prefixes(got, (*crawler, *agents), to)?,
    };
    let about = known.list.read(&got.content).map_err(|why| why.lines().next().unwrap_or_default().to_owned())?;
    if about.entries == 0 {
        return Err("the list is empty".to_owned());
    }
    let file = file(known, &got.content);
    write::replace(&to.join(file), &got.content, got.made)?;
    let note = Note {
        source: if known.list == List::Crawlers {
            "lists of the crawlers' makers".to_owned()
        } else {
            got.source.clone()
        },
        licence: got.licence(known).to_owned(),
        attribution: got.attribution(known).map(str::to_owned),
        fetched: day(SystemTime::now()),
        sha256: notes::digest(&got.content),
    };
    notes::add(to, file, note)?;
    Ok(said(known, &to.join(file), &about, &got))
}

/// The file that a list comes in, and where it comes from.
fn get(known: &Known, from: Option<&str>, folder: &Path) -> Result<(PathBuf, String), String> {
    let path = match (from, &known.origin) {
        (Some(url), _) if tools::is_url(url) => return Ok((tools::curl(url, folder)?, url.to_owned())),
        (Some(file), _) => return Ok((PathBuf::from(file), file.to_owned())),
        (None, Origin::Package { name, .. }) => tools::npm_pack(name, folder)?,
        (None, Origin::Prefixes { url, .. }) => tools::curl(url, folder)?,
    };
    Ok((path, known.source()))
}

/// The files of a package behind each other; a list that was given alone is one already.
fn of_package(got: Got, name: &str, members: &[&str]) -> Result<Got, String> {
    if !package::is_one(&got.content) {
        return Ok(got);
    }
    let wanted: Vec<&str> = members.iter().copied().chain(["package.json"]).collect();
    let mut found = package::members(&got.content, &wanted)?;
    let about = found.remove("package.json").unwrap_or_default();
    let about: serde_json::Value = serde_json::from_slice(&about).map_err(|error| format!("package.json: {error}"))?;
    let version = about["version"].as_str().unwrap_or("?");
    let content = members.iter().filter_map(|member| found.remove(*member)).flatten().collect();
    if about["name"] != name {
        return Ok(Got { content, ..got });
    }
    let published = || if got.is_known { published(name) } else { None };
    let made = of_version(version).or_else(published).or(got.made);
    let from = if got.is_known { String::new() } else { format!(", from {}", got.source) };
    Ok(Got { content, made, source: format!("npm {name} {version}{from}"), is_known: true })
}

/// When a package was published last.
fn published(name: &str) -> Option<SystemTime> {
    DateTime::parse_from_rfc3339(&tools::npm_published(name)?).ok().map(SystemTime::from)
}

/// The day in a version such as 2.3.2026061719.
fn of_version(version: &str) -> Option<SystemTime> {
    let day = version.rsplit('.').next()?.get(..8)?;
    let day = NaiveDate::parse_from_str(day, "%Y%m%d").ok().filter(|_| version.len() > 8)?;
    let seconds = day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?))
}

/// The file of crawlers with the prefixes of this one.
fn of_prefixes(got: Got, crawler: prefixes::Crawler<'_>, to: &Path) -> Result<Got, String> {
    let list = prefixes::read(&got.content)?;
    let day = list.day.unwrap_or_else(|| prefixes::day(got.made.unwrap_or_else(SystemTime::now)));
    let path = to.join(known::CRAWLERS.1);
    let before = path.exists().then(|| read_content(&path)).transpose();
    let before = before.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let content = prefixes::merge(before.as_deref(), crawler, &list.networks, day);
    let content = content.map_err(|why| format!("{}, to which it is added: {why}", path.display()))?;
    // The rows have the dates of their lists.
    Ok(Got { content, made: None, ..got })
}

/// What the file of a list is called: a database is no CSV, whatever the package has.
fn file(known: &Known, content: &[u8]) -> &'static str {
    let is_text = content.iter().take(64).all(|byte| *byte >= b' ' || byte.is_ascii_whitespace());
    match (known.file, is_text) {
        ("asn.csv", false) => "asn.mmdb",
        ("country.mmdb", true) => "country.csv",
        (file, _) => file,
    }
}

fn said(known: &Known, path: &Path, about: &About, got: &Got) -> String {
    let of = about.made.or(got.made).map(|made| {
        let old = SystemTime::now().duration_since(made).unwrap_or_default();
        format!(", of {}, {} old", day(made), age(old))
    });
    let mut text = format!(
        "{}: {}, {} entries{}\n  source: {}\n  licence: {}\n",
        line(&path.display().to_string()),
        about.what,
        about.entries,
        of.unwrap_or_default(),
        line(&got.source),
        line(got.licence(known))
    );
    let note = known.note.filter(|_| got.is_known);
    for (name, said) in [("attribution", got.attribution(known)), ("note", note), ("note", about.note.as_deref())] {
        if let Some(said) = said {
            text.push_str(&format!("  {name}: {}\n", line(said)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_days() {
        let of = |version: &str| of_version(version).map(day);
        assert_eq!(of("2.3.2026061719").as_deref(), Some("2026-06-17"));
        assert_eq!(
            [of("1.60.0"), of("1.2.99999999"), of(""), of("20260617"), of("1.é2026061719")],
            [const { None }; 5]
        );
    }

    #[test]
    fn files_are_named_by_what_they_are() {
        let asn = known::find("asn")[0];
        let country = known::find("country")[0];
        assert_eq!((file(asn, b"1.0.0.0,"), file(asn, b"\0\x01")), ("asn.csv", "asn.mmdb"));
        assert_eq!((file(country, b"network,"), file(country, b"\xff\0")), ("country.csv", "country.mmdb"));
    }
}

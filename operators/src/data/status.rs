//! `data status`: what files of reference data are, how old they are, and where they come from.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use command_line::{Exit, complain, print, print_json};
use engine::contract::{age, day, file_time, read_content};
use engine::text::line as plain;
use serde::Serialize;

use super::known::{self, Known};
use super::notes::{self, Notes};
use super::{Format, pipeline};
use crate::enrich::inspect::List;

/// A file, as it is shown.
#[derive(Debug, Default, Serialize)]
struct Shown {
    file: String,
    /// The nodes that name it.
    nodes: Vec<String>,
    /// What it is read as, such as `enrich.asn file`.
    read_as: String,
    /// What is in it.
    what: Option<String>,
    entries: Option<usize>,
    /// The day that the data is of.
    day: Option<String>,
    age_seconds: Option<u64>,
    source: Option<String>,
    licence: Option<String>,
    attribution: Option<String>,
    note: Option<String>,
    /// Why it cannot be used; one fault a line.
    fault: Option<String>,
}

/// A file that is asked about.
struct Asked {
    nodes: Vec<String>,
    /// What it is read as; a file alone shows it by its content.
    list: Option<List>,
    path: PathBuf,
}

pub(super) fn status(files: &[PathBuf], format: Format) -> Exit {
    if files.is_empty() {
        return print(&lists());
    }
    let mut asked: Vec<Asked> = Vec::new();
    // A pattern of names has it too.
    for path in files.iter().filter(|path| path.file_name().is_none_or(|name| name != notes::FILE)) {
        if !pipeline::is_one(path) {
            asked.push(Asked { nodes: Vec::new(), list: None, path: path.clone() });
            continue;
        }
        match pipeline::files(path) {
            Ok(named) => named.into_iter().for_each(|named| add(&mut asked, named)),
            Err(why) => {
                complain(&why);
                return Exit::Refused;
            }
        }
    }
    let mut notes = HashMap::new();
    let shown: Vec<Shown> = asked.iter().map(|asked| look(asked, &mut notes)).collect();
    let is_complete = shown.iter().all(|shown| shown.fault.is_none());
    let said = match format {
        Format::Text if shown.is_empty() => print("no node names a file of reference data\n"),
        Format::Text => print(&shown.iter().map(text).collect::<String>()),
        Format::Json => print_json(&serde_json::to_string_pretty(&shown).map(|text| text + "\n").unwrap_or_default()),
    };
    match said {
        Exit::Ok if !is_complete => Exit::Failed,
        exit => exit,
    }
}

/// A file that several nodes name in one way is asked about once.
fn add(asked: &mut Vec<Asked>, named: pipeline::Named) {
    match asked.iter_mut().find(|asked| asked.path == named.path && asked.list == Some(named.list)) {
        Some(asked) => asked.nodes.push(named.node),
        None => asked.push(Asked { nodes: vec![named.node], list: Some(named.list), path: named.path }),
    }
}

/// Looks at a file. `notes` are those of folders that were looked at.
fn look(asked: &Asked, notes: &mut HashMap<PathBuf, Result<Notes, String>>) -> Shown {
    let Asked { nodes, list, path } = asked;
    let mut shown = Shown { file: path.display().to_string(), nodes: nodes.clone(), ..Shown::default() };
    shown.read_as = list.map(List::option).unwrap_or_default();
    let content = match read_content(path) {
        Ok(content) => content,
        Err(error) => {
            let is_missing = error.kind() == ErrorKind::NotFound;
            shown.fault = Some(if is_missing { missing(*list) } else { format!("it cannot be read: {error}") });
            return shown;
        }
    };
    let list = list.unwrap_or_else(|| List::of(&content));
    shown.read_as = list.option();
    let mut made = None;
    match list.read(&content) {
        Ok(about) => {
            (shown.what, shown.entries, made) = (Some(about.what), Some(about.entries), about.made);
            shown.note = about.note;
        }
        Err(why) => shown.fault = Some(why),
    }
    if let Some(made) = made.or_else(|| fs::metadata(path).ok().and_then(|metadata| file_time(&metadata))) {
        shown.day = Some(day(made));
        shown.age_seconds = Some(SystemTime::now().duration_since(made).unwrap_or_default().as_secs());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match notes.entry(folder.to_owned()).or_insert_with(|| notes::read(folder)) {
        Ok(notes) => {
            if let Some(note) = notes.get(&*name) {
                let is_same = note.sha256 == notes::digest(&content);
                shown.source =
                    Some(if is_same { note.source.clone() } else { format!("{}, changed since", note.source) });
                shown.licence = Some(note.licence.clone());
                shown.attribution.clone_from(&note.attribution);
            }
        }
        Err(why) => shown.note = Some(why.clone()),
    }
    shown
}

/// Says that a file is missing, and what could be fetched for it.
fn missing(list: Option<List>) -> String {
    let mut names: Vec<&str> =
        known::ALL.iter().filter(|known| Some(known.list) == list).map(|known| known.name).collect();
    if list == Some(List::Crawlers) {
        names = vec![known::CRAWLERS.0];
    }
    match names[..] {
        [] => "it is missing".to_owned(),
        _ => format!("it is missing; `ja4-engine data fetch` knows {}", names.join(", ")),
    }
}

/// A file, for people.
fn text(shown: &Shown) -> String {
    let nodes = if shown.nodes.is_empty() { String::new() } else { format!(" ({})", shown.nodes.join(", ")) };
    let mut out = format!("{}{}\n", plain(&shown.file), plain(&nodes));
    let mut line = |name: &str, text: &str| _ = writeln!(out, "  {name}: {}", plain(text));
    for fault in shown.fault.iter().flat_map(|fault| fault.lines()) {
        line("fault", fault);
    }
    if let (Some(what), Some(entries)) = (&shown.what, shown.entries) {
        line(&shown.read_as, &format!("{what}, {entries} entries"));
    } else if !shown.read_as.is_empty() {
        line("read as", &shown.read_as);
    }
    if let (Some(day), Some(seconds)) = (&shown.day, shown.age_seconds) {
        line("of", &format!("{day}, {} old", age(std::time::Duration::from_secs(seconds))));
    }
    let unknown = "not known".to_owned();
    if shown.what.is_some() {
        line("source", shown.source.as_ref().unwrap_or(&unknown));
        line("licence", shown.licence.as_ref().unwrap_or(&unknown));
    }
    for (name, said) in [("attribution", &shown.attribution), ("note", &shown.note)] {
        if let Some(said) = said {
            line(name, said);
        }
    }
    out
}

/// The lists that can be fetched.
fn lists() -> String {
    let mut out = format!("{:<20} {:<20} {:<25} source, licence\n", "name", "read as", "file");
    for known in known::ALL {
        let Known { name, list, file, licence, .. } = known;
        let _ = writeln!(out, "{name:<20} {:<20} {file:<25} {}, {licence}", list.option(), known.source());
    }
    let (name, file) = known::CRAWLERS;
    let _ = writeln!(out, "{name:<20} {:<20} {file:<25} all lists of crawlers", List::Crawlers.option());
    out
}

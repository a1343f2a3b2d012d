//! The sections of a pipeline file: name, settings, nodes, what is served.

use std::path::PathBuf;
use std::time::Duration;

use super::serve::{self, Serve, ServeSpec};
use super::spool::SpoolSpec;
use super::{Diagnostic, Located, Span, Tree, Value, options};
use crate::files::Modes;

/// The sections of a pipeline.
pub(super) const SECTIONS: [&str; 8] = ["name", "tick", "data_dir", "dir_mode", "file_mode", "nodes", "serve", "spool"];

/// A pipeline as written.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// What the pipeline is called in logs, metrics and pages.
    pub name: String,
    /// Watermarks move in steps of this.
    pub tick: Duration,
    /// Where the embedded store lives, relative to the pipeline's file.
    pub data_dir: PathBuf,
    /// Permissions of the files and folders that a run makes.
    pub modes: Modes,
    /// What is probably not meant but can be run.
    pub warnings: Vec<Diagnostic>,
    /// The nodes in the order as written.
    pub nodes: Vec<NodeSpec>,
    /// What is served over HTTP.
    pub serve: Option<ServeSpec>,
    /// How what live sources receive is kept; `None` if it is not.
    pub spool: Option<SpoolSpec>,
}

/// A node as written.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// The name by which other nodes refer to it.
    pub id: Located<String>,
    /// The name of its kind.
    pub kind: Located<String>,
    /// Where its rows come from.
    pub from: From,
    /// The process that reads or writes for it, if several run the pipeline.
    pub process: Option<Located<usize>>,
    /// Whether its rows are kept in a log.
    pub durable: Option<Located<Durable>>,
    /// Everything else: the kind's own options, a mapping.
    pub options: Tree,
    /// The whole node.
    pub span: Span,
}

/// Whether a node's rows are kept in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// `true` or `false`.
    Whether(bool),
    /// For longer than `spool.retain`.
    For {
        /// How much event time is kept beyond what a restart needs.
        retain: Duration,
    },
}

impl Durable {
    /// Whether there is to be a log.
    pub fn is_on(self) -> bool {
        self != Self::Whether(false)
    }

    /// How much is kept, if that is said.
    pub fn retain(self) -> Option<Duration> {
        match self {
            Self::Whether(_) => None,
            Self::For { retain } => Some(retain),
        }
    }
}

/// A node's inputs as written.
#[derive(Clone, Debug)]
pub enum From {
    /// No `from` at all.
    Nothing,
    /// `from: id`, `from: id.port`, or `from: [id, …]`.
    One(Rows),
    /// `from: { name: id, … }`.
    Named(Vec<(Located<String>, Rows)>, Span),
}

/// Where the rows of one input come from.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `id` or `id.port` of each node; the rows of several become one input.
    pub of: Vec<Located<String>>,
    /// The whole of it.
    pub span: Span,
}

/// Settings of a pipeline.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Settings {
    /// What the pipeline is called in logs, metrics and pages.
    name: String,
    /// Watermarks move in steps of this. Default 100ms.
    #[serde(default = "default_tick", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    tick: Duration,
    /// Where the embedded store lives, relative to this file. Default `data`.
    #[serde(default = "default_data_dir")]
    data_dir: PathBuf,
    /// Permissions in octal of the folders that a run makes, `data_dir` included, whatever the umask. Folders that are there
    /// stay as they are. Default "0750".
    #[schemars(with = "Option<String>")]
    dir_mode: Option<Located<String>>,
    /// Permissions in octal of the files that a run makes, such as those of sinks and of the spool, whatever the umask. Default
    /// "0640".
    #[schemars(with = "Option<String>")]
    file_mode: Option<Located<String>>,
}

fn default_tick() -> Duration {
    Duration::from_millis(100)
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("data")
}

/// Durations as `10s`, `500ms`, `1h 30m`, for `#[serde(deserialize_with)]`.
pub mod humantime_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    /// Reads a duration.
    ///
    /// # Errors
    /// If the text is not a number with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map_err(serde::de::Error::custom)
    }

    /// Reads a duration, such as one of the command line.
    ///
    /// # Errors
    /// If the text is not a number with a unit, or its unit is `M`, which is taken for minutes as well as for months.
    pub fn parse(text: &str) -> Result<Duration, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|error| format!("`{text}` is not a duration such as 500ms, 10s or 1h: {error}"))?;
        let mut units = text.split(|c: char| !c.is_alphabetic());
        if units.any(|unit| unit == "M") {
            return Err(format!(
                "`{text}`: `M` may be minutes or months: write `min` or `m` for minutes, `month` for months"
            ));
        }
        if duration > LONGEST {
            return Err(format!("`{text}` is more than 100 years"));
        }
        Ok(duration)
    }

    const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);
}

impl Pipeline {
    /// Reads the sections; what is wrong goes to `problems`, and what can still be read is returned.
    pub fn read(tree: &Tree, problems: &mut Vec<Diagnostic>) -> Option<Pipeline> {
        let Some(entries) = tree.entries() else {
            problems.push(Diagnostic::new(tree.span, format!("a pipeline is a mapping, not {}", tree.kind())));
            return None;
        };
        let (mut settings, mut nodes, mut serve) = (Vec::new(), None, None);
        let mut spool = Some(SpoolSpec::default());
        for (key, value) in entries {
            match key.value.as_str() {
                "nodes" => nodes = Some(read_nodes(value, problems)),
                "serve" => serve = serve::read(value, problems),
                "spool" => spool = super::spool::read(value, problems),
                "name" | "tick" | "data_dir" | "dir_mode" | "file_mode" => settings.push((key.clone(), value.clone())),
                other => problems
                    .push(Diagnostic::new(key.span, format!("unknown section `{other}`")).nearest(other, SECTIONS)),
            }
        }
        if nodes.is_none() {
            problems.push(Diagnostic::new(tree.span, "the section `nodes` is missing"));
        }
        let settings = Tree { value: Value::Map(settings), span: tree.span };
        let settings: Settings = options::read(&settings, problems)?;
        let Settings { name, tick, data_dir, dir_mode, file_mode } = settings;
        let mut warnings = Vec::new();
        let modes = super::modes::read(file_mode.as_ref(), dir_mode.as_ref(), problems, &mut warnings);
        Some(Pipeline { name, tick, data_dir, modes, warnings, nodes: nodes?, serve, spool })
    }

    /// JSON Schemas of the settings, of the section `serve` and of the section `spool`.
    pub fn schemas() -> [schemars::Schema; 3] {
        [schemars::schema_for!(Settings), schemars::schema_for!(Serve), schemars::schema_for!(SpoolSpec)]
    }
}

fn read_nodes(tree: &Tree, problems: &mut Vec<Diagnostic>) -> Vec<NodeSpec> {
    let Value::List(items) = &tree.value else {
        problems.push(Diagnostic::new(tree.span, format!("`nodes` is a list, not {}", tree.kind())));
        return Vec::new();
    };
    if items.is_empty() {
        problems.push(Diagnostic::new(tree.span, "a pipeline needs at least one node"));
    }
    items.iter().filter_map(|item| read_node(item, problems)).collect()
}

fn read_node(tree: &Tree, problems: &mut Vec<Diagnostic>) -> Option<NodeSpec> {
    let Some(entries) = tree.entries() else {
        problems.push(Diagnostic::new(tree.span, format!("a node is a mapping, not {}", tree.kind())));
        return None;
    };
    let (mut id, mut kind, mut from, mut rest) = (None, None, From::Nothing, Vec::new());
    let (mut process, mut durable) = (None, None);
    for (key, value) in entries {
        match key.value.as_str() {
            "id" => id = read_name(value, "id", problems),
            "kind" => kind = read_name(value, "kind", problems),
            "from" => from = read_from(value, problems),
            "process" => process = options::read(value, problems),
            "durable" => durable = read_durable(value, problems),
            _ => rest.push((key.clone(), value.clone())),
        }
    }
    for (name, found) in
        [("id", entries.iter().any(|(k, _)| k.value == "id")), ("kind", entries.iter().any(|(k, _)| k.value == "kind"))]
    {
        if !found {
            problems.push(Diagnostic::new(tree.span, format!("a node needs `{name}`")));
        }
    }
    let id = id?;
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if id.value.is_empty() || !id.value.chars().all(valid) {
        problems.push(Diagnostic::new(id.span, format!("`{}` is not a name: use letters, digits, _ and -", id.value)));
    }
    let span = tree.span;
    let options = Tree { value: Value::Map(rest), span };
    Some(NodeSpec { id, kind: kind?, from, process, durable, options, span })
}

fn read_durable(tree: &Tree, problems: &mut Vec<Diagnostic>) -> Option<Located<Durable>> {
    /// What a mapping says.
    #[derive(serde::Deserialize)]
    struct For {
        #[serde(deserialize_with = "humantime_duration::deserialize")]
        retain: Duration,
    }
    let durable = match tree.entries() {
        Some(_) => Durable::For { retain: options::read::<For>(tree, problems)?.retain },
        None => Durable::Whether(options::read(tree, problems)?),
    };
    Some(Located::new(durable, tree.span))
}

fn read_name(tree: &Tree, what: &str, problems: &mut Vec<Diagnostic>) -> Option<Located<String>> {
    let text = tree.text();
    if text.is_none() {
        problems.push(Diagnostic::new(tree.span, format!("`{what}` is a name, not {}", tree.kind())));
    }
    text
}

fn read_from(tree: &Tree, problems: &mut Vec<Diagnostic>) -> From {
    match &tree.value {
        Value::Map(entries) => From::Named(
            entries.iter().filter_map(|(name, value)| Some((name.clone(), read_rows(value, problems)?))).collect(),
            tree.span,
        ),
        _ => read_rows(tree, problems).map_or(From::Nothing, From::One),
    }
}

fn read_rows(tree: &Tree, problems: &mut Vec<Diagnostic>) -> Option<Rows> {
    let Value::List(items) = &tree.value else {
        return Some(Rows { of: vec![read_name(tree, "from", problems)?], span: tree.span });
    };
    if items.is_empty() {
        problems.push(Diagnostic::new(tree.span, "a list of nodes names at least one"));
        return None;
    }
    let of: Vec<Located<String>> = items.iter().filter_map(|item| read_name(item, "from", problems)).collect();
    // What the YAML library calls the place of a list is its bracket.
    let span = Span { end: of.last().map_or(tree.span.end, |last| last.span.end.max(tree.span.end)), ..tree.span };
    (of.len() == items.len()).then_some(Rows { of, span })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Sources;
    use super::*;

    fn read(text: &str) -> (Option<Pipeline>, String) {
        let mut sources = Sources::default();
        let tree = Tree::parse(Path::new("p.yaml"), text.to_owned(), &mut sources, &|_| None).expect("valid YAML");
        let mut problems = Vec::new();
        let pipeline = Pipeline::read(&tree, &mut problems);
        (pipeline, sources.render(&problems, false))
    }

    #[test]
    fn a_pipeline_is_read_in_the_order_as_written() {
        let (pipeline, problems) = read(
            "name: x\ntick: 1s\nnodes:\n  - { id: b, kind: k, path: q }\n  - { id: a, kind: l, from: { z: b, y: b.late } }\n\
             serve: { tables: { t2: a, t1: b } }\n",
        );
        assert_eq!(problems, "");
        let pipeline = pipeline.expect("valid");
        assert_eq!(pipeline.tick, Duration::from_secs(1));
        assert_eq!(pipeline.nodes[0].options.get("path").and_then(Tree::text).map(|t| t.value).as_deref(), Some("q"));
        let From::Named(from, _) = &pipeline.nodes[1].from else { panic!("named") };
        assert_eq!((from[0].0.as_str(), from[1].1.of[0].as_str()), ("z", "b.late"));
        let serve = pipeline.serve.expect("there");
        assert_eq!(serve.tables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["t2", "t1"]);
    }

    #[test]
    fn where_a_node_is_is_no_option_of_its_kind() {
        let (pipeline, problems) =
            read("name: x\nnodes: [{ id: a, kind: k, process: 1, path: p }, { id: b, kind: k }]\n");
        assert_eq!(problems, "");
        let nodes = pipeline.expect("valid").nodes;
        assert_eq!(nodes[0].process.as_ref().map(|process| process.value), Some(1));
        assert!(nodes[0].options.get("process").is_none() && nodes[1].process.is_none());
        let (_, problems) = read("name: x\nnodes: [{ id: a, kind: k, process: -1 }]\n");
        assert!(problems.contains("a whole number, 0 or more"), "{problems}");
    }

    #[test]
    fn a_unit_that_may_be_another_is_refused() {
        let parse = humantime_duration::parse;
        for (text, seconds) in [
            ("1m", 60),
            ("1min", 60),
            ("1h 30m", 5400),
            ("1month", 2_630_016),
            ("1Min", 0),
            ("1 M", 0),
            ("100y", 3_155_760_000),
            ("400y", 0),
            ("1M", 0),
            ("1h 5M", 0),
        ] {
            match parse(text) {
                Ok(duration) => assert_eq!(duration.as_secs(), seconds, "{text}"),
                Err(message) => assert_eq!(0, seconds, "{message}"),
            }
        }
        assert!(parse("400y").is_err_and(|message| message.contains("more than 100 years")));
        assert!(parse("1M").is_err_and(|message| message.contains("minutes or months")));
    }

    #[test]
    fn every_fault_of_the_outline_is_reported_at_once() {
        let (_, problems) = read("name: x\nticks: 1s\ntick: soon\nnodes:\n  - { kind: k }\n  - 5\n");
        for part in ["unknown section `ticks`", "not a duration", "a node needs `id`", "a node is a mapping"] {
            assert!(problems.contains(part), "{part}: {problems}");
        }
    }
}

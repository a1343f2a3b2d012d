//! From a pipeline as written to a plan: typed, in the order of data flow, valid by construction.

pub mod diff;
mod durable;
mod identity;
mod island;
mod partition;
mod placement;
mod planner;
mod recorded;
mod resolve;
mod serve;
mod shared;
mod union;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::batch::EdgeType;
use crate::contract::{DATA_DIR, Kind, Node, Registry};
use crate::expr::Session;
use crate::files::{Claim, Modes};
use crate::spec::{self, Diagnostic, Pipeline, QueryLimits, Setting, Sources, SpoolSpec, Tree};

use planner::Planner;

pub use identity::{Definition, Digest};
pub use island::{Identity, Island, LogPorts};
pub use partition::Partition;
pub(crate) use shared::tables;

/// A pipeline that can be run.
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// Watermarks move in steps of this.
    pub tick: Duration,
    /// Where the embedded store lives.
    pub data_dir: PathBuf,
    /// Permissions of the files and folders that a run makes.
    pub modes: Modes,
    /// The nodes; each stands behind those that it reads.
    pub nodes: Vec<PlannedNode>,
    /// What is served over HTTP.
    pub serve: Option<Serve>,
    /// How what live sources receive is kept; `None` if it is not.
    pub spool: Option<SpoolSpec>,
    /// The YAML files that it was read from; the pipeline's own first.
    pub files: Vec<PathBuf>,
    /// All sections but the nodes, as they were written.
    pub sections: Setting,
    /// What is probably not meant but can be run, in one line each, with its place.
    pub warnings: Vec<String>,
}

/// A node of a plan.
pub struct PlannedNode {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// Its inputs, in the order of their numbers.
    pub inputs: Vec<Input>,
    /// The type of each input, by its number.
    pub types: Vec<EdgeType>,
    /// The types of its output ports.
    pub outputs: Vec<EdgeType>,
    /// Whether anything reads each output port.
    pub connected: Vec<bool>,
    /// Whether each output port leads, however far down, to a sink that records every change of a relation.
    pub recorded: Vec<bool>,
    /// Its rows are kept in a log, with so much event time beyond what a restart needs.
    pub durable: Option<Duration>,
    /// Only those read from the log that look back far; the others take the rows as they come.
    pub is_durable_for_some: bool,
    /// What builds it.
    pub node: Box<dyn Node>,
    /// The process that reads or writes for a source or a sink, if several run the pipeline.
    pub process: usize,
    /// What its YAML says.
    pub definition: Definition,
    /// Of its kind, its definition, `tick`, and the digests of its inputs: nodes of one digest compute the same from
    /// the same sources. The id does not count.
    pub digest: Digest,
    /// The same up to the logs that it, or those before it, read: nodes of one such digest compute the same from the same
    /// logs.
    pub behind_logs: Digest,
}

impl PlannedNode {
    /// What each input takes its rows from: one port, or several that are merged.
    pub fn slots(&self) -> impl Iterator<Item = &[Input]> {
        self.inputs.chunk_by(|a, b| a.slot == b.slot)
    }

    /// Takes what the node writes to; the error names the node and the path.
    pub(crate) fn claim(&self, goes_on: bool) -> Result<Vec<Claim>, String> {
        let facts = self.node.facts();
        Claim::take(facts.writes, facts.folders, (facts.follows, goes_on))
            .map_err(|error| format!("{}: {error}", self.id))
    }
}

/// How a pipeline is loaded.
pub struct LoadOptions<'a> {
    /// `NODE.OPTION=VALUE`, each in place of what the file says.
    pub overrides: &'a [String],
    /// `NODE=PATH`, each a recording in place of what a source receives; see [`crate::contract::Recorded`].
    pub inputs: &'a [String],
    /// Where everything is written in place of `data_dir` and of where the sinks' paths say.
    pub output: Option<&'a Path>,
    /// The environment variables.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> LoadOptions<'a> {
    /// A pipeline as it is written, with these environment variables.
    pub fn new(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { overrides: &[], inputs: &[], output: None, variable }
    }
}

/// An input of a planned node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The port's name; empty for `from: id`.
    pub name: String,
    /// Which of the node's inputs this is: several of one number are merged, in this order.
    pub slot: usize,
    /// Index of the node that is read.
    pub node: usize,
    /// Index of its output port.
    pub port: usize,
    /// Whether its rows come through a log.
    pub logged: bool,
}

/// What is served over HTTP.
#[derive(Clone, Debug)]
pub struct Serve {
    /// Address and port of the web service.
    pub listen: String,
    /// Names by which the web service is asked for, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The most rows that a table keeps in memory.
    pub hot_rows: usize,
    /// What queries may use.
    pub queries: QueryLimits,
    /// Name, node and port of each table.
    pub tables: Vec<(String, usize, usize)>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&str> = self.nodes.iter().map(|node| node.id.as_str()).collect();
        f.debug_struct("Plan").field("name", &self.name).field("nodes", &nodes).finish_non_exhaustive()
    }
}

impl Plan {
    /// Reads and checks a pipeline file; all that is wrong with it comes back at once.
    ///
    /// # Errors
    /// The faults, and the texts to show them with.
    pub fn load(path: &Path, registry: &Registry) -> Result<Plan, (Vec<Diagnostic>, Sources)> {
        Self::load_with(path, registry, &|name| std::env::var(name).ok())
    }

    /// [`Plan::load`] with the environment variables given.
    ///
    /// # Errors
    /// As [`Plan::load`].
    pub fn load_with(
        path: &Path,
        registry: &Registry,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Plan, (Vec<Diagnostic>, Sources)> {
        Self::load_as(path, registry, &LoadOptions::new(variable))
    }

    /// [`Plan::load`] with options in place of the file's.
    ///
    /// # Errors
    /// As [`Plan::load`].
    pub fn load_as(
        path: &Path,
        registry: &Registry,
        options: &LoadOptions<'_>,
    ) -> Result<Plan, (Vec<Diagnostic>, Sources)> {
        let variable = options.variable;
        let mut sources = Sources::default();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("the pipeline {} cannot be read: {error}", path.display());
                return Err((vec![Diagnostic { message, span: None, help: None }], sources));
            }
        };
        let mut tree = match Tree::parse(path, text, &mut sources, variable) {
            Ok(tree) => tree,
            Err(problems) => return Err((problems, sources)),
        };
        let mut problems = Vec::new();
        recorded::apply(&mut tree, options.inputs, registry, &mut sources, &mut problems);
        spec::apply_overrides(&mut tree, options.overrides, &mut sources, variable, &mut problems);
        let spec = Pipeline::read(&tree, &mut problems);
        let sections = tree.entries().unwrap_or_default().iter().filter(|(key, _)| key.value != "nodes");
        let sections = Setting::map(sections.map(|(key, value)| (key.value.as_str(), value)));
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let output = options.output;
        let session = Session::new();
        let warnings = Vec::new();
        let mut planner = Planner { registry, base, output, sources, problems, warnings, variable, sections, session };
        let plan = spec.and_then(|spec| planner.plan(spec));
        match plan {
            Some(plan) if planner.problems.is_empty() => {
                Ok(Plan { warnings: planner.sources.lines(&planner.warnings), ..plan })
            }
            _ => Err((planner.problems, planner.sources)),
        }
    }

    /// Whether what sources receive is kept on disk, so that the run can be continued and changed.
    pub fn is_spooled(&self) -> bool {
        self.spool.is_some() && !self.is_bounded()
    }

    /// The folder of the spool: a log for each live source, and how far each sink is.
    pub fn spool_dir(&self) -> PathBuf {
        let written = self.spool.as_ref().and_then(|spool| spool.dir.clone());
        written.unwrap_or_else(|| self.data_dir.join("spool"))
    }

    /// The folder of the run's state, if it keeps anything there.
    pub fn used_data_dir(&self) -> Option<&Path> {
        let keeps_there = |node: &PlannedNode| node.definition.paths.contains_key(DATA_DIR);
        (self.is_spooled() || self.nodes.iter().any(keeps_there)).then_some(&*self.data_dir)
    }

    /// Whether every source ends by itself.
    pub fn is_bounded(&self) -> bool {
        !self.nodes.iter().any(|n| n.node.facts().is_live)
    }
}

//! The contract between the engine and its operators.
//!
//! A kind of node is a type that implements [`Operator`]: its options struct, its ports, and how options and input
//! types become a [`Node`], which is valid by construction and shared by all workers. The engine sees kinds only through
//! a [`Registry`], a list in the order in which data flows.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::build_context::BuildContext;
use super::plan_context::PlanContext;
use super::sign::{Seen, Sign};
use crate::batch::{Edge, EdgeType, Stream, Time};
use crate::privileges::{Need, Privileges};
use crate::spec::{Diagnostic, Tree, options};

/// A kind of node.
pub trait Operator: 'static {
    /// What a user can set. Its doc comments are the manual: each field with meaning, unit and default.
    type Options: DeserializeOwned + schemars::JsonSchema;

    /// The name in YAML: the path of the operator's file, such as `enrich.asn`.
    const KIND: &'static str;

    /// One sentence for `list`.
    const SUMMARY: &'static str;

    /// The input ports.
    const INPUTS: Inputs;

    /// How a recording takes the place of what the source receives; `None` if there is no such thing.
    const RECORDED: Option<Recorded> = None;

    /// The output ports; an input that names only the node means the first.
    const OUTPUTS: &'static [Port];

    /// Which columns the inputs must have, and of what type.
    const NEEDS: &'static str = "any columns";

    /// Which columns leave.
    const GIVES: &'static str = "the columns of the input";

    /// Checks options against the inputs. Errors go to the context; `None` means that at least one was reported.
    fn plan(options: Self::Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>>;
}

/// A node whose options and inputs have been checked.
pub trait Node: Send + Sync {
    /// The type of each output port, in the order of [`Operator::OUTPUTS`]. A port's type may not depend on anything
    /// that is known only at run time.
    fn outputs(&self) -> Vec<EdgeType>;

    /// Builds the node into the dataflow of one worker; every worker builds the same. Returns one stream for each
    /// output port. A node without output ports returns one stream, which never carries a batch: its frontier says
    /// how far the node has got.
    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>>;

    /// What is known of the node once it is planned.
    fn facts(&self) -> Facts {
        Facts::default()
    }

    /// Whether the node would read a file of this path once there is one, such as by a pattern of names.
    fn may_read(&self, _path: &Path) -> bool {
        false
    }

    /// Asks the servers that the node uses whether they have what it needs, such as tables with its columns. Empty if they do.
    fn check_servers(&self) -> Vec<ServerFault> {
        Vec::new()
    }

    /// The tables of servers that the node writes to, as they would be made for it.
    fn server_tables(&self) -> Vec<ServerTable> {
        Vec::new()
    }

    /// Whether what a live source receives from could be opened now. Asked before a source is changed while the run goes
    /// on, so that a change that cannot work changes nothing.
    ///
    /// # Errors
    /// Why not.
    fn probe(&self, _privileges: &Privileges) -> Result<(), String> {
        Ok(())
    }

    /// What the node's counters suggest is wrong with what comes in. A hint for people: it is logged and shown, and
    /// changes nothing.
    fn sign(&self, _seen: &Seen) -> Sign {
        Sign::Unclear
    }

    /// The earliest event time in ms from which the node must have its input, so that what leaves it at message times
    /// from `time` on is complete and right. Never after `time`.
    fn needs_from(&self, time: Time) -> Time {
        time
    }

    /// The same for one of several inputs, by its number, such as that of a model which comes rarely.
    fn input_needs_from(&self, _input: usize, time: Time) -> Time {
        self.needs_from(time)
    }
}

/// What is known of a node once it is planned.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Files that the node reads while it runs.
    pub reads: Vec<PathBuf>,
    /// Files that the node makes anew. No other node may read or write them.
    pub writes: Vec<PathBuf>,
    /// Folders that the node alone writes to.
    pub folders: Vec<PathBuf>,
    /// Whether these are written to where their path is a symbolic link.
    pub follows: bool,
    /// The tables that the node stores beneath `data_dir`, in the order of its inputs.
    pub stores: Vec<String>,
    /// Whether the node tells the served tables of its inputs what it has stored, so that they need not keep it.
    pub keeps_tables: bool,
    /// Whether what the node gives depends on each change of a relation, tick by tick, and not only on the rows that stay: a
    /// sink that writes each change, a node whose rows settle with what was so at a tick.
    pub records_changes: bool,
    /// Whether the node shows groups of windows that are still open.
    pub has_windows: bool,
    /// Whether the node reads a source that never ends by itself.
    pub is_live: bool,
    /// Whether the node's rows are what a log keeps: small, and facts already. Those of a live source that are not, such as
    /// packets, are kept as what the nodes behind it make of them.
    pub yields_facts: bool,
    /// Whether the node changes rows long after they came. A log, which has rows that stay, would keep the changes from those
    /// behind it for as long: where they look back far, the log stands before this node.
    pub corrects: bool,
    /// What the node needs rights for that the process otherwise gives up.
    pub needs: Option<Need>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            reads: Vec::new(),
            writes: Vec::new(),
            folders: Vec::new(),
            follows: false,
            stores: Vec::new(),
            keeps_tables: false,
            records_changes: false,
            has_windows: false,
            is_live: false,
            yields_facts: true,
            corrects: false,
            needs: None,
        }
    }
}

/// Why a node cannot work with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerFault {
    /// It does not answer, or not to us; what it says.
    Unreachable(String),
    /// It does not have what the node needs; each difference.
    Unfit(String),
}

/// A table of a server that a node writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTable {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// Its columns by name, with their types in the server's words.
    pub columns: Vec<(String, String)>,
    /// What follows the columns in the statement that makes it.
    pub ending: String,
}

/// The input ports of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// A source.
    None,
    /// `from: id`.
    One,
    /// `from: { port: id, … }` with exactly these ports.
    Named(&'static [&'static str]),
    /// `from: id` or `from: { name: id, … }` with names that the user chooses.
    Any,
}

/// What a source becomes that reads a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The kind that reads it.
    pub kind: &'static str,
    /// The option with the recording's path.
    pub path: &'static str,
    /// Options that only make sense for what is received.
    pub without: &'static [&'static str],
}

/// An output port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name after the dot in `from: id.port`.
    pub name: &'static str,
    /// What leaves there.
    pub summary: &'static str,
}

/// A kind without its type.
#[derive(Clone, Copy)]
pub struct Kind {
    /// [`Operator::KIND`].
    pub name: &'static str,
    /// [`Operator::SUMMARY`].
    pub summary: &'static str,
    /// [`Operator::INPUTS`].
    pub inputs: Inputs,
    /// [`Operator::OUTPUTS`].
    pub outputs: &'static [Port],
    /// [`Operator::NEEDS`].
    pub needs: &'static str,
    /// [`Operator::GIVES`].
    pub gives: &'static str,
    /// [`Operator::RECORDED`].
    pub recorded: Option<Recorded>,
    /// JSON Schema of [`Operator::Options`].
    pub schema: fn() -> schemars::Schema,
    /// Reads the options from YAML and calls [`Operator::plan`].
    pub plan: fn(&Tree, &mut PlanContext<'_>) -> Option<Box<dyn Node>>,
}

impl Kind {
    /// The kind that `O` implements.
    pub fn of<O: Operator>() -> Self {
        fn plan<O: Operator>(tree: &Tree, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
            let mut problems: Vec<Diagnostic> = Vec::new();
            let read = options::read::<O::Options>(tree, &mut problems);
            let failed = !problems.is_empty();
            for problem in problems {
                context.report(problem);
            }
            match read {
                Some(options) => O::plan(options, context).filter(|_| !failed),
                None => None,
            }
        }
        Self {
            name: O::KIND,
            summary: O::SUMMARY,
            inputs: O::INPUTS,
            outputs: O::OUTPUTS,
            needs: O::NEEDS,
            gives: O::GIVES,
            recorded: O::RECORDED,
            schema: || schemars::schema_for!(O::Options),
            plan: plan::<O>,
        }
    }
}

/// The kinds that a pipeline can use, in the order in which data flows.
#[derive(Clone)]
pub struct Registry {
    kinds: Vec<Kind>,
    topics: Vec<Topic>,
}

/// Something besides the kinds that `list` tells about, such as what a rule is.
#[derive(Clone, Copy)]
pub struct Topic {
    /// Its name for `list`.
    pub name: &'static str,
    /// Other words for it.
    pub also: &'static [&'static str],
    /// One sentence.
    pub summary: &'static str,
    /// What there is to say besides, as Markdown.
    pub text: fn() -> String,
    /// JSON Schema of what is written there, if it is a mapping.
    pub schema: Option<fn() -> schemars::Schema>,
}

impl Registry {
    /// A registry of these kinds.
    pub fn new(kinds: Vec<Kind>) -> Self {
        Self { kinds, topics: Vec::new() }
    }

    /// With further topics for `list`.
    pub fn with_topics(self, topics: Vec<Topic>) -> Self {
        Self { topics, ..self }
    }

    /// What `list` tells about besides the kinds.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// All kinds.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The kind of this name.
    pub fn find(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|k| k.name == name)
    }
}

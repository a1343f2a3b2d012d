//! From nodes as written to planned nodes: their order, and each operator's own check.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::Digest as _;

use super::identity::{Definition, Digest};
use super::resolve::{Member, Resolved, Wanted};
use super::union::union;
use super::{Input, Plan, PlannedNode};
use crate::batch::EdgeType;
use crate::contract::{Facts, Inputs, Kind, Node, Notes, PlanContext, Redirect, Registry};
use crate::expr::Session;
use crate::spec::{Diagnostic, From, NodeSpec, Pipeline, Rows, Setting, Sources, Span, SpoolSpec, Tree};

/// Plans one pipeline and collects what is wrong with it.
pub(super) struct Planner<'a> {
    pub registry: &'a Registry,
    pub base: PathBuf,
    pub output: Option<&'a Path>,
    pub sources: Sources,
    pub problems: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub sections: Setting,
    pub session: Session,
}

/// Where a plan's files are.
struct Places {
    data_dir: PathBuf,
    spool: Option<SpoolSpec>,
    redirect: Option<Redirect>,
}

/// The nodes that are planned already.
#[derive(Default)]
pub(super) struct Planned {
    pub nodes: Vec<PlannedNode>,
    /// Where a resolved node is among `nodes`, unless it was refused.
    pub placed: HashMap<usize, usize>,
}

/// What a node takes in.
struct Edges {
    inputs: Vec<Input>,
    /// Name, type and place of each input, by slot.
    types: Vec<(String, EdgeType, Span)>,
}

impl Planned {
    /// Adds a node behind those that it reads. `number` is its own among the resolved nodes.
    fn add(&mut self, number: usize, node: PlannedNode) {
        for input in &node.inputs {
            self.nodes[input.node].connected[input.port] = true;
        }
        self.placed.insert(number, self.nodes.len());
        self.nodes.push(node);
    }

    /// Name, port and digest of what a node with these inputs reads.
    fn read_by(&self, inputs: &[Input]) -> Vec<(String, usize, Digest)> {
        let read = inputs.iter().enumerate().map(|(at, input)| {
            // Of several that are merged the order counts.
            let nth = inputs[..at].iter().filter(|other| other.slot == input.slot).count();
            let name = if nth == 0 { input.name.clone() } else { format!("{}[{nth}]", input.name) };
            (name, input.port, self.nodes[input.node].digest)
        });
        read.collect()
    }
}

impl Planner<'_> {
    /// The plan, or `None` if something is wrong with the pipeline.
    pub fn plan(&mut self, spec: Pipeline) -> Option<Plan> {
        self.warnings.extend(spec.warnings.iter().cloned());
        let places = self.places(&spec);
        let resolved = self.resolve(&spec.nodes);
        let mut planned = Planned::default();
        for number in self.order(&resolved)? {
            if let Some(node) = self.node(&resolved[number], &planned, &places, spec.tick) {
                planned.add(number, node);
            }
        }
        let is_complete = planned.nodes.len() == spec.nodes.len();
        self.check_files(&planned.nodes, &spec.nodes);
        let serve = spec.serve.as_ref().map(|section| self.serve(section, &spec.nodes, &resolved, &mut planned));
        let mut nodes = planned.nodes;
        super::durable::mark(&mut nodes, &spec.nodes, places.spool.as_ref(), &mut self.problems);
        note_recorded(&mut nodes);
        note_digests(&mut nodes, spec.tick);
        is_complete.then(|| Plan {
            name: spec.name,
            tick: spec.tick,
            data_dir: places.data_dir,
            modes: spec.modes,
            nodes,
            serve,
            spool: places.spool,
            files: self.sources.paths(),
            sections: self.sections.clone(),
            warnings: Vec::new(),
        })
    }

    /// Where the pipeline's files are, and whether what is to be written elsewhere can be.
    fn places(&mut self, spec: &Pipeline) -> Places {
        let mut data_dir = self.base.join(&spec.data_dir);
        let mut spool =
            spec.spool.clone().map(|spool| SpoolSpec { dir: spool.dir.map(|dir| self.base.join(dir)), ..spool });
        let redirect = self.output.map(|output| {
            // The spool stays where the pipeline has it.
            if let Some(spool) = &mut spool {
                spool.dir.get_or_insert_with(|| data_dir.join("spool"));
            }
            Redirect { from: std::mem::replace(&mut data_dir, output.to_owned()), to: output.to_owned() }
        });
        if let Some(redirect) = &redirect
            && let Err(message) = redirect.check(spool.as_ref().and_then(|spool| spool.dir.as_deref()))
        {
            self.problems.push(Diagnostic { message, span: None, help: None });
        }
        Places { data_dir, spool, redirect }
    }

    /// Plans a node behind those that it reads. `None` if it is refused, or cannot be checked because one of those was.
    fn node(&mut self, resolved: &Resolved, planned: &Planned, places: &Places, tick: Duration) -> Option<PlannedNode> {
        let Resolved { spec, kind, inputs } = resolved;
        let Edges { inputs, types } = self.edges(inputs, planned)?;
        let (built, notes) = self.build(resolved, &types, places, tick)?;
        let process = self.process(spec, kind);
        let definition = Definition::new(notes, placed_options(&spec.options, process), written(&spec.from));
        let digest = definition.digest(kind.name, tick, planned.read_by(&inputs));
        Some(PlannedNode {
            id: spec.id.value.clone(),
            kind: *kind,
            inputs,
            types: types.into_iter().map(|(_, ty, _)| ty).collect(),
            outputs: built.outputs(),
            connected: vec![false; kind.outputs.len()],
            recorded: vec![false; kind.outputs.len()],
            durable: None,
            is_durable_for_some: false,
            node: built,
            process,
            definition,
            digest,
            behind_logs: digest,
        })
    }

    /// The edges to a node. `None` if a node before it was refused, or if their rows do not fit together.
    fn edges(&mut self, wanted: &[Wanted], planned: &Planned) -> Option<Edges> {
        let mut types = Vec::with_capacity(wanted.len());
        let mut inputs = Vec::with_capacity(wanted.len());
        for Wanted { name, span, of } in wanted {
            let found: Vec<usize> =
                of.iter().map(|(from, ..)| planned.placed.get(from).copied()).collect::<Option<_>>()?;
            let ty = self.united(&planned.nodes, &found, of, *span)?;
            let slot = types.len();
            inputs.extend(found.into_iter().zip(of).map(|(node, (_, port, _))| Input {
                name: name.clone(),
                slot,
                node,
                port: *port,
                logged: false,
            }));
            types.push((name.clone(), ty, *span));
        }
        Some(Edges { inputs, types })
    }

    /// Has the operator check its options and inputs. What it asks for besides is noted.
    fn build(
        &mut self,
        Resolved { spec, kind, .. }: &Resolved,
        inputs: &[(String, EdgeType, Span)],
        places: &Places,
        tick: Duration,
    ) -> Option<(Box<dyn Node>, Notes)> {
        let faults = self.problems.len();
        let mut context = PlanContext {
            id: &spec.id.value,
            span: spec.span,
            tick,
            data_dir: &places.data_dir,
            notes: Notes::default(),
            inputs,
            base: &self.base,
            redirect: places.redirect.as_ref(),
            sources: &mut self.sources,
            problems: &mut self.problems,
            warnings: &mut self.warnings,
            variable: self.variable,
            session: &self.session,
        };
        let built = (kind.plan)(&spec.options, &mut context);
        let notes = context.notes;
        if built.is_none() && self.problems.len() == faults {
            self.problems
                .push(Diagnostic::new(spec.span, format!("`{}` refused the node without a reason", kind.name)));
        }
        Some((built?, notes))
    }

    /// The type of an input that takes the rows of these nodes.
    fn united(&mut self, nodes: &[PlannedNode], found: &[usize], of: &[Member], span: Span) -> Option<EdgeType> {
        let members: Vec<_> = found
            .iter()
            .zip(of)
            .map(|(node, (_, port, written))| (written.value.as_str(), &nodes[*node].outputs[*port]))
            .collect();
        // What works on packets and the like takes them in the order in which they come.
        let raw = found.iter().zip(of).find(|(node, _)| of.len() > 1 && !nodes[**node].node.facts().yields_facts);
        let united = match raw {
            Some((_, (.., written))) => {
                Err(format!("rows of `{}` cannot be merged: their order is that of one source", written.value))
            }
            None => union(&members),
        };
        let help = raw.map(|_| "give each a node of its own, such as tls.client_hello, and merge what leaves these");
        match united {
            Ok(ty) => Some(ty),
            Err(message) => {
                self.problems.push(Diagnostic { help: help.map(str::to_owned), ..Diagnostic::new(span, message) });
                None
            }
        }
    }

    /// The process that owns a source or a sink. Other nodes work in all of them.
    fn process(&mut self, node: &NodeSpec, kind: &Kind) -> usize {
        let Some(process) = &node.process else { return 0 };
        if kind.inputs != Inputs::None && !kind.outputs.is_empty() {
            let message = format!("`{}` works in all processes: only sources and sinks have a `process`", kind.name);
            self.problems.push(Diagnostic::new(process.span, message));
        }
        process.value
    }

    /// Refuses a node that writes a file which another node reads or writes.
    fn check_files(&mut self, nodes: &[PlannedNode], written: &[NodeSpec]) {
        let numbers: RefCell<HashMap<(u64, u64), PathBuf>> = RefCell::default();
        // The same file under another name: by a link, or in a folder that has two names.
        let real = |path: PathBuf| {
            let there = std::fs::metadata(&path).ok().filter(|there| there.is_file() && there.nlink() > 1);
            if let Some(id) = there.as_ref().map(crate::files::id) {
                let known = numbers.borrow_mut().entry(id).or_insert_with(|| path.clone()).clone();
                return std::fs::canonicalize(&known).unwrap_or(known);
            }
            let in_folder = || Some(std::fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
            std::fs::canonicalize(&path).ok().or_else(in_folder).unwrap_or(path)
        };
        let mut used: HashMap<PathBuf, &str> = HashMap::new();
        for node in nodes {
            used.extend(node.node.facts().reads.into_iter().map(|path| (real(path), node.id.as_str())));
        }
        for node in nodes {
            let Facts { writes, folders, .. } = node.node.facts();
            for named in writes.into_iter().chain(folders) {
                let path = real(named.clone());
                let reader = nodes.iter().find(|reader| reader.node.may_read(&named) || reader.node.may_read(&path));
                let used = used.insert(path.clone(), &node.id);
                let Some(other) = used.or(reader.map(|reader| reader.id.as_str())) else { continue };
                let span = written.iter().find(|spec| spec.id.value == node.id).map(|spec| spec.span);
                let message = format!("`{}` would overwrite {}, which is a file of `{other}`", node.id, path.display());
                self.problems.push(Diagnostic { message, span, help: None });
            }
        }
    }

    /// An order in which every node stands behind its inputs; a cycle is a fault that names its nodes.
    fn order(&mut self, nodes: &[Resolved]) -> Option<Vec<usize>> {
        let mut order = Vec::with_capacity(nodes.len());
        let mut done = vec![false; nodes.len()];
        // The inputs of nodes that were refused are not waited for.
        let ready = |done: &[bool], node: &Resolved| {
            node.inputs.iter().flat_map(|input| &input.of).all(|(from, ..)| done.get(*from).copied().unwrap_or(true))
        };
        while order.len() < nodes.len() {
            let Some(next) = (0..nodes.len()).find(|&at| !done[at] && ready(&done, &nodes[at])) else {
                let at = (0..nodes.len()).find(|&at| !done[at])?;
                let cycle = cycle(nodes, &done, at);
                let names: Vec<&str> = cycle.iter().map(|&at| nodes[at].spec.id.value.as_str()).collect();
                let first = &nodes[*cycle.first()?];
                let message = format!("the nodes feed each other in a circle: {} -> {}", names.join(" -> "), names[0]);
                self.problems.push(Diagnostic::new(first.spec.span, message));
                return None;
            };
            done[next] = true;
            order.push(next);
        }
        Some(order)
    }
}

/// A node's options as they were written, and where it is, unless that is where it is by default.
fn placed_options(options: &Tree, process: usize) -> Setting {
    match Setting::of(options) {
        Setting::Map(mut map) if process != 0 => {
            map.insert("process".to_owned(), Setting::text(process.to_string()));
            Setting::Map(map)
        }
        other => other,
    }
}

/// A node's inputs as they were written.
fn written(from: &From) -> Setting {
    let of = |rows: &Rows| match rows.of.as_slice() {
        [one] => Setting::text(&one.value),
        several => Setting::List(several.iter().map(|one| Setting::text(&one.value)).collect()),
    };
    match from {
        From::Nothing => Setting::Null,
        From::One(rows) => of(rows),
        From::Named(named, _) => {
            Setting::Map(named.iter().map(|(name, rows)| (name.value.clone(), of(rows))).collect())
        }
    }
}

/// The nodes of a cycle that is upstream of `at`, in the direction of data flow.
fn cycle(nodes: &[Resolved], done: &[bool], mut at: usize) -> Vec<usize> {
    let mut path: Vec<usize> = Vec::new();
    loop {
        if let Some(start) = path.iter().position(|&seen| seen == at) {
            let mut found = path.split_off(start);
            found.reverse();
            // The node that is written first leads.
            let first = found.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(at, _)| at);
            found.rotate_left(first);
            return found;
        }
        path.push(at);
        let mut inputs = nodes[at].inputs.iter().flat_map(|input| &input.of).map(|(from, ..)| *from);
        let waiting = inputs.find(|from| done.get(*from) == Some(&false));
        match waiting {
            Some(from) => at = from,
            None => return path,
        }
    }
}

/// Notes which ports lead, however far down, to a sink that records every change of a relation. A log has settled rows only.
fn note_recorded(nodes: &mut [PlannedNode]) {
    for at in (0..nodes.len()).rev() {
        if nodes[at].node.facts().records_changes || nodes[at].recorded.contains(&true) {
            for Input { node, port, .. } in nodes[at].inputs.clone().into_iter().filter(|input| !input.logged) {
                nodes[node].recorded[port] = true;
            }
        }
    }
}

/// Digests that end at logs: what is before a log is known by the log's name and columns.
fn note_digests(nodes: &mut [PlannedNode], tick: Duration) {
    for at in 0..nodes.len() {
        let digest = |nth: usize, input: &Input| {
            let from = &nodes[input.node];
            let digest = match input.logged {
                true => log_digest(from, input.port),
                false => from.behind_logs,
            };
            (format!("{} {nth}", input.name), input.port, digest)
        };
        let inputs = nodes[at].inputs.iter().enumerate().map(|(nth, input)| digest(nth, input)).collect();
        nodes[at].behind_logs = nodes[at].definition.digest(nodes[at].kind.name, tick, inputs);
    }
}

/// A log by its name and columns.
fn log_digest(node: &PlannedNode, port: usize) -> Digest {
    let ty = &node.outputs[port];
    let text = format!("{} {:?} {:?}", node.id, ty.schema.fields(), ty.class);
    sha2::Sha256::digest(text).into()
}

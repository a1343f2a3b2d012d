//! From nodes as written to planned nodes: kinds, inputs, order, and each operator's own check.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::identity::Definition;
use super::union::union;
use super::{Input, Plan, PlannedNode, Serve};
use crate::contract::{Inputs, Kind, Notes, PlanContext, Redirect, Registry};
use crate::expr::Session;
use crate::spec::{Diagnostic, From, Located, NodeSpec, Pipeline, Rows, Setting, Sources, Span, SpoolSpec, Tree};

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

/// A node as written whose kind and inputs are known.
struct Resolved {
    spec: NodeSpec,
    kind: Kind,
    inputs: Vec<Wanted>,
}

/// An input of a node as written.
struct Wanted {
    name: String,
    span: Span,
    /// Node as written, output port, and the text that names them.
    of: Vec<(usize, usize, Located<String>)>,
}

impl Planner<'_> {
    /// The plan, or `None` if something is wrong with the pipeline.
    pub fn plan(&mut self, spec: Pipeline) -> Option<Plan> {
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
        let resolved = self.resolve(&spec.nodes);
        let order = self.order(&resolved)?;
        let mut nodes: Vec<PlannedNode> = Vec::with_capacity(order.len());
        let mut placed: HashMap<usize, usize> = HashMap::new();
        let mut refused = resolved.len() < spec.nodes.len();
        for index in order {
            let Resolved { spec: node, kind, inputs } = &resolved[index];
            let mut types = Vec::with_capacity(inputs.len());
            let mut edges = Vec::with_capacity(inputs.len());
            for Wanted { name, span, of } in inputs {
                // A node behind a refused one cannot be checked.
                let found: Option<Vec<usize>> = of.iter().map(|(from, ..)| placed.get(from).copied()).collect();
                let Some(found) = found else { break };
                let Some(ty) = self.united(&nodes, &found, of, *span) else { break };
                let slot = types.len();
                edges.extend(found.into_iter().zip(of).map(|(node, (_, port, _))| Input {
                    name: name.clone(),
                    slot,
                    node,
                    port: *port,
                    logged: false,
                }));
                types.push((name.clone(), ty, *span));
            }
            if types.len() < inputs.len() {
                refused = true;
                continue;
            }
            let faults = self.problems.len();
            let mut context = PlanContext {
                id: &node.id.value,
                span: node.span,
                tick: spec.tick,
                data_dir: &data_dir,
                notes: Notes::default(),
                inputs: &types,
                base: &self.base,
                redirect: redirect.as_ref(),
                sources: &mut self.sources,
                problems: &mut self.problems,
                warnings: &mut self.warnings,
                variable: self.variable,
                session: &self.session,
            };
            let built = (kind.plan)(&node.options, &mut context);
            let notes = context.notes;
            let Some(built) = built else {
                if self.problems.len() == faults {
                    self.problems
                        .push(Diagnostic::new(node.span, format!("`{}` refused the node without a reason", kind.name)));
                }
                refused = true;
                continue;
            };
            for input in &edges {
                nodes[input.node].connected[input.port] = true;
            }
            let process = self.process(node, kind);
            let definition = Definition::new(notes, placed_options(&node.options, process), written(&node.from));
            let read = edges.iter().enumerate().map(|(at, input)| {
                // Of several that are merged the order counts.
                let nth = edges[..at].iter().filter(|other| other.slot == input.slot).count();
                let name = if nth == 0 { input.name.clone() } else { format!("{}[{nth}]", input.name) };
                (name, input.port, nodes[input.node].digest)
            });
            let digest = definition.digest(kind.name, spec.tick, read.collect());
            placed.insert(index, nodes.len());
            nodes.push(PlannedNode {
                id: node.id.value.clone(),
                kind: *kind,
                inputs: edges,
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
            });
        }
        self.check_files(&nodes, &spec.nodes);
        let mut serve = None;
        if let Some(section) = &spec.serve {
            if let Err(error) = section.listen.value.parse::<std::net::SocketAddr>() {
                let problem = Diagnostic::new(
                    section.listen.span,
                    format!("`{}` is not an address and port: {error}", section.listen.value),
                );
                self.problems.push(problem.help("such as 127.0.0.1:8080 or [::1]:8080"));
            }
            let mut tables: Vec<(String, usize, usize)> = Vec::new();
            for (at, (name, reference)) in section.tables.iter().enumerate() {
                self.table_name(name, &section.tables[..at]);
                let Some((node, port)) = self.reference(reference, &spec.nodes, &resolved) else { continue };
                let Some(&node) = placed.get(&node) else { continue };
                if nodes[node].kind.outputs.is_empty() {
                    continue;
                }
                if let Some((other, ..)) = tables.iter().find(|(_, n, p)| (*n, *p) == (node, port)) {
                    let message = format!("`{}` is served already, as `{other}`", reference.value);
                    self.problems.push(Diagnostic::new(reference.span, message));
                    continue;
                }
                nodes[node].connected[port] = true;
                tables.push((name.value.clone(), node, port));
            }
            serve = Some(Serve {
                listen: section.listen.value.clone(),
                hosts: section.hosts.clone(),
                hot_rows: section.hot_rows,
                tables,
            });
        }
        note_recorded(&mut nodes);
        super::durable::mark(&mut nodes, &spec.nodes, spool.as_ref(), &mut self.problems);
        self.note_digests(&mut nodes, spec.tick);
        (!refused).then_some(Plan {
            name: spec.name,
            tick: spec.tick,
            data_dir,
            nodes,
            serve,
            spool,
            files: self.sources.paths(),
            sections: self.sections.clone(),
            warnings: Vec::new(),
        })
    }

    /// Digests that end at logs: what is before a log is known by the log's name and columns.
    fn note_digests(&self, nodes: &mut [PlannedNode], tick: std::time::Duration) {
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

    /// The type of an input that takes the rows of these nodes.
    fn united(
        &mut self,
        nodes: &[PlannedNode],
        found: &[usize],
        of: &[(usize, usize, Located<String>)],
        span: Span,
    ) -> Option<crate::batch::EdgeType> {
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

    /// A table's name is an SQL identifier that needs no quotes; SQL without quotes does not tell cases apart.
    fn table_name(&mut self, name: &Located<String>, before: &[(Located<String>, Located<String>)]) {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.value.chars().all(valid)
            || name.value.starts_with(|c: char| !c.is_ascii_alphabetic() && c != '_')
            || name.value.is_empty()
        {
            let problem = Diagnostic::new(name.span, format!("`{}` is not a table name", name.value));
            self.problems.push(problem.help("use letters, digits and _, and a letter first"));
        }
        if before.iter().any(|(other, _)| other.value.eq_ignore_ascii_case(&name.value)) {
            let problem = Diagnostic::new(name.span, format!("the table `{}` is there already", name.value));
            self.problems.push(problem.help("SQL does not tell upper from lower case here"));
        }
    }

    /// Refuses a node that writes a file which another node reads or writes.
    fn check_files(&mut self, nodes: &[PlannedNode], written: &[NodeSpec]) {
        // The same file under another name, as far as it exists already.
        let real = |path: PathBuf| std::fs::canonicalize(&path).unwrap_or(path);
        let mut used: HashMap<PathBuf, &str> = HashMap::new();
        for node in nodes {
            used.extend(node.node.facts().reads.into_iter().map(|path| (real(path), node.id.as_str())));
        }
        for node in nodes {
            for named in node.node.facts().writes {
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

    /// Looks up kinds and inputs. Nodes with a fault are left out, their faults reported.
    fn resolve(&mut self, nodes: &[NodeSpec]) -> Vec<Resolved> {
        let mut first: HashMap<&str, &NodeSpec> = HashMap::new();
        for node in nodes {
            if let Some(other) = first.insert(&node.id.value, node) {
                let (line, _) = self.sources.position(other.id.span);
                let problem = Diagnostic::new(node.id.span, format!("the id `{}` is taken", node.id.value));
                self.problems.push(problem.help(format!("by the node in line {line}")));
            }
        }
        let mut kinds = Vec::with_capacity(nodes.len());
        for node in nodes {
            let kind = self.registry.find(&node.kind.value);
            if kind.is_none() {
                let names = self.registry.kinds().iter().map(|k| k.name);
                let problem = Diagnostic::new(node.kind.span, format!("unknown kind `{}`", node.kind.value));
                self.problems.push(problem.nearest(&node.kind.value, names));
            }
            kinds.push(kind.copied());
        }
        let ids: Vec<(&str, Option<Kind>)> = nodes.iter().zip(&kinds).map(|(n, k)| (n.id.value.as_str(), *k)).collect();
        let mut found = Vec::with_capacity(nodes.len());
        for (node, kind) in nodes.iter().zip(&kinds) {
            let Some(kind) = kind else { continue };
            if let Some(inputs) = self.inputs(node, kind, &ids) {
                found.push((node, *kind, inputs));
            }
        }
        // Indices so far count nodes as written; from here on they count resolved nodes.
        let position: HashMap<usize, usize> = found
            .iter()
            .enumerate()
            .filter_map(|(at, (node, _, _))| Some((nodes.iter().position(|n| std::ptr::eq(n, *node))?, at)))
            .collect();
        found
            .into_iter()
            .map(|(node, kind, inputs)| Resolved {
                spec: node.clone(),
                kind,
                inputs: inputs
                    .into_iter()
                    .map(|wanted| Wanted {
                        of: wanted
                            .of
                            .into_iter()
                            .map(|(from, port, written)| {
                                (position.get(&from).copied().unwrap_or(usize::MAX), port, written)
                            })
                            .collect(),
                        ..wanted
                    })
                    .collect(),
            })
            .collect()
    }

    fn inputs(&mut self, node: &NodeSpec, kind: &Kind, ids: &[(&str, Option<Kind>)]) -> Option<Vec<Wanted>> {
        let (given, span) = match &node.from {
            From::Nothing => (Vec::new(), node.span),
            From::One(one) => (vec![(Located::new(String::new(), one.span), one.clone())], one.span),
            From::Named(named, span) => (named.clone(), *span),
        };
        let is_named = matches!(node.from, From::Named(..));
        let wrong = match kind.inputs {
            Inputs::None if !given.is_empty() => Some(format!("`{}` is a source: it has no input", kind.name)),
            Inputs::One | Inputs::Any if given.is_empty() => Some("`from` is missing".to_owned()),
            Inputs::One if is_named => Some(format!("`{}` has one input: write `from: id`", kind.name)),
            Inputs::Named(ports) if !is_named => {
                let ports: Vec<String> = ports.iter().map(|p| format!("{p}: …")).collect();
                Some(format!("`{}` needs `from: {{ {} }}`", kind.name, ports.join(", ")))
            }
            _ => None,
        };
        if let Some(message) = wrong {
            self.problems.push(Diagnostic::new(span, message));
            return None;
        }
        let mut complete = true;
        let mut ordered = given.clone();
        if let Inputs::Named(ports) = kind.inputs {
            for (name, _) in &given {
                if !ports.contains(&name.value.as_str()) {
                    let problem = Diagnostic::new(name.span, format!("`{}` has no input `{}`", kind.name, name.value));
                    self.problems.push(problem.nearest(&name.value, ports.iter().copied()));
                    complete = false;
                }
            }
            ordered.clear();
            for port in ports {
                match given.iter().find(|(name, _)| name.value == *port) {
                    Some(entry) => ordered.push(entry.clone()),
                    None => {
                        self.problems.push(Diagnostic::new(span, format!("the input `{port}` is missing")));
                        complete = false;
                    }
                }
            }
        }
        let mut inputs = Vec::with_capacity(ordered.len());
        for (name, rows) in ordered {
            let mut of = Vec::with_capacity(rows.of.len());
            for reference in rows.of {
                match self.reference_among(&reference, ids) {
                    Some((from, port)) => of.push((from, port, reference)),
                    None => complete = false,
                }
            }
            // Of the same port under two names, such as `a` and `a.out`, the rows would be there twice.
            for (at, (from, port, written)) in of.iter().enumerate() {
                if of[..at].iter().any(|(f, p, _)| (f, p) == (from, port)) {
                    let message = format!("`{}` is in the list already", written.value);
                    self.problems.push(Diagnostic::new(written.span, message));
                    complete = false;
                }
            }
            inputs.push(Wanted { name: name.value, span: rows.span, of });
        }
        complete.then_some(inputs)
    }

    /// `id` or `id.port` among the nodes as written.
    fn reference_among(&mut self, reference: &Located<String>, ids: &[(&str, Option<Kind>)]) -> Option<(usize, usize)> {
        let (id, port) = match reference.value.split_once('.') {
            Some((id, port)) => (id, Some(port)),
            None => (reference.value.as_str(), None),
        };
        let Some(index) = ids.iter().position(|(name, _)| *name == id) else {
            let problem = Diagnostic::new(reference.span, format!("no node has the id `{id}`"));
            self.problems.push(problem.nearest(id, ids.iter().map(|(name, _)| *name)));
            return None;
        };
        // A node of unknown kind has been reported already.
        let kind = ids[index].1?;
        if kind.outputs.is_empty() {
            self.problems
                .push(Diagnostic::new(reference.span, format!("`{id}` is a {}: nothing leaves it", kind.name)));
            return None;
        }
        let Some(port) = port else { return Some((index, 0)) };
        let found = kind.outputs.iter().position(|p| p.name == port);
        if found.is_none() {
            let problem = Diagnostic::new(reference.span, format!("`{id}` ({}) has no port `{port}`", kind.name));
            self.problems.push(problem.nearest(port, kind.outputs.iter().map(|p| p.name)));
        }
        Some((index, found?))
    }

    /// `id` or `id.port` among the resolved nodes.
    fn reference(
        &mut self,
        reference: &Located<String>,
        nodes: &[NodeSpec],
        resolved: &[Resolved],
    ) -> Option<(usize, usize)> {
        let ids: Vec<(&str, Option<Kind>)> =
            nodes.iter().map(|n| (n.id.value.as_str(), self.registry.find(&n.kind.value).copied())).collect();
        let (index, port) = self.reference_among(reference, &ids)?;
        let at = resolved.iter().position(|r| r.spec.id.value == nodes[index].id.value)?;
        Some((at, port))
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

/// Notes which ports lead, however far down, to a sink that records every change of a relation.
fn note_recorded(nodes: &mut [PlannedNode]) {
    for at in (0..nodes.len()).rev() {
        if nodes[at].node.facts().records_changes || nodes[at].recorded.contains(&true) {
            for Input { node, port, .. } in nodes[at].inputs.clone() {
                nodes[node].recorded[port] = true;
            }
        }
    }
}

/// A log by its name and columns.
fn log_digest(node: &PlannedNode, port: usize) -> super::Digest {
    let ty = &node.outputs[port];
    let text = format!("{} {:?} {:?}", node.id, ty.schema.fields(), ty.class);
    sha2::Sha256::digest(text).into()
}

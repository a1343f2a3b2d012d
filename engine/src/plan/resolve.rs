//! From names to nodes: which kind a node is of, and which nodes and ports it reads.

use std::collections::HashMap;

use super::planner::Planner;
use crate::contract::{Inputs, Kind};
use crate::spec::{Diagnostic, From, Located, NodeSpec, Rows, Span};

/// A node as written whose kind and inputs are known.
pub(super) struct Resolved {
    pub spec: NodeSpec,
    pub kind: Kind,
    pub inputs: Vec<Wanted>,
}

/// An input of a node as written.
pub(super) struct Wanted {
    pub name: String,
    pub span: Span,
    pub of: Vec<Member>,
}

/// Number of a node, its output port, and the text that names them.
pub(super) type Member = (usize, usize, Located<String>);

/// The rows of each input, by the input's name.
type Given = Vec<(Located<String>, Rows)>;

impl Planner<'_> {
    /// Looks up kinds and inputs. Nodes with a fault are left out, their faults reported.
    pub(super) fn resolve(&mut self, nodes: &[NodeSpec]) -> Vec<Resolved> {
        self.check_ids(nodes);
        let kinds: Vec<Option<Kind>> = nodes.iter().map(|node| self.kind(&node.kind)).collect();
        let ids: Vec<(&str, Option<Kind>)> = nodes.iter().zip(&kinds).map(|(n, k)| (n.id.value.as_str(), *k)).collect();
        let mut found = Vec::with_capacity(nodes.len());
        // Inputs count nodes as written so far.
        let mut position: HashMap<usize, usize> = HashMap::new();
        for (at, (node, kind)) in nodes.iter().zip(&kinds).enumerate() {
            let Some(kind) = *kind else { continue };
            if let Some(inputs) = self.inputs(node, &kind, &ids) {
                position.insert(at, found.len());
                found.push(Resolved { spec: node.clone(), kind, inputs });
            }
        }
        // From here on they count resolved nodes.
        for (from, ..) in found.iter_mut().flat_map(|node| &mut node.inputs).flat_map(|input| &mut input.of) {
            *from = position.get(from).copied().unwrap_or(usize::MAX);
        }
        found
    }

    /// No two nodes have the same id.
    fn check_ids(&mut self, nodes: &[NodeSpec]) {
        let mut first: HashMap<&str, &NodeSpec> = HashMap::new();
        for node in nodes {
            if let Some(other) = first.insert(&node.id.value, node) {
                let (line, _) = self.sources.position(other.id.span);
                let problem = Diagnostic::new(node.id.span, format!("the id `{}` is taken", node.id.value));
                self.problems.push(problem.help(format!("by the node in line {line}")));
            }
        }
    }

    fn kind(&mut self, name: &Located<String>) -> Option<Kind> {
        let kind = self.registry.find(&name.value);
        if kind.is_none() {
            let names = self.registry.kinds().iter().map(|k| k.name);
            let problem = Diagnostic::new(name.span, format!("unknown kind `{}`", name.value));
            self.problems.push(problem.nearest(&name.value, names));
        }
        kind.copied()
    }

    /// The inputs of a node, in the order of its kind. `None` if anything is wrong with them; all of it is reported.
    fn inputs(&mut self, node: &NodeSpec, kind: &Kind, ids: &[(&str, Option<Kind>)]) -> Option<Vec<Wanted>> {
        let (given, span) = match &node.from {
            From::Nothing => (Vec::new(), node.span),
            From::One(one) => (vec![(Located::new(String::new(), one.span), one.clone())], one.span),
            From::Named(named, span) => (named.clone(), *span),
        };
        if let Some(message) = misfit(kind, &node.from) {
            self.problems.push(Diagnostic::new(span, message));
            return None;
        }
        let (ordered, mut complete) = match kind.inputs {
            Inputs::Named(ports) => self.by_port(&given, ports, kind, span),
            _ => (given, true),
        };
        let mut inputs = Vec::with_capacity(ordered.len());
        for (name, Rows { of, span }) in ordered {
            let named = of.len();
            let of = self.members(of, ids);
            complete &= of.len() == named;
            complete &= !self.any_twice(&of);
            inputs.push(Wanted { name: name.value, span, of });
        }
        complete.then_some(inputs)
    }

    /// The inputs in the order of the kind's ports; false if one is missing or unknown.
    fn by_port(&mut self, given: &Given, ports: &[&str], kind: &Kind, span: Span) -> (Given, bool) {
        let mut complete = true;
        for (name, _) in given {
            if !ports.contains(&name.value.as_str()) {
                let problem = Diagnostic::new(name.span, format!("`{}` has no input `{}`", kind.name, name.value));
                self.problems.push(problem.nearest(&name.value, ports.iter().copied()));
                complete = false;
            }
        }
        let mut ordered = Vec::with_capacity(ports.len());
        for port in ports {
            match given.iter().find(|(name, _)| name.value == *port) {
                Some(entry) => ordered.push(entry.clone()),
                None => {
                    self.problems.push(Diagnostic::new(span, format!("the input `{port}` is missing")));
                    complete = false;
                }
            }
        }
        (ordered, complete)
    }

    /// What the references name, as far as it is there.
    fn members(&mut self, references: Vec<Located<String>>, ids: &[(&str, Option<Kind>)]) -> Vec<Member> {
        let mut of = Vec::with_capacity(references.len());
        for reference in references {
            if let Some((from, port)) = self.reference_among(&reference, ids) {
                of.push((from, port, reference));
            }
        }
        of
    }

    /// Of the same port under two names, such as `a` and `a.out`, the rows would be there twice.
    fn any_twice(&mut self, of: &[Member]) -> bool {
        let mut any = false;
        for (at, (from, port, written)) in of.iter().enumerate() {
            if of[..at].iter().any(|(f, p, _)| (f, p) == (from, port)) {
                let message = format!("`{}` is in the list already", written.value);
                self.problems.push(Diagnostic::new(written.span, message));
                any = true;
            }
        }
        any
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
    pub(super) fn reference(
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
}

/// Why `from` is not what the kind takes, if it is not.
fn misfit(kind: &Kind, from: &From) -> Option<String> {
    let is_named = matches!(from, From::Named(..));
    let is_empty = match from {
        From::Nothing => true,
        From::One(_) => false,
        From::Named(named, _) => named.is_empty(),
    };
    match kind.inputs {
        Inputs::None if !is_empty => Some(format!("`{}` is a source: it has no input", kind.name)),
        Inputs::One | Inputs::Any if is_empty => Some("`from` is missing".to_owned()),
        Inputs::One if is_named => Some(format!("`{}` has one input: write `from: id`", kind.name)),
        Inputs::Named(ports) if !is_named => {
            let ports: Vec<String> = ports.iter().map(|p| format!("{p}: …")).collect();
            Some(format!("`{}` needs `from: {{ {} }}`", kind.name, ports.join(", ")))
        }
        _ => None,
    }
}

//! What a changed pipeline means for a running one: which nodes go on, which start anew, which are made again.
//!
//! A dataflow cannot be altered while it runs, so whole parts of a [`Partition`] go on or end. What stands before the
//! spool goes on if nothing in it has changed. Of what stands behind it, an island in which anything has changed is made
//! again from the spool as a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Digest, Partition, Plan, PlannedNode};
use crate::spec::Change;

/// The difference between two plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The new plan's nodes in their order, then those that are gone.
    pub nodes: Vec<NodeDiff>,
    /// What has changed in the sections beside the nodes.
    pub sections: Vec<Change>,
    /// The old plan's parts.
    pub before: Partition,
    /// The new plan's parts.
    pub after: Partition,
    /// For each ingest group of `after` the one of `before` that goes on in its place, if one does.
    pub ingest: Vec<Option<usize>>,
    /// For each island of `after` the one of `before` that goes on in its place, if one does.
    pub islands: Vec<Option<usize>>,
}

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeDiff {
    /// Its id.
    pub id: String,
    /// Its kind; the new one if it has changed.
    pub kind: &'static str,
    /// How it differs.
    #[serde(flatten)]
    pub state: State,
    /// What happens to it.
    pub fate: Fate,
}

/// How a node differs from the one of the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// The same definition and the same inputs.
    Unchanged,
    /// Another definition.
    Changed {
        /// What is different.
        changes: Vec<Change>,
    },
    /// The same definition, but other inputs.
    Affected {
        /// The inputs that differ; `tick` if that does.
        because: Vec<String>,
    },
    /// There was none.
    Added,
    /// There is none any more.
    Removed,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It goes on running.
    Kept,
    /// It stands before the spool and starts, for the first time or again: what comes meanwhile is not received.
    Started,
    /// It is made again from the spool, or from the files that it reads.
    Rebuilt,
    /// It ends.
    Stopped,
}

/// What has to be done to `old` so that it is `new`.
pub fn rebuild(old: &Plan, new: &Plan) -> Diff {
    let (before, after) = (old.partition(), new.partition());
    let goes_on = |groups: &[Vec<usize>], others: &[Vec<usize>], what: fn(&Plan, &[usize]) -> Needed| {
        let known: Vec<Needed> = others.iter().map(|group| what(old, group)).collect();
        let found = |group: &Vec<usize>| {
            let needed = what(new, group);
            known.iter().position(|known| *known == needed)
        };
        groups.iter().map(found).collect::<Vec<Option<usize>>>()
    };
    let ingest = goes_on(&after.ingest, &before.ingest, needed_of_ingest);
    let islands = goes_on(&after.islands, &before.islands, needed_of_island);

    let mut fates = vec![Fate::Kept; new.nodes.len()];
    for (groups, kept, fate) in [(&after.ingest, &ingest, Fate::Started), (&after.islands, &islands, Fate::Rebuilt)] {
        for (group, _) in groups.iter().zip(kept).filter(|(_, kept)| kept.is_none()) {
            group.iter().for_each(|&node| fates[node] = fate);
        }
    }
    let by_id: BTreeMap<&str, &PlannedNode> = old.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut nodes: Vec<NodeDiff> = new
        .nodes
        .iter()
        .zip(fates)
        .map(|(node, fate)| {
            let state = by_id.get(node.id.as_str()).map_or(State::Added, |was| state(old, was, new, node, &by_id));
            NodeDiff { id: node.id.clone(), kind: node.kind.name, state, fate }
        })
        .collect();
    let stays: BTreeSet<&str> = new.nodes.iter().map(|node| node.id.as_str()).collect();
    nodes.extend(old.nodes.iter().filter(|node| !stays.contains(node.id.as_str())).map(|node| NodeDiff {
        id: node.id.clone(),
        kind: node.kind.name,
        state: State::Removed,
        fate: Fate::Stopped,
    }));
    let mut sections = Vec::new();
    old.sections.changes(&new.sections, "", &mut sections);
    Diff { nodes, sections, before, after, ingest, islands }
}

fn state(old: &Plan, was: &PlannedNode, new: &Plan, node: &PlannedNode, by_id: &BTreeMap<&str, &PlannedNode>) -> State {
    if was.digest == node.digest {
        return State::Unchanged;
    }
    let mut changes = was.definition.changes(&node.definition);
    if was.kind.name != node.kind.name {
        let (old, new) = (Some(was.kind.name.to_owned()), Some(node.kind.name.to_owned()));
        changes.insert(0, Change { path: "kind".to_owned(), old, new });
    }
    if !changes.is_empty() {
        return State::Changed { changes };
    }
    let inputs = node.inputs.iter().map(|input| &new.nodes[input.node]);
    let other = inputs.filter(|input| by_id.get(input.id.as_str()).is_none_or(|was| was.digest != input.digest));
    let mut because: Vec<String> = Vec::new();
    for id in other.map(|input| &input.id).chain((old.tick != new.tick).then_some(&"tick".to_owned())) {
        if !because.contains(id) {
            because.push(id.clone());
        }
    }
    State::Affected { because }
}

/// What must be equal of two parts for one to go on in the other's place.
#[derive(PartialEq, Eq)]
struct Needed {
    nodes: BTreeSet<(String, Digest)>,
    /// Output ports that something reads, where that does not show in the nodes.
    ports: BTreeSet<(String, usize)>,
    /// Name, node and port of the tables that it fills or reads.
    tables: BTreeSet<(String, String, usize)>,
    hot_rows: Option<usize>,
}

impl Needed {
    fn new(plan: &Plan, group: &[usize], fills: impl Fn(usize, usize) -> bool) -> Self {
        let id = |node: usize| plan.nodes[node].id.clone();
        let serve = plan.serve.as_ref();
        let served = serve.map_or(&[][..], |serve| &serve.tables).iter();
        let tables: BTreeSet<_> = served
            .filter(|(_, node, port)| fills(*node, *port))
            .map(|(name, node, port)| (name.clone(), id(*node), *port))
            .collect();
        Self {
            nodes: group.iter().map(|&node| (id(node), plan.nodes[node].digest)).collect(),
            ports: BTreeSet::new(),
            hot_rows: serve.filter(|_| !tables.is_empty()).map(|serve| serve.hot_rows),
            tables,
        }
    }
}

/// What is kept of its rows depends on which ports are read. Of its tables only those of rows that are no facts are filled
/// here: facts are shown from the spool.
fn needed_of_ingest(plan: &Plan, group: &[usize]) -> Needed {
    let fills = |node: usize, _| group.contains(&node) && !plan.nodes[node].node.yields_facts();
    let mut needed = Needed::new(plan, group, fills);
    for &node in group {
        let connected = plan.nodes[node].connected.iter().enumerate().filter(|(_, connected)| **connected);
        needed.ports.extend(connected.map(|(port, _)| (plan.nodes[node].id.clone(), port)));
    }
    needed
}

/// A sink asks for the tables of what it reads, also where that stands before the spool.
fn needed_of_island(plan: &Plan, group: &[usize]) -> Needed {
    let read: BTreeSet<(usize, usize)> =
        group.iter().flat_map(|&node| &plan.nodes[node].inputs).map(|input| (input.node, input.port)).collect();
    Needed::new(plan, group, |node, port| group.contains(&node) || read.contains(&(node, port)))
}

impl Diff {
    /// Whether nothing at all is different.
    pub fn is_empty(&self) -> bool {
        let same = |node: &NodeDiff| node.state == State::Unchanged && node.fate == Fate::Kept;
        self.sections.is_empty() && self.nodes.iter().all(same)
    }

    /// The ids of the nodes that share a fate.
    pub fn ids(&self, fate: Fate) -> Vec<&str> {
        self.nodes.iter().filter(|node| node.fate == fate).map(|node| node.id.as_str()).collect()
    }

    /// One line for a log: `1 node changed, 1 added; 3 go on, 5 rebuilt`.
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "no difference".to_owned();
        }
        let states = |is: fn(&State) -> bool| self.nodes.iter().filter(|node| is(&node.state)).count();
        let changed = states(|state| matches!(state, State::Changed { .. }));
        let mut parts = vec![match changed {
            1 => "1 node changed".to_owned(),
            _ => format!("{changed} nodes changed"),
        }];
        let fate = |fate: Fate| self.ids(fate).len();
        let counted = |parts: &mut Vec<String>, count: usize, what: &str| {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        };
        counted(&mut parts, states(|state| *state == State::Added), "added");
        counted(&mut parts, states(|state| *state == State::Removed), "removed");
        let differ = parts.join(", ");
        let mut parts = Vec::new();
        counted(&mut parts, fate(Fate::Kept), "kept");
        counted(&mut parts, fate(Fate::Started), "started");
        counted(&mut parts, fate(Fate::Rebuilt), "rebuilt");
        format!("{differ}; {}", parts.join(", "))
    }
}

//! What a changed pipeline means for a running one: which nodes go on, which start anew, which are made again.
//!
//! A dataflow cannot be altered while it runs, so islands go on or end as a whole: an island goes on if nothing in it has
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::{Plan, PlannedNode};
use crate::spec::Change;

/// The difference between two plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The new plan's nodes in their order, then those that are gone.
    pub nodes: Vec<NodeDiff>,
    /// What has changed in the sections beside the nodes.
    pub sections: Vec<Change>,
    /// Nodes whose open windows end: what was shown of them is taken back.
    pub windows: Vec<String>,
    /// Nodes that look back further than before: what they give first is made from a part of their rows, where the logs that
    /// they read do not reach back as far.
    pub look_back: Vec<String>,
    /// Why a running pipeline cannot be changed to this one; it can if there is nothing to say.
    pub restart: Option<String>,
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
    let mut fates = vec![Fate::Kept; new.nodes.len()];
    let (running, islands) = (old.islands(), new.islands());
    let both = [(running.0, islands.0, Fate::Started), (running.1, islands.1, Fate::Rebuilt)];
    for (running, islands, fate) in both {
        let running: Vec<_> = running.iter().map(|island| old.identity(island)).collect();
        for island in islands.iter().filter(|island| !running.contains(&new.identity(island))) {
            island.nodes.iter().for_each(|&node| fates[node] = fate);
        }
    }
    let by_id: BTreeMap<&str, &PlannedNode> = old.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut nodes: Vec<NodeDiff> = new
        .nodes
        .iter()
        .zip(fates)
        .map(|(node, fate)| {
            let state = by_id.get(node.id.as_str()).map_or(State::Added, |was| state(old, was, new, node, &by_id));
            // What is different before a log is nothing to a node that reads the log.
            let passes = fate == Fate::Kept && matches!(state, State::Affected { .. });
            let state = if passes { State::Unchanged } else { state };
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
    let windows = ending_windows(old, new).map(|node| node.id.clone()).collect();
    let further = |node: &&PlannedNode| {
        old.is_spooled() && by_id.get(node.id.as_str()).is_some_and(|was| was.look_back() < node.look_back())
    };
    let look_back = new.nodes.iter().filter(further).map(|node| node.id.clone()).collect();
    Diff { nodes, sections, windows, look_back, restart: needs_restart(old, new) }
}

/// The nodes of a plan with open windows that another plan does not go on with.
pub fn ending_windows<'p>(old: &'p Plan, new: &'p Plan) -> impl Iterator<Item = &'p PlannedNode> {
    let goes_on = |node: &&PlannedNode| new.nodes.iter().any(|other| other.behind_logs == node.behind_logs);
    old.nodes.iter().filter(|node| node.node.facts().has_windows).filter(move |node| !goes_on(node))
}

fn state(old: &Plan, was: &PlannedNode, new: &Plan, node: &PlannedNode, by_id: &BTreeMap<&str, &PlannedNode>) -> State {
    let kept = |node: &PlannedNode| node.durable.filter(|_| !node.is_durable_for_some);
    if was.digest == node.digest && kept(was) == kept(node) {
        return State::Unchanged;
    }
    let mut changes = was.definition.changes(&node.definition);
    if kept(was) != kept(node) {
        let shown = |kept: Option<Duration>| kept.map(|retain| humantime::format_duration(retain).to_string());
        changes.push(Change { path: "durable.retain".to_owned(), old: shown(kept(was)), new: shown(kept(node)) });
    }
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

/// What a running pipeline cannot change, if that is different: it must be stopped and started again.
pub fn needs_restart(old: &Plan, new: &Plan) -> Option<String> {
    let spool = |plan: &Plan| format!("{:?}", plan.spool);
    let listen = |plan: &Plan| {
        plan.serve.as_ref().map(|serve| (serve.listen.clone(), serve.hosts.clone(), serve.queries.clone()))
    };
    if !old.is_spooled() || !new.is_spooled() {
        return Some("a pipeline without live sources or without a spool".to_owned());
    }
    let sections = [
        (old.data_dir != new.data_dir, "`data_dir`"),
        (old.modes != new.modes, "`dir_mode` or `file_mode`"),
        (old.tick != new.tick, "`tick`"),
        (spool(old) != spool(new), "the section `spool`"),
        (listen(old) != listen(new), "the address of the section `serve`"),
    ];
    if let Some((_, what)) = sections.iter().find(|(differs, _)| *differs) {
        return Some((*what).to_owned());
    }
    if let Some(what) = other_durable(old, new) {
        return Some(what);
    }
    // A log goes on with the columns that it has.
    let logs = |plan: &Plan| -> BTreeMap<String, _> {
        let (receiving, computing) = plan.islands();
        let logs = receiving.into_iter().filter_map(|island| island.writes);
        let logs = logs.chain(computing.into_iter().flat_map(|island| island.keeps));
        logs.map(|log| (plan.nodes[log.source].id.clone(), plan.log_schemas(&log))).collect()
    };
    let (before, after) = (logs(old), logs(new));
    let other = after.iter().find(|(id, columns)| before.get(*id).is_some_and(|before| before != *columns));
    other.map(|(id, _)| format!("the columns of `{id}`"))
}

/// What differs in which nodes keep their rows in a log, and for how long.
fn other_durable(old: &Plan, new: &Plan) -> Option<String> {
    let durable = |plan: &Plan| -> BTreeMap<String, (Duration, bool)> {
        let durable = |node: &PlannedNode| Some((node.id.clone(), (node.durable?, node.is_durable_for_some)));
        plan.nodes.iter().filter_map(durable).collect()
    };
    let (old, new) = (durable(old), durable(new));
    let ids: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let id = ids.into_iter().find(|id| old.get(*id) != new.get(*id))?;
    Some(match (old.get(id), new.get(id)) {
        (Some(_), Some(_)) => format!("how long the log of `{id}` is kept"),
        (one, other) if one.or(other).is_some_and(|(_, for_some)| *for_some) => {
            format!("that `{id}` has a log, because a node behind it looks back further than `spool.max_replay`,")
        }
        _ => format!("whether `{id}` is `durable`"),
    })
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
        let restart = self.restart.as_ref().map(|what| format!("; {what} needs a restart")).unwrap_or_default();
        format!("{differ}; {}{restart}", parts.join(", "))
    }
}

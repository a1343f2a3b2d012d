//! Durable edges: where rows go through a log on their way from one node to another.
//!
//! A log stands behind every live source. It stands on other edges where a node says `durable`, and by itself where a
//! reader looks back further than a start should replay: a week of detections is small, a week of requests is not.

use std::time::Duration;

use super::{Plan, PlannedNode};
use crate::batch::{EdgeType, Time};
use crate::spec::{Diagnostic, NodeSpec, SpoolSpec};

/// Any time that is far from both ends.
const SOME: Time = 1 << 42;

impl PlannedNode {
    /// How far (ms) the node looks back, on any of its inputs.
    pub fn look_back(&self) -> Time {
        self.inputs.iter().map(|input| self.looks_back(input.slot)).max().unwrap_or(0)
    }

    /// How far (ms) the node looks back on an input: at the end of a window, to its begin.
    fn looks_back(&self, input: usize) -> Time {
        let looks_back = |time: Time| time.saturating_sub(self.node.input_needs_from(input, time));
        let end_of_window = SOME.saturating_sub(looks_back(SOME)).saturating_sub(1);
        looks_back(SOME).max(looks_back(end_of_window))
    }
}

/// Notes of each edge whether its rows go through a log, and what is not possible.
pub(super) fn mark(
    nodes: &mut [PlannedNode],
    written: &[NodeSpec],
    spool: Option<&SpoolSpec>,
    problems: &mut Vec<Diagnostic>,
) {
    let ingest = super::partition::ingest(nodes);
    let max_replay = spool.map_or(Time::MAX, |spool| ms(spool.max_replay));
    for at in 0..nodes.len() {
        let spec = written.iter().find(|spec| spec.id.value == nodes[at].id);
        let Some(asked) = spec.and_then(|spec| spec.durable.as_ref()) else { continue };
        let why_not = if nodes[at].kind.outputs.is_empty() {
            "a sink has no rows to keep"
        } else if ingest[at] {
            "what a live source receives is kept in a log anyway"
        } else if !ingest.contains(&true) {
            "`durable` needs a live source: recorded files can be read again"
        } else if spool.is_none() && asked.value.is_on() {
            "`durable` needs a spool, which is off"
        } else {
            nodes[at].durable =
                asked.value.retain().or(spool.map(|spool| spool.retain)).filter(|_| asked.value.is_on());
            continue;
        };
        problems.push(Diagnostic::new(asked.span, why_not));
    }
    let corrected = corrected(nodes);
    // How much further than itself a node looks back for those that read its corrections.
    let mut further: Vec<Time> = vec![0; nodes.len()];
    for at in (0..nodes.len()).rev() {
        for nth in 0..nodes[at].inputs.len() {
            let far = nodes[at].looks_back(nodes[at].inputs[nth].slot).saturating_add(further[at]);
            let from = nodes[at].inputs[nth].node;
            if corrected[from] && nodes[from].durable.is_none() {
                further[from] = further[from].max(far);
                continue;
            }
            let looks_far = far > max_replay;
            let is_source = ingest[from] && nodes[from].node.facts().yields_facts && !ingest[at];
            let is_computed = ingest.contains(&true) && !ingest[from];
            if is_computed && looks_far && nodes[from].durable.is_none() {
                nodes[from].durable = spool.map(|spool| spool.retain);
                nodes[from].is_durable_for_some = true;
            }
            let is_durable = nodes[from].durable.is_some() && (looks_far || !nodes[from].is_durable_for_some);
            nodes[at].inputs[nth].logged = spool.is_some() && (is_source || is_computed && is_durable);
        }
    }
}

/// Which nodes' rows may be changed long after they came.
fn corrected(nodes: &[PlannedNode]) -> Vec<bool> {
    let mut corrected: Vec<bool> = Vec::with_capacity(nodes.len());
    for node in nodes {
        // A durable node gives its readers rows that stay.
        let is_read = |from: usize| corrected[from] && nodes[from].durable.is_none();
        let of_input =
            node.inputs.iter().any(|input| is_read(input.node) && node.outputs.iter().any(EdgeType::is_relation));
        corrected.push(of_input || node.node.facts().corrects);
    }
    corrected
}

fn ms(duration: Duration) -> Time {
    Time::try_from(duration.as_millis()).unwrap_or(Time::MAX)
}

impl Plan {
    /// The ids of the nodes that keep their rows in a log, besides live sources.
    pub fn durable(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|node| node.durable.is_some()).map(|node| node.id.as_str())
    }
}

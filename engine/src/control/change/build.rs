//! The dataflows that a change needs beside those that run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::super::{Building, Control, RUNNING};
use crate::batch::{EdgeClass, Time};
use crate::catalog::Table;
use crate::flow::{Feed, Flow, Gate, Seam};
use crate::metrics::Metrics;
use crate::plan::{Part, Plan, Stages};

/// What is to run.
pub(super) struct Next<'a> {
    pub plan: &'a Arc<Plan>,
    pub stages: &'a Stages,
    /// For each stage the dataflow that goes on as it, if there is one.
    pub kept: &'a [Option<Arc<Flow>>],
    /// Those that do not go on.
    pub gone: &'a [Arc<Flow>],
}

impl Next<'_> {
    /// Which stages are built although they go on, because new ones need what those gave before: all before the new ones,
    /// or none. Without a copy a new stage is given what comes from now on, which is enough for one that keeps nothing and
    /// reads facts; of a relation it would not know the rows that are there.
    fn copied(&self) -> Vec<bool> {
        let Self { plan, stages, kept, .. } = self;
        let mut before = vec![false; stages.parts.len()];
        let mut past = false;
        for at in (0..stages.parts.len()).rev().filter(|at| kept[*at].is_none()) {
            let part = &stages.parts[at];
            let handover = part.taps.iter().zip(&stages.upstream[at]).filter(|(_, from)| kept[**from].is_some());
            let relation = |&(node, port): &(usize, usize)| plan.nodes[node].outputs[port].class != EdgeClass::Stream;
            past |= !part.tables.is_empty()
                || part.nodes.iter().any(|node| plan.nodes[*node].node.needs_from(SOME) < SOME)
                || handover.clone().any(|(port, _)| relation(port));
            handover.for_each(|(_, from)| before[*from] = true);
        }
        if !past {
            before.fill(false);
        }
        for at in (0..stages.parts.len()).rev() {
            if before[at] {
                stages.upstream[at].iter().for_each(|from| before[*from] = true);
            }
        }
        before
    }
}

/// Any time.
const SOME: Time = 1 << 42;

/// What is built for a change.
#[derive(Default)]
pub(super) struct Built {
    /// The stages of the new plan, those that go on among them.
    pub flows: Vec<Arc<Flow>>,
    /// Those that are new.
    pub new: Vec<Arc<Flow>>,
    pub copies: Vec<Arc<Flow>>,
    pub handovers: Vec<Handover>,
}

/// Where new stages go over to one that goes on.
pub(super) struct Handover {
    /// Its number among the stages.
    pub at: usize,
    pub seam: Arc<Seam>,
    /// The stage that goes on, and its copy.
    pub ends: Vec<Arc<Flow>>,
    /// The dataflows whose steps must end at it: the stage that goes on, those before it, and their copies.
    pub before: Vec<Arc<Flow>>,
}

impl Built {
    /// Tells new stages which others their rows may go on to.
    pub fn follow_new(&self) {
        for (at, flow) in self.new.iter().enumerate() {
            flow.set_followers(self.new[at + 1..].to_vec());
        }
    }
}

impl Handover {
    /// The stage that goes on: the ids of its nodes, or that of the source whose log it reads.
    pub fn name(&self) -> String {
        let Some(flow) = self.ends.first() else { return String::new() };
        let nodes = flow.part.nodes.iter().copied().chain(flow.part.reads.iter().map(|log| log.source));
        nodes.map(|node| flow.plan.nodes[node].id.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl Control {
    /// The dataflows of the new stages, and of copies of those that they read, if they need anything of the past.
    pub(super) fn build(&mut self, next: &Next<'_>, fresh: &[Arc<Table>]) -> Result<Built, String> {
        let Next { plan, stages, kept, gone } = *next;
        self.changes += 1;
        let copied = next.copied();
        let is_built = |at: &usize| kept[*at].is_none() || copied[*at];
        let all: Vec<&Part> = (0..stages.parts.len()).filter(is_built).map(|at| &stages.parts[at]).collect();
        let metrics = Arc::new(Metrics::default());
        let new = Building { plan, all: &all, group: RUNNING + self.changes, metrics, tables: fresh };
        let copy = Building { metrics: Arc::default(), tables: &[], ..new };
        let mut built = Built::default();
        let mut seams: BTreeMap<usize, Arc<Seam>> = BTreeMap::new();
        let mut copies: Vec<Option<Arc<Flow>>> = vec![None; stages.parts.len()];
        for (at, part) in stages.parts.iter().enumerate() {
            if !is_built(&at) {
                built.flows.extend(kept[at].clone());
                continue;
            }
            let mut feed = |from: &usize| match (&kept[*from], &copies[*from]) {
                // A copy reads copies.
                (Some(_), Some(copy)) if kept[at].is_some() => Feed::of(copy),
                (Some(kept), copy) => {
                    let seam = seams.entry(*from).or_default();
                    seam.add_input();
                    Feed { first: copy.as_ref().map(|copy| copy.id), then: Some((kept.id, Arc::clone(seam))) }
                }
                (None, _) => Feed::of(&built.flows[*from]),
            };
            let feeds: Vec<Feed> = stages.upstream[at].iter().map(&mut feed).collect();
            let error = |error: crate::spool::SpoolError| error.to_string();
            match &kept[at] {
                Some(kept) => {
                    let flow = self.compute(&copy, part, feeds).map_err(error)?;
                    let flow = Arc::new(Flow { gate: Gate::shut(), ..flow });
                    copies[at] = Some(Arc::clone(&flow));
                    built.copies.push(flow);
                    built.flows.push(Arc::clone(kept));
                }
                None => {
                    let flow = self.compute(&new, part, feeds).map_err(error)?;
                    let flow = Flow { gate: Gate::shut(), predecessors: Mutex::new(gone.to_vec()), ..flow };
                    built.new.push(Arc::new(flow));
                    built.flows.extend(built.new.last().cloned());
                }
            }
        }
        built.handovers = seams
            .into_iter()
            .map(|(at, seam)| {
                let both = |at: usize| kept[at].iter().chain(&copies[at]).cloned();
                Handover {
                    at,
                    seam,
                    ends: both(at).collect(),
                    before: stages.before(at).into_iter().flat_map(both).collect(),
                }
            })
            .collect();
        let behind: Vec<Arc<Flow>> = built.copies.iter().chain(&built.new).cloned().collect();
        for (at, flow) in built.copies.iter().enumerate() {
            flow.set_followers(behind[at + 1..].to_vec());
        }
        built.follow_new();
        Ok(built)
    }
}

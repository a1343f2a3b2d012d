//! Another pipeline for a run that goes on.
//!
//! Parts whose definition is the same keep running. Of the others, sources start anew behind what their log has, and
//! stages are built beside those that they replace. What they need of the past they are given by copies of the stages before
//! them, which read the logs from as far back as that. When they have caught up they are given what the stages that go on
//! give, from one time on, the copies end, and all sinks change over at one tick.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Control, LOOK, NOTE, RUNNING, follow};
use crate::batch::Time;
use crate::catalog::Table;
use crate::flow::{Flow, Gate};
use crate::logged::{Kept, Logged};
use crate::plan::diff::needs_restart;
use crate::plan::{Identity, Part, Plan};
use crate::reload::Outcome;
use crate::shared::tables;

mod build;
mod cross;
mod sources;

use build::{Built, Next};
use cross::{Halt, let_go};

/// How far new stages may be behind those that they replace when they take over, in ms of event time.
const CLOSE: Time = 1_000;

/// What takes longer is said in the log.
const LONG: Duration = Duration::from_secs(10);

/// The longest that a source may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

fn same(flow: &Flow, plan: &Plan, part: &Part) -> bool {
    flow.plan.identity(&flow.part) == plan.identity(part)
}

fn names(plan: &Plan, part: &Part) -> String {
    let names: Vec<&str> = part.nodes.iter().map(|node| plan.nodes[*node].id.as_str()).collect();
    names.join(", ")
}

impl Control {
    /// Loads the pipeline again and changes over to it.
    pub(super) fn change(&mut self) -> Outcome {
        let Some(loader) = &self.loader else {
            return Outcome::Refused("this run has no pipeline file to load again".to_owned());
        };
        let plan = match loader() {
            Ok(plan) => Arc::new(plan),
            Err(faults) => return Outcome::Refused(faults),
        };
        match self.change_to(&plan) {
            Ok(changed) if changed.is_empty() => Outcome::Unchanged(String::new()),
            Ok(changed) => Outcome::Applied(changed.join("; ")),
            Err(reason) => Outcome::Refused(reason),
        }
    }

    /// Changes over to a plan; what was changed. On an error everything is as it was.
    fn change_to(&mut self, plan: &Arc<Plan>) -> Result<Vec<String>, String> {
        if let Some(what) = needs_restart(&self.plan, plan) {
            return Err(format!("{what} cannot be changed while the pipeline runs: stop it and start it again"));
        }
        let kept = |part: &Part| self.receiving.iter().find(|flow| same(flow, plan, part)).cloned();
        let receiving: Vec<_> = plan.parts().0.into_iter().map(|part| (kept(&part), part)).collect();
        self.check_logs(plan, &receiving)?;
        let stages = plan.stages();
        let running: Vec<Identity> = self.computing.iter().map(|flow| flow.plan.stage_identity(&flow.part)).collect();
        let going_on = plan.going_on(&stages, &running).into_iter();
        let mut computing: Vec<_> = going_on.map(|at| at.map(|at| Arc::clone(&self.computing[at]))).collect();
        let gone = |flows: &[Arc<Flow>], kept: &[&Arc<Flow>]| -> Vec<Arc<Flow>> {
            flows.iter().filter(|flow| !kept.iter().any(|kept| Arc::ptr_eq(kept, flow))).cloned().collect()
        };
        let old_sources =
            gone(&self.receiving, &receiving.iter().filter_map(|(kept, _)| kept.as_ref()).collect::<Vec<_>>());
        let old_stages = gone(&self.computing, &computing.iter().flatten().collect::<Vec<_>>());
        let nothing_new = receiving.iter().all(|(kept, _)| kept.is_some()) && computing.iter().all(Option::is_some);
        if nothing_new && old_sources.is_empty() && old_stages.is_empty() {
            return Ok(Vec::new());
        }
        let check = |kept: &[Option<Arc<Flow>>]| {
            let new = stages.parts.iter().zip(kept).filter(|(_, kept)| kept.is_none());
            check_writes(plan, new.map(|(part, _)| part))
        };
        check(&computing)?;
        self.probe(plan, &receiving)?;

        let mut changed = Vec::new();
        let flows = self.change_sources(plan, receiving, &old_sources, &tables(plan), &mut changed).and_then(|()| {
            loop {
                let gone = gone(&self.computing, &computing.iter().flatten().collect::<Vec<_>>());
                let next = Next { plan, stages: &stages, kept: &computing, gone: &gone };
                match self.change_stages(&next, &mut changed) {
                    Ok(flows) => return Ok(flows),
                    Err(Halt::Refused(why)) => return Err(why),
                    // Then they are made again as well, which needs no time to pass.
                    Err(Halt::Standstill(at)) => let_go(&stages, &mut computing, &at),
                }
                check(&computing)?;
            }
        });
        let flows = flows.inspect_err(|_| self.go_back())?;
        self.computing = flows;
        self.plan = Arc::clone(plan);
        self.forget_logs();
        self.shared.catalog.set_graph(crate::graph::mermaid(plan));
        Ok(changed)
    }

    /// Builds the new stages beside the old ones and changes over when they have caught up.
    fn change_stages(&mut self, next: &Next<'_>, changed: &mut Vec<String>) -> Result<Vec<Arc<Flow>>, Halt> {
        self.progress.upto =
            self.progress.upto.max(self.computing.iter().map(|flow| flow.frontier()).min().unwrap_or(0));
        let fresh = tables(next.plan);
        let built = self.build(next, &fresh)?;
        self.coming = built.copies.iter().chain(&built.new).cloned().collect();
        let changed_over = self.change_over(next, &built, &fresh, changed);
        self.coming.clear();
        if changed_over.is_err() {
            for flow in built.copies.iter().chain(&built.new) {
                flow.set_followers(Vec::new());
                flow.forget_predecessors();
                flow.end();
            }
            // What was to be built beside them is not waited for any more.
            follow(&self.plan.stages(), &self.computing, &[]);
            self.computing.iter().for_each(|flow| flow.forget_seams());
            self.computing.iter().for_each(|flow| flow.wake());
            let workers = self.workers;
            let ended = || built.copies.iter().chain(&built.new).all(|flow| flow.has_ended(workers));
            // Before another attempt can come.
            let _ = self.wait(PATIENCE, "what was built to end", ended);
            self.flows().forget(workers);
        }
        changed_over
    }

    /// Waits until new stages have caught up with those whose places they take, and changes over. On an error nothing of
    /// what runs is changed.
    fn change_over(
        &mut self,
        next: &Next<'_>,
        built: &Built,
        fresh: &[Arc<Table>],
        changed: &mut Vec<String>,
    ) -> Result<Vec<Arc<Flow>>, Halt> {
        let Next { plan, stages, gone, .. } = *next;
        let Built { flows, new, copies, .. } = built;
        // Each behind those that it reads.
        for flow in copies.iter().chain(new) {
            self.flows().install(Arc::clone(flow));
        }
        // How far the sinks of the same name are; others may be further, such as those before a join.
        let target = |new: &Flow| {
            let same = |old: &&Arc<Flow>| ids_of(old).any(|id| ids_of(new).any(|other| other == id));
            gone.iter().filter(same).map(|flow| flow.gate.closed()).max().unwrap_or(0)
        };
        let workers = self.workers;
        let failure = || new.iter().chain(copies).find_map(|flow| flow.failure());
        let is_built = |flow: &Arc<Flow>| flow.has_caught_up() && flow.is_ready(workers);
        let near = |flow: &Arc<Flow>| {
            let closed = flow.gate.closed().saturating_add(CLOSE);
            !has_sinks(flow) || flow.gate.has_ended() || closed >= target(flow)
        };
        let ready = || copies.iter().chain(new).all(is_built) && (copies.is_empty() || new.iter().all(near));
        self.wait(Duration::MAX, "the new nodes to catch up", || failure().is_some() || ready())?;
        failure().map_or(Ok(()), Err)?;
        if !built.handovers.is_empty() {
            self.cross(stages, built, gone)?;
        }
        self.wait(Duration::MAX, "the new nodes to catch up", || failure().is_some() || new.iter().all(near))?;
        failure().map_or(Ok(()), Err)?;
        let boundary = Gate::hand_over(&pairs(gone, new));
        if let Some(why) = new.iter().find_map(|flow| flow.failure()) {
            // It failed after it was asked and before it was in charge: to the run it would be a sink that is slow.
            self.shared.fail(why);
        }
        gone.iter().chain(new).for_each(|flow| flow.wake());
        // From here on there is no way back: what the old sinks do not write the new ones do.
        let stopped =
            self.wait(Duration::MAX, "the old sinks to be done, such as with a server that does not answer", || {
                gone.iter().all(|flow| flow.has_finished(workers) || flow.has_ended(workers))
            });
        if stopped.is_err() {
            // The run ends between the two: what the old sinks still have to write must not be taken for written.
            changed.push(format!("the run ends at the change, tick {boundary}"));
            return Ok(flows.iter().chain(gone).cloned().collect());
        }
        new.iter().for_each(|flow| flow.wake());
        // Let go, so that no chain of all that ever ran is kept.
        new.iter().for_each(|flow| flow.forget_predecessors());
        new.iter().for_each(|flow| flow.sources.join(RUNNING));
        let open = |flow: &Arc<Flow>| flow.has_opened(workers) || flow.has_ended(workers);
        let _ = self.wait(PATIENCE, "the new sinks to open", || new.iter().all(open));
        self.publish(plan, flows, new, fresh);
        follow(stages, flows, &[]);
        gone.iter().for_each(|flow| flow.end());
        let ids = |flows: &[Arc<Flow>]| -> Vec<String> {
            let nodes =
                flows.iter().flat_map(|flow| flow.part.nodes.iter().map(|node| flow.plan.nodes[*node].id.clone()));
            nodes.collect()
        };
        let rebuilt = ids(new);
        if !rebuilt.is_empty() {
            changed.push(format!("{} rebuilt, from tick {boundary} on", rebuilt.join(", ")));
        }
        let mut removed = ids(gone);
        removed.retain(|id| !plan.nodes.iter().any(|node| node.id == *id));
        if !removed.is_empty() {
            changed.push(format!("{} removed", removed.join(", ")));
        }
        if changed.is_empty() {
            changed.push("the served tables changed".to_owned());
        }
        // Old state is let go before another change can come, so that no number of changes piles it up.
        let _ = self.wait(PATIENCE, "the old nodes to end", || gone.iter().all(|flow| flow.has_ended(workers)));
        gone.iter().for_each(|flow| flow.set_followers(Vec::new()));
        self.flows().forget(workers);
        Ok(flows.clone())
    }

    /// Shows the tables and counters of the new stages in place of the old ones.
    fn publish(&self, plan: &Plan, flows: &[Arc<Flow>], new: &[Arc<Flow>], fresh: &[Arc<Table>]) {
        let of_kept = |name: &str| {
            let kept = flows.iter().filter(|flow| !new.iter().any(|n| Arc::ptr_eq(n, flow))).chain(&self.receiving);
            kept.flat_map(|flow| &flow.tables).find(|table| table.name == name).cloned()
        };
        let served = plan.serve.iter().flat_map(|serve| &serve.tables);
        let shown = served.zip(fresh).map(|((name, ..), table)| of_kept(name).unwrap_or_else(|| Arc::clone(table)));
        self.shared.catalog.replace(shown.collect());
        let mut rebuilt: HashMap<String, _> = HashMap::new();
        for flow in new {
            for node in &flow.part.nodes {
                let node = &plan.nodes[*node];
                rebuilt.insert(node.id.clone(), flow.metrics.node(&node.id, node.kind.name));
            }
        }
        self.shared.metrics.adopt(plan.nodes.iter().map(|node| (node.id.as_str(), node.kind.name)), &rebuilt);
    }

    /// Lets go of logs that no source writes any more, and nobody reads.
    fn forget_logs(&mut self) {
        let mut used: Vec<Arc<Logged>> = Vec::new();
        used.extend(
            self.receiving.iter().filter_map(|flow| flow.writes.as_ref().map(|(logged, _)| Arc::clone(logged))),
        );
        for kept in self.computing.iter().flat_map(|flow| &flow.reads).flatten() {
            if let Kept::Log(logged, _) = kept {
                used.push(Arc::clone(logged));
            }
        }
        self.logs.retain(|_, logged| {
            let keep = used.iter().any(|used| Arc::ptr_eq(used, logged));
            if !keep {
                logged.log.close();
            }
            keep
        });
    }

    /// Waits for a condition; an error if the run ends before, or in vain. Meanwhile it is noted how far the run is.
    fn wait(&mut self, patience: Duration, what: &str, condition: impl Fn() -> bool) -> Result<(), String> {
        let start = Instant::now();
        let mut told = false;
        while !condition() {
            if self.shared.is_stopping() {
                return Err("the run is ending".to_owned());
            }
            if start.elapsed() > patience {
                return Err(format!("waited {} s for {what}", patience.as_secs()));
            }
            if !told && start.elapsed() > LONG {
                told = true;
                tracing::warn!("a change of the pipeline waits for {what}");
            }
            if self.noted.elapsed() >= NOTE {
                self.note();
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// The ids of a dataflow's nodes.
fn ids_of(flow: &Flow) -> impl Iterator<Item = &str> {
    flow.part.nodes.iter().map(|node| flow.plan.nodes[*node].id.as_str())
}

/// The gates of those that share a node by name, on both sides.
fn pairs<'f>(gone: &'f [Arc<Flow>], new: &'f [Arc<Flow>]) -> Vec<[Vec<&'f Gate>; 2]> {
    let mut pairs: Vec<(BTreeSet<&str>, [Vec<&Gate>; 2])> = Vec::new();
    for (side, flow) in gone.iter().map(|flow| (0, flow)).chain(new.iter().map(|flow| (1, flow))) {
        let mut joined = (ids_of(flow).collect::<BTreeSet<_>>(), [Vec::new(), Vec::new()]);
        joined.1[side].push(&flow.gate);
        let (with, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(ids, _)| !ids.is_disjoint(&joined.0));
        pairs = others;
        for (ids, [old, new]) in with {
            joined.0.extend(ids);
            joined.1[0].extend(old);
            joined.1[1].extend(new);
        }
        pairs.push(joined);
    }
    pairs.into_iter().map(|(_, gates)| gates).collect()
}

fn has_sinks(flow: &Flow) -> bool {
    flow.part.nodes.iter().any(|node| flow.plan.nodes[*node].outputs.is_empty())
}

/// Whether what new sinks write to can be written, before anything is changed.
fn check_writes<'p>(plan: &Plan, new: impl Iterator<Item = &'p Part>) -> Result<(), String> {
    for node in new.flat_map(|part| &part.nodes) {
        let node = &plan.nodes[*node];
        for path in node.node.writes() {
            let attempt = || -> std::io::Result<()> {
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    std::fs::create_dir_all(parent)?;
                }
                std::fs::OpenOptions::new().append(true).create(true).open(&path).map(drop)
            };
            attempt().map_err(|error| format!("{}: {} cannot be written: {error}", node.id, path.display()))?;
        }
    }
    Ok(())
}

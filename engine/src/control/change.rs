//! Another pipeline for a run that goes on.
//!
//! Parts whose definition is the same keep running. Of the others, sources start anew behind what their log has, and
//! islands are built beside those that they replace: they read the logs from as far back as they need, and when they
//! have caught up, all sinks change over at one tick.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Control, LOOK, NOTE};
use crate::batch::Time;
use crate::catalog::Table;
use crate::flow::{Flow, Gate};
use crate::metrics::Metrics;
use crate::plan::diff::needs_restart;
use crate::plan::{Part, Plan};
use crate::reload::Outcome;
use crate::shared::tables;

/// How far a new island may be behind those that it replaces when it takes over, in ms of event time.
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
        let (receiving, computing) = plan.parts();
        let kept = |flows: &[Arc<Flow>], part: &Part| flows.iter().find(|flow| same(flow, plan, part)).cloned();
        let receiving: Vec<_> = receiving.into_iter().map(|part| (kept(&self.receiving, &part), part)).collect();
        let computing: Vec<_> = computing.into_iter().map(|part| (kept(&self.computing, &part), part)).collect();
        let gone = |flows: &[Arc<Flow>], parts: &[(Option<Arc<Flow>>, Part)]| -> Vec<Arc<Flow>> {
            let stays =
                |flow: &Arc<Flow>| parts.iter().any(|(kept, _)| kept.as_ref().is_some_and(|k| Arc::ptr_eq(k, flow)));
            flows.iter().filter(|flow| !stays(flow)).cloned().collect()
        };
        let (old_sources, old_islands) = (gone(&self.receiving, &receiving), gone(&self.computing, &computing));
        let nothing_new = receiving.iter().chain(&computing).all(|(kept, _)| kept.is_some());
        if nothing_new && old_sources.is_empty() && old_islands.is_empty() {
            return Ok(Vec::new());
        }
        check_writes(plan, &computing)?;
        self.probe(plan, &receiving)?;

        let mut changed = Vec::new();
        let sources = self.change_sources(plan, receiving, &old_sources, &mut changed);
        let islands = match sources.and_then(|()| self.change_islands(plan, computing, &old_islands, &mut changed)) {
            Ok(islands) => islands,
            Err(why) => {
                self.go_back();
                return Err(why);
            }
        };
        self.computing = islands;
        self.plan = Arc::clone(plan);
        self.forget_logs();
        self.shared.catalog.set_graph(crate::graph::mermaid(plan));
        Ok(changed)
    }

    /// Runs the sources of the old plan again where another plan's have taken their place.
    fn go_back(&mut self) {
        if self.shared.is_stopping() {
            // The next start opens them.
            return;
        }
        let plan = Arc::clone(&self.plan);
        let kept = |part: &Part| self.receiving.iter().find(|flow| same(flow, &plan, part)).cloned();
        let parts: Vec<_> = plan.parts().0.into_iter().map(|part| (kept(&part), part)).collect();
        let stays =
            |flow: &Arc<Flow>| parts.iter().any(|(kept, _)| kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, flow)));
        let gone: Vec<Arc<Flow>> = self.receiving.iter().filter(|flow| !stays(flow)).cloned().collect();
        if let Err(why) = self.change_sources(&plan, parts, &gone, &mut Vec::new()) {
            // A run that goes on without one of its sources would lose what comes there, unseen.
            self.shared.fail(format!("a change was refused, and a source of before cannot be started again: {why}"));
        }
        self.forget_logs();
    }

    /// Whether new sources can be opened beside those that run, before any of these is ended.
    fn probe(&self, plan: &Plan, parts: &[(Option<Arc<Flow>>, Part)]) -> Result<(), String> {
        for node in parts.iter().filter(|(kept, _)| kept.is_none()).flat_map(|(_, part)| &part.nodes) {
            let node = &plan.nodes[*node];
            node.node.probe(&self.shared.privileges).map_err(|why| format!("{}: {why}", node.id))?;
        }
        Ok(())
    }

    /// Ends the sources that are gone or changed, then starts those that are new or changed. Those that run then are
    /// [`Control::receiving`], also on an error.
    fn change_sources(
        &mut self,
        plan: &Arc<Plan>,
        parts: Vec<(Option<Arc<Flow>>, Part)>,
        gone: &[Arc<Flow>],
        changed: &mut Vec<String>,
    ) -> Result<(), String> {
        for flow in gone {
            flow.end();
            changed.push(format!("{} ended", names(&flow.plan, &flow.part)));
        }
        let workers = self.workers;
        let ended = || gone.iter().all(|flow| flow.has_ended(workers));
        if let Err(why) = self.wait(PATIENCE, "sources to end", ended) {
            if !self.shared.is_stopping() {
                // Nobody can take over its log, and it cannot be told to go on.
                self.shared.fail(format!("a source does not end: {why}"));
            }
            return Err(format!("a source does not end: {why}"));
        }
        let (kept, new): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(kept, _)| kept.is_some());
        self.receiving = kept.into_iter().filter_map(|(kept, _)| kept).collect();
        let mut started = Vec::with_capacity(new.len());
        for (_, part) in new {
            let name = names(plan, &part);
            let flow = self.receive(plan, part).map_err(|error| error.to_string())?;
            let flow = Arc::new(Flow { gate: Gate::shut(), ..flow });
            self.flows().install(Arc::clone(&flow));
            self.receiving.push(Arc::clone(&flow));
            started.push((name, flow));
        }
        let settled = |(_, flow): &(String, Arc<Flow>)| flow.is_receiving() || flow.failure().is_some();
        self.wait(PATIENCE, "sources to start", || started.iter().all(settled))?;
        let failure = started.iter().find_map(|(_, flow)| flow.failure());
        if let Some(why) = failure {
            // It has ended by itself.
            let failed = |flow: &Arc<Flow>| flow.failure().is_some();
            self.wait(PATIENCE, "a source to end", || {
                started.iter().all(|(_, flow)| !failed(flow) || flow.has_ended(workers))
            })?;
            self.receiving.retain(|flow| !failed(flow));
            // The log of a source that is new is not its any more.
            drop(started);
            self.flows().forget(workers);
            return Err(why);
        }
        for (name, flow) in started {
            flow.gate.unlock();
            changed.push(format!("{name} started"));
        }
        Ok(())
    }

    /// Builds the new islands beside the old ones and changes over when they have caught up.
    fn change_islands(
        &mut self,
        plan: &Arc<Plan>,
        parts: Vec<(Option<Arc<Flow>>, Part)>,
        gone: &[Arc<Flow>],
        changed: &mut Vec<String>,
    ) -> Result<Vec<Arc<Flow>>, String> {
        self.progress.upto =
            self.progress.upto.max(self.computing.iter().map(|flow| flow.frontier()).min().unwrap_or(0));
        let fresh = tables(plan);
        let metrics = Arc::new(Metrics::default());
        let (mut flows, mut new) = (Vec::with_capacity(parts.len()), Vec::new());
        for (kept, part) in parts {
            if let Some(kept) = kept {
                flows.push(kept);
                continue;
            }
            let flow =
                self.compute(plan, part, Arc::clone(&metrics), fresh.clone()).map_err(|error| error.to_string())?;
            let flow = Arc::new(Flow { gate: Gate::shut(), predecessors: Mutex::new(gone.to_vec()), ..flow });
            new.push(Arc::clone(&flow));
            flows.push(flow);
        }
        self.coming.clone_from(&new);
        let changed_over = self.change_over(plan, (&new, gone), flows, (&fresh, changed));
        self.coming.clear();
        changed_over
    }

    /// Waits until new islands have caught up with those whose places they take, and changes over.
    fn change_over(
        &mut self,
        plan: &Arc<Plan>,
        (new, gone): (&[Arc<Flow>], &[Arc<Flow>]),
        mut flows: Vec<Arc<Flow>>,
        (fresh, changed): (&[Arc<Table>], &mut Vec<String>),
    ) -> Result<Vec<Arc<Flow>>, String> {
        for flow in new {
            self.flows().install(Arc::clone(flow));
        }
        let target = || gone.iter().map(|flow| flow.gate.closed()).filter(|at| *at < Time::MAX).max().unwrap_or(0);
        let workers = self.workers;
        let near = |flow: &Arc<Flow>| {
            flow.failure().is_some()
                || flow.has_caught_up()
                    && flow.is_ready(workers)
                    && (!has_sinks(flow) || flow.gate.closed().saturating_add(CLOSE) >= target())
        };
        let caught_up = self.wait(Duration::MAX, "the new nodes to catch up", || new.iter().all(near));
        let failed = new.iter().find_map(|flow| flow.failure());
        if let Some(why) = failed.or(caught_up.err()) {
            new.iter().for_each(|flow| flow.end());
            return Err(why);
        }
        let boundary = Gate::hand_over(&gates_of(gone), &gates_of(new));
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
            flows.extend(gone.iter().cloned());
            changed.push(format!("the run ends at the change, tick {boundary}"));
            return Ok(flows);
        }
        new.iter().for_each(|flow| flow.wake());
        let _ = self.wait(PATIENCE, "the new sinks to open", || new.iter().all(|flow| flow.has_opened(workers)));
        self.publish(plan, &flows, new, fresh);
        gone.iter().for_each(|flow| flow.end());
        for flow in new {
            changed.push(format!("{} rebuilt, from tick {boundary} on", names(plan, &flow.part)));
        }
        for flow in gone {
            let still = |node: &&usize| plan.nodes.iter().any(|n| n.id == flow.plan.nodes[**node].id);
            let removed: Vec<&str> =
                flow.part.nodes.iter().filter(|n| !still(n)).map(|n| flow.plan.nodes[*n].id.as_str()).collect();
            if !removed.is_empty() {
                changed.push(format!("{} removed", removed.join(", ")));
            }
        }
        // Old state is let go before another change can come, so that no number of changes piles it up.
        let _ = self.wait(PATIENCE, "the old nodes to end", || gone.iter().all(|flow| flow.has_ended(workers)));
        self.flows().forget(workers);
        Ok(flows)
    }

    /// Shows the tables and counters of the new islands in place of the old ones.
    fn publish(&self, plan: &Plan, flows: &[Arc<Flow>], new: &[Arc<Flow>], fresh: &[Arc<Table>]) {
        let of_kept = |name: &str| {
            let kept = flows.iter().filter(|flow| !new.iter().any(|n| Arc::ptr_eq(n, flow)));
            kept.flat_map(|flow| flow.part.tables.iter().filter_map(|at| flow.tables.get(*at)))
                .find(|table| table.name == name)
                .cloned()
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

    /// Lets go of logs that no source writes any more.
    fn forget_logs(&mut self) {
        let used: Vec<Arc<crate::logged::Logged>> = self
            .receiving
            .iter()
            .filter_map(|flow| flow.writes.as_ref().map(|(logged, _)| Arc::clone(logged)))
            .collect();
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
                return Err(format!("not within {} s", patience.as_secs()));
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

fn gates_of(flows: &[Arc<Flow>]) -> Vec<&Gate> {
    flows.iter().map(|flow| &flow.gate).collect()
}

fn has_sinks(flow: &Flow) -> bool {
    flow.part.nodes.iter().any(|node| flow.plan.nodes[*node].outputs.is_empty())
}

/// Whether what new sinks write to can be written, before anything is changed.
fn check_writes(plan: &Plan, parts: &[(Option<Arc<Flow>>, Part)]) -> Result<(), String> {
    let new = parts.iter().filter(|(kept, _)| kept.is_none());
    for node in new.flat_map(|(_, part)| &part.nodes) {
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

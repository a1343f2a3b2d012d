//! Another pipeline for a run that goes on.
//!
//! Parts whose definition is the same keep running. Of the others, sources start anew behind what their log has, and
//! islands are built beside those that they replace: they read the logs from as far back as they need, and when they
//! have caught up, all sinks change over at one tick.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Control, LOOK};
use crate::batch::Time;
use crate::catalog::Table;
use crate::flow::{Flow, Gate};
use crate::logged::schemas;
use crate::metrics::Metrics;
use crate::plan::{Part, Plan};
use crate::reload::Outcome;
use crate::shared::tables;

/// How far a new island may be behind those that it replaces when it takes over, in ms of event time.
const CLOSE: Time = 1_000;

/// The longest that a source may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What makes two parts the same.
#[derive(PartialEq, Eq)]
struct Identity {
    nodes: Vec<(String, [u8; 32])>,
    logs: Vec<(String, Vec<(String, arrow::datatypes::SchemaRef)>)>,
    tables: Vec<(String, String, usize, usize)>,
}

fn identity(plan: &Plan, part: &Part) -> Identity {
    let id = |node: usize| plan.nodes[node].id.clone();
    let tables = plan.serve.iter().flat_map(|serve| {
        part.tables.iter().map(|at| {
            let (name, node, port) = &serve.tables[*at];
            (name.clone(), id(*node), *port, serve.hot_rows)
        })
    });
    Identity {
        nodes: part.nodes.iter().map(|node| (id(*node), plan.nodes[*node].digest)).collect(),
        logs: part.reads.iter().chain(&part.writes).map(|log| (id(log.source), schemas(plan, log))).collect(),
        tables: tables.collect(),
    }
}

fn same(flow: &Flow, plan: &Plan, part: &Part) -> bool {
    identity(&flow.plan, &flow.part) == identity(plan, part)
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
        self.refuse_what_needs_a_restart(plan)?;
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
        self.check_logs(plan, &receiving)?;
        check_writes(plan, &computing)?;
        self.probe(plan, &receiving)?;

        let mut changed = Vec::new();
        self.receiving = self.change_sources(plan, receiving, &old_sources, &mut changed)?;
        let islands = match self.change_islands(plan, computing, &old_islands, &mut changed) {
            Ok(islands) => islands,
            Err(why) => {
                self.go_back()?;
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
    fn go_back(&mut self) -> Result<(), String> {
        let plan = Arc::clone(&self.plan);
        let kept = |part: &Part| self.receiving.iter().find(|flow| same(flow, &plan, part)).cloned();
        let parts: Vec<_> = plan.parts().0.into_iter().map(|part| (kept(&part), part)).collect();
        let stays =
            |flow: &Arc<Flow>| parts.iter().any(|(kept, _)| kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, flow)));
        let gone: Vec<Arc<Flow>> = self.receiving.iter().filter(|flow| !stays(flow)).cloned().collect();
        self.receiving = self.change_sources(&plan, parts, &gone, &mut Vec::new())?;
        self.forget_logs();
        Ok(())
    }

    /// What a running process cannot change.
    fn refuse_what_needs_a_restart(&self, plan: &Plan) -> Result<(), String> {
        let needs =
            |what: &str| Err(format!("{what} cannot be changed while the pipeline runs: stop it and start it again"));
        if !plan.is_spooled() {
            return needs("a pipeline without live sources or without a spool: this");
        }
        if plan.data_dir != self.plan.data_dir {
            return needs("`data_dir`");
        }
        if plan.tick != self.plan.tick {
            return needs("`tick`");
        }
        let (old, new) = (&self.plan.spool, &plan.spool);
        if format!("{old:?}") != format!("{new:?}") {
            return needs("the section `spool`");
        }
        let listen = |plan: &Plan| plan.serve.as_ref().map(|serve| (serve.listen.clone(), serve.hosts.clone()));
        if listen(plan) != listen(&self.plan) {
            return needs("the address of the section `serve`");
        }
        Ok(())
    }

    /// A log goes on with the columns that it has.
    fn check_logs(&self, plan: &Plan, parts: &[(Option<Arc<Flow>>, Part)]) -> Result<(), String> {
        for (kept, part) in parts {
            let (None, Some(ports)) = (kept, &part.writes) else { continue };
            let id = &plan.nodes[ports.source].id;
            let old = self.receiving.iter().find_map(|flow| {
                let ports = flow.part.writes.as_ref().filter(|ports| flow.plan.nodes[ports.source].id == *id)?;
                Some(schemas(&flow.plan, ports))
            });
            if old.is_some_and(|old| old != schemas(plan, ports)) {
                return Err(format!(
                    "the columns of `{id}` cannot be changed while the pipeline runs: stop it and start it again"
                ));
            }
        }
        Ok(())
    }

    /// Whether what new sources receive from can be opened.
    fn probe(&self, plan: &Plan, parts: &[(Option<Arc<Flow>>, Part)]) -> Result<(), String> {
        for node in parts.iter().filter(|(kept, _)| kept.is_none()).flat_map(|(_, part)| &part.nodes) {
            let node = &plan.nodes[*node];
            node.node.probe(&self.shared.privileges).map_err(|why| format!("{}: {why}", node.id))?;
        }
        Ok(())
    }

    /// Ends the sources that are gone or changed, then starts those that are new or changed.
    fn change_sources(
        &mut self,
        plan: &Arc<Plan>,
        parts: Vec<(Option<Arc<Flow>>, Part)>,
        gone: &[Arc<Flow>],
        changed: &mut Vec<String>,
    ) -> Result<Vec<Arc<Flow>>, String> {
        for flow in gone {
            flow.end();
            changed.push(format!("{} ended", names(&flow.plan, &flow.part)));
        }
        let workers = self.workers;
        self.wait(PATIENCE, || gone.iter().all(|flow| flow.has_ended(workers)))
            .map_err(|why| format!("a source does not end: {why}"))?;
        let mut flows = Vec::with_capacity(parts.len());
        for (kept, part) in parts {
            if let Some(kept) = kept {
                flows.push(kept);
                continue;
            }
            changed.push(format!("{} started", names(plan, &part)));
            let flow = Arc::new(self.receive(plan, part).map_err(|error| error.to_string())?);
            self.flows().install(Arc::clone(&flow));
            flows.push(flow);
        }
        Ok(flows)
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
        for flow in &new {
            self.flows().install(Arc::clone(flow));
        }
        let target = || gone.iter().map(|flow| flow.gate.closed()).filter(|at| *at < Time::MAX).max().unwrap_or(0);
        let near = |flow: &Arc<Flow>| {
            flow.failure().is_some()
                || flow.has_caught_up() && (!has_sinks(flow) || flow.gate.closed().saturating_add(CLOSE) >= target())
        };
        let caught_up = self.wait(Duration::MAX, || new.iter().all(near));
        let failed = new.iter().find_map(|flow| flow.failure());
        if let Some(why) = failed.or(caught_up.err()) {
            new.iter().for_each(|flow| flow.end());
            return Err(why);
        }
        let gates = |flows: &[Arc<Flow>]| flows.iter().map(Arc::clone).collect::<Vec<_>>();
        let (old_gates, new_gates) = (gates(gone), gates(&new));
        let old_gates: Vec<&Gate> = old_gates.iter().map(|flow| &flow.gate).collect();
        let new_gates: Vec<&Gate> = new_gates.iter().map(|flow| &flow.gate).collect();
        let boundary = Gate::hand_over(&old_gates, &new_gates);
        gone.iter().chain(&new).for_each(|flow| flow.wake());
        let workers = self.workers;
        // From here on there is no way back: what the old sinks do not write the new ones do.
        let stopped =
            self.wait(Duration::MAX, || gone.iter().all(|flow| flow.has_finished(workers) || flow.has_ended(workers)));
        if stopped.is_err() {
            // The run ends between the two: what the old sinks still have to write must not be taken for written.
            flows.extend(gone.iter().cloned());
            changed.push(format!("the run ends at the change, tick {boundary}"));
            return Ok(flows);
        }
        new.iter().for_each(|flow| flow.wake());
        let _ = self.wait(PATIENCE, || new.iter().all(|flow| flow.has_opened(workers)));
        self.publish(plan, &flows, &new, &fresh);
        gone.iter().for_each(|flow| flow.end());
        for flow in &new {
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
        let _ = self.wait(PATIENCE, || gone.iter().all(|flow| flow.has_ended(workers)));
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

    /// Waits for a condition; an error if the run ends before, or in vain.
    fn wait(&self, patience: Duration, condition: impl Fn() -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !condition() {
            if self.shared.is_stopping() {
                return Err("the run is ending".to_owned());
            }
            if start.elapsed() > patience {
                return Err(format!("not within {} s", patience.as_secs()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
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

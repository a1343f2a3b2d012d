//! Sources that are changed while the run goes on.

use std::sync::Arc;

use super::super::Control;
use super::{PATIENCE, Wanted, not_kept};
use crate::catalog::Table;
use crate::contract::Running;
use crate::dataflow::Dataflow;
use crate::plan::{Island, Plan};

fn names(plan: &Plan, island: &Island) -> String {
    let names: Vec<&str> = island.nodes.iter().map(|node| plan.nodes[*node].id.as_str()).collect();
    names.join(", ")
}

impl Control {
    /// Runs the sources of the old plan again where another plan's have taken their place.
    pub(super) fn go_back(&mut self) {
        if self.shared.is_stopping() {
            // The next start opens them.
            return;
        }
        let plan = Arc::clone(&self.plan);
        let same = |island: &Island| {
            let is_same = |one: &&Arc<Dataflow>| one.plan.identity(&one.island) == plan.identity(island);
            self.receiving.iter().find(is_same).cloned()
        };
        let has_ended = |island: &Island| {
            let log = island.writes.as_ref().and_then(|log| self.logs.get(&plan.nodes[log.source].id));
            log.is_some_and(|log| log.is_complete())
        };
        let wanted = plan.islands().0.into_iter().map(|island| (same(&island), island));
        // A source that has ended is not started again.
        let wanted: Wanted = wanted.filter(|(kept, island)| kept.is_some() || !has_ended(island)).collect();
        let gone = not_kept(&self.receiving, &wanted);
        let tables = self.shared.catalog.tables();
        if let Err(why) = self.change_sources(&plan, wanted, &gone, &tables, &mut Vec::new()) {
            // A run that goes on without one of its sources would lose what comes there, unseen.
            self.shared.fail(format!("a change was refused, and a source of before cannot be started again: {why}"));
        }
        self.forget_logs();
    }

    /// Whether new sources find logs that go on. Who reads a log that is complete has seen its end.
    pub(super) fn check_logs(&self, plan: &Plan, wanted: &Wanted) -> Result<(), String> {
        let new = wanted.iter().filter(|(kept, _)| kept.is_none());
        for log in new.flat_map(|(_, island)| island.writes.iter().chain(&island.keeps)) {
            let id = &plan.nodes[log.source].id;
            if self.logs.get(id).is_some_and(|log| log.is_complete()) {
                return Err(format!(
                    "{id} has ended and cannot be changed: give the source another id, or stop the pipeline and start it again"
                ));
            }
        }
        Ok(())
    }

    /// Whether new sources can be opened beside those that run, before any of these is ended.
    pub(super) fn probe(&self, plan: &Plan, wanted: &Wanted) -> Result<(), String> {
        for node in wanted.iter().filter(|(kept, _)| kept.is_none()).flat_map(|(_, island)| &island.nodes) {
            let node = &plan.nodes[*node];
            node.node.probe(&self.shared.privileges).map_err(|why| format!("{}: {why}", node.id))?;
        }
        Ok(())
    }

    /// Ends the sources that are gone or changed, then starts those that are new or changed. Those that run then are
    /// [`Control::receiving`], also on an error.
    pub(super) fn change_sources(
        &mut self,
        plan: &Arc<Plan>,
        wanted: Wanted,
        gone: &[Arc<Dataflow>],
        tables: &[Arc<Table>],
        changed: &mut Vec<String>,
    ) -> Result<(), String> {
        for one in gone {
            one.end();
            changed.push(format!("{} ended", names(&one.plan, &one.island)));
        }
        let workers = self.workers;
        let ended = || gone.iter().all(|one| one.has_ended(workers));
        if let Err(why) = self.wait(PATIENCE, "sources to end", ended) {
            if !self.shared.is_stopping() {
                // Nobody can take over its log, and it cannot be told to go on.
                self.shared.fail(format!("a source does not end: {why}"));
            }
            return Err(format!("a source does not end: {why}"));
        }
        // One may have ended by itself just before it was to end.
        let complete = self.check_logs(plan, &wanted);
        let (kept, new): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(kept, _)| kept.is_some());
        self.receiving = kept.into_iter().filter_map(|(kept, _)| kept).collect();
        complete?;
        let mut started = Vec::with_capacity(new.len());
        for (_, island) in new {
            let name = names(plan, &island);
            let dataflow = self.receive(plan, island, tables).map_err(|error| error.to_string())?;
            let dataflow = Arc::new(dataflow.in_place_of(&[], &[]));
            self.dataflows.install(Arc::clone(&dataflow));
            self.receiving.push(Arc::clone(&dataflow));
            started.push((name, dataflow));
        }
        let settled = |(_, one): &(String, Arc<Dataflow>)| one.is_receiving() || one.failure().is_some();
        self.wait(PATIENCE, "sources to start", || started.iter().all(settled))?;
        if let Some(why) = started.iter().find_map(|(_, one)| one.failure()) {
            let failed = |one: &Arc<Dataflow>| one.failure().is_some();
            started.iter().filter(|(_, one)| failed(one)).for_each(|(_, one)| one.end());
            self.wait(PATIENCE, "a source to end", || {
                started.iter().all(|(_, one)| !failed(one) || one.has_ended(workers))
            })?;
            self.receiving.retain(|one| !failed(one));
            // The log of a source that is new is not its any more.
            drop(started);
            self.dataflows.forget(workers);
            return Err(why);
        }
        for (name, one) in started {
            one.take_charge();
            changed.push(format!("{name} started"));
        }
        Ok(())
    }
}

//! Sources that are changed while the run goes on.

use std::sync::Arc;

use super::super::Control;
use super::{PATIENCE, names, same};
use crate::catalog::Table;
use crate::flow::{Flow, Gate};
use crate::plan::{Part, Plan};

impl Control {
    /// Runs the sources of the old plan again where another plan's have taken their place.
    pub(super) fn go_back(&mut self) {
        if self.shared.is_stopping() {
            // The next start opens them.
            return;
        }
        let plan = Arc::clone(&self.plan);
        let kept = |part: &Part| self.receiving.iter().find(|flow| same(flow, &plan, part)).cloned();
        let has_ended = |part: &Part| {
            let log = part.writes.as_ref().and_then(|log| self.logs.get(&plan.nodes[log.source].id));
            log.is_some_and(|logged| logged.is_complete())
        };
        let parts = plan.parts().0.into_iter().map(|part| (kept(&part), part));
        // A source that has ended is not started again.
        let parts: Vec<_> = parts.filter(|(kept, part)| kept.is_some() || !has_ended(part)).collect();
        let stays =
            |flow: &Arc<Flow>| parts.iter().any(|(kept, _)| kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, flow)));
        let gone: Vec<Arc<Flow>> = self.receiving.iter().filter(|flow| !stays(flow)).cloned().collect();
        let tables = self.shared.catalog.tables();
        if let Err(why) = self.change_sources(&plan, parts, &gone, &tables, &mut Vec::new()) {
            // A run that goes on without one of its sources would lose what comes there, unseen.
            self.shared.fail(format!("a change was refused, and a source of before cannot be started again: {why}"));
        }
        self.forget_logs();
    }

    /// Whether new sources find logs that go on. Who reads a log that is complete has seen its end.
    pub(super) fn check_logs(&self, plan: &Plan, parts: &[(Option<Arc<Flow>>, Part)]) -> Result<(), String> {
        for log in parts.iter().filter(|(kept, _)| kept.is_none()).filter_map(|(_, part)| part.writes.as_ref()) {
            let id = &plan.nodes[log.source].id;
            if self.logs.get(id).is_some_and(|logged| logged.is_complete()) {
                return Err(format!(
                    "{id} has ended and cannot be changed: give the source another id, or stop the pipeline and start it again"
                ));
            }
        }
        Ok(())
    }

    /// Whether new sources can be opened beside those that run, before any of these is ended.
    pub(super) fn probe(&self, plan: &Plan, parts: &[(Option<Arc<Flow>>, Part)]) -> Result<(), String> {
        for node in parts.iter().filter(|(kept, _)| kept.is_none()).flat_map(|(_, part)| &part.nodes) {
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
        parts: Vec<(Option<Arc<Flow>>, Part)>,
        gone: &[Arc<Flow>],
        tables: &[Arc<Table>],
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
        // One may have ended by itself just before it was to end.
        let complete = self.check_logs(plan, &parts);
        let (kept, new): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(kept, _)| kept.is_some());
        self.receiving = kept.into_iter().filter_map(|(kept, _)| kept).collect();
        complete?;
        let mut started = Vec::with_capacity(new.len());
        for (_, part) in new {
            let name = names(plan, &part);
            let flow = self.receive(plan, part, tables).map_err(|error| error.to_string())?;
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
            started.iter().filter(|(_, flow)| failed(flow)).for_each(|(_, flow)| flow.end());
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
            flow.wake();
            changed.push(format!("{name} started"));
        }
        Ok(())
    }
}

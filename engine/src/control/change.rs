//! Another pipeline for a run that goes on.
//!
//! Islands whose definition is the same go on. Of the others, sources start anew behind what their log has, and islands are
//! built beside those that they replace: they read the logs from as far back as they need, and when they have caught up,
//! their sinks take over, each where the old one is.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Building, Control, LOOK, NOTE, Progress, RUNNING, look_at_folder};
use crate::batch::Time;
use crate::catalog::Table;
use crate::contract::{Running, SinkState};
use crate::dataflow::{Dataflow, hand_over};
use crate::metrics::Metrics;
use crate::plan::diff::{ending_windows, needs_restart};
use crate::plan::{Island, Plan, tables};
use crate::reload::Outcome;
use crate::source_log::SourceLog;

mod outcome;
mod sources;

use outcome::{unfinished, what_changed};

/// How far new sinks may be behind the old ones when they take over, in ms of event time.
const CLOSE: Time = 1_000;

/// New islands whose counters stand still for so long have done what there was to do.
const QUIET: Duration = Duration::from_millis(250);

/// The longest that new islands may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(15 * 60);

/// What takes longer is said in the log.
const LONG: Duration = Duration::from_secs(10);

/// The longest that a source or a node may take to end, or a sink to open.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest that rows of a log that has ended are waited for. Then what they still wait for is taken as ended too.
const DRAIN: Duration = Duration::from_secs(10);

/// Islands of the next plan, each with the dataflow that goes on as it, if there is one.
type Wanted = Vec<(Option<Arc<Dataflow>>, Island)>;

/// The dataflows among `running` that are not among those that go on.
fn not_kept(running: &[Arc<Dataflow>], wanted: &Wanted) -> Vec<Arc<Dataflow>> {
    let kept = |one: &Arc<Dataflow>| wanted.iter().any(|(kept, _)| kept.as_ref().is_some_and(|k| Arc::ptr_eq(k, one)));
    running.iter().filter(|one| !kept(one)).cloned().collect()
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
        let (receiving, computing) = plan.islands();
        let with = |running: &[Arc<Dataflow>], islands: Vec<Island>| -> Wanted {
            let same = |island: &Island| {
                let is_same = |one: &&Arc<Dataflow>| one.plan.identity(&one.island) == plan.identity(island);
                running.iter().find(is_same).cloned()
            };
            islands.into_iter().map(|island| (same(&island), island)).collect()
        };
        let (receiving, computing) = (with(&self.receiving, receiving), with(&self.computing, computing));
        let (old_sources, old_islands) = (not_kept(&self.receiving, &receiving), not_kept(&self.computing, &computing));
        let is_new = receiving.iter().chain(&computing).any(|(kept, _)| kept.is_none());
        if !is_new && old_sources.is_empty() && old_islands.is_empty() {
            return Ok(Vec::new());
        }
        self.await_the_last_change()?;
        self.check_logs(plan, &receiving)?;
        let claims = self.take_outputs(plan, &computing)?;
        self.probe(plan, &receiving)?;
        let claims = self.shared.claims.keep(claims);

        let mut changed = Vec::new();
        let known: Vec<String> = self.logs.keys().cloned().collect();
        let sources = self.change_sources(plan, receiving, &old_sources, &tables(plan), &mut changed);
        let islands = sources.and_then(|()| self.change_islands(plan, computing, (&old_islands, &known), &mut changed));
        self.computing = islands.inspect_err(|_| {
            self.shared.claims.cancel(claims);
            self.go_back();
        })?;
        self.plan = Arc::clone(plan);
        self.forget_logs();
        self.shared.catalog.set_graph(crate::graph::mermaid(plan));
        Ok(changed)
    }

    /// Waits for the sinks whose places others took in the change before.
    fn await_the_last_change(&mut self) -> Result<(), String> {
        let workers = self.workers;
        let leaving = self.leaving.clone();
        let all =
            || leaving.iter().all(|one| one.has_ended(workers) || one.all_sinks(workers, SinkState::has_finished));
        if self.wait(DRAIN, "sinks of the change before", all).is_err() {
            let unfinished = unfinished(&leaving);
            return Err(format!("the change before is not over: {unfinished} still writes what is its part"));
        }
        self.see_off();
        Ok(())
    }

    /// Builds the new islands beside the old ones and changes over when they have caught up.
    fn change_islands(
        &mut self,
        plan: &Arc<Plan>,
        wanted: Wanted,
        (old, known): (&[Arc<Dataflow>], &[String]),
        changed: &mut Vec<String>,
    ) -> Result<Vec<Arc<Dataflow>>, String> {
        self.progress.upto = self.progress.upto.max(self.upto());
        self.changes += 1;
        let (fresh, metrics) = (tables(plan), Arc::new(Metrics::default()));
        let islands: Vec<Island> = wanted.iter().map(|(_, island)| island.clone()).collect();
        self.open_kept_logs(plan, &islands).map_err(|error| error.to_string())?;
        let fresh_islands: Vec<Island> =
            wanted.iter().filter(|(kept, _)| kept.is_none()).map(|(_, island)| island.clone()).collect();
        let missing = self.missing(plan, &fresh_islands);
        missing.iter().for_each(|said| tracing::warn!("{said}"));
        let new_logs: Vec<String> = self.logs.keys().filter(|id| !known.contains(id)).cloned().collect();
        let group = RUNNING + self.changes;
        let building = Building { plan, metrics, tables: &fresh, group, new_logs: new_logs.clone() };
        let (mut all, mut new) = (Vec::with_capacity(wanted.len()), Vec::new());
        for (kept, island) in wanted {
            all.push(match kept {
                Some(kept) => kept,
                None => {
                    let dataflow = self.compute(&building, island).map_err(|error| error.to_string())?;
                    new.push(Arc::new(dataflow.in_place_of(old, known)));
                    Arc::clone(&new[new.len() - 1])
                }
            });
        }
        self.coming.clone_from(&new);
        let caught_up = self.catch_up(plan, &new, new_logs);
        self.coming.clear();
        if let Err(why) = caught_up {
            self.give_up(&new);
            return Err(why);
        }
        self.take_over(plan, &new, old, changed);
        changed.extend(missing);
        self.publish(plan, &all, &new, &fresh);
        self.see_off();
        let workers = self.workers;
        // Old state is let go before another change can come, so that no number of changes piles it up.
        let ended = || old.iter().all(|one| one.has_ended(workers) || !one.is_ending());
        let _ = self.wait(PATIENCE, "the old nodes to end", ended);
        self.see_off();
        self.dataflows.forget(self.workers);
        Ok(all)
    }

    /// Waits until new islands have what they need of the past, and their sinks can write.
    fn catch_up(&mut self, plan: &Plan, new: &[Arc<Dataflow>], mut behind: Vec<String>) -> Result<(), String> {
        for dataflow in new {
            self.dataflows.install(Arc::clone(dataflow));
        }
        let workers = self.workers;
        let failure = || new.iter().find_map(|one| one.failure());
        let quiet = Cell::new((0, Instant::now()));
        // One that holds much is further than the old sinks and waits for them, whatever it has not read yet. One whose sources
        // stand still is never near a sink that was further, and need not be.
        let has_caught_up = |one: &Arc<Dataflow>| {
            let is_near = one.has_caught_up() && one.all_sinks(workers, |sink| sink.is_near(CLOSE));
            one.all_sinks(workers, |sink| !sink.is_asking())
                && (is_near || one.held.is_full() || one.has_caught_up() && quiet.get().1.elapsed() >= QUIET)
        };
        let ready = || {
            let activity = new.iter().fold(0, |sum: u64, one| sum.wrapping_add(activity(one)));
            if quiet.get().0 != activity {
                quiet.set((activity, Instant::now()));
            }
            failure().is_some() || new.iter().all(has_caught_up)
        };
        self.wait(CATCH_UP, "the new nodes to catch up", ready)?;
        failure().map_or(Ok(()), Err)?;
        if !behind.is_empty() {
            // Of a log that is new nothing is kept yet: a start after a crash needs all of it.
            behind.extend(self.progress.behind.iter().cloned());
            behind.sort();
            behind.dedup();
            self.note_progress(Progress { behind, ..self.progress.clone() })?;
        }
        for node in ending_windows(&self.plan, plan) {
            let groups = self.shared.metrics.node(&node.id, node.kind.name).state_rows.load(Relaxed);
            if groups == 0 {
                continue;
            }
            tracing::warn!(
                "the change ends the open windows of {}: {groups} groups, whose rows are taken back",
                node.id
            );
        }
        Ok(())
    }

    /// The sinks of the new islands take over. There is no way back.
    fn take_over(&mut self, plan: &Plan, new: &[Arc<Dataflow>], old: &[Arc<Dataflow>], changed: &mut Vec<String>) {
        let ending: Vec<String> = self.logs.keys().filter(|id| !has_log(plan, id)).cloned().collect();
        let boundary = hand_over(old, new, &ending);
        if let Some(why) = new.iter().find_map(|one| one.failure()) {
            // It failed after it was asked and before it was in charge: to the run it would be a sink that is slow.
            self.shared.fail(why);
        }
        for log in ending.iter().filter_map(|id| self.logs.get(id)) {
            log.complete();
            log.log.close();
        }
        new.iter().for_each(|one| one.sources.join(RUNNING));
        self.leaving.extend(old.iter().cloned());
        old.iter().chain(new).for_each(|one| one.wake());
        self.drain(old, &ending);
        let workers = self.workers;
        let opened = || new.iter().all(|one| one.has_ended(workers) || one.all_sinks(workers, SinkState::has_opened));
        let done = |one: &&Arc<Dataflow>| one.has_ended(workers) || one.all_sinks(workers, SinkState::has_finished);
        let slow: Vec<Arc<Dataflow>> = old.iter().filter(|one| !done(one)).cloned().collect();
        if slow.is_empty() {
            let _ = self.wait(PATIENCE, "the new sinks to open", opened);
        }
        new.iter().for_each(|one| one.predecessors.lock().clear());
        changed.extend(what_changed(plan, new, old, boundary));
        if !slow.is_empty() {
            changed.push(format!("{} still writes what came before", unfinished(&slow)));
        }
        let taken_back: u64 = new.iter().flat_map(|one| one.sinks.lock().clone()).map(|sink| sink.taken_back()).sum();
        if taken_back > 0 {
            changed.push(format!("sinks took back {taken_back} rows"));
        }
    }

    /// Has the old sinks write what is theirs, and ends those that are done.
    fn drain(&mut self, old: &[Arc<Dataflow>], ending: &[String]) {
        let workers = self.workers;
        let last = |one: &Dataflow| -> Time {
            let logs = one.logs().filter(|log| ending.iter().any(|id| id == log));
            logs.filter_map(|id| self.logs.get(id)).map(|log| log.log.last_watermark()).max().unwrap_or(0)
        };
        let lasts: Vec<Time> = old.iter().map(|one| last(one)).collect();
        let done = |one: &Arc<Dataflow>, last: Time| {
            one.has_ended(workers)
                || one.all_sinks(workers, SinkState::has_finished)
                || last > 0 && one.has_caught_up() && one.frontier() > last
        };
        let all = || old.iter().zip(&lasts).all(|(one, last)| done(one, *last));
        // A sink whose server is away goes on in the background.
        let _ = self.wait(DRAIN, "the old sinks to be done, such as with a server that does not answer", all);
        for (one, last) in old.iter().zip(lasts) {
            // What its rows still wait for, such as a hello on another log, is taken as ended.
            if last > 0 || one.all_sinks(workers, SinkState::has_finished) {
                one.end();
            }
        }
        let finished =
            || old.iter().all(|one| one.has_ended(workers) || one.all_sinks(workers, SinkState::has_finished));
        let _ = self.wait(LOOK * 50, "the old sinks to be done", finished);
    }

    /// Ends what was built in vain.
    fn give_up(&mut self, new: &[Arc<Dataflow>]) {
        for one in new {
            one.predecessors.lock().clear();
            one.end();
        }
        let workers = self.workers;
        // Before another attempt can come.
        let _ = self.wait(PATIENCE, "what was built to end", || new.iter().all(|one| one.has_ended(workers)));
        self.dataflows.forget(workers);
    }

    /// Shows the tables and counters of the new islands in place of the old ones.
    fn publish(&self, plan: &Plan, all: &[Arc<Dataflow>], new: &[Arc<Dataflow>], fresh: &[Arc<Table>]) {
        let of_kept = |name: &str| {
            let kept = all.iter().filter(|one| !new.iter().any(|n| Arc::ptr_eq(n, one))).chain(&self.receiving);
            kept.flat_map(|one| &one.tables).find(|table| table.name == name).cloned()
        };
        let served = plan.serve.iter().flat_map(|serve| &serve.tables);
        let shown = served.zip(fresh).map(|((name, ..), table)| {
            of_kept(name).unwrap_or_else(|| {
                if let Some(old) = self.shared.catalog.table(name) {
                    table.inherit(&old, new.first().map_or(0, |one| one.complete_from));
                }
                Arc::clone(table)
            })
        });
        self.shared.catalog.replace(shown.collect());
        let mut rebuilt: HashMap<String, _> = HashMap::new();
        for dataflow in new {
            for node in &dataflow.island.nodes {
                let node = &plan.nodes[*node];
                rebuilt.insert(node.id.clone(), dataflow.metrics.node(&node.id, node.kind.name));
            }
        }
        self.shared.metrics.adopt(plan.nodes.iter().map(|node| (node.id.as_str(), node.kind.name)), &rebuilt);
    }

    /// Lets go of logs that no source writes any more, and nobody reads.
    fn forget_logs(&mut self) {
        let written = self.receiving.iter().filter_map(|one| one.writes.as_ref().map(|(log, _)| log));
        let kept = self.computing.iter().chain(&self.leaving).flat_map(|one| one.keeps.iter().flatten());
        let written = written.chain(kept);
        let read = self.computing.iter().chain(&self.leaving).flat_map(|one| one.logs());
        let (written, read): (Vec<_>, Vec<&str>) = (written.cloned().collect(), read.collect());
        let is_used =
            |id: &str, log: &Arc<SourceLog>| written.iter().any(|one| Arc::ptr_eq(one, log)) || read.contains(&id);
        self.logs.retain(|id, log| {
            let keep = is_used(id, log);
            if !keep {
                log.log.close();
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
            look_at_folder(&self.plan, &self.shared);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// Changes whenever a row moves, or time passes.
fn activity(dataflow: &Dataflow) -> u64 {
    let nodes = dataflow.metrics.nodes();
    let rows = nodes.iter().map(|(_, _, m)| m.rows_in.load(Relaxed) + m.rows_out.load(Relaxed)).sum::<u64>();
    rows.wrapping_add(dataflow.frontier())
}

/// Whether a plan has a log of this id.
fn has_log(plan: &Plan, id: &str) -> bool {
    plan.nodes.iter().any(|node| node.id == id && (node.node.facts().is_live || node.durable.is_some()))
}

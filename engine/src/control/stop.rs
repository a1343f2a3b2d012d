//! A stop: sources end, what they received goes through as far as it can, and the next run goes on with the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Control;
use crate::contract::SinkState;
use crate::dataflow::Dataflow;
use crate::processes::Stage;
use crate::source_log::SourceLog;

/// The longest that a stopping run waits for what its sources received to get through. What does not is in the spool.
const DRAIN: Duration = Duration::from_secs(20);

/// A run whose counters stand still for so long has done what there was to do.
const QUIET: Duration = Duration::from_millis(150);

/// How far a stop is.
pub(super) struct Stop {
    since: Instant,
    /// What the counters said, and since when they have.
    quiet: (u64, Instant),
    parking: bool,
}

impl Control {
    /// Sources have been told to end. What they received goes through as far as it can without closing a window that
    /// is not over; the rest is in the spool, where the next run finds it.
    pub(super) fn bring_to_a_stop(&mut self) {
        let activity = self.activity();
        let source_logs: Vec<Arc<SourceLog>> = self.source_logs().cloned().collect();
        let stop = self.stop.get_or_insert_with(|| Stop {
            since: Instant::now(),
            quiet: (activity, Instant::now()),
            parking: false,
        });
        if stop.quiet.0 != activity {
            stop.quiet = (activity, Instant::now());
        }
        let workers = self.workers;
        let ended = self.receiving.iter().all(|dataflow| dataflow.has_ended(workers));
        if ended {
            // Also those of sources that made room for others, which have not come or are gone.
            source_logs.iter().for_each(|log| log.log.close());
        }
        let received = ended && source_logs.iter().all(|log| log.log.has_ended());
        let read = self.computing.iter().all(|dataflow| dataflow.has_caught_up());
        let through = received && read && stop.quiet.1.elapsed() >= QUIET;
        let failed = self.shared.failure().is_some();
        let late = stop.since.elapsed() >= DRAIN;
        if !stop.parking
            && let Some(heard) = &self.heard
        {
            heard.set_stage(if through { Stage::Through } else { Stage::Running });
        }
        let others = |stage| self.heard.as_ref().is_none_or(|heard| heard.have_reached(stage));
        let behind_logs = || self.computing.iter().chain(&self.leaving);
        if !stop.parking && (through && others(Stage::Through) || late || failed && received) {
            stop.parking = true;
            stop.quiet.1 = Instant::now();
            if !through && !failed {
                tracing::warn!("not all that was received got through within {} s", DRAIN.as_secs());
            }
            behind_logs().for_each(|dataflow| dataflow.start_parking());
        }
        let is_parked = |dataflow: &Arc<Dataflow>| {
            dataflow.all_sinks(workers, SinkState::has_parked) || dataflow.has_ended(workers)
        };
        // A failed sink does not answer. Counters stand still for a while more so that frontiers get around.
        let done = stop.parking && behind_logs().all(is_parked) && stop.quiet.1.elapsed() >= QUIET;
        if done && let Some(heard) = &self.heard {
            heard.set_stage(Stage::Parked);
        }
        if done && others(Stage::Parked) || stop.parking && (failed || stop.since.elapsed() >= 2 * DRAIN) {
            self.note();
            self.leave_behind();
            self.dataflows.park();
        }
    }

    /// The logs of live sources, also of those that are gone.
    fn source_logs(&self) -> impl Iterator<Item = &Arc<SourceLog>> {
        let is_kept = |id: &String| self.plan.durable().any(|durable| durable == id);
        self.logs.iter().filter(move |(id, _)| !is_kept(id)).map(|(_, log)| log)
    }

    /// Fails the run for what was received and is in no log: the disk takes it no more.
    fn leave_behind(&self) {
        let is_kept = |id: &String| self.plan.durable().any(|durable| durable == id);
        for (id, log) in self.logs.iter().filter(|(id, log)| !is_kept(id) && !log.log.has_ended()) {
            let bytes = log.log.counters().queued_bytes.load(Relaxed);
            if bytes == 0 {
                continue;
            }
            let lost = format!("{id}: the spool does not take what was received last: {bytes} bytes are lost");
            tracing::error!("{lost}");
            self.shared.fail(lost);
        }
    }

    /// Changes whenever a row moves.
    fn activity(&self) -> u64 {
        let nodes = self.computing.iter().flat_map(|dataflow| dataflow.metrics.nodes());
        nodes.map(|(_, _, m)| m.rows_in.load(Relaxed) + m.rows_out.load(Relaxed) + m.bytes.load(Relaxed)).sum()
    }
}

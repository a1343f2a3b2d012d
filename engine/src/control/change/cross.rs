//! Going over from copies to the stages that go on.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Control, follow};
use super::PATIENCE;
use super::build::{Built, Handover};
use crate::batch::Time;
use crate::flow::Flow;
use crate::plan::Stages;

/// Where time does not move for so long it stands still: at a source that is silent and whose last row was of another day.
const STANDSTILL: Duration = Duration::from_secs(5);

/// The longest that it may take to reach a boundary, such as behind a join that holds rows back for long.
const CROSSING: Duration = Duration::from_secs(30);

/// Why new stages do not take over.
pub(super) enum Halt {
    /// For a reason, said to the user.
    Refused(String),
    /// Time stands still at these stages: nobody can go over to them.
    Standstill(Vec<usize>),
}

impl From<String> for Halt {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

/// Those that are to be made again because nobody can go over to the stages `at`: these, those before them, and all behind.
pub(super) fn let_go(stages: &Stages, kept: &mut [Option<Arc<Flow>>], at: &[usize]) {
    stages.around(at).into_iter().for_each(|at| kept[at] = None);
}

impl Control {
    /// Has the new stages go over from the copies to the stages that go on, and ends the copies.
    pub(super) fn cross(&mut self, stages: &Stages, built: &Built, gone: &[Arc<Flow>]) -> Result<(), Halt> {
        let Built { flows, new, copies, handovers } = built;
        let workers = self.workers;
        let failure = || new.iter().chain(copies).find_map(|flow| flow.failure());
        // The stages that go on wait for the new ones too from now on, and these for nobody else.
        follow(stages, flows, gone);
        built.follow_new();
        for handover in handovers {
            handover.before.iter().for_each(|flow| flow.step_at(&handover.seam));
        }
        self.computing.iter().chain(copies).for_each(|flow| flow.wake());
        let have_steps = || failure().is_some() || handovers.iter().all(|handover| handover.seam.has_steps());
        self.wait(PATIENCE, "the nodes to say how far they are", have_steps)?;
        handovers.iter().for_each(|handover| handover.seam.attach());
        new.iter().for_each(|flow| flow.wake());
        let listen = || failure().is_some() || handovers.iter().all(|handover| handover.seam.is_attached(workers));
        self.wait(PATIENCE, "the new nodes to listen to those that go on", listen)?;
        failure().map_or(Ok(()), Err)?;
        for Handover { seam, .. } in handovers {
            let boundary = seam.choose();
            // Without copies they have nothing of before it.
            for flow in new.iter().filter(|_| copies.is_empty()) {
                match boundary {
                    Time::MAX => flow.gate.ended_at(seam.latest()),
                    _ => flow.gate.pass(boundary),
                }
            }
        }
        self.computing.iter().chain(copies).chain(new).for_each(|flow| flow.wake());
        let waiting = || handovers.iter().filter(|handover| !handover.seam.is_crossed(workers));
        // Where time is, since when, and whether a sink has held it up ever since.
        let seen = Cell::new((0, Instant::now(), true));
        let over = || {
            let at =
                waiting().flat_map(|handover| &handover.ends).fold(0u64, |sum, flow| sum.wrapping_add(flow.frontier()));
            let held = waiting().flat_map(|handover| &handover.before).any(|flow| flow.is_held(workers));
            let (last, since, held_so_far) = seen.get();
            seen.set(if at == last { (at, since, held_so_far && held) } else { (at, Instant::now(), held) });
            failure().is_some() || waiting().next().is_none() || since.elapsed() > STANDSTILL
        };
        // The end of patience is seen below.
        let waited = self.wait(CROSSING, "the nodes that go on to pass the boundary", over);
        if waiting().next().is_some() && failure().is_none() {
            if let (Err(why), true) = (waited, self.shared.is_stopping()) {
                return Err(Halt::Refused(why));
            }
            if seen.get().2 {
                let names: Vec<String> = waiting().map(|handover| handover.name()).collect();
                return Err(Halt::Refused(format!(
                    "{} waits for a sink that does not take its rows",
                    names.join(", ")
                )));
            }
            return Err(Halt::Standstill(waiting().map(|handover| handover.at).collect()));
        }
        failure().map_or(Ok(()), Err)?;
        copies.iter().for_each(|flow| flow.end());
        self.computing.iter().for_each(|flow| flow.forget_seams());
        let _ = self.wait(PATIENCE, "the copies to end", || copies.iter().all(|flow| flow.has_ended(workers)));
        copies.iter().for_each(|flow| flow.set_followers(Vec::new()));
        self.coming.retain(|flow| !copies.iter().any(|copy| Arc::ptr_eq(copy, flow)));
        Ok(())
    }
}

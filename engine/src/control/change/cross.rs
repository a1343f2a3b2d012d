//! Going over from copies to the stages that go on.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Control, follow};
use super::PATIENCE;
use super::build::Built;
use crate::batch::Time;
use crate::flow::Flow;
use crate::plan::Stages;

/// How long a stage may stay before its boundary. Time stands still where it takes longer: at a source that is silent and
/// whose last row was of another day.
const STANDSTILL: Duration = Duration::from_secs(5);

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
    let mut standing = vec![false; kept.len()];
    at.iter().flat_map(|at| stages.before(*at)).for_each(|at| standing[at] = true);
    for at in 0..kept.len() {
        standing[at] |= stages.upstream[at].iter().any(|from| standing[*from]);
        if standing[at] {
            kept[at] = None;
        }
    }
}

impl Control {
    /// Has the new stages go over from the copies to the stages that go on, and ends the copies.
    pub(super) fn cross(&mut self, stages: &Stages, built: &Built, gone: &[Arc<Flow>]) -> Result<(), Halt> {
        let Built { flows, new, copies, crossings } = built;
        let workers = self.workers;
        let failure = || new.iter().chain(copies).find_map(|flow| flow.failure());
        // The stages that go on wait for the new ones too from now on.
        follow(stages, flows, gone);
        for crossing in crossings {
            crossing.before.iter().for_each(|flow| flow.step_at(&crossing.seam));
        }
        self.computing.iter().chain(copies).for_each(|flow| flow.wake());
        let have_steps = || failure().is_some() || crossings.iter().all(|crossing| crossing.seam.has_steps());
        self.wait(PATIENCE, "the nodes to say how far they are", have_steps)?;
        crossings.iter().for_each(|crossing| crossing.seam.attach());
        new.iter().for_each(|flow| flow.wake());
        let listen = || failure().is_some() || crossings.iter().all(|crossing| crossing.seam.is_attached(workers));
        self.wait(PATIENCE, "the new nodes to listen to those that go on", listen)?;
        failure().map_or(Ok(()), Err)?;
        let boundaries = crossings.iter().map(|crossing| crossing.seam.choose());
        let latest = boundaries.filter(|boundary| *boundary < Time::MAX).max().unwrap_or(0);
        if copies.is_empty() {
            // They have nothing of before it.
            new.iter().for_each(|flow| flow.gate.pass(latest));
        }
        self.computing.iter().chain(copies).chain(new).for_each(|flow| flow.wake());
        let crossed = || failure().is_some() || crossings.iter().all(|crossing| crossing.seam.is_crossed(workers));
        if let Err(why) = self.wait(STANDSTILL, "the nodes that go on to pass the boundary", crossed) {
            if self.shared.is_stopping() {
                return Err(Halt::Refused(why));
            }
            let slow: Vec<_> = crossings.iter().filter(|crossing| !crossing.seam.is_crossed(workers)).collect();
            if slow.iter().flat_map(|crossing| &crossing.before).any(|flow| flow.is_held(workers)) {
                let names: Vec<String> = slow.iter().map(|crossing| crossing.name()).collect();
                return Err(Halt::Refused(format!(
                    "{} waits for a sink that does not take its rows",
                    names.join(", ")
                )));
            }
            return Err(Halt::Standstill(slow.iter().map(|crossing| crossing.at).collect()));
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

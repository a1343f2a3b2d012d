//! Where a stage that is built for a change goes over from a copy of a stage before it to that stage, which goes on.
//!
//! Copies read the logs from far back and compute what the stages that go on computed before. Both give the same rows at the
//! same message times, so a reader may take all before one time from the copy and all from it on from the stage that goes
//! on. That time must be one before which no reader has let time pass, and from which on the stage that goes on has given
//! everything since it was listened to. Each stage that is gone over to has one of its own: sources may be far apart.
//!
//! A relation's rows are taken back: those that a copy gave must be those that the stage takes back. How often a group is
//! corrected depends on the steps of the frontier, so both make one step end just before the boundary, and so do those
//! before them.
//!
//! Of what has ended the copy gives all that there ever will be: the boundary is [`Time::MAX`], and nobody goes over.

use std::sync::{Arc, Mutex};

use super::{Flow, lock};
use crate::batch::Time;

/// The boundary between one stage that goes on and its copy, on all workers.
#[derive(Debug, Default)]
pub(crate) struct Seam(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The boundary is behind this.
    closed: Time,
    boundary: Option<Time>,
    /// The latest row before readers listened.
    latest: Time,
    attaching: bool,
    /// Operators that are to say how far they have stepped, and those that have.
    steppers: [usize; 2],
    /// Inputs of stages that read across it.
    inputs: usize,
    /// Readers that listen to the stage that goes on, and those that have gone over to it; one for each input and worker.
    readers: [usize; 2],
}

impl Seam {
    /// One more input is to go over here.
    pub fn add_input(&self) {
        lock(&self.0).inputs += 1;
    }

    /// Times before `closed` are decided: the boundary, which is returned if there is one, is not among them.
    pub fn decide(&self, closed: Time) -> Option<Time> {
        let mut state = lock(&self.0);
        if state.boundary.is_none() {
            state.closed = state.closed.max(closed);
        }
        state.boundary
    }

    /// Whether every operator whose steps matter has said how far it is.
    pub fn has_steps(&self) -> bool {
        let state = lock(&self.0);
        state.steppers[1] >= state.steppers[0]
    }

    /// Readers are to listen to the stage that goes on.
    pub fn attach(&self) {
        lock(&self.0).attaching = true;
    }

    /// Whether [`Seam::attach`] was called.
    pub fn is_attaching(&self) -> bool {
        lock(&self.0).attaching
    }

    /// A reader listens, and is given everything from a time on; the latest row before that was at `latest`.
    pub fn attached(&self, from: Time, latest: Time) {
        let mut state = lock(&self.0);
        state.closed = state.closed.max(from);
        state.latest = state.latest.max(latest);
        state.readers[0] += 1;
    }

    /// The latest row that was given before readers listened.
    pub fn latest(&self) -> Time {
        lock(&self.0).latest
    }

    /// Whether all readers, on all of `workers` workers, listen.
    pub fn is_attached(&self, workers: usize) -> bool {
        let state = lock(&self.0);
        state.readers[0] >= state.inputs * workers
    }

    /// Fixes the boundary: the first time that nobody has decided on, and one more, so that a step can end before it.
    pub fn choose(&self) -> Time {
        let mut state = lock(&self.0);
        let boundary = state.closed.saturating_add(1);
        *state.boundary.get_or_insert(boundary)
    }

    /// A reader has all before the boundary, and is given what is behind it.
    pub fn crossed(&self) {
        lock(&self.0).readers[1] += 1;
    }

    /// Whether all readers, on all of `workers` workers, have gone over.
    pub fn is_crossed(&self, workers: usize) -> bool {
        let state = lock(&self.0);
        state.readers[1] >= state.inputs * workers
    }
}

/// The operators of a dataflow whose results depend on the frontier's steps, and where their steps must end.
#[derive(Debug, Default)]
pub(crate) struct Stepping {
    alive: usize,
    /// The latest time at which they have given something.
    latest: Time,
    seams: Vec<Arc<Seam>>,
}

impl Flow {
    /// Has the operators whose results depend on steps end one before a boundary.
    pub(crate) fn step_at(&self, seam: &Arc<Seam>) {
        let mut stepping = lock(&self.stepping);
        if stepping.latest > 0 {
            // Also if they have ended by now: up to there the results of two that stepped differently may differ.
            seam.decide(stepping.latest.saturating_add(1));
        }
        lock(&seam.0).steppers[0] += stepping.alive;
        stepping.seams.push(Arc::clone(seam));
    }

    /// The change is over.
    pub(crate) fn forget_seams(&self) {
        lock(&self.stepping).seams.clear();
    }
}

/// For an operator on one worker that gives a relation, and whose corrections depend on how far the frontier has moved at
/// once. It must be woken by [`Flow::wake`].
#[derive(Debug)]
pub struct Stepper {
    flow: Arc<Flow>,
    told: Vec<Arc<Seam>>,
}

impl Stepper {
    pub(crate) fn new(flow: Arc<Flow>) -> Self {
        lock(&flow.stepping).alive += 1;
        Self { flow, told: Vec::new() }
    }

    /// To which time the operator, which has `reached` a time, may go in one step, when its input is complete before
    /// `frontier`. If that is less, it goes on from there at once.
    pub fn next(&mut self, reached: Time, frontier: Time) -> Time {
        let stepping = lock(&self.flow.stepping);
        self.told.retain(|told| stepping.seams.iter().any(|seam| Arc::ptr_eq(seam, told)));
        let mut to = frontier;
        if reached == Time::MAX {
            // How far it is in the last step is known when it is over, and then this is dropped.
            return to;
        }
        for seam in &stepping.seams {
            // An input that ends is no reason for the stages behind, which may read others too, to have no boundary.
            let decided = if frontier < Time::MAX { frontier } else { stepping.latest.saturating_add(1).max(reached) };
            to = to.min(match seam.decide(decided) {
                // With nothing behind the boundary there is no step that must end.
                Some(Time::MAX) => frontier,
                Some(boundary) if boundary - 1 > reached => boundary - 1,
                Some(_) => frontier,
                // The last step goes as far as there is something to give: not before it is known where it must end.
                None if frontier == Time::MAX => reached,
                None => frontier,
            });
            if !self.told.iter().any(|told| Arc::ptr_eq(told, seam)) {
                lock(&seam.0).steppers[1] += 1;
                self.told.push(Arc::clone(seam));
            }
        }
        to
    }

    /// The operator has given something at a time.
    pub fn gave(&self, time: Time) {
        let mut stepping = lock(&self.flow.stepping);
        stepping.latest = stepping.latest.max(time);
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        let mut stepping = lock(&self.flow.stepping);
        stepping.alive -= 1;
        for seam in stepping.seams.iter().filter(|seam| !self.told.iter().any(|told| Arc::ptr_eq(told, seam))) {
            seam.decide(stepping.latest.saturating_add(1));
            lock(&seam.0).steppers[1] += 1;
        }
    }
}

//! Where a stage that is built for a change goes over from copies of the stages before it to those that go on.
//!
//! Copies read the logs from far back and compute what the stages that go on computed before. Both give the same rows at the
//! same message times, so a reader may take all before one time from the copy and all from it on from the stage that goes
//! on. That time must be one before which no reader has let time pass, and from which on the stage that goes on has given
//! everything since it was listened to.
//!
//! A relation's rows are taken back: those that a copy gave must be those that the stage takes back. How often a group is
//! corrected depends on the steps of the frontier, so both make one step end just before the boundary.

use std::sync::{Arc, Mutex};

use super::{Flow, lock};
use crate::batch::Time;

/// The boundary of one change, on all workers.
#[derive(Debug, Default)]
pub(crate) struct Seam(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The boundary is behind this.
    closed: Time,
    boundary: Option<Time>,
    attaching: bool,
    /// Operators that are to say how far they have stepped, and those that have.
    steppers: [usize; 2],
    /// Readers that listen to the stages that go on, and those that have gone over to them.
    readers: [usize; 2],
}

impl Seam {
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

    /// Readers are to listen to the stages that go on.
    pub fn attach(&self) {
        lock(&self.0).attaching = true;
    }

    /// Whether [`Seam::attach`] was called.
    pub fn is_attaching(&self) -> bool {
        lock(&self.0).attaching
    }

    /// A reader listens, and is given everything from a time on.
    pub fn attached(&self, from: Time) {
        let mut state = lock(&self.0);
        state.closed = state.closed.max(from);
        state.readers[0] += 1;
    }

    /// How many readers listen.
    pub fn listeners(&self) -> usize {
        lock(&self.0).readers[0]
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

    /// How many readers have gone over.
    pub fn crossings(&self) -> usize {
        lock(&self.0).readers[1]
    }
}

/// The operators of a dataflow whose results depend on the frontier's steps, and where their steps must end.
#[derive(Debug, Default)]
pub(crate) struct Stepping {
    alive: usize,
    seams: Vec<Arc<Seam>>,
}

impl Flow {
    /// Has the operators whose results depend on steps end one before a boundary.
    pub(crate) fn step_at(&self, seam: &Arc<Seam>) {
        let mut stepping = lock(&self.stepping);
        lock(&seam.0).steppers[0] += stepping.alive;
        stepping.seams.push(Arc::clone(seam));
    }

    /// The change is over.
    pub(crate) fn forget_seam(&self, seam: &Arc<Seam>) {
        lock(&self.stepping).seams.retain(|other| !Arc::ptr_eq(other, seam));
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
        for seam in &stepping.seams {
            // With nothing behind the boundary there is no step that must end.
            let end = seam.decide(frontier).filter(|boundary| *boundary < Time::MAX).map(|boundary| boundary - 1);
            if let Some(end) = end.filter(|end| *end > reached) {
                to = to.min(end);
            }
            if !self.told.iter().any(|told| Arc::ptr_eq(told, seam)) {
                lock(&seam.0).steppers[1] += 1;
                self.told.push(Arc::clone(seam));
            }
        }
        to
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        let mut stepping = lock(&self.flow.stepping);
        stepping.alive -= 1;
        for seam in stepping.seams.iter().filter(|seam| !self.told.iter().any(|told| Arc::ptr_eq(told, seam))) {
            lock(&seam.0).steppers[1] += 1;
        }
    }
}

//! Who of two dataflows writes which ticks.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use super::lock;
use crate::batch::Time;

const SHUT: GateState = GateState { closed: 0, given: 0, ended: false, from: Time::MAX, until: Time::MAX };

/// Which ticks the sinks of a dataflow write. Two dataflows share a boundary: one writes the ticks before it, the other
/// those from it on.
#[derive(Debug)]
pub struct Gate(Mutex<GateState>);

#[derive(Clone, Copy, Debug)]
struct GateState {
    /// Ticks before this have been decided on by some sink: no boundary can be before it any more.
    closed: Time,
    /// The latest time of a row of an input that has ended.
    given: Time,
    /// All that there ever will be has been decided on.
    ended: bool,
    from: Time,
    until: Time,
}

impl Gate {
    /// Sinks write everything.
    pub fn open() -> Self {
        Self(Mutex::new(GateState { from: 0, ..SHUT }))
    }

    /// Sinks write nothing, until [`Gate::hand_over`] gives this gate its part.
    pub fn shut() -> Self {
        Self(Mutex::new(SHUT))
    }

    /// Ticks before `frontier` are complete: which ticks are written, now and up to now. Once said it stays.
    pub(super) fn decide(&self, frontier: Time) -> Range<Time> {
        let mut state = self.lock();
        if frontier == Time::MAX {
            // Behind the last row others may write: a sink whose input has ended must not stand in their way.
            state.ended = true;
            state.closed = state.closed.max(state.given.saturating_add(1));
        } else {
            state.closed = state.closed.max(frontier);
        }
        state.from..state.until
    }

    /// An input has ended, with its last row at a time.
    pub(crate) fn gave(&self, latest: Time) {
        let mut state = self.lock();
        state.given = state.given.max(latest);
    }

    /// Whether all rows that there ever will be have been decided on.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// What is before a time is not for these sinks: they are not given it.
    pub(crate) fn pass(&self, time: Time) {
        let mut state = self.lock();
        state.closed = state.closed.max(time);
    }

    /// The latest tick before which sinks have decided.
    pub fn closed(&self) -> Time {
        self.lock().closed
    }

    /// From the returned tick on the sinks behind `new` write and those behind `old` do not: the first tick that none of
    /// them has decided on.
    pub fn hand_over(old: &[&Gate], new: &[&Gate]) -> Time {
        let mut old: Vec<_> = old.iter().map(|gate| gate.lock()).collect();
        let mut new: Vec<_> = new.iter().map(|gate| gate.lock()).collect();
        let boundary = old.iter().chain(&new).map(|state| state.closed).max().unwrap_or(0);
        old.iter_mut().for_each(|state| state.until = state.until.min(boundary));
        new.iter_mut().for_each(|state| state.from = boundary);
        boundary
    }

    /// Sinks write everything from now on, in nobody's place.
    pub(crate) fn unlock(&self) {
        self.lock().from = 0;
    }

    /// Whether nothing is written, so far.
    pub fn is_shut(&self) -> bool {
        self.lock().from == Time::MAX
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_the_first_tick_that_neither_has_decided_on() {
        let (old, new) = (Gate::open(), Gate::shut());
        assert_eq!(old.decide(500), 0..Time::MAX);
        assert_eq!(new.decide(700), Time::MAX..Time::MAX);
        assert!(new.is_shut());
        assert_eq!(Gate::hand_over(&[&old], &[&new]), 700);
        assert_eq!((old.decide(900), new.decide(900)), (0..700, 700..Time::MAX));
    }

    #[test]
    fn an_input_that_has_ended_is_no_boundary_at_the_end_of_time() {
        let (ended, live, new) = (Gate::open(), Gate::open(), Gate::shut());
        ended.gave(900);
        assert_eq!(ended.decide(Time::MAX), 0..Time::MAX);
        live.decide(500);
        assert_eq!(Gate::hand_over(&[&ended, &live], &[&new]), 901, "behind all that was written");
        assert_eq!(new.decide(950), 901..Time::MAX);
    }
}

//! Who of two dataflows writes which ticks.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use super::lock;
use crate::batch::Time;

/// How far sinks may be behind others and change over with them, in ms of event time: the old ones write until then.
const APART: Time = 60_000;

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
    pub(crate) fn ended_at(&self, latest: Time) {
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

    /// From the returned tick on the sinks behind the second of each pair write and those behind the first do not: the
    /// first tick that none of them has decided on. What has ended and its successors are a pair of their own, and change
    /// over behind the last that was given there, which may be far in the future, such as the end of a window; and so do
    /// sinks that are more than a minute behind: where time stands still they would never get there.
    pub fn hand_over(pairs: &[[Vec<&Gate>; 2]]) -> Time {
        let mut states: Vec<[Vec<_>; 2]> = pairs
            .iter()
            .map(|sides| [0, 1].map(|side: usize| sides[side].iter().map(|gate| gate.lock()).collect()))
            .collect();
        let live = states.iter().flatten().flatten().filter(|state| !state.ended);
        let boundary = live.map(|state| state.closed).max().unwrap_or(0);
        let mut last = boundary;
        for [old, new] in &mut states {
            let ended = old.iter().chain(&*new).any(|state| state.ended);
            let decided = old.iter().chain(&*new).map(|state| state.closed).max().unwrap_or(0);
            let alone = ended || boundary - decided > APART && !old.is_empty();
            let from = if alone { decided } else { boundary };
            last = last.max(from);
            old.iter_mut().for_each(|state| state.until = state.until.min(from));
            new.iter_mut().for_each(|state| state.from = from);
        }
        if boundary == 0 { last } else { boundary }
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
        assert_eq!(Gate::hand_over(&[[vec![&old], vec![&new]]]), 700);
        assert_eq!((old.decide(900), new.decide(900)), (0..700, 700..Time::MAX));
    }

    #[test]
    fn an_input_that_has_ended_does_not_move_the_boundary_of_others() {
        let [ended, ended_new, live, live_new] = [Gate::open(), Gate::shut(), Gate::open(), Gate::shut()];
        for gate in [&ended, &ended_new] {
            gate.ended_at(900);
            gate.decide(Time::MAX);
        }
        live.decide(500);
        let pairs = [[vec![&ended], vec![&ended_new]], [vec![&live], vec![&live_new]]];
        assert_eq!(Gate::hand_over(&pairs), 500);
        assert_eq!((live.decide(600), live_new.decide(600)), (0..500, 500..Time::MAX));
        assert_eq!(ended_new.decide(Time::MAX), 901..Time::MAX, "all before that was written");
    }

    #[test]
    fn sinks_far_behind_the_others_change_over_where_they_are() {
        let [still, still_new, live, live_new] = [Gate::open(), Gate::shut(), Gate::open(), Gate::shut()];
        let (then, now) = (1_000, 1_000 + APART + 1);
        still.decide(then);
        live.decide(now);
        let pairs = [[vec![&still], vec![&still_new]], [vec![&live], vec![&live_new]]];
        assert_eq!(Gate::hand_over(&pairs), now);
        assert_eq!((still.decide(then), still_new.decide(then)), (0..then, then..Time::MAX));
        assert_eq!((live.decide(now), live_new.decide(now)), (0..now, now..Time::MAX));
    }

    #[test]
    fn a_row_that_the_old_sink_has_not_decided_on_is_its_own_when_the_new_one_was_never_given_it() {
        let [old, new] = [Gate::open(), Gate::shut()];
        old.decide(500);
        new.pass(801);
        new.decide(Time::MAX);
        Gate::hand_over(&[[vec![&old], vec![&new]]]);
        assert!(old.decide(Time::MAX).contains(&800));
    }
}

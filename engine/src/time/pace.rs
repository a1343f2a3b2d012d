//! Sources that keep in step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::batch::Time;

/// Where the sources of a run are, so that none runs ahead of the others without bound. Dataflows come and go: each
/// enters its sources, see [`Pace`].
#[derive(Debug, Default)]
pub struct Sources(RwLock<Vec<Place>>);

/// Where a source is.
#[derive(Debug)]
struct Place {
    id: String,
    at: AtomicU64,
    /// The number of the dataflow that it is of.
    owner: u64,
    /// Only sources of the same group keep in step: those that give others the past are far behind for a while.
    group: u64,
}

impl Sources {
    /// Enters the sources of a dataflow, by node id, all at time 0. `owner` tells the dataflow from others.
    pub fn enter(self: &Arc<Self>, owner: u64, group: u64, ids: impl IntoIterator<Item = String>) -> Pace {
        let new = ids.into_iter().map(|id| Place { id, at: AtomicU64::new(0), owner, group });
        self.0.write().extend(new);
        Pace { sources: Arc::clone(self), owner, cursors: Mutex::default(), last: AtomicU64::new(0) }
    }

    fn places(&self) -> RwLockReadGuard<'_, Vec<Place>> {
        self.0.read()
    }
}

/// The sources of one dataflow among those that they keep in step with. They leave when it is dropped.
#[derive(Debug)]
pub struct Pace {
    sources: Arc<Sources>,
    owner: u64,
    /// Where a source was after the rows before a position, oldest first.
    cursors: Mutex<VecDeque<(u64, Vec<u8>)>>,
    /// The watermark of a source that has ended.
    last: AtomicU64,
}

impl Drop for Pace {
    fn drop(&mut self) {
        let mut places = self.sources.0.write();
        places.retain(|place| place.owner != self.owner);
    }
}

impl Pace {
    /// Keeps in step with the sources of another group from now on.
    pub fn join(&self, group: u64) {
        let mut places = self.sources.0.write();
        places.iter_mut().filter(|place| place.owner == self.owner).for_each(|place| place.group = group);
    }

    /// Notes a source's watermark; `Time::MAX` once it has ended.
    pub fn advance(&self, id: &str, to: Time) {
        if let Some(place) = self.sources.places().iter().find(|place| self.is_own(place) && place.id == id) {
            place.at.store(to, Relaxed);
        }
    }

    fn is_own(&self, place: &Place) -> bool {
        place.owner == self.owner
    }

    /// Notes where the only source of a dataflow is after the rows before position `seq`.
    pub fn note(&self, seq: u64, cursor: Vec<u8>) {
        let mut cursors = self.cursors.lock();
        // Without rows in between only the last counts.
        if cursors.back().is_some_and(|(last, _)| *last >= seq) {
            let last = cursors.pop_back().map_or(seq, |(last, _)| last);
            cursors.push_back((last, cursor));
        } else {
            cursors.push_back((seq, cursor));
        }
    }

    /// Where the source was when it had read no more than the rows before position `seq`, and the position it was at.
    pub fn cursor(&self, seq: u64) -> Option<(u64, Vec<u8>)> {
        let mut cursors = self.cursors.lock();
        let mut found = None;
        while cursors.front().is_some_and(|(at, _)| *at <= seq) {
            found = cursors.pop_front();
        }
        found
    }

    /// The only source of a dataflow has ended, with this watermark.
    pub fn end(&self, watermark: Time) {
        self.last.store(watermark, Relaxed);
    }

    /// The watermark with which the source ended; 0 if it has not.
    pub fn last(&self) -> Time {
        self.last.load(Relaxed)
    }

    /// The watermarks of the dataflow's sources as far as they are known here, in the order in which they were entered.
    pub fn known(&self) -> Vec<Time> {
        self.sources.places().iter().filter(|place| self.is_own(place)).map(|place| place.at.load(Relaxed)).collect()
    }

    /// Takes in what another process knows of the same sources.
    pub fn learn(&self, known: &[Time]) {
        for (place, known) in self.sources.places().iter().filter(|place| self.is_own(place)).zip(known) {
            place.at.fetch_max(*known, Relaxed);
        }
    }

    /// Whether another source that this one keeps in step with is behind `time`.
    pub fn any_behind(&self, id: &str, time: Time) -> bool {
        let places = self.sources.places();
        let Some(own) = places.iter().position(|place| self.is_own(place) && place.id == id) else { return false };
        let others = places.iter().enumerate().filter(|(at, place)| *at != own && place.group == places[own].group);
        others.into_iter().any(|(_, place)| place.at.load(Relaxed) < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn what_another_process_knows_of_a_source_counts_unless_it_is_older() {
        let pace = Arc::<Sources>::default().enter(7, 0, ids(&["a", "b"]));
        pace.advance("a", 10);
        assert!(pace.any_behind("a", 10));
        pace.learn(&[5, 12]);
        assert_eq!(pace.known(), [10, 12]);
        assert!(!pace.any_behind("a", 10));
    }

    #[test]
    fn the_source_furthest_behind_is_not_held_up_by_others() {
        let pace = Arc::<Sources>::default().enter(7, 0, ids(&["a", "b"]));
        pace.advance("a", 10);
        pace.advance("b", 5);
        assert!(pace.any_behind("a", 10));
        assert!(!pace.any_behind("b", 5));
        pace.advance("b", Time::MAX);
        assert!(!pace.any_behind("a", 10));
    }

    #[test]
    fn dataflows_keep_in_step_once_they_are_of_one_group_and_as_long_as_they_are_there() {
        let sources = Arc::<Sources>::default();
        let running = sources.enter(1, 0, ids(&["a"]));
        let (copy, new) = (sources.enter(2, 9, ids(&["a"])), sources.enter(3, 9, ids(&["b"])));
        running.advance("a", 10);
        new.advance("b", 4);
        assert!(!running.any_behind("a", 10), "those of a change give others the past");
        assert!(new.any_behind("b", 4), "the copy is further behind");
        copy.advance("a", Time::MAX);
        assert!(!new.any_behind("b", 4));
        assert_eq!(running.known(), [10], "the end of a copy is not that of the original");
        drop(copy);
        new.join(0);
        assert!(running.any_behind("a", 10));
        drop(new);
        assert!(!running.any_behind("a", 10));
    }
}

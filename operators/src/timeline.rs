//! What waits for its time: taken in in any order, given out in the order of time.
//!
//! Entries lie in buckets of time. A bucket is sorted once, when its turn comes, so that what is not due is never
//! looked at. Entries that come for a bucket which is being given out go into a heap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Something with a time. Its order must be that of the time first.
pub(crate) trait Timed: Ord {
    /// Event time in ns.
    fn time(&self) -> i64;
}

/// Entries in the order of their time.
pub(crate) struct Timeline<T> {
    /// Width of a bucket in ns.
    width: i64,
    /// The bucket that is given out, and all before it.
    open: i64,
    /// What is left of the open bucket, the earliest last.
    front: Vec<T>,
    /// What came for the open bucket, or an earlier one, after it was sorted.
    stragglers: BinaryHeap<Reverse<T>>,
    later: BTreeMap<i64, Vec<T>>,
    /// An empty bucket whose memory the next one takes.
    spare: Vec<T>,
    len: usize,
    /// No entry is before this time.
    soonest: i64,
}

impl<T: Timed> Timeline<T> {
    /// Nothing waits. A bucket has `width` ns, at least 1.
    pub fn new(width: i64) -> Self {
        Self {
            width: width.max(1),
            open: i64::MIN,
            front: Vec::new(),
            stragglers: BinaryHeap::new(),
            later: BTreeMap::new(),
            spare: Vec::new(),
            len: 0,
            soonest: i64::MAX,
        }
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: T) {
        self.len += 1;
        self.soonest = self.soonest.min(entry.time());
        let bucket = entry.time().div_euclid(self.width);
        if bucket <= self.open {
            self.stragglers.push(Reverse(entry));
        } else {
            self.later.entry(bucket).or_insert_with(|| std::mem::take(&mut self.spare)).push(entry);
        }
    }

    /// The first entry, if its time is before `bound`.
    pub fn first_before(&mut self, bound: i64) -> Option<&T> {
        if bound <= self.soonest {
            return None;
        }
        if self.front.is_empty() && self.stragglers.is_empty() {
            self.open_before(bound);
        }
        self.soonest = match (self.first(), self.later.first_key_value()) {
            (Some(first), _) => first.time(),
            (None, Some((bucket, _))) => bucket.saturating_mul(self.width),
            (None, None) => i64::MAX,
        };
        self.first().filter(|entry| entry.time() < bound)
    }

    /// Takes the first entry, if its time is before `bound`.
    pub fn pop_before(&mut self, bound: i64) -> Option<T> {
        self.first_before(bound)?;
        self.len -= 1;
        match (self.front.last(), self.stragglers.peek()) {
            (Some(a), Some(Reverse(b))) if b < a => self.stragglers.pop().map(|Reverse(entry)| entry),
            (Some(_), _) => self.front.pop(),
            (None, _) => self.stragglers.pop().map(|Reverse(entry)| entry),
        }
    }

    /// At most `limit` of the entries that come next.
    pub fn ahead(&self, limit: usize) -> &[T] {
        &self.front[self.front.len().saturating_sub(limit)..]
    }

    fn first(&self) -> Option<&T> {
        match (self.front.last(), self.stragglers.peek()) {
            (Some(a), Some(Reverse(b))) => Some(a.min(b)),
            (Some(a), None) => Some(a),
            (None, b) => b.map(|Reverse(b)| b),
        }
    }

    /// Sorts the next bucket, unless nothing in it can be before `bound`.
    fn open_before(&mut self, bound: i64) {
        let Some((&bucket, _)) = self.later.first_key_value().filter(|(b, _)| b.saturating_mul(self.width) < bound)
        else {
            return;
        };
        let Some(mut entries) = self.later.remove(&bucket) else { return };
        entries.sort_unstable_by(|a, b| b.cmp(a));
        self.open = bucket;
        self.spare = std::mem::replace(&mut self.front, entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    impl Timed for (i64, u32) {
        fn time(&self) -> i64 {
            self.0
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

        #[test]
        fn entries_leave_in_the_order_of_time_however_they_come(
            steps in prop::collection::vec((prop::collection::vec(-50..500i64, 0..20), -60..600i64), 0..40),
        ) {
            let mut timeline = Timeline::new(10);
            let mut model: Vec<(i64, u32)> = Vec::new();
            let mut n = 0;
            for (times, bound) in steps {
                for time in times {
                    n += 1;
                    timeline.push((time, n));
                    model.push((time, n));
                }
                model.sort_unstable();
                let due = model.partition_point(|(time, _)| *time < bound);
                let expected: Vec<_> = model.drain(..due).collect();
                let got: Vec<_> = std::iter::from_fn(|| timeline.pop_before(bound)).collect();
                prop_assert_eq!(got, expected);
                prop_assert_eq!(timeline.len(), model.len());
            }
        }
    }

    #[test]
    fn a_bucket_that_is_not_due_is_not_opened() {
        let mut timeline = Timeline::new(10);
        timeline.push((25, 0));
        assert_eq!(timeline.pop_before(20), None);
        assert_eq!((timeline.front.len(), timeline.later.len()), (0, 1));
        assert_eq!(timeline.pop_before(25), None, "opened, but not before the bound");
        assert_eq!(timeline.pop_before(26), Some((25, 0)));
    }
}

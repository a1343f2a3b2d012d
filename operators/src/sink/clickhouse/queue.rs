//! Cuts that are complete and wait to be handed to the sender.
//!
//! While the server is behind, or was away, small cuts pile up, and each insert costs the server the same again however few rows it
//! has: parts that are written, of each view too, and merged later. So cuts that wait go together in one insert.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use engine::batch::Time;

use super::super::cuts::Cut;

/// Cuts in their order.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Cut>);

impl Queue {
    pub fn push(&mut self, cut: Cut) {
        self.0.push_back(cut);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rows of all cuts.
    pub fn rows(&self) -> usize {
        self.0.iter().map(rows).sum()
    }

    /// The next cut, or as many as have `max_rows` together, as one; and whether they are several that have rows. Those
    /// that begin before `fixed` stay as they are.
    pub fn next(&mut self, max_rows: usize, fixed: Time) -> Option<(Cut, bool)> {
        let mut cut = self.0.pop_front()?;
        if cut.batches.is_empty() || cut.first < fixed {
            return Some((cut, false));
        }
        let (mut count, mut joined) = (rows(&cut), false);
        while let Some(more) = self.0.pop_front_if(|more| count + rows(more) <= max_rows) {
            cut.upto = more.upto;
            if !more.batches.is_empty() {
                joined = true;
                count += rows(&more);
                cut.last = more.last;
                cut.batches.extend(more.batches);
            }
        }
        Some((cut, joined))
    }
}

/// Rows of a cut.
pub(super) fn rows(cut: &Cut) -> usize {
    cut.batches.iter().map(RecordBatch::num_rows).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, UInt64Array};
    use proptest::prelude::*;

    use super::super::super::cuts::Cuts;
    use super::super::handed::{Handed, Shape};
    use super::super::table::end;
    use super::*;

    const OWN: Shape = Shape { until: 0, every: 100, rows: 10, insert: (5, 100) };

    fn batch(rows: u64) -> RecordBatch {
        let column: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("v", column)]).expect("valid")
    }

    fn cuts(ticks: &[(Time, u64)], own: Shape, before: &Handed) -> Cuts {
        let mut cuts = Cuts::new(own.every, own.rows);
        cuts.as_before(before.bounds());
        for (tick, rows) in ticks {
            cuts.push(*tick, batch(*rows));
        }
        cuts
    }

    /// What names an insert: the cut's first tick, its rows and how they are split.
    type Named = (Time, usize, (usize, usize));

    /// Hands over at most so many cuts, and notes them as the sink does.
    fn hand_over(queue: &mut Queue, handed: &mut Handed, rows_of_insert: usize, most: usize) -> Vec<(Time, Named)> {
        let mut given = Vec::new();
        while given.len() < most
            && let Some((cut, joined)) = queue.next(rows_of_insert, handed.fixed())
        {
            if cut.batches.is_empty() {
                continue;
            }
            handed.reach(end(&cut), joined);
            given.push((end(&cut), (cut.first, rows(&cut), handed.limits(cut.first))));
        }
        given
    }

    #[test]
    fn cuts_that_wait_go_together_up_to_the_bound() {
        let mut queue = Queue::default();
        cuts(&[(10, 3), (110, 3), (350, 3), (410, 4), (520, 9)], OWN, &Handed::new(OWN))
            .close(Some(1000))
            .into_iter()
            .for_each(|cut| queue.push(cut));
        assert_eq!(queue.rows(), 22);
        let mut given = Vec::new();
        while let Some((cut, joined)) = queue.next(10, 0) {
            given.push((cut.first, cut.upto, cut.last, rows(&cut), joined));
        }
        assert_eq!(given, [(10, 400, 350, 9, true), (410, 500, 410, 4, false), (520, 600, 520, 9, false)]);
    }

    #[test]
    fn what_was_handed_over_before_is_not_joined() {
        let mut queue = Queue::default();
        let ticks = [(10, 1), (110, 1), (210, 1), (310, 1)];
        cuts(&ticks, OWN, &Handed::new(OWN)).close(Some(1000)).into_iter().for_each(|cut| queue.push(cut));
        let given: Vec<_> = std::iter::from_fn(|| queue.next(10, 200)).map(|(cut, _)| (cut.first, cut.upto)).collect();
        assert_eq!(given, [(10, 100), (110, 200), (210, 400)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(17), ..ProptestConfig::default() })]

        /// Whenever a run ends, and whatever was confirmed by then, the next one makes the same inserts of the rest, though
        /// its own bounds differ and the frontier comes in other steps.
        #[test]
        fn a_start_makes_the_inserts_again_that_were_handed_over(
            ticks in prop::collection::btree_map((0u64..60).prop_map(|t| t * 10), 1u64..8, 1..30),
            mut steps in prop::collection::vec((1u64..700, 0usize..4), 1..8),
            confirmed in 0usize..10,
            every in 1u64..300,
        ) {
            steps.sort_unstable();
            let ticks: Vec<_> = ticks.into_iter().collect();
            let (mut queue, mut handed) = (Queue::default(), Handed::new(OWN));
            let mut first = cuts(&ticks, OWN, &handed);
            let mut given = Vec::new();
            for (frontier, most) in steps {
                first.close(Some(frontier)).into_iter().for_each(|cut| queue.push(cut));
                given.extend(hand_over(&mut queue, &mut handed, 25, most));
            }
            let upto = given.get(..confirmed).and_then(<[_]>::last).map_or(0, |(end, _)| *end);
            let left: Vec<Named> = given.iter().filter(|(end, _)| *end > upto).map(|(_, named)| *named).collect();
            let other = Shape { every, rows: 7, insert: (3, 30), ..OWN };
            let mut resumed = Handed::new(other);
            resumed.resume(&handed.detail(upto)).expect("understood");
            let mut again = cuts(&ticks, other, &resumed);
            again.skip(upto);
            let mut queue = Queue::default();
            again.close(Some(10_000)).into_iter().for_each(|cut| queue.push(cut));
            let made: Vec<Named> =
                hand_over(&mut queue, &mut resumed, 40, usize::MAX).into_iter().map(|(_, named)| named).collect();
            prop_assert_eq!(made.get(..left.len()), Some(&left[..]));
        }
    }
}

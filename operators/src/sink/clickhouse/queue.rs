//! Cuts that are complete and wait to be handed to the sender.
//!
//! While the server is behind, or was away, small cuts pile up, and each insert costs the server the same again however few rows it
//! has: parts that are written, of each view too, and merged later. So cuts that wait go together in one insert.
//!
//! What waits, and what goes together, is bounded by rows and by bytes; both are one number, the weight.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use engine::batch::Time;

use super::super::cuts::Cut;
use super::part::bytes;

/// Cuts in their order, each with its weight.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<(Cut, usize)>);

/// What the queue gives next.
pub(super) struct Next {
    pub cut: Cut,
    /// It is several that have rows.
    pub joined: bool,
    pub weight: usize,
}

impl Queue {
    pub fn push(&mut self, cut: Cut, weight: usize) {
        self.0.push_back((cut, weight));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What all cuts weigh.
    pub fn weight(&self) -> usize {
        self.0.iter().map(|(_, weight)| weight).sum()
    }

    /// The next cut, or as many as weigh at most so much together, as one. Those that begin before `fixed` stay as they are.
    pub fn next(&mut self, most: usize, fixed: Time) -> Option<Next> {
        let (mut cut, mut weight) = self.0.pop_front()?;
        let mut joined = false;
        if cut.batches.is_empty() || cut.first < fixed {
            return Some(Next { cut, joined, weight });
        }
        while let Some((more, its_weight)) = self.0.pop_front_if(|(_, more)| weight + *more <= most) {
            cut.upto = more.upto;
            if !more.batches.is_empty() {
                joined = true;
                weight += its_weight;
                cut.last = more.last;
                cut.batches.extend(more.batches);
            }
        }
        Some(Next { cut, joined, weight })
    }
}

/// What a cut weighs where an insert has at most so many rows and bytes: its rows, or more if they are wide.
pub(super) fn weight(cut: &Cut, (max_rows, max_bytes): (usize, usize)) -> usize {
    let bytes: u128 = cut.batches.iter().map(|batch| bytes(batch) as u128).sum();
    let as_rows = bytes * max_rows as u128 / (max_bytes as u128).max(1);
    rows(cut).max(usize::try_from(as_rows).unwrap_or(usize::MAX))
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

    fn push(queue: &mut Queue, cut: Cut) {
        let rows = rows(&cut);
        queue.push(cut, rows);
    }

    /// What names an insert: the cut's first tick, its rows and how they are split.
    type Named = (Time, usize, (usize, usize));

    /// Hands over at most so many cuts, and notes them as the sink does.
    fn hand_over(queue: &mut Queue, handed: &mut Handed, rows_of_insert: usize, most: usize) -> Vec<(Time, Named)> {
        let mut given = Vec::new();
        while given.len() < most
            && let Some(Next { cut, joined, .. }) = queue.next(rows_of_insert, handed.fixed())
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
            .for_each(|cut| push(&mut queue, cut));
        assert_eq!(queue.weight(), 22);
        let mut given = Vec::new();
        while let Some(Next { cut, joined, weight }) = queue.next(10, 0) {
            assert_eq!(weight, rows(&cut));
            given.push((cut.first, cut.upto, cut.last, rows(&cut), joined));
        }
        assert_eq!(given, [(10, 400, 350, 9, true), (410, 500, 410, 4, false), (520, 600, 520, 9, false)]);
    }

    #[test]
    fn wide_rows_weigh_more() {
        let mut cuts = cuts(&[(10, 50)], OWN, &Handed::new(OWN)).close(None);
        let cut = cuts.pop().expect("one");
        // 400 bytes.
        assert_eq!(
            [(50, 400), (50, 4000), (50, 200), (10, 40), (10, 0)].map(|most| weight(&cut, most)),
            [50, 50, 100, 100, 4000]
        );
    }

    #[test]
    fn what_was_handed_over_before_is_not_joined() {
        let mut queue = Queue::default();
        let ticks = [(10, 1), (110, 1), (210, 1), (310, 1)];
        cuts(&ticks, OWN, &Handed::new(OWN)).close(Some(1000)).into_iter().for_each(|cut| push(&mut queue, cut));
        let given: Vec<_> =
            std::iter::from_fn(|| queue.next(10, 200)).map(|next| (next.cut.first, next.cut.upto)).collect();
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
                first.close(Some(frontier)).into_iter().for_each(|cut| push(&mut queue, cut));
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
            again.close(Some(10_000)).into_iter().for_each(|cut| push(&mut queue, cut));
            let made: Vec<Named> =
                hand_over(&mut queue, &mut resumed, 40, usize::MAX).into_iter().map(|(_, named)| named).collect();
            prop_assert_eq!(made.get(..left.len()), Some(&left[..]));
        }
    }
}

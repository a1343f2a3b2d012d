//! Cuts that are complete and wait to be handed to the sender.
//!
//! While the server is behind, or was away, small cuts pile up, and each insert costs the server the same again however few rows it
//! has: parts that are written, of each view too, and merged later. So cuts that wait go together in one insert.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use engine::batch::Time;

use super::super::cuts::Cut;
use super::part::bytes;

/// Cuts in their order.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<(Cut, Size)>);

/// So many rows and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bound {
    pub rows: usize,
    pub bytes: usize,
}

/// What a cut holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub rows: usize,
    pub bytes: usize,
    /// What it counts as among the rows that are held. Of cuts that go together it is the sum, so that what has been added is
    /// taken away again.
    pub held: usize,
}

/// What the queue gives next.
pub(super) struct Next {
    pub cut: Cut,
    /// It is several that have rows.
    pub joined: bool,
    pub size: Size,
}

impl Size {
    /// Of a cut. It counts as its rows, or as more if they are wide: as many as have its bytes where `held.rows` have `held.bytes`.
    pub fn of(cut: &Cut, held: Bound) -> Self {
        let bytes = |batch: &RecordBatch| bytes(batch).unwrap_or_else(|_| batch.get_array_memory_size());
        let rows = cut.batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        let bytes = cut.batches.iter().map(bytes).sum::<usize>();
        let wide = bytes as u128 * held.rows as u128 / (held.bytes as u128).max(1);
        // Sums of it stay small numbers.
        Self { rows, bytes, held: rows.max(usize::try_from(wide).unwrap_or(usize::MAX).min(1 << 40)) }
    }

    fn and(self, more: Self) -> Self {
        Self { rows: self.rows + more.rows, bytes: self.bytes + more.bytes, held: self.held + more.held }
    }

    fn fits(self, most: Bound) -> bool {
        self.rows <= most.rows && self.bytes <= most.bytes
    }
}

impl Queue {
    pub fn push(&mut self, cut: Cut, size: Size) {
        self.0.push_back((cut, size));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What all cuts count as among the rows that are held.
    pub fn held(&self) -> usize {
        self.0.iter().map(|(_, size)| size.held).sum()
    }

    /// The next cut, or as many as hold at most so much together, as one. Those that begin before `fixed` stay as they are.
    pub fn next(&mut self, most: Bound, fixed: Time) -> Option<Next> {
        let (mut cut, mut size) = self.0.pop_front()?;
        let mut joined = false;
        if cut.batches.is_empty() || cut.first < fixed {
            return Some(Next { cut, joined, size });
        }
        while let Some((more, its_size)) = self.0.pop_front_if(|(_, more)| size.and(*more).fits(most)) {
            cut.upto = more.upto;
            if !more.batches.is_empty() {
                joined = true;
                size = size.and(its_size);
                cut.last = more.last;
                cut.batches.extend(more.batches);
            }
        }
        Some(Next { cut, joined, size })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray, UInt64Array};
    use proptest::prelude::*;

    use super::super::super::cuts::Cuts;
    use super::super::insert_bounds::{InsertBounds, Shape};
    use super::super::table::end;
    use super::*;

    const OWN: Shape = Shape { until: 0, every: 100, rows: 10, insert: (5, 100) };

    fn batch(rows: u64) -> RecordBatch {
        let column: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("v", column)]).expect("valid")
    }

    fn cuts(ticks: &[(Time, u64)], own: Shape, before: &InsertBounds) -> Cuts {
        let mut cuts = Cuts::new(own.every, own.rows);
        cuts.as_before(before.bounds());
        for (tick, rows) in ticks {
            cuts.push(*tick, batch(*rows));
        }
        cuts
    }

    fn push(queue: &mut Queue, cut: Cut) {
        let size = size(&cut);
        queue.push(cut, size);
    }

    fn size(cut: &Cut) -> Size {
        Size::of(cut, Bound { rows: 10, bytes: 100 })
    }

    fn rows(rows: usize) -> Bound {
        Bound { rows, bytes: usize::MAX }
    }

    /// What names an insert: the cut's first tick, its rows and how they are split.
    type Named = (Time, usize, (usize, usize));

    /// Hands over at most so many cuts, and notes them as the sink does.
    fn hand_over(
        queue: &mut Queue,
        handed: &mut InsertBounds,
        rows_of_insert: usize,
        most: usize,
    ) -> Vec<(Time, Named)> {
        let mut given = Vec::new();
        while given.len() < most
            && let Some(Next { cut, joined, .. }) = queue.next(rows(rows_of_insert), handed.fixed())
        {
            if cut.batches.is_empty() {
                continue;
            }
            handed.reach(end(&cut), joined);
            given.push((end(&cut), (cut.first, size(&cut).rows, handed.limits(cut.first))));
        }
        given
    }

    #[test]
    fn cuts_that_wait_go_together_up_to_the_bound() {
        let mut queue = Queue::default();
        cuts(&[(10, 3), (110, 3), (350, 3), (410, 4), (520, 9)], OWN, &InsertBounds::new(OWN))
            .close(Some(1000))
            .into_iter()
            .for_each(|cut| push(&mut queue, cut));
        assert_eq!(queue.held(), 22);
        let mut given = Vec::new();
        while let Some(Next { cut, joined, size }) = queue.next(rows(10), 0) {
            given.push((cut.first, cut.upto, cut.last, size.rows, joined));
        }
        assert_eq!(given, [(10, 400, 350, 9, true), (410, 500, 410, 4, false), (520, 600, 520, 9, false)]);
    }

    #[test]
    fn bytes_are_a_bound_too() {
        let mut queue = Queue::default();
        // 24 bytes each.
        cuts(&[(10, 3), (110, 3), (210, 3)], OWN, &InsertBounds::new(OWN))
            .close(Some(1000))
            .into_iter()
            .for_each(|cut| push(&mut queue, cut));
        let next = queue.next(Bound { rows: 100, bytes: 48 }, 0).expect("one");
        assert_eq!((next.cut.first, next.cut.upto, next.size), (10, 200, Size { rows: 6, bytes: 48, held: 6 }));
    }

    #[test]
    fn wide_rows_count_as_more() {
        // 50 rows, 400 bytes.
        let cut = cuts(&[(10, 50)], OWN, &InsertBounds::new(OWN)).close(None).swap_remove(0);
        let held = |(rows, bytes)| Size::of(&cut, Bound { rows, bytes }).held;
        assert_eq!([(50, 400), (50, 4000), (50, 200), (10, 40), (10, 0)].map(held), [50, 50, 100, 100, 4000]);
        assert_eq!(held((usize::MAX, 100)), 1 << 40);
    }

    #[test]
    fn what_goes_together_counts_as_much_as_before() {
        let mut queue = Queue::default();
        let text = |bytes: usize| -> RecordBatch {
            let column: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(bytes)]));
            RecordBatch::try_from_iter([("v", column)]).expect("valid")
        };
        let narrow = Cut { first: 1, upto: 2, last: 1, batches: vec![batch(9)] };
        let wide = Cut { first: 3, upto: 4, last: 3, batches: vec![text(500)] };
        for cut in [narrow, wide] {
            push(&mut queue, cut);
        }
        let before = queue.held();
        let next = queue.next(rows(100), 0).expect("one");
        assert!(next.joined && next.size.held == before, "{:?} of {before}", next.size);
        assert_ne!(size(&next.cut).held, before, "though it would count as less if it were one");
    }

    #[test]
    fn what_was_handed_over_before_is_not_joined() {
        let mut queue = Queue::default();
        let ticks = [(10, 1), (110, 1), (210, 1), (310, 1)];
        cuts(&ticks, OWN, &InsertBounds::new(OWN)).close(Some(1000)).into_iter().for_each(|cut| push(&mut queue, cut));
        let given: Vec<_> =
            std::iter::from_fn(|| queue.next(rows(10), 200)).map(|next| (next.cut.first, next.cut.upto)).collect();
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
            let (mut queue, mut handed) = (Queue::default(), InsertBounds::new(OWN));
            let mut first = cuts(&ticks, OWN, &handed);
            let mut given = Vec::new();
            for (frontier, most) in steps {
                first.close(Some(frontier)).into_iter().for_each(|cut| push(&mut queue, cut));
                given.extend(hand_over(&mut queue, &mut handed, 25, most));
            }
            let upto = given.get(..confirmed).and_then(<[_]>::last).map_or(0, |(end, _)| *end);
            let left: Vec<Named> = given.iter().filter(|(end, _)| *end > upto).map(|(_, named)| *named).collect();
            let other = Shape { every, rows: 7, insert: (3, 30), ..OWN };
            let mut resumed = InsertBounds::new(other);
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

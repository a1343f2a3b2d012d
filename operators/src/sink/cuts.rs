//! When buffered rows are written: at the close of ticks, at places that depend on the rows alone.
//!
//! Workers learn of closed ticks in steps of any size. A cut therefore never depends on the step: closed ticks are taken
//! one by one, and a cut ends with its rotation period or with the tick that reaches the bound.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use engine::batch::Time;

/// Rows of one table by tick.
pub(super) struct Cuts {
    /// Length of a rotation period in ms.
    period: Time,
    max_rows: usize,
    /// Ticks that are not closed.
    open: BTreeMap<Time, Vec<RecordBatch>>,
    /// Closed ticks of the cut that is being gathered.
    gathered: Vec<RecordBatch>,
    rows: usize,
    first: Time,
    last: Time,
    done: Time,
    /// Cuts that were made before under other bounds; see [`Cuts::as_before`].
    before: Vec<Bounds>,
}

/// How the rows of the ticks before `until` were cut; a cut ended there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub until: Time,
    pub period: Time,
    pub max_rows: usize,
}

/// All rows of a range of closed ticks.
#[derive(Debug)]
pub(super) struct Cut {
    /// The first tick with rows.
    pub first: Time,
    /// With this cut, all rows of all ticks before `upto` have been given.
    pub upto: Time,
    /// The last tick with rows.
    pub last: Time,
    /// The rows; empty if the ticks had none.
    pub batches: Vec<RecordBatch>,
}

impl Cut {
    /// The end of the last tick with rows.
    pub fn last_end(&self) -> Time {
        if self.batches.is_empty() { 0 } else { self.last.saturating_add(1) }
    }
}

impl Cuts {
    /// Cuts end at multiples of `period` ms, or earlier at `max_rows`.
    pub fn new(period: Time, max_rows: usize) -> Self {
        Self {
            period: period.max(1),
            max_rows: max_rows.max(1),
            open: BTreeMap::new(),
            gathered: Vec::new(),
            rows: 0,
            first: 0,
            last: 0,
            done: 0,
            before: Vec::new(),
        }
    }

    /// Has rows cut again as they were: by the first of these bounds whose end is behind a cut's first tick.
    pub fn as_before(&mut self, bounds: Vec<Bounds>) {
        self.before = bounds;
    }

    /// The bounds of a cut that begins at a tick.
    fn bounds(&self, first: Time) -> Bounds {
        let before = self.before.iter().find(|bounds| first < bounds.until).copied();
        before.unwrap_or(Bounds { until: Time::MAX, period: self.period, max_rows: self.max_rows })
    }

    /// Length of a rotation period in ms.
    pub fn period(&self) -> Time {
        self.period
    }

    /// Rows with which a cut ends earlier.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Takes in rows of a tick that is not closed.
    pub fn push(&mut self, tick: Time, rows: RecordBatch) {
        self.open.entry(tick).or_default().push(rows);
    }

    /// Forgets the ticks before `tick`, which are not this table's to write.
    pub fn skip(&mut self, tick: Time) {
        let kept = self.open.split_off(&tick);
        self.open = kept;
        if self.first < tick {
            self.gathered.clear();
            self.rows = 0;
        }
        self.done = self.done.max(tick);
    }

    /// All that is closed when every tick before `upto` is, as a last cut that ends there.
    pub fn flush(&mut self, upto: Time) -> Vec<Cut> {
        let mut cuts = self.close(Some(upto));
        if self.done < upto {
            cuts.push(self.cut(upto));
        }
        cuts
    }

    /// How many rows are held.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.rows + self.open.values().flatten().map(RecordBatch::num_rows).sum::<usize>()
    }

    /// The cuts that are complete when every tick before `frontier` is closed; `None` closes all.
    pub fn close(&mut self, frontier: Option<Time>) -> Vec<Cut> {
        let mut cuts = Vec::new();
        while let Some(entry) = self.open.first_entry() {
            let tick = *entry.key();
            if frontier.is_some_and(|frontier| tick >= frontier) {
                break;
            }
            let batches = entry.remove();
            if !self.gathered.is_empty() && tick >= self.end() {
                cuts.push(self.cut(self.end()));
            }
            if self.gathered.is_empty() {
                self.first = tick;
            }
            self.last = tick;
            self.rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
            self.gathered.extend(batches);
            if self.rows >= self.bounds(self.first).max_rows {
                cuts.push(self.cut(tick.saturating_add(1)));
            }
        }
        match frontier {
            None => cuts.push(self.cut(Time::MAX)),
            Some(frontier) if self.gathered.is_empty() => {
                let upto = frontier - frontier % self.period;
                if upto > self.done {
                    cuts.push(self.cut(upto));
                }
            }
            Some(frontier) if frontier >= self.end() => cuts.push(self.cut(self.end())),
            Some(_) => {}
        }
        cuts
    }

    /// The end of the period in which the gathered rows begin.
    fn end(&self) -> Time {
        let Bounds { until, period, .. } = self.bounds(self.first);
        (self.first - self.first % period).saturating_add(period).min(until)
    }

    fn cut(&mut self, upto: Time) -> Cut {
        self.rows = 0;
        self.done = upto;
        Cut { first: self.first, upto, last: self.last, batches: std::mem::take(&mut self.gathered) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, UInt64Array};
    use proptest::prelude::*;

    use super::*;

    fn rows(values: std::ops::Range<u64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(UInt64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("v", column)]).expect("valid")
    }

    /// First tick, end and number of rows of each cut that has rows.
    fn shapes(ticks: &[(Time, u64)], frontiers: &[Time]) -> Vec<(Time, Time, usize)> {
        let mut cuts = Cuts::new(100, 10);
        for (tick, count) in ticks {
            cuts.push(*tick, rows(0..*count));
        }
        let mut given: Vec<Cut> = frontiers.iter().flat_map(|f| cuts.close(Some(*f))).collect();
        given.extend(cuts.close(None));
        assert!(given.is_sorted_by_key(|cut| cut.upto));
        let with_rows = given.iter().filter(|cut| !cut.batches.is_empty());
        with_rows.map(|cut| (cut.first, cut.upto, cut.batches.iter().map(RecordBatch::num_rows).sum())).collect()
    }

    #[test]
    fn a_cut_ends_with_its_period_or_with_the_tick_that_reaches_the_bound() {
        let ticks = [(10, 3), (90, 3), (110, 4), (120, 7), (130, 1), (550, 2)];
        assert_eq!(shapes(&ticks, &[]), [(10, 100, 6), (110, 121, 11), (130, 200, 1), (550, Time::MAX, 2)]);
    }

    #[test]
    fn a_flush_takes_what_is_closed_and_a_skip_forgets_it() {
        let mut cuts = Cuts::new(100, 10);
        for tick in [10, 20, 30] {
            cuts.push(tick, rows(0..2));
        }
        let given = cuts.flush(30);
        assert_eq!(given.iter().map(|cut| (cut.first, cut.upto, cut.batches.len())).collect::<Vec<_>>(), [(10, 30, 2)]);
        assert_eq!(cuts.held(), 2);
        cuts.push(40, rows(0..3));
        cuts.skip(40);
        assert_eq!(cuts.held(), 3);
        assert!(cuts.flush(40).is_empty(), "nothing before it is left to say");
    }

    #[test]
    fn what_was_cut_before_under_other_bounds_is_cut_there_again() {
        let mut cuts = Cuts::new(1000, 100);
        let bounds = |until, period, max_rows| Bounds { until, period, max_rows };
        cuts.as_before(vec![bounds(150, 100, 10), bounds(300, 1000, 5)]);
        for (tick, count) in [(10, 6), (20, 6), (30, 1), (110, 2), (160, 2), (290, 1), (310, 4), (900, 4), (1000, 1)] {
            cuts.push(tick, rows(0..count));
        }
        let given = cuts.close(Some(2000));
        let ends: Vec<_> = given.iter().map(|cut| (cut.first, cut.upto)).collect();
        assert_eq!(ends, [(10, 21), (30, 100), (110, 150), (160, 300), (310, 1000), (1000, 2000)]);
    }

    #[test]
    fn ticks_without_rows_are_passed_by() {
        let mut cuts = Cuts::new(100, 10);
        assert!(cuts.close(Some(99)).is_empty());
        let empty = cuts.close(Some(250));
        assert!(empty.len() == 1 && empty[0].upto == 200 && empty[0].batches.is_empty());
        assert!(cuts.close(Some(299)).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(11), ..ProptestConfig::default() })]

        #[test]
        fn the_steps_of_the_frontier_do_not_matter(
            ticks in prop::collection::btree_map((0u64..60).prop_map(|t| t * 10), 1u64..8, 0..30),
            mut frontiers in prop::collection::vec(0u64..700, 0..20),
        ) {
            frontiers.sort_unstable();
            let ticks: Vec<_> = ticks.into_iter().collect();
            // Only where the last cut ends is not known before the input ends.
            let rows = |frontiers| shapes(&ticks, frontiers).into_iter().map(|(first, _, rows)| (first, rows)).collect::<Vec<_>>();
            prop_assert_eq!(rows(&frontiers[..]), rows(&[]));
        }
    }
}

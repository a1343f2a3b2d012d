//! The running state of aggregates: one column of values for each part of a state, indexed by group.
//!
//! Several SQL aggregates can share a state: `var_pop(x)` and `stddev(x)` are two ways to finish the same moments.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;

use super::digits::Digits;
use super::distinct::{Distinct, Tally};
use super::transitions::Transitions;

mod rows;

use rows::Rows;

/// What is kept for each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// Number of rows.
    Count,
    /// Sum of [`Form::Int`], [`Form::UInt`] (both wrap on overflow, as in DataFusion) or [`Form::Real`].
    Sum,
    /// Number and sum.
    Mean,
    /// Number, mean and sum of squared deviations, by Welford's method.
    Moments,
    /// Least value.
    Min,
    /// Greatest value.
    Max,
    /// Whether all are true.
    And,
    /// Whether any is true.
    Or,
    /// Set of hashes.
    Distinct,
    /// Number of rows by hash.
    Tally,
    /// Number of rows by hash, and by the hash of the row before.
    Transitions,
    /// Number of rows by a number's first digit.
    Digits,
}

/// In what form an argument reaches a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Int,
    UInt,
    Real,
    Truth,
    Text,
    /// The 64-bit hash of a value of any type.
    Hash,
    /// As it is: an operand of an expression that is computed later.
    Raw,
}

/// How an aggregate's value follows from its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The state itself.
    Plain,
    /// Sum of squared deviations over n, or n - 1 for a sample; the root of it for a standard deviation.
    Spread { sample: bool, root: bool },
    /// Of a tally, the share of the most frequent value instead of the entropy.
    Share,
}

/// The state of one aggregate over all groups.
#[derive(Debug)]
pub(super) enum State {
    Count(Vec<i64>),
    SumInt(Vec<i64>, Vec<bool>),
    SumUInt(Vec<u64>, Vec<bool>),
    SumReal(Vec<f64>, Vec<bool>),
    Mean(Vec<(f64, u64)>),
    Moments(Vec<Moments>),
    Int { greatest: bool, values: Vec<i64>, seen: Vec<bool> },
    UInt { greatest: bool, values: Vec<u64>, seen: Vec<bool> },
    Real { greatest: bool, values: Vec<f64>, seen: Vec<bool> },
    Text { greatest: bool, values: Vec<Option<Box<str>>> },
    Truth { all: bool, values: Vec<Option<bool>> },
    Distinct { limit: usize, values: Vec<Distinct> },
    Tally { limit: usize, values: Vec<Tally> },
    Transitions { limit: usize, values: Vec<Transitions> },
    Digits(Vec<Digits>),
}

/// Welford's running moments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moments {
    n: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.n += 1.0;
        let deviation = value - self.mean;
        self.mean += deviation / self.n;
        self.squares += deviation * (value - self.mean);
    }
}

/// Applies `body` to every group.
macro_rules! each_column {
    ($state:expr, $column:ident => $body:expr) => {
        match $state {
            State::Count($column) => $body,
            State::SumInt($column, seen) => {
                $body;
                let $column = seen;
                $body
            }
            State::SumUInt($column, seen) => {
                $body;
                let $column = seen;
                $body
            }
            State::SumReal($column, seen) => {
                $body;
                let $column = seen;
                $body
            }
            State::Mean($column) => $body,
            State::Moments($column) => $body,
            State::Int { values: $column, seen, .. } => {
                $body;
                let $column = seen;
                $body
            }
            State::UInt { values: $column, seen, .. } => {
                $body;
                let $column = seen;
                $body
            }
            State::Real { values: $column, seen, .. } => {
                $body;
                let $column = seen;
                $body
            }
            State::Text { values: $column, .. } => $body,
            State::Truth { values: $column, .. } => $body,
            State::Distinct { values: $column, .. } => $body,
            State::Tally { values: $column, .. } => $body,
            State::Transitions { values: $column, .. } => $body,
            State::Digits($column) => $body,
        }
    };
}

impl State {
    /// An empty state. `limit` is the number of distinct values up to which sets are exact.
    pub(super) fn new(shape: Shape, form: Form, limit: usize) -> Self {
        let greatest = shape == Shape::Max;
        match (shape, form) {
            (Shape::Count, _) => Self::Count(Vec::new()),
            (Shape::Sum, Form::Int) => Self::SumInt(Vec::new(), Vec::new()),
            (Shape::Sum, Form::UInt) => Self::SumUInt(Vec::new(), Vec::new()),
            (Shape::Sum, _) => Self::SumReal(Vec::new(), Vec::new()),
            (Shape::Mean, _) => Self::Mean(Vec::new()),
            (Shape::Moments, _) => Self::Moments(Vec::new()),
            (Shape::Min | Shape::Max, Form::Int) => Self::Int { greatest, values: Vec::new(), seen: Vec::new() },
            (Shape::Min | Shape::Max, Form::UInt) => Self::UInt { greatest, values: Vec::new(), seen: Vec::new() },
            (Shape::Min | Shape::Max, Form::Text) => Self::Text { greatest, values: Vec::new() },
            (Shape::Min | Shape::Max, Form::Truth) => Self::Truth { all: !greatest, values: Vec::new() },
            (Shape::Min | Shape::Max, _) => Self::Real { greatest, values: Vec::new(), seen: Vec::new() },
            (Shape::And, _) => Self::Truth { all: true, values: Vec::new() },
            (Shape::Or, _) => Self::Truth { all: false, values: Vec::new() },
            (Shape::Distinct, _) => Self::Distinct { limit, values: Vec::new() },
            (Shape::Tally, _) => Self::Tally { limit, values: Vec::new() },
            (Shape::Transitions, _) => Self::Transitions { limit, values: Vec::new() },
            (Shape::Digits, _) => Self::Digits(Vec::new()),
        }
    }

    /// Bytes for each group, without what its values hold besides.
    pub(super) fn bytes(&self) -> usize {
        fn of<T>(_: &[T]) -> usize {
            size_of::<T>()
        }
        let mut bytes = 0;
        each_column!(self, column => bytes += of(column));
        bytes
    }

    /// Makes room for `groups` groups; new ones are empty.
    pub(super) fn grow(&mut self, groups: usize) {
        each_column!(self, column => column.resize_with(groups, Default::default));
    }

    /// Empties one group.
    pub(super) fn reset(&mut self, group: u32) {
        each_column!(self, column => column[group as usize] = Default::default());
    }

    /// Forgets all groups.
    pub(super) fn clear(&mut self) {
        each_column!(self, column => *column = Vec::new());
    }

    /// Adds rows in their order. `argument` is in the state's form; rows where it is null, or that `filter` does not
    /// select, do not count. Returns how many sets have left the exact range.
    pub(super) fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, filter: Option<&ArrayRef>) -> usize {
        let rows = Rows::new(groups, argument, filter);
        let mut estimated = 0;
        match (self, argument) {
            (Self::Count(count), _) => rows.each(|_, g| count[g] += 1),
            (_, None) => {}
            (Self::SumInt(sum, seen), Some(column)) => rows.sum::<Int64Type>(column, sum, seen, i64::wrapping_add),
            (Self::SumUInt(sum, seen), Some(column)) => rows.sum::<UInt64Type>(column, sum, seen, u64::wrapping_add),
            (Self::SumReal(sum, seen), Some(column)) => rows.sum::<Float64Type>(column, sum, seen, |a, b| a + b),
            (Self::Mean(mean), Some(column)) => {
                rows.each_number::<Float64Type>(column, |g, value| mean[g] = (mean[g].0 + value, mean[g].1 + 1));
            }
            (Self::Moments(moments), Some(column)) => {
                rows.each_number::<Float64Type>(column, |g, value| moments[g].add(value));
            }
            (Self::Int { greatest, values, seen }, Some(column)) => {
                rows.extreme::<Int64Type>(column, *greatest, values, seen, |a, b| a > b);
            }
            (Self::UInt { greatest, values, seen }, Some(column)) => {
                rows.extreme::<UInt64Type>(column, *greatest, values, seen, |a, b| a > b);
            }
            (Self::Real { greatest, values, seen }, Some(column)) => {
                rows.extreme::<Float64Type>(column, *greatest, values, seen, |a, b| a.total_cmp(&b).is_gt());
            }
            (Self::Text { greatest, values }, Some(column)) => rows.extreme_text(column, *greatest, values),
            (Self::Truth { all, values }, Some(column)) => rows.truth(column, *all, values),
            (Self::Distinct { limit, values }, Some(column)) => {
                let limit = *limit;
                let insert = |g: usize, hash| estimated += usize::from(values[g].insert(hash, limit));
                rows.each_number::<UInt64Type>(column, insert);
            }
            (Self::Tally { limit, values }, Some(column)) => {
                let limit = *limit;
                let insert = |g: usize, hash| estimated += usize::from(values[g].insert(hash, limit));
                rows.each_number::<UInt64Type>(column, insert);
            }
            (Self::Transitions { limit, values }, Some(column)) => {
                let limit = *limit;
                rows.each_number::<UInt64Type>(column, |g, hash| estimated += values[g].insert(hash, limit));
            }
            (Self::Digits(digits), Some(column)) => {
                rows.each_number::<Float64Type>(column, |g, value| digits[g].add(value));
            }
        }
        estimated
    }

    /// The value for each of `groups`, as `data_type`.
    ///
    /// # Errors
    /// If the value does not fit into the type, which is that of the argument.
    pub(super) fn finish(&self, how: Finish, groups: &[u32], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let at = groups.iter().map(|g| *g as usize);
        let values: ArrayRef = match self {
            Self::Count(count) => Arc::new(at.map(|g| count[g]).collect::<Int64Array>()),
            Self::SumInt(values, seen) | Self::Int { values, seen, .. } => {
                Arc::new(at.map(|g| seen[g].then_some(values[g])).collect::<Int64Array>())
            }
            Self::SumUInt(values, seen) | Self::UInt { values, seen, .. } => {
                Arc::new(at.map(|g| seen[g].then_some(values[g])).collect::<UInt64Array>())
            }
            Self::SumReal(values, seen) | Self::Real { values, seen, .. } => {
                Arc::new(at.map(|g| seen[g].then_some(values[g])).collect::<Float64Array>())
            }
            Self::Mean(mean) => {
                let value = |(sum, n): (f64, u64)| (n > 0).then(|| sum / n as f64);
                Arc::new(at.map(|g| value(mean[g])).collect::<Float64Array>())
            }
            Self::Moments(moments) => Arc::new(at.map(|g| spread(&moments[g], how)).collect::<Float64Array>()),
            Self::Text { values, .. } => Arc::new(at.map(|g| values[g].as_deref()).collect::<StringArray>()),
            Self::Truth { values, .. } => Arc::new(at.map(|g| values[g]).collect::<BooleanArray>()),
            Self::Distinct { values, .. } => Arc::new(at.map(|g| values[g].len() as i64).collect::<Int64Array>()),
            Self::Tally { values, .. } if how == Finish::Share => {
                Arc::new(at.map(|g| values[g].mode_share()).collect::<Float64Array>())
            }
            Self::Tally { values, .. } => Arc::new(at.map(|g| values[g].entropy()).collect::<Float64Array>()),
            Self::Transitions { values, .. } => Arc::new(at.map(|g| values[g].entropy()).collect::<Float64Array>()),
            Self::Digits(digits) => Arc::new(at.map(|g| digits[g].chi2()).collect::<Float64Array>()),
        };
        if values.data_type() == data_type { Ok(values) } else { cast(&values, data_type) }
    }
}

/// Variance or standard deviation; the mean where neither is asked for.
fn spread(moments: &Moments, how: Finish) -> Option<f64> {
    let Finish::Spread { sample, root } = how else { return (moments.n > 0.0).then_some(moments.mean) };
    let divisor = if sample { moments.n - 1.0 } else { moments.n };
    let variance = (divisor > 0.0).then(|| moments.squares / divisor)?;
    Some(if root { variance.sqrt() } else { variance })
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use proptest::prelude::*;

    use super::*;

    fn close(a: Option<f64>, b: Option<f64>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs())),
            (a, b) => a == b,
        }
    }

    fn real(state: &State, how: Finish, group: u32) -> Option<f64> {
        let array = state.finish(how, &[group], &DataType::Float64).expect("a number");
        array.as_primitive::<Float64Type>().iter().next().flatten()
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(6), ..ProptestConfig::default() })]

        #[test]
        fn moments_agree_with_two_passes(
            rows in prop::collection::vec((0_u32..4, prop::option::of(-1e6_f64..1e6), any::<bool>()), 0..500),
            offset in prop::sample::select(vec![0.0, 1e9]),
        ) {
            let groups: Vec<u32> = rows.iter().map(|r| r.0).collect();
            let values: ArrayRef = Arc::new(rows.iter().map(|r| r.1.map(|v| v + offset)).collect::<Float64Array>());
            let filter: ArrayRef = Arc::new(rows.iter().map(|r| Some(r.2)).collect::<BooleanArray>());
            let shapes = [Shape::Count, Shape::Sum, Shape::Mean, Shape::Moments, Shape::Min, Shape::Max];
            let mut states = shapes.map(|shape| State::new(shape, Form::Real, 16));
            for state in &mut states {
                state.grow(4);
                state.update(&groups, Some(&values), Some(&filter));
            }
            for group in 0..4 {
                let mine: Vec<f64> =
                    rows.iter().filter(|r| r.0 == group && r.2).filter_map(|r| r.1).map(|v| v + offset).collect();
                let n = mine.len() as f64;
                let some = |v: f64| (n > 0.0).then_some(v);
                let mean = mine.iter().sum::<f64>() / n;
                let squares: f64 = mine.iter().map(|v| (v - mean).powi(2)).sum();
                let spread = |sample, root| Finish::Spread { sample, root };
                prop_assert_eq!(real(&states[0], Finish::Plain, group), Some(n));
                prop_assert!(close(real(&states[1], Finish::Plain, group), some(mine.iter().sum())));
                prop_assert!(close(real(&states[2], Finish::Plain, group), some(mean)));
                prop_assert!(close(real(&states[3], spread(false, false), group), some(squares / n)));
                prop_assert!(close(real(&states[3], spread(false, true), group), some((squares / n).sqrt())));
                let sample = (n > 1.0).then(|| squares / (n - 1.0));
                prop_assert!(close(real(&states[3], spread(true, false), group), sample));
                prop_assert_eq!(real(&states[4], Finish::Plain, group), mine.iter().copied().reduce(f64::min));
                prop_assert_eq!(real(&states[5], Finish::Plain, group), mine.iter().copied().reduce(f64::max));
            }
        }
    }

    #[test]
    fn a_reset_group_is_empty() {
        let values: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
        let mut state = State::new(Shape::Or, Form::Truth, 16);
        state.grow(2);
        state.update(&[0, 1, 1], Some(&values), None);
        state.reset(0);
        let found = state.finish(Finish::Plain, &[0, 1], &DataType::Boolean).expect("truth values");
        assert_eq!(found.as_boolean().iter().collect::<Vec<_>>(), [None, Some(false)]);
    }
}

//! What a group's rows before a row said: for each group the latest value of an expression that is not null.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};

use super::accumulate::Form;

/// Of a longer text this many bytes are kept, less if a character would be cut.
pub(super) const LONGEST: usize = 256;

/// The latest values of all groups, indexed by group.
#[derive(Debug)]
pub(super) enum Latest {
    Int(Held<i64>),
    UInt(Held<u64>),
    Real(Held<f64>),
    Truth(Vec<Option<bool>>),
    Text(Vec<Option<Box<str>>>),
}

/// Numbers, and which groups have one.
#[derive(Debug, Default)]
pub(super) struct Held<T> {
    values: Vec<T>,
    seen: Vec<bool>,
}

/// Applies `body` to every group.
macro_rules! each_column {
    ($latest:expr, $column:ident => $body:expr) => {
        match $latest {
            Latest::Int(Held { values: $column, seen }) => {
                $body;
                let $column = seen;
                $body
            }
            Latest::UInt(Held { values: $column, seen }) => {
                $body;
                let $column = seen;
                $body
            }
            Latest::Real(Held { values: $column, seen }) => {
                $body;
                let $column = seen;
                $body
            }
            Latest::Truth($column) => $body,
            Latest::Text($column) => $body,
        }
    };
}

impl Latest {
    /// No group. A form that is not a value's own, a hash or an operand, is held as a number.
    pub(super) fn new(form: Form) -> Self {
        match form {
            Form::Int => Self::Int(Held::default()),
            Form::UInt | Form::Hash => Self::UInt(Held::default()),
            Form::Real | Form::Raw => Self::Real(Held::default()),
            Form::Truth => Self::Truth(Vec::new()),
            Form::Text => Self::Text(Vec::new()),
        }
    }

    /// Makes room for `groups` groups; new ones have no value.
    pub(super) fn grow(&mut self, groups: usize) {
        each_column!(self, column => column.resize_with(groups, Default::default));
    }

    /// Forgets the value of one group.
    pub(super) fn reset(&mut self, group: u32) {
        each_column!(self, column => column[group as usize] = Default::default());
    }

    /// Forgets all groups.
    pub(super) fn clear(&mut self) {
        each_column!(self, column => *column = Vec::new());
    }

    /// Bytes for each group, without those of a text.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Int(_) | Self::UInt(_) | Self::Real(_) => size_of::<i64>() + size_of::<bool>(),
            Self::Truth(_) => size_of::<Option<bool>>(),
            Self::Text(_) => size_of::<Option<Box<str>>>(),
        }
    }

    /// For each of the rows, in their order, what its group held before it; then the group holds the row's own value. `values`
    /// are in the form that this was made for.
    pub(super) fn step(&mut self, groups: &[u32], values: &ArrayRef) -> ArrayRef {
        match self {
            Self::Int(held) => held.step::<Int64Type>(groups, values),
            Self::UInt(held) => held.step::<UInt64Type>(groups, values),
            Self::Real(held) => held.step::<Float64Type>(groups, values),
            Self::Truth(held) => {
                let values = values.as_boolean();
                let before = groups.iter().enumerate().map(|(row, group)| {
                    let held = &mut held[*group as usize];
                    if values.is_valid(row) { held.replace(values.value(row)) } else { *held }
                });
                Arc::new(before.collect::<BooleanArray>())
            }
            Self::Text(held) => {
                let values = values.as_string::<i32>();
                let mut before = arrow::array::StringBuilder::with_capacity(groups.len(), 0);
                for (row, group) in groups.iter().enumerate() {
                    let held = &mut held[*group as usize];
                    before.append_option(held.as_deref());
                    keep(held, values, row);
                }
                Arc::new(before.finish())
            }
        }
    }
}

impl<T: Copy + Send + Sync> Held<T> {
    fn step<P: ArrowPrimitiveType<Native = T>>(&mut self, groups: &[u32], values: &ArrayRef) -> ArrayRef {
        let values = values.as_primitive::<P>();
        let before = groups.iter().enumerate().map(|(row, group)| {
            let group = *group as usize;
            let held = self.seen[group].then_some(self.values[group]);
            if values.is_valid(row) {
                (self.values[group], self.seen[group]) = (values.value(row), true);
            }
            held
        });
        Arc::new(before.collect::<PrimitiveArray<P>>())
    }
}

/// Holds a row's text, if it has one that is not held already.
fn keep(held: &mut Option<Box<str>>, values: &StringArray, row: usize) {
    if values.is_null(row) {
        return;
    }
    let text = values.value(row);
    let text = &text[..text.floor_char_boundary(LONGEST)];
    if held.as_deref() != Some(text) {
        *held = Some(text.into());
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, UInt64Array};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_group_starts_without_a_value_and_long_texts_are_cut() {
        let long = "é".repeat(LONGEST);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(long.as_str()), None, Some("b"), None]));
        let mut latest = Latest::new(Form::Text);
        latest.grow(2);
        let before = latest.step(&[0, 0, 1, 0], &texts);
        let cut = &long[..LONGEST];
        assert_eq!(before.as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some(cut), None, Some(cut)]);
        latest.reset(0);
        let before = latest.step(&[0, 1], &texts.slice(0, 2));
        assert_eq!(before.as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some("b")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(6), ..ProptestConfig::default() })]

        #[test]
        fn it_is_the_last_value_before_that_is_not_null(
            rows in prop::collection::vec((0_u32..3, prop::option::of(0_u8..4)), 1..120),
            cut in 1_usize..40,
        ) {
            let as_text = |v: Option<u8>| v.map(|v| v.to_string());
            let forms: [(Form, ArrayRef); 5] = [
                (Form::Int, Arc::new(rows.iter().map(|r| r.1.map(i64::from)).collect::<Int64Array>())),
                (Form::UInt, Arc::new(rows.iter().map(|r| r.1.map(u64::from)).collect::<UInt64Array>())),
                (Form::Real, Arc::new(rows.iter().map(|r| r.1.map(f64::from)).collect::<Float64Array>())),
                (Form::Truth, Arc::new(rows.iter().map(|r| r.1.map(|v| v > 1)).collect::<BooleanArray>())),
                (Form::Text, Arc::new(rows.iter().map(|r| as_text(r.1)).collect::<StringArray>())),
            ];
            let groups: Vec<u32> = rows.iter().map(|r| r.0).collect();
            let before = |row: usize| rows[..row].iter().rev().find(|r| r.0 == groups[row] && r.1.is_some()).map(|r| r.1);
            for (form, values) in forms {
                let mut latest = Latest::new(form);
                latest.grow(3);
                let mut got = Vec::new();
                for from in (0..rows.len()).step_by(cut) {
                    let n = cut.min(rows.len() - from);
                    let step = latest.step(&groups[from..from + n], &values.slice(from, n));
                    got.push(step);
                }
                let got = arrow::compute::concat(&got.iter().map(|a| a.as_ref()).collect::<Vec<_>>()).expect("one type");
                for row in 0..rows.len() {
                    let (value, expected) = (&got.slice(row, 1), before(row).flatten());
                    let held = expected.map(|v| rows.iter().position(|r| r.1 == Some(v)).expect("there"));
                    let expected = held.map(|at| values.slice(at, 1));
                    match expected {
                        Some(expected) => prop_assert_eq!(value, &expected),
                        None => prop_assert!(value.is_null(0)),
                    }
                }
            }
        }
    }
}

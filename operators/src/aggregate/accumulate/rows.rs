//! The rows of a chunk that count for an aggregate, and the loops over them.
//!
//! The loops are generic, so that each state has one of its own for its type: they run for every row and aggregate.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::buffer::BooleanBuffer;

/// The rows of a chunk that count, with their groups.
pub(super) struct Rows<'a> {
    groups: &'a [u32],
    /// Which rows count; `None` for all.
    mask: Option<BooleanBuffer>,
}

impl<'a> Rows<'a> {
    /// Rows where the argument is null, or that the filter does not select, do not count.
    pub fn new(groups: &'a [u32], argument: Option<&ArrayRef>, filter: Option<&ArrayRef>) -> Self {
        Self { groups, mask: mask(argument, filter) }
    }

    /// Calls `body` with each row and its group.
    #[inline]
    pub fn each(&self, mut body: impl FnMut(usize, usize)) {
        match &self.mask {
            None => self.groups.iter().enumerate().for_each(|(row, group)| body(row, *group as usize)),
            Some(mask) => mask.set_indices().for_each(|row| body(row, self.groups[row] as usize)),
        }
    }

    /// Calls `body` with the group of each row and its number in a column.
    #[inline]
    pub fn each_number<T: ArrowPrimitiveType>(&self, column: &ArrayRef, mut body: impl FnMut(usize, T::Native)) {
        let numbers: &[T::Native] = column.as_primitive::<T>().values();
        self.each(|row, g| body(g, numbers[row]));
    }

    /// Adds to the groups' sums. Which groups have one is in `seen`.
    #[inline]
    pub fn sum<T: ArrowPrimitiveType>(
        &self,
        column: &ArrayRef,
        sums: &mut [T::Native],
        seen: &mut [bool],
        add: impl Fn(T::Native, T::Native) -> T::Native,
    ) {
        self.each_number::<T>(column, |g, value| (sums[g], seen[g]) = (add(sums[g], value), true));
    }

    /// Keeps the groups' greatest values, or least ones. Which groups have one is in `seen`.
    #[inline]
    pub fn extreme<T: ArrowPrimitiveType>(
        &self,
        column: &ArrayRef,
        greatest: bool,
        held: &mut [T::Native],
        seen: &mut [bool],
        is_above: impl Fn(T::Native, T::Native) -> bool,
    ) {
        self.each_number::<T>(column, |g, value| {
            if !seen[g] || is_above(value, held[g]) == greatest {
                (held[g], seen[g]) = (value, true);
            }
        });
    }

    /// Keeps the groups' greatest texts, or least ones.
    pub fn extreme_text(&self, column: &ArrayRef, greatest: bool, held: &mut [Option<Box<str>>]) {
        let column = column.as_string::<i32>();
        self.each(|row, g| {
            let value = column.value(row);
            if held[g].as_deref().is_none_or(|held| value != held && (value > held) == greatest) {
                held[g] = Some(value.into());
            }
        });
    }

    /// Keeps whether all of the groups' values are true, or any.
    pub fn truth(&self, column: &ArrayRef, all: bool, held: &mut [Option<bool>]) {
        let column = column.as_boolean().values();
        self.each(|row, g| {
            let value = column.value(row);
            held[g] = Some(held[g].map_or(value, |held| if all { held && value } else { held || value }));
        });
    }
}

/// Which rows count; `None` for all. A filter that is null does not select.
fn mask(argument: Option<&ArrayRef>, filter: Option<&ArrayRef>) -> Option<BooleanBuffer> {
    let valid = argument.and_then(|a| a.nulls()).map(|n| n.inner().clone());
    let selected = filter.and_then(|f| f.as_boolean_opt()).map(|f| match f.nulls() {
        Some(nulls) => f.values() & nulls.inner(),
        None => f.values().clone(),
    });
    match (valid, selected) {
        (Some(valid), Some(selected)) => Some(&valid & &selected),
        (valid, selected) => valid.or(selected),
    }
}

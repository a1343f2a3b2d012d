//! Rows of a relation that a sink has shown and that may still change.

use std::collections::HashMap;
use std::fmt;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

/// A multiset of rows. When one dataflow takes the place of another, the difference between what the two show is what a
/// sink of changes must write, so that its changes add up to what is true.
///
/// It holds as many rows as the relation has that may change, which is bounded where the relation is made.
#[derive(Default)]
pub struct Standing {
    columns: Option<(SchemaRef, RowConverter)>,
    rows: HashMap<Box<[u8]>, i64>,
}

/// Rows that are to be inserted (`1`) or taken back (`-1`).
pub type Changes = Vec<(i8, RecordBatch)>;

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

impl Standing {
    /// Inserts rows, or takes them back. All rows must have the same columns.
    ///
    /// # Errors
    /// If a column is of a type that has no order.
    pub fn add(&mut self, rows: &RecordBatch, diff: i8) -> Result<(), ArrowError> {
        if self.columns.is_none() {
            let fields = rows.schema_ref().fields().iter().map(|field| SortField::new(field.data_type().clone()));
            self.columns = Some((rows.schema(), RowConverter::new(fields.collect())?));
        }
        let Some((_, converter)) = &self.columns else { return Ok(()) };
        for row in &converter.convert_columns(rows.columns())? {
            match self.rows.get_mut(row.as_ref()) {
                Some(count) => {
                    *count += i64::from(diff);
                    if *count == 0 {
                        self.rows.remove(row.as_ref());
                    }
                }
                None => _ = self.rows.insert(row.as_ref().into(), i64::from(diff)),
            }
        }
        Ok(())
    }

    /// The rows that are not among those here; those that are go from here.
    ///
    /// # Errors
    /// As [`Standing::add`].
    pub fn without(&mut self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let Some((_, converter)) = self.columns.as_ref().filter(|_| !self.rows.is_empty()) else { return Ok(rows) };
        let encoded = converter.convert_columns(rows.columns())?;
        let mut is_new = |row: &[u8]| match self.rows.get_mut(row) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        };
        let new: BooleanArray = encoded.iter().map(|row| Some(is_new(row.as_ref()))).collect();
        self.rows.retain(|_, count| *count != 0);
        filter_record_batch(&rows, &new)
    }

    /// What makes this of `before`: what is taken back first.
    ///
    /// # Errors
    /// If rows cannot be made of what is held: a defect.
    pub fn changes_from(&self, before: &Self) -> Result<Changes, ArrowError> {
        let schema = |standing: &Self| standing.columns.as_ref().map(|(schema, _)| SchemaRef::clone(schema));
        let comparable = self.rows.is_empty() || before.rows.is_empty() || schema(self) == schema(before);
        let less = |a: &Self, b: &Self| {
            let mut rows: Vec<&[u8]> = Vec::new();
            for (row, count) in &a.rows {
                let other = if comparable { b.rows.get(row).copied().unwrap_or(0) } else { 0 };
                rows.extend(std::iter::repeat_n(&**row, usize::try_from(count - other).unwrap_or(0)));
            }
            // In an order that does not depend on the run.
            rows.sort_unstable();
            a.batch(&rows)
        };
        let gone = less(before, self)?.map(|rows| (-1, rows));
        let new = less(self, before)?.map(|rows| (1, rows));
        Ok(gone.into_iter().chain(new).collect())
    }

    fn batch(&self, rows: &[&[u8]]) -> Result<Option<RecordBatch>, ArrowError> {
        let Some((schema, converter)) = self.columns.as_ref().filter(|_| !rows.is_empty()) else { return Ok(None) };
        let parser = converter.parser();
        let columns = converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
        RecordBatch::try_new(SchemaRef::clone(schema), columns).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;

    fn rows(name: &str, values: &[i64]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([(name, numbers)]).expect("valid")
    }

    fn values(changes: &Changes) -> Vec<(i8, i64)> {
        let of = |(diff, rows): &(i8, RecordBatch)| {
            let values = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            values.into_iter().map(|value| (*diff, value)).collect::<Vec<_>>()
        };
        changes.iter().flat_map(of).collect()
    }

    #[test]
    fn rows_that_are_there_are_left_out_once() {
        let mut standing = Standing::default();
        standing.add(&rows("n", &[1, 2, 2]), 1).expect("added");
        let left = standing.without(rows("n", &[2, 3, 1, 1])).expect("compared");
        assert_eq!(left.column(0).as_primitive::<Int64Type>().values().to_vec(), [3, 1]);
        let left = standing.without(rows("n", &[2, 2])).expect("compared");
        assert_eq!(left.num_rows(), 1);
        assert_eq!(standing.without(rows("n", &[2])).expect("compared").num_rows(), 1, "nothing is left");
    }

    #[test]
    fn rows_of_other_columns_are_all_taken_back() {
        let (mut old, mut new) = (Standing::default(), Standing::default());
        old.add(&rows("n", &[1, 2]), 1).expect("added");
        new.add(&rows("m", &[2]), 1).expect("added");
        assert_eq!(values(&new.changes_from(&old).expect("made")), [(-1, 1), (-1, 2), (1, 2)]);
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let mut other = Standing::default();
        other.add(&RecordBatch::try_from_iter([("t", text)]).expect("valid"), 1).expect("added");
        assert_eq!(other.changes_from(&Standing::default()).expect("made")[0].1.column(0).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(41), ..ProptestConfig::default() })]

        /// What was before, with the changes, is what is now.
        #[test]
        fn changes_make_one_of_the_other(
            before in prop::collection::vec((0i64..9, any::<bool>()), 0..40),
            now in prop::collection::vec((0i64..9, any::<bool>()), 0..40),
        ) {
            let made = |steps: &[(i64, bool)]| {
                let (mut standing, mut model) = (Standing::default(), std::collections::BTreeMap::<i64, i64>::new());
                for (value, more) in steps {
                    // Only what is there is taken back.
                    let diff = if *more || model.get(value).is_none_or(|count| *count == 0) { 1 } else { -1 };
                    *model.entry(*value).or_default() += i64::from(diff);
                    standing.add(&rows("n", &[*value]), diff).expect("added");
                }
                model.retain(|_, count| *count != 0);
                (standing, model)
            };
            let ((old, mut model), (new, wanted)) = (made(&before), made(&now));
            for (diff, value) in values(&new.changes_from(&old).expect("made")) {
                *model.entry(value).or_default() += i64::from(diff);
            }
            model.retain(|_, count| *count != 0);
            prop_assert_eq!(model, wanted);
        }
    }
}

//! Two runs' rows of one table: what is there in one alone, and what has changed.
//!
//! Keys are compared in Arrow's row format and sorted; rows of one key are paired, and only pairs and examples are looked
//! at column by column. Memory is that of the rows handed to [`Comparer::add`] and of their keys.

pub mod stored;

mod align;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_comparator};
use arrow::compute::{SortOptions, interleave_record_batch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use serde_json::Value;

use spool::batch::MAX_ROWS;

use align::{Aligned, align};

/// Floats that differ by less than this part of themselves are equal: sums in another order are.
const TOLERANCE: f64 = 1e-9;

/// Names and values of some columns of a row.
pub type Columns = Vec<(String, Value)>;

/// How two tables differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Rows before.
    pub before: u64,
    /// Rows after.
    pub after: u64,
    /// Rows after whose key was not there before.
    pub new: u64,
    /// Rows before whose key is not there after.
    pub gone: u64,
    /// Rows of one key with other values.
    pub changed: u64,
    /// In how many rows each column has changed.
    pub columns: BTreeMap<String, u64>,
    /// Columns that can be compared with none after.
    pub columns_gone: Vec<String>,
    /// Columns that can be compared with none before.
    pub columns_new: Vec<String>,
    /// The first of the new rows, by key.
    pub new_rows: Vec<Alone>,
    /// The first of the rows that are gone, by key.
    pub gone_rows: Vec<Alone>,
    /// The first of the changed rows, by key.
    pub changed_rows: Vec<Changed>,
}

/// A row that one of the tables has.
#[derive(Clone, Debug, PartialEq)]
pub struct Alone {
    /// Its key.
    pub key: Columns,
    /// All of its columns that are not null.
    pub values: Columns,
}

/// A row that has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Its key.
    pub key: Columns,
    /// Name of each column that has changed, the value before and the value after.
    pub columns: Vec<(String, Value, Value)>,
}

impl Comparison {
    /// Whether the rows are the same and have the same columns.
    pub fn is_same(&self) -> bool {
        self.new + self.gone + self.changed == 0 && self.columns_gone.is_empty() && self.columns_new.is_empty()
    }
}

/// What keeps two tables from being compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A column of the key is missing, or of types that do not go together.
    #[error("the column `{0}` of the key is not in both tables")]
    Key(String),
    /// Rows cannot be handled, such as a column of a type that has no order.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Compares two tables as a whole; `examples` is the most rows of each sort that are given out.
///
/// # Errors
/// As [`Comparer::add`].
pub fn compare(
    key: &[String],
    before: &[RecordBatch],
    after: &[RecordBatch],
    examples: usize,
) -> Result<Comparison, CompareError> {
    let mut comparer = Comparer::new(key.to_vec(), examples);
    comparer.add(before, after)?;
    Ok(comparer.finish())
}

/// Compares two tables piece by piece.
pub struct Comparer {
    key: Vec<String>,
    examples: usize,
    found: Comparison,
}

/// A row: its batch and its position there.
type Place = (usize, usize);

/// One table's rows of a piece, in the order of their keys.
struct Side<'a> {
    /// As they were given.
    given: &'a [RecordBatch],
    /// The columns that both sides have, of the same types.
    shared: &'a [RecordBatch],
    keys: Vec<Rows>,
    order: Vec<Place>,
}

impl Comparer {
    /// Compares by the columns of `key`; `examples` is the most rows of each sort that are given out.
    pub fn new(key: Vec<String>, examples: usize) -> Self {
        Self { key, examples, found: Comparison::default() }
    }

    /// Compares a piece of both tables. A key must not be in two pieces. The batches of a side may have different columns.
    ///
    /// # Errors
    /// If a column of the key is missing, or rows cannot be compared.
    pub fn add(&mut self, before: &[RecordBatch], after: &[RecordBatch]) -> Result<(), CompareError> {
        let rows = |batches: &[RecordBatch]| batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        self.found.before += rows(before);
        self.found.after += rows(after);
        let Aligned { before: shared_before, after: shared_after, gone, new } = align(before, after)?;
        for (names, into) in [(gone, &mut self.found.columns_gone), (new, &mut self.found.columns_new)] {
            into.extend(names.into_iter().filter(|name| !into.contains(name)).collect::<Vec<_>>());
        }
        let Some(schema) = shared_before.first().or(shared_after.first()).map(RecordBatch::schema) else {
            return Ok(());
        };
        let mut key = Vec::with_capacity(self.key.len());
        for name in &self.key {
            key.push(schema.index_of(name).map_err(|_| CompareError::Key(name.clone()))?);
        }
        let fields = key.iter().map(|&at| SortField::new(schema.field(at).data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let before = Side::new(before, &shared_before, &key, &converter)?;
        let after = Side::new(after, &shared_after, &key, &converter)?;
        self.merge(&before, &after)
    }

    /// What was found.
    pub fn finish(self) -> Comparison {
        self.found
    }

    fn merge(&mut self, before: &Side<'_>, after: &Side<'_>) -> Result<(), CompareError> {
        let mut pairs: Vec<(Place, Place)> = Vec::with_capacity(MAX_ROWS);
        let (mut a, mut b) = (0, 0);
        while a < before.order.len() || b < after.order.len() {
            let (end_a, end_b) = (before.run(a), after.run(b));
            let order = match (before.order.get(a), after.order.get(b)) {
                (Some(&x), Some(&y)) => before.key(x).cmp(&after.key(y)),
                (Some(_), None) => Ordering::Less,
                _ => Ordering::Greater,
            };
            match order {
                Ordering::Less => {
                    self.gone(before, &before.order[a..end_a])?;
                    a = end_a;
                }
                Ordering::Greater => {
                    self.new_rows(after, &after.order[b..end_b])?;
                    b = end_b;
                }
                Ordering::Equal => {
                    let (of_a, of_b) = (&before.order[a..end_a], &after.order[b..end_b]);
                    match (of_a, of_b) {
                        ([x], [y]) => pairs.push((*x, *y)),
                        _ => self.several(before, of_a, after, of_b, &mut pairs)?,
                    }
                    (a, b) = (end_a, end_b);
                }
            }
            if pairs.len() >= MAX_ROWS {
                self.compare_pairs(before, after, &pairs)?;
                pairs.clear();
            }
        }
        self.compare_pairs(before, after, &pairs)
    }

    /// Several rows of one key: those that are equal go together, then the others as far as they go.
    fn several(
        &mut self,
        before: &Side<'_>,
        of_a: &[Place],
        after: &Side<'_>,
        of_b: &[Place],
        pairs: &mut Vec<(Place, Place)>,
    ) -> Result<(), CompareError> {
        let (rows_a, rows_b) = (before.gather(of_a)?, after.gather(of_b)?);
        let fields: Vec<SortField> =
            rows_a.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let (mut left_a, mut left_b) = (of_a.to_vec(), of_b.to_vec());
        if RowConverter::supports_fields(&fields) {
            let converter = RowConverter::new(fields)?;
            let (rows_a, rows_b) =
                (converter.convert_columns(rows_a.columns())?, converter.convert_columns(rows_b.columns())?);
            let sorted = |rows: &Rows| {
                let mut order: Vec<usize> = (0..rows.num_rows()).collect();
                order.sort_by(|x, y| rows.row(*x).cmp(&rows.row(*y)));
                order
            };
            let (order_a, order_b) = (sorted(&rows_a), sorted(&rows_b));
            (left_a, left_b) = (Vec::new(), Vec::new());
            let (mut a, mut b) = (0, 0);
            while a < order_a.len() || b < order_b.len() {
                let order = match (order_a.get(a), order_b.get(b)) {
                    (Some(&x), Some(&y)) => rows_a.row(x).cmp(&rows_b.row(y)),
                    (Some(_), None) => Ordering::Less,
                    _ => Ordering::Greater,
                };
                if order == Ordering::Less {
                    left_a.push(of_a[order_a[a]]);
                } else if order == Ordering::Greater {
                    left_b.push(of_b[order_b[b]]);
                }
                a += usize::from(order.is_le());
                b += usize::from(order.is_ge());
            }
        }
        let together = left_a.len().min(left_b.len());
        pairs.extend(left_a.iter().copied().zip(left_b.iter().copied()));
        self.gone(before, &left_a[together..])?;
        self.new_rows(after, &left_b[together..])
    }

    fn gone(&mut self, side: &Side<'_>, places: &[Place]) -> Result<(), CompareError> {
        self.found.gone += places.len() as u64;
        for &place in places.iter().take(self.examples.saturating_sub(self.found.gone_rows.len())) {
            self.found.gone_rows.push(self.example(side, place)?);
        }
        Ok(())
    }

    fn new_rows(&mut self, side: &Side<'_>, places: &[Place]) -> Result<(), CompareError> {
        self.found.new += places.len() as u64;
        for &place in places.iter().take(self.examples.saturating_sub(self.found.new_rows.len())) {
            self.found.new_rows.push(self.example(side, place)?);
        }
        Ok(())
    }

    /// Key and content of a row.
    fn example(&self, side: &Side<'_>, (batch, row): Place) -> Result<Alone, CompareError> {
        let given = columns(&side.given[batch].slice(row, 1))?;
        let key = self.key_of(&side.shared[batch].slice(row, 1))?;
        Ok(Alone { key, values: given.into_iter().filter(|(_, value)| !value.is_null()).collect() })
    }

    fn key_of(&self, row: &RecordBatch) -> Result<Columns, ArrowError> {
        let at: Vec<usize> = self.key.iter().filter_map(|name| row.schema().index_of(name).ok()).collect();
        columns(&row.project(&at)?)
    }

    fn compare_pairs(
        &mut self,
        before: &Side<'_>,
        after: &Side<'_>,
        pairs: &[(Place, Place)],
    ) -> Result<(), CompareError> {
        if pairs.is_empty() {
            return Ok(());
        }
        let of_a: Vec<Place> = pairs.iter().map(|(place, _)| *place).collect();
        let of_b: Vec<Place> = pairs.iter().map(|(_, place)| *place).collect();
        let (rows_a, rows_b) = (before.gather(&of_a)?, after.gather(&of_b)?);
        let schema = rows_a.schema();
        let mut changed: Vec<Vec<usize>> = vec![Vec::new(); pairs.len()];
        for (at, field) in schema.fields().iter().enumerate().filter(|(_, field)| !self.key.contains(field.name())) {
            let differ = differences(rows_a.column(at), rows_b.column(at));
            if !differ.is_empty() {
                *self.found.columns.entry(field.name().clone()).or_default() += differ.len() as u64;
            }
            differ.into_iter().for_each(|row| changed[row].push(at));
        }
        for (row, changed) in changed.iter().enumerate().filter(|(_, changed)| !changed.is_empty()) {
            self.found.changed += 1;
            if self.found.changed_rows.len() < self.examples {
                let key = self.key_of(&rows_a.slice(row, 1))?;
                let old = columns(&rows_a.slice(row, 1).project(changed)?)?;
                let new = columns(&rows_b.slice(row, 1).project(changed)?)?;
                let both = old.into_iter().zip(new).map(|((name, old), (_, new))| (name, old, new));
                self.found.changed_rows.push(Changed { key, columns: both.collect() });
            }
        }
        Ok(())
    }
}

impl<'a> Side<'a> {
    fn new(
        given: &'a [RecordBatch],
        shared: &'a [RecordBatch],
        key: &[usize],
        converter: &RowConverter,
    ) -> Result<Self, CompareError> {
        let mut keys = Vec::with_capacity(shared.len());
        let mut order = Vec::with_capacity(shared.iter().map(RecordBatch::num_rows).sum());
        for (nth, batch) in shared.iter().enumerate() {
            let columns: Vec<ArrayRef> = key.iter().map(|&at| batch.column(at).clone()).collect();
            keys.push(converter.convert_columns(&columns)?);
            order.extend((0..batch.num_rows()).map(|row| (nth, row)));
        }
        let mut side = Self { given, shared, keys, order };
        let mut order = std::mem::take(&mut side.order);
        // Stable: rows of one key stay in the order of the files. Mostly sorted already, which this sort makes use of.
        order.sort_by(|x, y| side.key(*x).cmp(&side.key(*y)));
        side.order = order;
        Ok(side)
    }

    fn key(&self, (batch, row): Place) -> arrow::row::Row<'_> {
        self.keys[batch].row(row)
    }

    /// The end of the rows with the key of the one at `start`.
    fn run(&self, start: usize) -> usize {
        let Some(&first) = self.order.get(start) else { return start };
        let rest = &self.order[start + 1..];
        start + 1 + rest.iter().take_while(|place| self.key(**place) == self.key(first)).count()
    }

    fn gather(&self, places: &[Place]) -> Result<RecordBatch, ArrowError> {
        let batches: Vec<&RecordBatch> = self.shared.iter().collect();
        interleave_record_batch(&batches, places)
    }
}

/// The rows in which two columns of one type differ.
fn differences(a: &ArrayRef, b: &ArrayRef) -> Vec<usize> {
    let close =
        |a: f64, b: f64| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
    let equal: Box<dyn Fn(usize) -> bool + '_> = match a.data_type() {
        DataType::Float64 => {
            let (a, b) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
            Box::new(move |row| {
                a.is_null(row) == b.is_null(row) && (a.is_null(row) || close(a.value(row), b.value(row)))
            })
        }
        DataType::Float32 => {
            let (a, b) = (a.as_primitive::<Float32Type>(), b.as_primitive::<Float32Type>());
            Box::new(move |row| {
                let (x, y) = (f64::from(a.value(row)), f64::from(b.value(row)));
                a.is_null(row) == b.is_null(row) && (a.is_null(row) || close(x, y))
            })
        }
        _ => match make_comparator(a, b, SortOptions::default()) {
            Ok(compare) => Box::new(move |row| compare(row, row).is_eq()),
            // A type without an order still has equality.
            Err(_) => Box::new(move |row| a.slice(row, 1).to_data() == b.slice(row, 1).to_data()),
        },
    };
    (0..a.len()).filter(|row| !equal(*row)).collect()
}

/// The values of a batch of one row, in the order of its columns.
fn columns(row: &RecordBatch) -> Result<Columns, ArrowError> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(row)?;
    writer.finish()?;
    let mut values: serde_json::Map<String, Value> = serde_json::from_slice(&writer.into_inner()).unwrap_or_default();
    let name = |field: &arrow::datatypes::FieldRef| field.name().clone();
    Ok(row
        .schema()
        .fields()
        .iter()
        .map(name)
        .map(|name| (name.clone(), values.remove(&name).unwrap_or(Value::Null)))
        .collect())
}

#[cfg(test)]
mod tests;

//! What of a batch rules ask for, computed once for each different value.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Schema, UInt32Type};
use datafusion::common::exec_datafusion_err;
use datafusion::error::DataFusionError;

use super::matchers::{Computed, Origins, Texts};
use super::sets::Rules;

/// For each row one of some sets of rules.
pub(super) struct Found<'a> {
    /// The number of each row's set.
    of: Rc<Vec<u32>>,
    sets: Cow<'a, [Rules]>,
}

impl Found<'_> {
    /// Sixty-four rules of a row's set.
    pub fn word(&self, row: usize, nth: usize) -> u64 {
        self.sets[self.of[row] as usize].word(nth)
    }
}

/// The different values of a column.
#[derive(Clone)]
struct Distinct {
    /// The number of each row's value.
    of: Rc<Vec<u32>>,
    /// The values, in the only column.
    values: RecordBatch,
}

/// The rows of a batch.
pub(super) struct Rows<'a> {
    rows: &'a RecordBatch,
    /// Different values, by the number of the column.
    distinct: HashMap<usize, Distinct>,
}

impl<'a> Rows<'a> {
    /// Of a batch.
    pub fn new(rows: &'a RecordBatch) -> Self {
        Self { rows, distinct: HashMap::new() }
    }

    /// The different texts of a column.
    fn distinct(&mut self, column: usize) -> Result<Distinct, DataFusionError> {
        if let Some(known) = self.distinct.get(&column) {
            return Ok(known.clone());
        }
        let texts = texts(self.rows, column)?;
        let mut known: HashMap<Option<&str>, u32, ahash::RandomState> = HashMap::default();
        let mut first: Vec<u32> = Vec::new();
        let mut of = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let next = first.len() as u32;
            let number = *known.entry(text).or_insert(next);
            if number == next {
                first.push(row as u32);
            }
            of.push(number);
        }
        let values = take(self.rows.column(column), &UInt32Array::from(first), None)?;
        let schema = Schema::new(vec![self.rows.schema_ref().field(column).clone()]);
        let distinct = Distinct { of: Rc::new(of), values: RecordBatch::try_new(schema.into(), vec![values])? };
        self.distinct.insert(column, distinct.clone());
        Ok(distinct)
    }

    /// The rules whose regexes match, and those that ask for none.
    pub fn texts(&mut self, asked: &Texts) -> Result<Found<'static>, DataFusionError> {
        let distinct = self.distinct(asked.column)?;
        let values = asked.text.evaluate(&distinct.values)?;
        let values =
            values.as_string_opt::<i32>().ok_or_else(|| exec_datafusion_err!("{} is no text", values.data_type()))?;
        let sets = (0..values.len()).map(|nth| {
            let mut rules = asked.others.clone();
            if values.is_valid(nth) {
                asked.regexes.matches(values.value(nth)).iter().for_each(|regex| rules.insert(asked.rules[regex]));
            }
            rules
        });
        Ok(Found { of: distinct.of, sets: sets.collect() })
    }

    /// The rules by what is known of a text; without that those that do not ask.
    pub fn known<'s>(
        &mut self,
        column: usize,
        sets: &'s [Rules],
        of: impl Fn(&str) -> Option<u32>,
    ) -> Result<Found<'s>, DataFusionError> {
        let distinct = self.distinct(column)?;
        let numbers: Vec<u32> =
            texts(&distinct.values, 0)?.iter().map(|text| of(text?)).map(Option::unwrap_or_default).collect();
        let of = distinct.of.iter().map(|number| numbers[*number as usize]).collect();
        Ok(Found { of: Rc::new(of), sets: sets.into() })
    }

    /// The rules by a number; without one, or with another, those that do not ask.
    pub fn numbers<'s>(&mut self, asked: &'s Origins<u32>) -> Result<Found<'s>, DataFusionError> {
        let column = self.rows.column(asked.column);
        let Some(numbers) = column.as_primitive_opt::<UInt32Type>() else {
            return Err(exec_datafusion_err!("{} is no number of 32 bits", column.data_type()));
        };
        let of = numbers.iter().map(|number| asked.of.get(&number?).copied()).map(Option::unwrap_or_default).collect();
        Ok(Found { of: Rc::new(of), sets: asked.sets.all().into() })
    }
}

fn texts(rows: &RecordBatch, column: usize) -> Result<&StringArray, DataFusionError> {
    let values = rows.column(column);
    values.as_string_opt::<i32>().ok_or_else(|| exec_datafusion_err!("{} is no text", values.data_type()))
}

/// Conditions of rules, each computed for the whole batch when it is first asked for.
pub(super) struct Conditions<'a> {
    rows: Rows<'a>,
    /// By the number of the rule.
    of: &'a [Option<Computed>],
    known: Vec<Option<Mask>>,
}

/// For which values a condition holds.
struct Mask {
    /// The number of each row's value; without it each row is one.
    of: Option<Rc<Vec<u32>>>,
    holds: BooleanArray,
}

impl<'a> Conditions<'a> {
    /// The conditions of rules, by their numbers.
    pub fn new(rows: Rows<'a>, of: &'a [Option<Computed>]) -> Self {
        Self { rows, of, known: of.iter().map(|_| None).collect() }
    }

    /// Whether the condition of a rule, if it has one, holds for a row.
    ///
    /// # Errors
    /// If it cannot be computed for the batch.
    pub fn holds(&mut self, rule: usize, row: usize) -> Result<bool, DataFusionError> {
        let Some(condition) = &self.of[rule] else { return Ok(true) };
        let mask = match &self.known[rule] {
            Some(known) => known,
            None => {
                let mask = self.mask(condition)?;
                self.known[rule].insert(mask)
            }
        };
        Ok(mask.holds.value(mask.of.as_ref().map_or(row, |of| of[row] as usize)))
    }

    fn mask(&mut self, condition: &Computed) -> Result<Mask, DataFusionError> {
        if let [column] = *condition.columns
            && *self.rows.rows.column(column).data_type() == DataType::Utf8
        {
            let distinct = self.rows.distinct(column)?;
            return Ok(Mask { holds: condition.scalar.mask(&distinct.values)?, of: Some(distinct.of) });
        }
        let rows = self.rows.rows.project(&condition.columns)?;
        Ok(Mask { holds: condition.scalar.mask(&rows)?, of: None })
    }
}

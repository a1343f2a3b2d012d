//! Features compiled: what is computed for each row, what is kept for each group, what is computed from that.
//!
//! A feature is an SQL expression over aggregates. Each aggregate becomes a column `__aN` of the groups' values
//! (equal aggregates one), and its arguments and filters become columns of the rows (equal expressions one). Columns
//! that depend on the order of a group's rows are computed when the order is known; the parts of them that do not,
//! such as a text comparison, are computed before, like all others.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
#[cfg(doc)]
use engine::batch::{SEQ, TIME};
use engine::contract::{ExprFault, Scalar, Session};

use super::accumulate::{Finish, Form, Shape, State};
use super::compile::Compiler;
use super::hash::hashes;
use super::latest::Latest;
use super::lookup::Lookups;
use crate::cut::{MAX_KEY, cut};

/// The time since the group's previous row, in ms; null for the first.
pub(super) const GAP: &str = "gap_ms";
/// The gap before that.
pub(super) const PREV_GAP: &str = "prev_gap_ms";
/// The row's number in its group, from 1.
pub(super) const NTH: &str = "nth";
/// What columns with the latest values of expressions are called; their number follows.
const LATEST: &str = "__p";
/// Start of the window.
pub(super) const WINDOW_START: &str = "window_start";
/// Whether the row is the group's last.
pub(super) const FINAL: &str = "final";

/// Features, compiled.
#[derive(Debug)]
pub(super) struct Program {
    /// Indices of the input's columns that are needed: the group's, [`TIME`], [`SEQ`], then others.
    pub(super) needed: Vec<usize>,
    /// How many of them, from the first, are the group's.
    pub(super) by: usize,
    /// Which of them is [`TIME`].
    pub(super) time: usize,
    /// Which of them is [`SEQ`].
    pub(super) seq: usize,
    /// Computed for the distinct values of a text column as rows come.
    pub(super) lookups: Vec<Lookups>,
    /// The needed columns, then the results of the lookups.
    pub(super) early_schema: SchemaRef,
    /// Computed for each row as it comes, over `early_schema`.
    pub(super) early: Vec<Column>,
    /// Of which expressions the group's latest value is held.
    pub(super) latest: Vec<Before>,
    /// Computed over [`ordered_fields`] and `operands`.
    pub(super) ordered: Vec<Column>,
    /// What else the ordered columns are computed from.
    pub(super) operands: Vec<Operand>,
    pub(super) operand_schema: SchemaRef,
    /// What is kept for each group.
    pub(super) states: Vec<Kept>,
    /// The columns of a group's aggregates.
    pub(super) slots: Vec<Slot>,
    /// Group columns and slots.
    pub(super) slot_schema: SchemaRef,
    /// Features that can be computed at once, then those that need these, and so on; each with its index.
    pub(super) levels: Vec<Vec<(usize, Scalar)>>,
    /// [`WINDOW_START`], the group's columns, the features, [`FINAL`].
    pub(super) relation: SchemaRef,
    /// [`TIME`], [`SEQ`], then the columns of `relation`.
    pub(super) stream: SchemaRef,
}

/// A column of the rows.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) scalar: Scalar,
    pub(super) form: Form,
}

/// A column that has, for each row, what an early column said in the latest row of the group before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Before {
    pub(super) early: usize,
    /// That of the early column.
    pub(super) form: Form,
    /// That of the expression.
    pub(super) data_type: DataType,
}

/// A column that ordered ones are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Early(usize),
    /// One of the program's `latest`.
    Latest(usize),
}

/// Where a column of the rows is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Early(usize),
    Ordered(usize),
}

/// A state with what it takes in.
#[derive(Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) shape: Shape,
    pub(super) form: Form,
    pub(super) argument: Option<Place>,
    pub(super) filter: Option<Place>,
}

/// A column of the groups: a state, and how it becomes a value.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: usize,
    pub(super) finish: Finish,
    pub(super) data_type: DataType,
}

impl Kept {
    /// Its empty state.
    pub(super) fn state(&self, distinct_limit: usize) -> State {
        State::new(self.shape, self.form, distinct_limit)
    }
}

impl Column {
    /// The same; null, and counted in `failed`, for rows for which there is none.
    fn evaluate_or_null(&self, rows: &RecordBatch, failed: &mut usize) -> Result<ArrayRef, DataFusionError> {
        if let Ok(values) = self.evaluate(rows) {
            return Ok(values);
        }
        let one = |at| self.evaluate(&rows.slice(at, 1));
        let values: Vec<Option<ArrayRef>> = (0..rows.num_rows()).map(|at| one(at).ok()).collect();
        *failed += values.iter().filter(|value| value.is_none()).count();
        let values: Vec<ArrayRef> =
            values.into_iter().map(|value| value.unwrap_or_else(|| new_null_array(&self.data_type(), 1))).collect();
        Ok(concat(&values.iter().map(|value| value.as_ref()).collect::<Vec<_>>())?)
    }

    /// The type of what [`Column::evaluate`] gives.
    fn data_type(&self) -> DataType {
        match self.form {
            Form::Raw => self.scalar.data_type.clone(),
            Form::Hash | Form::UInt => DataType::UInt64,
            Form::Int => DataType::Int64,
            Form::Real => DataType::Float64,
            Form::Truth => DataType::Boolean,
            Form::Text => DataType::Utf8,
        }
    }

    /// The value for each row, in the form that the states take.
    pub(super) fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        let values = self.scalar.evaluate(rows)?;
        let target = match self.form {
            Form::Raw => return Ok(values),
            Form::Hash => return Ok(Arc::new(hashes(&values)?)),
            _ => self.data_type(),
        };
        let values = if *values.data_type() == target { values } else { cast(&values, &target)? };
        // A group keeps it.
        Ok(cut(&values, MAX_KEY).map_or(values, |(shorter, _)| shorter))
    }
}

impl Program {
    /// Compiles features, name and SQL, over the rows of `input`, grouped by the columns `by`.
    ///
    /// # Errors
    /// What is wrong, with the index of the feature.
    pub(super) fn compile(
        session: &Session,
        input: &Schema,
        by: &[usize],
        features: &[(&str, &str)],
    ) -> Result<Self, Vec<(usize, ExprFault)>> {
        let mut compiler = Compiler::new(session, input, by);
        let mut faults = Vec::new();
        for (index, (name, sql)) in features.iter().enumerate() {
            if let Err(fault) = compiler.feature(name, sql) {
                faults.push((index, fault));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        compiler.finish().map_err(|fault| vec![(0, fault)])
    }

    /// The early columns of rows that have the needed columns.
    pub(super) fn early(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, DataFusionError> {
        let mut columns = rows.columns().to_vec();
        for lookups in &self.lookups {
            columns.extend(lookups.evaluate(rows.column(lookups.column))?);
        }
        let rows = RecordBatch::try_new(self.early_schema.clone(), columns)?;
        self.early.iter().map(|column| column.evaluate(&rows)).collect()
    }

    /// The latest values before each row, from the early columns of the rows in their order; then `held` has those after them.
    pub(super) fn latest(
        &self,
        held: &mut [Latest],
        groups: &[u32],
        early: &[ArrayRef],
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let step = |(before, held): (&Before, &mut Latest)| {
            let values = held.step(groups, &early[before.early]);
            if *values.data_type() == before.data_type { Ok(values) } else { Ok(cast(&values, &before.data_type)?) }
        };
        self.latest.iter().zip(held).map(step).collect()
    }

    /// The ordered columns, from the three columns of the order, the latest values and the early columns of the same rows; and
    /// for how many rows one of them has no value, such as a quotient by a gap of 0: it is null there, and does not count.
    pub(super) fn ordered(
        &self,
        order: [ArrayRef; 3],
        latest: &[ArrayRef],
        early: &[ArrayRef],
    ) -> Result<(Vec<ArrayRef>, usize), DataFusionError> {
        let operand = |operand: &Operand| match operand {
            Operand::Early(index) => early[*index].clone(),
            Operand::Latest(index) => latest[*index].clone(),
        };
        let columns: Vec<ArrayRef> = order.into_iter().chain(self.operands.iter().map(operand)).collect();
        let rows = RecordBatch::try_new(self.operand_schema.clone(), columns)?;
        let mut failed = 0;
        let columns = self.ordered.iter().map(|column| column.evaluate_or_null(&rows, &mut failed));
        Ok((columns.collect::<Result<_, _>>()?, failed))
    }

    /// The aggregates of `groups`.
    pub(super) fn slots(&self, states: &[State], groups: &[u32]) -> Result<Vec<ArrayRef>, DataFusionError> {
        let finish = |slot: &Slot| states[slot.state].finish(slot.finish, groups, &slot.data_type);
        Ok(self.slots.iter().map(finish).collect::<Result<_, _>>()?)
    }

    /// The features' values from the window's start, the groups' columns and the slots.
    pub(super) fn features(&self, keys: &[ArrayRef], slots: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, DataFusionError> {
        let rows = keys.first().map_or(0, |k| k.len());
        let mut fields = self.slot_schema.fields().to_vec();
        let mut columns: Vec<ArrayRef> = keys.iter().cloned().chain(slots).collect();
        let mut values: Vec<(usize, ArrayRef)> = Vec::new();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        for level in &self.levels {
            let schema = SchemaRef::new(Schema::new(fields.clone()));
            let batch = RecordBatch::try_new_with_options(schema, columns.clone(), &options)?;
            for (index, scalar) in level {
                let value = evaluate_or_null(scalar, &batch)?;
                fields.push(self.relation.fields()[index + keys.len()].clone());
                columns.push(value.clone());
                values.push((*index, value));
            }
        }
        values.sort_by_key(|(index, _)| *index);
        Ok(values.into_iter().map(|(_, value)| value).collect())
    }
}

/// A feature's values; null for a group for which it has none, such as a quotient of integers whose divisor is 0.
fn evaluate_or_null(scalar: &Scalar, groups: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
    if let Ok(values) = scalar.evaluate(groups) {
        return Ok(values);
    }
    let one = |at| scalar.evaluate(&groups.slice(at, 1)).unwrap_or_else(|_| new_null_array(&scalar.data_type, 1));
    let values: Vec<ArrayRef> = (0..groups.num_rows()).map(one).collect();
    Ok(concat(&values.iter().map(|value| value.as_ref()).collect::<Vec<_>>())?)
}

/// The name of the column with the latest values of `Program::latest[number]`.
pub(super) fn latest_name(number: usize) -> String {
    format!("{LATEST}{number}")
}

/// Which of `Program::latest` a column is of.
pub(super) fn latest_number(name: &str) -> Option<usize> {
    name.strip_prefix(LATEST)?.parse().ok()
}

/// Whether a column is known only when the order of the rows is.
pub(super) fn is_of_order(name: &str) -> bool {
    [GAP, PREV_GAP, NTH].contains(&name) || latest_number(name).is_some()
}

/// The fields of the order within a group.
pub(super) fn ordered_fields() -> [Field; 3] {
    [
        Field::new(GAP, DataType::Float64, true),
        Field::new(PREV_GAP, DataType::Float64, true),
        Field::new(NTH, DataType::UInt64, false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::functions::session;
    use engine::batch::stream_schema;

    fn compile(features: &[(&str, &str)]) -> Result<Program, Vec<(usize, ExprFault)>> {
        let text = |name| Field::new(name, DataType::Utf8, true);
        let schema =
            stream_schema([text("host"), text("path"), text("unused"), Field::new("n", DataType::Int64, true)]);
        Program::compile(&session(), &schema, &[2], features)
    }

    #[test]
    fn what_features_share_is_computed_once() {
        let program = compile(&[
            ("hits", "count(*)"),
            ("share", "1.0 * count(*) filter (where regexp_like(path, 'x') and n > 1) / hits"),
            ("other", "count(*) filter (where regexp_like(path, 'x') and n > 2) + count(*)"),
            ("sd", "stddev_pop(n) + var_pop(n)"),
            ("paths", "count(distinct path) + entropy(path)"),
            ("gaps", "sum(gap_ms) filter (where nth > 1 and path = '/')"),
        ])
        .expect("valid");
        assert_eq!(program.states.len(), 7, "{:?}", program.states);
        assert_eq!(program.lookups.iter().map(|l| l.scalars.len()).sum::<usize>(), 1, "one regular expression");
        assert_eq!(program.ordered.len(), 2);
        assert_eq!(program.operands.len(), 1, "the comparison of the path");
        assert_eq!(program.needed, [2, 0, 1, 5, 3], "without the column that nothing uses");
        assert_eq!(program.levels.iter().map(Vec::len).collect::<Vec<_>>(), [5, 1]);
        let types: Vec<&DataType> = program.relation.fields().iter().skip(2).map(|f| f.data_type()).collect();
        use DataType::{Boolean, Float64, Int64};
        assert_eq!(types, [&Int64, &Float64, &Int64, &Float64, &Float64, &Float64, &Boolean]);
    }

    #[test]
    fn every_fault_is_reported_with_its_feature() {
        let faults = compile(&[("a", "path"), ("b", "count(*)"), ("c", "sum(count(*))"), ("d", "max(b)")]);
        let places: Vec<usize> = faults.expect_err("faults").iter().map(|(index, _)| *index).collect();
        assert_eq!(places, [0, 2, 3]);
    }

    #[test]
    fn what_was_said_before_is_held_once_for_each_expression() {
        let program = compile(&[
            ("steps", "count(*) filter (where abs(n - prev(n)) = 1)"),
            ("same", "count(*) filter (where n = prev(n) and regexp_like(path, 'x'))"),
            ("wait", "avg(since_ms(regexp_like(path, 'x'))) filter (where path = '/')"),
            ("spread", "stddev_pop(since_ms(regexp_like(path, 'x'))) filter (where prev(path = '/'))"),
        ])
        .expect("valid");
        let types: Vec<&DataType> = program.latest.iter().map(|before| &before.data_type).collect();
        assert_eq!(types, [&DataType::Int64, &DataType::Int64, &DataType::Boolean]);
        assert_eq!(program.lookups.iter().map(|l| l.scalars.len()).sum::<usize>(), 1, "one regular expression");
        let early = program.operands.iter().filter(|operand| matches!(operand, Operand::Early(_))).count();
        assert_eq!(early, 3, "n, whether the path matches, and the time");
    }

    #[test]
    fn what_was_said_before_has_its_place() {
        for (sql, part) in [
            ("prev(n)", "is a value of a row"),
            ("prev(hits)", "is a value of a row"),
            ("sum(prev(gap_ms))", "depends on the order"),
            ("sum(prev(prev(n)))", "depends on the order"),
            ("avg(since_ms(n))", "true or false"),
            ("max(prev(nn))", "no column"),
            ("max(since_ms(hits > 1))", "value of the group"),
        ] {
            let faults = compile(&[("hits", "count(*)"), ("a", sql)]).expect_err("a fault");
            assert!(faults[0].1.message.contains(part), "{sql}: {:?}", faults[0].1);
        }
    }
}

//! Features compiled: what is computed for each row, what is kept for each group, what is computed from that.
//!
//! A feature is an SQL expression over aggregates. Each aggregate becomes a column `__aN` of the groups' values
//! (equal aggregates one), and its arguments and filters become columns of the rows (equal expressions one). Columns
//! that depend on the order of a group's rows are computed when the order is known; the parts of them that do not,
//! such as a text comparison, are computed before, like all others.

use std::collections::HashSet;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column as Name;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use engine::batch::{SEQ, TIME, stream_schema, time_type};
use engine::expr::{ExprFault, Scalar, Session};

use super::accumulate::{Finish, Form, Shape, State};
use super::calls;
use super::hash::hashes;

/// The time since the group's previous row, in ms; null for the first.
pub(super) const GAP: &str = "gap_ms";
/// The gap before that.
pub(super) const PREV_GAP: &str = "prev_gap_ms";
/// The row's number in its group, from 1.
pub(super) const NTH: &str = "nth";
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
    /// Computed for each row as it comes, over the needed columns.
    pub(super) early: Vec<Column>,
    /// Computed over [`ordered_fields`] and the early columns `operands`.
    pub(super) ordered: Vec<Column>,
    /// The early columns that the ordered ones are computed from.
    pub(super) operands: Vec<usize>,
    operand_schema: SchemaRef,
    /// What is kept for each group.
    pub(super) states: Vec<Kept>,
    /// The columns of a group's aggregates.
    slots: Vec<Slot>,
    /// Group columns and slots.
    slot_schema: SchemaRef,
    /// Features that can be computed at once, then those that need these, and so on; each with its index.
    levels: Vec<Vec<(usize, Scalar)>>,
    /// [`WINDOW_START`], the group's columns, the features, [`FINAL`].
    pub(super) relation: SchemaRef,
    /// [`TIME`], [`SEQ`], then the columns of `relation`.
    pub(super) stream: SchemaRef,
}

/// A column of the rows.
#[derive(Debug)]
pub(super) struct Column {
    scalar: Scalar,
    form: Form,
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
    shape: Shape,
    form: Form,
    pub(super) argument: Option<Place>,
    pub(super) filter: Option<Place>,
}

#[derive(Debug)]
struct Slot {
    state: usize,
    finish: Finish,
    data_type: DataType,
}

impl Kept {
    /// Its empty state.
    pub(super) fn state(&self, distinct_limit: usize) -> State {
        State::new(self.shape, self.form, distinct_limit)
    }
}

impl Column {
    /// The value for each row, in the form that the states take.
    pub(super) fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        let values = self.scalar.evaluate(rows)?;
        let target = match self.form {
            Form::Raw => return Ok(values),
            Form::Hash => return Ok(std::sync::Arc::new(hashes(&values)?)),
            Form::Int => DataType::Int64,
            Form::UInt => DataType::UInt64,
            Form::Real => DataType::Float64,
            Form::Truth => DataType::Boolean,
            Form::Text => DataType::Utf8,
        };
        Ok(if *values.data_type() == target { values } else { cast(&values, &target)? })
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
        self.early.iter().map(|column| column.evaluate(rows)).collect()
    }

    /// The ordered columns, from the three columns of the order and the early columns of the same rows.
    pub(super) fn ordered(&self, order: [ArrayRef; 3], early: &[ArrayRef]) -> Result<Vec<ArrayRef>, DataFusionError> {
        let columns: Vec<ArrayRef> =
            order.into_iter().chain(self.operands.iter().map(|index| early[*index].clone())).collect();
        let rows = RecordBatch::try_new(self.operand_schema.clone(), columns)?;
        self.ordered.iter().map(|column| column.evaluate(&rows)).collect()
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
                let value = scalar.evaluate(&batch)?;
                fields.push(self.relation.fields()[index + keys.len()].clone());
                columns.push(value.clone());
                values.push((*index, value));
            }
        }
        values.sort_by_key(|(index, _)| *index);
        Ok(values.into_iter().map(|(_, value)| value).collect())
    }
}

/// The fields of the order within a group.
pub(super) fn ordered_fields() -> [Field; 3] {
    [
        Field::new(GAP, DataType::Float64, true),
        Field::new(PREV_GAP, DataType::Float64, true),
        Field::new(NTH, DataType::UInt64, false),
    ]
}

struct Compiler<'a> {
    session: &'a Session,
    input: &'a Schema,
    by: &'a [usize],
    /// The input's columns and the ordered ones: what an aggregate's argument sees.
    row_schema: Schema,
    early: Vec<(Expr, Form)>,
    ordered: Vec<(Expr, Form)>,
    operands: Vec<usize>,
    operand_fields: Vec<Field>,
    states: Vec<Kept>,
    calls: Vec<(Expr, Slot)>,
    /// [`WINDOW_START`] and the group's columns.
    keys: Vec<Field>,
    slot_fields: Vec<Field>,
    features: Vec<Feature>,
}

struct Feature {
    field: Field,
    expr: Expr,
    level: usize,
}

impl<'a> Compiler<'a> {
    fn new(session: &'a Session, input: &'a Schema, by: &'a [usize]) -> Self {
        let own = input.fields().iter().map(|f| f.as_ref().clone());
        let row_schema = Schema::new(own.chain(ordered_fields()).collect::<Vec<_>>());
        let start = Field::new(WINDOW_START, time_type(), false);
        let keys = std::iter::once(start).chain(by.iter().map(|index| input.field(*index).clone())).collect();
        Self {
            session,
            input,
            by,
            row_schema,
            early: Vec::new(),
            ordered: Vec::new(),
            operands: Vec::new(),
            operand_fields: ordered_fields().to_vec(),
            states: Vec::new(),
            calls: Vec::new(),
            keys,
            slot_fields: Vec::new(),
            features: Vec::new(),
        }
    }

    fn feature(&mut self, name: &str, sql: &str) -> Result<(), ExprFault> {
        let taken = |other: &str| ExprFault::new(format!("the name `{name}` is taken by {other}"));
        if [TIME, SEQ, FINAL].contains(&name) || name.starts_with("__") {
            return Err(taken("the aggregate itself"));
        }
        if self.keys.iter().any(|f| f.name() == name) {
            return Err(taken("a column of the group"));
        }
        if self.features.iter().any(|f| f.field.name() == name) {
            return Err(taken("another feature"));
        }
        // Names are resolved over everything that the expression can mean anywhere.
        let mut visible = self.row_schema.fields().iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>();
        let known: HashSet<String> = visible.iter().map(|f| f.name().clone()).collect();
        let further = self.keys.iter().chain(self.features.iter().map(|f| &f.field));
        visible.extend(further.filter(|f| !known.contains(f.name())).cloned());
        let parsed = self.session.parse(sql, &Schema::new(visible))?;
        let expr = self.extract(parsed)?;
        let level = self.check_outside(&expr)?;
        let outside = self.keys.iter().chain(&self.slot_fields).chain(self.features.iter().map(|f| &f.field));
        let scalar = self.session.compile(expr.clone(), &Schema::new(outside.cloned().collect::<Vec<_>>()))?;
        let field = Field::new(name, scalar.data_type, true);
        self.features.push(Feature { field, expr, level });
        Ok(())
    }

    /// Replaces each aggregate by the column that holds its value.
    fn extract(&mut self, expr: Expr) -> Result<Expr, ExprFault> {
        let mut fault = None;
        let extracted = expr.transform_down(|part| {
            if !matches!(part, Expr::AggregateFunction(_)) || fault.is_some() {
                return Ok(Transformed::no(part));
            }
            match self.slot(&part) {
                Ok(slot) => {
                    let column = Expr::Column(Name::from_name(slot_name(slot)));
                    Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
                }
                Err(found) => {
                    fault = Some(found);
                    Ok(Transformed::new(part, false, TreeNodeRecursion::Stop))
                }
            }
        });
        match (fault, extracted) {
            (Some(fault), _) => Err(fault),
            (None, Ok(extracted)) => Ok(extracted.data),
            (None, Err(error)) => Err(engine::expr::fault(&error)),
        }
    }

    fn slot(&mut self, part: &Expr) -> Result<usize, ExprFault> {
        if let Some(found) = self.calls.iter().position(|(call, _)| call == part) {
            return Ok(found);
        }
        let Expr::AggregateFunction(function) = part else { return Err(ExprFault::new("not an aggregate")) };
        let call = calls::resolve(function, |argument| {
            Ok(self.session.compile(self.inside(argument)?, &self.row_schema)?.data_type)
        })?;
        let mut filter = match &function.params.filter {
            Some(filter) => {
                let filter = self.inside(filter)?;
                self.session.compile(filter.clone(), &self.row_schema)?.truth()?;
                Some(filter)
            }
            None => None,
        };
        let argument = match (call.form, function.params.args.first()) {
            // Of a counted value only its presence matters.
            (Some(Form::Raw), Some(counted)) => {
                let present = counted.clone().is_not_null();
                filter = Some(match filter {
                    Some(filter) => filter.and(present),
                    None => present,
                });
                None
            }
            (Some(form), Some(argument)) => Some(self.place(argument, form)?),
            _ => None,
        };
        let filter = filter.map(|filter| self.place(&filter, Form::Truth)).transpose()?;
        let kept = Kept { shape: call.shape, form: call.form.unwrap_or(Form::Raw), argument, filter };
        let state = self.states.iter().position(|other| *other == kept).unwrap_or_else(|| {
            self.states.push(kept);
            self.states.len() - 1
        });
        self.slot_fields.push(Field::new(slot_name(self.calls.len()), call.data_type.clone(), call.nullable));
        self.calls.push((part.clone(), Slot { state, finish: call.finish, data_type: call.data_type }));
        Ok(self.calls.len() - 1)
    }

    /// Refuses what an aggregate's argument or filter cannot refer to.
    fn inside(&self, expr: &Expr) -> Result<Expr, ExprFault> {
        for name in columns(expr) {
            if self.row_schema.index_of(&name).is_err() {
                let message = format!(
                    "`{name}` is a value of the group; inside an aggregate only columns of the rows can be used"
                );
                return Err(ExprFault { part: Some(name), ..ExprFault::new(message) });
            }
        }
        Ok(expr.clone())
    }

    /// The column of the rows that holds `expr`.
    fn place(&mut self, expr: &Expr, form: Form) -> Result<Place, ExprFault> {
        if !depends_on_order(expr) {
            return Ok(Place::Early(add(&mut self.early, expr, form)));
        }
        let hoisted = self.hoist(expr.clone())?;
        Ok(Place::Ordered(add(&mut self.ordered, &hoisted, form)))
    }

    /// Replaces the parts that do not depend on the order by columns that are computed early. A branch of a CASE is
    /// left whole, because it may be valid only where it is chosen; only the columns that it names are replaced.
    fn hoist(&mut self, expr: Expr) -> Result<Expr, ExprFault> {
        let mut fault = None;
        let hoisted = expr.transform_down(|part| {
            let whole = matches!(part, Expr::BinaryExpr(_) | Expr::Not(_) | Expr::IsNull(_) | Expr::IsNotNull(_))
                || matches!(part, Expr::Like(_) | Expr::InList(_));
            let is_own = matches!(&part, Expr::Column(c) if ordered_fields().iter().any(|f| *f.name() == c.name));
            if is_own || fault.is_some() {
                return Ok(Transformed::no(part));
            }
            let safe = whole && !depends_on_order(&part) && !columns(&part).is_empty() && !can_fail(&part);
            if !safe && !matches!(part, Expr::Column(_)) {
                return Ok(Transformed::no(part));
            }
            match self.operand(&part) {
                Ok(name) => Ok(Transformed::new(Expr::Column(Name::from_name(name)), true, TreeNodeRecursion::Jump)),
                Err(found) => {
                    fault = Some(found);
                    Ok(Transformed::no(part))
                }
            }
        });
        match (fault, hoisted) {
            (Some(fault), _) => Err(fault),
            (None, Ok(hoisted)) => Ok(hoisted.data),
            (None, Err(error)) => Err(engine::expr::fault(&error)),
        }
    }

    fn operand(&mut self, part: &Expr) -> Result<String, ExprFault> {
        let early = add(&mut self.early, part, Form::Raw);
        let name = format!("__r{early}");
        if !self.operands.contains(&early) {
            let ty = self.session.compile(part.clone(), &self.row_schema)?;
            self.operands.push(early);
            self.operand_fields.push(Field::new(&name, ty.data_type, true));
        }
        Ok(name)
    }

    /// Refuses a column of the rows outside an aggregate. The level of the expression is one above those it uses.
    fn check_outside(&self, expr: &Expr) -> Result<usize, ExprFault> {
        let mut level = 0;
        for name in columns(expr) {
            if let Some(feature) = self.features.iter().find(|f| *f.field.name() == name) {
                level = level.max(feature.level + 1);
            } else if !self.keys.iter().chain(&self.slot_fields).any(|f| *f.name() == name) {
                let message = format!("`{name}` varies within a group: put it into an aggregate, such as max({name})");
                return Err(ExprFault { part: Some(name), ..ExprFault::new(message) });
            }
        }
        Ok(level)
    }

    fn finish(self) -> Result<Program, ExprFault> {
        let mut needed: Vec<usize> = self.by.to_vec();
        let mut need = |name: &str| {
            if let Ok(index) = self.input.index_of(name)
                && !needed.contains(&index)
            {
                needed.push(index);
            }
        };
        need(TIME);
        need(SEQ);
        self.early.iter().flat_map(|(expr, _)| columns(expr)).for_each(|name| need(&name));
        let projected = Schema::new(needed.iter().map(|index| self.input.field(*index).clone()).collect::<Vec<_>>());
        let operand_schema = Schema::new(self.operand_fields);
        let compile = |columns: Vec<(Expr, Form)>, schema: &Schema| {
            let column = |(expr, form)| Ok(Column { scalar: self.session.compile(expr, schema)?, form });
            columns.into_iter().map(column).collect::<Result<Vec<_>, ExprFault>>()
        };
        let early = compile(self.early, &projected)?;
        let ordered = compile(self.ordered, &operand_schema)?;
        let slot_schema = Schema::new(self.keys.iter().chain(&self.slot_fields).cloned().collect::<Vec<_>>());
        let mut visible: Vec<Field> = slot_schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut levels = Vec::new();
        for level in 0..=self.features.iter().map(|f| f.level).max().unwrap_or(0) {
            let schema = Schema::new(visible.clone());
            let mut scalars = Vec::new();
            for (index, feature) in self.features.iter().enumerate().filter(|(_, f)| f.level == level) {
                scalars.push((index, self.session.compile(feature.expr.clone(), &schema)?));
                visible.push(feature.field.clone());
            }
            levels.push(scalars);
        }
        let last = Field::new(FINAL, DataType::Boolean, false);
        let fields: Vec<Field> =
            self.keys.into_iter().chain(self.features.into_iter().map(|f| f.field)).chain([last]).collect();
        let place =
            |name: &str| projected.index_of(name).map_err(|_| ExprFault::new(format!("the input has no `{name}`")));
        Ok(Program {
            by: self.by.len(),
            time: place(TIME)?,
            seq: place(SEQ)?,
            needed,
            early,
            ordered,
            operands: self.operands,
            operand_schema: operand_schema.into(),
            states: self.states,
            slots: self.calls.into_iter().map(|(_, slot)| slot).collect(),
            slot_schema: slot_schema.into(),
            levels,
            stream: stream_schema(fields.iter().cloned()),
            relation: Schema::new(fields).into(),
        })
    }
}

fn slot_name(slot: usize) -> String {
    format!("__a{slot}")
}

fn add(columns: &mut Vec<(Expr, Form)>, expr: &Expr, form: Form) -> usize {
    columns.iter().position(|(other, f)| other == expr && *f == form).unwrap_or_else(|| {
        columns.push((expr.clone(), form));
        columns.len() - 1
    })
}

/// The names of the columns that an expression uses, in order.
fn columns(expr: &Expr) -> Vec<String> {
    let mut names: Vec<String> = expr.column_refs().into_iter().map(|c| c.name.clone()).collect();
    names.sort_unstable();
    names
}

fn depends_on_order(expr: &Expr) -> bool {
    columns(expr).iter().any(|name| ordered_fields().iter().any(|f| f.name() == name))
}

/// Whether an expression holds something that can fail for a value, so that it must not be computed for rows that a
/// condition beside it excludes.
fn can_fail(expr: &Expr) -> bool {
    use datafusion::logical_expr::Operator::{Divide, Modulo};
    expr.exists(|part| {
        Ok(match part {
            Expr::Cast(_) | Expr::ScalarFunction(_) => true,
            Expr::BinaryExpr(binary) => matches!(binary.op, Divide | Modulo),
            _ => false,
        })
    })
    .unwrap_or(true)
}

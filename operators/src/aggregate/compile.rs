//! The compiler of features: takes aggregates out of expressions, and finds what they share.

use std::collections::HashSet;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Column as Name;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;
use engine::batch::{SEQ, TIME, time_type};
use engine::contract::{ExprFault, Session};

use super::accumulate::{Form, Shape};
use super::calls;
use super::latest::Latest;
use super::program::{
    Before, FINAL, Kept, Operand, Place, Slot, WINDOW_START, is_of_order, latest_number, ordered_fields,
};
use super::shipped::Cost;

mod analysis;
mod finish;
mod latest;

use analysis::{can_fail, columns, depends_on_order, is_costly};

/// What is known of the features so far.
pub(super) struct Compiler<'a> {
    session: &'a Session,
    input: &'a Schema,
    by: &'a [usize],
    /// The input's columns and the ordered ones: what an aggregate's argument sees.
    row_schema: Schema,
    /// Expressions over one text column, by the name of the column of their results.
    lookups: Vec<(Expr, String, Field)>,
    early: Vec<(Expr, Form)>,
    latest: Vec<Before>,
    ordered: Vec<(Expr, Form)>,
    operands: Vec<Operand>,
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
    /// No features yet, over the rows of `input`, grouped by the columns `by`.
    pub(super) fn new(session: &'a Session, input: &'a Schema, by: &'a [usize]) -> Self {
        let own = input.fields().iter().map(|f| f.as_ref().clone());
        let row_schema = Schema::new(own.chain(ordered_fields()).collect::<Vec<_>>());
        let start = Field::new(WINDOW_START, time_type(), false);
        let keys = std::iter::once(start).chain(by.iter().map(|index| input.field(*index).clone())).collect();
        Self {
            session,
            input,
            by,
            row_schema,
            lookups: Vec::new(),
            early: Vec::new(),
            latest: Vec::new(),
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

    /// Takes in a feature, which later ones can use by name.
    ///
    /// # Errors
    /// If it is not a valid expression over aggregates, or its name is taken.
    pub(super) fn feature(&mut self, name: &str, sql: &str) -> Result<(), ExprFault> {
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

    /// What each group keeps for the features so far.
    pub(super) fn cost(&self) -> Cost {
        let states = self.states.iter().map(|kept| kept.state(1).bytes());
        let latest = self.latest.iter().map(|before| Latest::new(before.form).bytes());
        let is_set = |kept: &&Kept| matches!(kept.shape, Shape::Distinct | Shape::Tally | Shape::Transitions);
        Cost { bytes: states.chain(latest).sum(), sets: self.states.iter().filter(is_set).count() }
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
        let function = self.with_latest(function)?;
        let call = calls::resolve(&function, |argument| {
            Ok(self.session.compile(argument.clone(), &self.row_schema)?.data_type)
        })?;
        let mut filter = match &function.params.filter {
            Some(filter) => {
                let filter = *filter.clone();
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
    fn inside(&self, expr: &Expr) -> Result<(), ExprFault> {
        for name in columns(expr) {
            if self.row_schema.index_of(&name).is_err() {
                let message = format!(
                    "`{name}` is a value of the group; inside an aggregate only columns of the rows can be used"
                );
                return Err(ExprFault { part: Some(name), ..ExprFault::new(message) });
            }
        }
        Ok(())
    }

    /// The column of the rows that holds `expr`.
    fn place(&mut self, expr: &Expr, form: Form) -> Result<Place, ExprFault> {
        if !depends_on_order(expr) {
            return Ok(Place::Early(self.early(expr, form)?));
        }
        let hoisted = self.hoist(expr.clone())?;
        Ok(Place::Ordered(add(&mut self.ordered, &hoisted, form)))
    }

    /// The early column that holds `expr`. Its parts that take time and depend on one text column alone, such as a
    /// regular expression over the path, are computed once for each distinct value.
    fn early(&mut self, expr: &Expr, form: Form) -> Result<usize, ExprFault> {
        let mut fault = None;
        let rewritten = expr.clone().transform_down(|part| {
            if fault.is_some() || !is_costly(&part) || can_fail(&part) {
                return Ok(Transformed::no(part));
            }
            let names = columns(&part);
            let [name] = names.as_slice() else { return Ok(Transformed::no(part)) };
            let Ok(field) = self.input.field_with_name(name) else { return Ok(Transformed::no(part)) };
            if *field.data_type() != DataType::Utf8 {
                return Ok(Transformed::no(part));
            }
            if let Some((_, _, found)) = self.lookups.iter().find(|(other, ..)| *other == part) {
                let column = Expr::Column(Name::from_name(found.name()));
                return Ok(Transformed::new(column, true, TreeNodeRecursion::Jump));
            }
            match self.session.compile(part.clone(), &Schema::new(vec![field.clone()])) {
                Ok(scalar) => {
                    let result = Field::new(format!("__t{}", self.lookups.len()), scalar.data_type, true);
                    let column = Expr::Column(Name::from_name(result.name()));
                    self.lookups.push((part, name.clone(), result));
                    Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
                }
                Err(found) => {
                    fault = Some(found);
                    Ok(Transformed::no(part))
                }
            }
        });
        match (fault, rewritten) {
            (Some(fault), _) => Err(fault),
            (None, Ok(rewritten)) => Ok(add(&mut self.early, &rewritten.data, form)),
            (None, Err(error)) => Err(engine::expr::fault(&error)),
        }
    }

    /// Replaces the parts that do not depend on the order by columns that are computed early. A branch of a CASE is
    /// left whole, because it may be valid only where it is chosen; only the columns that it names are replaced.
    fn hoist(&mut self, expr: Expr) -> Result<Expr, ExprFault> {
        let mut fault = None;
        let hoisted = expr.transform_down(|part| {
            let whole = matches!(part, Expr::BinaryExpr(_) | Expr::Not(_) | Expr::IsNull(_) | Expr::IsNotNull(_))
                || matches!(part, Expr::Like(_) | Expr::InList(_) | Expr::ScalarFunction(_) | Expr::TryCast(_));
            if let Expr::Column(column) = &part
                && is_of_order(&column.name)
            {
                latest_number(&column.name).into_iter().for_each(|number| self.latest_operand(number));
                return Ok(Transformed::no(part));
            }
            if fault.is_some() {
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
        let early = self.early(part, Form::Raw)?;
        let name = format!("__r{early}");
        if !self.operands.contains(&Operand::Early(early)) {
            let ty = self.session.compile(part.clone(), &self.row_schema)?;
            self.operands.push(Operand::Early(early));
            self.operand_fields.push(Field::new(&name, ty.data_type, true));
        }
        Ok(name)
    }

    /// Refuses a column of the rows outside an aggregate. The level of the expression is one above those it uses.
    fn check_outside(&self, expr: &Expr) -> Result<usize, ExprFault> {
        if let Some(name) = latest::first_call(expr) {
            let message = format!("`{name}` is a value of a row: put it into an aggregate, such as avg({name}(…))");
            return Err(calls::refuse(&name, message));
        }
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
}

/// The column that holds the value of an aggregate.
fn slot_name(slot: usize) -> String {
    format!("__a{slot}")
}

/// The index of a column; it is added if it is not there yet.
fn add(columns: &mut Vec<(Expr, Form)>, expr: &Expr, form: Form) -> usize {
    columns.iter().position(|(other, f)| other == expr && *f == form).unwrap_or_else(|| {
        columns.push((expr.clone(), form));
        columns.len() - 1
    })
}

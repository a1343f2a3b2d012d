//! Calls of functions that know the rows before a row, in arguments and conditions of aggregates: each becomes a column with
//! what its group held before the row.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Column as Name;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{Expr, cast, lit, when};
use engine::batch::TIME;
use engine::contract::ExprFault;

use super::Compiler;
use super::analysis::depends_on_order;
use crate::aggregate::accumulate::Shape;
use crate::aggregate::calls::{form_of, refuse};
use crate::aggregate::functions::{PREV, SINCE};
use crate::aggregate::program::{Before, Operand, latest_name};

impl Compiler<'_> {
    /// The same aggregate over columns of the rows and of their order.
    pub(super) fn with_latest(&mut self, function: &AggregateFunction) -> Result<AggregateFunction, ExprFault> {
        let AggregateFunction { func, params } = function;
        let args = params.args.iter().map(|argument| self.latest(argument)).collect::<Result<_, _>>()?;
        let filter = params.filter.as_ref().map(|filter| self.latest(filter)).transpose()?.map(Box::new);
        let params = AggregateFunctionParams { args, filter, ..params.clone() };
        Ok(AggregateFunction { func: func.clone(), params })
    }

    /// Replaces each call by the column that holds its value.
    fn latest(&mut self, expr: &Expr) -> Result<Expr, ExprFault> {
        self.inside(expr)?;
        let mut fault = None;
        let replaced = expr.clone().transform_down(|part| {
            let Some((name, argument)) = call(&part).filter(|_| fault.is_none()) else {
                return Ok(Transformed::no(part));
            };
            match if name == PREV { self.prev(argument) } else { self.since(argument) } {
                Ok(column) => Ok(Transformed::new(column, true, TreeNodeRecursion::Jump)),
                Err(found) => {
                    fault = Some(found);
                    Ok(Transformed::no(part))
                }
            }
        });
        match (fault, replaced) {
            (Some(fault), _) => Err(fault),
            (None, Ok(replaced)) => Ok(replaced.data),
            (None, Err(error)) => Err(engine::expr::fault(&error)),
        }
    }

    /// The column with the latest value of `argument` that is not null.
    fn prev(&mut self, argument: &Expr) -> Result<Expr, ExprFault> {
        is_of_row(PREV, argument)?;
        let ty = self.session.compile(argument.clone(), &self.row_schema)?.data_type;
        let Some((form, data_type)) = form_of(Shape::Max, &ty) else {
            return Err(refuse(PREV, format!("`{PREV}` of {ty} is not possible")));
        };
        let before = Before { early: self.early(argument, form)?, form, data_type };
        let number = self.latest.iter().position(|other| *other == before).unwrap_or_else(|| {
            self.latest.push(before.clone());
            self.latest.len() - 1
        });
        let name = latest_name(number);
        if self.row_schema.index_of(&name).is_err() {
            let field = Field::new(&name, before.data_type, true);
            let fields = self.row_schema.fields().iter().map(|f| f.as_ref().clone()).chain([field]);
            self.row_schema = Schema::new(fields.collect::<Vec<_>>());
        }
        Ok(Expr::Column(Name::from_name(name)))
    }

    /// Milliseconds since the latest row for which `condition` held.
    fn since(&mut self, condition: &Expr) -> Result<Expr, ExprFault> {
        is_of_row(SINCE, condition)?;
        self.session.compile(condition.clone(), &self.row_schema)?.truth()?;
        let now = cast(Expr::Column(Name::from_name(TIME)), DataType::Int64);
        let then = when(condition.clone(), now.clone()).end().map_err(|error| engine::expr::fault(&error))?;
        let then = self.prev(&then)?;
        Ok(cast(now - then, DataType::Float64) / lit(1e6))
    }

    /// Makes the latest values of `number` an operand of ordered columns.
    pub(super) fn latest_operand(&mut self, number: usize) {
        if !self.operands.contains(&Operand::Latest(number)) {
            self.operands.push(Operand::Latest(number));
            self.operand_fields.push(Field::new(latest_name(number), self.latest[number].data_type.clone(), true));
        }
    }
}

/// Refuses an argument that is known only when the order of the rows is.
fn is_of_row(name: &str, argument: &Expr) -> Result<(), ExprFault> {
    if first_call(argument).is_none() && !depends_on_order(argument) {
        return Ok(());
    }
    Err(refuse(
        name,
        format!("`{name}` takes the row's own columns; what it is given here depends on the order of rows"),
    ))
}

/// The name and the argument of a call of one of the functions.
fn call(expr: &Expr) -> Option<(&str, &Expr)> {
    match expr {
        Expr::ScalarFunction(call) if [PREV, SINCE].contains(&call.func.name()) => {
            call.args.first().map(|argument| (call.func.name(), argument))
        }
        _ => None,
    }
}

/// The name of the first of the functions that an expression calls.
pub(super) fn first_call(expr: &Expr) -> Option<String> {
    let mut name = None;
    let _ = expr.apply(|part| {
        name = call(part).map(|(name, _)| name.to_owned());
        Ok(if name.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    name
}

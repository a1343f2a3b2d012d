//! From an aggregate function call, as SQL has it, to the state that computes it.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::logical_expr::{Expr, expr::AggregateFunction};

use engine::contract::ExprFault;

use super::accumulate::{Finish, Form, Shape};
use super::functions::SUPPORTED;

/// What a call needs.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) shape: Shape,
    pub(super) finish: Finish,
    /// The form of the argument; without one rows are counted.
    pub(super) form: Option<Form>,
    /// The type of the result.
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
}

/// Checks a call. `argument` gives the type of its argument.
pub(super) fn resolve(
    call: &AggregateFunction,
    argument: impl FnOnce(&Expr) -> Result<DataType, ExprFault>,
) -> Result<Call, ExprFault> {
    let name = call.func.name();
    let expr = only_argument(call)?;
    let Some((shape, finish)) = state_of(name, call.params.distinct) else {
        return Err(ExprFault {
            help: Some(format!("known here: {SUPPORTED}")),
            ..refuse(name, format!("the aggregate function `{name}` cannot be used here"))
        });
    };
    if shape == Shape::Count && counts_rows(expr) {
        return Ok(Call { shape, finish, form: None, data_type: DataType::Int64, nullable: false });
    }
    let ty = argument(expr)?;
    let Some((form, data_type)) = form_of(shape, &ty) else {
        return Err(refuse(name, format!("`{name}` of {ty} is not possible")));
    };
    Ok(Call { shape, finish, form: Some(form), data_type, nullable: !matches!(shape, Shape::Count | Shape::Distinct) })
}

/// What is wrong with a call of this function.
pub(super) fn refuse(name: &str, message: String) -> ExprFault {
    ExprFault { part: Some(name.to_owned()), ..ExprFault::new(message) }
}

/// The argument of a call that has nothing beside it but FILTER, and DISTINCT of `count`.
fn only_argument(call: &AggregateFunction) -> Result<&Expr, ExprFault> {
    let (name, params) = (call.func.name(), &call.params);
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        return Err(refuse(name, format!("`{name}` cannot have ORDER BY or a treatment of nulls here")));
    }
    if params.distinct && name != "count" {
        return Err(refuse(name, format!("DISTINCT is possible with count only, not with `{name}`")));
    }
    match params.args.as_slice() {
        [expr] => Ok(expr),
        args => Err(refuse(name, format!("`{name}` takes one argument here, not {}", args.len()))),
    }
}

/// What is kept for a function, and how its value follows from that; `None` for a function that is not known here.
fn state_of(name: &str, distinct: bool) -> Option<(Shape, Finish)> {
    Some(match name {
        "count" if distinct => (Shape::Distinct, Finish::Plain),
        "count" => (Shape::Count, Finish::Plain),
        "sum" => (Shape::Sum, Finish::Plain),
        "avg" | "mean" => (Shape::Mean, Finish::Plain),
        "min" => (Shape::Min, Finish::Plain),
        "max" => (Shape::Max, Finish::Plain),
        "stddev" | "stddev_samp" => (Shape::Moments, Finish::Spread { sample: true, root: true }),
        "stddev_pop" => (Shape::Moments, Finish::Spread { sample: false, root: true }),
        "var" | "var_samp" | "var_sample" => (Shape::Moments, Finish::Spread { sample: true, root: false }),
        "var_pop" | "var_population" => (Shape::Moments, Finish::Spread { sample: false, root: false }),
        "bool_and" => (Shape::And, Finish::Plain),
        "bool_or" => (Shape::Or, Finish::Plain),
        "entropy" => (Shape::Tally, Finish::Plain),
        "mode_share" => (Shape::Tally, Finish::Share),
        "transition_entropy" => (Shape::Transitions, Finish::Plain),
        "benford_chi2" => (Shape::Digits, Finish::Plain),
        _ => return None,
    })
}

/// The form in which a state takes an argument of this type, and the type of the result; `None` if it cannot take it.
pub(super) fn form_of(shape: Shape, ty: &DataType) -> Option<(Form, DataType)> {
    Some(match shape {
        Shape::Count => (Form::Raw, DataType::Int64),
        Shape::Distinct => (Form::Hash, DataType::Int64),
        Shape::Tally | Shape::Transitions => (Form::Hash, DataType::Float64),
        Shape::And | Shape::Or if *ty == DataType::Boolean => (Form::Truth, DataType::Boolean),
        Shape::And | Shape::Or => return None,
        Shape::Mean | Shape::Moments | Shape::Digits if ty.is_numeric() => (Form::Real, DataType::Float64),
        Shape::Mean | Shape::Moments | Shape::Digits => return None,
        Shape::Sum => match ty {
            ty if ty.is_signed_integer() => (Form::Int, DataType::Int64),
            ty if ty.is_unsigned_integer() => (Form::UInt, DataType::UInt64),
            ty if ty.is_numeric() => (Form::Real, DataType::Float64),
            _ => return None,
        },
        Shape::Min | Shape::Max => match ty {
            DataType::Boolean => (Form::Truth, ty.clone()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (Form::Text, DataType::Utf8),
            DataType::Timestamp(_, _) | DataType::Duration(TimeUnit::Nanosecond) => (Form::Int, ty.clone()),
            number if number.is_signed_integer() => (Form::Int, ty.clone()),
            number if number.is_unsigned_integer() => (Form::UInt, ty.clone()),
            number if number.is_floating() => (Form::Real, ty.clone()),
            _ => return None,
        },
    })
}

/// Whether `count(expr)` is `count(*)`.
fn counts_rows(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => !value.is_null(),
        other => other.to_string() == "*",
    }
}

//! Functions whose result can be much larger than their arguments, with a bound on what a call may make.
//!
//! DataFusion accounts for nothing that an expression allocates while it is computed, and a text that cannot be
//! allocated ends the process. So a call that could make too much fails before it starts: in a node the row is
//! rejected, a query over HTTP ends with the reason.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{DFSchema, ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Their result grows with the sum or the product of their arguments.
pub const GROWING: &[&str] = &["concat", "concat_ws", "overlay", "regexp_replace", "replace", "to_char"];

/// The size of their result, or the time that they take, is what a number or the texts say.
pub const AMPLIFYING: &[&str] = &["levenshtein", "lpad", "regexp_match", "repeat", "rpad"];

/// What `a || b` is planned as: null if either side is.
pub const CONCAT: &str = "string_concat";

/// The most bytes that an expression over a row may make by one call.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// The most bytes that one call may make from one batch.
const MAX_CALL_BYTES: usize = 16 << 20;

/// Texts beyond this have no edit distance: it takes time with the product of both.
const MAX_DISTANCE_BYTES: usize = 1 << 10;

/// The bounded form of a function; the others are as they were. `most`: the most bytes that it may make for one row.
pub fn bounded(function: Arc<ScalarUDF>, most: usize) -> Arc<ScalarUDF> {
    let name = function.name();
    if !GROWING.contains(&name) && !AMPLIFYING.contains(&name) {
        return function;
    }
    Arc::new(ScalarUDF::new_from_impl(Bounded { inner: function, most }))
}

/// A function that fails before it makes too much.
///
/// It does not pass on `simplify`, which could put the unbounded function in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    most: usize,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.name(), &args.args, args.number_rows, self.most)?;
        self.inner.invoke_with_args(args)
    }
}

/// Refuses a call that could make more than `most` bytes for a row, or too much for all of them.
fn check(name: &str, args: &[ColumnarValue], rows: usize, most: usize) -> Result<()> {
    let constant = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let mut total: usize = 0;
    for row in 0..if constant { 1 } else { rows } {
        let bound = upper_bound(name, &Row { args, row });
        if bound > most {
            return exec_err!("{name} could make a text of more than {most} bytes of one row");
        }
        total = total.saturating_add(bound);
    }
    if total > MAX_CALL_BYTES {
        return exec_err!("{name} could make {total} bytes from one batch; the limit is {MAX_CALL_BYTES}");
    }
    Ok(())
}

/// The arguments of one row.
struct Row<'a> {
    args: &'a [ColumnarValue],
    row: usize,
}

impl Row<'_> {
    /// The text of an argument, if it is one.
    fn text(&self, nth: usize) -> Option<&str> {
        match self.args.get(nth)? {
            ColumnarValue::Scalar(scalar) => scalar.try_as_str().flatten(),
            ColumnarValue::Array(array) => text_at(array, self.row),
        }
    }

    /// Bytes of an argument. What is no text becomes a short one.
    fn bytes(&self, nth: usize) -> usize {
        const SHORT: usize = 64;
        let is_text = |ty: &DataType| matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match (self.text(nth), self.args.get(nth)) {
            (Some(text), _) => text.len(),
            (None, Some(arg)) if !is_text(&arg.data_type()) => SHORT,
            _ => 0,
        }
    }

    /// A count; the largest if it is not known.
    fn count(&self, nth: usize) -> usize {
        let number = match self.args.get(nth) {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(number))) => Some(number.unwrap_or(0)),
            Some(ColumnarValue::Array(array)) => array
                .as_primitive_opt::<Int64Type>()
                .map(|numbers| if numbers.is_null(self.row) { 0 } else { numbers.value(self.row) }),
            _ => None,
        };
        number.map_or(usize::MAX, |number| usize::try_from(number).unwrap_or(0))
    }

    fn all(&self) -> usize {
        (0..self.args.len()).fold(0, |sum, nth| sum.saturating_add(self.bytes(nth)))
    }
}

fn text_at(array: &ArrayRef, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        _ => None,
    }
}

/// Bytes that the call can make of a row at most.
fn upper_bound(name: &str, row: &Row<'_>) -> usize {
    match name {
        "concat_ws" => row.all().saturating_add(row.bytes(0).saturating_mul(row.args.len())),
        // Each place where the text is found becomes the replacement; an empty one is found at every gap.
        "replace" => {
            let (text, from, to) = (row.bytes(0), row.bytes(1), row.bytes(2));
            text.saturating_add((text / from.max(1) + 1).saturating_mul(to))
        }
        "regexp_replace" => {
            let (text, to) = (row.bytes(0), row.bytes(2));
            let is_global = row.args.len() > 3 && row.text(3).is_none_or(|flags| flags.contains('g'));
            let places = if is_global { text + 1 } else { 1 };
            // `\1` is read as `${1}`, and stays so behind another `$`.
            let count = |wanted: &[u8]| row.text(2).map_or(0, |to| to.bytes().filter(|b| wanted.contains(b)).count());
            let to = to.saturating_add(2 * count(b"\\"));
            // Each of them in the replacement can be the whole text.
            text.saturating_add(places.saturating_mul(to)).saturating_add(text.saturating_mul(count(b"$\\")))
        }
        // The longest field of a date format, such as %c or %+, takes two bytes and makes fewer than 64.
        "to_char" => row.bytes(1).saturating_mul(32),
        "repeat" => row.bytes(0).saturating_mul(row.count(1)),
        // A character has up to four bytes.
        "lpad" | "rpad" => row.bytes(0).max(row.count(1).saturating_mul(4)),
        "regexp_match" => {
            let groups = row.text(1).map_or(0, |pattern| pattern.bytes().filter(|b| *b == b'(').count());
            row.bytes(0).saturating_mul(groups + 1)
        }
        "levenshtein" if row.bytes(0).max(row.bytes(1)) > MAX_DISTANCE_BYTES => usize::MAX,
        "levenshtein" => 0,
        _ => row.all(),
    }
}

/// Plans `a || b` as a bounded function, null if either side is; `a || b || c` is one call.
#[derive(Debug)]
pub struct BoundedConcat {
    /// The most bytes of one row.
    pub most: usize,
}

impl ExprPlanner for BoundedConcat {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expr));
        }
        let mut parts = Vec::new();
        for side in [expr.left, expr.right] {
            match side {
                Expr::ScalarFunction(call) if call.func.name() == CONCAT => parts.extend(call.args),
                side => parts.push(side),
            }
        }
        let signature = Signature::user_defined(Volatility::Immutable);
        Ok(PlannerResult::Planned(ScalarUDF::new_from_impl(Concat { signature, most: self.most }).call(parts)))
    }
}

/// Texts one behind the other; null if one is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    signature: Signature,
    most: usize,
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        CONCAT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![DataType::Utf8; types.len()])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(CONCAT, &args.args, args.number_rows, self.most)?;
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let mut out = StringBuilder::with_capacity(rows, 0);
        let mut text = String::new();
        for row in 0..rows {
            text.clear();
            let known = arrays.iter().all(|array| match text_at(array, row) {
                Some(part) => {
                    text.push_str(part);
                    true
                }
                None => false,
            });
            out.append_option(known.then_some(text.as_str()));
        }
        let out: ArrayRef = Arc::new(out.finish());
        Ok(if constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?)
        } else {
            ColumnarValue::Array(out)
        })
    }
}

#[cfg(test)]
#[path = "bounded_tests.rs"]
mod tests;

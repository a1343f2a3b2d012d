//! The functions that SQL over HTTP may call: an allow-list.
//!
//! DataFusion's memory pool does not account for what an expression allocates while it is evaluated. Functions whose
//! result can be much larger than their arguments (`repeat`, `lpad`, `rpad`, `generate_series`, `array_agg`,
//! `string_agg`) are therefore not served at all, and those that grow with their arguments are served with a bound
//! on each call ([`Bounded`]). Functions that read files or the environment are not served either.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::functions::string::concat;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, lit, when,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Served as they are: their result is about as large as their arguments.
const PLAIN: &[&str] = &[
    "arrow_typeof",
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "coalesce",
    "contains",
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "ends_with",
    "find_in_set",
    "from_unixtime",
    "greatest",
    "initcap",
    "least",
    "left",
    "lower",
    "ltrim",
    "make_date",
    "now",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "reverse",
    "right",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "to_date",
    "to_hex",
    "to_local_time",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    "translate",
    "trim",
    "upper",
    "version",
    // Numbers: their results have a fixed size.
    "abs",
    "acos",
    "asin",
    "atan",
    "atan2",
    "cbrt",
    "ceil",
    "cos",
    "degrees",
    "exp",
    "floor",
    "isnan",
    "iszero",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "round",
    "signum",
    "sin",
    "sqrt",
    "tan",
    "trunc",
];

/// Served with a bound: their result grows with the product or the sum of their arguments.
pub(crate) const GROWING: &[&str] = &["concat", "concat_ws", "overlay", "regexp_replace", "replace", "to_char"];

/// Aggregates that collect every value; their result is as large as the table.
const COLLECTING: &[&str] =
    &["approx_percentile_cont", "approx_percentile_cont_with_weight", "array_agg", "string_agg"];

/// Bytes that one call of a growing function may make from one batch.
const MAX_CALL_BYTES: usize = 16 << 20;

/// The scalar functions.
pub(crate) fn scalar() -> Vec<Arc<ScalarUDF>> {
    datafusion::functions::all_default_functions()
        .into_iter()
        .filter_map(|function| match function.name() {
            name if PLAIN.contains(&name) => Some(function),
            name if GROWING.contains(&name) => Some(Arc::new(ScalarUDF::new_from_impl(Bounded { inner: function }))),
            _ => None,
        })
        .chain(engine::functions::scalar())
        .collect()
}

/// The aggregate functions.
pub(crate) fn aggregate() -> Vec<Arc<AggregateUDF>> {
    let mut all = datafusion::functions_aggregate::all_default_aggregate_functions();
    all.retain(|function| !COLLECTING.contains(&function.name()));
    all
}

/// A function that fails before it makes more than [`MAX_CALL_BYTES`].
///
/// It does not pass on `simplify`, which could put the unbounded function in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
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
        let bound = upper_bound(self.name(), &args.args, args.number_rows);
        if bound > MAX_CALL_BYTES {
            return exec_err!("{} could make {bound} bytes from one batch; the limit is {MAX_CALL_BYTES}", self.name());
        }
        self.inner.invoke_with_args(args)
    }
}

/// Bytes that the call can make at most.
fn upper_bound(name: &str, args: &[ColumnarValue], rows: usize) -> usize {
    let total = |arg: Option<&ColumnarValue>| arg.map_or(0, |a| total_bytes(a, rows));
    let sum = args.iter().fold(0usize, |sum, arg| sum.saturating_add(total_bytes(arg, rows)));
    match name {
        "concat_ws" => sum.saturating_add(total(args.first()).saturating_mul(args.len())),
        // Every byte, and every gap between bytes, can become the replacement; each `$1` in it can be the whole text.
        "replace" | "regexp_replace" => {
            let text = total(args.first());
            let replacement = args.get(2).map_or(0, longest);
            let groups = args.get(2).map_or(0, dollars);
            text.saturating_add(rows)
                .saturating_mul(replacement.saturating_add(1))
                .saturating_add(text.saturating_mul(groups))
        }
        // The longest field of a date format, such as %c or %+, takes two bytes and makes fewer than 64.
        "to_char" => total(args.get(1)).saturating_mul(32),
        _ => sum,
    }
}

fn total_bytes(value: &ColumnarValue, rows: usize) -> usize {
    match value {
        ColumnarValue::Scalar(scalar) => text(scalar).map_or(scalar.size(), str::len).saturating_mul(rows),
        ColumnarValue::Array(array) => array_bytes(array),
    }
}

fn longest(value: &ColumnarValue) -> usize {
    match value {
        ColumnarValue::Scalar(scalar) => text(scalar).map_or(0, str::len),
        ColumnarValue::Array(array) => array_bytes(array),
    }
}

fn dollars(value: &ColumnarValue) -> usize {
    match value {
        ColumnarValue::Scalar(scalar) => text(scalar).map_or(0, |t| t.bytes().filter(|b| *b == b'$').count()),
        ColumnarValue::Array(array) => array_bytes(array),
    }
}

fn text(scalar: &ScalarValue) -> Option<&str> {
    scalar.try_as_str().flatten()
}

fn array_bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8 => array
            .as_string::<i32>()
            .offsets()
            .last()
            .zip(array.as_string::<i32>().offsets().first())
            .map_or(0, |(end, start)| (end - start) as usize),
        DataType::Utf8View => array.as_string_view().lengths().map(|n| n as usize).sum(),
        _ => array.get_array_memory_size(),
    }
}

/// Plans `a || b` as the bounded `concat`, null if either side is.
#[derive(Debug)]
pub(crate) struct BoundedConcat;

impl ExprPlanner for BoundedConcat {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expr));
        }
        let bounded = ScalarUDF::new_from_impl(Bounded { inner: concat() });
        let null = expr.left.clone().is_null().or(expr.right.clone().is_null());
        let joined = bounded.call(vec![expr.left, expr.right]);
        let planned: Expr = when(null, lit(ScalarValue::Utf8(None))).otherwise(joined)?;
        Ok(PlannerResult::Planned(planned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_name_exists_and_no_amplifier_is_served() {
        let names: Vec<String> = scalar().iter().map(|f| f.name().to_owned()).collect();
        for name in GROWING {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
        for name in ["repeat", "lpad", "rpad", "levenshtein", "struct", "named_struct", "input_file_name", "uuid"] {
            assert!(!names.iter().any(|n| n == name), "{name}");
        }
        assert!(!aggregate().iter().any(|f| COLLECTING.contains(&f.name())));
    }

    #[test]
    fn the_bound_of_replace_counts_every_place_and_group() {
        let scalar = |s: &str| ColumnarValue::Scalar(ScalarValue::from(s));
        let args = [scalar("aaaa"), scalar("a"), scalar("$1$1")];
        assert_eq!(upper_bound("replace", &args, 10), (40 + 10) * 5 + 40 * 2);
        assert_eq!(upper_bound("concat", &args, 1), 9);
        assert_eq!(upper_bound("concat_ws", &args, 1), 9 + 12);
    }
}

//! The functions that SQL over HTTP may call: an allow-list.
//!
//! DataFusion's memory pool does not account for what an expression allocates while it is evaluated. Functions whose
//! result can be much larger than their arguments (`repeat`, `lpad`, `rpad`, `generate_series`, `array_agg`,
//! `string_agg`) are therefore not served at all, and those that grow with their arguments are served with a bound
//! on each call ([`bounded`]). Functions that read files or the environment are not served either.

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use engine::functions::bounded::{GROWING, bounded};

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

/// Aggregates that collect every value; their result is as large as the table.
const COLLECTING: &[&str] =
    &["approx_percentile_cont", "approx_percentile_cont_with_weight", "array_agg", "string_agg"];

/// The scalar functions.
pub(crate) fn scalar() -> Vec<Arc<ScalarUDF>> {
    datafusion::functions::all_default_functions()
        .into_iter()
        .filter_map(|function| match function.name() {
            name if PLAIN.contains(&name) => Some(function),
            name if GROWING.contains(&name) => Some(bounded(function, usize::MAX)),
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
}

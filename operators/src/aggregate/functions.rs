//! The functions that a feature can use: how they are called, what they keep, and how SQL knows them.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udaf,
};
use engine::contract::Session;

/// The value in the latest earlier row of the group that has one.
pub(super) const PREV: &str = "prev";
/// Milliseconds since the latest earlier row of the group for which a condition held.
pub(super) const SINCE: &str = "since_ms";

/// The aggregate functions that SQL does not have.
const OWN: [&str; 4] = ["entropy", "mode_share", "benford_chi2", "transition_entropy"];

/// A function, for the reference.
struct Function {
    usage: &'static str,
    gives: &'static str,
    /// What a group keeps for it, and the bound of that.
    keeps: &'static str,
}

/// The aggregate functions, as the reference shows them. All of them can have FILTER. Sizes are those of the states in
/// memory; a test compares them.
const AGGREGATES: [Function; 12] = [
    Function { usage: "count(*)", gives: "rows; `count(x)`: rows where x is not null", keeps: "8" },
    Function {
        usage: "count(distinct x)",
        gives: "distinct values that are not null",
        keeps: "24, and 8 to 18 for each value beyond the first; up to `distinct_limit` values, then 4.3 KB, an estimate",
    },
    Function { usage: "sum(x)", gives: "the sum", keeps: "9" },
    Function { usage: "avg(x), mean(x)", gives: "the mean", keeps: "16" },
    Function {
        usage: "min(x), max(x)",
        gives: "the least and the greatest value",
        keeps: "9; of text 16 and the text, of which one beyond 1 KiB is cut: its beginning, `#` and a hash",
    },
    Function {
        usage: "stddev(x), stddev_pop(x)",
        gives: "the standard deviation, over n - 1 and over n",
        keeps: "24; once for these, `var` and `var_pop` of the same x",
    },
    Function { usage: "var(x), var_pop(x)", gives: "the variance, over n - 1 and over n", keeps: "24, as above" },
    Function { usage: "bool_and(x), bool_or(x)", gives: "whether all are true, or any", keeps: "1" },
    Function {
        usage: "entropy(x)",
        gives: "Shannon entropy of the values in bits",
        keeps: "48, and 16 to 36 for each value; up to `distinct_limit` values, all further ones count as one",
    },
    Function {
        usage: "mode_share(x)",
        gives: "the share of the most frequent value, 0 to 1; the values beyond `distinct_limit` are none",
        keeps: "as `entropy`; once for both of the same x",
    },
    Function {
        usage: "transition_entropy(x)",
        gives: "entropy in bits of a value, given the one before it: H(pairs) - H(first of the pairs), over the pairs of values \
                that follow each other in the group; null without a pair",
        keeps: "112, and 16 to 36 for each value and for each pair; up to `distinct_limit` of each, all further ones count as one",
    },
    Function {
        usage: "benford_chi2(x)",
        gives: "how far the first digits of numbers are from Benford's law: Σ (share of d - log10(1 + 1/d))² / log10(1 + 1/d); \
                null below 10 numbers; 0 has no first digit",
        keeps: "36",
    },
];

/// The functions of a row that know the group's rows before it.
const ORDERED: [Function; 2] = [
    Function {
        usage: "prev(x)",
        gives: "x in the latest earlier row of the group where it is not null; null if there is none",
        keeps: "9; of truth values 1; of text 16 and the text, of which the first 256 bytes are kept",
    },
    Function {
        usage: "since_ms(condition)",
        gives: "milliseconds since the latest earlier row of the group for which the condition was true; null if there is none",
        keeps: "9",
    },
];

/// The names of the aggregate functions, for messages.
pub(super) const SUPPORTED: &str = "avg, benford_chi2, bool_and, bool_or, count, entropy, max, mean, min, mode_share, stddev, \
     stddev_pop, sum, transition_entropy, var, var_pop";

/// What the reference says of the functions: Markdown.
pub(crate) fn markdown() -> String {
    let mut out = String::from(
        "A feature can use those above it. It is SQL over aggregates of the input's columns and of `gap_ms`, `prev_gap_ms` and \
         `nth`, and of two functions that know the rows of the group before a row. These are used inside aggregates, and their \
         argument is of the row's own columns. Rows are taken in the order of `time` and `seq`, whatever the order of their \
         arrival, so that all of them are the same for any number of workers; a late row counts for nothing.\n\n    \
         - { name: post_ratio, expr: \"count(*) filter (where method = 'POST') * 1.0 / count(*)\" }\n\n\
         | of a row | what it gives | bytes a group keeps |\n|---|---|---|\n",
    );
    let mut table = |functions: &[Function]| {
        for Function { usage, gives, keeps } in functions {
            // Writing to a text cannot fail.
            let _ = writeln!(out, "| `{usage}` | {gives} | {keeps} |");
        }
    };
    table(&[
        Function {
            usage: "gap_ms",
            gives: "milliseconds since the group's previous row; null for the first",
            keeps: "",
        },
        Function { usage: "prev_gap_ms", gives: "the gap before that", keeps: "" },
        Function { usage: "nth", gives: "the number of the row in its group, from 1", keeps: "" },
    ]);
    table(&ORDERED);
    out.push_str(
        "\nA group itself takes about 100 bytes and its key. Equal aggregates, arguments and conditions are computed and kept \
         once for all features. All of these can have FILTER; without rows that count a value is null, that of `count` 0.\n\n\
         | of a group | what it gives | bytes a group keeps |\n|---|---|---|\n",
    );
    for Function { usage, gives, keeps } in &AGGREGATES {
        let _ = writeln!(out, "| `{usage}` | {gives} | {keeps} |");
    }
    out.push('\n');
    out.push_str(&super::shipped::markdown());
    out
}

/// A session that knows them.
pub(super) fn session() -> Session {
    let session = Session::new();
    OWN.into_iter().for_each(|name| session.register_aggregate(aggregate(name)));
    [PREV, SINCE].into_iter().for_each(|name| session.register_scalar(ScalarUDF::new_from_impl(OfOrder::new(name))));
    session
}

/// An aggregate function by name and result; the operator computes it itself. An argument of any type is declared as text,
/// which matters to nobody: the call is taken out of the expression before DataFusion checks types.
fn aggregate(name: &'static str) -> AggregateUDF {
    create_udaf(
        name,
        vec![DataType::Utf8],
        Arc::new(DataType::Float64),
        Volatility::Immutable,
        Arc::new(move |_| Err(not_here(name))),
        Arc::new(vec![DataType::Float64]),
    )
}

/// What DataFusion would say if it were asked for a value.
fn not_here(name: &str) -> DataFusionError {
    DataFusionError::Plan(format!("`{name}` is used inside aggregates, such as avg({name}(…))"))
}

/// A function of a row that knows the rows before it, by name and result: the compiler takes its calls out of arguments and
/// conditions of aggregates. What is left of it is in a place where it cannot be.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfOrder {
    name: &'static str,
    signature: Signature,
}

impl OfOrder {
    fn new(name: &'static str) -> Self {
        Self { name, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OfOrder {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [of_value] if self.name == PREV => Ok(of_value.clone()),
            _ => Ok(DataType::Float64),
        }
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(not_here(self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::accumulate::{Form, Shape, State};
    use super::super::digits::LEAST;
    use super::super::latest::LONGEST;
    use super::*;

    /// The number that a text begins with.
    fn bytes(usage: &str) -> usize {
        let function = AGGREGATES.iter().find(|f| f.usage.starts_with(usage)).expect("in the table");
        let digits: String = function.keeps.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    #[test]
    fn the_reference_states_the_sizes_that_states_have() {
        use Shape::{Count, Digits, Distinct, Mean, Moments, Or, Sum, Tally, Transitions};
        let cases = [
            ("count(*)", Count, Form::Raw),
            ("count(distinct", Distinct, Form::Hash),
            ("sum", Sum, Form::Int),
            ("avg", Mean, Form::Real),
            ("min", Shape::Min, Form::Real),
            ("stddev", Moments, Form::Real),
            ("bool_and", Or, Form::Truth),
            ("entropy", Tally, Form::Hash),
            ("transition_entropy", Transitions, Form::Hash),
            ("benford_chi2", Digits, Form::Real),
        ];
        for (usage, shape, form) in cases {
            assert_eq!(State::new(shape, form, 16).bytes(), bytes(usage), "{usage}");
        }
        assert!(markdown().contains(&format!("the first {LONGEST} bytes")));
        assert!(markdown().contains(&format!("null below {LEAST} numbers")));
    }
}

//! How unusual each row is, by a model that `train.forest` has made.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::contract::{Inputs, Node, Operator, PlanContext, Port, read_content};
use engine::spec::{Diagnostic, Located};

use crate::enrich::lookup::{self, Lookup};
use crate::forest::{Explanation, Forest, Matrix};

/// See [`Operator::SUMMARY`].
pub struct DetectForest;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct ForestOptions {
    /// The model, relative to the pipeline's file: what `train.forest` writes. It need not be there at the start. A new model
    /// takes effect at one tick, on all workers, and is kept with the logs, as files of `enrich.asn` are. Rows of a window
    /// keep the model that their window began with: until a window begins behind the first model, there is no score.
    #[schemars(with = "String")]
    model: Located<PathBuf>,
    /// Scores below which a row is more than LOW. A score is what scikit-learn's `decision_function` gives: 0 is the border,
    /// less is more unusual.
    #[serde(default)]
    levels: Levels,
    /// How many features the reason names: those that make the row most unusual. Default 3.
    #[serde(default = "three")]
    reasons: usize,
}

fn three() -> usize {
    3
}

/// Scores below which a row is of a level.
#[derive(Clone, Copy, Debug, serde::Deserialize, schemars::JsonSchema)]
struct Levels {
    /// Default -0.30.
    #[serde(default = "critical")]
    critical: f64,
    /// Default -0.15.
    #[serde(default = "high")]
    high: f64,
    /// Default -0.05.
    #[serde(default = "medium")]
    medium: f64,
}

fn critical() -> f64 {
    -0.30
}
fn high() -> f64 {
    -0.15
}
fn medium() -> f64 {
    -0.05
}

impl Default for Levels {
    fn default() -> Self {
        Self { critical: critical(), high: high(), medium: medium() }
    }
}

impl Levels {
    /// The level of a score. What is not below 0 is as usual as the rows of the training.
    fn of(self, score: f64) -> &'static str {
        match score {
            score if score < self.critical => "CRITICAL",
            score if score < self.high => "HIGH",
            score if score < self.medium => "MEDIUM",
            score if score < 0.0 => "LOW",
            _ => "NORMAL",
        }
    }
}

impl Operator for DetectForest {
    type Options = ForestOptions;
    const KIND: &'static str = "detect.forest";
    const SUMMARY: &'static str = "Adds how unusual a row is, by an isolation forest that `train.forest` has trained.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "every row, with five columns more" }];
    const NEEDS: &'static str =
        "the columns that the model names, as numbers or truth values; one that the input lacks counts as missing";
    const GIVES: &'static str = "the columns of the input; `anomaly_score` (Float64: decision value, below 0 is unusual), `raw_anomaly_score` \
         (Float64: -1 to 0), `anomaly_level` (NORMAL, LOW, MEDIUM, HIGH, CRITICAL), `anomaly_reason` (of unusual rows: \
         features by their part in it) and `model_name` (the seed and the time of the last training row). All are null \
         while there is no model";

    fn plan(options: ForestOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let Levels { critical, high, medium } = options.levels;
        if !(critical <= high && high <= medium && medium <= 0.0) {
            context
                .error(context.span, "`levels` go down from `medium` over `high` to `critical`, and none is above 0");
            return None;
        }
        let schema = context.input(0).schema;
        warn_of_missing(&options.model, &schema, context);
        let added = [
            Field::new("anomaly_score", DataType::Float64, true),
            Field::new("raw_anomaly_score", DataType::Float64, true),
            Field::new("anomaly_level", DataType::Utf8, true),
            Field::new("anomaly_reason", DataType::Utf8, true),
            Field::new("model_name", DataType::Utf8, true),
        ];
        let scores = Scores { schema, levels: options.levels, reasons: options.reasons.min(MAX_REASONS) };
        lookup::plan_optional(scores, &added, (options.model, Forest::parse), context)
    }
}

/// The most features of a reason.
const MAX_REASONS: usize = 20;

/// Says which columns of today's model the input lacks.
fn warn_of_missing(model: &Located<PathBuf>, schema: &Schema, context: &mut PlanContext<'_>) {
    let path = context.path(&model.value);
    // What is wrong with the file itself is reported where it is read.
    let Some(forest) = read_content(&path).ok().and_then(|content| Forest::parse(&content).ok()) else { return };
    let missing = forest.names().iter().filter(|name| number(schema, name).is_none());
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if !missing.is_empty() {
        let message =
            format!("the model wants columns that the input lacks, and takes them as missing: {}", missing.join(", "));
        context.warn(Diagnostic::new(model.span, message));
    }
}

/// The index of a column of numbers or truth values.
fn number(schema: &Schema, name: &str) -> Option<usize> {
    let at = schema.index_of(name).ok()?;
    is_number(schema.field(at).data_type()).then_some(at)
}

/// Whether values of this type are numbers to a forest.
pub(crate) fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Float32 | DataType::Float64 | DataType::Boolean)
}

/// A column's values as a forest takes them: null is NaN, which it takes as missing.
pub(crate) fn numbers(column: &ArrayRef) -> Result<Vec<f32>, ArrowError> {
    let column = cast(column, &DataType::Float32)?;
    let column = column.as_primitive::<Float32Type>();
    Ok(column.iter().map(|value| value.unwrap_or(f32::NAN)).collect())
}

#[derive(Clone)]
struct Scores {
    schema: SchemaRef,
    levels: Levels,
    reasons: usize,
}

impl Lookup for Scores {
    type Part = Forest;

    fn label(&self, rows: &RecordBatch, parts: &[Arc<Forest>]) -> Result<Vec<ArrayRef>, ArrowError> {
        let [forest] = parts else { return Err(ArrowError::ComputeError("defect: one model".to_owned())) };
        let columns = forest.names().iter().map(|name| match number(&self.schema, name) {
            Some(at) => numbers(rows.column(at)),
            None => Ok(vec![f32::NAN; rows.num_rows()]),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let slices: Vec<&[f32]> = columns.iter().map(Vec::as_slice).collect();
        let fault = |error: crate::forest::ShapeError| ArrowError::ComputeError(error.to_string());
        let raw = forest.score_samples(Matrix::Columns(&slices)).map_err(fault)?;
        let name = name_of(forest);
        let (mut levels, mut reasons, mut names) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
        let mut row_values = vec![0.0; slices.len()];
        for (row, score) in raw.iter().map(|raw| raw - forest.offset()).enumerate() {
            levels.append_value(self.levels.of(score));
            names.append_value(&name);
            if score >= 0.0 {
                reasons.append_null();
                continue;
            }
            row_values.iter_mut().zip(&slices).for_each(|(value, column)| *value = column[row]);
            reasons.append_value(reason(forest, &forest.explain(&row_values).map_err(fault)?, self.reasons));
        }
        let scores: Float64Array = raw.iter().map(|raw| Some(raw - forest.offset())).collect();
        Ok(vec![
            Arc::new(scores),
            Arc::new(Float64Array::from(raw)),
            Arc::new(levels.finish()),
            Arc::new(reasons.finish()),
            Arc::new(names.finish()),
        ])
    }
}

/// How a model is told from others: by its seed and the time of its last row.
fn name_of(forest: &Forest) -> String {
    let last = forest.origin().between.and_then(|(_, last)| chrono::DateTime::from_timestamp_millis(last));
    match last {
        Some(last) => format!("forest-{}-{}", forest.seed(), last.format("%Y%m%dT%H%M%SZ")),
        None => format!("forest-{}", forest.seed()),
    }
}

/// The features that make a row most unusual, such as `distinct_404 = 52 (usually 0, 41.5 deviations above)`.
fn reason(forest: &Forest, explanation: &Explanation, most: usize) -> String {
    let mut text = String::new();
    for credit in explanation.credits.iter().filter(|credit| credit.credit > 0.0).take(most) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&forest.names()[credit.feature]);
        let usual = rounded(f64::from(forest.baseline()[credit.feature].median));
        match credit.value {
            None => text.push_str(" is missing"),
            Some(value) => text.push_str(&format!(" = {} (usually {usual}", rounded(f64::from(value)))),
        }
        if let (Some(_), Some(z)) = (credit.value, credit.z.filter(|z| z.is_finite() && *z != 0.0)) {
            text.push_str(&format!(", {:.1} deviations {}", z.abs(), if z > 0.0 { "above" } else { "below" }));
        }
        if credit.value.is_some() {
            text.push(')');
        }
    }
    text
}

/// A number for a sentence: four significant digits.
fn rounded(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (3 - value.abs().log10().floor() as i32).clamp(0, 6) };
    let text = format!("{value:.*}", digits as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;
    use crate::forest::{Options, train};

    #[test]
    fn a_number_in_a_sentence_has_few_digits() {
        let shown = [0.0, 52.0, 0.123456, 1234567.0, -2.5, 0.000_012].map(rounded);
        assert_eq!(shown, ["0", "52", "0.1235", "1234567", "-2.5", "0.000012"]);
    }

    #[test]
    fn an_unusual_row_says_which_features_it_is() {
        let names = vec!["hits".to_owned(), "pause".to_owned()];
        let row =
            |n: u32| [10 + n % 7 + n * 5 % 11 + n * 3 % 5, n % 4 + n * 7 % 9 + n * 11 % 5].map(|value| value as f32);
        let rows: Vec<f32> = (0..600).flat_map(row).collect();
        let options = Options { between: Some((0, 1_700_000_000_000)), ..Options::default() };
        let forest = Arc::new(train(&rows, &names, &options).expect("trained"));
        let fields = vec![Field::new("pause", DataType::Int64, true), Field::new("hits", DataType::UInt64, true)];
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let pause: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![Some(7), Some(1_000_000), None]));
        let hits: ArrayRef = Arc::new(arrow::array::UInt64Array::from(vec![20, 90_000, 20]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![pause, hits]).expect("valid");
        let scores = Scores { schema, levels: Levels::default(), reasons: 2 };
        let columns = scores.label(&batch, &[forest]).expect("labelled");
        let (levels, reasons) = (columns[2].as_string::<i32>(), columns[3].as_string::<i32>());
        assert_eq!((levels.value(0), levels.value(2)), ("NORMAL", "NORMAL"));
        assert!(["MEDIUM", "HIGH", "CRITICAL"].contains(&levels.value(1)), "{}", levels.value(1));
        for part in ["hits = 90000 (usually ", "pause = 1000000 (usually ", " deviations above)"] {
            assert!(reasons.value(1).contains(part), "{}", reasons.value(1));
        }
        assert!(reasons.is_null(0));
        assert_eq!(columns[4].as_string::<i32>().value(2), "forest-0-20231114T221320Z");
    }
}

//! Rules in SQL with a level and a reason.

mod reason;
mod spec;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, StringBuilder, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::spec::Located;

use crate::linear::{Parts, linear, reason, rejected, rejected_schema};
use crate::value::{Format, Values};
use spec::{Given, Level, Rule, RuleOptions};

/// See [`Operator::SUMMARY`].
pub struct Rules;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct RulesOptions {
    /// The rules, or the path of a YAML file with a list of them, relative to the pipeline's file.
    #[schemars(with = "Given")]
    rules: Located<Given>,
}

/// What a rule is, for `list`.
pub(crate) fn rule_schema() -> schemars::Schema {
    schemars::schema_for!(RuleOptions)
}

/// The levels of rules, from the least to the greatest.
pub(crate) fn levels() -> [&'static str; 4] {
    [Level::Low, Level::Medium, Level::High, Level::Critical].map(Level::name)
}

/// What is added to a row that matches.
const ADDED: [&str; 3] = ["threat_level", "rules", "reason"];

impl Operator for Rules {
    type Options = RulesOptions;
    const KIND: &'static str = "detect.rules";
    const SUMMARY: &'static str =
        "Keeps the rows that match a rule, with the highest level, the rules' names and the reasons.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[
        Port { name: "out", summary: "rows that match, with `threat_level`, `rules` and `reason`" },
        Port {
            name: "rejected",
            summary: "rows for which a rule could not be computed; the other rules are applied to them",
        },
    ];
    const NEEDS: &'static str = "the columns in the rules; none that it adds";
    const GIVES: &'static str =
        "the columns of the input, `threat_level`, `rules` and `reason`; `rejected` has the input's and `reason`";

    fn plan(options: RulesOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.input(0);
        let rules = spec::check(options.rules, &input.schema, context);
        let mut complete = true;
        for name in ADDED {
            if input.schema.index_of(name).is_ok() {
                context.error(context.input_span(0), format!("the input has a column `{name}` already"));
                complete = false;
            }
        }
        let rules = rules.filter(|_| complete)?;
        let added = ADDED.map(|name| Arc::new(Field::new(name, DataType::Utf8, false)));
        let fields = input.schema.fields().iter().cloned().chain(added);
        let output: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rejected = rejected_schema(&input.schema);
        let judge = Judge { rules: rules.into(), output, rejected };
        Some(Box::new(RulesNode { judge, input }))
    }
}

struct RulesNode {
    judge: Judge,
    input: EdgeType,
}

impl Node for RulesNode {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.input.with_schema(self.judge.output.clone()), self.input.with_schema(self.judge.rejected.clone())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let judge = self.judge.clone();
        linear(context, input, 2, move |rows| judge.apply(rows))
    }
}

#[derive(Clone)]
struct Judge {
    rules: Arc<[Rule]>,
    output: SchemaRef,
    rejected: SchemaRef,
}

impl Judge {
    /// The rows that match a rule, and those for which a rule could not be computed.
    fn apply(&self, rows: &RecordBatch) -> Result<Parts, ArrowError> {
        let mut failed: Vec<(usize, String)> = Vec::new();
        let masks: Vec<BooleanArray> = self.rules.iter().map(|rule| mask(rule, rows, &mut failed)).collect();
        let hit: UInt32Array = (0..rows.num_rows())
            .filter(|row| masks.iter().any(|mask| mask.value(*row)))
            .map(|row| row as u32)
            .collect();
        let matching = if hit.is_empty() { None } else { Some(self.explain(rows, &masks, &hit)?) };
        Ok([matching, self.reject(rows, failed)?])
    }

    fn explain(
        &self,
        rows: &RecordBatch,
        masks: &[BooleanArray],
        hit: &UInt32Array,
    ) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<_> = rows.columns().iter().map(Values::new).collect();
        let mut format = Format::default();
        let (mut levels, mut names) = (StringBuilder::new(), StringBuilder::new());
        let mut reasons = Vec::with_capacity(hit.len());
        let (mut joined, mut text) = (String::new(), Vec::new());
        for row in hit.values().iter().map(|row| *row as usize) {
            joined.clear();
            text.clear();
            let mut level = None;
            for (rule, _) in self.rules.iter().zip(masks).filter(|(_, mask)| mask.value(row)) {
                if level.is_some() {
                    joined.push(',');
                    text.extend_from_slice(b"; ");
                }
                level = level.max(Some(rule.level));
                joined.push_str(&rule.name);
                rule.reason.write(&mut text, &mut format, &columns, row);
            }
            levels.append_option(level.map(Level::name));
            names.append_value(&joined);
            // Made of whole strings only, so that nothing is ever replaced here.
            reasons.push(String::from_utf8_lossy(&text).into_owned());
        }
        let added: [ArrayRef; 3] =
            [Arc::new(levels.finish()), Arc::new(names.finish()), Arc::new(StringArray::from_iter_values(reasons))];
        let kept = if hit.len() == rows.num_rows() { rows.clone() } else { take_record_batch(rows, hit)? };
        RecordBatch::try_new(Arc::clone(&self.output), kept.columns().iter().cloned().chain(added).collect())
    }

    /// Each failed row once, with what every failed rule said.
    fn reject(&self, rows: &RecordBatch, mut failed: Vec<(usize, String)>) -> Result<Option<RecordBatch>, ArrowError> {
        if failed.is_empty() {
            return Ok(None);
        }
        failed.sort_by_key(|(row, _)| *row);
        let (mut indices, mut reasons): (Vec<u32>, Vec<String>) = (Vec::new(), Vec::new());
        for (row, reason) in failed {
            match reasons.last_mut().filter(|_| indices.last() == Some(&(row as u32))) {
                Some(said) => said.extend(["; ", reason.as_str()]),
                None => {
                    indices.push(row as u32);
                    reasons.push(reason);
                }
            }
        }
        let rows = take_record_batch(rows, &UInt32Array::from(indices))?;
        rejected(&rows, &reasons, &self.rejected).map(Some)
    }
}

/// Which rows a rule matches. Where it cannot be computed for all rows at once, it is computed for ever smaller parts,
/// so that one row does not hide the matches of its neighbours.
fn mask(rule: &Rule, rows: &RecordBatch, failed: &mut Vec<(usize, String)>) -> BooleanArray {
    if let Ok(mask) = rule.when.mask(rows) {
        return mask;
    }
    let mut matches = vec![false; rows.num_rows()];
    let mut parts = vec![(0, rows.num_rows())];
    while let Some((from, len)) = parts.pop() {
        match rule.when.mask(&rows.slice(from, len)) {
            Ok(mask) => mask.iter().enumerate().for_each(|(row, is)| matches[from + row] = is == Some(true)),
            Err(error) if len <= 1 => failed.push((from, format!("rule `{}`: {}", rule.name, reason(&error)))),
            Err(_) => parts.extend([(from + len / 2, len - len / 2), (from, len / 2)]),
        }
    }
    matches.into()
}

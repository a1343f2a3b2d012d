//! Rules in SQL with a level and a reason.

mod spec;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringBuilder, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::spec::Located;

use crate::entries::{Given, mask, rejects};
use crate::linear::{Parts, linear, rejected_schema};
use crate::value::{Format, Values};
use spec::{Level, Rule, RuleOptions};

/// See [`Operator::SUMMARY`].
pub struct Rules;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct RulesOptions {
    /// The rules, or the path of a YAML file with a list of them, relative to the pipeline's file. Items of the list in the
    /// pipeline may be such paths too: `[rules/standard.yaml, rules/consistency.yaml]`.
    rules: Located<Given<RuleOptions>>,
    /// Which rows leave: those that match a rule, or all; then `threat_level`, `rules` and `reason` are null for a row that
    /// matches none. Default `matches`.
    #[serde(default)]
    keep: Keep,
}

/// Which rows leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Keep {
    #[default]
    Matches,
    All,
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
        "Keeps the rows that match a rule, or all, with the highest level, the rules' names and the reasons.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[
        Port { name: "out", summary: "rows that match, or all, with `threat_level`, `rules` and `reason`" },
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
        let keep_all = options.keep == Keep::All;
        let added = ADDED.map(|name| Arc::new(Field::new(name, DataType::Utf8, keep_all)));
        let fields = input.schema.fields().iter().cloned().chain(added);
        let output: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rejected = rejected_schema(&input.schema);
        let judge = Judge { rules: rules.into(), keep_all, output, rejected };
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
    /// Whether rows that match no rule leave too.
    keep_all: bool,
    output: SchemaRef,
    rejected: SchemaRef,
}

impl Judge {
    /// The rows that leave, and those for which a rule could not be computed.
    fn apply(&self, rows: &RecordBatch) -> Result<Parts, ArrowError> {
        let mut failed: Vec<(usize, String)> = Vec::new();
        let ask = |rule: &Rule| mask(&rule.when, format_args!("rule `{}`", rule.name), rows, &mut failed);
        let masks: Vec<BooleanArray> = self.rules.iter().map(ask).collect();
        let kept: UInt32Array = (0..rows.num_rows())
            .filter(|row| self.keep_all || masks.iter().any(|mask| mask.value(*row)))
            .map(|row| row as u32)
            .collect();
        let kept = if kept.is_empty() { None } else { Some(self.explain(rows, &masks, &kept)?) };
        Ok([kept, rejects(rows, failed, &self.rejected)?])
    }

    fn explain(
        &self,
        rows: &RecordBatch,
        masks: &[BooleanArray],
        kept: &UInt32Array,
    ) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<_> = rows.columns().iter().map(Values::new).collect();
        let mut format = Format::default();
        let [mut levels, mut names, mut reasons] = ADDED.map(|_| StringBuilder::new());
        let (mut joined, mut text) = (String::new(), Vec::new());
        for row in kept.values().iter().map(|row| *row as usize) {
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
            names.append_option(level.map(|_| &joined));
            // Made of whole strings only, so that nothing is ever replaced here.
            reasons.append_option(level.map(|_| String::from_utf8_lossy(&text)));
        }
        let added = [levels, names, reasons].map(|mut texts| Arc::new(texts.finish()) as ArrayRef);
        let kept = if kept.len() == rows.num_rows() { rows.clone() } else { take_record_batch(rows, kept)? };
        RecordBatch::try_new(Arc::clone(&self.output), kept.columns().iter().cloned().chain(added).collect())
    }
}

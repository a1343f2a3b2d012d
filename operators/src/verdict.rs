//! What a row is in the end: what rules, model and lists say of it, taken together by a scheme.

mod scheme;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::Scalar;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::spec::Located;

use crate::entries::{Given, condition, mask, rejects, visible};
use crate::linear::{Parts, linear, rejected_schema};
use crate::value::{Format, Value, Values};
use scheme::{Entry, EntryOptions};

/// See [`Operator::SUMMARY`].
pub struct Verdict;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct VerdictOptions {
    /// The scheme: a list of entries, or the path of a YAML file with such a list, relative to the pipeline's file. Items of
    /// the list in the pipeline may be such paths too, so that own entries can stand before those of a file. The first entry
    /// counts whose condition holds. A row for which none holds is NORMAL.
    scheme: Located<Given<EntryOptions>>,
    /// Which rows leave, as an SQL condition over the output's columns, such as `verdict in ('HIGH', 'CRITICAL')`. Default:
    /// all.
    keep: Option<Located<String>>,
    /// The columns of text that follow the entry's own reason in `verdict_reasons`, in this order. Default: `reason` and
    /// `anomaly_reason`, of which `detect.rules` and `detect.forest` give one each, if the input has them.
    reasons: Option<Vec<Located<String>>>,
}

/// What an entry is, for `list`.
pub(crate) fn entry_schema() -> schemars::Schema {
    schemars::schema_for!(EntryOptions)
}

/// What the project's own schemes give.
pub(crate) fn verdicts() -> &'static [&'static str] {
    &scheme::VERDICTS
}

/// What is added to a row.
const VERDICT: &str = "verdict";
const VERDICT_REASONS: &str = "verdict_reasons";

/// The columns with reasons, if `reasons` is not set.
const REASONS: [&str; 2] = ["reason", "anomaly_reason"];

impl Operator for Verdict {
    type Options = VerdictOptions;
    const KIND: &'static str = "verdict";
    const SUMMARY: &'static str =
        "Says what a row is, by a scheme over what rules, models and lists say of it, with all reasons.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[
        Port { name: "out", summary: "every row, or those of `keep`, with `verdict` and `verdict_reasons`" },
        Port {
            name: "rejected",
            summary: "rows for which an entry before the one that counts, or `keep`, could not be computed; \
                      the other entries are applied to them",
        },
    ];
    const NEEDS: &'static str = "the columns in the scheme; none that it adds";
    const GIVES: &'static str = "the columns of the input, `verdict` (Utf8, never null) and `verdict_reasons` (Utf8: the reasons of the entry, of \
         the rules and of the model, with `; ` between them; null if there is none); `rejected` has the input's and \
         `reason`, or `reject_reason` if the input has `reason`";

    fn plan(options: VerdictOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.input(0);
        let scheme = scheme::check(options.scheme, &input.schema, context);
        let reasons = reasons(options.reasons, &input.schema, context);
        let mut complete = true;
        for name in [VERDICT, VERDICT_REASONS] {
            if input.schema.index_of(name).is_ok() {
                context.error(context.input_span(0), format!("the input has a column `{name}` already"));
                complete = false;
            }
        }
        let output = output_schema(&input.schema);
        let keep = options.keep.map(|keep| condition(&keep, &output, context));
        if keep.as_ref().is_some_and(Option::is_none) || !complete {
            return None;
        }
        let judge = Judge {
            scheme: scheme?.into(),
            reasons: reasons?.into(),
            keep: keep.flatten(),
            rejected: rejected_schema(&input.schema),
            output,
        };
        Some(Box::new(VerdictNode { judge, input }))
    }
}

fn output_schema(input: &Schema) -> SchemaRef {
    let added = [Field::new(VERDICT, DataType::Utf8, false), Field::new(VERDICT_REASONS, DataType::Utf8, true)];
    let fields = input.fields().iter().cloned().chain(added.map(Arc::new));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The indices of the columns with reasons. What is wrong goes to the context.
fn reasons(named: Option<Vec<Located<String>>>, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Vec<usize>> {
    let text = |at: &usize| *schema.field(*at).data_type() == DataType::Utf8;
    let Some(named) = named else {
        return Some(REASONS.iter().filter_map(|name| schema.index_of(name).ok()).filter(text).collect());
    };
    let mut complete = true;
    let mut columns = Vec::with_capacity(named.len());
    for name in named {
        match context.column(schema, &name.value, name.span) {
            Some(at) if text(&at) => columns.push(at),
            Some(at) => {
                let found = schema.field(at).data_type();
                context.error(name.span, format!("a reason is text; `{}` is {found}", name.value));
                complete = false;
            }
            None => complete = false,
        }
    }
    complete.then_some(columns)
}

struct VerdictNode {
    judge: Judge,
    input: EdgeType,
}

impl Node for VerdictNode {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.input.with_schema(self.judge.output.clone()), self.input.with_schema(self.judge.rejected.clone())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let judge = self.judge.clone();
        linear(context, input, Verdict::OUTPUTS.len(), move |rows| judge.apply(rows))
    }
}

#[derive(Clone)]
struct Judge {
    /// There is at least one entry, and the last one holds always.
    scheme: Arc<[Entry]>,
    /// Indices of the columns with further reasons.
    reasons: Arc<[usize]>,
    /// Over the output's columns.
    keep: Option<Scalar>,
    output: SchemaRef,
    rejected: SchemaRef,
}

impl Judge {
    /// The rows that leave, and those for which something could not be computed.
    fn apply(&self, rows: &RecordBatch) -> Result<Parts, ArrowError> {
        let (chosen, mut failed) = self.choose(rows);
        let mut judged = self.judge(rows, &chosen)?;
        if let Some(keep) = &self.keep {
            let kept = mask(keep, format_args!("`keep`"), &judged, &mut failed);
            judged = filter_record_batch(&judged, &kept)?;
        }
        Ok([Some(judged), rejects(rows, failed, &self.rejected)?])
    }

    /// The entry of each row, by its index, and the rows for which one before it could not be computed.
    fn choose(&self, rows: &RecordBatch) -> (Vec<usize>, Vec<(usize, String)>) {
        let last = self.scheme.len().saturating_sub(1);
        let mut chosen = vec![last; rows.num_rows()];
        let mut failed = Vec::new();
        for (at, entry) in self.scheme.iter().enumerate() {
            let Some(when) = &entry.when else { break };
            let mut unknown = Vec::new();
            let what = format_args!("entry {} of the scheme, `{}`", at + 1, entry.verdict);
            let holds = mask(when, what, rows, &mut unknown);
            // What is decided already does not depend on this entry.
            failed.extend(unknown.into_iter().filter(|(row, _)| chosen[*row] == last));
            for (row, chosen) in chosen.iter_mut().enumerate().filter(|(_, chosen)| **chosen == last) {
                if holds.value(row) {
                    *chosen = at;
                }
            }
        }
        (chosen, failed)
    }

    /// The rows with their verdicts and reasons.
    fn judge(&self, rows: &RecordBatch, chosen: &[usize]) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<_> = rows.columns().iter().map(Values::new).collect();
        let mut format = Format::default();
        let (mut verdicts, mut reasons) = (StringBuilder::new(), StringBuilder::new());
        let mut text = Vec::new();
        for (row, entry) in chosen.iter().map(|at| &self.scheme[*at]).enumerate() {
            verdicts.append_value(&entry.verdict);
            text.clear();
            if let Some(reason) = &entry.reason {
                reason.write(&mut text, &mut format, &columns, row);
            }
            for column in self.reasons.iter().filter_map(|at| columns[*at].as_ref()) {
                if let Some(Value::Text(said)) = column.at(row).filter(|said| !matches!(said, Value::Text(""))) {
                    if !text.is_empty() {
                        text.extend_from_slice(b"; ");
                    }
                    visible(&mut text, said);
                }
            }
            // Made of whole strings only, so that nothing is ever replaced here.
            reasons.append_option((!text.is_empty()).then(|| String::from_utf8_lossy(&text)));
        }
        let added: [ArrayRef; 2] = [Arc::new(verdicts.finish()), Arc::new(reasons.finish())];
        RecordBatch::try_new(Arc::clone(&self.output), rows.columns().iter().cloned().chain(added).collect())
    }
}

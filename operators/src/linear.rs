//! Operators that work row by row: the marks of a batch are kept, so that the operator is linear for streams and
//! relations alike, and a row whose value cannot be computed leaves with its reason.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use engine::batch::{Edge, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::{Here, Port, output_ports};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// The ports of an operator that evaluates expressions.
pub(crate) const PORTS: &[Port] = &[
    Port { name: "out", summary: "the rows" },
    Port { name: "rejected", summary: "rows for which an expression could not be computed, with the column `reason`" },
];

/// The longest reason, in bytes: it may quote the row.
const MAX_REASON: usize = 300;

/// What a step makes of a batch's rows: the rows for each port.
pub(crate) type Parts = [Option<RecordBatch>; 2];

/// Builds an operator with one or two output ports. An error of `step` ends the run; empty results are not sent.
pub(crate) fn linear<'s, F>(context: &BuildContext<'s>, input: Edge<'s>, ports: usize, mut step: F) -> Vec<Stream<'s>>
where
    F: FnMut(&RecordBatch) -> Result<Parts, ArrowError> + 'static,
{
    timed(context, input, ports, move |_, rows| step(rows))
}

/// As [`linear`]; `step` knows the message time besides.
pub(crate) fn timed<'s, F>(context: &BuildContext<'s>, input: Edge<'s>, ports: usize, mut step: F) -> Vec<Stream<'s>>
where
    F: FnMut(Time, &RecordBatch) -> Result<Parts, ArrowError> + 'static,
{
    let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
    let mut input = builder.new_input(input.stream, Pipeline);
    let (mut outputs, streams) = output_ports(&mut builder, ports);
    let (fail, here) = (context.failure(), Here::new(&context.id));
    builder.build(move |_capabilities| {
        move |_frontiers| {
            let _here = here.enter();
            input.for_each_stamp(|time, data| {
                let at = time.least().copied().unwrap_or_default();
                for batch in data.flat_map(|batches| batches.drain(..)) {
                    let parts = step(at, &batch.rows).unwrap_or_else(|error| {
                        fail(error.to_string());
                        [None, None]
                    });
                    for (output, rows) in outputs.iter_mut().zip(parts) {
                        if let Some(rows) = rows.filter(|rows| rows.num_rows() > 0) {
                            output.activate().session(&time).give(batch.with_rows(rows));
                        }
                    }
                }
            });
        }
    });
    streams
}

/// The name of the column with the reason of a rejection: `reason`, or `reject_reason` where the rows have that already.
fn reason_column(schema: &Schema) -> &'static str {
    if schema.index_of("reason").is_ok() { "reject_reason" } else { "reason" }
}

/// The columns of the port `rejected`: the input's, and why.
pub(crate) fn rejected_schema(schema: &Schema) -> SchemaRef {
    let reason = Field::new(reason_column(schema), DataType::Utf8, false);
    let fields = schema.fields().iter().cloned().chain([Arc::new(reason)]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows with the reason of each: what leaves the port `rejected`.
pub(crate) fn rejected(rows: &RecordBatch, reasons: &[String], schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let reasons: ArrayRef = Arc::new(StringArray::from_iter_values(reasons));
    let columns = rows.columns().iter().cloned().chain([reasons]).collect();
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Applies `evaluate` to the rows. Where it fails it is applied to ever smaller parts, so that only the rows that
/// fail by themselves are rejected: what becomes of a row does not depend on its neighbours.
pub(crate) fn evaluate_rows<F>(rows: &RecordBatch, rejected_as: &SchemaRef, evaluate: F) -> Result<Parts, ArrowError>
where
    F: Fn(&RecordBatch) -> Result<RecordBatch, DataFusionError>,
{
    match evaluate(rows) {
        Ok(result) => return Ok([Some(result), None]),
        Err(error) if rows.num_rows() == 1 => {
            return Ok([None, Some(rejected(rows, &[reason(&error)], rejected_as)?)]);
        }
        Err(_) => {}
    }
    let (mut kept, mut refused, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    let middle = rows.num_rows() / 2;
    // The part on top is the next one, so that the order of the rows is kept.
    let mut parts = vec![rows.slice(middle, rows.num_rows() - middle), rows.slice(0, middle)];
    while let Some(part) = parts.pop() {
        match evaluate(&part) {
            Ok(result) => kept.push(result),
            Err(error) if part.num_rows() <= 1 => {
                refused.push(part);
                reasons.push(reason(&error));
            }
            Err(_) => {
                let middle = part.num_rows() / 2;
                parts.push(part.slice(middle, part.num_rows() - middle));
                parts.push(part.slice(0, middle));
            }
        }
    }
    let join = |parts: &[RecordBatch]| parts.first().map(|p| concat_batches(&p.schema(), parts)).transpose();
    let refused = join(&refused)?.map(|rows| rejected(&rows, &reasons, rejected_as)).transpose()?;
    Ok([join(&kept)?, refused])
}

/// An evaluation error as one short line.
pub(crate) fn reason(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let text = text.strip_prefix("Arrow error: ").unwrap_or(&text);
    let line = text.lines().next().unwrap_or("the expression could not be computed");
    let end = (0..=MAX_REASON.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    line[..end].to_owned()
}

/// The type under which an expression's values travel: text has one representation on edges.
pub(crate) fn edge_type(data_type: &DataType) -> Cow<'_, DataType> {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => Cow::Owned(DataType::Utf8),
        DataType::Dictionary(_, values) => edge_type(values),
        other => Cow::Borrowed(other),
    }
}

/// Values in the type under which they travel.
pub(crate) fn edge_values(values: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let wanted = edge_type(values.data_type()).into_owned();
    if wanted == *values.data_type() { Ok(values) } else { cast(&values, &wanted) }
}

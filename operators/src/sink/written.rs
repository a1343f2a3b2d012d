//! Which columns and rows a sink of JSON lines writes.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, LargeBinaryArray, RecordBatch};
use engine::batch::{Batch, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::spec::Located;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::lines::{Lines, head};
use crate::value::has_text;

/// Which rows of a relation are written.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// Those that will never be taken back.
    #[default]
    Settled,
    /// Every insertion and every retraction, with a first field `diff`: 1 or -1.
    Changes,
}

/// How rows become lines.
#[derive(Clone)]
pub(super) struct Format {
    lines: Lines,
    changes: bool,
}

impl Format {
    /// These columns of a sink's input, or all; what cannot be written is reported.
    pub fn plan(columns: Option<&[Located<String>]>, mode: Mode, context: &mut PlanContext<'_>) -> Option<Self> {
        let input = context.input(0);
        let columns: Vec<(usize, _)> = match columns {
            None => (0..input.schema.fields().len()).map(|at| (at, context.input_span(0))).collect(),
            Some(names) => {
                let found =
                    names.iter().map(|name| Some((context.column(&input.schema, &name.value, name.span)?, name.span)));
                // Collected twice, so that every fault is reported and not the first alone.
                found.collect::<Vec<Option<_>>>().into_iter().collect::<Option<Vec<_>>>()?
            }
        };
        let changes = mode == Mode::Changes;
        let mut complete = true;
        for (nth, &(at, span)) in columns.iter().enumerate() {
            let field = input.schema.field(at);
            let problem = if !has_text(field.data_type()) {
                format!(
                    "the column `{}` is {}, which cannot be written: select `columns`, or cast it",
                    field.name(),
                    field.data_type()
                )
            } else if columns[..nth].iter().any(|(other, _)| *other == at) {
                format!("the column `{}` is listed twice", field.name())
            } else if changes && field.name() == "diff" {
                "`mode: changes` writes a field `diff`, and there is a column of that name".to_owned()
            } else {
                continue;
            };
            context.error(span, problem);
            complete = false;
        }
        let columns: Vec<usize> = columns.iter().map(|(at, _)| *at).collect();
        complete.then(|| Self { lines: Lines::new(&input.schema, &columns, changes), changes })
    }

    /// Whether rows that may change are written.
    pub fn is_of_changes(&self) -> bool {
        self.changes
    }

    /// The lines in place of the rows, made by each worker of its own: in one piece, or, of changes, what stands behind
    /// `diff` of each. Rows that are not written are left out.
    pub fn texts<'s>(&self, context: &BuildContext<'s>, input: Stream<'s>) -> Stream<'s> {
        let (format, fail) = (self.clone(), context.failure());
        input.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "lines", move |_, _| {
            move |input, output| {
                input.for_each_stamp(|time, data| {
                    let mut session = output.session(&time);
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        match format.text(&batch) {
                            Ok(Some(text)) => session.give(text),
                            Ok(None) => {}
                            Err(error) => fail(format!("lines cannot be made of rows: {error}")),
                        }
                    }
                });
            }
        })
    }

    fn text(&self, batch: &Batch) -> Result<Option<Batch>, arrow::error::ArrowError> {
        if !self.takes(batch) || batch.rows.num_rows() == 0 {
            return Ok(None);
        }
        let texts: ArrayRef = if self.changes {
            Arc::new(BinaryArray::from_iter_values(self.lines.tails(&batch.rows)))
        } else {
            let mut text = Vec::new();
            self.lines.write(&mut text, &batch.rows, batch.diff);
            Arc::new(LargeBinaryArray::from_iter_values([text]))
        };
        Ok(Some(batch.with_rows(RecordBatch::try_from_iter([("text", texts)])?)))
    }

    /// Appends the lines of what [`Format::texts`] has made.
    pub fn append(text: &mut Vec<u8>, batch: &Batch) {
        let Some(column) = batch.rows.columns().first() else { return };
        if let Some(whole) = column.as_binary_opt::<i64>() {
            whole.iter().flatten().for_each(|lines| text.extend_from_slice(lines));
        } else if let Some(tails) = column.as_binary_opt::<i32>() {
            for tail in tails.iter().flatten() {
                text.extend_from_slice(head(batch.diff));
                text.extend_from_slice(tail);
            }
        }
    }

    fn takes(&self, batch: &Batch) -> bool {
        self.changes || batch.settled && batch.diff > 0
    }

    /// Appends the lines of a batch; false if it is not written at all.
    pub fn write(&self, text: &mut Vec<u8>, batch: &Batch) -> bool {
        let written = self.takes(batch);
        if written {
            self.lines.write(text, &batch.rows, batch.diff);
        }
        written
    }
}

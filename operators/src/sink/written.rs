//! Which columns and rows a sink of JSON lines writes.

use engine::batch::Batch;
use engine::plan::PlanContext;
use engine::spec::Located;

use super::lines::Lines;
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

    /// Appends the lines of a batch; false if it is not written at all.
    pub fn write(&self, text: &mut Vec<u8>, batch: &Batch) -> bool {
        let written = self.changes || batch.settled && batch.diff > 0;
        if written {
            self.lines.write(text, &batch.rows, batch.diff);
        }
        written
    }
}

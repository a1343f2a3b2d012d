//! Writes rows as JSON lines to a file or to standard output.

mod continued;
mod line;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::metrics::NodeMetrics;
use engine::plan::PlanContext;
use engine::registry::{Inputs, Node, Operator, Port};
use engine::render::BuildContext;
use engine::spec::Located;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

use crate::value::has_text;
use continued::Continued;
use line::Lines;

/// See [`Operator::SUMMARY`].
pub struct Jsonl;

/// Bytes gathered before the file is written.
const BUFFER: usize = 256 * 1024;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct JsonlOptions {
    /// The file, relative to the pipeline's; `-` is standard output. It is emptied at the start and written in place, so
    /// that it can be followed; complete ticks are flushed. A run with a spool that goes on where another was cut off
    /// goes on in the file too: it is cut to what was confirmed, and each row is there once. Missing directories are
    /// made. Several workers write whole batches, in no fixed order; several runs need a file each.
    #[schemars(with = "String")]
    path: Located<PathBuf>,
    /// The columns to write, in this order. Default: all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    columns: Option<Vec<Located<String>>>,
    /// Which rows of a relation are written. A stream has only settled rows.
    #[serde(default)]
    mode: Mode,
}

/// Which rows of a relation are written.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Those that will never be taken back.
    #[default]
    Settled,
    /// Every insertion and every retraction, with a first field `diff`: 1 or -1.
    Changes,
}

impl Operator for Jsonl {
    type Options = JsonlOptions;
    const KIND: &'static str = "sink.jsonl";
    const SUMMARY: &'static str = "Writes rows as JSON lines.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[];

    fn plan(options: JsonlOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.input(0);
        let columns: Vec<(usize, _)> = match &options.columns {
            None => (0..input.schema.fields().len()).map(|at| (at, context.input_span(0))).collect(),
            Some(names) => {
                let found =
                    names.iter().map(|name| Some((context.column(&input.schema, &name.value, name.span)?, name.span)));
                // Collected twice, so that every fault is reported and not the first alone.
                found.collect::<Vec<Option<_>>>().into_iter().collect::<Option<Vec<_>>>()?
            }
        };
        let changes = options.mode == Mode::Changes;
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
        let lines = Lines::new(&input.schema, &columns, changes);
        let path =
            if options.path.value == Path::new("-") { None } else { Some(context.output_path(&options.path.value)) };
        complete.then(|| {
            let (file, continued) = (OnceLock::new(), OnceLock::new());
            Box::new(JsonlNode { path, lines, changes, file, continued }) as Box<dyn Node>
        })
    }
}

struct JsonlNode {
    /// `None` is standard output.
    path: Option<PathBuf>,
    lines: Lines,
    changes: bool,
    /// Opened by the first worker that builds the node, shared by all workers of the process.
    file: OnceLock<Result<Arc<Output>, String>>,
    /// The file of a run that another goes on with; as `file`.
    continued: OnceLock<Arc<Continued>>,
}

impl Node for JsonlNode {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn writes(&self) -> Vec<PathBuf> {
        self.path.iter().cloned().collect()
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let format = Format { lines: self.lines.clone(), changes: self.changes };
        if !context.is_here() {
            // The file is another process's, to whose workers all rows go.
            return vec![swallow(context, input.stream, true)];
        }
        let written = match context.ledger(&context.id) {
            Ok(None) => self.write_through(context, input.stream, format),
            Ok(Some(ledger)) => {
                let new = || Arc::new(Continued::new(self.path.clone(), ledger, context.threads));
                continued::build(context, input.stream, format, Arc::clone(self.continued.get_or_init(new)))
            }
            Err(message) => {
                context.failure()(message);
                swallow(context, input.stream, false)
            }
        };
        vec![written]
    }
}

impl JsonlNode {
    /// Writes rows as they come: nothing of the run will be done again.
    fn write_through<'s>(&self, context: &BuildContext<'s>, input: Stream<'s>, format: Format) -> Stream<'s> {
        let fail = context.failure();
        let mut output = match self.file.get_or_init(|| Output::open(self.path.as_deref()).map(Arc::new)) {
            Ok(output) => Some(Arc::clone(output)),
            Err(message) => {
                fail(message.clone());
                None
            }
        };
        let metrics = Arc::clone(&context.metrics);
        let mut text = Vec::new();
        let mut unflushed: Option<Time> = None;
        input.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(
            Pipeline,
            &context.id,
            move |_capability, _info| {
                move |(input, frontier), _output| {
                    let mut result = Ok(());
                    input.for_each_stamp(|time, data| {
                        for batch in data.flat_map(|batches| batches.drain(..)) {
                            let Some(output) = &output else { continue };
                            text.clear();
                            if result.is_err() || !format.write(&mut text, &batch) {
                                continue;
                            }
                            result = output.write(&text);
                            NodeMetrics::add(&metrics.bytes, text.len());
                            unflushed = unflushed.max(time.least().copied());
                        }
                    });
                    if let Some(output) = &output
                        && unflushed.is_some_and(|time| !frontier.frontier().less_equal(&time))
                    {
                        unflushed = None;
                        result = result.and_then(|()| output.flush());
                    }
                    if let Err(message) = result {
                        fail(message);
                        output = None;
                    }
                }
            },
        )
    }
}

/// In place of the operator that writes, where nothing is written: all workers must build the same dataflow. Time
/// passes only if rows may `pass` unwritten.
fn swallow<'s>(context: &BuildContext<'s>, input: Stream<'s>, pass: bool) -> Stream<'s> {
    let flow = Arc::clone(&context.flow);
    input.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, &context.id, move |capability, _| {
        let mut held = (!pass).then_some(capability);
        move |input, _output| {
            input.for_each_stamp(|_, _| {});
            if flow.lets_go() {
                drop(held.take());
            }
        }
    })
}

/// How rows become lines.
struct Format {
    lines: Lines,
    changes: bool,
}

impl Format {
    /// Appends the lines of a batch; false if it is not written at all.
    fn write(&self, text: &mut Vec<u8>, batch: &Batch) -> bool {
        let written = self.changes || batch.settled && batch.diff > 0;
        if written {
            self.lines.write(text, &batch.rows, batch.diff);
        }
        written
    }
}

/// A file that several workers append to.
struct Output {
    name: String,
    writer: Mutex<BufWriter<Box<dyn Write + Send>>>,
}

impl Output {
    fn open(path: Option<&Path>) -> Result<Self, String> {
        let (name, file): (String, Box<dyn Write + Send>) = match path {
            None => ("standard output".to_owned(), Box::new(std::io::stdout())),
            Some(path) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let open = || {
                    parent.map_or(Ok(()), std::fs::create_dir_all)?;
                    File::create(path)
                };
                let file = open().map_err(|error| format!("{} cannot be created: {error}", path.display()))?;
                (path.display().to_string(), Box::new(file))
            }
        };
        Ok(Self { name, writer: Mutex::new(BufWriter::with_capacity(BUFFER, file)) })
    }

    fn write(&self, text: &[u8]) -> Result<(), String> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(text).map_err(|error| self.cannot(&error))
    }

    fn flush(&self) -> Result<(), String> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.flush().map_err(|error| self.cannot(&error))
    }

    fn cannot(&self, error: &std::io::Error) -> String {
        format!("{} cannot be written: {error}", self.name)
    }
}

//! Writes rows as JSON lines to a file or to standard output.

mod continued;
mod identity;
mod log_file;
mod recent;
mod resume;
mod through;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::batch::{Edge, EdgeType, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::Reopen;
use engine::contract::{Facts, Inputs, Node, Operator, Port};
use engine::spec::{Bytes, Located};

use super::written::{Format, Mode};
use continued::{Continued, Lines};
use engine::contract::sink;
use log_file::{Place, Rotation};
use through::Through;

/// See [`Operator::SUMMARY`].
pub struct Jsonl;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct JsonlOptions {
    /// The file, relative to the pipeline's; `-` is standard output. It is emptied at the start and written in place, so
    /// that it can be followed; complete ticks are flushed. A run with a spool that goes on where another was cut off
    /// goes on in the file too: it is cut to what was confirmed, and each row is there once. Missing directories are
    /// made. Several workers write whole batches, in no fixed order; several runs need a file each. SIGHUP opens the file
    /// again, for a program such as logrotate that has moved it.
    #[schemars(with = "String")]
    path: Located<PathBuf>,
    /// The columns to write, in this order. Default: all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    columns: Option<Vec<Located<String>>>,
    /// Which rows of a relation are written. A stream has only settled rows.
    #[serde(default)]
    mode: Mode,
    /// Whether what is in the file before the first run stays. Default false: it is emptied.
    #[serde(default)]
    append: bool,
    /// Whether the file may be behind a symbolic link. Default false: a link at `path` is refused, so that nobody who may write
    /// to the folder has another file emptied.
    #[serde(default)]
    follow_symlinks: bool,
    /// When the file is put aside and another begun. Default: never.
    #[serde(default)]
    #[schemars(with = "Option<RotateOptions>")]
    rotate: Option<Located<RotateOptions>>,
}

/// When a file is put aside. Its name gets `-` and the time of its last tick, such as `hellos.jsonl-20261124T190000Z`,
/// and `.1`, `.2` … if that name is taken. What is put aside is complete and durable.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct RotateOptions {
    /// At so many bytes, such as `64MiB`, between ticks. Default: at no size.
    size: Option<Bytes>,
    /// At multiples of this, in event time, such as `1h` or `1d` (UTC). A file without lines stays. Default: at no time.
    #[serde(default, deserialize_with = "crate::source::optional_duration")]
    #[schemars(with = "Option<String>")]
    every: Option<Duration>,
    /// How many files that were put aside are kept; older ones are removed and counted as `files_removed`. Default: all.
    keep: Option<usize>,
    /// How files that were put aside are compressed. Default: not at all.
    compress: Option<Compress>,
}

/// A compressed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Compress {
    /// RFC 1952; the name gets `.gz`.
    Gzip,
}

impl Operator for Jsonl {
    type Options = JsonlOptions;
    const KIND: &'static str = "sink.jsonl";
    const SUMMARY: &'static str = "Writes rows as JSON lines.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[];
    const NEEDS: &'static str = "any columns, or those in `columns`; no Binary";

    fn plan(options: JsonlOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let format = Format::plan(options.columns.as_deref(), options.mode, context);
        let standard_output = options.path.value == Path::new("-");
        let path = if standard_output { None } else { Some(context.output_path(&options.path.value)) };
        let rotation = match &options.rotate {
            None => Some(Rotation::default()),
            Some(rotate) => rotation(&rotate.value)
                .and_then(|rotation| match (standard_output, options.follow_symlinks) {
                    (true, _) => Err("standard output cannot be put aside: leave out `rotate`, or name a file"),
                    (_, true) => Err("a file behind a link is not put aside: leave out `rotate` or `follow_symlinks`"),
                    _ => Ok(rotation),
                })
                .map_err(|fault| context.error(rotate.span, fault))
                .ok(),
        };
        let file = OnceLock::new();
        let (format, rotation, append) = (format?, rotation?, options.append);
        let place = path.map(|path| Place { path, follow_symlinks: options.follow_symlinks });
        Some(Box::new(JsonlNode { place, format, rotation, append, file }))
    }
}

/// What is asked for, or what is wrong with it.
fn rotation(options: &RotateOptions) -> Result<Rotation, &'static str> {
    if options.size.is_none() && options.every.is_none() {
        return Err("`rotate` needs `size` or `every`");
    }
    if options.size == Some(Bytes(0)) || options.every.is_some_and(|every| every < Duration::from_secs(1)) {
        return Err("`size` must be greater than 0, and `every` at least 1s");
    }
    let every = options.every.map(|every| Time::try_from(every.as_millis()).unwrap_or(Time::MAX));
    let gzip = options.compress == Some(Compress::Gzip);
    let size = options.size.map(|size| size.0);
    Ok(Rotation { size, every, keep: options.keep, gzip })
}

struct JsonlNode {
    /// `None` is standard output.
    place: Option<Place>,
    format: Format,
    rotation: Rotation,
    append: bool,
    /// Made by the first worker that builds the node, shared by all workers of the process.
    file: OnceLock<Arc<Through>>,
}

impl Node for JsonlNode {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn facts(&self) -> Facts {
        let writes = self.place.iter().map(|place| place.path.clone()).collect();
        let follows = self.place.as_ref().is_some_and(|place| place.follow_symlinks);
        Facts { writes, follows, records_changes: self.format.is_of_changes(), ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        if context.is_noted() {
            let lines = self.format.texts(context, input.stream);
            let make = |_, _: &_| {
                let run = (&context.shared, &context.metrics);
                let file = Arc::new(Continued::new(self.place.clone(), self.append, self.rotation, run));
                Ok(Lines { file: registered(context, file), format: self.format.clone() })
            };
            return vec![sink::build(context, lines, (&context.id, context.home()), |_| true, make)];
        }
        let file = context.is_here().then(|| {
            let make = || {
                let run = (&context.shared, &context.metrics);
                registered(context, Arc::new(Through::new(self.place.clone(), self.append, self.rotation, run)))
            };
            Arc::clone(self.file.get_or_init(make))
        });
        vec![through::build(context, input.stream, self.format.clone(), file)]
    }
}

/// Has SIGHUP open it again.
fn registered<R: Reopen + 'static>(context: &BuildContext<'_>, output: Arc<R>) -> Arc<R> {
    let weak = Arc::downgrade(&output);
    context.shared.outputs.add(&context.id, weak);
    output
}

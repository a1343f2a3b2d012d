//! `source.file`: lines of a file, read once or followed.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::Privileges;
use engine::contract::source;
use engine::contract::{Facts, Inputs, Node, Operator, Port, Recorded};
use engine::contract::{Seen, Sign};
use engine::spec::{Beside, Located, Span};

use super::chunks::ChunkReader;
use super::intake::Settings;
use super::numbers::MAX_FILES;
use super::paths::{Paths, Pattern};
use super::sign;
use super::tail::{Start, Tail};
use crate::format::{LineOptions, Rejects};

mod follow;
mod piped;
mod read_once;
mod saved;
mod seats;

use follow::{FollowReader, Followed};
use piped::Piped;
use read_once::OnceReader;
use seats::MAX_FOLLOWED;

/// Reads lines from a file.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// The file, relative to the pipeline's, or a list of files; in names `*`, `?` and `[a-z]` stand for others, so that `logs/*.log`
    /// is all logs of a folder. A file that is read to its end may be compressed with gzip, zstd or xz. Of several such the one that
    /// is furthest behind in time is read on, and whether a row is late depends on its own file alone; of several that are
    /// followed each goes on from its own place, and new ones that match are read from their beginning. At most 512 files, and
    /// 256 that are followed: the newest, and those beyond wait until others have gone.
    /// `-` is standard input. A named pipe is read until its writer closes it; while it is silent time goes on if what came
    /// last was happening then.
    path: Located<Paths>,
    /// Wait for more at the end of the file, as `tail -F` does, through truncation and rotation, also by `copytruncate` and while the
    /// engine is stopped: what was rotated away is found under its other name, in the copy, or compressed. A file that cannot be
    /// read at the start is an error; later it is said, shown as trouble by `GET /status`, counted in `read_errors`, and tried
    /// again. What is gone before it was read is counted in `skipped_files`, and so is a file that may have been rotated away while
    /// the engine was stopped, but has a name that does not say so: `GET /status` names it. Names that do are numbers, dates and words
    /// such as `old`, besides the log's own. Zeros before a line in `nul_bytes`. Default false.
    #[serde(default)]
    follow: bool,
    /// Where a followed file begins that is there when no place is saved yet: at its `beginning` or at its `end`. A file that comes
    /// later is read from its beginning. Default beginning.
    start: Option<Located<Start>>,
    /// How far a row's time may be before the greatest time seen without being late. Default 60s, with `follow` 2s.
    #[serde(default, deserialize_with = "super::optional_duration")]
    #[schemars(with = "Option<String>")]
    lateness: Option<Duration>,
    /// How far a row's time may be ahead of this machine's clock when the file is followed; further ahead it is rejected.
    /// Of recorded lines one that is more than an hour ahead of all before it and of the next is. Default 10s.
    #[serde(default, deserialize_with = "super::optional_duration")]
    #[schemars(with = "Option<String>")]
    max_ahead: Option<Duration>,
}

/// `source.file`.
pub struct FileSource {
    input: Input,
    settings: Settings,
}

/// What is read.
#[derive(Clone, Debug)]
enum Input {
    Regular(Vec<PathBuf>),
    Followed(Followed),
    /// Reading may block.
    Pipe(PathBuf),
    Stdin,
}

impl Operator for FileSource {
    type Options = Beside<Options, LineOptions>;
    const KIND: &'static str = "source.file";
    const SUMMARY: &'static str = "Reads lines from a file, once or as it grows";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = super::PORTS;
    const GIVES: &'static str = "`time`, `seq` and the columns of `format` (`list formats`) or `columns`; `rejected` has `time`, `seq`, `line` and `reason`";
    const RECORDED: Option<Recorded> = Some(Recorded { kind: Self::KIND, path: "path", without: &["follow", "start"] });

    fn plan(
        Beside { own: options, shared: lines }: Self::Options,
        context: &mut PlanContext<'_>,
    ) -> Option<Box<dyn Node>> {
        let format = lines.choose(context);
        if let Some(start) = options.start.as_ref().filter(|_| !options.follow) {
            context.error(start.span, "`start` goes with `follow: true`: other files are read from their beginning");
        }
        let start = options.start.map(|start| start.value).unwrap_or_default();
        let span = options.path.span;
        let input = input(Paths::list(options.path), span, options.follow, start, context);
        let default = Duration::from_secs(if options.follow { 2 } else { 60 });
        Some(Box::new(Self {
            input: input?,
            settings: Settings {
                format: format?,
                lateness: options.lateness.unwrap_or(default),
                tick: context.tick,
                max_line: lines.max_line(),
                max_rejected: lines.max_rejected(),
                max_ahead: options.follow.then(|| options.max_ahead.unwrap_or_else(super::default_max_ahead)),
            },
        }))
    }
}

/// Leaves each file once that several paths or links lead to.
fn once_each(files: &mut Vec<PathBuf>) {
    let mut seen = HashSet::new();
    files.retain(|file| file.metadata().map_or(true, |is| seen.insert((is.dev(), is.ino()))));
}

/// What these paths are together. Every fault is reported at its place.
fn input(
    paths: Vec<Located<PathBuf>>,
    span: Span,
    follow: bool,
    start: Start,
    context: &mut PlanContext<'_>,
) -> Option<Input> {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    let mut followed = Followed { paths: Vec::new(), patterns: Vec::new(), start };
    let mut complete = true;
    for written in &paths {
        let full = context.path(&written.value);
        match inputs(&written.value, full, follow) {
            Ok(inputs) => inputs.into_iter().for_each(|input| match input {
                Input::Regular(more) => files.extend(more),
                Input::Followed(more) => {
                    followed.paths.extend(more.paths);
                    followed.patterns.extend(more.patterns);
                }
                other => others.push(other),
            }),
            Err(message) => {
                complete = false;
                context.error(written.span, message);
            }
        }
    }
    followed.paths.sort();
    followed.paths.dedup();
    once_each(&mut files);
    let fault = if paths.is_empty() {
        Some("there is no file to read".to_owned())
    } else if files.len() > MAX_FILES {
        Some(format!("these are {} files, and at most {MAX_FILES} can be read side by side", files.len()))
    } else if followed.paths.len() > MAX_FOLLOWED {
        Some(format!("these are {} files, and at most {MAX_FOLLOWED} can be followed", followed.paths.len()))
    } else if followed.paths.len() > seats::most() {
        let (number, most) = (followed.paths.len(), seats::most());
        Some(format!(
            "these are {number} files, and at most {most} can be followed with as many open files as this process may have: \
             raise that limit (`ulimit -n`)"
        ))
    } else if !others.is_empty() && paths.len() > 1 {
        Some("standard input or a pipe cannot be one of several".to_owned())
    } else {
        None
    };
    if let Some(message) = fault.filter(|_| complete) {
        context.error(span, message);
        complete = false;
    }
    match others.pop() {
        _ if !complete => None,
        Some(other) => Some(other),
        None if follow => Some(Input::Followed(followed)),
        None => Some(Input::Regular(files)),
    }
}

/// What a path is.
fn inputs(written: &Path, full: PathBuf, follow: bool) -> Result<Vec<Input>, String> {
    if written == Path::new("-") {
        let fault = "standard input cannot be followed: it is read to its end".to_owned();
        return if follow { Err(fault) } else { Ok(vec![Input::Stdin]) };
    }
    let absolute = std::path::absolute(&full).unwrap_or_else(|_| full.clone());
    let followed = |paths, patterns| vec![Input::Followed(Followed { paths, patterns, start: Start::default() })];
    match Pattern::new(written, &absolute) {
        Some(pattern) if follow => Ok(followed(Vec::new(), vec![pattern])),
        Some(pattern) => match pattern.files() {
            files if files.is_empty() => Err(format!("no file matches {pattern}")),
            files => files.into_iter().map(readable).collect(),
        },
        None if full.is_dir() => Err(format!("{} is a directory", full.display())),
        None if follow => Ok(followed(vec![absolute], Vec::new())),
        None => readable(full).map(|input| vec![input]),
    }
}

/// Checks that a file can be read. A pipe is not opened: that would wait for its writer.
fn readable(path: PathBuf) -> Result<Input, String> {
    let fault = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let kind = std::fs::metadata(&path).map_err(fault)?;
    if kind.is_dir() {
        return Err(format!("{} is a directory", path.display()));
    }
    if !kind.is_file() {
        return Ok(Input::Pipe(path));
    }
    File::open(&path).map_err(fault)?;
    Ok(Input::Regular(vec![path]))
}

impl Node for FileSource {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(Arc::clone(&self.settings.format.schema)), EdgeType::stream(Rejects::schema())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let (settings, resume) = (&self.settings, context.resume());
        let (shared, metrics, id) = (&context.shared, &context.metrics, context.id.as_str());
        let named = |message: String| format!("{id}: {message}");
        match &self.input {
            Input::Regular(files) => source(context, 2, || OnceReader::open(files, settings, shared, metrics, id)),
            Input::Followed(files) => {
                source(context, 2, || FollowReader::open(files, settings, &resume, metrics).map_err(named))
            }
            Input::Pipe(_) | Input::Stdin => source(context, 2, || {
                let path = if let Input::Pipe(path) = &self.input { Some(path.as_path()) } else { None };
                Ok(ChunkReader::new(Piped::open(path, shared, id)?, settings, &resume, metrics))
            }),
        }
    }

    /// What comes through a pipe cannot be read again.
    fn facts(&self) -> Facts {
        let reads = match &self.input {
            Input::Regular(files) => files.clone(),
            Input::Followed(files) => {
                files.paths.iter().cloned().chain(files.patterns.iter().flat_map(Pattern::files)).collect()
            }
            _ => Vec::new(),
        };
        Facts { reads, is_live: !matches!(self.input, Input::Regular(_)), ..Facts::default() }
    }

    fn sign(&self, seen: &Seen) -> Sign {
        sign::lines(seen)
    }

    fn may_read(&self, path: &Path) -> bool {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        matches!(&self.input, Input::Followed(files) if files.patterns.iter().any(|pattern| pattern.matches(&path)))
    }

    fn probe(&self, _: &Privileges) -> Result<(), String> {
        let Input::Followed(files) = &self.input else { return Ok(()) };
        files.paths.iter().try_for_each(|path| Tail::probe(path))
    }
}

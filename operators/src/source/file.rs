//! `source.file`: JSON lines of a file, read once or followed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::metrics::NodeMetrics;
use engine::plan::PlanContext;
use engine::registry::{Inputs, Node, Operator, Port, Recorded};
use engine::render::{BuildContext, Shared};
use engine::signs::{Seen, Sign};
use engine::source::{Poll, Reader, source};
use engine::spec::Located;
use engine::time::wall_clock_ns;

use super::intake::{Intake, Settings};
use super::lines::Lines;
use super::pipe::{self, Pipe};
use super::sign;
use super::tail::{self, Place, Progress, Tail};
use crate::format::{Choice, Columns, FormatName, Rejects, TimeIs, Took, Unit, choose};

/// Reads JSON lines from a file.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// The file, relative to the pipeline's; `-` for standard input. A named pipe is read until its writer closes it;
    /// while it is silent time goes on if what came last was happening then.
    path: Located<PathBuf>,
    /// What the lines are. Each row has the column `repaired`: whether its line had bytes that are no UTF-8 or escapes that
    /// are no JSON, such as Apache's `\xHH`, and was taken with them replaced; such rows are counted. Default: none, then `columns` is needed.
    format: Option<Located<FormatName>>,
    /// For lines of another program: the columns to take, each with the type of the JSON value under the same key
    /// (`text`, `integer`, `float`, `boolean`, `time`, `ip`), or a mapping with `type` and, if needed: `key`, where the
    /// value stands, such as `request.headers.User-Agent[0]`, or a list of the steps if a key has dots itself
    /// (`["http.method"]`); `unit` of a time that is a number; `absent`, texts that stand for no value (not for `text`
    /// by default: `-` and empty; for `ip` also `unix:` and `unknown`). Text keeps the digits of a number. Where nginx
    /// lists values of several upstreams (`0.004, 0.120`) a number is the last. Other keys are ignored, and of equal keys
    /// the last counts. A value that a client writes is best taken as text: one that is not of the column's type rejects
    /// its line. Default: none.
    columns: Option<Located<Columns>>,
    /// Which of `columns` is the event time; it becomes the column `time`. Default `time`.
    time: Option<Located<String>>,
    /// What a time that is a number counts since 1970: `s` (nginx's `$msec`), `ms`, `us` or `ns`, with decimals or
    /// without. A number of another unit is rejected, not guessed. Times may also be dates with their zone: RFC 3339,
    /// with a comma before the fraction, or as Apache writes `%t`. Default `ns`.
    #[serde(default)]
    time_unit: Unit,
    /// Which of `columns` says how long what a line tells of took, and its unit: `{ column: took, unit: ms }`. The event time is
    /// then the end, when the line was written, so that a slow request is not late; rows have the column `begin_time`
    /// besides, with which `correlate` compares. Default: none.
    duration: Option<Located<Took>>,
    /// Whether `time` is the `begin` or the `end` of what a line tells of. Default begin.
    time_is: Option<Located<TimeIs>>,
    /// Wait for more at the end of the file, as `tail -F` does, through truncation and rotation. Default false.
    #[serde(default)]
    follow: bool,
    /// How far a row's time may be before the greatest time seen without being late. Default 60s, with `follow` 2s.
    #[serde(default, deserialize_with = "super::optional_duration")]
    #[schemars(with = "Option<String>")]
    lateness: Option<Duration>,
    /// How far a row's time may be ahead of this machine's clock when the file is followed; further ahead it is rejected.
    /// Of recorded lines one that is more than an hour ahead of all before it and of the next is. Default 10s.
    #[serde(default, deserialize_with = "super::optional_duration")]
    #[schemars(with = "Option<String>")]
    max_ahead: Option<Duration>,
    /// The longest line in bytes; a longer one is rejected. Default 1048576.
    #[serde(default = "super::default_max_line")]
    max_line: usize,
}

/// `source.file`.
pub struct FileSource {
    input: Input,
    settings: Settings,
}

/// What is read.
#[derive(Clone, Debug)]
enum Input {
    Regular(PathBuf),
    Followed(PathBuf),
    /// Reading may block.
    Pipe(PathBuf),
    Stdin,
}

impl Operator for FileSource {
    type Options = Options;
    const KIND: &'static str = "source.file";
    const SUMMARY: &'static str = "Reads JSON lines from a file, once or as it grows";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = super::PORTS;
    const GIVES: &'static str = "`time`, `seq` and the columns of `format` (`list formats`) or `columns`; `rejected` has `time`, `seq`, `line` and `reason`";
    const RECORDED: Option<Recorded> = Some(Recorded { kind: Self::KIND, path: "path", without: &["follow"] });

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let choice = Choice {
            format: options.format.as_ref(),
            columns: options.columns.as_ref(),
            time: options.time.as_ref(),
            unit: options.time_unit,
            duration: options.duration.as_ref(),
            time_is: options.time_is.as_ref(),
        };
        let format = choose(&choice, context);
        let path = context.path(&options.path.value);
        let input = match (options.path.value == Path::new("-"), options.follow) {
            (true, true) => Err("standard input cannot be followed: it is read to its end".to_owned()),
            (true, false) => Ok(Input::Stdin),
            (false, true) if path.is_dir() => Err(format!("{} is a directory", path.display())),
            (false, true) => Ok(Input::Followed(path)),
            (false, false) => readable(path),
        };
        let input = input.map_err(|message| context.error(options.path.span, message));
        let default = Duration::from_secs(if options.follow { 2 } else { 60 });
        Some(Box::new(Self {
            input: input.ok()?,
            settings: Settings {
                format: format?,
                lateness: options.lateness.unwrap_or(default),
                tick: context.tick,
                max_line: options.max_line,
                max_ahead: options.follow.then(|| options.max_ahead.unwrap_or_else(super::default_max_ahead)),
            },
        }))
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
    Ok(Input::Regular(path))
}

impl Node for FileSource {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(Arc::clone(&self.settings.format.schema)), EdgeType::stream(Rejects::schema())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let resume = context.resume();
        let intake = Intake::new(&self.settings, &resume, context.metrics.counter("repaired"));
        let place = resume.cursor.and_then(|cursor| serde_json::from_slice(&cursor.place).ok());
        source(context, 2, || {
            Ok(FileReader {
                bytes: Bytes::open(&self.input, place, &context.shared, || context.metrics.counter("skipped_files"))?,
                lines: Lines::new(self.settings.max_line),
                intake,
                shared: Arc::clone(&context.shared),
                metrics: Arc::clone(&context.metrics),
                id: context.id.clone(),
                stopping: false,
            })
        })
    }

    fn reads(&self) -> Vec<PathBuf> {
        match &self.input {
            Input::Regular(path) | Input::Followed(path) => vec![path.clone()],
            _ => Vec::new(),
        }
    }

    fn sign(&self, seen: &Seen) -> Sign {
        sign::lines(seen)
    }

    /// What comes through a pipe cannot be read again.
    fn is_live(&self) -> bool {
        !matches!(self.input, Input::Regular(_))
    }
}

/// Reads lines on the worker that owns the source.
struct FileReader {
    bytes: Bytes,
    lines: Lines,
    intake: Intake,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    id: String,
    stopping: bool,
}

impl Reader for FileReader {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        if !matches!(self.bytes, Bytes::File { .. }) {
            self.intake.look_at_clock();
        }
        let result = self.read();
        self.intake.flush(out)?;
        result
    }

    fn watermark(&self) -> Time {
        self.intake.watermark()
    }

    fn cursor(&self) -> Option<(u64, Vec<u8>)> {
        let Bytes::Tail(tail) = &self.bytes else { return None };
        let place = tail.place(self.lines.rest())?;
        Some((self.intake.seq(), serde_json::to_vec(&place).ok()?))
    }

    fn stop(&mut self) {
        self.stopping = true;
        if let Bytes::Pipe(pipe) = &mut self.bytes {
            pipe.stop();
        }
    }
}

impl FileReader {
    /// Reads until a batch is full or there is nothing to read.
    fn read(&mut self) -> Result<Poll, String> {
        loop {
            while let Some(line) = self.lines.next() {
                if self.intake.take(line) {
                    return Ok(Poll::Ready);
                }
            }
            if self.stopping && !self.bytes.is_draining() {
                self.intake.finish();
                // What is left is not a whole line yet, or was never asked for.
                return Ok(Poll::Done);
            }
            match self.bytes.read(&mut self.lines)? {
                Got::Bytes(bytes) => {
                    NodeMetrics::add(&self.metrics.bytes, bytes);
                    if !matches!(self.bytes, Bytes::Tail(_)) {
                        self.shared.progress.read.fetch_add(bytes as u64, Relaxed);
                    }
                }
                Got::Restarted => self.last_line(),
                Got::Nothing if self.stopping => return Ok(Poll::Idle),
                Got::Nothing => {
                    // What comes through a pipe is happening now, or it was recorded: then time is not the clock's.
                    let now = wall_clock_ns();
                    let drained = match &self.bytes {
                        Bytes::Pipe(pipe) => pipe.drained(now).filter(|_| self.intake.is_current(now)),
                        _ => Some(now),
                    };
                    if let Some(drained) = drained {
                        self.intake.idle(drained);
                    }
                    return Ok(Poll::Idle);
                }
                Got::End => {
                    // Of a pipe that is left to the next reader the end is not that of a line; the thread ends the last one.
                    if !self.stopping {
                        self.last_line();
                    }
                    self.intake.finish();
                    if !self.intake.has_read() && !self.stopping {
                        tracing::warn!(node = self.id, "the file is empty");
                    }
                    return Ok(Poll::Done);
                }
            }
        }
    }

    /// A line at the end of a text needs no line feed.
    fn last_line(&mut self) {
        if let Some(line) = self.lines.finish() {
            self.intake.take(line);
        }
    }
}

/// Where the bytes come from.
enum Bytes {
    File {
        file: File,
        path: PathBuf,
    },
    Tail(Tail),
    /// A thread reads what may block.
    Pipe(Pipe),
}

/// What a read says.
enum Got {
    Bytes(usize),
    Nothing,
    Restarted,
    End,
}

impl Bytes {
    fn open(
        input: &Input,
        place: Option<Place>,
        shared: &Shared,
        skipped: impl FnOnce() -> Arc<AtomicU64>,
    ) -> Result<Self, String> {
        match input {
            Input::Regular(path) => {
                let fault = |error| format!("{} cannot be read: {error}", path.display());
                let file = File::open(path).map_err(fault)?;
                shared.progress.total.fetch_add(file.metadata().map_err(fault)?.len(), Relaxed);
                Ok(Self::File { file, path: path.clone() })
            }
            Input::Followed(path) => Ok(Self::Tail(match place {
                Some(place) => Tail::resume(path.clone(), place, skipped()),
                None => Tail::new(path.clone(), skipped()),
            })),
            Input::Pipe(path) => Pipe::open(Some(path)).map(Self::Pipe),
            Input::Stdin => Pipe::open(None).map(Self::Pipe),
        }
    }

    fn read(&mut self, lines: &mut Lines) -> Result<Got, String> {
        match self {
            Self::File { file, path } => {
                let bytes =
                    tail::read(file, lines.room()).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
                lines.filled(bytes);
                Ok(if bytes == 0 { Got::End } else { Got::Bytes(bytes) })
            }
            Self::Tail(tail) => Ok(match tail.read(lines.room())? {
                Progress::Bytes(bytes) => {
                    lines.filled(bytes);
                    Got::Bytes(bytes)
                }
                Progress::Waiting => Got::Nothing,
                Progress::Restarted => Got::Restarted,
            }),
            Self::Pipe(pipe) => Ok(match pipe.read()? {
                pipe::Got::Chunk(chunk) => {
                    lines.push(&chunk);
                    Got::Bytes(chunk.len())
                }
                pipe::Got::Nothing => Got::Nothing,
                pipe::Got::End => Got::End,
            }),
        }
    }

    /// Whether bytes that were taken before the stop may still come, which nobody else can read.
    fn is_draining(&self) -> bool {
        matches!(self, Self::Pipe(pipe) if pipe.is_draining())
    }
}

//! `source.feedback`: what analysts say of what the pipeline found, by `POST /api/feedback`.
//!
//! What is said is in a file before it is answered, and goes into the source's log like the rows of any live source, at the
//! time at which it takes effect. A log cannot reach back for as long as feedback is kept: it has the time of every tick. So
//! the source says once an hour, and at each start, all that is in effect. Who reads the log from two hours back knows it.

mod desk;
mod entry;
mod journal;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use engine::batch::{Batch, Edge, EdgeType, MAX_ROWS, Stream, Time, stream_schema, time_array, time_type};
use engine::contract::{
    BuildContext, Facts, Inputs, Node, Operator, PlanContext, Poll, Port, Reader, Resume, nanos, source, wall_clock_ns,
};

pub(crate) use entry::{ABOUT, Label};

use desk::Desk;
use entry::Entry;

/// The name under which feedback comes in.
pub(crate) const INTAKE: &str = "feedback";

/// How often all that is in effect is said again.
pub(crate) const REPEATED: Duration = Duration::from_secs(3600);

/// See [`Operator::SUMMARY`].
pub struct FeedbackSource;

/// Options of `source.feedback`.
///
/// Whoever reaches the web service can give feedback, and `who` is what they say: let it listen on the loopback address,
/// or put a proxy in front that knows its users.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// How long what was said counts, unless it is taken back or said anew. Default 90d.
    #[serde(default, deserialize_with = "super::optional_duration")]
    #[schemars(with = "Option<String>")]
    keep: Option<Duration>,
    /// How much may be in effect at a time; further feedback is refused. What is taken back counts for as long as it would
    /// have been in effect. Default 10000.
    #[serde(default = "ten_thousand")]
    max_entries: usize,
}

/// The default of `keep`: 90 days.
const KEEP: Duration = Duration::from_secs(90 * 86_400);

fn ten_thousand() -> usize {
    10_000
}

/// The most that `max_entries` can be.
pub(crate) const MOST_ENTRIES: usize = 100_000;

/// A node whose options have been checked.
struct Planned {
    path: PathBuf,
    keep: Duration,
    max_entries: usize,
    tick: Time,
}

/// The columns of feedback.
pub(crate) fn schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let about = ABOUT.map(|name| text(name, true));
    let said = [text("label", true), text("who", false), text("note", true), text("id", false)];
    let times = ["given_at", "until"].map(|name| Field::new(name, time_type(), false));
    let again = Field::new("again", DataType::Boolean, false);
    stream_schema(about.into_iter().chain(said).chain(times).chain([again]))
}

impl Operator for FeedbackSource {
    type Options = Options;
    const KIND: &'static str = "source.feedback";
    const SUMMARY: &'static str = "What analysts say of detections: `POST /api/feedback`, or the command `feedback`.";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = &[Port {
        name: "out",
        summary: "A row for each time that something was said, and once an hour for all that is in effect (`again`).",
    }];
    const GIVES: &'static str = "`time` (when it takes effect) and `seq`; `src_ip`, `host`, `ja4` (whom it is about; null is any); `label` (false_positive, \
         true_positive; null takes back what was said of exactly these before), `who`, `note`, `id`, `given_at`, `until` \
         and `again` (Boolean)";

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let keep = options.keep.unwrap_or(KEEP);
        if !(1..=MOST_ENTRIES).contains(&options.max_entries) || keep.is_zero() {
            let message = format!("`max_entries` is from 1 to {MOST_ENTRIES}, and `keep` greater than 0");
            context.error(context.span, message);
            return None;
        }
        Some(Box::new(Planned {
            path: context.data_dir().join("feedback").join(format!("{}.jsonl", context.id)),
            keep,
            max_entries: options.max_entries,
            tick: Time::try_from(context.tick.as_millis()).unwrap_or(1).max(1),
        }))
    }
}

impl Node for Planned {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(schema())]
    }

    fn facts(&self) -> Facts {
        Facts { is_live: true, writes: vec![self.path.clone()], ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        source(context, 1, || {
            let desk = Arc::new(Desk::open(&self.path, self.keep, self.max_entries)?);
            context.shared.intakes.open(INTAKE, &desk)?;
            Ok(Said::new(desk, self.tick, &context.resume()))
        })
    }
}

/// Hands on what was said.
struct Said {
    desk: Arc<Desk>,
    schema: SchemaRef,
    tick: Time,
    /// The time, in ns. Rows have the time at which they are handed on, so that none is late and none waits.
    now: i64,
    /// When all is to be said again.
    again_at: i64,
    /// The position of the next row.
    seq: u64,
    /// All that was given up to here, in ns, was handed on in this run or an earlier one.
    handed_on: i64,
    is_stopped: bool,
}

impl Said {
    fn new(desk: Arc<Desk>, tick: Time, resume: &Resume) -> Self {
        let place = resume.cursor.as_ref().and_then(|cursor| cursor.place.as_slice().try_into().ok());
        Self {
            desk,
            schema: schema(),
            tick,
            now: i64::try_from(resume.watermark).unwrap_or(i64::MAX).saturating_mul(1_000_000),
            again_at: i64::MIN,
            seq: resume.seq,
            handed_on: place.map_or(i64::MIN, i64::from_le_bytes),
            is_stopped: false,
        }
    }

    fn rows(&mut self, said: &[Entry]) -> Result<Batch, ArrowError> {
        let text = |of: &dyn Fn(&Entry) -> Option<&str>| -> ArrayRef {
            Arc::new(said.iter().map(of).collect::<StringArray>())
        };
        let first = self.seq;
        self.seq = first.saturating_add(said.len() as u64);
        let mut columns: Vec<ArrayRef> =
            vec![time_array(vec![self.now; said.len()]), Arc::new(UInt64Array::from_iter_values(first..self.seq))];
        columns.extend((0..ABOUT.len()).map(|nth| text(&|entry| entry.about[nth].as_deref())));
        columns.push(text(&|entry| entry.label.map(Label::name)));
        columns.push(text(&|entry| Some(&entry.who)));
        columns.push(text(&|entry| entry.note.as_deref()));
        columns.push(text(&|entry| Some(&entry.id)));
        columns.push(time_array(said.iter().map(|entry| entry.given_at).collect()));
        columns.push(time_array(said.iter().map(|entry| entry.until).collect()));
        let again = said.iter().map(|entry| Some(entry.given_at <= self.handed_on));
        columns.push(Arc::new(again.collect::<BooleanArray>()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map(Batch::new)
    }
}

impl Reader for Said {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        // A clock that goes back must not make anything late.
        self.now = wall_clock_ns().max(self.now);
        let is_due = self.now >= self.again_at;
        if is_due {
            self.again_at = self.now.saturating_add(nanos(REPEATED));
        }
        let (new, all) = self.desk.hand_on(self.now, is_due);
        for said in [new, all] {
            for said in said.chunks(MAX_ROWS) {
                let rows = self.rows(said).map_err(|error| format!("feedback does not fit its columns: {error}"))?;
                out.push((0, rows));
            }
            self.handed_on = said.iter().map(|entry| entry.given_at).fold(self.handed_on, i64::max);
        }
        Ok(if self.is_stopped { Poll::Done } else { Poll::Idle })
    }

    fn watermark(&self) -> Time {
        let ms = Time::try_from(self.now / 1_000_000).unwrap_or(0);
        ms - ms % self.tick
    }

    fn cursor(&self) -> Option<(u64, Vec<u8>)> {
        Some((self.seq, self.handed_on.to_le_bytes().to_vec()))
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        self.desk.close();
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use engine::contract::{Cursor, Intake};
    use serde_json::json;

    use super::*;

    fn read(said: &mut Said) -> Vec<(String, Option<String>, bool)> {
        let (before, mut out) = (said.watermark(), Vec::new());
        said.next(&mut out).expect("read");
        let mut rows = Vec::new();
        for (_, batch) in out {
            let text = |name: &str| batch.rows.column_by_name(name).expect("there").as_string::<i32>().clone();
            let again = batch.rows.column_by_name("again").expect("there").as_boolean().clone();
            let times = batch.times().expect("times").values().to_vec();
            assert!(times.iter().all(|ns| Time::try_from(ns / 1_000_000).expect("ms") >= before), "none is late");
            let labels = text("label");
            let label = |row: usize| labels.iter().nth(row).flatten().map(str::to_owned);
            rows.extend((0..again.len()).map(|row| (text("host").value(row).to_owned(), label(row), again.value(row))));
        }
        rows
    }

    #[test]
    fn what_is_said_is_handed_on_at_once_and_all_of_it_again_after_a_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.jsonl");
        let open = || Arc::new(Desk::open(&path, Duration::from_secs(99), 10).expect("opened"));
        let say = |desk: &Desk, host: &str, label: &str| {
            desk.take(json!({ "host": host, "label": label, "who": "ada" })).expect("taken");
        };
        let desk = open();
        let mut said = Said::new(Arc::clone(&desk), 100, &Resume::default());
        assert_eq!(read(&mut said), []);
        say(&desk, "a", "false_positive");
        say(&desk, "b", "true_positive");
        let row = |host: &str, label: Option<&str>, again| (host.to_owned(), label.map(str::to_owned), again);
        let expected = [row("a", Some("false_positive"), false), row("b", Some("true_positive"), false)];
        assert_eq!(read(&mut said), expected);
        assert_eq!(read(&mut said), []);
        let (seq, place) = said.cursor().expect("a place");
        let watermark = said.watermark();
        // Taken in and answered, and then the process is killed.
        say(&desk, "a", "undo");
        drop((said, desk));
        let resume = Resume { watermark, seq, cursor: Some(Cursor { seq, place, logged: Vec::new() }) };
        let mut said = Said::new(open(), 100, &resume);
        assert_eq!(read(&mut said), [row("a", None, false), row("b", Some("true_positive"), true)]);
        assert_eq!(said.cursor().expect("a place").0, 4);
        said.stop();
        let mut out = Vec::new();
        assert_eq!((said.next(&mut out), out.len()), (Ok(Poll::Done), 0));
    }
}

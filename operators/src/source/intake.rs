//! Lines to batches: parses, judges each row by the watermark, and keeps what is refused.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use engine::batch::{Batch, Time};
use engine::contract::Resume;
use engine::contract::{Arrival, MAX_FUTURE, NodeMetrics, Watermark, nanos, wall_clock_ns};

use super::limit::Limit;
use super::lines::Line;
use super::numbers::{Numbers, of_files};
use crate::format::{Format, LineParser, Reject, Rejects, Rows};

/// Rows of a batch.
const BATCH_ROWS: usize = 4096;

/// Text of a batch in bytes, a line more or less.
const BATCH_BYTES: usize = 1 << 20;

/// How far the time of a recorded line may be ahead of all lines before it without being questioned.
const JUMP: Duration = Duration::from_secs(3600);

/// How old the newest row may be for its source to be taken for one where things are happening now.
const CURRENT: Duration = Duration::from_secs(60);

/// Port of the rows.
const OUT: usize = 0;

/// Port of the refused lines.
const REJECTED: usize = 1;

/// What a source of lines has read and not handed on.
#[derive(Debug)]
pub(super) struct Intake {
    parser: LineParser,
    /// Of a source of several files each has its own.
    tracks: Vec<Track>,
    /// What new ones begin with.
    fresh: Watermark,
    /// No watermark that was given is greater.
    at: Time,
    on_time: Rows,
    late: Rows,
    rejects: Rejects,
    max_line: usize,
    numbers: Numbers,
    /// Lines that are in the log already, though the source reads them again: the file, and how many lines of it come before.
    logged: HashSet<(usize, u64)>,
    /// Bytes of the lines in the batch.
    bytes: usize,
    /// Whether any line came.
    has_read: bool,
    live: bool,
    /// The wall clock in ms, for a live source.
    now: Time,
    max_rejected: u32,
    /// Counts rows whose lines were repaired.
    repaired: Arc<AtomicU64>,
    /// Counts refused lines that do not leave.
    left_out: Arc<AtomicU64>,
    metrics: Arc<NodeMetrics>,
}

/// Lines that come one after another. Whether one is late depends on those before it in its file alone.
#[derive(Debug)]
struct Track {
    watermark: Watermark,
    /// Lines so far in this run.
    lines: u64,
    /// Lines before.
    before: u64,
    /// A recorded line whose time is far ahead of all before it, with its position and time. The next line tells
    /// whether time has moved on or this one is wrong: it must not make all that follow late.
    suspect: Option<(u64, i64, Vec<u8>)>,
    /// How many refused lines leave.
    limit: Limit,
    /// Nothing will come any more.
    ended: bool,
}

/// How lines are taken in.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub format: Arc<Format>,
    /// How far a row may be behind the greatest time seen.
    pub lateness: Duration,
    pub tick: Duration,
    /// In bytes.
    pub max_line: usize,
    /// The most refused lines of a file that leave in a second.
    pub max_rejected: u32,
    /// How far the time of a line that comes now may be ahead of the wall clock; `None` for recorded lines.
    pub max_ahead: Option<Duration>,
}

impl Intake {
    /// Of one text, such as what comes over a socket.
    pub(super) fn new(settings: &Settings, resume: &Resume, metrics: &Arc<NodeMetrics>) -> Self {
        let begin = resume.cursor.as_ref().map_or(resume.seq, |cursor| cursor.seq);
        let mut intake = Self::of_files(settings, resume.watermark, Numbers::new(begin, false), metrics);
        intake.pass_over_lines(0, begin, resume.cursor.as_ref().map_or(&[], |cursor| &cursor.logged));
        intake.begin(0, 0);
        // Also before this run: time goes on where it was, though nothing more may come.
        intake.has_read = begin > 0;
        intake
    }

    /// Of several files, none of which is there yet; those of a log go on from the watermark.
    pub(super) fn of_files(settings: &Settings, watermark: Time, numbers: Numbers, metrics: &Arc<NodeMetrics>) -> Self {
        let Settings { format, lateness, tick, max_line, max_rejected, max_ahead } = settings.clone();
        let mut fresh = Watermark::new(lateness, tick);
        fresh.resume(watermark);
        Self {
            on_time: Rows::new(&format),
            late: Rows::new(&format),
            rejects: Rejects::default(),
            parser: LineParser::new(format, wall_clock_ns())
                .allow_ahead(max_ahead.unwrap_or(MAX_FUTURE), wall_clock_ns()),
            tracks: Vec::new(),
            fresh,
            at: watermark,
            max_line,
            numbers,
            logged: HashSet::new(),
            bytes: 0,
            has_read: false,
            live: max_ahead.is_some(),
            now: 0,
            max_rejected,
            repaired: metrics.counter("repaired"),
            left_out: metrics.counter("rejected_left_out"),
            metrics: Arc::clone(metrics),
        }
    }

    /// Lines behind the files' places that the log has, by their positions there. The files have begun.
    pub(super) fn pass_over(&mut self, logged: &[u64]) {
        self.logged = of_files(logged, |file| self.tracks.get(file).map_or(0, |track| track.before));
    }

    /// The same where `file` was the only one, with positions that count lines from `begin` on.
    pub(super) fn pass_over_lines(&mut self, file: usize, begin: u64, logged: &[u64]) {
        self.logged = logged.iter().filter_map(|seq| Some((file, seq.checked_sub(begin)?))).collect();
    }

    /// Begins with a file, of which `before` lines were read earlier. Numbers of files that have ended are used again.
    pub(super) fn begin(&mut self, file: usize, before: u64) {
        let fresh = self.fresh.clone();
        let limit = Limit::new(self.max_rejected);
        let new = |watermark, before, ended| Track {
            watermark,
            lines: 0,
            before,
            suspect: None,
            limit: limit.clone(),
            ended,
        };
        let ended = || new(fresh.clone(), 0, true);
        self.tracks.resize_with(self.tracks.len().max(file + 1), ended);
        let mut watermark = self.fresh.clone();
        watermark.resume(self.watermark());
        self.tracks[file] = new(watermark, before, false);
        self.parser.begin(file, None);
    }

    /// A file has ended: nothing will tell that its line in question is wrong.
    pub(super) fn end(&mut self, file: usize) {
        self.judge(file, None);
        self.at = self.watermark();
        self.tracks[file].ended = true;
    }

    /// Lines of a file so far, those of earlier runs included.
    pub(super) fn lines_of(&self, file: usize) -> u64 {
        self.tracks[file].before + self.tracks[file].lines
    }

    /// How far a file is in event time, in ns less the lateness.
    pub(super) fn time_of(&self, file: usize) -> i64 {
        self.tracks[file].watermark.at_ns()
    }

    /// Takes a line; whether the batch is full now.
    pub(super) fn take(&mut self, line: Line<'_>) -> bool {
        self.take_of(0, line)
    }

    /// Takes a line of a file; whether the batch is full now.
    pub(super) fn take_of(&mut self, file: usize, line: Line<'_>) -> bool {
        self.has_read = true;
        // Only lines that may become rows count for positions that tell how many of a file came.
        if matches!((&self.numbers, line), (Numbers::Files(_), Line::Whole(text)) if text.trim_ascii().is_empty()) {
            return false;
        }
        let track = &mut self.tracks[file];
        let nth = track.lines;
        let seq = self.numbers.give(file, track.before + nth);
        track.lines += 1;
        if !self.logged.is_empty() && self.logged.remove(&(file, nth)) {
            return false;
        }
        let (text, row) = match line {
            Line::Whole(text) => {
                let text = text.trim_ascii();
                if text.is_empty() {
                    return false;
                }
                self.turn_to(file, text);
                (text, self.parser.parse(text))
            }
            Line::TooLong(head) => (head, Err(Reject::TooLong(self.max_line))),
        };
        let track = &mut self.tracks[file];
        self.bytes += text.len();
        match row {
            Ok(row) if !self.live && track.suspect.is_none() && track.watermark.is_ahead(row.time, JUMP) => {
                track.suspect = Some((seq, row.time, text.to_vec()));
            }
            Ok(row) if track.suspect.is_some() => {
                let time = row.time;
                self.judge(file, Some(time));
                self.enter(file, seq, text);
            }
            Ok(row) => {
                self.repaired.fetch_add(row.repaired.into(), Relaxed);
                match track.watermark.observe(row.time) {
                    Arrival::OnTime => self.on_time.push(seq, &row),
                    Arrival::Late => self.late.push(seq, &row),
                }
            }
            Err(Reject::Directive) => {}
            Err(reason) => self.reject(file, seq, text, &reason),
        }
        self.is_full()
    }

    /// The line that is read next is of this file.
    fn turn_to(&mut self, file: usize, text: &[u8]) {
        if self.tracks[file].suspect.is_some() && self.parser.is_directive(text) {
            // What is in question would not be read as it was.
            self.judge(file, None);
        }
        self.parser.turn_to(file);
    }

    /// A file goes on with what its directives have said.
    pub(super) fn remember(&mut self, file: usize, directives: &str) {
        self.parser.begin(file, Some(directives));
    }

    /// What the directives of a file have said, where its format has some.
    pub(super) fn memory(&self, file: usize) -> Option<String> {
        self.parser.memory(file)
    }

    /// The input has ended: nothing will tell that the lines in question are wrong.
    pub(super) fn finish(&mut self) {
        (0..self.tracks.len()).for_each(|file| self.judge(file, None));
    }

    /// Decides on the line in question by the time of the next.
    fn judge(&mut self, file: usize, next: Option<i64>) {
        let Some((seq, time, text)) = self.tracks[file].suspect.take() else { return };
        if next.is_none_or(|next| next >= time.saturating_sub(nanos(JUMP))) {
            self.enter(file, seq, &text);
        } else {
            self.reject(file, seq, &text, &Reject::Jump(time));
        }
    }

    /// Takes in a line that has been understood before.
    fn enter(&mut self, file: usize, seq: u64, text: &[u8]) {
        self.parser.turn_to(file);
        let Ok(row) = self.parser.parse(text) else { return };
        self.repaired.fetch_add(row.repaired.into(), Relaxed);
        match self.tracks[file].watermark.observe(row.time) {
            Arrival::OnTime => self.on_time.push(seq, &row),
            Arrival::Late => self.late.push(seq, &row),
        }
    }

    fn reject(&mut self, file: usize, seq: u64, text: &[u8], reason: &Reject) {
        let track = &mut self.tracks[file];
        let time = track.watermark.time();
        if !track.limit.passes(if self.live { self.now } else { time }) {
            self.left_out.fetch_add(1, Relaxed);
            return NodeMetrics::add(&self.metrics.rejected, 1);
        }
        let now = i64::try_from(time.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        self.rejects.push(now, seq, text, &reason.to_string());
    }

    fn is_full(&self) -> bool {
        self.on_time.len() + self.late.len() + self.rejects.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Whether the last rows were of about now.
    pub(super) fn is_current(&self, now_ns: i64) -> bool {
        self.has_read && self.tracks.iter().any(|track| track.watermark.trails(now_ns, CURRENT))
    }

    /// Moves time on while a live source is idle.
    pub(super) fn idle(&mut self, drained_ns: i64) {
        self.idle_of(0, drained_ns);
    }

    /// Moves time on in a file that has nothing new.
    pub(super) fn idle_of(&mut self, file: usize, drained_ns: i64) {
        self.tracks[file].watermark.idle(drained_ns);
    }

    /// Moves time on while there is no file.
    pub(super) fn idle_without(&mut self, now_ns: i64) {
        if self.tracks.iter().all(|track| track.ended) {
            self.fresh.idle(now_ns);
            self.at = self.at.max(self.fresh.time());
        }
    }

    /// Moves time on to now: the source has stopped for good, and nothing from before can come later.
    pub(super) fn close(&mut self) {
        self.tracks.iter_mut().for_each(|track| track.watermark.close(wall_clock_ns()));
    }

    /// Whether time is past every row that was read.
    pub(super) fn has_passed_all(&self) -> bool {
        self.tracks.iter().all(|track| track.watermark.has_passed_all())
    }

    /// Says what the wall clock is: event times far ahead of it are refused.
    pub(super) fn look_at_clock(&mut self) {
        let now = wall_clock_ns();
        self.now = Time::try_from(now / 1_000_000).unwrap_or(0);
        self.parser.set_now(now);
    }

    /// The watermark of all files together is that of the one that is furthest behind.
    pub(super) fn watermark(&self) -> Time {
        let open = self.tracks.iter().filter(|track| !track.ended);
        open.map(|track| track.watermark.time()).min().map_or(self.at, |least| least.max(self.at))
    }

    /// The least position that the next line can have.
    pub(super) fn seq(&self) -> u64 {
        self.numbers.next()
    }

    /// Whether any line came.
    pub(super) fn has_read(&self) -> bool {
        self.has_read
    }

    /// Hands on what has been read.
    pub(super) fn flush(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<(), String> {
        self.bytes = 0;
        self.at = self.watermark();
        let fault = |error: arrow::error::ArrowError| format!("rows do not fit their columns: {error}");
        if !self.on_time.is_empty() {
            out.push((OUT, Batch::new(self.on_time.take().map_err(fault)?)));
        }
        if !self.late.is_empty() {
            out.push((OUT, Batch { late: true, ..Batch::new(self.late.take().map_err(fault)?) }));
        }
        if !self.rejects.is_empty() {
            out.push((REJECTED, Batch::new(self.rejects.take().map_err(fault)?)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Unit;

    const HOUR_NS: i64 = 3_600_000_000_000;
    const START_NS: i64 = 1_700_000_000_000_000_000;

    /// Rows on time, late rows and refused lines of recorded lines with these times, in hours after the first.
    fn counts(hours: &[i64]) -> (usize, usize, usize) {
        let settings = Settings {
            format: Format::reqin_log(Unit::Ns),
            lateness: Duration::from_secs(60),
            tick: Duration::from_millis(100),
            max_line: 1 << 20,
            max_rejected: 1_000,
            max_ahead: None,
        };
        let mut intake = Intake::new(&settings, &Resume::default(), &Arc::default());
        for hour in hours {
            let ns = START_NS + hour * HOUR_NS;
            let line = format!("{{\"timestamp\":{ns},\"src_ip\":\"192.0.2.1\",\"src_port\":1}}");
            intake.take(Line::Whole(line.as_bytes()));
        }
        intake.finish();
        (intake.on_time.len(), intake.late.len(), intake.rejects.len())
    }

    #[test]
    fn one_recorded_time_far_ahead_does_not_make_the_rest_late() {
        assert_eq!(counts(&[0, 0, 20, 0, 0]), (4, 0, 1));
        assert_eq!(counts(&[0, 20, 0, 30, 0]), (3, 0, 2));
    }

    #[test]
    fn a_gap_in_what_was_recorded_is_no_fault() {
        assert_eq!(counts(&[0, 20, 20, 21]), (4, 0, 0));
        assert_eq!(counts(&[0, 20]), (2, 0, 0), "the last line is taken at its word");
        assert_eq!(counts(&[20, 0]), (1, 1, 0), "nothing is known before the first line");
    }

    /// Without any lateness.
    fn strict() -> Settings {
        Settings {
            format: Format::reqin_log(Unit::Ns),
            lateness: Duration::ZERO,
            tick: Duration::from_millis(100),
            max_line: 1 << 20,
            max_rejected: 1_000,
            max_ahead: Some(Duration::from_secs(10)),
        }
    }

    #[test]
    fn a_source_that_goes_on_has_read_though_nothing_comes() {
        let settings = strict();
        let now = wall_clock_ns();
        let resume = Resume { watermark: now as u64 / 1_000_000, seq: 7, cursor: None };
        assert!(Intake::new(&settings, &resume, &Arc::default()).is_current(now));
        assert!(!Intake::new(&settings, &Resume::default(), &Arc::default()).is_current(now));
    }

    #[test]
    fn refused_lines_beyond_the_limit_are_counted_and_left_out() {
        let metrics: Arc<NodeMetrics> = Arc::default();
        let mut settings = Settings { max_rejected: 3, max_ahead: None, ..strict() };
        let line = |second: i64| {
            format!("{{\"timestamp\":{},\"src_ip\":\"192.0.2.1\",\"src_port\":1}}", START_NS + second * 1_000_000_000)
        };
        let mut intake = Intake::new(&settings, &Resume::default(), &metrics);
        for second in [0, 1] {
            intake.take(Line::Whole(line(second).as_bytes()));
            (0..10).for_each(|_| _ = intake.take(Line::Whole(b"x")));
        }
        assert_eq!((intake.on_time.len(), intake.rejects.len()), (2, 6), "three in each second of event time");
        assert_eq!(metrics.counter("rejected_left_out").load(Relaxed), 14);
        assert_eq!(metrics.rejected.load(Relaxed), 14, "those that leave are counted when they do");
        settings.max_ahead = Some(Duration::from_secs(10));
        let mut intake = Intake::new(&settings, &Resume::default(), &metrics);
        intake.look_at_clock();
        let datagram = b"x\n".repeat(128 << 10);
        datagram.split(|byte| *byte == b'\n').for_each(|line| _ = intake.take(Line::Whole(line)));
        assert_eq!(intake.rejects.len(), 3, "lines of one byte do not become a hundred times their size");
    }

    #[test]
    fn what_an_earlier_run_logged_is_passed_over() {
        let settings = strict();
        let cursor = engine::contract::Cursor { seq: 5, place: Vec::new(), logged: vec![6] };
        let mut intake =
            Intake::new(&settings, &Resume { watermark: 0, seq: 7, cursor: Some(cursor) }, &Arc::default());
        for port in 5..9 {
            let line = format!("{{\"timestamp\":{START_NS},\"src_ip\":\"192.0.2.1\",\"src_port\":{port}}}");
            intake.take(Line::Whole(line.as_bytes()));
        }
        assert_eq!((intake.on_time.len(), intake.seq()), (3, 9));
    }
}

//! A file of lines that a later run goes on with: it grows by whole ticks, in their order, and what is confirmed is a
//! length. What stands behind that length after a crash is cut off and written again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::batch::{Batch, Stream, Time};
use engine::flow::{Outlet, Turn};
use engine::ledger::{Confirmed, Ledger};
use engine::metrics::NodeMetrics;
use engine::outputs::Reopen;
use engine::render::BuildContext;
use serde_json::json;

use super::log_file::{LogFile, Rotation};
use crate::sink::operator::{self, CLOSED, Step, Work};
use crate::sink::written::Format;

/// Lines are made durable, and confirmed, at most this often.
const CONFIRM: Duration = Duration::from_millis(200);

/// The file, shared by the workers of a process.
pub(super) struct Continued {
    /// `None` is standard output, which takes what it gets.
    path: Option<PathBuf>,
    /// Whether what is in a file of which nothing was confirmed stays.
    append: bool,
    rotation: Rotation,
    metrics: Arc<NodeMetrics>,
    state: Mutex<State>,
}

struct State {
    /// Why nothing is written and confirmed any more.
    failure: Option<String>,
    ledger: Ledger,
    /// `None` until nobody else writes to the file any more.
    file: Option<Target>,
    /// All that is to be written here is.
    over: bool,
    /// Up to where each worker has handed its ticks over.
    closed: Vec<Time>,
    /// Complete ticks of some workers.
    waiting: BTreeMap<(Time, usize), Vec<u8>>,
    /// Every tick before this is in the file.
    written: Time,
    confirmed: Time,
    synced: Instant,
}

/// What lines are written to.
enum Target {
    File(LogFile),
    StandardOutput,
}

impl Target {
    fn write(&mut self, tick: Time, text: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(tick, text),
            Self::StandardOutput => io::stdout().lock().write_all(text),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync(),
            Self::StandardOutput => io::stdout().lock().flush(),
        }
    }

    /// Whether the file should be put aside before lines of `tick` are written.
    fn is_due(&self, tick: Time) -> bool {
        matches!(self, Self::File(file) if file.is_due(tick))
    }
}

/// Builds the operator; the stream's frontier is how far the lines are durable.
pub(super) fn build<'s>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    format: Format,
    file: Arc<Continued>,
) -> Stream<'s> {
    operator::everywhere(context, input, |address| {
        let worker = context.worker % context.threads;
        let mut hand = Hand { format, file, worker, ticks: BTreeMap::new(), outlet: context.outlet(address) };
        if hand.outlet.may_open() {
            hand.file.with(|state| hand.file.open(state, 0))?;
            hand.outlet.opened();
        }
        Ok(hand)
    })
}

/// One worker's lines.
struct Hand {
    format: Format,
    file: Arc<Continued>,
    worker: usize,
    /// Lines of ticks that are not complete.
    ticks: BTreeMap<Time, Vec<u8>>,
    outlet: Outlet,
}

impl Work for Hand {
    fn take(&mut self, tick: Time, batches: Vec<Batch>) -> Result<(), String> {
        for batch in batches {
            self.format.write(self.ticks.entry(tick).or_default(), &batch);
        }
        Ok(())
    }

    fn advance(&mut self, frontier: Time) -> Result<Step, String> {
        let file = Arc::clone(&self.file);
        file.with(|state| self.hand_over(state, frontier))
    }
}

impl Hand {
    /// Gives what is complete to the file, and writes what is complete on all workers.
    fn hand_over(&mut self, state: &mut State, frontier: Time) -> Result<Step, String> {
        let range = match self.outlet.turn(frontier) {
            Turn::Wait => return Ok(Step { hold: state.confirmed, again: true }),
            Turn::Write(range) => range,
        };
        let rest = if frontier == CLOSED { BTreeMap::new() } else { self.ticks.split_off(&frontier) };
        let complete = std::mem::replace(&mut self.ticks, rest);
        if range.start == Time::MAX {
            // Another dataflow writes; so far this one only gets ready.
            return Ok(Step { hold: frontier, again: false });
        }
        self.file.open(state, range.start)?;
        self.outlet.opened();
        let (from, worker, path) = (state.written, self.worker, self.file.path.as_deref());
        let own = complete.into_iter().filter(|(tick, text)| *tick >= from && range.contains(tick) && !text.is_empty());
        state.waiting.extend(own.map(|(tick, text)| ((tick, worker), text)));
        if let Some(closed) = state.closed.get_mut(worker) {
            *closed = frontier;
        }
        let closed = state.closed.iter().min().copied().unwrap_or(frontier);
        let upto = closed.min(range.end);
        let bytes = state.write(upto, path)?;
        NodeMetrics::add(&self.file.metrics.bytes, bytes);
        let ends = upto >= range.end;
        let due = state.synced.elapsed() >= CONFIRM || self.outlet.is_parking() || ends || closed == CLOSED;
        if state.confirmed < state.written && due {
            state.confirm(path)?;
        }
        let confirmed = state.confirmed >= state.written;
        if ends && confirmed {
            state.over = true;
            self.outlet.finished();
            self.outlet.parked();
            return Ok(Step { hold: frontier, again: false });
        }
        if self.outlet.is_parking() && confirmed {
            self.outlet.parked();
        }
        if closed == CLOSED && confirmed {
            return Ok(Step { hold: CLOSED, again: false });
        }
        let waits = frontier >= range.end || frontier == CLOSED || !confirmed;
        Ok(Step { hold: state.confirmed.min(frontier), again: waits })
    }
}

impl Continued {
    pub(super) fn new(
        path: Option<PathBuf>,
        ledger: Ledger,
        workers: usize,
        (append, rotation): (bool, Rotation),
        metrics: &Arc<NodeMetrics>,
    ) -> Self {
        let state = State {
            failure: None,
            ledger,
            file: None,
            over: false,
            closed: vec![0; workers],
            waiting: BTreeMap::new(),
            written: 0,
            confirmed: 0,
            synced: Instant::now(),
        };
        Self { path, append, rotation, metrics: Arc::clone(metrics), state: Mutex::new(state) }
    }

    /// Works on the file, unless that has failed before: of the tick that could not be written some lines may be there and
    /// others not, and what is behind them must not be confirmed, whichever worker brings it.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T, String>) -> Result<T, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        work(&mut state).inspect_err(|failure| state.failure = Some(failure.clone()))
    }

    /// Opens the file, once, and cuts it to what was confirmed; ticks before `from` are not written.
    fn open(&self, state: &mut State, from: Time) -> Result<(), String> {
        if state.file.is_none() {
            // Another run or another dataflow may have confirmed more since the ledger was read.
            state.ledger.refresh()?;
            state.written = state.ledger.upto().max(from);
            state.file = Some(match &self.path {
                None => Target::StandardOutput,
                Some(path) => Target::File(
                    go_on(path, state.ledger.confirmed(), self.append, self.rotation, &self.metrics)
                        .map_err(|error| format!("{} cannot be opened: {error}", path.display()))?,
                ),
            });
            state.confirm(self.path.as_deref())?;
        }
        Ok(())
    }
}

impl Reopen for Continued {
    fn reopen(&self) -> Result<bool, String> {
        let path = self.path.as_deref();
        self.with(|state| {
            if state.over || !matches!(state.file, Some(Target::File(_))) {
                return Ok(Ok(false));
            }
            // What has been written stays in the file that was moved, and must not be written again.
            state.confirm(path)?;
            if let Some(Target::File(file)) = &mut state.file
                && let Err(error) = file.reopen()
            {
                // Nothing is lost: it goes on in the file that is open.
                return Ok(Err(cannot(path, "opened", &error)));
            }
            state.confirm(path)?;
            Ok(Ok(true))
        })?
    }
}

fn cannot(path: Option<&Path>, what: &str, error: &io::Error) -> String {
    let name = path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    format!("{name} cannot be {what}: {error}")
}

impl State {
    /// Writes the ticks before `upto`, all of which are complete on all workers.
    fn write(&mut self, upto: Time, path: Option<&Path>) -> Result<usize, String> {
        let mut bytes = 0;
        while let Some(tick) = self.waiting.first_key_value().map(|((tick, _), _)| *tick).filter(|tick| *tick < upto) {
            // A tick's lines stay together.
            if self.written <= tick {
                self.rotate(tick, path)?;
            }
            let Some((_, text)) = self.waiting.pop_first() else { break };
            if let Some(file) = &mut self.file {
                file.write(tick, &text).map_err(|error| cannot(path, "written", &error))?;
            }
            bytes += text.len();
            self.written = self.written.max(tick.saturating_add(1));
        }
        // At the end of all input a later run may still add ticks, behind the last one.
        if upto != CLOSED {
            self.rotate(upto, path)?;
            self.written = self.written.max(upto);
        }
        Ok(bytes)
    }

    /// Begins another file if it is time for it. What is put aside is confirmed first, and the new file's length after.
    fn rotate(&mut self, tick: Time, path: Option<&Path>) -> Result<(), String> {
        if !self.file.as_ref().is_some_and(|file| file.is_due(tick)) {
            return Ok(());
        }
        self.confirm(path)?;
        if let Some(Target::File(file)) = &mut self.file {
            file.rotate().map_err(|error| cannot(path, "put aside", &error))?;
        }
        self.confirm(path)
    }

    /// Makes the lines durable, then notes that they are.
    fn confirm(&mut self, path: Option<&Path>) -> Result<(), String> {
        if let Some(file) = &mut self.file {
            file.sync().map_err(|error| format!("the lines cannot be made durable: {error}"))?;
        }
        let mut detail = json!({ "path": path.map(|path| path.display().to_string()) });
        if let Some(Target::File(file)) = &self.file {
            detail["bytes"] = file.bytes().into();
            if let Some((device, inode)) = file.id() {
                (detail["device"], detail["inode"]) = (device.into(), inode.into());
            }
            detail["since"] = file.since().into();
        }
        self.ledger.confirm(Confirmed { upto: self.written, detail })?;
        (self.confirmed, self.synced) = (self.written, Instant::now());
        Ok(())
    }
}

/// Opens a file behind what was confirmed; a file that nothing was confirmed of is emptied, unless it is appended to.
fn go_on(
    path: &Path,
    confirmed: Option<&Confirmed>,
    append: bool,
    rotation: Rotation,
    metrics: &NodeMetrics,
) -> io::Result<LogFile> {
    // By its name alone: the folder may have been moved together with the spool.
    let name = |path: &Path| path.file_name().map(|name| name.to_os_string());
    let same = |confirmed: &&Confirmed| {
        confirmed.detail["path"].as_str().is_some_and(|other| name(Path::new(other)) == name(path))
    };
    let Some(detail) = confirmed.filter(same).map(|confirmed| &confirmed.detail) else {
        return LogFile::open(path, (!append).then_some(0), None, rotation, metrics);
    };
    let (bytes, since) = (detail["bytes"].as_u64().unwrap_or(0), detail["since"].as_u64());
    let id = detail["device"].as_u64().zip(detail["inode"].as_u64());
    if let Some(moved) = id.and_then(|id| moved(path, id)) {
        // It was put aside since, by us or by another program: what follows goes into the file that has the name now.
        let file = OpenOptions::new().write(true).open(&moved)?;
        if file.metadata()?.len() > bytes {
            file.set_len(bytes)?;
        }
        return LogFile::open(path, None, None, rotation, metrics);
    }
    let file = LogFile::open(path, Some(bytes), since, rotation, metrics)?;
    if file.bytes() < bytes && fs::metadata(path)?.is_file() {
        tracing::warn!(path = %path.display(), length = file.bytes(), expected = bytes, "the file is shorter than what was written to it");
    }
    Ok(file)
}

/// The file with this device and number beside `path`, if it has another name now: one that begins as its own does up to
/// the first dot, as rotations give it. Another file may have the number if all of them were copied.
fn moved(path: &Path, id: (u64, u64)) -> Option<PathBuf> {
    let same = |metadata: &fs::Metadata| metadata.is_file() && (metadata.dev(), metadata.ino()) == id;
    if fs::metadata(path).is_ok_and(|metadata| same(&metadata)) {
        return None;
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name()?.as_encoded_bytes();
    let dot = name.iter().skip(1).position(|byte| *byte == b'.');
    let own = &name[..dot.map_or(name.len(), |dot| dot + 1)];
    let is_own = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(own);
    let same = |entry: &fs::DirEntry| is_own(entry) && entry.metadata().is_ok_and(|metadata| same(&metadata));
    fs::read_dir(folder).ok()?.flatten().find(same).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(path: &Path, bytes: u64, id: Option<(u64, u64)>) -> Confirmed {
        let (device, inode) = id.unzip();
        let path = path.display().to_string();
        Confirmed { upto: 1, detail: json!({ "path": path, "bytes": bytes, "device": device, "inode": inode }) }
    }

    fn id(path: &Path) -> (u64, u64) {
        let metadata = fs::metadata(path).expect("there");
        (metadata.dev(), metadata.ino())
    }

    fn opened(path: &Path, confirmed: Option<&Confirmed>, append: bool) -> LogFile {
        go_on(path, confirmed, append, Rotation::default(), &NodeMetrics::default()).expect("opens")
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("readable")
    }

    #[test]
    fn a_file_is_cut_to_what_was_confirmed_also_in_a_folder_that_was_moved() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        fs::write(&path, "confirmed\ntorn").expect("written");
        let before = Path::new("/elsewhere/rows.jsonl");
        let mut file = opened(&path, Some(&confirmed(before, 10, None)), false);
        assert_eq!(file.bytes(), 10);
        file.write(1, b"next\n").expect("written");
        assert_eq!(text(&path), "confirmed\nnext\n");
    }

    #[test]
    fn a_file_that_was_moved_before_a_crash_is_cut_where_it_is_now() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        for name in ["rows.jsonl.1", "rows-20261124.jsonl"] {
            let moved = dir.path().join(name);
            fs::write(&moved, "confirmed\ntorn").expect("written");
            fs::write(&path, "by another\n").expect("written");
            let mut file = opened(&path, Some(&confirmed(&path, 10, Some(id(&moved)))), false);
            file.write(1, b"next\n").expect("written");
            assert_eq!((text(&moved).as_str(), text(&path).as_str()), ("confirmed\n", "by another\nnext\n"));
        }
    }

    #[test]
    fn another_file_that_has_its_number_now_is_not_touched() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, other) = (dir.path().join("rows.jsonl"), dir.path().join("late.jsonl"));
        fs::write(&path, "confirmed\ntorn").expect("written");
        fs::write(&other, "of another sink\n").expect("written");
        let (device, inode) = id(&other);
        for id in [(device, inode), (device + 1, inode)] {
            opened(&path, Some(&confirmed(&path, 10, Some(id))), false);
            assert_eq!((text(&path).as_str(), text(&other).as_str()), ("confirmed\n", "of another sink\n"));
        }
    }

    #[test]
    fn a_file_that_nothing_was_confirmed_of_is_emptied_unless_it_is_appended_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("new/rows.jsonl");
        assert_eq!(opened(&path, None, false).bytes(), 0);
        fs::write(&path, "old").expect("written");
        assert_eq!(opened(&path, None, true).bytes(), 3);
        assert_eq!(opened(&path, Some(&confirmed(Path::new("other.jsonl"), 2, None)), false).bytes(), 0);
        assert_eq!(text(&path), "");
    }
}

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
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::log_file::{LogFile, Rotation};
use crate::sink::written::Format;

/// Lines are made durable, and confirmed, at most this often.
const CONFIRM: Duration = Duration::from_millis(200);

/// How soon a worker looks again that waits for another, or for the next confirmation.
const PATIENCE: Duration = Duration::from_millis(20);

/// The end of all input.
const CLOSED: Time = Time::MAX;

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
    let (fail, metrics, worker) = (context.failure(), Arc::clone(&context.metrics), context.worker % context.threads);
    let flow = Arc::clone(&context.flow);
    input.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(
        Pipeline,
        &context.id,
        move |capability, info| {
            let activator = context.scope.activator_for(info.address.clone());
            let mut outlet = context.outlet(info.address);
            let mut held = Some(capability);
            let mut ticks: BTreeMap<Time, Vec<u8>> = BTreeMap::new();
            let mut failed = false;
            if outlet.may_open()
                && let Err(message) = file.open(0, &mut outlet)
            {
                fail(message);
                failed = true;
            }
            move |(input, frontier), _output| {
                input.for_each_stamp(|time, data| {
                    let tick = time.least().copied().unwrap_or_default();
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        if !failed {
                            format.write(ticks.entry(tick).or_default(), &batch);
                        }
                    }
                });
                if failed {
                    if flow.lets_go() {
                        held = None;
                    }
                    return;
                }
                let frontier = frontier.frontier().first().copied().unwrap_or(CLOSED);
                match file.advance(worker, frontier, &mut ticks, &mut outlet, &metrics) {
                    Ok(step) => {
                        if let Some(held) = held.as_mut().filter(|held| *held.time() < step.hold) {
                            held.downgrade(&step.hold);
                        }
                        if step.hold == CLOSED {
                            held = None;
                        }
                        if step.again {
                            activator.activate_after(PATIENCE);
                        }
                    }
                    Err(message) => {
                        fail(message);
                        failed = true;
                        ticks.clear();
                    }
                }
            }
        },
    )
}

/// What a worker does next.
struct Step {
    /// Nothing is to come from here before this time.
    hold: Time,
    /// It must look again.
    again: bool,
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

    /// Opens the file, once, and cuts it to what was confirmed; ticks before `from` are not written.
    fn open(&self, from: Time, outlet: &mut Outlet) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
        outlet.opened();
        Ok(())
    }

    /// Every tick before `frontier` is complete on this worker.
    fn advance(
        &self,
        worker: usize,
        frontier: Time,
        ticks: &mut BTreeMap<Time, Vec<u8>>,
        outlet: &mut Outlet,
        metrics: &NodeMetrics,
    ) -> Result<Step, String> {
        let range = match outlet.turn(frontier) {
            Turn::Wait => {
                let hold = self.state.lock().unwrap_or_else(PoisonError::into_inner).confirmed;
                return Ok(Step { hold, again: true });
            }
            Turn::Write(range) => range,
        };
        let rest = if frontier == CLOSED { BTreeMap::new() } else { ticks.split_off(&frontier) };
        let complete = std::mem::replace(ticks, rest);
        if range.start == Time::MAX {
            // Another dataflow writes; so far this one only gets ready.
            return Ok(Step { hold: frontier, again: false });
        }
        self.open(range.start, outlet)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let from = state.written;
        let own = complete.into_iter().filter(|(tick, text)| *tick >= from && range.contains(tick) && !text.is_empty());
        state.waiting.extend(own.map(|(tick, text)| ((tick, worker), text)));
        if let Some(closed) = state.closed.get_mut(worker) {
            *closed = frontier;
        }
        let closed = state.closed.iter().min().copied().unwrap_or(frontier);
        let upto = closed.min(range.end);
        let bytes = state.write(upto, self.path.as_deref())?;
        NodeMetrics::add(&metrics.bytes, bytes);
        let ends = upto >= range.end;
        let due = state.synced.elapsed() >= CONFIRM || outlet.is_parking() || ends || closed == CLOSED;
        if state.confirmed < state.written && due {
            state.confirm(self.path.as_deref())?;
        }
        let confirmed = state.confirmed >= state.written;
        if ends && confirmed {
            state.over = true;
            outlet.finished();
            outlet.parked();
            return Ok(Step { hold: frontier, again: false });
        }
        if outlet.is_parking() && confirmed {
            outlet.parked();
        }
        if closed == CLOSED && confirmed {
            return Ok(Step { hold: CLOSED, again: false });
        }
        let waits = frontier >= range.end || frontier == CLOSED || !confirmed;
        Ok(Step { hold: state.confirmed.min(frontier), again: waits })
    }
}

impl Reopen for Continued {
    fn reopen(&self) -> Result<bool, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.over || !matches!(state.file, Some(Target::File(_))) {
            return Ok(false);
        }
        // What has been written stays in the file that was moved, and must not be written again.
        state.confirm(self.path.as_deref())?;
        if let Some(Target::File(file)) = &mut state.file {
            file.reopen().map_err(|error| cannot(self.path.as_deref(), "opened", &error))?;
        }
        state.confirm(self.path.as_deref())?;
        Ok(true)
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
            detail["inode"] = file.inode().into();
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
    if let Some(moved) = detail["inode"].as_u64().and_then(|inode| moved(path, inode)) {
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

/// The file with this number beside `path`, if it has another name now.
fn moved(path: &Path, inode: u64) -> Option<PathBuf> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.ino() == inode) {
        return None;
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let same =
        |entry: &fs::DirEntry| entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.ino() == inode);
    fs::read_dir(folder).ok()?.flatten().find(same).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(path: &Path, bytes: u64, inode: Option<u64>) -> Confirmed {
        Confirmed { upto: 1, detail: json!({ "path": path.display().to_string(), "bytes": bytes, "inode": inode }) }
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
        let (path, moved) = (dir.path().join("rows.jsonl"), dir.path().join("rows.jsonl.1"));
        fs::write(&moved, "confirmed\ntorn").expect("written");
        fs::write(&path, "by another\n").expect("written");
        let inode = fs::metadata(&moved).expect("there").ino();
        let mut file = opened(&path, Some(&confirmed(&path, 10, Some(inode))), false);
        file.write(1, b"next\n").expect("written");
        assert_eq!((text(&moved).as_str(), text(&path).as_str()), ("confirmed\n", "by another\nnext\n"));
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

//! A file of lines that a later run goes on with: it grows by whole ticks, in their order, and what is confirmed is a
//! length. What stands behind that length after a crash is cut off and written again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::batch::{Batch, Stream, Time};
use engine::flow::{Outlet, Turn};
use engine::ledger::{Confirmed, Ledger};
use engine::metrics::NodeMetrics;
use engine::render::BuildContext;
use serde_json::json;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::Format;

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
    state: Mutex<State>,
}

struct State {
    ledger: Ledger,
    /// `None` until nobody else writes to the file any more.
    file: Option<Box<dyn Target>>,
    /// Up to where each worker has handed its ticks over.
    closed: Vec<Time>,
    /// Complete ticks of some workers.
    waiting: BTreeMap<(Time, usize), Vec<u8>>,
    /// Every tick before this is in the file.
    written: Time,
    bytes: u64,
    confirmed: Time,
    synced: Instant,
}

/// What lines are written to.
trait Target: Write + Send {
    fn sync(&mut self) -> std::io::Result<()>;
}

impl Target for File {
    fn sync(&mut self) -> std::io::Result<()> {
        self.sync_data()
    }
}

impl Target for std::io::Stdout {
    fn sync(&mut self) -> std::io::Result<()> {
        self.flush()
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
    pub(super) fn new(path: Option<PathBuf>, ledger: Ledger, workers: usize) -> Self {
        let state = State {
            ledger,
            file: None,
            closed: vec![0; workers],
            waiting: BTreeMap::new(),
            written: 0,
            bytes: 0,
            confirmed: 0,
            synced: Instant::now(),
        };
        Self { path, state: Mutex::new(state) }
    }

    /// Opens the file, once, and cuts it to what was confirmed; ticks before `from` are not written.
    fn open(&self, from: Time, outlet: &mut Outlet) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.file.is_none() {
            // Another run or another dataflow may have confirmed more since the ledger was read.
            state.ledger.refresh()?;
            state.written = state.ledger.upto().max(from);
            let (file, bytes): (Box<dyn Target>, u64) = match &self.path {
                None => (Box::new(std::io::stdout()), 0),
                Some(path) => {
                    let (file, bytes) = go_on(path, state.ledger.confirmed())
                        .map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
                    (Box::new(file), bytes)
                }
            };
            (state.file, state.bytes) = (Some(file), bytes);
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
        let bytes = state.write(upto).map_err(|error| self.cannot(&error))?;
        NodeMetrics::add(&metrics.bytes, bytes);
        let ends = upto >= range.end;
        let due = state.synced.elapsed() >= CONFIRM || outlet.is_parking() || ends || closed == CLOSED;
        if state.confirmed < state.written && due {
            state.confirm(self.path.as_deref())?;
        }
        let confirmed = state.confirmed >= state.written;
        if ends && confirmed {
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

    fn cannot(&self, error: &std::io::Error) -> String {
        let name = self.path.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        format!("{name} cannot be written: {error}")
    }
}

impl State {
    /// Writes the ticks before `upto`, all of which are complete on all workers.
    fn write(&mut self, upto: Time) -> std::io::Result<usize> {
        let mut bytes = 0;
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 < upto) {
            let ((tick, _), text) = entry.remove_entry();
            if let Some(file) = &mut self.file {
                file.write_all(&text)?;
            }
            bytes += text.len();
            self.written = self.written.max(tick.saturating_add(1));
        }
        self.bytes += bytes as u64;
        // At the end of all input a later run may still add ticks, behind the last one.
        if upto != CLOSED {
            self.written = self.written.max(upto);
        }
        Ok(bytes)
    }

    /// Makes the lines durable, then notes that they are.
    fn confirm(&mut self, path: Option<&Path>) -> Result<(), String> {
        if let Some(file) = &mut self.file {
            file.sync().map_err(|error| format!("the lines cannot be made durable: {error}"))?;
        }
        let detail = json!({ "path": path.map(|path| path.display().to_string()), "bytes": self.bytes });
        self.ledger.confirm(Confirmed { upto: self.written, detail })?;
        (self.confirmed, self.synced) = (self.written, Instant::now());
        Ok(())
    }
}

/// Opens a file behind what was confirmed; a file that nothing was confirmed of is emptied.
fn go_on(path: &Path, confirmed: Option<&Confirmed>) -> std::io::Result<(File, u64)> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    // By its name alone: the folder may have been moved together with the spool.
    let name = |path: &Path| path.file_name().map(|name| name.to_os_string());
    let same = |confirmed: &&Confirmed| {
        confirmed.detail["path"].as_str().is_some_and(|other| name(Path::new(other)) == name(path))
    };
    let bytes = confirmed.filter(same).and_then(|confirmed| confirmed.detail["bytes"].as_u64()).unwrap_or(0);
    if !file.metadata()?.is_file() {
        return Ok((file, bytes));
    }
    let length = file.metadata()?.len();
    if length < bytes {
        tracing::warn!(path = %path.display(), length, expected = bytes, "the file is shorter than what was written to it");
    }
    let bytes = bytes.min(length);
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes))?;
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(path: &Path, bytes: u64) -> Confirmed {
        Confirmed { upto: 1, detail: json!({ "path": path.display().to_string(), "bytes": bytes }) }
    }

    #[test]
    fn a_file_is_cut_to_what_was_confirmed_also_in_a_folder_that_was_moved() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        fs::write(&path, "confirmed\ntorn").expect("written");
        let before = Path::new("/elsewhere/rows.jsonl");
        let (mut file, bytes) = go_on(&path, Some(&confirmed(before, 10))).expect("opens");
        file.write_all(b"next\n").expect("written");
        assert_eq!((bytes, fs::read_to_string(&path).expect("readable").as_str()), (10, "confirmed\nnext\n"));
    }

    #[test]
    fn a_file_that_nothing_was_confirmed_of_is_emptied() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("new/rows.jsonl");
        assert_eq!(go_on(&path, None).expect("opens").1, 0);
        fs::write(&path, "old").expect("written");
        assert_eq!(go_on(&path, Some(&confirmed(Path::new("other.jsonl"), 2))).expect("opens").1, 0);
        assert_eq!(fs::read(&path).expect("readable"), b"");
    }
}

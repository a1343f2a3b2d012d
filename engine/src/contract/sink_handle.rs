//! What the run tells a sink, and what a sink tells the run.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::running::Running;
use super::sink_state::{Place, SinkState};
use super::standing::Standing;
use crate::batch::{Origin, Time};
use crate::metrics::NodeMetrics;
use crate::progress::{Confirmed, Note};
use crate::shared::Shared;
use crate::time::Backlog;

pub use super::sink_state::Claim;

/// What a sink may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another dataflow writes; so far this one only gets ready.
    Prepare,
    /// It is its turn, once the sink whose place it takes is done.
    Wait,
    /// It writes.
    Write,
}

/// Where a sink goes on.
#[derive(Debug)]
pub struct Opening {
    /// No row of an earlier tick will be written.
    pub from: Time,
    /// What the last writer noted besides; null if there was none.
    pub detail: Value,
    /// Whether the sink takes its place while the run goes on, and not at a start.
    pub takes_over: bool,
    /// What the sink before it had shown of rows that may change, if it wrote to the same target.
    pub standing: Option<Standing>,
}

/// A sink as the run sees it: one on the worker that writes.
#[derive(Debug)]
pub struct SinkHandle {
    dataflow: Arc<dyn Running>,
    state: Arc<SinkState>,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    note: Option<Note>,
    /// The disk did not take its note.
    is_refused: bool,
    /// See [`Store::renewed`](crate::store::Store::renewed); when it was noted last.
    renewed: u64,
    takes_over: bool,
}

impl SinkHandle {
    /// A sink of this name, which makes these files.
    pub(crate) fn new(
        dataflow: &Arc<dyn Running>,
        (name, paths): (&str, Vec<PathBuf>),
        shared: &Arc<Shared>,
        metrics: &Arc<NodeMetrics>,
    ) -> Result<Self, String> {
        let place = (!dataflow.is_in_charge()).then(|| {
            let sinks = dataflow.earlier_sinks();
            let by_name = sinks.iter().find(|sink| sink.name == name);
            let by_path = || sinks.iter().find(|sink| sink.paths.iter().any(|path| paths.contains(path)));
            Place { predecessor: by_name.or_else(by_path).cloned(), known_logs: dataflow.known_logs() }
        });
        let takes_over = place.is_some();
        let logs = dataflow.read_logs();
        let state = Arc::new(SinkState::new(name, logs, paths, place));
        dataflow.add_sink(Arc::clone(&state));
        let note = dataflow.notes().map(|dir| Note::open(&dir, name)).transpose()?;
        let (dataflow, shared, metrics) = (Arc::clone(dataflow), Arc::clone(shared), Arc::clone(metrics));
        Ok(Self { dataflow, state, shared, metrics, note, is_refused: false, renewed: 0, takes_over })
    }

    /// Whether the run can be continued by another, so that a note is kept of how far the sink is.
    pub fn is_noted(&self) -> bool {
        self.note.is_some()
    }

    /// What becomes of rows of a tick.
    pub fn claim(&self, tick: Time, origin: Origin) -> Claim {
        self.state.claim(tick, origin)
    }

    /// Ticks before `frontier` are complete. What to do about them.
    pub fn turn(&self, frontier: Time) -> Turn {
        self.state.see(frontier);
        if self.state.from().is_none() {
            self.state.decide(frontier);
            return Turn::Prepare;
        }
        if !self.shared.start.has_begun() || !self.state.may_open() {
            if self.is_parking() {
                // It has written nothing yet, and the one before it may not be done before the end of the run.
                self.state.park();
            }
            return Turn::Wait;
        }
        self.state.decide(frontier);
        Turn::Write
    }

    /// Whether the sink is given nothing more when all ticks before `frontier` are complete, because another writes on.
    pub fn ends(&self, frontier: Time) -> bool {
        let until = self.state.until();
        until.iter().any(|until| *until < Time::MAX) && until.iter().all(|until| *until <= frontier)
    }

    /// Asks whether rows are of a log that came with the change which brought the sink.
    pub(crate) fn came_along(&self) -> impl Fn(Origin) -> bool + 'static + use<> {
        let state = Arc::clone(&self.state);
        move |origin| state.came_along(origin)
    }

    /// Asks whether another sink goes on in its place.
    pub(crate) fn successor(&self) -> impl Fn() -> bool + 'static + use<> {
        let state = Arc::clone(&self.state);
        move || state.has_successor()
    }

    /// The latest time before which all that the sink writes is complete at `frontier`.
    pub fn limit(&self, frontier: Time) -> Time {
        self.state.until().into_iter().max().unwrap_or(Time::MAX).min(frontier)
    }

    /// Before the first write: where the sink goes on. `target` names what it writes to.
    ///
    /// # Errors
    /// If what was noted cannot be read; the message names the file.
    pub fn open(&mut self, target: &str) -> Result<Opening, String> {
        if let (Some(note), Some(dir)) = (&mut self.note, self.dataflow.notes()) {
            // Another dataflow may have confirmed more since it was read.
            *note = Note::open(&dir, &self.state.name)?;
            if let Some(other) = self.state.other_note() {
                note.inherit(Note::open(&dir, &other)?);
            }
        }
        let kept = self.note.as_ref().map(Note::floors).unwrap_or_default();
        let from = self.state.resume(&kept).into_iter().min().unwrap_or(0);
        let confirmed = self.note.as_ref().and_then(|note| note.confirmed().cloned()).unwrap_or_default();
        let (takes_over, standing) = (self.takes_over, self.state.opened(target));
        Ok(Opening { from, detail: confirmed.detail, takes_over, standing })
    }

    /// All rows before `upto` that the sink writes are durable. False if that cannot be noted now.
    ///
    /// # Errors
    /// If it cannot be noted for a reason that does not pass. And once the run has failed: what a node has let go of
    /// when it failed never reached the sink, and must not count as kept.
    pub fn confirm(&mut self, upto: Time, detail: Value) -> Result<bool, String> {
        let Some(note) = &mut self.note else { return Ok(true) };
        if self.shared.failure().is_some() {
            return Err("nothing is confirmed any more: the run has failed".to_owned());
        }
        let (from, until) = (self.state.from().unwrap_or_default(), self.state.until());
        let mut logs = note.confirmed().map(|confirmed| confirmed.logs.clone()).unwrap_or_default();
        let names = std::iter::once("").chain(self.state.logs.iter().map(String::as_str));
        let mut least = Time::MAX;
        for ((name, from), until) in names.zip(from).zip(until) {
            let kept = from.max(until.min(upto));
            least = least.min(kept);
            logs.insert(name.to_owned(), kept);
        }
        let renewed = self.shared.store.renewed();
        let refused = note.confirm(Confirmed { upto: least, logs, detail }, self.renewed != renewed)?;
        let noted = refused.is_none();
        if noted {
            self.renewed = renewed;
        }
        if noted == self.is_refused {
            self.is_refused = !noted;
            let path = note.path().display();
            let trouble = refused.map(|why| format!("{why}: {path} cannot be written, and nothing is confirmed"));
            if let Some(trouble) = &trouble {
                tracing::warn!("{}: {trouble}", self.state.name);
            }
            self.metrics.set_trouble(&format!("{} note", self.state.name), trouble);
        }
        Ok(noted)
    }

    /// Whether what was noted last is gone.
    pub fn is_note_lost(&self) -> bool {
        self.note.is_some() && self.renewed != self.shared.store.renewed()
    }

    /// Whether the run ends, so that what is complete should be made durable now.
    pub fn is_parking(&self) -> bool {
        self.dataflow.is_parking()
    }

    /// What is complete has been made durable because the run ends.
    pub fn parked(&self) {
        self.state.park();
    }

    /// All that the sink should write is durable.
    pub fn finished(&self) {
        self.state.finish();
    }

    /// Whether nothing that the sink does matters any more.
    pub fn is_given_up(&self) -> bool {
        self.dataflow.is_ending()
    }

    /// Whether it never writes, because the run could not be started.
    pub fn is_called_off(&self) -> bool {
        self.shared.is_called_off()
    }

    /// Whether the folder of the run's state cannot be written to.
    pub fn is_store_away(&self) -> bool {
        // What a run without notes does not write before it ends is lost: it is tried.
        let is_the_last_chance = self.note.is_none() && self.shared.is_stopping();
        self.shared.store.is_away() && !is_the_last_chance
    }

    /// It has opened what it writes to, and has the locks of it.
    pub(crate) fn has_opened(&self) {
        self.state.paths.iter().for_each(|path| self.shared.claims.opened(path));
    }

    /// Whether a sink that has failed lets time pass.
    pub fn lets_go(&self) -> bool {
        self.dataflow.lets_go()
    }

    /// Whether it is to take the place of another and does not yet.
    pub fn is_preparing(&self) -> bool {
        self.state.from().is_none()
    }

    /// While it is built: it has to ask somebody whether it may write.
    pub fn asks(&self) -> Asking {
        self.state.ask();
        Asking(Arc::clone(&self.state))
    }

    /// Rows that are not confirmed: while these are too many, sources wait.
    pub fn held(&self) -> Arc<Backlog> {
        self.dataflow.held()
    }

    /// Leaves what it has shown of rows that may change to the sink that takes its place.
    pub fn leave(&self, target: &str, standing: Standing) {
        self.state.leave(target.to_owned(), standing);
    }

    /// It took back rows that the sink before it had shown.
    pub fn took_back(&self, rows: usize) {
        self.state.took_back(rows as u64);
    }
}

/// A question whether a sink may write. As long as nobody was [told](Asking::told) the answer, its dataflow takes nobody's
/// place.
#[derive(Debug)]
pub struct Asking(Arc<SinkState>);

impl Asking {
    /// It may, or that will be seen later.
    pub fn told(self) {
        self.0.is_told();
    }
}

//! Which rows a sink writes, and how far it is.
//!
//! Two dataflows may have a sink of one name: the one that runs, and the one that is to take its place. They share a
//! boundary for each log: rows of message times before it are the old sink's, those from it on the new one's. The boundary
//! is where the old sink is at the switch, so that nobody waits for time to pass. Rows of a log that came with the change
//! are all the new sink's, and those of a log that has ended with the old sink are all the old one's.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::standing::Standing;
use crate::batch::{Origin, Time};
use crate::progress::Floors;

/// What becomes of a batch that has come to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The sink writes it, once its tick is complete.
    Write,
    /// It is kept already, or will be by the sink whose place this one takes.
    Earlier,
    /// Another sink, which takes this one's place, writes it.
    Later,
    /// It is not known yet: it waits.
    Wait,
}

/// A sink of a dataflow, as the run sees it.
#[derive(Debug)]
pub(crate) struct SinkState {
    /// The name of its note.
    pub name: String,
    /// The logs of its dataflow by name, in the order of [`Origin`].
    pub logs: Vec<String>,
    /// Files that it makes.
    pub paths: Vec<PathBuf>,
    /// In the order of `logs`: those that keep what other nodes have computed.
    derived: Vec<bool>,
    /// By origin: a log that came with the change which brought the sink.
    came_along: Vec<bool>,
    /// Whose place it takes.
    predecessor: Mutex<Option<Arc<SinkState>>>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Ticks before this were given to the writer, or are not for it.
    decided: Time,
    /// How far its input is.
    seen: Time,
    /// By origin: rows from this time on are to be written. `None` until it is in charge.
    from: Option<Vec<Time>>,
    /// By origin: rows from this time on are another's.
    until: Vec<Time>,
    /// By origin: a log that is new.
    fresh: Vec<bool>,
    /// Another sink takes its place.
    has_successor: bool,
    is_asking: bool,
    has_opened: bool,
    has_finished: bool,
    has_parked: bool,
    standing: Option<(String, Standing)>,
    /// Rows that it took back at the start because they are not true any more.
    taken_back: u64,
}

impl SinkState {
    /// A sink in a dataflow that reads these logs, each with whether it is a derived one. It is in charge at once if it takes nobody's place.
    pub fn new(name: &str, logs: Vec<(String, bool)>, paths: Vec<PathBuf>, place_of: Option<Place>) -> Self {
        let (logs, derived): (Vec<String>, Vec<bool>) = logs.into_iter().unzip();
        let origins = logs.len() + 1;
        let in_charge = place_of.is_none();
        let Place { predecessor, known_logs } = place_of.unwrap_or_default();
        let mut fresh: Vec<bool> = logs.iter().map(|log| !known_logs.contains(log)).collect();
        // What is of several logs, or of none, is another's as soon as any of them is.
        fresh.insert(0, !fresh.is_empty() && fresh.iter().all(|fresh| *fresh));
        let came_along = fresh.iter().map(|fresh| *fresh && !in_charge).collect();
        let inner = Inner {
            decided: 0,
            seen: 0,
            from: in_charge.then(|| vec![0; origins]),
            until: vec![Time::MAX; origins],
            fresh,
            has_successor: false,
            is_asking: false,
            has_opened: false,
            has_finished: false,
            has_parked: false,
            standing: None,
            taken_back: 0,
        };
        let (predecessor, inner) = (Mutex::new(predecessor), Mutex::new(inner));
        Self { name: name.to_owned(), logs, paths, derived, came_along, predecessor, inner }
    }

    /// What becomes of rows of a tick.
    pub fn claim(&self, tick: Time, origin: Origin) -> Claim {
        let at = usize::from(origin);
        let predecessor = self.predecessor.lock().clone();
        let inner = self.inner.lock();
        let Some(from) = &inner.from else {
            let before = match predecessor {
                _ if inner.fresh.get(at).copied().unwrap_or(false) => 0,
                Some(predecessor) => predecessor.decided(),
                None => inner.decided,
            };
            return if tick < before { Claim::Earlier } else { Claim::Wait };
        };
        let of = |times: &[Time], other: Time| times.get(at).copied().unwrap_or(other);
        match tick {
            _ if tick < of(from, 0) => Claim::Earlier,
            _ if tick >= of(&inner.until, Time::MAX) => Claim::Later,
            _ => Claim::Write,
        }
    }

    /// Its input is complete before `frontier`.
    pub fn see(&self, frontier: Time) {
        self.inner.lock().seen = frontier;
    }

    /// Whether it is at most so much (ms) behind the sink whose place it takes.
    pub fn is_near(&self, distance: Time) -> bool {
        let predecessor = self.predecessor.lock().clone();
        predecessor.is_none_or(|other| other.decided() <= self.inner.lock().seen.saturating_add(distance))
    }

    /// Ticks before `frontier` are complete, and given to the writer if it is in charge and may write.
    pub fn decide(&self, frontier: Time) {
        let mut inner = self.inner.lock();
        let until = inner.until.iter().min().copied().unwrap_or(Time::MAX);
        inner.decided = inner.decided.max(frontier.min(until));
    }

    /// Ticks before this are decided.
    pub fn decided(&self) -> Time {
        self.inner.lock().decided
    }

    /// From which time on rows of each origin are written; `None` if it is not in charge.
    pub fn from(&self) -> Option<Vec<Time>> {
        self.inner.lock().from.clone()
    }

    /// Until which time rows of each origin are written.
    pub fn until(&self) -> Vec<Time> {
        self.inner.lock().until.clone()
    }

    /// Before the writer opens: what of each log is kept already, by its note. Says from when on rows are written.
    pub fn resume(&self, kept: &Floors) -> Vec<Time> {
        let mut inner = self.inner.lock();
        let mut from = inner.from.take().unwrap_or_default();
        for (at, time) in from.iter_mut().enumerate() {
            let log = at.checked_sub(1).and_then(|at| self.logs.get(at).zip(self.derived.get(at)));
            let (log, derived) = log.map_or(("", false), |(log, derived)| (log.as_str(), *derived));
            *time = (*time).max(kept.of(log, derived));
        }
        inner.from = Some(from.clone());
        from
    }

    /// Stops at what it has decided, but for rows of the logs that end with it. Where that is.
    pub fn stop_here(&self, ending: &[String]) -> Time {
        let mut inner = self.inner.lock();
        inner.has_successor = true;
        let decided = inner.decided;
        let ends = |log: &String| ending.contains(log);
        let all = !self.logs.is_empty() && self.logs.iter().all(ends);
        let logs = std::iter::once(all).chain(self.logs.iter().map(ends));
        inner.until = logs.map(|ends| if ends { Time::MAX } else { decided }).collect();
        decided
    }

    /// Whether the rows are of a log that came with the change which brought the sink.
    pub fn came_along(&self, origin: Origin) -> bool {
        self.came_along.get(usize::from(origin)).copied().unwrap_or(false)
    }

    /// Whether another sink takes its place, though it may write all that there is of the logs that it knows.
    pub fn has_successor(&self) -> bool {
        self.inner.lock().has_successor
    }

    /// Begins where its predecessor has stopped, or, if it has none, where it is.
    pub fn take_over(&self) {
        let predecessor = self.predecessor.lock().clone();
        let mut inner = self.inner.lock();
        let here = predecessor.map_or(inner.decided, |predecessor| predecessor.decided());
        inner.from = Some(inner.fresh.iter().map(|fresh| if *fresh { 0 } else { here }).collect());
        inner.decided = if inner.fresh.contains(&true) { 0 } else { here };
    }

    /// Whether it may open what it writes to: its predecessor is done.
    pub fn may_open(&self) -> bool {
        self.from().is_some() && self.predecessor.lock().as_ref().is_none_or(|other| other.has_finished())
    }

    /// The name of the note of another sink that wrote to the same file before.
    pub fn other_note(&self) -> Option<String> {
        let predecessor = self.predecessor.lock();
        predecessor.as_ref().map(|other| other.name.clone()).filter(|name| *name != self.name)
    }

    /// It has opened what it writes to. What the one before had shown of rows that may change, if that was the same target.
    pub fn opened(&self, target: &str) -> Option<Standing> {
        self.inner.lock().has_opened = true;
        let predecessor = self.predecessor.lock().take()?;
        let standing = predecessor.inner.lock().standing.take();
        standing.filter(|(other, _)| other == target).map(|(_, standing)| standing)
    }

    /// Leaves what it has shown of rows that may change to the one that takes its place.
    pub fn leave(&self, target: String, standing: Standing) {
        self.inner.lock().standing = Some((target, standing));
    }

    pub fn has_opened(&self) -> bool {
        self.inner.lock().has_opened
    }

    /// It has to ask somebody whether it may write; it takes nobody's place before it knows.
    pub fn ask(&self) {
        self.inner.lock().is_asking = true;
    }

    /// It knows, or waits for it no longer.
    pub fn is_told(&self) {
        self.inner.lock().is_asking = false;
    }

    pub fn is_asking(&self) -> bool {
        self.inner.lock().is_asking
    }

    /// All that it should write is durable.
    pub fn finish(&self) {
        let mut inner = self.inner.lock();
        (inner.has_finished, inner.has_parked) = (true, true);
    }

    pub fn has_finished(&self) -> bool {
        self.inner.lock().has_finished
    }

    /// What is complete is durable, because the run ends.
    pub fn park(&self) {
        self.inner.lock().has_parked = true;
    }

    pub fn has_parked(&self) -> bool {
        self.inner.lock().has_parked
    }

    /// It has taken back rows that its predecessor had shown.
    pub fn took_back(&self, rows: u64) {
        self.inner.lock().taken_back += rows;
    }

    pub fn taken_back(&self) -> u64 {
        self.inner.lock().taken_back
    }
}

/// The place that a sink takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The sink that has it; `None` if there is none of the name.
    pub predecessor: Option<Arc<SinkState>>,
    /// The logs that there were before.
    pub known_logs: Vec<String>,
}

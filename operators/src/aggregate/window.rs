//! The open window: rows go in by order, changed groups and closed windows come out.
//!
//! Rows are processed in the order of (time, seq), so that of all windows one is open at a time, and so that what
//! depends on the order, sums of floating-point numbers among it, is the same for any arrival. Nothing here asks a
//! clock or knows of timely: [`Window::work`] is given a frontier and says what is to be sent at which time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::row::{RowConverter, SortField};
use datafusion::error::DataFusionError;
use engine::batch::{Batch, MAX_ROWS, Time, time_array};
use engine::contract::NodeMetrics;

use super::accumulate::State;
use super::groups::Groups;
use super::hash::mix;
use super::latest::Latest;
use super::pending::{Ordered, Pending};
use super::program::Program;

mod process;

/// Rows and groups that one activation handles before the rest of the dataflow gets its turn.
const BUDGET: usize = 64 * 1024;

/// The closed frontier.
pub(super) const CLOSED: Time = Time::MAX;

/// What is fixed when the node is built.
pub(super) struct Settings {
    pub(super) program: Arc<Program>,
    /// Length of a window in ns.
    pub(super) window: i64,
    /// The most groups of this worker.
    pub(super) max_groups: usize,
    pub(super) distinct_limit: usize,
    /// Whether anything reads the live relation.
    pub(super) live: bool,
    /// Whether anything reads the stream of final rows.
    pub(super) finals: bool,
    /// Length of a tick in ms, if changes of the live relation are recorded: then they leave at the close of each tick,
    /// whatever steps the frontier takes. Otherwise a step of the frontier is as good as a tick, and cheaper.
    pub(super) tick: Option<Time>,
    /// What leaves before this time was recorded before: until then nothing need be shown.
    pub(super) complete_from: Time,
}

/// An output of the stateful part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Out = 0,
    Final = 1,
}

/// Something to be sent.
pub(super) type Sent = (Port, Time, Batch);

/// The state of one worker.
pub(super) struct Window {
    settings: Settings,
    converter: RowConverter,
    pending: Pending,
    /// The rows of the step that is under way, and the frontier that it leads to.
    step: Option<(Ordered, Time)>,
    reached: Time,
    /// The last tick of which nothing is shown while it is under way; at its close all groups are.
    silent: Option<Time>,
    /// Start of the open window in ns; there is one while there are groups.
    start: Option<i64>,
    groups: Groups,
    states: Vec<State>,
    /// By `Program::latest`.
    latest: Vec<Latest>,
    /// Groups that changed in the step.
    changed: Vec<u32>,
    metrics: Arc<NodeMetrics>,
    estimated: Arc<AtomicU64>,
    not_computed: Arc<AtomicU64>,
    counted: i64,
}

impl Window {
    /// No window, no rows.
    ///
    /// # Errors
    /// If a column of the group has a type that cannot be a key.
    pub(super) fn new(settings: Settings, metrics: Arc<NodeMetrics>) -> Result<Self, DataFusionError> {
        let program = &settings.program;
        let key = program.relation.fields().iter().skip(1).take(program.by);
        let converter = RowConverter::new(key.map(|f| SortField::new(f.data_type().clone())).collect())?;
        let states = program.states.iter().map(|kept| kept.state(settings.distinct_limit)).collect();
        let latest = program.latest.iter().map(|before| Latest::new(before.form)).collect();
        let [estimated, not_computed] = ["distinct_estimated", "not_computed"].map(|name| metrics.counter(name));
        let last = |tick: Time| settings.complete_from.saturating_sub(1) / tick * tick;
        let silent = settings.tick.map(last).filter(|last| *last > 0);
        Ok(Self {
            settings,
            converter,
            pending: Pending::default(),
            step: None,
            reached: 0,
            silent,
            start: None,
            groups: Groups::default(),
            states,
            latest,
            changed: Vec::new(),
            metrics,
            estimated,
            not_computed,
            counted: 0,
        })
    }

    /// Takes in rows that have the program's needed columns.
    ///
    /// # Errors
    /// If an expression has no value for a row.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<(), DataFusionError> {
        self.pending.push(&self.settings.program, &self.converter, rows)
    }

    /// The earliest time at which something may still be sent; `None` if nothing is held.
    pub(super) fn hold(&self) -> Option<Time> {
        let mut times = vec![self.pending.first().map(millis), self.end().map(millis)];
        if let Some((rows, target)) = &self.step {
            times.extend([rows.next_time().map(millis), rows.rest_time().map(millis), Some(*target)]);
        }
        times.push(self.silent.filter(|_| self.groups.len() > 0));
        times.into_iter().flatten().min()
    }

    /// How far to go next, when the input is complete before `frontier`; `None` if that is not far enough.
    fn target(&self, frontier: Time) -> Option<Time> {
        let Some(tick) = self.settings.tick else { return Some(frontier).filter(|to| *to > self.reached) };
        let closed = if frontier == CLOSED { CLOSED } else { frontier - frontier % tick };
        let next = match (self.silent, self.pending.first()) {
            (Some(silent), _) => silent,
            (None, Some(ns)) => {
                let time = millis(ns);
                (time - time % tick).saturating_add(tick)
            }
            (None, None) => CLOSED,
        };
        Some(closed.min(next)).filter(|to| *to > self.reached)
    }

    /// A step is over. What was not shown before the tick at which showing begins is shown now.
    fn finish_step(&mut self, target: Time) {
        self.reached = target;
        if self.silent.is_some_and(|silent| silent <= target) {
            self.silent = None;
            for number in self.groups.numbers() {
                self.groups.at_mut(number).changed = true;
                self.changed.push(number);
            }
        }
    }

    /// Processes what the frontier has passed, for about [`BUDGET`] rows and groups. True if there is more to do.
    ///
    /// # Errors
    /// If an expression has no value for a row or group.
    pub(super) fn work(&mut self, frontier: Time, sent: &mut Vec<Sent>) -> Result<bool, DataFusionError> {
        let mut done = 0;
        let more = loop {
            if done >= BUDGET {
                break true;
            }
            let Some((mut rows, target)) = self.step.take() else {
                let Some(target) = self.target(frontier) else { break false };
                self.step = Some((self.pending.take(last_before(target)), target));
                continue;
            };
            let next = rows.next_time();
            let closes = |end: i64| next.map_or(millis(end) <= target, |time| time >= end);
            if let Some(end) = self.end().filter(|end| closes(*end)) {
                done += self.finalise(MAX_ROWS, millis(end), sent)?;
                if self.groups.len() == 0 {
                    self.close();
                }
            } else if let Some(time) = next {
                let start =
                    *self.start.get_or_insert_with(|| time.saturating_sub(time.rem_euclid(self.settings.window)));
                let time = millis(start.saturating_add(self.settings.window)).min(target);
                done += self.process(&mut rows, time, sent)?;
            } else if self.changed.is_empty() {
                let is_silent = self.silent.is_some();
                self.finish_step(target);
                if self.changed.is_empty() || !is_silent {
                    self.pending.give_back(rows);
                    continue;
                }
            } else {
                done += self.show(target, sent)?;
            }
            self.step = Some((rows, target));
        };
        let groups = self.groups.len() as i64;
        self.metrics.state_rows.fetch_add(groups - self.counted, Relaxed);
        self.counted = groups;
        Ok(more)
    }

    /// End of the open window in ns.
    fn end(&self) -> Option<i64> {
        Some(self.start?.saturating_add(self.settings.window))
    }

    fn close(&mut self) {
        self.start = None;
        self.groups.clear();
        self.changed = Vec::new();
        self.states.iter_mut().for_each(State::clear);
        self.latest.iter_mut().for_each(Latest::clear);
    }

    /// Shows the new rows of some of the changed groups in the live relation.
    fn show(&mut self, time: Time, sent: &mut Vec<Sent>) -> Result<usize, DataFusionError> {
        let from = self.changed.len().saturating_sub(MAX_ROWS);
        let mut changed = self.changed.split_off(from);
        let handled = changed.len();
        // A group that was evicted since, and its successor under the same number, are in the list as well.
        changed.retain(|number| std::mem::take(&mut self.groups.at_mut(*number).changed));
        for number in &changed {
            self.groups.at_mut(*number).shown = true;
        }
        self.relation(&changed, 1, false, time, sent)?;
        Ok(handled)
    }

    /// Ends up to `n` groups, those first that started first: their last rows are sent, and they are forgotten.
    fn finalise(&mut self, n: usize, time: Time, sent: &mut Vec<Sent>) -> Result<usize, DataFusionError> {
        let ended = self.groups.oldest(n);
        if self.settings.live {
            let shown: Vec<u32> = ended.iter().copied().filter(|number| self.groups.at(*number).shown).collect();
            self.relation(&shown, -1, false, time, sent)?;
        }
        if (self.settings.live || self.settings.finals) && !ended.is_empty() {
            let rows = self.rows(&ended, true)?;
            if self.settings.finals {
                let seqs = ended.iter().map(|number| mix(self.groups.at(*number).hash)).collect::<UInt64Array>();
                let times = time_array(vec![self.end().unwrap_or(i64::MAX); ended.len()]);
                let columns = [times, Arc::new(seqs) as ArrayRef].into_iter().chain(rows.columns().iter().cloned());
                let stream = RecordBatch::try_new(self.settings.program.stream.clone(), columns.collect())?;
                sent.push((Port::Final, time, Batch::new(stream)));
            }
            if self.settings.live {
                sent.push((Port::Out, time, Batch::new(rows)));
            }
        }
        for state in &mut self.states {
            ended.iter().for_each(|number| state.reset(*number));
        }
        for latest in &mut self.latest {
            ended.iter().for_each(|number| latest.reset(*number));
        }
        self.groups.release(&ended);
        Ok(ended.len())
    }

    /// Sends the live rows of groups, as they are now, to the relation.
    fn relation(
        &self,
        groups: &[u32],
        diff: i8,
        last: bool,
        time: Time,
        sent: &mut Vec<Sent>,
    ) -> Result<(), DataFusionError> {
        if !groups.is_empty() {
            let rows = self.rows(groups, last)?;
            sent.push((Port::Out, time, Batch { diff, settled: last, ..Batch::new(rows) }));
        }
        Ok(())
    }

    /// The groups' rows as they are now.
    fn rows(&self, groups: &[u32], last: bool) -> Result<RecordBatch, DataFusionError> {
        let program = &self.settings.program;
        let parser = self.converter.parser();
        let mut columns = vec![time_array(vec![self.start.unwrap_or_default(); groups.len()])];
        columns.extend(self.converter.convert_rows(groups.iter().map(|g| parser.parse(&self.groups.at(*g).key)))?);
        columns.extend(program.features(&columns, program.slots(&self.states, groups)?)?);
        columns.push(Arc::new(BooleanArray::from(vec![last; groups.len()])));
        Ok(RecordBatch::try_new(program.relation.clone(), columns)?)
    }
}

/// An event time in ns as a time of the dataflow: rounded down.
fn millis(ns: i64) -> Time {
    Time::try_from(ns.div_euclid(1_000_000)).unwrap_or(0)
}

/// The last event time in ns that a frontier has passed.
fn last_before(frontier: Time) -> i64 {
    match i64::try_from(frontier) {
        Ok(ms) if frontier != CLOSED => ms.saturating_mul(1_000_000).saturating_sub(1),
        _ => i64::MAX,
    }
}

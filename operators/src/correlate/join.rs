//! One worker's share of the join, without the dataflow: batches and a bound on time in, batches out.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampNanosecondType;
use arrow::error::ArrowError;
use engine::batch::{Batch, MAX_ROWS, Time};
use engine::contract::NodeMetrics;

use super::connections::{Key, UNKNOWN};
use super::emit::Emitter;
use super::keys::{Filters, KeySpec, Keys};
use super::matcher::{AHEAD, Decision, END, Matcher, Outcomes, Rules, Side, Waiting};
use super::sightings::is_same_hello;
use super::skew::Monitor;
use super::store::Store;
use crate::format::BEGIN_TIME;
use crate::timeline::Timeline;

mod counters;
mod deliver;

use counters::{Counters, Filtered};
use deliver::Port;

/// The most rows that are taken in, and hellos that are looked at, in one activation; the other operators get their
/// turn in between.
const PER_ACTIVATION: usize = 8 * MAX_ROWS;

/// Keys are read for so many rows, then their connections are looked for: one after the other, the processor waits for
/// memory once for several of them.
const BLOCK: usize = 256;

/// What the user has set.
pub(super) struct Settings {
    pub rules: Rules,
    /// Watermarks move in steps of this many ns.
    pub tick: i64,
    /// Rows leave at message times that are multiples of this many ns.
    pub step: i64,
    pub keys: KeySpec,
    pub filters: Filters,
    pub emit_hellos: bool,
    /// The most requests that wait.
    pub max_requests: usize,
    /// The most hellos that wait.
    pub max_waiting_hellos: usize,
}

/// What leaves in one activation.
#[derive(Default)]
pub(super) struct Outbox {
    pub main: Vec<(Time, Batch)>,
    pub late: Vec<(Time, Batch)>,
    pub evicted: Vec<Batch>,
}

/// Which input a row came by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Hello,
    Request,
}

/// One worker's share of the join.
pub(super) struct Join {
    settings: Settings,
    matcher: Matcher,
    hellos: Store,
    requests: Store,
    /// Hellos and requests that the frontiers have not passed.
    waiting_hellos: Timeline<Waiting>,
    waiting_requests: Timeline<Waiting>,
    outcomes: Outcomes,
    /// Every row before this event time (ns) has been taken in.
    taken: i64,
    /// Every hello that expired before this event time (ns) has been let go.
    swept: i64,
    emitter: Emitter,
    counters: Counters,
    monitor: Monitor,
    metrics: Arc<NodeMetrics>,
    held: i64,
}

impl Join {
    /// Nothing has arrived yet.
    pub fn new(settings: Settings, emitter: Emitter, monitor: Monitor) -> Self {
        let metrics = Arc::clone(&monitor.metrics);
        Self {
            matcher: Matcher::new(settings.rules, settings.tick),
            hellos: Store::default(),
            requests: Store::default(),
            waiting_hellos: Timeline::new(settings.tick),
            waiting_requests: Timeline::new(settings.tick),
            outcomes: Outcomes::default(),
            taken: i64::MIN,
            swept: i64::MIN,
            emitter,
            counters: Counters::new(&metrics),
            monitor,
            metrics,
            held: 0,
            settings,
        }
    }

    /// Takes in what has arrived and decides what can be decided when both inputs are complete before `ready` (ns).
    /// Returns whether there is more to do at once.
    pub fn turn(
        &mut self,
        hellos: Vec<(Time, Batch)>,
        requests: Vec<(Time, Batch)>,
        ready: i64,
        out: &mut Outbox,
    ) -> Result<bool, ArrowError> {
        for (time, batch) in hellos {
            self.arrive(time, batch, Input::Hello, out)?;
        }
        for (time, batch) in requests {
            self.arrive(time, batch, Input::Request, out)?;
        }
        self.keep_bounds();
        let more = self.advance(ready);
        self.deliver(out)?;
        self.hellos.tidy()?;
        self.requests.tidy()?;
        let waiting = self.waiting_hellos.len() + self.waiting_requests.len() + self.matcher.unmatched();
        let held = (self.matcher.hellos() + waiting) as i64;
        self.metrics.state_rows.fetch_add(held - self.held, Relaxed);
        self.held = held;
        Ok(more)
    }

    /// The earliest time (ms) at which anything can still leave; `None` if nothing can.
    pub fn output_frontier(&self) -> Option<Time> {
        let mut earliest = self.taken.min(self.matcher.first_unmatched().unwrap_or(END));
        if self.settings.emit_hellos && self.matcher.hellos() > 0 {
            // A hello that no request matched leaves with its own time, when no request can match it any more.
            let rules = &self.settings.rules;
            earliest = earliest.min(self.swept.saturating_sub(rules.window.saturating_add(rules.longest)));
        }
        (earliest != END).then(|| message_time(earliest, self.settings.step))
    }

    /// Takes in a batch: its rows wait for their turn. What filters drop is let go; what is late leaves at once.
    fn arrive(&mut self, came: Time, batch: Batch, input: Input, out: &mut Outbox) -> Result<(), ArrowError> {
        let (Some(keys), Some(times), Some(seqs)) =
            (Keys::new(&batch.rows, self.settings.keys), batch.times(), batch.seqs())
        else {
            return Err(ArrowError::SchemaError("an input lacks the join's columns".to_owned()));
        };
        let (store, waiting) = match input {
            Input::Hello => (&mut self.hellos, &mut self.waiting_hellos),
            Input::Request => (&mut self.requests, &mut self.waiting_requests),
        };
        // A hello has no such column, or one that says nothing of it.
        let begins = batch.rows.column_by_name(BEGIN_TIME).filter(|_| input == Input::Request);
        let begins = begins.and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
        let rows = store.insert(batch.rows.clone(), batch.origin);
        let (mut filtered, mut late) = (Filtered::default(), Vec::new());
        let mut block: Vec<(Key, u64, Waiting)> = Vec::with_capacity(BLOCK);
        for (first, rows) in (0..).step_by(BLOCK).zip(rows.chunks(BLOCK)) {
            for (at, &row) in (first..).zip(rows) {
                let key = keys.get(at);
                if let Some(dropped) = self.settings.filters.drops(&key, keys.destination_port(at)) {
                    filtered.add(dropped);
                    store.release(row);
                    continue;
                }
                let time = times.value(at).min(END - 1);
                let begin =
                    begins.filter(|begins| begins.is_valid(at)).map_or(time, |begins| begins.value(at).min(time));
                if batch.late {
                    late.push(alone(input, Side { row, time, begin }));
                    continue;
                }
                let row = Waiting { time, seq: seqs.value(at), begin, row, connection: UNKNOWN };
                if !keys.has_port(at) {
                    waiting.push(row);
                    continue;
                }
                block.push((key, self.matcher.hash(&key), row));
            }
            for (key, hash, row) in block.drain(..) {
                waiting.push(Waiting { connection: self.matcher.arrive(&key, hash), ..row });
            }
        }
        self.counters.filtered(&filtered);
        // Late rows leave as orphans of their side.
        self.send(&late, Port::Late(came), out)
    }

    /// Decides the oldest requests, and evicts the oldest hellos, beyond the bounds on rows that wait.
    fn keep_bounds(&mut self) {
        let mut early = 0;
        let mut units = self.requests.units();
        while units.max(self.waiting_requests.len() + self.matcher.unmatched()) > self.settings.max_requests {
            let decided = self.outcomes.decisions.len();
            early += 1;
            let tolerance = self.settings.rules.tolerance;
            let unmatched = self.matcher.unmatched();
            if let Some(time) = self.matcher.first_unmatched() {
                self.take_hellos_to(time.saturating_add(tolerance));
                if self.matcher.unmatched() == unmatched {
                    self.matcher.give_up_first(&mut self.outcomes);
                }
            } else if let Some(request) = self.waiting_requests.pop_before(END) {
                self.take_hellos_to(request.begin.saturating_add(tolerance));
                self.matcher.request_now(request, &mut self.outcomes);
            } else {
                break;
            }
            let now_decided = self.outcomes.decisions[decided..].iter().filter_map(Decision::request);
            let gone: usize = now_decided.map(|side| self.requests.units_of(side.row) as usize).sum();
            units = units.saturating_sub(gone);
        }
        NodeMetrics::add(&self.counters.requests_decided_early, early);
        self.keep_bound_of_waiting_hellos();
    }

    /// Evicts the oldest hellos beyond the bound on those that wait.
    fn keep_bound_of_waiting_hellos(&mut self) {
        let leaving = self.outcomes.evicted.iter().chain(&self.outcomes.alone).map(|side| side.row);
        let leaving = leaving.chain(self.outcomes.finished.iter().copied());
        let leaving: usize = leaving.map(|row| self.hellos.units_of(row) as usize).sum();
        let mut units = self.hellos.units().saturating_sub(self.matcher.units() + leaving);
        let mut evicted = 0;
        while units.max(self.waiting_hellos.len()) > self.settings.max_waiting_hellos {
            let Some(hello) = self.waiting_hellos.pop_before(END) else { break };
            units = units.saturating_sub(self.hellos.units_of(hello.row) as usize);
            self.matcher.turn_away(&hello);
            self.outcomes.evicted.push(hello.side());
            evicted += 1;
        }
        NodeMetrics::add(&self.counters.evicted_waiting, evicted);
    }

    /// Takes in the hellos known up to a time, though others may come before them.
    fn take_hellos_to(&mut self, time: i64) {
        while let Some(hello) = self.waiting_hellos.pop_before(time.saturating_add(1)) {
            self.take_hello(hello);
        }
    }

    /// Takes in a hello. With sensors in the key, sightings by two of them are of two hellos.
    fn take_hello(&mut self, hello: Waiting) {
        let (store, by_sensor) = (&self.hellos, self.settings.keys.sensor);
        let units = store.units_of(hello.row);
        self.matcher.hello(hello, units, |a, b| !by_sensor && is_same_hello(store, a, b), &mut self.outcomes);
    }

    /// Takes in the rows before `ready`, in the order of event time; where times are equal, hellos first. Returns
    /// whether there is more to do at once.
    fn advance(&mut self, ready: i64) -> bool {
        let (mut budget, mut seen) = (PER_ACTIVATION, 0);
        let position = loop {
            let hello = self.waiting_hellos.first_before(ready).map(|row| row.time);
            let request = self.waiting_requests.first_before(ready).map(|row| row.time);
            let next = hello.unwrap_or(END).min(request.unwrap_or(END)).min(ready);
            // What has expired goes first, so that the hellos held are a function of the rows alone.
            budget -= self.matcher.expire(next, budget, &mut self.outcomes);
            if budget == 0 || hello.is_none() && request.is_none() {
                break next;
            }
            budget -= 1;
            if hello == Some(next) {
                if let Some(hello) = self.waiting_hellos.pop_before(ready) {
                    self.take_hello(hello);
                }
            } else if let Some(request) = self.waiting_requests.pop_before(ready) {
                if seen % AHEAD == 0 {
                    self.matcher.look_ahead(self.waiting_requests.ahead(AHEAD));
                }
                seen += 1;
                self.matcher.request(request, &mut self.outcomes);
            }
        };
        self.taken = self.taken.max(position);
        if budget > 0 {
            self.swept = self.swept.max(position);
        }
        let all = self.matcher.give_up(position, PER_ACTIVATION, &mut self.outcomes);
        budget == 0 || !all
    }
}

/// The decision on a row that leaves without a partner.
fn alone(input: Input, side: Side) -> Decision {
    match input {
        Input::Hello => Decision::Hello { hello: side },
        Input::Request => Decision::Request { request: side },
    }
}

/// The message time in ms of a row: its event time, down to a multiple of `step` ns. It depends on the row alone, so
/// that what is cut by message times downstream, such as files, is cut alike in every run.
fn message_time(ns: i64, step: i64) -> Time {
    u64::try_from(ns.saturating_sub(ns.rem_euclid(step)) / 1_000_000).unwrap_or(0)
}

//! One worker's share of the join, without the dataflow: batches and a bound on time in, batches out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use arrow::error::ArrowError;
use engine::batch::{Batch, MAX_ROWS, Origin, Time};
use engine::contract::NodeMetrics;

use super::connections::{Key, UNKNOWN};
use super::emit::Emitter;
use super::keys::{Dropped, Filters, KeySpec, Keys};
use super::matcher::{AHEAD, Decision, END, Matcher, Outcomes, Rules, Side, Waiting};
use super::sign::{ORPHANS, PLAIN, WHOLE_SECONDS};
use super::skew::Monitor;
use super::store::{Row, Store};
use crate::format::BEGIN_TIME;
use crate::timeline::Timeline;

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

struct Counters {
    correlated: Arc<AtomicU64>,
    orphan_requests: Arc<AtomicU64>,
    orphans_without_port: Arc<AtomicU64>,
    whole_seconds: Arc<AtomicU64>,
    plain: Arc<AtomicU64>,
    orphan_hellos: Arc<AtomicU64>,
    duplicate_hellos: Arc<AtomicU64>,
    requests_decided_early: Arc<AtomicU64>,
    evicted_waiting: Arc<AtomicU64>,
    expired_early: Arc<AtomicU64>,
    after_expiry: Arc<AtomicU64>,
    too_long: Arc<AtomicU64>,
    failed_ip_excluded: Arc<AtomicU64>,
    failed_dest_port_filtered: Arc<AtomicU64>,
}

impl Counters {
    fn new(metrics: &NodeMetrics) -> Self {
        Self {
            correlated: metrics.counter("correlated"),
            orphan_requests: metrics.counter(ORPHANS),
            orphans_without_port: metrics.counter("orphans_without_port"),
            whole_seconds: metrics.counter(WHOLE_SECONDS),
            plain: metrics.counter(PLAIN),
            orphan_hellos: metrics.counter("orphan_hellos"),
            duplicate_hellos: metrics.counter("duplicate_hellos"),
            requests_decided_early: metrics.counter("requests_decided_early"),
            evicted_waiting: metrics.counter("evicted_waiting"),
            expired_early: metrics.counter("hellos_expired_early"),
            after_expiry: metrics.counter("orphans_after_expiry"),
            too_long: metrics.counter("requests_too_long"),
            failed_ip_excluded: metrics.counter("failed_ip_excluded"),
            failed_dest_port_filtered: metrics.counter("failed_dest_port_filtered"),
        }
    }
}

/// Which input a row came by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Hello,
    Request,
}

/// Where rows leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Main,
    /// At the message time at which the row came.
    Late(Time),
    Evicted,
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
        let (mut by_address, mut by_port, mut late) = (0, 0, Vec::new());
        let mut block: Vec<(Key, u64, Waiting)> = Vec::with_capacity(BLOCK);
        for (first, rows) in (0..).step_by(BLOCK).zip(rows.chunks(BLOCK)) {
            for (at, &row) in (first..).zip(rows) {
                let key = keys.get(at);
                if let Some(dropped) = self.settings.filters.drops(&key, keys.destination_port(at)) {
                    by_address += usize::from(dropped == Dropped::Address);
                    by_port += usize::from(dropped == Dropped::Port);
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
        NodeMetrics::add(&self.counters.failed_ip_excluded, by_address);
        NodeMetrics::add(&self.counters.failed_dest_port_filtered, by_port);
        // Late rows leave as orphans of their side.
        self.send(&late, Port::Late(came), out)
    }

    /// Decides the oldest requests, and evicts the oldest hellos, beyond the bounds on rows that wait.
    fn keep_bounds(&mut self) {
        let mut early = 0;
        while self.waiting_requests.len() + self.matcher.unmatched() > self.settings.max_requests {
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
            }
        }
        NodeMetrics::add(&self.counters.requests_decided_early, early);
        let mut evicted = 0;
        while self.waiting_hellos.len() > self.settings.max_waiting_hellos {
            let Some(hello) = self.waiting_hellos.pop_before(END) else { break };
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

    fn take_hello(&mut self, hello: Waiting) {
        let (store, by_sensor) = (&self.hellos, self.settings.keys.sensor);
        self.matcher.hello(hello, |a, b| !by_sensor && is_same_hello(store, a, b), &mut self.outcomes);
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

    /// Turns outcomes into batches, and lets go of their rows.
    fn deliver(&mut self, out: &mut Outbox) -> Result<(), ArrowError> {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let closed = self.taken == END;
        self.monitor.observe(&outcomes.delays, closed);
        // Requests that have waited for a hello come behind younger ones that have not.
        if self.requests.is_mixed() {
            // What leaves together is of one step and one log.
            let step = self.settings.step;
            outcomes.decisions.sort_by_key(|one| (one.time().div_euclid(step), self.origin(one), one.time()));
        } else {
            outcomes.decisions.sort_by_key(Decision::time);
        }
        let matched = outcomes.decisions.iter().filter(|d| matches!(d, Decision::Matched { .. })).count();
        NodeMetrics::add(&self.counters.correlated, matched);
        NodeMetrics::add(&self.counters.orphan_requests, outcomes.decisions.len() - matched);
        let rounded = |d: &&Decision| matches!(d, Decision::Request { request } if request.begin % 1_000_000_000 == 0);
        NodeMetrics::add(&self.counters.whole_seconds, outcomes.decisions.iter().filter(rounded).count());
        NodeMetrics::add(&self.counters.orphan_hellos, outcomes.alone.len());
        self.counters.orphans_without_port.fetch_add(outcomes.without_port, Relaxed);
        self.counters.duplicate_hellos.fetch_add(outcomes.sightings, Relaxed);
        self.counters.expired_early.fetch_add(outcomes.expired_early, Relaxed);
        self.counters.after_expiry.fetch_add(outcomes.after_expiry, Relaxed);
        self.counters.too_long.fetch_add(outcomes.too_long, Relaxed);
        self.send(&outcomes.decisions, Port::Main, out)?;
        let hellos = |sides: &[Side]| sides.iter().map(|side| alone(Input::Hello, *side)).collect::<Vec<_>>();
        if self.settings.emit_hellos {
            outcomes.alone.sort_by_key(|side| side.time);
            self.send(&hellos(&outcomes.alone), Port::Main, out)?;
        } else {
            outcomes.alone.iter().for_each(|side| self.hellos.release(side.row));
        }
        self.send(&hellos(&outcomes.evicted), Port::Evicted, out)?;
        outcomes.finished.iter().for_each(|row| self.hellos.release(*row));
        // The memory is used again.
        outcomes.clear();
        self.outcomes = outcomes;
        Ok(())
    }

    /// The log of the request, or of a hello that leaves alone.
    fn origin(&self, decision: &Decision) -> Origin {
        match decision {
            Decision::Matched { request, .. } | Decision::Request { request } => self.requests.origin(request.row),
            Decision::Hello { hello } => self.hellos.origin(hello.row),
        }
    }

    /// Turns decisions into batches and lets go of requests, and of hellos that leave alone.
    fn send(&mut self, decisions: &[Decision], port: Port, out: &mut Outbox) -> Result<(), ArrowError> {
        let step = self.settings.step;
        let is_mixed = self.requests.is_mixed() || self.hellos.is_mixed();
        let is_of_step =
            |a: &Decision, b: &Decision| port != Port::Main || a.time().div_euclid(step) == b.time().div_euclid(step);
        let chunks: Vec<&[Decision]> = decisions
            .chunk_by(|a, b| is_of_step(a, b) && (!is_mixed || self.origin(a) == self.origin(b)))
            .flat_map(|chunk| chunk.chunks(MAX_ROWS))
            .collect();
        for chunk in chunks {
            let rows = self.emitter.batch(chunk, &self.requests, &self.hellos)?;
            if port == Port::Main {
                NodeMetrics::add(&self.counters.plain, plain(chunk, &rows));
            }
            let origin = chunk.first().map_or(0, |first| self.origin(first));
            let batch = Batch { late: port != Port::Main, origin, ..Batch::new(rows) };
            match port {
                Port::Main => {
                    let time = chunk.first().map_or(0, |first| message_time(first.time(), step));
                    out.main.push((time, batch));
                }
                Port::Late(time) => out.late.push((time, batch)),
                Port::Evicted => out.evicted.push(batch),
            }
        }
        for decision in decisions {
            match decision {
                Decision::Matched { request, .. } | Decision::Request { request } => self.requests.release(request.row),
                Decision::Hello { hello } => self.hellos.release(hello.row),
            }
        }
        Ok(())
    }
}

/// How many requests among these have found no hello and say that they came without TLS.
fn plain(decisions: &[Decision], rows: &RecordBatch) -> usize {
    let schemes = rows.column_by_name("scheme").and_then(|schemes| schemes.as_string_opt::<i32>());
    let Some(schemes) = schemes else { return 0 };
    let is_plain = |at: usize| schemes.is_valid(at) && schemes.value(at).eq_ignore_ascii_case("http");
    let decided = decisions.iter().enumerate();
    decided.filter(|(at, decision)| matches!(decision, Decision::Request { .. }) && is_plain(*at)).count()
}

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

/// Whether two rows of one key are what two sensors saw of one hello: other sensors, the same message. What the network
/// changes on the way (TTL, translated addresses, options of a proxy's TCP) is not compared.
fn is_same_hello(store: &Store, a: Row, b: Row) -> bool {
    let (Some(a), Some(b)) = (store.find(a), store.find(b)) else { return false };
    let equal = |column: &str| match (text(a, column), text(b, column)) {
        (Some(a), Some(b)) => a == b,
        (a, b) => a.is_none() && b.is_none(),
    };
    let sensors = (text(a, "sensor_id"), text(b, "sensor_id"));
    matches!(sensors, (Some(a), Some(b)) if a != b)
        && text(a, "ja4").is_some()
        && ["ja4", "ja3", "ja3_hash", "tls_sni", "tls_alpn"].into_iter().all(equal)
}

fn text<'a>((rows, at): (&'a RecordBatch, usize), column: &str) -> Option<&'a str> {
    let values = rows.column_by_name(column)?.as_string_opt::<i32>()?;
    values.is_valid(at).then(|| values.value(at))
}

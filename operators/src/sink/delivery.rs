//! Rows on their way to a receiver that answers for them: parcels of one tick each, sent until they are taken.
//!
//! A parcel is named by its tick and by what it holds. How ticks are cut into parcels is noted before the first of them is
//! sent, so that a start after a crash makes the same ones again, whatever its options: what the receiver gets twice it
//! gets under the same name.

mod bounds;
mod carriage;
mod parcel;

pub(super) use bounds::Most;
pub(super) use carriage::{Carrier, Trouble};
pub(super) use parcel::Parcel;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use engine::batch::{Batch, Stream, Time};
use engine::contract::sink::{self, CLOSED, Sink, Then, Written};
use engine::contract::{Backlog, BuildContext, NodeMetrics, SinkHandle};
use serde_json::Value;

use super::written::Format;
use bounds::Bounds;
use carriage::Carriage;

/// What was sent is confirmed at most this often.
const CONFIRM: Duration = Duration::from_millis(200);

/// What a sink of parcels is.
pub(super) struct Settings {
    /// The receiver, for messages: without a password or a path, which may be a secret.
    pub place: String,
    /// What it writes to, all of it: never shown.
    pub target: String,
    /// The most rows and bytes of a parcel.
    pub most: Most,
    /// The longest pause between two attempts.
    pub max_pause: Duration,
}

/// The most of a parcel.
pub(super) fn most(rows: usize, bytes: usize) -> Most {
    Most { rows: rows.max(1), bytes: bytes.max(1) }
}

/// Builds the sink; `carrier` is made once, on the worker that sends.
pub(super) fn build<'s, C: Carrier>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    format: &Format,
    settings: Settings,
    carrier: impl FnOnce() -> Result<C, String>,
) -> Stream<'s> {
    let lines = format.texts(context, input);
    let is_of_changes = format.is_of_changes();
    let make = |_, handle: &SinkHandle| {
        let carriage = Carriage::start(carrier()?, &settings, &context.metrics)?;
        Ok(Delivery {
            node: context.id.clone(),
            target: settings.target,
            bounds: Bounds::new(settings.most),
            carriage,
            is_noted: handle.is_noted(),
            is_of_changes,
            held: handle.held(),
            metrics: Arc::clone(&context.metrics),
            gathered: VecDeque::new(),
            prepared: VecDeque::new(),
            waiting: 0,
            upto: 0,
            given: 0,
            then: Then::More,
            confirmed: Instant::now(),
        })
    };
    sink::build(context, lines, (&context.id, context.home()), |_| true, make)
}

/// The sink on the worker that owns it.
struct Delivery {
    node: String,
    target: String,
    bounds: Bounds,
    carriage: Carriage,
    /// Whether the run can be continued by another.
    is_noted: bool,
    is_of_changes: bool,
    /// Rows that are not confirmed.
    held: Arc<Backlog>,
    metrics: Arc<NodeMetrics>,
    /// Lines of ticks that are not cut yet.
    gathered: VecDeque<(Time, Vec<u8>)>,
    /// Parcels that wait until it is noted how they were cut.
    prepared: VecDeque<Parcel>,
    /// Rows in parcels that were not taken, as they are counted.
    waiting: usize,
    /// Every tick before this is confirmed.
    upto: Time,
    /// Every tick before this is in parcels.
    given: Time,
    then: Then,
    confirmed: Instant,
}

impl Delivery {
    /// Has parcels sent that begin before `until`.
    fn send(&mut self, until: Time) {
        while let Some(parcel) = self.prepared.pop_front_if(|parcel| parcel.tick < until) {
            self.carriage.push(parcel);
        }
    }

    /// Makes parcels of the ticks before `upto`.
    fn cut(&mut self, upto: Time) {
        while let Some((tick, text)) = self.gathered.pop_front_if(|(tick, _)| *tick < upto) {
            let parcels = parcel::cut(&self.node, tick, &text, self.bounds.of(tick));
            let rows: usize = parcels.iter().map(|parcel| parcel.rows).sum();
            self.waiting += rows;
            self.held.sent(rows);
            self.metrics.state_rows.fetch_add(rows as i64, Relaxed);
            self.bounds.reach(tick.saturating_add(1));
            self.given = self.given.max(tick.saturating_add(1));
            self.prepared.extend(parcels);
        }
        if upto < CLOSED {
            self.given = self.given.max(upto);
        }
    }

    /// So many rows are left.
    fn left(&mut self, rows: usize) {
        let taken = self.waiting.saturating_sub(rows);
        self.held.arrived(taken);
        self.metrics.state_rows.fetch_sub(taken as i64, Relaxed);
        self.waiting -= taken;
    }
}

impl Sink for Delivery {
    fn target(&self) -> String {
        self.target.clone()
    }

    fn writes_changes(&self) -> bool {
        self.is_of_changes
    }

    fn open(&mut self, from: Time, detail: &Value) -> Result<(), String> {
        (self.upto, self.given) = (from, from);
        self.bounds.resume(detail)?;
        self.bounds.confirmed(from);
        Ok(())
    }

    fn write(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
        if self.gathered.back().is_none_or(|(last, _)| *last != tick) {
            self.gathered.push_back((tick, Vec::new()));
        }
        if let Some((_, text)) = self.gathered.back_mut() {
            Format::append(text, &batch);
        }
        Ok(())
    }

    fn flush(&mut self, upto: Time, then: Then) -> Result<(), String> {
        self.then = then;
        self.cut(upto);
        Ok(())
    }

    fn written(&mut self) -> Result<Written, String> {
        // What an earlier run may have sent is cut as it was then, and noted already.
        self.send(if self.is_noted { self.bounds.noted() } else { CLOSED });
        let left = self.carriage.look();
        let prepared: usize = self.prepared.iter().map(|parcel| parcel.rows).sum();
        self.left(left.rows + prepared);
        let first = left.first.into_iter().chain(self.prepared.front().map(|parcel| parcel.tick)).min();
        let sent = first.unwrap_or(Time::MAX).min(self.given);
        if sent > self.upto && (self.confirmed.elapsed() >= CONFIRM || self.then != Then::More) {
            (self.upto, self.confirmed) = (sent, Instant::now());
            self.bounds.confirmed(sent);
        }
        let is_idle = left.rows == 0 && self.prepared.is_empty() && self.upto >= sent;
        let detail = self.bounds.detail();
        Ok(Written { upto: self.upto, detail, is_idle, is_stalled: left.is_stalled, ..Written::default() })
    }

    fn noted(&mut self) -> Result<(), String> {
        self.bounds.has_been_noted();
        self.send(CLOSED);
        Ok(())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.waiting > 0 && !self.is_noted {
            NodeMetrics::add(&self.metrics.counter("dropped"), self.waiting);
            tracing::warn!(node = self.node, rows = self.waiting, "not sent: without a spool no later run has them");
        }
        self.left(0);
        self.carriage.stop();
    }
}

//! Sends rows as JSON objects, one a datagram, to a unix socket that another program has made.
//!
//! A receiver that is away or slow is waited for: rows wait in a queue, and when that of the whole dataflow is full, its
//! sources pause. Only when the receiver has taken nothing for `max_wait` are the oldest rows beyond `queue` dropped, and counted.

mod sender;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::flow::{Flow, Outlet, Turn};
use engine::ledger::{Confirmed, Ledger};
use engine::metrics::NodeMetrics;
use engine::plan::PlanContext;
use engine::registry::{Inputs, Node, Operator, Port};
use engine::render::BuildContext;
use engine::spec::{Located, humantime_duration};

use super::operator::{self, CLOSED, Step, Work};
use super::written::{Format, Mode};
use sender::Sender;

/// What was sent is confirmed at most this often.
const CONFIRM: Duration = Duration::from_millis(200);

/// See [`Operator::SUMMARY`].
pub struct UnixSocket;

/// What can be set.
///
/// Counters: `datagrams` that were sent, `dropped` rows, `too_large` rows that no datagram can hold, and `receiver_lost`, how
/// often a receiver went away. With a spool, rows that were not sent when the run ends are sent by the next; after a crash
/// those of the last 200 ms or so are sent once more.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct UnixSocketOptions {
    /// The receiver's socket (SOCK_DGRAM), relative to the pipeline's file. It need not be there yet, and may be made anew.
    #[schemars(with = "String")]
    path: Located<PathBuf>,
    /// The columns to write, in this order. Default: all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    columns: Option<Vec<Located<String>>>,
    /// Which rows of a relation are written. A stream has only settled rows.
    #[serde(default)]
    mode: Mode,
    /// Rows that wait for a receiver that has taken nothing for `max_wait`; beyond, the oldest are dropped and counted.
    /// Default 1000.
    #[serde(default = "thousand")]
    queue: usize,
    /// How long nothing is dropped although the receiver takes nothing, and how long the end of a run waits for it. While
    /// it takes anything, nothing is dropped, and the sources pause if they must. Default 1s.
    #[serde(default = "second", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    max_wait: Duration,
}

fn thousand() -> usize {
    1000
}

fn second() -> Duration {
    Duration::from_secs(1)
}

impl Operator for UnixSocket {
    type Options = UnixSocketOptions;
    const KIND: &'static str = "sink.unix_socket";
    const SUMMARY: &'static str = "Sends rows as JSON objects, one a datagram, to a unix socket.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[];
    const NEEDS: &'static str = "any columns, or those in `columns`; no Binary";

    fn plan(options: UnixSocketOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let format = Format::plan(options.columns.as_deref(), options.mode, context);
        let path = context.output_path(&options.path.value);
        // sockaddr_un has 108 bytes for a path and its end.
        if path.as_os_str().len() > 107 {
            context.error(options.path.span, "the path of a socket has at most 107 bytes");
            return None;
        }
        Some(Box::new(SocketNode { path, format: format?, queue: options.queue, max_wait: options.max_wait }))
    }
}

struct SocketNode {
    path: PathBuf,
    format: Format,
    queue: usize,
    max_wait: Duration,
}

impl Node for SocketNode {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let make = |address| {
            let ledger = context.ledger(&context.id)?;
            let sender = Sender::new(&self.path, self.queue, self.max_wait, &context.metrics);
            let weak = Arc::downgrade(&sender);
            context.shared.outputs.add(&context.id, weak);
            Owner::new(context, self.format.clone(), sender, ledger, address)
        };
        vec![operator::at_owner(context, input.stream, (&context.id, context.home()), |_| true, make)]
    }
}

/// The sink on the worker that owns it.
struct Owner {
    format: Format,
    sender: Arc<Sender>,
    /// Lines of ticks that are not complete, or not this sink's to send yet.
    ticks: BTreeMap<Time, Vec<u8>>,
    /// Nothing of the run will be done again: rows need not wait for their tick.
    at_once: bool,
    ledger: Option<Ledger>,
    outlet: Outlet,
    flow: Arc<Flow>,
    metrics: Arc<NodeMetrics>,
    /// Rows that the flow counts as unconfirmed.
    held: usize,
    opened: bool,
    /// Every tick before this is confirmed.
    upto: Time,
    /// Every tick before this has been given to the sender.
    given: Time,
    confirmed: Instant,
}

impl Owner {
    fn new(
        context: &BuildContext<'_>,
        format: Format,
        sender: Arc<Sender>,
        ledger: Option<Ledger>,
        address: Rc<[usize]>,
    ) -> Result<Self, String> {
        let mut owner = Self {
            format,
            sender,
            ticks: BTreeMap::new(),
            at_once: ledger.is_none(),
            ledger,
            outlet: context.outlet(address),
            flow: Arc::clone(&context.flow),
            metrics: Arc::clone(&context.metrics),
            held: 0,
            opened: false,
            upto: 0,
            given: 0,
            confirmed: Instant::now(),
        };
        if owner.outlet.may_open() {
            owner.open(0)?;
        }
        Ok(owner)
    }

    /// Goes on behind what was confirmed; ticks before `from` are not sent.
    fn open(&mut self, from: Time) -> Result<(), String> {
        if let Some(ledger) = &mut self.ledger {
            // Another run or another dataflow may have confirmed more since the ledger was read.
            ledger.refresh()?;
            self.upto = ledger.upto();
        }
        self.upto = self.upto.max(from);
        self.given = self.upto;
        self.opened = true;
        self.confirm()?;
        self.outlet.opened();
        Ok(())
    }

    fn push(&mut self, tick: Time, text: &[u8]) {
        NodeMetrics::add(&self.metrics.bytes, text.len());
        match self.at_once {
            true => self.give(tick, text),
            false => self.ticks.entry(tick).or_default().extend_from_slice(text),
        }
    }

    fn give(&mut self, tick: Time, text: &[u8]) {
        let rows = self.sender.push(tick, text);
        self.held += rows;
        self.flow.held.sent(rows);
    }

    fn confirm(&mut self) -> Result<(), String> {
        self.confirmed = Instant::now();
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        ledger.confirm(Confirmed { upto: self.upto, detail: serde_json::Value::Null })
    }
}

impl Work for Owner {
    fn take(&mut self, tick: Time, batches: Vec<Batch>) -> Result<(), String> {
        for batch in batches {
            let mut text = Vec::new();
            if self.format.write(&mut text, &batch) {
                self.push(tick, &text);
            }
        }
        Ok(())
    }

    fn advance(&mut self, frontier: Time) -> Result<Step, String> {
        let range = match self.outlet.turn(frontier) {
            Turn::Wait => return Ok(Step { hold: self.upto, again: true }),
            Turn::Write(range) => range,
        };
        let rest = if frontier == CLOSED { BTreeMap::new() } else { self.ticks.split_off(&frontier) };
        let complete = std::mem::replace(&mut self.ticks, rest);
        if range.start == Time::MAX {
            // Another dataflow sends; so far this one only gets ready.
            return Ok(Step { hold: frontier, again: false });
        }
        if !self.opened {
            self.open(range.start)?;
        }
        let from = self.given;
        for (tick, text) in complete.into_iter().filter(|(tick, _)| *tick >= from && range.contains(tick)) {
            self.give(tick, &text);
            self.given = self.given.max(tick.saturating_add(1));
        }
        let ends = range.end < CLOSED && frontier >= range.end;
        if frontier < CLOSED {
            self.given = self.given.max(frontier.min(range.end));
        }
        let state = self.sender.look(frontier == CLOSED);
        self.flow.held.arrived(self.held.saturating_sub(state.waiting));
        self.held = self.held.min(state.waiting);
        let through = state.waiting == 0;
        let sent = state.first.unwrap_or(Time::MAX).min(self.given);
        let due = self.confirmed.elapsed() >= CONFIRM || self.outlet.is_parking() || ends || frontier == CLOSED;
        if sent > self.upto && due {
            self.upto = sent;
            self.confirm()?;
        }
        let through = through && self.upto >= sent;
        if ends && through {
            self.outlet.finished();
        }
        // A receiver that takes nothing must not keep the run from ending: with a spool the next run sends the rest.
        if self.outlet.is_parking() && (through || state.stalled) {
            self.outlet.parked();
        }
        if frontier == CLOSED && through {
            self.outlet.finished();
            self.outlet.parked();
            return Ok(Step { hold: CLOSED, again: false });
        }
        let hold = match self.at_once {
            true => frontier.min(state.first.unwrap_or(frontier)),
            false if ends && through => frontier,
            false => self.upto.min(frontier),
        };
        Ok(Step { hold, again: !through })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.flow.held.arrived(self.held);
        self.sender.stop();
    }
}

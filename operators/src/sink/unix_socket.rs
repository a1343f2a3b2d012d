//! Sends rows as JSON objects, one a datagram, to a unix socket that another program has made.
//!
//! A receiver that is away or slow is waited for: rows wait in a queue, and when that of the whole dataflow is full, its
//! sources pause. Only when the receiver has taken nothing for `max_wait` are the oldest rows beyond `queue` dropped, and counted.

mod sender;

use std::collections::BTreeMap;
use std::path::PathBuf;
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
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::vec::Filter;

use super::swallow;
use super::written::{Format, Mode};
use crate::exchange::arrivals;
use sender::Sender;

/// How soon a sink that waits, for another writer or for the receiver, looks again.
const PATIENCE: Duration = Duration::from_millis(20);

/// What was sent is confirmed at most this often.
const CONFIRM: Duration = Duration::from_millis(200);

/// The end of all input.
const CLOSED: Time = Time::MAX;

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
        let ledger = match context.ledger(&context.id) {
            Ok(ledger) => ledger,
            Err(message) => {
                context.failure()(message);
                return vec![swallow(context, input.stream, false)];
            }
        };
        let sender = context.is_home().then(|| Sender::new(&self.path, self.queue, self.max_wait, &context.metrics));
        if let Some(sender) = &sender {
            let weak = Arc::downgrade(sender);
            context.shared.outputs.add(&context.id, weak);
        }
        vec![build(context, input.stream, self.format.clone(), sender, ledger)]
    }
}

/// Builds the operator, all of whose rows are sent by the worker that owns the node.
fn build<'s>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    format: Format,
    sender: Option<Arc<Sender>>,
    ledger: Option<Ledger>,
) -> Stream<'s> {
    let fail = context.failure();
    let (peers, shared, owner) = (context.peers, Arc::clone(&context.shared), context.home());
    let kept = input.filter(move |batch: &Batch| {
        if peers > 1 {
            shared.backlog.sent(batch.rows.num_rows());
        }
        true
    });
    let note = arrivals(context);
    kept.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(
        Exchange::new(move |_: &Batch| owner),
        &context.id,
        move |capability, info| {
            let activator = context.scope.activator_for(info.address.clone());
            let mut work = sender.map(|sender| Work {
                sender,
                ticks: BTreeMap::new(),
                at_once: ledger.is_none(),
                ledger,
                outlet: context.outlet(info.address),
                flow: Arc::clone(&context.flow),
                metrics: Arc::clone(&context.metrics),
                held: 0,
                opened: false,
                upto: 0,
                given: 0,
                confirmed: Instant::now(),
            });
            let flow = Arc::clone(&context.flow);
            let mut held = work.as_ref().map(|_| capability);
            let opened =
                work.as_mut().map_or(Ok(()), |work| if work.outlet.may_open() { work.open(0) } else { Ok(()) });
            if let Err(message) = opened {
                fail(message);
                work = None;
            }
            let mut text = Vec::new();
            move |(input, frontier), _output| {
                input.for_each_stamp(|time, data| {
                    let tick = time.least().copied().unwrap_or_default();
                    for batch in data.inspect(|batches| note(batches)).flat_map(|batches| batches.drain(..)) {
                        text.clear();
                        if let Some(work) = work.as_mut().filter(|_| format.write(&mut text, &batch)) {
                            work.push(tick, &text);
                        }
                    }
                });
                let Some(open) = work.as_mut() else {
                    if flow.lets_go() {
                        held = None;
                    }
                    return;
                };
                let frontier = frontier.frontier().first().copied().unwrap_or(CLOSED);
                match open.advance(frontier) {
                    Ok((hold, again)) => {
                        if let Some(held) = held.as_mut().filter(|held| *held.time() < hold) {
                            held.downgrade(&hold);
                        }
                        if hold == CLOSED {
                            held = None;
                        }
                        if again {
                            activator.activate_after(PATIENCE);
                        }
                    }
                    Err(message) => {
                        fail(message);
                        work = None;
                        if flow.lets_go() {
                            held = None;
                        }
                    }
                }
            }
        },
    )
}

/// The sink on the worker that owns it.
struct Work {
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

impl Work {
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

    /// Every tick before `frontier` is complete. The time before which nothing more is to come from here, and whether it
    /// must be asked again.
    fn advance(&mut self, frontier: Time) -> Result<(Time, bool), String> {
        let range = match self.outlet.turn(frontier) {
            Turn::Wait => return Ok((self.upto, true)),
            Turn::Write(range) => range,
        };
        let rest = if frontier == CLOSED { BTreeMap::new() } else { self.ticks.split_off(&frontier) };
        let complete = std::mem::replace(&mut self.ticks, rest);
        if range.start == Time::MAX {
            // Another dataflow sends; so far this one only gets ready.
            return Ok((frontier, false));
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
            return Ok((CLOSED, false));
        }
        let hold = if ends && through { frontier } else { self.upto.min(frontier) };
        Ok((if self.at_once { frontier.min(state.first.unwrap_or(frontier)) } else { hold }, !through))
    }

    fn confirm(&mut self) -> Result<(), String> {
        self.confirmed = Instant::now();
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        ledger.confirm(Confirmed { upto: self.upto, detail: serde_json::Value::Null })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.flow.held.arrived(self.held);
        self.sender.stop();
    }
}

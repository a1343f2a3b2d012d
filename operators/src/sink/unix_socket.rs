//! Sends rows as JSON objects, one a datagram, to a unix socket that another program has made.
//!
//! A receiver that is away or slow is waited for: rows wait in a queue, and when that of the whole dataflow is full, its
//! sources pause. Only when the receiver has taken nothing for `max_wait` are the oldest rows beyond `queue` dropped, and counted.

mod sender;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::batch::{Batch, Edge, EdgeType, Stream, Time};
use engine::contract::Backlog;
use engine::contract::BuildContext;
use engine::contract::NodeMetrics;
use engine::contract::PlanContext;
use engine::contract::SinkHandle;
use engine::contract::{Facts, Inputs, Node, Operator, Port};
use engine::spec::{Located, humantime_duration};
use serde_json::Value;

use super::written::{Format, Mode};
use engine::contract::sink::{self, CLOSED, Sink, Then, Written};
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

    fn facts(&self) -> Facts {
        Facts { records_changes: self.format.is_of_changes(), ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let lines = self.format.texts(context, input.stream);
        let make = |_, handle: &SinkHandle| {
            let sender = Sender::new(&self.path, self.queue, self.max_wait, &context.metrics);
            let weak = Arc::downgrade(&sender);
            context.shared.outputs.add(&context.id, weak);
            Ok(Owner {
                path: self.path.clone(),
                sender,
                at_once: !handle.is_noted(),
                is_of_changes: self.format.is_of_changes(),
                held: handle.held(),
                metrics: Arc::clone(&context.metrics),
                waiting: 0,
                upto: 0,
                given: 0,
                then: Then::More,
                confirmed: Instant::now(),
            })
        };
        vec![sink::build(context, lines, (&context.id, context.home()), |_| true, make)]
    }
}

/// The sink on the worker that owns it.
struct Owner {
    path: PathBuf,
    sender: Arc<Sender>,
    /// Nothing of the run will be done again: rows need not wait for their tick.
    at_once: bool,
    is_of_changes: bool,
    /// Rows that are not confirmed.
    held: Arc<Backlog>,
    metrics: Arc<NodeMetrics>,
    /// Rows that the sender has, as they are counted.
    waiting: usize,
    /// Every tick before this is confirmed.
    upto: Time,
    /// Every tick before this has been given to the sender.
    given: Time,
    then: Then,
    confirmed: Instant,
}

impl Sink for Owner {
    fn target(&self) -> String {
        self.path.display().to_string()
    }

    fn writes_at_once(&self) -> bool {
        self.at_once
    }

    fn writes_changes(&self) -> bool {
        self.is_of_changes
    }

    fn open(&mut self, from: Time, _detail: &Value) -> Result<(), String> {
        (self.upto, self.given) = (from, from);
        Ok(())
    }

    fn write(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
        let mut text = Vec::new();
        Format::append(&mut text, &batch);
        NodeMetrics::add(&self.metrics.bytes, text.len());
        let rows = self.sender.push(tick, &text);
        self.waiting += rows;
        self.held.sent(rows);
        self.given = self.given.max(tick.saturating_add(1));
        Ok(())
    }

    fn flush(&mut self, upto: Time, then: Then) -> Result<(), String> {
        self.then = then;
        if upto < CLOSED {
            self.given = self.given.max(upto);
        }
        Ok(())
    }

    fn written(&mut self) -> Result<Written, String> {
        let left = self.sender.look(self.then == Then::Nothing);
        self.held.arrived(self.waiting.saturating_sub(left.waiting));
        self.waiting = self.waiting.min(left.waiting);
        let sent = left.first.unwrap_or(Time::MAX).min(self.given);
        let due = self.at_once || self.confirmed.elapsed() >= CONFIRM || self.then != Then::More;
        if sent > self.upto && due {
            (self.upto, self.confirmed) = (sent, Instant::now());
        }
        let is_idle = left.waiting == 0 && self.upto >= sent;
        Ok(Written { upto: self.upto, is_idle, is_stalled: left.stalled, ..Written::default() })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.held.arrived(self.waiting);
        self.sender.stop();
    }
}

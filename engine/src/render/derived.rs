//! The log of a durable edge: a sink like others, so that a change, a stop and a start go on with it where it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::Value;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::operators::generic::operator::Operator as _;

use crate::batch::{Batch, Origin, Stream, Time};
use crate::contract::sink::{self, CLOSED, Sink, Then, Written};
use crate::contract::{BuildContext, Standing};
use crate::source_log::SourceLog;
use crate::spool::{Entry, Log, Next, SpoolError, Subscription};
use crate::time::Backlog;

/// Keeps the settled rows of a node's ports. The stream's frontier is how far they are durable.
pub(crate) fn keep<'s>(
    context: &BuildContext<'s>,
    log: Option<&Arc<SourceLog>>,
    streams: Vec<Stream<'s>>,
) -> Stream<'s> {
    let marked = streams.into_iter().enumerate().map(|(port, stream)| mark(stream, port as u64));
    let all = context.scope.concatenate(marked.collect::<Vec<_>>());
    let settled = |batch: &Batch| batch.settled && batch.diff > 0;
    let name = format!("{} log", context.id);
    let (log, from, not_kept) = (log.cloned(), context.complete_from, context.metrics.counter("not_kept"));
    sink::build(context, all, (&name, context.home()), settled, move |address, handle| {
        let log = log.ok_or_else(|| "defect: the log is another process's".to_owned())?;
        let waker = context.scope.worker().sync_activator_for(address.to_vec());
        let woken = log.log.subscribe(move || {
            // A worker that has gone needs no waking.
            let _ = waker.activate();
        });
        let held = handle.held();
        Ok(Derived {
            log,
            from,
            given: 0,
            durable: 0,
            there: BTreeMap::new(),
            queued: VecDeque::new(),
            held,
            then: Then::More,
            has_successor: Box::new(handle.successor()),
            came_along: Box::new(handle.came_along()),
            not_kept,
            _woken: woken,
        })
    })
}

/// Says of rows by which port they came.
fn mark(stream: Stream<'_>, port: u64) -> Stream<'_> {
    stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "port", move |_, _| {
        move |input, output| {
            input.for_each_stamp(|time, data| {
                let mut session = output.session(&time);
                for batch in data.flat_map(|batches| batches.drain(..)) {
                    session.give(Batch { route: port, ..batch });
                }
            });
        }
    })
}

/// How many entries at the end of a log are searched for the last watermark, at first.
const WITHIN: u64 = 64;

/// The rows behind the last watermark, by port.
fn behind(log: &Arc<Log>, last: Time) -> Result<BTreeMap<usize, Standing>, SpoolError> {
    let mut within = WITHIN;
    loop {
        let from = log.first().max(log.end().saturating_sub(within));
        let (mut reader, mut found, mut is_whole) = (log.reader(from), BTreeMap::<usize, Standing>::new(), false);
        while reader.position() < log.end() {
            let Next::Entry(_, entry) = reader.next()? else { break };
            match entry {
                Entry::Watermark(time) if time >= last => {
                    found.clear();
                    is_whole = true;
                }
                Entry::Batch { port, rows, .. } => {
                    let add = found.entry(port).or_default().add(&rows, 1);
                    add.map_err(|error| SpoolError::Schema(error.to_string()))?;
                }
                Entry::Watermark(_) | Entry::Note(_) => {}
            }
        }
        if is_whole || from == log.first() {
            return Ok(found);
        }
        within = within.saturating_mul(16);
    }
}

/// The writer of such a log.
struct Derived {
    log: Arc<SourceLog>,
    /// Rows of a tick before this are in the log, or were never to be.
    from: Time,
    /// Every row before this was given.
    given: Time,
    /// Every row before this is durable.
    durable: Time,
    /// By port: rows behind the last watermark that the log has already. A crash may have come between the two.
    there: BTreeMap<usize, Standing>,
    /// Rows that are not durable yet, by tick.
    queued: VecDeque<(Time, usize)>,
    held: Arc<Backlog>,
    then: Then,
    /// Whether another writer goes on with the log.
    has_successor: Box<dyn Fn() -> bool>,
    /// Whether rows of this origin are of a log that came with the last change.
    came_along: Box<dyn Fn(Origin) -> bool>,
    /// Rows of such a log that are older than what this one has.
    not_kept: Arc<AtomicU64>,
    _woken: Subscription,
}

impl Sink for Derived {
    fn target(&self) -> String {
        String::new()
    }

    /// The log itself says where it goes on. One that is new begins where the rows of the node are complete.
    fn open(&mut self, from: Time, _detail: &Value) -> Result<(), String> {
        let last = self.log.log.last_watermark();
        self.from = if last == 0 { from.max(self.from) } else { from.max(last) };
        (self.given, self.durable) = (from, from);
        if last == 0 {
            self.log.log.append(Entry::Watermark(self.from));
        }
        self.there = behind(&self.log.log, last).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn write(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
        if tick < self.from {
            if (self.came_along)(batch.origin) {
                self.not_kept.fetch_add(batch.rows.num_rows() as u64, Relaxed);
            }
            return Ok(());
        }
        let (port, late) = (usize::try_from(batch.route).unwrap_or(0), batch.late);
        let rows = match self.there.get_mut(&port) {
            Some(there) => there.without(batch.rows).map_err(|error| format!("rows cannot be compared: {error}"))?,
            None => batch.rows,
        };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if self.given < tick {
            self.given = tick;
            self.log.log.append(Entry::Watermark(tick));
        }
        self.held.sent(rows.num_rows());
        self.queued.push_back((tick, rows.num_rows()));
        self.log.log.append(Entry::Batch { port, time: tick, late, rows });
        Ok(())
    }

    fn flush(&mut self, upto: Time, then: Then) -> Result<(), String> {
        // At the end of all input the log ends behind its last row.
        let upto = match upto {
            CLOSED => self.queued.back().map_or(self.given, |(tick, _)| tick.saturating_add(1)).max(self.given),
            upto => upto,
        };
        if upto > self.given {
            self.given = upto;
            self.log.log.append(Entry::Watermark(upto));
        }
        if then == Then::Nothing && self.then != then && !(self.has_successor)() {
            self.log.complete();
            self.log.log.close();
        }
        self.then = then;
        Ok(())
    }

    fn written(&mut self) -> Result<Written, String> {
        // What was there at the start is kept already.
        let durable = self.log.log.last_watermark().max(self.from).min(self.given);
        self.durable = self.durable.max(durable);
        while let Some((_, rows)) = self.queued.pop_front_if(|(tick, _)| *tick < self.durable) {
            self.held.arrived(rows);
        }
        let is_stalled = self.log.log.must_wait();
        Ok(Written { upto: self.durable, is_idle: self.durable >= self.given, is_stalled, ..Written::default() })
    }
}

impl Drop for Derived {
    fn drop(&mut self) {
        self.held.arrived(self.queued.iter().map(|(_, rows)| rows).sum());
    }
}

//! What all sources share: watermarks, late rows, back-pressure, pausing and stopping.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

use super::build_context::BuildContext;
use crate::batch::{Batch, Stream, Time};
use crate::time::Pacer;

/// How long a source that has nothing to read, or that must wait, sleeps before it looks again.
const PAUSE: Duration = Duration::from_millis(5);

/// How many batches a source sends before the rest of the dataflow gets its turn.
const BATCHES_PER_TURN: usize = 4;

/// Where a source goes on after the rows that its log has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// Rows before this event time in ms are late.
    pub watermark: Time,
    /// The position in the source of the next row.
    pub seq: u64,
    /// What the source last said of itself; see [`Reader::cursor`].
    pub cursor: Option<Cursor>,
}

/// Where a source was that can go on there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The position in the source of the row that follows there.
    pub seq: u64,
    /// The source's own words.
    pub place: Vec<u8>,
    /// Positions of rows behind it that the log has all the same.
    pub logged: Vec<u64>,
}

/// Something that yields batches.
pub trait Reader {
    /// Reads the next rows, up to about [`crate::batch::MAX_ROWS`], and puts them into `out` by output port.
    /// On-time rows are at or after the watermark as it was when `next` was called.
    ///
    /// # Errors
    /// If the source cannot go on. The run then ends with this message; rows read so far are processed.
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String>;

    /// The watermark after the rows read so far.
    fn watermark(&self) -> Time;

    /// Where the source is after the rows read so far, for a source that can go on there in another run: the position of
    /// the row that follows, and what will be [`place`](Cursor).
    fn cursor(&self) -> Option<(u64, Vec<u8>)> {
        None
    }

    /// Asked once when the run is to end: stop receiving. What has been received already is still read by `next`,
    /// which then returns [`Poll::Done`]. A source to which nothing from before can come later moves its watermark up to
    /// then, so that what was received is not kept waiting.
    fn stop(&mut self);
}

/// What a reader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// There may be more at once.
    Ready,
    /// Nothing now.
    Idle,
    /// Nothing ever again.
    Done,
}

/// What an operator writes to a port with.
pub type Output = OutputBuilder<Time, CapacityContainerBuilder<Vec<Batch>>>;

/// The output ports of an operator that is being built, and the streams that leave them.
pub fn output_ports<'s>(builder: &mut OperatorBuilder<'s, Time>, ports: usize) -> (Vec<Output>, Vec<Stream<'s>>) {
    let port = |_| {
        let (output, stream) = builder.new_output::<Vec<Batch>>();
        (OutputBuilder::from(output), stream)
    };
    (0..ports).map(port).unzip()
}

/// Builds a source with `ports` output ports. `open` is called once, on the worker that owns the source.
pub fn source<'s, R, F>(context: &BuildContext<'s>, ports: usize, open: F) -> Vec<Stream<'s>>
where
    R: Reader + 'static,
    F: FnOnce() -> Result<R, String>,
{
    let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
    let info = builder.operator_info();
    let (mut outputs, streams) = output_ports(&mut builder, ports);
    let mut reader = None;
    if context.is_home() {
        match open() {
            Ok(opened) => {
                reader = Some(opened);
                context.dataflow().has_opened_source();
            }
            Err(message) => {
                context.dataflow().pace().advance(&context.id, Time::MAX);
                context.failure()(message);
                if context.dataflow().failure().is_some() {
                    // Of a change that is given up: its end is not the end of the log.
                    context.dataflow().end();
                }
            }
        }
    }
    let activator = context.scope.activator_for(info.address);
    let (probe, metrics, shared, id) =
        (context.probe.clone(), context.metrics.clone(), context.shared.clone(), context.id.clone());
    let dataflow = Arc::clone(context.dataflow());
    let (held, is_logged) = (dataflow.held(), context.is_logged());
    let resume = context.resume().watermark;
    builder.build(move |capabilities| {
        let mut capabilities: Vec<Capability<Time>> = capabilities;
        if reader.is_none() {
            capabilities.clear();
        }
        capabilities.iter_mut().for_each(|capability| capability.downgrade(&resume));
        let mut pacer = Pacer::default();
        let mut batches = Vec::new();
        let (mut stopped, mut failed) = (false, false);
        let mut noted = None;
        move |_frontiers| {
            let Some(open) = reader.as_mut() else { return };
            // Of a recorded source that another run reads again, what was not read is not past: nothing more is sent, not even
            // a part of a batch, and sinks confirm nothing behind what was.
            let again = dataflow.notes().is_some() && !dataflow.is_ending();
            if again && shared.is_stopping() {
                dataflow.pace().advance(&id, Time::MAX);
                reader = None;
                return;
            }
            if (shared.is_stopping() || dataflow.is_ending()) && !stopped {
                stopped = true;
                open.stop();
            }
            let mut poll = Poll::Ready;
            for _ in 0..BATCHES_PER_TURN {
                let Some(now) = capabilities.first().map(|c| *c.time()) else { return };
                // What was received before the stop is taken in all the same: it is bounded, and nobody else has it.
                let full = !stopped && dataflow.is_log_full();
                let ahead = pacer.is_ahead(|time| !probe.less_equal(&time)) && dataflow.pace().any_behind(&id, now);
                if full || ahead || shared.backlog.is_full() || held.is_full() {
                    poll = Poll::Idle;
                    break;
                }
                poll = open.next(&mut batches).unwrap_or_else(|message| {
                    shared.fail(format!("{id}: {message}"));
                    failed = true;
                    Poll::Done
                });
                if failed && again {
                    break;
                }
                if is_logged {
                    let cursor = open.cursor().filter(|cursor| noted.as_ref() != Some(cursor));
                    if let Some((seq, place)) = cursor {
                        noted = Some((seq, place.clone()));
                        dataflow.pace().note(seq, place);
                    }
                }
                for (port, batch) in batches.drain(..) {
                    if batch.late {
                        metrics.counter("late_rows").fetch_add(batch.rows.num_rows() as u64, Relaxed);
                    }
                    pacer.sent(now, batch.rows.num_rows());
                    outputs[port].activate().session(&capabilities[port]).give(batch);
                }
                let watermark = open.watermark();
                if watermark > now {
                    for capability in &mut capabilities {
                        capability.downgrade(&watermark);
                    }
                    dataflow.pace().advance(&id, watermark);
                    metrics.watermark.store(watermark, Relaxed);
                }
                if poll != Poll::Ready {
                    break;
                }
            }
            match poll {
                Poll::Ready => activator.activate(),
                Poll::Idle => activator.activate_after(PAUSE),
                Poll::Done => {
                    dataflow.pace().end(open.watermark());
                    dataflow.pace().advance(&id, Time::MAX);
                    if !(failed && again) {
                        capabilities.clear();
                    }
                    reader = None;
                }
            }
        }
    });
    streams
}

//! What all sources share: watermarks, late rows, back-pressure, pausing and stopping.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::dataflow::operators::probe::Handle;

use super::build_context::BuildContext;
use super::here::Here;
use super::running::Running;
use crate::batch::{Batch, Stream, Time};
use crate::metrics::NodeMetrics;
use crate::shared::Shared;
use crate::time::{Backlog, Pacer};

/// How long a source that has nothing to read, or that must wait, sleeps before it looks again.
const PAUSE: Duration = Duration::from_millis(5);

/// How soon a source looks again whether the run has begun.
const SOON: Duration = Duration::from_millis(1);

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
    let (outputs, streams) = output_ports(&mut builder, ports);
    let mut reader = open_at_home(context, open);
    let activator = context.scope.activator_for(info.address);
    let mut sender = Sender::new(context, outputs);
    let (resume, here) = (context.resume().watermark, Here::new(&context.id));
    builder.build(move |capabilities| {
        // Workers that do not own the source hold no time back.
        if reader.is_some() {
            sender.capabilities = capabilities;
        }
        sender.capabilities.iter_mut().for_each(|capability| capability.downgrade(&resume));
        move |_frontiers| {
            let _here = here.enter();
            let Some(open) = reader.as_mut() else { return };
            if !sender.shared.start.has_begun() && !sender.shared.is_called_off() {
                return activator.activate_after(SOON);
            }
            match sender.turn(open) {
                Some(Poll::Ready) => activator.activate(),
                Some(Poll::Idle) => activator.activate_after(PAUSE),
                Some(Poll::Done) => reader = None,
                None => {}
            }
        }
    });
    streams
}

/// Opens a source on the worker that owns it. One that cannot be opened is over, and keeps no other waiting.
fn open_at_home<R>(context: &BuildContext<'_>, open: impl FnOnce() -> Result<R, String>) -> Option<R> {
    if !context.is_home() {
        return None;
    }
    let dataflow = context.dataflow();
    match open() {
        Ok(reader) => {
            dataflow.has_opened_source();
            Some(reader)
        }
        Err(message) => {
            dataflow.pace().advance(&context.id, Time::MAX);
            context.failure()(message);
            if dataflow.failure().is_some() {
                // Of a change that is given up: its end is not the end of the log.
                dataflow.end();
            }
            None
        }
    }
}

/// Sends what a reader reads, as fast as the rest of the run allows.
struct Sender {
    id: String,
    dataflow: Arc<dyn Running>,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    /// How far everything downstream has got.
    probe: Handle<Time>,
    /// Rows that the dataflow's sinks hold unconfirmed.
    held: Arc<Backlog>,
    is_logged: bool,
    outputs: Vec<Output>,
    /// One for each output, all at the watermark; none once the source is over.
    capabilities: Vec<Capability<Time>>,
    pacer: Pacer,
    /// What was read last.
    batches: Vec<(usize, Batch)>,
    /// The reader was told to stop.
    stopped: bool,
    /// The reader's cursor that was noted last.
    noted: Option<(u64, Vec<u8>)>,
}

impl Sender {
    fn new(context: &BuildContext<'_>, outputs: Vec<Output>) -> Self {
        Self {
            id: context.id.clone(),
            dataflow: Arc::clone(context.dataflow()),
            shared: Arc::clone(&context.shared),
            metrics: Arc::clone(&context.metrics),
            probe: context.probe.clone(),
            held: context.dataflow().held(),
            is_logged: context.is_logged(),
            outputs,
            capabilities: Vec::new(),
            pacer: Pacer::default(),
            batches: Vec::new(),
            stopped: false,
            noted: None,
        }
    }

    /// Reads and sends some batches. What it returns is what the reader said last; `Idle` also if the source must wait, and
    /// nothing if there is no port to send to.
    fn turn(&mut self, reader: &mut impl Reader) -> Option<Poll> {
        // Of a recorded source that another run reads again, what was not read is not past: nothing more is sent, not even
        // a part of a batch, and sinks confirm nothing behind what was.
        let is_read_again = self.dataflow.notes().is_some() && !self.dataflow.is_ending();
        if self.shared.is_called_off() {
            // Nothing was received, and nothing is passed on.
            self.dataflow.pace().advance(&self.id, Time::MAX);
            if !is_read_again {
                self.capabilities.clear();
            }
            return Some(Poll::Done);
        }
        if is_read_again && self.shared.is_stopping() {
            self.dataflow.pace().advance(&self.id, Time::MAX);
            return Some(Poll::Done);
        }
        self.pass_stop_on(reader);
        for _ in 0..BATCHES_PER_TURN {
            let now = *self.capabilities.first()?.time();
            if self.must_wait(now) {
                return Some(Poll::Idle);
            }
            let poll = match reader.next(&mut self.batches) {
                Ok(poll) => poll,
                Err(message) => {
                    self.shared.fail(format!("{}: {message}", self.id));
                    if is_read_again {
                        self.say_ended(reader);
                        return Some(Poll::Done);
                    }
                    Poll::Done
                }
            };
            self.note_cursor(reader);
            self.send_batches(now);
            self.pass_time(reader.watermark(), now);
            match poll {
                Poll::Ready => {}
                Poll::Idle => return Some(Poll::Idle),
                Poll::Done => {
                    self.say_ended(reader);
                    self.capabilities.clear();
                    return Some(Poll::Done);
                }
            }
        }
        Some(Poll::Ready)
    }

    /// Tells the reader once that the run, or the dataflow, is to end.
    fn pass_stop_on(&mut self, reader: &mut impl Reader) {
        if (self.shared.is_stopping() || self.dataflow.is_ending()) && !self.stopped {
            self.stopped = true;
            reader.stop();
        }
    }

    /// Whether the source, whose watermark is `now`, must let the rest of the run get on first.
    fn must_wait(&mut self, now: Time) -> bool {
        // What was received before the stop is taken in all the same: it is bounded, and nobody else has it.
        // Without a log its rows would go to sinks that cannot write.
        let away = !self.is_logged && self.shared.store.is_away();
        let full = !self.stopped && (self.dataflow.is_log_full() || away);
        let ahead =
            self.pacer.is_ahead(|time| !self.probe.less_equal(&time)) && self.dataflow.pace().any_behind(&self.id, now);
        full || ahead || self.shared.backlog.is_full() || self.held.is_full()
    }

    /// Notes for the log where the source can go on, if it has said so anew.
    fn note_cursor(&mut self, reader: &impl Reader) {
        if !self.is_logged {
            return;
        }
        let cursor = reader.cursor().filter(|cursor| self.noted.as_ref() != Some(cursor));
        if let Some((seq, place)) = cursor {
            self.noted = Some((seq, place.clone()));
            self.dataflow.pace().note(seq, place);
        }
    }

    /// Sends what was read.
    fn send_batches(&mut self, now: Time) {
        for (port, batch) in self.batches.drain(..) {
            if batch.late {
                self.metrics.counter("late_rows").fetch_add(batch.rows.num_rows() as u64, Relaxed);
            }
            self.pacer.sent(now, batch.rows.num_rows());
            self.outputs[port].activate().session(&self.capabilities[port]).give(batch);
        }
    }

    /// Moves time on, if the watermark has moved.
    fn pass_time(&mut self, watermark: Time, now: Time) {
        if watermark > now {
            for capability in &mut self.capabilities {
                capability.downgrade(&watermark);
            }
            self.dataflow.pace().advance(&self.id, watermark);
            self.metrics.watermark.store(watermark, Relaxed);
        }
    }

    /// Says that the source has ended, so that no other waits for it.
    fn say_ended(&self, reader: &impl Reader) {
        self.dataflow.pace().end(reader.watermark());
        self.dataflow.pace().advance(&self.id, Time::MAX);
    }
}

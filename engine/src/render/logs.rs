//! Between receiving and computing: rows go into a log, and come out of it once they are durable.
//!
//! `append` ends the dataflow of a live source, `replay` is a source of the dataflows behind the log. What they
//! pass on is the same whether the log is being written or is read again: batches with their message time, and the
//! watermarks in between.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::Handle;

use crate::batch::{Batch, Origin, Stream, Time};
use crate::contract::{BuildContext, Cursor, Here, Output, Resume, Running, output_ports};
use crate::dataflow::Dataflow;
use crate::shared::Shared;
use crate::source_log::{LogInput, SourceLog, after, note};
use crate::spool::{ArchiveReader, Entry, LogReader, Next, SpoolError, Subscription};
use crate::time::Pacer;

/// How long a reader that must wait for the rest of the dataflow sleeps before it looks again.
const PAUSE: Duration = Duration::from_millis(5);

/// How many entries a reader takes before the rest of the dataflow gets its turn.
const ENTRIES_PER_TURN: usize = 16;

/// A reader of one of them, on the worker that owns the source.
enum Entries {
    Log { reader: LogReader, logged: Arc<SourceLog>, _woken: Subscription },
    Archive { reader: ArchiveReader, read: u64 },
}

impl Entries {
    /// Reads an input. The operator at `address` is woken when there is more.
    fn open((context, dataflow): (&BuildContext<'_>, &Dataflow), input: &LogInput, address: &[usize]) -> Self {
        let waker = context.scope.worker().sync_activator_for(address.to_vec());
        dataflow.add_waker(context.scope.worker().sync_activator_for(address.to_vec()));
        match input {
            LogInput::Log(logged, from) => {
                let woken = logged.log.subscribe(move || {
                    // A worker that has gone needs no waking.
                    let _ = waker.activate();
                });
                Self::Log { reader: logged.log.reader(*from), logged: Arc::clone(logged), _woken: woken }
            }
            LogInput::Archive(archive) => {
                context.shared.progress.total.fetch_add(archive.bytes(), Relaxed);
                Self::Archive { reader: archive.reader(), read: 0 }
            }
        }
    }

    fn next(&mut self) -> Result<Next, SpoolError> {
        match self {
            Self::Log { reader, .. } => reader.next(),
            Self::Archive { reader, .. } => reader.next(),
        }
    }

    /// Whether nothing comes after the end.
    fn is_complete(&self) -> bool {
        match self {
            Self::Log { logged, .. } => logged.is_complete(),
            Self::Archive { .. } => true,
        }
    }

    /// Whether reading on is in vain once the run is to stop: what a log of this run has is brought through first.
    fn stops(&self) -> bool {
        matches!(self, Self::Archive { .. })
    }

    /// Shows how far a reader of files is.
    fn show(&mut self, shared: &Shared) {
        if let Self::Archive { reader, read } = self {
            let now = reader.bytes_read();
            shared.progress.read.fetch_add(now.saturating_sub(*read), Relaxed);
            *read = now;
        }
    }
}

/// Ends a source's dataflow: all that arrives goes into the log, and how far the source is. Other processes than the one
/// that has the log send what they have.
pub(crate) fn append<'s>(
    (context, dataflow): (&BuildContext<'s>, &Arc<Dataflow>),
    log: Option<&(Arc<SourceLog>, Resume)>,
    streams: Vec<Stream<'s>>,
) -> Stream<'s> {
    let mut builder = OperatorBuilder::new(format!("{} log", context.id), context.scope);
    let home = context.home();
    let mut inputs: Vec<_> =
        streams.into_iter().map(|stream| builder.new_input(stream, Exchange::new(move |_: &Batch| home))).collect();
    let (_output, stream) = builder.new_output::<Vec<Batch>>();
    let log = log.filter(|_| context.is_home());
    let mut appender = log.map(|(log, resume)| Appender::new(log, resume, &context.shared, dataflow));
    let here = Here::new(&context.id);
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut arrived: Vec<Arrived> = Vec::new();
        move |frontiers| {
            let _here = here.enter();
            for (port, input) in inputs.iter_mut().enumerate() {
                input.for_each_stamp(|stamp, data| {
                    let time = stamp.least().copied().unwrap_or_default();
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        arrived.push((time, port, batch));
                    }
                });
            }
            let Some(open) = &mut appender else { return };
            let frontier = frontiers.iter().filter_map(|frontier| frontier.frontier().first().copied()).min();
            open.append(&mut arrived, frontier);
            if frontier.is_none() {
                appender = None;
            }
        }
    });
    stream
}

/// A batch on its way into a log: message time, port, rows.
type Arrived = (Time, usize, Batch);

/// Writes the log of a source, on the worker that owns it.
struct Appender {
    log: Arc<SourceLog>,
    shared: Arc<Shared>,
    dataflow: Arc<Dataflow>,
    /// The position of the source's next row, and its watermark.
    seq: u64,
    watermark: Time,
    /// Where the source said last that it can go on: the position of the row that follows, and its own words.
    place: Option<(u64, Vec<u8>)>,
    /// Bytes of rows since the last note.
    behind: usize,
}

impl Appender {
    fn new(log: &Arc<SourceLog>, resume: &Resume, shared: &Arc<Shared>, dataflow: &Arc<Dataflow>) -> Self {
        Self {
            log: Arc::clone(log),
            shared: Arc::clone(shared),
            dataflow: Arc::clone(dataflow),
            seq: resume.seq,
            watermark: resume.watermark,
            place: resume.cursor.clone().map(|Cursor { seq, place, .. }| (seq, place)),
            behind: 0,
        }
    }

    /// Appends all that has arrived, and how far the source is. Without a `frontier` nothing more will arrive.
    fn append(&mut self, arrived: &mut Vec<Arrived>, frontier: Option<Time>) {
        let before = (self.seq, self.watermark);
        self.append_rows(arrived);
        let cursor = self.dataflow.sources.cursor(self.seq);
        self.append_note(self.seq != before.0, cursor.as_ref());
        match frontier {
            Some(time) => self.append_watermark(time),
            None => self.end(),
        }
        if (self.seq, self.watermark) != before || cursor.is_some() {
            let cursor = cursor.map(|(seq, place)| Cursor { seq, place, logged: Vec::new() });
            self.log.advance(self.seq, self.watermark, cursor);
        }
    }

    fn append_rows(&mut self, arrived: &mut Vec<Arrived>) {
        arrived.sort_by_key(|(time, port, _)| (*time, *port));
        for (time, port, Batch { rows, late, .. }) in arrived.drain(..) {
            self.seq = self.seq.max(after(&rows));
            self.behind = self.behind.saturating_add(rows.get_array_memory_size());
            self.log.log.append(Entry::Batch { port, time, late, rows });
        }
    }

    /// Notes where the source can go on, if it has said so anew, or if there are `new_rows`.
    fn append_note(&mut self, new_rows: bool, cursor: Option<&(u64, Vec<u8>)>) {
        // The last note says it all, and is written again so that it is not the first to go when the log is too long. Rows
        // behind it say their positions themselves: a place that is long is not repeated for a few of them.
        let again = new_rows && self.place.as_ref().is_none_or(|(_, place)| self.behind >= place.len());
        if again || cursor.is_some() {
            self.place = cursor.cloned().or(self.place.take());
            self.log.log.append(note(self.seq, self.place.as_ref()));
            self.behind = 0;
        }
    }

    fn append_watermark(&mut self, time: Time) {
        if time > self.watermark {
            self.watermark = time;
            self.log.log.append(Entry::Watermark(time));
        }
    }

    /// Nothing more comes from this dataflow.
    fn end(&mut self) {
        self.append_watermark(self.dataflow.sources.last());
        // A source that only makes room for another leaves the log to it.
        if !self.dataflow.is_ending() {
            if !self.shared.is_stopping() {
                self.log.complete();
            }
            self.log.log.close();
        }
    }
}

/// A source: what a log has from a position on, then what is appended. Its rows are of this origin. Without an input it is
/// another process that reads the log.
pub(crate) fn replay<'s>(
    (context, dataflow): (&BuildContext<'s>, &Arc<Dataflow>),
    (input, origin): (Option<&LogInput>, Origin),
    ports: usize,
) -> Vec<Stream<'s>> {
    let mut builder = OperatorBuilder::new(format!("{} replay", context.id), context.scope);
    let info = builder.operator_info();
    let (outputs, streams) = output_ports(&mut builder, ports);
    let activator = context.scope.activator_for(info.address.clone());
    let input = input.filter(|_| context.is_home());
    let mut reader = input.map(|input| Entries::open((context, dataflow), input, &info.address));
    let (mut sender, here) = (Sender::new((context, dataflow), origin, outputs), Here::new(&context.id));
    builder.build(move |capabilities| {
        // Workers that do not own the source hold no time back.
        if reader.is_some() {
            sender.capabilities = capabilities;
        }
        move |_frontiers| {
            let _here = here.enter();
            let Some(open) = reader.as_mut() else { return sender.after_the_end() };
            let turn = sender.turn(open);
            open.show(&sender.shared);
            match turn {
                Turn::More => activator.activate(),
                Turn::Full => activator.activate_after(PAUSE),
                // What is appended wakes it.
                Turn::NothingYet => {}
                Turn::End | Turn::Failed => {
                    sender.end(turn == Turn::Failed);
                    reader = None;
                }
            }
        }
    });
    streams
}

/// How a turn of a reader ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There may be more at once.
    More,
    /// The rest of the run must get on first.
    Full,
    /// The log has nothing more yet.
    NothingYet,
    /// Nothing more will be read.
    End,
    /// The log cannot be read.
    Failed,
}

/// Sends what is read from a log, as fast as the rest of the run allows.
struct Sender {
    id: String,
    dataflow: Arc<Dataflow>,
    shared: Arc<Shared>,
    /// How far everything downstream has got.
    probe: Handle<Time>,
    /// Of the rows that it sends.
    origin: Origin,
    outputs: Vec<Output>,
    /// One for each output, all at the watermark; none once the log is read to its end.
    capabilities: Vec<Capability<Time>>,
    pacer: Pacer,
    /// The end of the log has not been reached yet.
    behind: bool,
}

impl Sender {
    fn new((context, dataflow): (&BuildContext<'_>, &Arc<Dataflow>), origin: Origin, outputs: Vec<Output>) -> Self {
        Self {
            id: context.id.clone(),
            dataflow: Arc::clone(dataflow),
            shared: Arc::clone(&context.shared),
            probe: context.probe.clone(),
            origin,
            outputs,
            capabilities: Vec::new(),
            pacer: Pacer::default(),
            behind: true,
        }
    }

    /// Reads and sends some entries.
    fn turn(&mut self, entries: &mut Entries) -> Turn {
        if self.dataflow.is_ending() || entries.stops() && self.shared.is_stopping() {
            return Turn::End;
        }
        if !self.shared.start.has_begun() {
            return Turn::Full;
        }
        for _ in 0..ENTRIES_PER_TURN {
            let Some(now) = self.capabilities.first().map(|c| *c.time()) else { break };
            if self.must_wait(now) {
                return Turn::Full;
            }
            match entries.next() {
                Ok(Next::Entry(_, entry)) => self.send(entry, now),
                Ok(next) => {
                    self.caught_up();
                    let ended = next == Next::End && (entries.is_complete() || self.dataflow.bounded);
                    return if ended { Turn::End } else { Turn::NothingYet };
                }
                Err(error) => {
                    self.shared.fail(format!("{}: {error}", self.id));
                    return Turn::Failed;
                }
            }
        }
        Turn::More
    }

    /// Whether the reader, whose watermark is `now`, must let the rest of the run get on first.
    fn must_wait(&mut self, now: Time) -> bool {
        self.shared.backlog.is_full()
            || self.dataflow.held.is_full()
            || self.pacer.is_ahead(|time| !self.probe.less_equal(&time))
                && self.dataflow.sources.any_behind(&self.id, now)
    }

    /// Sends the rows of an entry, or lets time pass.
    fn send(&mut self, entry: Entry, now: Time) {
        match entry {
            Entry::Batch { port, time, late, rows } if port < self.outputs.len() => {
                self.pacer.sent(now, rows.num_rows());
                let capability = self.capabilities[port].delayed(&now.max(time));
                let batch = Batch { late, origin: self.origin, ..Batch::new(rows) };
                self.outputs[port].activate().session(&capability).give(batch);
            }
            Entry::Watermark(watermark) if watermark > now => {
                self.capabilities.iter_mut().for_each(|capability| capability.downgrade(&watermark));
                self.dataflow.sources.advance(&self.id, watermark);
            }
            Entry::Batch { .. } | Entry::Note(_) | Entry::Watermark(_) => {}
        }
    }

    /// The end of the log has been reached, or will not be.
    fn caught_up(&mut self) {
        if self.behind {
            self.behind = false;
            self.dataflow.caught_up();
        }
    }

    /// Nothing more will be read. What was not read because the log could not be read is not past.
    fn end(&mut self, failed: bool) {
        self.caught_up();
        self.dataflow.sources.advance(&self.id, Time::MAX);
        if !failed || self.dataflow.lets_go() {
            self.capabilities.clear();
        }
    }

    /// A reader that has failed holds time back for as long as its dataflow says so.
    fn after_the_end(&mut self) {
        if self.dataflow.lets_go() {
            self.capabilities.clear();
        }
    }
}

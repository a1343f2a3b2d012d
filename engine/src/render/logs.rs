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

use crate::batch::{Batch, Origin, Stream, Time};
use crate::contract::{BuildContext, Cursor, Resume, Running, output_ports};
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
    let (mut seq, mut watermark) = log.map_or((0, 0), |(_, resume)| (resume.seq, resume.watermark));
    let resumed = log.and_then(|(_, resume)| resume.cursor.clone());
    let mut place = resumed.map(|Cursor { seq, place, .. }| (seq, place));
    // Bytes of rows since the last note.
    let mut behind = 0_usize;
    let mut open = log.map(|(logged, _)| Arc::clone(logged)).filter(|_| context.is_home());
    let (shared, dataflow) = (Arc::clone(&context.shared), Arc::clone(dataflow));
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut arrived: Vec<(Time, usize, Batch)> = Vec::new();
        move |frontiers| {
            for (port, input) in inputs.iter_mut().enumerate() {
                input.for_each_stamp(|stamp, data| {
                    let time = stamp.least().copied().unwrap_or_default();
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        arrived.push((time, port, batch));
                    }
                });
            }
            let Some(logged) = &open else { return };
            let before = (seq, watermark);
            arrived.sort_by_key(|(time, port, _)| (*time, *port));
            for (time, port, Batch { rows, late, .. }) in arrived.drain(..) {
                seq = seq.max(after(&rows));
                behind = behind.saturating_add(rows.get_array_memory_size());
                logged.log.append(Entry::Batch { port, time, late, rows });
            }
            let cursor = dataflow.sources.cursor(seq);
            // The last note says it all, and is written again so that it is not the first to go when the log is too long. Rows
            // behind it say their positions themselves: a place that is long is not repeated for a few of them.
            let again = seq != before.0 && place.as_ref().is_none_or(|(_, place)| behind >= place.len());
            if again || cursor.is_some() {
                place = cursor.clone().or(place.take());
                logged.log.append(note(seq, place.as_ref()));
                behind = 0;
            }
            let frontier = frontiers.iter().filter_map(|frontier| frontier.frontier().first().copied()).min();
            match frontier {
                Some(time) if time > watermark => {
                    watermark = time;
                    logged.log.append(Entry::Watermark(time));
                }
                Some(_) => {}
                None => {
                    if dataflow.sources.last() > watermark {
                        watermark = dataflow.sources.last();
                        logged.log.append(Entry::Watermark(watermark));
                    }
                    // A source that only makes room for another leaves the log to it.
                    if !dataflow.is_ending() {
                        if !shared.is_stopping() {
                            logged.complete();
                        }
                        logged.log.close();
                    }
                }
            }
            if (seq, watermark) != before || cursor.is_some() {
                let cursor = cursor.map(|(seq, place)| Cursor { seq, place, logged: Vec::new() });
                logged.advance(seq, watermark, cursor);
            }
            if frontier.is_none() {
                open = None;
            }
        }
    });
    stream
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
    let (mut outputs, streams) = output_ports(&mut builder, ports);
    let activator = context.scope.activator_for(info.address.clone());
    let mut reader = None;
    if context.is_home()
        && let Some(input) = input
    {
        let address = info.address.to_vec();
        let waker = context.scope.worker().sync_activator_for(address.clone());
        dataflow.add_waker(context.scope.worker().sync_activator_for(address));
        reader = Some(match input {
            LogInput::Log(logged, from) => {
                let woken = logged.log.subscribe(move || {
                    // A worker that has gone needs no waking.
                    let _ = waker.activate();
                });
                Entries::Log { reader: logged.log.reader(*from), logged: Arc::clone(logged), _woken: woken }
            }
            LogInput::Archive(archive) => {
                context.shared.progress.total.fetch_add(archive.bytes(), Relaxed);
                Entries::Archive { reader: archive.reader(), read: 0 }
            }
        });
    }
    let (probe, shared, dataflow, id) =
        (context.probe.clone(), Arc::clone(&context.shared), Arc::clone(dataflow), context.id.clone());
    builder.build(move |capabilities| {
        let mut capabilities: Vec<Capability<Time>> = capabilities;
        if reader.is_none() {
            capabilities.clear();
        }
        let mut pacer = Pacer::default();
        let mut behind = true;
        move |_frontiers| {
            let Some(open) = reader.as_mut() else {
                if dataflow.lets_go() {
                    capabilities.clear();
                }
                return;
            };
            let mut ended = dataflow.is_ending() || open.stops() && shared.is_stopping();
            let (mut waits, mut failed) = (false, false);
            for _ in 0..ENTRIES_PER_TURN {
                let Some(now) = capabilities.first().map(|c| *c.time()).filter(|_| !ended) else { break };
                if shared.backlog.is_full()
                    || dataflow.held.is_full()
                    || pacer.is_ahead(|time| !probe.less_equal(&time)) && dataflow.sources.any_behind(&id, now)
                {
                    activator.activate_after(PAUSE);
                    waits = true;
                    break;
                }
                match open.next() {
                    Ok(Next::Entry(_, entry)) => match entry {
                        Entry::Batch { port, time, late, rows } if port < ports => {
                            pacer.sent(now, rows.num_rows());
                            let capability = capabilities[port].delayed(&now.max(time));
                            outputs[port].activate().session(&capability).give(Batch {
                                late,
                                origin,
                                ..Batch::new(rows)
                            });
                        }
                        Entry::Batch { .. } | Entry::Note(_) => {}
                        Entry::Watermark(watermark) if watermark > now => {
                            capabilities.iter_mut().for_each(|capability| capability.downgrade(&watermark));
                            dataflow.sources.advance(&id, watermark);
                        }
                        Entry::Watermark(_) => {}
                    },
                    Ok(next) => {
                        if behind {
                            behind = false;
                            dataflow.caught_up();
                        }
                        ended = next == Next::End && (open.is_complete() || dataflow.bounded);
                        waits = true;
                        break;
                    }
                    Err(error) => {
                        shared.fail(format!("{id}: {error}"));
                        (ended, failed) = (true, true);
                    }
                }
            }
            open.show(&shared);
            if ended {
                if behind {
                    behind = false;
                    dataflow.caught_up();
                }
                dataflow.sources.advance(&id, Time::MAX);
                if !failed || dataflow.lets_go() {
                    capabilities.clear();
                }
                reader = None;
            } else if !waits {
                activator.activate();
            }
        }
    });
    streams
}

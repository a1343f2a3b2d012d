//! What `tls.client_hello` does with its packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{Array, BinaryArray, Int32Array, StringArray, TimestampNanosecondArray, UInt32Array, UInt64Array};
use client_hello::{Frame, Hello, HelloExtractor};
use engine::batch::{Batch, SEQ, Stream, TIME, Time};
use engine::contract::NodeMetrics;
use engine::contract::{BuildContext, Here};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::client_hello::{ClientHello, Wanted};
use super::rows::HelloRows;
use crate::source::interfaces::Interfaces;
use crate::source::packets::INTERFACE;

impl ClientHello {
    /// Hellos leave some time after the packets that complete them. Until then a capability is held for their time: so
    /// they leave on time, and nothing is held back beyond them.
    pub(super) fn run<'s>(&self, context: &BuildContext<'s>, stream: Stream<'s>) -> Stream<'s> {
        let fail = context.failure();
        let tick = u64::try_from(self.tick.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut work = Work::new(self, Arc::clone(&context.metrics));
        let name = &context.id;
        stream.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, name, move |capability, _| {
            drop(capability);
            let mut held: Option<Capability<Time>> = None;
            let here = Here::new(&context.id);
            move |(input, frontier), output| {
                let _here = here.enter();
                input.for_each_stamp(|stamp, data| {
                    let earlier = held.as_ref().zip(stamp.least()).is_some_and(|(held, time)| held.time() <= time);
                    if !earlier && let Some(capability) = stamp.retain_least(0) {
                        held = Some(capability);
                    }
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        if let Err(message) = work.packets(&batch) {
                            fail(message);
                        }
                    }
                });
                match frontier.frontier().first() {
                    Some(time) => work.advance(*time),
                    None => work.finish(),
                }
                match (work.take(), &held) {
                    (Ok(batches), Some(held)) => output.session(held).give_iterator(batches.into_iter().flatten()),
                    (Ok(_), None) => {}
                    (Err(message), _) => fail(message),
                }
                let Some(waiting) = work.oldest_waiting() else {
                    held = None;
                    return;
                };
                if let Some(held) = held.as_mut().filter(|held| *held.time() < waiting - waiting % tick) {
                    held.downgrade(&(waiting - waiting % tick));
                }
            }
        })
    }
}

/// The connections of one worker.
struct Work {
    extractor: HelloExtractor,
    /// Of packets that were on time, and of late ones.
    rows: [HelloRows; 2],
    interfaces: Interfaces,
    retries: bool,
    wanted: Wanted,
    excluded: Arc<AtomicU64>,
    elsewhere: Arc<AtomicU64>,
    metrics: Arc<NodeMetrics>,
    /// The extractor's counters as shown, and as they were when they were shown the last time.
    counters: Vec<(Arc<AtomicU64>, u64)>,
    flows: i64,
}

/// The columns of a batch of packets.
struct Packets<'b> {
    times: &'b TimestampNanosecondArray,
    seqs: &'b UInt64Array,
    linktypes: &'b Int32Array,
    wire_lens: &'b UInt32Array,
    data: &'b BinaryArray,
    interfaces: Option<&'b StringArray>,
}

impl<'b> Packets<'b> {
    fn of(batch: &'b Batch) -> Option<Self> {
        let column = |name: &str| batch.rows.column_by_name(name).map(|column| column.as_any());
        Some(Self {
            times: column(TIME)?.downcast_ref()?,
            seqs: column(SEQ)?.downcast_ref()?,
            linktypes: column("linktype")?.downcast_ref()?,
            wire_lens: column("wire_len")?.downcast_ref()?,
            data: column("data")?.downcast_ref()?,
            interfaces: column(INTERFACE).and_then(|column| column.downcast_ref()),
        })
    }

    fn interface(&self, at: usize) -> Option<&'b str> {
        self.interfaces.filter(|names| names.is_valid(at)).map(|names| names.value(at))
    }
}

impl Work {
    fn new(node: &ClientHello, metrics: Arc<NodeMetrics>) -> Self {
        let extractor = HelloExtractor::new(node.limits.clone());
        let counters = extractor.counters().iter().map(|(name, value)| (metrics.counter(name), value)).collect();
        let rows = [(); 2].map(|()| HelloRows::new(Arc::clone(&node.sensor), node.variants));
        let (excluded, elsewhere) = (metrics.counter("excluded_sources"), metrics.counter("other_destinations"));
        let (retries, wanted) = (node.retries, node.wanted.clone());
        let interfaces = Interfaces::default();
        Self { extractor, rows, interfaces, retries, wanted, excluded, elsewhere, metrics, counters, flows: 0 }
    }

    /// Takes the packets of a batch. Their hellos are late if they are.
    fn packets(&mut self, batch: &Batch) -> Result<(), String> {
        let packets = Packets::of(batch).ok_or("the input has no packets")?;
        for at in 0..packets.data.len() {
            let frame = Frame {
                time: packets.times.value(at),
                linktype: packets.linktypes.value(at),
                data: packets.data.value(at),
                wire_len: packets.wire_lens.value(at),
                origin: packets.seqs.value(at) << 1 | u64::from(batch.late),
                interface: self.interfaces.number(packets.interface(at)),
            };
            let (extractor, mut emit) = self.emitter();
            extractor.packet(&frame, &mut emit);
        }
        Ok(())
    }

    /// No packet on time is before this any more.
    fn advance(&mut self, time: Time) {
        let now = i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let (extractor, mut emit) = self.emitter();
        extractor.advance(now, &mut emit);
    }

    /// There will be no more packets.
    fn finish(&mut self) {
        {
            let (extractor, mut emit) = self.emitter();
            extractor.finish(&mut emit);
        }
    }

    /// The extractor, and what becomes of its hellos.
    fn emitter(&mut self) -> (&mut HelloExtractor, impl FnMut(Hello)) {
        let Self { extractor, rows, interfaces, retries, wanted, excluded, elsewhere, .. } = self;
        let emit = |hello: Hello| {
            if !wanted.source(hello.src) {
                excluded.fetch_add(1, Relaxed);
            } else if !wanted.destination(hello.dst) {
                elsewhere.fetch_add(1, Relaxed);
            } else if *retries || hello.index == 0 {
                rows[(hello.origin & 1) as usize].push(hello.origin >> 1, &hello, interfaces.name(hello.interface));
            }
        };
        (extractor, emit)
    }

    /// The earliest time, in ms since the epoch, that a hello may have which leaves later; `None` if none waits.
    fn oldest_waiting(&mut self) -> Option<Time> {
        self.extractor.oldest_waiting().map(|ns| u64::try_from(ns / 1_000_000).unwrap_or(0))
    }

    /// The hellos that leave now, on time and late.
    fn take(&mut self) -> Result<[Option<Batch>; 2], String> {
        self.count();
        let [on_time, late] = &mut self.rows;
        let batch = |rows: &mut HelloRows, late: bool| -> Result<Option<Batch>, String> {
            if rows.is_empty() {
                return Ok(None);
            }
            let rows = rows.take().map_err(|error| format!("hellos do not fit their columns: {error}"))?;
            Ok(Some(Batch { late, ..Batch::new(rows) }))
        };
        Ok([batch(on_time, false)?, batch(late, true)?])
    }

    /// Shows what has changed; several workers may add to the same counters.
    fn count(&mut self) {
        for ((_, value), (counter, shown)) in self.extractor.counters().iter().zip(&mut self.counters) {
            counter.fetch_add(value - *shown, Relaxed);
            *shown = value;
        }
        let flows = i64::try_from(self.extractor.flows()).unwrap_or(i64::MAX);
        self.metrics.state_rows.fetch_add(flows - self.flows, Relaxed);
        self.flows = flows;
    }
}

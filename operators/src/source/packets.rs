//! Packets as rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryBuilder, Int32Array, RecordBatch, StringBuilder, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use capture_file::Record;
use engine::batch::{Batch, Time, stream_schema, time_array};
use engine::contract::NodeMetrics;
use engine::contract::Resume;
use engine::contract::{Arrival, MAX_FUTURE, Watermark, nanos, wall_clock_ns};

use super::interfaces::Interfaces;
use super::order::{Order, Packet};

/// Packets of a batch.
const BATCH_ROWS: usize = 4096;

/// Captured bytes of a batch, a packet more or less.
const BATCH_BYTES: usize = 1 << 20;

/// The column with the name of the interface that a packet was captured on, null if that is not known.
pub(crate) const INTERFACE: &str = "interface";

/// Columns of a stream of packets: `linktype` is libpcap's or the file's, `wire_len` the length on the wire in bytes, `data` the
/// frame as captured, which may be shorter.
pub fn packet_schema() -> SchemaRef {
    stream_schema([
        Field::new("linktype", DataType::Int32, false),
        Field::new("wire_len", DataType::UInt32, false),
        Field::new("data", DataType::Binary, false),
        Field::new(INTERFACE, DataType::Utf8, true),
    ])
}

/// Packets read and not handed on.
pub(super) struct Packets {
    schema: SchemaRef,
    watermark: Watermark,
    order: Order,
    interfaces: Interfaces,
    /// In the order in which they are handed on: rows that are on time, and late ones.
    runs: Vec<(bool, Rows)>,
    /// Packets taken, and bytes of them, since rows were handed on the last time.
    taken: (usize, usize),
    disordered: Arc<AtomicU64>,
    /// Packets so far.
    count: u64,
    latest: i64,
    bad_time: Arc<AtomicU64>,
    metrics: Arc<NodeMetrics>,
}

#[derive(Debug, Default)]
struct Rows {
    times: Vec<i64>,
    seqs: Vec<u64>,
    linktypes: Vec<i32>,
    wire: Vec<u32>,
    data: BinaryBuilder,
    interfaces: StringBuilder,
}

impl Packets {
    /// Packets are late by `lateness` and leave in the order of their time, as far as that is within `window`, which is not more.
    pub(super) fn new([lateness, window, tick]: [Duration; 3], metrics: &Arc<NodeMetrics>, resume: &Resume) -> Self {
        let mut watermark = Watermark::new(lateness, tick);
        watermark.resume(resume.watermark);
        let mut packets = Self {
            schema: packet_schema(),
            watermark,
            order: Order::new(nanos(window.min(lateness))),
            interfaces: Interfaces::default(),
            runs: Vec::new(),
            taken: (0, 0),
            disordered: metrics.counter("disordered"),
            count: resume.seq,
            latest: 0,
            bad_time: metrics.counter("bad_time"),
            metrics: Arc::clone(metrics),
        };
        packets.look_at_clock();
        packets
    }

    /// Says what the wall clock is: a packet far ahead of it would move time for all others.
    pub(super) fn look_at_clock(&mut self) {
        self.latest = wall_clock_ns().saturating_add(nanos(MAX_FUTURE));
    }

    /// Takes a packet; whether the batch is full now.
    pub(super) fn take(&mut self, packet: &Record<'_>) -> bool {
        let &Record { time: ns, linktype, wire_len, interface_name, data, .. } = packet;
        let seq = self.count;
        self.count += 1;
        NodeMetrics::add(&self.metrics.bytes, data.len());
        if !(0..=self.latest).contains(&ns) {
            self.bad_time.fetch_add(1, Relaxed);
            return false;
        }
        self.taken = (self.taken.0 + 1, self.taken.1 + data.len());
        let interface = self.interfaces.number(interface_name);
        let packet = Packet { time: ns, seq, linktype, wire_len, interface, data: data.into() };
        match self.watermark.observe(ns) {
            Arrival::OnTime => self.order.push(packet),
            Arrival::Late => self.give(true, &packet),
        }
        self.pass();
        self.taken.0 >= BATCH_ROWS || self.taken.1 >= BATCH_BYTES
    }

    /// Gives out what has waited for long enough.
    fn pass(&mut self) {
        while let Some(packet) = self.order.pop() {
            self.give(false, &packet);
        }
    }

    fn give(&mut self, late: bool, packet: &Packet) {
        if self.runs.last().is_none_or(|(other, _)| *other != late) {
            self.runs.push((late, Rows::default()));
        }
        let Some((_, rows)) = self.runs.last_mut() else { return };
        rows.times.push(packet.time);
        rows.seqs.push(packet.seq);
        rows.linktypes.push(packet.linktype);
        rows.wire.push(packet.wire_len);
        rows.data.append_value(&packet.data);
        rows.interfaces.append_option(self.interfaces.name(packet.interface));
    }

    /// The input has ended: nothing is waited for.
    pub(super) fn end(&mut self) {
        self.order.pass(i64::MAX);
        self.pass();
    }

    /// Moves time on to now: the source has stopped, and nothing from before can come later.
    pub(super) fn close(&mut self) {
        self.watermark.close(wall_clock_ns());
    }

    /// Moves time on while nothing comes.
    pub(super) fn idle(&mut self, drained_ns: i64) {
        self.watermark.idle(drained_ns);
        self.order.pass(drained_ns);
        self.pass();
    }

    pub(super) fn watermark(&self) -> Time {
        self.watermark.time()
    }

    /// Hands on what has been read.
    pub(super) fn flush(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<(), String> {
        self.taken = (0, 0);
        self.disordered.fetch_add(std::mem::take(&mut self.order.disordered), Relaxed);
        for (late, mut rows) in self.runs.drain(..) {
            let columns: Vec<ArrayRef> = vec![
                time_array(std::mem::take(&mut rows.times)),
                Arc::new(UInt64Array::from(std::mem::take(&mut rows.seqs))),
                Arc::new(Int32Array::from(std::mem::take(&mut rows.linktypes))),
                Arc::new(UInt32Array::from(std::mem::take(&mut rows.wire))),
                Arc::new(rows.data.finish()),
                Arc::new(rows.interfaces.finish()),
            ];
            let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)
                .map_err(|error| format!("packets do not fit their columns: {error}"))?;
            out.push((0, Batch { late, ..Batch::new(rows) }));
        }
        Ok(())
    }
}

/// A packet's timestamp in ns since the epoch, of a capture with nanosecond precision. One that does not fit is
/// before 1970, and so refused.
pub(crate) fn timestamp(header: &pcap::PacketHeader) -> i64 {
    header.ts.tv_sec.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(header.ts.tv_usec)).unwrap_or(-1)
}

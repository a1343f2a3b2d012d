//! Packets as rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryBuilder, Int32Array, RecordBatch, StringBuilder, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use capture_file::Record;
use engine::batch::{Batch, Time, stream_schema, time_array};
use engine::logged::Resume;
use engine::metrics::NodeMetrics;
use engine::time::{Arrival, MAX_FUTURE, Watermark, nanos, wall_clock_ns};

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
#[derive(Debug)]
pub(super) struct Packets {
    schema: SchemaRef,
    watermark: Watermark,
    on_time: Rows,
    late: Rows,
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
    bytes: usize,
}

impl Packets {
    pub(super) fn new((lateness, tick): (Duration, Duration), metrics: &Arc<NodeMetrics>, resume: &Resume) -> Self {
        let mut watermark = Watermark::new(lateness, tick);
        watermark.resume(resume.watermark);
        let mut packets = Self {
            schema: packet_schema(),
            watermark,
            on_time: Rows::default(),
            late: Rows::default(),
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
        let rows = match self.watermark.observe(ns) {
            Arrival::OnTime => &mut self.on_time,
            Arrival::Late => &mut self.late,
        };
        rows.times.push(ns);
        rows.seqs.push(seq);
        rows.linktypes.push(linktype);
        rows.wire.push(wire_len);
        rows.data.append_value(data);
        rows.interfaces.append_option(interface_name);
        rows.bytes += data.len();
        self.on_time.times.len() + self.late.times.len() >= BATCH_ROWS
            || self.on_time.bytes + self.late.bytes >= BATCH_BYTES
    }

    /// Moves time on to now: the source has stopped, and nothing from before can come later.
    pub(super) fn close(&mut self) {
        self.watermark.close(wall_clock_ns());
    }

    /// Moves time on while nothing comes.
    pub(super) fn idle(&mut self, drained_ns: i64) {
        self.watermark.idle(drained_ns);
    }

    pub(super) fn watermark(&self) -> Time {
        self.watermark.time()
    }

    /// Hands on what has been read.
    pub(super) fn flush(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<(), String> {
        for (late, rows) in [(false, &mut self.on_time), (true, &mut self.late)] {
            if rows.times.is_empty() {
                continue;
            }
            let columns: Vec<ArrayRef> = vec![
                time_array(std::mem::take(&mut rows.times)),
                Arc::new(UInt64Array::from(std::mem::take(&mut rows.seqs))),
                Arc::new(Int32Array::from(std::mem::take(&mut rows.linktypes))),
                Arc::new(UInt32Array::from(std::mem::take(&mut rows.wire))),
                Arc::new(rows.data.finish()),
                Arc::new(rows.interfaces.finish()),
            ];
            rows.bytes = 0;
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

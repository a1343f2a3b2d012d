//! What cases read: rows of values that are hard to handle, in the order in which they come.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt16Array, UInt32Array,
    UInt64Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Field;
use engine::batch::{Batch, EdgeType, stream_schema, time_array};
use engine::time::{Arrival, Watermark};

use super::cases::CASES;
use super::node::Run;
use super::{LATENESS, MS, ROWS, START};
use crate::replay::Recording;

pub(super) const ADDRESSES: &[&str] =
    &["192.0.2.1", "203.0.113.81", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8:100::f", "198.51.100.241"];
pub(super) const TEXTS: &[&str] =
    &["", "7", "-3", " 12", "9223372036854775808", "NULL", "a|\"\\\n", "\0", "\u{fc}\u{202e}\u{1f980}", "e\u{301}"];
const JA4S: &[&str] = &["t13d1516h2_8daaf6152771_d8a2da3f94cd", "t13d1517h2_8daaf6152771_b6f405a00624", "", "t13"];
const AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.5.0",
    "\u{202e}Firefox/144.0",
    "",
];
const REALS: &[f64] = &[0.0, -0.0, 0.1, -2.5, f64::MAX, f64::MIN_POSITIVE / 2.0, f64::NAN, f64::INFINITY];

/// A number that looks random: SplitMix64 (Steele, Lea and Flood, 2014) of where it is used.
pub(super) fn draw(seed: u64, column: u64, row: usize) -> u64 {
    let mut bits = (seed << 48 ^ column << 32 ^ row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// One of some values.
pub(super) fn one<T: Copy>(of: &[T], draw: u64) -> T {
    of[(draw % of.len() as u64) as usize]
}

/// Event times in ms after the start, in the order of arrival: out of order, and one in twelve late.
pub(super) fn times(seed: u64) -> Vec<i64> {
    let event = |row: usize| {
        let at = (draw(seed, 0, row) % 60_000) as i64;
        // Whole seconds make ties.
        let at = if draw(seed, 1, row).is_multiple_of(3) { at / 1_000 * 1_000 } else { at };
        let late = draw(seed, 2, row).is_multiple_of(12);
        let delay = if late { 3_000 + draw(seed, 3, row) % 20_000 } else { draw(seed, 3, row) % 1_900 };
        (at + delay as i64, at)
    };
    let mut events: Vec<(i64, i64)> = (0..ROWS).map(event).collect();
    events.sort_unstable();
    events.into_iter().map(|(_, at)| at).collect()
}

/// A column of some values and, one in nine, of null.
fn column<T: Copy, A: Array + FromIterator<Option<T>> + 'static>(seed: u64, number: u64, of: &[T]) -> ArrayRef {
    let value = |row| (!draw(seed, 50 + number, row).is_multiple_of(9)).then(|| one(of, draw(seed, number, row)));
    Arc::new((0..ROWS).map(value).collect::<A>())
}

/// Rows in the order of arrival, hellos or requests, whose number is the column of that name.
pub(super) fn table(seed: u64, name: &str) -> RecordBatch {
    let ns: Vec<i64> = times(seed).iter().map(|ms| START + ms * MS).collect();
    let begins = ns.iter().enumerate().map(|(row, ns)| ns - (draw(seed, 4, row) % 4_000) as i64 * MS).collect();
    let windows = ns.iter().map(|ns| ns - ns.rem_euclid(5_000 * MS)).collect();
    let nth: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..ROWS as u64));
    let others = [&ADDRESSES[1..], &["no address", ""]].concat();
    // Most hellos are of one connection.
    let addresses = [vec![ADDRESSES[0]; if name == "hello" { 40 } else { 1 }], others].concat();
    let ports: &[u16] = if name == "hello" { &[1] } else { &[1, 2, 3] };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("begin_time", time_array(begins)),
        ("window_start", time_array(windows)),
        ("src_ip", column::<_, StringArray>(seed, 5, &addresses)),
        ("src_port", column::<_, UInt16Array>(seed, 6, ports)),
        ("dst_ip", column::<_, StringArray>(seed, 7, &ADDRESSES[..1])),
        ("dst_port", column::<_, UInt16Array>(seed, 8, &[443])),
        ("asn", column::<_, UInt32Array>(seed, 14, &[0, 13_335, 15_169, 16_509])),
        ("ja4", column::<_, StringArray>(seed, 15, JA4S)),
        ("agent", column::<_, StringArray>(seed, 16, AGENTS)),
        ("text", column::<_, StringArray>(seed, 9, TEXTS)),
        ("number", column::<_, Int64Array>(seed, 10, &[0, 1, -1, 42, i64::MIN, i64::MAX])),
        ("size", column::<_, UInt64Array>(seed, 11, &[0, 512, u64::MAX])),
        ("real", column::<_, Float64Array>(seed, 12, REALS)),
        ("flag", column::<_, BooleanArray>(seed, 13, &[false, true])),
        (name, Arc::clone(&nth)),
    ];
    let schema = stream_schema(columns.iter().map(|(name, of)| Field::new(*name, of.data_type().clone(), true)));
    let columns = [time_array(ns), nth].into_iter().chain(columns.into_iter().map(|(_, column)| column));
    RecordBatch::try_new(schema, columns.collect()).expect("valid")
}

/// The rows that are not late.
pub(super) fn in_time(rows: &RecordBatch) -> RecordBatch {
    let times = Batch::new(rows.clone()).times().expect("a time").values().to_vec();
    let mut watermark = Watermark::new(LATENESS, Duration::from_millis(100));
    let kept = (0..).zip(times).filter(|(_, ns)| watermark.observe(*ns) != Arrival::Late).map(|(row, _)| row);
    take_record_batch(rows, &kept.collect::<UInt32Array>()).expect("in range")
}

/// Packets of the demo's capture. Each 97th comes later than those behind it.
pub(super) fn packets() -> &'static RecordBatch {
    static PACKETS: OnceLock<RecordBatch> = OnceLock::new();
    PACKETS.get_or_init(|| {
        let run = Run::of(&CASES[0], usize::MAX, 1);
        let all = run.ports[0].batches.iter().map(|batch| &batch.rows);
        let all = concat_batches(&run.ports[0].ty.schema, all).expect("one schema");
        let mut order: Vec<u32> = (0..2_500.min(all.num_rows() as u32)).collect();
        order.sort_by_key(|row| row + if row % 97 == 96 { 300 } else { 0 });
        take_record_batch(&all, &UInt32Array::from(order)).expect("in range")
    })
}

/// Rows as a source sends them: a batch at the watermark before it, late rows in one of their own. Packets keep their
/// order and come to one of the workers: behind each batch stand empty ones for the others.
pub(super) fn recording(rows: &RecordBatch, cut: usize, one_of: Option<usize>) -> Recording {
    let times = Batch::new(rows.clone()).times().expect("a time").values().to_vec();
    let mut watermark = Watermark::new(LATENESS, Duration::from_millis(100));
    let mut batches = Vec::new();
    for chunk in (0..).zip(times).collect::<Vec<(u32, i64)>>().chunks(cut) {
        let time = watermark.time();
        let judged = chunk.iter().map(|(row, ns)| (watermark.observe(*ns) == Arrival::Late, *row));
        let mut judged: Vec<(bool, u32)> = judged.collect();
        if one_of.is_none() {
            judged.sort_by_key(|(late, _)| *late);
        }
        for part in judged.chunk_by(|a, b| a.0 == b.0) {
            let picked = UInt32Array::from_iter_values(part.iter().map(|(_, row)| *row));
            let picked = take_record_batch(rows, &picked).expect("in range");
            batches.push((time, Batch { late: part[0].0, ..Batch::new(picked) }));
            let empty = (time, Batch::new(rows.slice(0, 0)));
            batches.extend(std::iter::repeat_n(empty, one_of.unwrap_or(1) - 1));
        }
    }
    Recording { ty: EdgeType::stream(rows.schema()), batches, live: false }
}

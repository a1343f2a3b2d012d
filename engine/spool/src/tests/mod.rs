//! Tests of a whole log, and what they share.

mod archive;
mod damage;
mod faults;
mod limits;
mod log;
mod reopen;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::*;

pub(super) const SECOND: i64 = 1_000_000_000;

pub(super) fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![Field::new("time", time, false), Field::new("host", DataType::Utf8, true)]))
}

pub(super) fn ports() -> Vec<(String, SchemaRef)> {
    let rejected =
        Schema::new(vec![Field::new("reason", DataType::Utf8, false), Field::new("line", DataType::Int32, true)]);
    vec![("out".to_owned(), schema()), ("rejected".to_owned(), Arc::new(rejected))]
}

/// Two rows of port 0, at a second and half a second before it.
pub(super) fn batch(second: u64) -> Entry {
    let ns = second as i64 * SECOND;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(vec![ns - SECOND / 2, ns]).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some(format!("host-{second}")), None])),
    ];
    let rows = RecordBatch::try_new(schema(), columns).expect("valid");
    Entry::Batch { port: 0, time: second * 1000, late: false, rows }
}

/// A row of port 1 with a text of some length.
pub(super) fn reject(length: usize) -> Entry {
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["x".repeat(length)])), Arc::new(Int32Array::from(vec![None]))];
    let rows = RecordBatch::try_new(ports()[1].1.clone(), columns).expect("valid");
    Entry::Batch { port: 1, time: 7, late: true, rows }
}

pub(super) fn open(settings: Settings) -> Arc<Log> {
    Log::open(settings, &ports()).expect("opens")
}

/// Waits for a condition; the limit only ends a test that fails.
pub(super) fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "the condition does not come true");
        std::thread::yield_now();
    }
}

/// Appends one entry and waits until it is durable.
pub(super) fn commit(log: &Log, entry: Entry) {
    let end = log.end();
    log.append(entry);
    until(|| log.end() > end);
}

/// Everything that can be read now.
pub(super) fn read(log: &Arc<Log>, from: u64) -> Vec<(u64, Entry)> {
    let mut reader = log.reader(from);
    let mut found = Vec::new();
    while let Next::Entry(position, entry) = reader.next().expect("reads") {
        found.push((position, entry));
    }
    found
}

/// A log of records of one second each, closed again.
pub(super) fn written(settings: &Settings, records: std::ops::Range<u64>) {
    let log = open(settings.clone());
    records.for_each(|second| commit(&log, batch(second)));
}

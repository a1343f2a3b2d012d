//! What a log counts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A value that others may read at any time.
pub type Count = Arc<AtomicU64>;

/// Counts of a log since it was opened, then gauges of what it is now.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Records committed.
    pub records: Count,
    /// Rows committed.
    pub rows: Count,
    /// Bytes committed, with headers.
    pub bytes: Count,
    /// Commits: times at which data became durable.
    pub commits: Count,
    /// Nanoseconds spent in fdatasync, all commits together.
    pub commit_ns: Count,
    /// Nanoseconds of the longest fdatasync.
    pub commit_ns_max: Count,
    /// Records that readers could not find or whose checksum was wrong; each is counted once.
    pub damaged_records: Count,
    /// Rows of those damaged records whose header could be read.
    pub damaged_rows: Count,
    /// Bytes that readers skipped because they are no whole record.
    pub damaged_bytes: Count,
    /// Bytes cut off the end of the log when it was opened: a record whose writing was interrupted.
    pub torn_bytes: Count,
    /// Records that do not fit today's schemas; each read counts.
    pub unreadable_records: Count,
    /// Rows of records that do not fit today's schemas.
    pub unreadable_rows: Count,
    /// Records deleted to make room before they were trimmed.
    pub dropped_records: Count,
    /// Rows deleted to make room before they were trimmed.
    pub dropped_rows: Count,
    /// Records that were not taken: rows of another schema than their port's, or a row of more than 256 MiB.
    pub refused_records: Count,
    /// Rows of those records.
    pub refused_rows: Count,
    /// Failed writes, such as on a full disk. Nothing is lost by one.
    pub write_errors: Count,
    /// Failed fdatasyncs. Nothing is lost by one.
    pub sync_errors: Count,
    /// Gauge: bytes of all segments.
    pub disk_bytes: Count,
    /// Gauge: number of segments.
    pub segments: Count,
    /// Gauge: bytes that are not durable yet.
    pub queued_bytes: Count,
    /// Gauge: 1 while the log is full or its disk refuses writes.
    pub full: Count,
}

/// Adds to a counter.
pub(crate) fn add(count: &Count, n: u64) {
    count.fetch_add(n, Relaxed);
}

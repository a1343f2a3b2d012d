//! Event time at the sources: watermarks, late rows, and when a source must wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::batch::Time;

mod pace;

pub use pace::{Pace, Sources};

/// How far a source may run ahead of the dataflow, in rows whose time the dataflow has not passed yet.
pub const MAX_IN_FLIGHT: usize = 64 * 1024;

/// How far in the future of the wall clock a row's event time may be before it is refused: one day.
pub const MAX_FUTURE: Duration = Duration::from_secs(24 * 3600);

/// A source's watermark: the greatest event time seen, less the allowed lateness.
///
/// The judgement of a row depends only on the rows before it, so that it is the same for any batch size and any
/// number of workers.
#[derive(Clone, Debug)]
pub struct Watermark {
    lateness_ns: i64,
    tick_ms: u64,
    at_ns: i64,
    /// The greatest event time of a row.
    greatest_ns: i64,
}

/// What a watermark says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Not before the watermark.
    OnTime,
    /// Before the watermark.
    Late,
}

impl Watermark {
    /// A watermark that trails the greatest event time by `lateness` and moves in steps of `tick`.
    pub fn new(lateness: Duration, tick: Duration) -> Self {
        Self {
            lateness_ns: nanos(lateness),
            tick_ms: (tick.as_millis() as u64).max(1),
            at_ns: i64::MIN,
            greatest_ns: i64::MIN,
        }
    }

    /// Goes on where the source was before: rows before `time` (ms) are late.
    pub fn resume(&mut self, time: Time) {
        if time > 0 {
            let ns = i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1_000_000);
            self.at_ns = self.at_ns.max(ns);
        }
    }

    /// Judges a row by its event time in ns since the epoch, then moves the watermark.
    pub fn observe(&mut self, event_ns: i64) -> Arrival {
        let arrival = if event_ns < self.at_ns { Arrival::Late } else { Arrival::OnTime };
        self.at_ns = self.at_ns.max(event_ns.saturating_sub(self.lateness_ns));
        self.greatest_ns = self.greatest_ns.max(event_ns);
        arrival
    }

    /// Whether the watermark is past every row that was seen.
    pub fn has_passed_all(&self) -> bool {
        i64::try_from(self.time()).is_ok_and(|ms| ms.saturating_mul(1_000_000) > self.greatest_ns)
    }

    /// Whether an event time is further than `by` ahead of all that was seen, if anything was.
    pub fn is_ahead(&self, event_ns: i64, by: Duration) -> bool {
        let greatest = self.at_ns.saturating_add(self.lateness_ns);
        self.at_ns != i64::MIN && event_ns > greatest.saturating_add(nanos(by))
    }

    /// Whether the greatest event time seen, or the clock while it was followed, is at most `by` before `now_ns`.
    pub fn trails(&self, now_ns: i64, by: Duration) -> bool {
        self.at_ns.saturating_add(self.lateness_ns) >= now_ns.saturating_sub(nanos(by))
    }

    /// Moves the watermark of a source that is idle: at `now_ns` nothing older than the lateness is waited for.
    pub fn idle(&mut self, now_ns: i64) {
        self.at_ns = self.at_ns.max(now_ns.saturating_sub(self.lateness_ns));
    }

    /// The source has stopped at `now_ns`, and nothing that happened before can come any more.
    pub fn close(&mut self, now_ns: i64) {
        self.at_ns = self.at_ns.max(now_ns);
    }

    /// The watermark in ns since the epoch; `i64::MIN` before the first row.
    pub fn at_ns(&self) -> i64 {
        self.at_ns
    }

    /// The watermark as a dataflow timestamp: rounded down to a tick. Every on-time row from now on is at or after it.
    pub fn time(&self) -> Time {
        let ms = u64::try_from(self.at_ns / 1_000_000).unwrap_or(0);
        ms - ms % self.tick_ms
    }
}

/// Back-pressure for a source: counts the rows that the dataflow has not passed yet.
#[derive(Debug, Default)]
pub struct Pacer {
    sent: VecDeque<(Time, usize)>,
    rows: usize,
}

impl Pacer {
    /// Notes rows sent at `time`.
    pub fn sent(&mut self, time: Time, rows: usize) {
        match self.sent.back_mut() {
            Some((last, count)) if *last == time => *count += rows,
            _ => self.sent.push_back((time, rows)),
        }
        self.rows += rows;
    }

    /// Whether the source is further ahead of the dataflow, which says whether it `is_past` a time, than it may be.
    ///
    /// That alone is no reason to wait: operators hold time back for as long as their windows need, and the source
    /// furthest behind is the one that everything waits for.
    pub fn is_ahead(&mut self, is_past: impl Fn(Time) -> bool) -> bool {
        while let Some(&(time, rows)) = self.sent.front() {
            if !is_past(time) {
                break;
            }
            self.rows -= rows;
            self.sent.pop_front();
        }
        self.rows > MAX_IN_FLIGHT
    }
}

/// Rows that are on their way to another worker, which may be slower than the one that sends them.
///
/// Of several processes each counts what its own workers send and receive, which may be less than nothing, and hears now
/// and then what the others have counted: only the sum says how many are on their way.
#[derive(Debug)]
pub struct Backlog {
    here: AtomicI64,
    elsewhere: AtomicI64,
    most: AtomicI64,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { here: AtomicI64::new(0), elsewhere: AtomicI64::new(0), most: AtomicI64::new(MAX_IN_FLIGHT as i64) }
    }
}

impl Backlog {
    /// Rows were sent.
    pub fn sent(&self, rows: usize) {
        self.here.fetch_add(rows as i64, Relaxed);
    }

    /// Rows have arrived.
    pub fn arrived(&self, rows: usize) {
        self.here.fetch_sub(rows as i64, Relaxed);
    }

    /// It may hold at least so many rows before sources wait; 65,536 whatever is said. All processes must say the same.
    pub fn allow(&self, rows: usize) {
        self.most.fetch_max(i64::try_from(rows).unwrap_or(i64::MAX), Relaxed);
    }

    /// Whether sources must wait for it to shrink.
    pub fn is_full(&self) -> bool {
        self.balance().saturating_add(self.elsewhere.load(Relaxed)) > self.most.load(Relaxed)
    }

    /// What this process has counted: rows sent less rows that have arrived.
    pub fn balance(&self) -> i64 {
        self.here.load(Relaxed)
    }

    /// What the other processes have counted together.
    pub fn set_elsewhere(&self, balance: i64) {
        self.elsewhere.store(balance, Relaxed);
    }
}

/// The wall clock in ns since the epoch. Only sources may ask.
pub fn wall_clock_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// A duration in ns, at most `i64::MAX`.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn a_row_is_late_when_it_is_older_than_the_greatest_less_the_lateness() {
        let mut watermark = Watermark::new(Duration::from_millis(500), Duration::from_millis(100));
        assert_eq!(watermark.time(), 0);
        assert_eq!(watermark.observe(10_000 * MS), Arrival::OnTime);
        assert_eq!(watermark.observe(9_500 * MS), Arrival::OnTime);
        assert_eq!(watermark.observe(9_499 * MS), Arrival::Late);
        assert_eq!(watermark.observe(10_630 * MS), Arrival::OnTime);
        assert_eq!(watermark.time(), 10_100, "10,130 rounded down to a tick");
    }

    #[test]
    fn the_watermark_never_goes_back() {
        let mut watermark = Watermark::new(Duration::ZERO, Duration::from_millis(1));
        watermark.idle(50 * MS);
        watermark.observe(20 * MS);
        watermark.idle(10 * MS);
        assert_eq!(watermark.time(), 50);
        watermark.observe(60 * MS);
        assert!(!watermark.has_passed_all());
        watermark.idle(61 * MS);
        assert!(watermark.has_passed_all());
    }

    #[test]
    fn what_the_dataflow_has_passed_does_not_count() {
        let mut pacer = Pacer::default();
        pacer.sent(7, 10 * MAX_IN_FLIGHT);
        assert!(pacer.is_ahead(|time| time < 7));
        assert!(!pacer.is_ahead(|time| time < 8));
    }

    #[test]
    fn a_backlog_is_full_until_enough_has_arrived() {
        let backlog = Backlog::default();
        backlog.sent(MAX_IN_FLIGHT + 1);
        assert!(backlog.is_full());
        backlog.arrived(1);
        assert!(!backlog.is_full());
    }

    #[test]
    fn a_backlog_holds_what_the_largest_of_its_users_needs() {
        let backlog = Backlog::default();
        backlog.allow(10);
        backlog.sent(MAX_IN_FLIGHT);
        assert!(!backlog.is_full(), "never less than it holds by itself");
        backlog.allow(3 * MAX_IN_FLIGHT);
        backlog.allow(2 * MAX_IN_FLIGHT);
        backlog.sent(2 * MAX_IN_FLIGHT);
        assert!(!backlog.is_full());
        backlog.sent(1);
        assert!(backlog.is_full());
    }

    #[test]
    fn rows_between_processes_are_on_their_way_until_they_are_heard_to_have_arrived() {
        let (one, other) = (Backlog::default(), Backlog::default());
        one.sent(MAX_IN_FLIGHT + 1);
        other.arrived(MAX_IN_FLIGHT + 1);
        assert!(one.is_full() && !other.is_full());
        one.set_elsewhere(other.balance());
        other.set_elsewhere(one.balance());
        assert!(!one.is_full() && !other.is_full());
    }
}

//! How far the clocks of the two sides are apart, as the matches show it.
//!
//! A first request is a little later than its hello: a handshake and the way to the log. What is measured is that
//! delay plus the difference of the clocks. The delay has a long tail (slow clients, connections opened ahead of their
//! use), but never is less than 0, so the difference shows at the low end. The minimum would follow any single wrong
//! match; the 5th percentile of the last 1024 first requests stands on about fifty of them, and moves to a stepped clock within a
//! thousand connections. Counted in first requests and not in time, so that it depends on the rows alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use engine::contract::NodeMetrics;
use parking_lot::Mutex;

/// How many first requests count.
const SAMPLES: usize = 1024;

/// The estimate is taken anew after so many.
const STEP: u64 = 64;

/// What the workers of a node have found.
#[derive(Default)]
pub(super) struct Board {
    estimates: Mutex<BTreeMap<usize, i64>>,
    warned: AtomicBool,
}

impl Board {
    /// Notes a worker's estimate. Returns the mean of all workers' estimates, each of as many keys.
    fn note(&self, worker: usize, estimate: i64) -> i64 {
        let mut estimates = self.estimates.lock();
        estimates.insert(worker, estimate);
        let sum: i128 = estimates.values().map(|value| i128::from(*value)).sum();
        i64::try_from(sum / estimates.len() as i128).unwrap_or(0)
    }
}

/// Measures, shows and warns, for one worker.
pub(super) struct Monitor {
    pub worker: usize,
    pub id: String,
    pub tolerance: i64,
    pub board: Arc<Board>,
    pub metrics: Arc<NodeMetrics>,
    pub samples: Arc<AtomicU64>,
    pub skew: Skew,
}

impl Monitor {
    /// Takes in how long after its hello each first request was, in ns. `last`: nothing will follow.
    pub fn observe(&mut self, delays: &[i64], last: bool) {
        let mut estimate = None;
        for delay in delays {
            estimate = self.skew.observe(*delay).or(estimate);
        }
        NodeMetrics::add(&self.samples, delays.len());
        let estimate = if last { self.skew.estimate() } else { estimate };
        let Some(estimate) = estimate else { return };
        self.metrics.gauge("clock_skew_us").store(self.board.note(self.worker, estimate) / 1_000, Relaxed);
        // The first few may be of slow clients, all of them.
        let is_sure = self.skew.last.len() >= STEP as usize;
        if is_sure && is_beyond(estimate, self.tolerance) && !self.board.warned.swap(true, Relaxed) {
            let (node, skew_ms, tolerance_ms) = (&self.id, estimate / 1_000_000, self.tolerance / 1_000_000);
            if estimate < 0 {
                tracing::warn!(
                    node,
                    skew_ms,
                    tolerance_ms,
                    "requests are logged before their hellos are seen, by almost as much as is allowed or more: set the \
                     sensors' clocks, or raise `tolerance`"
                );
            } else {
                tracing::warn!(
                    node,
                    skew_ms,
                    tolerance_ms,
                    "requests are logged long after their hellos are seen: set the sensors' clocks, or raise `window` and \
                     `keepalive_ttl` by the difference and set `tolerance` above it"
                );
            }
        }
    }
}

/// Whether the clocks are too far apart. A hello further after its request than `tolerance` is not matched and not
/// measured, so on that side the estimate can only come near it.
fn is_beyond(estimate: i64, tolerance: i64) -> bool {
    estimate > tolerance || estimate < 0 && estimate <= -(tolerance / 4 * 3)
}

/// The estimate of one worker.
#[derive(Default)]
pub(super) struct Skew {
    last: VecDeque<i64>,
    count: u64,
}

impl Skew {
    /// Notes how long after its hello a first request was, in ns. Returns a new estimate of how far the requests' clock
    /// is ahead, from time to time.
    pub fn observe(&mut self, delay: i64) -> Option<i64> {
        if self.last.len() == SAMPLES {
            self.last.pop_front();
        }
        self.last.push_back(delay);
        self.count += 1;
        self.count.is_multiple_of(STEP).then(|| self.estimate()).flatten()
    }

    /// How far the requests' clock is ahead in ns; `None` before the first sample.
    pub fn estimate(&self) -> Option<i64> {
        let mut sorted: Vec<i64> = self.last.iter().copied().collect();
        let at = sorted.len() / 20;
        (!sorted.is_empty()).then(|| *sorted.select_nth_unstable(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Delays from 5 ms with a long tail, without randomness.
    fn delay(n: i64) -> i64 {
        5 * MS + (n * 7919 % 1000) * (n * 7919 % 1000) * MS / 500
    }

    #[test]
    fn the_estimate_is_near_the_difference_of_the_clocks() {
        for skew in [-400 * MS, 0, 3_000 * MS] {
            let mut estimator = Skew::default();
            (0..5_000).for_each(|n| _ = estimator.observe(delay(n) + skew));
            let error = estimator.estimate().expect("samples") - skew;
            assert!((0..20 * MS).contains(&error), "{error}");
        }
    }

    #[test]
    fn a_few_wrong_matches_do_not_move_it_and_a_stepped_clock_does() {
        let mut estimator = Skew::default();
        (0..2_000).for_each(|n| _ = estimator.observe(if n % 40 == 0 { -450 * MS } else { delay(n) }));
        assert!(estimator.estimate().is_some_and(|estimate| estimate > 0));
        (0..1_024).for_each(|n| _ = estimator.observe(delay(n) - 300 * MS));
        assert!(estimator.estimate().is_some_and(|estimate| estimate < -250 * MS));
    }
}

//! What the join counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{Array, AsArray, RecordBatch};
use engine::contract::NodeMetrics;

use crate::correlate::keys::Dropped;
use crate::correlate::matcher::{Decision, Outcomes};
use crate::correlate::server_tls::{self, DIFFERS};
use crate::correlate::sign::{ORPHANS, PLAIN, WHOLE_SECONDS};

/// The node's counters, by their names.
pub(super) struct Counters {
    correlated: Arc<AtomicU64>,
    orphan_requests: Arc<AtomicU64>,
    orphans_without_port: Arc<AtomicU64>,
    whole_seconds: Arc<AtomicU64>,
    plain: Arc<AtomicU64>,
    tls_differs: Arc<AtomicU64>,
    orphan_hellos: Arc<AtomicU64>,
    duplicate_hellos: Arc<AtomicU64>,
    pub requests_decided_early: Arc<AtomicU64>,
    pub evicted_waiting: Arc<AtomicU64>,
    expired_early: Arc<AtomicU64>,
    after_expiry: Arc<AtomicU64>,
    too_long: Arc<AtomicU64>,
    failed_ip_excluded: Arc<AtomicU64>,
    failed_dest_port_filtered: Arc<AtomicU64>,
}

/// How many rows the filters have dropped, each for its first reason.
#[derive(Default)]
pub(super) struct Filtered {
    by_address: usize,
    by_port: usize,
}

impl Filtered {
    /// Counts a row.
    #[inline]
    pub fn add(&mut self, dropped: Dropped) {
        self.by_address += usize::from(dropped == Dropped::Address);
        self.by_port += usize::from(dropped == Dropped::Port);
    }
}

impl Counters {
    /// Those of a node, which begin at 0.
    pub fn new(metrics: &NodeMetrics) -> Self {
        Self {
            correlated: metrics.counter("correlated"),
            orphan_requests: metrics.counter(ORPHANS),
            orphans_without_port: metrics.counter("orphans_without_port"),
            whole_seconds: metrics.counter(WHOLE_SECONDS),
            plain: metrics.counter(PLAIN),
            tls_differs: metrics.counter(DIFFERS),
            orphan_hellos: metrics.counter("orphan_hellos"),
            duplicate_hellos: metrics.counter("duplicate_hellos"),
            requests_decided_early: metrics.counter("requests_decided_early"),
            evicted_waiting: metrics.counter("evicted_waiting"),
            expired_early: metrics.counter("hellos_expired_early"),
            after_expiry: metrics.counter("orphans_after_expiry"),
            too_long: metrics.counter("requests_too_long"),
            failed_ip_excluded: metrics.counter("failed_ip_excluded"),
            failed_dest_port_filtered: metrics.counter("failed_dest_port_filtered"),
        }
    }

    /// Counts rows of a batch that filters have dropped.
    pub fn filtered(&self, filtered: &Filtered) {
        NodeMetrics::add(&self.failed_ip_excluded, filtered.by_address);
        NodeMetrics::add(&self.failed_dest_port_filtered, filtered.by_port);
    }

    /// Counts what came of the rows of an activation.
    pub fn outcomes(&self, outcomes: &Outcomes) {
        let matched = outcomes.decisions.iter().filter(|d| matches!(d, Decision::Matched { .. })).count();
        NodeMetrics::add(&self.correlated, matched);
        NodeMetrics::add(&self.orphan_requests, outcomes.decisions.len() - matched);
        let rounded = |d: &&Decision| matches!(d, Decision::Request { request } if request.begin % 1_000_000_000 == 0);
        NodeMetrics::add(&self.whole_seconds, outcomes.decisions.iter().filter(rounded).count());
        NodeMetrics::add(&self.orphan_hellos, outcomes.alone.len());
        self.orphans_without_port.fetch_add(outcomes.without_port, Relaxed);
        self.duplicate_hellos.fetch_add(outcomes.sightings, Relaxed);
        self.expired_early.fetch_add(outcomes.expired_early, Relaxed);
        self.after_expiry.fetch_add(outcomes.after_expiry, Relaxed);
        self.too_long.fetch_add(outcomes.too_long, Relaxed);
    }

    /// Counts requests among rows of the output that have no hello because they came without TLS, and those whose server
    /// has read another hello than the sensor.
    pub fn rows(&self, decisions: &[Decision], rows: &RecordBatch) {
        NodeMetrics::add(&self.plain, plain(decisions, rows));
        NodeMetrics::add(&self.tls_differs, server_tls::count(rows));
    }
}

/// How many requests among these have found no hello and say that they came without TLS.
fn plain(decisions: &[Decision], rows: &RecordBatch) -> usize {
    let schemes = rows.column_by_name("scheme").and_then(|schemes| schemes.as_string_opt::<i32>());
    let Some(schemes) = schemes else { return 0 };
    let is_plain = |at: usize| schemes.is_valid(at) && schemes.value(at).eq_ignore_ascii_case("http");
    let decided = decisions.iter().enumerate();
    decided.filter(|(at, decision)| matches!(decision, Decision::Request { .. }) && is_plain(*at)).count()
}

//! Counters of the service itself.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What the service has done.
#[derive(Debug, Default)]
pub(crate) struct HttpMetrics {
    pub(crate) requests: AtomicU64,
    pub(crate) queries: AtomicU64,
    pub(crate) query_errors: AtomicU64,
    query_micros: AtomicU64,
}

impl HttpMetrics {
    /// Counts a query that is done.
    pub(crate) fn query(&self, took: Duration, failed: bool) {
        self.queries.fetch_add(1, Relaxed);
        self.query_errors.fetch_add(u64::from(failed), Relaxed);
        self.query_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The Prometheus text format, version 0.0.4.
    pub(crate) fn render(&self, (running, waiting): (usize, usize), (started, ended): (u64, u64)) -> String {
        let seconds = self.query_micros.load(Relaxed) as f64 / 1e6;
        let families = [
            ("http_requests_total", "counter", "HTTP requests.", self.requests.load(Relaxed).to_string()),
            ("sql_queries_total", "counter", "SQL queries that ended.", self.queries.load(Relaxed).to_string()),
            ("sql_errors_total", "counter", "SQL queries that failed.", self.query_errors.load(Relaxed).to_string()),
            ("sql_seconds_total", "counter", "Time spent on SQL queries.", seconds.to_string()),
            ("sql_running", "gauge", "SQL queries that run now.", running.to_string()),
            ("sql_waiting", "gauge", "SQL queries that wait for their turn.", waiting.to_string()),
            ("sql_processes_started_total", "counter", "Query processes that were started.", started.to_string()),
            (
                "sql_processes_ended_total",
                "counter",
                "Query processes that have ended or were killed.",
                ended.to_string(),
            ),
        ];
        let mut out = String::new();
        for (name, kind, help, value) in families {
            let _ = writeln!(
                out,
                "# HELP ja4_engine_{name} {help}\n# TYPE ja4_engine_{name} {kind}\nja4_engine_{name} {value}"
            );
        }
        out
    }
}

//! Runs `correlate` on events in memory.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub use crate::memory::Input;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that left.
    pub rows: u64,
    /// Requests with a hello.
    pub correlated: u64,
    /// From the first batch to the last row.
    pub elapsed: Duration,
}

/// Joins hellos with requests on `workers` workers; `options` are further ones of `correlate`.
///
/// # Errors
/// What is wrong with the pipeline, or with the run.
pub fn run(hellos: Input, requests: Input, workers: usize, options: &str) -> Result<Outcome, String> {
    let node = format!("  - {{ id: joined, kind: correlate, from: {{ hello: input0, request: input1 }}{options} }}\n");
    let (shared, elapsed) = crate::memory::run(vec![hellos, requests], &node, workers)?;
    let node = shared.metrics.node("joined", "correlate");
    let correlated = node.counter("correlated").load(Relaxed);
    Ok(Outcome { rows: node.rows_out.load(Relaxed), correlated, elapsed })
}

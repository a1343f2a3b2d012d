//! What a run has done, for its end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::contract::Inputs;
use crate::metrics::NodeMetrics;
use crate::plan::Plan;
use crate::shared::Shared;

/// What a run has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How long it took by the wall clock.
    pub wall: Duration,
    /// Counters of the nodes, in the order of the plan.
    pub nodes: Vec<NodeSummary>,
}

/// Counters of one node at the end; see [`NodeMetrics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// The node's id.
    pub id: String,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it has no input.
    pub is_source: bool,
    /// Rows that arrived.
    pub rows_in: u64,
    /// Rows that left.
    pub rows_out: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// Rows older than the watermark.
    pub late: u64,
    /// Input that was not understood.
    pub rejected: u64,
    /// Rows that a bound pushed out of state.
    pub evicted: u64,
    /// What only this kind counts.
    pub named: Vec<(&'static str, u64)>,
}

impl Summary {
    /// The counters as they are now.
    pub fn new(plan: &Plan, shared: &Shared, wall: Duration) -> Self {
        let nodes = plan
            .nodes
            .iter()
            .map(|node| {
                let metrics: Arc<NodeMetrics> = shared.metrics.node(&node.id, node.kind.name);
                NodeSummary {
                    id: node.id.clone(),
                    kind: node.kind.name,
                    is_source: node.kind.inputs == Inputs::None,
                    rows_in: metrics.rows_in.load(Relaxed),
                    rows_out: metrics.rows_out.load(Relaxed),
                    bytes: metrics.bytes.load(Relaxed),
                    late: metrics.late.load(Relaxed),
                    rejected: metrics.rejected.load(Relaxed),
                    evicted: metrics.evicted.load(Relaxed),
                    named: metrics.named(),
                }
            })
            .collect();
        Self { wall, nodes }
    }

    /// Rows that left the sources.
    pub fn source_rows(&self) -> u64 {
        self.nodes.iter().filter(|n| n.is_source).map(|n| n.rows_out).sum()
    }

    /// Rows that left the sources per second of wall clock.
    pub fn rows_per_second(&self) -> f64 {
        let seconds = self.wall.as_secs_f64();
        if seconds > 0.0 { self.source_rows() as f64 / seconds } else { 0.0 }
    }

    /// Rows that were late anywhere.
    pub fn late(&self) -> u64 {
        self.nodes.iter().map(|n| n.late).sum()
    }

    /// The ids of sources of which nothing was understood, though something came.
    pub fn not_understood(&self) -> Vec<&str> {
        let none = |n: &&NodeSummary| n.is_source && n.rejected > 0 && n.rows_out == 0;
        self.nodes.iter().filter(none).map(|n| n.id.as_str()).collect()
    }

    /// Input that was not understood anywhere.
    pub fn rejected(&self) -> u64 {
        self.nodes.iter().map(|n| n.rejected).sum()
    }
}

//! What a node makes of its counters.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::{NodeMetrics, Rejected};

/// What a node has counted since a while ago.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Rows that came by each input.
    pub inputs: Vec<u64>,
    /// Rows that left.
    pub rows_out: u64,
    /// Input that was not understood.
    pub rejected: u64,
    /// The first of it.
    pub first_rejected: Option<Rejected>,
    /// Nothing will follow.
    pub over: bool,
    /// The node's own counters.
    pub named: BTreeMap<&'static str, u64>,
    /// The same since the node began.
    pub ever: BTreeMap<&'static str, u64>,
}

impl Seen {
    /// One of the node's own counters.
    pub fn counter(&self, name: &str) -> u64 {
        self.named.get(name).copied().unwrap_or(0)
    }

    /// The node's own counters above 0.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.named.iter().map(|(name, value)| (*name, *value)).filter(|(_, value)| *value > 0)
    }

    pub(crate) fn now(metrics: &NodeMetrics) -> Self {
        Self {
            inputs: metrics.inputs(),
            rows_out: metrics.rows_out.load(Relaxed),
            rejected: metrics.rejected.load(Relaxed),
            first_rejected: metrics.first_rejected(),
            over: false,
            named: metrics.named().into_iter().collect(),
            ever: BTreeMap::new(),
        }
    }

    /// What was counted after `base`.
    pub(crate) fn since(&self, base: &Self, over: bool) -> Self {
        let input = |(at, rows): (usize, &u64)| rows - base.inputs.get(at).copied().unwrap_or(0).min(*rows);
        Self {
            inputs: self.inputs.iter().enumerate().map(input).collect(),
            rows_out: self.rows_out.saturating_sub(base.rows_out),
            rejected: self.rejected.saturating_sub(base.rejected),
            first_rejected: self.first_rejected.clone(),
            over,
            named: self.named.iter().map(|(name, n)| (*name, n.saturating_sub(base.counter(name)))).collect(),
            ever: self.named.clone(),
        }
    }
}

/// What a node makes of its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Too little has come to tell, or the node cannot tell.
    Unclear,
    /// Nothing is wrong.
    Fine,
    /// What is wrong and its likely cause, for people.
    Wrong(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_does_not_count() {
        let metrics = NodeMetrics::default();
        metrics.input(1).fetch_add(5, Relaxed);
        metrics.counter("orphans").fetch_add(2, Relaxed);
        NodeMetrics::add(&metrics.rejected, 3);
        let base = Seen::now(&metrics);
        metrics.input(0).fetch_add(7, Relaxed);
        metrics.input(1).fetch_add(1, Relaxed);
        metrics.counter("orphans").fetch_add(1, Relaxed);
        metrics.counter("others").fetch_add(4, Relaxed);
        let seen = Seen::now(&metrics).since(&base, true);
        assert_eq!((seen.inputs.as_slice(), seen.rejected, seen.over), ([7, 1].as_slice(), 0, true));
        assert_eq!(seen.counters().collect::<Vec<_>>(), [("orphans", 1), ("others", 4)]);
        assert_eq!(seen.counter("none"), 0);
    }
}

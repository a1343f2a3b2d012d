//! What a node's counters suggest is wrong with what comes in, such as lines none of which is understood. It is said in
//! the log as soon as it is seen and once only, and is a trouble of the node for as long as it lasts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::metrics::{NodeMetrics, Rejected};
use crate::plan::Plan;
use crate::shared::Shared;

/// How often counters are looked at.
const EVERY: Duration = Duration::from_millis(250);

/// Counters are looked at from about so long ago on, so that what has been right for days does not hide what is wrong now.
const SPAN: Duration = Duration::from_secs(60);

/// The node's trouble is shown under this name.
const PART: &str = "input";

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

    fn now(metrics: &NodeMetrics) -> Self {
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
    fn since(&self, base: &Self, over: bool) -> Self {
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

/// Looks at the counters of a run's nodes from time to time.
#[derive(Default)]
pub(crate) struct Signs {
    watched: HashMap<String, Watched>,
    looked: Option<Instant>,
}

struct Watched {
    metrics: Arc<NodeMetrics>,
    base: Seen,
    since: Instant,
    wrong: bool,
}

impl Signs {
    /// Looks, if it is time to.
    pub fn look(&mut self, plan: &Plan, shared: &Shared) {
        if self.looked.is_none_or(|looked| looked.elapsed() >= EVERY) {
            self.looked = Some(Instant::now());
            self.judge(plan, shared, false);
        }
    }

    /// Looks for the last time: nothing will follow.
    pub fn finish(&mut self, plan: &Plan, shared: &Shared) {
        self.judge(plan, shared, true);
    }

    fn judge(&mut self, plan: &Plan, shared: &Shared, over: bool) {
        for node in &plan.nodes {
            let metrics = shared.metrics.node(&node.id, node.kind.name);
            let fresh = || Watched {
                metrics: Arc::clone(&metrics),
                base: Seen::default(),
                since: Instant::now(),
                wrong: false,
            };
            let watched = self.watched.entry(node.id.clone()).or_insert_with(fresh);
            if !Arc::ptr_eq(&watched.metrics, &metrics) {
                // The node was changed and counts from the beginning.
                *watched = fresh();
            }
            let now = Seen::now(&metrics);
            let sign = node.node.sign(&now.since(&watched.base, over));
            if sign != Sign::Unclear && watched.since.elapsed() >= SPAN {
                (watched.base, watched.since) = (now, Instant::now());
                metrics.forget_rejected();
            }
            match sign {
                Sign::Wrong(said) if !watched.wrong => {
                    tracing::warn!(node = node.id, "{said}");
                    metrics.set_trouble(PART, Some(said));
                    watched.wrong = true;
                }
                Sign::Fine if watched.wrong => {
                    tracing::info!(node = node.id, "what was wrong with the input is over");
                    metrics.set_trouble(PART, None);
                    watched.wrong = false;
                }
                _ => {}
            }
        }
    }
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

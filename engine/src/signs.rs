//! What a node's counters suggest is wrong with what comes in, such as lines none of which is understood. It is said in
//! the log as soon as it is seen and once only, and is a trouble of the node for as long as it lasts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::{Seen, Sign};
use crate::metrics::NodeMetrics;
use crate::plan::Plan;
use crate::shared::Shared;

/// How often counters are looked at.
const EVERY: Duration = Duration::from_millis(250);

/// Counters are looked at from about so long ago on, so that what has been right for days does not hide what is wrong now.
const SPAN: Duration = Duration::from_secs(60);

/// The node's trouble is shown under this name.
const PART: &str = "input";

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

//! What is said of the folder of a run's state, when it goes away or comes back.

use crate::contract::DATA_DIR;
use crate::plan::Plan;
use crate::shared::Shared;
use crate::store::Change;

/// Looks at the folder of a run's state, and says what has changed.
pub(crate) fn look(plan: &Plan, shared: &Shared) {
    let Some(change) = shared.store.look() else { return };
    let trouble = match change {
        Change::Away(why) => {
            tracing::error!("{why}");
            Some(why)
        }
        Change::Back { is_new } => {
            let what = if is_new { ", empty: what was in the first one is gone" } else { "" };
            tracing::warn!("`data_dir` {} is back{what}", plan.data_dir.display());
            None
        }
    };
    for node in &plan.nodes {
        let keeps_there =
            node.definition.paths.contains_key(DATA_DIR) || plan.is_spooled() && node.node.facts().is_live;
        if keeps_there {
            shared.metrics.node(&node.id, node.kind.name).set_trouble(DATA_DIR, trouble.clone());
        }
    }
}

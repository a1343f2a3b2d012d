//! What there is to say of a change, before it and after it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::Control;
use super::Wanted;
use crate::batch::Time;
use crate::catalog::Table;
use crate::dataflow::Dataflow;
use crate::files::Claim;
use crate::plan::Plan;
use crate::plan::diff::ending_windows;

/// The names of sinks that have not written all that is theirs.
pub(super) fn unfinished(dataflows: &[Arc<Dataflow>]) -> String {
    let sinks = dataflows.iter().flat_map(|one| one.sinks.lock().clone());
    let names: Vec<String> = sinks.filter(|sink| !sink.has_finished()).map(|sink| sink.name.clone()).collect();
    names.join(", ")
}

/// What there is to say of a change of islands.
pub(super) fn what_changed(plan: &Plan, new: &[Arc<Dataflow>], old: &[Arc<Dataflow>], boundary: Time) -> Vec<String> {
    let ids =
        |all: &[Arc<Dataflow>]| -> Vec<String> { all.iter().flat_map(|one| one.ids().map(str::to_owned)).collect() };
    let (rebuilt, mut removed) = (ids(new), ids(old));
    removed.retain(|id| !plan.nodes.iter().any(|node| node.id == *id));
    let mut changed = Vec::new();
    if !rebuilt.is_empty() {
        let from = if boundary == 0 { String::new() } else { format!(", from tick {boundary} on") };
        changed.push(format!("{} rebuilt{from}", rebuilt.join(", ")));
    }
    if !removed.is_empty() {
        changed.push(format!("{} removed", removed.join(", ")));
    }
    if changed.is_empty() {
        changed.push("the served tables changed".to_owned());
    }
    if let Some(before) = old.first() {
        for node in ending_windows(&before.plan, plan) {
            let metrics = old.iter().find(|one| one.ids().any(|id| id == node.id)).map(|one| &one.metrics);
            let groups = metrics.map_or(0, |metrics| metrics.node(&node.id, node.kind.name).state_rows.load(Relaxed));
            if groups > 0 {
                changed.push(format!("open windows of {} ended: {groups} groups", node.id));
            }
        }
    }
    let tables = |all: &[Arc<Dataflow>]| -> Vec<Arc<Table>> { all.iter().flat_map(|one| one.tables.clone()).collect() };
    let shown = tables(new);
    for table in tables(old) {
        let rows = table.ending_rows(shown.iter().find(|new| new.name == table.name).map(|table| &**table));
        if rows > 0 {
            changed.push(format!("{rows} rows of {} are not shown any more", table.name));
        }
    }
    changed
}

impl Control {
    /// Takes what new sinks write to, before anything is changed.
    pub(super) fn take_outputs(&self, plan: &Plan, wanted: &Wanted) -> Result<Vec<Claim>, String> {
        let mut claims = Vec::new();
        for node in wanted.iter().filter(|(kept, _)| kept.is_none()).flat_map(|(_, island)| &island.nodes) {
            claims.extend(plan.nodes[*node].claim(true)?);
        }
        Ok(claims)
    }
}

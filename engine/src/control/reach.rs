//! How far back logs reach, against how far back nodes look: what is made from a part of its rows is said.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::Control;
use crate::batch::Time;
use crate::plan::{Island, Plan};

/// The last second that has four digits for its year, in ms.
const LAST: Time = 253_402_300_799_000;

impl Control {
    /// By log: the event time before which nobody needs its rows, when all before `upto` is confirmed.
    pub(super) fn needed(&self, upto: Time) -> BTreeMap<String, Time> {
        let mut needed: BTreeMap<String, Time> = BTreeMap::new();
        for dataflow in &self.computing {
            let needs = dataflow.plan.needs(&dataflow.island, upto);
            for (id, need) in dataflow.logs().zip(needs) {
                needed.entry(id.to_owned()).and_modify(|first| *first = need.min(*first)).or_insert(need);
            }
        }
        needed
    }

    /// What there is to say of islands that look back further than the logs which they read still reach, such as with a
    /// window that has become longer.
    pub(super) fn missing(&self, plan: &Plan, islands: &[Island]) -> Vec<String> {
        let upto = self.progress.upto;
        let mut said = Vec::new();
        for island in islands {
            for (ports, need) in island.reads.iter().zip(plan.needs(island, upto)) {
                let id = &plan.nodes[ports.source].id;
                // What was needed all the time has not been deleted.
                let (Some(needed), Some(log)) = (self.progress.needed.get(id), self.logs.get(id)) else { continue };
                let whole_from = log.log.whole_from();
                if upto == 0 || need >= *needed || need >= whole_from {
                    continue;
                }
                let looks_back = |node: &&usize| upto.saturating_sub(plan.nodes[**node].look_back()) < whole_from;
                let nodes = island.nodes.iter().filter(looks_back).map(|node| plan.nodes[*node].id.as_str());
                said.push(format!(
                    "the log of {id} reaches back to {}: {} would look back to {}, so what they give first is made from a part \
                     of the rows",
                    shown(whole_from),
                    nodes.collect::<Vec<_>>().join(", "),
                    shown(need)
                ));
            }
        }
        said
    }

    /// What there is to say of logs of durable nodes that were not written for a time. Asked at the start, before they are
    /// written to.
    pub(super) fn gaps(&self, plan: &Plan, islands: &[Island]) -> Vec<String> {
        let upto = self.progress.upto;
        let kept = islands.iter().flat_map(|island| &island.keeps).map(|ports| &plan.nodes[ports.source].id);
        let gap = |id: &String| {
            let last = self.logs.get(id)?.log.last_watermark();
            (last < upto).then(|| {
                let since = if last == 0 { String::new() } else { format!(" from {}", shown(last)) };
                format!(
                    "{id} was not durable{since} up to {}: its log lacks these rows, and what looks back to them is made from \
                     a part of the rows",
                    shown(upto)
                )
            })
        };
        kept.filter_map(gap).collect()
    }
}

/// A time in ms for people.
fn shown(time: Time) -> String {
    match time {
        ..=LAST => humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time)).to_string(),
        later => later.to_string(),
    }
}

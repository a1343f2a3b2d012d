//! From rows to campaigns: what follows from what, as differential dataflow keeps it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use engine::contract::NodeMetrics;

use super::evidence::Mark;
use super::graph::{Graph, Rows, components, tally};
use super::id::Id;
use super::summary::{Bonds, Fact, Summary};

/// What decides which campaigns there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A value that more members share links nobody.
    pub max_linked: u32,
    /// Fewer members are no campaign.
    pub min_members: u32,
    /// Members so far apart, from member to member, are in one campaign for certain.
    pub max_distance: u32,
    /// What members see of a campaign counts no more.
    pub max_members: u32,
}

/// A campaign as its members see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub(super) struct Campaign {
    /// -1 for none.
    pub number: i32,
    /// How many there are.
    pub members: u32,
}

/// The campaign of those who are in none.
pub(super) const NONE: Campaign = Campaign { number: -1, members: 0 };

/// The campaigns of rows.
pub(super) struct Campaigns<'s> {
    marks: Rows<'s, (Id, Mark)>,
    graph: Graph<'s>,
    /// By the label of their component.
    summaries: Rows<'s, (Id, Summary)>,
    max_members: u32,
    hidden: Arc<AtomicI64>,
}

impl<'s> Campaigns<'s> {
    /// The gauges `common_values` and `cut` are those of [`components`]; `hidden` is how many campaigns are not shown
    /// because an older one has the same number.
    pub fn of(marks: Rows<'s, (Id, Mark)>, limits: Limits, metrics: &NodeMetrics) -> Self {
        let linked = |(member, mark): (Id, Mark)| mark.links.into_iter().map(move |link| (link.value, member));
        let graph = components(marks.clone().flat_map(linked), limits, metrics);
        let facts = marks
            .clone()
            .map(|(member, mark)| (member, mark.outline))
            .reduce_named("members", |member, marks, out| out.push((Fact::of(*member, marks), 1_isize)));
        let summaries = graph.members.clone().join_map(facts, |_member, label, fact| (*label, fact.clone()));
        let summaries = summaries.reduce_named("campaigns", move |_label, facts, out| {
            if facts.len() >= limits.min_members as usize {
                out.push((Summary::of(facts), 1_isize));
            }
        });
        Self { marks, graph, summaries, max_members: limits.max_members, hidden: metrics.gauge("hidden") }
    }

    /// Each campaign by its number.
    pub fn shown(&self) -> Rows<'s, (i32, (Summary, Bonds))> {
        let text = |(_, mark): (Id, Mark)| mark.links.into_iter().map(|link| (link.value, link.text));
        // A value's text is there as often as rows have it; how often does not matter behind the join.
        let texts = self.marks.clone().flat_map(text);
        let shared = self.graph.shared.clone().map(|(value, members)| (value, Reverse(members)));
        let values = shared.join_map(texts, |value, members, text| (*value, (*members, text.clone())));
        let bonds = self
            .graph
            .values
            .clone()
            .join_map(values, |value, label, (members, text)| (*label, (*members, text.clone(), *value)));
        let bonds = bonds.reduce_named("bonds", |_label, values, out| out.push((Bonds::of(values), 1_isize)));
        let numbered = self
            .summaries
            .clone()
            .join_map(bonds, |_label, summary, bonds| (summary.campaign().number, (summary.clone(), bonds.clone())));
        tally(numbered.clone(), Arc::clone(&self.hidden), 1);
        // The least is the oldest.
        let shown = numbered.reduce_named("numbers", |_number, rows, out| out.push((rows[0].0.clone(), 1_isize)));
        tally(shown.clone(), Arc::clone(&self.hidden), -1);
        shown
    }

    /// The campaign of each member that is in one.
    pub fn membership(&self) -> Rows<'s, (Id, Campaign)> {
        let members = self.graph.members.clone().map(|(member, label)| (label, member));
        let most = self.max_members;
        let seen = move |campaign: Campaign| Campaign { members: campaign.members.min(most), ..campaign };
        let campaigns = self.summaries.clone().map(move |(label, summary)| (label, seen(summary.campaign())));
        members.join_map(campaigns, |_label, member, campaign| (*member, *campaign))
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;

//! Components of the graph of members and the values that they share, kept by differential dataflow.
//!
//! Each member tells its values its label, and each value its members the least label that it was told, until nothing
//! changes; then all of a component have one label. The labels are the members' ids, which are random numbers. Small
//! ones start first: a label of 63 bits with n leading zeros starts in round 256·(64 − n). So in a component one label
//! is nearly everywhere before the others start, and they go nowhere: a node's label changes once or twice, not with
//! each better one that reaches it. A row that comes or goes costs what it changes. The least label of a component says
//! nothing of its members' age; the number of a campaign is made of its oldest member elsewhere.
//!
//! **Rounds.** A label needs as many rounds as there are links between its member and the farthest one. That is a few
//! where members share values by many, but a chain of n members, each linked to the next by a value of its own, takes
//! up to 2·n rounds.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use differential_dataflow::algorithms::graphs::propagate::propagate_core;
use differential_dataflow::{Data, VecCollection};
use engine::batch::Time;

use super::id::{Id, is_member};

/// A collection of one dataflow.
pub(super) type Rows<'s, D> = VecCollection<'s, Time, D, isize>;

/// What hangs together.
pub(super) struct Graph<'s> {
    /// Members that share a value that links, with the label of their component.
    pub members: Rows<'s, (Id, Id)>,
    /// Values that link, with the label of their component.
    pub values: Rows<'s, (Id, Id)>,
    /// Values that link, with how many members share them.
    pub shared: Rows<'s, (Id, u32)>,
}

/// The components of `links`, pairs of a value and a member that may be there several times. A value links if two to
/// `max_linked` members share it. `common` is how many values more members share.
pub(super) fn components<'s>(links: Rows<'s, (Id, Id)>, max_linked: u32, common: Arc<AtomicI64>) -> Graph<'s> {
    let links = links.distinct();
    let counts = links.clone().map(|(value, _)| value).count();
    let most = isize::try_from(max_linked).unwrap_or(isize::MAX);
    tally(counts.clone().filter(move |(_, count)| *count > most), common, 1);
    let shared = counts.filter(move |(_, count)| (2..=most).contains(count));
    let links = links.semijoin(shared.clone().map(|(value, _)| value));
    let labels = links.clone().map(|(_, member)| (member, member));
    let edges = links.clone().map(|(value, member)| (member, value)).concat(links).arrange_by_key_named("links");
    let labels = propagate_core(edges, labels, |label| *label);
    Graph {
        members: labels.clone().filter(|(node, _)| is_member(*node)),
        values: labels.filter(|(node, _)| !is_member(*node)),
        shared: shared.map(|(value, count)| (value, u32::try_from(count).unwrap_or(u32::MAX))),
    }
}

/// Adds `times` the number of rows to a gauge, and keeps it so as they come and go.
pub(super) fn tally<D: Data>(rows: Rows<'_, D>, gauge: Arc<AtomicI64>, times: i64) {
    rows.inspect(move |(_, _, diff)| {
        gauge.fetch_add(times * i64::try_from(*diff).unwrap_or(0), Relaxed);
    });
}

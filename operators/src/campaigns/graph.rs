//! Components of the graph of members and the values that they share, kept by differential dataflow.
//!
//! Each member tells its values its label, and each value its members the least label that it was told, until nothing
//! changes; then all of a component have one label. The labels are the members' ids, which are random numbers. Small
//! ones start first: one with n leading zeros starts in round 4·(20 − n). So in a component one label
//! is nearly everywhere before the others start, and they go nowhere: a node's label changes once or twice, not with
//! each better one that reaches it. A row that comes or goes costs what it changes. The least label of a component says
//! nothing of its members' age; the number of a campaign is made of its oldest member elsewhere.
//!
//! **Rounds.** A label needs two rounds from a member to the next one that shares a value with it. That is a few rounds
//! where members share values by many, but somebody can make a chain of n members, each linked to the next by a value of
//! its own, that would take 2·n. So the rounds are bounded: the last is the one in which the label that started last has
//! come to the members at [`Limits::max_distance`], and one member farther. Whoever is in a component no wider than that
//! has its least label. A wider one is cut: members belong together if they have the same label after the last round,
//! which is the least of those that came to them. What that is depends on the links alone, and a row that comes or goes
//! changes nothing farther away than the rounds go.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use differential_dataflow::operators::iterate::Variable;
use differential_dataflow::trace::implementations::{ValBuilder, ValSpine};
use differential_dataflow::{AsCollection, Data, VecCollection};
use engine::batch::Time;
use engine::contract::NodeMetrics;
use timely::dataflow::operators::vec::Filter;
use timely::order::Product;

use super::flow::Limits;
use super::id::{Id, is_member};

/// Labels with fewer leading zeros start later, each bit by so many rounds. Members that share values by tens are about as
/// many rounds apart, also in a component of a hundred thousand.
const HEAD_START: usize = 4;
/// The most leading zeros that make a difference: of a million random labels the least has about twenty.
const CLASSES: u32 = 20;

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
/// `max_linked` members share it. The gauge `common_values` is how many values more members share, `cut` how many members a
/// label has come to in the last round: what is linked behind them may have another one.
pub(super) fn components<'s>(links: Rows<'s, (Id, Id)>, limits: Limits, metrics: &NodeMetrics) -> Graph<'s> {
    let links = links.distinct();
    let counts = links.clone().map(|(value, _)| value).count();
    let most = isize::try_from(limits.max_linked).unwrap_or(isize::MAX);
    tally(counts.clone().filter(move |(_, count)| *count > most), metrics.gauge("common_values"), 1);
    let shared = counts.filter(move |(_, count)| (2..=most).contains(count));
    let links = links.semijoin(shared.clone().map(|(value, _)| value));
    let (labels, cut) = labels(links, last_round(limits.max_distance));
    tally(cut, metrics.gauge("cut"), 1);
    Graph {
        members: labels.clone().filter(|(node, _)| is_member(*node)),
        values: labels.filter(|(node, _)| !is_member(*node)),
        shared: shared.map(|(value, count)| (value, u32::try_from(count).unwrap_or(u32::MAX))),
    }
}

/// The round in which a label starts.
pub(super) fn start(label: Id) -> usize {
    CLASSES.saturating_sub(label.leading_zeros()) as usize * HEAD_START
}

/// The last round: labels come to the members at this distance, whenever they start, and one farther.
pub(super) fn last_round(max_distance: u32) -> usize {
    CLASSES as usize * HEAD_START + 2 * (max_distance as usize).saturating_add(1)
}

/// Labels by member, and the members whose labels are not the last ones.
type Labels<'s> = (Rows<'s, (Id, Id)>, Rows<'s, (Id, ())>);

/// The label of each member and value after the last round, and the members that got another one in it.
fn labels<'s>(links: Rows<'s, (Id, Id)>, last: usize) -> Labels<'s> {
    let own = links.clone().map(|(_, member)| (member, member));
    let edges = links.clone().map(|(value, member)| (member, value)).concat(links).arrange_by_key_named("links");
    let outer = own.scope();
    let (labels, late) = outer.scoped::<Product<Time, usize>, _, _>("components", |scope| {
        let own = own.enter_at(scope, |(_, label)| start(*label));
        let (told, heard) = Variable::new(scope, Product::new(Default::default(), 1));
        let least = heard
            .concat(own)
            .reduce_abelian::<_, ValBuilder<_, _, _, _>, ValSpine<_, _, _, _>>("least label", |_node, labels, out| {
                out.push((*labels[0].0, 1_isize))
            });
        let tell = least.clone().join_core(edges.enter(scope), |_node, label: &Id, next: &Id| Some((*next, *label)));
        // What is told in the last round would be heard behind it.
        told.set(tell.inner.filter(move |(_, time, _)| time.inner < last).as_collection());
        let labels = least.as_collection(|node, label| (*node, *label));
        let late = labels.clone().inner.filter(move |(_, time, _)| time.inner == last).as_collection();
        (labels.leave(outer), late.leave(outer))
    });
    // Of a label that replaces another one, both are there: with 1 and with -1.
    (labels, late.reduce_named("cut", |_node, _labels, out| out.push(((), 1_isize))))
}

/// Adds `times` the number of rows to a gauge, and keeps it so as they come and go.
pub(super) fn tally<D: Data>(rows: Rows<'_, D>, gauge: Arc<AtomicI64>, times: i64) {
    rows.inspect(move |(_, _, diff)| {
        gauge.fetch_add(times * i64::try_from(*diff).unwrap_or(0), Relaxed);
    });
}

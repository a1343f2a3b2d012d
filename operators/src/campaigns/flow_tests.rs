//! Campaigns after every tick against union–find over the rows that count then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use differential_dataflow::consolidation::consolidate;
use engine::batch::Time;
use parking_lot::Mutex;
use proptest::prelude::*;
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};

use super::super::evidence::{Link, Name, Outline};
use super::super::id;
use super::*;
use crate::relation::{Change, Row, hold_as};

const TICK: Time = 1_000;
/// For how many ticks a window counts.
const LIFE: Time = 7;
/// Limits that the rows here do not meet.
const WIDE: Limits = Limits { max_linked: 100, min_members: 3, max_distance: 1000, max_members: 1000 };

/// A row as it is drawn: all times in ticks.
#[derive(Clone, Debug)]
struct Drawn {
    at: Time,
    /// When it is taken back.
    gone: Option<Time>,
    window: Time,
    member: u8,
    links: [Option<u8>; 2],
    level: Option<u8>,
    score: Option<i64>,
    system: Option<u64>,
}

impl Drawn {
    fn until(&self) -> Time {
        self.window + LIFE
    }

    fn counts(&self, tick: Time) -> bool {
        self.at <= tick && tick < self.until() && self.gone.is_none_or(|gone| tick < gone)
    }

    /// Some members are addresses, three in a network; some are not.
    fn name(&self) -> String {
        match self.member {
            0..10 => format!("192.0.{}.{}", self.member / 3, self.member),
            _ => format!("client {}", self.member),
        }
    }

    fn id(&self) -> Id {
        id::member(self.name().as_bytes())
    }

    fn links(&self) -> impl Iterator<Item = Link> {
        let link = |(nth, value): (usize, Option<u8>)| {
            let text = format!("link {nth} = {}", value?);
            Some(Link { value: id::value(nth, [text.as_bytes()].into_iter()), text: text.into() })
        };
        self.links.into_iter().enumerate().filter_map(link)
    }

    fn mark(&self) -> Mark {
        let name = self.name();
        let name = name.parse().map_or_else(|_| Name::Text(name.into()), Name::Address);
        let window = i64::try_from(self.window).expect("small");
        let outline = Outline { window, level: self.level, score: self.score, system: self.system, name };
        Mark { outline, links: self.links().collect() }
    }

    /// The row's comings and goings.
    fn changes(&self) -> impl Iterator<Item = (Time, Row<Id, Mark>)> + '_ {
        let row = |at: Time, diff| {
            let until = self.until() * TICK;
            (at, Row { key: self.id(), value: self.mark(), at: at * TICK, until, diff })
        };
        std::iter::once(row(self.at, 1)).chain(self.gone.map(|gone| row(gone, -1)))
    }
}

/// What is shown and what members see; by tick.
type Standing = (Vec<(i32, (Summary, Bonds))>, Vec<(Id, Campaign)>);
type Changed<D> = Mutex<Vec<(D, Time, isize)>>;

/// The result of the dataflow after each tick, and how many values are common in the end.
fn computed(rows: &[Drawn], limits: Limits, workers: usize, ticks: Time) -> (Vec<Standing>, i64) {
    let metrics = Arc::default();
    let standing = standing(rows, limits, workers, ticks, &metrics);
    assert_eq!(metrics.gauge("cut").load(Relaxed), 0);
    (standing, metrics.gauge("common_values").load(Relaxed))
}

/// The result of the dataflow after each tick.
fn standing(rows: &[Drawn], limits: Limits, workers: usize, ticks: Time, metrics: &Arc<NodeMetrics>) -> Vec<Standing> {
    let shown: Arc<Changed<(i32, (Summary, Bonds))>> = Arc::default();
    let membership: Arc<Changed<(Id, Campaign)>> = Arc::default();
    let (rows, own, sinks) = (rows.to_vec(), Arc::clone(metrics), (Arc::clone(&shown), Arc::clone(&membership)));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (mut input, probe) = (InputHandle::new(), ProbeHandle::new());
        let (shown, membership) = (Arc::clone(&sinks.0), Arc::clone(&sinks.1));
        worker.dataflow(|scope| {
            let changes = scope.input_from(&mut input).container::<Vec<Change<Id, Mark>>>();
            let marks = hold_as(changes, "hold", 10_000, Arc::clone(&own), |_| {});
            let campaigns = Campaigns::of(marks, limits, &own);
            let shown = campaigns.shown().inspect(move |change| shown.lock().push(change.clone()));
            shown.inner.probe_with(&probe);
            let membership = campaigns.membership().inspect(move |change| membership.lock().push(*change));
            membership.inner.probe_with(&probe);
        });
        let all: Vec<(Time, Row<Id, Mark>)> = rows.iter().flat_map(Drawn::changes).collect();
        for tick in 0..=ticks {
            for (nth, (at, row)) in all.iter().enumerate() {
                if *at == tick && nth % worker.peers() == worker.index() {
                    input.send(Change::Row(row.clone()));
                }
            }
            input.advance_to(tick * TICK + 1);
            while probe.less_than(input.time()) {
                worker.step_or_park(Some(Duration::from_millis(1)));
            }
        }
    });
    guards.expect("workers").join().into_iter().for_each(|done| done.expect("no panic"));
    let (shown, membership) = (shown.lock(), membership.lock());
    (0..=ticks).map(|tick| (at(&shown, tick), at(&membership, tick))).collect()
}

/// What stands at a tick.
fn at<D: Ord + Clone>(changes: &[(D, Time, isize)], tick: Time) -> Vec<D> {
    let past = changes.iter().filter(|(_, time, _)| *time <= tick * TICK);
    let mut rows: Vec<(D, isize)> = past.map(|(row, _, diff)| (row.clone(), *diff)).collect();
    consolidate(&mut rows);
    assert!(rows.iter().all(|(_, count)| *count == 1), "each once");
    rows.into_iter().map(|(row, _)| row).collect()
}

/// The member that stands for all of a component.
fn find(parents: &mut BTreeMap<u8, u8>, member: u8) -> u8 {
    let parent = parents[&member];
    if parent == member {
        return member;
    }
    let root = find(parents, parent);
    parents.insert(member, root);
    root
}

/// The same from nothing but the rows that count at a tick, and how many values are common.
fn recomputed(rows: &[Drawn], limits: Limits, tick: Time) -> (Standing, i64) {
    let rows: Vec<&Drawn> = rows.iter().filter(|row| row.counts(tick)).collect();
    let mut sharing: BTreeMap<(usize, u8), BTreeSet<u8>> = BTreeMap::new();
    for row in &rows {
        for (nth, value) in row.links.iter().enumerate() {
            value.map(|value| sharing.entry((nth, value)).or_default().insert(row.member));
        }
    }
    let all = sharing.len();
    sharing.retain(|_, members| members.len() <= limits.max_linked as usize);
    let common = all - sharing.len();
    let mut parents: BTreeMap<u8, u8> = rows.iter().map(|row| (row.member, row.member)).collect();
    for members in sharing.values() {
        let first = *members.first().expect("a member");
        for member in members {
            let (a, b) = (find(&mut parents, first), find(&mut parents, *member));
            parents.insert(a.max(b), a.min(b));
        }
    }
    let mut components: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for member in parents.clone().into_keys() {
        components.entry(find(&mut parents, member)).or_default().push(member);
    }
    components.retain(|_, members| members.len() >= limits.min_members as usize);
    let mut standing: Standing = Default::default();
    for members in components.into_values() {
        let rows: Vec<&Drawn> = rows.iter().filter(|row| members.contains(&row.member)).copied().collect();
        let sharing: Vec<_> =
            sharing.iter().filter(|(_, of)| of.len() > 1 && of.is_subset(&members.iter().copied().collect())).collect();
        let (summary, bonds) = (summed(&rows), bound(&sharing));
        let campaign = Campaign { number: (summary.oldest >> 33) as i32, members: members.len() as u32 };
        standing.1.extend(rows.iter().map(|row| (row.id(), campaign)).collect::<BTreeSet<_>>());
        standing.0.push((campaign.number, (summary, bonds)));
    }
    standing.0.sort();
    standing.1.sort();
    (standing, common as i64)
}

fn summed(rows: &[&Drawn]) -> Summary {
    let members: BTreeSet<u8> = rows.iter().map(|row| row.member).collect();
    let of = |member: u8| rows.iter().filter(move |row| row.member == member);
    let first = |member: u8| of(member).map(|row| row.window).min().expect("a row");
    let mut ordered: Vec<u8> = members.iter().copied().collect();
    // Addresses come before what is none, and "client 10" before "client 11".
    ordered.sort_by_key(|member| (first(*member), *member));
    let system = |member: u8| {
        let with = of(member).filter(|row| row.system.is_some());
        with.max_by_key(|row| (row.window, row.level, row.score, row.system)).and_then(|row| row.system)
    };
    let names: BTreeMap<u8, &&Drawn> = rows.iter().map(|row| (row.member, row)).collect();
    let sample: Vec<String> = ordered.iter().take(5).map(|member| names[member].name()).collect();
    Summary {
        first: rows.iter().map(|row| row.window).min().expect("a row") as i64,
        sample: sample.join(", ").into(),
        oldest: names[&ordered[0]].id(),
        members: members.len() as u32,
        networks: members.iter().filter(|m| **m < 10).map(|m| m / 3).collect::<BTreeSet<_>>().len() as u32,
        systems: members.iter().filter_map(|m| system(*m)).collect::<BTreeSet<_>>().len() as u32,
        detections: rows.len() as u64,
        level: rows.iter().filter_map(|row| row.level).max(),
        score: rows.iter().filter_map(|row| row.score).min(),
        last: rows.iter().map(|row| row.window).max().expect("a row") as i64,
    }
}

fn bound(sharing: &[(&(usize, u8), &BTreeSet<u8>)]) -> Bonds {
    let pairs = |members: &BTreeSet<u8>| {
        members.iter().flat_map(|a| members.iter().map(move |b| (a, b))).filter(|(a, b)| a < b).count() as u64
    };
    let text = |(nth, value): &(usize, u8)| format!("link {nth} = {value}");
    let mut ordered: Vec<(usize, String)> = sharing.iter().map(|(key, of)| (of.len(), text(key))).collect();
    ordered.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let shown: Vec<String> = ordered.iter().take(3).map(|(n, text)| format!("{text} ({n} members)")).collect();
    Bonds { pairs: sharing.iter().map(|(_, of)| pairs(of)).sum(), text: shown.join("; ").into() }
}

fn rows(ticks: Time) -> impl Strategy<Value = Vec<Drawn>> {
    let link = || prop::option::weighted(0.7, 0..6_u8);
    let one = (0..=ticks, prop::option::of(1..8_u64), 0..4_u64, 0..14_u8, [link(), link()], any::<u8>());
    prop::collection::vec(one, 1..70).prop_map(|all| {
        all.into_iter()
            .map(|(at, stays, age, member, links, what)| Drawn {
                at,
                gone: stays.map(|stays| at + stays),
                window: at.saturating_sub(age),
                member,
                links,
                level: (what % 5 < 4).then_some(what % 5),
                score: (what % 3 > 0).then(|| i64::from(what % 7)),
                system: (what % 4 > 0).then(|| u64::from(what / 4 % 3)),
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        rng_seed: proptest::test_runner::RngSeed::Fixed(17),
        ..ProptestConfig::default()
    })]

    #[test]
    fn campaigns_are_those_of_union_find_after_every_tick(
        rows in rows(16),
        max_linked in 2..6_u32,
        min_members in 2..4_u32,
        workers in prop::sample::select(vec![1_usize, 2, 4]),
    ) {
        let limits = Limits { max_linked, min_members, ..WIDE };
        let ticks = 24;
        let (found, common) = computed(&rows, limits, workers, ticks);
        for (tick, found) in (0..=ticks).zip(found) {
            let (expected, _) = recomputed(&rows, limits, tick);
            prop_assert_eq!(found, expected, "tick {}", tick);
        }
        prop_assert_eq!(common, recomputed(&rows, limits, ticks).1);
    }
}

fn row(at: Time, member: u8, links: [Option<u8>; 2]) -> Drawn {
    Drawn { at, gone: None, window: at, member, links, level: None, score: None, system: None }
}

#[test]
fn a_value_that_too_many_share_links_nobody_until_some_have_left() {
    let mut rows: Vec<Drawn> = (0..4).map(|member| row(0, member, [Some(1), None])).collect();
    rows.push(Drawn { gone: Some(4), ..row(2, 4, [Some(1), None]) });
    let limits = Limits { max_linked: 4, ..WIDE };
    let (found, common) = computed(&rows, limits, 2, 10);
    let members: Vec<Vec<u32>> =
        found.iter().map(|(shown, _)| shown.iter().map(|(_, (sum, _))| sum.members).collect()).collect();
    // All windows but that of the fifth are over at tick 7.
    let expected = [vec![4], vec![4], vec![], vec![], vec![4], vec![4], vec![4], vec![], vec![], vec![], vec![]];
    assert_eq!(members, expected);
    assert_eq!(common, 0);
}

#[test]
fn the_number_is_that_of_the_oldest_member_while_a_campaign_grows_and_merges() {
    let number = |member: u8| id::campaign(row(0, member, [None, None]).id());
    let mut rows = vec![
        row(0, 9, [Some(1), None]),
        row(1, 1, [Some(1), None]),
        row(1, 2, [Some(1), None]),
        row(2, 3, [Some(2), None]),
        row(2, 4, [Some(2), None]),
        row(2, 5, [Some(2), None]),
    ];
    // A member of both, which is older than none of them.
    rows.push(row(3, 6, [Some(1), Some(5)]));
    rows.push(row(3, 6, [Some(2), Some(5)]));
    let limits = WIDE;
    let (found, _) = computed(&rows, limits, 1, 8);
    let numbers: Vec<Vec<(i32, u32)>> =
        found.iter().map(|(shown, _)| shown.iter().map(|(n, (sum, _))| (*n, sum.members)).collect()).collect();
    let mut two = vec![(number(9), 3), (number(3), 3)];
    two.sort_unstable();
    assert_eq!(numbers[1..4], [vec![(number(9), 3)], two, vec![(number(9), 7)]]);
    // At tick 7 the oldest has aged: of those that are as old as each other the least address is the oldest.
    assert_eq!(numbers[7], [(number(1), 6)]);
    let (_, (sum, bonds)) = &found[3].0[0];
    assert_eq!(&*sum.sample, "192.0.3.9, 192.0.0.1, 192.0.0.2, 192.0.1.3, 192.0.1.4");
    assert_eq!(&*bonds.text, "link 0 = 1 (4 members); link 0 = 2 (4 members)");
    assert_eq!(bonds.pairs, 12);
}

/// Members in a row, each linked to the next by a value of its own; the middle one is away from tick 2 to tick 3.
fn chain(members: u8) -> Vec<Drawn> {
    let link = |member: u8| [Some(member / 2), Some(member.div_ceil(2))];
    let one = |member| row(1, member, link(member));
    let middle = members / 2;
    let mut rows: Vec<Drawn> = (0..members).map(one).collect();
    rows[usize::from(middle)].gone = Some(2);
    rows.push(Drawn { at: 4, ..one(middle) });
    rows
}

/// The members of a chain by the least label that comes to them in time, which can be computed without rounds: a label is
/// only kept from going on by a lesser one, which goes on itself.
fn parts(rows: &[Drawn], tick: Time, max_distance: u32) -> BTreeSet<BTreeSet<Id>> {
    let here: BTreeMap<u8, Id> = rows.iter().filter(|row| row.counts(tick)).map(|row| (row.member, row.id())).collect();
    let comes = |from: u8, to: u8| {
        let (least, most) = (from.min(to), from.max(to));
        let is_linked = (least..=most).all(|member| here.contains_key(&member));
        let zeros = here[&from].leading_zeros().min(20);
        is_linked && 4 * (20 - zeros) + 2 * u32::from(most - least) <= 80 + 2 * (max_distance + 1)
    };
    let mut parts: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    for to in here.keys() {
        let label = here.keys().filter(|from| comes(**from, *to)).map(|from| here[from]).min().expect("its own");
        parts.entry(label).or_default().insert(here[to]);
    }
    parts.into_values().filter(|members| members.len() >= 3).collect()
}

#[test]
fn a_chain_that_is_too_long_is_cut_by_what_labels_come_to_and_is_whole_within_the_bound() {
    let rows = chain(250);
    for (max_distance, workers) in [(1, 1), (1, 4), (20, 2), (250, 2)] {
        let metrics = Arc::default();
        let limits = Limits { max_distance, ..WIDE };
        let found = standing(&rows, limits, workers, 4, &metrics);
        for (tick, (_, membership)) in (0..=4).zip(found) {
            let mut campaigns: BTreeMap<Campaign, BTreeSet<Id>> = BTreeMap::new();
            for (member, campaign) in membership {
                campaigns.entry(campaign).or_default().insert(member);
            }
            assert!(campaigns.iter().all(|(campaign, members)| campaign.members as usize == members.len()));
            let found: BTreeSet<_> = campaigns.into_values().collect();
            assert_eq!(found, parts(&rows, tick, max_distance), "tick {tick}, {max_distance}");
            let whole = [0, 1, 2, 2, 1][tick as usize];
            assert_eq!(found.len() == whole, max_distance == 250 || tick == 0, "tick {tick}, {max_distance}");
        }
        assert_eq!(metrics.gauge("cut").load(Relaxed) == 0, max_distance == 250, "{max_distance}");
    }
}

#[test]
fn what_members_see_of_a_campaign_counts_up_to_a_bound() {
    let rows: Vec<Drawn> = (0..9).map(|member| row(1, member, [Some(1), None])).collect();
    let found = standing(&rows, Limits { max_members: 5, ..WIDE }, 1, 1, &Arc::default());
    let (shown, membership) = &found[1];
    assert_eq!(shown[0].1.0.members, 9);
    assert!(membership.len() == 9 && membership.iter().all(|(_, campaign)| campaign.members == 5));
}

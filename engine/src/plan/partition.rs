//! Which nodes of a plan stand before the spool, and which of the others hang together.
//!
//! What a live source receives is kept as facts. Before that point a node cannot be made again from the spool: it is
//! *ingest*, and either goes on running or starts anew. The nodes behind it are a function of the spool, and those that
//! exchange rows with each other are made again together: an *island*.

use super::{Plan, PlannedNode};

/// The nodes of a plan in two classes; each node is in exactly one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Live sources, each with the nodes that make facts of its rows: the source first, then the others in the order of
    /// data flow. Sources whose rows meet before they are facts are in one group, all of them first.
    pub ingest: Vec<Vec<usize>>,
    /// All other nodes, by the edges between them; each in the order of data flow.
    pub islands: Vec<Vec<usize>>,
}

impl Plan {
    /// What stands before the spool and what behind it.
    pub fn partition(&self) -> Partition {
        self.partition_with(true)
    }

    /// The same; without durable edges only live sources have logs.
    pub(super) fn partition_with(&self, durable: bool) -> Partition {
        let mut nodes = shapes(&self.nodes);
        if !durable {
            nodes.iter_mut().flat_map(|node| &mut node.inputs).for_each(|(_, logged)| *logged = false);
        }
        partition(&nodes)
    }
}

/// Which nodes stand before a log.
pub(super) fn ingest(nodes: &[PlannedNode]) -> Vec<bool> {
    stand_before_logs(&shapes(nodes))
}

fn shapes(nodes: &[PlannedNode]) -> Vec<Shape> {
    let shape = |node: &PlannedNode| Shape {
        live: node.node.facts().is_live,
        facts: node.node.facts().yields_facts,
        inputs: node.inputs.iter().map(|input| (input.node, input.logged)).collect(),
    };
    nodes.iter().map(shape).collect()
}

/// What of a node decides where it belongs.
#[derive(Clone, Debug)]
struct Shape {
    live: bool,
    facts: bool,
    /// Nodes before this one, and whether their rows come through a log.
    inputs: Vec<(usize, bool)>,
}

fn stand_before_logs(nodes: &[Shape]) -> Vec<bool> {
    let mut ingest: Vec<bool> = Vec::with_capacity(nodes.len());
    for node in nodes {
        ingest.push(node.live || node.inputs.iter().any(|&(from, _)| ingest[from] && !nodes[from].facts));
    }
    ingest
}

fn partition(nodes: &[Shape]) -> Partition {
    let ingest = stand_before_logs(nodes);
    let mut parts = Parts::new(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        for &(from, logged) in &node.inputs {
            let together = match (ingest[from], ingest[at]) {
                (true, true) => !nodes[from].facts,
                (false, false) => !logged,
                _ => false,
            };
            if together {
                parts.join(from, at);
            }
        }
    }
    let mut found = Partition::default();
    let mut place: Vec<Option<usize>> = vec![None; nodes.len()];
    for (at, &ingest) in ingest.iter().enumerate() {
        let groups = if ingest { &mut found.ingest } else { &mut found.islands };
        let group = *place[parts.root(at)].get_or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(at);
    }
    for group in &mut found.ingest {
        group.sort_by_key(|&at| (!nodes[at].live, at));
    }
    found
}

/// Disjoint sets; the least member stands for its set.
struct Parts(Vec<usize>);

impl Parts {
    fn new(len: usize) -> Self {
        Self((0..len).collect())
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(live: bool, facts: bool, inputs: &[usize]) -> Shape {
        Shape { live, facts, inputs: inputs.iter().map(|from| (*from, false)).collect() }
    }

    #[test]
    fn packets_stay_with_their_decoders_and_facts_lead_to_islands() {
        let found = partition(&[
            node(true, false, &[]),     // 0 packets
            node(false, true, &[0]),    // 1 hellos
            node(true, true, &[]),      // 2 requests
            node(false, true, &[0]),    // 3 another decoder of the same packets
            node(false, true, &[1, 2]), // 4 correlated
            node(false, true, &[2]),    // 5 the log alone
            node(false, true, &[4]),    // 6 a sink
        ]);
        assert_eq!(found.ingest, [vec![0, 1, 3], vec![2]]);
        assert_eq!(found.islands, [vec![4, 6], vec![5]]);
    }

    #[test]
    fn sources_whose_rows_meet_before_they_are_facts_are_one_group() {
        let found = partition(&[
            node(true, false, &[]),
            node(false, false, &[0]), // makes packets of packets
            node(true, false, &[]),
            node(false, true, &[1, 2]),
            node(false, true, &[3]),
        ]);
        assert_eq!(found.ingest, [vec![0, 2, 1, 3]]);
        assert_eq!(found.islands, [vec![4]]);
    }

    #[test]
    fn a_durable_edge_cuts_an_island_in_two() {
        let mut nodes = vec![
            node(true, true, &[]),
            node(false, true, &[0]),
            node(false, true, &[1]), // behind the log
            node(false, true, &[1]),
        ];
        nodes[2].inputs[0].1 = true;
        assert_eq!(partition(&nodes).islands, [vec![1, 3], vec![2]]);
    }

    #[test]
    fn packets_of_a_file_can_be_read_again() {
        let found = partition(&[node(false, false, &[]), node(false, true, &[0])]);
        assert_eq!(found, Partition { ingest: vec![], islands: vec![vec![0, 1]] });
    }

    prop_compose! {
        fn graphs()(nodes in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.2)), 0..3)), 1..12)) -> Vec<Shape> {
            nodes.into_iter().enumerate().map(|(at, (live, facts, inputs))| {
                let inputs: Vec<(usize, bool)> =
                    inputs.into_iter().filter(|_| at > 0).map(|(from, logged)| (from.index(at), logged)).collect();
                Shape { live: live && inputs.is_empty(), facts, inputs }
            }).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(31), ..ProptestConfig::default() })]

        #[test]
        fn every_node_is_in_one_part_and_only_facts_cross_from_ingest(nodes in graphs()) {
            let found = partition(&nodes);
            let parts: Vec<&Vec<usize>> = found.ingest.iter().chain(&found.islands).collect();
            let mut all: Vec<usize> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..nodes.len()).collect::<Vec<_>>());
            let part = |at: usize| parts.iter().position(|part| part.contains(&at)).expect("in one");
            for (at, node) in nodes.iter().enumerate() {
                prop_assert!(!node.live || part(at) < found.ingest.len());
                for &(from, logged) in &node.inputs {
                    // Whoever reads what is no fact yet, live, is with it; the rest are apart from it.
                    if part(from) < found.ingest.len() {
                        prop_assert!(nodes[from].facts || part(from) == part(at));
                    } else if part(at) >= found.ingest.len() && !logged {
                        prop_assert_eq!(part(from), part(at));
                    }
                }
            }
            for group in &found.ingest {
                prop_assert!(nodes[group[0]].live);
            }
        }
    }
}

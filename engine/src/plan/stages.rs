//! What stands behind the logs as the parts in which a running pipeline is changed: as small as can be, so that a
//! change makes again what depends on it and nothing else.

use super::{Identity, LogPorts, Part, Plan};
use crate::batch::Time;

/// Parts in the order of data flow, each of which reads its inputs from others; see [`Plan::stages`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// The stages.
    pub parts: Vec<Part>,
    /// For each of them those that it reads, in the order of its taps.
    pub upstream: Vec<Vec<usize>>,
}

impl Stages {
    /// A stage and all before it.
    pub(crate) fn before(&self, at: usize) -> Vec<usize> {
        let mut found = vec![at];
        let mut next = 0;
        while let Some(at) = found.get(next) {
            let more: Vec<usize> = self.upstream[*at].iter().copied().filter(|from| !found.contains(from)).collect();
            found.extend(more);
            next += 1;
        }
        found
    }

    /// These stages, all before them, and all that read any of those.
    pub(crate) fn around(&self, at: &[usize]) -> Vec<usize> {
        let mut found = vec![false; self.parts.len()];
        at.iter().flat_map(|at| self.before(*at)).for_each(|at| found[at] = true);
        for at in 0..found.len() {
            found[at] |= self.upstream[at].iter().any(|from| found[*from]);
        }
        (0..found.len()).filter(|at| found[*at]).collect()
    }
}

impl Plan {
    /// The nodes behind the logs as parts of a running pipeline: the reader of each log that is read, each node that others
    /// may read, and last what nobody reads, which are sinks and served tables. A table and the sink that tells it what is
    /// stored are one part.
    pub fn stages(&self) -> Stages {
        let (receiving, _) = self.parts();
        let partition = self.partition();
        let served = self.serve.as_ref().map_or(&[][..], |serve| &serve.tables);
        let mut nodes: Vec<usize> = partition.islands.into_iter().flatten().collect();
        nodes.sort_unstable();
        let inputs = |node: usize| self.nodes[node].inputs.iter().map(|input| (input.node, input.port));
        let mut parts = Vec::with_capacity(nodes.len() + receiving.len());
        for log in receiving.iter().filter_map(|part| part.writes.as_ref()) {
            let read = nodes.iter().any(|node| inputs(*node).any(|port| log.ports.contains(&port)));
            if read || served.iter().any(|(_, node, port)| log.ports.contains(&(*node, *port))) {
                parts.push(Part { reads: vec![log.clone()], ..Part::default() });
            }
        }
        let (through, last): (Vec<usize>, Vec<usize>) =
            nodes.iter().partition(|node| !self.nodes[**node].outputs.is_empty());
        parts.extend(through.iter().map(|&node| self.stage(vec![node], Vec::new())));
        // A table joins the sink that keeps it, and so do the tables of its other ports.
        let mut ends: Vec<(Vec<usize>, Vec<usize>)> = last.into_iter().map(|sink| (vec![sink], Vec::new())).collect();
        for (at, &(_, node, port)) in served.iter().enumerate() {
            if !(through.contains(&node) || parts.iter().any(|part| part.gives((node, port)))) {
                continue;
            }
            let keeps =
                |sink: &usize| self.nodes[*sink].node.keeps_tables() && inputs(*sink).any(|p| p == (node, port));
            let (with, others): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(sinks, _)| sinks.iter().any(keeps));
            let (mut sinks, mut tables) = (Vec::new(), vec![at]);
            for (more, shown) in with {
                sinks.extend(more);
                tables.extend(shown);
            }
            sinks.sort_unstable();
            tables.sort_unstable();
            ends = others;
            ends.push((sinks, tables));
        }
        ends.sort();
        parts.extend(ends.into_iter().map(|(sinks, tables)| self.stage(sinks, tables)));
        let from = |port: &(usize, usize)| parts.iter().position(|part| part.gives(*port)).unwrap_or_default();
        let upstream = parts.iter().map(|part| part.taps.iter().map(from).collect()).collect();
        Stages { parts, upstream }
    }

    fn stage(&self, nodes: Vec<usize>, tables: Vec<usize>) -> Part {
        let shown =
            self.serve.iter().flat_map(|serve| tables.iter().map(|at| (serve.tables[*at].1, serve.tables[*at].2)));
        let read = nodes.iter().flat_map(|node| self.nodes[*node].inputs.iter().map(|input| (input.node, input.port)));
        let mut taps: Vec<(usize, usize)> = read.chain(shown).collect();
        taps.sort_unstable();
        taps.dedup();
        Part { nodes, tables, taps, ..Part::default() }
    }

    /// What a stage is, whatever the plan around it: its identity as a part, what it reads, and of its ports which are
    /// read, since a node does not make what nobody wants.
    pub fn stage_identity(&self, part: &Part) -> Identity {
        let mut identity = self.identity(part);
        identity.taps = part
            .taps
            .iter()
            .map(|(node, port)| (self.nodes[*node].id.clone(), *port, self.nodes[*node].digest))
            .collect();
        identity.connected =
            part.nodes.iter().map(|node| (self.nodes[*node].id.clone(), self.nodes[*node].connected.clone())).collect();
        identity
    }

    /// Which of the stages can go on as they run: for each of `stages` the number of the running one, if there is one that
    /// is the same and reads others that go on.
    pub fn going_on(&self, stages: &Stages, running: &[Identity]) -> Vec<Option<usize>> {
        let mut found: Vec<Option<usize>> = Vec::with_capacity(stages.parts.len());
        for (part, upstream) in stages.parts.iter().zip(&stages.upstream) {
            let identity = self.stage_identity(part);
            let same = running.iter().position(|other| *other == identity);
            found.push(same.filter(|_| upstream.iter().all(|at| found[*at].is_some())));
        }
        found
    }

    /// From which event time (ms) on a log is needed, so that what leaves the nodes of `parts` at message times from `time`
    /// on is complete and right.
    pub fn needs_of<'p>(&self, parts: impl Iterator<Item = &'p Part>, log: &LogPorts, time: Time) -> Time {
        let mut nodes: Vec<usize> = parts.flat_map(|part| part.nodes.iter().copied()).collect();
        nodes.sort_unstable();
        self.needs(&Part { nodes, reads: vec![log.clone()], ..Part::default() }, time).first().copied().unwrap_or(time)
    }
}

impl Part {
    /// Whether a port is one of this part's.
    fn gives(&self, port: (usize, usize)) -> bool {
        self.nodes.contains(&port.0) || self.reads.iter().any(|log| log.ports.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_a_stage_is_before_it_or_reads_any_of_that() {
        // Two logs; a join of both, a filter of the second; a sink of each.
        let upstream = vec![vec![], vec![], vec![0, 1], vec![1], vec![2], vec![3], vec![0]];
        let stages = Stages { parts: vec![Part::default(); upstream.len()], upstream };
        assert_eq!(stages.around(&[]), Vec::<usize>::new());
        assert_eq!(stages.around(&[3]), [1, 2, 3, 4, 5], "the sink of the first log alone stays");
        assert_eq!(stages.around(&[6]), [0, 2, 4, 6]);
        assert_eq!(stages.around(&[5]), stages.around(&[3]), "as it goes over to what it reads");
        assert_eq!(stages.around(&[4]), [0, 1, 2, 3, 4, 5, 6]);
    }
}

//! Whether several processes can run a plan.

use super::Plan;
use crate::privileges::Need;

impl Plan {
    /// What the nodes of a process need rights for.
    pub fn needs_of_process(&self, process: usize) -> Vec<Need> {
        let nodes = self.nodes.iter().filter(|node| node.process == process);
        nodes.filter_map(|node| node.node.facts().needs).collect()
    }

    /// Checks that every source and sink has its place among `processes` processes.
    ///
    /// # Errors
    /// What is in the way.
    pub fn check_processes(&self, processes: usize) -> Result<(), String> {
        if let Some(node) = self.nodes.iter().find(|node| node.process >= processes) {
            let (id, process) = (&node.id, node.process);
            return Err(match processes {
                0 | 1 => format!("`{id}` has `process: {process}`: start each process with --process and --hosts"),
                _ => format!("`{id}` has `process: {process}`: the processes are 0 to {}", processes - 1),
            });
        }
        for group in self.partition().ingest {
            let mut sources = group.iter().map(|node| &self.nodes[*node]).filter(|node| node.inputs.is_empty());
            let Some(first) = sources.next() else { continue };
            if let Some(other) = sources.find(|other| other.process != first.process) {
                return Err(format!(
                    "`{}` and `{}` are kept in one log: give them the same `process`",
                    first.id, other.id
                ));
            }
        }
        Ok(())
    }
}

//! What a node is, so that two plans can be compared: nodes of one digest compute the same from the same.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{Plan, PlannedNode};
use crate::contract::Notes;
use crate::spec::{Change, Setting};

/// A SHA-256.
pub type Digest = [u8; 32];

/// What a node's YAML says, whatever way it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The kind's own options.
    pub options: Setting,
    /// What the node reads: `id` or `id.port`, or a mapping of them.
    pub from: Setting,
    /// Contents of the YAML files that were read for its plan, by their names as written.
    pub files: BTreeMap<String, Setting>,
    /// Where other files are, by their names as written; their contents do not count.
    pub paths: BTreeMap<String, String>,
}

impl Definition {
    /// The definition of a node with what it has asked for.
    pub(super) fn new(notes: Notes, options: Setting, from: Setting) -> Self {
        Self { options, from, files: notes.files.into_inner(), paths: notes.paths.into_inner() }
    }

    /// What is different in `new`; nothing if it means the same.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut out = Vec::new();
        self.from.changes(&new.from, "from", &mut out);
        self.options.changes(&new.options, "", &mut out);
        // A file under another name is a changed option already; what it says counts in any case.
        if self.files.len() == 1 && new.files.len() == 1 {
            for ((_, old), (name, new)) in self.files.iter().zip(&new.files) {
                old.changes(new, name, &mut out);
            }
        } else {
            for (name, new) in &new.files {
                self.files.get(name).unwrap_or(&Setting::Null).changes(new, name, &mut out);
            }
        }
        for (name, new) in &new.paths {
            let Some(old) = self.paths.get(name).filter(|old| *old != new) else { continue };
            out.push(Change { path: name.clone(), old: Some(old.clone()), new: Some(new.clone()) });
        }
        out
    }

    /// The digest of a node with this definition. `inputs` are name, output port and digest of what it reads.
    pub(super) fn digest(
        &self,
        kind: &str,
        tick: std::time::Duration,
        mut inputs: Vec<(String, usize, Digest)>,
    ) -> Digest {
        let mut bytes = Vec::with_capacity(512);
        let texts = |texts: &BTreeMap<String, String>| {
            Setting::Map(texts.iter().map(|(name, text)| (name.clone(), Setting::text(text))).collect())
        };
        Setting::text(kind).encode(&mut bytes);
        self.options.encode(&mut bytes);
        Setting::Map(self.files.clone()).encode(&mut bytes);
        texts(&self.paths).encode(&mut bytes);
        bytes.extend_from_slice(&tick.as_nanos().to_le_bytes());
        inputs.sort_unstable();
        for (name, port, digest) in inputs {
            Setting::text(name).encode(&mut bytes);
            bytes.extend_from_slice(&(port as u64).to_le_bytes());
            bytes.extend_from_slice(&digest);
        }
        Sha256::digest(&bytes).into()
    }
}

impl Plan {
    /// A digest of the whole pipeline: its sections and nodes, in whatever order they were written.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        self.sections.encode(&mut bytes);
        let data_dir = std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
        Setting::text(data_dir.display().to_string()).encode(&mut bytes);
        let mut nodes: Vec<&PlannedNode> = self.nodes.iter().collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        for node in nodes {
            Setting::text(&node.id).encode(&mut bytes);
            bytes.extend_from_slice(&node.digest);
        }
        Sha256::digest(&bytes).into()
    }
}

//! The newest committed records in memory, for readers that are close to the end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::Entry;

/// Records by position, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Tail {
    records: VecDeque<(u64, u64, Arc<Entry>)>,
    bytes: u64,
    bound: u64,
    /// Every committed record from here on is in memory.
    from: u64,
}

impl Tail {
    pub fn new(from: u64, bound: u64) -> Self {
        Self { records: VecDeque::new(), bytes: 0, bound, from }
    }

    /// Adds the record after the last one.
    pub fn push(&mut self, position: u64, bytes: u64, entry: Arc<Entry>) {
        self.records.push_back((position, bytes, entry));
        self.bytes += bytes;
        while self.bytes > self.bound {
            let Some((position, bytes, _)) = self.records.pop_front() else { break };
            self.bytes -= bytes;
            self.from = position + 1;
        }
    }

    /// The first record at or after a position, if everything from there on is in memory.
    pub fn at(&self, position: u64) -> Option<(u64, Arc<Entry>)> {
        if position < self.from {
            return None;
        }
        let index = self.records.partition_point(|(at, ..)| *at < position);
        self.records.get(index).map(|(at, _, entry)| (*at, entry.clone()))
    }
}

/// A set of positions, as ranges.
#[derive(Debug, Default)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `from..to`; returns how many of them are new.
    pub fn add(&mut self, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let (mut low, mut high, mut known) = (from, to, 0);
        // Ranges that touch become one, so only the last one that begins before the end can reach over it.
        while let Some((&start, &end)) = self.0.range(..=high).next_back().filter(|&(_, &end)| end >= low) {
            known += end.min(to).saturating_sub(start.max(from));
            (low, high) = (low.min(start), high.max(end));
            self.0.remove(&start);
        }
        self.0.insert(low, high);
        to - from - known
    }
}

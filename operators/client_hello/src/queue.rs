//! What waits for time to pass, in the order in which it began.

use std::collections::VecDeque;

use super::table::Index;

/// A flow that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When the wait began, nanoseconds since the epoch.
    pub since: i64,
    pub at: Index,
    /// Tells this wait from others of the same place in the table.
    pub number: u64,
}

/// The waits that may not be over.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    numbers: u64,
}

impl Queue {
    /// Begins a wait; its number, never 0.
    pub(crate) fn push(&mut self, since: i64, at: Index) -> u64 {
        self.numbers += 1;
        self.entries.push_back(Entry { since, at, number: self.numbers });
        self.numbers
    }

    /// The wait that began first.
    pub(crate) fn front(&self) -> Option<Entry> {
        self.entries.front().copied()
    }

    pub(crate) fn pop(&mut self) {
        self.entries.pop_front();
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

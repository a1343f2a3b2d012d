//! The groups of the open window: who they are, when they started, and what was told of them.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::cut::units;

/// Groups by key, each with a number that stays while the group lives.
#[derive(Default)]
pub(super) struct Groups {
    table: HashTable<u32>,
    groups: Vec<Group>,
    free: Vec<u32>,
    /// Numbers in the order in which the groups started.
    started: VecDeque<u32>,
    /// What they count for against a bound.
    units: usize,
}

/// One group.
#[derive(Default)]
pub(super) struct Group {
    pub(super) hash: u64,
    /// Row-encoded key.
    pub(super) key: Box<[u8]>,
    /// Event time of the last row, in ns.
    last: i64,
    /// The gap before the last row, in ms.
    gap: Option<f64>,
    rows: u64,
    /// Its row stands in the live relation.
    pub(super) shown: bool,
    /// It changed since the last emission.
    pub(super) changed: bool,
}

impl Group {
    /// Notes a row: the gap before it in ms, the gap before that, and its number.
    pub(super) fn note(&mut self, time: i64) -> (Option<f64>, Option<f64>, u64) {
        let gap = (self.rows > 0).then(|| time.saturating_sub(self.last) as f64 / 1e6);
        let before = self.gap;
        self.gap = gap;
        self.last = time;
        self.rows += 1;
        (gap, before, self.rows)
    }
}

impl Groups {
    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.started.len()
    }

    /// What the groups count for: one whose key is long counts for several.
    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// One more than the highest number in use.
    pub(super) fn width(&self) -> usize {
        self.groups.len()
    }

    /// The numbers of all groups.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.started.iter().copied().collect()
    }

    /// The group with this key.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.table.find(hash, |g| *self.groups[*g as usize].key == *key).copied()
    }

    /// Starts a group, which must not exist.
    pub(super) fn start(&mut self, hash: u64, key: &[u8]) -> u32 {
        let group = Group { hash, key: key.into(), ..Group::default() };
        self.units += units(key.len());
        let number = match self.free.pop() {
            Some(number) => {
                self.groups[number as usize] = group;
                number
            }
            None => {
                self.groups.push(group);
                self.groups.len() as u32 - 1
            }
        };
        self.table.insert_unique(hash, number, |g| self.groups[*g as usize].hash);
        self.started.push_back(number);
        number
    }

    /// Takes out up to `n` of the groups that started first; their numbers are used again once [`Groups::release`]d.
    pub(super) fn oldest(&mut self, n: usize) -> Vec<u32> {
        let numbers: Vec<u32> = self.started.drain(..n.min(self.started.len())).collect();
        for number in &numbers {
            self.units -= units(self.groups[*number as usize].key.len());
            if let Ok(entry) = self.table.find_entry(self.groups[*number as usize].hash, |g| g == number) {
                entry.remove();
            }
        }
        numbers
    }

    /// Makes numbers free for further groups.
    pub(super) fn release(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.groups[*number as usize] = Group::default();
        }
        self.free.extend_from_slice(numbers);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A group.
    pub(super) fn at(&self, number: u32) -> &Group {
        &self.groups[number as usize]
    }

    /// A group, to be changed.
    pub(super) fn at_mut(&mut self, number: u32) -> &mut Group {
        &mut self.groups[number as usize]
    }
}

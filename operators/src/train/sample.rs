//! The rows that a model is trained on: those of the last days, and of too many a sample that depends on the rows alone.

use std::collections::BTreeMap;

use engine::batch::Time;

/// A row of the training.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Its event time, in ms.
    pub time: Time,
    /// A hash of whom it is about.
    pub client: u64,
    /// A value for each feature.
    pub values: Box<[f32]>,
}

/// Rows by a hash of what they are. Of too many those with the greatest hashes go, so that which rows stay does not depend on
/// the order in which they came.
#[derive(Debug)]
pub(super) struct Sample {
    rows: BTreeMap<(u64, Time), Row>,
    most: usize,
}

impl Sample {
    /// Keeps at most so many rows.
    pub fn new(most: usize) -> Self {
        Self { rows: BTreeMap::new(), most }
    }

    /// Takes a row in. True if one had to go, this or another.
    pub fn add(&mut self, hash: u64, row: Row) -> bool {
        self.rows.insert((hash, row.time), row);
        let is_full = self.rows.len() > self.most;
        if is_full {
            self.rows.pop_last();
        }
        is_full
    }

    /// A row goes, if it is there.
    pub fn remove(&mut self, hash: u64, time: Time) {
        self.rows.remove(&(hash, time));
    }

    /// Rows before a time go.
    pub fn expire(&mut self, before: Time) {
        self.rows.retain(|_, row| row.time >= before);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows before a time, by their times.
    pub fn rows_before(&self, time: Time) -> Vec<Row> {
        let mut rows: Vec<(&(u64, Time), &Row)> = self.rows.iter().filter(|(_, row)| row.time < time).collect();
        rows.sort_by_key(|((hash, time), _)| (*time, *hash));
        rows.into_iter().map(|(_, row)| row.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(time: Time) -> Row {
        Row { time, client: time, values: [time as f32].into() }
    }

    #[test]
    fn which_rows_stay_does_not_depend_on_their_order() {
        let hashes: Vec<u64> = (0..50).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let fill = |order: &[usize]| {
            let mut sample = Sample::new(20);
            order.iter().for_each(|n| _ = sample.add(hashes[*n], row(*n as Time)));
            sample.rows_before(Time::MAX)
        };
        let forward: Vec<usize> = (0..50).collect();
        let backward: Vec<usize> = (0..50).rev().collect();
        assert_eq!(fill(&forward), fill(&backward));
        assert_eq!(fill(&forward).len(), 20);
        assert!(fill(&forward).is_sorted_by_key(|row| row.time));
    }

    #[test]
    fn rows_of_before_go() {
        let mut sample = Sample::new(9);
        (0..6).for_each(|time| _ = sample.add(time, row(time)));
        sample.expire(3);
        assert_eq!((sample.len(), sample.rows_before(5).len()), (3, 2));
        sample.remove(4, 4);
        sample.remove(4, 5);
        assert_eq!(sample.rows_before(9), [row(3), row(5)]);
    }
}

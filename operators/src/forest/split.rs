//! Rows that are kept back from training, and the gate that a new forest must pass with them.

use std::collections::HashSet;

/// The most anomalies among held-back rows, as a share, with which a new forest may replace the old one. The rows are
/// of the kind that the forest was trained on: one that calls more of them unusual has learnt something else.
pub const GATE_LIMIT: f64 = 0.20;

/// Row numbers on both sides of a moment, each ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Rows before the cut.
    pub training: Vec<usize>,
    /// Rows from the cut on.
    pub held_back: Vec<usize>,
    /// Rows from the cut on whose client is in training too: they would be recognised, not judged.
    pub left_out: Vec<usize>,
}

/// Divides rows by time: the earlier share, 0 to 1, is for training, the rest is held back.
///
/// `times` has a number for each row, in any order and unit. Rows of one time stay together, with the training if it
/// would else fall short of its share; so a held-back row is later than every training row. `clients`, a hash of who
/// each row is about, keeps one client's rows from being on both sides. Clients beyond the end of a short slice are not
/// looked at.
pub fn temporal_split(times: &[i64], clients: Option<&[u64]>, share: f64) -> Split {
    let wanted = (share.clamp(0.0, 1.0) * times.len() as f64).round() as usize;
    let mut ascending = times.to_vec();
    ascending.sort_unstable();
    let last_of_training = wanted.checked_sub(1).map(|last| ascending[last]);
    let mut split = Split::default();
    let is_early = |time: i64| last_of_training.is_some_and(|last| time <= last);
    let client = |row: usize| clients.and_then(|clients| clients.get(row));
    let known: HashSet<&u64> =
        times.iter().enumerate().filter(|(_, time)| is_early(**time)).filter_map(|(row, _)| client(row)).collect();
    for (row, &time) in times.iter().enumerate() {
        if is_early(time) {
            split.training.push(row);
        } else if client(row).is_some_and(|client| known.contains(client)) {
            split.left_out.push(row);
        } else {
            split.held_back.push(row);
        }
    }
    split
}

/// How a forest judged held-back rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Rows whose decision value is below 0, or is no number.
    pub anomalies: usize,
    /// All rows.
    pub rows: usize,
}

impl Gate {
    /// Counts decision values, as [`Forest::decision_function`](super::Forest::decision_function) gives them.
    pub fn of(decisions: &[f64]) -> Gate {
        let anomalies = decisions.iter().filter(|&&decision| decision < 0.0 || decision.is_nan()).count();
        Gate { anomalies, rows: decisions.len() }
    }

    /// Anomalies among the rows, 0 to 1; `None` without rows.
    pub fn rate(self) -> Option<f64> {
        (self.rows > 0).then(|| self.anomalies as f64 / self.rows as f64)
    }

    /// Whether the rate is at most `limit`, usually [`GATE_LIMIT`]. Without rows nothing was judged, and nothing passes.
    pub fn passes(self, limit: f64) -> bool {
        self.rate().is_some_and(|rate| rate <= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::samples::{Blobs, names};
    use crate::forest::{Options, train};

    #[test]
    fn later_rows_are_held_back() {
        let split = temporal_split(&[50, 10, 40, 20, 30], None, 0.8);
        assert_eq!((split.training, split.held_back), (vec![1, 2, 3, 4], vec![0]));
        assert_eq!(temporal_split(&[], None, 0.8), Split::default());
        assert_eq!(temporal_split(&[1, 2], None, 0.0).held_back, [0, 1]);
        assert_eq!(temporal_split(&[1, 2], None, 7.0).training, [0, 1]);
        assert_eq!(temporal_split(&[1, 2], None, f64::NAN).held_back, [0, 1]);
    }

    #[test]
    fn rows_of_one_time_stay_together() {
        let split = temporal_split(&[1, 2, 2, 2, 3], None, 0.5);
        assert_eq!((split.training, split.held_back), (vec![0, 1, 2, 3], vec![4]));
    }

    #[test]
    fn a_client_is_on_one_side_only() {
        let split = temporal_split(&[1, 2, 3, 4, 5], Some(&[7, 8, 9, 7, 6]), 0.6);
        assert_eq!(split, Split { training: vec![0, 1, 2], held_back: vec![4], left_out: vec![3] });
    }

    #[test]
    fn the_gate_is_at_its_limit() {
        let gate = Gate::of(&[-0.1, 0.0, 0.2, 0.1, 0.3]);
        assert_eq!((gate.anomalies, gate.rows, gate.rate()), (1, 5, Some(0.2)));
        assert!(gate.passes(GATE_LIMIT));
        assert!(!Gate::of(&[-0.1, f64::NAN, 0.2, 0.1, 0.3]).passes(GATE_LIMIT));
        assert!(!Gate::of(&[]).passes(1.0));
    }

    #[test]
    fn a_forest_passes_with_rows_of_its_kind_and_fails_with_others() {
        let blobs = Blobs::new(800, 0, 4, 1);
        let options = Options { contamination: Some(0.05), ..Options::default() };
        let forest = train(&blobs.rows, &names(4), &options).expect("trains");
        let gate = |rows: &Blobs| Gate::of(&forest.decision_function(rows.matrix()).expect("fits"));
        assert!(gate(&Blobs::new(400, 0, 4, 2)).passes(GATE_LIMIT));
        assert!(!gate(&Blobs::new(0, 200, 4, 3)).passes(GATE_LIMIT));
    }
}

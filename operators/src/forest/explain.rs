//! Which features a score comes from.

use super::math::average_path;
use super::model::Forest;
use super::score::{Matrix, ShapeError, Tree, prepared};
use super::trees::Term;

/// A row's score and each feature's part in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// As [`Forest::score_samples`] gives it.
    pub score: f64,
    /// As [`Forest::decision_function`] gives it: below 0 is an anomaly.
    pub decision: f64,
    /// One for each column of the input, dropped ones too; the highest credit first.
    pub credits: Vec<Credit>,
}

/// One feature's part in a score.
#[derive(Clone, Debug, PartialEq)]
pub struct Credit {
    /// Its column in [`Forest::names`].
    pub feature: usize,
    /// How much the feature shortened the row's paths, as a share of [`average_path`] of max_samples; negative if it
    /// lengthened them. The credits of a row add up to 1 + log2(−score): 0 for the usual score of −0.5, 1 at most.
    pub credit: f64,
    /// What the row has, in the feature's unit; `None` if missing.
    pub value: Option<f32>,
    /// See [`Baseline::robust_z`](super::Baseline::robust_z).
    pub z: Option<f64>,
}

impl Forest {
    /// Says which features a row's score comes from.
    ///
    /// At each node of a row's path the length to expect is the splits so far + c(training rows in the node). A split
    /// changes it, by one split more and fewer rows left; what it takes off is the credit of the feature that is split.
    /// In an extended forest the features of the split share it by the size of their summands, |weight × distance from
    /// the median|. Over a path this is c(max_samples) less the row's path length, whatever the tree, and so the mean over
    /// trees, divided by c(max_samples), adds up to 1 + log2(−score). Neither sampling nor training rows are needed.
    ///
    /// The idea is DIFFI's: a feature earns what leaves a row with few others early (Carletti, Terzi, Susto,
    /// "Interpretable Anomaly Detection with DIFFI", Engineering Applications of AI 119, 2023, arXiv 2007.11117). DIFFI
    /// weighs splits by how uneven they are; here they are weighed by what they do to the score.
    ///
    /// # Errors
    ///
    /// If the row has not as many values as the forest has columns.
    pub fn explain(&self, row: &[f32]) -> Result<Explanation, ShapeError> {
        let mut scores = [0.0];
        let columns = row.len();
        if columns != self.names().len() {
            return Err(ShapeError::Columns { columns, names: self.names().len() });
        }
        self.score_into(Matrix::Rows { values: row, width: columns }, &mut scores)?;
        let [score] = scores;
        let mut credits: Vec<Credit> = row
            .iter()
            .zip(self.baseline())
            .zip(self.shares(row))
            .enumerate()
            .map(|(feature, ((&value, baseline), credit))| {
                let z = baseline.robust_z(value);
                Credit { feature, credit, value: value.is_finite().then_some(value), z }
            })
            .collect();
        // Stable: features of equal credit stay in their order.
        credits.sort_by(|a, b| b.credit.total_cmp(&a.credit));
        Ok(Explanation { score, decision: score - self.offset(), credits })
    }

    /// The credit of each column.
    fn shares(&self, row: &[f32]) -> Vec<f64> {
        let centred = self.trees.dimensions > 0;
        let row: Vec<f32> = row.iter().zip(&self.medians).map(|(&x, &median)| prepared(x, median, centred)).collect();
        let mut shares = vec![0.0; row.len()];
        for tree in 0..self.trees() {
            let (nodes, expected) = self.trees.tree(tree);
            let tree = Tree { nodes, terms: self.trees.tree_terms(tree), dimensions: self.trees.dimensions };
            let mut place = 0;
            loop {
                let next = tree.next(place, &row);
                if next == place {
                    break;
                }
                let taken_off = expected[place] - expected[next];
                if centred {
                    share_out(taken_off, tree.node_terms(place), &row, &mut shares);
                } else {
                    shares[usize::from(nodes[place].feature)] += taken_off;
                }
                place = next;
            }
        }
        let scale = self.trees() as f64 * average_path(self.max_samples());
        shares.iter_mut().for_each(|share| *share /= scale);
        shares
    }
}

/// Divides a credit by the size of the summands; if all are 0, evenly between those that have a weight.
fn share_out(credit: f64, terms: &[Term], row: &[f32], shares: &mut [f64]) {
    let size = |term: &Term| (f64::from(term.weight) * f64::from(row[usize::from(term.feature)])).abs();
    let total: f64 = terms.iter().map(size).sum();
    if total > 0.0 {
        for term in terms {
            shares[usize::from(term.feature)] += credit * (size(term) / total);
        }
        return;
    }
    let weightless = terms.iter().all(|term| term.weight == 0.0);
    let counts = |term: &&Term| weightless || term.weight != 0.0;
    let part = credit / terms.iter().filter(counts).count() as f64;
    for term in terms.iter().filter(counts) {
        shares[usize::from(term.feature)] += part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::samples::{Blobs, names};
    use crate::forest::{Options, train};

    #[test]
    fn the_feature_that_is_off_comes_first() {
        for extension in [None, Some(1), Some(2)] {
            let blobs = Blobs::new(1000, 0, 6, 5);
            let options = Options { seed: 1, extension, ..Options::default() };
            let forest = train(&blobs.rows, &names(6), &options).expect("trains");
            let explanation = forest.explain(&[2.0, 2.0, 2.0, 40.0, f32::NAN, 2.0]).expect("fits");
            let first = &explanation.credits[0];
            assert_eq!((first.feature, first.value), (3, Some(40.0)), "{extension:?}: {explanation:?}");
            assert!(first.z.is_some_and(|z| z > 10.0));
            let missing = explanation.credits.iter().find(|credit| credit.feature == 4).expect("each column has one");
            assert_eq!((missing.value, missing.z), (None, None));
        }
    }

    #[test]
    fn a_dropped_feature_has_no_credit_and_a_row_must_fit() {
        let rows: Vec<f32> = (0..300).flat_map(|i| [(i % 17) as f32, 1.0]).collect();
        let forest = train(&rows, &names(2), &Options::default()).expect("trains");
        let explanation = forest.explain(&[100.0, 9.0]).expect("fits");
        assert_eq!(explanation.credits[1], Credit { feature: 1, credit: 0.0, value: Some(9.0), z: None });
        assert_eq!(forest.explain(&[1.0]), Err(ShapeError::Columns { columns: 1, names: 2 }));
    }

    #[test]
    fn features_of_a_split_share_its_credit() {
        let terms = [(0.5, 0), (-2.0, 1), (0.0, 0)].map(|(weight, feature)| Term { weight, feature });
        let shared = |row: &[f32], terms: &[Term]| {
            let mut shares = [0.0; 2];
            share_out(1.0, terms, row, &mut shares);
            shares
        };
        assert_eq!(shared(&[4.0, 3.0], &terms), [0.25, 0.75]);
        assert_eq!(shared(&[0.0, 0.0], &terms), [0.5, 0.5]);
        assert_eq!(shared(&[1.0, 1.0], &terms[2..]), [1.0, 0.0]);
    }
}

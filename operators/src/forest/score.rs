//! Scores that agree with those of scikit-learn.

use super::math::{average_path, exp2};
use super::model::Forest;
use super::trees::{Node, Term};

/// Rows to score, each with the columns of [`Forest::names`] in that order. NaN and infinities are missing values.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// Row after row.
    Rows {
        /// `width` values of the first row, then those of the second, and so on.
        values: &'a [f32],
        /// Columns.
        width: usize,
    },
    /// One slice a column, all of the same length.
    Columns(&'a [&'a [f32]]),
}

/// Rows that do not fit the forest or the result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Another number of columns.
    #[error("the rows have {columns} columns, the forest {names}")]
    Columns {
        /// Columns of the rows.
        columns: usize,
        /// Columns of the forest.
        names: usize,
    },
    /// The last row is not complete, or a column is longer or shorter than the first.
    #[error("the rows are not all complete")]
    Ragged,
    /// Room for another number of results.
    #[error("there are {rows} rows and room for {results} results")]
    Results {
        /// Rows to score.
        rows: usize,
        /// Length of the slice for the results.
        results: usize,
    },
}

/// Rows that go through a tree before the next tree is looked at: 64 rows of 60 columns take 15 KB, a tree of 256 rows
/// about 2 KB, both together less than a first-level cache.
const BLOCK: usize = 64;

/// Rows whose descents go side by side. One alone would wait for memory at each of its steps.
const LANES: usize = 8;

impl Matrix<'_> {
    /// The number of rows.
    fn rows(&self, names: usize) -> Result<usize, ShapeError> {
        let (columns, whole) = match *self {
            Matrix::Rows { values, width } => (width, values.len().checked_rem(width) == Some(0)),
            Matrix::Columns(columns) => (columns.len(), columns.windows(2).all(|pair| pair[0].len() == pair[1].len())),
        };
        match *self {
            _ if columns != names => Err(ShapeError::Columns { columns, names }),
            _ if !whole => Err(ShapeError::Ragged),
            Matrix::Rows { values, width } => Ok(values.len() / width),
            Matrix::Columns(columns) => Ok(columns.first().map_or(0, |column| column.len())),
        }
    }
}

impl Forest {
    /// The score of each row, in [−1, 0): −2^(−E\[h\]/c(max_samples)), with h the splits on the way to the row's leaf
    /// plus c(training rows in the leaf), E\[h\] its mean over all trees, and c the [`average_path`]. The lower, the more
    /// unusual; about −0.5 is usual. It is scikit-learn's `score_samples`, to 1e-12.
    ///
    /// A row's score does not depend, to the last bit, on the rows beside it.
    ///
    /// # Errors
    ///
    /// If the rows do not have the forest's columns.
    pub fn score_samples(&self, rows: Matrix<'_>) -> Result<Vec<f64>, ShapeError> {
        let mut scores = vec![0.0; rows.rows(self.names().len())?];
        self.score_into(rows, &mut scores)?;
        Ok(scores)
    }

    /// scikit-learn's `decision_function`: the scores less [`Forest::offset`]. Below 0 is an anomaly.
    ///
    /// # Errors
    ///
    /// If the rows do not have the forest's columns.
    pub fn decision_function(&self, rows: Matrix<'_>) -> Result<Vec<f64>, ShapeError> {
        let mut scores = self.score_samples(rows)?;
        for score in &mut scores {
            *score -= self.offset();
        }
        Ok(scores)
    }

    /// As [`Forest::score_samples`], into a slice of one number a row. It allocates once, for a block of rows.
    ///
    /// # Errors
    ///
    /// If the rows do not have the forest's columns, or the slice is not as long as there are rows.
    pub fn score_into(&self, rows: Matrix<'_>, scores: &mut [f64]) -> Result<(), ShapeError> {
        let width = self.names().len();
        let count = rows.rows(width)?;
        if scores.len() != count {
            return Err(ShapeError::Results { rows: count, results: scores.len() });
        }
        let mut block = vec![0.0; width * BLOCK.min(count)];
        let scale = self.trees() as f64 * average_path(self.max_samples());
        for (number, scores) in scores.chunks_mut(BLOCK).enumerate() {
            let block = &mut block[..scores.len() * width];
            self.fill(rows, number * BLOCK, block);
            scores.fill(0.0);
            self.add_paths(block, scores);
            for score in scores {
                *score = -exp2(-*score / scale);
            }
        }
        Ok(())
    }

    /// Copies rows from `first` on, as the trees want them.
    fn fill(&self, rows: Matrix<'_>, first: usize, block: &mut [f32]) {
        let width = self.medians.len();
        let centred = self.trees.dimensions > 0;
        match rows {
            Matrix::Rows { values, .. } => {
                let values = values[first * width..].chunks_exact(width);
                for (to, from) in block.chunks_exact_mut(width).zip(values) {
                    for ((to, &from), &median) in to.iter_mut().zip(from).zip(&self.medians) {
                        *to = prepared(from, median, centred);
                    }
                }
            }
            Matrix::Columns(columns) => {
                for (column, (from, &median)) in columns.iter().zip(&self.medians).enumerate() {
                    let to = block[column..].iter_mut().step_by(width);
                    for (to, &from) in to.zip(&from[first..]) {
                        *to = prepared(from, median, centred);
                    }
                }
            }
        }
    }

    /// Adds each row's path length of all trees, always in the order of the trees.
    fn add_paths(&self, block: &[f32], sums: &mut [f64]) {
        let width = self.medians.len();
        for (tree, root) in self.trees.roots.iter().enumerate() {
            let (nodes, expected) = self.trees.tree(tree);
            let tree = Tree { nodes, terms: self.trees.tree_terms(tree), dimensions: self.trees.dimensions };
            let (sums, rest) = sums.as_chunks_mut::<LANES>();
            let mut rows = block.chunks_exact(width * LANES);
            for (sums, rows) in sums.iter_mut().zip(&mut rows) {
                for (sum, leaf) in sums.iter_mut().zip(tree.leaves::<LANES>(rows, root.depth)) {
                    *sum += expected[leaf];
                }
            }
            for (sum, row) in rest.iter_mut().zip(rows.remainder().chunks_exact(width)) {
                let [leaf] = tree.leaves::<1>(row, root.depth);
                *sum += expected[leaf];
            }
        }
    }
}

/// A value as the trees want it: the median in place of a missing value; in extended forests, whose sums would else lose
/// the digits of small differences far from 0, the distance from the median.
pub(super) fn prepared(value: f32, median: f32, centred: bool) -> f32 {
    let value = if value.is_finite() { value } else { median };
    if centred { (value - median).clamp(f32::MIN, f32::MAX) } else { value }
}

/// The sum that an extended split compares. Each product is exact in 64 bits.
pub(super) fn project(terms: &[Term], row: &[f32]) -> f64 {
    terms.iter().map(|term| f64::from(term.weight) * f64::from(row[usize::from(term.feature)])).sum()
}

/// One tree.
#[derive(Clone, Copy)]
pub(super) struct Tree<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) terms: &'a [Term],
    pub(super) dimensions: usize,
}

impl Tree<'_> {
    /// The leaves of `N` rows that stand one after the other.
    fn leaves<const N: usize>(&self, rows: &[f32], depth: usize) -> [usize; N] {
        let width = rows.len() / N;
        let rows: [&[f32]; N] = std::array::from_fn(|lane| &rows[lane * width..(lane + 1) * width]);
        let mut places = [0; N];
        for _ in 0..depth {
            for (place, row) in places.iter_mut().zip(&rows) {
                *place = self.next(*place, row);
            }
        }
        places
    }

    /// Where a row goes from a node; a leaf is left for itself.
    #[inline(always)]
    pub(super) fn next(&self, place: usize, row: &[f32]) -> usize {
        let node = self.nodes[place];
        let above = if self.dimensions == 0 {
            row[usize::from(node.feature)] > node.threshold
        } else {
            project(self.node_terms(place), row) > f64::from(node.threshold)
        };
        usize::from(node.left) + usize::from(above)
    }

    pub(super) fn node_terms(&self, place: usize) -> &[Term] {
        &self.terms[place * self.dimensions..][..self.dimensions]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::samples::{Blobs, names};
    use crate::forest::{Options, train};

    #[test]
    fn rows_must_fit() {
        let forest = train(&Blobs::new(20, 0, 2, 1).rows, &names(2), &Options::default()).expect("trains");
        let error = |rows| forest.score_samples(rows).expect_err("must be refused");
        assert_eq!(error(Matrix::Rows { values: &[0.0; 6], width: 3 }), ShapeError::Columns { columns: 3, names: 2 });
        assert_eq!(error(Matrix::Rows { values: &[], width: 0 }), ShapeError::Columns { columns: 0, names: 2 });
        assert_eq!(error(Matrix::Rows { values: &[0.0; 5], width: 2 }), ShapeError::Ragged);
        assert_eq!(error(Matrix::Columns(&[&[0.0]])), ShapeError::Columns { columns: 1, names: 2 });
        assert_eq!(error(Matrix::Columns(&[&[0.0], &[]])), ShapeError::Ragged);
        let into = forest.score_into(Matrix::Rows { values: &[0.0; 4], width: 2 }, &mut [0.0]);
        assert_eq!(into, Err(ShapeError::Results { rows: 2, results: 1 }));
        assert_eq!(forest.score_samples(Matrix::Rows { values: &[], width: 2 }), Ok(vec![]));
        assert_eq!(forest.score_samples(Matrix::Columns(&[&[], &[]])), Ok(vec![]));
    }
}

//! Trees of isotree, and the path lengths that it gives with them; its scores of rows that a forest here is grown from.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::against_sklearn::{SameRows, imported, vectors};
use super::math::{average_path, log2};
use super::model::Kind;
use super::samples::names;
use super::trees::Columns;
use super::{Matrix, Options, train};

#[derive(Deserialize)]
struct Foreign {
    max_samples: u32,
    dimensions: usize,
    trees: Vec<Columns>,
    #[serde(rename = "X")]
    rows: Vec<Vec<f32>>,
    mean_depth: Vec<f64>,
}

#[derive(Deserialize)]
struct Vectors {
    isotree_plain: Foreign,
    isotree_extended: Foreign,
    same_rows: Scores,
}

#[derive(Deserialize)]
struct Scores {
    /// By the number of dimensions.
    isotree: BTreeMap<usize, Vec<f64>>,
}

impl Foreign {
    fn assert_agrees(&self) {
        let kind = match self.dimensions {
            0 => Kind::Plain,
            dimensions => Kind::Extended { dimensions },
        };
        let width = self.rows[0].len();
        let forest = imported(&self.trees, kind, width, self.max_samples, -0.5);
        let values = self.rows.concat();
        let scores = forest.score_samples(Matrix::Rows { values: &values, width }).expect("the rows fit");
        let depths = scores.iter().map(|score| -log2(-score) * average_path(self.max_samples));
        let worst = depths.zip(&self.mean_depth).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max);
        println!("{kind:?}: {} rows, largest difference of the mean depth {worst:e}", scores.len());
        assert!(scores.len() == self.mean_depth.len() && worst < 1e-12);
    }
}

#[test]
fn path_lengths_of_isotrees_trees_agree() {
    let vectors: Vectors = vectors();
    vectors.isotree_plain.assert_agrees();
    vectors.isotree_extended.assert_agrees();
}

#[test]
fn extended_forests_grown_here_rank_rows_as_those_of_isotree() {
    #[derive(Deserialize)]
    struct Rows {
        same_rows: SameRows,
    }
    let Rows { same_rows } = vectors();
    let vectors: Vectors = vectors();
    for (dimensions, theirs) in vectors.same_rows.isotree {
        let options = Options { trees: 500, extension: Some(dimensions), seed: 1, ..Options::default() };
        let forest = train(&same_rows.rows, &names(same_rows.width), &options).expect("trains");
        let matrix = Matrix::Rows { values: &same_rows.rows, width: same_rows.width };
        let ours = forest.score_samples(matrix).expect("the rows fit");
        // isotree's score of an outlier is near 1, where scikit-learn's is near -1.
        let theirs: Vec<f64> = theirs.iter().map(|score| -score).collect();
        same_rows.assert_like(&format!("{dimensions} dimensions"), &ours, &theirs);
    }
}

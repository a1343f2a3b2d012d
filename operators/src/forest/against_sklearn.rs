//! Forests of scikit-learn, and the scores that it gives with them.
//!
//! serde_json may read the last bit of a 64-bit number wrongly. That is 1e-16 here, far below what is compared.

use serde::Deserialize;

use super::baseline::Baseline;
use super::math::floor_f32;
use super::model::{About, Forest, Kind, Origin};
use super::samples::{auc, names, rank_correlation};
use super::trees::Columns;
use super::{Matrix, Options, train};

/// A forest as `vectors.py` writes it; `golden.json` has the same fields.
#[derive(Deserialize)]
struct Foreign {
    max_samples: u32,
    offset: f64,
    trees: Vec<ForeignTree>,
    #[serde(rename = "X")]
    rows: Vec<Vec<f32>>,
    score_samples: Vec<f64>,
    decision: Vec<f64>,
}

/// Arrays over the nodes, as in scikit-learn's `tree_`; −1 is no child.
#[derive(Deserialize)]
struct ForeignTree {
    left: Vec<i32>,
    right: Vec<i32>,
    feature: Vec<i32>,
    threshold: Vec<f64>,
    n: Vec<u32>,
}

#[derive(Deserialize)]
struct Vectors {
    sklearn_forest: Foreign,
    same_rows: SameRows,
}

#[derive(Deserialize)]
pub(super) struct SameRows {
    pub(super) width: usize,
    #[serde(rename = "X")]
    pub(super) rows: Vec<f32>,
    /// How many of the last rows are.
    pub(super) outliers: usize,
    sklearn: Vec<f64>,
}

/// A forest of which only the trees matter.
pub(super) fn imported(trees: &[Columns], kind: Kind, width: usize, max_samples: u32, offset: f64) -> Forest {
    let about = About {
        names: names(width),
        dropped: Vec::new(),
        kind,
        max_samples,
        offset,
        seed: 0,
        origin: Origin::default(),
        baseline: vec![Baseline::of(std::iter::empty(), &mut Vec::new()); width],
        score_quantiles: Vec::new(),
    };
    Forest::new(about, trees).expect("the foreign forest is sound")
}

impl ForeignTree {
    fn columns(&self) -> Columns {
        let mut columns = Columns::default();
        self.visit(0, &mut columns);
        columns
    }

    fn visit(&self, node: usize, columns: &mut Columns) {
        let Ok(left) = usize::try_from(self.left[node]) else {
            columns.shape.push('0');
            columns.rows.push(self.n[node]);
            return;
        };
        columns.shape.push('1');
        columns.features.push(u16::try_from(self.feature[node]).expect("a split has a feature"));
        // Rows are of 32 bits, so rounding down changes no comparison.
        columns.thresholds.push(floor_f32(self.threshold[node]));
        self.visit(left, columns);
        self.visit(usize::try_from(self.right[node]).expect("a node has two children or none"), columns);
    }
}

impl Foreign {
    fn assert_agrees(&self) {
        let trees: Vec<Columns> = self.trees.iter().map(ForeignTree::columns).collect();
        let width = self.rows[0].len();
        let forest = imported(&trees, Kind::Plain, width, self.max_samples, self.offset);
        let values = self.rows.concat();
        let matrix = Matrix::Rows { values: &values, width };
        let scores = forest.score_samples(matrix).expect("the rows fit");
        let decisions = forest.decision_function(matrix).expect("the rows fit");
        let worst = |a: &[f64], b: &[f64]| {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        let (score, decision) = (worst(&scores, &self.score_samples), worst(&decisions, &self.decision));
        println!("largest difference of scores {score:e}, of decision values {decision:e}");
        assert!(score <= 1e-12 && decision <= 1e-12);
    }
}

pub(super) fn vectors<'a, T: Deserialize<'a>>() -> T {
    serde_json::from_str(include_str!("vectors.json")).expect("vectors.json has the fields")
}

#[test]
fn scores_of_the_golden_forest_agree() {
    let golden: Foreign = serde_json::from_str(include_str!("golden.json")).expect("golden.json has the fields");
    assert_eq!((golden.trees.len(), golden.rows.len()), (20, 200));
    golden.assert_agrees();
}

#[test]
fn scores_of_a_forest_with_ties_agree() {
    let vectors: Vectors = vectors();
    vectors.sklearn_forest.assert_agrees();
}

#[test]
fn forests_grown_here_rank_rows_as_those_of_sklearn() {
    let Vectors { same_rows, .. } = vectors();
    let options = Options { trees: 500, seed: 1, ..Options::default() };
    let forest = train(&same_rows.rows, &names(same_rows.width), &options).expect("trains");
    let matrix = Matrix::Rows { values: &same_rows.rows, width: same_rows.width };
    let scores = forest.score_samples(matrix).expect("the rows fit");
    same_rows.assert_like("plain", &scores, &same_rows.sklearn);
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
    // Over seeds, the mean of either program has a standard deviation of 0.001.
    assert!((mean(&scores) - mean(&same_rows.sklearn)).abs() < 0.006);
}

impl SameRows {
    /// Scores of two forests that were grown from the same rows by different random numbers.
    pub(super) fn assert_like(&self, what: &str, ours: &[f64], theirs: &[f64]) {
        let outliers: Vec<bool> = (0..ours.len()).map(|row| row >= ours.len() - self.outliers).collect();
        let correlation = rank_correlation(ours, theirs);
        let (our_auc, their_auc) = (auc(ours, &outliers), auc(theirs, &outliers));
        println!("{what}: rank correlation {correlation:.4}, AUC {our_auc:.4} against {their_auc:.4}");
        assert!(correlation >= 0.95 && (our_auc - their_auc).abs() <= 0.01);
    }
}

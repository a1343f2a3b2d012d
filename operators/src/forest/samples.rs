//! Rows for tests.

use super::Matrix;
use super::random::Random;

/// Two groups of rows around (−2, −2, …) and (2, 2, …), and outliers even in [−8, 8).
pub(crate) struct Blobs {
    pub(crate) rows: Vec<f32>,
    /// For each row, whether it is an outlier.
    pub(crate) outliers: Vec<bool>,
    width: usize,
}

impl Blobs {
    pub(crate) fn new(inliers: usize, outliers: usize, width: usize, seed: u64) -> Blobs {
        let mut random = Random::new(seed);
        let mut rows = Vec::new();
        for row in 0..inliers {
            let centre = if row % 2 == 0 { -2.0 } else { 2.0 };
            rows.extend((0..width).map(|_| (centre + random.normal()) as f32));
        }
        rows.extend((0..outliers * width).map(|_| (random.unit() * 16.0 - 8.0) as f32));
        let outliers = (0..inliers + outliers).map(|row| row >= inliers).collect();
        Blobs { rows, outliers, width }
    }

    pub(crate) fn matrix(&self) -> Matrix<'_> {
        Matrix::Rows { values: &self.rows, width: self.width }
    }
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("f{i}")).collect()
}

/// The chance that an outlier's score is below that of another row; ties count half (Mann, Whitney 1947).
pub(crate) fn auc(scores: &[f64], outliers: &[bool]) -> f64 {
    let pick = |is| scores.iter().zip(outliers).filter(move |(_, outlier)| **outlier == is).map(|(score, _)| *score);
    let below = |low: f64, high: f64| if low < high { 1.0 } else { f64::from(u8::from(low == high)) / 2.0 };
    let wins: f64 = pick(true).map(|low| pick(false).map(|high| below(low, high)).sum::<f64>()).sum();
    wins / (pick(true).count() * pick(false).count()) as f64
}

/// Spearman's correlation of the ranks; ties share their mean rank.
pub(crate) fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: f64| {
        let below = values.iter().filter(|&&other| other < value).count();
        let equal = values.iter().filter(|&&other| other == value).count();
        below as f64 + (equal as f64 - 1.0) / 2.0
    };
    values.iter().map(|&value| rank(value)).collect()
}

#[test]
fn measures_are_right_for_small_examples() {
    assert_eq!(auc(&[0.1, 0.2, 0.2, 0.4], &[true, false, true, false]), 0.875);
    // scipy.stats.spearmanr([1, 2, 2, 4], [4, 5, 6, 7]) is 0.9486832980505138.
    let correlation = rank_correlation(&[1.0, 2.0, 2.0, 4.0], &[4.0, 5.0, 6.0, 7.0]);
    assert!((correlation - 0.948_683_298_050_513_8).abs() < 1e-12, "{correlation}");
}

//! How far rows have moved away from those of the training.

use super::baseline::{Baseline, counts_up_to};
use super::math::ln;
use super::model::Forest;

/// A population stability index above this is usually called a shift, and worth a new training.
pub const PSI_WARNING: f64 = 0.2;

/// The share that stands in for the share of an empty bin, whose logarithm would be infinite.
pub const SMALLEST_SHARE: f64 = 1e-4;

/// The population stability index of two histograms with the same bins: Σ (a − e)·ln(a / e) over the bins, with a and e
/// the shares of the actual and the expected counts, each at least [`SMALLEST_SHARE`]. 0 is no difference; below 0.1 is
/// usually called small, above 0.2 a shift (Siddiqi, "Credit Risk Scorecards", 2006; its statistical properties:
/// Yurdakul, Naranjo, "Statistical Properties of the Population Stability Index", 2020).
///
/// It is the sum of both Kullback–Leibler divergences. Two samples of n and m rows from one distribution have, with b
/// bins, (b − 1)·(1/n + 1/m) on average: with ten bins and 50 rows 0.18, so the limits are for samples of hundreds.
///
/// `None` if one has no rows, or the numbers of bins differ.
pub fn psi(expected: &[u64], actual: &[u64]) -> Option<f64> {
    let total = |counts: &[u64]| Some(counts.iter().map(|&count| count as f64).sum()).filter(|&sum: &f64| sum > 0.0);
    let (all_expected, all_actual) = (total(expected)?, total(actual)?);
    if expected.len() != actual.len() {
        return None;
    }
    let share = |count: u64, all: f64| (count as f64 / all).max(SMALLEST_SHARE);
    let shares = expected.iter().zip(actual).map(|(&e, &a)| (share(e, all_expected), share(a, all_actual)));
    Some(shares.map(|(e, a)| (a - e) * ln(a / e)).sum())
}

/// The statistic of Kolmogorov and Smirnov: the largest difference between the empirical distribution functions of two
/// samples, 0 to 1 (Smirnov, "Table for Estimating the Goodness of Fit of Empirical Distributions", 1948). NaN is left
/// out; `None` if a sample is empty.
pub fn ks<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> Option<f64> {
    let sorted = |sample: &[T]| {
        let mut values: Vec<f64> = sample.iter().map(|&x| x.into()).filter(|x| !x.is_nan()).collect();
        values.sort_unstable_by(f64::total_cmp);
        Some(values).filter(|values| !values.is_empty())
    };
    let (a, b) = (sorted(a)?, sorted(b)?);
    let (mut i, mut j, mut largest) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        // Both functions step over all values that are equal before they are compared.
        let value = a[i].min(b[j]);
        while i < a.len() && a[i] <= value {
            i += 1;
        }
        while j < b.len() && b[j] <= value {
            j += 1;
        }
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    Some(largest)
}

/// The value that [`ks`] of two samples of `n` and `m` values from one distribution exceeds with probability `alpha`:
/// √(−ln(alpha/2)/2 · (n + m)/(n·m)), the limit for large samples. For 0.05 it is 1.358·√((n + m)/(n·m)).
pub fn ks_limit(n: usize, m: usize, alpha: f64) -> f64 {
    let (n, m) = (n as f64, m as f64);
    (-ln(alpha / 2.0) / 2.0 * (n + m) / (n * m)).sqrt()
}

impl Baseline {
    /// [`psi`] of later values of the feature, in any order: over the deciles of the training, and a bin for missing
    /// values, which adds nothing if none is missing in either. `None` of no values.
    pub fn psi(&self, values: &[f32]) -> Option<f64> {
        let mut present: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
        present.sort_unstable_by(f32::total_cmp);
        let with_missing = |counts: &[u64; 10], missing| counts.iter().copied().chain([missing]).collect::<Vec<u64>>();
        let missing = (values.len() - present.len()) as u64;
        psi(&with_missing(&self.counts, self.missing), &with_missing(&counts_up_to(&present, &self.deciles), missing))
    }
}

impl Forest {
    /// [`ks`] of later scores against those of the training, of which 101 quantiles are kept: up to 0.01 more or less
    /// than with all of them. `None` without scores, or without quantiles.
    pub fn score_drift(&self, scores: &[f64]) -> Option<f64> {
        let training: Vec<f64> = self.score_quantiles().iter().map(|&score| f64::from(score)).collect();
        ks(&training, scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::samples::{Blobs, names};
    use crate::forest::{Options, train};

    fn assert_near(actual: Option<f64>, expected: f64) {
        assert!(actual.is_some_and(|actual| (actual - expected).abs() < 1e-12), "{actual:?} is not {expected}");
    }

    #[test]
    fn psi_of_small_histograms() {
        assert_eq!(psi(&[50, 50], &[5, 5]), Some(0.0));
        // 0.1·ln(0.6/0.5) − 0.1·ln(0.4/0.5) = 0.1·ln 1.5
        assert_near(psi(&[50, 50], &[60, 40]), 0.1 * 1.5f64.ln());
        // (0.1 − 0.2)·ln(1/2) + (0.5 − 0.4)·ln(5/4), the middle bin unchanged.
        assert_near(psi(&[20, 40, 40], &[10, 40, 50]), 0.1 * 2.0f64.ln() + 0.1 * 1.25f64.ln());
        // An empty bin counts as 1e-4.
        assert_near(psi(&[1, 1], &[2, 0]), 0.5 * 2.0f64.ln() + (1e-4 - 0.5) * 2e-4f64.ln());
        assert_eq!((psi(&[0, 0], &[1, 1]), psi(&[1, 1], &[0, 0]), psi(&[1], &[1, 1])), (None, None, None));
    }

    #[test]
    fn psi_of_a_feature() {
        let training: Vec<f32> = (1..=100).map(|i| i as f32).collect();
        let baseline = Baseline::of(training.iter().copied(), &mut Vec::new());
        assert_eq!(baseline.counts, [10; 10]);
        assert_eq!(baseline.psi(&training), Some(0.0));
        // All in the last bin: (1 − 0.1)·ln 10, and nine bins of (1e-4 − 0.1)·ln(1e-3).
        assert_near(baseline.psi(&[1e9; 7]), 0.9 * 10f64.ln() + 9.0 * (1e-4 - 0.1) * 1e-3f64.ln());
        let half_missing: Vec<f32> = training.iter().flat_map(|&x| [x, f32::NAN]).collect();
        assert_near(
            baseline.psi(&half_missing),
            10.0 * 0.05 * 2f64.ln() + (0.5 - SMALLEST_SHARE) * (0.5 / SMALLEST_SHARE).ln(),
        );
        assert_eq!(baseline.psi(&[]), None);
    }

    #[test]
    fn a_dropped_feature_that_begins_to_vary_is_drift() {
        let constant = Baseline::of([3.0f32; 500].into_iter(), &mut Vec::new());
        assert_eq!(constant.psi(&[3.0; 40]), Some(0.0));
        assert!(constant.psi(&[3.0, 4.0, 3.0, 5.0]).is_some_and(|psi| psi > PSI_WARNING));
    }

    #[test]
    fn ks_of_small_samples() {
        assert_near(ks(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0]), 0.0);
        assert_near(ks(&[1.0, 2.0], &[3.0, 4.0, 5.0]), 1.0);
        // At 2 the functions are 2/3 and 1/4.
        assert_near(ks(&[1.0, 2.0, 4.0], &[2.0, 3.0, 4.0, 5.0]), 2.0 / 3.0 - 1.0 / 4.0);
        // Ties count on both sides at once.
        assert_near(ks(&[1.0f32, 1.0, 2.0], &[1.0, 2.0, 2.0, f32::NAN]), 1.0 / 3.0);
        assert_eq!((ks(&[], &[1.0]), ks(&[f64::NAN], &[1.0])), (None, None));
        assert!((ks_limit(100, 100, 0.05) - 0.192_064).abs() < 1e-6);
    }

    #[test]
    fn scores_of_like_rows_do_not_drift_and_those_of_others_do() {
        let blobs = Blobs::new(600, 0, 4, 1);
        let forest = train(&blobs.rows, &names(4), &Options::default()).expect("trains");
        let drift = |rows: &Blobs| forest.score_drift(&forest.score_samples(rows.matrix()).expect("fits"));
        let like = drift(&Blobs::new(600, 0, 4, 2)).expect("has scores");
        assert!(like < 0.09, "{like}");
        let unlike = drift(&Blobs::new(0, 300, 4, 3)).expect("has scores");
        assert!(unlike > 0.5, "{unlike}");
        assert_eq!(forest.score_drift(&[]), None);
    }
}

//! What a feature was like in the training rows.

use serde::{Deserialize, Serialize};

/// Deciles, median and spread of one feature over the training rows. Explanations measure a value by them, [`drift`]
/// compares later rows with them, and the median stands in for a missing value.
///
/// Quantiles lie between the two nearest values in proportion, as those of numpy's `percentile`. Of a feature that was
/// never present everything is 0.
///
/// [`drift`]: super::drift
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// In the feature's unit.
    pub median: f32,
    /// The median distance from the median, in the feature's unit.
    pub mad: f32,
    /// The mean distance from the median, in the feature's unit. Measures the spread where more than half of the rows
    /// have one value and `mad` is 0.
    pub mean_deviation: f32,
    /// The nine values at 10 %, 20 %, …, 90 %, ascending.
    pub deciles: [f32; 9],
    /// Rows up to the first decile, from there up to the second, …, above the last. They differ where rows share a value.
    pub counts: [u64; 10],
    /// Rows without a value.
    pub missing: u64,
}

impl Baseline {
    /// Of all values of a column; `scratch` is overwritten.
    pub(super) fn of(values: impl Iterator<Item = f32>, scratch: &mut Vec<f32>) -> Baseline {
        scratch.clear();
        let mut missing = 0;
        for value in values {
            if value.is_finite() {
                scratch.push(value);
            } else {
                missing += 1;
            }
        }
        scratch.sort_unstable_by(f32::total_cmp);
        let median = quantile(scratch, 0.5) as f32;
        let deciles: [f32; 9] = std::array::from_fn(|i| quantile(scratch, (i + 1) as f64 / 10.0) as f32);
        let counts = counts_up_to(scratch, &deciles);
        for value in scratch.iter_mut() {
            *value = (f64::from(*value) - f64::from(median)).abs() as f32;
        }
        let sum: f64 = scratch.iter().map(|&distance| f64::from(distance)).sum();
        let mean_deviation = (sum / scratch.len().max(1) as f64) as f32;
        let mad = median_of(scratch) as f32;
        // A distance between numbers of both ends of the range overflows.
        let [mad, mean_deviation] = [mad, mean_deviation].map(|spread| spread.min(f32::MAX));
        Baseline { median, mad, mean_deviation, deciles, counts, missing }
    }

    /// How far a value is from the median, in standard deviations if the feature were normally distributed:
    /// (x − median) / (1.4826·MAD), the robust z-score (Iglewicz, Hoaglin, "How to Detect and Handle Outliers", 1993).
    ///
    /// If the MAD is 0, (x − median) / (1.2533·mean distance): √(π/2) times the mean distance is the standard deviation
    /// of a normal distribution. `None` if the feature never varied, or the value is missing.
    pub fn robust_z(&self, value: f32) -> Option<f64> {
        let deviation = match (f64::from(self.mad), f64::from(self.mean_deviation)) {
            (mad, _) if mad > 0.0 => MAD_TO_DEVIATION * mad,
            (_, mean) if mean > 0.0 => MEAN_TO_DEVIATION * mean,
            _ => return None,
        };
        value.is_finite().then(|| (f64::from(value) - f64::from(self.median)) / deviation)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let finite = self.deciles.iter().chain([&self.median, &self.mad, &self.mean_deviation]).all(|x| x.is_finite());
        if !finite || self.mad < 0.0 || self.mean_deviation < 0.0 {
            return Err("a quantile is not finite, or a spread negative".to_owned());
        }
        if !self.deciles.is_sorted() {
            return Err("the deciles do not ascend".to_owned());
        }
        Ok(())
    }
}

/// 1/Φ⁻¹(3/4), rounded as it is customary.
const MAD_TO_DEVIATION: f64 = 1.4826;
/// √(π/2), rounded likewise.
const MEAN_TO_DEVIATION: f64 = 1.2533;

/// The value at a share of ascending values, between the two nearest in proportion; 0 of none.
pub(super) fn quantile<T: Copy + Into<f64>>(sorted: &[T], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let (low, high): (f64, f64) = (sorted[below].into(), sorted[(below + 1).min(last)].into());
    low + (high - low) * (place - below as f64)
}

/// As [`quantile`] at one half, of values in any order, without sorting them all.
fn median_of(values: &mut [f32]) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let (below, &mut middle, _) = values.select_nth_unstable_by(last.div_ceil(2), f32::total_cmp);
    match below.iter().copied().max_by(f32::total_cmp) {
        Some(before) if !last.is_multiple_of(2) => (f64::from(before) + f64::from(middle)) / 2.0,
        _ => f64::from(middle),
    }
}

/// How many ascending values are in each interval (cut i−1, cut i]; the last has those above all cuts.
pub(super) fn counts_up_to(sorted: &[f32], cuts: &[f32; 9]) -> [u64; 10] {
    let up_to = |i: usize| cuts.get(i).map_or(sorted.len(), |cut| sorted.partition_point(|value| value <= cut)) as u64;
    std::array::from_fn(|i| up_to(i) - if i == 0 { 0 } else { up_to(i - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32]) -> Baseline {
        Baseline::of(values.iter().copied(), &mut Vec::new())
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.percentile([1, 2, 4, 8], [10, 25, 50, 90])
        let quantiles = [0.1, 0.25, 0.5, 0.9].map(|share| quantile(&[1.0f32, 2.0, 4.0, 8.0], share));
        let differences = quantiles.iter().zip([1.3, 1.75, 3.0, 6.8]).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f64::max) < 1e-12, "{quantiles:?}");
        assert_eq!(quantile::<f32>(&[], 0.5), 0.0);
        for values in [&[][..], &[5.0], &[9.0, 1.0], &[4.0, 8.0, 1.0], &[8.0, 2.0, 1.0, 4.0], &[3.0; 6]] {
            let mut sorted = values.to_vec();
            sorted.sort_unstable_by(f32::total_cmp);
            assert_eq!(median_of(&mut values.to_vec()), quantile(&sorted, 0.5));
        }
    }

    #[test]
    fn a_column_is_summed_up() {
        let baseline = of(&[4.0, f32::NAN, 1.0, 2.0, f32::INFINITY, 9.0, 3.0]);
        assert_eq!((baseline.median, baseline.mad, baseline.missing), (3.0, 1.0, 2));
        assert_eq!(baseline.mean_deviation, 2.0);
        assert_eq!(baseline.counts.iter().sum::<u64>(), 5);
        assert_eq!(baseline.robust_z(3.0 + 1.4826), Some((f64::from(3.0f32 + 1.4826) - 3.0) / 1.4826));
        assert_eq!(baseline.robust_z(f32::NAN), None);
        baseline.check().expect("what is computed is sound");
    }

    #[test]
    fn a_rare_value_is_measured_by_the_mean_distance() {
        let mut values = [0.0f32; 10];
        values[3] = 1.0;
        let baseline = of(&values);
        assert_eq!((baseline.mad, baseline.mean_deviation), (0.0, 0.1));
        assert_eq!(baseline.counts, [9, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let z = baseline.robust_z(1.0).expect("the feature varied");
        assert!((z - 7.978_9).abs() < 1e-3, "{z}");
    }

    #[test]
    fn degenerate_columns_have_a_baseline() {
        let absent = of(&[f32::NAN; 3]);
        assert_eq!((absent.median, absent.missing, absent.counts), (0.0, 3, [0; 10]));
        assert_eq!(of(&[5.0; 4]).robust_z(6.0), None);
        for baseline in [absent, of(&[f32::MAX, f32::MIN, f32::MAX, f32::MIN]), of(&[])] {
            baseline.check().expect("what is computed is sound");
        }
    }
}

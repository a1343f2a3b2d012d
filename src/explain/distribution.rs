//! How the values of a feature are spread over the groups of a window, and where one value stands among them.

use serde::Serialize;

/// √(1/2)/erf⁻¹(1/2): times the MAD it is the standard deviation of a normal distribution.
const MAD_TO_DEVIATION: f64 = 1.4826;

/// √(π/2): times the mean distance from the median it is that, too.
const DISTANCE_TO_DEVIATION: f64 = 1.2533;

/// The values of one feature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// In ascending order, all finite.
    sorted: Vec<f64>,
}

/// What is said of the values of a feature in other groups. All numbers are in the feature's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Groups that have a value.
    pub groups: usize,
    /// 5 % of the groups are below.
    pub p05: f64,
    /// A quarter is below.
    pub p25: f64,
    /// Half of them are below.
    pub median: f64,
    /// A quarter is above.
    pub p75: f64,
    /// 5 % are above.
    pub p95: f64,
    /// The median distance from the median.
    pub mad: f64,
}

impl Distribution {
    /// Of these values; those that are not finite are left out.
    pub fn new(mut values: Vec<f64>) -> Self {
        values.retain(|value| value.is_finite());
        values.sort_unstable_by(f64::total_cmp);
        Self { sorted: values }
    }

    /// The summary; `None` if there are no values.
    pub fn summary(&self) -> Option<Summary> {
        let median = quantile(&self.sorted, 0.5)?;
        Some(Summary {
            groups: self.sorted.len(),
            p05: quantile(&self.sorted, 0.05)?,
            p25: quantile(&self.sorted, 0.25)?,
            median,
            p75: quantile(&self.sorted, 0.75)?,
            p95: quantile(&self.sorted, 0.95)?,
            mad: self.mad(median)?,
        })
    }

    /// The median distance from the median.
    fn mad(&self, median: f64) -> Option<f64> {
        let mut distances: Vec<f64> = self.sorted.iter().map(|value| (value - median).abs()).collect();
        distances.sort_unstable_by(f64::total_cmp);
        quantile(&distances, 0.5)
    }

    /// The share of groups whose value is smaller, and half of those whose value is the same: 0 to 1.
    pub fn rank(&self, value: f64) -> Option<f64> {
        let below = self.sorted.partition_point(|other| *other < value);
        let upto = self.sorted.partition_point(|other| *other <= value);
        (!self.sorted.is_empty()).then(|| (below + upto) as f64 / 2.0 / self.sorted.len() as f64)
    }

    /// How many standard deviations a value is from the median if the feature were normally distributed: the robust z-score
    /// (x − median) / (1.4826·MAD) of Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993. If more than half of
    /// the groups have one value the MAD is 0, and the mean distance from the median stands in, as in the reasons of
    /// `detect.forest`. `None` if all have the same value and this is another, so that there is no measure.
    pub fn z(&self, value: f64) -> Option<f64> {
        let median = quantile(&self.sorted, 0.5)?;
        let distance = value - median;
        if distance == 0.0 {
            return Some(0.0);
        }
        let mad = self.mad(median)?;
        let mean = self.sorted.iter().map(|other| (other - median).abs()).sum::<f64>() / self.sorted.len() as f64;
        let deviation = if mad > 0.0 { MAD_TO_DEVIATION * mad } else { DISTANCE_TO_DEVIATION * mean };
        (deviation > 0.0).then(|| distance / deviation)
    }
}

/// The value below which this share of sorted values is, interpolated between neighbours (Hyndman and Fan's type 7).
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = share * last as f64;
    let (low, high) = (*sorted.get(at.floor() as usize)?, *sorted.get(at.ceil() as usize)?);
    Some(if low == high { low } else { low + (high - low) * at.fract() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_known_sample() {
        // numpy: percentile(x, [5, 25, 50, 75, 95]) of 1 2 3 4 100 is 1.2 2 3 4 80.8; MAD 1.
        let values = Distribution::new(vec![100.0, 3.0, 1.0, 2.0, 4.0, f64::NAN]);
        let summary = values.summary().expect("values");
        assert_eq!((summary.groups, summary.p25, summary.median, summary.p75, summary.mad), (5, 2.0, 3.0, 4.0, 1.0));
        assert!((summary.p05 - 1.2).abs() < 1e-12 && (summary.p95 - 80.8).abs() < 1e-12);
        assert_eq!((values.rank(3.0), values.rank(0.0), values.rank(1000.0)), (Some(0.5), Some(0.0), Some(1.0)));
        let z = values.z(100.0).expect("a measure");
        assert!((z - 97.0 / 1.4826).abs() < 1e-9, "{z}");
    }

    #[test]
    fn where_there_is_no_measure_there_is_no_z() {
        let same = Distribution::new(vec![2.0; 9]);
        assert_eq!((same.z(2.0), same.z(3.0)), (Some(0.0), None));
        let mostly = Distribution::new([vec![0.0; 9], vec![10.0]].concat());
        assert!((mostly.z(10.0).expect("a measure") - 10.0 / 1.2533).abs() < 1e-9);
        let none = Distribution::default();
        assert_eq!((none.summary(), none.rank(1.0), none.z(1.0)), (None, None, None));
    }

    proptest! {
        #[test]
        fn summaries_are_ordered_and_ranks_grow(values in prop::collection::vec(-1e6..1e6f64, 1..50), a in -1e6..1e6f64, b in -1e6..1e6f64) {
            let distribution = Distribution::new(values);
            let s = distribution.summary().expect("values");
            prop_assert!(s.p05 <= s.p25 && s.p25 <= s.median && s.median <= s.p75 && s.p75 <= s.p95 && s.mad >= 0.0);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(distribution.rank(low) <= distribution.rank(high));
            prop_assert!(distribution.z(low) <= distribution.z(high) || s.mad == 0.0);
        }
    }
}

//! First digits of numbers, counted: how far they are from Benford's law.

use std::sync::LazyLock;

/// How many numbers there must be.
pub(super) const LEAST: u32 = 10;

/// The smallest and the greatest power of ten whose multiples by 1 to 9 are looked at: all that are normal numbers.
const POWERS: std::ops::RangeInclusive<i32> = -307..=308;

/// d · 10^k for all d from 1 to 9 and k of [`POWERS`], in order, each the nearest number to its decimal form. So the first digit
/// is that of the shortest decimal form of a number: 0.3 begins with 3, although it is a little less than 3/10.
static STEPS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let step = |power: i32| (1..=9).filter_map(move |digit: u8| format!("{digit}e{power}").parse().ok());
    POWERS.flat_map(step).filter(|step: &f64| step.is_finite()).collect()
});

/// How many of a group's numbers begin with each digit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Digits([u32; 9]);

impl Digits {
    /// Counts a number; its sign does not matter. Zero, infinity and what is no number have no first digit.
    pub(super) fn add(&mut self, number: f64) {
        if let Some(digit) = first_digit(number) {
            self.0[digit - 1] = self.0[digit - 1].saturating_add(1);
        }
    }

    /// Σ over the digits d of (share - P)² / P, where P = log10(1 + 1/d); `None` below [`LEAST`] numbers.
    ///
    /// Benford, The law of anomalous numbers, Proc. Am. Philos. Soc. 78 (1938).
    pub(super) fn chi2(&self) -> Option<f64> {
        let n: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        if n < u64::from(LEAST) {
            return None;
        }
        let term = |(digit, count): (f64, &u32)| {
            let expected = (1.0 + 1.0 / digit).log10();
            (f64::from(*count) / n as f64 - expected).powi(2) / expected
        };
        Some((1..=9).map(f64::from).zip(&self.0).map(term).sum())
    }
}

/// The first digit that is not 0 of a number's decimal form.
fn first_digit(number: f64) -> Option<usize> {
    if !number.is_finite() {
        return None;
    }
    let below = STEPS.partition_point(|step| *step <= number.abs());
    (below > 0).then(|| (below - 1) % 9 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_those_of_the_decimal_form() {
        for (number, digit) in [(0.3, 3), (0.007, 7), (-41.5, 4), (1e300, 1), (9.999, 9), (1.797e308, 1), (5000.0, 5)] {
            assert_eq!(first_digit(number), Some(digit), "{number}");
        }
        for none in [0.0, -0.0, f64::NAN, f64::INFINITY, 1e-320] {
            assert_eq!(first_digit(none), None, "{none}");
        }
    }

    #[test]
    fn equal_numbers_are_far_from_the_law_and_its_shares_are_on_it() {
        let mut same = Digits::default();
        (0..9).for_each(|_| same.add(0.2));
        assert_eq!(same.chi2(), None);
        same.add(200.0);
        let law = (1.5_f64).log10();
        let others = 1.0 - law;
        let expected = (1.0 - law).powi(2) / law + others;
        assert!((same.chi2().expect("ten numbers") - expected).abs() < 1e-12);
        let mut lawful = Digits::default();
        (0..10_000).for_each(|n| lawful.add(10_f64.powf(f64::from(n) / 10_000.0)));
        assert!(lawful.chi2().expect("many numbers") < 1e-6);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(6), ..ProptestConfig::default() })]

        #[test]
        fn the_statistic_is_that_of_the_written_numbers(ns in prop::collection::vec(0_i64..10_000_000_000, 0..200)) {
            let mut digits = Digits::default();
            let mut counts = [0.0; 9];
            for n in &ns {
                let number = *n as f64 / 1e6;
                digits.add(number);
                let written = format!("{number:e}");
                if let Some(digit @ 1..=9) = written.chars().next().and_then(|c| c.to_digit(10)) {
                    counts[digit as usize - 1] += 1.0;
                }
            }
            let n: f64 = counts.iter().sum();
            let expected = (n >= 10.0).then(|| {
                (1..10).map(|d| {
                    let p = (f64::from(d + 1) / f64::from(d)).log10();
                    (counts[d as usize - 1] / n - p).powi(2) / p
                }).sum::<f64>()
            });
            match (digits.chi2(), expected) {
                (Some(a), Some(b)) => prop_assert!((a - b).abs() <= 1e-9 * (1.0 + b)),
                (a, b) => prop_assert_eq!(a, b),
            }
        }
    }
}

//! Which value follows which, counted: the entropy of a value given the one before it.

use super::distinct::Tally;

/// The values of one group in their order, as a Markov chain of the first order.
#[derive(Clone, Debug, Default)]
pub(super) struct Transitions {
    last: Option<u64>,
    /// How often each value is followed by another.
    from: Tally,
    pairs: Tally,
}

impl Transitions {
    /// Adds the next value by its hash. How many of the two tallies have just opened their bucket of all values beyond `limit`.
    pub(super) fn insert(&mut self, hash: u64, limit: usize) -> usize {
        let Some(last) = self.last.replace(hash) else { return 0 };
        usize::from(self.from.insert(last, limit)) + usize::from(self.pairs.insert(pair(last, hash), limit))
    }

    /// H(pairs) - H(first of the pairs) in bits; `None` without a pair. Beyond the limit pairs share a bucket before values do, so
    /// that the difference can be too small; it is not below 0.
    pub(super) fn entropy(&self) -> Option<f64> {
        Some((self.pairs.entropy()? - self.from.entropy()?).max(0.0))
    }
}

/// A hash of two values in their order.
fn pair(first: u64, second: u64) -> u64 {
    super::hash::mix(first.rotate_left(23) ^ super::hash::mix(second))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::aggregate::hash::mix;

    fn of(values: &[u64], limit: usize) -> (Option<f64>, usize) {
        let mut transitions = Transitions::default();
        let opened = values.iter().map(|value| transitions.insert(mix(*value), limit)).sum();
        (transitions.entropy(), opened)
    }

    #[test]
    fn a_cycle_has_no_entropy_and_a_coin_has_one_bit() {
        assert_eq!(of(&[], 16), (None, 0));
        assert_eq!(of(&[1], 16), (None, 0));
        assert_eq!(of(&[1, 2, 3, 1, 2, 3, 1, 2, 3], 16).0, Some(0.0));
        // After 0 comes 0 or 1 equally often, and after 1 too.
        let entropy = of(&[0, 0, 1, 1, 0], 16).0.expect("pairs");
        assert!((entropy - 1.0).abs() < 1e-12, "{entropy}");
    }

    #[test]
    fn beyond_the_limit_pairs_share_a_bucket() {
        let values: Vec<u64> = (0..200).collect();
        let (entropy, opened) = of(&values, 50);
        assert_eq!((entropy, opened), (Some(0.0), 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(6), ..ProptestConfig::default() })]

        #[test]
        fn the_entropy_is_the_mean_over_the_chains_states(values in prop::collection::vec(0_u64..12, 0..400)) {
            let mut rows: BTreeMap<u64, BTreeMap<u64, f64>> = BTreeMap::new();
            for two in values.windows(2) {
                *rows.entry(two[0]).or_default().entry(two[1]).or_default() += 1.0;
            }
            let n = values.len().saturating_sub(1) as f64;
            let expected: f64 = rows.values().map(|next| {
                let of_state: f64 = next.values().sum();
                of_state / n * next.values().map(|c| -c / of_state * (c / of_state).log2()).sum::<f64>()
            }).sum();
            match of(&values, 4096).0 {
                Some(entropy) => prop_assert!((entropy - expected).abs() < 1e-9, "{} {}", entropy, expected),
                None => prop_assert!(values.len() < 2),
            }
        }
    }
}

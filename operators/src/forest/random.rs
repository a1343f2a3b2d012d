//! Random numbers that are the same on every machine.

/// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), with the constants
/// of Vigna's public-domain `splitmix64.c`.
pub(super) struct Random {
    state: u64,
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The numbers of one tree: they do not depend on how many were drawn for the trees before.
    pub(super) fn stream(seed: u64, tree: u64) -> Random {
        Random::new(mix(seed.wrapping_add(mix(tree.wrapping_add(STEP)))))
    }

    pub(super) fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// Uniform in [0, 1), a multiple of 2^−53.
    pub(super) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0…`bound` − 1; 0 for a bound of 0 or 1. Without bias: Lemire, "Fast Random Integer Generation in an
    /// Interval", ACM TOMACS 29(1), 2019.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        if bound <= 1 {
            return 0;
        }
        let bound = u64::from(bound);
        let reject_below = (1 << 32) % bound;
        loop {
            let product = (self.word() >> 32) * bound;
            if product & 0xffff_ffff >= reject_below {
                return (product >> 32) as u32;
            }
        }
    }

    /// Normal with mean 0 and variance 1: algorithm N of Karney, "Sampling Exactly from the Normal Distribution", ACM
    /// TOMS 42(1), 2016. It only compares uniform numbers, where other methods need a logarithm.
    pub(super) fn normal(&mut self) -> f64 {
        loop {
            let mut whole = 0u32;
            while self.survives(0.5) {
                whole += 1;
            }
            if !(0..whole * whole.saturating_sub(1)).all(|_| self.survives(0.5)) {
                continue;
            }
            let (whole_part, rest) = (f64::from(whole), self.unit());
            let power = rest * (2.0 * whole_part + rest) / (2.0 * whole_part + 2.0);
            if (0..=whole).all(|_| self.survives(power)) {
                let size = whole_part + rest;
                return if self.word() >> 63 == 0 { size } else { -size };
            }
        }
    }

    /// True with probability e^−power, for a power in [0, 1]: von Neumann's method. The chance that power, u1, u2, …, un
    /// descend is power^n/n!, and the alternating sum of these is the power series of the exponential.
    fn survives(&mut self, power: f64) -> bool {
        let (mut last, mut even) = (power, true);
        loop {
            let next = self.unit();
            if next >= last {
                return even;
            }
            (last, even) = (next, !even);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_reference_implementation() {
        // splitmix64.c with x = 1234567.
        let mut random = Random::new(1_234_567);
        let words: Vec<u64> = (0..5).map(|_| random.word()).collect();
        assert_eq!(
            words,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn below_is_uniform() {
        let mut random = Random::new(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7) as usize] += 1;
        }
        // Six degrees of freedom: χ² is below 22.5 in 99.9 % of runs.
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 22.5, "{counts:?}");
        assert_eq!((random.below(0), random.below(1)), (0, 0));
    }

    #[test]
    fn normal_numbers_have_the_moments_of_the_normal_distribution() {
        let mut random = Random::new(2);
        let drawn: Vec<f64> = (0..200_000).map(|_| random.normal()).collect();
        let moment = |power: i32| drawn.iter().map(|x| x.powi(power)).sum::<f64>() / drawn.len() as f64;
        // Four standard errors each: √(1/n), √(2/n), √(15/n), √(96/n).
        assert!(moment(1).abs() < 0.009, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.013, "{}", moment(2));
        assert!(moment(3).abs() < 0.035, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.088, "{}", moment(4));
        // Φ(−1.96) = 0.024998.
        let tail = drawn.iter().filter(|x| x.abs() > 1.959_964).count() as f64 / drawn.len() as f64;
        assert!((tail - 0.05).abs() < 0.002, "{tail}");
    }
}

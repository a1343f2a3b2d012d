//! How many refused lines of a source leave as rows. A line of one byte becomes a row of a hundred, so whoever may send
//! lines could fill the log and every sink with them.

use engine::batch::Time;

/// Lets so many pass in each second.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    most: u32,
    second: Time,
    passed: u32,
}

impl Limit {
    /// Nothing has passed yet.
    pub fn new(most: u32) -> Self {
        Self { most, second: 0, passed: 0 }
    }

    /// Whether one more passes at a time in ms.
    pub fn passes(&mut self, time: Time) -> bool {
        let second = time / 1_000;
        if second != self.second {
            (self.second, self.passed) = (second, 0);
        }
        let passes = self.passed < self.most;
        self.passed += u32::from(passes);
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_share() {
        let mut limit = Limit::new(2);
        let passed: Vec<bool> = [0, 1, 999, 1_000, 1_001, 1_999, 5_000].map(|ms| limit.passes(ms)).to_vec();
        assert_eq!(passed, [true, true, false, true, true, false, true]);
        assert!(!Limit::new(0).passes(7));
    }
}

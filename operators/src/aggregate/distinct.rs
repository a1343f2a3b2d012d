//! Distinct values of one group, by 64-bit hash: exact up to a limit, estimated beyond it.

use hashbrown::HashTable;

/// Up to how many values a list is searched from end to end instead of hashed.
const LIST: usize = 24;

/// Bits of a hash that choose a HyperLogLog register: 4096 registers, standard error 1.04/√4096 = 1.6 %.
const INDEX_BITS: u32 = 12;
const REGISTERS: usize = 1 << INDEX_BITS;
/// The highest rank: all of the other 52 bits are zero.
const MAX_RANK: usize = 64 - INDEX_BITS as usize + 1;

/// The set of a group's values.
#[derive(Clone, Debug, Default)]
pub(super) enum Distinct {
    #[default]
    Empty,
    One(u64),
    List(Vec<u64>),
    Table(Box<HashTable<u64>>),
    Estimate(Box<HyperLogLog>),
}

impl Distinct {
    /// Adds a value's hash. True if the set has just become an estimate because it would exceed `limit`.
    pub(super) fn insert(&mut self, hash: u64, limit: usize) -> bool {
        match self {
            Self::Empty if limit == 0 => return self.estimate(std::iter::empty(), hash),
            Self::Empty => *self = Self::One(hash),
            Self::One(only) => {
                let only = *only;
                if only != hash {
                    if limit < 2 {
                        return self.estimate(std::iter::once(only), hash);
                    }
                    *self = Self::List(vec![only, hash]);
                }
            }
            Self::List(list) => {
                if list.contains(&hash) {
                    return false;
                }
                if list.len() >= limit {
                    let list = std::mem::take(list);
                    return self.estimate(list.into_iter(), hash);
                }
                if list.len() < LIST {
                    list.push(hash);
                    return false;
                }
                let mut table = HashTable::with_capacity(2 * LIST);
                for value in list.iter().copied().chain([hash]) {
                    table.insert_unique(value, value, |v| *v);
                }
                *self = Self::Table(Box::new(table));
            }
            Self::Table(table) => {
                if table.find(hash, |v| *v == hash).is_some() {
                    return false;
                }
                if table.len() >= limit {
                    let table = std::mem::take(table);
                    return self.estimate(table.into_iter(), hash);
                }
                table.insert_unique(hash, hash, |v| *v);
            }
            Self::Estimate(estimate) => estimate.insert(hash),
        }
        false
    }

    fn estimate(&mut self, values: impl Iterator<Item = u64>, hash: u64) -> bool {
        let mut estimate = Box::new(HyperLogLog::new());
        for value in values.chain([hash]) {
            estimate.insert(value);
        }
        *self = Self::Estimate(estimate);
        true
    }

    /// How many distinct values there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::List(list) => list.len() as u64,
            Self::Table(table) => table.len() as u64,
            Self::Estimate(estimate) => estimate.count(),
        }
    }
}

/// A HyperLogLog sketch (Flajolet et al. 2007) with Ertl's estimator (arXiv:1702.01284), which needs no correction
/// for small or large counts.
#[derive(Clone, Debug)]
pub(super) struct HyperLogLog {
    registers: [u8; REGISTERS],
    /// How many registers have each rank.
    histogram: [u16; MAX_RANK + 1],
}

impl HyperLogLog {
    fn new() -> Self {
        let mut histogram = [0; MAX_RANK + 1];
        histogram[0] = REGISTERS as u16;
        Self { registers: [0; REGISTERS], histogram }
    }

    fn insert(&mut self, hash: u64) {
        let register = &mut self.registers[(hash >> (64 - INDEX_BITS)) as usize];
        let rank = ((hash << INDEX_BITS).leading_zeros() as usize + 1).min(MAX_RANK);
        if rank > usize::from(*register) {
            self.histogram[usize::from(*register)] -= 1;
            self.histogram[rank] += 1;
            *register = rank as u8;
        }
    }

    fn count(&self) -> u64 {
        let m = REGISTERS as f64;
        let share = |rank: usize| f64::from(self.histogram[rank]);
        let mut z = m * tau(1.0 - share(MAX_RANK) / m);
        for rank in (1..MAX_RANK).rev() {
            z = 0.5 * (z + share(rank));
        }
        z += m * sigma(share(0) / m);
        (m * m / (2.0 * std::f64::consts::LN_2 * z)).round() as u64
    }
}

/// σ(x) = x + Σ x^(2^k) 2^(k-1), algorithm 6 of Ertl's paper.
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// τ(x) = (1 - x - Σ (1 - x^(2^-k))² 2^-k) / 3, algorithm 6 of Ertl's paper.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// How often a group has had each value; enough for the Shannon entropy.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    counts: Counts,
    n: u64,
    /// Σ c log2 c over the values' counts c, kept up to date so that the entropy is known without a pass.
    weighted: f64,
    /// The greatest count of a value; the bucket of the rest is none.
    most: u64,
}

#[derive(Clone, Debug)]
enum Counts {
    List(Vec<(u64, u64)>),
    Table(Box<Table>),
}

#[derive(Clone, Debug, Default)]
struct Table {
    counts: HashTable<(u64, u64)>,
    /// Rows with values beyond the limit: they count as one value.
    rest: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Tally {
    /// Counts a value. True if it is the first that shares the bucket of all values beyond `limit`.
    pub(super) fn insert(&mut self, hash: u64, limit: usize) -> bool {
        let counted = self.counts.increment(hash, limit);
        self.n += 1;
        self.weighted += step(counted.before);
        if !counted.is_rest {
            self.most = self.most.max(counted.before + 1);
        }
        counted.is_rest && counted.before == 0
    }

    /// The share of the most frequent value; `None` without values.
    pub(super) fn mode_share(&self) -> Option<f64> {
        (self.n > 0).then(|| self.most as f64 / self.n as f64)
    }

    /// H = log2 n - (Σ c log2 c) / n bits; `None` without values.
    pub(super) fn entropy(&self) -> Option<f64> {
        if self.n == 0 {
            return None;
        }
        if self.counts.len() == 1 {
            return Some(0.0);
        }
        let n = self.n as f64;
        Some((n.log2() - self.weighted / n).max(0.0))
    }
}

/// (c + 1) log2 (c + 1) - c log2 c
fn step(c: u64) -> f64 {
    let c = c as f64;
    let before = if c > 0.0 { c * c.log2() } else { 0.0 };
    (c + 1.0) * (c + 1.0).log2() - before
}

/// What an occurrence was counted for.
struct Counted {
    /// The count before.
    before: u64,
    /// Whether it is that of all values beyond the limit.
    is_rest: bool,
}

impl Counts {
    fn increment(&mut self, hash: u64, limit: usize) -> Counted {
        let of_value = |before| Counted { before, is_rest: false };
        if let Self::List(list) = self {
            if let Some((_, count)) = list.iter_mut().find(|(value, _)| *value == hash) {
                *count += 1;
                return of_value(*count - 1);
            }
            if list.len() < LIST.min(limit) {
                list.push((hash, 1));
                return of_value(0);
            }
            let mut table = Table::default();
            for entry in list.drain(..) {
                table.counts.insert_unique(entry.0, entry, |e| e.0);
            }
            *self = Self::Table(Box::new(table));
        }
        let Self::Table(table) = self else { return of_value(0) };
        if let Some((_, count)) = table.counts.find_mut(hash, |e| e.0 == hash) {
            *count += 1;
            return of_value(*count - 1);
        }
        if table.counts.len() < limit {
            table.counts.insert_unique(hash, (hash, 1), |e| e.0);
            return of_value(0);
        }
        table.rest += 1;
        Counted { before: table.rest - 1, is_rest: true }
    }

    fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Table(table) => table.counts.len() + usize::from(table.rest > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::aggregate::hash::mix;

    #[test]
    fn beyond_the_limit_the_count_is_an_estimate_within_five_percent() {
        for n in [5_000_u64, 20_000, 300_000] {
            let mut set = Distinct::default();
            let estimated = (0..n).filter(|v| set.insert(mix(*v), 4096)).count();
            assert_eq!(estimated, 1);
            let error = (set.len() as f64 - n as f64).abs() / n as f64;
            assert!(error < 0.05, "{n}: {}", set.len());
        }
    }

    #[test]
    fn values_beyond_the_limit_share_a_bucket() {
        let mut tally = Tally::default();
        let opened = (0..100).filter(|v| tally.insert(mix(*v), 50)).count();
        assert_eq!(opened, 1);
        let expected = -(50.0 * 0.01 * 0.01_f64.log2() + 0.5 * 0.5_f64.log2());
        assert!((tally.entropy().expect("not empty") - expected).abs() < 1e-12);
        assert_eq!(tally.mode_share(), Some(0.01), "the bucket is no value");
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(6), ..ProptestConfig::default() })]

        #[test]
        fn sets_and_tallies_are_exact_below_the_limit(values in prop::collection::vec(0_u64..200, 1..2000)) {
            let (mut set, mut tally) = (Distinct::default(), Tally::default());
            for value in &values {
                prop_assert!(!set.insert(mix(*value), 4096) && !tally.insert(mix(*value), 4096));
            }
            prop_assert_eq!(set.len() as usize, values.iter().collect::<HashSet<_>>().len());
            let mut counts: HashMap<u64, f64> = HashMap::new();
            for value in &values {
                *counts.entry(*value).or_default() += 1.0;
            }
            let n = values.len() as f64;
            let most = counts.values().copied().fold(0.0, f64::max);
            prop_assert!((tally.mode_share().expect("not empty") - most / n).abs() < 1e-12);
            let expected: f64 = counts.values().map(|c| -c / n * (c / n).log2()).sum();
            prop_assert!((tally.entropy().expect("not empty") - expected).abs() < 1e-9);
        }
    }
}

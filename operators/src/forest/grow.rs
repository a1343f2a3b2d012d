//! How one tree is grown.

use super::math::floor_f32;
use super::random::Random;
use super::score::project;
use super::trees::{Columns, Term};

/// What all trees of a forest have in common.
pub(super) struct Settings<'a> {
    /// Values of a row.
    pub(super) width: usize,
    /// The columns that splits may use.
    pub(super) varying: &'a [u16],
    /// The most splits in a row.
    pub(super) depth: usize,
    /// Features of a split; 0 for a plain forest.
    pub(super) dimensions: usize,
}

/// Grows a tree from a sample of prepared rows.
///
/// A node with more than two rows that differ, and above the depth limit, is split in two:
///
/// - plain (Liu, Ting, Zhou 2008): by a feature chosen evenly among those that vary in the node, at a threshold even in
///   [smallest, largest), rounded down to 32 bits; equal or smaller values go left.
/// - extended (Hariri et al. 2019): by a sum over up to `dimensions` features, chosen evenly among those that vary in
///   the node, with normally distributed weights. As isotree does with `ndim`, `coefs="normal"` and its default
///   `standardize_data=True`, and unlike the paper, each weight is divided by the feature's standard deviation in the
///   node, so that units do not matter, and the threshold is even between the smallest and the largest sum, so that no
///   side is empty. isotree's `penalize_range` and its guided splits (`prob_pick_*`) have no counterpart here, and
///   features are measured from the forest's medians where isotree takes the node's means, which changes no split.
///
/// Two rows are left together: c(2) = 1 is the length that a split would add, so no score or credit changes.
pub(super) fn grow(sample: &[f32], settings: &Settings<'_>, random: Random) -> Columns {
    let mut rows: Vec<u32> = (0..(sample.len() / settings.width) as u32).collect();
    let candidates = settings.varying.to_vec();
    let sums = vec![0.0; rows.len()];
    let mut grower = Grower { sample, settings, random, candidates, sums, tree: Columns::default() };
    grower.node(&mut rows, 0);
    grower.tree
}

struct Grower<'a> {
    sample: &'a [f32],
    settings: &'a Settings<'a>,
    random: Random,
    /// The varying columns, in an order that is drawn anew for each node.
    candidates: Vec<u16>,
    /// Sums of an extended split, in the order of the node's rows.
    sums: Vec<f64>,
    tree: Columns,
}

impl Grower<'_> {
    /// Adds the subtree of some rows, and puts those of its left part first.
    fn node(&mut self, rows: &mut [u32], depth: usize) {
        let open = rows.len() > 2 && depth < self.settings.depth;
        let left = match self.settings.dimensions {
            _ if !open => None,
            0 => self.split(rows),
            _ => self.split_extended(rows),
        };
        let Some(left) = left else {
            self.tree.shape.push('0');
            self.tree.rows.push(rows.len() as u32);
            return;
        };
        let (left, right) = rows.split_at_mut(left);
        self.node(left, depth + 1);
        self.node(right, depth + 1);
    }

    fn value(&self, row: u32, feature: u16) -> f32 {
        self.sample[row as usize * self.settings.width + usize::from(feature)]
    }

    /// Draws candidates until one varies over the rows; `drawn` is how many were drawn before for this node.
    fn varying_feature(&mut self, rows: &[u32], drawn: &mut usize) -> Option<(u16, f32, f32)> {
        while *drawn < self.candidates.len() {
            let rest = (self.candidates.len() - *drawn) as u32;
            self.candidates.swap(*drawn, *drawn + self.random.below(rest) as usize);
            let feature = self.candidates[*drawn];
            *drawn += 1;
            let values = rows.iter().map(|&row| self.value(row, feature));
            let (low, high) = values.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(x), high.max(x)));
            if low < high {
                return Some((feature, low, high));
            }
        }
        None
    }

    /// Splits by one feature; gives the number of rows on the left.
    fn split(&mut self, rows: &mut [u32]) -> Option<usize> {
        let (feature, low, high) = self.varying_feature(rows, &mut 0)?;
        let threshold = threshold(f64::from(low), f64::from(high), self.random.unit())?;
        self.tree.shape.push('1');
        self.tree.features.push(feature);
        self.tree.thresholds.push(threshold);
        Some(partition(rows, |row| self.value(row, feature) <= threshold))
    }

    /// Splits by a sum of features; gives the number of rows on the left.
    fn split_extended(&mut self, rows: &mut [u32]) -> Option<usize> {
        let terms = self.direction(rows)?;
        let width = self.settings.width;
        for (sum, &row) in self.sums.iter_mut().zip(&*rows) {
            *sum = project(&terms, &self.sample[row as usize * width..][..width]);
        }
        let ends = |(low, high): (f64, f64), &sum: &f64| (low.min(sum), high.max(sum));
        let (low, high) = self.sums[..rows.len()].iter().fold((f64::MAX, f64::MIN), ends);
        let threshold = threshold(low, high, self.random.unit())?;
        self.tree.shape.push('1');
        self.tree.features.extend(terms.iter().map(|term| term.feature));
        self.tree.weights.extend(terms.iter().map(|term| term.weight));
        self.tree.thresholds.push(threshold);
        let left = |row| project(&terms, &self.sample[row as usize * width..][..width]) <= f64::from(threshold);
        Some(partition(rows, left))
    }

    /// A random direction through features that vary, with as many terms as a node has.
    fn direction(&mut self, rows: &[u32]) -> Option<Vec<Term>> {
        let mut terms = Vec::with_capacity(self.settings.dimensions);
        let mut drawn = 0;
        while terms.len() < self.settings.dimensions {
            let Some((feature, ..)) = self.varying_feature(rows, &mut drawn) else { break };
            // Of a feature that varies by less than 1e-38 the weight would be infinite.
            let weight = (self.random.normal() / self.deviation(rows, feature)) as f32;
            terms.push(Term { weight: weight.clamp(f32::MIN, f32::MAX), feature });
        }
        // Where fewer features vary, terms without weight fill up.
        let fill = Term { weight: 0.0, feature: terms.first()?.feature };
        terms.resize(self.settings.dimensions, fill);
        Some(terms)
    }

    fn deviation(&self, rows: &[u32], feature: u16) -> f64 {
        let count = rows.len() as f64;
        let values = || rows.iter().map(|&row| f64::from(self.value(row, feature)));
        let mean = values().sum::<f64>() / count;
        (values().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count).sqrt()
    }
}

/// A threshold even in [low, high) that an `f32` can hold and that leaves no side empty, if there is one.
fn threshold(low: f64, high: f64, share: f64) -> Option<f32> {
    let mut threshold = floor_f32(low + share * (high - low));
    if f64::from(threshold) < low {
        threshold = threshold.next_up();
    }
    if f64::from(threshold) >= high {
        threshold = threshold.next_down();
    }
    let between = low <= f64::from(threshold) && f64::from(threshold) < high;
    (between && threshold.is_finite()).then_some(threshold)
}

/// Puts the rows that go left first, and counts them.
fn partition(rows: &mut [u32], goes_left: impl Fn(u32) -> bool) -> usize {
    let mut left = 0;
    for i in 0..rows.len() {
        if goes_left(rows[i]) {
            rows.swap(left, i);
            left += 1;
        }
    }
    left
}

/// Draws rows without putting them back.
pub(super) struct Sampler {
    /// All row numbers, in order between two draws, so that a draw depends on no draw before it.
    order: Vec<u32>,
    swaps: Vec<u32>,
}

impl Sampler {
    /// Of rows 0…`rows` − 1.
    pub(super) fn new(rows: u32) -> Sampler {
        Sampler { order: (0..rows).collect(), swaps: Vec::new() }
    }

    /// `count` different rows, all equally likely: the first steps of Fisher and Yates' shuffle.
    pub(super) fn draw(&mut self, count: u32, random: &mut Random) -> Vec<u32> {
        self.swaps.clear();
        for i in 0..count.min(self.order.len() as u32) {
            let with = i + random.below(self.order.len() as u32 - i);
            self.order.swap(i as usize, with as usize);
            self.swaps.push(with);
        }
        let drawn = self.order[..self.swaps.len()].to_vec();
        for (i, &with) in self.swaps.iter().enumerate().rev() {
            self.order.swap(i, with as usize);
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_leave_no_side_empty() {
        let next = f64::from(1.0f32.next_up());
        for share in [0.0, 0.3, 0.999_999_999] {
            assert_eq!(threshold(1.0, next, share), Some(1.0));
            // No f32 lies in [low, high).
            assert_eq!(threshold(1.0 + 1e-12, 1.0 + 2e-12, share), None);
            let all = threshold(f64::from(f32::MIN), f64::from(f32::MAX), share).expect("there is room");
            assert!(all < f32::MAX);
            let low = 0.1;
            let between = threshold(low, 0.2, share).expect("there is room");
            assert!((low..0.2).contains(&f64::from(between)));
            assert_eq!(threshold(1e300, 2e300, share), None);
        }
        assert_eq!(threshold(2.0, 2.0, 0.5), None);
        assert_eq!(threshold(f64::MAX, f64::MIN, 0.5), None);
    }

    #[test]
    fn draws_are_distinct_and_independent_of_each_other() {
        let mut sampler = Sampler::new(10);
        let first = sampler.draw(4, &mut Random::new(1));
        sampler.draw(7, &mut Random::new(2));
        assert_eq!(sampler.draw(4, &mut Random::new(1)), first);
        let mut all = sampler.draw(12, &mut Random::new(3));
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<u32>>());
    }
}

//! Training: what is kept of the rows, and the offset that scores are compared with.

use super::baseline::{Baseline, quantile};
use super::grow::{Sampler, Settings, grow};
use super::model::{About, Dropped, Forest, Kind, MAX_TREES, Origin, check_names};
use super::random::Random;
use super::score::{Matrix, prepared};
use super::trees::{Columns, MAX_DIMENSIONS, MAX_SAMPLES};

/// A feature whose variance is below this is dropped, in its unit squared.
pub const MIN_VARIANCE: f64 = 1e-6;

/// What is compared with if no share of anomalies is given: the score of a row with paths of average length.
const USUAL_OFFSET: f64 = -0.5;

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// 1 to [`MAX_TREES`]. Default 100.
    pub trees: usize,
    /// Rows that each tree is grown from, 2 to [`MAX_SAMPLES`]; all rows if there are fewer. Default 256.
    pub max_samples: usize,
    /// `Some(n)` for an extended forest whose splits combine n features, 1 to [`MAX_DIMENSIONS`]; as many as vary if
    /// those are fewer. Default `None`, a plain forest.
    pub extension: Option<usize>,
    /// The share of the training rows that are anomalies, above 0 and at most 0.5: the offset is the score at this share
    /// of them. Default `None`: the offset is −0.5.
    pub contamination: Option<f64>,
    /// Of the random numbers. Default 0.
    pub seed: u64,
    /// The times of the first and the last row, in milliseconds since 1970 UTC. They are only kept. Default `None`.
    pub between: Option<(i64, i64)>,
}

impl Default for Options {
    fn default() -> Options {
        Options { trees: 100, max_samples: 256, extension: None, contamination: None, seed: 0, between: None }
    }
}

/// Why there is no forest.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// Names are missing, empty, too many or not distinct.
    #[error("{0}")]
    Names(String),
    /// The last row is not complete.
    #[error("{values} values do not make rows of {columns} columns")]
    Ragged {
        /// Numbers given.
        values: usize,
        /// Names given.
        columns: usize,
    },
    /// Fewer than two rows, or more than 32-bit numbers can count.
    #[error("a forest needs 2 to 4294967295 rows, not {0}")]
    Rows(usize),
    /// An option out of its range.
    #[error("{name} must be {range}, not {value}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its range.
        range: String,
        /// What was given.
        value: String,
    },
    /// Every feature was dropped.
    #[error("no feature varies: the variance of each is below {MIN_VARIANCE}")]
    NothingVaries,
    /// The trained model breaks a rule of its own format.
    #[error("the trained model is not sound: {0}")]
    Unsound(String),
}

/// Trains a forest on `rows`, one after the other, each with a value for every name. NaN and infinities are missing:
/// the feature's median stands in. Features of a variance below [`MIN_VARIANCE`] are dropped and listed.
///
/// The same rows, names and options give the same forest on every machine. 100,000 rows of 60 features take about 0.6 s
/// on one core, a third of it for the scores of the rows and nearly all else for medians and deciles, and 16 bytes a row
/// beside the rows.
///
/// # Errors
///
/// See [`TrainError`].
pub fn train(rows: &[f32], names: &[String], options: &Options) -> Result<Forest, TrainError> {
    check_names(names).map_err(TrainError::Names)?;
    let columns = names.len();
    if !rows.len().is_multiple_of(columns) {
        return Err(TrainError::Ragged { values: rows.len(), columns });
    }
    let count = match u32::try_from(rows.len() / columns) {
        Ok(count) if count >= 2 => count,
        _ => return Err(TrainError::Rows(rows.len() / columns)),
    };
    options.check()?;
    let (baseline, variances) = summaries(rows, columns);
    let varying: Vec<u16> = (0..columns as u16).filter(|&i| variances[usize::from(i)] >= MIN_VARIANCE).collect();
    if varying.is_empty() {
        return Err(TrainError::NothingVaries);
    }
    let kind = match options.extension {
        None => Kind::Plain,
        Some(dimensions) => Kind::Extended { dimensions: dimensions.min(varying.len()) },
    };
    let about = About {
        names: names.to_vec(),
        dropped: dropped(names, &variances),
        kind,
        max_samples: count.min(options.max_samples as u32),
        offset: USUAL_OFFSET,
        seed: options.seed,
        origin: Origin { rows: u64::from(count), between: options.between },
        baseline,
        score_quantiles: Vec::new(),
    };
    let trees = grow_all(rows, &about, &varying, options.trees);
    let forest = Forest::new(about, &trees).map_err(TrainError::Unsound)?;
    with_scores(forest, rows, options.contamination)
}

impl Options {
    fn check(&self) -> Result<(), TrainError> {
        let count = |name, value: usize, range: std::ops::RangeInclusive<usize>| match range.contains(&value) {
            true => Ok(()),
            false => {
                let range = format!("{} to {}", range.start(), range.end());
                Err(TrainError::Option { name, range, value: value.to_string() })
            }
        };
        count("trees", self.trees, 1..=MAX_TREES)?;
        count("max_samples", self.max_samples, 2..=MAX_SAMPLES as usize)?;
        count("extension", self.extension.unwrap_or(1), 1..=MAX_DIMENSIONS)?;
        match self.contamination {
            Some(share) if !(share > 0.0 && share <= 0.5) => Err(TrainError::Option {
                name: "contamination",
                range: "above 0 and at most 0.5".to_owned(),
                value: share.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

/// Baseline and variance of each column.
fn summaries(rows: &[f32], columns: usize) -> (Vec<Baseline>, Vec<f64>) {
    let mut scratch = Vec::with_capacity(rows.len() / columns);
    (0..columns)
        .map(|column| {
            let values = || rows[column..].iter().copied().step_by(columns);
            let baseline = Baseline::of(values(), &mut scratch);
            let variance = variance(values().map(|value| f64::from(prepared(value, baseline.median, false))));
            (baseline, variance)
        })
        .unzip()
}

/// In two passes, since a sum of squares of large numbers hides their differences.
fn variance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let (count, sum) = values.clone().fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    let mean = sum / count;
    values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / count
}

fn dropped(names: &[String], variances: &[f64]) -> Vec<Dropped> {
    let low = names.iter().zip(variances).filter(|(_, variance)| **variance < MIN_VARIANCE);
    low.map(|(name, &variance)| Dropped { name: name.clone(), variance: variance as f32 }).collect()
}

/// Grows each tree from rows of its own.
fn grow_all(rows: &[f32], about: &About, varying: &[u16], trees: usize) -> Vec<Columns> {
    let width = about.names.len();
    let settings = Settings {
        width,
        varying,
        // ⌈log2 of the sample size⌉.
        depth: about.max_samples.next_power_of_two().ilog2() as usize,
        dimensions: about.kind.dimensions(),
    };
    let mut sampler = Sampler::new((rows.len() / width) as u32);
    let mut sample = Vec::with_capacity(about.max_samples as usize * width);
    (0..trees as u64)
        .map(|tree| {
            let mut random = Random::stream(about.seed, tree);
            sample.clear();
            for row in sampler.draw(about.max_samples, &mut random) {
                let row = &rows[row as usize * width..][..width];
                let values = row.iter().zip(&about.baseline);
                sample.extend(values.map(|(&x, feature)| prepared(x, feature.median, settings.dimensions > 0)));
            }
            grow(&sample, &settings, random)
        })
        .collect()
}

/// Adds what needs the scores of the training rows.
fn with_scores(mut forest: Forest, rows: &[f32], contamination: Option<f64>) -> Result<Forest, TrainError> {
    let matrix = Matrix::Rows { values: rows, width: forest.names().len() };
    let mut scores = forest.score_samples(matrix).map_err(|error| TrainError::Unsound(error.to_string()))?;
    scores.sort_unstable_by(f64::total_cmp);
    if let Some(share) = contamination {
        forest.about.offset = quantile(&scores, share);
    }
    forest.about.score_quantiles = (0..=100).map(|i| quantile(&scores, f64::from(i) / 100.0) as f32).collect();
    Ok(forest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::samples::{Blobs, names};
    use crate::forest::split::Gate;

    fn refused(rows: &[f32], columns: &[String], options: &Options) -> String {
        train(rows, columns, options).expect_err("must be refused").to_string()
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let (default, rows) = (Options::default(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(refused(&rows, &[], &default), "there are 0 columns, not 1 to 4096");
        assert_eq!(refused(&rows, &["a".to_owned(), "a".to_owned()], &default), "two columns are named \"a\"");
        assert_eq!(refused(&rows, &names(3), &default), "4 values do not make rows of 3 columns");
        assert_eq!(refused(&rows, &names(4), &default), "a forest needs 2 to 4294967295 rows, not 1");
        assert_eq!(
            refused(&[1.0; 8], &names(2), &default),
            "no feature varies: the variance of each is below 0.000001"
        );
        assert_eq!(refused(&[f32::NAN; 8], &names(2), &default), refused(&[1.0; 8], &names(2), &default));
        let wrong = [
            (Options { trees: 0, ..default.clone() }, "trees must be 1 to 10000, not 0"),
            (Options { max_samples: 1, ..default.clone() }, "max_samples must be 2 to 32768, not 1"),
            (Options { extension: Some(0), ..default.clone() }, "extension must be 1 to 64, not 0"),
            (
                Options { contamination: Some(0.6), ..default.clone() },
                "contamination must be above 0 and at most 0.5, not 0.6",
            ),
            (
                Options { contamination: Some(f64::NAN), ..default.clone() },
                "contamination must be above 0 and at most 0.5, not NaN",
            ),
            (
                Options { between: Some((2, 1)), ..default },
                "the trained model is not sound: the training rows end before they begin",
            ),
        ];
        for (options, message) in wrong {
            assert_eq!(refused(&rows, &names(2), &options), message);
        }
    }

    #[test]
    fn features_that_do_not_vary_are_dropped_and_never_split() {
        let rows: Vec<f32> =
            (0..400).flat_map(|i| [7.0, (i % 19) as f32, f32::NAN, 1.0 + (i % 2) as f32 * 1e-3]).collect();
        for extension in [None, Some(3)] {
            let forest = train(&rows, &names(4), &Options { extension, ..Options::default() }).expect("trains");
            let dropped: Vec<&str> = forest.dropped().iter().map(|dropped| dropped.name.as_str()).collect();
            assert_eq!(dropped, ["f0", "f2", "f3"]);
            assert!((f64::from(forest.dropped()[2].variance) - 2.5e-7).abs() < 1e-9);
            let matrix = |row: [f32; 4]| forest.score_samples(Matrix::Rows { values: &row, width: 4 }).expect("fits");
            assert_eq!(matrix([7.0, 3.0, 0.0, 1.0]), matrix([-1e9, 3.0, 1e9, f32::NAN]));
            let kind = if extension.is_some() { Kind::Extended { dimensions: 1 } } else { Kind::Plain };
            assert_eq!(forest.kind(), kind);
        }
    }

    #[test]
    fn the_median_stands_in_for_missing_values() {
        let mut blobs = Blobs::new(500, 0, 3, 1);
        blobs.rows.iter_mut().step_by(7).for_each(|value| *value = f32::NAN);
        for extension in [None, Some(2)] {
            let forest = train(&blobs.rows, &names(3), &Options { extension, ..Options::default() }).expect("trains");
            let median = forest.baseline()[1].median;
            let rows = [1.0, f32::NAN, 1.0, 1.0, f32::NEG_INFINITY, 1.0, 1.0, median, 1.0];
            let scores = forest.score_samples(Matrix::Rows { values: &rows, width: 3 }).expect("fits");
            assert!(scores.iter().all(|score| *score == scores[2]));
            assert!(forest.baseline().iter().all(|baseline| baseline.missing > 50));
        }
    }

    #[test]
    fn the_offset_is_the_score_at_the_share_of_anomalies() {
        let blobs = Blobs::new(950, 50, 3, 1);
        let options = Options { contamination: Some(0.05), between: Some((1, 2)), seed: 5, ..Options::default() };
        let forest = train(&blobs.rows, &names(3), &options).expect("trains");
        let gate = Gate::of(&forest.decision_function(blobs.matrix()).expect("fits"));
        assert_eq!((gate.anomalies, gate.rows), (50, 1000));
        assert_eq!(forest.origin(), Origin { rows: 1000, between: Some((1, 2)) });
        assert_eq!((forest.trees(), forest.max_samples(), forest.seed()), (100, 256, 5));
        assert_eq!(forest.score_quantiles().len(), 101);
        let few = train(&blobs.rows[..30], &names(3), &Options::default()).expect("trains");
        assert_eq!((few.max_samples(), few.offset()), (10, -0.5));
    }
}

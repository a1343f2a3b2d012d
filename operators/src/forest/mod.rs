//! Isolation forests: how easily a row is separated from all others by random splits says how unusual it is.
//!
//! Plain forests split on one feature at a time (Liu, Ting, Zhou, "Isolation Forest", ICDM 2008), extended ones on a
//! random direction through several (Hariri, Carrasco Kind, Brunner, "Extended Isolation Forest", IEEE TKDE 33(4),
//! 2021, arXiv 1811.02141). Scores are those of scikit-learn's `IsolationForest`: the lower, the more unusual.
//!
//! ```
//! use operators::forest::{Forest, Matrix, Options, train};
//!
//! let names = vec!["hits".to_owned(), "pause".to_owned()];
//! let rows: Vec<f32> = (0..1000).flat_map(|i| [(i % 37) as f32, (i % 11) as f32]).collect();
//! let forest = train(&rows, &names, &Options { seed: 7, ..Options::default() })?;
//! let scores = forest.score_samples(Matrix::Rows { values: &[18.0, 5.0, 900.0, 5.0], width: 2 })?;
//! assert!(scores[1] < scores[0]);
//! let again = Forest::parse(&forest.to_json()?)?;
//! assert_eq!(again, forest);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - `train` grows a forest, `Forest::score_samples` scores, `Forest::explain` says which features a score comes from.
//! - [`drift`] compares rows with those of the training, [`split`] keeps rows back and judges a new forest by them.
//!
//! A model is the same for the same rows, options and seed on every machine: only `+ - * /` and square roots are used,
//! which IEEE 754 defines to the last bit, and logarithms and powers of [`math`], which are made of those. Trees are
//! grown one by one, each from its own random numbers, so threads play no part.
//!
//! NaN and infinities are missing values, in training and in scoring: the median of the training rows stands in.

mod baseline;
pub mod drift;
mod explain;
mod grow;
pub mod math;
mod model;
mod random;
mod score;
pub mod split;
mod train;
mod trees;

#[cfg(test)]
mod against_isotree;
#[cfg(test)]
mod against_sklearn;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;

pub use baseline::Baseline;
pub use explain::{Credit, Explanation};
pub use model::{Dropped, FORMAT, Forest, Kind, MAX_BYTES, MAX_FEATURES, MAX_TREES, Origin};
pub use score::{Matrix, ShapeError};
pub use train::{MIN_VARIANCE, Options, TrainError, train};
pub use trees::{MAX_DEPTH, MAX_DIMENSIONS, MAX_SAMPLES};

//! A forest with all that is kept with it, and the file format.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::trees::{Bounds, Columns, MAX_DIMENSIONS, MAX_SAMPLES, Trees};

/// The version of the file format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// The largest file that is read, in bytes. 100 trees of 256 rows take less than 1 MB.
pub const MAX_BYTES: usize = 64 << 20;

/// The most columns of the input.
pub const MAX_FEATURES: usize = 4096;

/// The most trees.
pub const MAX_TREES: usize = 10_000;

/// A trained forest: trees, and what is needed to feed, explain and watch them.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    pub(super) about: About,
    pub(super) trees: Trees,
    /// Of each column; the same numbers as in the baseline, side by side.
    pub(super) medians: Vec<f32>,
}

/// How a node splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// By one feature.
    Plain,
    /// By a direction through so many features.
    Extended {
        /// Features of a split, 1 to [`MAX_DIMENSIONS`].
        dimensions: usize,
    },
}

/// A column of the input that no tree looks at, because it hardly varies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// The column's name.
    pub name: String,
    /// Its variance over the training rows, medians in place of missing values; in the feature's unit squared.
    pub variance: f32,
}

/// What a forest was trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Training rows.
    pub rows: u64,
    /// The times of the first and the last of them, in milliseconds since 1970 UTC, if they were given.
    pub between: Option<(i64, i64)>,
}

/// All but the trees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub(super) names: Vec<String>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) kind: Kind,
    pub(super) max_samples: u32,
    #[serde(with = "exact")]
    pub(super) offset: f64,
    pub(super) seed: u64,
    pub(super) origin: Origin,
    pub(super) baseline: Vec<Baseline>,
    pub(super) score_quantiles: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    about: About,
    trees: Vec<Columns>,
}

impl Forest {
    /// Reads a model as [`Forest::to_json`] writes it. It never panics, whatever the bytes are.
    ///
    /// # Errors
    ///
    /// Says what is wrong: JSON with its line and column, another format, a number out of range, a tree that is not one.
    pub fn parse(bytes: &[u8]) -> Result<Forest, String> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        if bytes.len() > MAX_BYTES {
            return Err(format!("the model has {} bytes, more than {MAX_BYTES}", bytes.len()));
        }
        // First the version alone: of another one, other fields would be reported, which says less.
        let version: Version = serde_json::from_slice(bytes).map_err(|error| format!("not a model: {error}"))?;
        if version.format != FORMAT {
            return Err(format!("the model has format {}, this version reads format {FORMAT}", version.format));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(|error| format!("not a model: {error}"))?;
        Forest::new(document.about, &document.trees)
    }

    /// The model as JSON on one line. Numbers are written so that reading gives the same bits.
    ///
    /// # Errors
    ///
    /// None is known: a forest has nothing that JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let trees = (0..self.trees.roots.len()).map(|tree| self.trees.columns(tree)).collect();
        serde_json::to_vec(&Document { format: FORMAT, about: self.about.clone(), trees })
    }

    /// Checks the parts and puts them together.
    pub(super) fn new(about: About, columns: &[Columns]) -> Result<Forest, String> {
        about.check()?;
        if columns.is_empty() || columns.len() > MAX_TREES {
            return Err(format!("the model has {} trees, not 1 to {MAX_TREES}", columns.len()));
        }
        let bounds = Bounds { width: about.names.len(), max_samples: about.max_samples };
        let mut trees = Trees::new(about.kind.dimensions());
        for (number, columns) in columns.iter().enumerate() {
            trees.push(columns, &bounds).map_err(|error| format!("tree {number}: {error}"))?;
        }
        let medians = about.baseline.iter().map(|baseline| baseline.median).collect();
        Ok(Forest { about, trees, medians })
    }

    /// The columns of the input, in the order in which rows hold them; those that are dropped too.
    pub fn names(&self) -> &[String] {
        &self.about.names
    }

    /// The columns that no tree looks at.
    pub fn dropped(&self) -> &[Dropped] {
        &self.about.dropped
    }

    /// Of each column of the input, the dropped ones too: one of them that begins to vary is drift.
    pub fn baseline(&self) -> &[Baseline] {
        &self.about.baseline
    }

    /// Plain or extended.
    pub fn kind(&self) -> Kind {
        self.about.kind
    }

    /// How many trees there are.
    pub fn trees(&self) -> usize {
        self.trees.roots.len()
    }

    /// How many rows each tree was grown from.
    pub fn max_samples(&self) -> u32 {
        self.about.max_samples
    }

    /// What a score is compared with: `score_samples` less this is the decision value.
    pub fn offset(&self) -> f64 {
        self.about.offset
    }

    /// Of the random numbers.
    pub fn seed(&self) -> u64 {
        self.about.seed
    }

    /// Number and time of the training rows.
    pub fn origin(&self) -> Origin {
        self.about.origin
    }

    /// The scores of the training rows at 0 %, 1 %, …, 100 %, ascending; empty if they are not known.
    pub fn score_quantiles(&self) -> &[f32] {
        &self.about.score_quantiles
    }
}

impl Kind {
    /// Terms of a split; 0 for a plain forest.
    pub(super) fn dimensions(self) -> usize {
        match self {
            Kind::Plain => 0,
            Kind::Extended { dimensions } => dimensions,
        }
    }
}

impl About {
    fn check(&self) -> Result<(), String> {
        let width = self.names.len();
        check_names(&self.names)?;
        if let Kind::Extended { dimensions } = self.kind
            && (dimensions == 0 || dimensions > MAX_DIMENSIONS.min(width))
        {
            return Err(format!("the model has {dimensions} dimensions and {width} columns"));
        }
        if !(2..=MAX_SAMPLES).contains(&self.max_samples) {
            return Err(format!("max_samples is {}, not 2 to {MAX_SAMPLES}", self.max_samples));
        }
        if !self.offset.is_finite() {
            return Err("the offset is not finite".to_owned());
        }
        if self.origin.between.is_some_and(|(from, to)| from > to) {
            return Err("the training rows end before they begin".to_owned());
        }
        if self.baseline.len() != width {
            return Err(format!("the model has {} baselines for {width} columns", self.baseline.len()));
        }
        for (name, baseline) in self.names.iter().zip(&self.baseline) {
            baseline.check().map_err(|error| format!("baseline of {name:?}: {error}"))?;
        }
        let known: HashSet<&str> = self.names.iter().map(String::as_str).collect();
        if let Some(dropped) = self.dropped.iter().find(|dropped| !known.contains(dropped.name.as_str())) {
            return Err(format!("{:?} is dropped, but is no column", dropped.name));
        }
        if self.dropped.iter().any(|dropped| !dropped.variance.is_finite()) {
            return Err("a variance is not finite".to_owned());
        }
        let quantiles = &self.score_quantiles;
        if quantiles.iter().any(|score| !score.is_finite()) || !quantiles.is_sorted() {
            return Err("the quantiles of the scores do not ascend".to_owned());
        }
        Ok(())
    }
}

pub(super) fn check_names(names: &[String]) -> Result<(), String> {
    if names.is_empty() || names.len() > MAX_FEATURES {
        return Err(format!("there are {} columns, not 1 to {MAX_FEATURES}", names.len()));
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| name.is_empty() || !seen.insert(name.as_str())) {
        Some(name) if name.is_empty() => Err("a column has no name".to_owned()),
        Some(name) => Err(format!("two columns are named {name:?}")),
        None => Ok(()),
    }
}

/// A 64-bit number as text. serde_json reads the last bit of some long numbers wrongly unless a feature of it is on, which
/// would be on for everyone. Numbers of 32 bits have at most nine digits: version 1.0.154 reads back every one of them as
/// it wrote it, which was tried for all 2^31 of them.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is not a number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::samples::{Blobs, names};
    use crate::forest::{Options, train};

    fn json() -> String {
        let options = Options { trees: 2, extension: Some(2), contamination: Some(0.1), ..Options::default() };
        let forest = train(&Blobs::new(60, 0, 3, 1).rows, &names(3), &options).expect("trains");
        String::from_utf8(forest.to_json().expect("can be written")).expect("is text")
    }

    fn refused(from: &str, to: &str) -> String {
        let json = json();
        assert!(json.contains(from), "{from} is not in the model");
        Forest::parse(json.replacen(from, to, 1).as_bytes()).expect_err("must be refused")
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        assert_eq!(refused("\"format\":1", "\"format\":2"), "the model has format 2, this version reads format 1");
        assert!(refused("\"seed\":0", "\"seed\":0,\"sead\":1").contains("unknown field `sead`"));
        assert!(refused("\"max_samples\":60", "\"max_samples\":61").starts_with("tree 0: its leaves hold 60 rows"));
        assert!(refused("\"max_samples\":60", "\"max_samples\":1").contains("not 2 to 32768"));
        assert!(refused("\"dimensions\":2", "\"dimensions\":4").contains("4 dimensions and 3 columns"));
        assert!(refused("\"dimensions\":2", "\"dimensions\":1").starts_with("tree 0: it has"));
        assert!(refused("\"offset\":\"-0.", "\"offset\":\"x").contains("is not a number"));
        assert_eq!(refused("\"offset\":\"-0.", "\"offset\":\"9e999"), "the offset is not finite");
        assert_eq!(refused("[\"f0\",", "[\"f1\","), "two columns are named \"f1\"");
        assert_eq!(refused("[\"f0\",", "[\"f0\",\"f3\","), "the model has 3 baselines for 4 columns");
        assert_eq!(refused("\"deciles\":[", "\"deciles\":[9e9,").split(':').next(), Some("not a model"));
        assert_eq!(
            refused("\"dropped\":[]", "\"dropped\":[{\"name\":\"x\",\"variance\":0}]"),
            "\"x\" is dropped, but is no column"
        );
        assert!(refused("\"trees\":[{", "\"trees\":[{\"left\":1,").contains("unknown field `left`"));
        assert!(Forest::parse(b"").is_err() && Forest::parse(&[b'['; 100_000]).is_err());
        let large = vec![b' '; MAX_BYTES + 1];
        assert!(Forest::parse(&large).expect_err("must be refused").contains("more than 67108864"));
    }

    #[test]
    fn a_model_without_trees_is_refused() {
        let json = json();
        let (head, _) = json.split_once("\"trees\":").expect("has trees");
        let error = Forest::parse(format!("{head}\"trees\":[]}}").as_bytes()).expect_err("must be refused");
        assert_eq!(error, "the model has 0 trees, not 1 to 10000");
    }

    #[test]
    fn numbers_survive_the_file() {
        // Long 64-bit numbers, of which serde_json alone reads some wrongly.
        let rows = Blobs::new(60, 0, 3, 1).rows;
        for seed in 0..200 {
            let options = Options { trees: 1, seed, contamination: Some(0.1), ..Options::default() };
            let forest = train(&rows, &names(3), &options).expect("trains");
            assert_eq!(Forest::parse(&forest.to_json().expect("can be written")), Ok(forest));
        }
    }
}

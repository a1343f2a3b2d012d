//! The section `spool`: how what live sources receive is kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{Bytes, Diagnostic, Tree, humantime_duration, options};

/// The section `spool` as written.
///
/// What live sources receive is written to disk before it enters the dataflow, so that a run that ended at any moment
/// goes on where it was. `spool: off` does without: state is in memory alone, and a pipeline cannot be changed while
/// it runs.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
pub struct SpoolSpec {
    /// Where it lives, relative to the pipeline's file. Default: `spool` beneath `data_dir`.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// Rows are made durable together, once in this time, and enter the dataflow then: part of the delay of every row.
    /// What was received and is not durable yet is lost when the process is killed: no more than what came in this time and
    /// in that of the longest commit (`ja4_engine_spool_commit_ns_max`), besides what waits in the kernel. With 50ms that
    /// was up to 50 ms on a machine at rest and up to 160 ms under load. Default 50ms.
    #[serde(default = "commit", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    pub commit: Duration,
    /// Bytes of a segment, such as `64MiB`: what is removed at once. Default 64MiB.
    #[serde(default = "segment_size", deserialize_with = "size")]
    #[schemars(with = "Bytes")]
    pub segment_size: u64,
    /// Bytes that the log of one source may have. Default 10GiB.
    #[serde(default = "max_size", deserialize_with = "size")]
    #[schemars(with = "Bytes")]
    pub max_size: u64,
    /// How much event time is kept beyond what a restart needs, for a changed pipeline that looks back further and for
    /// `replay`, as long as `max_size` allows. Default 1h.
    #[serde(default = "retain", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    pub retain: Duration,
    /// Where a node looks back further than this, the rows that it reads are kept in a log of their own, so that a start need
    /// not replay all that they are made of. Default 24h.
    #[serde(default = "max_replay", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    pub max_replay: Duration,
    /// What happens when `max_size` is reached, or the disk is full, and all of it is still needed. On a full disk not even
    /// that time passes can be noted: the disk must have room for what the longest window needs. Default `block`.
    #[serde(default)]
    pub when_full: WhenFull,
}

/// What happens when a log is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The source stops to receive until there is room: senders see it, or the kernel counts what it drops.
    #[default]
    Block,
    /// The oldest segment is removed and its rows are counted as dropped.
    DropOldest,
}

impl From<WhenFull> for spool::WhenFull {
    fn from(policy: WhenFull) -> Self {
        match policy {
            WhenFull::Block => Self::Block,
            WhenFull::DropOldest => Self::DropOldest,
        }
    }
}

impl Default for SpoolSpec {
    fn default() -> Self {
        Self {
            dir: None,
            commit: commit(),
            segment_size: segment_size(),
            max_size: max_size(),
            retain: retain(),
            max_replay: max_replay(),
            when_full: WhenFull::default(),
        }
    }
}

fn commit() -> Duration {
    Duration::from_millis(50)
}

fn segment_size() -> u64 {
    64 << 20
}

fn max_size() -> u64 {
    10 << 30
}

fn retain() -> Duration {
    Duration::from_secs(3600)
}

fn max_replay() -> Duration {
    Duration::from_secs(24 * 3600)
}

pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Bytes::deserialize(deserializer).map(|bytes| bytes.0)
}

/// Reads the section; `None` is `off`.
pub(super) fn read(tree: &Tree, problems: &mut Vec<Diagnostic>) -> Option<SpoolSpec> {
    if tree.text().is_some_and(|text| matches!(text.value.as_str(), "off" | "false")) {
        return None;
    }
    let spec: SpoolSpec = options::read(tree, problems)?;
    if spec.segment_size == 0 || spec.max_size < spec.segment_size {
        problems.push(Diagnostic::new(tree.span, "`segment_size` must be greater than 0 and at most `max_size`"));
    }
    if spec.max_replay.is_zero() {
        let at = tree.get("max_replay").map_or(tree.span, |value| value.span);
        problems.push(Diagnostic::new(at, "`max_replay` must be greater than 0"));
    }
    Some(spec)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Sources;
    use super::*;

    fn section(text: &str) -> (Option<SpoolSpec>, String) {
        let mut sources = Sources::default();
        let tree = Tree::parse(Path::new("p.yaml"), text.to_owned(), &mut sources, &|_| None).expect("valid YAML");
        let mut problems = Vec::new();
        let spec = read(&tree, &mut problems);
        (spec, sources.render(&problems, false))
    }

    #[test]
    fn sizes_have_units() {
        let (spec, problems) = section("{ segment_size: 4MiB, max_size: 2GB, when_full: drop_oldest }");
        let spec = spec.unwrap_or_else(|| panic!("{problems}"));
        assert_eq!((spec.segment_size, spec.max_size, spec.when_full), (4 << 20, 2_000_000_000, WhenFull::DropOldest));
        assert_eq!((spec.commit, spec.retain), (Duration::from_millis(50), Duration::from_secs(3600)));
    }

    #[test]
    fn off_is_none_and_a_wrong_size_is_a_fault() {
        assert!(section("off").0.is_none());
        assert!(section("{ max_size: much }").1.contains("`much` is not a size such as 64MiB"));
        assert!(section("{ max_size: 1KiB }").1.contains("at most `max_size`"));
        assert!(section("{ max_replay: 0s }").1.contains("`max_replay` must be greater than 0"));
    }
}

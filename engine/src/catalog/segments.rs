//! The segments of a table: those that are there, and those whose files somebody has taken away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Segment;

/// How often files that are missing are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Segments {
    present: Vec<Segment>,
    missing: Vec<Segment>,
    looked: Option<Instant>,
}

impl Segments {
    pub fn add(&mut self, segments: impl IntoIterator<Item = Segment>) {
        self.present.extend(segments);
    }

    pub fn present(&self) -> &[Segment] {
        &self.present
    }

    pub fn missing(&self) -> &[Segment] {
        &self.missing
    }

    /// Leaves out segments whose files are gone. How many are new among them.
    pub fn lose(&mut self, gone: &BTreeSet<PathBuf>) -> usize {
        let lost: Vec<Segment> = self.present.extract_if(.., |segment| gone.contains(&segment.path)).collect();
        let count = lost.len();
        self.missing.extend(lost);
        self.looked = Some(Instant::now());
        count
    }

    /// Forgets segments for good.
    pub fn remove(&mut self, paths: &BTreeSet<&Path>) {
        let kept = |segment: &Segment| !paths.contains(segment.path.as_path());
        self.present.retain(kept);
        self.missing.retain(kept);
    }

    /// Files that are missing, if it is time to look for them again.
    pub fn sought(&mut self) -> Vec<Segment> {
        if self.missing.is_empty() || self.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return Vec::new();
        }
        self.looked = Some(Instant::now());
        self.missing.clone()
    }

    /// Takes back segments whose files are there again.
    pub fn restore(&mut self, found: &BTreeSet<PathBuf>) {
        self.present.extend(self.missing.extract_if(.., |segment| found.contains(&segment.path)));
    }
}

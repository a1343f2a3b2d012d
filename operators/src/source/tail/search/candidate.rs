//! A file that may have a text that is looked for.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use capture_file::Decompressed;

use crate::source::tail::names::packed;
use crate::source::tail::opened::{open_regular, read};
use crate::source::tail::place::{
    Identity, Known, Place, SAMPLE, Sample, are_alike, begins_with, bytes_at, identity, modified, sample, stands_before,
};

/// A compressed file that was written to so lately may not be complete yet.
const UNFINISHED: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 2000 });

/// A file that was looked at.
pub(in crate::source::tail) struct Candidate {
    pub path: PathBuf,
    pub identity: Identity,
    pub length: u64,
    pub modified: i64,
    /// The beginning of its text.
    pub head: Vec<u8>,
    /// Compressed.
    pub packed: bool,
    readable: bool,
}

/// A rotated file that cannot be read.
#[derive(Debug)]
pub(in crate::source::tail) struct Refused {
    identity: Identity,
    /// Its beginning; of none that can be had the time says whether it is another.
    head: Sample,
    modified: i64,
}

impl Refused {
    /// A file that cannot be read is known again by this.
    pub fn of(one: &Candidate) -> Self {
        Self { identity: one.identity, head: sample(&one.head), modified: one.modified }
    }

    /// Whether a file is the one that could not be read.
    pub fn is(&self, one: &Candidate) -> bool {
        let is_same = if self.head.0 == 0 { self.modified == one.modified } else { begins_with(&one.head, self.head) };
        self.identity == one.identity && is_same
    }
}

/// A search may be tried again; a file that has gone meanwhile is none, nor is one that nobody may read.
pub(super) fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Candidate {
    /// Looks at a file, if it is there.
    pub fn look(path: &Path) -> io::Result<Option<Self>> {
        let file = match open_regular(path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            file => match there(file)? {
                Some(file) => Some(file),
                None => return Ok(None),
            },
        };
        let Some(file) = file else {
            let Some(found) = there(fs::metadata(path))? else { return Ok(None) };
            return Ok(Some(Self::of(path, &found, Vec::new(), false, false)));
        };
        let found = file.metadata()?;
        let mut head = bytes_at(&file, 0, SAMPLE)?;
        let mut text = Decompressed::new(file)?;
        let packed = text.compression().is_some();
        if packed {
            head = vec![0; SAMPLE];
            let mut there = 0;
            // What cannot be decompressed has no head that is known.
            while let Ok(more @ 1..) = read(&mut text, &mut head[there..]) {
                there += more;
            }
            head.truncate(there);
        }
        Ok(Some(Self::of(path, &found, head, packed, true)))
    }

    fn of(path: &Path, found: &Metadata, head: Vec<u8>, packed: bool, readable: bool) -> Self {
        let (identity, length, modified) = (identity(found), found.len(), modified(found));
        Self { path: path.to_owned(), identity, length, modified, head, packed, readable }
    }

    /// Whether it may still be written.
    pub fn is_unfinished(&self) -> bool {
        let at = UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.modified).unwrap_or(0));
        self.packed && SystemTime::now().duration_since(at).is_ok_and(|age| age < UNFINISHED)
    }

    /// Why its text cannot be had.
    pub fn fault(&self) -> Option<&'static str> {
        let is_packed = self.packed || packed(&self.path).is_some();
        if !self.readable {
            Some("a rotated file may not be read, and is skipped")
        } else if is_packed && (!self.packed || self.head.is_empty()) {
            Some("a rotated file was compressed before it was read and cannot be decompressed: it is skipped")
        } else {
            None
        }
    }

    /// Whether it has a text that was read before.
    pub fn is(&self, known: &Known) -> bool {
        let place = Place { offset: known.to, before: known.before, ..Place::default() };
        let is_hollow = !self.packed && self.length >= known.to && known.may_be(&self.head);
        known.is(&self.head) || is_hollow && is_before(&self.path, &place).unwrap_or(false)
    }

    /// Up to where its text was read before.
    pub fn read_to(&self, known: &[Known]) -> Option<u64> {
        known.iter().rev().find(|known| self.is(known)).map(|known| known.to)
    }

    /// Whether it has more than what was read up to there. What is compressed does not grow.
    pub fn has_more(&self, to: u64) -> bool {
        !self.packed && self.length > to
    }

    /// Whether it is another file with the same text, or the same file.
    pub fn is_like(&self, other: &Self) -> bool {
        self.identity == other.identity || are_alike(&self.head, &other.head)
    }
}

/// Whether what stands before a place stands there in this file too.
pub(super) fn is_before(path: &Path, place: &Place) -> io::Result<bool> {
    let file: Option<File> = there(open_regular(path))?;
    file.map_or(Ok(false), |file| stands_before(&file, place.offset, place.before))
}

//! What tells a file from another one, also from one that has its name and its number: a file system gives the number of a
//! removed file to the next that is made. So when the file was made counts too, and a checksum of what was confirmed last.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::UNIX_EPOCH;

use serde_json::Value;

/// So many bytes before the confirmed end are in the checksum.
const TAIL: u64 = 4096;

/// A file at the time when so many bytes of it were confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    bytes: u64,
    /// Device and inode.
    number: (u64, u64),
    /// When it was made, in ns since the epoch, if the file system knows.
    born: Option<u64>,
    /// CRC-32 (IEEE) of the last confirmed bytes; `None` if they could not be read.
    tail: Option<u32>,
}

impl Identity {
    /// Of a file whose first `bytes` are confirmed.
    pub fn of(file: &File, bytes: u64) -> io::Result<Self> {
        let there = file.metadata()?;
        Ok(Self { bytes, number: number(&there), born: born(&there), tail: tail(file, bytes).ok() })
    }

    /// As [`Identity::note`] has it.
    pub fn read(detail: &Value) -> Option<Self> {
        let number = |key: &str| detail[key].as_u64();
        Some(Self {
            bytes: number("bytes")?,
            number: number("device").zip(number("inode"))?,
            born: number("born"),
            tail: number("tail").and_then(|tail| u32::try_from(tail).ok()),
        })
    }

    /// Adds it to what is noted.
    pub fn note(&self, detail: &mut Value) {
        (detail["device"], detail["inode"]) = (self.number.0.into(), self.number.1.into());
        (detail["born"], detail["tail"]) = (self.born.into(), self.tail.into());
    }

    /// Whether a file has its number; it may be another one.
    pub fn has_number(&self, file: &Metadata) -> bool {
        number(file) == self.number
    }

    /// Whether a file is the one, or a copy of it: what was confirmed is in it, and it may be cut behind that.
    pub fn is(&self, file: &File) -> bool {
        let Ok(there) = file.metadata() else { return false };
        if self.has_number(&there) && self.born != born(&there) {
            return false;
        }
        match self.bytes {
            // Nothing tells what is in it: it must be the one.
            0 => self.has_number(&there) && self.born.is_some(),
            bytes => there.len() >= bytes && self.tail.is_some() && self.tail == tail(file, bytes).ok(),
        }
    }
}

fn number(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn born(file: &Metadata) -> Option<u64> {
    let since = file.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// The checksum of the last of so many bytes.
fn tail(file: &File, bytes: u64) -> io::Result<u32> {
    let from = bytes.saturating_sub(TAIL);
    let mut text = vec![0; usize::try_from(bytes - from).unwrap_or_default()];
    file.read_exact_at(&mut text, from)?;
    Ok(crc32fast::hash(&text))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn open(path: &Path) -> File {
        File::open(path).expect("there")
    }

    #[test]
    fn a_file_is_known_after_it_has_grown_and_a_copy_of_it_too() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, copy) = (dir.path().join("rows"), dir.path().join("copy"));
        fs::write(&path, "x".repeat(9000)).expect("written");
        let known = Identity::of(&open(&path), 9000).expect("readable");
        let mut detail = json!({ "bytes": 9000 });
        known.note(&mut detail);
        assert_eq!(Identity::read(&detail).as_ref(), Some(&known));
        fs::write(&copy, "x".repeat(9000) + "more").expect("written");
        assert!(known.is(&open(&path)) && known.is(&open(&copy)));
        fs::write(&path, "x".repeat(8999) + "y and more").expect("written");
        assert!(!known.is(&open(&path)), "its last confirmed byte is another");
        fs::write(&path, "x".repeat(8999)).expect("written");
        assert!(!known.is(&open(&path)), "it is shorter");
    }

    #[test]
    fn a_file_that_was_made_later_is_another_one_whatever_is_in_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows");
        for bytes in [0, 5] {
            fs::write(&path, "rows\n").expect("written");
            let known = Identity::of(&open(&path), bytes).expect("readable");
            assert!(known.is(&open(&path)));
            // As if the file had been removed, and another one had got its number.
            let before = Identity { born: known.born.map(|born| born - 1), ..known.clone() };
            assert!(!before.is(&open(&path)));
            let unknown = Identity { born: None, ..known };
            assert!(!unknown.is(&open(&path)), "the file system has forgotten when it was made");
        }
    }

    #[test]
    fn without_a_checksum_nothing_is_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows");
        fs::write(&path, "rows\n").expect("written");
        let known = Identity::of(&open(&path), 5).expect("readable");
        assert!(!Identity { tail: None, ..known }.is(&open(&path)));
        assert_eq!(Identity::of(&open(&path), 6).expect("readable").tail, None);
        assert_eq!(Identity::read(&json!({ "bytes": 5 })), None);
    }
}

//! Files that match a pattern and have been read under other names.
//!
//! A file system gives the inode of a file that was deleted to the next one, so an inode alone does not say that a file was read:
//! its text must be the one that was.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use super::super::super::tail::{Identity, Mark, open_regular};
use super::super::saved::SavedRead;
use super::discover::{EVERY, LINGER};

/// Files that a pattern matches and that are not to be read under the name that they have now; of copies up to where.
#[derive(Debug, Default)]
pub(super) struct Read {
    files: HashMap<Identity, Entry>,
    /// Those of which it could not be told yet.
    unsure: HashMap<Identity, Instant>,
}

#[derive(Debug)]
struct Entry {
    /// Its text. An older version has saved none.
    mark: Option<Mark>,
    /// If it is a copy, up to where it has what another file has.
    to: Option<u64>,
    seen: Instant,
    /// The file when it was last found to have that text.
    checked: Option<Version>,
}

/// What changes with a file's text, and is another's if the inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    length: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(found: &Metadata) -> Self {
        Self {
            length: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Entry {
    fn new(mark: Option<Mark>, to: Option<u64>) -> Self {
        Self { mark, to, seen: Instant::now(), checked: None }
    }

    /// Whether the file of this path, which has the inode, has this text.
    fn stands(&self, path: &Path, version: Version) -> bool {
        let Some(mark) = self.mark.as_ref().filter(|_| self.checked != Some(version)) else { return true };
        // What cannot be read is not known to be another.
        open_regular(path).and_then(|file| mark.stands(&file)).unwrap_or(true)
    }
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covers {
    /// It has been read.
    All,
    /// It is a copy that has grown: so much of it has been read.
    UpTo(u64),
    Nothing,
}

impl Read {
    pub fn new(files: Vec<SavedRead>) -> Self {
        let files = files.into_iter().map(|one| (one.identity, Entry::new(one.mark, one.to))).collect();
        Self { files, unsure: HashMap::new() }
    }

    pub fn add(&mut self, identity: Identity, mark: Mark, to: Option<u64>) {
        self.files.insert(identity, Entry::new(Some(mark), to));
    }

    pub fn list(&self) -> Vec<SavedRead> {
        let one = |(identity, entry): (&Identity, &Entry)| SavedRead {
            identity: *identity,
            to: entry.to,
            mark: entry.mark.clone(),
        };
        let mut list: Vec<_> = self.files.iter().map(one).collect();
        list.sort_unstable_by_key(|one| one.identity);
        list
    }

    /// Whether the file of this path was read under another name.
    pub fn has(&self, path: &Path, identity: Identity) -> bool {
        let Some(entry) = self.files.get(&identity) else { return false };
        fs::metadata(path).is_ok_and(|found| entry.stands(path, Version::of(&found)))
    }

    /// What is known of the file of this path. A file that has the inode and another text is a new one.
    pub fn covers(&mut self, path: &Path, identity: Identity, found: &Metadata) -> Covers {
        let version = Version::of(found);
        let Some(entry) = self.files.get_mut(&identity) else { return Covers::Nothing };
        if !entry.stands(path, version) {
            self.files.remove(&identity);
            return Covers::Nothing;
        }
        entry.seen = Instant::now();
        match entry.to {
            Some(to) if found.len() > to => {
                self.files.remove(&identity);
                Covers::UpTo(to)
            }
            _ => {
                entry.checked = Some(version);
                Covers::All
            }
        }
    }

    /// Whether it was asked for this one before, some time ago.
    pub fn again(&mut self, identity: Identity) -> bool {
        self.unsure.entry(identity).or_insert_with(Instant::now).elapsed() >= EVERY / 2
    }

    /// Forgets those that are not there any more.
    pub fn prune(&mut self) {
        self.files.retain(|_, entry| entry.seen.elapsed() < LINGER);
        self.unsure.retain(|_, first| first.elapsed() < LINGER);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::super::super::tail::named;
    use super::*;

    /// A file with this text under the same inode, as a file system gives it again, which cannot be forced.
    fn reuse(path: &Path, text: &str) -> Identity {
        fs::write(path, text).expect("written");
        named(path).expect("there")
    }

    fn covers(read: &mut Read, path: &Path) -> Covers {
        let found = fs::metadata(path).expect("there");
        read.covers(path, named(path).expect("there"), &found)
    }

    fn mark(path: &Path) -> Mark {
        Mark::of(&File::open(path).expect("open")).expect("readable")
    }

    #[test]
    fn another_text_on_an_inode_that_is_used_again_is_new() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        for to in [None, Some(8)] {
            let identity = reuse(&path, "one\ntwo\n");
            let mut read = Read::default();
            read.add(identity, mark(&path), to);
            assert_eq!((covers(&mut read, &path), read.has(&path, identity)), (Covers::All, true));
            let mut again = Read::new(read.list());
            for other in ["six\n", "six\ntwo\n", "one\nsix\n", "six\nlong as it is\n"] {
                assert_eq!(reuse(&path, other), identity, "the same inode");
                let mut read = Read::new(again.list());
                assert!(!read.has(&path, identity), "{other}");
                assert_eq!(covers(&mut read, &path), Covers::Nothing, "{other}");
                assert!(read.list().is_empty(), "it is forgotten");
            }
            reuse(&path, "one\ntwo\n");
            assert_eq!(covers(&mut again, &path), Covers::All, "through a restart");
        }
    }

    #[test]
    fn a_text_that_has_grown_is_the_same_and_a_copy_is_read_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let identity = reuse(&path, "one\n");
        let mut read = Read::default();
        read.add(identity, mark(&path), None);
        reuse(&path, "one\ntwo\n");
        assert_eq!(covers(&mut read, &path), Covers::All);
        read.add(identity, mark(&path), Some(8));
        reuse(&path, "one\ntwo\nsix\n");
        assert_eq!(covers(&mut read, &path), Covers::UpTo(8));
        assert_eq!(covers(&mut read, &path), Covers::Nothing, "who reads on knows of it");
    }

    #[test]
    fn a_file_of_which_nothing_was_read_is_new_as_soon_as_it_has_something() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let identity = reuse(&path, "");
        let mut read = Read::default();
        read.add(identity, mark(&path), None);
        assert_eq!(covers(&mut read, &path), Covers::All);
        reuse(&path, "one\n");
        assert_eq!(covers(&mut read, &path), Covers::Nothing);
    }
}

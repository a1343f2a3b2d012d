//! The folder of a run's state, looked at while it runs: it may be removed, moved, or turn read-only.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, access};
use parking_lot::Mutex;

use crate::dir_lock::DirLock;
use crate::files;

/// The folder, and whether it can be written to.
#[derive(Debug, Default)]
pub struct Store {
    folder: Mutex<Option<Folder>>,
    away: AtomicBool,
    /// How often another folder has taken its place.
    renewed: AtomicU64,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Folders in it that are made again when the whole was removed and is back.
    within: Vec<PathBuf>,
    /// Which of several processes this one is.
    process: usize,
    /// The lock of one that has the place of the first.
    lock: Option<DirLock>,
    /// Tells it from another folder that has its name now.
    open: File,
}

/// What has happened to the folder since it was looked at last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It cannot be written to any more; why.
    Away(String),
    /// It can be written to again. It is another one, if the first was removed.
    Back {
        /// What was in it is gone.
        is_new: bool,
    },
}

impl Store {
    /// Watches a folder from now on. Nothing is watched if it is not there: then nothing is kept in it yet.
    pub(crate) fn watch(&self, path: &Path, within: Vec<PathBuf>, process: usize) {
        let folder = open(path).ok().map(|open| Folder { path: path.to_owned(), within, process, lock: None, open });
        *self.folder.lock() = folder;
    }

    /// Whether it could not be written to when it was looked at last.
    pub fn is_away(&self) -> bool {
        self.away.load(SeqCst)
    }

    /// How often another folder has taken the place of one that was removed: what was noted in that is gone.
    pub fn renewed(&self) -> u64 {
        self.renewed.load(SeqCst)
    }

    /// Looks at once whether it can be written to.
    pub fn is_there_now(&self) -> bool {
        self.folder.lock().as_ref().is_none_or(|folder| folder.look().is_ok())
    }

    /// Looks at it; what has changed.
    pub(crate) fn look(&self) -> Option<Change> {
        let mut guard = self.folder.lock();
        let folder = guard.as_mut()?;
        let was_away = self.is_away();
        match folder.look() {
            Ok(()) => self.away.swap(false, SeqCst).then_some(Change::Back { is_new: false }),
            Err(_) if folder.adopt() => {
                self.renewed.fetch_add(1, SeqCst);
                self.away.store(false, SeqCst);
                Some(Change::Back { is_new: true })
            }
            Err(why) => {
                self.away.store(true, SeqCst);
                (!was_away).then_some(Change::Away(why))
            }
        }
    }
}

impl Folder {
    /// Whether it is there, the same as before, and can be written to.
    fn look(&self) -> Result<(), String> {
        let path = self.path.display();
        let gone = |error: io::Error| format!("`data_dir` {path} is gone ({error}): rows wait until it is back");
        let there = std::fs::metadata(&self.path).map_err(gone)?;
        if !self.is_the_same(&there) {
            return Err(format!(
                "`data_dir` {path} is another folder than at the start: rows wait until the first one is back"
            ));
        }
        access(&self.path, AccessFlags::W_OK).map_err(|error| {
            format!("`data_dir` {path} cannot be written to ({}): rows wait until it can", error.desc())
        })
    }

    fn is_the_same(&self, there: &Metadata) -> bool {
        self.open.metadata().is_ok_and(|own| files::id(&own) == files::id(there))
    }

    /// Goes on in the folder that has the name now, if the first one was removed.
    fn adopt(&mut self) -> bool {
        let is_removed = self.open.metadata().is_ok_and(|own| own.nlink() == 0);
        let Some(new) = open(&self.path).ok().filter(|_| is_removed) else { return false };
        if access(&self.path, AccessFlags::W_OK).is_err() {
            return false;
        }
        // Another run may have come to the new one first.
        let Ok(lock) = DirLock::again(&self.path, self.process) else { return false };
        if self.within.iter().any(|folder| files::make_dirs(folder).is_err()) {
            return false;
        }
        (self.open, self.lock) = (new, Some(lock));
        true
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_that_is_moved_is_away_until_it_is_moved_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, elsewhere) = (dir.path().join("data"), dir.path().join("elsewhere"));
        fs::create_dir(&path).expect("made");
        let store = Store::default();
        store.watch(&path, Vec::new(), 0);
        assert_eq!((store.look(), store.is_away()), (None, false));
        fs::rename(&path, &elsewhere).expect("moved");
        assert!(!store.is_there_now());
        assert!(matches!(store.look(), Some(Change::Away(why)) if why.contains("is gone")));
        assert_eq!((store.look(), store.is_away()), (None, true), "said once");
        // Another one in its place is not taken for it.
        fs::create_dir(&path).expect("made");
        assert_eq!((store.look(), store.is_away()), (None, true));
        fs::remove_dir(&path).expect("removed");
        fs::rename(&elsewhere, &path).expect("moved back");
        assert_eq!((store.look(), store.is_away()), (Some(Change::Back { is_new: false }), false));
    }

    #[test]
    fn a_folder_that_is_removed_is_away_until_there_is_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("data");
        fs::create_dir(&path).expect("made");
        let store = Store::default();
        store.watch(&path, vec![path.join("spool/requests")], 0);
        fs::remove_dir(&path).expect("removed");
        assert!(matches!(store.look(), Some(Change::Away(_))));
        fs::create_dir(&path).expect("made");
        assert_eq!(store.look(), Some(Change::Back { is_new: true }));
        assert!(path.join("spool/requests").is_dir());
        assert_eq!((store.look(), store.is_there_now(), store.renewed()), (None, true, 1));
    }

    #[test]
    fn nothing_is_said_of_a_folder_that_nobody_uses() {
        let store = Store::default();
        store.watch(Path::new("/nonexistent"), Vec::new(), 0);
        assert_eq!((store.look(), store.is_there_now()), (None, true));
    }
}

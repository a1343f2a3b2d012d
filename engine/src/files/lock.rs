//! Locks of files that are written to.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

/// How often, and how far apart, a lock is tried for that a thread of this process is just letting go.
const AGAIN: (usize, Duration) = (100, Duration::from_millis(2));

/// What this process has locked, by device and inode: a sink that takes another's place shares its lock.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

/// Locked files by device and inode.
type Held = HashMap<(u64, u64), Weak<File>>;

/// Keeps other processes from writing to a file or folder. The system lets go of it when the process ends, in whatever way.
#[derive(Clone, Debug)]
pub struct Lock {
    _file: Arc<File>,
}

impl Lock {
    /// Locks a file or folder; nothing of what is neither, such as a pipe or a device.
    ///
    /// # Errors
    /// If another process has it, or it cannot be locked. The message says whose it is as far as the system tells.
    pub(super) fn of(file: &File, path: &Path) -> io::Result<Option<Self>> {
        let there = file.metadata()?;
        if !there.is_file() && !there.is_dir() {
            return Ok(None);
        }
        let id = super::id(&there);
        for attempt in 1.. {
            let mut held = HELD.lock();
            let held = held.get_or_insert_default();
            held.retain(|_, file| file.strong_count() > 0);
            if let Some(file) = held.get(&id).and_then(Weak::upgrade) {
                return Ok(Some(Self { _file: file }));
            }
            let own = file.try_clone()?;
            match own.try_lock() {
                Ok(()) => {
                    let own = Arc::new(own);
                    held.insert(id, Arc::downgrade(&own));
                    return Ok(Some(Self { _file: own }));
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
            let owner = owner(id.1);
            if owner != Some(std::process::id()) || attempt >= AGAIN.0 {
                return Err(io::Error::other(in_use(owner, there.is_dir())));
            }
            std::thread::sleep(AGAIN.1);
        }
        Err(io::Error::other(format!("{} cannot be locked", path.display())))
    }
}

fn in_use(owner: Option<u32>, is_dir: bool) -> String {
    let owner = owner.map(|owner| format!(" (process {owner})")).unwrap_or_default();
    let other = if is_dir { "folder" } else { "file" };
    format!("it is in use by another process{owner}: stop that, or choose another {other}")
}

/// The process that has locked a file of this inode. It is only for people: of another file system's the inode may be the same.
fn owner(inode: u64) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder(line, inode))
}

/// `1: FLOCK  ADVISORY  WRITE 6496 fe:00:5308458 0 EOF`, if it is of this inode. A process of another namespace has the number 0.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let (pid, file) = (words.nth(2)?, words.next()?);
    let of: u64 = file.rsplit(':').next()?.parse().ok()?;
    pid.parse().ok().filter(|pid| of == inode && *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_read_from_the_systems_list() {
        assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 6496 fe:00:5308458 0 EOF", 5_308_458), Some(6496));
        for other in [
            "1: FLOCK  ADVISORY  WRITE 6496 fe:00:5308459 0 EOF",
            "1: POSIX  ADVISORY  WRITE 6496 fe:00:5308458 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 6496 fe:00:5308458 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 0 fe:00:5308458 0 EOF",
            "1: FLOCK",
        ] {
            assert_eq!(holder(other, 5_308_458), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_another_has_locked_is_not_opened_and_own_locks_are_shared() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        // As another process would: by an opening of its own.
        let other = File::create(&path).expect("made");
        other.lock().expect("locked");
        let error = super::super::open(&path, false).expect_err("taken").to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(other);
        let first = super::super::open(&path, false).expect("free");
        let second = super::super::open(&path, false).expect("of this process");
        drop(first);
        let other = File::open(&path).expect("there");
        assert!(other.try_lock().is_err(), "the second still has it");
        drop(second);
        other.try_lock().expect("free");
    }
}

//! One run at a time keeps its state beneath a `data_dir`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::files;

/// The folder of a run's state, which no other run uses before this is dropped. The system lets go of it when the process
/// ends, in whatever way.
#[derive(Debug)]
pub struct DirLock {
    _file: Option<File>,
}

impl DirLock {
    /// Takes the folder of a run, if it keeps anything in one. Several processes that run a pipeline together may share
    /// the folder: `process` is which of them this one is.
    ///
    /// # Errors
    /// If another run has it, or it cannot be written to; the message names it.
    pub fn of(dir: Option<&Path>, process: usize) -> Result<Self, String> {
        dir.map_or(Ok(Self { _file: None }), |dir| Self::take(dir, &Self::name(process)))
    }

    /// The lock's file, of one of several processes.
    fn name(process: usize) -> String {
        match process {
            0 => "lock".to_owned(),
            process => format!("lock-{process}"),
        }
    }

    /// Takes a folder that has the place of one which was removed.
    ///
    /// # Errors
    /// As [`DirLock::of`].
    pub(crate) fn again(dir: &Path, process: usize) -> Result<Self, String> {
        Self::take(dir, &Self::name(process))
    }

    fn take(dir: &Path, name: &str) -> Result<Self, String> {
        let path = dir.join(name);
        let there = fs::symlink_metadata(&path);
        if there.as_ref().is_ok_and(|there| !there.is_file()) {
            return Err(format!("{} is not a file of a run: remove it", path.display()));
        }
        let open = || {
            files::make_dirs(dir)?;
            // Who can open the file can hold the lock.
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
        };
        let mut file = match open() {
            Ok(file) => file,
            // Where nothing can be written no other run writes either; what needs the folder says so itself.
            Err(error)
                if there.is_err()
                    && matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) =>
            {
                return Ok(Self { _file: None });
            }
            Err(error) => {
                return Err(format!("`data_dir` {} cannot be used: {}: {error}", dir.display(), path.display()));
            }
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Who it is, is only for people.
                let _ = file.take(20).read_to_string(&mut owner);
                let owner = owner.trim().parse::<u32>().map(|pid| format!(" (process {pid})")).unwrap_or_default();
                return Err(format!(
                    "`data_dir` {} is in use by another process{owner}: stop it, or choose another directory",
                    dir.display()
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(format!("{} cannot be locked: {error}", path.display()));
            }
        }
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: Some(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_of_one_run_until_it_lets_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("a/b");
        let lock = DirLock::take(&data, "lock").expect("free");
        let error = DirLock::take(&data, "lock").expect_err("taken");
        assert!(
            error.contains("in use by another process") && error.contains(&std::process::id().to_string()),
            "{error}"
        );
        DirLock::take(&data, "lock-1").expect("another process of the same run");
        drop(lock);
        DirLock::take(&data, "lock").expect("free again");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(data.join("lock")).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600, "nobody else can hold it");
        std::os::unix::fs::symlink("/dev/null", data.join("lock-2")).expect("a link");
        assert!(DirLock::take(&data, "lock-2").expect_err("a link").contains("is not a file"));
    }
}

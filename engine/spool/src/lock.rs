//! One process at a time writes to a log.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::SpoolError;

/// The file that is locked by the process that writes.
pub(crate) const LOCK: &str = "lock";

/// Locks a log's directory against other processes that write.
pub(crate) fn lock_dir(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join(LOCK);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(SpoolError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(SpoolError::io(&path)(error)),
    }
}

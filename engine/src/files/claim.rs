//! What a run is going to write to, taken for it before anything is changed.
//!
//! A start, and a change of a running pipeline, first take all outputs: they are opened as they will be written to, and locked.
//! What was made for that goes again if the start or the change fails. What was there is not touched.

use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::{Lock, Opened, open, open_dir, unmake};

/// One file or folder.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    is_dir: bool,
    _lock: Option<Lock>,
    /// Made for it, and removed with it unless it is used.
    made: Vec<PathBuf>,
}

impl Claim {
    /// Takes what a node writes to. `follows`: links may lead to it. `goes_on`: the run goes on with what another one wrote.
    ///
    /// # Errors
    /// If something of it cannot be written to; the message has the path.
    pub fn take(
        files: Vec<PathBuf>,
        folders: Vec<PathBuf>,
        (follows, goes_on): (bool, bool),
    ) -> Result<Vec<Self>, String> {
        let files = files.into_iter().map(|path| (path, false));
        let dirs = folders.into_iter().map(|path| (path, true));
        let take = |(path, is_dir): (PathBuf, bool)| {
            let there = fs::symlink_metadata(&path).map(|there| there.file_type());
            if there.as_ref().is_ok_and(|there| !there.is_file() && !there.is_dir() && !there.is_symlink()) {
                // Opening a pipe waits for its reader.
                return Ok(Self { path, is_dir, _lock: None, made: Vec::new() });
            }
            let opened = if is_dir { open_dir(&path, follows) } else { open(&path, follows) };
            let what = if goes_on { "opened" } else { "created" };
            let Opened { lock, made, .. } =
                opened.map_err(|error| format!("{} cannot be {what}: {error}", path.display()))?;
            Ok(Self { path, is_dir, _lock: lock, made })
        };
        files.chain(dirs).map(take).collect()
    }

    /// It is used: what was made for it stays.
    fn used(mut self) {
        self.made.clear();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        unmake(&self.made);
    }
}

/// What a run has taken and does not write to yet; folders for as long as it runs.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<(Vec<(u64, Claim)>, u64)>);

impl Claims {
    /// Keeps claims until their files are opened, and of folders until the end.
    /// Which these are, for [`Claims::cancel`].
    pub fn keep(&self, claims: Vec<Claim>) -> u64 {
        let (kept, number) = &mut *self.0.lock();
        *number += 1;
        kept.extend(claims.into_iter().map(|claim| (*number, claim)));
        *number
    }

    /// They are not needed after all.
    pub fn cancel(&self, number: u64) {
        self.0.lock().0.retain(|(kept, _)| *kept != number);
    }

    /// A sink has opened a file, and has its lock.
    pub fn opened(&self, path: &Path) {
        let claims = &mut self.0.lock().0;
        claims.extract_if(.., |(_, claim)| claim.path == path && !claim.is_dir).for_each(|(_, claim)| claim.used());
    }

    /// The run is over. Unless it had `begun`, what was made for it goes again.
    pub fn end(&self, begun: bool) {
        let claims = std::mem::take(&mut self.0.lock().0);
        if begun {
            claims.into_iter().for_each(|(_, claim)| claim.used());
        }
    }
}

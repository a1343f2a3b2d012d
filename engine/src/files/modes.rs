//! Permissions of what a run makes.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use nix::sys::stat::{Mode, umask};

/// Permissions of new files and folders. They are the whole process's, as the umask is: whatever makes a file, such as a
/// library, makes it with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// Of files.
    pub file: u32,
    /// Of folders.
    pub dir: u32,
}

static FILE: AtomicU32 = AtomicU32::new(Modes::DEFAULT.file);
static DIR: AtomicU32 = AtomicU32::new(Modes::DEFAULT.dir);

impl Modes {
    /// The owner writes, the group reads, others see nothing.
    pub const DEFAULT: Self = Self { file: 0o640, dir: 0o750 };

    /// Has the process make files and folders with these permissions from now on.
    pub fn apply(self) {
        FILE.store(self.file, Relaxed);
        DIR.store(self.dir, Relaxed);
        // What does not ask for permissions of its own gets the files' right to read and write, and the folders' to enter.
        umask(Mode::from_bits_truncate((!self.file & 0o666) | (!self.dir & 0o111)));
    }
}

impl Default for Modes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Permissions of new files.
pub(super) fn file() -> u32 {
    FILE.load(Relaxed)
}

/// Permissions of new folders.
pub(super) fn dir() -> u32 {
    DIR.load(Relaxed)
}

//! What the spool asks of the file system, apart from reading. Tests put faults here.

use std::fmt::Debug;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Changes to a directory of segments.
pub(crate) trait Files: Debug + Send + Sync {
    /// Makes a new file, which must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes new and deleted names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A segment that is being written.
pub(crate) trait Output: Debug + Send {
    /// Writes all of `bytes` at an offset.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file off.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Makes what was written durable (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
    /// Whether it still has its name: what is in a file that was removed, nobody will find.
    fn is_at(&self, _path: &Path) -> bool {
        true
    }
}

/// The real file system.
#[derive(Debug)]
pub(crate) struct Disk;

impl Files for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl Output for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn is_at(&self, path: &Path) -> bool {
        let id = |file: Metadata| (file.dev(), file.ino());
        self.metadata().is_ok_and(|own| fs::symlink_metadata(path).is_ok_and(|there| id(own) == id(there)))
    }
}

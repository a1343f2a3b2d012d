//! Files and folders that a run writes: how they are made, opened and locked.
//!
//! - A path whose last part is a symbolic link is not opened, unless an option says so. The system decides that when it
//!   opens the file, so nobody can put a link there in between.
//! - A file is locked (`flock`) for as long as it is written to. The lock is the file's own: it holds for every name
//!   that the file has, and needs no other file beside it.
//! - Permissions are those of the pipeline, whatever the process was started with.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

mod claim;
mod lock;
mod modes;

pub(crate) use claim::{Claim, Claims};
pub use lock::Lock;
pub use modes::Modes;

/// What an output's path is if that is a link.
const LINK: &str = "it is a symbolic link: name the file that it leads to, or set `follow_symlinks: true`";

/// A file that is written to.
#[derive(Debug)]
pub struct Opened {
    /// The file, for reading and appending.
    pub file: File,
    /// Keeps other processes away from it. None of what is no regular file, such as a pipe.
    pub lock: Option<Lock>,
    /// The file and the folders that were made for it, the outermost folder first.
    pub made: Vec<PathBuf>,
}

/// Opens a file for appending, and makes it and its folders if they are not there. Nothing in it is changed.
///
/// # Errors
/// If it cannot be opened, is a link that is not followed, or another process writes to it.
pub fn open(path: &Path, follow_symlinks: bool) -> io::Result<Opened> {
    let mut made = Vec::new();
    let opened = open_or_make(path, follow_symlinks, &mut made)
        .and_then(|file| Ok((Lock::of(&file, path)?, file)))
        .inspect_err(|_| unmake(&made));
    let (lock, file) = opened?;
    Ok(Opened { file, lock, made })
}

fn open_or_make(path: &Path, follow_symlinks: bool, made: &mut Vec<PathBuf>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).mode(modes::file());
    if !follow_symlinks {
        options.custom_flags(OFlag::O_NOFOLLOW.bits());
    }
    // To append to a pipe or a device, nothing need be read from it; a pipe would then never wait for its reader.
    let is_special = fs::metadata(path).is_ok_and(|there| !there.is_file());
    options.read(!is_special);
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened.map_err(explained),
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        made.extend(make_dirs(parent)?);
    }
    // Where a link leads nowhere yet, the file is made there.
    let file = match options.create_new(!follow_symlinks).create(true).open(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return options.create_new(false).create(false).open(path).map_err(explained);
        }
        file => file?,
    };
    file.set_permissions(Permissions::from_mode(modes::file()))?;
    if !follow_symlinks {
        made.push(path.to_owned());
    }
    Ok(file)
}

/// Opens a folder that only this process is to write to, and makes it if it is not there.
///
/// # Errors
/// As [`open`].
pub fn open_dir(path: &Path, follow_symlinks: bool) -> io::Result<Opened> {
    let mut made = Vec::new();
    let mut flags = OFlag::O_DIRECTORY;
    flags.set(OFlag::O_NOFOLLOW, !follow_symlinks);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits());
    let open = |made: &mut Vec<PathBuf>| {
        match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => made.extend(make_dirs(path)?),
            opened => return opened,
        }
        options.open(path)
    };
    let is_link = fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink());
    let named = |error: io::Error| match error.kind() {
        // With both flags Linux says of a link that it is no folder.
        ErrorKind::NotADirectory if is_link && !follow_symlinks => io::Error::other(LINK),
        _ => explained(error),
    };
    let opened = open(&mut made)
        .map_err(named)
        .and_then(|file| Ok((Lock::of(&file, path)?, file)))
        .inspect_err(|_| unmake(&made));
    let (lock, file) = opened?;
    Ok(Opened { file, lock, made })
}

/// Makes a file anew, or empties it. A link in its place is not followed.
///
/// # Errors
/// If that cannot be done.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(modes::file());
    let file = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path).map_err(explained)?;
    file.set_permissions(Permissions::from_mode(modes::file()))?;
    Ok(file)
}

/// Makes a folder and those above it that are not there; which were made, the outermost first.
///
/// # Errors
/// If one cannot be made.
pub fn make_dirs(path: &Path) -> io::Result<Vec<PathBuf>> {
    let missing = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
    let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    missing.reverse();
    let mut made = Vec::with_capacity(missing.len());
    for folder in missing {
        match DirBuilder::new().mode(modes::dir()).create(&folder) {
            // Somebody else was faster, or it is `x/..`.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => continue,
            done => done.inspect_err(|_| unmake(&made))?,
        }
        fs::set_permissions(&folder, Permissions::from_mode(modes::dir()))?;
        made.push(folder);
    }
    Ok(made)
}

/// [`make_dirs`] of at most so many folders: one that was above them and is gone is not to come back empty.
///
/// # Errors
/// As [`make_dirs`], and if there is none above them.
pub fn make_dirs_within(path: &Path, levels: usize) -> io::Result<Vec<PathBuf>> {
    let above = path.ancestors().nth(levels).filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        fs::metadata(above)?;
    }
    make_dirs(path)
}

/// Removes what was made in vain; a folder that is not empty, and a file that somebody has written to, stay.
fn unmake(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let Ok(there) = fs::symlink_metadata(path) else { continue };
        // What cannot be removed stays: it is empty.
        let _ = match there.is_dir() {
            true => fs::remove_dir(path),
            false if there.is_file() && there.len() == 0 => fs::remove_file(path),
            false => Ok(()),
        };
    }
}

/// Device and inode.
pub(crate) fn id(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Says what a link is.
fn explained(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(Errno::ELOOP as i32) { io::Error::other(LINK) } else { error }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_has_the_permissions_of_the_pipeline() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a/b/rows.jsonl");
        let opened = open(&path, false).expect("opens");
        assert_eq!(opened.made, [dir.path().join("a"), dir.path().join("a/b"), path.clone()]);
        assert_eq!((mode(&dir.path().join("a")), mode(&dir.path().join("a/b")), mode(&path)), (0o750, 0o750, 0o640));
        let other = dir.path().join("note");
        drop(create(&other).expect("made"));
        assert_eq!(mode(&other), 0o640);
        assert!(open(&path, false).expect("opens again").made.is_empty());
    }

    #[test]
    fn a_link_is_followed_only_if_that_is_asked_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, target) = (dir.path().join("rows.jsonl"), dir.path().join("target"));
        fs::write(&target, "kept").expect("written");
        std::os::unix::fs::symlink(&target, &path).expect("linked");
        for error in [open(&path, false).expect_err("a link"), create(&path).expect_err("a link")] {
            assert!(error.to_string().contains("follow_symlinks"), "{error}");
        }
        open(&path, true).expect("followed").file.write_all(b" and more").expect("written");
        assert_eq!(fs::read_to_string(&target).expect("there"), "kept and more");
        // One that leads nowhere is a link too.
        fs::remove_file(&target).expect("removed");
        assert!(open(&path, false).is_err() && !target.exists());
        assert!(open(&path, true).is_ok() && target.exists());
        let (folder, real) = (dir.path().join("table"), dir.path().join("real"));
        fs::create_dir(&real).expect("made");
        std::os::unix::fs::symlink(&real, &folder).expect("linked");
        assert!(open_dir(&folder, false).expect_err("a link").to_string().contains("follow_symlinks"));
        open_dir(&folder, true).expect("followed");
    }

    #[test]
    fn what_cannot_be_opened_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("file"), "").expect("written");
        open(&dir.path().join("file/rows.jsonl"), false).expect_err("no folder");
        let error = make_dirs_within(&dir.path().join("gone/a/b"), 2).expect_err("nothing above");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(make_dirs_within(&dir.path().join("a/b"), 2).expect("made").len(), 2);
        // A name that is too long: its folders were made by then.
        open(&dir.path().join("new/folder").join("x".repeat(300)), false).expect_err("too long");
        assert!(!dir.path().join("new").exists());
    }
}

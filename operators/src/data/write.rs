//! Puts a file in place of another one, in one step: who reads it sees one or the other.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

/// Writes a file; `made` becomes its time, unless that is still to come.
///
/// # Errors
/// If it cannot be written; the message names the file.
pub(super) fn replace(path: &Path, content: &[u8], made: Option<SystemTime>) -> Result<(), String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = write(&temporary, content, made).and_then(|()| fs::rename(&temporary, path));
    let synced = written.and_then(|()| File::open(folder(path))?.sync_all());
    synced.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        format!("{} cannot be written: {error}", path.display())
    })
}

fn write(path: &Path, content: &[u8], made: Option<SystemTime>) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    if let Some(made) = made.filter(|made| *made <= SystemTime::now()) {
        file.set_modified(made)?;
    }
    file.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("list.csv");
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        replace(&path, b"one", Some(made)).expect("written");
        assert_eq!(fs::metadata(&path).and_then(|found| found.modified()).ok(), Some(made));
        replace(&path, b"two", Some(SystemTime::now() + Duration::from_secs(999))).expect("written");
        assert!(fs::metadata(&path).and_then(|found| found.modified()).is_ok_and(|at| at <= SystemTime::now()));
        assert_eq!(
            (fs::read(&path).expect("there"), fs::read_dir(dir.path()).expect("there").count()),
            (b"two".to_vec(), 1)
        );
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).expect("made");
        assert!(replace(&folder, b"x", None).is_err_and(|why| why.contains("folder cannot be written")));
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 2, "no temporary file is left");
    }
}

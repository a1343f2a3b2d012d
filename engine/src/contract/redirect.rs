//! Writing elsewhere than the pipeline says, so that a running one is not disturbed.

use std::path::{Component, Path, PathBuf};

/// What is written goes from one folder to another.
pub(crate) struct Redirect {
    /// The pipeline's `data_dir`.
    pub from: PathBuf,
    /// What takes its place.
    pub to: PathBuf,
}

impl Redirect {
    /// Where a file goes: what is beneath `data_dir` keeps its place there, of others the name is kept.
    pub fn path(&self, full: &Path) -> PathBuf {
        match plain(full).strip_prefix(plain(&self.from)) {
            Ok(rest) => self.to.join(rest),
            Err(_) => self.to.join(full.file_name().unwrap_or(full.as_os_str())),
        }
    }

    /// Refuses to write where the pipeline does: neither in its folders nor in one around them.
    pub fn check(&self, spool: Option<&Path>) -> Result<(), String> {
        for (dir, what) in [(Some(self.from.as_path()), "data_dir"), (spool, "spool")] {
            let Some(dir) = dir else { continue };
            if !are_apart(dir, &self.to) {
                return Err(format!(
                    "{} is in the pipeline's {what} {}, or around it: choose another folder to write to",
                    self.to.display(),
                    dir.display()
                ));
            }
        }
        Ok(())
    }
}

/// Whether neither of two folders is the other or in it, links followed.
pub fn are_apart(a: &Path, b: &Path) -> bool {
    let (a, b) = (real(a), real(b));
    !a.starts_with(&b) && !b.starts_with(&a)
}

/// An absolute path without `.` and `..`, as it is written.
fn plain(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => _ = plain.pop(),
            other => plain.push(other),
        }
    }
    plain
}

/// Where a path leads, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = plain(path);
    let mut there = path.as_path();
    loop {
        if let Ok(found) = there.canonicalize() {
            let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() { found } else { found.join(rest) };
        }
        match there.parent() {
            Some(parent) => there = parent,
            None => return path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_place_beneath_the_folder_and_others_their_name() {
        let redirect = Redirect { from: "/srv/./data".into(), to: "/tmp/out".into() };
        let path = |path: &str| redirect.path(Path::new(path));
        assert_eq!(path("/srv/data/a/rows.jsonl"), Path::new("/tmp/out/a/rows.jsonl"));
        assert_eq!(path("/srv/x/../data/rows.jsonl"), Path::new("/tmp/out/rows.jsonl"));
        assert_eq!(path("/var/log/rows.jsonl"), Path::new("/tmp/out/rows.jsonl"));
    }

    #[test]
    fn the_folders_of_the_pipeline_are_not_written_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        std::fs::create_dir_all(data.join("spool")).expect("made");
        std::os::unix::fs::symlink(&data, dir.path().join("link")).expect("linked");
        let check = |to: &Path, spool: &Path| Redirect { from: data.clone(), to: to.to_owned() }.check(Some(spool));
        let spool = data.join("spool");
        for refused in ["data", "data/again", "link/again", "data/../link", "."] {
            let error = check(&dir.path().join(refused), &spool).expect_err("refused");
            assert!(error.contains("choose another folder"), "{error}");
        }
        assert_eq!(check(&dir.path().join("again"), &spool), Ok(()));
        let elsewhere = dir.path().join("elsewhere");
        assert!(check(&elsewhere.join("out"), &elsewhere).expect_err("refused").contains("spool"));
    }
}

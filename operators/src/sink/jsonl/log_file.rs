//! A file of lines that grows, is opened again when it was moved, and is put aside when it is large or old enough.
//!
//! What is put aside is complete and durable, has the time of the last tick in its name, and is compressed by a thread
//! of its own, which replaces it in one step. What a killed process left half compressed is done again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use chrono::DateTime;
use engine::batch::Time;
use engine::contract::NodeMetrics;
use engine::files::{self, Lock};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::identity::Identity;

/// When a file is put aside, and what becomes of it then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rotation {
    /// Bytes that a file may have; a tick's rows stay together, so it may be larger by one tick.
    pub size: Option<u64>,
    /// Event time in ms after whose multiples a new file begins.
    pub every: Option<Time>,
    /// How many files are kept besides the one that is written.
    pub keep: Option<usize>,
    pub gzip: bool,
}

/// Counters of what happens to files.
#[derive(Clone)]
struct Counters {
    rotated: Arc<AtomicU64>,
    removed: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub path: PathBuf,
    /// Whether it may be behind a symbolic link.
    pub follow_symlinks: bool,
}

/// The file.
pub(super) struct LogFile {
    path: PathBuf,
    follow_symlinks: bool,
    file: File,
    /// Keeps other processes away from it.
    lock: Option<Lock>,
    /// Its length.
    bytes: u64,
    /// The first tick in it, if that is known.
    since: Option<Time>,
    last: Time,
    rotation: Rotation,
    counters: Counters,
    /// Compresses and removes files.
    tidying: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens the file for appending, and makes it and its folder if they are not there.
    pub fn open(place: &Place, rotation: Rotation, metrics: &NodeMetrics) -> io::Result<Self> {
        let Place { path, follow_symlinks } = place.clone();
        let files::Opened { file, lock, .. } = files::open(&path, follow_symlinks)?;
        let metadata = file.metadata()?;
        let counters = Counters {
            rotated: metrics.counter("files_rotated"),
            removed: metrics.counter("files_removed"),
            failed: metrics.counter("files_not_compressed"),
        };
        let (bytes, since, last, tidying) = (metadata.len(), None, 0, None);
        let mut opened = Self { path, follow_symlinks, file, lock, bytes, since, last, rotation, counters, tidying };
        if metadata.is_file() {
            let aside = Aside { path: opened.path.clone(), keep: rotation.keep, counters: opened.counters.clone() };
            let mut left = aside.files();
            left.retain(|path| rotation.gzip && path.extension().is_none_or(|extension| extension != "gz"));
            opened.tidy(left);
        }
        Ok(opened)
    }

    /// Cuts the file to so many bytes, if it is longer. What is left begins with lines of the tick `since`.
    pub fn cut(&mut self, bytes: u64, since: Option<Time>) -> io::Result<()> {
        if self.is_regular()? && bytes < self.bytes {
            self.file.set_len(bytes)?;
            self.bytes = bytes;
        }
        self.since = since.filter(|_| self.bytes > 0);
        Ok(())
    }

    /// Whether it is neither a pipe nor a device.
    pub fn is_regular(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.is_file())
    }

    /// Whether its last name was removed: what is written to it now, nobody will ever read.
    pub fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 0)
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first tick in it, if that is known.
    pub fn since(&self) -> Option<Time> {
        self.since
    }

    /// What tells it from another file.
    pub fn identity(&self) -> Option<Identity> {
        if self.is_regular().ok()? { Identity::of(&self.file, self.bytes).ok() } else { None }
    }

    /// Whether it is the file that is known by this, or a copy of it.
    pub fn is(&self, known: &Identity) -> bool {
        known.is(&self.file)
    }

    /// Whether it has the number of the file that is known by this.
    pub fn has_number(&self, known: &Identity) -> bool {
        self.file.metadata().is_ok_and(|metadata| known.has_number(&metadata))
    }

    /// Appends lines of a tick.
    pub fn write(&mut self, tick: Time, text: &[u8]) -> io::Result<()> {
        self.file.write_all(text)?;
        self.bytes += text.len() as u64;
        self.since.get_or_insert(tick);
        self.last = self.last.max(tick);
        Ok(())
    }

    pub fn sync(&mut self) -> io::Result<()> {
        // A pipe or a device has nothing to sync.
        if self.is_regular()? { self.file.sync_data() } else { Ok(()) }
    }

    /// Whether the file should be put aside before lines of `tick` are written.
    pub fn is_due(&self, tick: Time) -> bool {
        let large = self.rotation.size.is_some_and(|size| self.bytes >= size);
        let period = |every: Time, tick: Time| tick / every.max(1);
        let old = self
            .rotation
            .every
            .zip(self.since)
            .is_some_and(|(every, since)| period(every, since) < period(every, tick));
        self.bytes > 0 && (large || old)
    }

    /// Puts the file aside, whose lines have been made durable, and begins another.
    pub fn rotate(&mut self) -> io::Result<()> {
        if !self.is_regular()? {
            return Ok(());
        }
        let aside = self.free_name();
        fs::rename(&self.path, &aside)?;
        (self.file, self.lock) = match files::open(&self.path, self.follow_symlinks) {
            Ok(files::Opened { file, lock, .. }) => (file, lock),
            Err(error) => {
                // Written on in the file that is open, under its own name.
                let _ = fs::rename(&aside, &self.path);
                return Err(error);
            }
        };
        if let Some(folder) = folder(&self.path) {
            File::open(folder)?.sync_all()?;
        }
        (self.bytes, self.since) = (self.file.metadata()?.len(), None);
        self.counters.rotated.fetch_add(1, Relaxed);
        self.tidy(if self.rotation.gzip { vec![aside] } else { Vec::new() });
        Ok(())
    }

    /// Goes on in the file that has the name now.
    pub fn reopen(&mut self) -> io::Result<()> {
        let files::Opened { file, lock, .. } = files::open(&self.path, self.follow_symlinks)?;
        let metadata = file.metadata()?;
        if metadata.ino() != self.file.metadata()?.ino() {
            self.since = None;
        }
        (self.file, self.lock, self.bytes) = (file, lock, metadata.len());
        Ok(())
    }

    /// The name with the time of the last tick, and a number if it is taken.
    fn free_name(&self) -> PathBuf {
        let time = i64::try_from(self.last).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
        let stem = format!("{}-{}", self.path.display(), time.format("%Y%m%dT%H%M%SZ"));
        let taken = |name: &str| Path::new(name).exists() || Path::new(&format!("{name}.gz")).exists();
        let mut name = stem.clone();
        let mut number = 1;
        while taken(&name) {
            name = format!("{stem}.{number}");
            number += 1;
        }
        PathBuf::from(name)
    }

    /// Compresses what was put aside and removes what is too old, one after the other, in a thread if it takes long.
    fn tidy(&mut self, paths: Vec<PathBuf>) {
        let aside = Aside { path: self.path.clone(), keep: self.rotation.keep, counters: self.counters.clone() };
        if paths.is_empty() {
            return aside.remove_old();
        }
        let before = self.tidying.take();
        let work = move || {
            if let Some(before) = before {
                let _ = before.join();
            }
            aside.compress(&paths);
            aside.remove_old();
        };
        match std::thread::Builder::new().name("compress".into()).spawn(work) {
            Ok(thread) => self.tidying = Some(thread),
            Err(error) => tracing::warn!(%error, "no thread to compress with; tried again at the next start"),
        }
    }
}

/// The files that were put aside.
struct Aside {
    /// The one that is written.
    path: PathBuf,
    keep: Option<usize>,
    counters: Counters,
}

impl Aside {
    /// All, oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let (Some(folder), Some(own)) = (folder(&self.path), self.path.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let entries = fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
        let entries: Vec<PathBuf> = entries.unwrap_or_default();
        let aged = |path: PathBuf| {
            let (time, number) = age(own, path.file_name()?.to_str()?)?;
            Some(((time.to_owned(), number), path))
        };
        let mut found: Vec<_> = entries.into_iter().filter_map(aged).collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }

    fn remove_old(&self) {
        let Some(keep) = self.keep else { return };
        let files = self.files();
        for path in &files[..files.len().saturating_sub(keep)] {
            match fs::remove_file(path) {
                Ok(()) => {
                    self.counters.removed.fetch_add(1, Relaxed);
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "an old file cannot be removed"),
            }
        }
    }

    fn compress(&self, paths: &[PathBuf]) {
        for path in paths {
            if let Err(error) = gzip(path) {
                self.counters.failed.fetch_add(1, Relaxed);
                tracing::warn!(path = %path.display(), %error, "not compressed; tried again at the next start");
            }
        }
    }
}

impl Drop for LogFile {
    /// A process does not end with a file half compressed, unless it is killed.
    fn drop(&mut self) {
        if let Some(thread) = self.tidying.take() {
            let _ = thread.join();
        }
    }
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Time and number of a file that was put aside, by its name; `None` for any other file.
fn age<'n>(own: &str, name: &'n str) -> Option<(&'n str, u64)> {
    let rest = name.strip_prefix(own)?.strip_prefix('-')?;
    let rest = rest.strip_suffix(".gz").unwrap_or(rest);
    let (time, number) = match rest.split_once('.') {
        Some((time, number)) => (time, number.parse().ok()?),
        None => (rest, 0),
    };
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    (time.chars().map(shape).eq("00000000T000000Z".chars())).then_some((time, number))
}

/// Replaces a file by its compressed form, in one step.
fn gzip(path: &Path) -> io::Result<()> {
    let target = PathBuf::from(format!("{}.gz", path.display()));
    let temporary = PathBuf::from(format!("{}.tmp", target.display()));
    let mut from = File::open(path)?;
    let mut to = GzEncoder::new(files::create(&temporary)?, Compression::default());
    io::copy(&mut from, &mut to)?;
    let to = to.finish()?;
    to.set_permissions(from.metadata()?.permissions())?;
    to.sync_all()?;
    fs::rename(&temporary, &target)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    /// 2026-11-24T18:59:59Z in ms.
    const TICK: Time = 1_795_546_799_000;

    fn opened(path: &Path, rotation: Rotation) -> LogFile {
        let place = Place { path: path.to_owned(), follow_symlinks: false };
        LogFile::open(&place, rotation, &NodeMetrics::default()).expect("opens")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("readable").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn unzipped(path: &Path) -> String {
        let mut text = String::new();
        GzDecoder::new(File::open(path).expect("there")).read_to_string(&mut text).expect("gzip");
        text
    }

    #[test]
    fn a_file_is_put_aside_by_size_and_by_time_and_compressed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        let rotation = Rotation { size: Some(10), every: Some(3_600_000), keep: Some(2), gzip: true };
        let mut file = opened(&path, rotation);
        let mut write = |tick, text: &str| {
            if file.is_due(tick) {
                file.rotate().expect("put aside");
            }
            file.write(tick, text.as_bytes()).expect("written");
        };
        write(TICK, "one\n");
        write(TICK + 1000, "next hour\n");
        write(TICK + 1100, "ten bytes were there\n");
        write(TICK + 1200, "again\n");
        drop(file);
        // Three were put aside, and two are kept.
        assert_eq!(
            names(dir.path()),
            ["rows.jsonl", "rows.jsonl-20261124T190000Z.1.gz", "rows.jsonl-20261124T190000Z.gz"]
        );
        assert_eq!(unzipped(&dir.path().join("rows.jsonl-20261124T190000Z.gz")), "next hour\n");
        assert_eq!(fs::read_to_string(&path).expect("there"), "again\n");
    }

    #[test]
    fn what_was_left_uncompressed_is_compressed_at_the_next_start() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        for name in ["rows.jsonl-20261124T180000Z", "rows.jsonl-20261124T180000Z.gz.tmp", "rows.jsonl-old", "other"] {
            fs::write(dir.path().join(name), "rows\n").expect("written");
        }
        let rotation = Rotation { gzip: true, ..Rotation::default() };
        drop(opened(&path, rotation));
        assert_eq!(names(dir.path()), ["other", "rows.jsonl", "rows.jsonl-20261124T180000Z.gz", "rows.jsonl-old"]);
        assert_eq!(unzipped(&dir.path().join("rows.jsonl-20261124T180000Z.gz")), "rows\n");
    }

    #[test]
    fn a_moved_file_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, moved) = (dir.path().join("rows.jsonl"), dir.path().join("rows.jsonl.1"));
        let mut file = opened(&path, Rotation::default());
        file.write(1, b"before\n").expect("written");
        fs::rename(&path, &moved).expect("moved");
        file.write(2, b"between\n").expect("written");
        file.reopen().expect("opens");
        file.write(3, b"after\n").expect("written");
        assert_eq!(
            (fs::read(&moved).expect("there"), fs::read(&path).expect("there")),
            (b"before\nbetween\n".to_vec(), b"after\n".to_vec())
        );
        assert_eq!(file.bytes(), 6);
    }

    #[test]
    fn only_names_of_files_put_aside_have_an_age() {
        assert_eq!(age("a.jsonl", "a.jsonl-20261124T190000Z.gz"), Some(("20261124T190000Z", 0)));
        assert_eq!(age("a.jsonl", "a.jsonl-20261124T190000Z.12"), Some(("20261124T190000Z", 12)));
        for other in ["a.jsonl", "a.jsonl-20261124", "b.jsonl-20261124T190000Z", "a.jsonl-20261124T190000Z.gz.tmp"] {
            assert_eq!(age("a.jsonl", other), None, "{other}");
        }
    }
}

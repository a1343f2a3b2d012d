//! A file that grows, is truncated, or is replaced by another of the same name.
//!
//! Files that were rotated more than once since they were last read are taken in order, as long as they are there under
//! their names with a number or date behind it. What cannot be read any more is counted.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// How long a file that has been replaced is still read after its last byte: writers hold it open for a while.
const GRACE: Duration = Duration::from_millis(500);

/// By so many bytes at its beginning a file is known again.
const HEAD: usize = 256;

/// Follows a file by name, as `tail -F` does.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    open: Option<Opened>,
    /// Where an earlier run was.
    resume: Option<Place>,
    /// Counts files of which something was never read: gone, or compressed, before it was their turn.
    skipped: Arc<AtomicU64>,
}

/// A place in a file, which keeps it under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Place {
    /// Device and inode.
    pub identity: (u64, u64),
    /// Bytes before it.
    pub offset: u64,
    /// How many bytes of the file's beginning are known, at most the offset, and their CRC-32: an inode that is used
    /// again, or a file that was cut and has grown, is another text.
    #[serde(default)]
    pub head: (u64, u32),
}

#[derive(Debug)]
struct Opened {
    file: File,
    identity: (u64, u64),
    read: u64,
    /// The first bytes.
    head: Vec<u8>,
    /// When the file was found replaced with nothing left to read.
    replaced: Option<Instant>,
}

/// What a read of a followed file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many bytes came.
    Bytes(usize),
    /// Nothing new.
    Waiting,
    /// What follows is another text: the file was truncated, or another has its name.
    Restarted,
}

impl Tail {
    /// Follows `path`, which need not exist yet.
    pub(super) fn new(path: PathBuf, skipped: Arc<AtomicU64>) -> Self {
        Self { path, open: None, resume: None, skipped }
    }

    /// Goes on at a place: in the file of that name, or in the one that it was renamed to. If neither is there any
    /// more, the file of that name is read from its beginning.
    pub(super) fn resume(path: PathBuf, place: Place, skipped: Arc<AtomicU64>) -> Self {
        Self { path, open: None, resume: Some(place), skipped }
    }

    /// Where reading is, `unread` bytes before the end of what was read.
    pub(super) fn place(&self, unread: usize) -> Option<Place> {
        let open = self.open.as_ref()?;
        let offset = open.read.saturating_sub(unread as u64);
        let known = open.head.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let head = (known as u64, crc32fast::hash(&open.head[..known]));
        Some(Place { identity: open.identity, offset, head })
    }

    /// Reads on.
    ///
    /// # Errors
    /// If the file can no longer be read.
    pub(super) fn read(&mut self, room: &mut [u8]) -> Result<Progress, String> {
        let fault = |path: &PathBuf, error| format!("{} cannot be read: {error}", path.display());
        let Some(open) = &mut self.open else {
            if let Some(place) = self.resume.take() {
                if let Some(opened) = Opened::at(&self.path, place).map_err(|e| fault(&self.path, e))? {
                    self.open = Some(opened);
                    return self.read(room);
                }
                self.skipped.fetch_add(1, Relaxed);
                let (path, offset) = (self.path.display(), place.offset);
                tracing::warn!(%path, offset, "the file that was read up to here is gone or was cut: what followed is lost");
            }
            let Some(opened) = Opened::new(&self.path).map_err(|e| fault(&self.path, e))? else {
                return Ok(Progress::Waiting);
            };
            self.open = Some(opened);
            return Ok(Progress::Restarted);
        };
        let bytes = read(&mut open.file, room).map_err(|e| fault(&self.path, e))?;
        if bytes > 0 {
            let missing = HEAD.saturating_sub(open.head.len()).min(bytes);
            open.head.extend_from_slice(&room[..missing]);
            open.read += bytes as u64;
            open.replaced = None;
            return Ok(Progress::Bytes(bytes));
        }
        let own = open.file.metadata().map_err(|e| fault(&self.path, e))?;
        if own.len() < open.read {
            open.file.seek(SeekFrom::Start(0)).map_err(|e| fault(&self.path, e))?;
            open.read = 0;
            open.head.clear();
            return Ok(Progress::Restarted);
        }
        // A name that is gone may come back; until then the file is read on.
        let replaced = fs::metadata(&self.path).is_ok_and(|named| identity(&named) != open.identity);
        if !replaced {
            return Ok(Progress::Waiting);
        }
        if open.replaced.get_or_insert_with(Instant::now).elapsed() < GRACE {
            return Ok(Progress::Waiting);
        }
        let between = self.between(&own);
        let Some(next) = between else {
            self.open = None;
            return self.read(room);
        };
        self.open = Opened::new(&next).map_err(|e| fault(&next, e))?;
        Ok(Progress::Restarted)
    }

    /// The file that came after one and was rotated away as well, the oldest if there are several.
    fn between(&self, after: &Metadata) -> Option<PathBuf> {
        let current = fs::metadata(&self.path).ok().map(|found| identity(&found));
        let after = (identity(after), after.modified().ok()?);
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for path in beside(&self.path).filter(|path| is_rotated(&self.path, path)) {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let Ok(modified) = metadata.modified() else { continue };
            let own = identity(&metadata);
            if metadata.is_file() && own != after.0 && Some(own) != current && modified > after.1 {
                found.push((modified, path));
            }
        }
        found.sort();
        for (_, path) in found {
            if !is_compressed(&path) {
                return Some(path);
            }
            self.skipped.fetch_add(1, Relaxed);
            tracing::warn!(path = %path.display(), "a rotated file was compressed before it was read, and is skipped");
        }
        None
    }
}

/// The files in the folder of a file.
fn beside(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Whether a name is another one with a number or a date behind it: `access.log.1`, `access.log-20261124`.
fn is_rotated(path: &Path, other: &Path) -> bool {
    let bytes = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
    let (name, other) = (bytes(path), bytes(other));
    matches!(other.strip_prefix(name.as_slice()), Some([b'.' | b'-', digit, ..]) if digit.is_ascii_digit())
}

fn is_compressed(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|end| ["gz", "bz2", "xz", "zst"].contains(&end))
}

impl Opened {
    /// The file of a place, whatever it is called now; `None` if it is gone or was cut shorter.
    fn at(path: &Path, place: Place) -> std::io::Result<Option<Self>> {
        for candidate in std::iter::once(path.to_owned()).chain(beside(path)) {
            let found = fs::metadata(&candidate).is_ok_and(|found| {
                found.is_file() && identity(&found) == place.identity && found.len() >= place.offset
            });
            if !found {
                continue;
            }
            let mut file = File::open(&candidate)?;
            let mut head = Vec::with_capacity(HEAD);
            (&mut file).take(place.head.0.min(HEAD as u64)).read_to_end(&mut head)?;
            if head.len() as u64 != place.head.0 || crc32fast::hash(&head) != place.head.1 {
                continue;
            }
            file.seek(SeekFrom::Start(place.offset))?;
            return Ok(Some(Self { file, identity: place.identity, read: place.offset, head, replaced: None }));
        }
        Ok(None)
    }

    /// `None` if the file does not exist.
    fn new(path: &PathBuf) -> std::io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let identity = identity(&file.metadata()?);
        Ok(Some(Self { file, identity, read: 0, head: Vec::new(), replaced: None }))
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Reads, again if a signal came in between.
pub(super) fn read(from: &mut impl Read, room: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match from.read(room) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn follow(path: &Path) -> Tail {
        Tail::new(path.to_owned(), Arc::default())
    }

    fn go_on(path: &Path, place: Place) -> Tail {
        Tail::resume(path.to_owned(), place, Arc::default())
    }

    /// Reads until `wanted` bytes came and says where the text began anew, as `|`.
    fn read_until(tail: &mut Tail, wanted: &str) -> String {
        let (mut seen, mut room) = (String::new(), [0; 64]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while seen != wanted && Instant::now() < deadline {
            match tail.read(&mut room).expect("readable") {
                Progress::Bytes(bytes) => seen.push_str(std::str::from_utf8(&room[..bytes]).expect("text")),
                Progress::Restarted => seen.push('|'),
                Progress::Waiting => std::thread::yield_now(),
            }
        }
        seen
    }

    #[test]
    fn reading_goes_on_in_the_file_that_was_renamed_meanwhile() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        fs::write(&path, b"onetwo").expect("written");
        let mut first = follow(&path);
        assert_eq!(read_until(&mut first, "|onetwo"), "|onetwo");
        let place = first.place(3).expect("open");
        drop(first);
        fs::rename(&path, dir.path().join("log.1")).expect("renamed");
        fs::write(&path, b"four").expect("written");
        assert_eq!(read_until(&mut go_on(&path, place), "two|four"), "two|four");
        fs::remove_file(dir.path().join("log.1")).expect("removed");
        let mut gone = go_on(&path, place);
        assert_eq!(read_until(&mut gone, "|four"), "|four");
        assert_eq!(gone.skipped.load(Relaxed), 1);
    }

    #[test]
    fn another_text_of_the_same_inode_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        fs::write(&path, b"one").expect("written");
        let mut first = follow(&path);
        assert_eq!(read_until(&mut first, "|one"), "|one");
        let place = first.place(0).expect("open");
        // As copytruncate does, and grown beyond the place before anybody looked.
        fs::write(&path, b"other").expect("written");
        let mut next = go_on(&path, place);
        assert_eq!(read_until(&mut next, "|other"), "|other");
        assert_eq!(next.skipped.load(Relaxed), 1);
    }

    #[test]
    fn files_rotated_twice_while_nobody_read_are_taken_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let write = |name: &str, text: &str, age_s: u64| {
            let file = File::create(dir.path().join(name)).expect("created");
            (&file).write_all(text.as_bytes()).expect("written");
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).expect("a time");
        };
        fs::write(&path, b"one").expect("written");
        let mut first = follow(&path);
        assert_eq!(read_until(&mut first, "|one"), "|one");
        let place = first.place(0).expect("open");
        fs::rename(&path, dir.path().join("log.3")).expect("renamed");
        File::options()
            .append(true)
            .open(dir.path().join("log.3"))
            .and_then(|mut f| f.write_all(b"+"))
            .expect("written");
        let old = File::open(dir.path().join("log.3")).expect("open");
        old.set_modified(SystemTime::now() - Duration::from_secs(50)).expect("a time");
        write("log.4", "before", 60);
        write("log.2", "two", 40);
        write("log.1.gz", "squeezed", 35);
        write("log.1", "three", 30);
        write("log.old", "unrelated", 20);
        write("log", "four", 10);
        let mut tail = go_on(&path, place);
        assert_eq!(read_until(&mut tail, "+|two|three|four"), "+|two|three|four");
        assert_eq!(tail.skipped.load(Relaxed), 1, "the compressed one");
    }

    #[test]
    fn a_file_is_followed_through_truncation_and_rotation() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let mut tail = follow(&path);
        assert_eq!(tail.read(&mut [0; 8]), Ok(Progress::Waiting));
        let mut file = File::create(&path).expect("created");
        file.write_all(b"one").expect("written");
        assert_eq!(read_until(&mut tail, "|one"), "|one");
        file.set_len(0).expect("truncated");
        assert_eq!(read_until(&mut tail, "|"), "|");
        file.rewind().expect("rewound");
        file.write_all(b"two").expect("written");
        assert_eq!(read_until(&mut tail, "two"), "two");
        fs::rename(&path, dir.path().join("log.1")).expect("renamed");
        file.write_all(b"three").expect("written");
        fs::write(&path, b"four").expect("written");
        assert_eq!(read_until(&mut tail, "three|four"), "three|four");
    }
}

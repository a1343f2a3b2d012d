//! A file that grows, is truncated, or is replaced by another of the same name.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file that has been replaced is still read after its last byte: writers hold it open for a while.
const GRACE: Duration = Duration::from_millis(500);

/// Follows a file by name, as `tail -F` does.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    open: Option<Opened>,
    /// Where an earlier run was.
    resume: Option<Place>,
}

/// A place in a file, which keeps it under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Place {
    /// Device and inode.
    pub identity: (u64, u64),
    /// Bytes before it.
    pub offset: u64,
}

#[derive(Debug)]
struct Opened {
    file: File,
    identity: (u64, u64),
    read: u64,
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
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None, resume: None }
    }

    /// Goes on at a place: in the file of that name, or in the one that it was renamed to. If neither is there any
    /// more, the file of that name is read from its beginning.
    pub(super) fn resume(path: PathBuf, place: Place) -> Self {
        Self { path, open: None, resume: Some(place) }
    }

    /// Where reading is, `unread` bytes before the end of what was read.
    pub(super) fn place(&self, unread: usize) -> Option<Place> {
        let open = self.open.as_ref()?;
        Some(Place { identity: open.identity, offset: open.read.saturating_sub(unread as u64) })
    }

    /// Reads on.
    ///
    /// # Errors
    /// If the file can no longer be read.
    pub(super) fn read(&mut self, room: &mut [u8]) -> Result<Progress, String> {
        let fault = |path: &PathBuf, error| format!("{} cannot be read: {error}", path.display());
        let Some(open) = &mut self.open else {
            if let Some(place) = self.resume.take()
                && let Some(opened) = Opened::at(&self.path, place).map_err(|e| fault(&self.path, e))?
            {
                self.open = Some(opened);
                return self.read(room);
            }
            let Some(opened) = Opened::new(&self.path).map_err(|e| fault(&self.path, e))? else {
                return Ok(Progress::Waiting);
            };
            self.open = Some(opened);
            return Ok(Progress::Restarted);
        };
        let bytes = read(&mut open.file, room).map_err(|e| fault(&self.path, e))?;
        if bytes > 0 {
            open.read += bytes as u64;
            open.replaced = None;
            return Ok(Progress::Bytes(bytes));
        }
        let own = open.file.metadata().map_err(|e| fault(&self.path, e))?;
        if own.len() < open.read {
            open.file.seek(SeekFrom::Start(0)).map_err(|e| fault(&self.path, e))?;
            open.read = 0;
            return Ok(Progress::Restarted);
        }
        // A name that is gone may come back; until then the file is read on.
        let replaced = std::fs::metadata(&self.path).is_ok_and(|named| identity(&named) != open.identity);
        if !replaced {
            return Ok(Progress::Waiting);
        }
        if open.replaced.get_or_insert_with(Instant::now).elapsed() < GRACE {
            return Ok(Progress::Waiting);
        }
        self.open = None;
        self.read(room)
    }
}

impl Opened {
    /// The file of a place, whatever it is called now; `None` if it is gone or was cut shorter.
    fn at(path: &Path, place: Place) -> std::io::Result<Option<Self>> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let others = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        for candidate in std::iter::once(path.to_owned()).chain(others) {
            let found = std::fs::metadata(&candidate).is_ok_and(|found| {
                found.is_file() && identity(&found) == place.identity && found.len() >= place.offset
            });
            if found {
                let mut file = File::open(&candidate)?;
                file.seek(SeekFrom::Start(place.offset))?;
                return Ok(Some(Self { file, identity: place.identity, read: place.offset, replaced: None }));
            }
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
        Ok(Some(Self { file, identity, read: 0, replaced: None }))
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
        std::fs::write(&path, b"onetwo").expect("written");
        let mut first = Tail::new(path.clone());
        assert_eq!(read_until(&mut first, "|onetwo"), "|onetwo");
        let place = first.place(3).expect("open");
        drop(first);
        std::fs::rename(&path, dir.path().join("log.1")).expect("renamed");
        std::fs::write(&path, b"four").expect("written");
        assert_eq!(read_until(&mut Tail::resume(path.clone(), place), "two|four"), "two|four");
        std::fs::remove_file(dir.path().join("log.1")).expect("removed");
        assert_eq!(read_until(&mut Tail::resume(path, place), "|four"), "|four");
    }

    #[test]
    fn a_file_is_followed_through_truncation_and_rotation() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.read(&mut [0; 8]), Ok(Progress::Waiting));
        let mut file = File::create(&path).expect("created");
        file.write_all(b"one").expect("written");
        assert_eq!(read_until(&mut tail, "|one"), "|one");
        file.set_len(0).expect("truncated");
        assert_eq!(read_until(&mut tail, "|"), "|");
        file.rewind().expect("rewound");
        file.write_all(b"two").expect("written");
        assert_eq!(read_until(&mut tail, "two"), "two");
        std::fs::rename(&path, dir.path().join("log.1")).expect("renamed");
        file.write_all(b"three").expect("written");
        std::fs::write(&path, b"four").expect("written");
        assert_eq!(read_until(&mut tail, "three|four"), "three|four");
    }
}

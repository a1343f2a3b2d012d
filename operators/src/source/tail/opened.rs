//! A text that is being read: a file, or what a compressed one holds.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use capture_file::Decompressed;

use super::place::{
    BEFORE, Identity, Known, Last, Mark, Place, SAMPLE, begins_with, bytes_at, identity, modified, sample, stands_at,
    stands_before,
};

/// Opens a regular file; opening a pipe would wait for its writer.
pub(in crate::source) fn open_regular(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "it is a directory"));
    }
    if !found.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    File::open(path)
}

#[derive(Debug)]
enum Text {
    Plain(File),
    /// Of so many bytes nothing is wanted.
    Packed(Box<Decompressed<File>>, u64),
}

/// A text and how far it has been read.
#[derive(Debug)]
pub(super) struct Opened {
    text: Text,
    /// Where it was opened, links followed.
    pub at: PathBuf,
    pub identity: Identity,
    /// Bytes read.
    pub read: u64,
    /// The first bytes, and those read last.
    pub head: Vec<u8>,
    recent: Vec<u8>,
    /// When it was last written to, as far as that gives its order among others.
    modified: Option<i64>,
    /// The most bytes that it was seen to have, and when these were written.
    seen: u64,
    written: i64,
    /// It cannot be decompressed further.
    broken: bool,
    /// Somebody may still write to it.
    pub grows: bool,
    /// When it was first found replaced, and when that and nothing left to read.
    pub replaced: Option<(Instant, Instant)>,
}

/// What reading says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes, perhaps none while some are passed over.
    Bytes(usize),
    End,
    /// It is another text now, and so many bytes of the one before were there and not read.
    Other(u64),
    /// It is compressed and cannot be read on.
    Damaged(String),
}

impl Opened {
    fn of(text: Text, file: &fs::Metadata, path: &Path) -> Self {
        let at = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self {
            text,
            at,
            identity: identity(file),
            read: 0,
            head: Vec::new(),
            recent: Vec::new(),
            modified: None,
            seen: file.len(),
            written: modified(file),
            broken: false,
            grows: true,
            replaced: None,
        }
    }

    /// A file from its beginning.
    pub fn new(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        let found = file.metadata()?;
        Ok(Self::of(Text::Plain(file), &found, path))
    }

    /// A file that was rotated away, which may be compressed, from so many bytes of its text on. `modified` gives its order.
    pub fn rotated(path: &Path, offset: u64, modified: i64) -> io::Result<Self> {
        let file = open_regular(path)?;
        let found = file.metadata()?;
        let text = Decompressed::new(file)?;
        let mut opened = if text.compression().is_some() {
            let mut opened = Self::of(Text::Packed(Box::new(text), offset), &found, path);
            opened.read = offset;
            opened
        } else {
            Self::new(path)?.from(offset)?
        };
        (opened.modified, opened.grows) = (Some(modified), false);
        Ok(opened)
    }

    /// Goes to a place in the file.
    pub fn from(mut self, offset: u64) -> io::Result<Self> {
        let Text::Plain(file) = &mut self.text else { return Ok(self) };
        let at_most = |most: usize| usize::try_from(offset).unwrap_or(most).min(most);
        self.head = bytes_at(file, 0, at_most(SAMPLE))?;
        self.recent = bytes_at(file, offset.saturating_sub(BEFORE as u64), at_most(BEFORE))?;
        file.seek(SeekFrom::Start(offset))?;
        self.read = offset;
        Ok(self)
    }

    /// A file from a place on; `None` if it is not that text, or not as much of it.
    pub fn at(path: &Path, place: &Place) -> io::Result<Option<Self>> {
        let opened = Self::new(path)?;
        let Text::Plain(file) = &opened.text else { return Ok(None) };
        let head = bytes_at(file, 0, SAMPLE)?;
        if opened.seen < place.offset
            || !begins_with(&head, place.head)
            || !stands_before(file, place.offset, place.before)?
        {
            return Ok(None);
        }
        opened.from(place.offset).map(Some)
    }

    /// A file from its end, or from where its last line begins if that is not complete and not longer than `longest`.
    pub fn at_end(path: &Path, longest: usize) -> io::Result<Self> {
        let opened = Self::new(path)?;
        let Text::Plain(file) = &opened.text else { return Ok(opened) };
        let (end, mut to) = (opened.seen, opened.seen);
        let least = end.saturating_sub(longest as u64);
        let mut begin = least;
        while to > least {
            let from = to.saturating_sub(64 << 10).max(least);
            let bytes = bytes_at(file, from, usize::try_from(to - from).unwrap_or(0))?;
            if let Some(feed) = bytes.iter().rposition(|byte| *byte == b'\n') {
                begin = from + feed as u64 + 1;
                break;
            }
            to = from;
        }
        // Of a longer one the rest is a broken line of its own.
        let begin = if begin == least && least > 0 { end } else { begin };
        opened.from(begin)
    }

    /// Reads on, and looks whether what came is of the text that was read so far: a file can be cut and written anew
    /// between any two reads.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<Step> {
        let bytes = match &mut self.text {
            Text::Plain(file) => read(file, room)?,
            Text::Packed(text, _) => match read(text, room) {
                Ok(bytes) => bytes,
                Err(error) if text.has_failed() => return Err(error),
                Err(_) if self.broken => 0,
                Err(error) => {
                    self.broken = true;
                    return Ok(Step::Damaged(error.to_string()));
                }
            },
        };
        if let Some(lost) = self.is_other()? {
            return Ok(Step::Other(lost));
        }
        let came = &mut room[..bytes];
        let missing = SAMPLE.saturating_sub(self.head.len()).min(bytes);
        self.head.extend_from_slice(&came[..missing]);
        self.recent.extend_from_slice(&came[bytes.saturating_sub(BEFORE)..]);
        self.recent.drain(..self.recent.len().saturating_sub(BEFORE));
        let mut wanted = bytes;
        if let Text::Packed(_, skip) = &mut self.text {
            if bytes == 0 && *skip > 0 && !self.broken {
                self.broken = true;
                return Ok(Step::Damaged("it has less than was read of it before it was compressed".to_owned()));
            }
            let over = usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes);
            *skip -= over as u64;
            came.copy_within(over.., 0);
            wanted -= over;
        }
        self.read += wanted as u64;
        if let (1.., Some((_, since))) = (wanted, &mut self.replaced) {
            *since = Instant::now();
        }
        Ok(if bytes == 0 { Step::End } else { Step::Bytes(wanted) })
    }

    /// Whether the file has another text than was read of it, and how many bytes of that were seen and not read.
    fn is_other(&mut self) -> io::Result<Option<u64>> {
        let Text::Plain(file) = &self.text else { return Ok(None) };
        let found = file.metadata()?;
        let length = found.len();
        let before = self.read.saturating_sub(self.recent.len() as u64);
        if length >= self.read && stands_at(file, 0, &self.head)? && stands_at(file, before, &self.recent)? {
            self.seen = self.seen.max(length);
            self.written = modified(&found);
            return Ok(None);
        }
        Ok(Some(self.seen.saturating_sub(self.read)))
    }

    /// Begins anew: the file has another text.
    pub fn rewind(&mut self) -> io::Result<()> {
        if let Text::Plain(file) = &mut self.text {
            file.seek(SeekFrom::Start(0))?;
            self.seen = file.metadata()?.len();
        }
        self.read = 0;
        self.head.clear();
        self.recent.clear();
        self.replaced = None;
        Ok(())
    }

    /// Whether more was written to it than was read.
    pub fn has_grown(&self) -> bool {
        matches!(&self.text, Text::Plain(file) if file.metadata().is_ok_and(|found| found.len() > self.read))
    }

    /// Whether what was read ends where a line does.
    pub fn ends_line(&self) -> bool {
        self.recent.last().is_none_or(|byte| *byte == b'\n')
    }

    /// `unread` bytes before the end of what was read.
    pub fn place(&self, unread: usize) -> Place {
        let offset = self.read.saturating_sub(unread as u64);
        let known = self.head.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        // What was read before bytes that are many is not known any more.
        let before = self.recent.len().saturating_sub(unread);
        Place {
            identity: self.identity,
            offset,
            head: sample(&self.head[..known]),
            before: sample(&self.recent[..before]),
            modified: self.modified(),
            at: self.at.to_string_lossy().into_owned(),
            earlier: Vec::new(),
            directives: None,
        }
    }

    /// By what its text is known again as read, if its beginning tells it from others.
    pub fn known(&self) -> Option<Known> {
        Known::new(&self.head, self.read, sample(&self.recent))
    }

    /// By what its file is known to have that text still, if it is not compressed.
    pub fn mark(&self) -> Option<Mark> {
        matches!(self.text, Text::Plain(_)).then(|| Mark::new(&self.head, self.read, &self.recent))
    }

    /// As the file that was read before another, while it is open.
    pub fn last(&self) -> Last {
        Last { identity: self.identity, modified: self.modified(), head: sample(&self.head), held: true }
    }

    /// Whether its file has no name any more.
    pub fn is_deleted(&self) -> bool {
        match &self.text {
            Text::Plain(file) => file.metadata().is_ok_and(|found| found.nlink() == 0),
            Text::Packed(..) => true,
        }
    }

    /// When what was read of it was last written to.
    pub fn modified(&self) -> i64 {
        self.modified.unwrap_or(self.written)
    }

    /// The file's first bytes, read or not.
    pub fn first(&self) -> io::Result<Vec<u8>> {
        match &self.text {
            Text::Plain(file) => bytes_at(file, 0, SAMPLE),
            Text::Packed(..) => Ok(self.head.clone()),
        }
    }
}

/// Reads, again if a signal came in between.
pub(in crate::source) fn read(from: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(room) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

//! Places in texts, and by what a text is known again: under another name, as a copy, or compressed.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

/// By so many bytes at its beginning a text is known again: several lines, for of two logs the first may be much alike.
pub(in crate::source) const SAMPLE: usize = 4096;

/// Bytes before a place by which it is known again.
pub(super) const BEFORE: usize = 256;

/// Device and inode.
pub(in crate::source) type Identity = (u64, u64);

/// A few bytes of a text: how many, and their CRC-32. None say nothing.
pub(in crate::source) type Sample = (u64, u32);

/// A text that was read before.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::source) struct Known {
    /// Its first line, for a copy that is shorter than its beginning.
    line: Sample,
    /// Its beginning.
    head: Sample,
    /// Up to where it was read.
    pub to: u64,
    /// What stands before that.
    pub before: Sample,
}

impl Known {
    /// A text with this beginning, read up to a place. `None` if it is not told from others by that.
    pub fn new(head: &[u8], to: u64, before: Sample) -> Option<Self> {
        let line = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |feed| feed + 1);
        let tells = is_telling(head) || is_hollow(head);
        tells.then(|| Self { line: sample(&head[..line]), head: sample(head), to, before })
    }

    /// Whether this is the text that begins so, or a copy of a part of it.
    pub fn is(&self, head: &[u8]) -> bool {
        is_text(head, if (head.len() as u64) < self.head.0 { self.line } else { self.head })
    }

    /// Whether a text that begins with the same zeros may be this one.
    pub fn may_be(&self, head: &[u8]) -> bool {
        is_hollow(head) && self.before.0 > 0 && begins_with(head, self.head)
    }
}

/// By what a file is known to have the text still that was seen in it: inodes are used again.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::source) struct Mark {
    /// The text's beginning.
    head: Sample,
    /// How far it was seen.
    to: u64,
    /// What stands before that.
    before: Sample,
}

impl Mark {
    /// Of a text that begins with `head`, of which `recent` stands before `to`.
    pub fn new(head: &[u8], to: u64, recent: &[u8]) -> Self {
        Self { head: sample(head), to, before: sample(recent) }
    }

    /// Of all that a file has now.
    pub fn of(file: &File) -> io::Result<Self> {
        let to = file.metadata()?.len();
        let before = to.min(BEFORE as u64);
        let recent = bytes_at(file, to - before, usize::try_from(before).unwrap_or(BEFORE))?;
        Ok(Self::new(&bytes_at(file, 0, SAMPLE)?, to, &recent))
    }

    /// Whether the file has this text, and perhaps more behind it. Of none there is no more.
    pub fn stands(&self, file: &File) -> io::Result<bool> {
        if self.to == 0 {
            return Ok(file.metadata()?.len() == 0);
        }
        Ok(begins_with(&bytes_at(file, 0, SAMPLE)?, self.head) && stands_before(file, self.to, self.before)?)
    }
}

/// The file that was read before another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub identity: Identity,
    /// When it was last written to.
    pub modified: i64,
    /// Its beginning.
    pub head: Sample,
    /// It is open, so that no other file has its inode.
    pub held: bool,
}

impl Last {
    /// Whether a file with this identity and beginning is that one.
    pub fn is(&self, identity: Identity, head: &[u8]) -> bool {
        self.identity == identity && (self.held || self.head.0 > 0 && begins_with(head, self.head))
    }
}

/// A place in a text, which keeps it under another name.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::source) struct Place {
    /// Of the file.
    pub identity: Identity,
    /// Bytes of the text before it.
    pub offset: u64,
    /// The text's beginning, at most up to the offset: an inode that is used again, or a file that was cut and has grown,
    /// is another text.
    #[serde(default)]
    pub head: Sample,
    /// What stands just before the offset.
    #[serde(default)]
    pub before: Sample,
    /// When the file was last written to, in ns since the epoch; 0 if that is not known.
    #[serde(default)]
    pub modified: i64,
    /// Where the file was, links followed.
    #[serde(default)]
    pub at: String,
    /// Texts that were read before, the latest last.
    #[serde(default)]
    pub earlier: Vec<Known>,
    /// What directives before it have said of the lines behind it, where the format has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directives: Option<String>,
}

/// The sample of these bytes.
pub(super) fn sample(bytes: &[u8]) -> Sample {
    (bytes.len() as u64, crc32fast::hash(bytes))
}

/// Whether a text that begins with `head` may be the one with this sample of its beginning.
pub(super) fn begins_with(head: &[u8], wanted: Sample) -> bool {
    let known = usize::try_from(wanted.0).ok().and_then(|known| head.get(..known));
    known.is_some_and(|known| sample(known) == wanted)
}

/// Whether a beginning tells a text from others: it has a whole line, and not the zeros that a file has whose program goes on
/// where it was after a cut.
pub(super) fn is_telling(head: &[u8]) -> bool {
    (head.len() >= SAMPLE || head.contains(&b'\n')) && head.first().is_some_and(|byte| *byte != 0)
}

/// Whether two texts are one as far as both beginnings go, and those tell texts apart.
pub(in crate::source) fn are_alike(one: &[u8], other: &[u8]) -> bool {
    let common = one.len().min(other.len());
    one[..common] == other[..common] && is_telling(&one[..common])
}

/// Whether a text that begins with `head` is the one with this sample, which tells it from others.
pub(super) fn is_text(head: &[u8], wanted: Sample) -> bool {
    begins_with(head, wanted) && usize::try_from(wanted.0).is_ok_and(|known| is_telling(&head[..known]))
}

/// Whether a text begins with zeros, which are not its own: it is known by what stands before a place.
pub(super) fn is_hollow(head: &[u8]) -> bool {
    head.first() == Some(&0)
}

pub(in crate::source) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// When a file was last written to, in ns since the epoch.
pub(super) fn modified(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// Up to `wanted` bytes of a file from a place on; fewer at its end.
pub(in crate::source) fn bytes_at(file: &File, offset: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; wanted];
    let mut there = 0;
    while there < wanted {
        match file.read_at(&mut bytes[there..], offset + there as u64) {
            Ok(0) => break,
            Ok(more) => there += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(there);
    Ok(bytes)
}

/// Whether these bytes stand there in the file.
pub(super) fn stands_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<bool> {
    Ok(bytes.is_empty() || bytes_at(file, offset, bytes.len())? == bytes)
}

/// Whether what stands just before a place has this sample.
pub(super) fn stands_before(file: &File, offset: u64, wanted: Sample) -> io::Result<bool> {
    let Some(from) = offset.checked_sub(wanted.0) else { return Ok(false) };
    let bytes = bytes_at(file, from, usize::try_from(wanted.0).unwrap_or(BEFORE).min(BEFORE))?;
    Ok(wanted.0 == 0 || sample(&bytes) == wanted)
}

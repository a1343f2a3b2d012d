//! What can be wrong with a file.

use std::fmt;
use std::io;

use crate::compression::{Compression, MAX_WINDOW};

/// What is wrong, by what to make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The operating system does not give the bytes.
    Io,
    /// It is no capture file.
    Unknown,
    /// It ends in the middle of something, as a capture does that was cut off. What came before is as good as in a whole file.
    Truncated,
    /// What stands there cannot be, or is larger than anything that could.
    Corrupt,
}

/// What is wrong with a file, and where. As text it follows the file's name: `… ends in the middle of a packet at byte 24: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    text: String,
}

/// Where something is wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Byte of the file, or of what was made of it.
    pub at: u64,
    pub compression: Option<Compression>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}", self.at)?;
        match self.compression {
            Some(_) => f.write_str(" of what was decompressed"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// What to make of it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn opening(error: &io::Error) -> Self {
        Self { kind: Kind::Io, text: format!("cannot be read: {error}") }
    }

    /// The operating system's error after so many bytes.
    pub(crate) fn reading(error: &io::Error, taken: u64) -> Self {
        match taken {
            0 => Self::opening(error),
            _ => Self { kind: Kind::Io, text: format!("cannot be read at byte {taken}: {error}") },
        }
    }

    pub(crate) fn empty() -> Self {
        let text = "is empty; a capture without packets has a file header".to_owned();
        Self { kind: Kind::Unknown, text }
    }

    pub(crate) fn unknown(first: &[u8]) -> Self {
        let first: Vec<String> = first.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("is not a pcap or pcapng file: unknown file format, which begins with {}", first.join(" "));
        Self { kind: Kind::Unknown, text }
    }

    /// The file ends in the middle of `what`, which begins at `place`.
    pub(crate) fn truncated(place: Place, what: &str, there: usize, of: usize) -> Self {
        let text = format!("ends in the middle of {what} {place}: {there} of its {of} bytes are there");
        Self { kind: Kind::Truncated, text }
    }

    pub(crate) fn corrupt(place: Place, what: impl fmt::Display) -> Self {
        Self { kind: Kind::Corrupt, text: format!("cannot be understood {place}: {what}") }
    }

    /// What a decompressor says after so many bytes of the file.
    pub(crate) fn decompressing(error: &io::Error, by: Compression, taken: u64) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let text = format!("ends in the middle of its {by} data, at byte {taken}");
                Self { kind: Kind::Truncated, text }
            }
            io::ErrorKind::OutOfMemory => {
                let text =
                    format!("cannot be understood: its {by} data needs more than {} MiB of memory", MAX_WINDOW >> 20);
                Self { kind: Kind::Corrupt, text }
            }
            _ => {
                let text = format!("cannot be understood: its {by} data is damaged before byte {taken}: {error}");
                Self { kind: Kind::Corrupt, text }
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

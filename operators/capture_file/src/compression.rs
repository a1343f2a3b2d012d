//! What a file is compressed with, and its bytes without.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;

/// The most memory that a file may have a decompressor take for what it refers back to, in bytes: zstd's own limit, and twice
/// what `xz -9` needs.
pub const MAX_WINDOW: usize = 128 << 20;

/// log2 of [`MAX_WINDOW`].
const MAX_WINDOW_LOG: u32 = MAX_WINDOW.ilog2();

/// What the xz decoder takes besides its dictionary, in KiB, with room to spare.
const XZ_BESIDES: u32 = 1024;

/// Compressed bytes that are read at a time.
const PIECE: usize = 128 << 10;

/// Decompressed bytes that are asked for at a time: a decoder that comes to a fault drops what it had of these.
const OUTPUT: usize = 64 << 10;

/// The longest magic number.
const MAGIC: usize = 6;

/// A format of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952, of any number of members.
    Gzip,
    /// RFC 8878, of any number of frames.
    Zstd,
    /// <https://tukaani.org/xz/xz-file-format.txt>, of any number of streams.
    Xz,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        })
    }
}

impl Compression {
    fn of(first: &[u8]) -> Option<Self> {
        match first {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // A skippable frame may come first, as pzstd writes it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Some(Self::Xz),
            _ => None,
        }
    }
}

/// The input, from its very beginning although that has been looked at.
pub(crate) struct Raw<R> {
    input: R,
    head: [u8; MAGIC],
    /// What of the head has not been handed out.
    from: usize,
    until: usize,
    /// Bytes handed out.
    pub taken: u64,
    /// The operating system has given an error, which decoders pass on.
    pub failed: bool,
}

impl<R: Read> Raw<R> {
    fn new(input: R) -> io::Result<Self> {
        let mut raw = Self { input, head: [0; MAGIC], from: 0, until: 0, taken: 0, failed: false };
        while raw.until < MAGIC {
            match retried(&mut raw.input, &mut raw.head[raw.until..])? {
                0 => break,
                bytes => raw.until += bytes,
            }
        }
        Ok(raw)
    }
}

impl<R: Read> Read for Raw<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = if self.from < self.until {
            let bytes = into.len().min(self.until - self.from);
            into[..bytes].copy_from_slice(&self.head[self.from..self.from + bytes]);
            self.from += bytes;
            bytes
        } else {
            retried(&mut self.input, into).inspect_err(|_| self.failed = true)?
        };
        self.taken += bytes as u64;
        Ok(bytes)
    }
}

/// Reads again what a signal has interrupted.
fn retried(input: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The input without its compression.
pub(crate) enum Decoder<R: Read> {
    Plain(Raw<R>),
    Gzip(Gzip<BufReader<Raw<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<Raw<R>>>),
    Xz(Box<XzReader<BufReader<Raw<R>>>>),
}

impl<R: Read> Decoder<R> {
    pub fn new(input: R) -> io::Result<Self> {
        let raw = Raw::new(input)?;
        let Some(compression) = Compression::of(&raw.head[..raw.until]) else { return Ok(Self::Plain(raw)) };
        let raw = BufReader::with_capacity(PIECE, raw);
        Ok(match compression {
            Compression::Gzip => Self::Gzip(Gzip::Member(Box::new(GzDecoder::new(raw)))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Self::Zstd(decoder)
            }
            Compression::Xz => {
                let limit = XZ_BESIDES + (MAX_WINDOW >> 10) as u32;
                Self::Xz(Box::new(XzReader::new_mem_limit(raw, true, limit)))
            }
        })
    }

    pub fn compression(&self) -> Option<Compression> {
        match self {
            Self::Plain(_) => None,
            Self::Gzip(_) => Some(Compression::Gzip),
            Self::Zstd(_) => Some(Compression::Zstd),
            Self::Xz(_) => Some(Compression::Xz),
        }
    }

    /// The input; `None` never, but for within [`Gzip::read`].
    pub fn raw(&self) -> Option<&Raw<R>> {
        Some(match self {
            Self::Plain(raw) => raw,
            Self::Gzip(decoder) => decoder.input()?.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
            Self::Xz(decoder) => decoder.inner().get_ref(),
        })
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = into.len().min(OUTPUT);
        match self {
            Self::Plain(raw) => raw.read(into),
            Self::Gzip(decoder) => decoder.read(&mut into[..piece]),
            Self::Zstd(decoder) => decoder.read(&mut into[..piece]),
            Self::Xz(decoder) => decoder.read(&mut into[..piece]),
        }
    }
}

/// Any input without its compression, which its first bytes tell; as it is if they tell none. For other files than captures.
pub struct Decompressed<R: Read>(Decoder<R>);

impl<R: Read> Decompressed<R> {
    /// Begins with what `input` gives, in large pieces.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(input: R) -> io::Result<Self> {
        Decoder::new(input).map(Self)
    }

    /// What it is compressed with.
    pub fn compression(&self) -> Option<Compression> {
        self.0.compression()
    }

    /// Bytes taken from the input so far; of a compressed one these are compressed.
    pub fn bytes_read(&self) -> u64 {
        self.0.raw().map_or(0, |raw| raw.taken)
    }

    /// Whether the last error was the operating system's; otherwise what was read cannot be decompressed.
    pub fn has_failed(&self) -> bool {
        self.0.raw().is_none_or(|raw| raw.failed)
    }
}

/// An error of kind [`ErrorKind::UnexpectedEof`] says that the compressed input just ends in the middle.
impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R: Read> fmt::Debug for Decompressed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Decompressed").field(&self.compression()).finish()
    }
}

/// The members of a gzip file. flate2's own reader of several takes zeros behind the last one, such as a tape or a block
/// device pads a file with, for a member that is broken.
pub(crate) enum Gzip<B> {
    Member(Box<GzDecoder<B>>),
    End(B),
    /// Only while one member makes way for the next.
    Between,
}

impl<B: BufRead> Gzip<B> {
    fn input(&self) -> Option<&B> {
        match self {
            Self::Member(member) => Some(member.get_ref()),
            Self::End(input) => Some(input),
            Self::Between => None,
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Self::Member(member) = self else { return Ok(0) };
            let bytes = member.read(into)?;
            if bytes > 0 || into.is_empty() {
                return Ok(bytes);
            }
            let Self::Member(member) = std::mem::replace(self, Self::Between) else { return Ok(0) };
            let mut input = member.into_inner();
            let more = is_another_member(&mut input);
            *self = match more {
                Ok(true) => Self::Member(Box::new(GzDecoder::new(input))),
                _ => Self::End(input),
            };
            more?;
        }
    }
}

/// Whether something follows that should be a member. Passes over zeros.
fn is_another_member(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let there = input.fill_buf()?;
        let Some(zeros) = there.iter().position(|byte| *byte != 0) else {
            let all = there.len();
            if all == 0 {
                return Ok(false);
            }
            input.consume(all);
            continue;
        };
        if there[zeros] != 0x1f {
            return Err(io::Error::new(ErrorKind::InvalidData, "what follows is no further member"));
        }
        input.consume(zeros);
        return Ok(true);
    }
}

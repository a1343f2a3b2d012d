//! The bytes of a capture, of which a few wait in a buffer.

use std::io::Read;
use std::ops::Range;

use crate::compression::{Compression, Decoder};
use crate::error::{Error, Place};

/// Bytes that are read at a time.
pub(crate) const PIECE: usize = 512 << 10;

/// What is read, without its compression.
pub(crate) struct Input<R: Read> {
    decoder: Decoder<R>,
    buffer: Vec<u8>,
    /// What of the buffer has been read and not handed out.
    start: usize,
    end: usize,
    /// Bytes of the capture before the buffer.
    before: u64,
}

impl<R: Read> Input<R> {
    pub fn new(input: R) -> Result<Self, Error> {
        let decoder = Decoder::new(input).map_err(|error| Error::opening(&error))?;
        Ok(Self { decoder, buffer: vec![0; PIECE], start: 0, end: 0, before: 0 })
    }

    /// The next bytes, which stay where they are; fewer at the end.
    pub fn peek(&mut self, wanted: usize) -> Result<&[u8], Error> {
        let there = if self.fill(wanted)? { wanted } else { self.waiting() };
        Ok(&self.buffer[self.start..self.start + there])
    }

    /// Reads until so many bytes wait; whether there are as many.
    #[inline]
    pub fn fill(&mut self, wanted: usize) -> Result<bool, Error> {
        if self.waiting() >= wanted { Ok(true) } else { self.read(wanted) }
    }

    /// Bytes that wait.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.end - self.start
    }

    /// The four bytes that wait behind the first `after`; zeros if they do not.
    #[inline]
    pub fn four(&self, after: usize) -> [u8; 4] {
        self.buffer.get(self.start + after..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
    }

    /// Hands out bytes that wait: their place, which is good until more is read.
    #[inline]
    pub fn take(&mut self, bytes: usize) -> Range<usize> {
        let from = self.start;
        self.start = (from + bytes).min(self.end);
        from..self.start
    }

    /// What [`take`](Self::take) has handed out.
    #[inline]
    pub fn bytes(&self, place: Range<usize>) -> &[u8] {
        self.buffer.get(place).unwrap_or_default()
    }

    /// Bytes of the capture that have been handed out.
    pub fn at(&self) -> u64 {
        self.before + self.start as u64
    }

    /// The place of what is next.
    pub fn place(&self) -> Place {
        Place { at: self.at(), compression: self.compression() }
    }

    pub fn compression(&self) -> Option<Compression> {
        self.decoder.compression()
    }

    /// Bytes that the input has given.
    pub fn taken(&self) -> u64 {
        self.decoder.raw().map_or(0, |raw| raw.taken)
    }

    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    #[cold]
    fn read(&mut self, wanted: usize) -> Result<bool, Error> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.before += self.start as u64;
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < wanted {
            if self.end == self.buffer.len() {
                // For bytes that have come, not for a length that is only said.
                self.buffer.resize((2 * self.end).min(wanted.max(PIECE)), 0);
            }
            match self.decoder.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(bytes) => self.end += bytes,
                Err(error) => return Err(self.fault(&error)),
            }
        }
        Ok(true)
    }

    fn fault(&self, error: &std::io::Error) -> Error {
        match (self.compression(), self.decoder.raw()) {
            (Some(by), Some(raw)) if !raw.failed => Error::decompressing(error, by, raw.taken),
            _ => Error::reading(error, self.taken()),
        }
    }
}

//! Bytes to lines, with a bound on what a line may be.

use memchr::memchr;

/// How many bytes are asked for at once.
const CHUNK: usize = 256 << 10;

/// How many of several inputs together, and of each at least.
const CHUNKS: usize = 16 << 20;
const MIN_CHUNK: usize = 16 << 10;

/// How much of a line that is too long is handed on, in bytes.
const HEAD: usize = 4096;

/// Splits a sequence of bytes at line feeds. What it yields does not depend on how the bytes are cut into reads.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// First byte that was not handed on.
    start: usize,
    /// No line feed before this.
    scanned: usize,
    /// Byte after the last that was read.
    end: usize,
    max_line: usize,
    /// Inside a line that was too long.
    skipping: bool,
    /// How many bytes are asked for at once.
    chunk: usize,
    /// Zeros before lines that were passed over.
    zeros: u64,
}

/// A line, without its line feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    /// The first bytes of a line longer than allowed; the rest is skipped.
    TooLong(&'a [u8]),
}

impl Lines {
    /// Lines of at most `max_line` bytes; at most that and one chunk are in memory.
    pub(super) fn new(max_line: usize) -> Self {
        Self::of_several(max_line, 1)
    }

    /// Lines of one of so many inputs, which take no more memory together than a few would.
    pub(super) fn of_several(max_line: usize, inputs: usize) -> Self {
        let chunk = (CHUNKS / inputs.max(1)).clamp(MIN_CHUNK, CHUNK);
        Self { buffer: Vec::new(), start: 0, scanned: 0, end: 0, max_line, skipping: false, chunk, zeros: 0 }
    }

    /// Zeros before lines that were passed over since this was last asked.
    pub(super) fn zeros(&mut self) -> u64 {
        std::mem::take(&mut self.zeros)
    }

    /// Passes over zeros where a line begins: a file has them whose program goes on where it was after the file was cut
    /// (`copytruncate`), or in which a crash of the machine left a hole.
    fn pass_zeros(&mut self) {
        if self.start == self.scanned && !self.skipping && self.buffer.get(self.start) == Some(&0) {
            let zeros = self.buffer[self.start..self.end].iter().take_while(|byte| **byte == 0).count();
            self.start += zeros;
            self.scanned = self.start;
            self.zeros += zeros as u64;
        }
    }

    /// Where the next bytes go. Call when `next` has nothing left.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.scanned -= self.start;
        self.end -= self.start;
        self.start = 0;
        self.buffer.resize(self.buffer.len().max(self.end + self.chunk), 0);
        &mut self.buffer[self.end..]
    }

    /// Says how many bytes were put there.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// Adds bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let len = room.len().min(bytes.len());
            room[..len].copy_from_slice(&bytes[..len]);
            self.filled(len);
            bytes = &bytes[len..];
        }
    }

    /// The next line that is complete or too long.
    pub(super) fn next(&mut self) -> Option<Line<'_>> {
        loop {
            self.pass_zeros();
            let line_end = memchr(b'\n', &self.buffer[self.scanned..self.end]);
            let found = line_end.is_some();
            self.scanned = line_end.map_or(self.end, |at| self.scanned + at + 1);
            let first = self.start;
            if !found {
                let long = self.end - first > self.max_line;
                if self.skipping || long {
                    self.start = self.end;
                }
                if long && !self.skipping {
                    self.skipping = true;
                    return Some(Line::TooLong(&self.buffer[first..first + HEAD.min(self.max_line)]));
                }
                return None;
            }
            self.start = self.scanned;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            return Some(self.line(first, self.scanned - 1));
        }
    }

    /// Bytes that were read and not handed on.
    pub(super) fn rest(&self) -> usize {
        self.end - self.start
    }

    /// The last line, if the bytes do not end with a line feed.
    pub(super) fn finish(&mut self) -> Option<Line<'_>> {
        self.pass_zeros();
        let first = std::mem::replace(&mut self.start, self.end);
        self.scanned = self.end;
        let skipped = std::mem::take(&mut self.skipping);
        (first < self.end && !skipped).then(|| self.line(first, self.end))
    }

    fn line(&self, first: usize, end: usize) -> Line<'_> {
        if end - first > self.max_line {
            return Line::TooLong(&self.buffer[first..first + HEAD.min(self.max_line)]);
        }
        Line::Whole(&self.buffer[first..end])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn split(text: &[u8], cuts: usize, max_line: usize) -> Vec<String> {
        let mut lines = Lines::new(max_line);
        let mut out = Vec::new();
        let mut take = |line: Line<'_>| match line {
            Line::Whole(line) => out.push(String::from_utf8_lossy(line).into_owned()),
            Line::TooLong(head) => out.push(format!("{}…", String::from_utf8_lossy(head))),
        };
        for part in text.chunks(cuts) {
            lines.push(part);
            while let Some(line) = lines.next() {
                take(line);
            }
        }
        if let Some(line) = lines.finish() {
            take(line);
        }
        out
    }

    #[test]
    fn long_lines_are_named_once_and_skipped() {
        for cuts in [1, 2, 3, 100] {
            assert_eq!(split(b"ab\n\nabcdefgh\nabcd\nlast", cuts, 4), ["ab", "", "abcd…", "abcd", "last"]);
            assert_eq!(split(b"abcdefgh", cuts, 4), ["abcd…"]);
            assert_eq!(split(b"", cuts, 4), Vec::<String>::new());
        }
    }

    #[test]
    fn zeros_before_a_line_are_passed_over_and_counted_however_many() {
        for cuts in [1, 2, 3, 100] {
            assert_eq!(split(b"\0\0\0\0\0\0ab\n\0\0cd\n\0", cuts, 4), ["ab", "cd"]);
            assert_eq!(split(b"a\0b\n", cuts, 4), ["a\0b"], "those inside a line are its own");
        }
        let mut lines = Lines::new(1000);
        for _ in 0..100 {
            lines.push(&[0; CHUNK]);
            assert_eq!(lines.next(), None);
        }
        lines.push(b"one\n");
        assert_eq!(lines.next(), Some(Line::Whole(b"one")));
        assert_eq!((lines.zeros(), lines.zeros()), (100 * CHUNK as u64, 0));
        assert!(lines.buffer.len() <= 2 * CHUNK, "{}", lines.buffer.len());
    }

    #[test]
    fn a_long_line_is_not_kept_in_memory() {
        let mut lines = Lines::new(1000);
        for _ in 0..100 {
            lines.push(&[b'x'; CHUNK]);
            while lines.next().is_some() {}
        }
        assert!(lines.buffer.len() <= 2 * CHUNK + 1000, "{}", lines.buffer.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

        #[test]
        fn cuts_do_not_matter(text in "[ab\n]{0,60}", cuts in 1_usize..20, max_line in 1_usize..8) {
            prop_assert_eq!(split(text.as_bytes(), cuts, max_line), split(text.as_bytes(), 1000, max_line));
        }
    }
}

//! Reading one segment file: frame by frame, past damage, and as a summary.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use arrow::buffer::Buffer;

use crate::format::{FRAME, Frame, Header, Kind, Mark, SECTOR};

/// How much of a file is searched at a time for the next frame.
const SEARCH: usize = 256 << 10;

/// A segment's file name: the position of its first record.
pub(crate) fn file_name(first: u64) -> String {
    format!("{first:020}.seg")
}

/// The first position that a file name states; `None` if it is no segment's name.
pub(crate) fn first_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The segments of a log in order of position.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        found.extend(first_of(&path).map(|first| (first, path)));
    }
    found.sort();
    Ok(found)
}

/// What reading on found.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole record.
    Record(Frame, Buffer),
    /// Bytes that are no whole record; the frame's header if that much is known.
    Damage { from: u64, to: u64, frame: Option<Frame> },
    /// Nothing more before the limit.
    End,
}

/// A segment that is being read.
#[derive(Debug)]
pub(crate) struct Segment {
    file: File,
    /// `None` if both copies are damaged.
    pub header: Option<Header>,
    /// One of the header's two copies is damaged.
    pub header_damaged: bool,
    mark: Mark,
    at: u64,
    limit: u64,
    /// Least position that the next record can have.
    least: u64,
}

impl Segment {
    /// Opens a file. `mark` is used if the header is damaged.
    pub fn open(path: &Path, mark: Option<Mark>) -> io::Result<Self> {
        let file = File::open(path)?;
        let limit = file.metadata()?.len();
        let copy = |at| header_at(&file, limit, at);
        let first = copy(0)?;
        let mut second_at = first.as_ref().map_or(SECTOR, |(_, length)| *length);
        let mut second = copy(second_at)?;
        // Without the first copy it is not known where the second one begins.
        while first.is_none() && second.is_none() && second_at + SECTOR < limit.min(64 * SECTOR) {
            second_at += SECTOR;
            second = copy(second_at)?;
        }
        let header_damaged = first.is_none() || second.is_none();
        // Both copies are equally long.
        let at = match (&first, &second) {
            (Some((_, length)), _) => 2 * length,
            (None, Some((_, length))) => second_at + length,
            (None, None) => 0,
        };
        let header = first.or(second).map(|(header, _)| header);
        let mark = header.as_ref().map(|header| header.mark).or(mark).unwrap_or_default();
        let least = first_of(path).unwrap_or(0);
        let mut segment = Self { file, header, header_damaged, mark, at: at.min(limit), limit, least };
        if segment.header.is_none() {
            segment.at = if mark == Mark::default() { limit } else { segment.search(0)? };
        }
        Ok(segment)
    }

    /// Reads no further than `bytes` from the start of the file, nor than its end.
    pub fn set_limit(&mut self, bytes: u64) -> io::Result<()> {
        self.limit = self.file.metadata()?.len().min(bytes);
        Ok(())
    }

    /// Bytes of the file when it was opened, or the limit.
    pub fn length(&self) -> u64 {
        self.limit
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The next record or damaged range; the body is checked.
    pub fn step(&mut self) -> io::Result<Step> {
        self.advance(true)
    }

    /// As [`Segment::step`], but neither reads nor checks bodies: they come back empty.
    pub fn step_headers(&mut self) -> io::Result<Step> {
        self.advance(false)
    }

    /// Passes over whole records before a position without reading their bodies.
    pub fn skip_to(&mut self, position: u64) -> io::Result<()> {
        while let Some(frame) = self.frame_at(self.at)? {
            if frame.position >= position || frame.bytes() > self.limit - self.at {
                break;
            }
            self.at += frame.bytes();
            self.least = frame.end();
        }
        Ok(())
    }

    fn advance(&mut self, bodies: bool) -> io::Result<Step> {
        if self.at >= self.limit {
            return Ok(Step::End);
        }
        let from = self.at;
        let frame = self.frame_at(from)?;
        let Some(frame) = frame.filter(|frame| frame.bytes() <= self.limit - from) else {
            self.at = self.search(from + 1)?;
            return Ok(Step::Damage { from, to: self.at, frame });
        };
        let next = from + frame.bytes();
        self.least = frame.end();
        let mut body = Vec::new();
        if bodies {
            body = vec![0; frame.body as usize];
            self.file.read_exact_at(&mut body, from + FRAME)?;
            if crc32fast::hash(&body) != frame.body_crc {
                // The header's length is right unless bytes are missing: then the next frame is nearer.
                let whole = next == self.limit || self.frame_at(next)?.is_some();
                self.at = if whole { next } else { self.search(from + 1)? };
                return Ok(Step::Damage { from, to: self.at, frame: Some(frame) });
            }
        }
        self.at = next;
        Ok(Step::Record(frame, Buffer::from_vec(body)))
    }

    /// The frame header at `at`, if there is one that can follow what was read.
    fn frame_at(&self, at: u64) -> io::Result<Option<Frame>> {
        if self.limit.saturating_sub(at) < FRAME {
            return Ok(None);
        }
        let mut bytes = [0; FRAME as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(Frame::decode(&bytes, &self.mark).filter(|frame| frame.position >= self.least))
    }

    /// The first frame header at or after `from`, else the limit.
    fn search(&self, mut from: u64) -> io::Result<u64> {
        let mut bytes = vec![0; SEARCH];
        while self.limit.saturating_sub(from) >= FRAME {
            let length = (self.limit - from).min(SEARCH as u64) as usize;
            let window = &mut bytes[..length];
            self.file.read_exact_at(window, from)?;
            for at in (0..=length - FRAME as usize).filter(|&at| window[at] == self.mark[0]) {
                if Frame::decode(&window[at..], &self.mark).is_some_and(|frame| frame.position >= self.least) {
                    return Ok(from + at as u64);
                }
            }
            from += (length - FRAME as usize + 1) as u64;
        }
        Ok(self.limit)
    }

    /// The seal at the end of the file: what the segment holds, without reading it.
    fn seal(&self) -> io::Result<Option<Summary>> {
        let length = FRAME + Summary::BYTES as u64;
        let Some(at) = self.limit.checked_sub(length) else { return Ok(None) };
        let Some(frame) = self.frame_at(at)?.filter(|f| f.kind == Kind::Seal && f.bytes() == length) else {
            return Ok(None);
        };
        let mut body = [0; Summary::BYTES];
        self.file.read_exact_at(&mut body, at + FRAME)?;
        Ok((crc32fast::hash(&body) == frame.body_crc).then(|| Summary::decode(&body, frame.position)))
    }

    /// What the rest of the segment holds: from its seal, else from its frames' headers.
    pub fn summary(&mut self) -> io::Result<Summary> {
        if let Some(summary) = self.seal()? {
            return Ok(summary);
        }
        let mut summary = Summary::new(self.least);
        loop {
            match self.step_headers()? {
                Step::Record(frame, _) => summary.add(&frame),
                Step::Damage { .. } => {}
                Step::End => return Ok(summary),
            }
        }
    }
}

/// The copy of the header at `at`, and its padded length.
fn header_at(file: &File, limit: u64, at: u64) -> io::Result<Option<(Header, u64)>> {
    let mut bytes = vec![0; (SECTOR as usize).min(limit.saturating_sub(at) as usize)];
    file.read_exact_at(&mut bytes, at)?;
    let Some(payload) = Header::length(&bytes) else { return Ok(None) };
    let extent = Header::extent(payload);
    if extent > bytes.len() {
        if extent as u64 > limit - at {
            return Ok(None);
        }
        bytes.resize(extent, 0);
        file.read_exact_at(&mut bytes, at)?;
    }
    Ok(Header::decode(&bytes))
}

/// What a range of records holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Position after the last record.
    pub end: u64,
    pub records: u64,
    pub rows: u64,
    /// Least event time in ns; `i64::MAX` if there is none.
    pub least: i64,
    /// Greatest [`Frame::newest`]; `i64::MIN` if there is none.
    pub newest: i64,
    /// The last watermark in ms; 0 if there is none.
    pub watermark: u64,
}

impl Summary {
    pub const BYTES: usize = 40;

    pub fn new(first: u64) -> Self {
        Self { end: first, records: 0, rows: 0, least: i64::MAX, newest: i64::MIN, watermark: 0 }
    }

    pub fn add(&mut self, frame: &Frame) {
        self.end = frame.end();
        if !frame.is_entry() {
            return;
        }
        self.records += 1;
        self.rows += u64::from(frame.rows);
        self.least = self.least.min(frame.least);
        self.newest = self.newest.max(frame.newest());
        if frame.kind == Kind::Watermark {
            self.watermark = self.watermark.max(frame.time);
        }
    }

    /// The record that ends a segment.
    pub fn seal(&self, mark: &Mark) -> Vec<u8> {
        let body = self.encode();
        let (length, crc) = (body.len() as u32, crc32fast::hash(&body));
        let frame = Frame { body: length, body_crc: crc, ..Frame::bare(Kind::Seal, self.end) };
        let mut bytes = frame.encode(mark).to_vec();
        bytes.extend(body);
        bytes
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend(self.records.to_le_bytes());
        bytes.extend(self.rows.to_le_bytes());
        bytes.extend(self.least.to_le_bytes());
        bytes.extend(self.newest.to_le_bytes());
        bytes.extend(self.watermark.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; Self::BYTES], end: u64) -> Self {
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * index..8 * index + 8]);
            word
        };
        Self {
            end,
            records: u64::from_le_bytes(word(0)),
            rows: u64::from_le_bytes(word(1)),
            least: i64::from_le_bytes(word(2)),
            newest: i64::from_le_bytes(word(3)),
            watermark: u64::from_le_bytes(word(4)),
        }
    }
}

//! The frames at the beginning of a connection, byte by byte as they come.

use super::{Priority, Signature, hpack};

/// What a client of HTTP/2 sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No client needs more before its first request; beyond, what is known by then is the signature.
const MAX_BYTES: usize = 64 << 10;
const MAX_FRAMES: usize = 128;
/// Bytes that are kept of a frame, or of a request's header block: pseudo-headers stand at its beginning.
const MAX_KEPT: usize = 16 << 10;
/// Parameters and priorities that are kept. Clients send up to ten.
const MAX_SETTINGS: usize = 32;
const MAX_PRIORITIES: usize = 16;

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const HAS_PRIORITY: u8 = 0x20;

/// How far a connection is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Unfinished,
    /// It does not begin as HTTP/2 does.
    Other,
    /// The first request has been read.
    Complete(Signature),
    /// The first request was not read: it came too late, or the frames are broken.
    Incomplete(Signature),
}

/// Reads the beginning of a connection.
#[derive(Default)]
pub struct Watch {
    /// Bytes seen, the preface's too.
    seen: usize,
    frames: usize,
    /// Of the frame that comes: its header, then its payload, at most [`MAX_KEPT`] bytes.
    kept: Vec<u8>,
    /// Bytes of its payload that are still to come; `None` while its header is.
    left: Option<usize>,
    header: Header,
    signature: Signature,
    /// The header block of the first request, once it has begun, and its stream.
    block: Option<(u32, Vec<u8>)>,
}

#[derive(Clone, Copy, Default)]
struct Header {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// What follows a frame.
enum Next {
    Frame,
    Request(Vec<u8>),
    Broken,
}

impl Watch {
    /// Takes the next bytes. Once this has answered anything but [`Progress::Unfinished`], it is not to be called again.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        let preface = &PREFACE[self.seen.min(PREFACE.len())..];
        let begin = preface.len().min(bytes.len());
        self.seen = self.seen.saturating_add(bytes.len());
        if preface[..begin] != bytes[..begin] {
            return Progress::Other;
        }
        let mut rest = &bytes[begin..];
        while !rest.is_empty() {
            match self.step(&mut rest) {
                Next::Frame => {}
                Next::Broken => return Progress::Incomplete(std::mem::take(&mut self.signature)),
                Next::Request(block) => {
                    let mut signature = std::mem::take(&mut self.signature);
                    signature.pseudo_order = hpack::pseudo_order(&block);
                    return match signature.pseudo_order {
                        Some(_) => Progress::Complete(signature),
                        None => Progress::Incomplete(signature),
                    };
                }
            }
        }
        if self.seen > MAX_BYTES || self.frames > MAX_FRAMES {
            return Progress::Incomplete(std::mem::take(&mut self.signature));
        }
        Progress::Unfinished
    }

    /// Takes bytes up to the end of a frame's header or payload.
    fn step(&mut self, rest: &mut &[u8]) -> Next {
        let Some(left) = self.left else {
            let (taken, after) = rest.split_at(rest.len().min(9 - self.kept.len()));
            self.kept.extend_from_slice(taken);
            *rest = after;
            if let Ok([a, b, c, kind, flags, stream @ ..]) = <[u8; 9]>::try_from(self.kept.as_slice()) {
                self.header = Header { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff };
                self.kept.clear();
                return self.read(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            }
            return Next::Frame;
        };
        let (taken, after) = rest.split_at(rest.len().min(left));
        *rest = after;
        self.kept.extend_from_slice(&taken[..taken.len().min(MAX_KEPT - self.kept.len())]);
        self.read(left - taken.len())
    }

    /// A frame of which `left` bytes are still to come.
    fn read(&mut self, left: usize) -> Next {
        self.left = Some(left);
        if left > 0 {
            return Next::Frame;
        }
        self.left = None;
        self.frames += 1;
        let payload = std::mem::take(&mut self.kept);
        self.frame(&payload)
    }

    /// A whole frame.
    fn frame(&mut self, payload: &[u8]) -> Next {
        let Header { kind, flags, stream } = self.header;
        // Nothing may come between the parts of a header block (RFC 9113, section 6.10).
        if let Some((of, block)) = &mut self.block {
            if kind != CONTINUATION || stream != *of {
                return Next::Broken;
            }
            block.extend_from_slice(&payload[..payload.len().min(MAX_KEPT - block.len())]);
            return self.ended(flags);
        }
        match (kind, payload) {
            (SETTINGS, _) if flags & ACK == 0 && self.signature.settings.is_none() => {
                let parameters = payload.chunks_exact(6).take(MAX_SETTINGS).map(parameter);
                self.signature.settings = Some(parameters.collect());
            }
            (WINDOW_UPDATE, [a, b, c, d]) if stream == 0 && self.signature.window_update.is_none() => {
                self.signature.window_update = Some(u32::from_be_bytes([*a, *b, *c, *d]) & 0x7fff_ffff);
            }
            (PRIORITY, _) if self.signature.priorities.len() < MAX_PRIORITIES => {
                self.signature.priorities.extend(priority(stream, payload));
            }
            (HEADERS, _) => {
                let Some(block) = self.fragment(payload) else { return Next::Broken };
                self.block = Some((stream, block.to_vec()));
                return self.ended(flags);
            }
            _ => {}
        }
        Next::Frame
    }

    /// The part of a HEADERS frame that is the header block's (RFC 9113, section 6.2).
    fn fragment<'a>(&mut self, payload: &'a [u8]) -> Option<&'a [u8]> {
        let Header { flags, stream, .. } = self.header;
        let mut block = payload;
        if flags & PADDED != 0 {
            let (padding, rest) = block.split_first()?;
            // Of a frame that was not kept whole the padding is beyond what was.
            let padding = if payload.len() < MAX_KEPT { usize::from(*padding) } else { 0 };
            block = &rest[..rest.len().checked_sub(padding)?];
        }
        if flags & HAS_PRIORITY != 0 {
            self.signature.headers_priority = Some(priority(stream, block)?);
            block = &block[5..];
        }
        Some(block)
    }

    fn ended(&mut self, flags: u8) -> Next {
        let full = self.block.as_ref().is_some_and(|(_, block)| block.len() >= MAX_KEPT);
        match self.block.take_if(|_| flags & END_HEADERS != 0 || full) {
            Some((_, block)) => Next::Request(block),
            None => Next::Frame,
        }
    }
}

/// Identifier and value of a setting.
fn parameter(bytes: &[u8]) -> (u16, u32) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    let (id, value) = bytes.split_at(2.min(bytes.len()));
    (u16::try_from(number(id)).unwrap_or(u16::MAX), number(value))
}

/// The five bytes of a priority (RFC 7540, section 6.3).
fn priority(stream: u32, bytes: &[u8]) -> Option<Priority> {
    let [a, b, c, d, weight] = *bytes.first_chunk()?;
    let on = u32::from_be_bytes([a, b, c, d]);
    let (exclusive, depends_on) = (on >> 31 == 1, on & 0x7fff_ffff);
    Some(Priority { stream, exclusive, depends_on, weight: u16::from(weight) + 1 })
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;

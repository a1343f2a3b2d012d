//! The records of a client's stream (RFC 8446 section 5.1) as far as its first handshake message goes.

use super::bytes::u16_at;
use super::tls::Reason;

/// The type of a record that holds handshake messages.
pub(crate) const HANDSHAKE: u8 = 22;
/// Type, version, length.
pub(crate) const RECORD_HEADER: usize = 5;
/// Type, length.
pub(crate) const HANDSHAKE_HEADER: usize = 4;
/// Largest plaintext record, RFC 8446 section 5.1.
pub(crate) const MAX_RECORD: usize = 1 << 14;

/// Where a handshake message lies in the records.
pub(crate) struct Frame {
    /// Bytes of the message without its header.
    pub body_len: usize,
    /// End of the record that holds the last byte.
    pub end: usize,
    /// The message lies in one piece.
    pub in_one_record: bool,
}

/// Why the first handshake message is not there.
pub(crate) enum NoFrame {
    /// The stream must be this long.
    NeedMore(usize),
    /// It never will be.
    Broken(Reason),
}

/// How far the front of a stream has been looked through. A hello may come in records of one byte, a prelude in segments
/// of one: beginning anew for each would take time with the square of their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Bytes of a prelude that were searched for its end.
    pub searched: usize,
    /// Where the next chunk of a prelude's content begins; 0 before there is one.
    pub chunk: u32,
    /// Where the first record begins that is not all there.
    pub at: usize,
    /// Bytes of the message in the records before it, header included.
    have: usize,
    /// The message's header, as far as these go.
    header: [u8; HANDSHAKE_HEADER],
}

/// Walks the records until the first handshake message is complete.
pub(crate) fn frame(stream: &[u8], walk: &mut Walk, max: usize) -> Result<Frame, NoFrame> {
    // Asking for all the bytes that must still come keeps a hello in tiny records from being looked at for each of them.
    loop {
        let Walk { at, have, .. } = *walk;
        let whole = |header: &[u8; HANDSHAKE_HEADER]| {
            HANDSHAKE_HEADER + u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize
        };
        let Some(len) = u16_at(stream, at + 3).map(usize::from) else {
            let left = if have < HANDSHAKE_HEADER { 1 } else { whole(&walk.header) - have };
            return Err(NoFrame::NeedMore(at + RECORD_HEADER + left));
        };
        if stream[at] != HANDSHAKE {
            return Err(NoFrame::Broken(Reason::Interrupted));
        }
        if len == 0 || len > MAX_RECORD {
            return Err(NoFrame::Broken(Reason::RecordLength));
        }
        let start = at + RECORD_HEADER;
        let content = &stream[start..stream.len().min(start + len)];
        if have < HANDSHAKE_HEADER {
            let taken = content.len().min(HANDSHAKE_HEADER - have);
            walk.header[have..have + taken].copy_from_slice(&content[..taken]);
        }
        let mut left = 1;
        if have + content.len() >= HANDSHAKE_HEADER {
            let message = whole(&walk.header);
            if message > max {
                return Err(NoFrame::Broken(Reason::TooLong));
            }
            if have + content.len() >= message {
                let body_len = message - HANDSHAKE_HEADER;
                return Ok(Frame { body_len, end: start + len, in_one_record: at == 0 });
            }
            if have + len >= message {
                return Err(NoFrame::NeedMore(start + message - have));
            }
            left = message - have - len;
        } else if have + len >= HANDSHAKE_HEADER {
            return Err(NoFrame::NeedMore(start + HANDSHAKE_HEADER - have));
        }
        if content.len() < len {
            return Err(NoFrame::NeedMore(start + len + RECORD_HEADER + left));
        }
        (walk.at, walk.have) = (start + len, have + len);
    }
}

/// Copies a message that `frame` found complete, with its header, out of its records.
pub(crate) fn join(stream: &[u8], body_len: usize, joined: &mut Vec<u8>) {
    let message = HANDSHAKE_HEADER + body_len;
    joined.clear();
    let mut rest = stream;
    while joined.len() < message {
        let Some(len) = u16_at(rest, 3).map(usize::from) else { return };
        let content = &rest[RECORD_HEADER..rest.len().min(RECORD_HEADER + len)];
        joined.extend_from_slice(&content[..content.len().min(message - joined.len())]);
        rest = &rest[RECORD_HEADER + content.len()..];
    }
}

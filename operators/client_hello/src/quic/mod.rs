//! ClientHellos in QUIC Initial packets, version 1 (RFC 9000, RFC 9001) and 2 (RFC 9369), the drafts 23 to 34 of version 1
//! and those of version 2.
//!
//! Initial packets are protected with keys that follow from the connection ID that the client chose first, so anyone
//! who sees the first packet can read them. Retry, 0-RTT, Handshake and short-header packets hold no hello and are
//! passed over.

mod frames;
mod keys;
mod packet;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use super::assembly::Assembly;
use super::counters::Counters;
use super::extractor::Limits;
use super::records::Walk;
use super::tls::ClientHello;

use self::frames::Frame;
use self::keys::Keys;
pub(crate) use self::packet::is_initial;
use self::packet::{Initial, Initials};

/// Hellos of one connection: the first and the answer to a HelloRetryRequest.
const MAX_HELLOS: u8 = 2;
/// The longest connection ID (RFC 9000 section 17.2).
const MAX_ID: usize = 20;
/// Offset of the random in a handshake message that is a ClientHello.
const RANDOM: usize = 6;

/// The Initial packets of one client.
#[derive(Debug)]
pub(crate) struct Connection {
    keys: Keys,
    /// The connection ID that the client gave itself, and its length.
    scid: ([u8; MAX_ID], u8),
    /// The CRYPTO stream behind the hellos that are out.
    stream: Assembly,
    /// Offset in the CRYPTO stream of the first byte not dealt with.
    base: u32,
    hellos: u8,
    /// A hello of this connection is out that came before the stream: the server sent a Retry, or another version.
    began_before: bool,
    /// The random of the first hello: after a Retry it comes again.
    random: Option<[u8; 32]>,
    done: bool,
}

impl Connection {
    /// A connection whose first packet this may be: it can be opened with the keys that follow from it. The payload of
    /// the datagram's first Initial is then in `scratch`. Only that one is tried: a client's first packet comes first,
    /// and anyone can send datagrams full of others that cost as much to try.
    pub(crate) fn of(datagram: &[u8], scratch: &mut Vec<u8>) -> Option<Self> {
        let initial = Initials::of(datagram).next()?;
        let keys = Keys::of_client(initial.version, initial.dcid);
        keys.open(&initial, scratch).then(|| Self::with(keys, &initial))
    }

    fn with(keys: Keys, initial: &Initial<'_>) -> Self {
        let stream = Assembly::default();
        let scid = id_of(initial.scid);
        Self { keys, scid, stream, base: 0, hellos: 0, began_before: false, random: None, done: false }
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>() + self.stream.held()
    }

    /// Whether its hello is out, or will never come.
    pub(crate) fn is_over(&self) -> bool {
        self.done || self.hellos > 0
    }

    /// Takes a datagram, `opened` if `scratch` has the payload of its first Initial from [`Connection::of`]; `emit` gets
    /// hellos with their index.
    pub(crate) fn datagram(
        &mut self,
        datagram: &[u8],
        mut opened: bool,
        limits: &Limits,
        counters: &mut Counters,
        scratch: &mut Vec<u8>,
        emit: &mut impl FnMut(&ClientHello<'_>, u8),
    ) {
        let mut may_be_other = true;
        for initial in Initials::of(datagram) {
            counters.quic_initials += 1;
            if !std::mem::take(&mut opened) && !self.open(&initial, &mut may_be_other, scratch) {
                counters.quic_undecryptable += 1;
                continue;
            }
            if !self.done {
                self.frames(scratch, limits, counters);
                self.read(limits, counters, emit);
            }
        }
    }

    /// Opens a packet into `scratch`. Other keys than before mean that the server sent a Retry or another version, or
    /// that a new connection has begun on the same ports. To derive them costs as much as to open a packet several
    /// times over: it is tried for one packet of a datagram, then `may_be_other` is false.
    fn open(&mut self, initial: &Initial<'_>, may_be_other: &mut bool, scratch: &mut Vec<u8>) -> bool {
        if self.keys.version == initial.version && self.keys.open(initial, scratch) {
            return true;
        }
        if !std::mem::take(may_be_other) {
            return false;
        }
        let keys = Keys::of_client(initial.version, initial.dcid);
        let opened = keys.open(initial, scratch);
        if opened {
            let began_before = self.goes_on_with(initial) && (self.began_before || self.hellos > 0);
            *self = Self { random: self.random, began_before, ..Self::with(keys, initial) };
        }
        opened
    }

    /// Whether a packet with other keys is of the same connection. After a Retry it has the token, and the client may not
    /// give itself another ID (RFC 9000 section 17.2.5.2); after a Version Negotiation it has another version. Neither
    /// holds for a new connection on the same ports; one with a token of an earlier connection has an ID of its own.
    fn goes_on_with(&self, initial: &Initial<'_>) -> bool {
        initial.version != self.keys.version || initial.has_token && id_of(initial.scid) == self.scid
    }

    fn frames(&mut self, payload: &[u8], limits: &Limits, counters: &mut Counters) {
        for frame in frames::Frames(payload) {
            let Frame::Crypto { offset, data } = frame else { continue };
            let Ok(offset) = u32::try_from(offset) else { continue };
            counters.overlap_conflicts += u64::from(self.stream.contradicts(self.base, offset, data));
            self.stream.insert(self.base, offset, data, limits.max_hello_bytes);
            // For each frame: a datagram put together from fragments has room for 13,000 of them.
            if self.stream.segments() >= limits.max_segments {
                counters.segment_exceeded_count += 1;
                return self.finish();
            }
        }
    }

    fn read(&mut self, limits: &Limits, counters: &mut Counters, emit: &mut impl FnMut(&ClientHello<'_>, u8)) {
        while let Some([kind, a, b, c, ..]) = self.stream.ready() {
            let len = 4 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if *kind != 1 {
                counters.malformed_hellos += u64::from(self.hellos == 0);
                return self.finish();
            }
            if len > limits.max_hello_bytes {
                counters.buffer_exceeded_count += 1;
                return self.finish();
            }
            let Some(message) = self.stream.ready().and_then(|data| data.get(..len)) else { return };
            let Ok(hello) = ClientHello::parse(&message[4..]) else {
                counters.malformed_hellos += 1;
                return self.finish();
            };
            let random = message.get(RANDOM..).and_then(|rest| rest.first_chunk::<32>()).copied();
            // The same hello after a Retry is no hello of its own.
            if self.hellos > 0 || random != self.random {
                counters.ports_reused += u64::from(self.hellos == 0 && !self.began_before && self.random.is_some());
                emit(&hello, u8::from(self.hellos > 0 || self.began_before));
            }
            self.random = self.random.filter(|_| self.hellos > 0).or(random);
            self.hellos += 1;
            if self.hellos == MAX_HELLOS {
                return self.finish();
            }
            self.base = self.base.wrapping_add(len as u32);
            self.stream.advance(self.base, len, 0, Walk::default());
            self.stream.reset_segments();
        }
    }

    fn finish(&mut self) {
        self.done = true;
        self.stream = Assembly::default();
    }
}

fn id_of(id: &[u8]) -> ([u8; MAX_ID], u8) {
    let mut bytes = [0; MAX_ID];
    let len = id.len().min(MAX_ID);
    bytes[..len].copy_from_slice(&id[..len]);
    (bytes, len as u8)
}

//! Long-header packets (RFC 9000 section 17.2), several of which may share a datagram (section 12.2).

use super::attempt::MAX_ID;
use super::keys::{Version, version};
use crate::bytes::{u8_at, u32_at};

/// Packets of one datagram that are looked at.
const MAX_PACKETS: usize = 8;

/// Long packet types, as version 1 numbers them.
const INITIAL: u8 = 0;
const RETRY: u8 = 3;

const LONG_HEADER: u8 = 0x80;
/// Usually 1; a client that has a token of a server that knows RFC 9287 may set it to 0.
const FIXED_BIT: u8 = 0x40;
/// A datagram with an Initial packet of a client is at least so long (RFC 9000 section 14.1).
const MIN_DATAGRAM: usize = 1200;

/// An Initial packet, still protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Initial<'a> {
    pub version: Version,
    /// Destination connection ID.
    pub dcid: &'a [u8],
    /// Source connection ID.
    pub scid: &'a [u8],
    /// It has a token, from a Retry packet or an earlier connection.
    pub has_token: bool,
    /// The packet as far as its length says.
    pub bytes: &'a [u8],
    /// Where in `bytes` the packet number begins.
    pub number_at: usize,
}

/// Whether a datagram may begin with an Initial packet of a client. Without the fixed bit it has to be as long as those
/// are: other protocols begin with such bytes too, RTP for one, and each that gets through costs the derivation of keys.
pub(crate) fn is_initial(datagram: &[u8]) -> bool {
    let like = |first: u8| first & LONG_HEADER != 0 && (first & FIXED_BIT != 0 || datagram.len() >= MIN_DATAGRAM);
    u8_at(datagram, 0).is_some_and(like)
        && u32_at(datagram, 1).and_then(version).is_some()
        && Initials::of(datagram).next().is_some()
}

/// Whether a datagram begins with a packet with a long header, as a server's first answers do.
pub(crate) fn is_long(datagram: &[u8]) -> bool {
    // Version 0 is a Version Negotiation (RFC 9000 section 17.2.1).
    let is_known = |number: u32| number == 0 || version(number).is_some();
    u8_at(datagram, 0).is_some_and(|first| first & LONG_HEADER != 0) && u32_at(datagram, 1).is_some_and(is_known)
}

/// The Initial packets of a datagram.
#[derive(Debug, Clone)]
pub(crate) struct Initials<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Initials<'a> {
    pub(crate) fn of(datagram: &'a [u8]) -> Self {
        Self { rest: datagram, left: MAX_PACKETS }
    }
}

impl<'a> Iterator for Initials<'a> {
    type Item = Initial<'a>;

    fn next(&mut self) -> Option<Initial<'a>> {
        while self.left > 0 {
            self.left -= 1;
            let (initial, rest) = long(self.rest)?;
            self.rest = rest;
            if initial.is_some() {
                return initial;
            }
        }
        None
    }
}

/// The packet at the front of `data`, if it is an Initial, and what follows. `None` where the datagram holds no more
/// long headers that can be followed.
fn long(data: &[u8]) -> Option<(Option<Initial<'_>>, &[u8])> {
    let first = u8_at(data, 0)?;
    if first & LONG_HEADER == 0 {
        return None;
    }
    let version = version(u32_at(data, 1)?)?;
    let kind = match version.has_types_of_two() {
        false => first >> 4 & 3,
        true => (first >> 4).wrapping_sub(1) & 3,
    };
    if kind == RETRY {
        return None;
    }
    let mut at = 5;
    let mut id = || {
        let len = usize::from(u8_at(data, at)?);
        let id = data.get(at + 1..at + 1 + len).filter(|_| len <= MAX_ID)?;
        at += 1 + len;
        Some(id)
    };
    let (dcid, scid) = (id()?, id()?);
    let mut has_token = false;
    if kind == INITIAL {
        let token = varint(data, &mut at)?;
        has_token = token > 0;
        at = at.checked_add(usize::try_from(token).ok()?)?;
    }
    let len = varint(data, &mut at)?;
    let end = at.checked_add(usize::try_from(len).ok()?)?;
    let bytes = data.get(..end)?;
    let initial = Initial { version, dcid, scid, has_token, bytes, number_at: at };
    Some(((kind == INITIAL && !dcid.is_empty()).then_some(initial), &data[end..]))
}

/// A variable-length integer (RFC 9000 section 16) at `at`, which moves behind it.
pub(crate) fn varint(data: &[u8], at: &mut usize) -> Option<u64> {
    let first = u8_at(data, *at)?;
    let len = 1 << (first >> 6);
    let bytes = data.get(*at..)?.get(..len)?;
    *at += len;
    Some(bytes[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}

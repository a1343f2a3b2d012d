//! IEEE 802.2 logical link control, and SNAP (IEEE 802 section 9.5, RFC 1042).

use super::ethertype::{ETHERNET, IPV4, Inside};
use crate::bytes::u16_at;
use crate::layer::Layer;
use crate::packet::Skip;

/// Null, layer management, SNA, PROWAY, spanning tree, NetWare, NetBIOS, IBM's management, remote load and OSI.
const NOT_IP: [u8; 13] = [0x00, 0x02, 0x04, 0x08, 0x0c, 0x0e, 0x42, 0xe0, 0xf0, 0xf4, 0xf8, 0xfc, 0xfe];

pub(super) fn llc(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    match rest {
        [0xaa, 0xaa, 3, rest @ ..] => snap(rest, Layer::Llc),
        [6, 6, 3, rest @ ..] => Ok((IPV4, rest)),
        // A length of 0, and IPX right behind the length of an 802.3 frame.
        [] | [0xff, 0xff, ..] => Err(Skip::NotIp),
        // The lowest bit is set for a group of access points.
        [to, _, _, ..] if NOT_IP.contains(&(to & 0xfe)) => Err(Skip::NotIp),
        [_, _, _, ..] => Err(Skip::Undecoded(Layer::Llc)),
        _ => Err(Skip::Short),
    }
}

/// Organisation and type. What is unknown is counted as being of `layer`.
pub(super) fn snap(rest: &[u8], layer: Layer) -> Result<Inside<'_>, Skip> {
    let kind = u16_at(rest, 3).ok_or(Skip::Short)?;
    match (&rest[..3], kind) {
        // RFC 1042, and IEEE 802.1H
        ([0, 0, 0] | [0, 0, 0xf8], 0x0600..) => Ok((kind, &rest[5..])),
        // RFC 2427 section 4.2: bridged Ethernet, with and without its check sequence; spanning tree
        ([0, 0x80, 0xc2], 1 | 7) => Ok((ETHERNET, &rest[5..])),
        ([0, 0x80, 0xc2], 0x000e) => Err(Skip::NotIp),
        // Cisco's and Apple's own protocols
        ([0, 0, 0x0c] | [8, 0, 7], _) => Err(Skip::NotIp),
        _ => Err(Skip::Undecoded(layer)),
    }
}

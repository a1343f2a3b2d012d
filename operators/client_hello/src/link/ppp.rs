//! PPP (RFC 1661), in HDLC-like framing (RFC 1662) or not, PPPoE (RFC 2516) and Cisco HDLC.

use super::ethertype::{ETHERNET, IPV4, IPV6, Inside, MPLS, PPP};
use crate::bytes::u16_at;
use crate::layer::Layer;
use crate::packet::Skip;

/// What follows the header of a PPPoE packet.
pub(super) fn pppoe(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    match rest {
        [0x11, 0, _, _, _, _, rest @ ..] => Ok((PPP, rest)),
        // Discovery.
        [0x11, code, ..] if *code != 0 => Err(Skip::NotIp),
        [0x11, ..] | [] => Err(Skip::Short),
        _ => Err(Skip::Undecoded(Layer::Pppoe)),
    }
}

/// What follows the protocol field, which may be one byte long (RFC 1661 section 6.5). Address and control may stand in
/// front of it.
pub(super) fn ppp(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    let rest = rest.strip_prefix(&[0xff, 3]).unwrap_or(rest);
    let (protocol, inside) = match rest {
        // Only the last byte of a protocol number is odd.
        [last, inside @ ..] if last & 1 == 1 => (u16::from(*last), inside),
        [high, low, inside @ ..] => (u16::from_be_bytes([*high, *low]), inside),
        _ => return Err(Skip::Short),
    };
    match protocol {
        0x0021 => Ok((IPV4, inside)),
        0x0057 => Ok((IPV6, inside)),
        0x0281 | 0x0283 => Ok((MPLS, inside)),
        0x0031 => bridged(inside),
        // OSI, AppleTalk, IPX, NetBIOS, spanning tree; what controls networks and the link
        0x0023 | 0x0029 | 0x002b | 0x003f | 0x0201 | 0x4000.. => Err(Skip::NotIp),
        _ => Err(Skip::Undecoded(Layer::Ppp)),
    }
}

/// A bridged frame (RFC 3518 section 4.2): flags, and the kind of network. A flag of old says that the number of a LAN
/// follows.
fn bridged(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    const HAS_LAN: u8 = 0x40;
    match rest {
        [flags, 1, frame @ ..] if flags & HAS_LAN == 0 => Ok((ETHERNET, frame)),
        [_, _, ..] => Err(Skip::Undecoded(Layer::Ppp)),
        _ => Err(Skip::Short),
    }
}

/// A frame of a serial line: Cisco's begin with an address of their own, unicast or multicast (RFC 1547 section 4.3.1).
pub(super) fn serial(frame: &[u8]) -> Result<(Layer, Inside<'_>), Skip> {
    match frame {
        [0x0f | 0x8f, ..] => Ok((Layer::CiscoHdlc, cisco_hdlc(frame)?)),
        _ => Ok((Layer::Ppp, (PPP, frame))),
    }
}

/// What follows address, control and EtherType.
pub(super) fn cisco_hdlc(frame: &[u8]) -> Result<Inside<'_>, Skip> {
    Ok((u16_at(frame, 2).ok_or(Skip::Short)?, &frame[4..]))
}

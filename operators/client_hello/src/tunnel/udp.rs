//! Tunnels over UDP: VXLAN (RFC 7348) and VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe), GENEVE (RFC 8926), TZSP, GTP-U (3GPP
//! TS 29.281). L2TP, ESP and WireGuard are only known by sight.
//!
//! Anyone may send anything to a tunnel's port. A payload that does not begin with the tunnel's header is an ordinary
//! datagram; where a tunnel is switched off, one with a hello is, too.

use crate::bytes::{u8_at, u16_at, u32_at};
use crate::layer::Layer;
use crate::link::{self, BRIDGED, IPV4, IPV6, Inside, MPLS, NSH, UNKNOWN};
use crate::packet::{Skip, Tunnels};

/// Reads a tunnel's header; `None` if this is none.
type Header = fn(&[u8]) -> Option<Inside<'_>>;

/// The tunnel whose port this is.
#[inline]
fn to_port(port: u16) -> Option<(Layer, Header)> {
    Some(match port {
        // The port of IANA, and that of Linux before it was assigned.
        4789 | 8472 => (Layer::Vxlan, vxlan),
        4790 => (Layer::Vxlan, vxlan_gpe),
        6081 => (Layer::Geneve, geneve),
        37008 => (Layer::Tzsp, tzsp),
        2152 => (Layer::Gtp, gtp),
        1701 => (Layer::L2tp, l2tp),
        4500 => (Layer::Esp, esp),
        51820 => (Layer::Wireguard, wireguard),
        _ => return None,
    })
}

/// The IP packet inside a UDP datagram to this port, if that is a tunnel that is looked into.
#[inline]
pub(crate) fn over_udp(port: u16, payload: &[u8], tunnels: Tunnels) -> Option<Result<&[u8], Skip>> {
    let (layer, header) = to_port(port)?;
    let inside = tunnels.looks_into(layer).then(|| header(payload))??;
    Some(link::within(layer, inside))
}

/// The tunnel that a UDP datagram to this port belongs to, if it looks like one.
pub(crate) fn passed_by(port: u16, payload: &[u8]) -> Option<Layer> {
    let (layer, header) = to_port(port)?;
    header(payload).map(|_| layer)
}

/// The number is there (I), and none of the bits that no extension uses.
fn is_vxlan(flags: u8) -> bool {
    flags & 0x08 != 0 && flags & 0x70 == 0
}

fn vxlan(data: &[u8]) -> Option<Inside<'_>> {
    is_vxlan(u8_at(data, 0)?).then_some((BRIDGED, data.get(8..)?))
}

fn vxlan_gpe(data: &[u8]) -> Option<Inside<'_>> {
    const NEXT_PROTOCOL: u8 = 0x04;
    let header = data.first_chunk::<8>()?;
    let ethertype = match header[3] {
        _ if header[0] & NEXT_PROTOCOL == 0 => BRIDGED,
        1 => IPV4,
        2 => IPV6,
        3 => BRIDGED,
        4 => NSH,
        5 => MPLS,
        _ => UNKNOWN,
    };
    is_vxlan(header[0]).then_some((ethertype, &data[8..]))
}

fn geneve(data: &[u8]) -> Option<Inside<'_>> {
    const RESERVED: u8 = 0x3f;
    let first = u8_at(data, 0)?;
    let is_geneve = first >> 6 == 0 && u8_at(data, 1)? & RESERVED == 0;
    is_geneve.then_some((u16_at(data, 2)?, data.get(8 + usize::from(first & 0x3f) * 4..)?))
}

/// A sniffer's header: version, type, what is encapsulated; then tagged fields.
fn tzsp(data: &[u8]) -> Option<Inside<'_>> {
    const PADDING: u8 = 0;
    const END: u8 = 1;
    let [1, 0 | 1, high, low, fields @ ..] = data else { return None };
    let ethertype = if [*high, *low] == [0, 1] { BRIDGED } else { UNKNOWN };
    let mut rest = fields;
    loop {
        rest = match rest {
            [END, frame @ ..] => return Some((ethertype, frame)),
            [PADDING, rest @ ..] => rest,
            [_, len, rest @ ..] => rest.get(usize::from(*len)..)?,
            _ => return None,
        };
    }
}

/// A user's packet (section 5.1), behind extension headers.
fn gtp(data: &[u8]) -> Option<Inside<'_>> {
    /// Version 1, and the protocol is not that of charging.
    const GTP: u8 = 0x30;
    const USER_DATA: u8 = 0xff;
    const HAS_EXTENSION: u8 = 0x04;
    let [flags, USER_DATA, _, _, _, _, _, _, rest @ ..] = data else { return None };
    let mut rest = rest;
    if flags & 0xf0 != GTP {
        return None;
    }
    if flags & 0x07 != 0 {
        let [_, _, _, next, after @ ..] = rest else { return None };
        rest = after;
        let mut next = if flags & HAS_EXTENSION == 0 { 0 } else { *next };
        while next != 0 {
            let len = usize::from(u8_at(rest, 0)?) * 4;
            next = u8_at(rest, len.checked_sub(1)?)?;
            rest = rest.get(len..)?;
        }
    }
    // Only the session tells what it carries: Ethernet, too.
    match u8_at(rest, 0)? >> 4 {
        4 => Some((IPV4, rest)),
        6 => Some((IPV6, rest)),
        _ => Some((UNKNOWN, rest)),
    }
}

/// Data messages of versions 2 and 3.
fn l2tp(data: &[u8]) -> Option<Inside<'_>> {
    const CONTROL: u16 = 0x8000;
    let flags = u16_at(data, 0)?;
    (flags & CONTROL == 0 && matches!(flags & 0x0f, 2 | 3)).then_some((UNKNOWN, data))
}

/// ESP over UDP: a number other than 0 comes first (RFC 3948 section 2.1), and no packet is shorter.
fn esp(data: &[u8]) -> Option<Inside<'_>> {
    (u32_at(data, 0)? != 0 && data.len() >= 28).then_some((UNKNOWN, data))
}

fn wireguard(data: &[u8]) -> Option<Inside<'_>> {
    let is_message = match (data, data.len()) {
        ([1, 0, 0, 0, ..], 148) | ([2, 0, 0, 0, ..], 92) | ([3, 0, 0, 0, ..], 64) => true,
        ([4, 0, 0, 0, ..], len) => len >= 32 && len.is_multiple_of(16),
        _ => false,
    };
    is_message.then_some((UNKNOWN, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_extensions_are_skipped_and_end() {
        assert_eq!(tzsp(&[1, 0, 0, 1, 0, 0, 10, 1, 0xb0, 1, 7, 8]), Some((BRIDGED, &[7, 8][..])));
        assert_eq!(tzsp(&[1, 0, 0, 18, 1, 8, 0]), Some((UNKNOWN, &[8, 0][..])), "802.11");
        assert_eq!(tzsp(&[1, 4, 0, 1, 1]), None, "a sign of life");
        assert_eq!(tzsp(&[1, 0, 0, 1, 10, 9, 1]), None);
        assert_eq!(tzsp(&[&[1, 0, 0, 1][..], &[0; 60_000]].concat()), None);
        let user = |flags: u8, rest: &[u8]| [&[flags, 0xff, 0, 0, 0, 0, 0, 7][..], rest].concat();
        assert_eq!(gtp(&user(0x30, &[0x45, 1])), Some((IPV4, &[0x45, 1][..])));
        assert_eq!(gtp(&user(0x31, &[0, 0, 0, 0x85, 0x60])), Some((IPV6, &[0x60][..])), "no extension announced");
        assert_eq!(gtp(&user(0x34, &[0, 0, 0, 0x85, 1, 0, 0, 0, 0x45])), Some((IPV4, &[0x45][..])));
        assert_eq!(gtp(&user(0x34, &[0, 0, 0, 0x85, 0, 0, 0, 0, 0x45])), None, "an extension without length");
        assert_eq!(gtp(&user(0x34, &[0, 0, 0, 0x85, 9, 0, 0, 0, 0x45])), None);
        assert_eq!(gtp(&user(0x30, &[2; 14])), Some((UNKNOWN, &[2; 14][..])), "Ethernet");
        assert_eq!(gtp(&[0x30, 1, 0, 0, 0, 0, 0, 0, 0x45]), None, "an echo");
    }

    #[test]
    fn what_does_not_begin_as_a_tunnel_is_none() {
        let frame = [0; 60];
        let begins = |port: u16, header: &[u8]| passed_by(port, &[header, &frame].concat());
        assert_eq!(begins(4789, &[8, 0, 0, 0, 0, 0, 7, 0]), Some(Layer::Vxlan));
        assert_eq!(begins(4789, &[0; 8]), None);
        assert_eq!(begins(4789, &[0xc8; 8]), None);
        assert_eq!(begins(4790, &[0x1c; 8]), None);
        assert_eq!(begins(6081, &[0x40; 8]), None);
        assert_eq!(begins(6081, &[0, 0xff, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(begins(1701, &[0xc8, 2]), None, "control");
        assert_eq!(begins(4500, &[0; 4]), None, "IKE");
        assert_eq!(passed_by(4500, &[0xff]), None, "a sign of life");
        assert_eq!(begins(51820, &[4, 0, 0, 0]), Some(Layer::Wireguard));
        assert_eq!(begins(51820, &[5, 0, 0, 0]), None);
        assert_eq!(begins(443, &[8, 0, 0, 0, 0, 0, 7, 0]), None);
    }
}

//! Link layer: from a captured frame to its IP packet.
//!
//! Linktype numbers are those of libpcap's `DLT_*` as a capture handle gives them, and of the files' `LINKTYPE_*`
//! where these differ (<https://www.tcpdump.org/linktypes.html>).
//!
//! Every header leads to an EtherType and the bytes that it names ([`Inside`]), be it that the header has none of its
//! own: PPP, NSH and the tunnels number what they carry in other ways. So one table ([`ethertype`]) says what comes
//! next.

mod ethertype;
mod frame_relay;
mod llc;
mod mpls;
mod nflog;
mod ppp;

use super::bytes::{u16_at, u32_at};
use super::layer::Layer;
use super::packet::Skip;

pub(crate) use ethertype::{ETHERNET as BRIDGED, IPV4, IPV6, Inside, MPLS, NSH, PPP, SGT, UNKNOWN};

const NULL: i32 = 0;
const ETHERNET: i32 = 1;
const PPP_LINK: i32 = 9;
const RAW_LINUX: i32 = 12;
const RAW_OPENBSD: i32 = 14;
const PPP_HDLC: i32 = 50;
const PPP_ETHER: i32 = 51;
const RAW: i32 = 101;
const CISCO_HDLC: i32 = 104;
const FRAME_RELAY: i32 = 107;
const LOOP: i32 = 108;
const LINUX_SLL: i32 = 113;
const IPV4_LINK: i32 = 228;
const IPV6_LINK: i32 = 229;
const NFLOG: i32 = 239;
const LINUX_SLL2: i32 = 276;

/// Linktypes that can be decoded.
const SUPPORTED: [i32; 16] = [
    NULL,
    ETHERNET,
    PPP_LINK,
    RAW_LINUX,
    RAW_OPENBSD,
    PPP_HDLC,
    PPP_ETHER,
    RAW,
    CISCO_HDLC,
    FRAME_RELAY,
    LOOP,
    LINUX_SLL,
    IPV4_LINK,
    IPV6_LINK,
    NFLOG,
    LINUX_SLL2,
];

/// Headers in front of one IP packet that are followed; a label stack is one. A subscriber's frame in a provider's
/// backbone has nine: Ethernet, three tags, Ethernet, two tags, PPPoE, PPP.
const MAX_HEADERS: usize = 12;

/// Whether packets of this linktype can be decoded at all.
pub fn is_supported(linktype: i32) -> bool {
    SUPPORTED.contains(&linktype)
}

/// The IP packet inside a frame of `linktype`, with whatever padding follows it.
#[inline]
pub(crate) fn network(linktype: i32, frame: &[u8]) -> Result<&[u8], Skip> {
    // Most frames are this: Ethernet with IP in it, or with one or two tags between.
    if linktype == ETHERNET {
        for at in [12, 16, 20] {
            match u16_at(frame, at) {
                Some(IPV4 | IPV6) => return Ok(&frame[at + 2..]),
                Some(tag) if ethertype::is_vlan(tag) => {}
                _ => break,
            }
        }
    }
    of_linktype(linktype, frame)
}

#[inline(never)]
fn of_linktype(linktype: i32, frame: &[u8]) -> Result<&[u8], Skip> {
    match linktype {
        ETHERNET => through(ethertype::typed(frame, 12)?),
        LINUX_SLL => through((u16_at(frame, 14).ok_or(Skip::Short)?, &frame[16..])),
        LINUX_SLL2 => {
            let protocol = u16_at(frame, 0).ok_or(Skip::Short)?;
            through((protocol, frame.get(20..).ok_or(Skip::Short)?))
        }
        RAW | RAW_LINUX | RAW_OPENBSD | IPV4_LINK | IPV6_LINK => Ok(frame),
        NULL | LOOP => loopback(frame),
        PPP_LINK | PPP_HDLC => {
            let (layer, inside) = ppp::serial(frame)?;
            within(layer, inside)
        }
        PPP_ETHER => through((ethertype::PPPOE_SESSION, frame)),
        CISCO_HDLC => within(Layer::CiscoHdlc, ppp::cisco_hdlc(frame)?),
        FRAME_RELAY => within(Layer::FrameRelay, frame_relay::frame_relay(frame)?),
        NFLOG => within(Layer::Nflog, nflog::nflog(frame)?),
        _ => Err(Skip::UnknownLink),
    }
}

/// The IP packet inside what a header of `layer` names, by a number that may be none for an EtherType.
pub(crate) fn within(layer: Layer, inside: Inside<'_>) -> Result<&[u8], Skip> {
    if ethertype::is_known(inside.0) { through(inside) } else { Err(Skip::Undecoded(layer)) }
}

/// The IP packet behind all headers.
fn through(inside: Inside<'_>) -> Result<&[u8], Skip> {
    match inside {
        (IPV4 | IPV6, packet) => Ok(packet),
        _ => behind_headers(inside),
    }
}

fn behind_headers(mut inside: Inside<'_>) -> Result<&[u8], Skip> {
    for _ in 0..MAX_HEADERS {
        inside = ethertype::next(inside.0, inside.1)?;
        if let (IPV4 | IPV6, packet) = inside {
            return Ok(packet);
        }
    }
    Err(Skip::Malformed)
}

/// BSD loopback: four bytes of address family, in the byte order of the host that captured (`NULL`) or of the network
/// (`LOOP`). Families are small numbers, so the smaller reading of the two is the right one.
fn loopback(frame: &[u8]) -> Result<&[u8], Skip> {
    let family = u32_at(frame, 0).ok_or(Skip::Short)?;
    match family.min(family.swap_bytes()) {
        // AF_INET; AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS
        2 | 10 | 24 | 28 | 30 => Ok(&frame[4..]),
        _ => Err(Skip::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_tags_are_followed_but_not_for_ever() {
        let mut frame = vec![0; 12];
        frame.extend([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x08, 0, 0x45]);
        assert_eq!(network(ETHERNET, &frame), Ok(&[0x45][..]));
        let mut frame = vec![0; 12];
        for _ in 0..MAX_HEADERS + 1 {
            frame.extend([0x81, 0, 0, 1]);
        }
        frame.extend([0x08, 0, 0x45]);
        assert_eq!(network(ETHERNET, &frame), Err(Skip::Malformed));
    }

    #[test]
    fn loopback_is_read_in_both_byte_orders() {
        assert_eq!(network(NULL, &[2, 0, 0, 0, 0x45]), Ok(&[0x45][..]));
        assert_eq!(network(NULL, &[0, 0, 0, 30, 0x60]), Ok(&[0x60][..]));
        assert_eq!(network(LOOP, &[0, 0, 0, 2, 0x45]), Ok(&[0x45][..]));
        assert_eq!(network(LOOP, &[0, 0, 0, 7, 0x45]), Err(Skip::NotIp));
    }

    #[test]
    fn short_and_unknown_frames_are_told_apart() {
        assert_eq!(network(ETHERNET, &[0; 13]), Err(Skip::Short));
        assert_eq!(network(LINUX_SLL2, &[8, 0, 0]), Err(Skip::Short));
        assert_eq!(network(ETHERNET, &[0; 14]), Err(Skip::NotIp));
        assert_eq!(network(147, &[0; 14]), Err(Skip::UnknownLink));
        for linktype in 0..400 {
            assert_eq!(is_supported(linktype), network(linktype, &[0; 14]) != Err(Skip::UnknownLink), "{linktype}");
        }
    }
}

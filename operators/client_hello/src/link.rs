//! Link layer: from a captured frame to its IP packet.
//!
//! Linktype numbers are those of libpcap's `DLT_*` as a capture handle gives them, and of the files' `LINKTYPE_*`
//! where these differ (<https://www.tcpdump.org/linktypes.html>).

use super::bytes::{u16_at, u32_at};
use super::packet::Skip;

const NULL: i32 = 0;
const ETHERNET: i32 = 1;
const RAW_LINUX: i32 = 12;
const RAW_OPENBSD: i32 = 14;
const RAW: i32 = 101;
const LOOP: i32 = 108;
const LINUX_SLL: i32 = 113;
const IPV4: i32 = 228;
const IPV6: i32 = 229;
const LINUX_SLL2: i32 = 276;

/// Tags in front of one packet that are followed: provider and customer tag, and two more for odd mirrors.
const MAX_VLAN_TAGS: usize = 4;

/// Whether packets of this linktype can be decoded at all.
pub fn is_supported(linktype: i32) -> bool {
    matches!(linktype, NULL | ETHERNET | RAW_LINUX | RAW_OPENBSD | RAW | LOOP | LINUX_SLL | IPV4 | IPV6 | LINUX_SLL2)
}

/// The IP packet inside a frame of `linktype`, with whatever padding follows it.
pub(crate) fn network(linktype: i32, frame: &[u8]) -> Result<&[u8], Skip> {
    match linktype {
        ETHERNET => ethernet(frame),
        LINUX_SLL => after_ethertype(frame, 14),
        LINUX_SLL2 => {
            let protocol = u16_at(frame, 0).ok_or(Skip::Short)?;
            of_ethertype(protocol, frame.get(20..).ok_or(Skip::Short)?)
        }
        RAW | RAW_LINUX | RAW_OPENBSD | IPV4 | IPV6 => Ok(frame),
        NULL | LOOP => loopback(frame),
        _ => Err(Skip::UnknownLink),
    }
}

/// The IP packet inside an Ethernet frame (IEEE 802.3, 802.1Q, 802.1ad).
pub(crate) fn ethernet(frame: &[u8]) -> Result<&[u8], Skip> {
    after_ethertype(frame, 12)
}

/// The IP packet after the EtherType at `at`.
fn after_ethertype(frame: &[u8], at: usize) -> Result<&[u8], Skip> {
    let protocol = u16_at(frame, at).ok_or(Skip::Short)?;
    of_ethertype(protocol, &frame[at + 2..])
}

fn of_ethertype(mut protocol: u16, mut rest: &[u8]) -> Result<&[u8], Skip> {
    for _ in 0..=MAX_VLAN_TAGS {
        match protocol {
            0x0800 | 0x86dd => return Ok(rest),
            0x8100 | 0x88a8 | 0x9100 | 0x9200 => {
                protocol = u16_at(rest, 2).ok_or(Skip::Short)?;
                rest = &rest[4..];
            }
            _ => break,
        }
    }
    Err(Skip::NotIp)
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
        for _ in 0..6 {
            frame.extend([0x81, 0, 0, 1]);
        }
        frame.extend([0x08, 0, 0x45]);
        assert_eq!(network(ETHERNET, &frame), Err(Skip::NotIp));
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
        assert!(!is_supported(147) && is_supported(LINUX_SLL2));
    }
}

//! MPLS (RFC 3032), with IP or an Ethernet pseudowire (RFC 4448) inside.

use super::MAX_HEADERS;
use super::ethertype::{ETHERNET, IPV4, IPV6, Inside, LLC, MPLS, MPLS_UPSTREAM, is_known, next, typed};
use super::llc::llc;
use crate::bytes::{u8_at, u16_at, u32_at};
use crate::layer::Layer;
use crate::packet::Skip;

/// Labels of one stack that are followed. Networks use up to about ten with segment routing.
const MAX_LABELS: usize = 16;

/// What follows the label stack.
pub(super) fn mpls(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    below(behind_labels(rest)?)
}

fn behind_labels(mut rest: &[u8]) -> Result<&[u8], Skip> {
    const BOTTOM: u32 = 0x100;
    /// RFC 5586, RFC 3429: maintenance messages follow.
    const MAINTENANCE: [u32; 2] = [13, 14];
    for _ in 0..MAX_LABELS {
        let entry = u32_at(rest, 0).ok_or(Skip::Short)?;
        rest = &rest[4..];
        if entry & BOTTOM != 0 {
            return if MAINTENANCE.contains(&(entry >> 12)) { Err(Skip::NotIp) } else { Ok(rest) };
        }
    }
    Err(Skip::Undecoded(Layer::Mpls))
}

/// Labels do not tell what is below them. Its first four bits do: 4 and 6 are IP, 0 is a control word with Ethernet
/// behind it, 1 is a maintenance message (RFC 4385). But Ethernet may come without a control word, and many cards have
/// addresses that begin with these bits. So the readings are tried in this order, and the first one counts that leads
/// to an IP header which fits the frame; if none does, the first that makes sense at all.
fn below(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    let plain = (ETHERNET, rest);
    let worded = (ETHERNET, rest.get(4..).unwrap_or_default());
    let readings = match (u8_at(rest, 0).ok_or(Skip::Short)? >> 4, rest) {
        (4, _) => [(IPV4, rest), plain],
        (6, _) => [(IPV6, rest), plain],
        // The first half of the control word is 0 (RFC 4448 section 4.6).
        (0, [0, 0, ..]) => [worded, plain],
        (0, _) => [plain, worded],
        _ => [plain, plain],
    };
    if let Some(reading) = readings.iter().find(|reading| fits(reading)) {
        return Ok(*reading);
    }
    if let [0x10, 0, ..] = rest {
        return Err(Skip::NotIp);
    }
    readings.into_iter().find(is_sane).ok_or(Skip::Undecoded(Layer::Mpls))
}

/// Whether this leads to an IP header that fits the frame. Of labels further inside only IP is expected.
fn fits(&(mut ethertype, mut rest): &Inside<'_>) -> bool {
    let framed = ethertype == ETHERNET;
    for _ in 0..MAX_HEADERS {
        let inside = match ethertype {
            IPV4 => return is_ipv4(rest, framed),
            IPV6 => return is_ipv6(rest, framed),
            MPLS | MPLS_UPSTREAM => behind_labels(rest).and_then(labelled_ip),
            _ => next(ethertype, rest),
        };
        let Ok(inside) = inside else { return false };
        (ethertype, rest) = inside;
    }
    false
}

fn labelled_ip(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    match u8_at(rest, 0).ok_or(Skip::Short)? >> 4 {
        4 => Ok((IPV4, rest)),
        6 => Ok((IPV6, rest)),
        _ => Err(Skip::NotIp),
    }
}

/// Whether this may be right: of Ethernet, if it is known what the frame carries. The frame may be cut, so lengths say
/// little.
fn is_sane(&(ethertype, rest): &Inside<'_>) -> bool {
    match (ethertype, typed(rest, 12)) {
        (IPV4, _) => starts_ipv4(rest),
        (IPV6, _) => true,
        (_, Ok((LLC, rest))) => matches!(llc(rest), Ok(_) | Err(Skip::NotIp)),
        (_, Ok((ethertype, _))) => is_known(ethertype),
        (_, Err(_)) => false,
    }
}

/// Version 4, and a header of five words or more.
fn starts_ipv4(rest: &[u8]) -> bool {
    u8_at(rest, 0).is_some_and(|first| (0x45..=0x4f).contains(&first))
}

/// An IPv4 header that fits. Without an EtherType in front its checksum must be right; where there is one, a card may
/// have left the checksum to be filled in later.
fn is_ipv4(rest: &[u8], framed: bool) -> bool {
    let total_length = usize::from(u16_at(rest, 2).unwrap_or(u16::MAX));
    // 0 = segmentation offload
    starts_ipv4(rest) && total_length <= rest.len() && (framed || has_checksum(rest))
}

/// Whether the checksum of an IPv4 header is right (RFC 791 section 3.1, RFC 1071).
fn has_checksum(rest: &[u8]) -> bool {
    let len = u8_at(rest, 0).map_or(0, |first| usize::from(first & 0x0f) * 4);
    let sum = rest.get(..len).map_or(0, |header| crate::bytes::u16s(header).map(u32::from).sum());
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// An IPv6 header that fits. It has no checksum; without an EtherType in front the length must be that of the frame, or
/// of a frame with its check sequence.
fn is_ipv6(rest: &[u8], framed: bool) -> bool {
    let len = 40 + usize::from(u16_at(rest, 4).unwrap_or(u16::MAX));
    let starts = u8_at(rest, 0).is_some_and(|first| first >> 4 == 6);
    starts && if framed { len <= rest.len() } else { rest.len() == len || rest.len() == len + 4 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, Tcp};

    const LABEL: [u8; 4] = [0, 1, 1, 64];

    fn packet() -> Vec<u8> {
        let mut packet = sample::tcp_packet(&Tcp { payload: b"data", ..Tcp::default() });
        let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn ethernet(first: u8, tags: &[u16], packet: &[u8]) -> Vec<u8> {
        let mut frame = sample::ethernet(tags, packet);
        frame[..6].copy_from_slice(&[first, 0, 0, 0, 0, 9]);
        frame
    }

    fn read(parts: &[&[u8]]) -> Result<Vec<u8>, Skip> {
        super::super::through((MPLS, &parts.concat())).map(<[u8]>::to_vec)
    }

    #[test]
    fn stacks_end_at_the_bottom() {
        let packet = packet();
        let above = [0, 2, 0x20, 64];
        assert_eq!(read(&[&LABEL, &packet]).as_ref(), Ok(&packet));
        assert_eq!(read(&[&above.repeat(15), &LABEL, &packet]).as_ref(), Ok(&packet));
        assert_eq!(read(&[&above.repeat(16), &LABEL, &packet]), Err(Skip::Undecoded(Layer::Mpls)));
        assert_eq!(read(&[&above, &LABEL[..3]]), Err(Skip::Short));
        // The generic associated channel: a BFD message, RFC 5885.
        assert_eq!(read(&[&[0, 0, 0xd1, 1], &[0x10, 0, 0, 7, 0x20, 0x40]]), Err(Skip::NotIp));
        assert_eq!(read(&[&LABEL, &[0x10, 0, 0, 0x21, 0x45, 0]]), Err(Skip::NotIp));
    }

    #[test]
    fn pseudowires_with_and_without_control_word_have_cards_of_any_address() {
        let packets = [packet(), sample::ipv6(6, &packet()[20..])];
        for packet in &packets {
            let ethertype: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
            for first in [0x00, 0x02, 0x10, 0x44, 0x45, 0x4c, 0x60, 0x64, 0x6c, 0x70, 0xa4, 0xff] {
                for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                    let mut frame = ethernet(first, tags, packet);
                    let at = 12 + tags.len() * 4;
                    frame[at..at + 2].copy_from_slice(&ethertype);
                    assert_eq!(read(&[&LABEL, &frame]).as_ref(), Ok(packet), "{first:x}");
                    assert_eq!(read(&[&LABEL, &[0, 0, 0, 7], &frame]).as_ref(), Ok(packet), "{first:x}");
                    assert_eq!(read(&[&LABEL, &[0, 0, 0, 0], &frame]).as_ref(), Ok(packet), "{first:x}");
                }
            }
        }
    }

    #[test]
    fn pseudowires_carry_more_than_ip() {
        let packet = packet();
        let session = [0x11, 0, 0, 7, 0, 46];
        for inside in
            [[&session[..], &[0, 0x21], &packet].concat(), [&session[..], &[2, 0x81], &LABEL, &packet].concat()]
        {
            for first in [0x02, 0x45, 0x60] {
                let mut frame = ethernet(first, &[], &inside);
                frame[12..14].copy_from_slice(&[0x88, 0x64]);
                assert_eq!(read(&[&LABEL, &frame]).as_ref(), Ok(&packet), "{first:x}");
                assert_eq!(read(&[&LABEL, &[0; 4], &frame]).as_ref(), Ok(&packet), "{first:x}");
            }
        }
    }

    #[test]
    fn ip_is_ip_whatever_its_addresses_look_like() {
        // 8.0.69.0 as a source looks like an EtherType with an IPv4 header behind it.
        let mut packet = sample::ipv4(6, 64, [8, 0, 0x45, 0], [0, 20, 0, 0], &[0; 60]);
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(read(&[&LABEL, &packet]).as_ref(), Ok(&packet));
        let mut packet = sample::ipv6(6, &[0; 60]);
        packet[12..18].copy_from_slice(&[8, 0, 0x45, 0, 0, 20]);
        assert_eq!(read(&[&LABEL, &packet]).as_ref(), Ok(&packet));
    }

    #[test]
    fn what_is_not_understood_has_a_name() {
        let undecoded = Err(Skip::Undecoded(Layer::Mpls));
        assert_eq!(read(&[&LABEL, &[0x92; 60]]), undecoded);
        assert_eq!(read(&[&LABEL, &[0x44; 60]]), undecoded);
        assert_eq!(read(&[&LABEL, &[0; 3]]), undecoded);
        assert_eq!(read(&[&LABEL]), Err(Skip::Short));
        let mut arp = ethernet(0xa0, &[], &[0; 46]);
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(read(&[&LABEL, &arp]), Err(Skip::NotIp));
        assert_eq!(read(&[&LABEL, &[0; 4], &arp]), Err(Skip::NotIp));
    }
}

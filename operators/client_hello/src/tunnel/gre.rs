//! GRE (RFC 2784, RFC 2890, RFC 2637) and what only it carries: ERSPAN (draft-foschiano-erspan-03) and WCCP.

use crate::bytes::{u8_at, u16_at};
use crate::layer::Layer;
use crate::link::{self, BRIDGED, IPV4, Inside, PPP, SGT};
use crate::packet::Skip;

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
const ACKNOWLEDGMENT: u16 = 0x0080;
const VERSION: u16 = 0x0007;

const ERSPAN: u16 = 0x88be;
/// Type III.
const ERSPAN_3: u16 = 0x22eb;
const WCCP: u16 = 0x883e;

/// The IP packet inside a GRE packet.
pub(super) fn gre(data: &[u8]) -> Result<&[u8], Skip> {
    let flags = u16_at(data, 0).ok_or(Skip::Short)?;
    let protocol = u16_at(data, 2).ok_or(Skip::Short)?;
    let has = |flag: u16| usize::from(flags & flag != 0);
    let options = match (flags & VERSION, protocol) {
        (0, _) if flags & ROUTING == 0 => has(CHECKSUM) + has(KEY) + has(SEQUENCE),
        // RFC 2637: without a sequence number it only acknowledges.
        (1, PPP) if flags & SEQUENCE == 0 => return Err(Skip::NotIp),
        (1, PPP) => has(KEY) + has(SEQUENCE) + has(ACKNOWLEDGMENT),
        _ => return Err(Skip::Undecoded(Layer::Gre)),
    };
    let inner = data.get(4 + 4 * options..).ok_or(Skip::Short)?;
    let inside = match protocol {
        // Type I has no header of its own, and no sequence number.
        ERSPAN if flags & SEQUENCE == 0 => (BRIDGED, inner),
        ERSPAN | ERSPAN_3 => erspan(inner)?,
        // The EtherType comes first here, not last.
        SGT => (u16_at(inner, 0).ok_or(Skip::Short)?, inner.get(8..).ok_or(Skip::Short)?),
        WCCP => wccp(inner)?,
        // A router that looks whether its peer is there.
        0 if inner.is_empty() => return Err(Skip::NotIp),
        _ => (protocol, inner),
    };
    link::within(Layer::Gre, inside)
}

/// What follows the header of ERSPAN type II (version 1) or III (version 2).
fn erspan(data: &[u8]) -> Result<Inside<'_>, Skip> {
    const HAS_SUBHEADER: u8 = 1;
    let (kind, len) = match u8_at(data, 0).ok_or(Skip::Short)? >> 4 {
        1 => (0, 8),
        2 => {
            let frame_type = u8_at(data, 10).ok_or(Skip::Short)? >> 2 & 0x1f;
            let options = u8_at(data, 11).ok_or(Skip::Short)?;
            (frame_type, if options & HAS_SUBHEADER == 0 { 12 } else { 20 })
        }
        _ => return Err(Skip::Undecoded(Layer::Erspan)),
    };
    let ethertype = match kind {
        0 => BRIDGED,
        2 => IPV4, // or IPv6
        _ => return Err(Skip::Undecoded(Layer::Erspan)),
    };
    Ok((ethertype, data.get(len..).ok_or(Skip::Short)?))
}

/// A packet that a router sends to a proxy; version 2 has four bytes in front of it that cannot be the first of an IPv4
/// header (draft-mclaggan-wccp-v2rev1).
fn wccp(data: &[u8]) -> Result<Inside<'_>, Skip> {
    let len = if u8_at(data, 0).ok_or(Skip::Short)? >> 4 == 4 { 0 } else { 4 };
    Ok((IPV4, data.get(len..).ok_or(Skip::Short)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: [u8; 15] = [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 8, 0, 0x45];

    fn read(parts: &[&[u8]]) -> Result<Vec<u8>, Skip> {
        gre(&parts.concat()).map(<[u8]>::to_vec)
    }

    #[test]
    fn options_are_skipped() {
        let found = Ok(vec![0x45]);
        assert_eq!(read(&[&[0, 0, 8, 0, 0x45]]), found);
        assert_eq!(read(&[&[0x20, 0, 0x86, 0xdd, 0, 0, 0, 1, 0x60]]), Ok(vec![0x60]));
        assert_eq!(read(&[&[0xb0, 0, 0x65, 0x58], &[9; 12], &ETHERNET]), found);
        assert_eq!(read(&[&[0xb0, 0, 8, 0, 0x45]]), Err(Skip::Short));
        assert_eq!(read(&[&[0x40, 0, 8, 0, 0x45]]), Err(Skip::Undecoded(Layer::Gre)));
        assert_eq!(read(&[&[0, 1, 8, 0, 0x45]]), Err(Skip::Undecoded(Layer::Gre)));
    }

    #[test]
    fn it_carries_more_than_ip() {
        let found = Ok(vec![0x45]);
        assert_eq!(read(&[&[0, 0, 0x88, 0x47, 0, 1, 1, 64, 0x45]]), found);
        assert_eq!(read(&[&[0, 0, 0x88, 0x0b, 0xff, 3, 0, 0x21, 0x45]]), found);
        assert_eq!(read(&[&[0, 0, 0x89, 0x4f, 0x0f, 0xc2, 1, 3, 0, 0, 7, 0xff], &ETHERNET]), found);
        assert_eq!(read(&[&[0, 0, 0x89, 0x09, 8, 0, 1, 1, 0, 1, 0, 5, 0x45]]), found);
        assert_eq!(read(&[&[0, 0, 0x88, 0x3e, 0x45]]), found);
        assert_eq!(read(&[&[0, 0, 0x88, 0x3e, 0, 1, 2, 3, 0x45]]), found);
        assert_eq!(read(&[&[0, 0, 8, 6, 0, 1]]), Err(Skip::NotIp));
        assert_eq!(read(&[&[0, 0, 0, 0]]), Err(Skip::NotIp));
        assert_eq!(read(&[&[0, 0, 0x12, 0x34, 0x45]]), Err(Skip::Undecoded(Layer::Gre)));
    }

    #[test]
    fn pptp_carries_ppp() {
        let header = |flags: u8, more: u8| [flags, more, 0x88, 0x0b, 0, 3, 0, 7];
        assert_eq!(read(&[&header(0x30, 1), &[0, 0, 0, 1], &[0x21, 0x45]]), Ok(vec![0x45]));
        assert_eq!(read(&[&header(0x30, 0x81), &[0, 0, 0, 1, 0, 0, 0, 1], &[0xff, 3, 0, 0x21, 0x45]]), Ok(vec![0x45]));
        assert_eq!(read(&[&header(0x20, 0x81), &[0, 0, 0, 1]]), Err(Skip::NotIp));
        assert_eq!(read(&[&header(0x30, 1), &[0, 0, 0, 1], &[0, 0xfd, 1]]), Err(Skip::Undecoded(Layer::Ppp)));
    }

    #[test]
    fn erspan_of_all_types() {
        let found = Ok(vec![0x45]);
        let sequence = [0, 0, 0, 1];
        let third = |frame_type: u8, options: u8| [0x20, 100, 0, 7, 9, 9, 9, 9, 0, 0, frame_type << 2, options];
        assert_eq!(read(&[&[0, 0, 0x88, 0xbe], &ETHERNET]), found);
        assert_eq!(read(&[&[0x10, 0, 0x88, 0xbe], &sequence, &[0x10, 1, 0, 1, 0, 0, 0, 0], &ETHERNET]), found);
        for (protocol, subheader) in [([0x22, 0xeb], &[7; 8][..]), ([0x88, 0xbe], &[7; 8])] {
            let header = [0x10, 0, protocol[0], protocol[1]];
            assert_eq!(read(&[&header, &sequence, &third(0, 0), &ETHERNET]), found);
            assert_eq!(read(&[&header, &sequence, &third(0, 0x0f), subheader, &ETHERNET]), found);
            assert_eq!(read(&[&header, &sequence, &third(2, 1), subheader, &[0x60]]), Ok(vec![0x60]));
            assert_eq!(read(&[&header, &sequence, &third(1, 0), &ETHERNET]), Err(Skip::Undecoded(Layer::Erspan)));
            assert_eq!(read(&[&header, &sequence, &[0x30; 12], &ETHERNET]), Err(Skip::Undecoded(Layer::Erspan)));
            assert_eq!(read(&[&header, &sequence, &third(0, 1)]), Err(Skip::Short));
        }
    }
}

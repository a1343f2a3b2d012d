//! IPv4 (RFC 791), IPv6 with its extension headers (RFC 8200), and the tunnels that carry them: IP-in-IP (RFC 2003,
//! RFC 2473) and GRE (RFC 2784, RFC 2890).

use std::net::Ipv4Addr;

use super::bytes::{u8_at, u16_at};
use super::link;
use super::packet::Skip;

/// IP protocol numbers that are followed.
pub(super) mod protocol {
    pub const IPV4: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const GRE: u8 = 47;
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Extension headers of one packet that are followed; RFC 8200 foresees seven.
const MAX_EXTENSIONS: usize = 8;

/// The header fields that tell operating systems apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpMeta {
    /// IPv4 time to live, IPv6 hop limit.
    pub ttl: u8,
    /// Bytes of the IP packet with its header. 0 if the sender's network card was to fill it in (segmentation offload).
    pub total_length: u16,
    /// IPv4 identification; 0 for IPv6.
    pub id: u16,
    /// IPv4 "don't fragment"; true for IPv6, whose routers never fragment.
    pub df: bool,
}

/// An IP header and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ip<'a> {
    /// Source address; IPv4 as IPv4-mapped IPv6.
    pub src: u128,
    /// Destination address; IPv4 as IPv4-mapped IPv6.
    pub dst: u128,
    pub meta: IpMeta,
    /// Protocol of `payload`, after all extension headers.
    pub protocol: u8,
    /// Without link-layer padding.
    pub payload: &'a [u8],
    /// The header announces more bytes than were captured.
    pub cut: bool,
}

/// Reads one IP header, whichever version its first four bits name.
pub(super) fn read(data: &[u8]) -> Result<Ip<'_>, Skip> {
    match u8_at(data, 0).ok_or(Skip::Short)? >> 4 {
        4 => v4(data),
        6 => v6(data),
        _ => Err(Skip::Malformed),
    }
}

fn v4(data: &[u8]) -> Result<Ip<'_>, Skip> {
    let header = data.first_chunk::<20>().ok_or(Skip::Short)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_length = u16::from_be_bytes([header[2], header[3]]);
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    // 0 = segmentation offload: the packet is as long as the frame
    let announced = if total_length == 0 { data.len() } else { usize::from(total_length) };
    if header_len < 20 || announced < header_len {
        return Err(Skip::Malformed);
    }
    if fragment & 0x3fff != 0 {
        return Err(Skip::Fragment);
    }
    let address = |at: usize| {
        let octets = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u128::from(Ipv4Addr::from(octets).to_ipv6_mapped())
    };
    let end = announced.min(data.len());
    Ok(Ip {
        src: address(12),
        dst: address(16),
        meta: IpMeta {
            ttl: header[8],
            total_length,
            id: u16::from_be_bytes([header[4], header[5]]),
            df: fragment & 0x4000 != 0,
        },
        protocol: header[9],
        payload: data.get(header_len..end).ok_or(Skip::Short)?,
        cut: end < announced,
    })
}

fn v6(data: &[u8]) -> Result<Ip<'_>, Skip> {
    let header = data.first_chunk::<40>().ok_or(Skip::Short)?;
    let payload_length = u16::from_be_bytes([header[4], header[5]]);
    // 0 = jumbogram or segmentation offload
    let announced = if payload_length == 0 { data.len() } else { 40 + usize::from(payload_length) };
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        u128::from_be_bytes(octets)
    };
    let end = announced.min(data.len());
    let (protocol, payload) = after_extensions(header[6], &data[40..end])?;
    Ok(Ip {
        src: address(8),
        dst: address(24),
        meta: IpMeta {
            ttl: header[7],
            total_length: if payload_length == 0 { 0 } else { payload_length.saturating_add(40) },
            id: 0,
            df: true,
        },
        protocol,
        payload,
        cut: end < announced,
    })
}

/// Follows IPv6 extension headers to the first that is none.
fn after_extensions(mut next: u8, mut rest: &[u8]) -> Result<(u8, &[u8]), Skip> {
    for _ in 0..=MAX_EXTENSIONS {
        let len = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                8 + usize::from(u8_at(rest, 1).ok_or(Skip::Short)?) * 8
            }
            AUTHENTICATION => 8 + usize::from(u8_at(rest, 1).ok_or(Skip::Short)?) * 4,
            FRAGMENT => {
                // An atomic fragment (RFC 6946) is a whole packet: offset 0, no more to come.
                if u16_at(rest, 2).ok_or(Skip::Short)? & 0xfff9 != 0 {
                    return Err(Skip::Fragment);
                }
                8
            }
            _ => return Ok((next, rest)),
        };
        next = u8_at(rest, 0).ok_or(Skip::Short)?;
        rest = rest.get(len..).ok_or(Skip::Short)?;
    }
    Err(Skip::Malformed)
}

/// The IP packet inside a GRE packet, version 0, that carries IPv4, IPv6 or Ethernet.
pub(super) fn gre(data: &[u8]) -> Result<&[u8], Skip> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const VERSION: u16 = 0x0007;
    let flags = u16_at(data, 0).ok_or(Skip::Short)?;
    let carried = u16_at(data, 2).ok_or(Skip::Short)?;
    if flags & (ROUTING | VERSION) != 0 {
        return Err(Skip::NotIp);
    }
    let optional = [CHECKSUM, KEY, SEQUENCE].iter().filter(|flag| flags & **flag != 0).count();
    let inner = data.get(4 + 4 * optional..).ok_or(Skip::Short)?;
    match carried {
        0x0800 | 0x86dd => Ok(inner),
        0x6558 => link::ethernet(inner),
        _ => Err(Skip::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6_packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 57];
        packet.extend([0x20; 16]);
        packet.extend([0x30; 16]);
        packet.extend(rest);
        packet
    }

    #[test]
    fn ipv6_extension_headers_are_followed() {
        let mut rest = vec![DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0];
        rest.extend([AUTHENTICATION, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([protocol::TCP, 0, 0, 0, 0, 0, 0, 7]);
        rest.extend(b"tcp");
        let packet = v6_packet(HOP_BY_HOP, &rest);
        let ip = read(&packet).expect("a readable packet");
        assert_eq!((ip.protocol, ip.payload), (protocol::TCP, &b"tcp"[..]));
        assert_eq!(ip.meta, IpMeta { ttl: 57, total_length: packet.len() as u16, id: 0, df: true });
    }

    #[test]
    fn fragments_of_both_versions_are_told_apart_from_whole_packets() {
        let more = [protocol::TCP, 0, 0, 1, 0, 0, 0, 7, 1, 2];
        assert_eq!(read(&v6_packet(FRAGMENT, &more)), Err(Skip::Fragment));
        let mut v4 = vec![0x45, 0, 0, 21, 0, 9, 0x20, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff];
        assert_eq!(read(&v4), Err(Skip::Fragment));
        v4[6] = 0x40;
        let ip = read(&v4).expect("a readable packet");
        assert_eq!(ip.meta, IpMeta { ttl: 64, total_length: 21, id: 9, df: true });
        assert_eq!(ip.src, u128::from(Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped()));
    }

    #[test]
    fn padding_is_cut_off_and_missing_bytes_are_noticed() {
        let mut v4 = vec![0x45, 0, 0, 21, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0, 0];
        let ip = read(&v4).expect("a readable packet");
        assert_eq!((ip.payload, ip.cut), (&[0xff][..], false));
        v4[3] = 100;
        assert!(read(&v4).expect("a readable packet").cut);
        v4[3] = 19;
        assert_eq!(read(&v4), Err(Skip::Malformed));
        v4[3] = 0;
        assert_eq!(read(&v4).expect("offloaded").payload, [0xff, 0, 0]);
    }

    #[test]
    fn gre_options_are_skipped() {
        assert_eq!(gre(&[0, 0, 8, 0, 0x45]), Ok(&[0x45][..]));
        assert_eq!(gre(&[0x20, 0, 0x86, 0xdd, 0, 0, 0, 1, 0x60]), Ok(&[0x60][..]));
        assert_eq!(gre(&[0x00, 1, 8, 0, 0x45]), Err(Skip::NotIp));
        assert_eq!(gre(&[0xb0, 0, 8, 0, 0x45]), Err(Skip::Short));
    }
}

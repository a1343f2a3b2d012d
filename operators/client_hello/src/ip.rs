//! IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200).

use std::net::Ipv4Addr;

use super::bytes::{u8_at, u16_at, u32_at};
use super::packet::Skip;

/// IP protocol numbers that are followed.
pub(crate) mod protocol {
    pub const IPV4: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const AUTHENTICATION: u8 = 51;
    pub const ETHERIP: u8 = 97;
    pub const L2TP: u8 = 115;
    pub const MPLS: u8 = 137;
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
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
    /// Bytes of the IP packet with its header; `None` if the sender's network card was to fill it in (segmentation
    /// offload).
    pub total_length: Option<u16>,
    /// IPv4 identification; `None` for IPv6.
    pub id: Option<u16>,
    /// IPv4 "don't fragment"; `None` for IPv6, whose routers never fragment.
    pub df: Option<bool>,
}

impl IpMeta {
    /// The time to live that the sender probably began with: systems begin with 32, 64, 128 or 255.
    pub fn initial_ttl(&self) -> u8 {
        [32, 64, 128].into_iter().find(|initial| self.ttl <= *initial).unwrap_or(255)
    }
}

/// Where the payload of a fragment belongs (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Identification: the same for all fragments of a packet.
    pub id: u32,
    /// Bytes of the packet's payload in front of this part.
    pub offset: u32,
    /// More fragments follow.
    pub more: bool,
}

/// An IP header and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip<'a> {
    /// Source address; IPv4 as IPv4-mapped IPv6.
    pub src: u128,
    /// Destination address; IPv4 as IPv4-mapped IPv6.
    pub dst: u128,
    pub meta: IpMeta,
    /// The header of IPv4 with its options; empty for IPv6 and for packets put together from fragments.
    pub header: &'a [u8],
    /// It was put together from fragments of which not all may have reached the receiver.
    pub is_doubtful: bool,
    /// Protocol of `payload`, after all extension headers.
    pub protocol: u8,
    /// Without link-layer padding.
    pub payload: &'a [u8],
    /// The header announces more bytes than were captured.
    pub cut: bool,
    /// Set if this is only a part of a packet; `protocol` is then that of the packet's first byte.
    pub fragment: Option<Place>,
}

/// Reads one IP header, whichever version its first four bits name.
pub(crate) fn read(data: &[u8]) -> Result<Ip<'_>, Skip> {
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
            total_length: Some(total_length).filter(|length| *length != 0),
            id: Some(u16::from_be_bytes([header[4], header[5]])),
            df: Some(fragment & 0x4000 != 0),
        },
        header: data.get(..header_len).ok_or(Skip::Short)?,
        is_doubtful: false,
        protocol: header[9],
        payload: data.get(header_len..end).ok_or(Skip::Short)?,
        cut: end < announced,
        fragment: (fragment & 0x3fff != 0).then(|| Place {
            id: u16::from_be_bytes([header[4], header[5]]).into(),
            offset: u32::from(fragment & 0x1fff) * 8,
            more: fragment & 0x2000 != 0,
        }),
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
    let (protocol, payload, fragment) = after_extensions(header[6], &data[40..end])?;
    Ok(Ip {
        src: address(8),
        dst: address(24),
        meta: IpMeta {
            ttl: header[7],
            total_length: Some(payload_length.saturating_add(40)).filter(|_| payload_length != 0),
            id: None,
            df: None,
        },
        header: &[],
        is_doubtful: false,
        protocol,
        payload,
        cut: end < announced,
        fragment,
    })
}

/// Follows IPv6 extension headers to the first that is none, or to what a fragment holds.
pub(crate) fn after_extensions(mut next: u8, mut rest: &[u8]) -> Result<(u8, &[u8], Option<Place>), Skip> {
    for _ in 0..=MAX_EXTENSIONS {
        let len = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                8 + usize::from(u8_at(rest, 1).ok_or(Skip::Short)?) * 8
            }
            protocol::AUTHENTICATION => 8 + usize::from(u8_at(rest, 1).ok_or(Skip::Short)?) * 4,
            FRAGMENT => {
                // An atomic fragment (RFC 6946) is a whole packet: offset 0, no more to come.
                let place = u16_at(rest, 2).ok_or(Skip::Short)?;
                if place & 0xfff9 != 0 {
                    let id = u32_at(rest, 4).ok_or(Skip::Short)?;
                    let place = Place { id, offset: u32::from(place & 0xfff8), more: place & 1 != 0 };
                    return Ok((rest[0], &rest[8..], Some(place)));
                }
                8
            }
            _ => return Ok((next, rest, None)),
        };
        next = u8_at(rest, 0).ok_or(Skip::Short)?;
        rest = rest.get(len..).ok_or(Skip::Short)?;
    }
    Err(Skip::Malformed)
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
        rest.extend([protocol::AUTHENTICATION, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([protocol::TCP, 0, 0, 0, 0, 0, 0, 7]);
        rest.extend(b"tcp");
        let packet = v6_packet(HOP_BY_HOP, &rest);
        let ip = read(&packet).expect("a readable packet");
        assert_eq!((ip.protocol, ip.payload), (protocol::TCP, &b"tcp"[..]));
        assert_eq!(ip.meta, IpMeta { ttl: 57, total_length: Some(packet.len() as u16), id: None, df: None });
    }

    #[test]
    fn fragments_of_both_versions_are_told_apart_from_whole_packets() {
        let more = [protocol::TCP, 0, 0, 1, 0, 0, 0, 7, 1, 2];
        let packet = v6_packet(FRAGMENT, &more);
        let part = read(&packet).expect("a fragment");
        assert_eq!(part.fragment, Some(Place { id: 7, offset: 0, more: true }));
        assert_eq!((part.protocol, part.payload), (protocol::TCP, &[1, 2][..]));
        let mut v4 = vec![0x45, 0, 0, 21, 0, 9, 0x20, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff];
        let place = read(&v4).expect("a fragment").fragment;
        assert_eq!(place, Some(Place { id: 9, offset: 0, more: true }));
        v4[6] = 0x40;
        let ip = read(&v4).expect("a readable packet");
        assert_eq!(ip.meta, IpMeta { ttl: 64, total_length: Some(21), id: Some(9), df: Some(true) });
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
}

//! One captured frame to one TCP segment or UDP datagram, without copying.

use std::net::{IpAddr, Ipv6Addr};

use super::bytes::u16_at;
use super::ip::{self, Ip, IpMeta, protocol};
use super::layer::Layer;
use super::link;
use super::tcp::{self, Segment};
use super::tunnel;

/// IP headers in front of one transport header that are followed; more is an attack or a loop.
const MAX_IP_HEADERS: usize = 4;

/// A decoded frame. Addresses and header fields are those of the innermost IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source address; IPv4 as IPv4-mapped IPv6.
    pub src: u128,
    /// Source port.
    pub src_port: u16,
    /// Destination address; IPv4 as IPv4-mapped IPv6.
    pub dst: u128,
    /// Destination port.
    pub dst_port: u16,
    /// Fields of the IP header.
    pub ip: IpMeta,
    /// The header of IPv4 with its options; empty for IPv6 and for packets put together from fragments.
    pub header: &'a [u8],
    /// It was put together from fragments of which not all may have reached the receiver.
    pub is_doubtful: bool,
    /// What it carries.
    pub transport: Transport<'a>,
    /// The capture's snapshot length cut bytes off the payload.
    pub cut: bool,
}

/// The transport layer of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport<'a> {
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// A UDP datagram (QUIC, DTLS).
    Udp(Datagram<'a>),
}

/// A UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The data.
    pub payload: &'a [u8],
    /// All of it, header included.
    pub bytes: &'a [u8],
}

/// Why a frame has no packet for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// A linktype that cannot be decoded.
    UnknownLink,
    /// Not an IP packet: ARP, LLDP, a tunnel with such inside.
    NotIp,
    /// A layer or tunnel that may carry IP, and whose inside was not reached.
    Undecoded(Layer),
    /// IP, but neither TCP nor UDP.
    OtherTransport,
    /// A header that contradicts itself, or too many of them.
    Malformed,
    /// The frame ends inside a header: cut by the snapshot length, or malformed.
    Short,
}

/// Encapsulations that are looked into. What is inside counts with its own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnels {
    /// GRE (RFC 2784) with what it carries, such as ERSPAN; IP (RFC 2003, RFC 2473), MPLS (RFC 4023) and Ethernet (RFC
    /// 3378) in IP.
    pub gre: bool,
    /// VXLAN (RFC 7348): UDP ports 4789 and 8472; VXLAN-GPE: 4790.
    pub vxlan: bool,
    /// GENEVE (RFC 8926): UDP port 6081.
    pub geneve: bool,
    /// TZSP, of sniffers and RouterOS: UDP port 37008.
    pub tzsp: bool,
    /// GTP-U (3GPP TS 29.281), of mobile networks: UDP port 2152.
    pub gtp: bool,
}

impl Tunnels {
    /// All of them.
    pub const ALL: Self = Self { gre: true, vxlan: true, geneve: true, tzsp: true, gtp: true };
}

impl Default for Tunnels {
    fn default() -> Self {
        Self { gre: true, vxlan: false, geneve: false, tzsp: false, gtp: false }
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    Packet(Packet<'a>),
    /// A part of an IP packet.
    Fragment(Ip<'a>),
}

/// Between whom a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// The sender; IPv4-mapped IPv6 as IPv4.
    pub src: IpAddr,
    /// The receiver.
    pub dst: IpAddr,
    /// Their ports; `None` for a part of an IP packet, which need not have them.
    pub ports: Option<(u16, u16)>,
}

/// Between whom a frame of `linktype` goes, by its innermost IP header; `None` if it carries neither TCP nor UDP that can be
/// decoded.
pub fn endpoints(linktype: i32, frame: &[u8], tunnels: Tunnels) -> Option<Endpoints> {
    let (src, dst, ports) = match decode(linktype, frame, tunnels).ok()? {
        Decoded::Packet(packet) => (packet.src, packet.dst, Some((packet.src_port, packet.dst_port))),
        Decoded::Fragment(ip) => (ip.src, ip.dst, None),
    };
    let address = |number| Ipv6Addr::from(number).to_canonical();
    Some(Endpoints { src: address(src), dst: address(dst), ports })
}

/// Decodes a frame of `linktype`. Checksums are not verified: a capture on the sending or receiving host sees them
/// before or after the network card handled them.
pub(crate) fn decode(linktype: i32, frame: &[u8], tunnels: Tunnels) -> Result<Decoded<'_>, Skip> {
    decode_ip(ip::read(link::network(linktype, frame)?)?, tunnels)
}

/// Goes on from an IP header, through tunnels.
pub(crate) fn decode_ip(mut ip: Ip<'_>, tunnels: Tunnels) -> Result<Decoded<'_>, Skip> {
    for _ in 0..MAX_IP_HEADERS {
        if ip.fragment.is_some() {
            return Ok(Decoded::Fragment(ip));
        }
        let inner = match ip.protocol {
            protocol::TCP => {
                let (src_port, dst_port, transport) = tcp::segment(ip.payload)?;
                return Ok(Decoded::Packet(packet(&ip, src_port, dst_port, transport)));
            }
            protocol::UDP => {
                let (src_port, dst_port, payload) = udp(ip.payload)?;
                match tunnel::over_udp(dst_port, payload, tunnels) {
                    Some(inner) => inner?,
                    None => {
                        let datagram = Datagram { payload, bytes: ip.payload };
                        return Ok(Decoded::Packet(packet(&ip, src_port, dst_port, Transport::Udp(datagram))));
                    }
                }
            }
            protocol::AUTHENTICATION => {
                (ip.protocol, ip.payload, ip.fragment) = ip::after_extensions(ip.protocol, ip.payload)?;
                continue;
            }
            protocol => tunnel::over_ip(protocol, ip.payload, tunnels)?,
        };
        ip = ip::read(inner)?;
    }
    Err(Skip::Malformed)
}

/// What a UDP datagram to this port is that has no hello.
pub(crate) fn without_hello(port: u16, payload: &[u8]) -> Skip {
    tunnel::passed_by(port, payload).map_or(Skip::OtherTransport, Skip::Undecoded)
}

fn packet<'a>(ip: &Ip<'a>, src_port: u16, dst_port: u16, transport: Transport<'a>) -> Packet<'a> {
    let Ip { src, dst, meta, header, is_doubtful, cut, .. } = *ip;
    Packet { src, src_port, dst, dst_port, ip: meta, header, is_doubtful, transport, cut }
}

/// Ports and payload of a UDP datagram (RFC 768).
fn udp(data: &[u8]) -> Result<(u16, u16, &[u8]), Skip> {
    let payload = data.get(8..).ok_or(Skip::Short)?;
    let port = |at| u16_at(data, at).ok_or(Skip::Short);
    Ok((port(0)?, port(2)?, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    const RAW: i32 = 101;

    fn decode(linktype: i32, frame: &[u8]) -> Result<Packet<'_>, Skip> {
        match super::decode(linktype, frame, Tunnels::ALL)? {
            Decoded::Packet(packet) => Ok(packet),
            Decoded::Fragment(_) => panic!("a fragment"),
        }
    }

    #[test]
    fn tunnels_are_followed_to_a_fixed_depth() {
        let inner = sample::tcp_packet(&sample::Tcp { payload: b"data", ..sample::Tcp::default() });
        let plain = decode(RAW, &inner).expect("a segment");
        let mut packet = inner.clone();
        for _ in 1..MAX_IP_HEADERS {
            packet = sample::ipv4(protocol::IPV4, 64, [9, 9, 9, 9], [8, 8, 8, 8], &packet);
            assert_eq!(decode(RAW, &packet), Ok(plain));
        }
        packet = sample::ipv4(protocol::IPV4, 64, [9, 9, 9, 9], [8, 8, 8, 8], &packet);
        assert_eq!(decode(RAW, &packet), Err(Skip::Malformed));
    }

    #[test]
    fn a_frame_goes_between_two() {
        let packet = sample::ipv4(protocol::UDP, 64, [1, 1, 1, 1], [2, 2, 2, 2], &[1, 2, 3, 4, 0, 9, 0, 0, 7]);
        let found = endpoints(RAW, &packet, Tunnels::ALL).expect("a datagram");
        let address = |last: [u8; 4]| IpAddr::from(last);
        let expected = Endpoints { src: address([1; 4]), dst: address([2; 4]), ports: Some((0x0102, 0x0304)) };
        assert_eq!(found, expected);
        assert_eq!(endpoints(RAW, &packet[..10], Tunnels::ALL), None);
        let mut fragment = packet;
        fragment[6] = 0x20; // more fragments
        assert_eq!(endpoints(RAW, &fragment, Tunnels::ALL), Some(Endpoints { ports: None, ..expected }));
    }

    #[test]
    fn gre_carries_ip_and_ethernet() {
        let inner = sample::tcp_packet(&sample::Tcp { payload: b"data", ..sample::Tcp::default() });
        let plain = decode(RAW, &inner).expect("a segment");
        let over_gre = |header: &[u8], inner: &[u8]| {
            let carried = [header, inner].concat();
            sample::ipv4(protocol::GRE, 64, [9, 9, 9, 9], [8, 8, 8, 8], &carried)
        };
        assert_eq!(decode(RAW, &over_gre(&[0, 0, 8, 0], &inner)), Ok(plain));
        assert_eq!(decode(RAW, &over_gre(&[0, 0, 0x65, 0x58], &sample::ethernet(&[], &inner))), Ok(plain));
        assert_eq!(decode(RAW, &over_gre(&[0, 0, 0x88, 0x0b], &inner)), Err(Skip::Undecoded(Layer::Ppp)));
    }

    #[test]
    fn udp_is_told_apart() {
        let packet = sample::ipv4(protocol::UDP, 64, [1, 1, 1, 1], [2, 2, 2, 2], &[1, 2, 3, 4, 0, 9, 0, 0, 7]);
        let packet = decode(RAW, &packet).expect("a datagram");
        assert_eq!((packet.src_port, packet.dst_port), (0x0102, 0x0304));
        assert!(matches!(packet.transport, Transport::Udp(Datagram { payload: [7], .. })));
    }

    #[test]
    fn vxlan_and_geneve_carry_ethernet() {
        let inner = sample::tcp_packet(&sample::Tcp { payload: b"data", ..sample::Tcp::default() });
        let plain = decode(RAW, &inner).expect("a segment");
        let over_udp = |port: u16, header: &[u8], inner: &[u8]| {
            let [high, low] = port.to_be_bytes();
            let datagram = [&[0x99, 0x99, high, low, 0, 0, 0, 0][..], header, inner].concat();
            sample::ipv4(protocol::UDP, 64, [9, 9, 9, 9], [8, 8, 8, 8], &datagram)
        };
        let frame = sample::ethernet(&[0x8100], &inner);
        assert_eq!(decode(RAW, &over_udp(4789, &[8, 0, 0, 0, 0, 0, 7, 0], &frame)), Ok(plain));
        assert_eq!(decode(RAW, &over_udp(6081, &[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4], &frame)), Ok(plain));
        assert_eq!(decode(RAW, &over_udp(6081, &[0, 0, 0x08, 0x00, 0, 0, 7, 0], &inner)), Ok(plain));
        let packet = over_udp(4789, &[8, 0, 0, 0, 0, 0, 7, 0], &frame);
        let off = super::decode(RAW, &packet, Tunnels::default());
        assert!(matches!(off, Ok(Decoded::Packet(Packet { dst_port: 4789, .. }))));
    }
}

//! Checksums of IPv4 headers, TCP segments and UDP datagrams (RFC 1071).
//!
//! What a capture shows is not always what was on the wire. A host that leaves checksums to its network card has the sum
//! of the pseudo-header alone in the field, or 0, in the packets that it sends, and in those that it has put together from
//! several (segmentation and receive offload). Such a field says nothing.

/// What a checksum says of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// It is right.
    Right,
    /// It was left to a network card, or there is none.
    Open,
    /// The packet was damaged, or made to look so: every receiver drops it.
    Wrong,
}

/// Judges an IPv4 header.
pub(crate) fn of_header(header: &[u8]) -> Checksum {
    match (header, add(0, header)) {
        ([_, _, _, _, _, _, _, _, _, _, 0, 0, ..], _) => Checksum::Open,
        (_, 0xffff) => Checksum::Right,
        _ => Checksum::Wrong,
    }
}

/// Judges a segment or datagram with its header, whose checksum is at `at`. Addresses are IPv6, or IPv4 mapped to it: the
/// prefix of these adds nothing to the sum.
pub(crate) fn of_transport(src: u128, dst: u128, protocol: u8, data: &[u8], at: usize) -> Checksum {
    let Some(field) = data.get(at..).and_then(|rest| rest.first_chunk::<2>()) else { return Checksum::Open };
    let addresses = fold(u64::from(protocol) + halves(src) + halves(dst));
    let pseudo = fold(u64::from(addresses) + data.len() as u64);
    if fold(u64::from(pseudo) + u64::from(add(0, data))) == 0xffff {
        return Checksum::Right;
    }
    // Cards that segment want the sum without the length.
    match u16::from_be_bytes(*field) {
        0 => Checksum::Open,
        sum if sum == pseudo || sum == fold(addresses.into()) => Checksum::Open,
        _ => Checksum::Wrong,
    }
}

/// A number whose sum of 16-bit parts is that of an address.
fn halves(address: u128) -> u64 {
    let parts = [96, 64, 32, 0].map(|at| (address >> at) as u64 & 0xffff_ffff);
    parts.iter().sum()
}

/// Adds the big-endian 16-bit numbers of `data`, an odd last byte padded with 0, in one's complement.
fn add(sum: u64, data: &[u8]) -> u16 {
    // The sum does not depend on the byte order in which it is made, nor on how many bytes are added at a time. In four
    // lanes the processor need not wait for a carry.
    let (blocks, rest) = data.as_chunks::<32>();
    let mut lanes = [0_u64; 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = wrapped(*lane, u64::from_ne_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    let wide = words.iter().fold(0, |sum, word| wrapped(sum, u64::from_ne_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let wide = lanes.into_iter().fold(wrapped(wide, u64::from_ne_bytes(last)), wrapped);
    let native = fold((wide >> 32) + (wide & 0xffff_ffff));
    fold(sum + u64::from(u16::from_be_bytes(native.to_ne_bytes())))
}

/// Adds in one's complement: what is carried out at the top comes in at the bottom.
fn wrapped(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum as RFC 1071 defines it, two bytes at a time.
    fn plainly(data: &[u8]) -> u16 {
        let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        let sum: u32 = data.chunks(2).map(pair).fold(0, |sum, pair| {
            let sum = sum + pair;
            (sum & 0xffff) + (sum >> 16)
        });
        sum as u16
    }

    #[test]
    fn sums_are_those_of_the_rfc() {
        let data: Vec<u8> = (0..1500u32).map(|n| (n * n / 7) as u8).collect();
        for len in (0..70).chain([1499, 1500]) {
            assert_eq!(add(0, &data[..len]), plainly(&data[..len]), "{len}");
        }
        assert_eq!(add(0, &[0xff; 40]), 0xffff);
    }

    #[test]
    fn a_header_of_a_real_packet() {
        // From RFC 1071's companion examples: 192.168.0.1 to 192.168.0.199, UDP.
        let mut header = *b"\x45\x00\x00\x73\x00\x00\x40\x00\x40\x11\xb8\x61\xc0\xa8\x00\x01\xc0\xa8\x00\xc7";
        assert_eq!(of_header(&header), Checksum::Right);
        header[8] -= 1;
        assert_eq!(of_header(&header), Checksum::Wrong);
        header[10..12].fill(0);
        assert_eq!(of_header(&header), Checksum::Open);
    }

    #[test]
    fn a_segment_is_right_open_or_wrong() {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let four = |last: u8| u128::from(Ipv4Addr::new(192, 0, 2, last).to_ipv6_mapped());
        let six = |last: u16| u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        for (src, dst, bytes) in [
            (four(1), four(2), [&[192, 0, 2, 1, 192, 0, 2, 2][..]].concat()),
            (six(1), six(2), [six(1).to_be_bytes(), six(2).to_be_bytes()].concat()),
        ] {
            for len in [20, 27] {
                let mut segment: Vec<u8> = (0..len).collect();
                segment[16..18].fill(0);
                let pseudo = plainly(&[&bytes[..], &[0, 6, 0, len]].concat());
                let sum = !plainly(&[&bytes[..], &[0, 6, 0, len], &segment].concat());
                let mut judged = |field: u16| {
                    segment[16..18].copy_from_slice(&field.to_be_bytes());
                    of_transport(src, dst, 6, &segment, 16)
                };
                assert_eq!(judged(sum), Checksum::Right);
                assert_eq!(judged(pseudo), Checksum::Open);
                assert_eq!(judged(pseudo - u16::from(len)), Checksum::Open);
                assert_eq!(judged(0), Checksum::Open);
                assert_eq!(judged(sum ^ 0x100), Checksum::Wrong);
            }
        }
    }
}

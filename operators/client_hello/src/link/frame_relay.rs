//! Frame Relay: Q.922 addresses, then RFC 2427 or Cisco's own encapsulation.

use super::ethertype::{IPV4, IPV6, Inside, PPP};
use super::llc::snap;
use crate::bytes::u16_at;
use crate::layer::Layer;
use crate::packet::Skip;

const MAX_ADDRESS: usize = 4;
/// Bytes of 0 in front of the protocol identifier. RFC 2427 has one, to make the header's length even.
const MAX_PADDING: usize = 3;

/// What follows the header.
pub(super) fn frame_relay(frame: &[u8]) -> Result<Inside<'_>, Skip> {
    // The lowest bit is set in an address' last byte, of two to four.
    let address = match frame.iter().take(MAX_ADDRESS).position(|byte| byte & 1 == 1) {
        Some(0) => return Err(Skip::Undecoded(Layer::FrameRelay)),
        Some(last) => last + 1,
        None if frame.len() < MAX_ADDRESS => return Err(Skip::Short),
        None => return Err(Skip::Undecoded(Layer::FrameRelay)),
    };
    let rest = &frame[address..];
    // Unnumbered information, or else Cisco's: an EtherType.
    let Some(rest) = rest.strip_prefix(&[3]) else {
        return Ok((u16_at(rest, 0).ok_or(Skip::Short)?, &rest[2..]));
    };
    let padding = rest.iter().take(MAX_PADDING).take_while(|byte| **byte == 0).count();
    match &rest[padding..] {
        [0xcc, rest @ ..] => Ok((IPV4, rest)),
        [0x8e, rest @ ..] => Ok((IPV6, rest)),
        [0x80, rest @ ..] => snap(rest, Layer::FrameRelay),
        // RFC 1973
        [0xcf, rest @ ..] => Ok((PPP, rest)),
        // Management of the link (Q.933 annex A, and Cisco's); OSI
        [0x08 | 0x09 | 0x81..=0x83, ..] => Err(Skip::NotIp),
        [] => Err(Skip::Short),
        _ => Err(Skip::Undecoded(Layer::FrameRelay)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_two_to_four_bytes() {
        for address in [&[0x18, 0x41][..], &[0x18, 0x40, 0x01], &[0x18, 0x40, 0x00, 0x01]] {
            let read = |rest: &[u8]| frame_relay(&[address, rest].concat()).map(|(kind, rest)| (kind, rest.to_vec()));
            assert_eq!(read(&[3, 0xcc, 0x45]), Ok((IPV4, vec![0x45])));
            assert_eq!(read(&[3, 0x8e, 0x60]), Ok((IPV6, vec![0x60])));
            assert_eq!(read(&[3, 0, 0xcc, 0x45]), Ok((IPV4, vec![0x45])));
            assert_eq!(read(&[3, 0, 0x80, 0, 0, 0, 8, 0, 0x45]), Ok((IPV4, vec![0x45])));
            assert_eq!(read(&[3, 0, 0x80, 0, 0x80, 0xc2, 0, 7, 2]), Ok((super::super::ethertype::ETHERNET, vec![2])));
            assert_eq!(read(&[3, 0xcf, 0, 0x21, 0x45]), Ok((PPP, vec![0, 0x21, 0x45])));
            assert_eq!(read(&[8, 0, 0x45]), Ok((IPV4, vec![0x45])));
            assert_eq!(read(&[3, 8, 0, 0x75]), Err(Skip::NotIp));
            assert_eq!(read(&[3, 0x77, 0]), Err(Skip::Undecoded(Layer::FrameRelay)));
            assert_eq!(read(&[3, 0x80, 1, 2, 3, 8, 0]), Err(Skip::Undecoded(Layer::FrameRelay)));
            assert_eq!(read(&[3]), Err(Skip::Short));
        }
        for (frame, skip) in [
            (&[0x18, 0x40, 0, 0, 0][..], Skip::Undecoded(Layer::FrameRelay)),
            (&[0x19, 0x41, 3, 0xcc], Skip::Undecoded(Layer::FrameRelay)),
            (&[0x18, 0x40, 0], Skip::Short),
            (&[], Skip::Short),
        ] {
            assert_eq!(frame_relay(frame), Err(skip));
        }
    }
}

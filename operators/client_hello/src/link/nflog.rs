//! Linux's netfilter log (<https://www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html>): attributes, one of which is the
//! packet.

use super::ethertype::{IPV4, IPV6, Inside, UNKNOWN};
use crate::bytes::u16_at;
use crate::layer::Layer;
use crate::packet::Skip;

const AF_INET: u8 = 2;
/// Linux's.
const AF_INET6: u8 = 10;
/// `NFULA_PACKET_HDR`: the EtherType in network byte order, hook, padding.
const PACKET_HEADER: u16 = 1;
/// `NFULA_PAYLOAD`, from the network layer on.
const PAYLOAD: u16 = 9;
/// Without the flags "nested" and "network byte order".
const KIND: u16 = 0x3fff;

/// The packet. Other families than those of IP, such as that of bridges, say by its EtherType what it is.
pub(super) fn nflog(frame: &[u8]) -> Result<Inside<'_>, Skip> {
    let header = frame.first_chunk::<4>().ok_or(Skip::Short)?;
    if header[1] != 0 {
        return Err(Skip::Undecoded(Layer::Nflog));
    }
    let mut ethertype = match header[0] {
        AF_INET => IPV4,
        AF_INET6 => IPV6,
        _ => UNKNOWN,
    };
    let mut rest = &frame[4..];
    // Lengths and types are in the byte order of the host that captured. The first type has another value than 0 in its
    // lower byte only.
    let is_big = u16_at(rest, 2).ok_or(Skip::Short)? & KIND <= 0xff;
    let number =
        |at: usize, rest: &[u8]| u16_at(rest, at).map(|number| if is_big { number } else { number.swap_bytes() });
    while !rest.is_empty() {
        let len = usize::from(number(0, rest).ok_or(Skip::Short)?);
        let kind = number(2, rest).ok_or(Skip::Short)? & KIND;
        if len < 4 {
            return Err(Skip::Malformed);
        }
        let value = &rest[4..len.min(rest.len()).max(4)];
        match kind {
            PACKET_HEADER if ethertype == UNKNOWN => ethertype = u16_at(value, 0).ok_or(Skip::Short)?,
            PAYLOAD => return Ok((ethertype, value)),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    // A rule that logs no bytes, or a frame cut in front of them.
    Err(Skip::Short)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attributes as a kernel writes them: padded to four bytes.
    fn frame(family: u8, is_big: bool, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut frame = vec![family, 0, 0, 5];
        for (kind, value) in attributes {
            for number in [value.len() as u16 + 4, *kind] {
                frame.extend(if is_big { number.to_be_bytes() } else { number.to_le_bytes() });
            }
            frame.extend(*value);
            frame.resize(frame.len().next_multiple_of(4), 0);
        }
        frame
    }

    #[test]
    fn the_payload_is_found_in_either_byte_order() {
        for is_big in [false, true] {
            let attributes: [(u16, &[u8]); 4] =
                [(1, &[8, 0, 1, 0]), (10, b"prefix\0"), (0x8012, &[1]), (9, &[0x45, 0, 7])];
            let read = |family, skip| {
                nflog(&frame(family, is_big, &attributes[skip..])).map(|(kind, rest)| (kind, rest.to_vec()))
            };
            assert_eq!(read(2, 0), Ok((IPV4, vec![0x45, 0, 7])));
            assert_eq!(read(7, 0), Ok((IPV4, vec![0x45, 0, 7])));
            assert_eq!(read(2, 1), Ok((IPV4, vec![0x45, 0, 7])));
            assert_eq!(read(2, 3), Ok((IPV4, vec![0x45, 0, 7])));
            assert_eq!(read(7, 1), Ok((UNKNOWN, vec![0x45, 0, 7])));
            let whole = frame(2, is_big, &attributes);
            assert_eq!(nflog(&whole[..whole.len() - 2]), Ok((IPV4, &[0x45, 0][..])), "cut");
            assert_eq!(nflog(&whole[..12]), Err(Skip::Short));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert_eq!(nflog(&[2, 0, 0]), Err(Skip::Short));
        assert_eq!(nflog(&[2, 0, 0, 0]), Err(Skip::Short));
        assert_eq!(nflog(&[2, 1, 0, 0, 8, 0, 9, 0, 1, 2, 3, 4]), Err(Skip::Undecoded(Layer::Nflog)));
        assert_eq!(nflog(&[2, 0, 0, 0, 3, 0, 1, 0]), Err(Skip::Malformed));
        assert_eq!(nflog(&[2, 0, 0, 0, 0, 0, 0, 0]), Err(Skip::Malformed));
    }
}

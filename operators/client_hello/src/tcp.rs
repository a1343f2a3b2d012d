//! TCP header and options (RFC 9293).

use super::bytes::u16_at;
use super::packet::{Skip, Transport};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence number of the SYN if there is one, else of the first byte of the payload.
    pub seq: u32,
    /// The flags byte, CWR in the top bit, FIN in the lowest.
    pub flags: u8,
    /// Receive window as on the wire, unscaled.
    pub window: u16,
    /// The options' bytes, at most 40.
    pub options: &'a [u8],
    /// The data.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// The first segment of a client: SYN without ACK.
    pub fn opens_connection(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Nothing but an acknowledgement, as far as the flags say.
    pub fn is_plain_ack(&self) -> bool {
        self.flags & (SYN | RST | ACK) == ACK
    }

    /// The answer of a server: SYN with ACK.
    pub fn accepts_connection(&self) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK
    }
}

/// Ports and segment of a TCP packet.
pub(crate) fn segment(data: &[u8]) -> Result<(u16, u16, Transport<'_>), Skip> {
    let header = data.first_chunk::<20>().ok_or(Skip::Short)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 {
        return Err(Skip::Malformed);
    }
    let segment = Segment {
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        flags: header[13],
        window: u16::from_be_bytes([header[14], header[15]]),
        options: data.get(20..header_len).ok_or(Skip::Short)?,
        payload: &data[header_len..],
    };
    let src_port = u16::from_be_bytes([header[0], header[1]]);
    let dst_port = u16::from_be_bytes([header[2], header[3]]);
    Ok((src_port, dst_port, Transport::Tcp(segment)))
}

/// What a client's SYN tells of its TCP stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpMeta {
    /// Receive window, unscaled.
    pub window_size: u16,
    /// Maximum segment size, if offered.
    pub mss: Option<u16>,
    /// Window scale (a shift count), if offered.
    pub window_scale: Option<u8>,
    /// Kinds of the options in wire order, comma-separated, padding included: `MSS,SACK,TS,NOP,WS`.
    pub options: String,
}

/// The options of a SYN as captured: no heap memory while a connection has not sent data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SynOptions {
    window: u16,
    len: u8,
    bytes: [u8; 40],
}

impl SynOptions {
    pub(crate) fn of(segment: &Segment<'_>) -> Self {
        let mut bytes = [0; 40];
        let len = segment.options.len().min(bytes.len());
        bytes[..len].copy_from_slice(&segment.options[..len]);
        Self { window: segment.window, len: len as u8, bytes }
    }

    pub(crate) fn meta(&self) -> TcpMeta {
        let mut meta = TcpMeta { window_size: self.window, mss: None, window_scale: None, options: String::new() };
        let mut rest = &self.bytes[..usize::from(self.len)];
        while let Some(&kind) = rest.first() {
            if !meta.options.is_empty() {
                meta.options.push(',');
            }
            push_kind(&mut meta.options, kind);
            let len = match kind {
                0 => break, // end of the list
                1 => 1,
                _ => usize::from(rest.get(1).copied().unwrap_or(0)),
            };
            // A length that cannot be: what follows is not options.
            let Some(option) = rest.get(..len).filter(|_| len > 0) else { break };
            match (kind, len) {
                (2, 4) => meta.mss = u16_at(option, 2),
                (3, 3) => meta.window_scale = option.get(2).copied(),
                _ => {}
            }
            rest = &rest[len..];
        }
        meta
    }
}

/// The name of an option kind (IANA "TCP Option Kind Numbers"), or its number.
fn push_kind(out: &mut String, kind: u8) {
    let name = match kind {
        0 => "EOL",
        1 => "NOP",
        2 => "MSS",
        3 => "WS",
        4 => "SACK",
        8 => "TS",
        19 => "MD5",
        28 => "UTO",
        29 => "AO",
        30 => "MPTCP",
        34 => "TFO",
        other => return out.push_str(&other.to_string()),
    };
    out.push_str(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(options: &[u8]) -> TcpMeta {
        let segment = Segment { seq: 0, flags: SYN, window: 64_240, options, payload: &[] };
        SynOptions::of(&segment).meta()
    }

    #[test]
    fn options_of_a_linux_syn() {
        let meta = meta(&[2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
        assert_eq!(meta.options, "MSS,SACK,TS,NOP,WS");
        assert_eq!((meta.window_size, meta.mss, meta.window_scale), (64_240, Some(1460), Some(7)));
    }

    #[test]
    fn options_that_lie_about_their_length_end_the_list() {
        assert_eq!(meta(&[2, 0, 5, 180]).options, "MSS");
        assert_eq!(meta(&[1, 3, 200]).options, "NOP,WS");
        assert_eq!(meta(&[254, 2, 0, 9]).options, "254,EOL");
        assert_eq!(meta(&[3]).options, "WS");
        assert_eq!(meta(&[]).mss, None);
    }

    #[test]
    fn a_header_length_below_the_minimum_is_malformed() {
        let mut data = [0; 20];
        assert_eq!(segment(&data), Err(Skip::Malformed));
        data[12] = 0x60;
        assert_eq!(segment(&data), Err(Skip::Short));
        assert_eq!(segment(&data[..19]), Err(Skip::Short));
    }
}

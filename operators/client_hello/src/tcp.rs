//! TCP header and options (RFC 9293).

use super::bytes::u16_at;
use super::packet::{Skip, Transport};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// Where it stands in the header.
const URGENT_POINTER: usize = 18;

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence number of the SYN if there is one, else of the first byte of the payload.
    pub seq: u32,
    /// Acknowledgement number, whether the flag is set or not.
    pub ack: u32,
    /// The flags byte, CWR in the top bit, FIN in the lowest.
    pub flags: u8,
    /// Receive window as on the wire, unscaled.
    pub window: u16,
    /// The options' bytes, at most 40.
    pub options: &'a [u8],
    /// The data.
    pub payload: &'a [u8],
    /// All of it, header included.
    pub bytes: &'a [u8],
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

    /// Data that no TCP takes: once a connection is open, a segment without ACK is dropped, and one with RST ends it
    /// (RFC 9293 section 3.10.7.4).
    pub(crate) fn has_unwanted_data(&self) -> bool {
        !self.payload.is_empty() && (self.flags & RST != 0 || self.flags & (SYN | ACK) == 0)
    }

    /// An acknowledgement whose data is nothing but what a sender or a middlebox took from the padding of its frame.
    pub(crate) fn is_padded_ack(&self) -> bool {
        const MOST: usize = 6; // of Ethernet's 46 bytes, without those of both headers
        self.flags & !ACK == 0 && self.payload.len() <= MOST && self.payload.iter().all(|byte| *byte == 0)
    }

    /// Sequence number of the byte that it says is urgent, which may come later. Receivers take that byte out of the stream, as
    /// Linux, BSD and Windows do by default, or leave it there (RFC 6093). The pointer is read as they read it: it names the
    /// byte behind.
    pub(crate) fn urgent(&self) -> Option<u32> {
        let pointer = u16_at(self.bytes, URGENT_POINTER)?;
        (self.flags & (SYN | URG) == URG).then(|| self.seq.wrapping_add(u32::from(pointer.saturating_sub(1))))
    }

    /// The acknowledgement number counts.
    pub(crate) fn acknowledges(&self) -> bool {
        self.flags & (ACK | RST) == ACK
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
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        flags: header[13],
        window: u16::from_be_bytes([header[14], header[15]]),
        options: data.get(20..header_len).ok_or(Skip::Short)?,
        payload: &data[header_len..],
        bytes: data,
    };
    let src_port = u16::from_be_bytes([header[0], header[1]]);
    let dst_port = u16::from_be_bytes([header[2], header[3]]);
    Ok((src_port, dst_port, Transport::Tcp(segment)))
}

/// The content of the first option of this kind.
pub(crate) fn option(options: &[u8], kind: u8) -> Option<&[u8]> {
    let mut rest = options;
    loop {
        let (first, after) = rest.split_first()?;
        let len = match first {
            0 => return None,
            1 => {
                rest = after;
                continue;
            }
            _ => usize::from(*after.first()?),
        };
        let option = rest.get(..len).filter(|_| len >= 2)?;
        if *first == kind {
            return Some(&option[2..]);
        }
        rest = &rest[len..];
    }
}

/// Options that are looked into.
pub(crate) mod option {
    pub const TIMESTAMPS: u8 = 8;
    pub const MD5: u8 = 19;
    pub const FAST_OPEN: u8 = 34;

    /// The sender's clock (RFC 7323 section 3.2).
    pub(crate) fn timestamp(options: &[u8]) -> Option<u32> {
        let value = super::option(options, TIMESTAMPS)?;
        value.first_chunk().copied().map(u32::from_be_bytes)
    }
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

    /// The sender's clock.
    pub(crate) fn timestamp(&self) -> Option<u32> {
        option::timestamp(self.bytes())
    }

    /// Whether there is an option of this kind.
    pub(crate) fn has(&self, kind: u8) -> bool {
        option(self.bytes(), kind).is_some()
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(crate) fn meta(&self) -> TcpMeta {
        let mut meta = TcpMeta { window_size: self.window, mss: None, window_scale: None, options: String::new() };
        let mut rest = self.bytes();
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
        let segment = Segment { seq: 0, ack: 0, flags: SYN, window: 64_240, options, payload: &[], bytes: &[] };
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

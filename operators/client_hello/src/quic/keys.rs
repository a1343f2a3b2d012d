//! Keys of Initial packets and their removal (RFC 9001 sections 5.2 to 5.4, RFC 9369 section 3.3).

use aes_gcm::AesGcm;
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use aes_gcm::aes::Aes128Enc;
use aes_gcm::aes::cipher::{Array, BlockCipherEncrypt};
use hkdf::Hkdf;
use sha2::Sha256;

use super::packet::Initial;

/// Without the schedule for decrypting blocks, which GCM never does.
type Aes128Gcm = AesGcm<Aes128Enc, U12>;

const TAG: usize = 16;
/// The header is sampled this far after the start of the packet number.
const SAMPLE_AT: usize = 4;

/// Versions by what their keys are derived with, and by how they number the types of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// RFC 9000, and draft-ietf-quic-transport-33 and -34, which have its salt already.
    One,
    /// RFC 9369, and draft-ietf-quic-v2-08 to -10, which have its number.
    Two,
    /// draft-ietf-quic-v2-01 to -07: another number and salt.
    TwoDraft01,
    /// draft-duke-quic-v2-01 and -02, and draft-ietf-quic-v2-00: that salt, and the packet types of version 1.
    TwoDraft00,
    /// draft-ietf-quic-transport-29 to -32.
    Draft29,
    /// draft-ietf-quic-transport-23 to -28.
    Draft23,
}

/// What is known of a version number. Not the reserved ones, 0x?a?a?a?a (RFC 9000 section 15): no server speaks them, and
/// no salt belongs to them.
pub(crate) fn version(number: u32) -> Option<Version> {
    Some(match number {
        0x0000_0001 | 0xff00_0021 | 0xff00_0022 => Version::One,
        0x6b33_43cf => Version::Two,
        0x709a_50c4 => Version::TwoDraft01,
        0xff01_0001 | 0xff02_0000 => Version::TwoDraft00,
        0xff00_001d..=0xff00_0020 => Version::Draft29,
        0xff00_0017..=0xff00_001c => Version::Draft23,
        _ => return None,
    })
}

impl Version {
    /// Whether the types of long-header packets are numbered as in RFC 9369 section 3.2.
    pub(crate) fn has_types_of_two(self) -> bool {
        matches!(self, Self::Two | Self::TwoDraft01)
    }

    fn salt(self) -> [u8; 20] {
        match self {
            Self::One => *b"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a",
            Self::Two => *b"\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9",
            Self::TwoDraft01 | Self::TwoDraft00 => {
                *b"\xa7\x07\xc2\x03\xa5\x9b\x47\x18\x4a\x1d\x62\xca\x57\x04\x06\xea\x7a\xe3\xe5\xd3"
            }
            Self::Draft29 => *b"\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99",
            Self::Draft23 => *b"\xc3\xee\xf7\x12\xc7\x2e\xbb\x5a\x11\xa7\xd2\x43\x2b\xb4\x63\x65\xbe\xf9\xf5\x02",
        }
    }

    fn labels(self) -> [&'static [u8]; 3] {
        match self {
            Self::Two | Self::TwoDraft01 | Self::TwoDraft00 => [b"quicv2 key", b"quicv2 iv", b"quicv2 hp"],
            Self::One | Self::Draft29 | Self::Draft23 => [b"quic key", b"quic iv", b"quic hp"],
        }
    }
}

/// What protects the Initial packets that a client sends. Kept are keys and not their schedules, which are made again
/// for each packet in a fraction of the time that it takes to open it: a connection stays for as long as its ports may
/// send, and the schedules take 20 times as much memory.
#[derive(PartialEq, Eq)]
pub(crate) struct Keys {
    pub version: Version,
    payload: [u8; 16],
    iv: [u8; 12],
    header: [u8; 16],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Keys").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys that follow from the connection ID of the client's first packet.
    pub(crate) fn of_client(version: Version, dcid: &[u8]) -> Self {
        let initial = Hkdf::<Sha256>::new(Some(&version.salt()), dcid);
        let secret: [u8; 32] = expand(&initial, b"client in");
        let client = Hkdf::<Sha256>::from_prk(&secret).unwrap_or(initial);
        let [key, iv, hp] = version.labels();
        Self { version, payload: expand(&client, key), iv: expand(&client, iv), header: expand(&client, hp) }
    }

    /// Leaves the packet's payload in `out`; false if these are not its keys.
    pub(crate) fn open(&self, packet: &Initial<'_>, out: &mut Vec<u8>) -> bool {
        self.opened(packet, out).is_some()
    }

    /// Makes the mask of header protection from a sample.
    fn mask(&self, sample: &mut Array<u8, U16>) {
        Aes128Enc::new(&Array(self.header)).encrypt_block(sample);
    }

    fn opened(&self, packet: &Initial<'_>, out: &mut Vec<u8>) -> Option<()> {
        let Initial { bytes, number_at, .. } = *packet;
        let mut mask = Array(*bytes.get(number_at + SAMPLE_AT..)?.first_chunk::<16>()?);
        self.mask(&mut mask);
        let first = bytes.first()? ^ mask[0] & 0x0f;
        let number_len = usize::from(first & 3) + 1;
        let payload_at = number_at + number_len;
        let end = bytes.len().checked_sub(TAG).filter(|end| payload_at <= *end)?;

        let mut nonce = self.iv;
        out.clear();
        out.extend_from_slice(&bytes[..end]);
        out[0] = first;
        for (at, byte) in out[number_at..payload_at].iter_mut().enumerate() {
            *byte ^= mask[1 + at];
            // Packet numbers of Initials are small: all bytes before these are zero.
            nonce[12 - number_len + at] ^= *byte;
        }
        let (header, payload) = out.split_at_mut(payload_at);
        let tag = Tag::<Aes128Gcm>::try_from(&bytes[end..]).ok()?;
        let nonce = Nonce::<Aes128Gcm>::from(nonce);
        Aes128Gcm::new(&Array(self.payload))
            .decrypt_inout_detached(&nonce, header, InOutBuf::from(payload), &tag)
            .ok()?;
        out.drain(..payload_at);
        Some(())
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand<const LEN: usize>(secret: &Hkdf<Sha256>, label: &[u8]) -> [u8; LEN] {
    let mut out = [0; LEN];
    let head = [0, LEN as u8, 6 + label.len() as u8];
    // 32 bytes at most: never too long.
    let _ = secret.expand_multi_info(&[&head, b"tls13 ", label, &[0]], &mut out);
    out
}

#[cfg(test)]
impl Keys {
    /// Protects a packet: `header` up to and with a packet number of four bytes, its last ones.
    pub(crate) fn seal(&self, header: &[u8], payload: &[u8]) -> Vec<u8> {
        let number_at = header.len() - 4;
        let mut nonce = self.iv;
        for (at, byte) in header[number_at..].iter().enumerate() {
            nonce[8 + at] ^= byte;
        }
        let mut sealed = payload.to_vec();
        let nonce = Nonce::<Aes128Gcm>::from(nonce);
        let cipher = Aes128Gcm::new(&Array(self.payload));
        let tag = cipher.encrypt_inout_detached(&nonce, header, InOutBuf::from(&mut sealed[..])).expect("sealed");
        sealed.extend(tag);
        let mut packet = [header, &sealed].concat();
        let mut mask = Array(*packet[number_at + SAMPLE_AT..].first_chunk::<16>().expect("a sample"));
        self.mask(&mut mask);
        packet[0] ^= mask[0] & 0x0f;
        for at in 0..4 {
            packet[number_at + at] ^= mask[1 + at];
        }
        packet
    }

    pub(crate) fn parts(&self) -> [u8; 12] {
        self.iv
    }
}

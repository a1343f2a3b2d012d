//! Builds Initial packets for tests.

use super::keys::Keys;
use super::packet::{Initials, varint};

pub(crate) const V1: u32 = 1;
pub(crate) const V2: u32 = 0x6b33_43cf;
/// draft-ietf-quic-v2-01 to -07.
pub(crate) const V2_DRAFT_01: u32 = 0x709a_50c4;

/// A CRYPTO frame.
pub(crate) fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let two = |value: usize| (value as u16 | 0x4000).to_be_bytes();
    [&[6][..], &two(offset), &two(data.len()), data].concat()
}

/// An Initial packet of a client with these frames, padded to 1200 bytes; the keys follow from `key_id`.
pub(crate) fn initial(number: u32, version: u32, key_id: &[u8], dcid: &[u8], frames: &[u8]) -> Vec<u8> {
    Header { number, version, key_id, dcid, ..Header::default() }.around(frames)
}

/// The header of an Initial packet to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub number: u32,
    pub version: u32,
    /// The connection ID that the keys follow from.
    pub key_id: &'a [u8],
    pub dcid: &'a [u8],
    pub scid: &'a [u8],
    pub token: &'a [u8],
    pub fixed_bit: bool,
}

impl Default for Header<'_> {
    fn default() -> Self {
        Self { number: 0, version: V1, key_id: b"", dcid: b"", scid: &[1, 2, 3, 4], token: b"", fixed_bit: true }
    }
}

impl Header<'_> {
    /// The packet with these frames, padded to at least 1200 bytes.
    pub(crate) fn around(&self, frames: &[u8]) -> Vec<u8> {
        let Self { number, version, key_id, dcid, scid, token, fixed_bit } = *self;
        let keys = Keys::of_client(super::keys::version(version).expect("a version"), key_id);
        let kind = if matches!(version, V2 | V2_DRAFT_01) { 0x93 } else { 0x83 };
        let mut payload = frames.to_vec();
        payload.resize(payload.len().max(1162), 0);
        let mut header = vec![kind | if fixed_bit { 0x40 } else { 0 }];
        header.extend(version.to_be_bytes());
        for id in [dcid, scid, token] {
            header.push(id.len() as u8); // below 64, as a varint too
            header.extend(id);
        }
        header.extend(((payload.len() + 20) as u16 | 0x4000).to_be_bytes());
        header.extend(number.to_be_bytes());
        keys.seal(&header, &payload)
    }
}

#[test]
fn what_is_built_can_be_read() {
    let packet = initial(7, V1, b"12345678", b"12345678", &crypto(0, b"hello"));
    let initial = Initials::of(&packet).next().expect("an Initial");
    let mut out = Vec::new();
    assert!(Keys::of_client(initial.version, b"12345678").open(&initial, &mut out));
    assert!(out.starts_with(&crypto(0, b"hello")));
    assert!(!Keys::of_client(initial.version, b"12345679").open(&initial, &mut out));
    assert_eq!(varint(&[0x9d, 0x7f, 0x3e, 0x7d], &mut 0), Some(494_878_333));
}

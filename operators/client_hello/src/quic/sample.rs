//! Builds Initial packets for tests.

use super::keys::Keys;
use super::packet::{Initials, varint};

pub(crate) const V1: u32 = 1;
pub(crate) const V2: u32 = 0x6b33_43cf;

/// A CRYPTO frame.
pub(crate) fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let two = |value: usize| (value as u16 | 0x4000).to_be_bytes();
    [&[6][..], &two(offset), &two(data.len()), data].concat()
}

/// An Initial packet of a client with these frames, padded to 1200 bytes; the keys follow from `key_id`.
pub(crate) fn initial(number: u32, version: u32, key_id: &[u8], dcid: &[u8], frames: &[u8]) -> Vec<u8> {
    let keys = Keys::of_client(super::keys::version(version).expect("a version"), key_id);
    let kind = if version == V2 { 0xd3 } else { 0xc3 };
    let mut payload = frames.to_vec();
    payload.resize(payload.len().max(1162), 0);
    let mut header = vec![kind];
    header.extend(version.to_be_bytes());
    header.extend([&[dcid.len() as u8][..], dcid, &[4, 1, 2, 3, 4, 0]].concat());
    header.extend(((payload.len() + 20) as u16 | 0x4000).to_be_bytes());
    header.extend(number.to_be_bytes());
    keys.seal(&header, &payload)
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

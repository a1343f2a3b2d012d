//! JA4, the fingerprint of a TLS client (<https://github.com/FoxIO-LLC/ja4>, BSD-3-Clause for this method).
//!
//! `a_b_c`: `a` is readable (transport, version, SNI, counts, ALPN), `b` a hash of the cipher suites, `c` one of the
//! extensions and signature algorithms. GREASE values are left out everywhere.

use sha2::{Digest, Sha256};

use super::{HEX, Transport, is_grease, push_hex};
use crate::tls::{ClientHello, extension};

/// The hash of an empty list.
const NOTHING: &str = "000000000000";

/// The values that the four forms of a hello's JA4 are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ja4 {
    head: [u8; 10],
    /// In wire order.
    ciphers: Vec<u16>,
    /// In wire order, SNI and ALPN included.
    extensions: Vec<u16>,
    /// In wire order.
    algorithms: Vec<u16>,
}

impl Ja4 {
    /// Takes what JA4 needs from a hello.
    pub fn new(hello: &ClientHello<'_>, transport: Transport) -> Self {
        let kept = |value: &u16| !is_grease(*value);
        let ciphers: Vec<u16> = hello.ciphers().filter(kept).collect();
        let extensions: Vec<u16> = hello.extensions().map(|(kind, _)| kind).filter(kept).collect();
        let algorithms = hello.signature_algorithms().filter(kept).collect();

        let version = version_code(offered_version(hello, transport));
        let [c1, c2] = count(ciphers.len());
        let [e1, e2] = count(extensions.len());
        let [a1, a2] = alpn_code(hello.alpn().unwrap_or_default());
        let transport = match transport {
            Transport::Tcp => b't',
            Transport::Quic => b'q',
            Transport::Dtls => b'd',
        };
        let sni = if extensions.contains(&extension::SERVER_NAME) { b'd' } else { b'i' };
        let head = [transport, version[0], version[1], sni, c1, c2, e1, e2, a1, a2];
        Self { head, ciphers, extensions, algorithms }
    }

    /// `ja4`: sorted lists, hashed. This is the fingerprint; 36 characters.
    pub fn hashed(&self) -> String {
        self.render(&self.sorted(), hash)
    }

    /// `ja4_r`: sorted lists, readable.
    pub fn raw(&self) -> String {
        self.render(&self.sorted(), spell)
    }

    /// `ja4_o`: lists in wire order with SNI and ALPN, hashed.
    pub fn hashed_original(&self) -> String {
        self.render(&self.original(), hash)
    }

    /// `ja4_ro`: lists in wire order with SNI and ALPN, readable.
    pub fn raw_original(&self) -> String {
        self.render(&self.original(), spell)
    }

    fn sorted(&self) -> [Vec<u16>; 2] {
        let mut ciphers = self.ciphers.clone();
        ciphers.sort_unstable();
        let listed = |kind: &u16| !matches!(*kind, extension::SERVER_NAME | extension::ALPN);
        let mut extensions: Vec<u16> = self.extensions.iter().copied().filter(listed).collect();
        extensions.sort_unstable();
        [ciphers, extensions]
    }

    fn original(&self) -> [Vec<u16>; 2] {
        [self.ciphers.clone(), self.extensions.clone()]
    }

    fn render(&self, [ciphers, extensions]: &[Vec<u16>; 2], form: fn(&mut String, &[u16], &[u16])) -> String {
        let mut out = String::with_capacity(36);
        out.extend(self.head.map(char::from));
        out.push('_');
        form(&mut out, ciphers, &[]);
        out.push('_');
        form(&mut out, extensions, &self.algorithms);
        out
    }
}

/// The version that JA4 names: the newest of `supported_versions`, else `legacy_version`, also if the extension lists
/// only GREASE.
pub fn offered_version(hello: &ClientHello<'_>, transport: Transport) -> u16 {
    let offered = hello.supported_versions().filter(|version| !is_grease(*version));
    let newest = match transport {
        // DTLS counts down from 0xfeff.
        Transport::Dtls => offered.filter(|version| version >> 8 == 0xfe).min(),
        Transport::Tcp | Transport::Quic => offered.max(),
    };
    newest.unwrap_or(hello.legacy_version)
}

/// A version as people write it: `1.3`, `SSL 3.0`, `DTLS 1.2`; `None` if it is no published one.
pub fn version_name(version: u16) -> Option<&'static str> {
    Some(match version {
        0x0304 => "1.3",
        0x0303 => "1.2",
        0x0302 => "1.1",
        0x0301 => "1.0",
        0x0300 => "SSL 3.0",
        0x0002 => "SSL 2.0",
        0xfeff => "DTLS 1.0",
        0xfefd => "DTLS 1.2",
        0xfefc => "DTLS 1.3",
        _ => return None,
    })
}

fn version_code(version: u16) -> [u8; 2] {
    *match version {
        0x0304 => b"13",
        0x0303 => b"12",
        0x0302 => b"11",
        0x0301 => b"10",
        0x0300 => b"s3",
        0x0002 => b"s2",
        0xfeff => b"d1",
        0xfefd => b"d2",
        0xfefc => b"d3",
        _ => b"00",
    }
}

/// Two digits, 99 for more.
fn count(len: usize) -> [u8; 2] {
    let len = len.min(99) as u8;
    [b'0' + len / 10, b'0' + len % 10]
}

/// First and last character of the first ALPN value; if either is no ASCII letter or digit, first and last hex digit.
fn alpn_code(value: &[u8]) -> [u8; 2] {
    match (value.first(), value.last()) {
        (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => [*first, *last],
        (Some(first), Some(last)) => [HEX[usize::from(first >> 4)], HEX[usize::from(last & 15)]],
        _ => *b"00",
    }
}

/// Appends the first 12 hex digits of the SHA-256 of what `spell` would append.
fn hash(out: &mut String, list: &[u16], tail: &[u16]) {
    if list.is_empty() {
        return out.push_str(NOTHING);
    }
    push_hex(out, &Sha256::digest(spelled(list, tail))[..6]);
}

/// Appends the lists as 4-digit hex numbers, comma-joined, with `_` between the two if there is a second.
fn spell(out: &mut String, list: &[u16], tail: &[u16]) {
    // It is all ASCII.
    out.push_str(&String::from_utf8(spelled(list, tail)).unwrap_or_default());
}

/// What `spell` appends, as bytes in one piece: hashing many short ones takes longer than to make it.
fn spelled(list: &[u16], tail: &[u16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 * (list.len() + tail.len()));
    for (values, mut separator) in [(list, None), (tail, Some(b'_'))] {
        for value in values {
            out.extend(separator.replace(b','));
            let [high, low] = value.to_be_bytes().map(usize::from);
            out.extend_from_slice(&[HEX[high >> 4], HEX[high & 15], HEX[low >> 4], HEX[low & 15]]);
        }
    }
    out
}

#[cfg(test)]
#[path = "ja4_tests.rs"]
mod tests;

//! JA3, the older fingerprint of a TLS client (<https://github.com/salesforce/ja3>, BSD-3-Clause): wire order, so it
//! changes with every connection of a browser that shuffles its extensions.

use md5::{Digest, Md5};

use super::{is_grease, push_hex};
use crate::tls::ClientHello;

/// `version,ciphers,extensions,groups,point formats` in decimal, the values of a list joined by `-`, GREASE left out.
pub fn ja3(hello: &ClientHello<'_>) -> String {
    let mut out = Vec::with_capacity(256);
    push_list(&mut out, [hello.legacy_version]);
    out.push(b',');
    push_list(&mut out, hello.ciphers());
    out.push(b',');
    push_list(&mut out, hello.extensions().map(|(kind, _)| kind));
    out.push(b',');
    push_list(&mut out, hello.supported_groups());
    out.push(b',');
    push_list(&mut out, hello.point_formats().iter().copied().map(u16::from));
    // It is all ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// MD5 of a JA3 string, 32 lowercase hex digits.
pub fn hash(ja3: &str) -> String {
    let mut out = String::with_capacity(32);
    push_hex(&mut out, &Md5::digest(ja3.as_bytes()));
    out
}

fn push_list(out: &mut Vec<u8>, values: impl IntoIterator<Item = u16>) {
    let mut separator = false;
    for value in values.into_iter().filter(|value| !is_grease(*value)) {
        if separator {
            out.push(b'-');
        }
        push_number(out, value);
        separator = true;
    }
}

/// Appends a number in decimal: several times as fast as formatting it.
fn push_number(out: &mut Vec<u8>, value: u16) {
    let len = [10, 100, 1000, 10_000].iter().fold(1, |len, bound| len + usize::from(value >= *bound));
    let at = out.len();
    // Five bytes in one go, whatever is needed of them.
    out.extend_from_slice(&[b'0'; 5]);
    out.truncate(at + len);
    let mut rest = value;
    for digit in out[at..].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, Spec};

    fn of(spec: &Spec) -> String {
        ja3(&ClientHello::parse(&spec.body()).expect("a hello"))
    }

    /// The two examples of the JA3 README.
    #[test]
    fn published_values() {
        let spec = Spec {
            legacy_version: 769,
            ciphers: vec![47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4],
            extensions: vec![(0, vec![]), (10, vec![0, 6, 0, 23, 0, 24, 0, 25]), (11, vec![1, 0])],
        };
        assert_eq!(of(&spec), "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0");
        assert_eq!(hash(&of(&spec)), "ada70206e40642a3e4461f35503241d5");
        let spec = Spec { ciphers: vec![4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99], extensions: vec![], ..spec };
        assert_eq!(of(&spec), "769,4-5-10-9-100-98-3-6-19-18-99,,,");
        assert_eq!(hash(&of(&spec)), "de350869b8c85de67a350c8d186f11e6");
    }

    #[test]
    fn numbers_are_written_without_zeros_in_front() {
        for value in 0..=u16::MAX {
            let mut out = Vec::new();
            push_number(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }

    #[test]
    fn grease_is_left_out_everywhere() {
        let spec = Spec {
            legacy_version: 771,
            ciphers: vec![0x0a0a, 4865],
            extensions: vec![(0x1a1a, vec![]), (10, vec![0, 4, 0x2a, 0x2a, 0, 29])],
        };
        assert_eq!(of(&spec), "771,4865,10,29,");
        assert!(of(&sample::chrome()).starts_with("771,4865-4866-4867-"));
    }
}

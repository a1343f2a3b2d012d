//! The rules of JA4, one by one.

use super::*;
use crate::sample::{self, Spec};

fn ja4_over(spec: &Spec, transport: Transport) -> Ja4 {
    let body = spec.body();
    Ja4::new(&ClientHello::parse(&body).expect("a hello"), transport)
}

fn ja4(spec: &Spec) -> String {
    ja4_over(spec, Transport::Tcp).hashed()
}

/// Part `a` of a hello with these extensions only.
fn head(extensions: &[(u16, &[u8])]) -> String {
    let mut spec = Spec { extensions: Vec::new(), ..sample::chrome() };
    spec.extensions = extensions.iter().map(|(kind, content)| (*kind, content.to_vec())).collect();
    ja4(&spec)[..10].to_owned()
}

#[test]
fn chrome_in_all_four_forms() {
    let ja4 = ja4_over(&sample::chrome(), Transport::Tcp);
    let ciphers = "002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9";
    let extensions = "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01";
    let algorithms = "0403,0804,0401,0503,0805,0501,0806,0601";
    assert_eq!(ja4.hashed(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_eq!(ja4.raw(), format!("t13d1516h2_{ciphers}_{extensions}_{algorithms}"));
    assert_eq!(ja4.hashed_original(), "t13d1516h2_acb858a92679_2d79a7d73c2f");
    let ciphers = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035";
    let extensions = "0000,0017,ff01,000a,000b,0023,0010,0005,000d,0012,0033,002d,002b,001b,4469,0015";
    assert_eq!(ja4.raw_original(), format!("t13d1516h2_{ciphers}_{extensions}_{algorithms}"));
}

#[test]
fn transport_is_the_first_character_and_not_an_extension() {
    let spec = Spec { extensions: vec![(0x0039, vec![1, 2])], ..sample::chrome() };
    assert!(ja4_over(&spec, Transport::Tcp).hashed().starts_with('t'));
    assert!(ja4_over(&spec, Transport::Quic).hashed().starts_with('q'));
    assert!(ja4_over(&spec, Transport::Dtls).hashed().starts_with('d'));
}

#[test]
fn versions() {
    let table = [
        (0x0304, "13"),
        (0x0303, "12"),
        (0x0302, "11"),
        (0x0301, "10"),
        (0x0300, "s3"),
        (0x0002, "s2"),
        (0xfeff, "d1"),
        (0xfefd, "d2"),
        (0xfefc, "d3"),
        (0x0305, "00"),
        (0x7f1c, "00"),
    ];
    for (version, code) in table {
        let legacy = Spec { legacy_version: version, extensions: Vec::new(), ..sample::chrome() };
        assert_eq!(&ja4(&legacy)[1..3], code, "legacy_version {version:04x}");
        let [high, low] = u16::to_be_bytes(version);
        assert_eq!(&head(&[(0x002b, &[2, high, low])])[1..3], code, "supported_versions {version:04x}");
    }
}

#[test]
fn the_newest_supported_version_wins_over_legacy_and_grease() {
    assert_eq!(&head(&[(0x002b, &[6, 0xfa, 0xfa, 0x03, 0x01, 0x03, 0x02])])[1..3], "11");
    assert_eq!(&head(&[(0x002b, &[2, 0xfa, 0xfa])])[1..3], "12", "only GREASE: legacy_version");
    assert_eq!(&head(&[(0x002b, &[])])[1..3], "12", "no list: legacy_version");
}

#[test]
fn dtls_versions_count_down() {
    let versions = vec![4, 0xfe, 0xfd, 0xfe, 0xfc];
    let spec = Spec { legacy_version: 0xfefd, extensions: vec![(0x002b, versions)], ..sample::chrome() };
    assert_eq!(&ja4_over(&spec, Transport::Dtls).hashed()[..3], "dd3");
    let spec = Spec { legacy_version: 0xfeff, extensions: Vec::new(), ..spec };
    assert_eq!(&ja4_over(&spec, Transport::Dtls).hashed()[..3], "dd1");
}

#[test]
fn sni_counts_by_presence() {
    assert_eq!(head(&[(0, &[])]).as_bytes()[3], b'd');
    assert_eq!(head(&[]).as_bytes()[3], b'i');
}

#[test]
fn counts_stop_at_99_and_leave_grease_out_but_signals_in() {
    let spec = Spec {
        ciphers: (1..=100).chain([0x0a0a, 0xfafa]).collect(),
        extensions: (0x100..0x200).map(|kind| (kind, Vec::new())).collect(),
        ..sample::chrome()
    };
    assert_eq!(&ja4(&spec)[4..8], "9999");
    let spec = Spec { ciphers: vec![0x00ff, 0x5600, 0xeeee, 0x1a1a], ..sample::chrome() };
    assert_eq!(&ja4(&spec)[4..6], "03");
}

#[test]
fn alpn_codes() {
    let table: [(&[u8], &str); 12] = [
        (b"", "00"),
        (b"h", "hh"),
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (&[0xab], "ab"),
        (&[0xab, 0xcd], "ad"),
        (&[0x20, 0x61], "21"),
        (&[0x30, 0xab], "3b"),
        (&[0x30, 0x31, 0xab, 0xcd], "3d"),
        (&[0x61, 0x20, 0x62], "ab"),
        (&[0xc3, 0xa9], "c9"),
        (b"-", "2d"),
    ];
    for (value, code) in table {
        assert_eq!(&head(&[(0x0010, &sample::alpn(&[value, b"h2"]))])[8..], code, "{value:?}");
    }
    assert_eq!(&head(&[(0x0010, &[])])[8..], "00");
    assert_eq!(&head(&[(0x0010, &[0, 0])])[8..], "00");
    assert_eq!(&head(&[])[8..], "00");
}

#[test]
fn empty_lists_are_zeros() {
    let spec = Spec { ciphers: vec![0x2a2a], extensions: vec![(0, Vec::new())], ..sample::chrome() };
    assert_eq!(ja4(&spec), "t12d000100_000000000000_000000000000");
    assert_eq!(ja4_over(&spec, Transport::Tcp).raw(), "t12d000100__");
    let alpn = (0x0010, sample::alpn(&[b"h2"]));
    let spec = Spec { extensions: vec![(0, Vec::new()), alpn], ..spec };
    assert!(ja4(&spec).ends_with("_000000000000"));
}

#[test]
fn order_of_ciphers_and_extensions_does_not_matter_that_of_algorithms_does() {
    let mut spec = sample::chrome();
    spec.ciphers.reverse();
    spec.extensions.reverse();
    assert_eq!(ja4(&spec), ja4(&sample::chrome()));
    spec.algorithms(&[0x0804, 0x0403]);
    let other = ja4(&spec);
    spec.algorithms(&[0x0403, 0x0804]);
    assert_ne!(other, ja4(&spec));
}

#[test]
fn grease_among_the_algorithms_is_left_out() {
    for grease in [0x0a0a, 0xdada] {
        assert_eq!(ja4(&sample::chrome_152(grease)), "t13d1517h2_8daaf6152771_cb7bf5808d99");
    }
    let mut spec = sample::chrome();
    spec.algorithms(&[0x0a0a]);
    assert!(!ja4_over(&spec, Transport::Tcp).raw().ends_with('_'));
}

#[test]
fn delegated_credentials_are_no_signature_algorithms() {
    let spec = Spec { extensions: vec![(0x0022, vec![0, 2, 4, 3])], ..sample::chrome() };
    assert!(ja4_over(&spec, Transport::Tcp).raw().ends_with("_0022"));
}

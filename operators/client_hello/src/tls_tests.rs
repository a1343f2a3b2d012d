//! Tests of the ClientHello parser.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::sample;

fn parsed(stream: &[u8]) -> Option<usize> {
    match client_hello(stream, &mut Vec::new(), 1 << 16) {
        Outcome::Hello(_, end) => Some(end),
        _ => None,
    }
}

#[test]
fn fields_are_read() {
    let stream = sample::chrome().record();
    let mut joined = Vec::new();
    let Outcome::Hello(hello, end) = client_hello(&stream, &mut joined, 1 << 16) else { panic!("no hello") };
    assert_eq!(end, stream.len());
    assert_eq!(hello.server_name(), Some(&b"example.org"[..]));
    assert_eq!(hello.alpn(), Some(&b"h2"[..]));
    assert_eq!(hello.legacy_version, 0x0303);
    assert!(hello.supported_versions().eq([0x8a8a, 0x0304, 0x0303]));
    assert!(!hello.offers_early_data());
    assert!(joined.is_empty(), "a hello in one record must not be copied");
}

#[test]
fn every_prefix_needs_more_and_says_a_reachable_length() {
    for records in [1, 2, 3, 40] {
        let stream = sample::in_records(&sample::chrome().message(), records);
        for len in 0..stream.len() {
            match client_hello(&stream[..len], &mut Vec::new(), 1 << 16) {
                Outcome::NeedMore(needed) => assert!(len < needed && needed <= stream.len(), "{len} {needed}"),
                other => panic!("{len} bytes of {records} records: {other:?}"),
            }
        }
        assert_eq!(parsed(&stream), Some(stream.len()));
    }
}

#[test]
fn other_messages_in_the_record_do_not_matter() {
    let hello = sample::chrome().message();
    let followed = [&hello[..], &[11, 0, 0, 2, 9, 9]].concat();
    let stream = sample::in_records(&followed, 1);
    assert_eq!(parsed(&stream), Some(stream.len()));
    assert_eq!(parsed(&stream[..stream.len() - 3]), Some(stream.len()), "the hello is complete before its record");
    let preceded = [&[11, 0, 0, 2, 9, 9], &hello[..]].concat();
    assert_eq!(client_hello(&sample::in_records(&preceded, 1), &mut Vec::new(), 1 << 16), Outcome::NotTls);
}

#[test]
fn what_is_not_tls_is_known_early() {
    let mut joined = Vec::new();
    for stream in [&b"G"[..], b"\x16\x02", b"\x16\x03\x01\x00\x40\x02"] {
        assert_eq!(client_hello(stream, &mut joined, 1 << 16), Outcome::NotTls);
    }
    assert_eq!(client_hello(b"", &mut joined, 1 << 16), Outcome::NeedMore(6));
}

#[test]
fn broken_hellos_say_why() {
    let verdict = |stream: &[u8], max| match client_hello(stream, &mut Vec::new(), max) {
        Outcome::Broken(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(verdict(&[22, 3, 1, 0, 0, 1], 1 << 16), Reason::RecordLength);
    assert_eq!(verdict(&[22, 3, 1, 0x40, 1, 1], 1 << 16), Reason::RecordLength);
    assert_eq!(verdict(&[22, 3, 1, 0, 4, 1, 0, 9, 0], 1000), Reason::TooLong);
    assert_eq!(verdict(&[22, 3, 1, 0, 4, 1, 0, 0, 0], 1000), Reason::TooShort);
    assert_eq!(verdict(&[22, 3, 1, 0, 4, 1, 0, 0, 9, 23, 3, 3, 0, 9], 1000), Reason::Interrupted);

    let mut body = sample::chrome().body();
    let last = body.len();
    assert_eq!(ClientHello::parse(&body[..last - 1]), Err(Reason::Extensions));
    body[35 + 32 + 1] -= 1; // cipher list length becomes odd
    assert_eq!(ClientHello::parse(&body), Err(Reason::CipherSuites));
}

#[test]
fn a_hello_without_extensions_is_whole() {
    let mut body = vec![3, 1];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0, 5, 1, 0]);
    let hello = ClientHello::parse(&body).expect("a hello");
    assert_eq!((hello.extensions().count(), hello.alpn(), hello.server_name()), (0, None, None));
}

#[test]
fn sequels_of_a_first_hello() {
    assert_eq!(sequel(&[], false), Sequel::NeedMore(6));
    assert_eq!(sequel(&[20, 3, 3, 0, 1, 1], false), Sequel::Skip(6));
    assert_eq!(sequel(&[20, 3, 3], false), Sequel::NeedMore(5));
    assert_eq!(sequel(&[22, 3, 3, 0, 4], false), Sequel::NeedMore(6));
    assert_eq!(sequel(&[22, 3, 3, 0, 4, 1], false), Sequel::Hello);
    assert_eq!(sequel(&[22, 3, 3, 0, 4, 16], false), Sequel::Never);
    assert_eq!(sequel(&[23, 3, 3, 1, 0], true), Sequel::Skip(261));
    assert_eq!(sequel(&[23, 3, 3, 1, 0], false), Sequel::Never);
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), early in any::<bool>()) {
        for front in [&[][..], &[22, 3, 1], &[22, 3, 1, 0, 1, 1, 22, 3, 1, 0], &[22, 3, 1, 0, 90, 1, 0, 0]] {
            let stream = [front, &bytes].concat();
            if let Outcome::NeedMore(needed) = client_hello(&stream, &mut Vec::new(), 200) {
                prop_assert!(needed > stream.len(), "no progress: {} of {}", needed, stream.len());
            }
            if let Sequel::NeedMore(needed) = sequel(&stream, early) {
                prop_assert!(needed > stream.len(), "no progress: {} of {}", needed, stream.len());
            }
        }
        if let Ok(hello) = ClientHello::parse(&bytes) {
            let _ = (hello.server_name(), hello.alpn(), hello.point_formats());
        }
    }

    #[test]
    fn no_damage_panics(at in 0usize..500, value in any::<u8>(), records in 1usize..6) {
        let mut stream = sample::in_records(&sample::chrome().message(), records);
        let at = at % stream.len();
        stream[at] = value;
        if let Outcome::Hello(hello, _) = client_hello(&stream, &mut Vec::new(), 1 << 16) {
            let _ = (hello.server_name(), hello.alpn(), hello.point_formats());
            let _ = hello.ciphers().chain(hello.signature_algorithms()).chain(hello.supported_groups()).count();
        }
    }
}

/// Each record is walked once, however often the stream is looked at.
#[test]
fn a_walk_goes_on_where_it_ended() {
    let stream = sample::in_records(&sample::chrome().message(), 10_000);
    let (mut walk, mut looked) = (Walk::default(), Vec::new());
    let mut need = 1;
    while need < stream.len() {
        let mut joined = Vec::new();
        match resume(&stream[..need], &mut walk, &mut joined, 1 << 16) {
            Outcome::NeedMore(more) => need = more,
            outcome => panic!("{outcome:?}"),
        }
        looked.push(walk.at);
    }
    assert!(looked.len() > 20 && looked.is_sorted() && looked.last() > Some(&(stream.len() - 50)), "{looked:?}");
    let mut joined = Vec::new();
    let mut again = Vec::new();
    assert_eq!(resume(&stream, &mut walk, &mut joined, 1 << 16), client_hello(&stream, &mut again, 1 << 16));
}

#[test]
fn protocols_without_end_are_cut_off() {
    let mut spec = sample::chrome();
    spec.extensions.retain(|(kind, _)| *kind != extension::ALPN);
    spec.extensions.push((extension::ALPN, sample::alpn(&[&b"h2"[..]; 5000])));
    let body = spec.body();
    assert_eq!(ClientHello::parse(&body).expect("a hello").alpns().count(), 100);
}

#[test]
fn extensions_that_are_looked_into_have_a_place_each() {
    for (at, kind) in extension::LOOKED_INTO.into_iter().enumerate() {
        assert_eq!(extension::place(kind), Some(at));
    }
    assert_eq!(extension::place(0x0a0a), None);
}

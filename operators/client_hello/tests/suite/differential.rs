//! This crate's parser beside tls-parser: generated hellos, and the fuzzer's seeds with changed bytes.

use std::path::Path;

use client_hello::tls::ClientHello;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::second::{Fields, Refusal, Verdict, compare};

/// A hello to be.
#[derive(Debug, Clone)]
struct Spec {
    version: u16,
    session_id: Vec<u8>,
    cookie: Option<Vec<u8>>,
    ciphers: Vec<u16>,
    /// Half of one more.
    half_cipher: bool,
    compression: Vec<u8>,
    /// `None` leaves the list out, with its length.
    extensions: Option<Vec<(u16, Vec<u8>)>>,
    /// Bytes behind the list.
    behind: Vec<u8>,
}

impl Spec {
    fn body(&self) -> Vec<u8> {
        let mut body = [&self.version.to_be_bytes()[..], &[7; 32]].concat();
        body.extend(vector(1, &self.session_id));
        body.extend(self.cookie.iter().flat_map(|cookie| vector(1, cookie)));
        let half: &[u8] = if self.half_cipher { &[0x13] } else { &[] };
        body.extend(vector(2, &[&numbers(&self.ciphers), half].concat()));
        body.extend(vector(1, &self.compression));
        let Some(extensions) = &self.extensions else { return body };
        let extension = |(kind, content): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &vector(2, content)].concat();
        body.extend(vector(2, &extensions.iter().flat_map(extension).collect::<Vec<u8>>()));
        [body, self.behind.clone()].concat()
    }

    fn is_dtls(&self) -> bool {
        self.cookie.is_some()
    }
}

/// The bytes with their number before them, in so many bytes.
fn vector(width: usize, bytes: &[u8]) -> Vec<u8> {
    [&bytes.len().to_be_bytes()[8 - width..], bytes].concat()
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A value of a registry: a common one, GREASE, what only looks like it, or any.
fn value() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => prop::sample::select(vec![0x1301, 0xc02b, 0x0403, 0x0804, 29, 23, 0x11ec, 0x0304, 0x0303, 0x00ff, 0x5600]),
        2 => (0..16u16).prop_map(|n| 0x0a0a + n * 0x1010),
        1 => prop::sample::select(vec![0x1a2a, 0x0a1a, 0xeeee, 0, 0xffff]),
        1 => any::<u16>(),
    ]
}

fn bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

/// The types that either parser looks into, and others.
const KINDS: [u16; 33] = [
    0, 1, 5, 10, 11, 13, 15, 16, 18, 21, 22, 23, 28, 35, 41, 42, 43, 44, 45, 48, 49, 51, 13172, 0xff01, 0xffce, 0xfe0d,
    57, 27, 0x4469, 0x0a0a, 0xfafa, 0x1a2a, 40,
];

/// The content of an extension of this type, as its specification says.
fn content(kind: u16) -> BoxedStrategy<Vec<u8>> {
    let list = |width: usize, len: std::ops::Range<usize>| {
        prop::collection::vec(value(), len).prop_map(move |values| vector(width, &numbers(&values)))
    };
    match kind {
        0 => prop::collection::vec((prop::sample::select(vec![0u8, 0, 1]), bytes(1..20)), 1..3)
            .prop_map(|names| names.iter().flat_map(|(kind, name)| [vec![*kind], vector(2, name)].concat()).collect())
            .prop_map(|names: Vec<u8>| vector(2, &names))
            .boxed(),
        1 | 15 => bytes(1).boxed(),
        10 | 13 => list(2, 1..20).boxed(),
        11 | 45 => bytes(1..4).prop_map(|modes| vector(1, &modes)).boxed(),
        16 => prop::collection::vec(bytes(1..9), 1..120)
            .prop_map(|names| vector(2, &names.iter().flat_map(|name| vector(1, name)).collect::<Vec<u8>>()))
            .boxed(),
        22 | 23 | 42 | 49 | 13172 => Just(Vec::new()).boxed(),
        28 => bytes(2).boxed(),
        43 => list(1, 1..8).boxed(),
        48 => bytes(0..9).prop_map(|filters| vector(2, &filters)).boxed(),
        51 => prop::collection::vec((value(), bytes(1..40)), 0..4)
            .prop_map(|shares| {
                shares.iter().flat_map(|(group, key)| [numbers(&[*group]), vector(2, key)].concat()).collect()
            })
            .prop_map(|shares: Vec<u8>| vector(2, &shares))
            .boxed(),
        0xff01 => bytes(0..9).prop_map(|info| vector(1, &info)).boxed(),
        0xffce => (bytes(4), bytes(0..9), bytes(0..9), bytes(0..9))
            .prop_map(|(head, a, b, c)| [head, vector(2, &a), vector(2, &b), vector(2, &c)].concat())
            .boxed(),
        _ => bytes(0..30).boxed(),
    }
}

fn kind() -> impl Strategy<Value = u16> {
    prop_oneof![9 => prop::sample::select(&KINDS[..]), 1 => value()]
}

fn extensions() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    prop::collection::vec(kind().prop_flat_map(|kind| (Just(kind), content(kind))), 0..20)
}

/// Hellos as RFC 8446 and RFC 9147 allow them, with empty lists beside.
fn hello() -> impl Strategy<Value = Spec> {
    let version = prop::sample::select(vec![0x0303, 0x0301, 0x0300, 0xfefd, 0xfeff, 0x0000]);
    let cookie = prop::option::weighted(0.3, bytes(0..40));
    let list = prop::option::weighted(0.95, extensions());
    let lists = (prop::collection::vec(value(), 0..60), bytes(0..4), list);
    (version, bytes(0..33), cookie, lists, prop_oneof![9 => Just(Vec::new()), 1 => bytes(1..9)]).prop_map(
        |(version, session_id, cookie, (ciphers, compression, extensions), behind)| {
            let behind = if extensions.is_some() { behind } else { Vec::new() };
            Spec { version, session_id, cookie, ciphers, half_cipher: false, compression, extensions, behind }
        },
    )
}

/// What is wrong with a content.
#[derive(Debug, Clone)]
enum Flaw {
    Cut(usize),
    Longer(Vec<u8>),
    /// This byte is changed by so much: the first ones are lengths.
    Changed(usize, u8),
    Other(Vec<u8>),
}

fn flaw() -> impl Strategy<Value = Flaw> {
    prop_oneof![
        (0..8usize).prop_map(Flaw::Cut),
        bytes(1..4).prop_map(Flaw::Longer),
        (0..6usize, prop_oneof![Just(1u8), Just(255), any::<u8>()]).prop_map(|(at, by)| Flaw::Changed(at, by)),
        bytes(0..9).prop_map(Flaw::Other),
    ]
}

impl Flaw {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Cut(len) => content.truncate(*len),
            Self::Longer(more) => content.extend(more),
            Self::Changed(at, by) => {
                if let Some(byte) = content.get_mut(*at) {
                    *byte = byte.wrapping_add(*by);
                }
            }
            Self::Other(other) => content.clone_from(other),
        }
    }
}

/// The bodies of messages that the fuzzer begins with.
fn seeds() -> Vec<(bool, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/differential");
    let mut seeds = Vec::new();
    for dtls in [false, true] {
        let file =
            std::fs::read(folder.join(if dtls { "dtls.pcap" } else { "tls.pcap" })).expect("the seeds are there");
        let mut at = 24;
        while let Some(len) = file.get(at + 8..).and_then(|rest| rest.first_chunk()) {
            let len = u32::from_le_bytes(*len) as usize;
            seeds.push((dtls, file[at + 16..at + 16 + len].to_vec()));
            at += 16 + len;
        }
    }
    assert!(seeds.len() >= 6);
    seeds
}

#[test]
fn the_seeds_are_read_alike() {
    for (dtls, body) in seeds() {
        assert_eq!(compare(&body, dtls), Ok(Verdict::Equal));
    }
}

/// Each row of the table in `second.rs`.
#[test]
fn what_tls_parser_refuses() {
    let spec = |session_id: usize, extensions: &[(u16, &[u8])]| Spec {
        version: 0x0303,
        session_id: vec![1; session_id],
        cookie: None,
        ciphers: vec![0x1301],
        half_cipher: false,
        compression: vec![0],
        extensions: Some(extensions.iter().map(|(kind, content)| (*kind, content.to_vec())).collect()),
        behind: Vec::new(),
    };
    let verdict = |spec: &Spec| compare(&spec.body(), false);
    assert_eq!(verdict(&spec(33, &[])), Ok(Verdict::OnlyOurs(Refusal::Head)));
    let malformed: [(u16, &[u8]); 8] = [
        (16, &[]),
        (0, &[0]),
        (10, &[0, 3, 0, 29, 0]),
        (13, &[0, 4, 4, 3]),
        (43, &[4, 3, 4, 3]),
        (11, &[2, 0]),
        (23, &[0]),
        (28, &[1]),
    ];
    for (kind, content) in malformed {
        let spec = spec(32, &[(kind, content), (0x1234, &[])]);
        assert_eq!(verdict(&spec), Ok(Verdict::OnlyOurs(Refusal::Content(kind))), "{kind}");
        let body = spec.body();
        let found: Vec<u16> = ClientHello::parse(&body).expect("a hello").extensions().map(|(kind, _)| kind).collect();
        assert_eq!(found, [kind, 0x1234]);
    }
    // Read otherwise: a list that does not fill its extension.
    for content in [&[2, 3, 4, 3, 3][..], &[3, 4]] {
        assert_eq!(verdict(&spec(0, &[(43, content)])), Ok(Verdict::Equal));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn what_is_allowed_is_read_alike(spec in hello()) {
        let body = spec.body();
        prop_assert_eq!(compare(&body, spec.is_dtls()), Ok(Verdict::Equal));
        let parsed = if spec.is_dtls() { ClientHello::parse_dtls(&body) } else { ClientHello::parse(&body) };
        let found = Fields::of(&parsed.expect("a hello"));
        let kinds: Vec<u16> = spec.extensions.iter().flatten().map(|(kind, _)| *kind).collect();
        prop_assert_eq!((found.version, found.ciphers, found.extensions), (spec.version, spec.ciphers, kinds));
    }

    #[test]
    fn flaws_are_read_alike_or_refused_with_reason(
        spec in hello(),
        session_id in 0..40usize,
        half_cipher in prop::bool::weighted(0.1),
        flaws in prop::collection::vec((0..20usize, flaw()), 1..4),
    ) {
        let mut spec = spec;
        spec.session_id.resize(session_id, 1);
        spec.half_cipher = half_cipher;
        let extensions = spec.extensions.get_or_insert_default();
        for (at, flaw) in &flaws {
            let count = extensions.len().max(1);
            if let Some((_, content)) = extensions.get_mut(at % count) {
                flaw.apply(content);
            }
        }
        let verdict = compare(&spec.body(), spec.is_dtls());
        prop_assert!(verdict.is_ok(), "{:?}", verdict);
    }

    #[test]
    fn damage_is_read_alike_or_refused_with_reason(
        seed in prop::sample::select(seeds()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let (dtls, mut body) = seed;
        for (at, value) in &damage {
            let at = at.index(body.len());
            body[at] = *value;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let verdict = compare(&body, dtls);
        prop_assert!(verdict.is_ok(), "{:?}", verdict);
    }
}

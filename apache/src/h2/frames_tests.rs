use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let bytes = parameters.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &bytes.collect::<Vec<_>>())
}

/// :method, :authority, :scheme, :path and `user-agent: x`.
const BLOCK: [u8; 9] = [0x82, 0x41, 1, b'x', 0x87, 0x84, 0x7a, 1, b'x'];

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, &frames.concat()].concat()
}

/// What is known after all bytes, in pieces of so many.
fn watch(bytes: &[u8], piece: usize) -> Progress {
    let mut watch = Watch::default();
    let known = bytes.chunks(piece.max(1)).map(|piece| watch.feed(piece));
    known.into_iter().find(|progress| *progress != Progress::Unfinished).unwrap_or(Progress::Unfinished)
}

fn complete(frames: &[Vec<u8>]) -> Signature {
    match watch(&connection(frames), usize::MAX) {
        Progress::Complete(signature) => signature,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_browser_is_read_whatever_the_pieces() {
    let bytes = connection(&[
        settings(&[(1, 65_536), (2, 0), (4, 6_291_456), (6, 262_144)]),
        frame(WINDOW_UPDATE, 0, 0, &15_663_105_u32.to_be_bytes()),
        frame(HEADERS, END_HEADERS | HAS_PRIORITY | 1, 1, &[&[0x80, 0, 0, 0, 255], &BLOCK[..]].concat()),
    ]);
    let whole = watch(&bytes, bytes.len());
    let Progress::Complete(signature) = &whole else { panic!("{whole:?}") };
    assert_eq!(signature.text(), "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p");
    let priority = Priority { stream: 1, exclusive: true, depends_on: 0, weight: 256 };
    assert_eq!(signature.headers_priority, Some(priority));
    for piece in 1..bytes.len() {
        assert_eq!(watch(&bytes, piece), whole, "{piece}");
    }
}

#[test]
fn priorities_padding_and_continuations() {
    let padded = [&[3], &BLOCK[..2], &[0, 0, 0]].concat();
    let signature = complete(&[
        settings(&[]),
        frame(SETTINGS, ACK, 0, &[]),
        settings(&[(1, 1)]),
        frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 200]),
        frame(PRIORITY, 0, 5, &[0x80, 0, 0, 3, 0]),
        frame(WINDOW_UPDATE, 0, 3, &1_u32.to_be_bytes()),
        frame(0xba, 0xff, 9, b"unknown"),
        frame(HEADERS, PADDED, 7, &padded),
        frame(CONTINUATION, 0, 7, &[]),
        frame(CONTINUATION, END_HEADERS, 7, &BLOCK[2..]),
    ]);
    assert_eq!(signature.text(), "|00|3:0:0:201,5:1:3:1|m,a,s,p");
    assert_eq!((signature.settings, signature.headers_priority), (Some(vec![]), None));
}

#[test]
fn what_is_no_http2_is_told_at_once() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b"\0", b"PRJ"] {
        assert_eq!(watch(bytes, 3), Progress::Other);
    }
    assert_eq!(watch(b"PRI * HT", 3), Progress::Unfinished);
}

#[test]
fn a_broken_or_endless_beginning_is_incomplete() {
    let first = settings(&[(3, 100)]);
    for frames in [
        vec![first.clone(), frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 0x82])],
        vec![first.clone(), frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, &[0, 0])],
        vec![first.clone(), frame(HEADERS, END_HEADERS, 1, &[0x80])],
        vec![first.clone(), frame(HEADERS, 0, 1, &BLOCK), frame(PRIORITY, 0, 1, &[0; 5])],
        vec![first.clone(), frame(HEADERS, 0, 1, &BLOCK), frame(CONTINUATION, END_HEADERS, 3, &[])],
        vec![first.clone(), vec![frame(6, 0, 0, &[0; 8]); MAX_FRAMES].concat()],
        vec![first.clone(), frame(0, 0, 1, &vec![0; MAX_BYTES])],
        vec![first.clone(), vec![frame(CONTINUATION, 0, 1, &[]); 8000].concat()],
    ] {
        let progress = watch(&connection(&frames), 1000);
        let Progress::Incomplete(signature) = progress else { panic!("{progress:?} of {frames:?}") };
        assert_eq!((signature.settings, signature.pseudo_order), (Some(vec![(3, 100)]), None));
    }
}

#[test]
fn memory_is_bounded() {
    let many: Vec<(u16, u32)> = (0..2000).map(|n| (n, 1)).collect();
    let priorities = vec![frame(PRIORITY, 0, 3, &[0; 5]); 100].concat();
    let huge = [&BLOCK[..], &vec![0; 60_000]].concat();
    let signature = complete(&[settings(&many), priorities, frame(HEADERS, 0, 1, &huge)]);
    assert_eq!((signature.settings.map(|kept| kept.len()), signature.priorities.len()), (Some(32), 16));
    assert_eq!(signature.pseudo_order.as_deref(), Some("masp"));
}

#[derive(Clone, Debug)]
struct Any(Vec<u8>);

fn any_frames() -> impl Strategy<Value = Any> {
    let one = (0_u8..12, any::<u8>(), 0_u32..4, proptest::collection::vec(any::<u8>(), 0..40));
    proptest::collection::vec(one, 0..20).prop_map(|frames| {
        Any(frames.iter().flat_map(|(kind, flags, stream, body)| frame(*kind, *flags, *stream, body)).collect())
    })
}

proptest! {
    #[test]
    fn pieces_do_not_matter(frames in any_frames(), cut in any::<prop::sample::Index>(), piece in 1_usize..50) {
        let mut bytes = [PREFACE, &frames.0].concat();
        bytes.truncate(bytes.len() - cut.index(20).min(frames.0.len()));
        prop_assert_eq!(watch(&bytes, piece), watch(&bytes, usize::MAX));
    }

    #[test]
    fn any_bytes_have_an_answer(bytes: Vec<u8>, piece in 1_usize..50) {
        let _ = watch(&[PREFACE, &bytes].concat(), piece);
        let _ = watch(&bytes, piece);
    }
}

//! Fragments of DTLS hellos that a server drops, around real ones: the fingerprint is the server's, or the hello is flagged.

use proptest::prelude::*;

use super::attacks_udp::{back, ttl, verify_request};
use super::*;
use crate::dtls::sample::records;

/// A forged datagram: where it comes, of which message, and of its body which bytes in fragments of which length.
#[derive(Debug, Clone)]
struct Forged {
    place: usize,
    message: u16,
    body: Vec<u8>,
    size: usize,
    parts: std::ops::Range<usize>,
}

/// The body of somebody else's hello.
fn other(cookie: &[u8]) -> Vec<u8> {
    let mut spec = sample::chrome();
    spec.ciphers.truncate(9);
    let mut body = spec.dtls_body(cookie);
    body[2..34].fill(0xee);
    body
}

fn forged() -> impl Strategy<Value = Forged> {
    let noise = prop::collection::vec(any::<u8>(), 1..600);
    // The length of the client's own message, so that it is put together with that.
    let len = sample::chrome().dtls_body(b"").len();
    let body = prop_oneof![
        2 => Just(other(b"")),
        1 => Just(other(b"cookie")),
        2 => prop::collection::vec(any::<u8>(), len),
        1 => noise,
    ];
    (0usize..8, 0u16..2, body, 40usize..600, 0usize..4, 1usize..8).prop_map(
        |(place, message, body, size, first, count)| Forged { place, message, body, size, parts: first..first + count },
    )
}

impl Forged {
    /// It does not reach the server.
    fn packet(&self) -> Option<Vec<u8>> {
        let records = records(&self.body, self.message, self.size);
        let parts: Vec<Vec<u8>> = records.get(self.parts.start..self.parts.end.min(records.len()))?.to_vec();
        Some(ttl(sample::udp_packet(&parts.concat())))
    }
}

/// The client's datagrams, each with a fragment of its message, and the server's answer.
fn flight(message: u16, cookie: &[u8], size: usize, reversed: bool, answers: bool) -> Vec<Vec<u8>> {
    let fragments = records(&sample::chrome().dtls_body(cookie), message, size);
    let mut packets: Vec<Vec<u8>> = fragments.iter().map(|record| sample::udp_packet(record)).collect();
    if reversed {
        packets.reverse();
    }
    if answers {
        packets.push(if message == 0 {
            verify_request()
        } else {
            back(&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2])
        });
    }
    packets
}

proptest! {
    #![proptest_config(config(1000, 18))]

    #[test]
    fn what_the_server_drops_is_not_believed_or_flagged(
        size in 60usize..700,
        reversed in any::<bool>(),
        answers in any::<bool>(),
        has_cookie in any::<bool>(),
        forged in prop::collection::vec(forged(), 1..5),
    ) {
        let mut packets = flight(0, b"", size, reversed, answers);
        if has_cookie {
            packets.extend(flight(1, b"cookie", size, reversed, answers));
        }
        for forged in &forged {
            if let Some(packet) = forged.packet() {
                packets.insert(forged.place.min(packets.len()), packet);
            }
        }
        let mut capture = Capture::new(Limits::default());
        packets.iter().for_each(|packet| capture.frame(101, packet));
        capture.finish();
        prop_assert!(capture.hellos.iter().any(|hello| hello.index == 0), "hidden: {:?}", capture.counters());
        for hello in &capture.hellos {
            let is_own = hello.ja4.get(3..) == JA4.get(3..);
            prop_assert!(is_own || hello.ambiguous, "forged: {} {}", hello.index, hello.ja4);
        }
        prop_assert_eq!(capture.extractor.buffered_bytes(), 0);
    }
}

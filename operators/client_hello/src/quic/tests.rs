//! Initial packets in every form in which a hello may come.

use super::attempt::RANDOM;
use super::keys::{Keys, Version};
use super::sample::{Header, V1, V2, V2_DRAFT_01, crypto, initial};
use super::*;
use crate::sample::chrome;

const ID: &[u8] = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08";

/// Index and number of ciphers of the hellos in these datagrams, to which the server does not answer.
fn run(datagrams: &[Vec<u8>]) -> Vec<(u8, usize)> {
    hellos(datagrams, false)
}

/// The same where the server answers each.
fn answered(datagrams: &[Vec<u8>]) -> Vec<(u8, usize)> {
    hellos(datagrams, true)
}

fn hellos(datagrams: &[Vec<u8>], answers: bool) -> Vec<(u8, usize)> {
    let (mut connection, mut found, mut scratch): (Option<Connection>, _, _) = (None, Vec::new(), Vec::new());
    let (limits, mut counters) = (Limits::default(), Counters::default());
    for datagram in datagrams {
        let first = connection.is_none();
        connection = connection.or_else(|| Connection::of(datagram, &mut scratch));
        if let Some(connection) = &mut connection {
            let from = From { datagram, opened: first, rank: Rank::Trusted, arrival: crate::sample::arrival() };
            connection.datagram(&from, &limits, &mut counters, &mut scratch, &mut |hello, _, message| {
                found.push((message.index, hello.ciphers().count()));
            });
            if answers {
                connection.answered();
            }
        }
    }
    found
}

/// RFC 9001 appendix A.1, RFC 9369 appendix A.1 and draft-ietf-quic-v2-04 appendix A.1.
#[test]
fn published_keys() {
    let v1 = Keys::of_client(Version::One, ID).parts();
    assert_eq!(v1, *b"\xfa\x04\x4b\x2f\x42\xa3\xfd\x3b\x46\xfb\x25\x5c");
    let v2 = Keys::of_client(Version::Two, ID).parts();
    assert_eq!(v2, *b"\x91\xf7\x3e\x23\x51\xd8\xfa\x91\x66\x0e\x90\x9f");
    let draft = Keys::of_client(Version::TwoDraft01, ID).parts();
    assert_eq!(draft, *b"\xea\x5e\x3c\x95\xf9\x33\xdb\x14\xb7\x02\x0a\xd8");
}

#[test]
fn frames_in_any_order_over_several_packets_and_datagrams() {
    let message = chrome().message();
    let part = |from: usize, to: usize| crypto(from, &message[from..to.min(message.len())]);
    let len = message.len();
    let drafts = [0xff00_001b, 0xff00_001d, 0xff00_0021, 0xff00_0022, 0xff01_0001, 0xff02_0000, V2_DRAFT_01];
    for version in [V1, V2].into_iter().chain(drafts) {
        let packet = |number, frames: &[u8]| initial(number, version, ID, ID, frames);
        assert_eq!(run(&[packet(0, &part(0, len))]), [(0, 16)]);
        let mixed = [part(300, len), vec![1, 0, 0], part(0, 100), part(50, 200), part(150, 301)].concat();
        assert_eq!(run(&[packet(0, &mixed)]), [(0, 16)]);
        assert_eq!(run(&[packet(1, &part(200, len)), packet(0, &part(0, 200))]), [(0, 16)]);
        assert_eq!(run(&[[packet(1, &part(200, len)), packet(0, &part(0, 200))].concat()]), [(0, 16)]);
        let once: Vec<u8> = (0..len).rev().flat_map(|at| part(at, at + 1)).collect();
        assert_eq!(run(&[packet(0, &once)]), [(0, 16)]);
    }
}

#[test]
fn the_server_chooses_another_connection_id_and_the_keys_stay() {
    let message = chrome().message();
    let first = initial(0, V1, ID, ID, &crypto(0, &message[..200]));
    let ack = [2, 0x40, 7, 0, 0, 0].to_vec();
    let second = initial(1, V1, ID, b"server", &[ack, crypto(200, &message[200..])].concat());
    assert_eq!(run(&[first, second]), [(0, 16)]);
}

#[test]
fn a_retry_begins_anew_and_counts_once() {
    let message = chrome().message();
    let whole = |id| initial(0, V1, id, id, &crypto(0, &message));
    assert_eq!(run(&[whole(ID), whole(b"retried!")]), [(0, 16)]);
    let half = initial(0, V1, ID, ID, &crypto(0, &message[..200]));
    assert_eq!(run(&[half, whole(b"retried!")]), [(0, 16)]);
    // With its token, and what a HelloRetryRequest brings after it.
    let retried = Header { key_id: b"retried!", dcid: b"retried!", token: b"of the Retry", ..Header::default() };
    let second = Header { number: 2, dcid: b"server", ..retried }.around(&crypto(message.len(), &message));
    let all = [whole(ID), retried.around(&crypto(0, &message)), second];
    assert_eq!(run(&all), [(0, 16), (1, 16)]);
}

/// A message with another random, and one cipher less.
fn other_message() -> Vec<u8> {
    let mut spec = chrome();
    spec.ciphers.pop();
    let mut message = spec.message();
    message[RANDOM] ^= 1;
    message
}

#[test]
fn another_random_after_a_retry_or_another_version_is_the_second_hello() {
    let first = initial(0, V1, ID, ID, &crypto(0, &chrome().message()));
    let other = other_message();
    let retried = Header { key_id: b"retried!", dcid: b"retried!", token: b"of the Retry", ..Header::default() };
    let after_retry = retried.around(&crypto(0, &other));
    assert_eq!(answered(&[first.clone(), after_retry.clone(), after_retry]), [(0, 16), (1, 15)]);
    let negotiated = initial(0, V2, b"a choice", b"a choice", &crypto(0, &other));
    assert_eq!(answered(&[first.clone(), negotiated]), [(0, 16), (1, 15)]);
    // The first hello was not complete: this is the first.
    let half = initial(0, V1, ID, ID, &crypto(0, &chrome().message()[..200]));
    assert_eq!(answered(&[half, retried.around(&crypto(0, &other))]), [(0, 15)]);
}

#[test]
fn another_random_without_a_retry_is_another_connection() {
    let first = initial(0, V1, ID, ID, &crypto(0, &chrome().message()));
    let other = crypto(0, &other_message());
    let new = Header { key_id: b"anew....", dcid: b"anew....", ..Header::default() };
    assert_eq!(run(&[first.clone(), new.around(&other)]), [(0, 16), (0, 15)]);
    // With a token that an earlier connection got.
    let new = Header { scid: b"4321", token: b"of NEW_TOKEN", ..new };
    assert_eq!(run(&[first, new.around(&other)]), [(0, 16), (0, 15)]);
}

/// RFC 9287.
#[test]
fn the_fixed_bit_may_be_0() {
    let message = chrome().message();
    let header = Header { key_id: ID, dcid: ID, fixed_bit: false, ..Header::default() };
    for version in [V1, V2] {
        let packet = |number, part: &[u8], at| Header { number, version, ..header }.around(&crypto(at, part));
        let halves = [packet(0, &message[..200], 0), packet(1, &message[200..], 200)];
        assert!(halves.iter().all(|half| is_initial(half)));
        assert_eq!(run(&halves), [(0, 16)]);
    }
    // What is too short for a client's datagram is some other protocol.
    let short = [&[0x80, 0, 0, 0, 1, 8][..], ID, &[0, 0, 21], &[0; 21]].concat();
    assert!(!is_initial(&short));
    let with_fixed_bit = [&[0xc0], &short[1..]].concat();
    assert!(is_initial(&with_fixed_bit));
}

/// RFC 9000 section 15: 0x?a?a?a?a.
#[test]
fn reserved_versions_are_not_taken() {
    let packet = initial(0, V1, ID, ID, &crypto(0, &chrome().message()));
    for version in [0x0a0a_0a0a_u32, 0x1a2a_3a4a, 0xfafa_fafa, 0, 2, 0xff00_0016, 0xff00_0023, 0xff01_0000] {
        let mut packet = packet.clone();
        packet[1..5].copy_from_slice(&version.to_be_bytes());
        assert!(!is_initial(&packet), "{version:08x}");
    }
}

#[test]
fn a_second_hello_follows_in_the_same_stream() {
    let message = chrome().message();
    let again = crypto(message.len(), &message);
    assert_eq!(
        run(&[initial(0, V1, ID, ID, &crypto(0, &message)), initial(1, V1, ID, b"s", &again)]),
        [(0, 16), (1, 16)]
    );
}

#[test]
fn what_is_not_an_initial_packet_of_a_client_is_passed_over() {
    let message = chrome().message();
    let packet = initial(0, V1, ID, ID, &crypto(0, &message));
    let zero_rtt = [&[0xd0, 0, 0, 0, 1, 2, 1, 2, 0, 3][..], b"abc"].concat();
    assert_eq!(run(&[[zero_rtt, packet.clone()].concat()]), [(0, 16)]);
    let mut damaged = packet.clone();
    damaged[900] ^= 1;
    assert!(run(&[damaged]).is_empty());
    for len in 0..packet.len() {
        assert!(run(&[packet[..len].to_vec()]).is_empty(), "{len}");
    }
    assert!(!is_initial(&[0x40; 1200]) && !is_initial(&[0xc0; 1200]) && is_initial(&packet));
}

/// Each takes the derivation of keys to try; anyone can send them.
#[test]
fn one_packet_of_a_datagram_is_tried_with_keys_of_its_own() {
    let whole = |id| initial(0, V1, id, id, &crypto(0, &chrome().message()));
    let other = initial(0, V1, ID, b"damaged!", &[1]);
    assert_eq!(run(&[[other.clone(), whole(ID)].concat()]), []);
    let half = initial(0, V1, ID, ID, &crypto(0, &chrome().message()[..200]));
    let foreign = initial(0, V1, b"foreign!", b"damaged!", &[1]);
    assert_eq!(run(&[half.clone(), [foreign.clone(), whole(b"retried!")].concat()]), []);
    assert_eq!(run(&[half, [whole(b"retried!"), foreign].concat()]), [(0, 16)]);
}

#[test]
fn a_connection_is_small() {
    assert!(size_of::<Connection>() <= 224, "{}", size_of::<Connection>());
}

//! Initial packets in every form in which a hello may come.

use super::keys::{Keys, Version};
use super::sample::{V1, V2, crypto, initial};
use super::*;
use crate::sample::chrome;

const ID: &[u8] = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08";

/// Index and number of ciphers of the hellos in these datagrams.
fn run(datagrams: &[Vec<u8>]) -> Vec<(u8, usize)> {
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
        }
    }
    found
}

/// RFC 9001 appendix A.1 and RFC 9369 appendix A.1.
#[test]
fn published_keys() {
    let v1 = Keys::of_client(Version::One, ID).parts();
    assert_eq!(v1, *b"\xfa\x04\x4b\x2f\x42\xa3\xfd\x3b\x46\xfb\x25\x5c");
    let v2 = Keys::of_client(Version::Two, ID).parts();
    assert_eq!(v2, *b"\x91\xf7\x3e\x23\x51\xd8\xfa\x91\x66\x0e\x90\x9f");
}

#[test]
fn frames_in_any_order_over_several_packets_and_datagrams() {
    let message = chrome().message();
    let part = |from: usize, to: usize| crypto(from, &message[from..to.min(message.len())]);
    let len = message.len();
    for version in [V1, V2, 0xff00_001d, 0xff00_001b] {
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

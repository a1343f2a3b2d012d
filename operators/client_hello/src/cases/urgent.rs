//! Urgent bytes: a server takes them out of the stream or leaves them there. Either way the hello is found, flagged.

use proptest::prelude::*;

use super::forged::{connection, run};
use super::wire::{ACK, CERTAIN, DATA, FAULTS, Fault, ISN, Wire};
use super::*;

const URG: u8 = 0x20;

/// The client's hello with a byte more at each of these places.
fn with_bytes_at(record: &[u8], places: &[usize]) -> Vec<u8> {
    let mut stream = record.to_vec();
    places.iter().for_each(|place| stream.insert((*place).min(stream.len()), 0x16));
    stream
}

/// A segment says that the byte at `place` of the stream is urgent.
fn name(wire: &mut Wire, place: usize) {
    let ahead = (ISN + 1 + place as u32).wrapping_sub(wire.seq);
    (wire.flags, wire.urgent) = (wire.flags | URG, ahead as u16 + 1);
}

/// One hello, the client's own, flagged.
#[track_caller]
fn must_be_flagged(packets: &[Wire], what: &str) {
    for sees_server in [true, false] {
        let mut capture = run(packets, sees_server, Limits::default());
        assert_eq!(capture.only_ja4(), JA4, "{what}, {sees_server}");
        assert!(capture.hellos[0].ambiguous, "{what}, {sees_server}");
        assert_eq!(capture.extractor.buffered_bytes(), 0);
    }
}

#[test]
fn a_byte_that_the_server_takes_out() {
    let record = sample::chrome().record();
    for place in [0, 1, 5, 9, 44, 200, record.len() - 1] {
        let mut packets = connection(&with_bytes_at(&record, &[place]), &[]);
        name(&mut packets[3], place);
        must_be_flagged(&packets, &format!("at {place}"));
        must_be_flagged(&packets[3..], &format!("at {place}, without a SYN"));
        // In two segments, the second of which has the byte.
        let mut packets = connection(&with_bytes_at(&record, &[place]), &[place.max(1)]);
        name(&mut packets[3], place);
        must_be_flagged(&packets, &format!("at {place}, two segments"));
    }
}

#[test]
fn a_byte_that_the_server_leaves() {
    let record = sample::chrome().record();
    for place in [0, 9, 200, record.len() - 1] {
        let mut packets = connection(&record, &[100]);
        name(&mut packets[3], place);
        must_be_flagged(&packets, &format!("at {place}"));
    }
    // Behind the hello it changes nothing.
    let mut packets = connection(&record, &[100]);
    name(&mut packets[3], record.len());
    let mut capture = run(&packets, true, Limits::default());
    assert_eq!(capture.only_ja4(), JA4);
    assert!(!capture.hellos[0].ambiguous);
}

#[test]
fn a_byte_that_is_named_without_data() {
    let record = sample::chrome().record();
    for place in [0, 5, 200] {
        let mut packets = connection(&with_bytes_at(&record, &[place]), &[100]);
        name(&mut packets[2], place);
        must_be_flagged(&packets, &format!("at {place}"));
    }
    // What was sent before it has not reached the server.
    let stream = with_bytes_at(&record, &[5]);
    let mut packets = connection(&stream, &[]);
    let mut named = Wire::client(ISN + 1, ACK, b"");
    name(&mut named, 5);
    packets.splice(3..3, [Wire::client(ISN + 1, DATA, &stream), named]);
    must_be_flagged(&packets, "again");
}

#[test]
fn of_several_bytes_the_latest_is_taken_out_or_all() {
    let record = sample::chrome().record();
    for (taken, named) in [(vec![5, 50, 200], vec![5, 50, 200]), (vec![200], vec![5, 50, 200]), (vec![5], vec![200, 5])]
    {
        let mut packets = connection(&with_bytes_at(&record, &taken), &[]);
        for (at, place) in named.iter().enumerate() {
            let mut wire = Wire::client(ISN + 1, ACK, b"");
            name(&mut wire, *place);
            packets.insert(3 + at, wire);
        }
        must_be_flagged(&packets, &format!("{taken:?} of {named:?}"));
    }
    // A flood of them, before and behind.
    for at in [0, 20] {
        let mut packets = connection(&with_bytes_at(&record, &[30]), &[]);
        for n in 0..=20 {
            let mut wire = Wire { fault: Some(Fault::Ttl), ..Wire::client(ISN + 1, ACK, b"") };
            name(&mut wire, if n == at { 30 } else { 100 + n });
            packets.insert(3 + n, wire);
        }
        must_be_flagged(&packets, &format!("a flood, {at}"));
    }
}

#[test]
fn what_every_receiver_drops_names_no_byte() {
    let record = sample::chrome().record();
    for fault in CERTAIN {
        for payload in [&b""[..], &record[..50]] {
            let mut packets = connection(&record, &[100]);
            let mut wire = Wire { fault: Some(fault), ..Wire::client(ISN + 1, DATA, payload) };
            name(&mut wire, 9);
            packets.insert(3, wire);
            let mut capture = run(&packets, true, Limits::default());
            assert_eq!(capture.only_ja4(), JA4, "{fault:?}");
            assert!(!capture.hellos[0].ambiguous, "{fault:?}");
        }
    }
}

proptest! {
    #![proptest_config(config(1000, 17))]

    #[test]
    fn whichever_bytes_are_urgent_the_hello_is_found(
        place in 0usize..500,
        is_taken in any::<bool>(),
        cuts in prop::collection::vec(1usize..500, 0..3),
        by in 0usize..4,
        others in prop::collection::vec((2usize..8, 0usize..500, prop::sample::select(FAULTS.to_vec())), 0..2),
        sees_server in any::<bool>(),
    ) {
        let record = sample::chrome().record();
        let place = place % record.len();
        let stream = if is_taken { with_bytes_at(&record, &[place]) } else { record };
        let mut packets = connection(&stream, &cuts);
        let client = packets.iter().enumerate().filter(|(at, wire)| *at > 1 && wire.from_client);
        // A segment that does not lie behind the byte.
        let named: Vec<usize> = client.filter(|(_, wire)| wire.seq <= ISN + 1 + place as u32).map(|(at, _)| at).collect();
        let at = named[by % named.len()];
        name(&mut packets[at], place);
        let is_alone = others.is_empty();
        for (at, place, fault) in others {
            let mut wire = Wire { fault: Some(fault), ..Wire::client(ISN + 1, ACK, b"") };
            name(&mut wire, place);
            packets.insert(at.min(packets.len()), wire);
        }
        let capture = run(&packets, sees_server, Limits::default());
        let hellos: Vec<&Hello> = capture.hellos.iter().filter(|hello| hello.index == 0).collect();
        prop_assert!(!hellos.is_empty(), "hidden: {:?}", capture.counters());
        for hello in &hellos {
            prop_assert!(hello.ambiguous, "not flagged: {}", hello.ja4);
        }
        // With other bytes that may have been taken out there are other hellos that may have been.
        prop_assert!(!is_alone || hellos.iter().all(|hello| hello.ja4 == JA4), "not the client's: {}", hellos[0].ja4);
        prop_assert_eq!(capture.extractor.buffered_bytes(), 0);
    }
}

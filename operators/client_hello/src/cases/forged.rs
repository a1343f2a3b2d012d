//! Packets that a server drops, around real ones: the fingerprint is the server's, or the hello is flagged.
//!
//! Whoever forges is the client: its packets pass the capture point like the real ones, and only the server's TCP knows
//! better. Checksums are made here by the plain loop of RFC 1071, not by the crate's own code.

use std::ops::Range;

use proptest::prelude::*;

use super::wire::{ACK, CERTAIN, DATA, FAULTS, Fault, ISN, Wire, header_checksum};
use super::*;

pub(super) fn run(packets: &[Wire], sees_server: bool, limits: Limits) -> Capture {
    let mut capture = Capture::new(limits);
    for packet in packets.iter().filter(|packet| sees_server || packet.from_client) {
        capture.frame(101, &packet.packet());
    }
    capture.finish();
    capture
}

/// The real connection: its handshake, the hello cut at these places, and what the server acknowledges.
pub(super) fn connection(record: &[u8], cuts: &[usize]) -> Vec<Wire> {
    let start = ISN + 1;
    let mut packets = vec![Wire::client(ISN, SYN, b""), Wire::server(start, SYN | ACK), Wire::client(start, ACK, b"")];
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % record.len()).chain([0, record.len()]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    for cut in cuts.windows(2) {
        packets.push(Wire::client(start + cut[0] as u32, DATA, &record[cut[0]..cut[1]]));
        packets.push(Wire::server(start + cut[1] as u32, ACK));
    }
    packets
}

/// The hello of somebody else: fewer ciphers, another random.
pub(super) fn other() -> Vec<u8> {
    let mut spec = sample::chrome();
    spec.ciphers.truncate(9);
    let mut record = spec.record();
    record[11..43].fill(0xee);
    record
}

pub(super) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// A forged segment: where in the connection it comes, what it holds, at which place of the stream.
fn forged() -> impl Strategy<Value = (usize, Wire)> {
    let other = other();
    let range = (0..other.len(), 0..other.len());
    let from_other = range.prop_map(move |(a, b)| (a.min(b), other[a.min(b)..=a.max(b)].to_vec()));
    let noise = (0usize..300, prop::collection::vec(any::<u8>(), 1..300));
    let content = prop_oneof![
        3 => Just((0, self::other())),
        1 => Just((0, GET.to_vec())),
        3 => from_other,
        1 => noise,
    ];
    (0usize..12, content, prop::sample::select(FAULTS.to_vec())).prop_map(|(at, (offset, bytes), fault)| {
        let wire = Wire { fault: Some(fault), ..Wire::client(ISN + 1 + offset as u32, DATA, &bytes) };
        (at, wire)
    })
}

proptest! {
    #![proptest_config(config(2000, 14))]

    #[test]
    fn what_the_server_drops_is_not_believed_or_flagged(
        cuts in prop::collection::vec(0usize..600, 0..4),
        forged in prop::collection::vec(forged(), 1..6),
        sees_server in any::<bool>(),
    ) {
        let mut packets = connection(&sample::chrome().record(), &cuts);
        let is_certain = forged.iter().all(|(_, wire)| wire.fault.is_some_and(|fault| CERTAIN.contains(&fault)));
        for (at, wire) in forged {
            // The SYN is first, or nobody knows whose segments these are.
            packets.insert((1 + at).min(packets.len()), wire);
        }
        let capture = run(&packets, sees_server, Limits::default());
        let hellos: Vec<&Hello> = capture.hellos.iter().filter(|hello| hello.index == 0).collect();
        prop_assert!(!hellos.is_empty(), "hidden: {:?}", capture.counters());
        for hello in &hellos {
            prop_assert!(hello.ja4 == JA4 || hello.ambiguous, "forged: {}", hello.ja4);
        }
        if is_certain {
            prop_assert!(hellos.len() == 1 && hellos[0].ja4 == JA4 && !hellos[0].ambiguous, "{:?}", capture.counters());
        }
        prop_assert_eq!(capture.extractor.buffered_bytes(), 0);
    }

    #[test]
    fn fragments_that_are_dropped_are_not_believed_or_flagged(
        cuts in prop::collection::vec(1usize..70, 1..4),
        forged in prop::collection::vec((0usize..10, 1usize..60, 1usize..20, any::<u8>(), any::<bool>()), 1..4),
        order in any::<u64>(),
    ) {
        let record = sample::chrome().record();
        let whole = Wire::client(ISN + 1, DATA, &record).packet();
        let mut parts = fragments(&whole, &cuts);
        if order % 2 == 1 {
            parts.reverse();
        }
        for (at, eighth, len, byte, by_checksum) in forged {
            let mut bytes = whole[20..].to_vec();
            let (from, to) = ((eighth * 8).min(bytes.len() - 8), (eighth * 8 + len * 8).min(bytes.len() / 8 * 8));
            bytes[from..to.max(from)].fill(byte);
            if to > from {
                let mut part = fragment(&whole, &bytes, from..to);
                if by_checksum { part[11] ^= 1 } else { part[8] = 3 };
                if !by_checksum {
                    header_checksum(&mut part);
                }
                parts.insert(at.min(parts.len()), part);
            }
        }
        let mut capture = Capture::new(Limits::default());
        for wire in [Wire::client(ISN, SYN, b""), Wire::server(ISN + 1, SYN | ACK), Wire::client(ISN + 1, ACK, b"")] {
            capture.frame(101, &wire.packet());
        }
        for part in &parts {
            capture.frame(101, part);
        }
        capture.frame(101, &Wire::server(ISN + 1 + record.len() as u32, ACK).packet());
        capture.finish();
        prop_assert!(!capture.hellos.is_empty(), "hidden: {:?}", capture.counters());
        for hello in &capture.hellos {
            prop_assert!(hello.ja4 == JA4 || hello.ambiguous, "forged: {}", hello.ja4);
        }
    }
}

/// A packet in fragments, cut at these multiples of 8 bytes.
fn fragments(whole: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let len = whole.len() - 20;
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut * 8 % len / 8 * 8).chain([0, len]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|cut| fragment(whole, &whole[20..], cut[0]..cut[1])).collect()
}

fn fragment(whole: &[u8], payload: &[u8], range: Range<usize>) -> Vec<u8> {
    let mut part = [&whole[..20], &payload[range.clone()]].concat();
    let more = if range.end == payload.len() { 0 } else { 0x2000 };
    let total = part.len() as u16;
    part[2..4].copy_from_slice(&total.to_be_bytes());
    part[6..8].copy_from_slice(&(more | (range.start / 8) as u16).to_be_bytes());
    header_checksum(&mut part);
    part
}

#[test]
fn each_fault_before_between_and_after_the_real_segments() {
    let record = sample::chrome().record();
    for fault in FAULTS {
        for (sees_server, bytes) in [(true, other()), (true, GET.to_vec()), (false, other()), (false, GET.to_vec())] {
            for at in 2..=connection(&record, &[200]).len() {
                let mut packets = connection(&record, &[200]);
                let wire = Wire { fault: Some(fault), ..Wire::client(ISN + 1, DATA, &bytes) };
                packets.insert(at, wire);
                let mut capture = run(&packets, sees_server, Limits::default());
                capture.hellos.retain(|hello| !hello.ambiguous);
                match &capture.hellos[..] {
                    [] => assert!(!CERTAIN.contains(&fault), "{fault:?} {at}"),
                    [hello] => assert_eq!(hello.ja4, JA4, "{fault:?} {at} {sees_server}"),
                    more => panic!("{fault:?} {at}: {} hellos", more.len()),
                }
            }
        }
    }
}

#[test]
fn what_the_server_has_acknowledged_is_settled() {
    let record = sample::chrome().record();
    let mut packets = connection(&record, &[]);
    packets.push(Wire::client(ISN + 1, DATA, &other()));
    let mut capture = run(&packets, true, Limits::default());
    assert_eq!(capture.only_ja4(), JA4);
    assert!(!capture.hellos[0].ambiguous);
    // Two versions before that, and nothing to tell them apart: the first, flagged.
    packets.swap(4, 5);
    let mut capture = run(&packets, true, Limits::default());
    assert_eq!(capture.only_ja4(), JA4);
    assert!(capture.hellos[0].ambiguous);
    assert_eq!(capture.counters().ambiguous_hellos, 1);
    // The server has not acknowledged all of the first: it took the other one.
    packets.swap(3, 4);
    assert!(other().len() < record.len());
    let mut longer = sample::chrome();
    longer.ciphers.extend([1, 2, 3]);
    packets[3].payload = longer.record();
    let mut capture = run(&packets, true, Limits::default());
    assert_eq!(capture.only_ja4(), JA4);
    assert!(!capture.hellos[0].ambiguous);
}

#[test]
fn a_version_that_comes_when_the_first_has_left_leaves_as_well() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(at_once());
    for wire in
        [Wire::client(ISN, SYN, b""), Wire::client(ISN + 1, DATA, &other()), Wire::client(ISN + 1, DATA, &record)]
    {
        capture.frame(101, &wire.packet());
    }
    let hellos: Vec<(bool, bool)> = capture.hellos.iter().map(|hello| (hello.ja4 == JA4, hello.ambiguous)).collect();
    assert_eq!(hellos, [(false, false), (true, true)]);
    // And no third one.
    capture.frame(101, &Wire::client(ISN + 1, DATA, &other()).packet());
    capture.finish();
    assert_eq!(capture.hellos.len(), 2);
}

#[test]
fn a_hello_leaves_when_it_is_acknowledged_or_when_time_is_over() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits::default());
    let packets = connection(&record, &[]);
    packets[..4].iter().for_each(|wire| capture.frame(101, &wire.packet()));
    assert!(capture.hellos.is_empty());
    assert_eq!(capture.extractor.oldest_waiting(), Some(capture.now));
    capture.frame(101, &packets[4].packet());
    assert_eq!((capture.hellos.len(), capture.extractor.oldest_waiting()), (1, None));
    let mut capture = Capture::new(Limits::default());
    packets[..4].iter().for_each(|wire| capture.frame(101, &wire.packet()));
    let completed = capture.now;
    let mut early = Vec::new();
    capture.extractor.advance(completed + SECOND * 4 / 10 - 1, &mut |hello| early.push(hello));
    assert!(early.is_empty());
    capture.extractor.advance(completed + SECOND * 4 / 10, &mut |hello| early.push(hello));
    assert_eq!(early.len(), 1);
    assert_eq!((early[0].time, early[0].ambiguous), (completed, false));
}

#[test]
fn segments_put_together_by_the_capturing_host_count() {
    // The SYN's checksum is right, that of the merged segment was left open, or is that of its first part.
    let record = sample::chrome().record();
    for checksum in [0_u16, 0x1234] {
        let mut packets: Vec<Vec<u8>> = connection(&record, &[]).iter().map(Wire::packet).collect();
        packets[3][36..38].copy_from_slice(&checksum.to_be_bytes());
        let mut capture = Capture::new(Limits::default());
        packets.iter().for_each(|packet| capture.frame(101, packet));
        assert_eq!(capture.only_ja4(), JA4);
        assert!(!capture.hellos[0].ambiguous);
    }
}

#[test]
fn a_syn_that_the_server_does_not_answer_hides_nothing() {
    let record = sample::chrome().record();
    for at in 1..4 {
        for sees_server in [true, false] {
            let mut packets = connection(&record, &[100]);
            packets.insert(at, Wire { fault: Some(Fault::Ttl), ..Wire::client(1 << 30, SYN, b"") });
            let mut capture = run(&packets, sees_server, Limits::default());
            assert_eq!(capture.only_ja4(), JA4, "{at} {sees_server}");
            assert!(capture.hellos[0].tcp.is_some());
        }
    }
}

#[test]
fn an_acknowledgement_with_padding_is_no_data() {
    let record = sample::chrome().record();
    let mut packets = connection(&record, &[]);
    packets[2].payload = vec![0, 0];
    let mut capture = run(&packets, true, Limits::default());
    assert_eq!(capture.only_ja4(), JA4);
    assert_eq!(capture.counters().ack_padding, 1);
}

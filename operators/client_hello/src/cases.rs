//! Every way in which a hello can reach a capture point must give the hello that one plain segment gives.

mod attacks;
mod attacks_far;
mod attacks_udp;
mod bounds;
mod encapsulations;
mod forged;
mod forged_dtls;
mod forged_quic;
mod layers;
mod legit;
mod properties;
mod seeds;
mod urgent;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

use super::sample::{self, Spec, Tcp};
use super::*;

const ETHERNET: i32 = 1;
const SYN: u8 = 2;
const SECOND: i64 = 1_000_000_000;

/// Limits with which hellos leave as soon as they are complete.
fn at_once() -> Limits {
    Limits { hold: Duration::ZERO, ..Limits::default() }
}

/// So many cases of a property, by this seed.
fn config(cases: u32, seed: u64) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() }
}

/// Feeds Ethernet frames a millisecond apart and collects what comes out.
#[derive(Debug)]
struct Capture {
    extractor: HelloExtractor,
    now: i64,
    hellos: Vec<Hello>,
}

impl Capture {
    fn new(limits: Limits) -> Self {
        Self { extractor: HelloExtractor::new(limits), now: SECOND, hellos: Vec::new() }
    }

    fn frame(&mut self, linktype: i32, frame: &[u8]) {
        self.now += SECOND / 1000;
        let frame = Frame::whole(self.now, linktype, frame);
        self.extractor.packet(&frame, &mut |hello| self.hellos.push(hello));
    }

    fn tcp(&mut self, segment: &Tcp<'_>) {
        self.frame(ETHERNET, &sample::ethernet(&[], &sample::tcp_packet(segment)));
    }

    fn syn(&mut self, isn: u32) {
        let options = [2, 4, 5, 180, 1, 3, 3, 7];
        self.tcp(&Tcp { seq: isn, flags: SYN, options: &options, ..Tcp::default() });
    }

    fn data(&mut self, seq: u32, payload: &[u8]) {
        self.tcp(&Tcp { seq, payload, ..Tcp::default() });
    }

    /// The segments of one stream, given as offset and bytes, after a SYN.
    fn stream(&mut self, isn: u32, segments: &[(usize, &[u8])]) {
        self.syn(isn);
        for (at, bytes) in segments {
            self.data(isn.wrapping_add(1).wrapping_add(*at as u32), bytes);
        }
    }

    fn counters(&self) -> &Counters {
        self.extractor.counters()
    }

    /// All hellos have left, and nothing is kept.
    fn finish(&mut self) {
        self.extractor.finish(&mut |hello| self.hellos.push(hello));
    }

    fn only_ja4(&mut self) -> &str {
        self.finish();
        match &self.hellos[..] {
            [hello] => &hello.ja4,
            other => panic!("{} hellos, {:?}", other.len(), self.counters()),
        }
    }
}

const JA4: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";

/// Runs one stream in these segments and returns the counters.
#[track_caller]
fn must_be_found(isn: u32, segments: &[(usize, &[u8])]) -> Counters {
    let mut capture = Capture::new(at_once());
    capture.stream(isn, segments);
    assert_eq!(capture.only_ja4(), JA4);
    assert_eq!(capture.extractor.buffered_bytes(), 0);
    capture.counters().clone()
}
#[test]
fn one_segment() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(at_once());
    capture.stream(7, &[(0, &record)]);
    assert_eq!(capture.only_ja4(), JA4);
    let hello = &capture.hellos[0];
    assert_eq!((hello.src, hello.src_port), (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000));
    assert_eq!((hello.dst, hello.dst_port), (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 443));
    assert_eq!((hello.sni.as_deref(), hello.alpn.as_deref()), (Some("example.org"), Some("h2")));
    assert_eq!((hello.tls_version, hello.index), (Some("1.3"), 0));
    assert_eq!(hello.syn_to_clienthello_ms, Some(1.0));
    let tcp = hello.tcp.as_ref().expect("the SYN's fields");
    assert_eq!((tcp.options.as_str(), tcp.mss, tcp.window_scale), ("MSS,NOP,WS", Some(1460), Some(7)));
    assert_eq!(hello.ip, IpMeta { ttl: 64, total_length: Some(48), id: Some(0x1234), df: Some(true) });
    assert_eq!(hello.conn_id.len(), 16);
    assert_eq!(capture.counters().iter().find(|(name, _)| *name == "hellos"), Some(("hellos", 1)));
}

#[test]
fn split_in_and_out_of_order() {
    let record = sample::chrome().record();
    let (a, b) = record.split_at(200);
    let (b, c) = b.split_at(100);
    must_be_found(7, &[(0, a), (200, b), (300, c)]);
    assert_eq!(must_be_found(7, &[(200, &record[200..]), (0, a)]).gap_detected_count, 1);
    for order in [[2, 1, 0], [2, 0, 1], [1, 2, 0], [1, 0, 2], [0, 2, 1]] {
        let parts = [(0, a), (200, b), (300, c)];
        must_be_found(7, &order.map(|part| parts[part]));
    }
    for at in [1, 3, 5, 6, 9, record.len() - 1] {
        must_be_found(7, &[(0, &record[..at]), (at, &record[at..])]);
        must_be_found(7, &[(at, &record[at..]), (0, &record[..at])]);
    }
}

#[test]
fn retransmitted_and_overlapping() {
    let record = sample::chrome().record();
    let counters = must_be_found(7, &[(0, &record[..200]), (0, &record[..200]), (200, &record[200..])]);
    assert_eq!(counters.retransmit_count, 1);
    let counters = must_be_found(7, &[(0, &record[..200]), (100, &record[100..])]);
    assert_eq!(counters.overlaps, 1);
    must_be_found(7, &[(100, &record[100..]), (0, &record[..200])]);
    must_be_found(7, &[(150, &record[150..250]), (50, &record[50..]), (0, &record[..100])]);
    let counters = must_be_found(7, &[(0, &record), (0, &record), (0, &record[..100])]);
    assert_eq!(counters.retransmit_count, 2);
}

#[test]
fn a_second_copy_with_other_bytes_is_not_believed() {
    let record = sample::chrome().record();
    let lie = vec![0xff; 200];
    must_be_found(7, &[(0, &record[..200]), (0, &lie), (200, &record[200..])]);
    must_be_found(
        7,
        &[(100, &record[100..]), (90, &lie[..30]), (0, &record[..90])].map(|(at, bytes)| {
            // The bytes in front of the known ones are new, so they have to be right.
            if at == 90 { (at, &record[90..120]) } else { (at, bytes) }
        }),
    );
    must_be_found(7, &[(100, &record[100..]), (100, &lie), (0, &record[..100])]);
}

#[test]
fn sequence_numbers_wrap_around() {
    let record = sample::chrome().record();
    for isn in [u32::MAX, u32::MAX - 100, u32::MAX - 250] {
        must_be_found(isn, &[(0, &record)]);
        must_be_found(isn, &[(200, &record[200..]), (0, &record[..200])]);
    }
}

#[test]
fn several_records_and_several_messages() {
    let message = sample::chrome().message();
    for records in [2, 3, 50] {
        let stream = sample::in_records(&message, records);
        must_be_found(7, &[(0, &stream)]);
        must_be_found(7, &[(300, &stream[300..]), (0, &stream[..300])]);
    }
    let two = sample::in_records(&[&message[..], &[11, 0, 0, 1, 0]].concat(), 1);
    must_be_found(7, &[(0, &two)]);
    must_be_found(7, &[(0, &two[..300]), (300, &two[300..])]);
}

#[test]
fn without_a_syn() {
    let record = sample::chrome().record();
    let orders: [&[(usize, &[u8])]; 4] = [
        &[(0, &record)],
        &[(0, &record[..3]), (3, &record[3..])],
        &[(200, &record[200..]), (0, &record[..200])],
        &[(300, &record[300..]), (200, &record[200..300]), (0, &record[..200])],
    ];
    for segments in orders {
        let mut capture = Capture::new(at_once());
        for (at, bytes) in segments {
            capture.data(u32::MAX - 9 + *at as u32 % 9, &[]);
            capture.data((u32::MAX - 9).wrapping_add(*at as u32), bytes);
        }
        assert_eq!(capture.only_ja4(), JA4);
        let hello = &capture.hellos[0];
        assert_eq!((&hello.tcp, hello.syn_to_clienthello_ms), (&None, None));
        assert_ne!(hello.ip.total_length, Some(48));
    }
}

#[test]
fn a_syn_that_data_overtook() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(at_once());
    capture.data(208, &record[200..]);
    capture.syn(7);
    capture.data(8, &record[..200]);
    assert_eq!(capture.only_ja4(), JA4);
    assert!(capture.hellos[0].tcp.is_some());
}

#[test]
fn data_in_the_syn() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(at_once());
    capture.tcp(&Tcp { seq: 7, flags: SYN, payload: &record[..300], ..Tcp::default() });
    capture.data(308, &record[300..]);
    assert_eq!(capture.only_ja4(), JA4);
    // The server did not take the data: the client sends it again.
    let mut capture = Capture::new(at_once());
    capture.tcp(&Tcp { seq: 7, flags: SYN, payload: &record, ..Tcp::default() });
    capture.data(8, &record);
    assert_eq!(capture.only_ja4(), JA4);
}

#[test]
fn port_reuse_begins_a_new_connection() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(at_once());
    capture.stream(7, &[(0, &record[..100])]);
    capture.stream(1 << 31, &[(0, &record)]);
    capture.stream(1 << 31, &[]); // the same SYN again
    capture.stream(9, &[(100, &record[100..]), (0, &record[..100])]);
    assert_eq!(capture.hellos.len(), 2);
    assert!(capture.hellos.iter().all(|hello| hello.ja4 == JA4 && hello.index == 0));
    assert_ne!(capture.hellos[0].conn_id, capture.hellos[1].conn_id);
    assert_eq!((capture.counters().ports_reused, capture.counters().incomplete_hellos), (2, 1));
    // Without a SYN a hello far away in sequence space tells.
    capture.data(1 << 30, &record);
    assert_eq!(capture.hellos.len(), 3);
}

#[test]
fn a_syn_within_a_hello_does_not_hide_it() {
    let record = sample::chrome().record();
    // Far away, as one that never reaches the server, and near.
    for other in [1 << 31, 50] {
        let mut capture = Capture::new(at_once());
        capture.stream(7, &[(0, &record[..100])]);
        capture.syn(other);
        capture.data(108, &record[100..]);
        assert_eq!(capture.only_ja4(), JA4);
        assert_eq!((capture.counters().ports_reused, capture.counters().incomplete_hellos), (0, 0));
    }
}

#[test]
fn any_order_of_the_first_segments() {
    let record = sample::chrome().record();
    let server = sample::record(22, &[2; 60]);
    let segment = |name: &str, capture: &mut Capture| match name {
        "SYN" => capture.syn(7),
        "whole" => capture.data(8, &record),
        "first" => capture.data(8, &record[..200]),
        "second" => capture.data(208, &record[200..]),
        "later" => capture.data(8 + record.len() as u32, &sample::record(20, &[1])),
        _ => capture.tcp(&Tcp { from: (2, 443), to: (1, 40_000), seq: 99, payload: &server, ..Tcp::default() }),
    };
    for order in [
        &["server", "second", "first"][..],
        &["server", "SYN", "first", "second"],
        &["server", "SYN", "second", "first"],
        &["SYN", "server", "second", "first"],
        &["second", "server", "SYN", "first"],
        &["later", "whole"],
        &["later", "server", "whole"],
        &["later", "SYN", "whole"],
        &["server", "later", "SYN", "second", "first"],
    ] {
        let mut capture = Capture::new(Limits::default());
        order.iter().for_each(|name| segment(name, &mut capture));
        assert_eq!(capture.only_ja4(), JA4, "{order:?}");
    }
}

#[test]
fn the_second_hello_of_a_connection() {
    let first = sample::chrome().record();
    let mut shorter = sample::chrome();
    shorter.extensions.retain(|(kind, _)| *kind != 0x0015);
    let second = [sample::record(20, &[1]), shorter.record()].concat();
    let stream = [&first[..], &second].concat();
    let at = first.len();
    let ways: [&[(usize, &[u8])]; 5] = [
        &[(0, &first), (at, &second)],
        &[(0, &stream)],
        &[(0, &first), (at, &second[..2]), (at + 2, &second[2..9]), (at + 9, &second[9..])],
        &[(0, &first), (at + 100, &second[100..]), (at, &second[..100])],
        &[(at, &second), (0, &first), (0, &first)],
    ];
    for segments in ways {
        let mut capture = Capture::new(at_once());
        capture.stream(7, segments);
        let found: Vec<_> = capture.hellos.iter().map(|hello| (hello.index, &hello.ja4[..8])).collect();
        assert_eq!(found, [(0, "t13d1516"), (1, "t13d1515")]);
        assert_eq!(capture.hellos[0].conn_id, capture.hellos[1].conn_id);
    }
}

#[test]
fn early_data_before_the_second_hello() {
    let record = sample::chrome().record();
    let data = sample::record(23, &[9; 500]);
    let mut early = sample::chrome();
    early.extensions.push((0x002a, vec![]));
    for (first, hellos) in [(early.record(), 2), (record.clone(), 1)] {
        let mut capture = Capture::new(at_once());
        let (after, again) = (first.len(), first.len() + data.len());
        capture.stream(7, &[(0, &first), (after, &data), (again, &record)]);
        assert_eq!(capture.hellos.len(), hellos);
    }
}

#[test]
fn the_servers_side_is_not_tracked() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(at_once());
    let back = Tcp { from: (2, 443), to: (1, 40_000), ..Tcp::default() };
    capture.syn(7);
    capture.tcp(&Tcp { flags: 0x12, ..back });
    capture.data(8, &record);
    for seq in 1..50 {
        capture.tcp(&Tcp { seq: seq * 100, payload: &[0x55; 100], ..back });
    }
    assert_eq!((capture.hellos.len(), capture.extractor.flows()), (1, 1));
}

#[test]
fn two_runs_give_equal_hellos() {
    let record = sample::chrome().record();
    let run = || {
        let mut capture = Capture::new(Limits { max_flows: 3, ..at_once() });
        for port in [1, 2, 3, 4, 5, 1, 2] {
            capture.tcp(&Tcp { from: (1, port), seq: 7, flags: SYN, ..Tcp::default() });
            capture.tcp(&Tcp { from: (1, port), seq: 108, payload: &record[100..], ..Tcp::default() });
        }
        for port in 1..=5 {
            capture.tcp(&Tcp { from: (1, port), seq: 8, payload: &record[..100], ..Tcp::default() });
        }
        (capture.hellos, capture.extractor.counters().clone())
    };
    let (hellos, counters) = run();
    assert_eq!(hellos.iter().map(|hello| hello.src_port).collect::<Vec<_>>(), [1, 2, 5]);
    assert_eq!(run(), (hellos, counters));
}

#[test]
fn one_byte_segments() {
    let mut spec = sample::chrome();
    spec.extensions.push((0x1234, vec![7; 2000]));
    for stream in [sample::chrome().record(), spec.record(), sample::in_records(&spec.message(), 40)] {
        let forward: Vec<(usize, &[u8])> = stream.chunks(1).enumerate().collect();
        let backward: Vec<(usize, &[u8])> = forward.iter().rev().copied().collect();
        let mixed: Vec<(usize, &[u8])> = (0..forward.len()).map(|at| forward[at * 7919 % forward.len()]).collect();
        for segments in [forward, backward, mixed] {
            let mut capture = Capture::new(at_once());
            capture.stream(u32::MAX - 70, &segments);
            assert_eq!(capture.hellos.len(), 1);
            assert_eq!(capture.extractor.buffered_bytes(), 0);
        }
    }
}

#[test]
fn a_different_second_copy_is_counted() {
    let record = sample::chrome().record();
    let counters = must_be_found(7, &[(0, &record[..200]), (50, &[0xff; 20]), (200, &record[200..])]);
    assert_eq!(counters.overlap_conflicts, 1);
    let counters = must_be_found(7, &[(0, &record[..200]), (50, &record[50..70]), (200, &record[200..])]);
    assert_eq!(counters.overlap_conflicts, 0);
}

//! Every way in which a hello can reach a capture point must give the hello that one plain segment gives.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::sample::{self, Spec, Tcp};
use super::*;

const ETHERNET: i32 = 1;
const SYN: u8 = 2;
const SECOND: i64 = 1_000_000_000;

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
        self.extractor.packet(self.now, linktype, frame, frame.len() as u32, &mut |hello| self.hellos.push(hello));
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

    fn only_ja4(&self) -> &str {
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
    let mut capture = Capture::new(Limits::default());
    capture.stream(isn, segments);
    assert_eq!(capture.only_ja4(), JA4);
    assert_eq!(capture.extractor.buffered_bytes(), 0);
    capture.counters().clone()
}

#[test]
fn one_segment() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits::default());
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
        let mut capture = Capture::new(Limits::default());
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
    let mut capture = Capture::new(Limits::default());
    capture.data(208, &record[200..]);
    capture.syn(7);
    capture.data(8, &record[..200]);
    assert_eq!(capture.only_ja4(), JA4);
    assert!(capture.hellos[0].tcp.is_some());
}

#[test]
fn data_in_the_syn() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits::default());
    capture.tcp(&Tcp { seq: 7, flags: SYN, payload: &record[..300], ..Tcp::default() });
    capture.data(308, &record[300..]);
    assert_eq!(capture.only_ja4(), JA4);
    // The server did not take the data: the client sends it again.
    let mut capture = Capture::new(Limits::default());
    capture.tcp(&Tcp { seq: 7, flags: SYN, payload: &record, ..Tcp::default() });
    capture.data(8, &record);
    assert_eq!(capture.only_ja4(), JA4);
}

#[test]
fn port_reuse_begins_a_new_connection() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits::default());
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
        let mut capture = Capture::new(Limits::default());
        capture.stream(7, segments);
        let found: Vec<_> = capture.hellos.iter().map(|hello| (hello.index, &hello.ja4[..8])).collect();
        assert_eq!(found, [(0, "t13d1516"), (1, "t13d1515")]);
        assert_eq!(capture.hellos[0].conn_id, capture.hellos[1].conn_id);
    }
}

#[test]
fn data_after_a_gap_behind_the_first_hello_is_not_kept_for_long() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits::default());
    capture.stream(7, &[(0, &record)]);
    for n in 0..20 {
        capture.data(8 + record.len() as u32 + 50 + n * 1000, &[9; 1000]);
        assert!(capture.extractor.buffered_bytes() < 20_000);
    }
    assert_eq!((capture.extractor.buffered_bytes(), capture.counters().segment_exceeded_count), (0, 0));
}

#[test]
fn early_data_before_the_second_hello() {
    let record = sample::chrome().record();
    let data = sample::record(23, &[9; 500]);
    let mut early = sample::chrome();
    early.extensions.push((0x002a, vec![]));
    for (first, hellos) in [(early.record(), 2), (record.clone(), 1)] {
        let mut capture = Capture::new(Limits::default());
        let (after, again) = (first.len(), first.len() + data.len());
        capture.stream(7, &[(0, &first), (after, &data), (again, &record)]);
        assert_eq!(capture.hellos.len(), hellos);
    }
}

#[test]
fn every_encapsulation() {
    let record = sample::chrome().record();
    let segment = Tcp { payload: &record, ..Tcp::default() };
    let packet = sample::tcp_packet(&segment);
    let before = |bytes: &[u8]| [bytes, &packet].concat();
    let padded = |len: usize, at: usize| {
        let mut header = vec![0; len];
        header[at..at + 2].copy_from_slice(&[8, 0]);
        before(&header)
    };
    let gre = sample::ipv4(47, 64, [1; 4], [2; 4], &before(&[0, 0, 8, 0]));
    let six =
        sample::ipv6(0, &[&[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0][..], &sample::tcp(&segment)].concat());
    let frames = [
        (1, sample::ethernet(&[], &packet)),
        (1, sample::ethernet(&[0x8100], &packet)),
        (1, sample::ethernet(&[0x88a8, 0x8100], &packet)),
        (113, padded(16, 14)),
        (276, padded(20, 0)),
        (12, packet.clone()),
        (14, packet.clone()),
        (101, packet.clone()),
        (0, before(&[2, 0, 0, 0])),
        (108, before(&[0, 0, 0, 2])),
        (101, six),
        (101, gre),
        (101, sample::ipv4(4, 64, [1; 4], [2; 4], &packet)),
        (101, sample::ipv6(4, &packet)),
    ];
    for (linktype, frame) in frames {
        let mut capture = Capture::new(Limits::default());
        capture.frame(linktype, &frame);
        assert_eq!(capture.only_ja4(), JA4, "linktype {linktype}");
    }
}

#[test]
fn what_is_not_looked_at_is_counted() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits { ports: vec![8443, 443], ..Limits::default() });
    let mut fragment = sample::tcp_packet(&Tcp { payload: &record, ..Tcp::default() });
    fragment[6] = 0x20;
    capture.frame(101, &fragment);
    assert!(capture.extractor.buffered_bytes() > 0);
    capture.tcp(&Tcp { to: (2, 80), payload: &record, ..Tcp::default() });
    capture.frame(101, &sample::ipv4(17, 64, [1; 4], [2; 4], &[0; 8]));
    capture.frame(101, &sample::ipv4(1, 64, [1; 4], [2; 4], &[0; 8]));
    capture.frame(ETHERNET, &[0; 60]);
    capture.frame(9999, &[0; 60]);
    capture.frame(101, &[0x45, 0]);
    capture.extractor.packet(0, 101, &[0x45, 0], 60, &mut |_| {});
    capture.data(8, b"GET / HTTP/1.1\r\n");
    assert!(capture.hellos.is_empty());
    let seen = Counters {
        packets_received: 9,
        fragments: 1,
        other_ports: 1,
        non_tcp: 2,
        non_ip: 1,
        unknown_link: 1,
        malformed: 1,
        truncated: 1,
        ..Counters::default()
    };
    assert_eq!(*capture.counters(), seen);
}

#[test]
fn a_truncated_packet_gives_what_it_has() {
    let record = sample::chrome().record();
    let frame = sample::tcp_packet(&Tcp { seq: 8, payload: &record, ..Tcp::default() });
    let mut capture = Capture::new(Limits::default());
    capture.extractor.packet(0, 101, &frame[..300], frame.len() as u32, &mut |_| {});
    assert_eq!(capture.counters().truncated, 1);
    capture.now = 0;
    capture.data(8, &record);
    assert_eq!(capture.only_ja4(), JA4);
}

#[test]
fn the_servers_side_is_not_tracked() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits::default());
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
fn connections_older_than_the_capture_are_soon_left_alone() {
    let mut capture = Capture::new(Limits::default());
    for n in 0..20 {
        capture.data(1000 * n, &[0x55; 1000]);
    }
    capture.tcp(&Tcp { from: (1, 40_001), payload: &sample::record(23, &[9; 100]), ..Tcp::default() });
    assert_eq!((capture.counters().not_tls, capture.extractor.flows()), (2, 2));
    assert_eq!(capture.extractor.buffered_bytes(), 0);
}

#[test]
fn two_runs_give_equal_hellos() {
    let record = sample::chrome().record();
    let run = || {
        let mut capture = Capture::new(Limits { max_flows: 3, ..Limits::default() });
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
            let mut capture = Capture::new(Limits::default());
            capture.stream(u32::MAX - 70, &segments);
            assert_eq!(capture.hellos.len(), 1);
            assert_eq!(capture.extractor.buffered_bytes(), 0);
        }
    }
}

#[test]
fn a_hello_in_too_many_segments_is_given_up() {
    let record = sample::chrome().record();
    for reverse in [false, true] {
        let mut capture = Capture::new(Limits { max_segments: 100, ..Limits::default() });
        let mut bytes: Vec<(usize, &[u8])> = record.chunks(1).enumerate().collect();
        if reverse {
            bytes.reverse();
        }
        capture.stream(7, &bytes);
        assert!(capture.hellos.is_empty());
        assert_eq!(capture.counters().segment_exceeded_count, 1);
        assert_eq!(capture.extractor.buffered_bytes(), 0);
    }
}

#[test]
fn a_hello_that_is_too_large_is_given_up() {
    let mut large = sample::chrome();
    large.extensions.push((0x1234, vec![0; 4000]));
    let record = large.record();
    let mut capture = Capture::new(Limits { max_hello_bytes: 4000, ..Limits::default() });
    capture.stream(7, &[(0, &record[..1000]), (1000, &record[1000..])]);
    assert!(capture.hellos.is_empty());
    assert_eq!(capture.counters().buffer_exceeded_count, 1);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let limits = Limits { max_flows: 100, max_buffered_bytes: 20_000, ..Limits::default() };
    let mut capture = Capture::new(limits);
    let record = sample::chrome().record();
    for port in 1..5000 {
        let from = (1, port);
        capture.tcp(&Tcp { from, seq: 7, flags: SYN, ..Tcp::default() });
        capture.tcp(&Tcp { from, seq: 108, payload: &record[100..], ..Tcp::default() });
        assert!(capture.extractor.flows() <= 100 && capture.extractor.buffered_bytes() <= 20_000);
    }
    let counters = capture.counters();
    assert!(counters.buffer_exceeded_count > 4000, "{counters:?}");
    assert_eq!(counters.incomplete_hellos, counters.buffer_exceeded_count + counters.flows_evicted);

    let mut capture = Capture::new(Limits { max_flows: 100, ..Limits::default() });
    for port in 1..1000 {
        capture.tcp(&Tcp { from: (1, port), seq: 7, flags: SYN, ..Tcp::default() });
    }
    assert_eq!((capture.extractor.flows(), capture.counters().flows_evicted_syn), (100, 899));
}

#[test]
fn silence_ends_a_connection() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits { flow_timeout: Duration::from_secs(30), ..Limits::default() });
    capture.stream(7, &[(0, &record[..100])]);
    capture.now += 31 * SECOND;
    capture.data(108, &record[100..]);
    assert!(capture.hellos.is_empty());
    assert_eq!((capture.counters().flows_expired, capture.counters().incomplete_hellos), (1, 1));
}

#[test]
fn one_timestamp_far_away_does_not_empty_the_table() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits::default());
    for port in 1..=100 {
        capture.tcp(&Tcp { from: (1, port), seq: 7, flags: SYN, ..Tcp::default() });
    }
    let frame = sample::ethernet(&[], &sample::tcp_packet(&Tcp { from: (9, 9), flags: SYN, ..Tcp::default() }));
    capture.extractor.packet(i64::MAX, ETHERNET, &frame, frame.len() as u32, &mut |_| {});
    for port in 1..=100 {
        capture.tcp(&Tcp { from: (1, port), seq: 8, payload: &record, ..Tcp::default() });
    }
    let with_syn = capture.hellos.iter().filter(|hello| hello.tcp.is_some()).count();
    assert_eq!((capture.hellos.len(), with_syn), (100, 98));
}

#[test]
fn a_different_second_copy_is_counted() {
    let record = sample::chrome().record();
    let counters = must_be_found(7, &[(0, &record[..200]), (50, &[0xff; 20]), (200, &record[200..])]);
    assert_eq!(counters.overlap_conflicts, 1);
    let counters = must_be_found(7, &[(0, &record[..200]), (50, &record[50..70]), (200, &record[200..])]);
    assert_eq!(counters.overlap_conflicts, 0);
}

#[test]
fn behind_a_tunnel_or_plain_text() {
    let record = sample::chrome().record();
    let fronts: [(&[u8], bool); 4] = [
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", false),
        (&[5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 1, 187], false),
        (&[4, 1, 1, 187, 192, 0, 2, 1, b'u', 0], false),
        (b"EHLO example.org\r\nSTARTTLS\r\n", true),
    ];
    for (front, starttls) in fronts {
        let stream = [front, &record].concat();
        let whole: Vec<(usize, &[u8])> = vec![(0, &stream)];
        let apart: Vec<(usize, &[u8])> = stream.chunks(1).enumerate().collect();
        for segments in [whole, apart] {
            let mut capture = Capture::new(Limits { starttls, ..Limits::default() });
            capture.stream(7, &segments);
            assert_eq!(capture.only_ja4(), JA4);
            let mut capture = Capture::new(Limits::default());
            capture.stream(7, &segments);
            assert_eq!(capture.hellos.len(), usize::from(!starttls));
        }
    }
}

#[test]
fn in_fragments_of_ip() {
    let record = sample::chrome().record();
    let whole = sample::tcp_packet(&Tcp { seq: 8, payload: &record, ..Tcp::default() });
    let fragment = |from: usize, to: usize| {
        let mut part = sample::ipv4(6, 64, [10, 0, 0, 1], [10, 0, 0, 2], &whole[20 + from..20 + to]);
        let more = if to == whole.len() - 20 { 0 } else { 0x2000 };
        part[6..8].copy_from_slice(&(more | (from / 8) as u16).to_be_bytes());
        part
    };
    let len = whole.len() - 20;
    let parts = [fragment(0, 104), fragment(104, 304), fragment(304, len)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut capture = Capture::new(Limits::default());
        capture.syn(7);
        order.iter().for_each(|at| capture.frame(101, &parts[*at]));
        assert_eq!(capture.only_ja4(), JA4);
        assert_eq!((capture.counters().fragments, capture.counters().fragments_joined), (3, 1));
    }
}

#[test]
fn over_quic_and_dtls() {
    use crate::fingerprint::Transport;
    let (spec, id) = (sample::chrome(), b"12345678");
    let message = spec.message();
    let frames = [quic::sample::crypto(300, &message[300..]), quic::sample::crypto(0, &message[..300])];
    let initials = frames.iter().enumerate().map(|(n, frame)| quic::sample::initial(n as u32, 1, id, id, frame));
    let dtls = dtls::sample::records(&spec.dtls_body(b""), 0, 100);
    for (datagrams, transport, first) in
        [(initials.collect(), Transport::Quic, 'q'), (dtls, Transport::Dtls, 'd')] as [(Vec<_>, _, _); 2]
    {
        let mut capture = Capture::new(Limits::default());
        for datagram in datagrams.iter().chain(&datagrams) {
            capture.frame(101, &sample::udp_packet(datagram));
        }
        let [hello] = &capture.hellos[..] else { panic!("{:?}", capture.counters()) };
        assert_eq!((hello.transport, hello.ja4.chars().next(), &hello.tcp), (transport, Some(first), &None));
        assert_eq!((hello.syn_to_clienthello_ms, hello.ip.ttl), (None, 64));
    }
}

/// Writes the seeds of `examples/fuzz.rs` when `WRITE_SEEDS` is set.
#[test]
fn seeds_for_the_fuzzer() {
    if std::env::var_os("WRITE_SEEDS").is_none() {
        return;
    }
    let (spec, id) = (sample::chrome(), b"12345678");
    let (record, message) = (spec.record(), spec.message());
    let tcp = |seq: u32, payload: &[u8]| sample::tcp_packet(&Tcp { seq, payload, ..Tcp::default() });
    let syn = sample::tcp_packet(&Tcp { seq: 7, flags: SYN, options: &[2, 4, 5, 180, 1, 3, 3, 7], ..Tcp::default() });
    let behind = |front: &[u8]| vec![syn.clone(), tcp(8, &[front, &record].concat())];
    let over_udp = |port: u16, header: &[u8], inner: &[u8]| {
        let mut packet = sample::udp_packet(&[header, inner].concat());
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet
    };
    let initial = |version: u32| {
        let frames = [quic::sample::crypto(300, &message[300..]), quic::sample::crypto(0, &message[..300])];
        let packet = |(n, frame): (usize, &Vec<u8>)| {
            sample::udp_packet(&quic::sample::initial(n as u32, version, id, id, frame))
        };
        frames.iter().enumerate().map(packet).collect::<Vec<_>>()
    };
    let whole = tcp(8, &record);
    let fragments = [(0usize, 200usize), (200, whole.len() - 20)].map(|(from, to)| {
        let mut part = sample::ipv4(6, 64, [10, 0, 0, 1], [10, 0, 0, 2], &whole[20 + from..20 + to]);
        part[6..8].copy_from_slice(&((if from == 0 { 0x2000 } else { 0 }) | (from / 8) as u16).to_be_bytes());
        part
    });
    let six = sample::ipv6(0, &[&[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0][..], &whole[20..]].concat());
    let frame = sample::ethernet(&[0x8100], &whole);
    let seeds: Vec<(&str, i32, Vec<Vec<u8>>)> = vec![
        ("tcp", 101, vec![syn.clone(), tcp(208, &record[200..]), tcp(8, &record[..200]), tcp(8, &record[..200])]),
        ("records", 101, vec![syn.clone(), tcp(8, &sample::in_records(&message, 7))]),
        ("retry", 101, vec![syn.clone(), whole.clone(), tcp(8 + record.len() as u32, &record)]),
        ("vlan", 1, vec![sample::ethernet(&[0x88a8, 0x8100], &whole)]),
        ("ipv6", 101, vec![six]),
        ("fragments", 101, fragments.to_vec()),
        ("gre", 101, vec![sample::ipv4(47, 64, [1; 4], [2; 4], &[&[0, 0, 8, 0][..], &whole].concat())]),
        ("vxlan", 101, vec![over_udp(4789, &[8, 0, 0, 0, 0, 0, 7, 0], &frame)]),
        ("geneve", 101, vec![over_udp(6081, &[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4], &frame)]),
        ("connect", 101, behind(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n")),
        ("socks", 101, behind(&[5, 2, 0, 2, 1, 1, b'u', 2, b'p', b'w', 5, 1, 0, 3, 2, b'a', b'b', 1, 187])),
        ("starttls", 101, behind(b"EHLO example.org\r\nSTARTTLS\r\n")),
        ("quic", 101, initial(1)),
        ("quic2", 101, initial(quic::sample::V2)),
        (
            "dtls",
            101,
            dtls::sample::records(&spec.dtls_body(b"cookie"), 1, 100).iter().map(|d| sample::udp_packet(d)).collect(),
        ),
    ];
    for (name, linktype, frames) in seeds {
        let numbers = |numbers: [u32; 4]| numbers.map(u32::to_le_bytes).concat();
        let mut file = [numbers([0xa1b2_c3d4, 0x0004_0002, 0, 0]), 262_144_u32.to_le_bytes().to_vec()].concat();
        file.extend((linktype as u32).to_le_bytes());
        for (at, frame) in frames.iter().enumerate() {
            file.extend(numbers([at as u32, 0, frame.len() as u32, frame.len() as u32]));
            file.extend(frame);
        }
        let path = format!("{}/fuzz/seeds/{name}.pcap", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, file).expect("written");
    }
}

#[test]
fn established_connections_outlast_a_flood_of_syns() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits { max_flows: 100, ..Limits::default() });
    for port in 1..=40 {
        capture.tcp(&Tcp { from: (1, port), seq: 7, flags: SYN, ..Tcp::default() });
        capture.tcp(&Tcp { from: (1, port), seq: 8, flags: 0x10, ..Tcp::default() });
    }
    for port in 0..5000 {
        capture.tcp(&Tcp { from: (9, port), seq: 7, flags: SYN, ..Tcp::default() });
    }
    for port in 1..=40 {
        capture.tcp(&Tcp { from: (1, port), seq: 8, payload: &record, ..Tcp::default() });
    }
    assert_eq!(capture.hellos.iter().filter(|hello| hello.tcp.is_some()).count(), 40);
    assert_eq!((capture.counters().flows_evicted, capture.extractor.flows()), (0, 100));
}

/// A hello cut into pieces that overlap, come in any order and more than once.
fn segments() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, usize)>)> {
    (1usize..5, prop::collection::vec(0.0..1.0f64, 0..12), 0usize..2000).prop_flat_map(|(records, cuts, padding)| {
        let mut spec: Spec = sample::chrome();
        spec.extensions.push((0x0015, vec![0; padding]));
        let stream = sample::in_records(&spec.message(), records);
        let len = stream.len();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * len as f64) as usize).collect();
        cuts.extend([0, len]);
        cuts.sort_unstable();
        let pieces: Vec<(usize, usize)> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
        let extra = prop::collection::vec((0..len, 0..len), 0..8);
        let all = extra.prop_map(move |extra| {
            let extra = extra.iter().map(|(a, b)| (*a.min(b), *a.max(b)));
            pieces.iter().copied().chain(extra).collect::<Vec<_>>()
        });
        (Just(stream), all.prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

    #[test]
    fn any_segmentation_gives_the_same_hello((stream, pieces) in segments(), isn in any::<u32>()) {
        let mut whole = Capture::new(Limits::default());
        whole.stream(isn, &[(0, &stream)]);
        let mut split = Capture::new(Limits::default());
        let pieces: Vec<(usize, &[u8])> = pieces.iter().map(|(a, b)| (*a, &stream[*a..*b])).collect();
        split.stream(isn, &pieces);
        prop_assert_eq!(whole.only_ja4(), split.only_ja4());
        prop_assert_eq!(split.extractor.buffered_bytes(), 0);
    }

    #[test]
    fn random_frames_never_panic(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..20),
        linktype in prop::sample::select(vec![0, 1, 12, 101, 108, 113, 276, 147]),
    ) {
        let mut capture = Capture::new(Limits { max_flows: 4, max_buffered_bytes: 500, ..Limits::default() });
        for frame in &frames {
            capture.frame(linktype, frame);
        }
    }

    #[test]
    fn damaged_frames_never_panic(
        damage in prop::collection::vec((0usize..700, any::<u8>(), 0usize..3), 1..6),
        flags in any::<u8>(),
    ) {
        let record = sample::chrome().record();
        let parts = [&record[..150], &record[150..300], &record[300..]];
        let mut capture = Capture::new(Limits { max_segments: 3, max_hello_bytes: 400, ..Limits::default() });
        for (n, part) in parts.into_iter().enumerate() {
            let seq = 8 + n as u32 * 150;
            let mut frame = sample::tcp_packet(&Tcp { seq, flags, payload: part, ..Tcp::default() });
            for (at, value, _) in damage.iter().filter(|(_, _, which)| *which == n) {
                let at = at % frame.len();
                frame[at] = *value;
            }
            capture.frame(101, &frame);
        }
    }
}

//! Limits on memory, segments and time.

use super::*;

#[test]
fn data_after_a_gap_behind_the_first_hello_is_not_kept_for_long() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(at_once());
    capture.stream(7, &[(0, &record)]);
    for n in 0..20 {
        capture.data(8 + record.len() as u32 + 50 + n * 1000, &[9; 1000]);
        assert!(capture.extractor.buffered_bytes() < 20_000);
    }
    assert_eq!((capture.extractor.buffered_bytes(), capture.counters().segment_exceeded_count), (0, 0));
}

#[test]
fn connections_older_than_the_capture_are_soon_left_alone() {
    let mut capture = Capture::new(at_once());
    for n in 0..20 {
        capture.data(1000 * n, &[0x55; 1000]);
    }
    capture.tcp(&Tcp { from: (1, 40_001), payload: &sample::record(23, &[9; 100]), ..Tcp::default() });
    assert_eq!((capture.counters().not_tls, capture.extractor.flows()), (2, 2));
    assert_eq!(capture.extractor.buffered_bytes(), 0);
}

#[test]
fn a_hello_in_too_many_segments_is_given_up() {
    let record = sample::chrome().record();
    for reverse in [false, true] {
        let mut capture = Capture::new(Limits { max_segments: 100, ..at_once() });
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
    let mut capture = Capture::new(Limits { max_hello_bytes: 4000, ..at_once() });
    capture.stream(7, &[(0, &record[..1000]), (1000, &record[1000..])]);
    assert!(capture.hellos.is_empty());
    assert_eq!(capture.counters().buffer_exceeded_count, 1);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let limits = Limits { max_flows: 100, max_buffered_bytes: 20_000, ..at_once() };
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

    let mut capture = Capture::new(Limits { max_flows: 100, ..at_once() });
    for port in 1..1000 {
        capture.tcp(&Tcp { from: (1, port), seq: 7, flags: SYN, ..Tcp::default() });
    }
    assert_eq!((capture.extractor.flows(), capture.counters().flows_evicted_syn), (100, 899));
}

#[test]
fn silence_ends_a_connection() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits { flow_timeout: Duration::from_secs(30), ..at_once() });
    capture.stream(7, &[(0, &record[..100])]);
    capture.now += 31 * SECOND;
    capture.data(108, &record[100..]);
    assert!(capture.hellos.is_empty());
    assert_eq!((capture.counters().flows_expired, capture.counters().incomplete_hellos), (1, 1));
}

#[test]
fn one_timestamp_far_away_does_not_empty_the_table() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(at_once());
    for port in 1..=100 {
        capture.tcp(&Tcp { from: (1, port), seq: 7, flags: SYN, ..Tcp::default() });
    }
    let frame = sample::ethernet(&[], &sample::tcp_packet(&Tcp { from: (9, 9), flags: SYN, ..Tcp::default() }));
    capture.extractor.packet(&Frame::whole(i64::MAX, ETHERNET, &frame), &mut |_| {});
    for port in 1..=100 {
        capture.tcp(&Tcp { from: (1, port), seq: 8, payload: &record, ..Tcp::default() });
    }
    let with_syn = capture.hellos.iter().filter(|hello| hello.tcp.is_some()).count();
    assert_eq!((capture.hellos.len(), with_syn), (100, 98));
}

#[test]
fn established_connections_outlast_a_flood_of_syns() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits { max_flows: 100, ..at_once() });
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

#[test]
fn repetitions_do_not_go_on_for_ever() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits { max_segments: 300, ..at_once() });
    capture.stream(7, &[(0, &record[..1])]);
    for _ in 0..10 {
        for at in (10..100).step_by(2) {
            capture.data(8 + at, &record[at as usize..][..1]);
        }
    }
    assert_eq!((capture.counters().segment_exceeded_count, capture.extractor.buffered_bytes()), (1, 0));

    let (message, id) = (sample::chrome().message(), b"12345678");
    let frames: Vec<u8> = (0..100).flat_map(|n| quic::sample::crypto(10 + n % 7 * 2, &message[..1])).collect();
    let mut capture = Capture::new(Limits { max_segments: 50, ..at_once() });
    let whole = quic::sample::crypto(0, &message);
    capture.frame(101, &sample::udp_packet(&quic::sample::initial(0, 1, id, id, &[frames, whole].concat())));
    assert_eq!((capture.counters().segment_exceeded_count, capture.hellos.len()), (1, 0));

    let records = dtls::sample::records(&sample::chrome().dtls_body(b""), 0, 100);
    let mut capture = Capture::new(Limits { max_segments: 50, ..at_once() });
    capture.frame(101, &sample::udp_packet(&[records[1].repeat(49), records[0].clone(), records[2].clone()].concat()));
    assert_eq!((capture.counters().segment_exceeded_count, capture.hellos.len()), (1, 0));
}

/// A browser's hello with a post-quantum key share, in the smallest segments, in no order and twice.
#[test]
fn a_hello_of_usual_size_stays_within_the_limit_in_any_segments() {
    let mut spec = sample::chrome();
    spec.extensions.push((0x1234, vec![7; 2800]));
    let stream = spec.record();
    let places = (0..2).flat_map(|_| (1..stream.len()).map(|n| n * 7919 % stream.len()));
    let mut segments: Vec<(usize, &[u8])> = places.map(|at| (at, &stream[at..=at])).collect();
    segments.push((0, &stream[..1]));
    let mut capture = Capture::new(at_once());
    capture.stream(7, &segments);
    assert_eq!((capture.hellos.len(), stream.len() > 3000), (1, true));
}

#[test]
fn full_buffers_cost_those_that_fill_them() {
    let record = sample::chrome().record();
    let limits = Limits { max_buffered_bytes: 4000, ..at_once() };
    let mut capture = Capture::new(limits);
    let ack = |port: u16| Tcp { from: (1, port), seq: 8, flags: 0x10, ..Tcp::default() };
    for port in 0..50 {
        capture.tcp(&Tcp { from: (1, port), seq: 7, flags: SYN, ..Tcp::default() });
        capture.tcp(&ack(port));
    }
    // Connections whose hello is out and that hold what came behind a gap, then ones whose hello is not out.
    for port in 100..102 {
        capture.tcp(&Tcp { from: (1, port), seq: 8, payload: &record, ..Tcp::default() });
        let seq = 8 + record.len() as u32 + 50;
        capture.tcp(&Tcp { from: (1, port), seq, payload: &[20; 700], ..Tcp::default() });
    }
    for port in 200..202 {
        capture.tcp(&Tcp { from: (1, port), seq: 8, payload: &record[..200], ..Tcp::default() });
    }
    for port in 300..302 {
        capture.tcp(&Tcp { from: (1, port), seq: 8, payload: &[&record[..], &[22, 3, 1]].concat(), ..Tcp::default() });
        let seq = 8 + record.len() as u32 + 50;
        capture.tcp(&Tcp { from: (1, port), seq, payload: &[20; 900], ..Tcp::default() });
    }
    assert!(capture.counters().buffer_exceeded_count > 0 && capture.extractor.buffered_bytes() <= 4000);
    capture.hellos.clear();
    for port in (0..50).map(|port| (port, 0)).chain([(200, 200), (201, 200)]) {
        let (port, from) = port;
        capture.tcp(&Tcp { from: (1, port), seq: 8 + from, payload: &record[from as usize..], ..Tcp::default() });
    }
    assert_eq!(capture.hellos.len(), 52);
    assert_eq!(capture.hellos.iter().filter(|hello| hello.tcp.is_some()).count(), 50);
}

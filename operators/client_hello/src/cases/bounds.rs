//! Limits on memory, segments and time.

use super::*;

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

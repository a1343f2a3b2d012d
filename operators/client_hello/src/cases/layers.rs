//! What may stand around a hello: link and network layers, tunnels, text, QUIC and DTLS.

use super::*;

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
    let mut fragment = sample::tcp_packet(&Tcp { payload: &record[..204], ..Tcp::default() });
    fragment[6] = 0x20;
    capture.frame(101, &fragment);
    assert!(capture.extractor.buffered_bytes() > 0);
    capture.tcp(&Tcp { to: (2, 80), payload: &record, ..Tcp::default() });
    capture.frame(101, &sample::ipv4(17, 64, [1; 4], [2; 4], &[0; 8]));
    capture.frame(101, &sample::ipv4(1, 64, [1; 4], [2; 4], &[0; 8]));
    capture.frame(ETHERNET, &[0; 60]);
    capture.frame(9999, &[0; 60]);
    capture.frame(101, &[0x45, 0]);
    capture.extractor.packet(&Frame { wire_len: 60, ..Frame::whole(0, 101, &[0x45, 0]) }, &mut |_| {});
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
    capture
        .extractor
        .packet(&Frame { wire_len: frame.len() as u32, ..Frame::whole(0, 101, &frame[..300]) }, &mut |_| {});
    assert_eq!(capture.counters().truncated, 1);
    capture.now = 0;
    capture.data(8, &record);
    assert_eq!(capture.only_ja4(), JA4);
}

#[test]
fn behind_a_tunnel_or_plain_text() {
    let record = sample::chrome().record();
    let tunnels = sample::FRONTS.map(|front| (front, false));
    for (front, starttls) in tunnels.into_iter().chain([(&b"EHLO example.org\r\nSTARTTLS\r\n"[..], true)]) {
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

/// A web server's connection is watched for one request, and holds no more than the head that has not ended.
#[test]
fn plain_http_is_no_tunnel() {
    let record = sample::chrome().record();
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let mut capture = Capture::new(Limits::default());
    capture.stream(7, &[(0, request)]);
    assert_eq!((capture.counters().not_tls, capture.extractor.buffered_bytes()), (0, 0));
    let stream = [&request[..], request, &record].concat();
    capture.data(8 + request.len() as u32, &stream[request.len()..]);
    assert_eq!((capture.hellos.len(), capture.counters().not_tls), (0, 1));
    // No second request came; a head and a content that are too long.
    let long = [&b"GET / HTTP/1.1\r\nA: "[..], &[b'a'; 20_000]].concat();
    let content =
        [b"POST http://a.example/ HTTP/1.1\r\nContent-Length: 17000\r\n\r\n", &[b'a'; 17_000][..], &record].concat();
    for stream in [&request[..], &long, &content] {
        let mut capture = Capture::new(Limits::default());
        let segments: Vec<(usize, &[u8])> = stream.chunks(1400).enumerate().map(|(n, part)| (n * 1400, part)).collect();
        capture.stream(7, &segments);
        assert_eq!(capture.extractor.buffered_bytes(), 0);
        capture.extractor.finish(&mut |_| {});
        assert_eq!((capture.hellos.len(), capture.counters().not_tls), (0, 1));
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

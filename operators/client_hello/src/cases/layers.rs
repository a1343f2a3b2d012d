//! What may stand around a hello: link and network layers, tunnels, text, QUIC and DTLS.

use super::encapsulations::Encapsulated;
use super::*;

#[test]
fn every_encapsulation() {
    let record = sample::chrome().record();
    let segment = Tcp { payload: &record, ..Tcp::default() };
    for packet in [sample::tcp_packet(&segment), sample::ipv6(6, &sample::tcp(&segment))] {
        for Encapsulated { name, linktype, frame } in encapsulations::all(&packet) {
            let mut capture = Capture::new(Limits { tunnels: Tunnels::ALL, ..at_once() });
            capture.frame(linktype, &frame);
            assert_eq!(capture.only_ja4(), JA4, "{name}");
            assert!(is_supported(linktype));
        }
    }
}

#[test]
fn ipv6_extension_headers() {
    let record = sample::chrome().record();
    let tcp = sample::tcp(&Tcp { payload: &record, ..Tcp::default() });
    let options = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    let mut capture = Capture::new(at_once());
    capture.frame(101, &sample::ipv6(0, &[&options[..], &tcp].concat()));
    assert_eq!(capture.only_ja4(), JA4);
}

/// Frames that end in a layer, with nothing but GRE looked into.
fn undecoded(packet: &[u8]) -> Vec<(Layer, i32, Vec<u8>)> {
    let ethernet = encapsulations::ethernet;
    let gre = |header: &[u8]| encapsulations::over_ip(47, &[header, &[0x30; 40]]);
    let ip = |protocol: u8| encapsulations::over_ip(protocol, &[&[0x70; 40]]);
    let udp = |port: u16, header: &[u8]| encapsulations::over_udp(port, &[header, packet]);
    vec![
        (Layer::Ethertype, 1, ethernet(0x88b5, &[packet])),
        (Layer::Ethertype, 113, [&[0; 14], &[0x88, 0xb5][..], packet].concat()),
        (Layer::Llc, 1, ethernet(40, &[&[0x70, 0x70, 3], &[0; 40]])),
        (Layer::Llc, 1, ethernet(40, &[&[0xaa, 0xaa, 3, 1, 2, 3, 8, 0], &[0; 40]])),
        (Layer::Sgt, 1, ethernet(0x8909, &[&[2, 1, 0, 1, 0, 5, 8, 0], packet])),
        (Layer::Macsec, 1, ethernet(0x88e5, &[&[0x2c, 0, 0, 0, 0, 1], &[9; 60]])),
        (Layer::Nsh, 1, ethernet(0x894f, &[&[0x0f, 0xc2, 2, 99, 0, 0, 7, 0xff], packet])),
        (Layer::Mpls, 1, ethernet(0x8847, &[&[0, 1, 1, 64], &[0x90; 60]])),
        (Layer::Mpls, 1, ethernet(0x8847, &[&[0; 4].repeat(17), packet])),
        (Layer::Pppoe, 1, ethernet(0x8864, &[&[0x21, 0, 0, 7, 1, 1, 0, 0x21], packet])),
        (Layer::Ppp, 1, ethernet(0x8864, &[&[0x11, 0, 0, 7, 1, 1, 0, 0xfd], packet])),
        (Layer::Ppp, 9, [&[0xff, 3, 0, 0x2d][..], packet].concat()),
        (Layer::CiscoHdlc, 104, [&[0x0f, 0, 0, 1][..], packet].concat()),
        (Layer::CiscoHdlc, 50, [&[0x0f, 0, 0x12, 0x34][..], packet].concat()),
        (Layer::FrameRelay, 107, [&[0x18, 0x41, 3, 0x77][..], packet].concat()),
        (Layer::Nflog, 239, [&[7, 0, 0, 0, 44, 0, 9, 0][..], &[0; 40]].concat()),
        (Layer::Gre, 101, gre(&[0, 0, 0x12, 0x34])),
        (Layer::Gre, 101, gre(&[0x40, 0, 8, 0])),
        (Layer::Erspan, 101, gre(&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1])),
        (Layer::EtherIp, 101, ip(97)),
        (Layer::Esp, 101, ip(50)),
        (Layer::Esp, 101, udp(4500, &[1, 2, 3, 4, 0, 0, 0, 1])),
        (Layer::L2tp, 101, ip(115)),
        (Layer::L2tp, 101, udp(1701, &[0, 2, 0, 1, 0, 1])),
        (Layer::Vxlan, 101, udp(4789, &[8, 0, 0, 0, 0, 0, 7, 0])),
        (Layer::Vxlan, 101, udp(8472, &[8, 0, 0, 0, 0, 0, 7, 0])),
        (Layer::Vxlan, 101, udp(4790, &[0x0c, 0, 0, 1, 0, 0, 7, 0])),
        (Layer::Geneve, 101, udp(6081, &[0, 0, 8, 0, 0, 0, 7, 0])),
        (Layer::Tzsp, 101, udp(37008, &[1, 0, 0, 1, 1])),
        (Layer::Gtp, 101, udp(2152, &[0x30, 0xff, 0, 0, 0, 0, 0, 7])),
        (Layer::Wireguard, 101, encapsulations::over_udp(51820, &[&[4, 0, 0, 0], &[7; 60]])),
    ]
}

#[test]
fn what_is_not_understood_is_counted_by_name() {
    let packet = sample::tcp_packet(&Tcp { payload: &sample::chrome().record(), ..Tcp::default() });
    let frames = undecoded(&packet);
    let off = Tunnels { gre: false, ..Tunnels::default() };
    let hidden = [(4, Layer::IpInIp), (47, Layer::Gre), (97, Layer::EtherIp), (137, Layer::Mpls)]
        .map(|(protocol, layer)| (layer, 101, encapsulations::over_ip(protocol, &[&packet])));
    assert!(Layer::ALL.iter().all(|layer| frames.iter().chain(&hidden).any(|(of, ..)| of == layer)));
    for (tunnels, frames) in [(Tunnels::default(), &frames[..]), (off, &hidden)] {
        for (layer, linktype, frame) in frames {
            let mut capture = Capture::new(Limits { tunnels, ..at_once() });
            capture.frame(*linktype, frame);
            let counted: Vec<_> = capture.counters().iter().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [("packets_received", 1), (layer.counter(), 1)]);
        }
    }
}

#[test]
fn what_carries_no_ip_has_no_name() {
    let tagged = |kind: u16| encapsulations::ethernet(0x8100, &[&[0, 5], &kind.to_be_bytes(), &[0; 46]]);
    let frames = [
        (1, encapsulations::ethernet(0x0806, &[&[0; 46]])),
        (1, encapsulations::ethernet(0x88cc, &[&[0; 46]])),
        (1, tagged(0x0806)),
        // Spanning tree, CDP, PVST in a VLAN
        (1, encapsulations::ethernet(38, &[&[0x42, 0x42, 3], &[0; 43]])),
        (1, encapsulations::ethernet(38, &[&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0], &[0; 38]])),
        (1, encapsulations::ethernet(0x8100, &[&[0, 5, 0, 38, 0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b], &[0; 38]])),
        // PPPoE discovery; LCP; LMI
        (1, encapsulations::ethernet(0x8863, &[&[0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0], &[0; 36]])),
        (1, encapsulations::ethernet(0x8864, &[&[0x11, 0, 0, 7, 0, 10, 0xc0, 0x21], &[0; 40]])),
        (9, vec![0xff, 3, 0xc0, 0x21, 1, 1, 0, 4]),
        (107, vec![0, 1, 3, 8, 0, 0x75]),
        (101, encapsulations::over_ip(47, &[&[0, 0, 8, 6], &[0; 28]])),
        (101, encapsulations::over_udp(4789, &[&[8, 0, 0, 0, 0, 0, 7, 0], &tagged(0x0806)])),
    ];
    for (linktype, frame) in frames {
        let mut capture = Capture::new(Limits { tunnels: Tunnels::ALL, ..at_once() });
        capture.frame(linktype, &frame);
        assert_eq!(*capture.counters(), Counters { packets_received: 1, non_ip: 1, ..Counters::default() });
    }
}

#[test]
fn a_hello_to_the_port_of_a_tunnel_is_found() {
    let (message, id) = (sample::chrome().message(), b"12345678");
    let quic = quic::sample::initial(0, 1, id, id, &quic::sample::crypto(0, &message));
    for port in [4789, 8472, 4790, 6081, 37008, 2152, 1701, 4500, 51820] {
        for tunnels in [Tunnels::default(), Tunnels::ALL] {
            let mut capture = Capture::new(Limits { tunnels, ..at_once() });
            capture.frame(101, &encapsulations::over_udp(port, &[&quic]));
            assert_eq!(capture.hellos.len(), 1, "{port}");
        }
    }
}

#[test]
fn what_is_not_looked_at_is_counted() {
    let record = sample::chrome().record();
    let mut capture = Capture::new(Limits { ports: vec![8443, 443], ..at_once() });
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
    let mut capture = Capture::new(at_once());
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
            let mut capture = Capture::new(Limits { starttls, ..at_once() });
            capture.stream(7, &segments);
            assert_eq!(capture.only_ja4(), JA4);
            let mut capture = Capture::new(at_once());
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
    let mut capture = Capture::new(at_once());
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
        let mut capture = Capture::new(at_once());
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
        let mut capture = Capture::new(at_once());
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
        let mut capture = Capture::new(at_once());
        for datagram in datagrams.iter().chain(&datagrams) {
            capture.frame(101, &sample::udp_packet(datagram));
        }
        let [hello] = &capture.hellos[..] else { panic!("{:?}", capture.counters()) };
        assert_eq!((hello.transport, hello.ja4.chars().next(), &hello.tcp), (transport, Some(first), &None));
        assert_eq!((hello.syn_to_clienthello_ms, hello.ip.ttl), (None, 64));
    }
}

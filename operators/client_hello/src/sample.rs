//! Builds hellos and packets for tests.

use super::tls::extension;

/// A ClientHello to be.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub legacy_version: u16,
    pub ciphers: Vec<u16>,
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// What clients of proxies send before a hello.
pub(crate) const FRONTS: [&[u8]; 12] = [
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"CONNECT a.example:443 HTTP/1.0\n\n",
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\n\r\n",
    // Refused with 407, and again.
    b"CONNECT a.example:443 HTTP/1.1\r\n\r\nCONNECT a.example:443 HTTP/1.1\r\nProxy-Authorization: Basic YTpi\r\n\r\n",
    b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\nCONNECT a.example:443 HTTP/1.1\r\n\r\n",
    b"POST http://b.example/ HTTP/1.1\r\nContent-Length: 9\r\n\r\n\n\nCONNECTCONNECT a.example:443 HTTP/1.1\n\n",
    b"POST http://b.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\x16\x03\x01\x00\r\n1\na\n0\r\n\r\n\
      HEAD http://b.example/ HTTP/1.1\n\nCONNECT a.example:443 HTTP/1.1\r\n\r\n",
    b"GET /proxy.pac HTTP/1.1\r\nHost: proxy.example\r\n\r\nCONNECT a.example:443 HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\nCONNECT a.example:443 HTTP/1.1\r\n\r\n",
    &[5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 1, 187],
    &[4, 1, 1, 187, 192, 0, 2, 1, b'u', 0],
];

/// The hello of a Chrome, with GREASE: `t13d1516h2_8daaf6152771_e5627efa2ab1`.
pub(crate) fn chrome() -> Spec {
    let name = b"example.org";
    let sni = [&[0, name.len() as u8 + 3, 0, 0, name.len() as u8][..], name].concat();
    let mut spec = Spec {
        legacy_version: 0x0303,
        ciphers: vec![
            0x6a6a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
            0x009d, 0x002f, 0x0035,
        ],
        extensions: vec![
            (0x2a2a, vec![]),
            (0x0000, sni),
            (0x0017, vec![]),
            (0xff01, vec![0]),
            (0x000a, vec![0, 8, 0x3a, 0x3a, 0, 29, 0, 23, 0, 24]),
            (0x000b, vec![1, 0]),
            (0x0023, vec![]),
            (0x0010, alpn(&[b"h2", b"http/1.1"])),
            (0x0005, vec![1, 0, 0, 0, 0]),
            (0x000d, vec![]),
            (0x0012, vec![]),
            (0x0033, vec![0x11; 43]),
            (0x002d, vec![1, 1]),
            (0x002b, vec![6, 0x8a, 0x8a, 3, 4, 3, 3]),
            (0x001b, vec![2, 0, 2]),
            (0x4469, vec![0, 3, 2, b'h', b'2']),
            (0x5a5a, vec![0]),
            (0x0015, vec![0; 60]),
        ],
    };
    spec.algorithms(&[0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601]);
    spec
}

/// The hello of a Chrome from 152 on, with one more GREASE value, `grease`, among its signature algorithms:
/// `t13d1517h2_8daaf6152771_cb7bf5808d99`.
pub(crate) fn chrome_152(grease: u16) -> Spec {
    let mut spec = chrome();
    spec.extensions.retain(|(kind, _)| !matches!(kind, 0x4469 | 0x0015));
    spec.extensions.extend([0x44cd, 0xfe0d, 0xca34].map(|kind| (kind, vec![0])));
    spec.algorithms(&[grease, 0x0904, 0x0905, 0x0906, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601]);
    spec
}

/// A hello with an extension of each type that tls-parser looks into.
pub(crate) fn every_extension() -> Spec {
    let share = [&[0, 36, 0, 29, 0, 32][..], &[0x33; 32]].concat();
    let given: [(u16, &[u8]); 26] = [
        (0x0000, &[0, 9, 0, 0, 6, b'a', b'.', b't', b'e', b's', b't']),
        (0x0001, &[4]),
        (0x0005, &[1, 0, 0, 0, 0]),
        (0x000a, &[0, 6, 0x11, 0xec, 0, 29, 0, 23]),
        (0x000b, &[2, 0, 1]),
        (0x000d, &[0, 4, 4, 3, 8, 4]),
        (0x000f, &[1]),
        (0x0010, &[0, 3, 2, b'h', b'2']),
        (0x0012, &[]),
        (0x0015, &[0; 9]),
        (0x0016, &[]),
        (0x0017, &[]),
        (0x001c, &[0x40, 1]),
        (0x0023, &[7; 20]),
        (0x002a, &[]),
        (0x002b, &[2, 3, 4]),
        (0x002c, &[0, 2, 1, 1]),
        (0x002d, &[1, 1]),
        (0x0030, &[0, 0]),
        (0x0031, &[]),
        (0x0033, &share),
        (0x3374, &[]),
        (0xfe0d, &[0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9]),
        (0xff01, &[0]),
        (0xffce, &[0x13, 1, 0, 29, 0, 1, 1, 0, 1, 2, 0, 1, 3]),
        (0x0029, &[0, 7, 0, 1, 1, 0, 0, 0, 0, 0, 3, 2, 1, 1]),
    ];
    let extensions = given.iter().map(|(kind, content)| (*kind, content.to_vec())).collect();
    Spec { extensions, ..chrome() }
}

/// The content of an ALPN extension.
pub(crate) fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| [&[name.len() as u8], *name].concat()).collect();
    [&(list.len() as u16).to_be_bytes()[..], &list].concat()
}

fn pairs(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

impl Spec {
    /// Replaces the content of `signature_algorithms`.
    pub(crate) fn algorithms(&mut self, values: &[u16]) {
        let content = [pairs(&[values.len() as u16 * 2]), pairs(values)].concat();
        for extension in &mut self.extensions {
            if extension.0 == extension::SIGNATURE_ALGORITHMS {
                extension.1.clone_from(&content);
            }
        }
    }

    /// The message without its handshake header.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = pairs(&[self.legacy_version]);
        body.extend([0x5c; 32]);
        body.push(32);
        body.extend([0xc5; 32]);
        body.extend(pairs(&[self.ciphers.len() as u16 * 2]));
        body.extend(pairs(&self.ciphers));
        body.extend([1, 0]);
        let mut list = Vec::new();
        for (kind, content) in &self.extensions {
            list.extend(pairs(&[*kind, content.len() as u16]));
            list.extend(content);
        }
        body.extend((list.len() as u16).to_be_bytes());
        body.extend(list);
        body
    }

    /// The body of a DTLS message with this cookie.
    pub(crate) fn dtls_body(&self, cookie: &[u8]) -> Vec<u8> {
        let mut body = self.body();
        let at = 35 + usize::from(body[34]);
        body.splice(at..at, [&[cookie.len() as u8][..], cookie].concat());
        body
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let body = self.body();
        let len = (body.len() as u32).to_be_bytes();
        [&[1, len[1], len[2], len[3]][..], &body].concat()
    }

    /// The message in one record.
    pub(crate) fn record(&self) -> Vec<u8> {
        in_records(&self.message(), 1)
    }
}

/// Handshake bytes in so many records of about equal size.
pub(crate) fn in_records(message: &[u8], records: usize) -> Vec<u8> {
    message.chunks(message.len().div_ceil(records)).flat_map(|part| record(22, part)).collect()
}

/// A TLS record.
pub(crate) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u16).to_be_bytes();
    [&[kind, 3, 1, len[0], len[1]][..], content].concat()
}

/// A TCP segment to be, from 10.0.0.1 to 10.0.0.2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tcp<'a> {
    pub from: (u8, u16),
    pub to: (u8, u16),
    pub seq: u32,
    pub flags: u8,
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

impl Default for Tcp<'_> {
    fn default() -> Self {
        Self { from: (1, 40_000), to: (2, 443), seq: 0, flags: 0x18, options: &[], payload: &[] }
    }
}

/// A captured SYN.
pub(crate) fn syn() -> crate::flow::Syn {
    let segment = crate::Segment { seq: 0, ack: 0, flags: 2, window: 0, options: &[], payload: &[], bytes: &[] };
    let ip = crate::IpMeta { ttl: 64, total_length: Some(40), id: Some(0), df: Some(true) };
    let options = crate::tcp::SynOptions::of(&segment);
    crate::flow::Syn { time: 0, ip, options, checksum: crate::checksum::Checksum::Open }
}

/// A packet at time 0.
pub(crate) fn arrival() -> crate::hello::Arrival {
    let ip = crate::IpMeta { ttl: 64, total_length: Some(40), id: Some(0), df: Some(true) };
    crate::hello::Arrival { time: 0, ip, origin: 0, order: 0, group: 0, interface: 0 }
}

/// A UDP datagram from 10.0.0.1:40000 to 10.0.0.2:443 as an IPv4 packet.
pub(crate) fn udp_packet(payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let datagram = [&pairs(&[40_000, 443, len, 0])[..], payload].concat();
    ipv4(17, 64, [10, 0, 0, 1], [10, 0, 0, 2], &datagram)
}

/// TCP header and payload.
pub(crate) fn tcp(tcp: &Tcp<'_>) -> Vec<u8> {
    let mut packet = pairs(&[tcp.from.1, tcp.to.1]);
    packet.extend(tcp.seq.to_be_bytes());
    packet.extend([0, 0, 0, 1, ((20 + tcp.options.len()) / 4 * 16) as u8, tcp.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    packet.extend(tcp.options);
    packet.extend(tcp.payload);
    packet
}

/// The same as an IPv4 packet.
pub(crate) fn tcp_packet(segment: &Tcp<'_>) -> Vec<u8> {
    ipv4(6, 64, [10, 0, 0, segment.from.0], [10, 0, 0, segment.to.0], &tcp(segment))
}

/// An IPv4 packet.
pub(crate) fn ipv4(protocol: u8, ttl: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    let header = [0x45, 0, len[0], len[1], 0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0];
    [&header[..], &src, &dst, payload].concat()
}

/// An IPv6 packet.
pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    let header = [0x60, 0, 0, 0, len[0], len[1], next, 57];
    [&header[..], &[0x20; 16], &[0x30; 16], payload].concat()
}

/// An Ethernet frame around an IPv4 packet, behind VLAN tags of these EtherTypes.
pub(crate) fn ethernet(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(pairs(&[*tag, 7]));
    }
    frame.extend([8, 0]);
    frame.extend(packet);
    frame
}

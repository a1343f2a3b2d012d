//! The seeds of `examples/fuzz.rs`.

use super::*;

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
    let header = quic::sample::Header { key_id: id, dcid: id, ..quic::sample::Header::default() };
    let whole_initial =
        |header: &quic::sample::Header<'_>| sample::udp_packet(&header.around(&quic::sample::crypto(0, &message)));
    let retried = quic::sample::Header { key_id: b"retried!", dcid: b"retried!", token: b"token", ..header };
    let whole = tcp(8, &record);
    let fragments = [(0usize, 200usize), (200, whole.len() - 20)].map(|(from, to)| {
        let mut part = sample::ipv4(6, 64, [10, 0, 0, 1], [10, 0, 0, 2], &whole[20 + from..20 + to]);
        part[6..8].copy_from_slice(&((if from == 0 { 0x2000 } else { 0 }) | (from / 8) as u16).to_be_bytes());
        part
    });
    let six = sample::ipv6(0, &[&[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0][..], &whole[20..]].concat());
    let frame = sample::ethernet(&[0x8100], &whole);
    // Reassembly with as many gaps as pieces.
    let record_of = [&record[..], &[0; 700]].concat();
    let gaps = |count: usize, seq: usize| (1..count).rev().map(move |n| seq + 2 * n);
    let tcp_gaps: Vec<Vec<u8>> = gaps(300, 8).map(|seq| tcp(seq as u32, &record_of[seq - 8..][..1])).collect();
    let parts = gaps(300, 0).map(|eighths| {
        let mut part = sample::ipv4(6, 64, [10, 0, 0, 1], [10, 0, 0, 2], &[0; 8]);
        part[6..8].copy_from_slice(&(0x2000 | eighths as u16).to_be_bytes());
        part
    });
    let frame_gaps = |datagram: usize| -> Vec<u8> {
        let frame = |n: usize| {
            let [high, low] = ((1 + 2 * (datagram * 232 + n)) as u16 | 0x4000).to_be_bytes();
            [6, high, low, 1, 0]
        };
        (0..232).flat_map(frame).collect()
    };
    let protected = |n: usize| sample::udp_packet(&quic::sample::initial(n as u32, 1, id, id, &frame_gaps(n)));
    let quic_gaps: Vec<Vec<u8>> = (0..34).map(protected).collect();
    let crypto_frames = [(300, message.len()), (0, 100), (50, 200), (150, 301)]
        .map(|(from, to)| quic::sample::crypto(from, &message[from..to]))
        .concat();
    let body = spec.dtls_body(b"");
    let dtls_gaps = dtls::sample::records(&body, 0, 1).into_iter().step_by(2).skip(1).collect::<Vec<_>>();
    // One frame in each encapsulation of a linktype.
    let encapsulated = |linktype: i32, packet: &[u8]| -> Vec<Vec<u8>> {
        let all = encapsulations::all(packet).into_iter().filter(|case| case.linktype == linktype);
        all.map(|case| case.frame).collect()
    };
    let bare = Spec { legacy_version: 0x0301, ciphers: vec![], extensions: vec![] };
    let bodies = [spec.clone(), sample::chrome_152(0x3a3a), sample::every_extension(), bare];
    let mut seeds: Vec<(&str, i32, Vec<Vec<u8>>)> = vec![
        ("packet/gaps", 101, [vec![syn.clone()], tcp_gaps].concat()),
        ("packet/parts", 101, parts.collect()),
        ("quic/gaps", 101, quic_gaps),
        // LINKTYPE_USER0: what the packets protect.
        ("quic/frames", 147, vec![crypto_frames, [quic::sample::crypto(0, &message), vec![2, 5, 0, 1, 0, 0]].concat()]),
        ("quic/frame_gaps", 147, (0..34).map(frame_gaps).collect()),
        ("dtls/gaps", 101, vec![sample::udp_packet(&dtls_gaps.concat())]),
        (
            "packet/tcp",
            101,
            vec![syn.clone(), tcp(208, &record[200..]), tcp(8, &record[..200]), tcp(8, &record[..200])],
        ),
        ("tls/records", 101, vec![syn.clone(), tcp(8, &sample::in_records(&message, 7))]),
        ("tls/retry", 101, vec![syn.clone(), whole.clone(), tcp(8 + record.len() as u32, &record)]),
        ("packet/vlan", 1, vec![sample::ethernet(&[0x88a8, 0x8100], &whole)]),
        ("packet/ipv6", 101, vec![six]),
        ("packet/fragments", 101, fragments.to_vec()),
        ("packet/gre", 101, vec![sample::ipv4(47, 64, [1; 4], [2; 4], &[&[0, 0, 8, 0][..], &whole].concat())]),
        ("packet/vxlan", 101, vec![over_udp(4789, &[8, 0, 0, 0, 0, 0, 7, 0], &frame)]),
        ("packet/geneve", 101, vec![over_udp(6081, &[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4], &frame)]),
        ("tls/connect", 101, behind(sample::FRONTS[0])),
        ("tls/connect_lf", 101, behind(sample::FRONTS[2])),
        ("tls/proxy", 101, behind(sample::FRONTS[5])),
        ("tls/proxy_chunks", 101, behind(sample::FRONTS[6])),
        ("tls/upgrade", 101, behind(sample::FRONTS[8])),
        ("tls/socks", 101, behind(&[5, 2, 0, 2, 1, 1, b'u', 2, b'p', b'w', 5, 1, 0, 3, 2, b'a', b'b', 1, 187])),
        ("tls/starttls", 101, behind(b"EHLO example.org\r\nSTARTTLS\r\n")),
        // LINKTYPE_USER1 and LINKTYPE_USER2: bodies of messages of TLS and of DTLS.
        ("differential/tls", 148, bodies.map(|spec| spec.body()).to_vec()),
        ("differential/dtls", 149, vec![spec.dtls_body(b""), sample::every_extension().dtls_body(b"cookie")]),
        ("quic/quic", 101, initial(1)),
        ("quic/quic2", 101, initial(quic::sample::V2)),
        ("quic/quic2_draft", 101, initial(quic::sample::V2_DRAFT_01)),
        ("quic/fixed_bit", 101, vec![whole_initial(&quic::sample::Header { fixed_bit: false, ..header })]),
        ("quic/retry", 101, vec![whole_initial(&header), whole_initial(&retried)]),
        (
            "dtls/dtls",
            101,
            dtls::sample::records(&spec.dtls_body(b"cookie"), 1, 100).iter().map(|d| sample::udp_packet(d)).collect(),
        ),
    ];
    for (name, linktype) in [
        ("packet/ethernet", 1),
        ("packet/tunnels", 101),
        ("packet/ppp", 9),
        ("packet/ppp_hdlc", 50),
        ("packet/pppoe", 51),
        ("packet/cisco_hdlc", 104),
        ("packet/frame_relay", 107),
        ("packet/sll", 113),
        ("packet/nflog", 239),
        ("packet/sll2", 276),
    ] {
        seeds.push((name, linktype, encapsulated(linktype, &whole)));
    }
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

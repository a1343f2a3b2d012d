//! What does a packet cost that is made to be expensive? Each kind builds up gaps in one reassembly and then repeats
//! itself; the cost of a packet is set beside that of the same packets without the build-up.
//!
//!     cargo run --release --example hostile

use std::path::Path;
use std::time::{Duration, Instant};

use client_hello::{Counters, Frame, HelloExtractor, Limits};

/// LINKTYPE_RAW: frames begin with the IP header.
const RAW: i32 = 101;
/// Pieces with gaps between them: just below `Limits::max_segments`.
const GAPS: usize = 8000;
/// Repetitions that are timed: few enough that no limit on segments is met, and many.
const REPEATED: [usize; 2] = [150, 1000];

/// Time for one figure.
const LONGEST: Duration = Duration::from_millis(500);

fn main() {
    let hello_start = [0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xf0, 3, 3];
    let tcp: Vec<Vec<u8>> = (0..=GAPS).rev().map(|n| segment(40_000, 2 * n as u32, &hello_start[..1])).collect();
    kind("TCP, one byte a segment", &tcp, &tcp[1..]);

    let parts: Vec<Vec<u8>> = (1..GAPS / 2).map(|n| fragment(7, 2 * n, &[0; 8])).collect();
    kind("IP fragments of 8 bytes", &parts, &parts);
    let parts: Vec<Vec<u8>> = (1..GAPS).map(|n| fragment(7, n, &[0; 1])).collect();
    kind("IP fragments of 1 byte", &parts, &parts);

    let dtls = |from: usize, count: usize| {
        let records = (from..from + count).flat_map(|n| dtls_record(60_000, 1 + 2 * n, &[0]));
        udp(40_000, 443, &records.collect::<Vec<u8>>())
    };
    let datagrams: Vec<Vec<u8>> = (0..GAPS / 50).map(|n| dtls(n * 50, 50)).collect();
    kind("DTLS, 50 fragments a datagram", &datagrams, &datagrams);
    kind("DTLS, 2000 fragments a datagram", &datagrams, &[dtls(0, 2000)]);

    // Made by the unit test that writes the seeds, because it takes the keys to protect the packets.
    let quic = frames(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/quic/gaps.pcap"));
    kind("QUIC, 200 CRYPTO frames a datagram", &quic, &quic);

    let initials = |port: u16, count: usize| {
        let initial = |n: usize| [&[0xc3, 0, 0, 0, 1, 8][..], &n.to_be_bytes(), &[0, 0, 21], &[0; 21]].concat();
        udp(port, 443, &(0..count).flat_map(initial).collect::<Vec<u8>>())
    };
    kind("QUIC, keys that open nothing", &quic[..1], &[initials(40_001, 1)]);
    kind("QUIC, 8 such packets, known ports", &quic[..1], &[initials(40_000, 8)]);

    let mut connect = b"CONNECT ".to_vec();
    connect.resize(GAPS, b'a');
    let bytes: Vec<Vec<u8>> = connect.chunks(1).enumerate().map(|(n, byte)| segment(40_000, n as u32, byte)).collect();
    kind("HTTP CONNECT in 1-byte segments", &bytes[..1], &bytes[1..]);
    let head = b"POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked: Vec<u8> = [&head[..], &b"1\r\na\r\n".repeat(GAPS / 6)].concat();
    let bytes: Vec<Vec<u8>> = chunked.chunks(1).enumerate().map(|(n, byte)| segment(40_000, n as u32, byte)).collect();
    kind("HTTP chunks of a byte, 1-byte segments", &bytes[..1], &bytes[1..]);
    let tiny: Vec<u8> = [&[1, 0, 0x2a, 0, 3, 3][..], &[0; 10_742]].concat();
    let stream: Vec<u8> = tiny.iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    let parts: Vec<Vec<u8>> =
        stream.chunks(12).enumerate().map(|(n, part)| segment(40_000, 12 * n as u32, part)).collect();
    kind("one byte a record, 2 records a segment", &parts[..1], &parts[1..]);
}

/// Times `repeated` behind `built`, and alone.
fn kind(name: &str, built: &[Vec<u8>], repeated: &[Vec<u8>]) {
    print!("{name:40}");
    for times in REPEATED {
        let packets = repeated.iter().cycle().take(if built.len() > 1 { times } else { repeated.len() });
        let mut extractor = opened();
        let alone = nanoseconds(&mut extractor, repeated.iter().take(1).cycle().take(times));
        let mut extractor = opened();
        nanoseconds(&mut extractor, built.iter());
        let behind = nanoseconds(&mut extractor, packets);
        let Counters { segment_exceeded_count, fragments_incomplete, malformed, .. } = extractor.counters();
        print!(
            " | {behind:9.0} ns, first alone {alone:6.0} ns, given up {}",
            segment_exceeded_count + fragments_incomplete + malformed
        );
    }
    println!();
}

fn opened() -> HelloExtractor {
    let mut extractor = HelloExtractor::new(Limits::default());
    let mut syn = segment(40_000, u32::MAX, &[]);
    syn[33] = 2;
    extractor.packet(&Frame::whole(0, RAW, &syn), &mut |_| {});
    extractor
}

fn nanoseconds<'a>(extractor: &mut HelloExtractor, frames: impl Iterator<Item = &'a Vec<u8>>) -> f64 {
    let (begun, mut count) = (Instant::now(), 0);
    for frame in frames {
        extractor.packet(&Frame::whole(0, RAW, frame), &mut |hello| drop(std::hint::black_box(hello)));
        count += 1;
        if begun.elapsed() > LONGEST {
            break;
        }
    }
    begun.elapsed().as_nanos() as f64 / f64::from(count.max(1))
}

fn ip(protocol: u8, place: u16, payload: &[u8]) -> Vec<u8> {
    let [l1, l2] = (20 + payload.len() as u16).to_be_bytes();
    let [p1, p2] = place.to_be_bytes();
    let header = [0x45, 0, l1, l2, 0, 7, p1, p2, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], payload].concat()
}

/// A segment whose payload is `offset` bytes into the stream.
fn segment(port: u16, offset: u32, payload: &[u8]) -> Vec<u8> {
    let ([a, b], [s1, s2, s3, s4]) = (port.to_be_bytes(), offset.to_be_bytes());
    let header = [a, b, 1, 187, s1, s2, s3, s4, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0, 0, 0, 0, 0];
    ip(6, 0, &[&header[..], payload].concat())
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let numbers = [from, to, 8 + payload.len() as u16, 0].map(u16::to_be_bytes).concat();
    ip(17, 0, &[&numbers[..], payload].concat())
}

/// A fragment `eighths` times 8 bytes into its packet, with more to come.
fn fragment(id: u8, eighths: usize, payload: &[u8]) -> Vec<u8> {
    let mut packet = ip(17, 0x2000 | eighths as u16, payload);
    packet[5] = id;
    packet
}

/// A record with one fragment of a ClientHello.
fn dtls_record(len: usize, offset: usize, part: &[u8]) -> Vec<u8> {
    let number = |value: usize| [(value >> 16) as u8, (value >> 8) as u8, value as u8];
    let mut record = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12 + part.len() as u8, 1];
    record.extend(number(len));
    record.extend([0, 0]);
    record.extend(number(offset));
    record.extend(number(part.len()));
    record.extend(part);
    record
}

/// The frames of a pcap file in this machine's byte order; none if it is not there.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap_or_default();
    let (mut at, mut frames) = (24, Vec::new());
    while let Some(header) = file.get(at + 8..).and_then(|rest| rest.first_chunk::<4>()) {
        let len = u32::from_le_bytes(*header) as usize;
        frames.extend(file.get(at + 16..at + 16 + len).map(<[u8]>::to_vec));
        at += 16 + len;
    }
    frames
}

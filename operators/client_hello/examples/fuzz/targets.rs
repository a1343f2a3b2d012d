//! What is mutated, and how it becomes packets again.

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::{Array, BlockCipherEncrypt};
use hkdf::Hkdf;
use sha2::Sha256;

use super::cases::{Case, Random, damage, rearrange};

const LINKTYPES: [i32; 14] = [1, 0, 9, 12, 50, 51, 101, 104, 107, 108, 113, 239, 276, 147];
/// LINKTYPE_RAW: frames begin with the IP header.
const RAW: i32 = 101;
/// LINKTYPE_USER0: the payloads of Initial packets, unprotected.
const PLAIN: i32 = 147;

/// LINKTYPE_USER1 and LINKTYPE_USER2: the bodies of ClientHello messages of TLS and of DTLS.
pub const BODIES: [i32; 2] = [148, 149];

/// A part of the crate that is fuzzed by itself.
#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    /// A case made of one of the seeds.
    pub mutate: fn(&[Case], &mut Random) -> Case,
}

pub const TARGETS: [Target; 5] = [
    Target { name: "packet", mutate: packet },
    Target { name: "tls", mutate: tls },
    Target { name: "quic", mutate: quic },
    Target { name: "dtls", mutate: dtls },
    Target { name: "differential", mutate: differential },
];

fn packet(seeds: &[Case], random: &mut Random) -> Case {
    let seed = random.pick(seeds);
    let mut case = seed.clone();
    if seed.linktype == RAW && random.one_in(500) {
        // Many pieces with gaps between them: by TCP's sequence number, or the offset of a fragment.
        let frame = random.pick(&seed.frames).clone();
        let (at, width) = if random.one_in(2) { (24, 4) } else { (4 + 2, 2) };
        let (step, count) = (1 + random.below(4), 2000 + random.below(4000));
        case.roomy = true;
        case.frames.extend((0..count).rev().map(|n| stepped(&frame, at, width, n * step)));
        case.frames.extend_from_within(seed.frames.len()..);
    } else {
        rearrange(&mut case.frames, &frames(seeds), random);
    }
    damage(&mut case.frames, 80, random);
    if random.one_in(20) {
        case.linktype = *random.pick(&LINKTYPES);
    }
    case
}

/// The frame with `by` added to the number of `width` bytes at `at`.
fn stepped(frame: &[u8], at: usize, width: usize, by: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some(field) = frame.get_mut(at..at + width) else { return frame };
    let number = field.iter().fold(0, |number: usize, byte| number << 8 | usize::from(*byte)).wrapping_add(by);
    field.copy_from_slice(&number.to_be_bytes()[8 - width..]);
    frame
}

fn tls(seeds: &[Case], random: &mut Random) -> Case {
    let seed = random.pick(seeds);
    let data = |seed: &Case| seed.frames.iter().filter_map(|frame| tcp_data(frame)).collect::<Vec<_>>();
    let mut parts = data(seed);
    rearrange(&mut parts, &seeds.iter().map(data).collect::<Vec<_>>(), random);
    damage(&mut parts, 80, random);
    let mut stream = parts.concat();
    let hostile = random.one_in(200);
    if hostile {
        let byte = random.next() as u8;
        stream.resize(16_000 + random.below(48_000), byte);
    }
    // Segments: small or large, perhaps with gaps, in any order, perhaps twice.
    let size = if hostile { 1 + random.below(3) } else { 1 + random.below(stream.len() + 1) };
    let step = if random.one_in(3) { size + 1 } else { size };
    let mut places: Vec<usize> = (0..stream.len()).step_by(step).collect();
    match random.below(3) {
        0 => places.reverse(),
        1 => random.shuffle(&mut places),
        _ => {}
    }
    if hostile || random.one_in(3) {
        places.extend_from_within(..);
    }
    let isn = random.next() as u32;
    let mut frames = vec![segment(isn, 2, &[])];
    frames.extend(places.iter().map(|at| {
        let end = stream.len().min(at + size);
        segment(isn.wrapping_add(1 + *at as u32), 0x18, &stream[*at..end])
    }));
    Case { stream: Some(stream), roomy: hostile, ..Case::of(RAW, frames) }
}

fn quic(seeds: &[Case], random: &mut Random) -> Case {
    let seed = random.pick(seeds);
    let plain = seed.linktype == PLAIN;
    let of_kind: Vec<Case> = seeds.iter().filter(|other| other.linktype == seed.linktype).cloned().collect();
    let mut parts = if plain { seed.frames.clone() } else { payloads(std::slice::from_ref(seed), 28).concat() };
    let others = if plain { frames(&of_kind) } else { payloads(&of_kind, 28) };
    rearrange(&mut parts, &others, random);
    damage(&mut parts, if plain { usize::MAX } else { 60 }, random);
    if plain && random.one_in(4) {
        // Several packets in a datagram, as many as fit into one put together from fragments.
        let all: Vec<u8> = parts.concat().into_iter().take(60_000).collect();
        parts = vec![all];
    }
    let repeated = 1 + usize::from(random.one_in(4));
    let mut frames = Vec::new();
    for number in 0..parts.len() * repeated {
        let part = &parts[number % parts.len()];
        let id = if random.one_in(50) { *b"another!" } else { *b"12345678" };
        frames.push(udp(&if plain { protected(number as u32, &id, part) } else { part.clone() }));
    }
    Case { roomy: plain, ..Case::of(RAW, frames) }
}

fn dtls(seeds: &[Case], random: &mut Random) -> Case {
    let all = payloads(seeds, 28);
    let mut parts = random.pick(&all).clone();
    rearrange(&mut parts, &all, random);
    let hostile = random.one_in(100);
    if hostile {
        // Many fragments with gaps between them, twice. Of a record's bytes 14 to 16 are the message's length, 19 to 21
        // the fragment's offset.
        let fragment = stepped(&[&parts[0][..], &[0; 26]].concat()[..26], 14, 3, 40_000);
        let fragment = [&fragment[..11], &[0, 13], &fragment[13..22], &[0, 0, 1], &fragment[25..]].concat();
        let step = 2 + random.below(3);
        let datagram = |n: usize| (n * 2000..(n + 1) * 2000).rev().flat_map(|n| stepped(&fragment, 19, 3, n * step));
        parts.extend((0..6).map(|n| datagram(n % 3).collect()));
    }
    damage(&mut parts, 40, random);
    Case { roomy: hostile, ..Case::of(RAW, parts.iter().map(|part| udp(part)).collect()) }
}

fn differential(seeds: &[Case], random: &mut Random) -> Case {
    let seed = random.pick(seeds);
    let mut body = random.pick(&seed.frames).clone();
    // Half of them with extensions changed one by one, so that the lengths around them stay right.
    if random.one_in(2)
        && let Some(at) = list_at(&body, seed.linktype == BODIES[1])
        && let Some(mut parts) = extensions(&body[at + 2..])
    {
        let of = |body: &Vec<u8>| extensions(&body[list_at(body, seed.linktype == BODIES[1])? + 2..]);
        let others: Vec<_> = seed.frames.iter().filter_map(of).collect();
        rearrange(&mut parts, &others, random);
        damage(&mut parts, 6, random);
        let list: Vec<u8> = parts
            .iter()
            .filter(|part| part.len() >= 2)
            .flat_map(|part| [&part[..2], &((part.len() - 2) as u16).to_be_bytes(), &part[2..]].concat())
            .collect();
        body.truncate(at);
        body.extend((list.len() as u16).to_be_bytes());
        body.extend(list);
    }
    let mut parts = vec![body];
    if random.one_in(2) {
        damage(&mut parts, 60, random);
    }
    Case::of(seed.linktype, parts)
}

/// Where the length of the extension list stands in a body.
fn list_at(body: &[u8], dtls: bool) -> Option<usize> {
    let mut at = 35 + usize::from(*body.get(34)?);
    if dtls {
        at += 1 + usize::from(*body.get(at)?);
    }
    at += 2 + usize::from(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    at += 1 + usize::from(*body.get(at)?);
    body.get(at..at + 2).map(|_| at)
}

/// Type and content of each extension of a list.
fn extensions(mut list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while let Some(head) = list.first_chunk::<4>() {
        let end = 4 + usize::from(u16::from_be_bytes([head[2], head[3]]));
        parts.push([&head[..2], list.get(4..end)?].concat());
        list = &list[end..];
    }
    (!parts.is_empty()).then_some(parts)
}

fn frames(seeds: &[Case]) -> Vec<Vec<Vec<u8>>> {
    seeds.iter().map(|seed| seed.frames.clone()).collect()
}

/// What follows `headers` bytes in the frames of each seed.
fn payloads(seeds: &[Case], headers: usize) -> Vec<Vec<Vec<u8>>> {
    let of = |seed: &Case| seed.frames.iter().map(|frame| frame.get(headers..).unwrap_or_default().to_vec()).collect();
    seeds.iter().map(of).collect()
}

/// The data of a TCP segment in an IPv4 packet, if there is any.
fn tcp_data(packet: &[u8]) -> Option<Vec<u8>> {
    let data = packet.get(20 + usize::from(packet.get(32)? >> 4) * 4..)?;
    (!data.is_empty()).then(|| data.to_vec())
}

fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len().min(65_515) as u16).to_be_bytes();
    let header = [0x45, 0, high, low, 0, 7, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], payload].concat()
}

fn segment(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, d] = seq.to_be_bytes();
    let header = [0x9c, 0x40, 1, 0xbb, a, b, c, d, 0, 0, 0, 1, 0x50, flags, 0xff, 0, 0, 0, 0, 0];
    ip(6, &[&header[..], payload].concat())
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let header = [40_000, 443, len, 0].map(u16::to_be_bytes).concat();
    ip(17, &[&header[..], payload].concat())
}

/// An Initial packet of version 1 (RFC 9001 section 5) around these frames.
fn protected(number: u32, id: &[u8; 8], frames: &[u8]) -> Vec<u8> {
    const SALT: &[u8] = b"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a";
    let secret: [u8; 32] = expand(&Hkdf::new(Some(SALT), id), b"client in");
    let client = Hkdf::from_prk(&secret).expect("a secret of 32 bytes");
    let payload = [frames, &[0; 4]].concat();
    let mut header = vec![0xc3, 0, 0, 0, 1, 8];
    header.extend(id);
    header.extend([0, 0]);
    header.extend((0x8000_0000 | (payload.len() + 20) as u32).to_be_bytes());
    let number_at = header.len();
    header.extend(number.to_be_bytes());
    let mut nonce: [u8; 12] = expand(&client, b"quic iv");
    header[number_at..].iter().zip(&mut nonce[8..]).for_each(|(byte, nonce)| *nonce ^= byte);
    let mut sealed = payload;
    let cipher = Aes128Gcm::new(&Array(expand::<16>(&client, b"quic key")));
    let nonce = Nonce::<Aes128Gcm>::from(nonce);
    let tag: Tag<Aes128Gcm> =
        cipher.encrypt_inout_detached(&nonce, &header, InOutBuf::from(&mut sealed[..])).expect("sealed");
    let mut packet = [&header[..], &sealed, &tag].concat();
    let mut mask = Array(*packet[number_at + 4..].first_chunk::<16>().expect("a sample"));
    Aes128::new(&Array(expand::<16>(&client, b"quic hp"))).encrypt_block(&mut mask);
    packet[0] ^= mask[0] & 0x0f;
    (0..4).for_each(|at| packet[number_at + at] ^= mask[1 + at]);
    packet
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand<const LEN: usize>(secret: &Hkdf<Sha256>, label: &[u8]) -> [u8; LEN] {
    let mut out = [0; LEN];
    let head = [0, LEN as u8, 6 + label.len() as u8];
    secret.expand_multi_info(&[&head, b"tls13 ", label, &[0]], &mut out).expect("a short key");
    out
}

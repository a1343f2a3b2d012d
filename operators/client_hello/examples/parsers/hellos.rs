//! Hellos to measure with, and the packets that carry them.

use std::collections::HashMap;

use client_hello::tls::{self, Outcome};

/// Ethernet, IPv4 and TCP headers without options.
const HEADERS: usize = 14 + 20 + 20;
/// Bytes of a TCP segment on Ethernet, with timestamps.
const SEGMENT: usize = 1448;
const RECORD_AND_MESSAGE_HEADER: usize = 9;

/// The bodies of the ClientHellos that begin the TCP streams of a capture of Ethernet frames, as far as their segments come
/// in order and each hello is in one record.
pub fn of_capture(file: &[u8]) -> Vec<Vec<u8>> {
    let mut streams: HashMap<Vec<u8>, (u32, Vec<u8>)> = HashMap::new();
    let (mut at, mut bodies) = (24, Vec::new());
    while let Some(header) = file.get(at + 8..).and_then(|rest| rest.first_chunk::<4>()) {
        let len = u32::from_le_bytes(*header) as usize;
        let Some(frame) = file.get(at + 16..at + 16 + len) else { break };
        at += 16 + len;
        let Some((key, seq, payload)) = segment(frame) else { continue };
        let (next, stream) = streams.entry(key).or_insert((seq, Vec::new()));
        if *next == seq && stream.len() < 1 << 14 {
            *next = seq.wrapping_add(payload.len() as u32);
            stream.extend_from_slice(payload);
            if let Outcome::Hello(_, end) = tls::client_hello(stream, &mut Vec::new(), 1 << 14)
                && let Some(body) = stream.get(RECORD_AND_MESSAGE_HEADER..end)
            {
                bodies.push(body.to_vec());
                (*next, *stream) = (0, Vec::new());
            }
        }
    }
    bodies
}

/// Addresses and ports, sequence number and data of a TCP segment that has data.
fn segment(frame: &[u8]) -> Option<(Vec<u8>, u32, &[u8])> {
    let ip = frame.get(14..)?;
    let (addresses, tcp) = match (frame.get(12..14)?, *ip.first()?) {
        ([8, 0], first) if *ip.get(9)? == 6 => {
            let len = usize::from(u16::from_be_bytes(*ip.get(2..)?.first_chunk()?));
            (ip.get(12..20)?, ip.get(usize::from(first & 15) * 4..len)?)
        }
        ([0x86, 0xdd], _) if *ip.get(6)? == 6 => (ip.get(8..40)?, ip.get(40..)?),
        _ => return None,
    };
    let payload = tcp.get(usize::from(*tcp.get(12)? >> 4) * 4..)?;
    let seq = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
    (!payload.is_empty()).then(|| ([addresses, &tcp[..4]].concat(), seq, payload))
}

/// The frames of a connection that carries a hello: SYN, SYN/ACK, the hello in segments, a part of the answer.
pub fn connection(number: usize, body: &[u8]) -> Vec<Vec<u8>> {
    let len = (body.len() as u32 + 4).to_be_bytes();
    let message = (body.len() as u32).to_be_bytes();
    let record = [&[22, 3, 1, len[2], len[3], 1], &message[1..], body].concat();
    let client = |seq: u32, flags: u8, payload: &[u8]| frame(number, false, seq, flags, payload);
    let mut frames = vec![client(7, 2, &[]), frame(number, true, 99, 0x12, &[])];
    let parts = record.chunks(SEGMENT).enumerate();
    frames.extend(parts.map(|(n, part)| client(8 + (n * SEGMENT) as u32, 0x18, part)));
    frames.push(frame(number, true, 100, 0x18, &[&[22, 3, 3, 0, 90, 2][..], &[0; 1200]].concat()));
    frames
}

fn frame(number: usize, answer: bool, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let client = [&[10][..], &(number as u32).to_be_bytes()[1..]].concat();
    let (server, from, to) = ([192, 0, 2, 1], 40_000_u16, 443_u16);
    let len = ((HEADERS - 14 + payload.len()) as u16).to_be_bytes();
    let ip = [&[0x45, 0, len[0], len[1], 0, 7, 0x40, 0, 64, 6, 0, 0][..]];
    let tcp = [&seq.to_be_bytes()[..], &[0, 0, 0, 1, 0x50, flags, 0xff, 0, 0, 0, 0, 0]].concat();
    let addresses = if answer { [&server[..], &client] } else { [&client[..], &server] }.concat();
    let ports = if answer { [to, from] } else { [from, to] }.map(u16::to_be_bytes).concat();
    [&[2; 12], &[8, 0][..], ip[0], &addresses, &ports, &tcp, payload].concat()
}

//! How fast are hellos found, and in how much memory? A pcap file of Ethernet frames, read in one go beforehand, one thread.
//!
//!     cargo run --release --example throughput -- FILE [ROUNDS]

use std::time::Instant;

use client_hello::{Frame, HelloExtractor, Limits};

/// As the engine has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("a pcap file");
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let file = std::fs::read(&path).expect("the file is readable");
    for _ in 0..rounds {
        let (begun, worked) = (Instant::now(), cpu());
        let mut extractor = HelloExtractor::new(Limits::default());
        let (mut at, mut most, mut hellos) = (24, 0, 0_u64);
        while let Some(header) = file.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
            let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let len = number(8) as usize;
            let Some(frame) = file.get(at + 16..at + 16 + len) else { break };
            let time = i64::from(number(0)) * 1_000_000_000 + i64::from(number(4)) * 1000;
            extractor.packet(&Frame { wire_len: number(12), ..Frame::whole(time, 1, frame) }, &mut |hello| {
                std::hint::black_box(hello);
                hellos += 1;
            });
            most = most.max(extractor.buffered_bytes());
            at += 16 + len;
        }
        let flows = extractor.flows();
        // What still waits is work that was put off.
        extractor.finish(&mut |hello| {
            std::hint::black_box(hello);
            hellos += 1;
        });
        let (seconds, worked) = (begun.elapsed().as_secs_f64(), cpu() - worked);
        let counters = extractor.counters();
        println!(
            "{:.0} MB per second of CPU, {} packets, {hellos} hellos in {worked:.3} s of CPU, {seconds:.3} s in all; {flows} flows, {most} bytes buffered at most",
            file.len() as f64 / 1e6 / worked,
            counters.packets_received,
        );
    }
}

/// Seconds of CPU that this thread has used, by Linux: other work on the machine does not count.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0.0) / 1e9
}

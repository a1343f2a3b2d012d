//! Fuzzes the parsers on a stable toolchain: mutates kept seeds, without coverage, and reports the input that fails.
//!
//!     cargo run --release --example fuzz -- [SECONDS [SEED [TARGET…]]]
//!
//! Targets share the seconds; all of them if none is named:
//!
//! | target | what is mutated |
//! |---|---|
//! | `packet` | frames of every linktype: link, IP, fragments, tunnels, TCP |
//! | `tls` | the stream of a TCP client, its segments and their order; [`client_hello::fingerprint`] beside |
//! | `quic` | the frames in Initial packets, which are protected afterwards, and the packets |
//! | `dtls` | datagrams |
//! | `differential` | the bodies of ClientHello messages, which tls-parser has to read alike |
//!
//! A panic ends the run with the mutated frames as pcap in `fuzz/failures`, and so does memory above the extractor's
//! bound, a case that takes longer than its bytes allow, or a difference that `second.rs` does not list. Seeds are the pcap
//! files in `fuzz/seeds/TARGET`; what made a failure is added there.

mod cases;
#[path = "../parsers/second.rs"]
mod second;
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

use client_hello::{Frame, HelloExtractor, Limits, Tunnels};

use self::cases::{Case, Random, pcap, seeds};
use self::second::Verdict;
use self::targets::{BODIES, TARGETS, Target};

const MAX_BUFFERED: usize = 200_000;
/// Fragments have bounds of their own: of packets that are not complete, and of those that were.
const MAX_FRAGMENTS: usize = 12 << 20;

/// Time that a case may take: so much, and so much for each of its bytes. The dearest bytes are those of short packets
/// that look like QUIC, for which keys are derived (about 100 ns a byte); a walk over all pieces at each of them takes more.
const FIXED: Duration = Duration::from_millis(2);
const NANOSECONDS_PER_BYTE: u64 = 300;
/// Another process can take the time away: a case that took more than this share of its time is tried so often, and the
/// least counts.
const CERTAINLY_FAST: f64 = 0.3;
const SLOW_TIMES: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60.0);
    let seed = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let names: Vec<String> = arguments.collect();
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target.name)).collect();
    assert!(!chosen.is_empty(), "targets are packet, tls, quic, dtls, differential");
    for target in &chosen {
        fuzz(target, Duration::from_secs_f64(seconds / chosen.len() as f64), seed);
    }
}

fn fuzz(target: &Target, time: Duration, seed: u64) {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let seeds = seeds(&home.join("seeds").join(target.name));
    assert!(!seeds.is_empty(), "no seeds for {} in {}", target.name, home.display());
    let mut random = Random(seed);
    let (end, mut runs, mut packets, mut hellos) = (Instant::now() + time, 0_u64, 0, 0);
    let mut slowest = 0.0_f64;
    while Instant::now() < end {
        let case = (target.mutate)(&seeds, &mut random);
        let result = std::panic::catch_unwind(|| {
            let (mut hellos, mut least) = (0, f64::INFINITY);
            for _ in 0..SLOW_TIMES {
                let begun = Instant::now();
                hellos = try_case(&case);
                least = least.min(begun.elapsed().as_secs_f64() / allowed(&case).as_secs_f64());
                if least <= CERTAINLY_FAST {
                    break;
                }
            }
            assert!(least <= 1.0, "took {least:.1} times as long as {} bytes may", case.bytes());
            (hellos, least)
        });
        match result {
            Ok((found, took)) => (hellos, slowest) = (hellos + found, slowest.max(took)),
            Err(_) => {
                let path = home.join("failures").join(format!("{}-seed-{seed}-run-{runs}.pcap", target.name));
                let _ = std::fs::create_dir_all(home.join("failures"));
                std::fs::write(&path, pcap(&case)).expect("the failure is written");
                eprintln!("failed after {runs} runs: {}", path.display());
                std::process::exit(1);
            }
        }
        runs += 1;
        packets += case.frames.len();
    }
    println!(
        "{}, seed {seed}: {runs} runs, {packets} packets, {hellos} hellos, no panic, no growth; the slowest took {:.0} % of its time",
        target.name,
        slowest * 100.0
    );
}

fn allowed(case: &Case) -> Duration {
    FIXED + Duration::from_nanos(case.bytes() as u64 * NANOSECONDS_PER_BYTE)
}

fn try_case(case: &Case) -> u64 {
    let limits = Limits {
        max_flows: 16,
        max_buffered_bytes: if case.roomy { 4 << 20 } else { MAX_BUFFERED },
        max_hello_bytes: if case.roomy { 64 << 10 } else { 20_000 },
        tunnels: Tunnels::ALL,
        starttls: true,
        ..Limits::default()
    };
    let bound = limits.max_buffered_bytes + MAX_FRAGMENTS;
    let mut extractor = HelloExtractor::new(limits);
    for (at, frame) in case.frames.iter().enumerate() {
        extractor.packet(&Frame::whole(at as i64 * 1000, case.linktype, frame), &mut |hello| {
            std::hint::black_box((hello.values.raw(), hello.values.hashed_original()));
        });
        assert!(extractor.buffered_bytes() <= bound && extractor.flows() <= 16);
    }
    if let Some(stream) = &case.stream {
        let _ = client_hello::fingerprint(stream);
    }
    let mut hellos = extractor.counters().hellos;
    if let Some(dtls) = BODIES.iter().position(|linktype| *linktype == case.linktype) {
        for body in &case.frames {
            match second::compare(body, dtls == 1) {
                Ok(verdict) => hellos += u64::from(verdict != Verdict::Neither),
                Err(difference) => panic!("{difference}"),
            }
        }
    }
    extractor.finish(&mut |_| {});
    assert_eq!((extractor.flows(), extractor.counters().packets_received), (0, case.frames.len() as u64));
    hellos
}

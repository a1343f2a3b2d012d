//! Fuzzes the parsers on a stable toolchain: mutates kept seeds, without coverage, and reports the input that fails.
//!
//!     cargo run --release --example fuzz -- [SECONDS [SEED [TARGET...]]]
//!
//! Targets, each for so many seconds: `packet` changes the headers of all seeds (link, IP, fragments, tunnels, TCP, UDP), and
//! their linktype; `tls`, `quic` and `dtls` change what the seeds of that protocol carry behind these headers. All go through
//! [`HelloExtractor`], those of `tls` through [`client_hello::fingerprint`] too. A panic ends the run with the mutated frames as
//! pcap in `fuzz/failures`; memory above the extractor's bound does as well. Seeds are the pcap files in `fuzz/seeds`; what made
//! a failure is added there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client_hello::{HelloExtractor, Limits, Tunnels};

const LINKTYPES: [i32; 8] = [1, 0, 12, 101, 108, 113, 276, 147];
const MAX_BUFFERED: usize = 200_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let seed = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let seeds = seeds(&home.join("seeds"));
    assert!(!seeds.is_empty(), "no seeds in {}", home.display());
    let chosen: Vec<String> = arguments.collect();
    for name in &chosen {
        assert!(TARGETS.iter().any(|target| target.name == name), "no target {name}");
    }
    for target in TARGETS.iter().filter(|target| chosen.is_empty() || chosen.iter().any(|name| name == target.name)) {
        fuzz(target, &home, &seeds, seconds, seed);
    }
}

/// What is changed, and in which seeds.
struct Target {
    name: &'static str,
    /// Names of seeds begin with one of these; none given, all.
    seeds: &'static [&'static str],
    /// Bytes from which on frames are changed, and up to which.
    from: usize,
    upto: usize,
}

/// In the seeds, which have no link layer, IPv4 and TCP without options have 40 bytes, IPv4 and UDP 28.
const TARGETS: [Target; 4] = [
    Target { name: "packet", seeds: &[], from: 0, upto: 80 },
    Target { name: "tls", seeds: &["tcp", "records", "connect", "socks", "starttls"], from: 40, upto: usize::MAX },
    Target { name: "quic", seeds: &["quic", "retry"], from: 28, upto: usize::MAX },
    Target { name: "dtls", seeds: &["dtls"], from: 28, upto: usize::MAX },
];

/// Mutates for so many seconds; ends the process at the first failure.
fn fuzz(target: &Target, home: &Path, all: &[(String, Case)], seconds: u64, seed: u64) {
    let own = |name: &str| target.seeds.is_empty() || target.seeds.iter().any(|seed| name.starts_with(seed));
    let seeds: Vec<&Case> = all.iter().filter(|(name, _)| own(name)).map(|(_, case)| case).collect();
    assert!(!seeds.is_empty(), "no seeds for {}", target.name);
    let mut random = Random(seed);
    let (end, mut runs, mut packets, mut hellos) = (Instant::now() + Duration::from_secs(seconds), 0_u64, 0, 0);
    while Instant::now() < end {
        let case = mutated(target, &seeds, &mut random);
        match std::panic::catch_unwind(|| try_case(&case)) {
            Ok(found) => hellos += found,
            Err(_) => {
                let path = home.join("failures").join(format!("{}-seed-{seed}-run-{runs}.pcap", target.name));
                let _ = std::fs::create_dir_all(home.join("failures"));
                std::fs::write(&path, pcap(&case)).expect("the failure is written");
                eprintln!("{} failed after {runs} runs: {}", target.name, path.display());
                std::process::exit(1);
            }
        }
        runs += 1;
        packets += case.frames.len();
    }
    println!("{}, seed {seed}: {runs} runs, {packets} packets, {hellos} hellos, no panic, no growth", target.name);
}

/// Frames of one linktype.
struct Case {
    linktype: i32,
    frames: Vec<Vec<u8>>,
}

fn try_case(case: &Case) -> u64 {
    let limits = Limits {
        max_flows: 16,
        max_buffered_bytes: MAX_BUFFERED,
        max_hello_bytes: 20_000,
        tunnels: Tunnels { gre: true, vxlan: true, geneve: true },
        starttls: true,
        ..Limits::default()
    };
    let mut extractor = HelloExtractor::new(limits);
    for (at, frame) in case.frames.iter().enumerate() {
        extractor.packet(at as i64 * 1_000_000, case.linktype, frame, frame.len() as u32, &mut |hello| {
            std::hint::black_box((hello.values.raw(), hello.values.hashed_original()));
        });
        // Fragments have a bound of their own.
        assert!(extractor.buffered_bytes() <= MAX_BUFFERED + (9 << 20) && extractor.flows() <= 16);
        for start in [0, 20, 40, 54, 66] {
            let _ = client_hello::fingerprint(frame.get(start..).unwrap_or_default());
        }
    }
    let hellos = extractor.counters().hellos;
    extractor.finish();
    assert_eq!(extractor.flows(), 0);
    hellos
}

/// A seed with some of its bytes, lengths, order and number of frames changed.
fn mutated(target: &Target, seeds: &[&Case], random: &mut Random) -> Case {
    const INTERESTING: [u8; 12] = [0, 1, 2, 3, 4, 0x0f, 0x16, 0x40, 0x7f, 0x80, 0xfe, 0xff];
    let seed = seeds[random.below(seeds.len())];
    let mut frames = seed.frames.clone();
    for _ in 0..random.below(4) {
        let (a, b) = (random.below(frames.len()), random.below(frames.len()));
        match random.below(4) {
            0 => frames.swap(a, b),
            1 => frames.insert(b, frames[a].clone()),
            2 if frames.len() > 1 => drop(frames.remove(a)),
            _ => {
                let other = &seeds[random.below(seeds.len())].frames;
                frames.insert(b, other[random.below(other.len())].clone());
            }
        }
    }
    for _ in 0..=random.below(8) {
        let at = random.below(frames.len());
        let frame = &mut frames[at];
        let upto = frame.len().min(target.upto);
        if upto <= target.from {
            continue;
        }
        // Half of the changes hit what comes first, where lengths are.
        let reach = if random.below(2) == 0 { upto.min(target.from + 80) } else { upto };
        let place = target.from + random.below(reach - target.from);
        match random.below(6) {
            0 => frame[place] ^= 1 << random.below(8),
            1 => frame[place] = random.next() as u8,
            2 => frame[place] = INTERESTING[random.below(INTERESTING.len())],
            3 => frame.truncate(place),
            4 => {
                let piece = frame[place..frame.len().min(place + random.below(64))].to_vec();
                frame.splice(place..place, piece);
            }
            _ => drop(frame.drain(place..frame.len().min(place + random.below(32)))),
        }
    }
    let linktype = if target.from == 0 && random.below(20) == 0 {
        LINKTYPES[random.below(LINKTYPES.len())]
    } else {
        seed.linktype
    };
    Case { linktype, frames }
}

/// A small generator (SplitMix64): equal runs for equal seeds.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn seeds(folder: &Path) -> Vec<(String, Case)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    let named = |path: &PathBuf| Some((path.file_name()?.to_str()?.to_owned(), read(&std::fs::read(path).ok()?)?));
    paths.iter().filter_map(named).filter(|(_, case)| !case.frames.is_empty()).collect()
}

/// A pcap file in this machine's byte order.
fn read(file: &[u8]) -> Option<Case> {
    let number = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?));
    let (linktype, mut at, mut frames) = (number(20)? as i32, 24, Vec::new());
    while let Some(len) = number(at + 8) {
        frames.push(file.get(at + 16..at + 16 + len as usize)?.to_vec());
        at += 16 + len as usize;
    }
    Some(Case { linktype, frames })
}

fn pcap(case: &Case) -> Vec<u8> {
    let mut file = Vec::new();
    for number in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, case.linktype as u32] {
        file.extend(number.to_le_bytes());
    }
    for (at, frame) in case.frames.iter().enumerate() {
        for number in [at as u32, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(number.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

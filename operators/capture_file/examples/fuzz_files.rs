//! Fuzzes the reader on a stable toolchain: mutates kept seeds, without coverage, and reports the input that fails.
//!
//!     cargo run --release --example fuzz_files -- [SECONDS [SEED]]
//!
//! Bytes of the seeds in `fuzz/seeds` are changed, also before they are compressed. A panic ends the run with the input in
//! `fuzz/failures`, and so does memory above the bounds, a case that takes longer than its bytes allow, or one that reads
//! differently in small pieces.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use capture_file::{CaptureFile, MAX_BLOCK, MAX_INTERFACES, MAX_PACKET, MAX_WINDOW};

/// Time that a case may take: so much, and so much for each byte of it and of what it becomes.
const FIXED: Duration = Duration::from_millis(5);
const NANOSECONDS_PER_BYTE: u64 = 100;
/// Another process can take the time away: a slow case is tried so often, and the least counts.
const SLOW_TIMES: usize = 5;

/// Bytes held for what was read: a block while its buffer grows, and interfaces with their names.
const MAX_HELD: usize = 2 * MAX_BLOCK + MAX_INTERFACES * 400;
/// Memory of the process.
const MAX_RESIDENT: u64 = (MAX_HELD + MAX_WINDOW + (64 << 20)) as u64;

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

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// Hands out few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.1.min(into.len());
        self.0.read(&mut into[..bytes])
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(10.0, |text| text.parse().expect("seconds"));
    let seed = arguments.next().map_or(1, |text| text.parse().expect("a seed"));
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut paths: Vec<_> = std::fs::read_dir(home.join("seeds")).expect("seeds").flatten().map(|e| e.path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).expect("readable")).collect();
    let mut random = Random(seed);
    let (end, mut runs, mut packets, mut whole, mut slowest) =
        (Instant::now() + Duration::from_secs_f64(seconds), 0_u64, 0, 0, 0.0_f64);
    while Instant::now() < end {
        let case = mutated(&seeds, &mut random);
        let piece = 1 + random.below(40);
        match std::panic::catch_unwind(|| tried(&case, piece)) {
            Ok((found, is_whole, took)) => {
                (packets, whole, slowest) = (packets + found, whole + u64::from(is_whole), slowest.max(took));
            }
            Err(_) => {
                let path = home.join("failures").join(format!("seed-{seed}-run-{runs}"));
                std::fs::create_dir_all(home.join("failures")).expect("made");
                std::fs::write(&path, &case).expect("the failure is written");
                eprintln!("failed after {runs} runs: {}", path.display());
                std::process::exit(1);
            }
        }
        runs += 1;
    }
    println!(
        "capture_file, seed {seed}: {runs} runs, {packets} packets, {whole} of the files whole, no panic, {} MiB of memory at most; \
         the slowest took {:.0} % of its time",
        resident() >> 20,
        slowest * 100.0
    );
}

/// Packets, whether the file ends as it should, and what part of its time was taken.
fn tried(case: &[u8], piece: usize) -> (u64, bool, f64) {
    let (packets, whole, hash, position) = read(case);
    let again = read(Slow(case, piece));
    assert_eq!(whole, again.1, "it is whole or not in pieces of {piece}");
    // A decompressor drops what it had when it comes to a fault, which depends on the pieces.
    if whole || !matches!(case, [0x1f, ..] | [0x28, ..] | [0x50..=0x5f, ..] | [0xfd, ..]) {
        assert_eq!((packets, hash), (again.0, again.2), "it reads differently in pieces of {piece}");
    }
    let allowed = FIXED + Duration::from_nanos((case.len() as u64 + position) * NANOSECONDS_PER_BYTE);
    let mut least = f64::INFINITY;
    for _ in 0..SLOW_TIMES {
        let begun = Instant::now();
        read(case);
        least = least.min(begun.elapsed().as_secs_f64() / allowed.as_secs_f64());
        if least < 0.5 {
            break;
        }
    }
    assert!(least <= 1.0, "took {least:.1} times as long as {} bytes may", case.len());
    assert!(resident() < MAX_RESIDENT, "{} bytes of memory", resident());
    (packets, whole, least)
}

/// Packets, whether there is no error, a hash of it all, and how many bytes the capture has.
fn read(input: impl Read) -> (u64, bool, u64, u64) {
    let mut hasher = DefaultHasher::new();
    let mut file = match CaptureFile::new(input) {
        Ok(file) => file,
        Err(error) => {
            error.to_string().hash(&mut hasher);
            return (0, false, hasher.finish(), 0);
        }
    };
    let (mut packets, mut whole) = (0, true);
    loop {
        match file.next_record() {
            Ok(Some(record)) => {
                assert!(record.data.len() <= MAX_PACKET);
                (record.time, record.linktype, record.wire_len, record.interface_name, record.data).hash(&mut hasher);
                packets += 1;
            }
            Ok(None) => break,
            Err(error) => {
                error.to_string().hash(&mut hasher);
                whole = false;
            }
        }
        assert!(file.held_bytes() <= MAX_HELD, "{} bytes held", file.held_bytes());
    }
    (packets, whole, hasher.finish(), file.position())
}

/// The most memory that the process has had, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    if random.one_in(8) {
        let other = &seeds[random.below(seeds.len())];
        let (at, from) = (random.below(bytes.len() + 1), random.below(other.len()));
        bytes.splice(at..at, other[from..].iter().copied());
    }
    for _ in 0..random.below(6) {
        damage(&mut bytes, random);
    }
    match random.below(6) {
        0 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).expect("written");
            bytes = encoder.finish().expect("written");
        }
        1 => bytes = zstd::encode_all(&bytes[..], 1).expect("written"),
        _ => return bytes,
    }
    if random.one_in(2) {
        damage(&mut bytes, random);
    }
    bytes
}

/// Changes a place; as often as not a whole number.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    const NUMBERS: [u32; 14] = [0, 1, 2, 3, 4, 6, 12, 16, 28, 32, 0x0a0d_0d0a, 0x1a2b_3c4d, 0x7fff_ffff, u32::MAX];
    if bytes.is_empty() {
        return;
    }
    let place = random.below(bytes.len());
    let aligned = place & !3;
    match random.below(8) {
        0 => bytes[place] ^= 1 << random.below(8),
        1 => bytes[place] = random.next() as u8,
        2 => bytes.truncate(place),
        3 => drop(bytes.drain(place..bytes.len().min(place + random.below(32)))),
        4 => {
            let piece = bytes[aligned..bytes.len().min(aligned + random.below(256))].to_vec();
            bytes.splice(aligned..aligned, piece.iter().copied().cycle().take(piece.len() * random.below(20)));
        }
        5 if bytes.len() >= aligned + 4 => {
            let number = NUMBERS[random.below(NUMBERS.len())];
            let number = if random.one_in(3) { number.to_be_bytes() } else { number.to_le_bytes() };
            bytes[aligned..aligned + 4].copy_from_slice(&number);
        }
        6 => bytes.extend((0..random.below(40)).map(|_| random.next() as u8).collect::<Vec<_>>()),
        _ => {
            let other = random.below(bytes.len());
            bytes.swap(place, other);
        }
    }
}

//! What would tls-parser cost in place of this crate's parser, and do both read the same?
//!
//!     cargo run --release --example parsers -- [FILE [ROUNDS]]
//!     valgrind --tool=callgrind target/release/examples/parsers FILE ROUNDS ours|tls-parser|packets|neither
//!
//! FILE is a capture of Ethernet frames; without one it is the recording of the demo. Each round parses all its hellos with
//! either, with and without fingerprints, one after the other, and gives them to an extractor in packets of their own. The third
//! argument runs only one of these, for counting instructions and allocations: subtract what `neither` takes.
//!
//! tls-parser is given an advantage: its result is not turned into the fields that are needed, and the fingerprints are made of
//! lists that are there already.

mod hellos;
mod second;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use client_hello::fingerprint::Transport;
use client_hello::tls::ClientHello;
use client_hello::{Fingerprint, Frame, HelloExtractor, Limits};

/// As in the engine's binary: tls-parser allocates, and how long that takes depends on the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hellos in the packets of a round.
const CONNECTIONS: usize = 5000;
/// Of the hellos that tls-parser gets beside the packets: few enough to stay in the cache, as the packet is for ours.
const WARM: usize = 128;

fn main() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/recording/demo/capture.pcap");
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().map_or(PathBuf::from(demo), PathBuf::from);
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(21);
    let bodies = hellos::of_capture(&std::fs::read(&path).expect("the file is readable"));
    assert!(!bodies.is_empty(), "no hello in {}", path.display());
    match arguments.next().as_deref() {
        None => measure(&bodies, rounds),
        Some("ours") => (0..rounds).for_each(|_| ours(&bodies)),
        Some("tls-parser") => (0..rounds).for_each(|_| theirs(&bodies)),
        Some("packets") => {
            let connections: Vec<_> = bodies.iter().enumerate().map(|(n, body)| hellos::connection(n, body)).collect();
            (0..rounds).for_each(|_| extract(&connections, &mut |_| {}));
        }
        Some(_) => println!("{} hellos", bodies.len()),
    }
}

fn ours(bodies: &[Vec<u8>]) {
    for body in bodies {
        black_box(ClientHello::parse(black_box(body)).ok());
    }
}

fn theirs(bodies: &[Vec<u8>]) {
    for body in bodies {
        black_box(second::parsed(black_box(body)).ok());
    }
}

fn measure(bodies: &[Vec<u8>], rounds: usize) {
    let verdicts: Vec<_> = bodies.iter().map(|body| second::compare(body, false)).collect();
    let equal = verdicts.iter().filter(|verdict| **verdict == Ok(second::Verdict::Equal)).count();
    let bytes = bodies.iter().map(Vec::len).sum::<usize>() / bodies.len();
    println!("{} hellos, {bytes} bytes on average, all fields equal in {equal}", bodies.len());
    verdicts.iter().filter_map(|verdict| verdict.as_ref().err()).for_each(|fault| println!("{fault}"));

    let parsed: Vec<ClientHello<'_>> = bodies.iter().filter_map(|body| ClientHello::parse(body).ok()).collect();
    let prints = || parsed.iter().for_each(|hello| drop(black_box(Fingerprint::of(black_box(hello), Transport::Tcp))));
    let of_round: Vec<&Vec<u8>> = bodies.iter().cycle().take(CONNECTIONS).collect();
    let connections: Vec<_> = of_round.iter().enumerate().map(|(n, body)| hellos::connection(n, body)).collect();
    let warm = &bodies[..bodies.len().min(WARM)];
    // Parsing takes so little that it is done several times.
    let times = CONNECTIONS.div_ceil(bodies.len());
    let mut nanoseconds = vec![Vec::new(); 6];
    for _ in 0..rounds {
        let mut time = |kind: usize, hellos: usize, work: &mut dyn FnMut()| {
            let begun = Instant::now();
            work();
            nanoseconds[kind].push(begun.elapsed().as_nanos() as f64 / hellos as f64);
        };
        let many = times * bodies.len();
        time(0, many, &mut || (0..times).for_each(|_| ours(bodies)));
        time(1, many, &mut || (0..times).for_each(|_| theirs(bodies)));
        time(2, many, &mut || (0..times).for_each(|_| (ours(bodies), prints()).1));
        time(3, many, &mut || (0..times).for_each(|_| (theirs(bodies), prints()).1));
        time(4, CONNECTIONS, &mut || extract(&connections, &mut |_| {}));
        time(5, CONNECTIONS, &mut || {
            extract(&connections, &mut |n| drop(black_box(second::parsed(&warm[n % warm.len()]))))
        });
    }
    let least = |kind: usize| nanoseconds[kind].iter().copied().fold(f64::INFINITY, f64::min);
    let ratios = |a: usize, b: usize, less: f64| {
        let pairs = nanoseconds[a].iter().zip(&nanoseconds[b]);
        median(pairs.map(|(a, b)| (b - less) / a).collect())
    };
    let row = |name: &str, a: usize, b: usize, less: f64| {
        println!("{name:28} {:7.0} {:11.0}   {:.2}", least(a), least(b) - less, ratios(a, b, less));
    };
    println!("nanoseconds a hello, least of {rounds} rounds; median of the rounds' ratios");
    println!("{:28} {:>7} {:>11}   ratio", "", "ours", "tls-parser");
    row("parse", 0, 1, 0.0);
    row("parse and fingerprints", 2, 3, 0.0);
    // Both parse in the second: ours is what is replaced.
    row("from packets to fingerprints", 4, 5, least(0));
}

/// Gives the packets of all connections to an extractor; `with` gets the number of each whose hello was found.
fn extract(connections: &[Vec<Vec<u8>>], with: &mut dyn FnMut(usize)) {
    const ETHERNET: i32 = 1;
    let mut extractor = HelloExtractor::new(Limits::default());
    for (number, frames) in connections.iter().enumerate() {
        for frame in frames {
            extractor.packet(&Frame::whole(number as i64 * 1000, ETHERNET, frame), &mut |hello| {
                drop(black_box(hello));
                with(number);
            });
        }
    }
    extractor.finish(&mut |_| {});
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

//! Fuzzes the parser of lines on a stable toolchain: mutates kept lines, without coverage, and shows the line that fails.
//!
//!     cargo build --workspace --example fuzz_lines && target/debug/examples/fuzz_lines [SECONDS [SEED]]
//!
//! A panic ends the run, and so does a line that takes longer than its bytes allow, or of which the parser remembers
//! something for the next one. Half of the lines are right but for one value with any bytes: of these all other values must
//! be right.

use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use operators::format::{Format, LineParser, Rows, Unit};

#[path = "fuzz_lines/servers.rs"]
mod servers;
#[path = "fuzz_lines/text.rs"]
mod text;

/// Lines as they come, good and bad.
const SEEDS: [&[u8]; 8] = [
    br#"{"timestamp":1795449599000000001,"src_ip":"192.0.2.1","src_port":40000,"host":"a\u00e9\ud83d\ude00","path":"/\x22","status_code":200,"has_cookie":true}"#,
    br#"{"time":"2026-11-23T15:35:27,143Z","src_ip":"[2001:db8::1]:443","src_port":"-","duration_ms":12.0,"header_User-Agent":"caf\xc3\xa9","new":[{"a":[1,-0.5E-2,null]}]}"#,
    br#"{"timestamp":"1795449599000000001","src_ip":"::ffff:192.0.2.9","query":1.10,"HEADER_ACCEPT":"","response_size":-,"x":{"y":{"z":"\\\"\/\b\f\n\r\t"}}}"#,
    br#"<190>Nov 23 15:35:27 host nginx: {"timestamp_ns":1795449599000000001,"src_ip":"fe80::1%eth0","host":12345678901234567890123,"host":null}"#,
    b"\0\0{\"timestamp\":1795449599000000001,\"src_ip\":\"192.0.2.1\",\"path\":\"\xff\xfe\ttab\"}\0",
    br#"192.0.2.1 - - [23/Nov/2026:15:35:27 +0000] "GET /{} HTTP/1.1" 200 5 "-" "{\x22at\x22:1}""#,
    br#"{"timestamp":"[23/Nov/2026:15:35:27 +0000]","src_ip":"192.0.2.1:5","status_code":"404, 200 : 200"}"#,
    br#"{"a":{"b":[[[[{"c":"\ud83d"}]]]]},"src_ip":"unix:","timestamp":1.5e400}"#,
];

/// Time that a line may take: so much, and so much for each byte of it. The least of several tries counts.
const FIXED: Duration = Duration::from_micros(500);
const NANOSECONDS_PER_BYTE: u64 = 500;
const TRIES: usize = 5;

/// The wall clock of the parser: 2026-11-23T16:00:00Z.
const NOW: i64 = 1_795_449_600_000_000_000;

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

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(10.0, |text| text.parse().expect("seconds"));
    let seed = arguments.next().map_or(1, |text| text.parse().expect("a seed"));
    let mut random = Random(seed);
    let mut parser = LineParser::new(Format::reqin_log(Unit::Ns), NOW);
    let mut texts = text::parsers();
    let mut of_servers = servers::parsers();
    let (end, mut runs, mut rows, mut repaired) =
        (Instant::now() + Duration::from_secs_f64(seconds), 0_u64, 0_u64, 0_u64);
    while Instant::now() < end {
        let value = random.bytes(24);
        let is_right = random.below(2) == 0;
        let line = if is_right { around(&value) } else { mutated(&mut random) };
        let tried = std::panic::AssertUnwindSafe(|| {
            let row = parsed(&mut parser, &line);
            assert_eq!(row, parsed(&mut LineParser::new(Format::reqin_log(Unit::Ns), NOW), &line), "it was remembered");
            if is_right {
                let row = row.as_ref().expect("a row");
                let text =
                    |name: &str| row.column_by_name(name).expect("a column").as_string::<i32>().value(0).to_owned();
                assert_eq!((text("src_ip"), text("path")), ("192.0.2.1".to_owned(), "/after".to_owned()));
                assert_eq!(text("host"), String::from_utf8_lossy(&value));
            }
            assert!(slowness(&mut parser, &line) <= 1.0, "slow");
            row.map(|row| row.column(row.num_columns() - 1).as_boolean().value(0))
        });
        // The same for a line of text.
        let nth = random.below(texts.len());
        let of_text = if is_right { text::around(&value) } else { text::mutated(&mut random) };
        let tried_text = std::panic::AssertUnwindSafe(|| {
            text::try_line(&mut texts, nth, &of_text, is_right.then_some(value.as_slice()));
        });
        if std::panic::catch_unwind(tried_text).is_err() {
            eprintln!("failed after {runs} runs: {}", of_text.escape_ascii());
            std::process::exit(1);
        }
        // And for one of a server in a syslog message.
        let nth = random.below(of_servers.len());
        let of_server = if is_right { servers::around(&value) } else { servers::mutated(&mut random) };
        let tried_server = std::panic::AssertUnwindSafe(|| {
            servers::try_line(&mut of_servers, nth, &of_server, is_right.then_some(value.as_slice()));
        });
        if std::panic::catch_unwind(tried_server).is_err() {
            eprintln!("failed after {runs} runs: {}", of_server.escape_ascii());
            std::process::exit(1);
        }
        match std::panic::catch_unwind(tried) {
            Ok(row) => (rows, repaired) = (rows + u64::from(row.is_some()), repaired + u64::from(row == Some(true))),
            Err(_) => {
                eprintln!("failed after {runs} runs: {}", line.escape_ascii());
                std::process::exit(1);
            }
        }
        runs += 1;
    }
    println!("lines, seed {seed}: {runs} runs, {rows} rows, {repaired} of them repaired, no panic");
}

fn parsed(parser: &mut LineParser, line: &[u8]) -> Option<RecordBatch> {
    let mut rows = Rows::new(&Format::reqin_log(Unit::Ns));
    rows.push(0, &parser.parse(line).ok()?);
    Some(rows.take().expect("rows fit"))
}

/// What part of its time a line takes.
fn slowness(parser: &mut LineParser, line: &[u8]) -> f64 {
    let allowed = FIXED + Duration::from_nanos(line.len() as u64 * NANOSECONDS_PER_BYTE);
    let mut least = f64::INFINITY;
    for _ in 0..TRIES {
        let begun = Instant::now();
        let _ = std::hint::black_box(parser.parse(line));
        least = least.min(begun.elapsed().as_secs_f64() / allowed.as_secs_f64());
        if least < 0.5 {
            break;
        }
    }
    least
}

/// A right line with this value of a client, of which a server escapes only what would end the string.
fn around(value: &[u8]) -> Vec<u8> {
    let mut line = br#"{"timestamp":1795449599000000001,"src_ip":"192.0.2.1","host":""#.to_vec();
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            line.push(b'\\');
        }
        line.push(*byte);
    }
    line.extend(br#"","path":"/after"}"#);
    line
}

fn mutated(random: &mut Random) -> Vec<u8> {
    mutated_of(random, &SEEDS, &[b"\\", b"\"", b"\\x", b"\\u", b"[", b"{\"a\":", b",", b"}", b"-", b"\0"])
}

/// One of the seeds with something changed, or with many of a piece in it.
fn mutated_of(random: &mut Random, seeds: &[&[u8]], pieces: &[&[u8]]) -> Vec<u8> {
    let mut line = seeds[random.below(seeds.len())].to_vec();
    for _ in 0..=random.below(5) {
        let place = random.below(line.len() + 1);
        match random.below(6) {
            0 if place < line.len() => line[place] ^= 1 << random.below(8),
            1 => line.insert(place, random.next() as u8),
            2 => line.truncate(place),
            3 => drop(line.drain(place..line.len().min(place + random.below(16)))),
            4 => {
                let other = seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                line.splice(place..place, other[from..].iter().copied().take(random.below(64)));
            }
            _ => {
                let piece = pieces[random.below(pieces.len())];
                let times = [1, 2, 3000][random.below(3)];
                line.splice(place..place, piece.iter().copied().cycle().take(piece.len() * times));
            }
        }
    }
    line
}

//! What do the two stations cost that every byte of input passes? On the demo recording, in memory, one thread.
//!
//! - `client_hello`: captured frames to hellos with JA4 and JA3. Bytes are captured bytes.
//! - `json_lines`: request log lines to Arrow columns, as they are and with a byte that has to be repaired. Bytes are
//!   bytes of text.

use std::hint::black_box;
use std::path::Path;

use client_hello::{Frame, HelloExtractor, Limits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use operators::format::{Format, LineParser, Rows, Unit};

fn recording(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/recording/demo").join(name)
}

fn client_hello(criterion: &mut Criterion) {
    let mut capture = pcap::Capture::from_file(recording("capture.pcap")).expect("the recording opens");
    let linktype = capture.get_datalink().0;
    let mut frames = Vec::new();
    while let Ok(packet) = capture.next_packet() {
        let ns = packet.header.ts.tv_sec * 1_000_000_000 + packet.header.ts.tv_usec * 1_000;
        frames.push((ns, packet.header.len, packet.data.to_vec()));
    }
    let bytes: usize = frames.iter().map(|(_, _, data)| data.len()).sum();
    let mut group = criterion.benchmark_group("client_hello");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("demo recording", |bencher| {
        bencher.iter(|| {
            let mut extractor = HelloExtractor::new(Limits::default());
            let mut hellos = 0;
            for (ns, len, data) in &frames {
                extractor.packet(&Frame { wire_len: *len, ..Frame::whole(*ns, linktype, data) }, &mut |hello| {
                    black_box(hello);
                    hellos += 1;
                });
            }
            assert_eq!(hellos, 160);
        });
    });
    group.finish();
}

fn json_lines(criterion: &mut Criterion) {
    let text = std::fs::read(recording("requests.jsonl")).expect("the recording is readable");
    let clean: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    // Each line has a byte of a client as nginx writes it, and is read a second time.
    let repaired: Vec<Vec<u8>> = clean.iter().map(|line| [&br#"{"x":"\x22","#[..], &line[1..]].concat()).collect();
    parse(criterion, "demo recording", &clean);
    parse(criterion, "demo recording, repaired", &repaired);
}

fn parse<L: AsRef<[u8]>>(criterion: &mut Criterion, name: &str, lines: &[L]) {
    let mut group = criterion.benchmark_group("json_lines");
    group.throughput(Throughput::Bytes(lines.iter().map(|line| line.as_ref().len() as u64).sum()));
    group.bench_function(name, |bencher| {
        let mut parser = LineParser::new(Format::reqin_log(Unit::Ns), engine::time::wall_clock_ns());
        let mut rows = Rows::new(&Format::reqin_log(Unit::Ns));
        bencher.iter(|| {
            for (seq, line) in lines.iter().enumerate() {
                let row = parser.parse(line.as_ref()).expect("a line of the recording");
                rows.push(seq as u64, &row);
            }
            black_box(rows.take().expect("columns"));
        });
    });
    group.finish();
}

criterion_group!(benches, client_hello, json_lines);
criterion_main!(benches);

//! Capture files, whole and broken, and the hellos in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use engine::shared::Shared;
use serde_json::Value;

use super::replay::{collected, load, run, unique};
use super::sources::{column, fault, pipeline, rows};

/// An Ethernet frame with a TCP segment to `port`, `len` bytes of payload.
fn frame(port: u16, len: u8) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40 + len, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend([40_000_u16.to_be_bytes(), port.to_be_bytes()].concat());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend(vec![b'x'; len.into()]);
    frame
}

/// A pcap file in little or big endian, with micro- or nanoseconds; a packet each 100 ms from second 1000 on.
fn pcap(frames: &[Vec<u8>], big: bool, nano: bool) -> Vec<u8> {
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let mut out = word(if nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }).to_vec();
    out.extend([half(2), half(4)].concat());
    out.extend([word(0), word(0), word(65_535), word(1)].concat());
    for (i, frame) in frames.iter().enumerate() {
        let (i, len) = (i as u32, frame.len() as u32);
        let part = i % 10 * 100_000 * if nano { 1000 } else { 1 } + 1;
        out.extend([word(1000 + i / 10), word(part), word(len), word(len)].concat());
        out.extend(frame);
    }
    out
}

/// The same as pcapng: section header, interface description, enhanced packets.
fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let len = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    let mut out = block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    out.extend(block(1, &[1, 0, 0, 0, 0xff, 0xff, 0, 0]));
    for (i, frame) in frames.iter().enumerate() {
        let us = (1000 + i as u64 / 10) * 1_000_000 + i as u64 % 10 * 100_000 + 1;
        let words = [0, (us >> 32) as u32, us as u32, frame.len() as u32, frame.len() as u32];
        let mut body = words.map(u32::to_le_bytes).concat();
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        out.extend(block(6, &body));
    }
    out
}

fn run_pcap(dir: &Path, bytes: &[u8], options: &str) -> (Vec<Value>, Arc<Shared>) {
    std::fs::write(dir.join("c.pcap"), bytes).expect("written");
    let (yaml, names) = pipeline(&format!("kind: source.pcap, file: c.pcap{options}"), &["out"]);
    let shared = run(load(&dir.join("p.yaml"), &yaml).expect("valid"), 1);
    assert!(shared.failure().is_none());
    (rows(&collected(&names[0])), shared)
}

fn counter(shared: &Shared, name: &str) -> u64 {
    let counters = shared.metrics.node("s", "").named();
    counters.iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| *value)
}

fn frames(n: u8) -> Vec<Vec<u8>> {
    (0..n).map(|i| frame(if i % 3 == 2 { 80 } else { 443 }, i)).collect()
}

#[test]
fn every_kind_of_capture_file_gives_the_same_packets() {
    let dir = tempfile::tempdir().expect("a directory");
    let frames = frames(30);
    let (packets, shared) = run_pcap(dir.path(), &pcap(&frames, false, false), "");
    assert_eq!((packets.len(), counter(&shared, "filtered")), (30, 0));
    assert_eq!(column(&packets, "time")[..2], ["1970-01-01T00:16:40.000001Z", "1970-01-01T00:16:40.100001Z"]);
    assert_eq!(column(&packets, "wire_len")[..2], ["54", "55"]);
    let progress = &shared.progress;
    assert_eq!(progress.read.load(Relaxed), progress.total.load(Relaxed));
    assert_eq!(run_pcap(dir.path(), &pcap(&frames, true, false), "").0, packets);
    assert_eq!(run_pcap(dir.path(), &pcapng(&frames), "").0, packets);
    let (nano, _) = run_pcap(dir.path(), &pcap(&frames, true, true), "");
    assert_eq!(column(&nano, "time")[0], "1970-01-01T00:16:40.000000001Z");
    for (options, count) in [
        (", ports: [80]", 10),
        (", ports: [443]", 20),
        (", ports: []", 30),
        (", filter: \"greater 80\"", 4),
        (", filter: \"greater 80\", ports: [80]", 2),
    ] {
        for file in [pcap(&frames, false, false), pcapng(&frames)] {
            let (packets, shared) = run_pcap(dir.path(), &file, options);
            assert_eq!((packets.len(), counter(&shared, "filtered")), (count, 30 - count as u64), "{options}");
        }
    }
}

#[test]
fn a_truncated_capture_gives_the_packets_before_the_break() {
    let dir = tempfile::tempdir().expect("a directory");
    let frames = frames(3);
    for (whole, head, per_packet) in [(pcap(&frames, false, false), 24, 16), (pcapng(&frames), 48, 32)] {
        for cut in (head..whole.len()).step_by(7) {
            let mut end = head;
            let mut complete = 0;
            for frame in &frames {
                let padded = if head == 48 { frame.len().next_multiple_of(4) } else { frame.len() };
                end += per_packet + padded;
                complete += usize::from(end <= cut);
                if end >= cut {
                    break;
                }
            }
            let (packets, shared) = run_pcap(dir.path(), &whole[..cut], ", ports: []");
            let broken = counter(&shared, "truncated_file");
            assert_eq!((packets.len(), broken), (complete, u64::from(end != cut && cut != head)), "{cut}");
        }
    }
}

#[test]
fn what_is_no_capture_is_a_fault_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("empty"), "").expect("written");
    std::fs::write(dir.path().join("text"), "this is not a capture file at all, is it?").expect("written");
    std::fs::write(dir.path().join("cut"), &pcap(&[], false, false)[..20]).expect("written");
    let torn = [pcap(&[], false, false), vec![0xff; 16]].concat();
    std::fs::write(dir.path().join("torn"), torn).expect("written");
    std::fs::write(dir.path().join("good"), pcap(&frames(1), false, false)).expect("written");
    for (options, part) in [
        ("file: empty", "is empty"),
        ("file: text", "is not a pcap or pcapng file: unknown file format"),
        ("file: cut", "cut ends in the middle of the file's header at byte 0: 20 of its 24 bytes"),
        ("file: torn", "torn cannot be understood at byte 24: a packet of 4294967295 bytes"),
        ("file: none", "cannot be read: No such file"),
        ("file: .", "is not a regular file"),
        ("file: good, filter: tcp prot 443", "the filter is not understood: "),
        ("interface: lo, filter: tcp prot 443", "syntax error"),
        ("file: good, interface: lo", "leave out one of the two"),
        ("ports: [443]", "needs `file` or `interface`"),
    ] {
        let text = fault(dir.path(), &format!("kind: source.pcap, {options}"));
        assert!(text.contains(part) && text.contains("p.yaml:3:"), "{options}: {text}");
    }
}

#[test]
fn a_file_that_cannot_be_understood_ends_the_run_with_its_place_and_what_is_before_is_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let frames = frames(3);
    let torn = |whole: Vec<u8>| [whole, vec![0xff; 40]].concat();
    for (bytes, at) in [(torn(pcap(&frames, false, false)), 24 + 3 * 70 + 3), (torn(pcapng(&frames)), 48 + 3 * 88)] {
        std::fs::write(dir.path().join("c.pcap"), &bytes).expect("written");
        let (yaml, names) = pipeline("kind: source.pcap, file: c.pcap", &["out"]);
        let shared = run(load(&dir.path().join("p.yaml"), &yaml).expect("valid"), 1);
        let failure = shared.failure().expect("a failure").message;
        assert!(failure.contains(&format!("c.pcap cannot be understood at byte {at}: ")), "{failure}");
        assert_eq!((rows(&collected(&names[0])).len(), counter(&shared, "truncated_file")), (3, 0));
    }
}

#[test]
fn packets_have_the_name_of_their_interface_and_each_linktype_its_filter() {
    let dir = tempfile::tempdir().expect("a directory");
    let block = |kind: u32, body: &[u8]| {
        let len = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    let mut file = pcapng(&[]);
    // if_name, then raw IP; the interface before has no name.
    file.extend(block(1, b"\x65\0\0\0\0\0\0\0\x02\0\x04\0tun0\0\0\0\0"));
    for (interface, port) in [(0_u32, 443), (1, 443), (0, 80), (1, 80)] {
        let frame = frame(port, 0);
        let data = &frame[if interface == 0 { 0 } else { 14 }..];
        let words = [interface, 0, 1_000_000, data.len() as u32, data.len() as u32];
        let mut body = words.map(u32::to_le_bytes).concat();
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
        file.extend(block(6, &body));
    }
    let (packets, shared) = run_pcap(dir.path(), &file, ", ports: [443]");
    let got: Vec<_> = packets.iter().map(|row| (row["linktype"].as_i64(), row["interface"].as_str())).collect();
    assert_eq!(got, [(Some(1), None), (Some(101), Some("tun0"))]);
    assert_eq!(counter(&shared, "filtered"), 2);
}

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/recording/demo")
}

/// The hellos in the demo recording and the run's counters.
fn hellos(workers: usize, packets: &str, options: &str) -> (Vec<Value>, Arc<Shared>) {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, name) = (recording().join("capture.pcap"), unique());
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: p, kind: source.pcap, file: {}{packets} }}\n  - {{ id: h, kind: tls.client_hello, from: p{options} }}\n  \
         - {{ id: c, kind: test.collect, from: h, name: {name} }}\n",
        file.display()
    );
    let shared = run(load(&dir.path().join("p.yaml"), &yaml).expect("valid"), workers);
    assert!(shared.failure().is_none());
    (rows(&collected(&name)), shared)
}

#[test]
fn every_hello_of_the_recording_is_found_once() {
    let truth = std::fs::read_to_string(recording().join("truth.jsonl")).expect("there");
    let truth: Vec<Value> = truth.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (found, shared) = hellos(1, "", ", sensor_id: here");
    let node = shared.metrics.node("h", "");
    assert!(node.named().contains(&("hellos", found.len() as u64)), "{:?}", node.named());
    // At the end of the input all connections are let go.
    assert_eq!(node.state_rows.load(Relaxed), 0);
    for client in &truth {
        let ips: Vec<&str> = client["src_ips"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let count = found.iter().filter(|hello| hello["src_ip"].as_str().is_some_and(|ip| ips.contains(&ip))).count();
        assert_eq!(Some(count as u64), client["hellos"].as_u64(), "{}", client["client"]);
    }
    assert!(
        found
            .iter()
            .all(|hello| hello["sensor_id"] == "here" && hello["late"] == false && hello["tcp_meta_mss"].is_u64())
    );
    for workers in [2, 4] {
        assert!(hellos(workers, "", ", sensor_id: here").0 == found, "{workers}");
    }
    let (none, _) = hellos(1, "", ", ports: [1]");
    assert!(none.is_empty());
    // With no lateness allowed every packet that is older than one before it is late, and so is its hello.
    let (strict, _) = hellos(2, ", lateness: 0s", ", sensor_id: here");
    assert_eq!(strict.len(), found.len());
}

#[test]
fn hellos_need_packets() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("log"), "").expect("written");
    let yaml = "name: t\nnodes:\n  - { id: f, kind: source.file, path: log, format: reqin_log }\n  - { id: h, kind: tls.client_hello, from: f }\n";
    let text = load(&dir.path().join("p.yaml"), yaml).expect_err("refused");
    assert!(text.contains("the input has no packets") && text.contains("p.yaml:4:"), "{text}");
}

//! Lines of files, through whole pipelines.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::json::LineDelimitedWriter;
use engine::batch::Batch;
use engine::shared::Shared;
use serde_json::Value;
use tempfile::TempDir;

use super::replay::{collected, load, run, unique};

/// The rows of batches as JSON, by position in their source, with the batch's mark as `late`.
pub fn rows(batches: &[Batch]) -> Vec<Value> {
    let mut rows = Vec::new();
    for batch in batches {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&batch.rows).expect("rows can be written");
        let text = String::from_utf8(writer.into_inner()).expect("text");
        for line in text.lines() {
            let mut row: Value = serde_json::from_str(line).expect("JSON");
            row["late"] = batch.late.into();
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| row["seq"].as_u64());
    rows
}

/// One column of rows.
pub fn column(rows: &[Value], name: &str) -> Vec<String> {
    rows.iter().map(|row| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned)).collect()
}

/// A source with a collection behind each port.
pub fn pipeline(options: &str, ports: &[&str]) -> (String, Vec<String>) {
    let names: Vec<String> = ports.iter().map(|_| unique()).collect();
    let mut yaml = format!("name: t\nnodes:\n  - {{ id: s, {options} }}\n");
    for (port, name) in ports.iter().zip(&names) {
        yaml.push_str(&format!("  - {{ id: c-{port}, kind: test.collect, from: s.{port}, name: {name} }}\n"));
    }
    (yaml, names)
}

/// Runs a source of lines to its end: its rows and its rejected lines.
fn run_file(dir: &Path, options: &str, workers: usize) -> (Vec<Value>, Vec<Value>, Arc<Shared>) {
    let (yaml, names) = pipeline(&format!("kind: source.file, {options}"), &["out", "rejected"]);
    let plan = load(&dir.join("p.yaml"), &yaml).expect("valid");
    let shared = run(plan, workers);
    assert!(shared.failure().is_none());
    (rows(&collected(&names[0])), rows(&collected(&names[1])), shared)
}

/// The faults of a pipeline with this source.
pub fn fault(dir: &Path, options: &str) -> String {
    match load(&dir.join("p.yaml"), &pipeline(options, &["out"]).0) {
        Ok(_) => panic!("accepted: {options}"),
        Err(text) => text,
    }
}

/// Where the times of these tests start: 2026-11-23, in ms.
const START_MS: u64 = 1_795_392_000_000;

fn request(ms: u64, port: u16) -> String {
    let ns = (START_MS + ms) * 1_000_000;
    format!("{{\"timestamp\":{ns},\"src_ip\":\"192.0.2.1\",\"src_port\":{port},\"path\":\"/{ms}\"}}")
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn broken_lines_are_rejected_and_keep_their_number() {
    let dir = dir();
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(2000));
    let mut text = Vec::new();
    for line in [&request(1000, 1), "", "  \r", "{\"timestamp\":", &(request(1001, 2) + "\r"), &long, "{}"] {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"\xff\xfe\n");
    text.extend_from_slice(request(1002, 3).as_bytes());
    std::fs::write(dir.path().join("log"), &text).expect("written");
    let (good, bad, shared) = run_file(dir.path(), "path: log, format: reqin_log, max_line: 1000", 1);
    assert_eq!(column(&good, "seq"), ["0", "4", "8"]);
    assert_eq!(column(&good, "src_port"), ["1", "2", "3"]);
    assert_eq!(column(&bad, "seq"), ["3", "5", "6", "7"]);
    let reasons = column(&bad, "reason");
    for (reason, part) in
        reasons.iter().zip(["not a JSON object", "longer than 1000 bytes", "missing", "not a JSON object"])
    {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(bad[1]["line"].as_str().map(str::len), Some(1000));
    let node = shared.metrics.node("s", "");
    let counts = [&node.rows_out, &node.rejected, &node.bytes, &shared.progress.total, &shared.progress.read];
    let bytes = text.len() as u64;
    assert_eq!(counts.map(|c| c.load(Relaxed)), [3, 4, bytes, bytes, bytes]);
}

#[test]
fn an_empty_file_is_no_fault() {
    let dir = dir();
    std::fs::write(dir.path().join("log"), "").expect("written");
    let (good, bad, _) = run_file(dir.path(), "path: log, format: reqin_log", 1);
    assert_eq!((good.len(), bad.len()), (0, 0));
}

#[test]
fn faults_are_found_before_anything_runs() {
    let dir = dir();
    std::fs::write(dir.path().join("log"), "").expect("written");
    for (options, part) in [
        ("path: none, format: reqin_log", "cannot be read: No such file"),
        ("path: ., format: reqin_log", "is a directory"),
        ("path: log", "needs `format`, or `columns` and `time`"),
        ("path: log, format: reqinlog", "did you mean `reqin_log`?"),
        ("path: log, format: reqin_log, time: at", "`time` goes with `columns`"),
        ("path: log, columns: { at: time, n: integer }", "no column `time`"),
        ("path: log, columns: { at: time, n: integer }, time: n", "its type must be `time`"),
        ("path: log, columns: { at: time, seq: integer }, time: at", "its own column `seq`"),
        ("path: log, columns: { at: tme }, time: at", "did you mean `time`?"),
        ("path: log, columns: { at: time, repaired: text }, time: at", "its own column `repaired`"),
        ("path: log, columns: { at: { key: x } }, time: at", "type"),
        ("path: log, columns: { at: { type: time, keys: x } }, time: at", "keys"),
        ("path: log, columns: { at: time, a: { type: text, key: \"b[\" } }, time: at", "`b[` is not a key"),
        ("path: log, columns: { at: time, a: { type: text, unit: s } }, time: at", "`unit` is for times"),
        ("path: log, columns: { at: time, a: { type: text, key: at } }, time: at", "than `at` takes `at`"),
        ("path: log, columns: { at: time, a: text, b: { type: text, key: a.c } }, time: at", "takes `a.c`"),
        ("path: log, format: reqin_log, time_unit: sec", "sec"),
        ("path: log, format: reqin_log, lateness: soon", "not a duration"),
        ("path: \"-\", format: reqin_log, follow: true", "standard input cannot be followed"),
    ] {
        let text = fault(dir.path(), &format!("kind: source.file, {options}"));
        assert!(text.contains(part) && text.contains("p.yaml:3:"), "{options}: {text}");
    }
}

#[test]
fn declared_columns_have_their_types() {
    let dir = dir();
    let text = "{\"at\":\"2026-11-23T00:00:00Z\",\"n\":\"5\",\"f\":2,\"ok\":true,\"who\":\"::ffff:192.0.2.9\",\"seen\":1795449599000000000,\"x\":[]}\n";
    std::fs::write(dir.path().join("log"), text).expect("written");
    let columns =
        "columns: { at: time, n: integer, f: float, ok: boolean, who: ip, seen: time, absent: text }, time: at";
    let (good, bad, _) = run_file(dir.path(), &format!("path: log, {columns}"), 1);
    assert_eq!(bad, Vec::<Value>::new());
    for (name, value) in [
        ("time", "2026-11-23T00:00:00Z"),
        ("n", "5"),
        ("f", "2.0"),
        ("ok", "true"),
        ("who", "192.0.2.9"),
        ("seen", "2026-11-23T15:59:59Z"),
        ("absent", "null"),
    ] {
        assert_eq!(column(&good, name), [value], "{name}");
    }
}

#[test]
fn lines_of_other_programs_are_read_by_their_keys_and_units() {
    let dir = dir();
    let text = "{\"ts\":1795392000.250,\"request\":{\"remote_ip\":\"192.0.2.9\",\"headers\":{\"User-Agent\":[\"a\",\"b\"]}},\
                \"ecs.version\":1.10,\"took\":\"-\",\"end\":1795392001500}\n";
    std::fs::write(dir.path().join("log"), text).expect("written");
    let columns = "columns: { time: { type: time, key: ts }, src_ip: { type: ip, key: request.remote_ip }, \
                   agent: { type: text, key: \"request.headers.User-Agent[0]\" }, \
                   other: { type: text, key: [request, headers, User-Agent, 1], absent: [b] }, \
                   version: { type: text, key: [ecs.version] }, took: float, end: { type: time, unit: ms } }";
    let (good, bad, _) = run_file(dir.path(), &format!("path: log, {columns}, time_unit: s"), 1);
    assert_eq!(bad, Vec::<Value>::new());
    for (name, value) in [
        ("time", "2026-11-23T00:00:00.250Z"),
        ("src_ip", "192.0.2.9"),
        ("agent", "a"),
        ("other", "null"),
        ("version", "1.10"),
        ("took", "null"),
        ("end", "2026-11-23T00:00:01.500Z"),
        ("repaired", "false"),
    ] {
        assert_eq!(column(&good, name), [value], "{name}");
    }
}

#[test]
fn repaired_lines_are_rows_that_say_so_and_are_counted() {
    let dir = dir();
    let mut text = request(1000, 1).into_bytes();
    for agent in [&b"caf\xe9"[..], br"a\x22b", b"tab\there"] {
        text.extend_from_slice(b"\n");
        text.extend_from_slice(&request(1001, 2).as_bytes()[..request(1001, 2).len() - 1]);
        text.extend_from_slice(&[br#","header_User-Agent":""#, agent, br#""}"#].concat());
    }
    // One whose time is far ahead of those before it is looked at twice.
    let jump = request(9_000_000, 3);
    text.extend_from_slice(
        &[b"\n", jump.trim_end_matches('}').as_bytes(), br#","x":"\x41"}"#, b"\n", jump.as_bytes()].concat(),
    );
    std::fs::write(dir.path().join("log"), &text).expect("written");
    let (good, bad, shared) = run_file(dir.path(), "path: log, format: reqin_log", 1);
    assert_eq!(bad, Vec::<Value>::new());
    assert_eq!(column(&good, "repaired"), ["false", "true", "true", "true", "true", "false"]);
    assert_eq!(column(&good, "header_user_agent")[1..4], ["caf\u{fffd}", "a\"b", "tab\there"]);
    let counted: Vec<_> = shared.metrics.node("s", "").named();
    assert!(counted.contains(&("repaired", 4)), "{counted:?}");
}

#[test]
fn rows_do_not_depend_on_workers_or_on_how_the_bytes_come() {
    let dir = dir();
    let mut text = String::new();
    for i in 0..12_000_u64 {
        // Every 50th row is a minute and more behind; every 70th line is broken.
        let at = 100_000 + i * 10 - if i % 50 == 49 { 61_000.min(i * 10) } else { 0 };
        text.push_str(&if i % 70 == 69 { "broken".to_owned() } else { request(at, (i % 5000) as u16) });
        text.push('\n');
    }
    std::fs::write(dir.path().join("log"), &text).expect("written");
    let (good, bad, _) = run_file(dir.path(), "path: log, format: reqin_log", 1);
    assert!(good.iter().any(|row| row["late"] == true));
    assert_eq!((good.len() + bad.len(), bad.len()), (12_000, 171));
    for workers in [2, 4] {
        let (again, rejected, _) = run_file(dir.path(), "path: log, format: reqin_log", workers);
        assert!(again == good && rejected == bad, "{workers}");
    }
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there").success());
    let writer = std::thread::spawn(move || {
        let mut pipe = std::fs::File::options().write(true).open(pipe).expect("opened");
        text.as_bytes().chunks(777).try_for_each(|part| std::io::Write::write_all(&mut pipe, part)).expect("written");
    });
    let (again, rejected, _) = run_file(dir.path(), "path: pipe, format: reqin_log", 2);
    writer.join().expect("written");
    assert!(again == good && rejected == bad);
}

#[test]
fn a_sink_must_not_overwrite_a_file_of_another_node() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("log.jsonl"), "{}\n").expect("written");
    let yaml = "name: t\nnodes:\n  - { id: r, kind: source.file, path: log.jsonl, format: reqin_log }\n  \
                - { id: a, kind: sink.jsonl, from: r, path: ./log.jsonl }\n  \
                - { id: b, kind: sink.jsonl, from: r, path: out.jsonl }\n  \
                - { id: c, kind: sink.jsonl, from: r, path: out.jsonl }\n";
    let shown = load(&dir.path().join("p.yaml"), yaml).expect_err("refused");
    assert!(shown.contains("`a` would overwrite") && shown.contains("p.yaml:4:"), "{shown}");
    assert!(shown.contains("`c` would overwrite") && shown.contains("a file of `b`"), "{shown}");
}

#[test]
fn swapped_inputs_of_correlate_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("log.jsonl"), "").expect("written");
    let yaml = "name: t\nnodes:\n  - { id: r, kind: source.file, path: log.jsonl, format: reqin_log }\n  \
                - { id: h, kind: source.file, path: log.jsonl, format: ja4sentinel }\n  \
                - { id: c, kind: correlate, from: { hello: r, request: h } }\n";
    let shown = load(&dir.path().join("p.yaml"), yaml).expect_err("refused");
    assert!(shown.contains("the inputs look swapped"), "{shown}");
}

#[test]
fn a_request_without_a_port_is_an_orphan_that_is_counted() {
    let dir = dir();
    let hello = format!("{{\"timestamp\":{}000000,\"src_ip\":\"192.0.2.1\",\"src_port\":7}}\n", START_MS);
    let portless = |ms| request(ms, 7).replace(",\"src_port\":7", "");
    let requests = [request(1, 7), portless(2), request(3, 8), portless(4)].join("\n");
    std::fs::write(dir.path().join("hellos"), hello).expect("written");
    std::fs::write(dir.path().join("requests"), requests).expect("written");
    for workers in [1, 2] {
        let name = unique();
        let yaml = format!(
            "name: t\nnodes:\n  - {{ id: h, kind: source.file, path: hellos, format: ja4sentinel }}\n  \
             - {{ id: r, kind: source.file, path: requests, format: reqin_log }}\n  \
             - {{ id: c, kind: correlate, from: {{ hello: h, request: r }} }}\n  \
             - {{ id: o, kind: test.collect, from: c, name: {name} }}\n"
        );
        let shared = run(load(&dir.path().join("p.yaml"), &yaml).expect("valid"), workers);
        assert!(shared.failure().is_none());
        let rows = rows(&collected(&name));
        assert_eq!(column(&rows, "correlated"), ["1", "0", "0", "0"]);
        assert_eq!(column(&rows, "src_port"), ["7", "null", "8", "null"]);
        let counters: Vec<_> = shared.metrics.node("c", "").named();
        assert!(
            counters.contains(&("orphans_without_port", 2)) && counters.contains(&("orphan_requests", 3)),
            "{counters:?}"
        );
    }
}

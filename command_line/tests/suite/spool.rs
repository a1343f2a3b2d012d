//! The commands that look at the spool, on logs that are closed, in use and damaged.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::ipc::reader::StreamReader;
use engine::batch::{stream_schema, time_array};
use engine::spool::{Entry, Log, Settings};

use crate::commands::{process, run};
use crate::shows;

/// 2026-05-01T12:00:00Z.
const NOON: i64 = 1_777_636_800;

fn schema() -> SchemaRef {
    stream_schema([Field::new("host", DataType::Utf8, true)])
}

/// Appends rows of the seconds 0 to 9 after noon, one record each, and a watermark.
fn log(dir: &Path) -> Arc<Log> {
    let ports = [("out".to_owned(), schema()), ("rejected".to_owned(), schema())];
    let log = Log::open(Settings::new(dir), &ports).expect("opens");
    let (woken, commits) = channel();
    let _subscription = log.subscribe(move || {
        // Nobody listens once everything is durable.
        let _ = woken.send(());
    });
    for second in 0..10 {
        let columns: Vec<ArrayRef> = vec![
            time_array(vec![(NOON + second) * 1_000_000_000]),
            Arc::new(UInt64Array::from(vec![second as u64])),
            Arc::new(StringArray::from(vec![format!("host-{second}")])),
        ];
        let rows = RecordBatch::try_new(schema(), columns).expect("valid");
        log.append(Entry::Batch { port: 0, time: NOON as u64 * 1000, late: false, rows });
    }
    log.append(Entry::Watermark(NOON as u64 * 1000));
    while log.end() < 11 {
        commits.recv().expect("a commit");
    }
    log
}

#[test]
fn spool_ls_says_what_logs_hold_while_they_are_in_use() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    let log = log(&dir.path().join("requests"));
    let (code, shown, _) = run(&["spool", "ls", path]);
    assert_eq!(code, 0);
    shows(&shown, &["requests, in use", "10 rows in 11 records in 1 segments", "positions 0 up to 11"]);
    shows(&shown, &["event times 2026-05-01T12:00:00.000000000Z to 2026-05-01T12:00:09.000000000Z"]);
    drop(log);
    let (code, shown, _) = run(&["spool", "ls", path, "--json"]);
    assert_eq!(code, 0);
    shows(&shown, &[r#""in_use":false"#, r#""rows":10"#, r#""watermark":"2026-05-01T12:00:00.000000000Z""#]);
    let (code, _, shown) = run(&["spool", "ls", "/nowhere/at-all"]);
    assert_eq!(code, 1);
    shows(&shown, &["the spool /nowhere/at-all cannot be used"]);
}

#[test]
fn a_folder_without_a_log_is_no_log_without_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log(&dir.path().join("spool/requests"));
    let path = dir.path().to_str().expect("UTF-8");
    for command in [&["spool", "check", path][..], &["spool", "ls", path], &["spool", "export", path, "requests"]] {
        let (code, _, shown) = run(command);
        assert_eq!(code, 2);
        shows(&shown, &["there is no log in", "did you mean", "spool?"]);
    }
    drop(log);
}

#[test]
fn spool_check_reports_damage_with_its_place_and_repairs_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = dir.path().join("requests");
    let path = dir.path().to_str().expect("UTF-8");
    let open = log(&node);
    assert_eq!(run(&["spool", "check", path]).0, 0);
    let (code, _, shown) = run(&["spool", "check", path, "--repair"]);
    assert_eq!(code, 2);
    shows(&shown, &["in use by another process"]);
    drop(open);
    let segment = node.join("00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let at = bytes.windows(6).position(|word| word == b"host-4").expect("a row");
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let (code, shown, _) = run(&["spool", "check", path]);
    assert_eq!(code, 1);
    shows(&shown, &["00000000000000000000.seg:", "1 records lost, at least 1 rows", "9 rows in 10 whole records"]);
    let (code, shown, _) = run(&["spool", "check", path, "--repair"]);
    assert_eq!(code, 0);
    shows(&shown, &["requests: repaired, 1 records lost"]);
    let (code, shown, _) = run(&["spool", "check", path]);
    assert_eq!(code, 0);
    shows(&shown, &["requests: no damage, 9 rows in 10 whole records"]);
}

#[test]
fn spool_export_writes_the_rows_of_a_range() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    let _in_use = log(&dir.path().join("requests"));
    let range = ["--from", "2026-05-01T12:00:03Z", "--to", "2026-05-01T12:00:05Z"];
    let (code, shown, _) = run(&[&["spool", "export", path, "requests"][..], &range].concat());
    assert_eq!(code, 0);
    let lines: Vec<&str> = shown.lines().filter(|line| line.starts_with('{')).collect();
    let expected =
        [3, 4].map(|n| format!(r#"{{"time":"2026-05-01T12:00:0{n}.000000000Z","seq":{n},"host":"host-{n}"}}"#));
    assert_eq!(lines, expected);
    assert_eq!(run(&["spool", "export", path, "requests.rejected"]).0, 0);
    let (code, _, shown) = run(&["spool", "export", path, "requests.late"]);
    assert_eq!(code, 2);
    shows(&shown, &["`requests` has: out, rejected"]);
    let (code, _, shown) = run(&["spool", "export", path, "hellos"]);
    assert_eq!(code, 2);
    shows(&shown, &["there is no log `hellos`", "there is: requests"]);
    let words = [&["spool", "export", path, "requests.out", "--format", "arrow"][..], &range].concat();
    let bytes = process(&words).output().expect("starts").stdout;
    // The child is a test binary, which writes a line before.
    let start = bytes.windows(4).position(|word| word == [0xff; 4]).expect("an Arrow stream");
    let mut stream = StreamReader::try_new(&bytes[start..], None).expect("a stream");
    assert_eq!(stream.schema(), schema());
    assert_eq!(stream.next().expect("a batch").expect("reads").num_rows(), 1);
}

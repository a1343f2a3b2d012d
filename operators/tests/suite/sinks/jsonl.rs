//! `sink.jsonl`.

use std::collections::BTreeMap;

use engine::batch::{Batch, EdgeType};
use serde_json::Value;

use super::samples::{faults, relation, rows, schema, through};

const IN: &str = "  - { id: in, kind: test.replay, name: NAME }\n";

/// The lines that a pipeline writes.
fn written(options: &str, ty: EdgeType, batches: Vec<(u64, Batch)>, workers: usize) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = format!("{IN}  - {{ id: out, kind: sink.jsonl, from: in, path: new/out.jsonl{options} }}\n");
    through(dir.path(), &nodes, ty, batches, workers);
    let text = std::fs::read_to_string(dir.path().join("new/out.jsonl")).expect("the file is there");
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

fn changing() -> Vec<(u64, Batch)> {
    let live = Batch { settled: false, ..Batch::new(rows(&[(1, 1, Some("a"))])) };
    vec![
        (100, live.clone()),
        (200, Batch { diff: -1, ..live }),
        (200, Batch::new(rows(&[(2, 2, Some("a"))]))),
        (300, Batch { late: true, ..Batch::new(rows(&[(0, 3, None)])) }),
    ]
}

#[test]
fn settled_rows_or_every_change_are_written() {
    let settled = written("", relation(), changing(), 1);
    assert_eq!(settled[0], r#"{"time":"2026-11-23T00:00:00.002000000Z","seq":2,"text":"a","number":2}"#);
    assert_eq!(settled.len(), 2, "the late row too");
    let changes = written(", mode: changes, columns: [text, seq]", relation(), changing(), 1);
    let expected = [
        r#"{"diff":1,"text":"a","seq":1}"#,
        r#"{"diff":-1,"text":"a","seq":1}"#,
        r#"{"diff":1,"text":"a","seq":2}"#,
        r#"{"diff":1,"seq":3}"#,
    ];
    assert_eq!(changes, expected);
}

#[test]
fn every_row_is_one_whole_line_at_any_number_of_workers() {
    let text = "x\n\"\u{1}".repeat(40);
    let batch = |nth: u64| {
        let given: Vec<_> =
            (0..100).map(|row| ((nth * 100 + row) as i64, nth * 100 + row, Some(text.as_str()))).collect();
        (nth / 10 * 100, Batch::new(rows(&given)))
    };
    let batches: Vec<_> = (0..60).map(batch).collect();
    for workers in [1, 2, 4] {
        let lines = written("", EdgeType::stream(schema()), batches.clone(), workers);
        let read = lines.iter().map(|line| serde_json::from_str::<BTreeMap<String, Value>>(line).expect("JSON"));
        let mut seqs: Vec<u64> =
            read.inspect(|row| assert_eq!(row["text"], text)).filter_map(|row| row["seq"].as_u64()).collect();
        seqs.sort_unstable();
        assert!(seqs.into_iter().eq(0..6000));
    }
}

#[test]
fn a_file_that_cannot_be_made_ends_the_run() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "").expect("written");
    let name = crate::replay::unique();
    crate::replay::record(&name, crate::replay::Recording { ty: relation(), batches: changing(), live: false });
    let yaml = format!("name: t\nnodes:\n{IN}  - {{ id: out, kind: sink.jsonl, from: in, path: file/out.jsonl }}\n")
        .replace("NAME", &name);
    let shared = crate::replay::run(crate::replay::load(&dir.path().join("p.yaml"), &yaml).expect("valid"), 2);
    let failure = shared.failure().expect("the run fails").message;
    assert!(failure.starts_with("out: ") && failure.contains("file/out.jsonl cannot be created"), "{failure}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_the_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let name = crate::replay::unique();
    crate::replay::record(&name, crate::replay::Recording { ty: relation(), batches: changing(), live: false });
    let yaml = format!("name: t\nnodes:\n{IN}  - {{ id: out, kind: sink.jsonl, from: in, path: /dev/full }}\n")
        .replace("NAME", &name);
    let shared = crate::replay::run(crate::replay::load(&dir.path().join("p.yaml"), &yaml).expect("valid"), 1);
    let failure = shared.failure().expect("the run fails").message;
    assert!(failure.contains("/dev/full cannot be written: No space left"), "{failure}");
}

#[test]
fn wrong_columns_are_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes =
        format!("{IN}  - {{ id: out, kind: sink.jsonl, from: in, path: a, columns: [txt, seq, seq, nmber] }}\n");
    let shown = faults(dir.path(), &nodes, relation());
    assert!(shown.contains("did you mean `text`?") && shown.contains("did you mean `number`?"), "{shown}");
    let shown = faults(dir.path(), &nodes.replace("txt", "text").replace(", nmber", ""), relation());
    assert!(shown.contains("`seq` is listed twice") && shown.contains(":4:74"), "{shown}");
}

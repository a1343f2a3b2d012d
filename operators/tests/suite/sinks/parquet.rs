//! `sink.parquet` and the served tables that it shares rows with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use engine::batch::{Batch, EdgeType, SEQ};
use engine::catalog::Snapshot;
use engine::shared::Shared;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::samples::{DAY_NS, cells, relation, rows, schema};
use crate::replay::{Recording, load, record, run, run_with, unique};

const DAY_MS: i64 = 86_400_000;

/// 40 batches of 5 rows in ticks of 100 ms: every eighth row is of the day before, and late.
fn two_days() -> Vec<(u64, Batch)> {
    let start = (DAY_NS / 1_000_000) as u64;
    let batch = |nth: u64| {
        let row = |k: u64| {
            (
                (nth * 50 + (7 * k) % 5) as i64 - if (nth * 5 + k).is_multiple_of(8) { DAY_MS } else { 0 },
                nth * 5 + k,
                Some("x"),
            )
        };
        (start + nth / 2 * 100, Batch::new(rows(&(0..5).map(row).collect::<Vec<_>>())))
    };
    (0..40).map(batch).collect()
}

/// A recording goes by faster than its own time; with `commit: 0ms` each of its messages keeps a time of its own all the same.
fn pipeline(dir: &Path, recording: Recording, options: &str) -> engine::plan::Plan {
    let name = unique();
    record(&name, recording);
    let yaml = format!(
        "name: t\ndata_dir: data\nspool: {{ commit: 0ms }}\nnodes:\n  - {{ id: in, kind: test.replay, name: {name} }}\n  - {{ id: store, kind: sink.parquet, from: {{ facts: in }}{options} }}\n\
         serve: {{ listen: 127.0.0.1:0, tables: {{ facts: in }} }}\n"
    );
    load(&dir.join("p.yaml"), &yaml).expect("a valid pipeline")
}

/// Every file beneath a directory by its path from there.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).expect("readable"));
            }
        }
    }
    found.into_iter().map(|(path, bytes)| (path.strip_prefix(dir).expect("beneath").to_owned(), bytes)).collect()
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).expect("there");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("readable");
    reader.map(|batch| batch.expect("readable")).collect()
}

fn seqs(batches: &[RecordBatch]) -> Vec<u64> {
    batches
        .iter()
        .flat_map(|rows| (0..rows.num_rows()).map(|row| cells(rows, row)[SEQ].parse().expect("a number")))
        .collect()
}

/// The rows that a table shows, in memory and on disk.
fn shown(snapshot: &Snapshot) -> Vec<u64> {
    let mut all = seqs(&snapshot.hot);
    for segment in &snapshot.segments {
        let rows = seqs(&read(&segment.path));
        assert_eq!(rows.len() as u64, segment.rows);
        all.extend(rows);
    }
    all.sort_unstable();
    all
}

#[test]
fn files_are_the_same_for_any_number_of_workers_and_when_run_again() {
    let mut first = None;
    for workers in [1, 2, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        for _ in 0..2 {
            let recording = Recording { ty: EdgeType::stream(schema()), batches: two_days(), live: false };
            let shared = run(pipeline(dir.path(), recording, ", rotate: 500ms, max_rows: 40"), workers);
            assert_eq!(shared.failure(), None);
            let snapshot = shared.catalog.table("facts").expect("served").snapshot();
            assert_eq!(shown(&snapshot), (0..200).collect::<Vec<_>>(), "each row once");
            assert!(snapshot.hot.is_empty(), "all rows are on disk");
            let found = files(&dir.path().join("data"));
            let bytes: usize = found.values().map(Vec::len).sum();
            let metrics = shared.metrics.node("store", "");
            assert_eq!(metrics.bytes.load(std::sync::atomic::Ordering::Relaxed), bytes as u64);
            assert_eq!(metrics.state_rows.load(std::sync::atomic::Ordering::Relaxed), 0);
            assert_eq!(first.get_or_insert(found.clone()), &found);
        }
    }
    let files = first.expect("files");
    assert!(files.keys().all(|path| !path.to_string_lossy().contains("tmp")));
    let days: std::collections::BTreeSet<_> =
        files.keys().map(|path| path.parent().expect("a day").to_owned()).collect();
    assert_eq!(days, ["facts/2026-11-22", "facts/2026-11-23"].map(PathBuf::from).into());
}

#[test]
fn rows_of_a_file_are_sorted_and_of_its_day() {
    let dir = tempfile::tempdir().expect("a directory");
    let recording = Recording { ty: EdgeType::stream(schema()), batches: two_days(), live: false };
    run(pipeline(dir.path(), recording, ""), 2);
    for path in files(dir.path()).keys().filter(|path| path.extension().is_some_and(|e| e == "parquet")) {
        for rows in read(&dir.path().join(path)) {
            assert_eq!(rows.schema(), schema());
            let batch = Batch::new(rows);
            let times = batch.times().expect("time").values();
            assert!(times.is_sorted());
            let of_today = path.to_string_lossy().contains("2026-11-23");
            assert!(times.iter().all(|ns| (*ns >= DAY_NS) == of_today), "{}", path.display());
        }
    }
}

#[test]
fn at_every_moment_a_row_is_shown_once_at_most() {
    for workers in [1, 2, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        // One day, so that a cut is one segment.
        let start = (DAY_NS / 1_000_000) as u64;
        let batches = (0..60).map(|nth| (start + nth * 50, Batch::new(rows(&[(nth as i64, nth, None)])))).collect();
        let recording = Recording { ty: EdgeType::stream(schema()), batches, live: true };
        let plan = pipeline(dir.path(), recording, ", rotate: 200ms");
        let shared = Arc::new(Shared::new(&plan));
        let most = Arc::new(Mutex::new((0, 0)));
        let seen = Arc::clone(&most);
        run_with(plan, workers, &shared, move |shared, _| {
            // Locked across the look, so that looks are in order.
            let mut seen = seen.lock();
            let snapshot = shared.catalog.table("facts").expect("served").snapshot();
            let all = shown(&snapshot);
            assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
            assert!(all.len() >= seen.0, "no row goes away");
            *seen = (all.len(), seen.1.max(snapshot.segments.len()));
        });
        assert_eq!(shared.failure(), None);
        let table = shared.catalog.table("facts").expect("served");
        assert_eq!(shown(&table.snapshot()), (0..60).collect::<Vec<_>>());
        assert_eq!(table.snapshot().segments.len(), 15);
    }
}

#[test]
fn a_live_run_adopts_what_earlier_runs_left_and_skips_what_it_cannot_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let day = dir.path().join("data/facts/2026-11-23");
    let live = |range: std::ops::Range<u64>| {
        let batches = range.map(|nth| (nth * 100, Batch::new(rows(&[(nth as i64, nth, None)])))).collect();
        run(pipeline(dir.path(), Recording { ty: EdgeType::stream(schema()), batches, live: true }, ""), 2)
    };
    live(0..10);
    fs::write(day.join("0000000000000-0-broken.parquet"), "no Parquet").expect("written");
    fs::write(day.join(".0000000000000-0-x.parquet.tmp"), "half").expect("written");
    fs::write(day.join("notes.txt"), "mine").expect("written");
    // The lineage is the time of the start in ms: another ms, another file.
    let own = files(&day).into_keys().find(|path| path.to_string_lossy().ends_with(".parquet")).expect("a file");
    assert!(own.to_string_lossy().starts_with("0000000000000-0-"));
    fs::rename(day.join(&own), day.join("0000000000000-0-earlier.parquet")).expect("renamed");
    let shared = live(10..20);
    assert_eq!(shown(&shared.catalog.table("facts").expect("served").snapshot()), (0..20).collect::<Vec<_>>());
    assert_eq!(shared.metrics.node("store", "").named(), [("segments", 1), ("skipped_segments", 1)]);
    let left = files(&day);
    assert_eq!(left.len(), 4, "{:?}", left.keys());
    assert!(!left.keys().any(|path| path.to_string_lossy().ends_with(".tmp")));
    // A column of another type is null. Fewer columns are a part of what the files have.
    let number = arrow::datatypes::DataType::Int64;
    let other = engine::batch::stream_schema([arrow::datatypes::Field::new("text", number, true)]);
    let shared =
        run(pipeline(dir.path(), Recording { ty: EdgeType::stream(other), batches: Vec::new(), live: true }, ""), 1);
    let node = shared.metrics.node("store", "");
    assert_eq!(node.named(), [("segments", 0), ("skipped_segments", 1), ("unread_columns", 2)]);
    let said = node.troubles().into_values().find(|said| said.contains("Utf8, which is not read as Int64"));
    assert!(said.is_some_and(|said| said.contains("2 in 2 files")), "{:?}", node.troubles());
    let snapshot = shared.catalog.table("facts").expect("served").snapshot();
    assert!(snapshot.segments.len() == 2 && snapshot.segments.iter().all(|one| one.unread == ["text"]));
    assert_eq!(files(&day), left);
}

#[test]
fn of_a_relation_only_what_is_final_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let live = Batch { settled: false, ..Batch::new(rows(&[(1, 1, Some("a"))])) };
    let batches = vec![
        (100, live.clone()),
        (200, Batch { diff: -1, ..live }),
        (200, Batch::new(rows(&[(2, 2, Some("a"))]))),
        (300, Batch { settled: false, ..Batch::new(rows(&[(3, 3, Some("b"))])) }),
    ];
    let shared = run(pipeline(dir.path(), Recording { ty: relation(), batches, live: false }, ""), 1);
    let snapshot = shared.catalog.table("facts").expect("served").snapshot();
    assert_eq!((shown(&snapshot), seqs(&snapshot.hot)), (vec![2, 3], vec![3]));
}

#[test]
fn a_disk_error_ends_the_run_and_names_the_path() {
    let dir = tempfile::tempdir().expect("a directory");
    let table = dir.path().join("data/facts");
    fs::create_dir_all(&table).expect("made");
    // A file stands where the day's directory is to be.
    fs::write(table.join("2026-11-23"), "").expect("written");
    let recording = Recording { ty: EdgeType::stream(schema()), batches: two_days(), live: false };
    let shared = run(pipeline(dir.path(), recording, ""), 2);
    let failure = shared.failure().expect("the run fails").message;
    assert!(
        failure.starts_with("store: ")
            && failure.contains("data/facts/2026-11-23/")
            && failure.contains("cannot be written"),
        "{failure}"
    );
    let snapshot = shared.catalog.table("facts").expect("served").snapshot();
    assert_eq!(seqs(&snapshot.hot).len(), 200, "what is not stored is still shown from memory");
}

#[test]
fn tables_need_a_time_and_a_plain_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let name = unique();
    let untimed = EdgeType { schema: Arc::new(arrow::datatypes::Schema::empty()), ..relation() };
    record(&name, Recording { ty: untimed, batches: Vec::new(), live: false });
    let yaml = |from: &str, options: &str| {
        format!(
            "name: t\nnodes:\n  - {{ id: in, kind: test.replay, name: {name} }}\n  - {{ id: store, kind: sink.parquet, from: {from}{options} }}\n"
        )
    };
    let faults =
        |from: &str, options: &str| load(&dir.path().join("p.yaml"), &yaml(from, options)).expect_err("refused");
    assert!(faults("in", "").contains("the table `store` has neither a column `time` nor `window_start`"));
    assert!(faults("{ ../x: in }", "").contains("`../x` is not a table's name"));
    assert!(faults("in", ", rotate: 0s").contains("greater than 0"));
}

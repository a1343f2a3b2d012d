//! Writing and reading without faults.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tempfile::tempdir;

use super::*;

#[test]
fn what_is_appended_is_read_from_memory_and_from_disk() {
    let dir = tempdir().expect("a directory");
    let entries = [batch(1), Entry::Watermark(500), reject(10), batch(2), Entry::Watermark(1500)];
    let log = open(Settings::new(dir.path()));
    entries.iter().for_each(|entry| commit(&log, entry.clone()));
    let expected: Vec<_> = (0..).zip(entries).collect();
    assert_eq!(read(&log, 0), expected);
    assert_eq!(read(&log, 3), expected[3..]);
    assert_eq!((log.first(), log.end(), log.last_watermark()), (0, 5, 1500));
    drop(log);
    let log = open(Settings::new(dir.path()));
    assert_eq!(read(&log, 0), expected);
    assert_eq!((log.first(), log.end(), log.last_watermark()), (0, 5, 1500));
    commit(&log, batch(3));
    assert_eq!(read(&log, 4), [expected[4].clone(), (5, batch(3))]);
    assert_eq!(log.counters().damaged_records.load(Ordering::Relaxed), 0);
}

#[test]
fn what_comes_between_two_commits_becomes_few_records() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings { commit: Duration::from_secs(3600), ..Settings::new(dir.path()) });
    commit(&log, Entry::Note(b"first".to_vec()));
    for second in 1..=100 {
        log.append(batch(second));
        log.append(Entry::Note(second.to_string().into_bytes()));
        log.append(Entry::Watermark(second * 1000 - 600));
    }
    drop(log);
    let log = open(Settings::new(dir.path()));
    let found = read(&log, 0);
    let [(_, first), (_, Entry::Batch { time, rows, .. }), (_, Entry::Note(note)), (_, watermark)] = found.as_slice()
    else {
        panic!("{} records", found.len())
    };
    assert_eq!(
        (first, time, rows.num_rows(), note.as_slice()),
        (&Entry::Note(b"first".to_vec()), &1000, 200, &b"100"[..])
    );
    assert_eq!(watermark, &Entry::Watermark(99_400));
    let report = inspect::check(dir.path()).expect("a log");
    assert_eq!((report.records, report.rows), (4, 200), "notes are no rows");
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings::new(dir.path()));
    let error = Log::open(Settings::new(dir.path()), &ports()).expect_err("refused");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(log);
    open(Settings::new(dir.path()));
}

#[test]
fn a_closed_log_ends_after_what_was_queued() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings { commit: Duration::from_secs(3600), ..Settings::new(dir.path()) });
    commit(&log, batch(1));
    let mut reader = log.reader(1);
    assert_eq!(reader.next().expect("reads"), Next::Wait);
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    let subscription = log.subscribe(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    log.append(batch(2));
    log.close();
    log.append(batch(3));
    until(|| woken.load(Ordering::Relaxed) >= 2);
    drop(subscription);
    assert_eq!(reader.next().expect("reads"), Next::Entry(1, batch(2)));
    assert_eq!(reader.next().expect("reads"), Next::End);
    assert_eq!(reader.position(), 2);
}

#[test]
fn watermarks_that_wait_together_are_merged() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings { commit: Duration::from_secs(3600), ..Settings::new(dir.path()) });
    commit(&log, batch(1));
    for ms in [1, 2, 9, 3] {
        log.append(Entry::Watermark(ms));
    }
    log.close();
    let mut reader = log.reader(1);
    until(|| log.end() > 1 && log.last_watermark() == 9);
    let mut last = 0;
    while let Next::Entry(_, Entry::Watermark(ms)) = reader.next().expect("reads") {
        last = last.max(ms);
    }
    assert_eq!(last, 9);
}

#[test]
fn readers_cross_from_files_to_memory_and_over_segments() {
    let dir = tempdir().expect("a directory");
    let small = Settings { segment_bytes: 20_000, memory_bytes: 12_000, ..Settings::new(dir.path()) };
    let log = open(small.clone());
    let mut early = log.reader(0);
    let mut found = Vec::new();
    for second in 0..200 {
        commit(&log, batch(second));
        // Behind by up to 50 records, so that it reads files, then catches up.
        if second % 50 == 49 {
            while let Next::Entry(position, entry) = early.next().expect("reads") {
                found.push((position, entry));
            }
        }
    }
    let expected: Vec<_> = (0..200).map(|second| (second, batch(second))).collect();
    assert_eq!(found, expected);
    assert!(log.counters().segments.load(Ordering::Relaxed) > 3);
    assert_eq!(read(&log, 0), expected);
    assert_eq!(early.missed(), 0);
}

#[test]
fn many_readers_follow_a_writer() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings { segment_bytes: 50_000, memory_bytes: 20_000, ..Settings::new(dir.path()) });
    std::thread::scope(|scope| {
        let follow = |from: u64| {
            let log = &log;
            move || {
                let (mut reader, mut expected) = (log.reader(from), from);
                loop {
                    match reader.next().expect("reads") {
                        Next::Entry(position, entry) => {
                            assert!(position < log.end(), "durable before it is seen");
                            assert_eq!((position, entry), (expected, batch(expected)));
                            expected += 1;
                        }
                        Next::Wait => std::thread::yield_now(),
                        Next::End => break assert_eq!(expected, 500),
                    }
                }
            }
        };
        for from in [0, 0, 100] {
            scope.spawn(follow(from));
        }
        (0..500).for_each(|second| log.append(batch(second)));
        log.close();
    });
}

#[test]
fn a_rebuild_starts_before_the_first_row_that_it_needs() {
    let dir = tempdir().expect("a directory");
    let settings = Settings { segment_bytes: 20_000, ..Settings::new(dir.path()) };
    written(&settings, 0..100);
    let log = open(settings);
    assert_eq!(log.start_for(0).expect("reads"), 0);
    assert_eq!(log.start_for(50_000).expect("reads"), 50);
    assert_eq!(log.start_for(50_001).expect("reads"), 51);
    assert_eq!(log.start_for(99_001).expect("reads"), 100);
    commit(&log, batch(10));
    commit(&log, batch(200));
    assert_eq!(log.start_for(99_001).expect("reads"), 101, "an older row after newer ones");
}

#[test]
fn columns_that_changed_are_matched_by_name() {
    let dir = tempdir().expect("a directory");
    written(&Settings::new(dir.path()), 0..3);
    let time = schema().field(0).clone();
    let reopen = |fields: Vec<Field>| {
        let port = ("out".to_owned(), Arc::new(Schema::new(fields)));
        Log::open(Settings::new(dir.path()), &[port]).expect("opens")
    };
    let log = reopen(vec![Field::new("new", DataType::Int32, true), time.clone()]);
    let found = read(&log, 0);
    assert_eq!(found.len(), 3);
    let Entry::Batch { rows, .. } = &found[2].1 else { panic!("a batch") };
    assert_eq!((rows.num_rows(), rows.column(0).null_count()), (2, 2));
    assert_eq!(rows.schema_ref().field(1), &time);
    drop(log);
    for field in [Field::new("new", DataType::Int32, false), Field::new("host", DataType::Int64, true)] {
        let log = reopen(vec![field, time.clone()]);
        assert_eq!(read(&log, 0), []);
        let counters = log.counters();
        assert_eq!(counters.unreadable_records.load(Ordering::Relaxed), 3);
        assert_eq!(counters.unreadable_rows.load(Ordering::Relaxed), 6);
        assert_eq!(counters.damaged_records.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn rows_of_another_schema_are_refused_and_counted() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings::new(dir.path()));
    let Entry::Batch { rows, .. } = reject(1) else { panic!("a batch") };
    log.append(Entry::Batch { port: 0, time: 0, late: false, rows: rows.clone() });
    log.append(Entry::Batch { port: 9, time: 0, late: false, rows });
    commit(&log, batch(1));
    assert_eq!(log.counters().refused_records.load(Ordering::Relaxed), 2);
    assert_eq!(log.counters().queued_bytes.load(Ordering::Relaxed), 0);
    assert_eq!(read(&log, 0), [(0, batch(1))]);
}

#[test]
fn a_schema_that_cannot_be_stored_is_refused() {
    let dir = tempdir().expect("a directory");
    let ty = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let port = ("out".to_owned(), Arc::new(Schema::new(vec![Field::new("host", ty, true)])) as SchemaRef);
    let error = Log::open(Settings::new(dir.path()), &[port]).expect_err("refused");
    assert!(error.to_string().contains("column `host`"), "{error}");
}

/// Columns of the types that sources have.
fn any_rows() -> impl Strategy<Value = RecordBatch> {
    use arrow::array::*;
    let row = (
        any::<Option<i64>>(),
        prop::option::of(".{0,20}"),
        any::<Option<bool>>(),
        prop::collection::vec(any::<u8>(), 0..9),
    );
    (prop::collection::vec(row, 0..40), 0_usize..5).prop_map(|(rows, cut)| {
        let mut list = ListBuilder::new(StringBuilder::new());
        for (_, text, _, bytes) in &rows {
            bytes.iter().for_each(|_| list.values().append_option(text.as_deref()));
            list.append(!bytes.is_empty());
        }
        let time =
            TimestampNanosecondArray::from(rows.iter().map(|row| row.0).collect::<Vec<_>>()).with_timezone("UTC");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("time", Arc::new(time)),
            ("text", Arc::new(StringArray::from(rows.iter().map(|row| row.1.as_deref()).collect::<Vec<_>>()))),
            ("view", Arc::new(StringViewArray::from(rows.iter().map(|row| row.1.as_deref()).collect::<Vec<_>>()))),
            ("flag", Arc::new(BooleanArray::from(rows.iter().map(|row| row.2).collect::<Vec<_>>()))),
            ("bytes", Arc::new(BinaryArray::from(rows.iter().map(|row| row.3.as_slice()).collect::<Vec<_>>()))),
            ("list", Arc::new(list.finish())),
        ];
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).expect("valid");
        // A slice: buffers that hold more than the rows.
        let cut = cut.min(rows.num_rows());
        rows.slice(cut, rows.num_rows() - cut)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_come_back_as_they_were(batches in prop::collection::vec((any_rows(), any::<bool>(), any::<u64>()), 1..8)) {
        let dir = tempdir().expect("a directory");
        let ports = [("a".to_owned(), batches[0].0.schema())];
        let settings = Settings { segment_bytes: 10_000, ..Settings::new(dir.path()) };
        let log = Log::open(settings.clone(), &ports).expect("opens");
        let mut expected = Vec::new();
        for (position, (rows, late, time)) in batches.into_iter().enumerate() {
            let entry = Entry::Batch { port: 0, time, late, rows };
            log.append(entry.clone());
            expected.push((position as u64, entry));
        }
        until(|| log.end() == expected.len() as u64);
        prop_assert_eq!(read(&log, 0), expected.clone());
        drop(log);
        let log = Log::open(settings, &ports).expect("opens");
        prop_assert_eq!(read(&log, 0), expected);
    }
}

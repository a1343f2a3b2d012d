//! Full logs, trimming and retention.

use std::sync::atomic::Ordering::Relaxed;

use tempfile::tempdir;

use super::*;
use crate::inspect;

/// Segments of a few records, eight of them.
fn narrow(dir: &std::path::Path, when_full: WhenFull) -> Settings {
    Settings { segment_bytes: 20_000, max_bytes: 160_000, memory_bytes: 0, when_full, ..Settings::new(dir) }
}

#[test]
fn a_full_log_makes_sources_wait_until_it_is_trimmed() {
    let dir = tempdir().expect("a directory");
    let log = open(narrow(dir.path(), WhenFull::Block));
    let mut second = 0;
    while !log.must_wait() {
        commit(&log, batch(second));
        second += 1;
    }
    assert!(log.counters().disk_bytes.load(Relaxed) >= 160_000);
    commit(&log, batch(second));
    assert_eq!(log.end(), second + 1, "what is queued already is still written");
    log.trim(second / 2);
    assert!(!log.must_wait());
    assert!((1..=second / 2).contains(&log.first()));
    let first = log.first();
    assert_eq!(read(&log, 0).len() as u64, second + 1 - first);
    assert_eq!(log.counters().dropped_records.load(Relaxed), 0);
    assert_eq!(log.counters().damaged_records.load(Relaxed), 0);
}

#[test]
fn a_full_log_that_drops_counts_what_it_drops() {
    let dir = tempdir().expect("a directory");
    let log = open(narrow(dir.path(), WhenFull::DropOldest));
    let mut reader = log.reader(0);
    for second in 0..300 {
        commit(&log, batch(second));
        assert!(!log.must_wait());
        assert!(log.counters().disk_bytes.load(Relaxed) <= 170_000);
    }
    let first = log.first();
    assert!(first > 0);
    assert_eq!(log.counters().dropped_records.load(Relaxed), first);
    assert_eq!(log.counters().dropped_rows.load(Relaxed), 2 * first);
    assert_eq!(reader.next().expect("reads"), Next::Entry(first, batch(first)));
    assert_eq!(reader.missed(), first);
    assert_eq!(log.counters().damaged_records.load(Relaxed), 0);
}

#[test]
fn trimmed_records_are_kept_for_their_age_and_go_first() {
    let dir = tempdir().expect("a directory");
    let settings = Settings { max_age: Some(Duration::from_secs(10)), ..narrow(dir.path(), WhenFull::Block) };
    let log = open(settings);
    (0..60).for_each(|second| commit(&log, batch(second)));
    log.trim(60);
    let first = log.first();
    assert!((1..=49).contains(&first), "kept from {first}");
    // More than fits: what was trimmed makes room, and is no loss.
    for second in 60..400 {
        commit(&log, batch(second));
        log.trim(second);
        assert!(!log.must_wait());
    }
    assert_eq!(log.counters().dropped_records.load(Relaxed), 0);
    assert!(log.first() > 300);
}

#[test]
fn a_log_full_of_what_is_kept_for_its_age_takes_rows_again_once_it_is_trimmed() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings { max_age: Some(Duration::from_secs(3600)), ..narrow(dir.path(), WhenFull::Block) });
    let mut second = 0;
    while !log.must_wait() {
        commit(&log, batch(second));
        second += 1;
    }
    log.trim(second / 2);
    assert!(!log.must_wait(), "nothing comes that could make room otherwise");
    assert_eq!(log.counters().dropped_records.load(Relaxed), 0);
}

#[test]
fn a_trimmed_log_goes_on_at_its_position() {
    let dir = tempdir().expect("a directory");
    let settings = narrow(dir.path(), WhenFull::Block);
    written(&settings, 0..40);
    let log = open(settings.clone());
    log.trim(u64::MAX);
    assert!(log.first() <= 40 && log.first() > 0);
    commit(&log, Entry::Watermark(77));
    log.trim(u64::MAX);
    drop(log);
    let log = open(settings);
    assert_eq!((log.end(), log.last_watermark()), (41, 77));
    commit(&log, batch(1));
    assert_eq!(read(&log, 41), [(41, batch(1))]);
}

#[test]
fn too_much_in_the_queue_makes_sources_wait() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings { commit: Duration::from_secs(3600), ..Settings::new(dir.path()) });
    commit(&log, batch(1));
    assert!(!log.must_wait());
    (0..10).for_each(|_| log.append(reject(4 << 20)));
    assert!(log.must_wait(), "nothing of it is durable");
    log.close();
    until(|| log.end() == 11);
    assert!(!log.must_wait());
}

#[test]
fn a_log_says_what_it_holds() {
    let dir = tempdir().expect("a directory");
    let settings = Settings { dir: dir.path().join("requests"), ..narrow(dir.path(), WhenFull::Block) };
    let log = open(settings);
    (1..40).for_each(|second| commit(&log, batch(second)));
    commit(&log, Entry::Watermark(39_000));
    let logs = inspect::logs(dir.path()).expect("lists");
    assert_eq!(logs, [("requests".to_owned(), dir.path().join("requests"))]);
    assert_eq!(inspect::logs(&logs[0].1).expect("lists"), logs);
    let contents = inspect::contents(&logs[0].1).expect("reads");
    assert_eq!((contents.first, contents.end, contents.records, contents.rows), (0, 40, 40, 78));
    assert_eq!((contents.oldest, contents.newest), (Some(SECOND / 2), Some(39 * SECOND)));
    assert_eq!(contents.watermark, 39_000);
    assert_eq!(contents.segments, log.counters().segments.load(Relaxed));
    assert_eq!(contents.bytes, log.counters().disk_bytes.load(Relaxed));
    assert!(inspect::is_in_use(&logs[0].1));
    assert!(matches!(repair(&logs[0].1), Err(SpoolError::InUse(_))));
    drop(log);
    assert!(!inspect::is_in_use(&logs[0].1));
}

#[test]
fn an_export_has_the_rows_of_a_port_in_a_range() {
    let dir = tempdir().expect("a directory");
    let log = open(narrow(dir.path(), WhenFull::Block));
    (0..40).for_each(|second| commit(&log, batch(second)));
    commit(&log, reject(3));
    let export = |port: usize, from: i64, to: i64| {
        let (name, schema) = inspect::ports(dir.path()).expect("reads")[port].clone();
        let mut positions = Vec::new();
        let mut visit = |rows: inspect::Rows| {
            positions.push(rows.position);
            positions.len() < 20
        };
        let report = inspect::export(dir.path(), &name, &schema, (from, to), &mut visit).expect("reads");
        assert_eq!(report.faults, []);
        positions
    };
    assert_eq!(export(0, 10 * SECOND, 13 * SECOND), [10, 11, 12, 13]);
    assert_eq!(export(0, i64::MIN, i64::MAX), (0..20).collect::<Vec<_>>());
    assert_eq!(export(1, i64::MIN, i64::MAX), [40]);
}

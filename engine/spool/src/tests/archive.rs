//! Logs that are only read.

use std::fs;

use tempfile::tempdir;

use super::*;

/// Everything that an archive gives, and how many records it passes over.
fn all(archive: &Arc<Archive>) -> (Vec<(u64, Entry)>, u64) {
    let mut reader = archive.reader();
    let mut found = Vec::new();
    while let Next::Entry(position, entry) = reader.next().expect("reads") {
        found.push((position, entry));
    }
    assert_eq!(reader.bytes_read(), archive.bytes());
    (found, archive.missed())
}

fn archive(dir: &std::path::Path, range: std::ops::Range<i64>) -> Arc<Archive> {
    Archive::open(dir, &ports(), range).expect("opens")
}

const ALL: std::ops::Range<i64> = i64::MIN..i64::MAX;

#[test]
fn a_log_in_use_is_read_up_to_where_it_was_when_it_was_opened() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings::new(dir.path()));
    let entries = [batch(0), Entry::Watermark(500), batch(1), reject(5)];
    entries.iter().for_each(|entry| commit(&log, entry.clone()));
    let before = archive(dir.path(), ALL);
    commit(&log, batch(2));
    let (found, missed) = all(&before);
    assert_eq!((found, missed), ((0..).zip(entries).collect(), 0));
    assert_eq!(all(&archive(dir.path(), ALL)).0.len(), 5);
}

#[test]
fn rows_of_another_time_are_left_out_and_segments_without_any_are_not_read() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings { segment_bytes: 4096, ..Settings::new(dir.path()) });
    (1..200).for_each(|second| commit(&log, batch(second)));
    drop(log);
    assert!(fs::read_dir(dir.path()).expect("a directory").count() > 4, "several segments");
    // The rows of second 50 are at 49.5 s and 50 s.
    let (found, missed) = all(&archive(dir.path(), 50 * SECOND..60 * SECOND));
    let rows = |entry: &Entry| match entry {
        Entry::Batch { rows, .. } => rows.num_rows(),
        Entry::Watermark(_) | Entry::Note(_) => 0,
    };
    assert_eq!(found.iter().map(|(_, entry)| rows(entry)).sum::<usize>(), 20);
    assert_eq!((found[0].0, rows(&found[0].1), missed), (49, 1, 0));
}

#[test]
fn damage_loses_what_the_log_itself_would_lose() {
    let dir = tempdir().expect("a directory");
    written(&Settings::new(dir.path()), 0..6);
    written(&Settings::new(dir.path()), 6..8);
    let path = dir.path().join("00000000000000000000.seg");
    let bytes = fs::read(&path).expect("a segment");
    for at in (0..bytes.len()).step_by(13) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).expect("written");
        let log = open(Settings::new(dir.path()));
        let expected = read(&log, 0);
        let lost = log.counters().damaged_records.load(std::sync::atomic::Ordering::Relaxed);
        drop(log);
        assert_eq!(all(&archive(dir.path(), ALL)), (expected, lost), "byte {at}");
    }
    fs::remove_file(&path).expect("removed");
    assert_eq!(all(&archive(dir.path(), ALL)).0.len(), 2, "the rest is there");
}

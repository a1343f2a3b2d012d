//! Opening again after a kill at any moment.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use tempfile::tempdir;

use super::*;

/// What a process that is killed leaves behind: a copy of the directory while it is written to.
fn killed(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).expect("a directory");
    let mut files: Vec<_> = fs::read_dir(from).expect("lists").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for path in files {
        // A segment may be deleted or begun meanwhile.
        let _ = fs::copy(&path, to.join(path.file_name().expect("a name")));
    }
}

#[test]
fn after_a_kill_everything_committed_is_there_and_positions_go_on() {
    let dir = tempdir().expect("a directory");
    let copies = tempdir().expect("a directory");
    let live = Settings { segment_bytes: 30_000, ..Settings::new(dir.path().join("log")) };
    let log = open(live.clone());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for second in 0..1500 {
                log.append(batch(second));
                // Sometimes many at once, sometimes one.
                if second % 40 < 20 {
                    until(|| log.end() > second);
                }
            }
            log.close();
        });
        let mut number = 0;
        while log.end() < 1500 {
            // Committed before the copy begins.
            let committed = log.end();
            let settings = Settings { dir: copies.path().join(number.to_string()), ..live.clone() };
            killed(&live.dir, &settings.dir);
            let again = open(settings.clone());
            let end = again.end();
            assert!(end >= committed, "copy {number}: {end} of {committed}");
            let found = read(&again, 0);
            let whole = found.len() as u64;
            assert!(whole >= committed);
            assert_eq!(found, (0..whole).map(|n| (n, batch(n))).collect::<Vec<_>>());
            commit(&again, batch(end));
            drop(again);
            let again = open(settings.clone());
            assert_eq!(read(&again, end), [(end, batch(end))]);
            assert_eq!(again.counters().damaged_records.load(Relaxed), 0);
            drop(again);
            fs::remove_dir_all(&settings.dir).expect("removed");
            number += 1;
        }
    });
}

#[test]
fn a_log_without_a_record_is_opened_again() {
    let dir = tempdir().expect("a directory");
    for _ in 0..3 {
        let log = open(Settings::new(dir.path()));
        assert_eq!((log.first(), log.end(), log.last_watermark()), (0, 0, 0));
    }
    fs::write(dir.path().join("00000000000000000000.seg"), b"JA4").expect("written");
    let log = open(Settings::new(dir.path()));
    commit(&log, batch(0));
    assert_eq!(read(&log, 0), [(0, batch(0))]);
}

#[test]
fn what_is_not_durable_is_not_seen() {
    let dir = tempdir().expect("a directory");
    let log = open(Settings { commit: Duration::from_secs(3600), ..Settings::new(dir.path()) });
    commit(&log, batch(0));
    let mut reader = log.reader(0);
    assert_eq!(reader.next().expect("reads"), Next::Entry(0, batch(0)));
    log.append(Entry::Watermark(1000));
    log.append(reject(4 << 20));
    // So much is not kept back until the next commit: it is in the file, but not synced.
    let written = || inspect::contents(dir.path()).expect("reads").records;
    until(|| written() == 3);
    assert_eq!((reader.next().expect("reads"), log.end(), log.last_watermark()), (Next::Wait, 1, 0));
    log.close();
    until(|| log.end() == 3);
    assert_eq!(log.counters().commits.load(Relaxed), 2);
}

//! Disks that refuse.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tempfile::tempdir;

use super::*;
use crate::files::{Disk, Files, Output};

/// A disk with faults.
#[derive(Clone, Debug, Default)]
struct Faulty(Arc<Plan>);

#[derive(Debug, Default)]
struct Plan {
    /// Bytes that still fit; `None` is as many as wanted.
    room: Mutex<Option<u64>>,
    /// Which of the next syncs fail, the first one last.
    syncs: Mutex<Vec<bool>>,
    /// Which of the next writes fail after half of their bytes.
    writes: Mutex<Vec<bool>>,
    /// A file was synced after a sync of it had failed.
    synced_again: AtomicBool,
    creates: AtomicU64,
}

#[derive(Debug)]
struct FaultyFile(Box<dyn Output>, Arc<Plan>, bool);

impl Files for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.0.creates.fetch_add(1, Relaxed);
        Ok(Box::new(FaultyFile(Disk.create(path)?, self.0.clone(), false)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if let (Ok(file), Some(room)) = (path.metadata(), &mut *self.0.room.lock()) {
            *room += file.len();
        }
        Disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
}

impl Output for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let half = &bytes[..bytes.len() / 2];
        if self.1.writes.lock().pop() == Some(true) {
            self.0.write_at(half, offset)?;
            return Err(io::Error::other("broken"));
        }
        if let Some(room) = &mut *self.1.room.lock() {
            if *room < bytes.len() as u64 {
                self.0.write_at(half, offset)?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= bytes.len() as u64;
        }
        self.0.write_at(bytes, offset)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.synced_again.fetch_or(self.2, Relaxed);
        if self.1.syncs.lock().pop() == Some(true) {
            self.2 = true;
            return Err(io::Error::other("broken"));
        }
        self.0.sync()
    }
}

fn open_on(disk: &Faulty, settings: &Settings) -> Arc<Log> {
    Log::open_with(settings.clone(), &ports(), Arc::new(disk.clone())).expect("opens")
}

/// Records 0 to `end`, each once and in order, in memory and on disk.
fn assert_whole(log: Arc<Log>, settings: &Settings, end: u64) {
    let expected: Vec<_> = (0..end).map(|n| (n, batch(n))).collect();
    assert_eq!(read(&log, 0), expected);
    drop(log);
    let log = open(settings.clone());
    assert_eq!(read(&log, 0), expected);
    assert_eq!(log.counters().damaged_records.load(Relaxed), 0);
}

#[test]
fn a_full_disk_holds_sources_up_until_there_is_room() {
    let dir = tempdir().expect("a directory");
    let (settings, disk) = (Settings::new(dir.path()), Faulty::default());
    let log = open_on(&disk, &settings);
    commit(&log, batch(0));
    *disk.0.room.lock() = Some(1500);
    (1..10).for_each(|second| log.append(batch(second)));
    until(|| log.counters().write_errors.load(Relaxed) >= 2);
    assert!(log.must_wait());
    assert!(log.end() < 10);
    let mut reader = log.reader(log.end());
    assert_eq!(reader.next().expect("reads"), Next::Wait);
    *disk.0.room.lock() = None;
    until(|| log.end() == 10 && !log.must_wait());
    assert_whole(log, &settings, 10);
}

#[test]
fn a_full_disk_without_waiting_costs_the_oldest_segment() {
    let dir = tempdir().expect("a directory");
    let settings = Settings {
        segment_bytes: 20_000,
        memory_bytes: 0,
        when_full: WhenFull::DropOldest,
        ..Settings::new(dir.path())
    };
    let disk = Faulty::default();
    *disk.0.room.lock() = Some(100_000);
    let log = open_on(&disk, &settings);
    (0..200).for_each(|second| commit(&log, batch(second)));
    assert_eq!(log.counters().write_errors.load(Relaxed), 0, "there was always something to delete");
    let first = log.first();
    assert!(first > 0);
    assert_eq!(log.counters().dropped_records.load(Relaxed), first);
    assert_eq!(read(&log, 0), (first..200).map(|n| (n, batch(n))).collect::<Vec<_>>());
}

#[test]
fn a_failed_sync_is_never_tried_on_the_same_file() {
    let dir = tempdir().expect("a directory");
    let (settings, disk) = (Settings::new(dir.path()), Faulty::default());
    let log = open_on(&disk, &settings);
    (0..3).for_each(|second| commit(&log, batch(second)));
    *disk.0.syncs.lock() = vec![true, true];
    let mut reader = log.reader(3);
    log.append(batch(3));
    until(|| log.end() == 4);
    assert_eq!(reader.next().expect("reads"), Next::Entry(3, batch(3)));
    commit(&log, batch(4));
    assert_eq!(log.counters().sync_errors.load(Relaxed), 2);
    assert!(!disk.0.synced_again.load(Relaxed));
    assert_eq!(disk.0.creates.load(Relaxed), 3);
    until(|| !log.must_wait());
    assert_whole(log, &settings, 5);
}

#[test]
fn a_log_that_is_dropped_does_not_wait_for_a_broken_disk() {
    let dir = tempdir().expect("a directory");
    let (settings, disk) = (Settings::new(dir.path()), Faulty::default());
    let log = open_on(&disk, &settings);
    commit(&log, batch(0));
    *disk.0.room.lock() = Some(0);
    log.append(batch(1));
    let mut reader = log.reader(1);
    drop(log);
    assert_eq!(reader.next().expect("reads"), Next::End);
    assert_eq!(read(&open(settings), 0), [(0, batch(0))]);
}

fn rows_of(entry: &Entry) -> RecordBatch {
    match entry {
        Entry::Batch { rows, .. } => rows.clone(),
        Entry::Note(_) | Entry::Watermark(_) => RecordBatch::new_empty(schema()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(9), cases: 24, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn no_fault_loses_or_repeats_a_record(
        syncs in prop::collection::vec(prop::bool::weighted(0.1), 40),
        writes in prop::collection::vec(prop::bool::weighted(0.1), 60),
        segment_bytes in 12_000_u64..60_000,
        slow in any::<bool>(),
    ) {
        let dir = tempdir().expect("a directory");
        let commit = if slow { Duration::from_millis(2) } else { Duration::ZERO };
        let settings = Settings { segment_bytes, commit, memory_bytes: 16_000, ..Settings::new(dir.path()) };
        let disk = Faulty::default();
        *disk.0.syncs.lock() = syncs;
        *disk.0.writes.lock() = writes;
        let log = open_on(&disk, &settings);
        let mut reader = log.reader(0);
        for second in 0..100 {
            log.append(batch(second));
            if second % 7 == 0 {
                until(|| log.counters().rows.load(Relaxed) > 2 * second);
            }
        }
        log.close();
        let mut found = Vec::new();
        loop {
            match reader.next().expect("reads") {
                // With `slow` what comes between two commits is one record.
                Next::Entry(position, entry) => found.push((position, entry)),
                Next::Wait => std::thread::yield_now(),
                Next::End => break,
            }
        }
        let positions: Vec<u64> = found.iter().map(|(position, _)| *position).collect();
        prop_assert_eq!(positions, (0..found.len() as u64).collect::<Vec<_>>());
        let rows: Vec<_> = found.iter().map(|(_, entry)| rows_of(entry)).collect();
        let expected: Vec<_> = (0..100).map(|second| rows_of(&batch(second))).collect();
        let together = |rows: &[RecordBatch]| arrow::compute::concat_batches(&schema(), rows).expect("one schema");
        prop_assert_eq!(together(&rows), together(&expected));
        prop_assert!(slow || found.len() == 100);
        prop_assert!(!disk.0.synced_again.load(Relaxed));
        drop(log);
        let log = open(settings);
        prop_assert_eq!(read(&log, 0), found);
        prop_assert_eq!(log.counters().damaged_records.load(Relaxed), 0);
        drop(log);
        prop_assert_eq!(inspect::check(dir.path()).expect("checks").faults, vec![]);
    }
}

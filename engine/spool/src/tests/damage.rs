//! Files that are not as they were written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::format::{FRAME, Frame, Header, Kind, SECTOR, decode_rows};
use crate::segment::{Segment, Step, list};

/// A closed log of records 0 to 5 in one segment, its path and its bytes.
fn small() -> (TempDir, PathBuf, Vec<u8>) {
    let dir = tempdir().expect("a directory");
    written(&Settings::new(dir.path()), 0..6);
    let path = dir.path().join("00000000000000000000.seg");
    let bytes = fs::read(&path).expect("a segment");
    (dir, path, bytes)
}

/// Where the records of a segment begin, and where the last one ends.
fn offsets(path: &Path) -> Vec<u64> {
    let mut segment = Segment::open(path, None).expect("opens");
    let mut offsets = vec![segment.offset()];
    while let Step::Record(..) = segment.step().expect("reads") {
        offsets.push(segment.offset());
    }
    offsets
}

/// Opens a copy of the log whose last segment is another file. So damage is in the middle of a log, and nothing is cut off.
fn in_the_middle(dir: &Path) {
    written(&Settings::new(dir), 6..8);
}

#[test]
fn a_flipped_byte_loses_no_other_record() {
    let (dir, path, bytes) = small();
    in_the_middle(dir.path());
    let offsets = offsets(&path);
    for (at, mask) in (0..bytes.len()).map(|at| (at, 1 << (at % 8))) {
        // Of the header a sample: most of it is padding.
        if (at as u64) < offsets[0] && !at.is_multiple_of(if at % 4096 < 600 { 5 } else { 97 }) {
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= mask;
        fs::write(&path, &damaged).expect("written");
        let log = open(Settings::new(dir.path()));
        let hit = offsets.windows(2).position(|pair| (pair[0]..pair[1]).contains(&(at as u64)));
        let hit = hit.filter(|&hit| hit < 6);
        let found = read(&log, 0);
        let expected: Vec<_> = (0..8).filter(|n| hit != Some(*n as usize)).map(|n| (n, batch(n))).collect();
        assert_eq!(found, expected, "byte {at}");
        let lost = u64::from(hit.is_some());
        assert_eq!(log.counters().damaged_records.load(Relaxed), lost, "byte {at}");
        read(&log, 0);
        assert_eq!(log.counters().damaged_records.load(Relaxed), lost, "counted once");
        drop(log);
        // Nothing was written: the next round has the same files.
        assert_eq!(list(dir.path()).expect("lists").len(), 2);
    }
}

#[test]
fn a_file_that_ends_anywhere_keeps_its_whole_records() {
    let (dir, path, bytes) = small();
    let offsets = offsets(&path);
    for length in (0..bytes.len()).filter(|&length| length as u64 >= offsets[0] || length % 97 == 0) {
        fs::write(&path, &bytes[..length]).expect("written");
        let whole = offsets[1..7].iter().filter(|&&end| end <= length as u64).count() as u64;
        let log = open(Settings::new(dir.path()));
        let expected: Vec<_> = (0..whole).map(|n| (n, batch(n))).collect();
        assert_eq!(read(&log, 0), expected, "length {length}");
        assert!(log.end() >= whole);
        let at = log.end();
        commit(&log, batch(9));
        assert_eq!(read(&log, at), [(at, batch(9))], "goes on after {length} bytes");
        drop(log);
        for (_, path) in list(dir.path()).expect("lists") {
            fs::remove_file(path).expect("removed");
        }
    }
}

#[test]
fn a_position_that_may_have_been_read_is_not_used_again() {
    let (dir, path, bytes) = small();
    let offsets = offsets(&path);
    // The last record's body is damaged, the seal is gone.
    let mut damaged = bytes[..offsets[6] as usize].to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    fs::write(&path, &damaged).expect("written");
    let log = open(Settings::new(dir.path()));
    assert_eq!(log.end(), 6);
    commit(&log, batch(7));
    drop(log);
    // All of the last record is zero: how many records there were is not known.
    let mut damaged = bytes[..offsets[6] as usize].to_vec();
    damaged[offsets[5] as usize..].fill(0);
    fs::write(&path, &damaged).expect("written");
    fs::remove_file(dir.path().join("00000000000000000006.seg")).expect("removed");
    let log = open(Settings::new(dir.path()));
    assert!(log.end() >= 6);
    commit(&log, batch(7));
    let end = log.end();
    assert_eq!(read(&log, 4), [(4, batch(4)), (end - 1, batch(7))]);
    drop(log);
    let log = open(Settings::new(dir.path()));
    assert_eq!(read(&log, 4), [(4, batch(4)), (end - 1, batch(7))]);
    assert_eq!(log.counters().damaged_records.load(Relaxed), 0, "was counted as torn bytes");
}

#[test]
fn a_missing_segment_is_counted() {
    let dir = tempdir().expect("a directory");
    for from in [0, 4, 8] {
        written(&Settings::new(dir.path()), from..from + 4);
    }
    let log = open(Settings { memory_bytes: 0, ..Settings::new(dir.path()) });
    let mut reader = log.reader(0);
    assert_eq!(reader.next().expect("reads"), Next::Entry(0, batch(0)));
    fs::remove_file(dir.path().join("00000000000000000004.seg")).expect("removed");
    let mut positions = vec![0];
    while let Next::Entry(position, _) = reader.next().expect("reads") {
        positions.push(position);
    }
    assert_eq!(positions, [0, 1, 2, 3, 8, 9, 10, 11]);
    assert_eq!((log.counters().damaged_records.load(Relaxed), reader.missed()), (4, 4));
    drop(log);
    let log = open(Settings::new(dir.path()));
    assert_eq!(read(&log, 0).len(), 8);
    assert_eq!(log.counters().damaged_records.load(Relaxed), 4);
}

#[test]
fn a_length_from_a_file_does_not_decide_what_is_allocated() {
    let (dir, path, bytes) = small();
    in_the_middle(dir.path());
    let offsets = offsets(&path);
    let (header, _) = Header::decode(&bytes).expect("a header");
    for body in [u32::MAX, 256 << 20, bytes.len() as u32] {
        let mut damaged = bytes.clone();
        let at = offsets[2] as usize;
        let frame = Frame::decode(&bytes[at..], &header.mark).expect("a frame");
        damaged[at..at + 64].copy_from_slice(&Frame { body, ..frame }.encode(&header.mark));
        fs::write(&path, &damaged).expect("written");
        let log = open(Settings::new(dir.path()));
        let positions: Vec<_> = read(&log, 0).into_iter().map(|(position, _)| position).collect();
        assert_eq!(positions, [0, 1, 3, 4, 5, 6, 7]);
    }
}

#[test]
fn what_a_client_sends_cannot_pass_for_a_record() {
    let dir = tempdir().expect("a directory");
    let guess = Frame { time: 99, ..Frame::bare(Kind::Watermark, 1) }.encode(b"JA4SPOOL");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![String::from_utf8_lossy(&guess).into_owned()])),
        Arc::new(Int32Array::from(vec![1])),
    ];
    let rows = RecordBatch::try_new(ports()[1].1.clone(), columns).expect("valid");
    let log = open(Settings { memory_bytes: 0, ..Settings::new(dir.path()) });
    commit(&log, Entry::Batch { port: 1, time: 0, late: false, rows });
    drop(log);
    let path = dir.path().join("00000000000000000000.seg");
    let at = offsets(&path)[0] as usize;
    let mut bytes = fs::read(&path).expect("a segment");
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("written");
    in_the_middle(dir.path());
    assert!(read(&open(Settings::new(dir.path())), 0).iter().all(|(_, entry)| *entry != Entry::Watermark(99)));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(8), cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_leaves_the_records_that_it_does_not_touch(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..3000, 0_u8..3), 1..5),
    ) {
        let (dir, path, bytes) = small();
        in_the_middle(dir.path());
        let offsets = offsets(&path);
        let mut damaged = bytes.clone();
        let mut touched = [false; 8];
        for (index, length, how) in cuts {
            let from = index.index(bytes.len());
            let to = (from + length).min(bytes.len());
            match how {
                0 => damaged[from..to].fill(0),
                1 => damaged[from..to].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7)),
                _ => damaged[from] ^= 0x10,
            }
            for (n, pair) in offsets.windows(2).enumerate().take(6) {
                touched[n] |= (pair[0] as usize) < to && from < pair[1] as usize;
            }
        }
        fs::write(&path, &damaged).expect("written");
        let log = open(Settings::new(dir.path()));
        let found = read(&log, 0);
        for n in 0..8 {
            let whole = found.contains(&(n, batch(n)));
            prop_assert!(whole || touched[n as usize], "record {} is missing", n);
        }
        prop_assert_eq!(log.counters().damaged_records.load(Relaxed), 8 - found.len() as u64);
        drop(log);
        let before = inspect::check(dir.path()).expect("checks");
        prop_assert_eq!(before.records, found.len() as u64);
        prop_assert_eq!(before.faults.iter().map(|fault| fault.records).sum::<u64>(), 8 - found.len() as u64);
        prop_assert_eq!(repair(dir.path()).expect("repairs"), before);
        let after = inspect::check(dir.path()).expect("checks");
        prop_assert_eq!((after.records, after.faults), (found.len() as u64, vec![]));
        let log = open(Settings::new(dir.path()));
        prop_assert_eq!(read(&log, 0), found);
        prop_assert_eq!(log.counters().damaged_records.load(Relaxed), 0);
    }

    #[test]
    fn a_body_with_a_right_checksum_is_not_trusted(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), rows in any::<u32>(),
    ) {
        let (_dir, path, _) = small();
        let mut segment = Segment::open(&path, None).expect("opens");
        let Step::Record(frame, body) = segment.step().expect("reads") else { panic!("a record") };
        let mut body = body.as_slice().to_vec();
        for (index, value) in changes {
            // Mostly in the message, which says where the columns are.
            let length = body.len();
            body[index.index(length.min(400))] = value;
        }
        // Any answer but a panic.
        let _ = decode_rows(&body.clone().into(), &frame, &schema());
        let _ = decode_rows(&body.into(), &Frame { rows, ..frame }, &schema());
    }

    #[test]
    fn a_file_of_anything_is_no_reason_to_panic(bytes in prop::collection::vec(any::<u8>(), 0..20_000), magic in any::<bool>()) {
        let dir = tempdir().expect("a directory");
        let mut bytes = bytes;
        if magic {
            bytes.splice(0..0, *b"JA4SPOOL\x01\0\0\0");
        }
        fs::write(dir.path().join("00000000000000000005.seg"), &bytes).expect("written");
        let _ = inspect::contents(dir.path()).expect("reads");
        let _ = inspect::check(dir.path()).expect("reads");
        let log = open(Settings::new(dir.path()));
        let held = bytes.len() as u64 > 2 * SECTOR;
        prop_assert!(log.end() >= 5 + u64::from(held) * bytes.len() as u64 / FRAME);
        commit(&log, batch(1));
        prop_assert_eq!(read(&log, 0).len(), 1);
    }
}

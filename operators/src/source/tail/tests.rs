use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

mod world;

const NOBODY: fn(&Path, Identity) -> bool = |_, _| false;

fn follow(path: &Path) -> Tail {
    Tail::new(path.to_owned(), None, Start::Beginning, 1 << 20, Arc::default())
}

fn go_on(path: &Path, place: Place) -> Tail {
    Tail::new(path.to_owned(), Some(place), Start::Beginning, 1 << 20, Arc::default())
}

/// Reads until `wanted` came and says where the text began anew, as `|`.
fn read_until(tail: &mut Tail, wanted: &str) -> String {
    let (mut seen, mut room) = (String::new(), [0; 64]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while seen != wanted && Instant::now() < deadline {
        match tail.read(&mut room, &NOBODY).expect("readable") {
            Progress::Bytes(bytes) => seen.push_str(std::str::from_utf8(&room[..bytes]).expect("text")),
            Progress::Restarted => seen.push('|'),
            Progress::Waiting | Progress::Paused => std::thread::yield_now(),
        }
    }
    seen
}

/// Checks that nothing more comes for a while.
fn rest(tail: &mut Tail) {
    assert_eq!(read_within(tail, 400), "");
}

fn read_within(tail: &mut Tail, ms: u64) -> String {
    let (mut seen, mut room) = (String::new(), [0; 4096]);
    let deadline = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < deadline {
        match tail.read(&mut room, &NOBODY) {
            Ok(Progress::Bytes(bytes)) => seen.push_str(std::str::from_utf8(&room[..bytes]).expect("text")),
            Ok(Progress::Restarted) => seen.push('|'),
            _ => std::thread::yield_now(),
        }
    }
    seen
}

/// A folder with a log, and helpers to rotate it.
struct Logs {
    dir: tempfile::TempDir,
}

impl Logs {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().expect("a folder")).expect("made");
        fs::write(self.path(name), text).expect("written");
    }

    fn append(&self, name: &str, text: &str) {
        let file = File::options().append(true).create(true).open(self.path(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::create_dir_all(self.path(to).parent().expect("a folder")).expect("made");
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    /// As gzip does it: the other file has the time of this one.
    fn compress(&self, name: &str) {
        let from = self.path(name);
        let modified = fs::metadata(&from).and_then(|found| found.modified()).expect("a time");
        let to = File::create(self.path(&format!("{name}.gz"))).expect("made");
        let mut encoder = GzEncoder::new(to, Compression::default());
        encoder.write_all(&fs::read(&from).expect("read")).expect("written");
        encoder.finish().and_then(|file| file.set_modified(modified)).expect("written");
        fs::remove_file(from).expect("removed");
    }

    fn age(&self, name: &str, seconds: u64) {
        let file = File::open(self.path(name)).expect("open");
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).expect("a time");
    }

    /// The place of who has read all of a log.
    fn place(&self, name: &str, wanted: &str) -> Place {
        let mut tail = follow(&self.path(name));
        assert_eq!(read_until(&mut tail, wanted), wanted);
        tail.place(0).expect("open")
    }
}

fn skipped(tail: &Tail) -> u64 {
    tail.skipped.load(Relaxed)
}

#[test]
fn reading_goes_on_in_the_file_that_was_renamed_meanwhile() {
    let logs = Logs::new();
    logs.write("log", "onetwo");
    let mut first = follow(&logs.path("log"));
    assert_eq!(read_until(&mut first, "|onetwo"), "|onetwo");
    let place = first.place(3).expect("open");
    drop(first);
    logs.rename("log", "log.1");
    logs.write("log", "four");
    assert_eq!(read_until(&mut go_on(&logs.path("log"), place.clone()), "two|four"), "two|four");
    fs::remove_file(logs.path("log.1")).expect("removed");
    let mut gone = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut gone, "|four"), "|four");
    assert_eq!(skipped(&gone), 1);
}

#[test]
fn another_text_of_the_same_inode_is_read_from_its_beginning() {
    let logs = Logs::new();
    logs.write("log", "one");
    let place = logs.place("log", "|one");
    // As copytruncate does, and grown beyond the place before anybody looked.
    logs.write("log", "other");
    let mut next = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut next, "|other"), "|other");
    assert_eq!(skipped(&next), 1);
}

#[test]
fn a_text_written_anew_at_once_is_read_from_its_beginning() {
    let logs = Logs::new();
    let text = |from: usize, to: usize| (from..to).map(|n| format!("line {n}\n")).collect::<String>();
    logs.write("log", &text(0, 10));
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_within(&mut tail, 50), format!("|{}", text(0, 10)));
    for round in 1..30 {
        // More than there was, in one write, and the same number of bytes now and then.
        let new = text(1000 * round, 1000 * round + 10 + 10 * (round % 3));
        logs.write("log", &new);
        assert_eq!(read_within(&mut tail, 20), format!("|{new}"));
    }
    // The beginning is the same, but not what stands before the place.
    let long = text(0, 1000);
    logs.write("log", &long);
    assert_eq!(read_within(&mut tail, 50), format!("|{long}"));
    let other = format!("{}{}", &long[..8000], text(5000, 7000));
    logs.write("log", &other);
    assert_eq!(read_within(&mut tail, 50), format!("|{other}"));
    assert_eq!(skipped(&tail), 0, "all of it was read each time");
}

#[test]
fn files_rotated_twice_while_nobody_read_are_taken_in_order() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let place = logs.place("log", "|one\n");
    logs.rename("log", "log.3");
    logs.append("log.3", "+\n");
    for (name, text, age) in [
        ("log.3", None, 50),
        ("log.4", Some("before\n"), 60),
        ("log.2", Some("two\n"), 40),
        ("log.1.gz", Some("squeezed"), 35),
        ("log.1", Some("three\n"), 30),
        ("log2", Some("unrelated\n"), 20),
        ("log", Some("four\n"), 10),
    ] {
        text.into_iter().for_each(|text| logs.write(name, text));
        logs.age(name, age);
    }
    let mut tail = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut tail, "+\n|two\n|three\n|four\n"), "+\n|two\n|three\n|four\n");
    assert_eq!(skipped(&tail), 1, "what only has the name of a compressed one");
}

#[test]
fn names_with_the_date_before_the_extension_are_rotated_ones_too() {
    let logs = Logs::new();
    logs.write("access.log", "one\n");
    let place = logs.place("access.log", "|one\n");
    for (from, to, text) in [("access.log", "access-20261129.log", ""), ("access.log", "access-20261130.log", "two\n")]
    {
        logs.append(from, text);
        logs.rename(from, to);
    }
    logs.write("access.log", "three\n");
    for (name, age) in [("access-20261129.log", 30), ("access-20261130.log", 20), ("access.log", 10)] {
        logs.age(name, age);
    }
    let mut tail = go_on(&logs.path("access.log"), place);
    assert_eq!(read_until(&mut tail, "|two\n|three\n"), "|two\n|three\n");
    assert_eq!(skipped(&tail), 0);
}

/// Rotated twice while nobody read: the file of the saved place is found by its inode, the one between by its name alone.
#[test]
fn a_file_between_is_read_whatever_people_and_programs_call_it() {
    let now = chrono::Utc::now();
    let today = now.format("%m%d");
    for (log, between) in [
        ("access.log", "access.log.old"),
        ("access.log", "access.log.bak"),
        ("access.log", "access.old.log"),
        ("access.log", "access.log.backup-20261124"),
        ("access.log", "20261124-access.log"),
        ("access.log", &format!("access-{today}.log")),
        ("current", "@400000006744a1b2075bcd15.s"),
    ] {
        let logs = Logs::new();
        logs.write(log, "one\n");
        let place = logs.place(log, "|one\n");
        logs.rename(log, "gone.1");
        logs.write(between, "two\n");
        logs.write(log, "three\n");
        for (name, age) in [("gone.1", 60), (between, 30), (log, 10)] {
            logs.age(name, age);
        }
        let mut tail = go_on(&logs.path(log), place);
        assert_eq!(read_until(&mut tail, "|two\n|three\n"), "|two\n|three\n", "{between}");
        assert_eq!((skipped(&tail), tail.unrecognised().len()), (0, 0), "{between}");
    }
    let logs = Logs::new();
    logs.write("access.log", "one\n");
    let place = logs.place("access.log", "|one\n");
    logs.rename("access.log", "access.log.2");
    // The number is no date of when it was written: it may be a port of another program.
    let other = format!("access-{}.log", (now - chrono::TimeDelta::days(180)).format("%m%d"));
    logs.write(&other, "two\n");
    logs.write("access.log", "three\n");
    logs.age("access.log.2", 60);
    let mut tail = go_on(&logs.path("access.log"), place);
    assert_eq!(read_until(&mut tail, "|three\n"), "|three\n");
    assert_eq!(tail.unrecognised(), [fs::canonicalize(logs.path("")).expect("there").join(other)]);
}

#[test]
fn what_was_compressed_meanwhile_is_read_all_the_same() {
    let logs = Logs::new();
    logs.write("log", "one\ntwo\n");
    let mut first = follow(&logs.path("log"));
    assert_eq!(read_until(&mut first, "|one\ntwo\n"), "|one\ntwo\n");
    let place = first.place(4).expect("open");
    drop(first);
    logs.rename("log", "log.2");
    logs.write("log.1", "three\n");
    logs.write("log", "four\n");
    for (name, age) in [("log.2", 30), ("log.1", 20), ("log", 10)] {
        logs.age(name, age);
    }
    logs.compress("log.2");
    logs.compress("log.1");
    let mut tail = go_on(&logs.path("log"), place.clone());
    assert_eq!(read_until(&mut tail, "two\n|three\n|four\n"), "two\n|three\n|four\n");
    assert_eq!(skipped(&tail), 0);
    // One that is damaged is counted, and what follows is read.
    let whole = fs::read(logs.path("log.1.gz")).expect("read");
    fs::write(logs.path("log.1.gz"), &whole[..10]).expect("written");
    logs.age("log.1.gz", 20);
    let mut tail = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut tail, "two\n|four\n"), "two\n|four\n");
    assert_eq!(skipped(&tail), 1);
}

#[test]
fn what_was_not_read_before_a_cut_is_in_the_copy() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_until(&mut tail, "|one\n"), "|one\n");
    let place = tail.place(0).expect("open");
    // As copytruncate, faster than anybody looks.
    logs.append("log", "two\n");
    fs::copy(logs.path("log"), logs.path("log.1")).expect("copied");
    logs.write("log", "three\n");
    assert_eq!(read_until(&mut tail, "two\n|three\n"), "two\n|three\n");
    rest(&mut tail);
    assert_eq!(read_until(&mut go_on(&logs.path("log"), place.clone()), "two\n|three\n"), "two\n|three\n");
    logs.age("log.1", 10);
    logs.compress("log.1");
    let mut tail = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut tail, "two\n|three\n"), "two\n|three\n");
    rest(&mut tail);
    assert_eq!(skipped(&tail), 0);
}

#[test]
fn a_cut_without_a_copy_is_counted_if_something_was_seen_and_not_read() {
    let logs = Logs::new();
    logs.write("log", &"line\n".repeat(100));
    let mut tail = follow(&logs.path("log"));
    let mut room = [0; 50];
    assert_eq!(tail.read(&mut room, &NOBODY), Ok(Progress::Restarted));
    assert_eq!(tail.read(&mut room, &NOBODY), Ok(Progress::Bytes(50)));
    logs.write("log", "new\n");
    assert_eq!(read_until(&mut tail, "|new\n"), "|new\n");
    assert_eq!(skipped(&tail), 1);
}

#[test]
fn a_copy_beside_the_log_is_not_read() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_until(&mut tail, "|one\n"), "|one\n");
    logs.age("log", 20);
    for copy in ["log.2026-11-30", "log.7"] {
        fs::copy(logs.path("log"), logs.path(copy)).expect("copied");
    }
    logs.append("log", "two\n");
    logs.rename("log", "log.1");
    logs.write("log", "three\n");
    // A copy of the new one, and one that is compressed.
    fs::copy(logs.path("log"), logs.path("log.2026-12-01")).expect("copied");
    fs::copy(logs.path("log.1"), logs.path("log.9")).expect("copied");
    logs.compress("log.9");
    assert_eq!(read_until(&mut tail, "two\n|three\n"), "two\n|three\n");
    rest(&mut tail);
    let place = tail.place(0).expect("open");
    // Also after a start, and when the log itself is put back from a copy.
    fs::copy(logs.path("log"), logs.path("new")).expect("copied");
    logs.append("new", "four\n");
    logs.rename("new", "log");
    let mut tail = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut tail, "four\n"), "four\n");
    rest(&mut tail);
    assert_eq!(skipped(&tail), 0);
}

#[test]
fn a_copy_of_a_file_that_was_never_read_is_read_once() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let place = logs.place("log", "|one\n");
    logs.rename("log", "log.3");
    logs.write("log.20261130", "two\n");
    logs.write("log.2", "two\nthree\n");
    logs.write("log.1", "four\n");
    logs.write("log", "five\n");
    for (name, age) in [("log.3", 60), ("log.20261130", 50), ("log.2", 40), ("log.1", 30), ("log", 20)] {
        logs.age(name, age);
    }
    let wanted = "|two\nthree\n|four\n|five\n";
    assert_eq!(read_until(&mut go_on(&logs.path("log"), place.clone()), wanted), wanted);
    logs.write("log.20261130", "two\nthree\n");
    let mut tail = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut tail, wanted), wanted);
    rest(&mut tail);
}

#[test]
fn links_lead_to_where_a_file_was_rotated() {
    let logs = Logs::new();
    logs.write("pods/0.log", "one\n");
    fs::create_dir(logs.path("containers")).expect("made");
    std::os::unix::fs::symlink("../pods/0.log", logs.path("containers/web.log")).expect("linked");
    let place = logs.place("containers/web.log", "|one\n");
    logs.append("pods/0.log", "two\n");
    logs.rename("pods/0.log", "pods/0.log.20261130-120000");
    logs.write("pods/0.log", "three\n");
    let mut tail = go_on(&logs.path("containers/web.log"), place);
    assert_eq!(read_until(&mut tail, "two\n|three\n"), "two\n|three\n");
    assert_eq!(skipped(&tail), 0);
}

#[test]
fn a_folder_that_is_a_link_may_be_moved() {
    let logs = Logs::new();
    logs.write("v1/log", "one\n");
    logs.write("v2/log", "three\n");
    std::os::unix::fs::symlink("v1", logs.path("current")).expect("linked");
    let place = logs.place("current/log", "|one\n");
    logs.append("v1/log", "two\n");
    fs::remove_file(logs.path("current")).expect("removed");
    std::os::unix::fs::symlink("v2", logs.path("current")).expect("linked");
    let mut tail = go_on(&logs.path("current/log"), place);
    assert_eq!(read_until(&mut tail, "two\n|three\n"), "two\n|three\n");
    assert_eq!(skipped(&tail), 0);
}

#[test]
fn a_file_that_was_moved_to_a_folder_below_is_found() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let place = logs.place("log", "|one\n");
    logs.append("log", "two\n");
    logs.rename("log", "old/log.2");
    logs.write("old/log.1", "three\n");
    logs.write("log", "four\n");
    for (name, age) in [("old/log.2", 30), ("old/log.1", 20), ("log", 10)] {
        logs.age(name, age);
    }
    let mut tail = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut tail, "two\n|three\n|four\n"), "two\n|three\n|four\n");
    assert_eq!(skipped(&tail), 0);
}

#[test]
fn who_goes_on_writing_to_the_old_file_is_heard() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_until(&mut tail, "|one\n"), "|one\n");
    logs.rename("log", "log.1");
    logs.write("log", "");
    std::thread::sleep(GRACE * 2);
    // The new one is empty: nobody has moved yet.
    logs.append("log.1", "two\n");
    assert_eq!(read_until(&mut tail, "two\n"), "two\n");
    logs.append("log", "three\n");
    assert_eq!(read_until(&mut tail, "|three\n"), "|three\n");
    logs.append("log.1", "four\n");
    assert_eq!(read_until(&mut tail, "|four\n"), "|four\n");
    let place = tail.place(0).expect("open");
    logs.append("log", "five\n");
    assert_eq!(read_until(&mut tail, "|five\n"), "|five\n");
    rest(&mut tail);
    let mut again = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut again, "|five\n"), "|five\n");
    logs.append("log.1", "six\n");
    assert_eq!(read_until(&mut again, "|six\n|"), "|six\n|");
    rest(&mut again);
    assert_eq!(skipped(&again), 0);
}

#[test]
fn an_error_is_said_and_reading_goes_on_after_it() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_until(&mut tail, "|one\n"), "|one\n");
    logs.rename("log", "log.1");
    logs.append("log.1", "two\n");
    let fault = |tail: &mut Tail| {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let mut room = [0; 64];
            match tail.read(&mut room, &NOBODY) {
                Err(text) => return (text, String::from_utf8(seen).expect("text")),
                Ok(Progress::Bytes(bytes)) => seen.extend_from_slice(&room[..bytes]),
                Ok(_) => {}
            }
        }
        panic!("no error")
    };
    // A folder, a link to itself, a file where a folder was.
    fs::create_dir(logs.path("log")).expect("made");
    let (text, seen) = fault(&mut tail);
    assert!(text.contains("directory") && seen == "two\n", "{text} {seen}");
    fs::remove_dir(logs.path("log")).expect("removed");
    std::os::unix::fs::symlink("log", logs.path("log")).expect("linked");
    assert!(fault(&mut tail).0.contains("symbolic links"));
    fs::remove_file(logs.path("log")).expect("removed");
    logs.write("log", "three\n");
    let readable = || fs::set_permissions(logs.path("log"), fs::Permissions::from_mode(0o600)).expect("changed");
    fs::set_permissions(logs.path("log"), fs::Permissions::from_mode(0o000)).expect("changed");
    // Root may read it all the same.
    if File::open(logs.path("log")).is_err() {
        assert!(fault(&mut tail).0.contains("ermission denied"));
    }
    readable();
    assert_eq!(read_until(&mut tail, "|three\n"), "|three\n");
}

#[test]
fn a_file_is_begun_at_its_end_but_not_within_a_line() {
    let logs = Logs::new();
    for (text, wanted) in
        [("one\ntwo\n", "|three\n"), ("one\ntw", "|twthree\n"), ("", "|three\n"), ("one", "|onethree\n")]
    {
        logs.write("log", text);
        let mut tail = Tail::new(logs.path("log"), None, Start::End, 1 << 20, Arc::default());
        let mut room = [0; 64];
        assert_eq!(tail.read(&mut room, &NOBODY), Ok(Progress::Restarted));
        logs.append("log", "three\n");
        assert_eq!(format!("|{}", read_until(&mut tail, &wanted[1..])), wanted, "{text}");
    }
    let mut later = Tail::new(logs.path("none"), None, Start::End, 1 << 20, Arc::default());
    assert_eq!(later.read(&mut [0; 8], &NOBODY), Ok(Progress::Waiting));
    logs.write("none", "one\n");
    assert_eq!(read_until(&mut later, "|one\n"), "|one\n", "one that comes later is read as a whole");
}

#[test]
fn a_file_is_followed_through_truncation_and_rotation() {
    let logs = Logs::new();
    let path = logs.path("log");
    let mut tail = follow(&path);
    assert_eq!(tail.read(&mut [0; 8], &NOBODY), Ok(Progress::Waiting));
    let mut file = File::create(&path).expect("created");
    file.write_all(b"one").expect("written");
    assert_eq!(read_until(&mut tail, "|one"), "|one");
    file.set_len(0).expect("truncated");
    assert_eq!(read_until(&mut tail, "|"), "|");
    file.rewind().expect("rewound");
    file.write_all(b"two").expect("written");
    assert_eq!(read_until(&mut tail, "two"), "two");
    logs.rename("log", "log.1");
    file.write_all(b"three").expect("written");
    logs.write("log", "four");
    assert_eq!(read_until(&mut tail, "three|four"), "three|four");
}

#[test]
fn a_program_that_does_not_append_leaves_zeros_and_its_lines() {
    let logs = Logs::new();
    let mut file = File::create(logs.path("log")).expect("created");
    file.write_all(b"one\n").expect("written");
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_until(&mut tail, "|one\n"), "|one\n");
    for (text, wanted) in [("two\n", "|\0\0\0\0two\n"), ("three\n", "|\0\0\0\0\0\0\0\0three\n")] {
        fs::copy(logs.path("log"), logs.path("log.1")).expect("copied");
        file.set_len(0).expect("truncated");
        file.write_all(text.as_bytes()).expect("written");
        assert_eq!(read_until(&mut tail, wanted), wanted);
    }
    assert_eq!(skipped(&tail), 0);
}

#[test]
fn files_that_a_link_led_to_for_a_moment_are_read_too() {
    let logs = Logs::new();
    let lead = |to: &str| {
        std::os::unix::fs::symlink(to, logs.path("next")).expect("linked");
        logs.rename("next", "log");
    };
    logs.write("v1", "one\n");
    lead("v1");
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_until(&mut tail, "|one\n"), "|one\n");
    for (name, text) in [("v2", "two\n"), ("v3", "three\n"), ("v4", "four\n")] {
        logs.write(name, text);
        lead(name);
        assert_eq!(tail.read(&mut [0; 64], &NOBODY), Ok(Progress::Waiting));
    }
    assert_eq!(read_until(&mut tail, "|two\n|three\n|four\n"), "|two\n|three\n|four\n");
    rest(&mut tail);
}

/// Files that were deleted give their inodes to others.
#[test]
fn a_rotated_file_that_has_the_inode_of_one_that_was_read_is_read() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    logs.age("log", 60);
    let place = logs.place("log", "|one\n");
    // The same inode, as if the first one had been deleted.
    logs.write("log", "two\n");
    logs.rename("log", "log.2");
    logs.write("log.1", "three\n");
    logs.write("log", "four\n");
    for (name, age) in [("log.2", 30), ("log.1", 20), ("log", 10)] {
        logs.age(name, age);
    }
    let mut tail = go_on(&logs.path("log"), place);
    assert_eq!(read_until(&mut tail, "|two\n|three\n|four\n"), "|two\n|three\n|four\n");
    assert_eq!(skipped(&tail), 1, "the first one has gone");
}

#[test]
fn a_rotated_file_that_has_the_inode_of_one_that_could_not_be_read_is_read() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_until(&mut tail, "|one\n"), "|one\n");
    logs.rename("log", "log.2");
    logs.write("log.1.bz2", "BZh9\n");
    logs.write("log", "three\n");
    assert_eq!(read_until(&mut tail, "|three\n"), "|three\n");
    assert_eq!(skipped(&tail), 1);
    logs.rename("log", "log.3");
    logs.write("log.1.bz2", "four\n");
    logs.rename("log.1.bz2", "log.1");
    logs.write("log", "five\n");
    assert_eq!(read_until(&mut tail, "|four\n|five\n"), "|four\n|five\n");
    assert_eq!(skipped(&tail), 1);
}

#[test]
fn a_file_that_was_left_and_deleted_is_closed() {
    let logs = Logs::new();
    logs.write("log", "one\n");
    let mut tail = follow(&logs.path("log"));
    assert_eq!(read_until(&mut tail, "|one\n"), "|one\n");
    logs.rename("log", "log.1");
    logs.write("log", "two\n");
    assert_eq!(read_until(&mut tail, "|two\n"), "|two\n");
    let left = |tail: &Tail| tail.left.is_some();
    std::thread::sleep(KEEP);
    rest(&mut tail);
    assert!(left(&tail), "somebody may still write to it");
    fs::remove_file(logs.path("log.1")).expect("removed");
    rest(&mut tail);
    assert!(!left(&tail), "its bytes are free");
}

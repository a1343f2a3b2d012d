use std::fs;
use std::io::Write;

use arrow::array::AsArray;
use engine::contract::Cursor;

use super::super::super::tail::named;
use super::*;
use crate::format::{Format, Unit};

/// A folder whose files are followed.
struct World {
    dir: tempfile::TempDir,
    pattern: &'static str,
    reader: Option<FollowReader>,
    metrics: Arc<NodeMetrics>,
    seen: Vec<String>,
}

impl World {
    fn new(pattern: &'static str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir, pattern, reader: None, metrics: Arc::default(), seen: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self, resume: &Resume) {
        let pattern = Pattern::new(Path::new(self.pattern), &self.path(self.pattern)).expect("a pattern");
        self.start_with(&Followed { paths: Vec::new(), patterns: vec![pattern], start: Start::Beginning }, resume);
    }

    fn start_with(&mut self, followed: &Followed, resume: &Resume) {
        let settings = Settings {
            format: Format::reqin_log(Unit::Ns),
            lateness: Duration::from_secs(60),
            tick: Duration::from_millis(100),
            max_line: 1 << 20,
            max_rejected: 1_000,
            max_ahead: Some(Duration::from_secs(10)),
        };
        self.reader = Some(FollowReader::open(followed, &settings, resume, &self.metrics).expect("readable"));
    }

    fn reader(&self) -> &FollowReader {
        self.reader.as_ref().expect("started")
    }

    /// Writes lines with these paths into the file that is there, or a new one.
    fn write(&self, name: &str, paths: &[&str]) {
        fs::write(self.path(name), "").expect("written");
        self.append(name, paths);
    }

    fn append(&self, name: &str, paths: &[&str]) {
        let mut file = fs::File::options().append(true).create(true).open(self.path(name)).expect("opened");
        for path in paths {
            let now = wall_clock_ns();
            writeln!(file, r#"{{"timestamp":{now},"src_ip":"192.0.2.1","src_port":1024,"path":"/{path}"}}"#)
                .expect("written");
        }
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    fn turn(&mut self) {
        let mut out = Vec::new();
        let reader = self.reader.as_mut().expect("started");
        reader.next(&mut out).expect("read");
        for (port, batch) in out {
            assert_eq!(port, 0, "nothing is rejected");
            let paths = batch.rows.column_by_name("path").expect("a column");
            let paths = arrow::compute::cast(paths, &arrow::datatypes::DataType::Utf8).expect("text");
            self.seen.extend(paths.as_string::<i32>().iter().flatten().map(|path| path[1..].to_owned()));
        }
    }

    fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so(self) && Instant::now() < deadline {
            self.turn();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Reads until these have come, and checks that there are no others.
    fn expect(&mut self, wanted: &[&str]) {
        let mut wanted: Vec<String> = wanted.iter().map(|path| (*path).to_owned()).collect();
        wanted.sort();
        let sorted = |world: &Self| {
            let mut seen = world.seen.clone();
            seen.sort();
            seen
        };
        self.until(|world| world.seen.len() >= wanted.len());
        let begin = Instant::now();
        self.until(|_| begin.elapsed() > discover::EVERY * 3);
        assert_eq!(sorted(self), wanted);
    }

    /// Ends the run, and says where the next one goes on.
    fn stop(&mut self) -> Resume {
        let mut reader = self.reader.take().expect("started");
        reader.stop();
        reader.next(&mut Vec::new()).expect("ended");
        let (seq, place) = reader.cursor().expect("a place");
        Resume { watermark: 0, seq, cursor: Some(Cursor { seq, place, logged: Vec::new() }) }
    }
}

#[test]
fn a_new_log_that_has_the_inode_of_one_that_has_gone_is_read() {
    let mut world = World::new("*.log");
    world.write("a.log", &["one"]);
    world.start(&Resume::default());
    world.expect(&["one"]);
    let inode = named(&world.path("a.log"));
    // Out of the way, and under its inode another one, as if it had been deleted.
    world.rename("a.log", "gone");
    world.until(|world| world.reader().files.iter().flatten().count() == 0);
    for restarts in [false, true] {
        world.write("gone", &[if restarts { "three" } else { "two" }]);
        if restarts {
            let resume = world.stop();
            world.start(&resume);
        }
        world.rename("gone", "b.log");
        assert_eq!(named(&world.path("b.log")), inode);
        world.expect(if restarts { &["one", "two", "three"] } else { &["one", "two"] });
        world.rename("b.log", "gone");
        world.until(|world| world.reader().files.iter().flatten().count() == 0);
    }
}

#[test]
fn rotated_names_that_match_and_inodes_that_are_used_again_lose_nothing() {
    let mut world = World::new("access.log*");
    world.write("access.log", &["0"]);
    world.start(&Resume::default());
    let mut wanted = vec!["0".to_owned()];
    for round in 1..12 {
        let more = [format!("{round}a"), format!("{round}b")];
        let expect = |world: &mut World, wanted: &[String]| {
            world.expect(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
        };
        expect(&mut world, &wanted);
        world.append("access.log", &[&more[0]]);
        wanted.push(more[0].clone());
        expect(&mut world, &wanted);
        let is_stopped = round % 4 == 0;
        let resume = is_stopped.then(|| world.stop());
        // The one that falls out gives its inode to the next.
        if world.path("access.log.3").exists() {
            world.rename("access.log.3", "spare");
        }
        for number in (1..3).rev() {
            if world.path(&format!("access.log.{number}")).exists() {
                world.rename(&format!("access.log.{number}"), &format!("access.log.{}", number + 1));
            }
        }
        world.rename("access.log", "access.log.1");
        if world.path("spare").exists() {
            world.write("spare", &[&more[1]]);
            world.rename("spare", "access.log");
        } else {
            world.write("access.log", &[&more[1]]);
        }
        wanted.push(more[1].clone());
        if let Some(resume) = resume {
            world.start(&resume);
        }
        expect(&mut world, &wanted);
    }
}

#[test]
fn a_log_of_any_name_is_found_when_it_was_rotated_while_nobody_read() {
    for name in ["\u{e4}.log", "bob's.log", "a\\b.log"] {
        let mut world = World::new("*.log");
        world.write(name, &["one"]);
        world.start(&Resume::default());
        world.expect(&["one"]);
        let resume = world.stop();
        world.append(name, &["two"]);
        world.rename(name, &format!("{name}.1"));
        world.start(&resume);
        world.expect(&["one", "two"]);
    }
}

#[test]
fn files_for_which_there_is_no_place_wait_for_one() {
    let mut world = World::new("*.log");
    let all: Vec<String> = (0..MAX_FOLLOWED + 2).map(|number| format!("{number:03}")).collect();
    for (at, name) in all.iter().enumerate() {
        world.write(&format!("{name}.log"), &[name]);
        // The first by name are the oldest.
        let file = fs::File::open(world.path(&format!("{name}.log"))).expect("open");
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(600 - at as u64)).expect("a time");
    }
    world.start(&Resume::default());
    let newest: Vec<&str> = all[2..].iter().map(String::as_str).collect();
    world.expect(&newest);
    assert!(world.metrics.troubles()["files"].contains("the newest first"), "{:?}", world.metrics.troubles());
    assert!(world.metrics.troubles()["files"].contains("000.log and 1 others"), "{:?}", world.metrics.troubles());
    assert_eq!(world.metrics.counter("skipped_files").load(Relaxed), 2, "each once");
    for name in ["100.log", "101.log"] {
        fs::remove_file(world.path(name)).expect("removed");
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    world.expect(&all);
    assert_eq!(world.metrics.troubles().len(), 0);
}

#[test]
fn places_are_noted_when_they_have_changed_and_not_each_time() {
    let mut world = World::new("*.log");
    world.write("a.log", &["0"]);
    world.start(&Resume::default());
    world.expect(&["0"]);
    let mut notes = 0;
    let begin = Instant::now();
    while begin.elapsed() < NOTE_EVERY * 3 {
        world.turn();
        notes += usize::from(world.reader().cursor().is_some());
    }
    assert!(notes <= 1, "nothing was read: {notes}");
    let begin = Instant::now();
    let (mut lines, mut notes) = (0, 0);
    while begin.elapsed() < NOTE_EVERY * 5 {
        world.append("a.log", &["more"]);
        lines += 1;
        world.turn();
        notes += usize::from(world.reader().cursor().is_some());
    }
    assert!((3..=6).contains(&notes) && lines > 20, "{notes} of {lines}");
    world.until(|world| world.seen.len() > lines);
    let before = world.stop();
    let words = String::from_utf8(before.cursor.expect("a place").place).expect("JSON");
    assert!(words.contains(&format!("\"lines\":{}", lines + 1)), "the last note is of all: {words}");
    assert_eq!(pause_after(usize::MAX >> 12), NOTE_LATEST);
}

#[test]
fn a_file_that_may_have_been_rotated_away_is_said_and_counted_and_others_are_not() {
    let mut world = World::new("access.log");
    world.write("access.log", &["one"]);
    let followed = Followed { paths: vec![world.path("access.log")], patterns: Vec::new(), start: Start::Beginning };
    world.start_with(&followed, &Resume::default());
    world.expect(&["one"]);
    let resume = world.stop();
    world.rename("access.log", "access.log.2");
    let age = |world: &World, name: &str, seconds: u64| {
        let file = fs::File::open(world.path(name)).expect("open");
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(seconds)).expect("a time");
    };
    world.write("access.log.web1", &["two"]);
    world.write("access.log", &["three"]);
    // A watcher's file, the file of another log, and an old one.
    fs::write(world.path("access.log.pos"), "17\n").expect("written");
    for name in ["access-ssl.log", "access-ssl-20261124.log", "access.log.before"] {
        world.write(name, &[name]);
    }
    for (name, seconds) in [("access.log.before", 90), ("access.log.2", 60), ("access.log.web1", 30)] {
        age(&world, name, seconds);
    }
    world.start_with(&followed, &resume);
    world.expect(&["one", "three"]);
    let troubles = world.metrics.troubles();
    assert!(troubles.len() == 1 && troubles.keys().all(|file| file.ends_with("access.log.web1")), "{troubles:?}");
    assert_eq!(world.metrics.counter("skipped_files").load(Relaxed), 1);
}

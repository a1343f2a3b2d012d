use std::fs::{self, File};

use super::super::identity::Identity;
use super::*;

fn place(path: &Path) -> Place {
    Place { path: path.to_owned(), follow_symlinks: false }
}

/// A note of a file of which so many bytes are confirmed, that is where `is` says.
fn confirmed(path: &Path, bytes: u64, is: &Path) -> Value {
    let mut detail = json!({ "path": path.display().to_string(), "bytes": bytes });
    Identity::of(&File::open(is).expect("there"), bytes).expect("readable").note(&mut detail);
    detail
}

fn opened(path: &Path, detail: &Value, append: bool) -> LogFile {
    go_on(&place(path), detail, append, Rotation::default(), &NodeMetrics::default()).expect("opens")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("readable")
}

#[test]
fn a_file_is_cut_to_what_was_confirmed_also_in_a_folder_that_was_copied() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, copied) = (dir.path().join("rows.jsonl"), dir.path().join("copy/rows.jsonl"));
    fs::create_dir(dir.path().join("copy")).expect("made");
    for path in [&path, &copied] {
        fs::write(path, "confirmed\ntorn").expect("written");
    }
    let detail = confirmed(Path::new("/elsewhere/rows.jsonl"), 10, &path);
    for path in [&path, &copied] {
        let mut file = opened(path, &detail, false);
        assert_eq!(file.bytes(), 10);
        file.write(1, b"next\n").expect("written");
        assert_eq!(text(path), "confirmed\nnext\n");
    }
}

#[test]
fn a_file_that_was_moved_before_a_crash_is_cut_where_it_is_now() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows.jsonl");
    for name in ["rows.jsonl.1", "rows-20261124.jsonl"] {
        let moved = dir.path().join(name);
        fs::write(&moved, "confirmed\ntorn").expect("written");
        fs::write(&path, "by another\n").expect("written");
        let mut file = opened(&path, &confirmed(&path, 10, &moved), false);
        file.write(1, b"next\n").expect("written");
        assert_eq!((text(&moved).as_str(), text(&path).as_str()), ("confirmed\n", "by another\nnext\n"));
    }
}

#[test]
fn another_file_that_has_its_number_now_is_not_touched() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows.jsonl");
    for name in ["rows.jsonl", "rows.jsonl.1", "late.jsonl"] {
        let other = dir.path().join(name);
        fs::write(&other, "rows of another file\n").expect("written");
        let before = text(&other);
        let mut detail = confirmed(&path, 10, &other);
        // The file of this number was made earlier, and began with other bytes.
        for (key, value) in [("born", detail["born"].as_u64().map(|born| born - 1)), ("tail", Some(7))] {
            detail[key] = value.into();
            let file = opened(&path, &detail, false);
            assert_eq!(text(&other), before, "{name}: {key}");
            assert_eq!(file.bytes(), text(&path).len() as u64);
        }
    }
}

#[test]
fn a_note_that_cannot_tell_files_apart_cuts_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows.jsonl");
    fs::write(&path, "confirmed\ntorn\n").expect("written");
    let detail = json!({ "path": path.display().to_string(), "bytes": 10 });
    assert_eq!(opened(&path, &detail, false).bytes(), 15);
}

#[test]
fn a_file_that_nothing_was_confirmed_of_is_emptied_unless_it_is_appended_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("new/rows.jsonl");
    assert_eq!(opened(&path, &Value::Null, false).bytes(), 0);
    fs::write(&path, "old").expect("written");
    assert_eq!(opened(&path, &Value::Null, true).bytes(), 3);
    assert_eq!(opened(&path, &confirmed(Path::new("other.jsonl"), 2, &path), false).bytes(), 0);
    assert_eq!(text(&path), "");
}

/// A sink's file, opened, with lines of a tick written and not confirmed.
fn written(path: &Path) -> Continued {
    let (shared, metrics) = (Arc::default(), Arc::default());
    let file = Continued::new(Some(place(path)), false, Rotation::default(), (&shared, &metrics));
    {
        let mut state = file.state.lock();
        let opened = LogFile::open(&place(path), Rotation::default(), &metrics).expect("opens");
        state.file = Some(Target::File(opened));
        state.waiting.push_back((5, b"five\n".to_vec()));
        state.write(10, Some(path)).expect("written");
    }
    file
}

#[test]
fn lines_of_a_file_that_is_removed_before_they_are_confirmed_are_written_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows.jsonl");
    let file = written(&path);
    let mut state = file.state.lock();
    state.sync(Some(&path)).expect("durable");
    state.recent.confirm(5);
    state.waiting.push_back((15, b"fifteen\n".to_vec()));
    state.write(20, Some(&path)).expect("written");
    fs::remove_file(&path).expect("removed");
    state.waiting.push_back((25, b"more\n".to_vec()));
    state.write(30, Some(&path)).expect("written");
    assert_eq!(text(&path), "fifteen\nmore\n", "five was confirmed, and was removed");
    state.sync(Some(&path)).expect("durable");
    assert_eq!((state.durable.0, state.durable.1["bytes"].as_u64()), (30, Some(13)));
}

#[test]
fn lines_that_cannot_be_written_again_stay_until_they_can() {
    let dir = tempfile::tempdir().expect("a folder");
    let (folder, path) = (dir.path().join("logs"), dir.path().join("logs/rows.jsonl"));
    let file = written(&path);
    let mut state = file.state.lock();
    fs::remove_dir_all(&folder).expect("removed");
    // A link that leads nowhere: the folder is not there, and cannot be made.
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &folder).expect("linked");
    state.waiting.push_back((15, b"fifteen\n".to_vec()));
    state.write(20, Some(&path)).expect_err("it is a fault that somebody has to see");
    fs::remove_file(&folder).expect("removed");
    state.write(20, Some(&path)).expect("written");
    assert_eq!(text(&path), "five\nfifteen\n");
}

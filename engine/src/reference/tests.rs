use std::fs::File;
use std::path::Path;

use super::*;

fn number(content: &[u8]) -> Result<u32, String> {
    let text = String::from_utf8_lossy(content);
    text.trim().parse().map_err(|error| format!("1: `{}` is no number: {error}", text.trim()))
}

fn place(dir: &Path, labelled_before: Time) -> Place {
    Place { dir: Some(dir.join("versions")), takes_new: true, labelled_before, tick: 100 }
}

fn open_in(dir: &Path, place: Place) -> (Result<Reference<u32>, String>, Arc<NodeMetrics>) {
    let metrics = Arc::default();
    (Reference::open(dir.join("file"), place, Reading::new(number), &metrics), metrics)
}

fn open(dir: &Path, labelled_before: Time) -> Reference<u32> {
    open_in(dir, place(dir, labelled_before)).0.expect("opens")
}

fn value(reference: &Reference<u32>, time: Time) -> u32 {
    *reference.at(time).expect("there")
}

#[test]
fn a_version_takes_effect_at_a_tick_of_which_no_row_was_labelled() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    let reference = open(dir.path(), 0);
    assert_eq!((value(&reference, 0), value(&reference, 1_234)), (1, 1));
    fs::write(dir.path().join("file"), "2").expect("written");
    reference.load_again();
    assert_eq!((value(&reference, 1_299), value(&reference, 1_300)), (1, 2));
    assert_eq!(value(&reference, 700), 1, "also for a row that comes later");
    // Another run labels the same rows alike, though the file has changed meanwhile.
    fs::write(dir.path().join("file"), "3").expect("written");
    let again = open(dir.path(), 5_050);
    assert_eq!([0, 1_299, 1_300, 5_099, 5_100].map(|time| value(&again, time)), [1, 1, 2, 2, 3]);
}

#[test]
fn bad_content_is_not_taken_and_said() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    let (reference, metrics) = open_in(dir.path(), place(dir.path(), 0));
    let reference = reference.expect("opens");
    fs::write(dir.path().join("file"), "x").expect("written");
    reference.load_again();
    assert_eq!(value(&reference, 9_000), 1);
    let trouble = metrics.troubles().into_values().next().expect("said");
    assert!(trouble.contains("file:1: `x` is no number"), "{trouble}");
    fs::write(dir.path().join("file"), "1").expect("written");
    reference.load_again();
    assert!(metrics.troubles().is_empty());
    fs::write(dir.path().join("file"), "x").expect("written");
    assert_eq!(value(&open(dir.path(), 9_001), 9_500), 1, "nor at a start");
    fs::remove_dir_all(dir.path().join("versions")).expect("there");
    let place = Place { dir: None, ..place(dir.path(), 0) };
    assert!(open_in(dir.path(), place).0.is_err(), "unless there is nothing else");
}

#[test]
fn what_is_not_needed_any_more_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    let reference = open(dir.path(), 0);
    for version in 2..5 {
        value(&reference, version * 1_000);
        fs::write(dir.path().join("file"), version.to_string()).expect("written");
        reference.load_again();
    }
    reference.forget_before(3_100);
    assert_eq!([2_000, 3_500, 4_100].map(|time| value(&reference, time)), [3, 3, 4], "the first two are gone");
    let files = fs::read_dir(dir.path().join("versions")).expect("there").count();
    assert_eq!(files, 3, "two contents and the note");
}

#[test]
fn a_file_is_read_when_it_has_stood_still() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    let reference = open(dir.path(), 0);
    assert!(!reference.is_new(false));
    fs::write(dir.path().join("file"), "22").expect("written");
    reference.seen.lock().looked = None;
    assert!(!reference.is_new(false), "it may still be written");
    reference.seen.lock().looked = None;
    assert!(reference.is_new(false));
    reference.seen.lock().looked = None;
    assert!(!reference.is_new(false), "it has been seen");
    assert!(reference.is_new(true), "whoever asks may know better");
}

#[test]
fn what_could_not_be_read_is_tried_again() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    let (reference, metrics) = open_in(dir.path(), place(dir.path(), 0));
    let reference = reference.expect("opens");
    let looks = || {
        reference.seen.lock().looked = None;
        reference.is_new(false)
    };
    fs::write(dir.path().join("file"), "22").expect("written");
    assert!(!looks() && looks());
    // Such as a full disk: the folder of the versions takes nothing.
    fs::remove_dir_all(dir.path().join("versions")).expect("there");
    fs::write(dir.path().join("versions"), "").expect("written");
    reference.load_again();
    assert_eq!((value(&reference, 9_000), metrics.troubles().len()), (1, 1));
    fs::remove_file(dir.path().join("versions")).expect("there");
    assert!(looks());
    reference.load_again();
    assert_eq!((value(&reference, 20_000), metrics.troubles().len()), (22, 0));
}

#[test]
fn a_replay_takes_nothing_new_and_notes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    value(&open(dir.path(), 0), 5_000);
    fs::write(dir.path().join("file"), "2").expect("written");
    let note = || fs::read(dir.path().join("versions").join("versions.json")).expect("there");
    let before = note();
    let replayed = Place { takes_new: false, ..place(dir.path(), Time::MAX) };
    let replayed = open_in(dir.path(), replayed).0.expect("opens");
    assert_eq!((value(&replayed, 5_000), value(&replayed, 9_000)), (1, 1));
    assert!(!replayed.is_new(true));
    assert_eq!(note(), before);
    assert_eq!(value(&open(dir.path(), 5_001), 9_000), 2, "which the next start takes");
}

#[test]
fn a_file_that_is_gone_is_said_until_it_is_back() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    let (reference, metrics) = open_in(dir.path(), place(dir.path(), 0));
    let reference = reference.expect("opens");
    let looks = || {
        let mut seen = reference.seen.lock();
        seen.looked = None;
        seen.gone = seen.gone.and_then(|since| since.checked_sub(GONE));
        drop(seen);
        reference.is_new(false)
    };
    fs::remove_file(dir.path().join("file")).expect("there");
    assert!(!looks() && metrics.troubles().is_empty(), "it may be on its way");
    let trouble = || metrics.troubles().into_values().next().unwrap_or_default();
    assert!(!looks() && trouble().contains("No such file"));
    assert_eq!(value(&reference, 9_000), 1);
    fs::write(dir.path().join("file"), "1").expect("written");
    assert!(!looks() && looks(), "read again, though it may be the same");
    reference.load_again();
    assert!(metrics.troubles().is_empty());
}

#[test]
fn each_reader_of_a_file_shows_what_became_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    let references = References::default();
    let get = |metrics: &Arc<NodeMetrics>| {
        let open = || open_in(dir.path(), place(dir.path(), 0)).0;
        references.get("asn file", (metrics, None), open).expect("opens")
    };
    let (old, new) = (Arc::default(), Arc::default());
    let reference = get(&old);
    assert_eq!(value(&reference, 0), 1);
    fs::write(dir.path().join("file"), "x").expect("written");
    reference.load_again();
    // The island of a change has counters of its own.
    get(&new);
    for metrics in [&old, &new] {
        assert_eq!(metrics.named(), [("reference_refused", 1), ("reference_versions", 1)]);
        assert_eq!(metrics.troubles().len(), 1);
    }
}

#[test]
fn a_file_that_need_not_be_there_takes_effect_when_it_comes() {
    let dir = tempfile::tempdir().expect("a folder");
    let metrics = Arc::default();
    let open = |labelled_before| {
        let place = place(dir.path(), labelled_before);
        let reading = Reading { may_be_absent: true, ..Reading::new(number) };
        Reference::open(dir.path().join("file"), place, reading, &metrics).expect("opens")
    };
    let reference = open(0);
    let found = |reference: &Reference<u32>, time| reference.find(time).expect("no fault").map(|value| *value);
    assert_eq!(found(&reference, 950), None);
    assert!(!reference.is_new(true) && metrics.troubles().is_empty());
    fs::write(dir.path().join("file"), "7").expect("written");
    reference.load_again();
    assert_eq!([950, 999, 1_000].map(|time| found(&reference, time)), [None, None, Some(7)]);
    let again = open(1_001);
    assert_eq!([999, 1_000].map(|time| found(&again, time)), [None, Some(7)], "as the run before");
}

#[test]
fn the_troubles_of_two_files_do_not_hide_each_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let metrics = Arc::default();
    let open = |name: &str| {
        fs::write(dir.path().join(name), "1").expect("written");
        Reference::open(dir.path().join(name), place(dir.path(), 0), Reading::new(number), &metrics).expect("opens")
    };
    let (one, other) = (open("one"), open("other"));
    fs::write(dir.path().join("one"), "x").expect("written");
    one.load_again();
    other.load_again();
    assert_eq!(metrics.troubles().len(), 1);
    assert_eq!(metrics.references().len(), 2);
}

#[test]
fn data_that_is_too_old_is_a_trouble_until_it_is_newer() {
    const DAY: u64 = 86_400;
    let dir = tempfile::tempdir().expect("a folder");
    let ago = |days: u64| SystemTime::now() - Duration::from_secs(days * DAY);
    let write = |days: u64| {
        // The content says how old it is: the file's own time is now.
        fs::write(dir.path().join("file"), days.to_string()).expect("written");
    };
    let metrics: Arc<NodeMetrics> = Arc::default();
    let made: fn(&u32) -> Option<SystemTime> =
        |days| (*days > 0).then(|| SystemTime::now() - Duration::from_secs(u64::from(*days) * DAY));
    let max_age = Some(Duration::from_secs(30 * DAY));
    let reading = Reading { made, max_age, ..Reading::new(number) };
    write(40);
    let open = |place| Reference::open(dir.path().join("file"), place, reading, &metrics).expect("opens");
    let reference = open(place(dir.path(), 0));
    let trouble = || metrics.troubles().into_values().next();
    assert!(trouble().is_some_and(|trouble| trouble.ends_with("40 days old; `max_age` is 30 days")), "{:?}", trouble());
    write(1);
    reference.load_again();
    assert_eq!(trouble(), None);
    // A content that does not say is as old as its file.
    write(0);
    File::open(dir.path().join("file")).and_then(|file| file.set_modified(ago(31))).expect("set");
    assert!(reference.is_new(true));
    reference.load_again();
    assert!(trouble().is_some_and(|trouble| trouble.contains("31 days old")), "{:?}", trouble());
    // One that is refused changes nothing.
    fs::write(dir.path().join("file"), "x").expect("written");
    assert!(reference.is_new(true));
    reference.load_again();
    assert_eq!(metrics.troubles().len(), 2);
    // A replay is of another time.
    metrics.set_trouble(&format!("age {}", dir.path().join("file").display()), None);
    open(Place { takes_new: false, ..place(dir.path(), 0) });
    assert!(!metrics.troubles().keys().any(|part| part.starts_with("age")));
}

#[test]
fn several_processes_keep_what_a_file_was_and_say_that_it_has_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "1").expect("written");
    let metrics: Arc<NodeMetrics> = Arc::default();
    let references = References::default();
    references.fix();
    let opened = || Reference::open(dir.path().join("file"), place(dir.path(), 0), Reading::new(number), &metrics);
    let reference = references.get("n file", (&metrics, None), opened).expect("opens");
    references.look(true);
    assert!(metrics.troubles().is_empty(), "nothing has changed");
    fs::write(dir.path().join("file"), "22").expect("written");
    for _ in 0..2 {
        references.look(true);
    }
    let troubles: Vec<String> = metrics.troubles().into_values().collect();
    assert!(troubles.len() == 1 && troubles[0].contains("several processes"), "{troubles:?}");
    assert_eq!((value(&reference, 9_000), value(&reference, 90_000)), (1, 1));
}

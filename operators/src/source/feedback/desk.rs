//! Where feedback is taken in, and from where the source hands it on to the pipeline.

use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat};
use engine::contract::{Intake, NotTaken, nanos, wall_clock_ns};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::entry::{ABOUT, Entry};
use super::journal::{Entries, Journal};

/// The most entries that wait for the pipeline to take them.
const MAX_WAITING: usize = 1000;

/// How long the source may not have looked before nothing is taken any more: its log is full, or what is behind it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes feedback in.
#[derive(Debug)]
pub(super) struct Desk {
    keep: Duration,
    max_entries: usize,
    /// Locked while something is taken in, and waits for the disk. Before `table`.
    journal: Mutex<(Journal, LastTime)>,
    /// Never locked for long: the source looks at it all the time.
    table: Mutex<Table>,
}

/// When the last entry was received, in ns: the next one is later, whatever the clock says.
type LastTime = i64;

#[derive(Debug)]
struct Table {
    entries: Entries,
    /// What the pipeline does not know yet.
    waiting: Vec<Entry>,
    /// When the source looked last.
    looked: Instant,
    is_closed: bool,
}

impl Desk {
    /// Opens a file of feedback, of which each is kept for a while.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn open(path: &Path, keep: Duration, max_entries: usize) -> Result<Self, String> {
        let (journal, entries) = Journal::open(path, wall_clock_ns())?;
        let last = entries.values().map(|entry| entry.given_at).max().unwrap_or(0);
        let table = Table { entries, waiting: Vec::new(), looked: Instant::now(), is_closed: false };
        Ok(Self { keep, max_entries, journal: Mutex::new((journal, last)), table: Mutex::new(table) })
    }

    /// What is new; `all` there is besides, if that is wanted. What has ended by `now`, in ns, is forgotten.
    pub fn hand_on(&self, now: i64, all: bool) -> (Vec<Entry>, Vec<Entry>) {
        let mut table = self.table.lock();
        table.looked = Instant::now();
        let new = std::mem::take(&mut table.waiting);
        if !all {
            return (new, Vec::new());
        }
        table.entries.retain(|_, entry| entry.until > now);
        (new, table.entries.values().cloned().collect())
    }

    /// Takes nothing any more. Waits for what is being taken: it is on disk before another desk reads the file.
    pub fn close(&self) {
        let _journal = self.journal.lock();
        self.table.lock().is_closed = true;
    }

    /// Whether an entry can be taken in.
    fn check(&self, entry: &mut Entry) -> Result<(), NotTaken> {
        let mut table = self.table.lock();
        if table.is_closed {
            return Err(NotTaken::NotNow("the run is ending: nothing is taken any more".to_owned()));
        }
        if table.waiting.len() >= MAX_WAITING || table.looked.elapsed() > PATIENCE {
            let why = "the pipeline takes nothing at the moment: `ja4-engine status` says what it waits for";
            return Err(NotTaken::NotNow(why.to_owned()));
        }
        let now = entry.given_at;
        table.entries.retain(|_, entry| entry.until > now);
        let before = table.entries.get(&entry.about);
        match (entry.label, before) {
            (None, Some(before)) if before.label.is_some() => entry.until = before.until,
            (None, _) => {
                return Err(NotTaken::Wrong(
                    "nothing is in effect that says of exactly this whether it is one".to_owned(),
                ));
            }
            (Some(_), None) if table.entries.len() >= self.max_entries => {
                let most = self.max_entries;
                return Err(NotTaken::NotNow(format!("{most} entries are kept, which is `max_entries`")));
            }
            (Some(_), _) => {}
        }
        Ok(())
    }
}

impl Intake for Desk {
    fn take(&self, document: Value) -> Result<Value, NotTaken> {
        let mut journal = self.journal.lock();
        let (journal, last) = &mut *journal;
        let now = wall_clock_ns().max(last.saturating_add(1));
        let until = now.saturating_add(nanos(self.keep));
        let mut entry = Entry::of(document, format!("{now:016x}"), (now, until)).map_err(NotTaken::Wrong)?;
        self.check(&mut entry)?;
        if journal.is_removed() {
            let entries = self.table.lock().entries.clone();
            journal.write_anew(&entries);
        }
        journal.add(&entry).map_err(|error| NotTaken::NotNow(format!("feedback cannot be kept: {error}")))?;
        *last = now;
        let shown = shown(&entry);
        let mut table = self.table.lock();
        table.entries.insert(entry.about.clone(), entry.clone());
        table.waiting.push(entry);
        // A copy, so that the source does not wait for the disk.
        let entries = journal.is_long(&table.entries).then(|| table.entries.clone());
        drop(table);
        if let Some(entries) = entries {
            journal.write_anew(&entries);
        }
        Ok(shown)
    }

    fn shown(&self) -> Value {
        let now = wall_clock_ns();
        let table = self.table.lock();
        table.entries.values().filter(|entry| entry.label.is_some() && entry.until > now).map(shown).collect()
    }
}

/// An entry for those who have sent it or ask for it. What it does not say is left out.
fn shown(entry: &Entry) -> Value {
    let mut shown = Map::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            shown.insert(name.to_owned(), Value::String(value));
        }
    };
    let time = |ns: i64| Some(DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Millis, true));
    add("id", Some(entry.id.clone()));
    ABOUT.iter().zip(&entry.about).for_each(|(name, value)| add(name, value.clone()));
    add("label", Some(entry.label.map_or("undo", super::Label::name).to_owned()));
    add("who", Some(entry.who.clone()));
    add("note", entry.note.clone());
    add("given_at", time(entry.given_at));
    add("until", time(entry.until));
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::SeqCst;

    use serde_json::json;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn say(desk: &Desk, host: &str, label: &str) -> Result<Value, NotTaken> {
        desk.take(json!({ "host": host, "label": label, "who": "ada" }))
    }

    #[test]
    fn what_is_said_is_kept_shown_and_handed_on_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.jsonl");
        let desk = Desk::open(&path, DAY, 10).expect("opened");
        let first = say(&desk, "a", "false_positive").expect("taken");
        let again = say(&desk, "a", "true_positive").expect("taken");
        assert!(first["id"].as_str() < again["id"].as_str() && first["given_at"].is_string(), "{first} {again}");
        say(&desk, "b", "false_positive").expect("taken");
        assert_eq!(desk.shown()[0]["label"], "true_positive");
        let (new, all) = desk.hand_on(0, false);
        assert_eq!((new.len(), all.len()), (3, 0));
        let (new, all) = desk.hand_on(0, true);
        assert_eq!((new.len(), all.len()), (0, 2));
        let again = Desk::open(&path, DAY, 10).expect("opened");
        assert_eq!(again.hand_on(0, true), (Vec::new(), all));
        assert_eq!(again.shown(), desk.shown());
    }

    #[test]
    fn what_is_taken_back_is_not_shown_and_is_handed_on_for_as_long_as_it_would_have_been() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.jsonl");
        let desk = Desk::open(&path, DAY, 10).expect("opened");
        assert!(matches!(say(&desk, "a", "undo"), Err(NotTaken::Wrong(_))), "nothing to undo");
        say(&desk, "a", "false_positive").expect("taken");
        let until = desk.hand_on(0, true).1[0].until;
        say(&desk, "a", "undo").expect("taken");
        assert!(matches!(say(&desk, "a", "undo"), Err(NotTaken::Wrong(_))), "undone already");
        assert_eq!(desk.shown(), json!([]));
        let again = Desk::open(&path, DAY, 10).expect("opened");
        let (_, all) = again.hand_on(0, true);
        assert_eq!((all.len(), all[0].label, all[0].until), (1, None, until));
        assert_eq!(again.hand_on(until, true).1, [], "it has ended");
    }

    #[test]
    fn bounds_and_the_end_are_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let desk = Desk::open(&folder.path().join("f.jsonl"), DAY, 2).expect("opened");
        say(&desk, "a", "false_positive").expect("taken");
        say(&desk, "b", "false_positive").expect("taken");
        assert!(matches!(say(&desk, "c", "false_positive"), Err(NotTaken::NotNow(why)) if why.contains("max_entries")));
        for _ in 2..MAX_WAITING {
            say(&desk, "a", "true_positive").expect("taken");
        }
        assert!(matches!(say(&desk, "a", "true_positive"), Err(NotTaken::NotNow(why)) if why.contains("waits for")));
        desk.hand_on(0, false);
        say(&desk, "a", "true_positive").expect("taken");
        let looked = Instant::now().checked_sub(2 * PATIENCE).expect("the machine runs for longer");
        desk.table.lock().looked = looked;
        assert!(matches!(say(&desk, "a", "true_positive"), Err(NotTaken::NotNow(why)) if why.contains("waits for")));
        desk.hand_on(0, false);
        desk.close();
        assert!(matches!(say(&desk, "a", "true_positive"), Err(NotTaken::NotNow(why)) if why.contains("ending")));
    }

    #[test]
    fn closing_waits_for_what_is_being_taken_and_nothing_is_taken_afterwards() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.jsonl");
        let desk = Desk::open(&path, DAY, 10).expect("opened");
        // Somebody's entry is on its way to the disk as long as this is locked.
        let being_taken = desk.journal.lock();
        let (closing, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let closer = scope.spawn(|| {
                closing.store(true, SeqCst);
                desk.close();
                closed.store(true, SeqCst);
            });
            while !closing.load(SeqCst) {
                std::thread::yield_now();
            }
            for _ in 0..100 {
                assert!(!closed.load(SeqCst) && !desk.table.lock().is_closed, "something is still being taken");
                std::thread::yield_now();
            }
            drop(being_taken);
            closer.join().expect("no panic");
        });
        assert!(closed.load(SeqCst));
        assert!(matches!(say(&desk, "a", "false_positive"), Err(NotTaken::NotNow(why)) if why.contains("ending")));
    }

    #[test]
    fn a_file_that_was_removed_is_written_anew_with_all_that_is_in_effect() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kept/f.jsonl");
        let desk = Desk::open(&path, DAY, 10).expect("opened");
        say(&desk, "a", "false_positive").expect("taken");
        std::fs::remove_dir_all(folder.path().join("kept")).expect("removed");
        assert!(matches!(say(&desk, "b", "false_positive"), Err(NotTaken::NotNow(why)) if why.contains("was removed")));
        std::fs::create_dir(folder.path().join("kept")).expect("made");
        say(&desk, "b", "false_positive").expect("taken");
        assert_eq!(Desk::open(&path, DAY, 10).expect("opened").hand_on(0, true).1.len(), 2);
    }

    #[test]
    fn what_was_answered_before_the_end_is_there_for_the_next_desk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.jsonl");
        let desk = Desk::open(&path, DAY, MAX_WAITING).expect("opened");
        let answered = std::thread::scope(|scope| {
            let givers: Vec<_> = (0..4)
                .map(|giver| {
                    let desk = &desk;
                    let said = move |nth| say(desk, &format!("{giver}-{nth}"), "false_positive").is_ok();
                    scope.spawn(move || (0..).take_while(|nth| *nth < 100 && said(*nth)).count())
                })
                .collect();
            while desk.table.lock().entries.len() < 20 {
                std::thread::yield_now();
            }
            desk.close();
            // A desk that is opened from now on reads a file that nobody writes any more.
            let next = Desk::open(&path, DAY, MAX_WAITING).expect("opened").hand_on(0, true).1.len();
            let answered: usize = givers.into_iter().map(|giver| giver.join().expect("no panic")).sum();
            assert_eq!(next, answered);
            answered
        });
        assert!(answered >= 20, "{answered}");
    }
}

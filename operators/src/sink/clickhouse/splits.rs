//! Which inserts were split, kept on disk.
//!
//! The halves of an insert have names of their own, so once a half may be in the table, the whole must not be sent any more:
//! a server that refused it before might take it now. A split is therefore noted before its halves are sent, and whoever
//! sends the insert again, after a crash too, begins with the halves.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use engine::files::{self, Lock};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

/// Inserts that are remembered: as many as the tables of `ja4-engine migrate` remember by name. What is not confirmed yet is
/// among far fewer.
const KEPT: usize = 10_000;

/// Rows of an insert that are sent in two halves.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    insert: String,
    rows: (usize, usize),
}

/// The note of one table. It is read at the first question: the dataflow that wrote the table before has ended by then.
#[derive(Debug)]
pub(super) struct Splits {
    path: PathBuf,
    kept: usize,
    open: Mutex<Option<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    /// `None` until something is split.
    file: Option<File>,
    /// Keeps other processes away from it.
    lock: Option<Lock>,
    known: HashMap<String, BTreeSet<(usize, usize)>>,
    /// The keys of `known`, oldest first.
    order: VecDeque<String>,
}

impl Splits {
    /// The note in this file, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path, kept: KEPT, open: Mutex::default() }
    }

    /// How often the insert was split.
    ///
    /// # Errors
    /// If the file cannot be read or understood.
    pub fn count(&self, insert: &str) -> Result<usize, String> {
        let open = self.lock()?;
        Ok(open.as_ref().and_then(|open| open.known.get(insert)).map_or(0, BTreeSet::len))
    }

    /// Whether these rows of the insert are sent in two halves.
    ///
    /// # Errors
    /// As [`Splits::count`].
    pub fn has(&self, insert: &str, rows: &Range<usize>) -> Result<bool, String> {
        let open = self.lock()?;
        let known = open.as_ref().and_then(|open| open.known.get(insert));
        Ok(known.is_some_and(|known| known.contains(&(rows.start, rows.end))))
    }

    /// From now on these rows of the insert are sent in two halves. It is durable when this returns.
    ///
    /// # Errors
    /// If it cannot be written; then nothing has changed.
    pub fn note(&self, insert: &str, rows: &Range<usize>) -> Result<(), String> {
        let mut guard = self.lock()?;
        let Some(open) = guard.as_mut() else { return Ok(()) };
        let line = Line { insert: insert.to_owned(), rows: (rows.start, rows.end) };
        self.append(open, &line).map_err(|error| {
            // What may have been written of the line is cut off by reading the file again.
            let message = format!("{} cannot be written: {error}", self.path.display());
            *guard = None;
            message
        })?;
        if let Some(open) = guard.as_mut() {
            open.learn(line);
            if open.order.len() > 2 * self.kept {
                self.forget(open).map_err(|error| format!("{} cannot be written: {error}", self.path.display()))?;
            }
        }
        Ok(())
    }

    fn append(&self, open: &mut Open, line: &Line) -> std::io::Result<()> {
        let file = match &mut open.file {
            Some(file) => file,
            none => {
                let dir = self.path.parent().unwrap_or(Path::new("."));
                files::make_dirs_within(dir, 2)?;
                let files::Opened { file, lock, .. } = files::open(&self.path, false)?;
                open.lock = lock;
                super::dead_letters::sync_folders(dir, 3)?;
                none.insert(file)
            }
        };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_data()
    }

    /// Keeps the newest inserts only, in the file too.
    fn forget(&self, open: &mut Open) -> std::io::Result<()> {
        while open.order.len() > self.kept {
            if let Some(oldest) = open.order.pop_front() {
                open.known.remove(&oldest);
            }
        }
        let mut text = Vec::new();
        for insert in &open.order {
            for rows in open.known.get(insert).into_iter().flatten() {
                serde_json::to_writer(&mut text, &Line { insert: insert.clone(), rows: *rows })?;
                text.push(b'\n');
            }
        }
        open.file = None;
        super::dead_letters::replace(&self.path, &text)
    }

    fn lock(&self) -> Result<MutexGuard<'_, Option<Open>>, String> {
        let mut open = self.open.lock();
        if open.is_none() {
            *open = Some(self.read()?);
        }
        Ok(open)
    }

    /// A last line that a crash cut off was not acted upon, and is removed.
    fn read(&self) -> Result<Open, String> {
        let fault = |error| format!("{} cannot be read: {error}", self.path.display());
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Open::default()),
            Err(error) => return Err(fault(error)),
        };
        let mut open = Open::default();
        let mut whole = 0;
        for (nth, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match serde_json::from_slice(line) {
                Ok(read) if line.ends_with(b"\n") => open.learn(read),
                _ if whole + line.len() == text.len() => {
                    let file = OpenOptions::new().write(true).open(&self.path).map_err(fault)?;
                    file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(fault)?;
                    break;
                }
                _ => {
                    return Err(format!(
                        "{} is damaged in line {}: without it rows may be written twice",
                        self.path.display(),
                        nth + 1
                    ));
                }
            }
            whole += line.len();
        }
        Ok(open)
    }
}

impl Open {
    fn learn(&mut self, line: Line) {
        if !self.known.contains_key(&line.insert) {
            self.order.push_back(line.insert.clone());
        }
        self.known.entry(line.insert).or_default().insert(line.rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_known_to_the_next_run_and_what_a_crash_cut_off_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("store/t.splits");
        let splits = Splits::new(path.clone());
        assert_eq!(splits.has("a", &(0..10)), Ok(false));
        splits.note("a", &(0..10)).expect("written");
        splits.note("a", &(5..10)).expect("written");
        let torn = [fs::read(&path).expect("read"), b"{\"insert\":\"b\",\"ro".to_vec()].concat();
        fs::write(&path, &torn).expect("written");
        let again = Splits::new(path.clone());
        assert_eq!((again.has("a", &(0..10)), again.has("a", &(0..5)), again.count("a")), (Ok(true), Ok(false), Ok(2)));
        assert_eq!(again.count("b"), Ok(0));
        again.note("c", &(0..2)).expect("written");
        assert_eq!(Splits::new(path).count("c"), Ok(1), "behind what was cut off");
    }

    #[test]
    fn a_damaged_note_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("t.splits");
        fs::write(&path, "x\n{\"insert\":\"a\",\"rows\":[0,2]}\n").expect("written");
        let error = Splits::new(path).count("a").expect_err("refused");
        assert!(error.contains("t.splits is damaged in line 1"), "{error}");
    }

    #[test]
    fn only_the_newest_inserts_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("t.splits");
        let splits = Splits { kept: 2, ..Splits::new(path.clone()) };
        for nth in 0..5 {
            splits.note(&nth.to_string(), &(0..4)).expect("written");
        }
        splits.note("4", &(0..2)).expect("written");
        let counts =
            |splits: &Splits| (0..5).map(|nth| splits.count(&nth.to_string()).expect("read")).collect::<Vec<_>>();
        assert_eq!(counts(&splits), [0, 0, 0, 1, 2]);
        assert_eq!(counts(&Splits::new(path)), [0, 0, 0, 1, 2]);
    }
}

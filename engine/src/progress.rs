//! How far a sink is, kept beside the logs: what a run that goes on must not write again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::batch::Time;
use crate::files;

/// What a sink has confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    /// Every row of a message time before this (ms) is kept where the sink writes.
    pub upto: Time,
    /// The same by log, where that differs; without a name of rows that are of several logs, or of none. Notes of earlier
    /// versions have none.
    #[serde(default)]
    pub logs: BTreeMap<String, Time>,
    /// What the sink needs besides to go on there, such as the length of its file.
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// What of each log a sink keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    /// By the log's name: rows before this time. Without a name what is of several logs, or of none.
    pub logs: BTreeMap<String, Time>,
    /// Of all logs, if it is not known by log.
    pub all: Time,
}

impl Floors {
    /// Rows of a log before this time are kept.
    pub fn of(&self, log: &str, derived: bool) -> Time {
        // A log that is not named is new: nothing of it is kept. But for one that keeps rows which came without it before.
        let new = if derived { self.all } else { 0 };
        if self.logs.is_empty() { self.all } else { self.logs.get(log).copied().unwrap_or(new) }
    }
}

/// The note of one sink. It is replaced as a whole, so that it is old or new, never torn.
#[derive(Debug)]
pub(crate) struct Note {
    path: PathBuf,
    confirmed: Option<Confirmed>,
}

impl Note {
    /// Reads what an earlier run, or another dataflow, has confirmed under this name.
    ///
    /// # Errors
    /// If the note is there but cannot be read or understood; the message names it.
    pub fn open(dir: &Path, name: &str) -> Result<Self, String> {
        let path = dir.join(format!("{name}.json"));
        let confirmed = read(&path, ADVICE)?;
        Ok(Self { path, confirmed })
    }

    /// What was confirmed last.
    pub fn confirmed(&self) -> Option<&Confirmed> {
        self.confirmed.as_ref()
    }

    /// Takes over what another sink has noted, if nothing was noted here.
    pub fn inherit(&mut self, other: Self) {
        self.confirmed = self.confirmed.take().or(other.confirmed);
    }

    /// What of each log is kept.
    pub fn floors(&self) -> Floors {
        let Confirmed { upto, logs, .. } = self.confirmed.clone().unwrap_or_default();
        Floors { logs, all: upto }
    }

    /// Confirms what has been made durable before the call. If the disk does not take the note now, it is not confirmed yet,
    /// and this says why.
    ///
    /// # Errors
    /// If the note cannot be written for a reason that does not pass; the message names it.
    /// With `anew` it is written also if it says the same.
    pub fn confirm(&mut self, confirmed: Confirmed, anew: bool) -> Result<Option<&'static str>, String> {
        if anew || self.confirmed.as_ref() != Some(&confirmed) {
            match write(&self.path, &confirmed) {
                Ok(()) => self.confirmed = Some(confirmed),
                Err(error) => return passing(&error).map(Some).ok_or_else(|| cannot(&self.path, &error)),
            }
        }
        Ok(None)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What to do about a note of a sink that is damaged.
const ADVICE: &str = "it says how far a sink was: put back a copy; or put aside what that sink has written, remove the note, and \
    the sink begins anew with what the spool still has";

/// Why something cannot be written now, if that may pass.
fn passing(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("the disk is full"),
        ErrorKind::ReadOnlyFilesystem => Some("the disk is read-only"),
        ErrorKind::NotFound => Some("the folder is gone"),
        _ => None,
    }
}

/// The message for a note that cannot be written.
pub(crate) fn cannot(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
}

/// Reads a note; `None` if there is none. `advice`: what to do if it is damaged.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(path: &Path, advice: &str) -> Result<Option<T>, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
    };
    let fault = |error| format!("{} is damaged ({error}); {advice}", path.display());
    serde_json::from_slice(&text).map(Some).map_err(fault)
}

/// Writes a note: durable, old or new. Its folder is not made: one that was there and is gone is not to come back empty.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("tmp");
    let mut file = files::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_data()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut note = Note::open(dir.path(), "store.requests").expect("opens");
        assert_eq!((note.confirmed(), note.floors().of("requests", false)), (None, 0));
        let logs = [("requests".to_owned(), 1_700_000_000_200)].into();
        let confirmed = Confirmed { upto: 1_700_000_000_100, logs, detail: serde_json::json!({ "bytes": 4096 }) };
        assert_eq!(note.confirm(confirmed.clone(), false), Ok(None));
        let again = Note::open(dir.path(), "store.requests").expect("opens");
        assert_eq!(again.confirmed(), Some(&confirmed));
        assert_eq!((again.floors().of("requests", false), again.floors().of("new", false)), (1_700_000_000_200, 0));
    }

    #[test]
    fn a_note_of_an_earlier_version_is_of_all_logs() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("s.json"), "{\"upto\":17}").expect("written");
        let note = Note::open(dir.path(), "s").expect("opens");
        assert_eq!(note.floors().of("any", false), 17);
    }

    #[test]
    fn a_damaged_note_is_an_error_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("s.json"), "{\"upto\":17").expect("written");
        let error = Note::open(dir.path(), "s").expect_err("refused");
        assert!(error.contains("s.json is damaged"), "{error}");
    }
}

//! How far a sink is, kept beside the spool: what a run that goes on must not write again.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::Time;
use crate::shared::Shared;

/// What a sink has confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Every row of a message time before this (ms) is kept where the sink writes.
    pub upto: Time,
    /// What the sink needs besides to go on there, such as the length of its file.
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// The note of one sink. It is replaced as a whole, so that it is old or new, never torn.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    confirmed: Option<Confirmed>,
    /// The run, if one writes it.
    run: Option<Arc<Shared>>,
}

impl Ledger {
    /// Reads what an earlier run has confirmed under this name.
    ///
    /// # Errors
    /// If the note is there but cannot be read or understood; the message names it.
    pub fn open(dir: &Path, name: &str) -> Result<Self, String> {
        let path = dir.join(format!("{name}.json"));
        let confirmed = read(&path, ADVICE)?;
        Ok(Self { path, confirmed, run: None })
    }

    /// For as long as this run has not failed: what a node has let go of when it failed never reaches a sink, and a sink
    /// behind it would confirm a tick without it.
    pub(crate) fn of(self, run: &Arc<Shared>) -> Self {
        Self { run: Some(Arc::clone(run)), ..self }
    }

    /// Reads the note again.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn refresh(&mut self) -> Result<(), String> {
        self.confirmed = read(&self.path, ADVICE)?;
        Ok(())
    }

    /// What was confirmed last.
    pub fn confirmed(&self) -> Option<&Confirmed> {
        self.confirmed.as_ref()
    }

    /// Every row before this message time.
    pub fn upto(&self) -> Time {
        self.confirmed.as_ref().map_or(0, |confirmed| confirmed.upto)
    }

    /// Confirms what has been made durable before the call.
    ///
    /// # Errors
    /// If the note cannot be written; the message names it. And once the run has failed.
    pub fn confirm(&mut self, confirmed: Confirmed) -> Result<(), String> {
        if self.run.as_ref().is_some_and(|run| run.failure().is_some()) {
            return Err("nothing is confirmed any more: the run has failed".to_owned());
        }
        if self.confirmed.as_ref() != Some(&confirmed) {
            write(&self.path, &confirmed)?;
            self.confirmed = Some(confirmed);
        }
        Ok(())
    }
}

/// What to do about a note of a sink that is damaged.
const ADVICE: &str = "it says how far a sink was: put back a copy; or put aside what that sink has written, remove the note, and \
    the sink begins anew with what the spool still has";

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

/// Writes a note: durable, old or new.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), String> {
    let attempt = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_data()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    };
    attempt().map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut ledger = Ledger::open(dir.path(), "store.requests").expect("opens");
        assert_eq!((ledger.confirmed(), ledger.upto()), (None, 0));
        let confirmed = Confirmed { upto: 1_700_000_000_100, detail: serde_json::json!({ "bytes": 4096 }) };
        ledger.confirm(confirmed.clone()).expect("written");
        let again = Ledger::open(dir.path(), "store.requests").expect("opens");
        assert_eq!(again.confirmed(), Some(&confirmed));
    }

    #[test]
    fn a_damaged_note_is_an_error_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("s.json"), "{\"upto\":17").expect("written");
        let error = Ledger::open(dir.path(), "s").expect_err("refused");
        assert!(error.contains("s.json is damaged"), "{error}");
    }
}

//! Asks for a change when a file of the pipeline has changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use engine::shared::Shared;
use parking_lot::Mutex;

/// How often the files are looked at. A change counts once it has not changed for as long, so that a file is not read
/// while an editor writes it.
const LOOK: Duration = Duration::from_millis(500);

/// What of a file tells that it has changed: looking, not listening, works on every file system and through links.
type Stamp = Option<(SystemTime, u64)>;

/// The files of a pipeline, as they were when it was loaded last. Whoever loads it says so, such as at a SIGHUP: a change
/// that was loaded is no change any more, and is not asked for again.
#[derive(Debug)]
pub(crate) struct Files(Mutex<BTreeMap<PathBuf, Stamp>>);

impl Files {
    pub(crate) fn new(files: &[PathBuf]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(look(files.iter()))))
    }

    /// They are loaded now. To be called before, so that what changes meanwhile is seen.
    pub(crate) fn load(&self) {
        let mut known = self.0.lock();
        *known = look(known.keys());
    }

    /// The pipeline that was loaded has these.
    pub(crate) fn are(&self, files: &[PathBuf]) {
        let mut known = self.0.lock();
        let mut now = look(files.iter());
        for (path, stamp) in &mut now {
            // What was there before has been looked at before it was loaded.
            *stamp = known.get(path).copied().unwrap_or(*stamp);
        }
        *known = now;
    }

    /// Whether they are others than when they were loaded, and stand still since the look `before`.
    fn have_changed(&self, before: &mut Option<BTreeMap<PathBuf, Stamp>>) -> bool {
        let mut known = self.0.lock();
        let now = look(known.keys());
        let changed = now != *known && before.as_ref() == Some(&now);
        if changed {
            known.clone_from(&now);
        }
        *before = Some(now);
        changed
    }
}

/// Watches until it is dropped.
pub(crate) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(files: Arc<Files>, shared: &Arc<Shared>) -> Self {
        let (stop, stopped) = channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || {
            let mut before = None;
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if files.have_changed(&mut before) {
                    shared.reloads.request();
                }
            }
        });
        // Without a thread there is SIGHUP.
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look<'a>(files: impl Iterator<Item = &'a PathBuf>) -> BTreeMap<PathBuf, Stamp> {
    let seen = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.map(|path| (path.clone(), seen(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_stands_still_and_only_until_it_was_loaded() {
        let dir = tempfile::tempdir().expect("a folder");
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        let write = |path: &Path, text: &str| fs::write(path, text).expect("written");
        write(&one, "1");
        let files = Files::new(std::slice::from_ref(&one));
        let mut before = None;
        assert!(!files.have_changed(&mut before));
        write(&one, "22");
        assert!(!files.have_changed(&mut before), "it may still be written");
        assert!(files.have_changed(&mut before) && !files.have_changed(&mut before), "once");
        // Somebody else has it loaded before it stood still.
        write(&one, "333");
        assert!(!files.have_changed(&mut before));
        files.load();
        assert!(!files.have_changed(&mut before) && !files.have_changed(&mut before));
        // What changes while it is loaded is a change.
        files.load();
        write(&one, "4444");
        files.are(&[one.clone(), other.clone()]);
        assert!(!files.have_changed(&mut before) && files.have_changed(&mut before));
        write(&other, "1");
        assert!(
            !files.have_changed(&mut before) && files.have_changed(&mut before),
            "a file that came with the change"
        );
    }
}

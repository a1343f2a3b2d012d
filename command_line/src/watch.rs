//! Asks for a change when a file of the pipeline has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use engine::shared::Shared;

/// How often the files are looked at. A change counts once it has not changed for as long, so that a file is not read
/// while an editor writes it.
const LOOK: Duration = Duration::from_millis(500);

/// What of a file tells that it has changed: looking, not listening, works on every file system and through links.
type Seen = Vec<Option<(SystemTime, u64)>>;

/// Watches until it is dropped.
pub(crate) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(files: Vec<PathBuf>, shared: &Arc<Shared>) -> Self {
        let (stop, stopped) = channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || {
            let (mut known, mut before) = (look(&files), None);
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let now = look(&files);
                if now != known && before.as_ref() == Some(&now) {
                    known = now.clone();
                    shared.reloads.request();
                }
                before = Some(now);
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

fn look(files: &[PathBuf]) -> Seen {
    let seen = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(|path| seen(path)).collect()
}

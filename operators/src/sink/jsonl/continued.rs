//! A file of lines that a later run goes on with: it grows by whole ticks, in their order, and what is confirmed is a
//! length. What stands behind that length after a crash is cut off and written again.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::batch::{Batch, Time};
use engine::contract::NodeMetrics;
use engine::contract::Reopen;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::log_file::{LogFile, Rotation};
use crate::sink::written::Format;
use engine::contract::sink::{CLOSED, Sink, Then, Written};

/// Lines are made durable, and confirmed, at most this often.
const CONFIRM: Duration = Duration::from_millis(200);

/// The file, shared with who has it opened again.
pub(super) struct Continued {
    /// `None` is standard output, which takes what it gets.
    path: Option<PathBuf>,
    /// Whether what is in a file of which nothing was confirmed stays.
    append: bool,
    rotation: Rotation,
    metrics: Arc<NodeMetrics>,
    state: Mutex<State>,
}

struct State {
    /// `None` until nobody else writes to the file any more.
    file: Option<Target>,
    /// Lines of complete ticks that are not in the file yet.
    waiting: VecDeque<(Time, Vec<u8>)>,
    /// Every tick before this is in the file.
    written: Time,
    /// What was made durable last.
    durable: (Time, Value),
    /// That is noted, and nothing was written since.
    is_noted: bool,
    synced: Instant,
    /// What follows what was given.
    then: Then,
    /// It waits for a note before it goes on.
    waits: bool,
    is_over: bool,
}

/// What lines are written to.
enum Target {
    File(LogFile),
    StandardOutput,
}

impl Target {
    fn write(&mut self, tick: Time, text: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(tick, text),
            Self::StandardOutput => io::stdout().lock().write_all(text),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync(),
            Self::StandardOutput => io::stdout().lock().flush(),
        }
    }

    /// Whether the file should be put aside before lines of `tick` are written.
    fn is_due(&self, tick: Time) -> bool {
        matches!(self, Self::File(file) if file.is_due(tick))
    }
}

impl Continued {
    pub(super) fn new(path: Option<PathBuf>, append: bool, rotation: Rotation, metrics: &Arc<NodeMetrics>) -> Self {
        let state = State {
            file: None,
            waiting: VecDeque::new(),
            written: 0,
            durable: (0, Value::Null),
            is_noted: false,
            synced: Instant::now(),
            then: Then::More,
            waits: false,
            is_over: false,
        };
        Self { path, append, rotation, metrics: Arc::clone(metrics), state: Mutex::new(state) }
    }

    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

/// The sink of a file.
pub(super) struct Lines {
    pub file: Arc<Continued>,
    pub format: Format,
}

impl Sink for Lines {
    fn target(&self) -> String {
        self.file.path().map_or_else(|| "-".to_owned(), |path| path.display().to_string())
    }

    fn writes_changes(&self) -> bool {
        self.format.is_of_changes()
    }

    /// Opens the file and cuts it to what was confirmed.
    fn open(&mut self, from: Time, detail: &Value) -> Result<(), String> {
        let file = &*self.file;
        let mut state = file.state.lock();
        if state.file.is_none() {
            state.file = Some(match file.path() {
                None => Target::StandardOutput,
                Some(path) => Target::File(
                    go_on(path, detail, file.append, file.rotation, &file.metrics)
                        .map_err(|error| format!("{} cannot be opened: {error}", path.display()))?,
                ),
            });
        }
        state.written = from;
        state.sync(file.path())
    }

    fn write(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
        let mut state = self.file.state.lock();
        if state.waiting.back().is_none_or(|(last, _)| *last != tick) {
            state.waiting.push_back((tick, Vec::new()));
        }
        if let Some((_, text)) = state.waiting.back_mut() {
            Format::append(text, &batch);
        }
        Ok(())
    }

    fn flush(&mut self, upto: Time, then: Then) -> Result<(), String> {
        let mut state = self.file.state.lock();
        state.then = then;
        let bytes = state.write(upto, self.file.path())?;
        NodeMetrics::add(&self.file.metrics.bytes, bytes);
        Ok(())
    }

    fn written(&mut self) -> Result<Written, String> {
        let mut state = self.file.state.lock();
        let due = state.synced.elapsed() >= CONFIRM || state.then != Then::More || state.waits;
        if !state.is_noted && due {
            state.sync(self.file.path())?;
        }
        let (upto, detail) = state.durable.clone();
        let is_idle = state.waiting.is_empty() && upto >= state.written;
        Ok(Written { upto, detail, is_idle, is_stalled: false, goes_on: state.waits })
    }

    fn noted(&mut self) -> Result<(), String> {
        let mut state = self.file.state.lock();
        state.is_noted = state.durable.0 >= state.written;
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.file.state.lock().is_over = true;
    }
}

impl Reopen for Continued {
    fn reopen(&self) -> Result<bool, String> {
        let mut state = self.state.lock();
        if state.is_over || !matches!(state.file, Some(Target::File(_))) {
            return Ok(false);
        }
        // What has been written stays in the file that was moved. A note of before finds it there by its number.
        state.sync(self.path())?;
        if let Some(Target::File(file)) = &mut state.file {
            // Nothing is lost if it cannot be: it goes on in the file that is open.
            file.reopen().map_err(|error| cannot(self.path(), "opened", &error))?;
        }
        state.sync(self.path())?;
        Ok(true)
    }
}

fn cannot(path: Option<&Path>, what: &str, error: &io::Error) -> String {
    let name = path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    format!("{name} cannot be {what}: {error}")
}

impl State {
    /// Writes the ticks before `upto`, all of which are complete, until the file is to be put aside.
    fn write(&mut self, upto: Time, path: Option<&Path>) -> Result<usize, String> {
        let mut bytes = 0;
        self.waits = false;
        while let Some((tick, text)) = self.waiting.pop_front_if(|(tick, _)| *tick < upto) {
            // A tick's lines stay together.
            if self.written <= tick && !self.make_room(tick, path)? {
                self.waiting.push_front((tick, text));
                return Ok(bytes);
            }
            if let Some(file) = &mut self.file {
                file.write(tick, &text).map_err(|error| cannot(path, "written", &error))?;
            }
            bytes += text.len();
            (self.written, self.is_noted) = (self.written.max(tick.saturating_add(1)), false);
        }
        // At the end of all input a later run may still add ticks, behind the last one.
        if upto != CLOSED && self.written < upto && self.make_room(upto, path)? {
            (self.written, self.is_noted) = (upto, false);
        }
        Ok(bytes)
    }

    /// Begins another file if it is time for it. What is put aside is noted first, and the new file's length after: false if
    /// that has to be done before anything else is written.
    fn make_room(&mut self, tick: Time, path: Option<&Path>) -> Result<bool, String> {
        if !self.file.as_ref().is_some_and(|file| file.is_due(tick)) {
            return Ok(true);
        }
        self.waits = true;
        if !self.is_noted {
            return Ok(false);
        }
        if let Some(Target::File(file)) = &mut self.file {
            file.rotate().map_err(|error| cannot(path, "put aside", &error))?;
        }
        self.is_noted = false;
        self.sync(path)?;
        Ok(false)
    }

    /// Makes the lines durable.
    fn sync(&mut self, path: Option<&Path>) -> Result<(), String> {
        if let Some(file) = &mut self.file {
            file.sync().map_err(|error| format!("the lines cannot be made durable: {error}"))?;
        }
        let mut detail = json!({ "path": path.map(|path| path.display().to_string()) });
        if let Some(Target::File(file)) = &self.file {
            detail["bytes"] = file.bytes().into();
            if let Some((device, inode)) = file.id() {
                (detail["device"], detail["inode"]) = (device.into(), inode.into());
            }
            detail["since"] = file.since().into();
        }
        (self.durable, self.synced) = ((self.written, detail), Instant::now());
        Ok(())
    }
}

/// Opens a file behind what was confirmed; a file that nothing was confirmed of is emptied, unless it is appended to.
fn go_on(path: &Path, detail: &Value, append: bool, rotation: Rotation, metrics: &NodeMetrics) -> io::Result<LogFile> {
    // By its name alone: the folder may have been moved together with the spool.
    let name = |path: &Path| path.file_name().map(|name| name.to_os_string());
    if detail["path"].as_str().is_none_or(|other| name(Path::new(other)) != name(path)) {
        return LogFile::open(path, (!append).then_some(0), None, rotation, metrics);
    }
    let (bytes, since) = (detail["bytes"].as_u64().unwrap_or(0), detail["since"].as_u64());
    let id = detail["device"].as_u64().zip(detail["inode"].as_u64());
    if let Some(moved) = id.and_then(|id| moved(path, id)) {
        // It was put aside since, by us or by another program: what follows goes into the file that has the name now.
        let file = OpenOptions::new().write(true).open(&moved)?;
        if file.metadata()?.len() > bytes {
            file.set_len(bytes)?;
        }
        return LogFile::open(path, None, None, rotation, metrics);
    }
    let file = LogFile::open(path, Some(bytes), since, rotation, metrics)?;
    if file.bytes() < bytes && fs::metadata(path)?.is_file() {
        tracing::warn!(path = %path.display(), length = file.bytes(), expected = bytes, "the file is shorter than what was written to it");
    }
    Ok(file)
}

/// The file with this device and number beside `path`, if it has another name now: one that begins as its own does up to
/// the first dot, as rotations give it. Another file may have the number if all of them were copied.
fn moved(path: &Path, id: (u64, u64)) -> Option<PathBuf> {
    let same = |metadata: &fs::Metadata| metadata.is_file() && (metadata.dev(), metadata.ino()) == id;
    if fs::metadata(path).is_ok_and(|metadata| same(&metadata)) {
        return None;
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name()?.as_encoded_bytes();
    let dot = name.iter().skip(1).position(|byte| *byte == b'.');
    let own = &name[..dot.map_or(name.len(), |dot| dot + 1)];
    let is_own = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(own);
    let same = |entry: &fs::DirEntry| is_own(entry) && entry.metadata().is_ok_and(|metadata| same(&metadata));
    fs::read_dir(folder).ok()?.flatten().find(same).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(path: &Path, bytes: u64, id: Option<(u64, u64)>) -> Value {
        let (device, inode) = id.unzip();
        json!({ "path": path.display().to_string(), "bytes": bytes, "device": device, "inode": inode })
    }

    fn id(path: &Path) -> (u64, u64) {
        let metadata = fs::metadata(path).expect("there");
        (metadata.dev(), metadata.ino())
    }

    fn opened(path: &Path, detail: &Value, append: bool) -> LogFile {
        go_on(path, detail, append, Rotation::default(), &NodeMetrics::default()).expect("opens")
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("readable")
    }

    #[test]
    fn a_file_is_cut_to_what_was_confirmed_also_in_a_folder_that_was_moved() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        fs::write(&path, "confirmed\ntorn").expect("written");
        let before = Path::new("/elsewhere/rows.jsonl");
        let mut file = opened(&path, &confirmed(before, 10, None), false);
        assert_eq!(file.bytes(), 10);
        file.write(1, b"next\n").expect("written");
        assert_eq!(text(&path), "confirmed\nnext\n");
    }

    #[test]
    fn a_file_that_was_moved_before_a_crash_is_cut_where_it_is_now() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.jsonl");
        for name in ["rows.jsonl.1", "rows-20261124.jsonl"] {
            let moved = dir.path().join(name);
            fs::write(&moved, "confirmed\ntorn").expect("written");
            fs::write(&path, "by another\n").expect("written");
            let mut file = opened(&path, &confirmed(&path, 10, Some(id(&moved))), false);
            file.write(1, b"next\n").expect("written");
            assert_eq!((text(&moved).as_str(), text(&path).as_str()), ("confirmed\n", "by another\nnext\n"));
        }
    }

    #[test]
    fn another_file_that_has_its_number_now_is_not_touched() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, other) = (dir.path().join("rows.jsonl"), dir.path().join("late.jsonl"));
        fs::write(&path, "confirmed\ntorn").expect("written");
        fs::write(&other, "of another sink\n").expect("written");
        let (device, inode) = id(&other);
        for id in [(device, inode), (device + 1, inode)] {
            opened(&path, &confirmed(&path, 10, Some(id)), false);
            assert_eq!((text(&path).as_str(), text(&other).as_str()), ("confirmed\n", "of another sink\n"));
        }
    }

    #[test]
    fn a_file_that_nothing_was_confirmed_of_is_emptied_unless_it_is_appended_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("new/rows.jsonl");
        assert_eq!(opened(&path, &Value::Null, false).bytes(), 0);
        fs::write(&path, "old").expect("written");
        assert_eq!(opened(&path, &Value::Null, true).bytes(), 3);
        assert_eq!(opened(&path, &confirmed(Path::new("other.jsonl"), 2, None), false).bytes(), 0);
        assert_eq!(text(&path), "");
    }
}

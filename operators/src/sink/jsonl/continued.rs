//! A file of lines that a later run goes on with: it grows by whole ticks, in their order, and what is confirmed is a
//! length. What stands behind that length after a crash is cut off and written again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::batch::{Batch, Time};
use engine::contract::NodeMetrics;
use engine::contract::Reopen;
use engine::contract::Shared;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::log_file::{LogFile, Place, Rotation};
use super::recent::Recent;
use super::resume::go_on;
use crate::sink::standard_output;
use crate::sink::written::Format;
use engine::contract::sink::{CLOSED, Sink, Then, Written};

/// Lines are made durable, and confirmed, at most this often.
const CONFIRM: Duration = Duration::from_millis(200);

/// The trouble of a file that cannot be written now is shown under this name.
const PART: &str = "file";

/// The file, shared with who has it opened again.
pub(super) struct Continued {
    /// `None` is standard output, which takes what it gets.
    place: Option<Place>,
    /// Whether what is in a file of which nothing was confirmed stays.
    append: bool,
    rotation: Rotation,
    metrics: Arc<NodeMetrics>,
    state: Mutex<State>,
}

struct State {
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    /// `None` until nobody else writes to the file any more.
    file: Option<Target>,
    /// Lines in the file that are not confirmed, as far as they are kept.
    recent: Recent,
    /// The file cannot be written now.
    is_stalled: bool,
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
            Self::StandardOutput => standard_output::write(text),
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
    pub(super) fn new(
        place: Option<Place>,
        append: bool,
        rotation: Rotation,
        (shared, metrics): (&Arc<Shared>, &Arc<NodeMetrics>),
    ) -> Self {
        let state = State {
            shared: Arc::clone(shared),
            metrics: Arc::clone(metrics),
            file: None,
            recent: Recent::default(),
            is_stalled: false,
            waiting: VecDeque::new(),
            written: 0,
            durable: (0, Value::Null),
            is_noted: false,
            synced: Instant::now(),
            then: Then::More,
            waits: false,
            is_over: false,
        };
        Self { place, append, rotation, metrics: Arc::clone(metrics), state: Mutex::new(state) }
    }

    fn path(&self) -> Option<&Path> {
        self.place.as_ref().map(|place| place.path.as_path())
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
            let opened = match &file.place {
                None => Target::StandardOutput,
                Some(place) => Target::File(
                    go_on(place, detail, file.append, file.rotation, &file.metrics)
                        .map_err(|error| format!("{} cannot be opened: {error}", place.path.display()))?,
                ),
            };
            if let Target::File(file) = &opened {
                state.recent.begin(file.bytes());
            }
            state.file = Some(opened);
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
        Ok(Written { upto, detail, is_idle, is_stalled: state.is_stalled, goes_on: state.waits })
    }

    fn noted(&mut self) -> Result<(), String> {
        let mut state = self.file.state.lock();
        state.is_noted = state.durable.0 >= state.written;
        let bytes = state.durable.1["bytes"].as_u64().unwrap_or_default();
        state.recent.confirm(bytes);
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
            let bytes = file.bytes();
            state.recent.begin(bytes);
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
        if !self.restore(path)? {
            return Ok(bytes);
        }
        while let Some((tick, text)) = self.waiting.pop_front_if(|(tick, _)| *tick < upto) {
            // A tick's lines stay together.
            if self.written <= tick && !self.make_room(tick, path)? {
                self.waiting.push_front((tick, text));
                return Ok(bytes);
            }
            let written = self.file.as_mut().map_or(Ok(()), |file| file.write(tick, &text));
            if let Err(error) = written {
                self.waiting.push_front((tick, text));
                self.stall(path, &error)?;
                return Ok(bytes);
            }
            self.recent.add(&text);
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
            self.recent.begin(file.bytes());
        }
        self.is_noted = false;
        self.sync(path)?;
        Ok(false)
    }

    /// If somebody has removed the file, begins it anew with the lines that are not confirmed. False while that cannot be done.
    fn restore(&mut self, path: Option<&Path>) -> Result<bool, String> {
        let Some(Target::File(file)) = self.file.as_mut().filter(|_| path.is_some()) else { return Ok(true) };
        if file.is_removed() {
            if !self.shared.store.is_there_now() {
                self.stall(path, &ErrorKind::NotFound.into())?;
                return Ok(false);
            }
            let begun = file.reopen().and_then(|()| {
                let (base, tick) = (file.bytes(), self.written.saturating_sub(1));
                file.write(tick, &self.recent.text)?;
                self.recent.base = base;
                Ok(())
            });
            if let Err(error) = begun {
                self.stall(path, &error)?;
                return Ok(false);
            }
            self.is_noted = false;
            tracing::warn!(path = %path.unwrap_or(Path::new("")).display(), "the file was removed, and is begun again");
        }
        if std::mem::take(&mut self.is_stalled) {
            self.metrics.set_trouble(PART, None);
        }
        Ok(true)
    }

    /// Waits, if what is wrong with the file may pass.
    fn stall(&mut self, path: Option<&Path>, error: &io::Error) -> Result<(), String> {
        let why = cannot(path, "written", error);
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem) {
            return Err(why);
        }
        if !std::mem::replace(&mut self.is_stalled, true) {
            tracing::error!("{why}: rows wait until it can");
            self.metrics.set_trouble(PART, Some(format!("{why}: rows wait until it can")));
        }
        Ok(())
    }

    /// Makes the lines durable.
    fn sync(&mut self, path: Option<&Path>) -> Result<(), String> {
        if !self.restore(path)? {
            return Ok(());
        }
        if let Some(file) = &mut self.file {
            file.sync().map_err(|error| format!("the lines cannot be made durable: {error}"))?;
        }
        let mut detail = json!({ "path": path.map(|path| path.display().to_string()) });
        if let Some(Target::File(file)) = &self.file {
            detail["bytes"] = file.bytes().into();
            if let Some(identity) = file.identity() {
                identity.note(&mut detail);
            }
            detail["since"] = file.since().into();
        }
        (self.durable, self.synced) = ((self.written, detail), Instant::now());
        Ok(())
    }
}

#[cfg(test)]
#[path = "continued_tests.rs"]
mod tests;

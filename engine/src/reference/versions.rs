//! Values of which one is in effect at each tick: the part that files, models and the like have in common.
//!
//! A new content takes effect at the next tick of which no row was labelled. It is kept, and noted with that tick, before the
//! first row gets it: so all workers, a start, a change and a replay label a row alike.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::batch::Time;
use crate::files;
use crate::progress;
use crate::reference::read_content;

/// How long a value that labels no row stays in memory; one that cannot be read again stays for `FORGET`.
const UNUSED: Duration = Duration::from_secs(60);

/// See [`UNUSED`].
const FORGET: Duration = Duration::from_secs(2 * 60 * 60);

/// The file with the versions, in the folder of their contents.
const NOTE: &str = "versions.json";

/// What to do about a damaged note of versions.
const ADVICE: &str = "it says which content was in effect when: put back a copy, or remove it with its folder, and what is read again \
    gets the content of today";

/// Reads a value from its content. The error says what is wrong, as `line: reason`, or `byte N: reason` if it is no text;
/// several have a line each.
pub type Parse<V> = fn(&[u8]) -> Result<V, String>;

/// When a version takes effect, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// Rows of message times from this on (ms) are labelled with it.
    from: Time,
    /// SHA-256 of its content.
    digest: String,
}

struct Version<V> {
    noted: Noted,
    /// `None` while it is not needed; then it is read again from its folder.
    value: Option<Arc<V>>,
    /// When a row was labelled with it last.
    used: Instant,
}

struct State<V> {
    /// In the order of their times.
    versions: Vec<Version<V>>,
    /// Rows before this message time may have been labelled.
    decided: Time,
}

/// Why a content does not become a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It cannot be used.
    #[error("{0}")]
    Content(String),
    /// It cannot be read or kept now; another try with the same content may succeed.
    #[error("{0}")]
    Passing(String),
}

/// Where versions are kept.
pub(crate) struct Place {
    /// `None` if the run cannot be continued.
    pub dir: Option<PathBuf>,
    /// Whether new contents are taken, and noted there; a replay labels rows as they were.
    pub takes_new: bool,
    /// Rows before this message time were labelled by earlier runs.
    pub labelled_before: Time,
    /// Versions take effect at multiples of this, in ms.
    pub tick: Time,
}

/// The versions of one value.
pub(crate) struct Versions<V> {
    /// What it is, for messages.
    name: String,
    place: Place,
    parse: Parse<V>,
    state: Mutex<State<V>>,
    /// Held while an earlier content is read again.
    reading: Mutex<()>,
}

impl<V> Versions<V> {
    /// The versions that are noted.
    pub fn open(name: String, place: Place, parse: Parse<V>) -> Result<Self, String> {
        let noted: Vec<Noted> = match &place.dir {
            Some(dir) => progress::read(&dir.join(NOTE), ADVICE)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let versions = noted.into_iter().map(|noted| Version { noted, value: None, used: Instant::now() }).collect();
        let state = Mutex::new(State { versions, decided: place.labelled_before });
        Ok(Self { name, place, parse, state, reading: Mutex::new(()) })
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().versions.is_empty()
    }

    pub fn takes_new(&self) -> bool {
        self.place.takes_new
    }

    /// The version for rows of a message time; `None` before the first one took effect.
    ///
    /// # Errors
    /// If an earlier version is not there any more; the message says which.
    pub fn find(&self, time: Time) -> Result<Option<Arc<V>>, String> {
        let Some((noted, value)) = self.known(time) else { return Ok(None) };
        value.map_or_else(|| self.read_again(time, noted), Ok).map(Some)
    }

    /// The same; what comes before the first version took effect gets that.
    ///
    /// # Errors
    /// As [`Versions::find`].
    pub fn at(&self, time: Time) -> Result<Arc<V>, String> {
        if let Some(value) = self.find(time)? {
            return Ok(value);
        }
        let first = self.state.lock().versions.first().map(|version| version.noted.from);
        let first = first.map(|from| self.find(from)).transpose()?.flatten();
        first.ok_or_else(|| format!("{} has no version", self.name))
    }

    fn read_again(&self, time: Time, noted: Noted) -> Result<Arc<V>, String> {
        // One of the workers reads it, without being in the way of those who need another version.
        let _reading = self.reading.lock();
        if let Some((_, Some(value))) = self.known(time) {
            return Ok(value);
        }
        let path = self.place.dir.as_ref().map_or_else(PathBuf::new, |dir| dir.join(&noted.digest));
        let fault = |error: String| format!("the content of {} that was in effect cannot be read: {error}", self.name);
        let content = read_content(&path).map_err(|error| fault(format!("{}: {error}", path.display())))?;
        let value = Arc::new((self.parse)(&content).map_err(|why| fault(first(&why).to_owned()))?);
        if let Some(version) = self.state.lock().versions.iter_mut().find(|version| version.noted == noted) {
            version.value = Some(Arc::clone(&value));
        }
        Ok(value)
    }

    /// The version for rows of a message time, with its value if that is in memory.
    fn known(&self, time: Time) -> Option<(Noted, Option<Arc<V>>)> {
        let mut state = self.state.lock();
        state.decided = state.decided.max(time.saturating_add(1));
        let version = state.versions.iter_mut().rfind(|version| version.noted.from <= time)?;
        version.used = Instant::now();
        Some((version.noted.clone(), version.value.clone()))
    }

    /// Takes a content, if it is another than the last: from which tick on it is in effect, and its value.
    pub fn add(&self, content: &[u8]) -> Result<Option<(Time, Arc<V>)>, Refused> {
        let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let is_current = |state: &State<V>| state.versions.last().is_some_and(|last| last.noted.digest == digest);
        if is_current(&self.state.lock()) {
            return Ok(None);
        }
        let value = (self.parse)(content).map_err(|why| Refused::Content(format!("{}:{}", self.name, first(&why))))?;
        let value = Arc::new(value);
        if let Some(dir) = self.place.dir.as_ref().filter(|_| self.place.takes_new) {
            keep(&dir.join(&digest), content)
                .map_err(|error| Refused::Passing(format!("{} cannot be written: {error}", dir.display())))?;
        }
        // Nobody labels a row until the note is durable.
        let mut state = self.state.lock();
        let next = (state.decided / self.place.tick).saturating_add(1).saturating_mul(self.place.tick);
        let from = if state.decided == 0 && state.versions.is_empty() { 0 } else { next };
        let noted = Noted { from, digest };
        state.versions.push(Version { noted, value: Some(Arc::clone(&value)), used: Instant::now() });
        if let Err(message) = self.note(&state.versions) {
            state.versions.pop();
            return Err(Refused::Passing(message));
        }
        Ok(Some((from, value)))
    }

    fn note(&self, versions: &[Version<V>]) -> Result<(), String> {
        let Some(dir) = self.place.dir.as_ref().filter(|_| self.place.takes_new) else { return Ok(()) };
        let noted: Vec<&Noted> = versions.iter().map(|version| &version.noted).collect();
        let path = dir.join(NOTE);
        progress::write(&path, &noted).map_err(|error| progress::cannot(&path, &error))
    }

    /// Values that label no row any more go from memory.
    pub fn drop_unused(&self) {
        let mut state = self.state.lock();
        let last = state.versions.len().saturating_sub(1);
        if self.place.dir.is_some() {
            let unused = state.versions[..last].iter_mut().filter(|version| version.used.elapsed() >= UNUSED);
            unused.for_each(|version| version.value = None);
        } else {
            let gone = state.versions[..last].iter().take_while(|version| version.used.elapsed() >= FORGET).count();
            state.versions.drain(..gone);
        }
    }

    /// Values for rows before `kept` go from the disk.
    pub fn forget_before(&self, kept: Time) {
        let mut state = self.state.lock();
        let ends = |versions: &[Version<V>], at: usize| versions.get(at + 1).map_or(Time::MAX, |next| next.noted.from);
        let gone = (0..state.versions.len()).take_while(|at| ends(&state.versions, *at) <= kept).count();
        if self.place.dir.is_some() && self.place.takes_new && gone > 0 {
            let removed: Vec<Version<V>> = state.versions.drain(..gone).collect();
            // A file that stays because of an error is only garbage.
            let _ = self.note(&state.versions);
            for version in removed {
                let is_used = state.versions.iter().any(|other| other.noted.digest == version.noted.digest);
                if let Some(dir) = self.place.dir.as_ref().filter(|_| !is_used) {
                    let _ = fs::remove_file(dir.join(&version.noted.digest));
                }
            }
        }
    }
}

/// The time of a file. One before 2000 is none: archives, such as those of npm, have such in place of times.
pub fn file_time(metadata: &Metadata) -> Option<SystemTime> {
    let first = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
    metadata.modified().ok().filter(|time| *time >= first)
}

/// The first of several faults.
fn first(faults: &str) -> &str {
    faults.lines().next().unwrap_or_default()
}

/// Keeps the content of a version, durably.
fn keep(path: &Path, content: &[u8]) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    files::make_dirs_within(dir, 2)?;
    let temporary = path.with_extension("tmp");
    files::create(&temporary)?.write_all(content)?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

//! Facts that come from beside the data, such as a file of networks: versions, each of which takes effect at a tick.
//!
//! Every row is labelled with exactly one version, which depends on the row's message time alone. So all workers agree, and a
//! start or a replay labels a row as the live run did: when each version took effect is noted beside the logs, with its
//! content, before the first row gets it.

use std::any::Any;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::batch::Time;
use crate::metrics::NodeMetrics;
use crate::progress;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long a value that labels no row stays in memory; one that cannot be read again stays for `FORGET`.
const UNUSED: Duration = Duration::from_secs(60);

/// See [`UNUSED`].
const FORGET: Duration = Duration::from_secs(2 * 60 * 60);

/// The most bytes of a file.
const MOST_BYTES: u64 = 1 << 30;

/// What to do about a damaged note of versions.
const ADVICE: &str = "it says which content was in effect when: put back a copy, or remove it with its folder, and what is read again \
    gets the content of today";

/// Reads a value from the content of a file. The error says what is wrong, with the line.
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

/// What distinguishes a file from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    changed: Option<SystemTime>,
}

/// How a file was found.
#[derive(Debug, Default)]
struct Seen {
    /// As it was when it was read last.
    read: Option<Stamp>,
    /// As it was at the last look.
    last: Option<Stamp>,
    looked: Option<Instant>,
}

/// A file whose content may change while the run goes on.
pub struct Reference<V> {
    path: PathBuf,
    /// Where versions are kept; `None` if the run cannot be continued.
    dir: Option<PathBuf>,
    /// Whether this run takes new content and notes it; a replay labels rows as they were.
    takes_new: bool,
    tick: Time,
    parse: Parse<V>,
    metrics: Arc<NodeMetrics>,
    state: Mutex<State<V>>,
    seen: Mutex<Seen>,
    is_loading: AtomicBool,
    /// Held while an earlier content is read again.
    reading: Mutex<()>,
}

/// Why the content of a file is not taken.
struct Refused {
    why: String,
    /// Whether another try with the same content may succeed.
    may_pass: bool,
}

/// Where the versions of a reference are.
pub(crate) struct Place {
    pub path: PathBuf,
    pub dir: Option<PathBuf>,
    /// Whether new content of the file is taken, and noted there.
    pub takes_new: bool,
    /// Rows before this message time were labelled by earlier runs.
    pub labelled_before: Time,
    pub tick: Time,
}

impl<V: Send + Sync + 'static> Reference<V> {
    /// The versions that are noted, and the content of today: if that is another, it takes effect behind all rows that there
    /// are.
    pub(crate) fn open(place: Place, parse: Parse<V>, metrics: Arc<NodeMetrics>) -> Result<Self, String> {
        let Place { path, dir, takes_new, labelled_before, tick } = place;
        let noted: Vec<Noted> = match &dir {
            Some(dir) => progress::read(&dir.join(NOTE), ADVICE)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let versions = noted.into_iter().map(|noted| Version { noted, value: None, used: Instant::now() }).collect();
        let (state, seen) = (State { versions, decided: labelled_before }, Seen::default());
        let (state, seen, is_loading) = (Mutex::new(state), Mutex::new(seen), AtomicBool::new(false));
        let reading = Mutex::new(());
        let reference = Self { path, dir, takes_new, tick, parse, metrics, state, seen, is_loading, reading };
        let has_versions = !reference.state.lock().versions.is_empty();
        if has_versions && !takes_new {
            return Ok(reference);
        }
        reference.seen.lock().read = reference.stamp().ok();
        if let Err(refused) = reference.load() {
            // A run goes on with what it had.
            if !has_versions {
                return Err(refused.why);
            }
            reference.refuse(&refused);
        }
        Ok(reference)
    }

    /// The version for rows of a message time.
    ///
    /// # Errors
    /// If an earlier version is not there any more; the message says which.
    pub fn at(&self, time: Time) -> Result<Arc<V>, String> {
        let noted = match self.known(time)? {
            (_, Some(value)) => return Ok(value),
            (noted, None) => noted,
        };
        // One of the workers reads it, without being in the way of those who need another version.
        let _reading = self.reading.lock();
        if let (_, Some(value)) = self.known(time)? {
            return Ok(value);
        }
        let path = self.dir.as_ref().map_or_else(PathBuf::new, |dir| dir.join(&noted.digest));
        let fault = |error: String| {
            format!("the content of {} that was in effect cannot be read: {error}", self.path.display())
        };
        let content = read(&path).map_err(|error| fault(format!("{}: {error}", path.display())))?;
        let value = Arc::new((self.parse)(&content).map_err(fault)?);
        if let Some(version) = self.state.lock().versions.iter_mut().find(|version| version.noted == noted) {
            version.value = Some(Arc::clone(&value));
        }
        Ok(value)
    }

    /// The version for rows of a message time, with its value if that is in memory.
    fn known(&self, time: Time) -> Result<(Noted, Option<Arc<V>>), String> {
        let mut state = self.state.lock();
        state.decided = state.decided.max(time.saturating_add(1));
        let at = state.versions.iter().rposition(|version| version.noted.from <= time).unwrap_or(0);
        let version = state.versions.get_mut(at).ok_or_else(|| "defect: no version".to_owned())?;
        version.used = Instant::now();
        Ok((version.noted.clone(), version.value.clone()))
    }

    /// Reads the file. If its content is another one, that takes effect at the next tick of which no row was labelled.
    fn load(&self) -> Result<(), Refused> {
        let passing = |why: String| Refused { why, may_pass: true };
        let content =
            read(&self.path).map_err(|error| passing(format!("{} cannot be read: {error}", self.path.display())))?;
        let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let is_current = |state: &State<V>| state.versions.last().is_some_and(|last| last.noted.digest == digest);
        if is_current(&self.state.lock()) {
            return Ok(());
        }
        let value = (self.parse)(&content);
        let value = value.map_err(|why| Refused { why: format!("{}:{why}", self.path.display()), may_pass: false })?;
        if let Some(dir) = self.dir.as_ref().filter(|_| self.takes_new) {
            keep(&dir.join(&digest), &content)
                .map_err(|error| passing(format!("{} cannot be written: {error}", dir.display())))?;
        }
        // Nobody labels a row until the note is durable.
        let mut state = self.state.lock();
        let next = (state.decided / self.tick).saturating_add(1).saturating_mul(self.tick);
        let from = if state.decided == 0 && state.versions.is_empty() { 0 } else { next };
        let (noted, value) = (Noted { from, digest }, Some(Arc::new(value)));
        state.versions.push(Version { noted, value, used: Instant::now() });
        if let Err(message) = self.note(&state.versions) {
            state.versions.pop();
            return Err(passing(message));
        }
        self.metrics.counter("reference_versions").fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(file = %self.path.display(), bytes = content.len(), "in effect from tick {from} on");
        Ok(())
    }

    fn note(&self, versions: &[Version<V>]) -> Result<(), String> {
        let Some(dir) = self.dir.as_ref().filter(|_| self.takes_new) else { return Ok(()) };
        let noted: Vec<&Noted> = versions.iter().map(|version| &version.noted).collect();
        let path = dir.join(NOTE);
        progress::write(&path, &noted).map_err(|error| progress::cannot(&path, &error))
    }

    /// Says that the content of the file is not taken.
    fn refuse(&self, refused: &Refused) {
        let why = &refused.why;
        if refused.may_pass {
            // The next look finds it new.
            self.seen.lock().read = None;
        }
        self.metrics.counter("reference_refused").fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!("not taken, what was read before stays in effect: {why}");
        self.metrics.set_trouble("file", Some(format!("its new content is not taken: {why}")));
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let metadata = fs::metadata(&self.path)?;
        Ok(Stamp { bytes: metadata.len(), changed: metadata.modified().ok() })
    }

    /// Whether the file is another than the one that was read. It must have stood still for a look, unless it is `asked` for.
    fn is_new(&self, asked: bool) -> bool {
        let mut seen = self.seen.lock();
        if !asked && seen.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return false;
        }
        seen.looked = Some(Instant::now());
        let now = self.stamp().ok();
        let stands = std::mem::replace(&mut seen.last, now) == now;
        let is_new = self.takes_new && now.is_some() && (asked || (stands && now != seen.read));
        if is_new {
            seen.read = now;
        }
        is_new
    }
}

/// The file with the versions, in the folder of their contents.
const NOTE: &str = "versions.json";

/// Reads a regular file of a bounded size.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(io::Error::other(format!("it is no regular file of at most {MOST_BYTES} bytes")));
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(MOST_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

/// Keeps the content of a version, durably.
fn keep(path: &Path, content: &[u8]) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content)?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

/// A reference, whatever its values are.
trait Watched: Any + Send + Sync {
    /// Whether its file is another than the one that was read.
    fn wants_to_load(&self, asked: bool) -> bool;
    fn load_again(&self);
    /// There was nobody to load it.
    fn cannot_load(&self, why: String);
    /// Values that label no row any more go from memory.
    fn drop_unused(&self);
    /// Values for rows before `kept` go from the disk.
    fn forget_before(&self, kept: Time);
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<V: Send + Sync + 'static> Watched for Reference<V> {
    fn wants_to_load(&self, asked: bool) -> bool {
        !self.is_loading.load(SeqCst) && self.is_new(asked) && !self.is_loading.swap(true, SeqCst)
    }

    fn load_again(&self) {
        match self.load() {
            Ok(()) => self.metrics.set_trouble("file", None),
            Err(refused) => self.refuse(&refused),
        }
        self.is_loading.store(false, SeqCst);
    }

    fn cannot_load(&self, why: String) {
        self.refuse(&Refused { why, may_pass: true });
        self.is_loading.store(false, SeqCst);
    }

    fn drop_unused(&self) {
        let mut state = self.state.lock();
        let last = state.versions.len().saturating_sub(1);
        if self.dir.is_some() {
            let unused = state.versions[..last].iter_mut().filter(|version| version.used.elapsed() >= UNUSED);
            unused.for_each(|version| version.value = None);
        } else {
            let gone = state.versions[..last].iter().take_while(|version| version.used.elapsed() >= FORGET).count();
            state.versions.drain(..gone);
        }
    }

    fn forget_before(&self, kept: Time) {
        let mut state = self.state.lock();
        let ends = |versions: &[Version<V>], at: usize| versions.get(at + 1).map_or(Time::MAX, |next| next.noted.from);
        let gone = (0..state.versions.len()).take_while(|at| ends(&state.versions, *at) <= kept).count();
        if self.dir.is_some() && self.takes_new && gone > 0 {
            let removed: Vec<Version<V>> = state.versions.drain(..gone).collect();
            // A file that stays because of an error is only garbage.
            let _ = self.note(&state.versions);
            for version in removed {
                let is_used = state.versions.iter().any(|other| other.noted.digest == version.noted.digest);
                if let Some(dir) = self.dir.as_ref().filter(|_| !is_used) {
                    let _ = fs::remove_file(dir.join(&version.noted.digest));
                }
            }
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// The references of a run.
#[derive(Default)]
pub struct References {
    all: Mutex<Vec<(String, Arc<dyn Watched>)>>,
    /// Files are as they were at the start.
    are_fixed: AtomicBool,
}

impl std::fmt::Debug for References {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all.lock().iter().map(|(name, _)| name)).finish()
    }
}

impl References {
    /// Files stay as they are at the start: several processes cannot agree on the tick at which another content takes effect.
    pub(crate) fn fix(&self) {
        self.are_fixed.store(true, SeqCst);
    }

    /// See [`References::fix`].
    pub(crate) fn are_fixed(&self) -> bool {
        self.are_fixed.load(SeqCst)
    }

    /// The reference of this name; all workers, and the islands of a change, share it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn get<V: Send + Sync + 'static>(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<Reference<V>, String>,
    ) -> Result<Arc<Reference<V>>, String> {
        let mut all = self.all.lock();
        let known = all.iter().find(|(other, _)| other == name).map(|(_, known)| Arc::clone(known));
        if let Some(known) = known.and_then(|known| known.as_any().downcast::<Reference<V>>().ok()) {
            return Ok(known);
        }
        let opened = Arc::new(open()?);
        all.push((name.to_owned(), Arc::clone(&opened) as Arc<dyn Watched>));
        Ok(opened)
    }

    /// Reads files again that have changed, each on a thread of its own: a large one takes seconds. `asked`: somebody says that
    /// they have.
    pub(crate) fn look(&self, asked: bool) {
        if self.are_fixed() {
            return;
        }
        let all: Vec<Arc<dyn Watched>> = self.all.lock().iter().map(|(_, one)| Arc::clone(one)).collect();
        all.iter().for_each(|one| one.drop_unused());
        for one in all.into_iter().filter(|one| one.wants_to_load(asked)) {
            let thread = std::thread::Builder::new().name("reference".into());
            let loaded = Arc::clone(&one);
            if let Err(error) = thread.spawn(move || loaded.load_again()) {
                one.cannot_load(format!("there is no thread to read it: {error}"));
            }
        }
    }

    /// Rows before `kept` are never labelled again.
    pub(crate) fn forget_before(&self, kept: Time) {
        self.all.lock().iter().for_each(|(_, one)| one.forget_before(kept));
    }
}

#[cfg(test)]
mod tests;

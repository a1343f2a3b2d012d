//! Files beside the data, such as a table of networks, whose content may change while the run goes on: each content is a
//! version, which takes effect at a tick.

use std::any::Any;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::batch::Time;
use crate::metrics::NodeMetrics;

mod content;
mod said;
mod versions;

pub use content::{read_content, read_text};
use said::Said;
pub(crate) use versions::Place;
pub use versions::{Parse, file_time};
use versions::{Refused, Versions};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A file that is not there for so long is said to be gone: who replaces one may remove it first.
const GONE: Duration = Duration::from_secs(3);

/// Why several processes keep what a file was at their start.
const FIXED: &str = "several processes cannot agree on the tick from which it counts, stop all and start them again";

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
    /// Since when it is not there.
    gone: Option<Instant>,
}

/// How a file is read.
pub struct Reading<V> {
    /// What makes a value of its content.
    pub parse: Parse<V>,
    /// From when the content says that its data is; a file that does not say has its own time.
    pub made: fn(&V) -> Option<SystemTime>,
    /// The same of the content that the plan was made with.
    pub planned: Option<SystemTime>,
    /// Older data is a trouble of the node, except in a replay.
    pub max_age: Option<Duration>,
    /// It is made while the run goes on, such as a model.
    pub may_be_absent: bool,
}

impl<V> Clone for Reading<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Reading<V> {}

impl<V> Reading<V> {
    /// A file that must be there and does not say from when its data is.
    pub fn new(parse: Parse<V>) -> Self {
        Self { parse, made: |_| None, planned: None, max_age: None, may_be_absent: false }
    }
}

impl<V> std::fmt::Debug for Reading<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("max_age", &self.max_age).finish_non_exhaustive()
    }
}

/// A file whose content may change while the run goes on.
pub struct Reference<V> {
    path: PathBuf,
    versions: Versions<V>,
    said: Said,
    seen: Mutex<Seen>,
    reading: Reading<V>,
    is_loading: AtomicBool,
}

impl<V: Send + Sync + 'static> Reference<V> {
    /// The versions that are noted, and the content of today: if that is another, it takes effect behind all rows that there
    /// are.
    pub(crate) fn open(
        path: PathBuf,
        place: Place,
        reading: Reading<V>,
        metrics: &Arc<NodeMetrics>,
    ) -> Result<Self, String> {
        let versions = Versions::open(path.display().to_string(), place, reading.parse)?;
        let (said, seen) = (Said::new(path.display().to_string(), reading.planned), Mutex::default());
        let reference = Self { path, versions, said, seen, reading, is_loading: AtomicBool::new(false) };
        reference.said.add_reader(metrics, reading.max_age.filter(|_| reference.versions.takes_new()));
        let has_versions = !reference.versions.is_empty();
        let stamp = reference.stamp();
        let is_absent =
            reading.may_be_absent && matches!(&stamp, Err(error) if error.kind() == io::ErrorKind::NotFound);
        if has_versions && !reference.versions.takes_new() || is_absent {
            return Ok(reference);
        }
        reference.seen.lock().read = stamp.ok();
        if let Err(refused) = reference.load() {
            // A run goes on with what it had.
            if !has_versions {
                return Err(refused.to_string());
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
        self.versions.at(time)
    }

    /// The same; `None` before there was any.
    ///
    /// # Errors
    /// As [`Reference::at`].
    pub fn find(&self, time: Time) -> Result<Option<Arc<V>>, String> {
        self.versions.find(time)
    }

    /// Reads the file. If its content is another one, that takes effect at the next tick of which no row was labelled.
    fn load(&self) -> Result<(), Refused> {
        let content = read_content(&self.path)
            .map_err(|error| Refused::Passing(format!("{} cannot be read: {error}", self.path.display())))?;
        let added = self.versions.add(&content)?;
        if let Some((from, value)) = &added {
            self.said.versions.fetch_add(1, Relaxed);
            self.said.set_made((self.reading.made)(value));
            tracing::info!(file = %self.path.display(), bytes = content.len(), "in effect from tick {from} on");
        }
        self.said.set_changed(fs::metadata(&self.path).ok().and_then(|metadata| file_time(&metadata)));
        self.said.publish();
        Ok(())
    }

    /// Says that the content of the file is not taken.
    fn refuse(&self, refused: &Refused) {
        if matches!(refused, Refused::Passing(_)) {
            // The next look finds it new.
            self.seen.lock().read = None;
        }
        self.said.refused.fetch_add(1, Relaxed);
        tracing::warn!("not taken, what was read before stays in effect: {refused}");
        self.said.set_trouble(Some(format!("its new content is not taken: {refused}")));
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
        let now = self.stamp();
        self.note_presence(&mut seen, now.as_ref().err());
        let now = now.ok();
        let stands = std::mem::replace(&mut seen.last, now) == now;
        let is_new = self.versions.takes_new() && now.is_some() && (asked || (stands && now != seen.read));
        if is_new {
            seen.read = now;
        }
        is_new
    }

    /// Says that the file is gone, or is there again.
    fn note_presence(&self, seen: &mut Seen, error: Option<&io::Error>) {
        match (error, seen.gone) {
            _ if self.reading.may_be_absent && self.versions.is_empty() => {}
            (Some(_), None) => seen.gone = Some(Instant::now()),
            (Some(error), Some(since)) if since.elapsed() >= GONE => {
                let path = self.path.display();
                let trouble = format!("{path} cannot be looked at, what was read before stays in effect: {error}");
                if seen.read.take().is_some() {
                    tracing::warn!("{trouble}");
                }
                self.said.set_trouble(Some(trouble));
            }
            // What it has now is read, and said then.
            (None, Some(_)) => seen.gone = None,
            _ => {}
        }
    }
}

/// A reference, whatever its values are.
trait Watched: Any + Send + Sync {
    /// Whether its file is another than the one that was read.
    fn wants_to_load(&self, asked: bool) -> bool;
    fn load_again(&self);
    /// There was nobody to load it.
    fn cannot_load(&self, why: String);
    /// It stays as it was read; says so if it has changed since.
    fn stay(&self, asked: bool);
    fn drop_unused(&self);
    /// Says so if it has become too old.
    fn check_age(&self);
    fn forget_before(&self, kept: Time);
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<V: Send + Sync + 'static> Watched for Reference<V> {
    fn wants_to_load(&self, asked: bool) -> bool {
        !self.is_loading.load(SeqCst) && self.is_new(asked) && !self.is_loading.swap(true, SeqCst)
    }

    fn load_again(&self) {
        match self.load() {
            Ok(()) => self.said.set_trouble(None),
            Err(refused) => self.refuse(&refused),
        }
        self.is_loading.store(false, SeqCst);
    }

    fn cannot_load(&self, why: String) {
        self.refuse(&Refused::Passing(why));
        self.is_loading.store(false, SeqCst);
    }

    fn stay(&self, asked: bool) {
        let before = self.seen.lock().read;
        if self.wants_to_load(asked) {
            if self.seen.lock().read != before {
                self.refuse(&Refused::Content(format!("{}: {FIXED}", self.path.display())));
            }
            self.is_loading.store(false, SeqCst);
        }
    }

    fn drop_unused(&self) {
        self.versions.drop_unused();
    }

    fn check_age(&self) {
        self.said.check_age();
    }

    fn forget_before(&self, kept: Time) {
        self.versions.forget_before(kept);
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
        (metrics, max_age): (&Arc<NodeMetrics>, Option<Duration>),
        open: impl FnOnce() -> Result<Reference<V>, String>,
    ) -> Result<Arc<Reference<V>>, String> {
        let mut all = self.all.lock();
        let known = all.iter().find(|(other, _)| other == name).map(|(_, known)| Arc::clone(known));
        if let Some(known) = known.and_then(|known| known.as_any().downcast::<Reference<V>>().ok()) {
            known.said.add_reader(metrics, max_age.filter(|_| known.versions.takes_new()));
            return Ok(known);
        }
        let opened = Arc::new(open()?);
        if self.are_fixed() && opened.versions.takes_new() {
            tracing::info!("{} stays as it is now for the whole run: {FIXED}", opened.path.display());
        }
        opened.said.add_reader(metrics, max_age.filter(|_| opened.versions.takes_new()));
        all.push((name.to_owned(), Arc::clone(&opened) as Arc<dyn Watched>));
        Ok(opened)
    }

    /// Reads files again that have changed, each on a thread of its own: a large one takes seconds. `asked`: somebody says that
    /// they have.
    pub(crate) fn look(&self, asked: bool) {
        let all: Vec<Arc<dyn Watched>> = self.all.lock().iter().map(|(_, one)| Arc::clone(one)).collect();
        all.iter().for_each(|one| one.check_age());
        if self.are_fixed() {
            // Said once for each new content, and in `status` until the end.
            all.iter().for_each(|one| one.stay(asked));
            return;
        }
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

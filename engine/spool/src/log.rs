//! A log: what its users call.

use std::fs::{self, File};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use arrow::datatypes::SchemaRef;
use parking_lot::{Condvar, Mutex};

use crate::adapt::bytes_of;
use crate::counters::add;
use crate::files::{Disk, Files};
use crate::format::{Ports, ms_to_ns};
use crate::index::Index;
use crate::lock::lock_dir;
use crate::merge::GROUP;
use crate::segment::{Segment, Step};
use crate::state::LogState;
use crate::tail::{Ranges, Tail};
use crate::writer::Writer;
use crate::{Counters, Entry, LogReader, Settings, SpoolError, Time, WhenFull};

/// Bytes that may be queued before sources must wait.
const MAX_QUEUED: u64 = 32 << 20;

/// A log that this process writes to. Dropping it closes it and waits for what is queued, unless the disk refuses it.
#[derive(Debug)]
pub struct Log {
    shared: Arc<LogState>,
    thread: Option<JoinHandle<()>>,
    /// Locked for as long as the log is written to.
    _lock: File,
}

impl Log {
    /// Opens the log of a source with these output ports, or makes it. Cuts off a record whose writing was interrupted.
    ///
    /// # Errors
    /// If another process has the log, if the directory cannot be read or written, or if a schema cannot be stored.
    pub fn open(settings: Settings, ports: &[(String, SchemaRef)]) -> Result<Arc<Self>, SpoolError> {
        Self::open_with(settings, ports, Arc::new(Disk))
    }

    pub(crate) fn open_with(
        settings: Settings,
        ports: &[(String, SchemaRef)],
        files: Arc<dyn Files>,
    ) -> Result<Arc<Self>, SpoolError> {
        let dir = settings.dir.clone();
        let ports = Arc::new(Ports::new(ports).map_err(SpoolError::Schema)?);
        fs::create_dir_all(&dir).map_err(SpoolError::io(&dir))?;
        let lock = lock_dir(&dir)?;
        let found = Index::open(&dir, &ports).map_err(SpoolError::io(&dir))?;
        let counters = Counters::default();
        add(&counters.torn_bytes, found.torn);
        if found.torn > 0 {
            tracing::info!(spool = %dir.display(), bytes = found.torn, "cut off a record whose writing was interrupted");
        }
        let mut lost = Ranges::default();
        for (from, to) in found.skipped.iter().copied().chain([(found.skipped_from, found.next)]) {
            lost.add(from, to);
        }
        let shared = Arc::new(LogState {
            ports,
            files,
            counters,
            queue: Mutex::default(),
            wake: Condvar::new(),
            index: Mutex::new(found.index),
            tail: Mutex::new(Tail::new(found.next, settings.memory_bytes)),
            lost: Mutex::new(lost),
            damaged: Mutex::default(),
            committed: AtomicU64::new(found.next),
            watermark: AtomicU64::new(found.watermark),
            ended: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            subscribers: Mutex::default(),
            settings,
        });
        shared.measure();
        let writer = Writer::new(shared.clone(), found.next, found.skipped_from)
            .map_err(|error| SpoolError::Schema(error.to_string()))?;
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run());
        let thread = Some(thread.map_err(SpoolError::io(&dir))?);
        Ok(Arc::new(Self { shared, thread, _lock: lock }))
    }

    /// Hands an entry over to be written. Never waits: see [`Log::must_wait`]. Does nothing after [`Log::close`].
    pub fn append(&self, entry: Entry) {
        let bytes = match &entry {
            Entry::Batch { rows, .. } => bytes_of(rows),
            Entry::Note(text) => text.len() as u64,
            Entry::Watermark(_) => 0,
        };
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return;
        }
        // The thread that writes waits for the first entry, and for enough to write before the next commit is due.
        let wakes = queue.entries.is_empty() || (queue.bytes < GROUP && queue.bytes + bytes >= GROUP);
        queue.bytes += bytes;
        match (&entry, queue.entries.back_mut()) {
            (Entry::Watermark(time), Some((Entry::Watermark(last), _))) => *last = (*last).max(*time),
            _ => queue.entries.push_back((entry, bytes)),
        }
        add(&self.shared.counters.queued_bytes, bytes);
        drop(queue);
        if wakes {
            self.shared.wake.notify_one();
        }
    }

    /// Whether sources must hold back: too much is queued, or the log or its disk is full.
    pub fn must_wait(&self) -> bool {
        let counters = &self.shared.counters;
        counters.queued_bytes.load(Relaxed) > MAX_QUEUED || counters.full.load(Relaxed) > 0
    }

    /// Ends the log: nothing more is appended. What is queued is committed, then readers find [`Next::End`](crate::Next).
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
    }

    /// A reader of the records from a position on.
    pub fn reader(self: &Arc<Self>, from: u64) -> LogReader {
        LogReader::new(self.shared.clone(), from)
    }

    /// The first position that is still there; [`Log::end`] if there is none.
    pub fn first(&self) -> u64 {
        let end = self.end();
        self.shared.index.lock().first().map_or(end, |first| first.min(end))
    }

    /// The event time (ms) from which on the log has every row that it was given; 0 if nothing was deleted. Of a log that was
    /// opened with its first rows deleted it may be a later one.
    pub fn whole_from(&self) -> Time {
        self.shared.index.lock().whole_from
    }

    /// The position after the last durable record.
    pub fn end(&self) -> u64 {
        self.shared.committed.load(Acquire)
    }

    /// The last durable watermark in ms, of this run or an earlier one; 0 if there is none.
    pub fn last_watermark(&self) -> Time {
        self.shared.watermark.load(Acquire)
    }

    /// A position before which every row's event time is before `event_ms`. A row without an event time counts as of its
    /// message's time.
    ///
    /// # Errors
    /// If the segment where it is cannot be read.
    pub fn start_for(&self, event_ms: Time) -> Result<u64, SpoolError> {
        let ns = ms_to_ns(event_ms);
        let end = self.end();
        let (place, mark) = {
            let index = self.shared.index.lock();
            (index.locate_time(ns), index.mark)
        };
        let Some(place) = place else { return Ok(end) };
        let search = || {
            let mut segment = Segment::open(&place.path, Some(mark))?;
            segment.set_limit(place.bytes)?;
            let mut before = place.first;
            loop {
                match segment.step_headers()? {
                    Step::Record(frame, _) if frame.newest() >= ns => return Ok(frame.position),
                    Step::Record(frame, _) => before = frame.end(),
                    Step::Damage { .. } => {}
                    Step::End => return Ok(before),
                }
            }
        };
        search().map(|found: u64| found.min(end)).map_err(SpoolError::io(&place.path))
    }

    /// Allows segments to be deleted whose records are all before a position. Those younger than
    /// [`Settings::max_age`] stay while there is room.
    pub fn trim(&self, before: u64) {
        let keep = self.shared.settings.max_age.map(|age| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
        let mut index = self.shared.index.lock();
        index.trimmed = index.trimmed.max(before.min(self.end()));
        // While the log is full nothing is written, and only what is written makes room otherwise.
        let room = (self.shared.settings.when_full == WhenFull::Block).then_some(self.shared.settings.max_bytes);
        if let Err(error) = index.trim(keep, room, self.shared.files.as_ref()) {
            tracing::warn!(spool = %self.shared.settings.dir.display(), %error, "a segment cannot be deleted");
        }
        drop(index);
        self.shared.measure();
        self.shared.nudge();
    }

    /// Calls `wake` after each commit and at the end, on the thread that writes, until the subscription is dropped.
    pub fn subscribe(&self, wake: impl Fn() + Send + Sync + 'static) -> Subscription {
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(wake);
        let mut subscribers = self.shared.subscribers.lock();
        let id = subscribers.next;
        subscribers.next += 1;
        subscribers.list.insert(id, wake);
        Subscription { shared: Arc::downgrade(&self.shared), id }
    }

    /// Whether it was closed and everything that was appended is durable, or never will be: the disk refused it, and
    /// [`Counters::queued_bytes`] says how much.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Acquire)
    }

    /// What the log counts.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue.lock();
            (queue.closed, queue.abandoned) = (true, true);
        }
        self.shared.nudge();
        // A subscriber may hold the last handle; it runs on the thread that would be waited for.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Keeps a function subscribed to a log's commits.
#[derive(Debug)]
#[must_use = "dropping it unsubscribes"]
pub struct Subscription {
    shared: Weak<LogState>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.subscribers.lock().list.remove(&self.id);
        }
    }
}

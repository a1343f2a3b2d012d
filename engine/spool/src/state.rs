//! What a log, its readers and the thread that writes share.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::{Condvar, Mutex};

use crate::counters::add;
use crate::files::Files;
use crate::format::{Frame, Ports};
use crate::index::Index;
use crate::merge::Queued;
use crate::tail::{Ranges, Tail};
use crate::{Counters, Settings, WhenFull};

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub entries: VecDeque<Queued>,
    /// Bytes of their rows.
    pub bytes: u64,
    pub closed: bool,
    /// Nobody waits for what the disk refuses.
    pub abandoned: bool,
    /// There may be room now.
    pub nudged: bool,
}

#[derive(Default)]
pub(crate) struct Subscribers {
    pub list: HashMap<u64, Arc<dyn Fn() + Send + Sync>>,
    pub next: u64,
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} subscribers", self.list.len())
    }
}

/// What a log, its readers and the thread that writes share.
#[derive(Debug)]
pub(crate) struct LogState {
    pub settings: Settings,
    pub ports: Arc<Ports>,
    pub files: Arc<dyn Files>,
    pub counters: Counters,
    pub queue: Mutex<Queue>,
    pub wake: Condvar,
    pub index: Mutex<Index>,
    pub tail: Mutex<Tail>,
    /// Positions that hold nothing and are counted.
    pub lost: Mutex<Ranges>,
    /// Bytes that are damaged and are counted, by segment.
    pub damaged: Mutex<HashMap<u64, Ranges>>,
    /// Position after the last durable record; index and tail have everything before it.
    pub committed: AtomicU64,
    pub watermark: AtomicU64,
    pub ended: AtomicBool,
    /// The disk refuses writes.
    pub blocked: AtomicBool,
    pub subscribers: Mutex<Subscribers>,
}

impl LogState {
    /// Sets the gauges.
    pub fn measure(&self) {
        let (disk, segments) = {
            let index = self.index.lock();
            (index.disk(), index.segments.len())
        };
        self.counters.disk_bytes.store(disk, Relaxed);
        self.counters.segments.store(segments as u64, Relaxed);
        let over = self.settings.when_full == WhenFull::Block && disk >= self.settings.max_bytes;
        self.counters.full.store(u64::from(over || self.blocked.load(Acquire)), Relaxed);
    }

    /// Has the thread that writes try again.
    pub fn nudge(&self) {
        self.queue.lock().nudged = true;
        self.wake.notify_one();
    }

    /// Tells subscribers that there is something to read.
    pub fn notify(&self) {
        let list: Vec<_> = self.subscribers.lock().list.values().cloned().collect();
        list.iter().for_each(|wake| wake());
    }

    /// A reader found nothing at these positions. Those before the first segment were counted when it was deleted.
    pub fn lost(&self, from: u64, to: u64) {
        let first = self.index.lock().first().unwrap_or(0);
        let new = self.lost.lock().add(from.max(first), to);
        add(&self.counters.damaged_records, new);
    }

    /// A repair has counted what is missing here.
    pub fn known_gap(&self, from: u64, to: u64) {
        self.lost.lock().add(from, to);
    }

    /// A reader found a damaged range in a segment.
    pub fn damage(&self, segment: u64, from: u64, to: u64, frame: Option<Frame>) {
        let new = self.damaged.lock().entry(segment).or_default().add(from, to);
        add(&self.counters.damaged_bytes, new);
        if let Some(frame) = frame.filter(|_| new > 0) {
            add(&self.counters.damaged_rows, u64::from(frame.rows));
        }
    }

    /// Nothing more is written.
    pub fn end(&self) {
        self.ended.store(true, Release);
        self.notify();
    }

    /// Records up to `end` are durable; index and tail have them.
    pub fn commit(&self, end: u64, watermark: u64) {
        self.watermark.fetch_max(watermark, AcqRel);
        self.committed.store(end, Release);
    }
}

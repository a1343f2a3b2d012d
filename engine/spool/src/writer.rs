//! The thread that writes a log: group commit, new segments, and what happens when the disk refuses.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use arrow::error::ArrowError;

use crate::counters::add;
use crate::files::Output;
use crate::format::Header;
use crate::index::Meta;
use crate::intake::{Intake, Item};
use crate::merge::{GROUP, merge};
use crate::segment::{Summary, file_name};
use crate::state::LogState;
use crate::{Entry, Time, WhenFull};

/// How long the disk is left alone after it refused, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

pub(crate) struct Writer {
    shared: Arc<LogState>,
    intake: Intake,
    skipped_from: u64,
    active: Option<Active>,
    /// Records that are not durable: those that are written, then those that are not.
    pending: VecDeque<Item>,
    written: usize,
    synced_at: Option<Instant>,
    pause: Option<(Duration, Instant)>,
    group: Vec<u8>,
}

/// The segment that is being written.
struct Active {
    file: Box<dyn Output>,
    first: u64,
    bytes: u64,
    /// Of all records in it, durable or not.
    summary: Summary,
}

enum Trouble {
    Write(io::Error),
    Sync(io::Error),
}

impl Writer {
    pub fn new(shared: Arc<LogState>, next: u64, skipped_from: u64) -> Result<Self, ArrowError> {
        let intake = Intake::new(shared.clone(), next)?;
        Ok(Self {
            shared,
            intake,
            skipped_from,
            active: None,
            pending: VecDeque::new(),
            written: 0,
            synced_at: None,
            pause: None,
            group: Vec::new(),
        })
    }

    /// Writes until the log is closed and everything is durable.
    pub fn run(mut self) {
        // Readers see the end even if this thread panics.
        struct End(Arc<LogState>);
        impl Drop for End {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        let _end = End(self.shared.clone());
        loop {
            let (closed, abandoned) = self.gather();
            let wrote = self.write();
            let due = closed || self.pause.is_some() || self.due().is_none_or(|due| due <= Instant::now());
            // What was written before a failure is made durable all the same.
            let synced = if due { self.commit() } else { Ok(()) };
            match wrote.and(synced) {
                Ok(()) => self.recovered(),
                Err(trouble) => self.failed(&trouble),
            }
            self.shared.measure();
            if closed && (self.pending.is_empty() || (abandoned && self.pause.is_some())) {
                break;
            }
        }
        if self.pending.is_empty() {
            let _ = self.seal();
        } else {
            let spool = self.shared.settings.dir.display();
            tracing::error!(%spool, records = self.pending.len(), "ended with records that the disk refused");
        }
        self.shared.measure();
    }

    /// Waits until there is something to do, and takes what is queued. Returns whether the log is closed and abandoned.
    fn gather(&mut self) -> (bool, bool) {
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
        loop {
            let deadline = match self.pause {
                // What is queued meanwhile stays there.
                Some((_, until)) if !queue.nudged && !queue.abandoned => Some(until),
                Some(_) => break,
                None if queue.closed || queue.bytes >= GROUP => break,
                None if !queue.entries.is_empty() || !self.pending.is_empty() => self.due(),
                None => Some(Instant::now() + PAUSE.1),
            };
            let Some(wait) = deadline.and_then(|deadline| deadline.checked_duration_since(Instant::now())) else {
                break;
            };
            shared.wake.wait_for(&mut queue, wait);
        }
        queue.nudged = false;
        let taken = std::mem::take(&mut queue.entries);
        queue.bytes = 0;
        let state = (queue.closed, queue.abandoned);
        drop(queue);
        let taken = if shared.settings.commit.is_zero() { taken.into() } else { merge(taken) };
        for (entry, bytes) in taken {
            self.intake.admit(entry, bytes, &mut self.pending);
        }
        state
    }

    /// When what is written is to be made durable; `None` is at once.
    fn due(&self) -> Option<Instant> {
        self.synced_at?.checked_add(self.shared.settings.commit)
    }

    /// Writes what is not written yet.
    fn write(&mut self) -> Result<(), Trouble> {
        while self.written < self.pending.len() {
            let rest = self.pending.range(self.written..);
            let mut bytes = 0;
            let count = rest.take_while(|item| {
                bytes += item.bytes.len();
                bytes == item.bytes.len() || bytes as u64 <= GROUP
            });
            let range = self.written..self.written + count.count();
            if self.active.as_ref().is_some_and(|active| self.is_over(active, self.bytes_of(&range))) {
                self.seal()?;
                // What was written is pending no more.
                continue;
            }
            let mut group = std::mem::take(&mut self.group);
            group.clear();
            self.pending.range(range.clone()).for_each(|item| group.extend_from_slice(&item.bytes));
            let done = self.write_group(&group, range);
            self.group = group;
            done?;
        }
        Ok(())
    }

    fn bytes_of(&self, range: &Range<usize>) -> u64 {
        self.pending.range(range.clone()).map(|item| item.bytes.len() as u64).sum()
    }

    /// Whether a segment is full before `bytes` more.
    fn is_over(&self, active: &Active, bytes: u64) -> bool {
        let settings = &self.shared.settings;
        active.summary.records > 0 && active.bytes + bytes > settings.segment_bytes.min(settings.max_bytes / 4)
    }

    fn write_group(&mut self, group: &[u8], range: Range<usize>) -> Result<(), Trouble> {
        self.make_room(group.len() as u64);
        loop {
            let done = self.active().and_then(|active| active.file.write_at(group, active.bytes));
            let Err(error) = done else { break };
            if let Some(active) = &mut self.active {
                // If this fails too, the next write is at the same place all the same.
                let _ = active.file.truncate(active.bytes);
            }
            let drops =
                self.shared.settings.when_full == WhenFull::DropOldest && error.kind() == io::ErrorKind::StorageFull;
            let freed = self.shared.index.lock().is_spare() || drops;
            if !freed || !self.drop_oldest() {
                return Err(Trouble::Write(error));
            }
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        active.bytes += group.len() as u64;
        self.pending.range(range.clone()).for_each(|item| active.summary.add(&item.frame));
        self.written = range.end;
        if let Some(meta) = self.shared.index.lock().segments.back_mut() {
            meta.disk = active.bytes;
        }
        Ok(())
    }

    /// The segment that is written, a new one if there is none.
    fn active(&mut self) -> io::Result<&mut Active> {
        if self.active.is_none() {
            let Some(first) = self.pending.get(self.written).map(|item| item.frame.position) else {
                return Err(io::Error::other("nothing to write"));
            };
            let shared = &self.shared;
            let path = shared.settings.dir.join(file_name(first));
            let header = Header {
                mark: shared.index.lock().mark,
                first,
                skipped_from: self.skipped_from.min(first),
                watermark: shared.watermark.load(Relaxed),
                ports: shared.ports.clone(),
            }
            .encode();
            // A segment that begins here has no record that was ever durable.
            shared.index.lock().segments.retain(|meta| meta.first != first);
            shared.files.remove(&path)?;
            let mut file = shared.files.create(&path)?;
            if let Err(error) = file.write_at(&header, 0).and_then(|()| shared.files.sync_dir(&shared.settings.dir)) {
                let _ = shared.files.remove(&path);
                return Err(error);
            }
            let (bytes, summary) = (header.len() as u64, Summary::new(first));
            shared.index.lock().segments.push_back(Meta { first, path, bytes, disk: bytes, summary });
            self.active = Some(Active { file, first, bytes, summary });
        }
        self.active.as_mut().ok_or_else(|| io::Error::other("no segment"))
    }

    /// Makes what is written durable, and shows it to readers.
    fn commit(&mut self) -> Result<(), Trouble> {
        let (Some(active), true) = (&mut self.active, self.written > 0) else { return Ok(()) };
        let started = Instant::now();
        if let Err(error) = active.file.sync() {
            self.abandon();
            return Err(Trouble::Sync(error));
        }
        if !active.file.is_at(&self.shared.settings.dir.join(file_name(active.first))) {
            // Nobody has seen these records yet: they are written again where they can be found.
            self.abandon();
            return Err(Trouble::Write(io::Error::new(io::ErrorKind::NotFound, "the segment was removed or moved")));
        }
        let (counters, now) = (&self.shared.counters, Instant::now());
        let ns = now.duration_since(started).as_nanos() as u64;
        add(&counters.commits, 1);
        add(&counters.commit_ns, ns);
        counters.commit_ns_max.fetch_max(ns, Relaxed);
        self.synced_at = Some(now);
        {
            let mut index = self.shared.index.lock();
            index.newest = index.newest.max(active.summary.newest);
            if let Some(meta) = index.segments.back_mut() {
                (meta.bytes, meta.disk, meta.summary) = (active.bytes, active.bytes, active.summary);
            }
        }
        self.skipped_from = u64::MAX;
        let (mut end, mut watermark): (_, Time) = (0, 0);
        {
            let mut tail = self.shared.tail.lock();
            for item in self.pending.drain(..self.written) {
                end = item.frame.position + 1;
                if let Entry::Watermark(time) = *item.entry {
                    watermark = watermark.max(time);
                }
                add(&counters.records, 1);
                add(&counters.rows, u64::from(item.frame.rows));
                add(&counters.bytes, item.frame.bytes());
                counters.queued_bytes.fetch_sub(item.queued, Relaxed);
                tail.push(item.frame.position, item.frame.bytes().max(item.entry.memory()), item.entry);
            }
        }
        self.written = 0;
        self.shared.commit(end, watermark);
        self.shared.notify();
        Ok(())
    }

    /// After a failed sync nobody knows which pages reached the disk, and the next sync may succeed without them. So the
    /// file is left as it is, and everything since the last good sync is written again elsewhere.
    fn abandon(&mut self) {
        self.written = 0;
        let Some(mut active) = self.active.take() else { return };
        let mut index = self.shared.index.lock();
        let Some(meta) = index.segments.back_mut().filter(|meta| meta.first == active.first) else { return };
        if meta.summary.records > 0 {
            // What is beyond has the positions of the next segment, and readers leave it out if it stays.
            let _ = active.file.truncate(meta.bytes);
        } else {
            index.segments.pop_back();
        }
    }

    /// Commits and completes the segment.
    fn seal(&mut self) -> Result<(), Trouble> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let bytes = active.summary.seal(&self.shared.index.lock().mark);
        // Without it the segment is only slower to open.
        match active.file.write_at(&bytes, active.bytes) {
            Ok(()) => active.bytes += bytes.len() as u64,
            Err(_) => drop(active.file.truncate(active.bytes)),
        }
        match self.written {
            0 => drop(active.file.sync()),
            _ => self.commit()?,
        }
        if let (Some(active), Some(meta)) = (&self.active, self.shared.index.lock().segments.back_mut()) {
            (meta.bytes, meta.disk) = (active.bytes, active.bytes);
        }
        self.active = None;
        Ok(())
    }

    /// Deletes old segments so that `bytes` more fit, as far as the policy allows.
    fn make_room(&mut self, bytes: u64) {
        let (max, drops) = (self.shared.settings.max_bytes, self.shared.settings.when_full == WhenFull::DropOldest);
        loop {
            let index = self.shared.index.lock();
            let over = index.disk() + bytes > max;
            let may = index.is_spare() || drops;
            drop(index);
            if !over || !may || !self.drop_oldest() {
                return;
            }
        }
    }

    /// Deletes the oldest segment unless it is the last one.
    fn drop_oldest(&mut self) -> bool {
        let mut index = self.shared.index.lock();
        if index.segments.len() < 2 {
            return false;
        }
        match index.remove_first(self.shared.files.as_ref()) {
            Ok((records, rows)) => {
                add(&self.shared.counters.dropped_records, records);
                add(&self.shared.counters.dropped_rows, rows);
                true
            }
            Err(_) => false,
        }
    }

    fn failed(&mut self, trouble: &Trouble) {
        let counters = &self.shared.counters;
        let (count, what, error) = match trouble {
            Trouble::Write(error) => (&counters.write_errors, "the disk refuses to write", error),
            Trouble::Sync(error) => (&counters.sync_errors, "the disk failed to make data durable", error),
        };
        add(count, 1);
        let pause = self.pause.map_or(PAUSE.0, |(pause, _)| (pause * 2).min(PAUSE.1));
        if self.pause.is_none() {
            let spool = self.shared.settings.dir.display();
            tracing::error!(%spool, %error, "{what}: sources wait, nothing is lost, and it is tried again until it works");
        }
        self.pause = Some((pause, Instant::now() + pause));
        self.shared.blocked.store(true, Release);
    }

    fn recovered(&mut self) {
        if self.pause.take().is_some() {
            tracing::warn!(spool = %self.shared.settings.dir.display(), "the disk writes again");
            self.shared.blocked.store(false, Release);
        }
    }
}

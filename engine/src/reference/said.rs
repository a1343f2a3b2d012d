//! What the nodes that read a file say of it: its versions, what is wrong with it, and how old its data is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::metrics::NodeMetrics;
use crate::text::{age, day};

/// A node that reads the file; during a change there are two.
struct Reader {
    metrics: Weak<NodeMetrics>,
    max_age: Option<Duration>,
    /// Whether the log has it that the file is too old.
    is_said: bool,
}

/// From when the data is.
#[derive(Clone, Copy, Default)]
struct Times {
    /// As the content says.
    made: Option<SystemTime>,
    /// As the file says whose content was taken last.
    changed: Option<SystemTime>,
}

/// What is said of a file, by the counters of each node that reads it.
pub(super) struct Said {
    file: String,
    pub versions: AtomicU64,
    pub refused: AtomicU64,
    trouble: Mutex<Option<String>>,
    times: Mutex<Times>,
    readers: Mutex<Vec<Reader>>,
}

impl Said {
    /// Of a file whose content may have said, when the plan was made, from when its data is.
    pub fn new(file: String, made: Option<SystemTime>) -> Self {
        Self {
            file,
            versions: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            trouble: Mutex::default(),
            times: Mutex::new(Times { made, changed: None }),
            readers: Mutex::default(),
        }
    }

    pub fn add_reader(&self, metrics: &Arc<NodeMetrics>, max_age: Option<Duration>) {
        let mut readers = self.readers.lock();
        readers.retain(|reader| reader.metrics.strong_count() > 0);
        if !readers.iter().any(|reader| reader.metrics.as_ptr() == Arc::as_ptr(metrics)) {
            readers.push(Reader { metrics: Arc::downgrade(metrics), max_age, is_said: false });
        }
        drop(readers);
        self.publish();
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
        self.publish();
    }

    /// What a content that was taken says of its time.
    pub fn set_made(&self, made: Option<SystemTime>) {
        self.times.lock().made = made;
    }

    /// The time of a file whose content was taken, or was in effect already.
    pub fn set_changed(&self, changed: Option<SystemTime>) {
        self.times.lock().changed = changed;
    }

    pub fn publish(&self) {
        let as_of = self.as_of();
        for metrics in self.readers.lock().iter().filter_map(|reader| reader.metrics.upgrade()) {
            let counters = [("reference_versions", &self.versions), ("reference_refused", &self.refused)];
            for (name, counter) in counters.into_iter().filter(|(_, counter)| counter.load(Relaxed) > 0) {
                metrics.counter(name).store(counter.load(Relaxed), Relaxed);
            }
            metrics.set_trouble(&format!("file {}", self.file), self.trouble.lock().clone());
            metrics.set_reference(&self.file, as_of);
        }
        self.check_age();
    }

    /// Says that the data is older than a node wants it, or is not any more.
    pub fn check_age(&self) {
        let as_of = self.as_of();
        // A time that is still to come is of age 0.
        let old = as_of.map(|as_of| as_of.elapsed().unwrap_or_default());
        for reader in self.readers.lock().iter_mut() {
            let (Some(max_age), Some(metrics)) = (reader.max_age, reader.metrics.upgrade()) else { continue };
            let too_old = as_of.zip(old).filter(|(_, old)| *old > max_age).map(|(as_of, old)| {
                let (file, day, old, most) = (&self.file, day(as_of), age(old), age(max_age));
                format!("{file} is of {day}, {old} old; `max_age` is {most}")
            });
            if !reader.is_said
                && let Some(trouble) = &too_old
            {
                tracing::warn!("{trouble}");
            }
            reader.is_said = too_old.is_some();
            metrics.set_trouble(&format!("age {}", self.file), too_old);
        }
    }

    /// From when the data is, if that is known.
    fn as_of(&self) -> Option<SystemTime> {
        let times = *self.times.lock();
        times.made.or(times.changed)
    }
}

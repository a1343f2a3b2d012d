//! The sink that keeps one table as files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::RecordBatch;
use engine::batch::{Batch, Time};
use engine::contract::BuildContext;
use engine::contract::NodeMetrics;
use engine::contract::Shared;
use engine::contract::Table;
use engine::contract::wall_clock_ns;
use serde_json::{Value, json};

use super::super::cuts::{Cut, Cuts};
use super::retention::{Files, Old, days, remove};
use super::store::Store;
use engine::contract::sink::{CLOSED, Sink, Then, Written};

/// How many files that are left out are named one by one.
const SKIPPED_SHOWN: usize = 10;

/// The counters of what is removed.
const REMOVED: [&str; 3] = ["removed_segments", "removed_rows", "removed_bytes"];

/// A table on the worker that owns it.
pub(super) struct Owner {
    cuts: Cuts,
    /// Cuts that could not be written, because the store's folder is away.
    unwritten: VecDeque<Cut>,
    shared: Arc<Shared>,
    /// `None` until nobody else writes to the table any more.
    writer: Option<Writer>,
    store: Option<Store>,
    /// Whether the run can be continued by another.
    is_noted: bool,
    /// Everything before this tick is durable, or not this table's to write.
    upto: Time,
    /// Every row before this tick was given.
    given: Time,
    table: Option<Arc<Table>>,
    metrics: Arc<NodeMetrics>,
    bounded: bool,
    name: String,
}

impl Owner {
    pub fn new(context: &BuildContext<'_>, store: Store, cuts: Cuts, nth: usize, name: &str) -> Self {
        Self {
            cuts,
            unwritten: VecDeque::new(),
            shared: Arc::clone(&context.shared),
            writer: None,
            store: Some(store),
            is_noted: context.is_noted(),
            upto: 0,
            given: 0,
            table: context.tables.get(nth).cloned().flatten(),
            metrics: Arc::clone(&context.metrics),
            bounded: context.bounded,
            name: name.to_owned(),
        }
    }

    /// Says which files of earlier runs are left out.
    fn report(&self, skipped: &[String]) {
        NodeMetrics::add(&self.metrics.counter("skipped_segments"), skipped.len());
        for reason in skipped.iter().take(SKIPPED_SHOWN) {
            tracing::warn!(table = self.name, "{reason}");
        }
        let trouble = skipped.first().map(|first| {
            let files = skipped.len();
            format!("files that do not fit the table are left out of it: {files}, such as {first}")
        });
        if let Some(trouble) = trouble.as_ref().filter(|_| skipped.len() > SKIPPED_SHOWN) {
            tracing::warn!(table = self.name, "{trouble}");
        }
        self.metrics.set_trouble(&format!("{} files", self.name), trouble);
    }

    /// Writes what was cut. False if the store's folder is away: then it is tried again.
    fn write_cuts(&mut self) -> Result<bool, String> {
        while let Some(cut) = self.unwritten.pop_front() {
            let written = match &mut self.writer {
                // Nothing is made where the folder was.
                Some(_) if !cut.batches.is_empty() && !self.shared.store.is_there_now() => Err(String::new()),
                Some(writer) => writer.write(&cut),
                None => Ok(()),
            };
            if let Err(error) = written {
                if self.shared.store.is_there_now() && !error.is_empty() {
                    return Err(error);
                }
                self.unwritten.push_front(cut);
                return Ok(false);
            }
            let upto = if cut.upto == CLOSED { self.upto.max(cut.last_end()) } else { cut.upto };
            self.upto = self.upto.max(upto);
            self.clean();
        }
        Ok(true)
    }

    /// Removes files that are not to be kept any longer.
    fn clean(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.clean(&self.name, self.upto);
        }
    }
}

impl Sink for Owner {
    fn target(&self) -> String {
        let store = self.store.as_ref().or(self.writer.as_ref().map(|writer| &writer.store));
        store.map_or_else(String::new, |store| store.dir.display().to_string())
    }

    fn open(&mut self, from: Time, detail: &Value) -> Result<(), String> {
        let Some(mut store) = self.store.take() else { return Ok(()) };
        if self.is_noted {
            match detail.get("lineage").and_then(Value::as_str) {
                Some(lineage) => store.lineage = lineage.to_owned(),
                None => store.lineage = format!("{:x}", wall_clock_ns() / 1_000_000),
            }
            store.remove_from(from)?;
        }
        (self.upto, self.given) = (from, from);
        let found = store.open(self.bounded)?;
        self.report(&found.skipped);
        found.report_unread(&self.name, &self.metrics);
        let files = Files::list(&store.dir, &found.segments)
            .map_err(|error| format!("{} cannot be read: {error}", store.dir.display()))?;
        self.cuts.skip(from);
        if let Some(table) = &self.table {
            table.keep("sink.parquet")?;
            table.count_missing(Arc::clone(&self.metrics));
            table.adopt(found.segments);
            table.commit([], from);
        }
        let segments = self.metrics.counter("segments");
        if store.retention.is_set() {
            // Shown from the start.
            REMOVED.into_iter().for_each(|name| drop(self.metrics.counter(name)));
        }
        let (table, metrics) = (self.table.clone(), Arc::clone(&self.metrics));
        self.writer = Some(Writer { store, table, metrics, segments, files, newest: 0 });
        self.clean();
        Ok(())
    }

    fn write(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
        self.metrics.state_rows.fetch_add(batch.rows.num_rows() as i64, Relaxed);
        self.cuts.push(tick, batch.rows);
        Ok(())
    }

    fn flush(&mut self, upto: Time, then: Then) -> Result<(), String> {
        if !self.write_cuts()? {
            return Ok(());
        }
        let cuts = match then {
            _ if upto == CLOSED => self.cuts.close(None),
            Then::Another | Then::Stop | Then::Nothing => self.cuts.flush(upto.max(self.upto)),
            Then::More => self.cuts.close(Some(upto)),
        };
        self.unwritten.extend(cuts);
        self.given = self.given.max(upto);
        self.write_cuts().map(drop)
    }

    fn written(&mut self) -> Result<Written, String> {
        let lineage = self.writer.as_ref().map(|writer| writer.store.lineage.as_str());
        let (upto, detail) = match self.is_noted {
            true => (self.upto, json!({ "lineage": lineage })),
            // Nothing of the run will be done again.
            false if self.unwritten.is_empty() => (self.given, Value::Null),
            false => (self.upto, Value::Null),
        };
        let is_idle = self.unwritten.is_empty();
        Ok(Written { upto, detail, is_idle, is_stalled: !is_idle, ..Written::default() })
    }
}

/// What it takes to write a table.
pub(super) struct Writer {
    pub store: Store,
    /// The served table that shows the same rows.
    pub table: Option<Arc<Table>>,
    pub metrics: Arc<NodeMetrics>,
    pub segments: Arc<AtomicU64>,
    pub files: Files,
    /// The latest event time that was written, in ms: the first rows of a source have no message time yet.
    pub newest: Time,
}

impl Writer {
    /// Writes a cut; the served table changes over to the files once all of them are there.
    pub fn write(&mut self, cut: &Cut) -> Result<(), String> {
        let mut segments = Vec::new();
        if !cut.batches.is_empty() {
            segments = self.store.write(cut.first, &cut.batches)?;
            self.newest = self.newest.max(self.store.newest(&cut.batches));
            let rows: usize = cut.batches.iter().map(RecordBatch::num_rows).sum();
            self.metrics.state_rows.fetch_sub(rows as i64, Relaxed);
            self.segments.fetch_add(segments.len() as u64, Relaxed);
            let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
            self.metrics.bytes.fetch_add(bytes, Relaxed);
            if self.store.retention.is_set() {
                segments.iter().for_each(|segment| self.files.add(segment));
            }
        }
        let Some(table) = &self.table else { return Ok(()) };
        table.commit(segments, cut.upto);
        Ok(())
    }

    /// Removes files that are too old at `now`, in ms of event time, or at the latest row, or too many. No query sees one that is gone: the
    /// served table lets go of it first.
    fn clean(&mut self, name: &str, now: Time) {
        let retention = self.store.retention;
        if !retention.is_set() {
            return;
        }
        let now = now.max(self.newest);
        let mut trouble = None;
        for Old { option, segments } in self.files.take_old(&retention, now) {
            if let Some(table) = &self.table {
                table.remove(&segments.iter().map(|segment| segment.path.as_path()).collect());
            }
            let (mut files, mut rows, mut bytes) = (0, 0, 0);
            for segment in &segments {
                let removed = remove(segment).unwrap_or_else(|error| {
                    trouble = Some(format!("{} cannot be removed: {error}", segment.path.display()));
                    false
                });
                if !removed {
                    // Tried again with the next file.
                    self.files.add(segment);
                    continue;
                }
                (files, rows, bytes) = (files + 1, rows + segment.rows, bytes + segment.bytes);
            }
            for (name, count) in REMOVED.into_iter().zip([files, rows, bytes]) {
                self.metrics.counter(name).fetch_add(count, Relaxed);
            }
            if files > 0 {
                let days = days(&segments);
                tracing::warn!(table = name, files, rows, bytes, "removed files of {days}, as `{option}` says");
            }
        }
        let bytes = self.files.bytes();
        let full = retention.max_bytes.filter(|most| bytes > *most).map(|most| {
            format!(
                "its files have {bytes} bytes, more than `max_bytes: {most}`: those of a day that has not ended stay"
            )
        });
        self.metrics.set_trouble(&format!("{name} retention"), trouble.or(full));
    }
}

//! The operator that keeps one table: what arrives, when it is written, what is confirmed.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::RecordBatch;
use engine::batch::{Batch, Stream, Time};
use engine::catalog::Table;
use engine::flow::{Outlet, Turn};
use engine::ledger::{Confirmed, Ledger};
use engine::metrics::NodeMetrics;
use engine::render::BuildContext;
use engine::time::wall_clock_ns;

use super::super::cuts::{Cut, Cuts};
use super::super::operator::{self, CLOSED, Step, Work};
use super::retention::{Files, Old, days, remove};
use super::store::Store;

/// How many files that are left out are named one by one.
const SKIPPED_SHOWN: usize = 10;

/// Builds the operator; the table belongs to worker `owner`. The stream's frontier is how far the table is durable.
pub(super) fn build<'s>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    store: Store,
    cuts: Cuts,
    (nth, name, owner): (usize, &str, u64),
) -> Stream<'s> {
    let name = format!("{}.{name}", context.id);
    let keep = |batch: &Batch| batch.settled && batch.diff > 0;
    operator::at_owner(context, input, (&name, owner), keep, |address| {
        Owner::new(context, store, cuts, nth, &name, address)
    })
}

/// The counters of what is removed.
const REMOVED: [&str; 3] = ["removed_segments", "removed_rows", "removed_bytes"];

/// A table on the worker that owns it.
struct Owner {
    cuts: Cuts,
    /// `None` until nobody else writes to the table any more.
    writer: Option<Writer>,
    store: Option<Store>,
    ledger: Option<Ledger>,
    outlet: Outlet,
    /// Everything before this tick is durable, or not this table's to write.
    upto: Time,
    table: Option<Arc<Table>>,
    metrics: Arc<NodeMetrics>,
    bounded: bool,
    name: String,
}

impl Owner {
    fn new(
        context: &BuildContext<'_>,
        store: Store,
        cuts: Cuts,
        nth: usize,
        name: &str,
        address: Rc<[usize]>,
    ) -> Result<Self, String> {
        let mut work = Self {
            cuts,
            writer: None,
            store: Some(store),
            ledger: context.ledger(name)?,
            outlet: context.outlet(address),
            upto: 0,
            table: context.tables.get(nth).cloned().flatten(),
            metrics: Arc::clone(&context.metrics),
            bounded: context.bounded,
            name: name.to_owned(),
        };
        if work.outlet.may_open() {
            work.open(0)?;
        }
        Ok(work)
    }

    /// Opens the table's files; ticks before `from` are not written.
    fn open(&mut self, from: Time) -> Result<(), String> {
        let Some(mut store) = self.store.take() else { return Ok(()) };
        if let Some(ledger) = &mut self.ledger {
            // Another run or another dataflow may have confirmed more since the ledger was read.
            ledger.refresh()?;
            self.upto = ledger.upto();
            match ledger.confirmed().and_then(|confirmed| confirmed.detail.get("lineage")?.as_str()) {
                Some(lineage) => store.lineage = lineage.to_owned(),
                None => store.lineage = format!("{:x}", wall_clock_ns() / 1_000_000),
            }
            store.remove_from(self.upto)?;
        }
        self.upto = self.upto.max(from);
        let found = store.open(self.bounded)?;
        self.report(&found.skipped);
        found.report_unread(&self.name, &self.metrics);
        let files = Files::list(&store.dir, &found.segments)
            .map_err(|error| format!("{} cannot be read: {error}", store.dir.display()))?;
        self.skip(self.upto);
        if let Some(table) = &self.table {
            table.keep("sink.parquet")?;
            table.count_missing(Arc::clone(&self.metrics));
            table.adopt(found.segments);
            table.commit([], self.upto);
        }
        let segments = self.metrics.counter("segments");
        if store.retention.is_set() {
            // Shown from the start.
            REMOVED.into_iter().for_each(|name| drop(self.metrics.counter(name)));
        }
        self.writer = Some(Writer {
            store,
            table: self.table.clone(),
            metrics: Arc::clone(&self.metrics),
            segments,
            files,
            newest: 0,
        });
        self.confirm(self.upto)?;
        self.clean();
        self.outlet.opened();
        Ok(())
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

    /// Removes files that are not to be kept any longer.
    fn clean(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.clean(&self.name, self.upto);
        }
    }

    /// Forgets ticks that are not written.
    fn skip(&mut self, before: Time) {
        let held = self.cuts.held();
        self.cuts.skip(before);
        let forgotten = held - self.cuts.held();
        self.metrics.state_rows.fetch_sub(forgotten as i64, Relaxed);
    }

    fn confirm(&mut self, upto: Time) -> Result<(), String> {
        self.upto = self.upto.max(upto);
        let (Some(ledger), Some(writer)) = (&mut self.ledger, &self.writer) else { return Ok(()) };
        let detail = serde_json::json!({ "lineage": writer.store.lineage });
        ledger.confirm(Confirmed { upto: self.upto, detail })
    }
}

impl Work for Owner {
    fn take(&mut self, tick: Time, batches: Vec<Batch>) -> Result<(), String> {
        for batch in batches.into_iter().filter(|batch| tick >= self.upto && batch.rows.num_rows() > 0) {
            self.metrics.state_rows.fetch_add(batch.rows.num_rows() as i64, Relaxed);
            self.cuts.push(tick, batch.rows);
        }
        Ok(())
    }

    fn advance(&mut self, frontier: Time) -> Result<Step, String> {
        let range = match self.outlet.turn(frontier) {
            Turn::Wait => return Ok(Step { hold: self.upto, again: true }),
            Turn::Write(range) => range,
        };
        if range.start == Time::MAX {
            // Another dataflow writes; so far this one only gets ready.
            self.skip(frontier);
            return Ok(Step { hold: frontier, again: false });
        }
        if self.writer.is_none() {
            self.open(range.start)?;
        }
        let ends = range.end < CLOSED && frontier >= range.end;
        let parks = self.outlet.is_parking() && frontier < CLOSED;
        let cuts = match frontier {
            _ if ends => self.cuts.flush(range.end),
            CLOSED => self.cuts.close(None),
            frontier if parks => self.cuts.flush(frontier.max(self.upto)),
            frontier => self.cuts.close(Some(frontier)),
        };
        for cut in cuts {
            let upto = if cut.upto == CLOSED { self.upto.max(cut.last_end()) } else { cut.upto };
            if let Some(writer) = &mut self.writer {
                writer.write(cut)?;
            }
            self.confirm(upto)?;
            self.clean();
        }
        if ends {
            self.confirm(range.end)?;
            self.skip(Time::MAX);
            self.outlet.finished();
        }
        if parks {
            self.outlet.parked();
        }
        if frontier == CLOSED {
            self.outlet.finished();
            self.outlet.parked();
            return Ok(Step { hold: CLOSED, again: false });
        }
        let hold = if ends || self.ledger.is_none() { frontier } else { self.upto };
        Ok(Step { hold, again: false })
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
    pub fn write(&mut self, cut: Cut) -> Result<(), String> {
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

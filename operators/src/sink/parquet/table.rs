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
use super::store::Store;

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
        let skipped = self.metrics.counter("skipped_segments");
        for reason in &found.skipped {
            tracing::warn!(table = self.name, "{reason}");
            skipped.fetch_add(1, Relaxed);
        }
        self.skip(self.upto);
        if let Some(table) = &self.table {
            table.keep("sink.parquet")?;
            table.adopt(found.segments);
            table.commit([], self.upto);
        }
        let segments = self.metrics.counter("segments");
        self.writer = Some(Writer { store, table: self.table.clone(), metrics: Arc::clone(&self.metrics), segments });
        self.confirm(self.upto)?;
        self.outlet.opened();
        Ok(())
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
            if let Some(writer) = &self.writer {
                writer.write(cut)?;
            }
            self.confirm(upto)?;
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
}

impl Writer {
    /// Writes a cut; the served table changes over to the files once all of them are there.
    pub fn write(&self, cut: Cut) -> Result<(), String> {
        let mut segments = Vec::new();
        if !cut.batches.is_empty() {
            segments = self.store.write(cut.first, &cut.batches)?;
            let rows: usize = cut.batches.iter().map(RecordBatch::num_rows).sum();
            self.metrics.state_rows.fetch_sub(rows as i64, Relaxed);
            self.segments.fetch_add(segments.len() as u64, Relaxed);
            let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
            self.metrics.bytes.fetch_add(bytes, Relaxed);
        }
        let Some(table) = &self.table else { return Ok(()) };
        table.commit(segments, cut.upto);
        Ok(())
    }
}

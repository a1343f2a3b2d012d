//! The port `joined`: each row with the campaign of its member.
//!
//! A row waits until its tick has closed. Then the campaigns are those of that tick, on whichever worker and in
//! whichever batch their rows came. A stream's row leaves so, and stays as it is. A relation's row is remembered, and
//! corrected when its member's campaign changes, until its window is too old: then it leaves for good with what it had.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use differential_dataflow::Hashable;
use differential_dataflow::consolidation::consolidate;
use engine::batch::{Batch, MAX_ROWS, Stream, Time};
use engine::contract::exchange::partition;
use engine::contract::{BuildContext, NodeMetrics};

use super::evidence::members;
use super::flow::{Campaign, NONE};
use super::graph::Rows;
use super::id::Id;
use super::known::Known;
use super::remembered::{Given, Remembered, Updates};
use super::{Columns, Planned};
use crate::detect::rules::levels;
use crate::relation::waiting::{self, Joining, Waiting};
use crate::relation::windows::Ages;

/// Joins rows with the campaigns of their members.
pub(super) fn joined<'s>(
    rows: Stream<'s>,
    known: Rows<'s, (Id, Campaign)>,
    context: &BuildContext<'s>,
    node: &Planned,
) -> Result<Stream<'s>, ArrowError> {
    let column = node.columns.member;
    let rows = partition(rows, context, move |rows, hashes| {
        hashes.extend(members(rows.column(column)).into_iter().map(|member| member.unwrap_or_default().hashed()));
    });
    let join = Join::new(node, context.peers, &context.metrics)?;
    Ok(waiting::joined(rows, known, |(member, _)| member.hashed(), context, join))
}

/// What one worker holds.
pub(super) struct Join {
    columns: Columns,
    ages: Ages,
    raise_from: u32,
    schema: SchemaRef,
    waiting: Waiting,
    pub known: Known,
    /// Encodes whole rows of a relation.
    converter: RowConverter,
    remembered: Remembered,
    not_joined: Arc<AtomicU64>,
    /// How many rows are remembered, and how many of them have been said.
    joined_rows: (Arc<AtomicI64>, i64),
}

impl Join {
    pub fn new(node: &Planned, peers: usize, metrics: &NodeMetrics) -> Result<Self, ArrowError> {
        let fields = node.input.schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let fields = if node.ages.is_relation { fields.collect() } else { Vec::new() };
        Ok(Self {
            columns: node.columns,
            ages: node.ages,
            raise_from: node.raise_from,
            schema: Arc::clone(&node.joined),
            waiting: Waiting::new(node.ages),
            known: Known::default(),
            converter: RowConverter::new(fields)?,
            remembered: Remembered::new((node.max_rows / peers).max(1)),
            not_joined: metrics.counter("not_joined"),
            joined_rows: (metrics.gauge("joined_rows"), 0),
        })
    }

    /// Rows of a stream. What is known to late ones would depend on when they were read, so they are in no campaign.
    fn passed(&self, batch: &Batch) -> Result<RecordBatch, ArrowError> {
        let members = members(batch.rows.column(self.columns.member));
        let known = |member| if batch.late { NONE } else { self.known.of(member) };
        self.add(batch.rows.columns().to_vec(), &members.into_iter().map(known).collect::<Vec<_>>())
    }

    /// Rows of a relation that come or go.
    fn apply(&mut self, batch: &Batch, now: Time, changes: &mut Updates) -> Result<(), ArrowError> {
        let members = members(batch.rows.column(self.columns.member));
        let windows = batch.rows.column(self.columns.window).as_primitive::<TimestampNanosecondType>();
        let encoded = self.converter.convert_columns(batch.rows.columns())?;
        for (row, (whole, member)) in encoded.iter().zip(members).enumerate() {
            let whole = whole.data().into();
            if batch.diff < 0 {
                self.remembered.remove(member, whole, changes);
            } else {
                // A row without a window is of no age: it keeps what is known when it comes.
                let until = if windows.is_valid(row) { self.ages.until(windows.value(row)) } else { now };
                let whole = (whole, batch.settled);
                self.remembered.insert(member, whole, until, now, &self.known, changes);
            }
        }
        Ok(())
    }

    /// Changes as batches: first what is taken back, then what is new, in the order of the rows.
    fn give(&self, time: Time, mut changes: Updates, out: &mut Vec<(Time, Batch)>) -> Result<(), ArrowError> {
        consolidate(&mut changes);
        let parser = self.converter.parser();
        for (diff, settled) in [(-1, false), (1, false), (1, true)] {
            let is_part = |(given, count): &&(Given, isize)| (*count < 0) == (diff < 0) && given.settled == settled;
            let part = changes.iter().filter(is_part);
            let part: Vec<&Given> =
                part.flat_map(|(given, count)| std::iter::repeat_n(given, count.unsigned_abs())).collect();
            for part in part.chunks(MAX_ROWS) {
                let columns = self.converter.convert_rows(part.iter().map(|given| parser.parse(&given.whole)))?;
                let campaigns: Vec<Campaign> = part.iter().map(|given| given.campaign).collect();
                let rows = self.add(columns, &campaigns)?;
                out.push((time, Batch { diff, settled, ..Batch::new(rows) }));
            }
        }
        Ok(())
    }

    /// The input's columns with what is known of each row's campaign.
    fn add(&self, mut columns: Vec<ArrayRef>, campaigns: &[Campaign]) -> Result<RecordBatch, ArrowError> {
        if let Some(level) = self.columns.level.filter(|_| self.raise_from > 0)
            && let Some(column) = columns.get_mut(level)
        {
            *column = Arc::new(raised(column.as_string(), campaigns, self.raise_from));
        }
        columns.push(Arc::new(Int32Array::from_iter_values(campaigns.iter().map(|campaign| campaign.number))));
        columns.push(Arc::new(UInt32Array::from_iter_values(campaigns.iter().map(|campaign| campaign.members))));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl Joining<(Id, Campaign)> for Join {
    fn waiting(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    fn learn(&mut self, (member, campaign): (Id, Campaign), time: Time, diff: isize) {
        self.known.push(member, campaign, time, diff);
    }

    fn advance(&mut self, frontier: Option<Time>, out: &mut Vec<(Time, Batch)>) -> Result<(), ArrowError> {
        let due = |time: &Time| frontier.is_none_or(|frontier| *time < frontier);
        loop {
            let times = [self.waiting.first(), self.known.next(), self.remembered.next()];
            let Some(time) = times.into_iter().flatten().min().filter(due) else { break };
            let mut changes = Updates::new();
            // What ends at a time keeps what it had before.
            self.remembered.end(time, &mut changes);
            let changed = self.known.learn(time);
            for piece in self.waiting.take(time) {
                if self.ages.is_relation {
                    self.apply(&piece.batch, time, &mut changes)?;
                } else {
                    let rows = self.passed(&piece.batch)?;
                    out.push((piece.leaves, piece.batch.with_rows(rows)));
                }
            }
            self.remembered.correct(&changed, time, &self.known, &mut changes);
            self.give(time, changes, out)?;
        }
        NodeMetrics::add(&self.not_joined, std::mem::take(&mut self.remembered.not_joined));
        let len = if frontier.is_none() { 0 } else { i64::try_from(self.remembered.len).unwrap_or(i64::MAX) };
        self.joined_rows.0.fetch_add(len - self.joined_rows.1, Relaxed);
        self.joined_rows.1 = len;
        Ok(())
    }

    fn next(&self) -> Option<Time> {
        // What becomes known moves no row of a stream.
        let known = self.known.next().filter(|_| self.ages.is_relation);
        [self.waiting.leaves(), known, self.remembered.next()].into_iter().flatten().min()
    }
}

/// Levels in which HIGH is CRITICAL for a row of a campaign with at least so many members.
fn raised(names: &StringArray, campaigns: &[Campaign], from: u32) -> StringArray {
    let [.., high, critical] = levels();
    let is_raised = |name, campaign: &Campaign| name == Some(high) && campaign.members >= from;
    let rows = names.iter().zip(campaigns);
    rows.map(|(name, campaign)| if is_raised(name, campaign) { Some(critical) } else { name }).collect()
}

#[cfg(test)]
#[path = "joined_tests.rs"]
mod tests;

//! The rows of one worker.
//!
//! Changes wait until their tick has closed, so that it does not matter in which order or in which batches they came.
//! A row that may be taken back is held in full, because it may have to be taken back from those downstream and given
//! anew. A settled one is held as a peer of others: by its head, for `look_back`. Time alone changes nothing that was
//! given: a row that has grown too old is not there any more when its partition is next computed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampNanosecondType;
use arrow::error::ArrowError;
use engine::batch::{Batch, MAX_ROWS, Origin, Time, WINDOW_START};
use engine::contract::{NodeMetrics, Windows};

use super::Settings;
use super::layout::{Codec, Encoded};
use super::tick::{Given, Gone};
use crate::cut::units;

/// When the bound is met, this share of it is forgotten at once.
const EVICTED_SHARE: usize = 64;

/// What is held, and what waits.
pub(super) struct State {
    pub(super) codec: Rc<Codec>,
    pub(super) windows: Arc<Windows>,
    pub(super) settings: Settings,
    /// By the tick at whose close they are taken in.
    waiting: BTreeMap<Time, Vec<Piece>>,
    pub(super) rows: BTreeMap<Ident, Held>,
    /// All rows in the order in which they are forgotten: whether one may still be given, and when it is too old.
    ages: BTreeSet<(bool, Time, Ident)>,
    /// What the rows count for against the bound.
    units: usize,
    pub(super) metrics: Arc<NodeMetrics>,
    too_old: Arc<AtomicU64>,
    pub(super) too_many_peers: Arc<AtomicU64>,
    pub(super) not_computed: Arc<AtomicU64>,
    counted: i64,
}

/// A row, and its number among equal ones.
pub(super) type Ident = (Encoded, u32);

/// Rows of one batch that are taken in at the same tick.
struct Piece {
    /// When they leave: not after the event time of any.
    leaves: Time,
    batch: Batch,
}

/// The marks with which a row leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub leaves: Time,
    pub late: bool,
    pub origin: Origin,
}

/// What a row is to others and to those downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It may be taken back.
    Open,
    /// It has settled in this tick: it is given for the last time.
    Settling,
    /// It has been given for the last time.
    Peer,
}

/// A row that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub stage: Stage,
    pub until: Time,
    pub mark: Mark,
    /// The added columns as they were given; none if they have not been.
    pub given: Option<Rc<[u8]>>,
}

/// A row that comes or goes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    row: Encoded,
    diff: i8,
    settled: bool,
    mark: Mark,
    until: Time,
}

impl State {
    pub fn new(codec: Rc<Codec>, windows: Arc<Windows>, settings: Settings, metrics: Arc<NodeMetrics>) -> Self {
        let [too_old, too_many_peers, not_computed] =
            ["too_old", "too_many_peers", "not_computed"].map(|name| metrics.counter(name));
        let (waiting, rows, ages) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self {
            codec,
            windows,
            settings,
            waiting,
            rows,
            ages,
            units: 0,
            metrics,
            too_old,
            too_many_peers,
            not_computed,
            counted: 0,
        }
    }

    /// Takes in a message. A relation's rows change at the tick in which it says so; those of a stream come at the close
    /// of the tick of their event time, unless they are late.
    ///
    /// # Errors
    /// If rows cannot be copied.
    pub fn push(&mut self, batch: Batch, stamp: Time) -> Result<(), ArrowError> {
        let close = |time: Time| time.checked_next_multiple_of(self.settings.tick).unwrap_or(time);
        if self.settings.is_relation {
            let at = close(stamp);
            self.waiting.entry(at).or_default().push(Piece { leaves: at, batch });
            return Ok(());
        }
        let mut parts: BTreeMap<Time, (Time, Vec<u32>)> = BTreeMap::new();
        let events = batch.times();
        for row in 0..batch.rows.num_rows() {
            let leaves = events.map_or(stamp, |events| stamp.max(millis(events.value(row))));
            let part = parts.entry(close(leaves.saturating_add(1))).or_insert_with(|| (leaves, Vec::new()));
            part.0 = part.0.min(leaves);
            part.1.push(row as u32);
        }
        for (at, (leaves, rows)) in parts {
            let rows = take_record_batch(&batch.rows, &UInt32Array::from(rows))?;
            self.waiting.entry(at).or_default().push(Piece { leaves, batch: batch.with_rows(rows) });
        }
        Ok(())
    }

    /// Does all that is due before the frontier, in the order of ticks. Without a frontier the input has ended.
    ///
    /// # Errors
    /// If rows cannot be encoded or decoded.
    pub fn advance(&mut self, frontier: Option<Time>, out: &mut Vec<(Time, Batch)>) -> Result<(), ArrowError> {
        let due = |time: Time| frontier.is_none_or(|frontier| time < frontier);
        while let Some(first) = self.waiting.first_entry().filter(|first| due(*first.key())) {
            let (tick, pieces) = first.remove_entry();
            self.close(tick, pieces, out)?;
        }
        if frontier.is_none() {
            self.rows.clear();
            self.ages.clear();
            self.units = 0;
        }
        let len = i64::try_from(self.rows.len()).unwrap_or(i64::MAX);
        self.metrics.state_rows.fetch_add(len - self.counted, Relaxed);
        self.counted = len;
        Ok(())
    }

    /// The first time at which rows may leave. Rows of a later tick leave later.
    pub fn next(&self) -> Option<Time> {
        self.waiting.first_key_value().and_then(|(_, pieces)| pieces.iter().map(|piece| piece.leaves).min())
    }

    fn close(&mut self, tick: Time, pieces: Vec<Piece>, out: &mut Vec<(Time, Batch)>) -> Result<(), ArrowError> {
        self.forget(tick);
        let mut changes = Vec::new();
        for piece in pieces {
            self.read(piece, &mut changes)?;
        }
        changes.sort_unstable();
        let (mut given, mut touched) = (Given::default(), BTreeSet::new());
        for of_row in changes.chunk_by(|a, b| a.row == b.row) {
            self.apply(of_row, tick, &mut given, &mut touched);
        }
        drop(changes);
        for partition in touched {
            self.compute(&partition, tick, &mut given)?;
        }
        given.send(&self.codec, out)
    }

    /// The rows of a piece as changes.
    fn read(&self, piece: Piece, changes: &mut Vec<Change>) -> Result<(), ArrowError> {
        let Piece { leaves, batch } = piece;
        let windows = self.settings.look_back.and_then(|_| batch.rows.column_by_name(WINDOW_START));
        let windows = windows.and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
        let mark = Mark { leaves, late: batch.late, origin: batch.origin };
        let rows = self.codec.encode(&batch.rows)?;
        changes.extend(rows.into_iter().enumerate().map(|(at, row)| {
            let window = windows.filter(|windows| windows.is_valid(at)).map(|windows| millis(windows.value(at)));
            let until = window.map_or(0, |start| start.saturating_add(self.settings.look_back.unwrap_or(0)));
            Change { row, diff: batch.diff, settled: batch.settled, mark, until }
        }));
        Ok(())
    }

    /// Takes in what becomes of one row in a tick.
    fn apply(&mut self, changes: &[Change], tick: Time, given: &mut Given, touched: &mut BTreeSet<Box<[u8]>>) {
        let Some(first) = changes.first() else { return };
        touch(touched, &first.row);
        let net: i64 = changes.iter().map(|change| i64::from(change.diff)).sum();
        let mut comes = changes.iter().filter(|change| change.diff > 0);
        if net > 0 {
            // Those that settle are the last ones.
            for change in changes[changes.len() - (net as usize).min(changes.len())..].iter() {
                self.insert(change, tick, given, touched);
            }
        } else if net < 0 {
            (net..0).for_each(|_| self.take_back(&first.row, first.mark, given));
        } else if let Some(change) = comes.rfind(|change| change.settled) {
            // It was there, and now it stays.
            self.take_back(&first.row, first.mark, given);
            self.insert(change, tick, given, touched);
        }
    }

    fn insert(&mut self, change: &Change, tick: Time, given: &mut Given, touched: &mut BTreeSet<Box<[u8]>>) {
        if self.units >= self.settings.max_rows {
            self.evict(tick, given, touched);
        }
        if self.settings.look_back.is_some() && change.until <= tick {
            NodeMetrics::add(&self.too_old, 1);
        }
        let stage = if change.settled { Stage::Settling } else { Stage::Open };
        self.hold(change.row.clone(), Held { stage, until: change.until, mark: change.mark, given: None });
    }

    pub(super) fn hold(&mut self, row: Encoded, held: Held) {
        let equal = self.rows.range((row.clone(), 0)..=(row.clone(), u32::MAX)).next_back();
        let copy = equal.map_or(0, |((_, copy), _)| copy.saturating_add(1));
        self.ages.insert((held.stage != Stage::Peer, held.until, (row.clone(), copy)));
        self.units += units(row.bytes.len());
        self.rows.insert((row, copy), held);
    }

    pub(super) fn release(&mut self, ident: Ident) -> Option<Held> {
        let held = self.remove(&ident)?;
        self.ages.remove(&(held.stage != Stage::Peer, held.until, ident));
        Some(held)
    }

    fn remove(&mut self, ident: &Ident) -> Option<Held> {
        let held = self.rows.remove(ident)?;
        self.units -= units(ident.0.bytes.len());
        Some(held)
    }

    /// Takes a row back, which then is taken back from those downstream too. A row that was forgotten has no added columns
    /// there.
    fn take_back(&mut self, row: &Encoded, mark: Mark, given: &mut Given) {
        let mut equal = self.rows.range((row.clone(), 0)..=(row.clone(), u32::MAX)).rev();
        let open = equal.find(|(_, held)| held.stage == Stage::Open).map(|(ident, _)| ident.clone());
        let added = match open.and_then(|ident| self.release(ident)) {
            Some(held) => held.given,
            None => Some(Rc::clone(self.codec.nulls())),
        };
        given.take_back.extend(added.map(|added| Gone { row: row.clone(), added, mark }));
    }

    /// Forgets settled rows that are too old.
    fn forget(&mut self, tick: Time) {
        while self.ages.first().is_some_and(|(may_change, until, _)| !may_change && *until <= tick) {
            if let Some((_, _, ident)) = self.ages.pop_first() {
                self.remove(&ident);
            }
        }
    }

    /// Makes room. Rows that may still change stay with those downstream, without added columns.
    fn evict(&mut self, tick: Time, given: &mut Given, touched: &mut BTreeSet<Box<[u8]>>) {
        for _ in 0..(self.settings.max_rows / EVICTED_SHARE).clamp(1, MAX_ROWS) {
            let Some((_, _, ident)) = self.ages.pop_first() else { return };
            let Some(held) = self.remove(&ident) else { continue };
            NodeMetrics::add(&self.metrics.evicted, 1);
            touch(touched, &ident.0);
            let is_given_so = held.stage == Stage::Open && held.given.as_ref() == Some(self.codec.nulls());
            if held.stage != Stage::Peer && !is_given_so {
                let mark = self.mark(&held, tick);
                given.take_back.extend(held.given.map(|added| Gone { row: ident.0.clone(), added, mark }));
                let without = Gone { row: ident.0, added: Rc::clone(self.codec.nulls()), mark };
                given.give(without, held.stage);
            }
        }
    }

    /// The marks with which a row leaves: one of a relation at the tick, one of a stream when it came.
    pub(super) fn mark(&self, held: &Held, tick: Time) -> Mark {
        if self.settings.is_relation { Mark { leaves: tick, ..held.mark } } else { held.mark }
    }

    /// The rows of a partition.
    pub(super) fn partition<'a>(&'a self, partition: &'a [u8]) -> impl Iterator<Item = (&'a Ident, &'a Held)> {
        let first = Encoded { bytes: partition.into(), by: 0, head: 0 };
        let from = self.rows.range((Bound::Included((first, 0)), Bound::Unbounded));
        from.take_while(move |((row, _), _)| row.bytes.starts_with(partition))
    }
}

fn touch(touched: &mut BTreeSet<Box<[u8]>>, row: &Encoded) {
    if !touched.contains(row.partition()) {
        touched.insert(row.partition().into());
    }
}

/// ns since the epoch as a time of the dataflow: rounded down.
fn millis(ns: i64) -> Time {
    Time::try_from(ns.div_euclid(1_000_000)).unwrap_or(0)
}

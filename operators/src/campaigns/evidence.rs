//! What of a row counts: who it is about, what links it, and how grave it is.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampNanosecondType};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use engine::batch::{Batch, Time};
use engine::contract::{NodeMetrics, Scalar};
use serde::{Deserialize, Serialize};

use super::id::{self, Id};
use super::{Columns, Expression};
use crate::detect::rules::levels;
use crate::linear::edge_values;
use crate::relation::Row;
use crate::relation::windows::{Ages, ordered};
use crate::value::{Format, Value, Values};

/// The most characters of a value that are shown. What links is the whole value.
const SHOWN: usize = 80;

/// What of a row counts. Rows of a member that are equal in this are one row that is there several times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Mark {
    pub outline: Outline,
    pub links: Box<[Link]>,
}

/// What is said of a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Outline {
    /// Start of the window, in ns.
    pub window: i64,
    /// Index into [`levels`].
    pub level: Option<u8>,
    /// A score as an integer of the same order.
    pub score: Option<i64>,
    /// The autonomous system, or a hash of its name.
    pub system: Option<u64>,
    pub name: Name,
}

/// A value that may link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Link {
    pub value: Id,
    /// The value for people.
    pub text: Box<str>,
}

/// A member for people. Addresses are in their own order, and take no further memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Name {
    Address(IpAddr),
    Text(Box<str>),
}

impl Name {
    fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Text(shown(text).into()), Self::Address)
    }

    /// The network of an address: /24, or /64 of IPv6. An IPv4-mapped address is the IPv4 address.
    pub fn network(&self) -> Option<u64> {
        match self {
            Self::Address(address) => Some(match address.to_canonical() {
                IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
                // No network of IPv6 that is in use is as small a number as one of IPv4: they are of 2000::/3.
                IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
            }),
            Self::Text(_) => None,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The beginning of a text from the network, with everything escaped that does not show as itself.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

/// Which rows count, and what links their members.
#[derive(Clone)]
pub(super) struct Evidence {
    pub condition: Option<Scalar>,
    /// The parts of each link.
    pub links: Arc<[Vec<Expression>]>,
}

/// What [`Evidence`] gives for the rows of a batch.
struct Found {
    counts: Option<BooleanArray>,
    links: Vec<Vec<ArrayRef>>,
}

impl Evidence {
    fn of(&self, rows: &RecordBatch) -> Result<Found, DataFusionError> {
        let part =
            |part: &Expression| -> Result<ArrayRef, DataFusionError> { Ok(edge_values(part.value.evaluate(rows)?)?) };
        let link = |parts: &Vec<Expression>| parts.iter().map(part).collect::<Result<_, DataFusionError>>();
        Ok(Found {
            counts: self.condition.as_ref().map(|condition| condition.mask(rows)).transpose()?,
            links: self.links.iter().map(link).collect::<Result<_, _>>()?,
        })
    }
}

/// Ids of the members of rows; `None` where a row has none.
pub(super) fn members(column: &ArrayRef) -> Vec<Option<Id>> {
    let Some(values) = Values::new(column) else { return vec![None; column.len()] };
    let (mut format, mut text) = (Format::default(), Vec::new());
    (0..column.len()).map(|row| plain(&values, row, &mut format, &mut text).map(id::member)).collect()
}

/// A value as text; `None` if it is null, no finite number, or empty.
fn plain<'a>(values: &Values<'_>, row: usize, format: &mut Format, text: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    text.clear();
    match values.at(row)? {
        Value::Bool(v) => text.extend_from_slice(if v { b"true" } else { b"false" }),
        Value::Signed(v) => format.signed(text, v),
        Value::Unsigned(v) => format.unsigned(text, v),
        // Adding zero makes one number of zero and minus zero.
        Value::Float(v) if v.is_finite() => format.float(text, v + 0.0),
        Value::Float32(v) if v.is_finite() => format.float32(text, v + 0.0),
        Value::Float(_) | Value::Float32(_) => {}
        Value::Text(v) => text.extend_from_slice(v.as_bytes()),
        Value::Date(day) => _ = format.date(text, i64::from(day)),
        Value::Time(ns) => _ = format.time(text, ns),
    }
    (!text.is_empty()).then_some(text.as_slice())
}

/// Reads rows as those of a collection.
pub(super) struct Reader {
    columns: Columns,
    evidence: Evidence,
    ages: Ages,
    without_member: Arc<AtomicU64>,
    without_window: Arc<AtomicU64>,
    not_computed: Arc<AtomicU64>,
    metrics: Arc<NodeMetrics>,
}

impl Reader {
    pub fn new(columns: Columns, evidence: Evidence, ages: Ages, metrics: &Arc<NodeMetrics>) -> Self {
        let [without_member, without_window, not_computed] =
            ["without_member", "without_window", "not_computed"].map(|name| metrics.counter(name));
        Self { columns, evidence, ages, without_member, without_window, not_computed, metrics: Arc::clone(metrics) }
    }

    /// Adds a batch's rows. Where an expression cannot be computed for all rows at once it is for ever smaller parts,
    /// so that one row does not hide its neighbours. The counter `not_computed` has it. Late rows do not count.
    pub fn read(&mut self, batch: &Batch, time: Time, into: &mut Vec<Row<Id, Mark>>) -> Result<(), ArrowError> {
        let rows = batch.rows.num_rows();
        if batch.late && !self.ages.is_relation {
            // When it was read says when it comes, and that depends on how the input was cut.
            NodeMetrics::add(&self.metrics.late, rows);
            return Ok(());
        }
        match self.evidence.of(&batch.rows) {
            Ok(found) => self.add(batch, &found, time, into),
            Err(_) if rows <= 1 => {
                NodeMetrics::add(&self.not_computed, rows);
                Ok(())
            }
            Err(_) => {
                self.read(&batch.with_rows(batch.rows.slice(0, rows / 2)), time, into)?;
                self.read(&batch.with_rows(batch.rows.slice(rows / 2, rows - rows / 2)), time, into)
            }
        }
    }

    /// A row without a member or a window belongs nowhere; the counters `without_member` and `without_window` have it.
    fn add(&self, batch: &Batch, found: &Found, time: Time, into: &mut Vec<Row<Id, Mark>>) -> Result<(), ArrowError> {
        let rows = &batch.rows;
        let Some(names) = Values::new(rows.column(self.columns.member)) else { return Ok(()) };
        let windows = rows.column(self.columns.window).as_primitive::<TimestampNanosecondType>();
        let gravity = Gravity::new(rows, &self.columns)?;
        let links = Links::new(&self.evidence, &found.links);
        let events = batch.times();
        let (mut format, mut text) = (Format::default(), Vec::new());
        for row in 0..rows.num_rows() {
            if found.counts.as_ref().is_some_and(|counts| !counts.value(row)) {
                continue;
            }
            let Some(name) = plain(&names, row, &mut format, &mut text) else {
                NodeMetrics::add(&self.without_member, 1);
                continue;
            };
            if windows.is_null(row) {
                NodeMetrics::add(&self.without_window, 1);
                continue;
            }
            let (member, name) = (id::member(name), Name::of(&String::from_utf8_lossy(name)));
            let window = windows.value(row);
            let (level, score, system) = gravity.of(row, &mut format);
            into.push(Row {
                key: member,
                value: Mark {
                    outline: Outline { window, level, score, system, name },
                    links: links.of(row, &mut format),
                },
                at: self.ages.at(time, events.map(|events| events.value(row))),
                until: self.ages.until(window),
                diff: isize::from(batch.diff),
            });
        }
        Ok(())
    }
}

/// How grave rows are, and of which autonomous system.
struct Gravity<'a> {
    levels: Option<&'a StringArray>,
    scores: Option<Float64Array>,
    systems: Option<Values<'a>>,
}

impl<'a> Gravity<'a> {
    fn new(rows: &'a RecordBatch, columns: &Columns) -> Result<Self, ArrowError> {
        let scores = columns.score.map(|index| cast(rows.column(index), &DataType::Float64)).transpose()?;
        Ok(Self {
            levels: columns.level.map(|index| rows.column(index).as_string::<i32>()),
            scores: scores.map(|scores| scores.as_primitive::<Float64Type>().clone()),
            systems: columns.system.and_then(|index| Values::new(rows.column(index))),
        })
    }

    fn of(&self, row: usize, format: &mut Format) -> (Option<u8>, Option<i64>, Option<u64>) {
        let level = self.levels.filter(|levels| levels.is_valid(row)).and_then(|levels| rank(levels.value(row)));
        let scores = self.scores.as_ref().filter(|scores| scores.is_valid(row));
        let mut text = Vec::new();
        let system = self.systems.as_ref().and_then(|systems| plain(systems, row, format, &mut text));
        (level, scores.and_then(|scores| ordered(scores.value(row))), system.map(id::member))
    }
}

/// Place of a level among [`levels`]; what is none of them has none.
fn rank(level: &str) -> Option<u8> {
    levels().iter().position(|name| *name == level).and_then(|rank| u8::try_from(rank).ok())
}

/// The values of the links of rows.
struct Links<'a>(Vec<Vec<(&'a str, Values<'a>)>>);

impl<'a> Links<'a> {
    fn new(evidence: &'a Evidence, values: &'a [Vec<ArrayRef>]) -> Self {
        let parts = |(parts, values): (&'a Vec<Expression>, &'a Vec<ArrayRef>)| {
            let part = |(part, values): (&'a Expression, &'a ArrayRef)| Some((part.sql.as_str(), Values::new(values)?));
            parts.iter().zip(values).filter_map(part).collect()
        };
        Self(evidence.links.iter().zip(values).map(parts).collect())
    }

    /// The values of the links that a row has: of which no part is missing.
    fn of(&self, row: usize, format: &mut Format) -> Box<[Link]> {
        let links = self.0.iter().enumerate().filter_map(|(nth, parts)| {
            let mut texts: Vec<Vec<u8>> = Vec::with_capacity(parts.len());
            let mut text = String::new();
            for (sql, values) in parts {
                let mut bytes = Vec::new();
                plain(values, row, format, &mut bytes)?;
                let part = shown(&String::from_utf8_lossy(&bytes));
                let (comma, quote) = (if text.is_empty() { "" } else { ", " }, if is_text(values) { "\"" } else { "" });
                text.extend([comma, *sql, " = ", quote, part.as_str(), quote]);
                texts.push(bytes);
            }
            Some(Link { value: id::value(nth, texts.iter().map(Vec::as_slice)), text: text.into() })
        });
        links.collect()
    }
}

fn is_text(values: &Values<'_>) -> bool {
    matches!(values, Values::Text(_) | Values::LargeText(_) | Values::TextView(_))
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;

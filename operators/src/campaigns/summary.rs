//! What is said of a member, and of a campaign.

use std::cmp::Reverse;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Float64Array, Int32Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::batch::{time_array, time_type};
use serde::{Deserialize, Serialize};

use super::Columns;
use super::evidence::{Name, Outline};
use super::flow::Campaign;
use super::id::{self, Id};
use crate::detect::rules::levels;
use crate::relation::windows::number;

/// How many values and members are shown of a campaign.
const VALUES: usize = 3;
const MEMBERS: usize = 5;

/// What is said of a member. The least is the one that was seen first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Fact {
    first: i64,
    name: Name,
    member: Id,
    last: i64,
    detections: u64,
    level: Option<u8>,
    score: Option<i64>,
    /// That of the last row that has one.
    system: Option<u64>,
}

impl Fact {
    /// The sum of a member's rows, which are in their order: by window first. There is at least one.
    pub fn of(member: Id, marks: &[(&Outline, isize)]) -> Self {
        let first = marks[0].0;
        let (last, name) = (first.window, first.name.clone());
        let mut fact = Self { first: last, name, member, last, detections: 0, level: None, score: None, system: None };
        for (mark, count) in marks {
            fact.last = mark.window;
            fact.detections = fact.detections.saturating_add(count.unsigned_abs() as u64);
            fact.level = fact.level.max(mark.level);
            fact.score = fact.score.into_iter().chain(mark.score).min();
            fact.system = mark.system.or(fact.system);
        }
        fact
    }
}

/// What is said of a campaign. The least is the one that was seen first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Summary {
    pub first: i64,
    /// The members that were seen first.
    pub sample: Box<str>,
    /// The one that was seen first of all.
    pub oldest: Id,
    pub members: u32,
    pub networks: u32,
    pub systems: u32,
    pub detections: u64,
    pub level: Option<u8>,
    pub score: Option<i64>,
    pub last: i64,
}

impl Summary {
    /// The sum of members, which are in their order: the oldest first. There is at least one.
    pub fn of(facts: &[(&Fact, isize)]) -> Self {
        let facts = || facts.iter().map(|(fact, _)| *fact);
        let mut sum = Self {
            first: 0,
            sample: Box::default(),
            oldest: 0,
            members: 0,
            networks: different(facts().filter_map(|fact| fact.name.network())),
            systems: different(facts().filter_map(|fact| fact.system)),
            detections: 0,
            level: None,
            score: None,
            last: i64::MIN,
        };
        let mut sample = String::new();
        for fact in facts() {
            if sum.members == 0 {
                (sum.first, sum.oldest) = (fact.first, fact.member);
            }
            if (sum.members as usize) < MEMBERS {
                // Writing to a string does not fail.
                let _ = write!(sample, "{}{}", if sum.members > 0 { ", " } else { "" }, fact.name);
            }
            sum.members = sum.members.saturating_add(1);
            sum.detections = sum.detections.saturating_add(fact.detections);
            sum.level = sum.level.max(fact.level);
            sum.score = sum.score.into_iter().chain(fact.score).min();
            sum.last = sum.last.max(fact.last);
        }
        sum.sample = sample.into();
        sum
    }

    /// The campaign as its members see it.
    pub fn campaign(&self) -> Campaign {
        Campaign { number: id::campaign(self.oldest), members: self.members }
    }
}

/// How many different ones there are.
fn different(values: impl Iterator<Item = u64>) -> u32 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.dedup();
    u32::try_from(values.len()).unwrap_or(u32::MAX)
}

/// What holds a campaign together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Bonds {
    /// Pairs of members that a value links directly. A pair with several values counts for each.
    pub pairs: u64,
    /// The values that link most members, for people.
    pub text: Box<str>,
}

/// A value that links: by how many members, its text, its id.
type Bond = (Reverse<u32>, Box<str>, Id);

impl Bonds {
    /// The sum of the values, which are in their order: those of most members first.
    pub fn of(values: &[(&Bond, isize)]) -> Self {
        let (mut pairs, mut text) = (0_u64, String::new());
        for (nth, ((Reverse(members), value, _), _)) in values.iter().enumerate() {
            let members = u64::from(*members);
            pairs = pairs.saturating_add(members * members.saturating_sub(1) / 2);
            if nth < VALUES {
                let _ = write!(text, "{}{value} ({members} members)", if nth > 0 { "; " } else { "" });
            }
        }
        Self { pairs, text: text.into() }
    }
}

/// The share of the pairs of members that a value links directly.
fn density(summary: &Summary, bonds: &Bonds) -> f64 {
    let members = f64::from(summary.members);
    (bonds.pairs as f64 / (members * (members - 1.0) / 2.0)).min(1.0)
}

/// Columns of the port `out`.
pub(super) fn schema(columns: &Columns) -> SchemaRef {
    let mut fields = vec![
        Field::new("campaign_id", DataType::Int32, false),
        Field::new("members", DataType::UInt32, false),
        Field::new("networks", DataType::UInt32, false),
        Field::new("asns", DataType::UInt32, true),
        Field::new("detections", DataType::UInt64, false),
    ];
    fields.extend(columns.level.map(|_| Field::new("worst_threat_level", DataType::Utf8, true)));
    fields.extend(columns.score.map(|_| Field::new("worst_score", DataType::Float64, true)));
    fields.extend(["density", "score"].map(|name| Field::new(name, DataType::Float64, false)));
    fields.extend(["linked_by", "sample_members"].map(|name| Field::new(name, DataType::Utf8, false)));
    fields.extend(["first_seen", "last_seen"].map(|name| Field::new(name, time_type(), false)));
    Arc::new(Schema::new(fields))
}

/// Makes rows of campaigns.
pub(super) struct Writer {
    pub columns: Columns,
    pub schema: SchemaRef,
}

impl Writer {
    /// The columns of [`schema`].
    pub fn write(&self, rows: &[(i32, (Summary, Bonds))]) -> Result<RecordBatch, ArrowError> {
        let sums = || rows.iter().map(|(_, (sum, _))| sum);
        let texts = |text: fn(&(Summary, Bonds)) -> &str| {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, row)| text(row))))
        };
        let systems = |sum: &Summary| self.columns.system.map(|_| sum.systems);
        let densities: Vec<f64> = rows.iter().map(|(_, (sum, bonds))| density(sum, bonds)).collect();
        let score =
            |(sum, density): (&Summary, &f64)| f64::from(sum.members) * density / (f64::from(sum.systems) + 2.0).log2();
        let scores: Float64Array = sums().zip(&densities).map(score).collect::<Vec<f64>>().into();
        let mut columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(number, _)| *number))),
            Arc::new(UInt32Array::from_iter_values(sums().map(|sum| sum.members))),
            Arc::new(UInt32Array::from_iter_values(sums().map(|sum| sum.networks))),
            Arc::new(sums().map(systems).collect::<UInt32Array>()),
            Arc::new(UInt64Array::from_iter_values(sums().map(|sum| sum.detections))),
        ];
        if self.columns.level.is_some() {
            let names = levels();
            let name = |rank: u8| names.get(usize::from(rank)).copied();
            columns.push(Arc::new(sums().map(|sum| sum.level.and_then(name)).collect::<StringArray>()));
        }
        if self.columns.score.is_some() {
            columns.push(Arc::new(sums().map(|sum| sum.score.map(number)).collect::<Float64Array>()));
        }
        columns.push(Arc::new(Float64Array::from(densities)));
        columns.push(Arc::new(scores));
        columns.push(texts(|(_, bonds)| &bonds.text));
        columns.push(texts(|(sum, _)| &sum.sample));
        columns.push(time_array(sums().map(|sum| sum.first).collect()));
        columns.push(time_array(sums().map(|sum| sum.last).collect()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

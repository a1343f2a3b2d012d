//! What an explanation says, as data.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::distribution::Summary;
use crate::history::Row;

/// Of what a report is made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The version of this format.
    pub format: u32,
    /// The version of the engine that made it.
    pub engine: &'static str,
    /// The pipeline's name, where it is known.
    pub pipeline: Option<String>,
    /// The client as it was asked for.
    pub client: String,
    /// Where the rows come from.
    pub origin: String,
    /// Which table was read as what.
    pub tables: BTreeMap<&'static str, Vec<String>>,
    /// The beginnings of the windows looked at, the latest first.
    pub windows: Vec<String>,
    /// Other windows in which the client is.
    pub other_windows: usize,
    /// The condition for the groups that features are compared with; all groups without one.
    pub baseline: Option<String>,
    /// The client's groups.
    pub groups: Vec<Group>,
    /// The names of the models that scored them.
    pub models: BTreeSet<String>,
    /// Labels of requests, each with the number of the latest requests that have it.
    pub labels: BTreeMap<String, Vec<(String, usize)>>,
    /// The requests.
    pub requests: Shown,
    /// The hellos.
    pub hellos: Shown,
    /// The hellos that differ, the most frequent first.
    pub distinct_hellos: Vec<DistinctHello>,
    /// What is left out, and why.
    pub notes: Vec<String>,
}

/// Rows of which a part is shown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shown {
    /// How many there are.
    pub total: u64,
    /// The latest ones, the latest first.
    pub rows: Vec<Row>,
}

/// A group: one client at one host in one window.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    /// Where its window begins.
    pub window_start: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The address.
    pub src_ip: Option<String>,
    /// The JA4.
    pub ja4: Option<String>,
    /// What was said of it.
    pub judgements: Vec<Judgement>,
    /// Its labels.
    pub labels: Row,
    /// Its features, the most unusual first.
    pub features: Vec<Feature>,
    /// Other columns.
    pub other: Row,
}

/// What one table says of a group.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Judgement {
    /// The table.
    pub table: String,
    /// Levels and verdicts.
    pub verdict: Row,
    /// Scores, and the model that gave them.
    pub score: Row,
    /// Rules and reasons.
    pub rules: Row,
}

/// A feature of a group beside those of the other groups of its window.
#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its value; a truth value is 0 or 1.
    pub value: Option<f64>,
    /// The share of groups below, 0 to 1.
    pub rank: Option<f64>,
    /// The robust z-score.
    pub z: Option<f64>,
    /// The other groups.
    pub usual: Option<Summary>,
}

/// Hellos that are the same but for their connection.
#[derive(Clone, Debug, Serialize)]
pub struct DistinctHello {
    /// Of the rows looked at, how many are so.
    pub count: usize,
    /// The first of them.
    pub first: Option<String>,
    /// The last of them.
    pub last: Option<String>,
    /// JA4, server name, ALPN, TTL, TCP options and what else there is.
    pub columns: Row,
}

impl Group {
    /// How much is to be said: groups that were judged come first, by the worst level.
    pub fn weight(&self) -> usize {
        let levels =
            self.judgements.iter().flat_map(|judgement| judgement.verdict.values().chain(judgement.score.values()));
        levels.filter_map(|level| level.as_str()).map(severity).max().unwrap_or(0)
    }
}

/// The place of a level among all of them, the greatest the worst; 0 for a text that is no level.
fn severity(level: &str) -> usize {
    const LEVELS: [&str; 5] = ["NORMAL", "LOW", "MEDIUM", "HIGH", "CRITICAL"];
    LEVELS.iter().position(|known| *known == level).map_or(0, |at| at + 1)
}

//! Asks the tables for everything about a client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::client::Client;
use super::columns::{self, Part};
use super::hellos;
use super::population;
use super::report::{Group, Judgement, Report, Shown};
use crate::history::roles::Roles;
use crate::history::{History, Row, Table, sql};

/// The most windows that are looked at.
const MAX_WINDOWS: usize = 24;

/// The most windows that are counted.
const MAX_COUNTED: usize = 1000;

/// The most rows of a table of groups.
const MAX_GROUPS: usize = 500;

/// The latest requests whose labels are counted.
const MAX_LABELLED: usize = 10_000;

/// The most values of a label.
const MAX_LABELS: usize = 10;

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whom.
    pub client: Client,
    /// In which windows.
    pub when: When,
    /// The most requests.
    pub requests: usize,
    /// A condition for the groups that features are compared with.
    pub baseline: Option<String>,
}

/// Which windows are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The latest.
    Latest,
    /// The last that begins at this time, in RFC 3339, or before.
    At(String),
    /// Those that begin in this span, its end not included.
    Between(String, String),
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The report, with all rows.
    pub report: Report,
    /// All columns of hellos, the latest first.
    pub hellos: Vec<Row>,
}

/// What the steps share.
pub struct Gather<'a> {
    pub history: &'a History,
    pub roles: &'a Roles,
    pub wanted: &'a Wanted,
}

/// Everything that the tables have of a client; `None` if that is nothing.
///
/// # Errors
/// If a table cannot be asked.
pub fn gather(history: &History, roles: &Roles, wanted: &Wanted) -> Result<Option<Evidence>, String> {
    let gather = Gather { history, roles, wanted };
    let mut report = Report {
        format: 1,
        engine: env!("CARGO_PKG_VERSION"),
        pipeline: history.pipeline.clone(),
        client: wanted.client.written.clone(),
        origin: history.origin.clone(),
        tables: gather.tables(),
        baseline: wanted.baseline.clone(),
        notes: history.notes.clone(),
        ..Report::default()
    };
    (report.windows, report.other_windows) = gather.windows()?;
    let last = gather.groups(&mut report)?;
    gather.requests(&mut report, last.as_deref())?;
    let hellos = hellos::hellos(&gather, &mut report, last.as_deref())?;
    let is_empty = report.groups.is_empty() && report.requests.total == 0 && hellos.is_empty();
    Ok((!is_empty).then_some(Evidence { report, hellos }))
}

/// A time in RFC 3339 in ns since the epoch.
pub fn nanoseconds(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339_weak(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(time.as_nanos()).ok()
}

fn text(row: &Row, name: &str) -> Option<String> {
    row.get(name).and_then(Value::as_str).map(str::to_owned)
}

impl Gather<'_> {
    fn tables(&self) -> BTreeMap<&'static str, Vec<String>> {
        let name = |table: &Option<Table>| table.iter().map(|table| table.name.clone()).collect::<Vec<_>>();
        let roles = self.roles;
        let judgements = roles.judgements.iter().map(|table| table.name.clone()).collect();
        let all = [
            ("requests", name(&roles.requests)),
            ("features", name(&roles.features)),
            ("detections", judgements),
            ("hellos", name(&roles.hellos)),
        ];
        all.into_iter().filter(|(_, names)| !names.is_empty()).collect()
    }

    /// The tables of groups, each once.
    fn of_groups(&self) -> Vec<&Table> {
        let mut names = BTreeSet::new();
        let all = self.roles.features.iter().chain(&self.roles.judgements);
        all.filter(|table| names.insert(table.name.as_str())).collect()
    }

    /// The beginnings of the windows to look at, the latest first, and how many others have the client.
    fn windows(&self) -> Result<(Vec<String>, usize), String> {
        let mut all = BTreeMap::new();
        for table in self.of_groups().into_iter().filter(|table| table.has("window_start")) {
            let conditions = sql::all(&self.wanted.client.conditions(table));
            let name = sql::name(&table.name);
            let query = format!(
                "SELECT DISTINCT \"window_start\" FROM {name} WHERE {conditions} ORDER BY 1 DESC LIMIT {MAX_COUNTED}"
            );
            for row in self.history.ask(&query)?.rows()? {
                if let Some(window) = text(&row, "window_start") {
                    all.insert(nanoseconds(&window), window);
                }
            }
        }
        let fits = |at: &Option<i64>| match &self.wanted.when {
            When::Latest => true,
            When::At(time) => *at <= nanoseconds(time),
            When::Between(from, to) => *at >= nanoseconds(from) && *at < nanoseconds(to),
        };
        let most = if matches!(self.wanted.when, When::Between(..)) { MAX_WINDOWS } else { 1 };
        let chosen: Vec<String> =
            all.iter().rev().filter(|(at, _)| fits(at)).take(most).map(|(_, window)| window.clone()).collect();
        Ok((chosen.clone(), all.len() - chosen.len()))
    }

    /// Fills in the groups. The time of the last request of them, if that is known.
    fn groups(&self, report: &mut Report) -> Result<Option<String>, String> {
        let mut groups: BTreeMap<[Option<String>; 4], Group> = BTreeMap::new();
        let mut last: Option<(i64, String)> = None;
        for table in self.of_groups() {
            for row in self.group_rows(table, report)? {
                if let Some(seen) = text(&row, "last_seen").and_then(|seen| Some((nanoseconds(&seen)?, seen))) {
                    last = last.max(Some(seen));
                }
                let key = ["window_start", "host", "src_ip", "ja4"].map(|name| text(&row, name));
                let [window_start, host, src_ip, ja4] = key.clone();
                let group =
                    groups.entry(key).or_insert_with(|| Group { window_start, host, src_ip, ja4, ..Group::default() });
                add(group, &row, table);
            }
        }
        report.groups = groups.into_values().collect();
        let models = report.groups.iter().flat_map(|group| &group.judgements);
        report.models = models.filter_map(|judgement| text(&judgement.score, "model_name")).collect();
        population::compare(self, report)?;
        let hits = |group: &Group| {
            let hits = group.features.iter().find(|feature| feature.name == "hits");
            hits.and_then(|hits| hits.value).unwrap_or(0.0) as u64
        };
        report.groups.sort_by_cached_key(|group| std::cmp::Reverse((group.weight(), hits(group))));
        Ok(last.map(|(_, seen)| seen))
    }

    fn group_rows(&self, table: &Table, report: &mut Report) -> Result<Vec<Row>, String> {
        let mut conditions = self.wanted.client.conditions(table);
        let has_windows = table.has("window_start");
        if has_windows {
            if report.windows.is_empty() {
                return Ok(Vec::new());
            }
            let times: Vec<String> = report.windows.iter().map(|window| sql::time(window)).collect();
            conditions.push(format!("\"window_start\" IN ({})", times.join(", ")));
        }
        let order = if has_windows { " ORDER BY \"window_start\" DESC" } else { "" };
        let query = format!(
            "SELECT * FROM {} WHERE {}{order} LIMIT {}",
            sql::name(&table.name),
            sql::all(&conditions),
            MAX_GROUPS + 1
        );
        let mut rows = self.history.ask(&query)?.rows()?;
        if rows.len() > MAX_GROUPS {
            rows.truncate(MAX_GROUPS);
            report.notes.push(format!(
                "{} has more than {MAX_GROUPS} groups of this client: the others are left out",
                table.name
            ));
        }
        Ok(rows)
    }

    /// Conditions for rows of single events since a time and up to the last one of the groups.
    pub fn events(&self, table: &Table, since: Option<String>, last: Option<&str>) -> Vec<String> {
        let mut conditions = self.wanted.client.conditions(table);
        if !table.has("time") {
            return conditions;
        }
        let since = since.or_else(|| match &self.wanted.when {
            When::Between(from, _) => Some(from.clone()),
            _ => None,
        });
        let until = match (last, &self.wanted.when) {
            (Some(last), _) => Some(format!("\"time\" <= {}", sql::time(last))),
            (None, When::At(time)) => Some(format!("\"time\" <= {}", sql::time(time))),
            (None, When::Between(_, to)) => Some(format!("\"time\" < {}", sql::time(to))),
            (None, When::Latest) => None,
        };
        conditions.extend(since.map(|since| format!("\"time\" >= {}", sql::time(&since))));
        conditions.extend(until);
        conditions
    }

    fn requests(&self, report: &mut Report, last: Option<&str>) -> Result<(), String> {
        let Some(table) = &self.roles.requests else {
            report.notes.push("no table has requests (columns method, path, src_ip)".to_owned());
            return Ok(());
        };
        let conditions = sql::all(&self.events(table, report.windows.last().cloned(), last));
        let name = sql::name(&table.name);
        let total = self.history.ask(&format!("SELECT count(*) FROM {name} WHERE {conditions}"))?.number()?;
        let latest = if table.has("time") { " ORDER BY \"time\" DESC" } else { "" };
        let limit = self.wanted.requests;
        let query = format!("SELECT * FROM {name} WHERE {conditions}{latest} LIMIT {limit}");
        report.requests = Shown { total, rows: self.history.ask(&query)?.rows()? };
        let labels = columns::of(table, Part::Label);
        if labels.is_empty() || total == 0 {
            return Ok(());
        }
        let names: Vec<String> = labels.iter().map(|label| sql::name(label)).collect();
        let names = names.join(", ");
        let query = format!("SELECT {names} FROM {name} WHERE {conditions}{latest} LIMIT {MAX_LABELLED}");
        let rows = self.history.ask(&query)?.rows()?;
        report.labels = labels.into_iter().map(|label| (label.to_owned(), count(&rows, label))).collect();
        report.labels.retain(|_, values| !values.is_empty());
        Ok(())
    }
}

/// The values of a column that are not null, each with the number of rows, the most frequent first.
fn count(rows: &[Row], name: &str) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for value in rows.iter().filter_map(|row| row.get(name)).filter(|value| !value.is_null()) {
        *counts.entry(value.as_str().map_or_else(|| value.to_string(), str::to_owned)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(MAX_LABELS);
    counts
}

/// Adds what a row says to its group.
fn add(group: &mut Group, row: &Row, table: &Table) {
    let judgement = Judgement {
        table: table.name.clone(),
        verdict: columns::pick(row, table, Part::Verdict),
        score: columns::pick(row, table, Part::Score),
        rules: columns::pick(row, table, Part::Rules),
    };
    if !(judgement.verdict.is_empty() && judgement.score.is_empty() && judgement.rules.is_empty()) {
        group.judgements.push(judgement);
    }
    for (part, place) in [(Part::Label, &mut group.labels), (Part::Other, &mut group.other)] {
        for (name, value) in columns::pick(row, table, part) {
            place.entry(name).or_insert(value);
        }
    }
    for name in columns::of(table, Part::Feature) {
        if !group.features.iter().any(|feature| feature.name == name) {
            group.features.push(population::feature(name, row.get(name)));
        }
    }
}

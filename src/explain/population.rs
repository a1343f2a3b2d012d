//! The features of groups beside those of all groups of the same window.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use serde_json::Value;

use super::columns::{self, Part};
use super::distribution::Distribution;
use super::gather::Gather;
use super::report::{Feature, Report};
use crate::history::{Answer, Table, sql};

/// The most groups of a window that are looked at.
const MAX_GROUPS: u64 = 100_000;

/// The most windows whose groups are looked at.
const MAX_WINDOWS: usize = 4;

/// The most features.
const MAX_FEATURES: usize = 300;

/// A feature of which only the value is known.
pub fn feature(name: &str, value: Option<&Value>) -> Feature {
    let value = match value {
        Some(Value::Bool(is)) => Some(f64::from(u8::from(*is))),
        Some(value) => value.as_f64(),
        None => None,
    };
    Feature { name: name.to_owned(), value, rank: None, z: None, usual: None }
}

/// Sets the features of the report's groups beside those of all groups, and puts the most unusual first.
pub fn compare(gather: &Gather<'_>, report: &mut Report) -> Result<(), String> {
    let Some(table) = gather.roles.features.as_ref().filter(|table| table.has("window_start")) else {
        report
            .notes
            .push("no table has all groups (columns window_start, hits, src_ip): features stand alone".to_owned());
        return Ok(());
    };
    let mut names = columns::of(table, Part::Feature);
    if names.len() > MAX_FEATURES {
        report.notes.push(format!("{} has more than {MAX_FEATURES} features: the others stand alone", table.name));
        names.truncate(MAX_FEATURES);
    }
    if report.windows.len() > MAX_WINDOWS {
        report.notes.push(format!("features of the latest {MAX_WINDOWS} windows are compared; the others stand alone"));
    }
    for window in report.windows.iter().take(MAX_WINDOWS).cloned().collect::<Vec<_>>() {
        if names.is_empty() || !report.groups.iter().any(|group| group.window_start.as_ref() == Some(&window)) {
            continue;
        }
        let values = distributions(gather, table, &names, &window, &mut report.notes)?;
        for group in report.groups.iter_mut().filter(|group| group.window_start.as_ref() == Some(&window)) {
            for feature in &mut group.features {
                let Some(distribution) = values.get(feature.name.as_str()) else { continue };
                feature.usual = distribution.summary();
                feature.rank = feature.value.and_then(|value| distribution.rank(value));
                feature.z = feature.value.and_then(|value| distribution.z(value));
            }
        }
    }
    for group in &mut report.groups {
        group.features.sort_by(|a, b| unusual(b).total_cmp(&unusual(a)).then_with(|| a.name.cmp(&b.name)));
    }
    Ok(())
}

/// How unusual a value is. One that differs where all others are equal is beyond every measure.
fn unusual(feature: &Feature) -> f64 {
    match (feature.z, &feature.value, &feature.usual) {
        (Some(z), ..) => z.abs(),
        (None, Some(_), Some(_)) => f64::INFINITY,
        _ => -1.0,
    }
}

/// The values of features in all groups of a window.
fn distributions<'n>(
    gather: &Gather<'_>,
    table: &Table,
    names: &[&'n str],
    window: &str,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<&'n str, Distribution>, String> {
    let mut condition = format!("\"window_start\" = {}", sql::time(window));
    if let Some(baseline) = &gather.wanted.baseline {
        condition.push_str(&format!(" AND ({baseline})"));
    }
    let from = format!("FROM {} WHERE {condition}", sql::name(&table.name));
    let groups = gather.history.ask(&format!("SELECT count(*) {from}"))?.number()?;
    let mut query = String::from("SELECT ");
    for (at, name) in names.iter().enumerate() {
        let name = sql::name(name);
        query.push_str(&format!("{}cast({name} AS double) AS {name}", if at == 0 { "" } else { ", " }));
    }
    query.push_str(&format!(" {from}"));
    if groups > MAX_GROUPS {
        // By the last characters of the address: of every network some.
        query.push_str(&format!(" ORDER BY reverse(\"src_ip\") LIMIT {MAX_GROUPS}"));
        notes.push(format!("of the {groups} groups of {window} features are compared with {MAX_GROUPS}"));
    }
    let answer = gather.history.ask(&query)?;
    if answer.truncated {
        notes.push(format!(
            "of the {groups} groups of {window} features are compared with a part: the service gave no more"
        ));
    }
    Ok(names.iter().map(|name| (*name, Distribution::new(column(&answer, name)))).collect())
}

/// The values of a column that are not null.
fn column(answer: &Answer, name: &str) -> Vec<f64> {
    let columns = answer.batches.iter().filter_map(|batch| batch.column_by_name(name));
    columns
        .filter_map(|column| column.as_primitive_opt::<Float64Type>())
        .flat_map(|column| column.iter().flatten())
        .collect()
}

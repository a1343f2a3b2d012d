//! The hellos of a client: of the table of hellos, or of the requests that carry them.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::gather::{Gather, nanoseconds};
use super::report::{DistinctHello, Report, Shown};
use crate::history::{Row, Table, sql};

/// The most hellos, and the most requests that are looked through for them.
const MAX_HELLOS: usize = 1000;

/// How long before the first window a connection may have begun that requests came on later.
const BEFORE: i64 = 86_400_000_000_000;

/// What tells hellos apart, and what a connection has of its own.
const SAME: [&str; 18] = [
    "ja4",
    "tls_version",
    "tls_sni",
    "tls_alpn",
    "transport",
    "ech",
    "post_quantum",
    "initial_ttl",
    "ip_meta_ttl",
    "ip_meta_df",
    "tcp_meta_window_size",
    "tcp_meta_mss",
    "tcp_meta_window_scale",
    "tcp_meta_options",
    "ja3_hash",
    "ambiguous",
    "hello",
    "sensor_id",
];
const CONNECTION: [&str; 10] = [
    "time",
    "conn_id",
    "src_ip",
    "src_port",
    "dst_ip",
    "dst_port",
    "ip_meta_id",
    "ip_meta_total_length",
    "syn_to_clienthello_ms",
    "ja3",
];

/// Fills in the hellos; all columns of them, the latest first.
pub fn hellos(gather: &Gather<'_>, report: &mut Report, last: Option<&str>) -> Result<Vec<Row>, String> {
    let rows = match (&gather.roles.hellos, &gather.roles.requests) {
        (Some(table), _) => own(gather, table, report, last)?,
        (None, Some(table)) if table.has("ja4") => of_requests(gather, table, report, last)?,
        _ => {
            report.notes.push("no table has hellos (columns ja4, src_ip, src_port)".to_owned());
            Vec::new()
        }
    };
    report.distinct_hellos = distinct(&rows);
    Ok(rows)
}

/// The time a day before the first window.
fn earliest(report: &Report) -> Option<String> {
    let first = nanoseconds(report.windows.last()?)?;
    rfc3339(u64::try_from(first.saturating_sub(BEFORE)).ok()?)
}

fn rfc3339(ns: u64) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(Duration::from_nanos(ns))?;
    Some(humantime::format_rfc3339_nanos(time).to_string())
}

/// Rows of a table of hellos.
fn own(gather: &Gather<'_>, table: &Table, report: &mut Report, last: Option<&str>) -> Result<Vec<Row>, String> {
    let conditions = sql::all(&gather.events(table, earliest(report), last));
    let name = sql::name(&table.name);
    let total = gather.history.ask(&format!("SELECT count(*) FROM {name} WHERE {conditions}"))?.number()?;
    let latest = if table.has("time") { " ORDER BY \"time\" DESC" } else { "" };
    let query = format!("SELECT * FROM {name} WHERE {conditions}{latest} LIMIT {MAX_HELLOS}");
    let rows = gather.history.ask(&query)?.rows()?;
    report.hellos = Shown { total, rows: rows.clone() };
    Ok(rows)
}

/// The hellos that requests were joined with, each once. `b_timestamp` is the hello's time there.
fn of_requests(
    gather: &Gather<'_>,
    table: &Table,
    report: &mut Report,
    last: Option<&str>,
) -> Result<Vec<Row>, String> {
    let mut conditions = gather.events(table, report.windows.last().cloned(), last);
    conditions.push("\"ja4\" IS NOT NULL".to_owned());
    let has = |name: &&&str| table.has(name);
    let mut names: Vec<&str> = CONNECTION.iter().chain(&SAME).filter(has).copied().collect();
    names.extend(["b_timestamp"].iter().filter(|name| table.has(name)));
    let quoted: Vec<String> = names.iter().map(|name| sql::name(name)).collect();
    let latest = if table.has("time") { " ORDER BY \"time\" DESC" } else { "" };
    let query = format!(
        "SELECT {} FROM {} WHERE {}{latest} LIMIT {}",
        quoted.join(", "),
        sql::name(&table.name),
        sql::all(&conditions),
        10 * MAX_HELLOS
    );
    let requests = gather.history.ask(&query)?.rows()?;
    if requests.len() == 10 * MAX_HELLOS {
        report.notes.push(format!("hellos are those of the latest {} requests", 10 * MAX_HELLOS));
    }
    let mut seen: BTreeMap<String, Row> = BTreeMap::new();
    for mut row in requests {
        if let Some(time) = row.remove("b_timestamp").and_then(|ns| ns.as_u64()).and_then(rfc3339) {
            row.insert("time".to_owned(), Value::String(time));
        }
        let part = |name: &str| row.get(name).map(Value::to_string).unwrap_or_default();
        let key = ["time", "conn_id", "src_port", "dst_ip", "dst_port", "ja4"].map(part).join(" ");
        seen.entry(key).or_insert(row);
    }
    let mut rows: Vec<Row> = seen.into_values().collect();
    rows.sort_by_cached_key(|row| std::cmp::Reverse(row.get("time").and_then(Value::as_str).and_then(nanoseconds)));
    report.hellos = Shown { total: rows.len() as u64, rows: Vec::new() };
    rows.truncate(MAX_HELLOS);
    report.hellos.rows = rows.clone();
    Ok(rows)
}

/// Hellos that are the same but for their connection, the most frequent first.
fn distinct(rows: &[Row]) -> Vec<DistinctHello> {
    let mut all: BTreeMap<String, DistinctHello> = BTreeMap::new();
    for row in rows {
        let columns: Row = SAME
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), row.get(*name).filter(|value| !value.is_null())?.clone())))
            .collect();
        let time = row.get("time").and_then(Value::as_str).map(str::to_owned);
        let key = Value::Object(columns.clone()).to_string();
        let hello = all.entry(key).or_insert(DistinctHello { count: 0, first: None, last: time.clone(), columns });
        // The latest come first.
        hello.count += 1;
        hello.first = time;
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by_key(|hello| std::cmp::Reverse(hello.count));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hellos_that_differ_in_their_connection_are_the_same() {
        let row = |time: &str, port: u16, ja4: &str| {
            let value = json!({"time": time, "src_port": port, "ja4": ja4, "tls_sni": null});
            value.as_object().expect("an object").clone()
        };
        let rows = [
            row("2026-11-23T15:00:02Z", 3, "b"),
            row("2026-11-23T15:00:01Z", 2, "a"),
            row("2026-11-23T15:00:00Z", 1, "b"),
        ];
        let found = distinct(&rows);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].count, &found[0].columns["ja4"]), (2, &json!("b")));
        assert_eq!(found[0].first.as_deref(), Some("2026-11-23T15:00:00Z"));
        assert_eq!(found[0].last.as_deref(), Some("2026-11-23T15:00:02Z"));
        assert!(!found[0].columns.contains_key("tls_sni"), "null says nothing");
    }
}

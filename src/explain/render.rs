//! A report as text. Whatever comes from the network is made visible, and cut where it is long.

use std::fmt::Write;

use serde_json::Value;

use super::report::{Feature, Group, Report};
use crate::history::Row;
use crate::history::text::{figures, shortened, shown, visible};

/// How much of a report is shown.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The most features of a group.
    pub features: usize,
    /// The most requests.
    pub requests: usize,
}

/// The most groups and kinds of hellos.
const MOST: usize = 10;

/// The most characters of a value.
const WIDE: usize = 300;

/// The most characters of a reason.
const LONG: usize = 3000;

/// The text.
pub fn render(report: &Report, extent: Extent) -> String {
    let mut out = String::new();
    // Writing to memory does not fail.
    let _ = head(&mut out, report);
    for group in report.groups.iter().take(MOST) {
        let _ = of_group(&mut out, group, extent.features);
    }
    if report.groups.len() > MOST {
        let _ = writeln!(out, "\n… {} groups more: --format json shows them", report.groups.len() - MOST);
    }
    let _ = labels(&mut out, report);
    let _ = requests(&mut out, report, extent.requests);
    let _ = hellos(&mut out, report);
    if !report.notes.is_empty() {
        out.push_str("\nNOTES\n");
        report.notes.iter().for_each(|note| out.push_str(&format!("  {}\n", visible(note))));
    }
    out
}

fn head(out: &mut String, report: &Report) -> std::fmt::Result {
    let of = report.pipeline.as_deref().map(|name| format!(" (pipeline {})", visible(name))).unwrap_or_default();
    writeln!(out, "{}, by {}{of}", visible(&report.client), visible(&report.origin))?;
    match report.windows.as_slice() {
        [] => writeln!(out, "in no window of the tables of groups")?,
        windows => writeln!(
            out,
            "{} of {} windows: {}",
            windows.len(),
            windows.len() + report.other_windows,
            windows.join(", ")
        )?,
    }
    Ok(())
}

fn or_none(text: &Option<String>) -> String {
    text.as_deref().map_or_else(|| "-".to_owned(), |text| shortened(text, WIDE))
}

fn columns(out: &mut String, row: &Row) -> std::fmt::Result {
    for (name, value) in row {
        writeln!(out, "    {:<24} {}", visible(name), shown(value, LONG))?;
    }
    Ok(())
}

fn of_group(out: &mut String, group: &Group, most: usize) -> std::fmt::Result {
    let (host, address, ja4) = (or_none(&group.host), or_none(&group.src_ip), or_none(&group.ja4));
    writeln!(out, "\nGROUP {address} at {host} with {ja4}, window {}", or_none(&group.window_start))?;
    if group.judgements.is_empty() {
        writeln!(out, "  not flagged")?;
    }
    /// A part of a judgement, and its title.
    type Part = (&'static str, fn(&super::report::Judgement) -> &Row);
    let parts: [Part; 3] = [("verdict", |j| &j.verdict), ("score", |j| &j.score), ("rules", |j| &j.rules)];
    let [verdict, score, rules] = parts;
    for (title, part) in [verdict, score] {
        judgements(out, group, title, part)?;
    }
    let compared = group.features.iter().find_map(|feature| Some(feature.usual?.groups));
    let beside = compared.map_or_else(String::new, |groups| format!(", beside {groups} groups of the window"));
    writeln!(out, "  features{beside}, the most unusual first")?;
    writeln!(
        out,
        "    {:<28} {:>10} {:>6}  {:>10} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "", "value", "below", "5%", "25%", "median", "75%", "95%", "z"
    )?;
    for feature in group.features.iter().filter(|feature| feature.value.is_some()).take(most) {
        of_feature(out, feature)?;
    }
    judgements(out, group, rules.0, rules.1)?;
    if !group.labels.is_empty() {
        writeln!(out, "  labels")?;
        columns(out, &group.labels)?;
    }
    Ok(())
}

fn judgements(
    out: &mut String,
    group: &Group,
    title: &str,
    part: fn(&super::report::Judgement) -> &Row,
) -> std::fmt::Result {
    for judgement in group.judgements.iter().filter(|judgement| !part(judgement).is_empty()) {
        writeln!(out, "  {title} ({})", visible(&judgement.table))?;
        columns(out, part(judgement))?;
    }
    Ok(())
}

fn of_feature(out: &mut String, feature: &Feature) -> std::fmt::Result {
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), figures);
    let usual = |part: fn(&super::distribution::Summary) -> f64| number(feature.usual.as_ref().map(part));
    let below = feature.rank.map_or_else(|| "-".to_owned(), |rank| format!("{:.0}%", rank * 100.0));
    writeln!(
        out,
        "    {:<28} {:>10} {below:>6}  {:>10} {:>10} {:>10} {:>10} {:>10} {:>8}",
        visible(&feature.name),
        number(feature.value),
        usual(|s| s.p05),
        usual(|s| s.p25),
        usual(|s| s.median),
        usual(|s| s.p75),
        usual(|s| s.p95),
        feature.z.map_or_else(|| "-".to_owned(), |z| format!("{z:+.1}"))
    )
}

fn labels(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.labels.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nLABELS of the latest requests")?;
    for (name, values) in &report.labels {
        let values: Vec<String> =
            values.iter().map(|(value, count)| format!("{} ({count})", shortened(value, 100))).collect();
        writeln!(out, "  {:<26} {}", visible(name), values.join(", "))?;
    }
    Ok(())
}

fn requests(out: &mut String, report: &Report, most: usize) -> std::fmt::Result {
    let shown_rows = report.requests.rows.len().min(most);
    writeln!(out, "\nREQUESTS {shown_rows} of {}, the latest first", report.requests.total)?;
    for row in report.requests.rows.iter().take(most) {
        let cell = |name: &str| row.get(name).map_or_else(|| "-".to_owned(), |value| shown(value, WIDE));
        let query = row.get("query").and_then(Value::as_str).filter(|query| !query.is_empty());
        let query = query.map(|query| format!("?{}", shortened(query, WIDE))).unwrap_or_default();
        writeln!(
            out,
            "  {}  {} {}{}{query}  {}  \"{}\"",
            cell("time"),
            cell("method"),
            cell("host"),
            cell("path"),
            cell("status_code"),
            cell("header_user_agent").replace('"', "\\\"")
        )?;
    }
    Ok(())
}

fn hellos(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "\nHELLOS {} of {} looked at, by kind", report.hellos.rows.len(), report.hellos.total)?;
    for hello in report.distinct_hellos.iter().take(MOST) {
        writeln!(out, "  {} times, {} to {}", hello.count, or_none(&hello.first), or_none(&hello.last))?;
        columns(out, &hello.columns)?;
    }
    if report.distinct_hellos.len() > MOST {
        writeln!(out, "  … {} kinds more", report.distinct_hellos.len() - MOST)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::report::{Judgement, Shown};
    use super::*;

    #[test]
    fn nothing_of_the_network_reaches_the_terminal_as_it_is() {
        let evil = "a\u{1b}]0;owned\u{7}\r\nVERDICT none\u{202e}";
        let row = json!({"time": evil, "method": evil, "host": evil, "path": evil, "query": evil, "header_user_agent": evil,
            "reason": evil, evil: evil});
        let row = row.as_object().expect("an object").clone();
        let judgement =
            Judgement { table: evil.to_owned(), verdict: row.clone(), score: row.clone(), rules: row.clone() };
        let of = Some(evil.to_owned());
        let report = Report {
            client: evil.to_owned(),
            origin: evil.to_owned(),
            pipeline: of.clone(),
            groups: vec![Group {
                window_start: of.clone(),
                host: of.clone(),
                src_ip: of.clone(),
                ja4: of.clone(),
                judgements: vec![judgement],
                labels: row.clone(),
                ..Group::default()
            }],
            labels: [(evil.to_owned(), vec![(evil.to_owned(), 1)])].into(),
            requests: Shown { total: 1, rows: vec![row.clone()] },
            distinct_hellos: vec![super::super::report::DistinctHello {
                count: 1,
                first: of.clone(),
                last: of,
                columns: row,
            }],
            notes: vec![evil.to_owned()],
            ..Report::default()
        };
        let text = render(&report, Extent { features: 5, requests: 5 });
        assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{text}");
        assert!(!text.contains("\nVERDICT none"));
        assert!(text.contains("a\\u{1b}]0;owned\\u{7}\\r\\nVERDICT"));
    }
}

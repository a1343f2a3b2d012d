//! The prefixes that makers of crawlers publish: JSON with `creationTime` and a list `prefixes` of `ipv4Prefix` or `ipv6Prefix`.
//! They become rows of the file of crawlers, which has those of all.

use std::net::IpAddr;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDate, Utc};
use ipnet::IpNet;

/// The columns of the file.
const COLUMNS: [&str; 4] = ["prefix", "crawler", "agent", "date"];

/// The most prefixes of one crawler.
const MOST_PREFIXES: usize = 100_000;

#[derive(serde::Deserialize)]
struct Published {
    #[serde(rename = "creationTime", default)]
    created: Option<String>,
    prefixes: Vec<Prefix>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prefix {
    ipv4_prefix: Option<String>,
    ipv6_prefix: Option<String>,
}

/// What a maker publishes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prefixes {
    pub networks: Vec<IpNet>,
    /// When the list was made, if it says so.
    pub day: Option<NaiveDate>,
}

/// Reads a list.
///
/// # Errors
/// The place of what is wrong.
pub(super) fn read(content: &[u8]) -> Result<Prefixes, String> {
    let published: Published =
        serde_json::from_slice(content).map_err(|error| format!("line {}: {error}", error.line()))?;
    if published.prefixes.is_empty() || published.prefixes.len() > MOST_PREFIXES {
        return Err(format!("the list has {} prefixes; it may have 1 to {MOST_PREFIXES}", published.prefixes.len()));
    }
    let mut networks = Vec::with_capacity(published.prefixes.len());
    for (nth, prefix) in published.prefixes.iter().enumerate() {
        let texts = [&prefix.ipv4_prefix, &prefix.ipv6_prefix];
        let ([Some(text), None] | [None, Some(text)]) = texts.map(Option::as_deref) else {
            return Err(format!("prefix {}: it has not just one of `ipv4Prefix` and `ipv6Prefix`", nth + 1));
        };
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        networks.push(network.map_err(|_| format!("prefix {}: `{text}` is no network", nth + 1))?.trunc());
    }
    networks.sort();
    networks.dedup();
    let day = published.created.as_deref().and_then(|time| NaiveDate::parse_from_str(time.get(..10)?, "%Y-%m-%d").ok());
    Ok(Prefixes { networks, day })
}

/// The day of a time.
pub(super) fn day(time: SystemTime) -> NaiveDate {
    DateTime::<Utc>::from(time).date_naive()
}

/// A crawler: its name, and the texts by which User-Agents name it.
pub(super) type Crawler<'a> = (&'a str, &'a [&'a str]);

/// The file of crawlers with other networks of one of them; those of others stay.
///
/// # Errors
/// If the file that there is cannot be read.
pub(super) fn merge(
    before: Option<&[u8]>,
    (crawler, agents): Crawler<'_>,
    networks: &[IpNet],
    day: NaiveDate,
) -> Result<Vec<u8>, String> {
    let mut rows = match before {
        Some(before) => others(before, crawler).map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    // A row has one text; the first network is repeated for the others.
    for (nth, network) in networks.iter().enumerate() {
        let texts = if nth == 0 { agents } else { &agents[..agents.len().min(1)] };
        rows.extend(texts.iter().map(|text| [network.to_string(), crawler.into(), (*text).into(), day.to_string()]));
    }
    let write = || -> Result<Vec<u8>, csv::Error> {
        let mut out = csv::Writer::from_writer(Vec::new());
        out.write_record(COLUMNS)?;
        rows.iter().try_for_each(|row| out.write_record(row))?;
        out.into_inner().map_err(|error| csv::Error::from(error.into_error()))
    };
    write().map_err(|error| error.to_string())
}

/// The rows of other crawlers.
fn others(content: &[u8], crawler: &str) -> Result<Vec<[String; 4]>, csv::Error> {
    let mut reader = csv::Reader::from_reader(content);
    let header = reader.headers()?.clone();
    let at = COLUMNS.map(|name| header.iter().position(|column| column.trim() == name));
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let row = at.map(|at| at.and_then(|at| record.get(at)).unwrap_or_default().trim().to_owned());
        if row[1] != crawler {
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::inspect::List;

    const LIST: &str = r#"{"creationTime": "2026-08-10T14:46:09.000000", "prefixes": [
        {"ipv6Prefix": "2001:db8::/32"}, {"ipv4Prefix": "192.0.2.0/27"}, {"ipv4Prefix": "192.0.2.7"}, {"ipv4Prefix": "192.0.2.1/27"}]}"#;

    #[test]
    fn lists_as_they_are_published() {
        let list = read(LIST.as_bytes()).expect("valid");
        let shown: Vec<String> = list.networks.iter().map(IpNet::to_string).collect();
        assert_eq!(shown, ["192.0.2.0/27", "192.0.2.7/32", "2001:db8::/32"]);
        assert_eq!(list.day.map(|day| day.to_string()).as_deref(), Some("2026-08-10"));
        for (wrong, says) in [
            ("", "line 1"),
            ("{\"prefixes\": []}", "has 0 prefixes"),
            ("{\"prefixes\": [{}]}", "prefix 1: it has not just one"),
            ("{\"prefixes\": [{\"ipv4Prefix\": \"1.2.3.4/24,x\"}]}", "prefix 1: `1.2.3.4/24,x` is no network"),
            ("<html>", "line 1"),
        ] {
            let why = read(wrong.as_bytes()).expect_err("refused");
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn rows_of_other_crawlers_stay() {
        let networks = read(LIST.as_bytes()).expect("valid").networks;
        let day = NaiveDate::from_ymd_opt(2026, 8, 10).expect("a day");
        let merged =
            |before: Option<&[u8]>, crawler: Crawler<'_>| merge(before, crawler, &networks, day).expect("made");
        let one = merged(None, ("One", &["OneBot", "One-Images"]));
        let both = merged(Some(&one), ("Two, too", &["TwoBot"]));
        let text = String::from_utf8(both.clone()).expect("text");
        assert!(text.starts_with("prefix,crawler,agent,date\n192.0.2.0/27,One,OneBot,2026-08-10\n"), "{text}");
        assert!(text.contains("192.0.2.0/27,One,One-Images,") && text.contains(",\"Two, too\",TwoBot,"), "{text}");
        assert_eq!(merged(Some(&both), ("Two, too", &["TwoBot"])), both, "again it is the same");
        let about = List::of(&both).read(&both).expect("read by enrich.bots");
        assert_eq!((about.entries, about.made.map(super::day)), (3, Some(day)));
        let old = b"crawler,prefix\nOther,198.51.100.0/24\n";
        let text = String::from_utf8(merged(Some(old), ("One", &["OneBot"]))).expect("text");
        assert!(text.contains("\n198.51.100.0/24,Other,,\n"), "{text}");
        assert!(merge(Some(b"a,b\nc\n"), ("One", &[]), &networks, day).is_err());
    }
}

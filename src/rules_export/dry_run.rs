//! Whom entries would have hit in what is stored: groups that were flagged, and others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::entity::{self, Entity};
use super::entries::Entry;
use crate::history::roles::{JUDGEMENT, Roles};
use crate::history::text::{shortened, visible};
use crate::history::{History, Row, Table, sql};

/// The most values of one query, which has at most 64 KiB.
const CHUNK: usize = 500;

/// How many others are named.
const NAMED: usize = 10;

/// The levels of a threat. Others (`NORMAL`, `LEGITIMATE_BROWSER`, `VERIFIED_BOT`, `KNOWN_BOT` …) are of clients that one may want.
const THREATS: [&str; 5] = ["LOW", "MEDIUM", "HIGH", "CRITICAL", "ANUBIS_DENY"];

/// A group: one client at one host, over all windows.
type Group = (String, Option<String>, Option<String>);

/// What was done by a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Done {
    requests: u64,
    last: String,
}

/// Whom entries would have hit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    groups: BTreeMap<Group, Done>,
    flagged: BTreeSet<Group>,
    /// Entries, and those that would have hit nobody.
    entries: (usize, usize),
    notes: Vec<String>,
}

/// Looks whom entries would have hit since a time in RFC 3339, or ever.
///
/// # Errors
/// If there is no table of groups or requests, or one cannot be asked.
pub fn dry_run(history: &History, roles: &Roles, entries: &[Entry], since: Option<&str>) -> Result<Hits, String> {
    let table = roles.features.as_ref().or(roles.requests.as_ref());
    let table = table.ok_or("no table has groups or requests: a dry run needs one (--table features=NAME)")?;
    let mut hits = Hits::default();
    let index = Index::new(entries);
    let mut used = BTreeSet::new();
    if roles.judgements.is_empty() {
        hits.notes.push("no table says who was flagged (columns threat_level or verdict)".to_owned());
    }
    for condition in conditions(entries) {
        for row in ask(history, table, &condition, since, &mut hits.notes, all_groups(table))? {
            let requests = row.get("requests").and_then(Value::as_u64).unwrap_or(0);
            let last = row.get("last").and_then(Value::as_str).unwrap_or("-").to_owned();
            let Some(group) = group(&row) else { continue };
            let of = index.of(&group);
            if !of.is_empty() {
                used.extend(of);
                hits.groups.insert(group, Done { requests, last });
            }
        }
        for table in deciding(roles) {
            let flagged = format!("{condition} AND {}", is_threat(table));
            let rows = ask(history, table, &flagged, since, &mut hits.notes, only_keys(table))?;
            hits.flagged.extend(rows.iter().filter_map(group));
        }
    }
    hits.entries = (entries.len(), entries.len() - used.len());
    Ok(hits)
}

/// Conditions for rows of clients among the entries, or nearly: by address, and by JA4 where there is no address.
fn conditions(entries: &[Entry]) -> Vec<String> {
    let mut networks: BTreeMap<(bool, u8), Vec<String>> = BTreeMap::new();
    let mut prints = Vec::new();
    for entry in entries {
        match (&entry.entity.network, &entry.entity.ja4) {
            (Some(network), _) => {
                let kind = (matches!(network, IpNet::V4(_)), network.prefix_len());
                networks.entry(kind).or_default().push(network.to_string());
            }
            (None, Some(ja4)) => prints.push(ja4.clone()),
            (None, None) => {}
        }
    }
    let mut conditions = Vec::new();
    for ((is_v4, bits), mut networks) in networks {
        networks.sort_unstable();
        networks.dedup();
        let (v4, v6) = if is_v4 { (bits, 128) } else { (32, bits) };
        for chunk in networks.chunks(CHUNK) {
            let list: Vec<String> = chunk.iter().map(|network| sql::text(network)).collect();
            conditions.push(format!("ip_prefix(\"src_ip\", {v4}, {v6}) IN ({})", list.join(", ")));
        }
    }
    conditions.extend(prints.chunks(CHUNK).map(|chunk| sql::among("ja4", chunk.iter().map(String::as_str))));
    conditions
}

/// The columns that tell groups apart, as far as there are.
fn keys(table: &Table) -> Vec<String> {
    ["src_ip", "host", "ja4"].into_iter().filter(|name| table.has(name)).map(sql::name).collect()
}

fn only_keys(table: &Table) -> (String, String) {
    let keys = keys(table).join(", ");
    (keys.clone(), keys)
}

/// What is selected, and by what it is grouped.
fn all_groups(table: &Table) -> (String, String) {
    let keys = keys(table).join(", ");
    let requests = if table.has("hits") { "sum(\"hits\")" } else { "count(*)" };
    let last = time(table).map_or("null".to_owned(), |time| format!("max({})", sql::name(time)));
    (format!("{keys}, {requests} AS \"requests\", {last} AS \"last\""), keys)
}

fn time(table: &Table) -> Option<&'static str> {
    ["window_start", "time", "detected_at"].into_iter().find(|name| table.has(name))
}

fn ask(
    history: &History,
    table: &Table,
    condition: &str,
    since: Option<&str>,
    notes: &mut Vec<String>,
    (selected, keys): (String, String),
) -> Result<Vec<Row>, String> {
    let since = since.zip(time(table)).map(|(since, time)| format!(" AND {} >= {}", sql::name(time), sql::time(since)));
    let query = format!(
        "SELECT {selected} FROM {} WHERE {condition}{} GROUP BY {keys}",
        sql::name(&table.name),
        since.unwrap_or_default()
    );
    let answer = history.ask(&query)?;
    let note = format!("{} has more groups than were counted: narrow the query", table.name);
    if answer.truncated && !notes.contains(&note) {
        notes.push(note);
    }
    answer.rows()
}

/// The tables that say who was flagged. A verdict weighs levels, scores and lists: where there is one, it alone counts.
fn deciding(roles: &Roles) -> Vec<&Table> {
    let with_verdict: Vec<&Table> = roles.judgements.iter().filter(|table| table.has("verdict")).collect();
    if with_verdict.is_empty() { roles.judgements.iter().collect() } else { with_verdict }
}

/// The condition for rows that were flagged, by the first column that decides.
fn is_threat(table: &Table) -> String {
    match JUDGEMENT.iter().find(|name| table.has(name)) {
        None | Some(&"anomaly_score") => "\"anomaly_score\" < 0".to_owned(),
        Some(level) => sql::among(level, THREATS),
    }
}

fn group(row: &Row) -> Option<Group> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    Some((text("src_ip")?, text("host"), text("ja4")))
}

/// Entries by their network: of a group only those of its address are looked at.
struct Index<'e> {
    networks: HashMap<Option<IpNet>, Vec<(usize, &'e Entity)>>,
    /// The lengths of prefixes that there are.
    bits: BTreeSet<u8>,
}

impl<'e> Index<'e> {
    fn new(entries: &'e [Entry]) -> Self {
        let mut networks: HashMap<_, Vec<_>> = HashMap::new();
        for (nth, entry) in entries.iter().enumerate() {
            networks.entry(entry.entity.network).or_default().push((nth, &entry.entity));
        }
        let bits = networks.keys().flatten().map(IpNet::prefix_len).collect();
        Self { networks, bits }
    }

    /// The numbers of the entries that a group is of.
    fn of(&self, group: &Group) -> Vec<usize> {
        let address = group.0.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let network = |bits: &u8| IpNet::new(address?, *bits).ok().map(|network| network.trunc());
        let networks = self.bits.iter().filter_map(network).map(Some).chain([None]);
        let near = networks.filter_map(|network| self.networks.get(&network)).flatten();
        near.filter(|(_, entity)| entity.ja4.is_none() || entity.ja4 == group.2).map(|(nth, _)| *nth).collect()
    }
}

impl Hits {
    /// What is to be said of it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let (flagged, others): (Vec<_>, Vec<_>) =
            self.groups.iter().partition(|(group, _)| self.flagged.contains(group));
        let sum = |groups: &[(&Group, &Done)]| groups.iter().map(|(_, done)| done.requests).sum::<u64>();
        // Writing to memory does not fail.
        let _ = writeln!(
            out,
            "would have hit {} flagged groups ({} requests) and {} others ({} requests)",
            flagged.len(),
            sum(&flagged),
            others.len(),
            sum(&others)
        );
        let (all, unused) = self.entries;
        let _ = writeln!(
            out,
            "{unused} of {all} entries would have hit nobody; a group is an address with a JA4 at a host"
        );
        let mut others = others;
        others.sort_by_key(|(_, done)| std::cmp::Reverse(done.requests));
        if !others.is_empty() {
            let _ = writeln!(out, "others with the most requests:");
        }
        for ((address, host, ja4), done) in others.iter().take(NAMED) {
            let or_none = |text: &Option<String>| match text.as_deref() {
                None => "-".to_owned(),
                Some("") => "\"\"".to_owned(),
                Some(text) => shortened(text, 100),
            };
            let _ = writeln!(
                out,
                "  {:>9} requests  {}  {}  {}  last {}",
                done.requests,
                visible(address),
                or_none(host),
                or_none(ja4),
                visible(&done.last)
            );
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {}", visible(note));
        }
        out
    }
}

/// The addresses of servers that requests went to.
///
/// # Errors
/// If the table cannot be asked.
pub fn servers(history: &History, roles: &Roles) -> Result<Vec<IpNet>, String> {
    let Some(table) = roles.requests.as_ref().filter(|table| table.has("dst_ip")) else { return Ok(Vec::new()) };
    let query = format!("SELECT DISTINCT \"dst_ip\" FROM {} LIMIT 1000", sql::name(&table.name));
    let rows = history.ask(&query)?.rows()?;
    Ok(rows.iter().filter_map(|row| entity::network(row.get("dst_ip")?.as_str()?).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(network: &str, ja4: Option<&str>) -> Entry {
        let network = Some(entity::network(network).expect("a network"));
        Entry { entity: Entity { network, ja4: ja4.map(str::to_owned) }, reason: String::new() }
    }

    #[test]
    fn conditions_are_by_length_of_prefix() {
        let entries = [
            entry("203.0.113.9", None),
            entry("203.0.113.9", Some("x")),
            entry("198.51.100.0/24", None),
            entry("2001:db8::/64", None),
        ];
        assert_eq!(
            conditions(&entries),
            [
                "ip_prefix(\"src_ip\", 32, 64) IN ('2001:db8::/64')",
                "ip_prefix(\"src_ip\", 24, 128) IN ('198.51.100.0/24')",
                "ip_prefix(\"src_ip\", 32, 128) IN ('203.0.113.9/32')",
            ]
        );
        let many: Vec<Entry> =
            (0..=255).flat_map(|a| (0..3).map(move |b| entry(&format!("203.0.{b}.{a}"), None))).collect();
        assert_eq!(conditions(&many).len(), 2);
        assert!(conditions(&many).iter().all(|condition| condition.len() < 32 << 10));
    }

    #[test]
    fn a_verdict_decides_where_there_is_one() {
        let table = |name: &str, columns: &[&str]| -> Table {
            let columns: Vec<_> =
                columns.iter().map(|name| serde_json::json!({"name": name, "type": "Utf8"})).collect();
            serde_json::from_value(serde_json::json!({"name": name, "columns": columns})).expect("a table")
        };
        let rules = table("rules", &["src_ip", "threat_level"]);
        let verdicts = table("verdicts", &["src_ip", "threat_level", "verdict"]);
        let scores = table("scores", &["src_ip", "anomaly_score"]);
        let names = |judgements: &[&Table]| {
            let roles =
                Roles { judgements: judgements.iter().map(|table| (*table).clone()).collect(), ..Roles::default() };
            deciding(&roles).iter().map(|table| table.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[&rules, &verdicts, &scores]), ["verdicts"]);
        assert_eq!(names(&[&rules, &scores]), ["rules", "scores"]);
        assert!(is_threat(&verdicts).starts_with("\"verdict\" IN ("));
        assert!(is_threat(&rules).starts_with("\"threat_level\" IN ("));
        assert_eq!(is_threat(&scores), "\"anomaly_score\" < 0");
    }

    #[test]
    fn a_group_is_hit_by_address_and_fingerprint() {
        let mut entries = vec![
            entry("203.0.113.0/24", None),
            entry("203.0.113.9", Some("x")),
            entry("203.0.113.9", Some("y")),
            entry("203.0.113.8", None),
            entry("2001:db8::/64", None),
        ];
        entries.push(Entry { entity: Entity { network: None, ja4: Some("x".to_owned()) }, reason: String::new() });
        let index = Index::new(&entries);
        let of = |address: &str, ja4: Option<&str>| {
            let mut of = index.of(&(address.to_owned(), None, ja4.map(str::to_owned)));
            of.sort_unstable();
            of
        };
        assert_eq!(of("::ffff:203.0.113.9", Some("x")), [0, 1, 5]);
        assert_eq!(of("203.0.113.8", None), [0, 3]);
        assert_eq!(of("2001:db8::7", Some("z")), [4]);
        assert_eq!(of("no address", Some("x")), [5]);
        assert!(of("198.51.100.1", None).is_empty());
    }

    #[test]
    fn others_are_named() {
        let group = |address: &str| (address.to_owned(), Some("a\n".to_owned()), None);
        let done = |requests| Done { requests, last: "-".to_owned() };
        let hits = Hits {
            groups: [(group("203.0.113.9"), done(5)), (group("203.0.113.8"), done(7))].into(),
            flagged: [group("203.0.113.9")].into(),
            entries: (3, 1),
            notes: Vec::new(),
        };
        let text = hits.text();
        assert!(
            text.starts_with("would have hit 1 flagged groups (5 requests) and 1 others (7 requests)\n1 of 3 entries"),
            "{text}"
        );
        assert!(text.contains("7 requests  203.0.113.8  a\\n  -"), "{text}");
    }
}

//! From the rows of a query to entries: checked, each client once, and not more than a bound.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use ipnet::IpNet;

use super::entity::{self, Entity, Guard, is_single};
use crate::history::Row;
use crate::history::text::shown;

/// By what clients are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The column `src_ip`: an address or, by `ip_prefix`, a network.
    #[default]
    Address,
    /// The columns `src_ip` and `ja4`: both must be so.
    AddressAndJa4,
    /// The column `ja4` alone: everybody who has the program.
    Ja4,
}

/// A client with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is for.
    pub entity: Entity,
    /// Why, in plain characters: see [`plain`].
    pub reason: String,
}

/// What became of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// In order of network and JA4, each client once.
    pub entries: Vec<Entry>,
    /// How many rows were refused, by reason, with the first of them.
    pub refused: BTreeMap<&'static str, (usize, String)>,
    /// Addresses that are within a network of another entry.
    pub within: usize,
}

/// The most characters of a reason: nftables takes 128 bytes for a comment, other text included.
const MAX_REASON: usize = 100;

/// The columns of which the first that is there is the reason.
const REASONS: [&str; 5] = ["reason", "verdict_reasons", "anomaly_reason", "rules", "threat_level"];

/// Entries of rows, with what must not be one left out.
///
/// # Errors
/// If a column is missing, or the entries are more than `most`.
pub fn entries(rows: &[Row], columns: &[String], by: By, guard: &Guard, most: usize) -> Result<Entries, String> {
    for (name, needed) in [("src_ip", by != By::Ja4), ("ja4", by != By::Address)] {
        if needed && !columns.iter().any(|column| column == name) {
            return Err(format!("the query gives no column `{name}`: SELECT src_ip, reason FROM … WHERE …"));
        }
    }
    let mut found: BTreeMap<Entity, String> = BTreeMap::new();
    let mut all = Entries::default();
    for row in rows {
        match read(row, by, guard) {
            Ok(entity) => drop(found.entry(entity).or_insert_with(|| reason(row))),
            Err(why) => {
                let of = |name: &str| row.get(name).map(|value| shown(value, 100)).unwrap_or_default();
                let first = if by == By::Ja4 { of("ja4") } else { of("src_ip") };
                all.refused.entry(why).or_insert((0, first)).0 += 1;
            }
        }
    }
    let networks: BTreeSet<IpNet> = found.keys().filter(|e| e.ja4.is_none()).filter_map(|e| e.network).collect();
    let before = found.len();
    found.retain(|entity, _| {
        entity.ja4.is_some() || !entity.network.is_some_and(|network| is_within(&network, &networks))
    });
    all.within = before - found.len();
    if found.len() > most {
        return Err(format!(
            "the query gives {} clients, more than {most}: narrow it, take networks (ip_prefix(src_ip, 24, 64) AS src_ip), or \
             raise --max-entries",
            found.len()
        ));
    }
    all.entries = found.into_iter().map(|(entity, reason)| Entry { entity, reason }).collect();
    Ok(all)
}

/// Whether another network of the list contains this one.
fn is_within(network: &IpNet, all: &BTreeSet<IpNet>) -> bool {
    let mut wider = network.supernet();
    while let Some(next) = wider {
        if all.contains(&next) {
            return true;
        }
        wider = next.supernet();
    }
    false
}

fn read(row: &Row, by: By, guard: &Guard) -> Result<Entity, &'static str> {
    let text = |name: &str| row.get(name).and_then(|value| value.as_str());
    let network = || {
        let network = entity::network(text("src_ip").ok_or("no address")?)?;
        guard.refuses(&network).map_or(Ok(network), Err)
    };
    let ja4 = || entity::ja4(text("ja4").ok_or("no JA4")?);
    Ok(match by {
        By::Address => Entity { network: Some(network()?), ja4: None },
        By::Ja4 => Entity { network: None, ja4: Some(ja4()?) },
        By::AddressAndJa4 => Entity {
            network: Some(network()?)
                .filter(is_single)
                .map_or(Err("a network, which goes with no JA4"), |n| Ok(Some(n)))?,
            ja4: Some(ja4()?),
        },
    })
}

fn reason(row: &Row) -> String {
    let reason = REASONS.iter().find_map(|name| row.get(*name).filter(|value| !value.is_null()));
    plain(&reason.map_or_else(|| "no reason given".to_owned(), |reason| shown(reason, 1000)), MAX_REASON)
}

/// Text in which nothing means anything to any of the formats: letters, digits and a few signs of ASCII; all else is `_`. Reasons
/// have values in them that clients have sent.
pub fn plain(text: &str, most: usize) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " .,:%()=/+-_".contains(c);
    let mut out: String = text.chars().map(|c| if is_plain(c) { c } else { '_' }).take(most).collect();
    if text.chars().nth(most).is_some() {
        out.truncate(most.saturating_sub(3));
        out.push_str("...");
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rows(values: &[serde_json::Value]) -> Vec<Row> {
        values.iter().map(|value| value.as_object().expect("an object").clone()).collect()
    }

    fn columns(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_client_is_there_once_and_ours_are_not() {
        let rows = rows(&[
            json!({"src_ip": "203.0.113.9", "reason": "first"}),
            json!({"src_ip": "203.0.113.9", "reason": "second"}),
            json!({"src_ip": "198.51.100.0/24", "reason": null, "threat_level": "HIGH"}),
            json!({"src_ip": "198.51.100.7", "reason": "in it"}),
            json!({"src_ip": "10.0.0.1"}),
            json!({"src_ip": "x\n"}),
            json!({"src_ip": null}),
        ]);
        let all = entries(&rows, &columns(&["src_ip"]), By::Address, &Guard::default(), 10).expect("entries");
        let shown: Vec<_> = all.entries.iter().map(|entry| (entry.entity.to_string(), entry.reason.as_str())).collect();
        assert_eq!(shown, [("198.51.100.0/24".to_owned(), "HIGH"), ("203.0.113.9".to_owned(), "first")]);
        assert_eq!(all.within, 1);
        let refused: Vec<_> = all.refused.values().map(|(count, first)| (*count, first.as_str())).collect();
        assert_eq!(refused.len(), 3);
        assert!(refused.contains(&(1, "10.0.0.1")) && refused.contains(&(1, "x\\n")), "{refused:?}");
        let fault = entries(&rows, &columns(&["src_ip"]), By::Address, &Guard::default(), 1).expect_err("too many");
        assert!(fault.contains("2 clients, more than 1"), "{fault}");
        let fault = entries(&rows, &columns(&["ip"]), By::Address, &Guard::default(), 1).expect_err("a column");
        assert!(fault.contains("`src_ip`"), "{fault}");
    }

    #[test]
    fn a_fingerprint_alone_or_with_its_address() {
        let print = "t13d1516h2_8daaf6152771_b186095e22b6";
        let rows = rows(&[
            json!({"src_ip": "203.0.113.9", "ja4": print}),
            json!({"src_ip": "203.0.113.8", "ja4": print}),
            json!({"src_ip": "203.0.113.8", "ja4": null}),
            json!({"src_ip": "203.0.113.0/24", "ja4": print}),
        ]);
        let names = columns(&["src_ip", "ja4"]);
        let count =
            |by| entries(&rows, &names, by, &Guard::default(), 10).map(|all| (all.entries.len(), all.refused.len()));
        assert_eq!(count(By::Ja4), Ok((1, 1)));
        assert_eq!(count(By::AddressAndJa4), Ok((2, 2)));
    }

    proptest! {
        #[test]
        fn plain_text_means_nothing(text in "\\PC*|[\\x00-\\x7f]*", most in 3usize..200) {
            let out = plain(&text, most);
            prop_assert!(out.len() <= most);
            prop_assert!(out.bytes().all(|b| b.is_ascii_alphanumeric() || b" .,:%()=/+-_".contains(&b)), "{}", out);
        }
    }
}

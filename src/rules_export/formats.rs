//! The formats. What stands in them is checked before it comes here: addresses and JA4s are parsed, reasons are plain text
//! ([`plain`](super::entries::plain)). So nothing of it can end a comment, a string or a line.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use serde_json::json;

use super::entity::{is_single, written};
use super::entries::{By, Entry};
use crate::history::text::shortened;

/// A program that rules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A script for `nft -f`: two sets with timeouts.
    Nftables,
    /// A list for `acl … -f`.
    Haproxy,
    /// A file that a `geo` block (by JA4 a `map` block) includes.
    Nginx,
    /// A policy file that a policy of Anubis imports.
    Anubis,
    /// JSON for `cscli decisions import`.
    Crowdsec,
}

/// What Anubis does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Refuses it.
    #[default]
    Deny,
    /// Lets the browser compute first.
    Challenge,
}

/// What a file says besides its entries.
#[derive(Clone, Debug)]
pub struct About {
    /// When it is made.
    pub made: SystemTime,
    /// How long entries last.
    pub ttl: Duration,
    /// Where the rows come from.
    pub origin: String,
    /// What was asked.
    pub query: String,
    /// By what clients are told apart.
    pub by: By,
    /// The request header that has the JA4, for Anubis.
    pub ja4_header: String,
    /// For Anubis.
    pub action: Action,
}

/// The name of the table in nftables.
const TABLE: &str = "inet ja4_engine";

impl Format {
    /// Whether clients can be told apart so.
    ///
    /// # Errors
    /// Why not.
    pub fn supports(self, by: By) -> Result<(), &'static str> {
        match (self, by) {
            (Self::Nftables, By::Ja4 | By::AddressAndJa4) => Err("nftables sees packets and no JA4: use --by address"),
            (Self::Crowdsec, By::Ja4 | By::AddressAndJa4) => Err("decisions of CrowdSec have no JA4: use --by address"),
            _ => Ok(()),
        }
    }

    /// The file.
    pub fn write(self, entries: &[Entry], about: &About) -> String {
        let mut out = String::new();
        // Writing to memory does not fail.
        let _ = match self {
            Self::Nftables => nftables(&mut out, entries, about),
            Self::Haproxy => haproxy(&mut out, entries, about),
            Self::Nginx => nginx(&mut out, entries, about),
            Self::Anubis => anubis(&mut out, entries, about),
            Self::Crowdsec => crowdsec(&mut out, entries, about),
        };
        out
    }
}

impl About {
    fn expires(&self) -> String {
        let at = self.made.checked_add(self.ttl).unwrap_or(self.made);
        humantime::format_rfc3339_seconds(at).to_string()
    }

    /// Comment lines for the head of a file.
    fn head(&self, out: &mut String, count: usize) -> std::fmt::Result {
        let made = humantime::format_rfc3339_seconds(self.made);
        writeln!(
            out,
            "# {count} entries by ja4-engine {}, made {made}, expire {}",
            env!("CARGO_PKG_VERSION"),
            self.expires()
        )?;
        writeln!(out, "# from {}", comment(&self.origin))?;
        writeln!(out, "# query {}", comment(&self.query))
    }
}

/// Text of the command line in a comment, which lasts to the end of the line. A backslash could make it last longer.
fn comment(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    shortened(&words.join(" "), 500).replace('\\', "/")
}

fn nftables(out: &mut String, entries: &[Entry], about: &About) -> std::fmt::Result {
    writeln!(out, "#!/usr/sbin/nft -f")?;
    about.head(out, entries.len())?;
    writeln!(out, "# The sets are filled anew; nothing is dropped until a rule of yours uses them, such as:")?;
    writeln!(out, "#   add chain {TABLE} input {{ type filter hook input priority -10; }}")?;
    writeln!(out, "#   add rule {TABLE} input ip saddr @blocked_v4 counter drop")?;
    writeln!(out, "#   add rule {TABLE} input ip6 saddr @blocked_v6 counter drop")?;
    writeln!(out, "add table {TABLE}")?;
    for (set, ty) in [("blocked_v4", "ipv4_addr"), ("blocked_v6", "ipv6_addr")] {
        writeln!(out, "add set {TABLE} {set} {{ type {ty}; flags interval, timeout; }}")?;
        writeln!(out, "flush set {TABLE} {set}")?;
    }
    let seconds = about.ttl.as_secs().max(1);
    for entry in entries {
        let Some(network) = &entry.entity.network else { continue };
        let set = if matches!(network.addr(), IpAddr::V4(_)) { "blocked_v4" } else { "blocked_v6" };
        let (network, reason) = (written(network), &entry.reason);
        writeln!(out, "add element {TABLE} {set} {{ {network} timeout {seconds}s comment \"{reason}\" }}")?;
    }
    Ok(())
}

/// The key of an entry: an address or network, a JA4, or both with a comma between.
fn key(entry: &Entry) -> String {
    let network = entry.entity.network.as_ref().map(written);
    let parts = [network.as_deref(), entry.entity.ja4.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(",")
}

fn haproxy(out: &mut String, entries: &[Entry], about: &About) -> std::fmt::Result {
    about.head(out, entries.len())?;
    let fetch = match about.by {
        By::Address => "src",
        By::AddressAndJa4 => "src,concat(\",\",txn.ja4)",
        By::Ja4 => "var(txn.ja4) -m str",
    };
    writeln!(out, "# http-request deny if {{ {fetch} -f THIS_FILE }}")?;
    writeln!(out, "# HAProxy does not let entries expire: make the file anew before then, and reload")?;
    for entry in entries {
        writeln!(out, "# {}\n{}", entry.reason, key(entry))?;
    }
    Ok(())
}

fn nginx(out: &mut String, entries: &[Entry], about: &About) -> std::fmt::Result {
    about.head(out, entries.len())?;
    let of = match about.by {
        By::Address => "geo $ja4_engine_blocked",
        By::AddressAndJa4 => "map \"$remote_addr,$YOUR_JA4\" $ja4_engine_blocked",
        By::Ja4 => "map $YOUR_JA4 $ja4_engine_blocked",
    };
    writeln!(out, "# {of} {{ default 0; include THIS_FILE; }}  and  if ($ja4_engine_blocked) {{ return 403; }}")?;
    if about.by != By::Address {
        writeln!(out, "# with  map_hash_bucket_size 128;  in the http block: the keys are long")?;
    }
    writeln!(out, "# nginx does not let entries expire: make the file anew before then, and reload")?;
    for entry in entries {
        match about.by {
            By::Address => writeln!(out, "{} 1; # {}", key(entry), entry.reason)?,
            _ => writeln!(out, "\"{}\" 1; # {}", key(entry), entry.reason)?,
        }
    }
    Ok(())
}

fn anubis(out: &mut String, entries: &[Entry], about: &About) -> std::fmt::Result {
    about.head(out, entries.len())?;
    writeln!(out, "# bots: [{{ import: THIS_FILE }}]  before the rules that allow")?;
    writeln!(out, "# Anubis does not let rules expire: make the file anew before then, and restart")?;
    let action = if about.action == Action::Deny { "DENY" } else { "CHALLENGE" };
    for (nth, entry) in entries.iter().enumerate() {
        // Of one rule all conditions must hold.
        writeln!(out, "# {}\n- name: ja4-engine-{}\n  action: {action}", entry.reason, nth + 1)?;
        if let Some(network) = &entry.entity.network {
            writeln!(out, "  remote_addresses:\n    - \"{network}\"")?;
        }
        if let Some(ja4) = &entry.entity.ja4 {
            writeln!(out, "  headers_regex:\n    {}: \"^{ja4}$\"", about.ja4_header)?;
        }
    }
    Ok(())
}

/// JSON has no comments: each decision has its reason and duration.
fn crowdsec(out: &mut String, entries: &[Entry], about: &About) -> std::fmt::Result {
    let duration = format!("{}s", about.ttl.as_secs().max(1));
    let decision = |entry: &Entry| {
        let network = entry.entity.network.as_ref()?;
        let scope = if is_single(network) { "ip" } else { "range" };
        let reason = format!("ja4-engine: {}", entry.reason);
        Some(json!({"duration": duration, "reason": reason, "scope": scope, "type": "ban", "value": written(network)}))
    };
    let decisions: Vec<String> = entries.iter().filter_map(decision).map(|decision| format!("  {decision}")).collect();
    writeln!(out, "[\n{}\n]", decisions.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::super::entity::{Entity, network};
    use super::*;

    const PRINT: &str = "t13d1516h2_8daaf6152771_b186095e22b6";

    fn entry(address: Option<&str>, ja4: Option<&str>) -> Entry {
        let network = address.map(|address| network(address).expect("a network"));
        Entry { entity: Entity { network, ja4: ja4.map(str::to_owned) }, reason: "317 missing paths".to_owned() }
    }

    fn about(by: By) -> About {
        About {
            made: SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_083_200),
            ttl: Duration::from_secs(3600),
            origin: "http://127.0.0.1:8080".to_owned(),
            query: "SELECT src_ip -- \"\n\u{1b}} evil\\".to_owned(),
            by,
            ja4_header: "X-JA4".to_owned(),
            action: Action::Deny,
        }
    }

    #[test]
    fn entries_have_reason_and_expiry() {
        let entries = [entry(Some("203.0.113.9"), None), entry(Some("2001:db8::/64"), None)];
        let written = |format: Format| format.write(&entries, &about(By::Address));
        let nft = written(Format::Nftables);
        assert!(nft.contains("blocked_v4 { 203.0.113.9 timeout 3600s comment \"317 missing paths\" }\n"), "{nft}");
        assert!(nft.contains("blocked_v6 { 2001:db8::/64 timeout 3600s comment \"317 missing paths\" }\n"), "{nft}");
        assert!(
            nft.contains("expire 2026-12-01T01:00:00Z") && nft.contains("# query SELECT src_ip -- \" /u{1b}} evil/\n"),
            "{nft}"
        );
        let haproxy = written(Format::Haproxy);
        assert!(
            haproxy.ends_with("# 317 missing paths\n203.0.113.9\n# 317 missing paths\n2001:db8::/64\n"),
            "{haproxy}"
        );
        let nginx = written(Format::Nginx);
        assert!(
            nginx.ends_with("203.0.113.9 1; # 317 missing paths\n2001:db8::/64 1; # 317 missing paths\n"),
            "{nginx}"
        );
        let anubis = written(Format::Anubis);
        assert!(
            anubis.contains("- name: ja4-engine-2\n  action: DENY\n  remote_addresses:\n    - \"2001:db8::/64\"\n"),
            "{anubis}"
        );
        let crowdsec: serde_json::Value = serde_json::from_str(&written(Format::Crowdsec)).expect("JSON");
        assert_eq!(crowdsec[1]["scope"], "range");
        assert_eq!(crowdsec[0]["value"], "203.0.113.9");
        assert_eq!(crowdsec[0]["duration"], "3600s");
        assert_eq!(crowdsec[0]["reason"], "ja4-engine: 317 missing paths");
    }

    #[test]
    fn fingerprints_where_the_format_has_them() {
        let both = [entry(Some("203.0.113.9"), Some(PRINT))];
        let nginx = Format::Nginx.write(&both, &about(By::AddressAndJa4));
        assert!(nginx.contains(&format!("\"203.0.113.9,{PRINT}\" 1;")), "{nginx}");
        let anubis = Format::Anubis.write(&both, &about(By::AddressAndJa4));
        let rule =
            format!("  remote_addresses:\n    - \"203.0.113.9/32\"\n  headers_regex:\n    X-JA4: \"^{PRINT}$\"\n");
        assert!(anubis.ends_with(&rule), "{anubis}");
        let haproxy = Format::Haproxy.write(&[entry(None, Some(PRINT))], &about(By::Ja4));
        assert!(haproxy.ends_with(&format!("\n{PRINT}\n")), "{haproxy}");
        for format in [Format::Nftables, Format::Crowdsec] {
            assert!(format.supports(By::Ja4).is_err() && format.supports(By::Address).is_ok());
        }
    }
}

//! What `list` tells besides the kinds: what stands in files of their own, and what formats there are.

use std::fmt::Write;
use std::sync::Arc;

use engine::registry::Topic;

use crate::format::{Format, Kind};
use crate::{aggregate, detect};

/// The topics, in the order in which a reader meets them.
pub(crate) fn topics() -> Vec<Topic> {
    vec![
        Topic {
            name: "formats",
            also: &["format", "columns", "reqin_log", "ja4sentinel"],
            summary: "The columns of the formats that are built in",
            text: formats,
            schema: None,
        },
        Topic {
            name: "features",
            also: &["feature"],
            summary: "A feature of `aggregate`, as an item of the list `features` or of a YAML file that is such a list",
            text: || {
                "A feature can use those above it. `aggregate` says which functions and columns there are.\n\n    \
                 - { name: post_ratio, expr: \"count(*) filter (where method = 'POST') * 1.0 / count(*)\" }\n"
                    .to_owned()
            },
            schema: Some(aggregate::feature_schema),
        },
        Topic {
            name: "rules",
            also: &["rule"],
            summary: "A rule of `detect.rules`, as an item of the list `rules` or of a YAML file that is such a list",
            text: || {
                "Text in a condition stands in single quotes; a column whose name has capitals stands in double quotes.\n\n    \
                 - { name: scanner, level: HIGH, when: \"hits > 100 and post_ratio = 0\", reason: \"{hits} requests\" }\n"
                    .to_owned()
            },
            schema: Some(detect::rules::rule_schema),
        },
        Topic {
            name: "levels",
            also: &["level", "threat_level"],
            summary: "How grave a match of a rule is; of several rules that match a row the greatest counts",
            text: || {
                let levels: Vec<String> = detect::rules::levels().iter().map(|level| format!("`{level}`")).collect();
                format!("From the least to the greatest: {}.\n", levels.join(", "))
            },
            schema: None,
        },
    ]
}

/// The columns of each format, and the keys of a line that they come from.
fn formats() -> String {
    let formats = [
        ("reqin_log", "requests as mod_reqin_log writes them", Format::reqin_log()),
        (
            "ja4sentinel",
            "hellos as ja4sentinel writes them; also the columns of `tls.client_hello`",
            Format::ja4sentinel(),
        ),
    ];
    let mut out = String::new();
    for (name, what, format) in formats {
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "`{name}`: {what}. `time` comes from the first of these keys that a line has: {}.\n",
            keys(&format)
        );
        out.push_str("| column | type | key of a line | |\n|---|---|---|---|\n| `time` | Timestamp(ns, \"UTC\") | | never null |\n");
        out.push_str("| `seq` | UInt64 | the line's number | never null |\n");
        for column in &format.columns {
            let must = if column.required { "a line without it is rejected" } else { "" };
            let (ty, kind) = (column.kind.data_type(), kind(column.kind));
            let _ = writeln!(out, "| `{}` | {ty}{kind} | `{}` | {must} |", column.name, column.key);
        }
        out.push('\n');
    }
    out
}

fn keys(format: &Arc<Format>) -> String {
    format.time_keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Ip => ", an IP address",
        _ => "",
    }
}

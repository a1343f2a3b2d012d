//! What `list` tells besides the kinds: what stands in files of their own, and what formats there are.

use std::fmt::Write;

use engine::contract::Topic;

use crate::format::{BEGIN_TIME, BuiltIn, Format, FormatName, Kind, REPAIRED, Role, Unit};
use crate::{aggregate, detect, peers, verdict};

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
            text: aggregate::markdown,
            schema: Some(aggregate::feature_schema),
        },
        Topic {
            name: "peer_columns",
            also: &["peer_column", "window functions"],
            summary: "A column of `peers`, as an item of the list `columns` or of a YAML file that is such a list",
            text: || {
                "A column can use those above it. Window functions see the rows of the partition; none may stand inside of \
                 another.\n\n    \
                 - { name: ja4_ips, expr: \"count(distinct src_ip) over (partition by ja4)\" }\n    \
                 - { name: hits_quantile, expr: \"cume_dist() over (order by hits)\" }\n"
                    .to_owned()
            },
            schema: Some(peers::column_schema),
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
            text: levels,
            schema: None,
        },
        Topic {
            name: "scheme",
            also: &["schemes", "verdicts"],
            summary: "An entry of a scheme of `verdict`, as an item of the list `scheme` or of a YAML file that is such a list",
            text: scheme,
            schema: Some(verdict::entry_schema),
        },
    ]
}

fn levels() -> String {
    let levels: Vec<String> = detect::rules::levels().iter().map(|level| format!("`{level}`")).collect();
    format!("From the least to the greatest: {}.\n", levels.join(", "))
}

fn scheme() -> String {
    let verdicts: Vec<String> = verdict::verdicts().iter().map(|name| format!("`{name}`")).collect();
    format!(
        "The first entry counts whose condition holds. The verdicts of the project's own schemes are {}; a scheme may have \
         others.\n\n    - {{ verdict: HIGH, when: \"threat_level = 'HIGH' or anomaly_score < -0.2\", reason: \"{{hits}} requests\" }}\n",
        verdicts.join(", ")
    )
}

/// The columns of each format, and the keys of a line that they come from.
fn formats() -> String {
    let mut out = String::new();
    for BuiltIn { name, summary, format } in FormatName::ALL.map(FormatName::built_in) {
        let format = format(Unit::default());
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "`{name}`: {summary}. `time` comes from the first of these keys that a line has: {}.{}\n",
            keys(&format, Role::Begin),
            others(&format)
        );
        out.push_str("| column | type | key of a line | |\n|---|---|---|---|\n| `time` | Timestamp(ns, \"UTC\") | | never null |\n");
        out.push_str("| `seq` | UInt64 | the line's number | never null |\n");
        if format.has_begin {
            let _ = writeln!(out, "| `{BEGIN_TIME}` | Timestamp(ns, \"UTC\") | | |");
        }
        if format.schema.index_of(REPAIRED).is_ok() {
            let _ = writeln!(out, "| `{REPAIRED}` | Boolean | | whether bytes of the line were replaced |");
        }
        for column in &format.columns {
            let must = if column.required { "a line without it is rejected" } else { "" };
            let (ty, kind) = (column.kind.data_type(), kind(column.kind));
            let _ = writeln!(out, "| `{}` | {ty}{kind} | `{}` | {must} |", column.name, column.key);
        }
        out.push('\n');
    }
    out
}

/// The keys of values that have no column.
fn keys(format: &Format, role: Role) -> String {
    let keys = format.extras.iter().filter(|extra| extra.role == role).map(|extra| format!("`{}`", extra.key));
    keys.collect::<Vec<_>>().join(", ")
}

/// What a line may say beside its columns.
fn others(format: &Format) -> String {
    if !format.has_begin {
        return String::new();
    }
    format!(
        " That is when a request began. The column `time` is when it ended, and `{BEGIN_TIME}` when it began: their difference is \
         `duration_ms`, else {} (seconds, microseconds), in whole milliseconds. A line may have its end ({}, seconds since 1970) \
         instead of its begin. `path` and `query` may come from the request line ({}), such as `GET /path?query HTTP/1.1`.",
        keys(format, Role::Duration),
        keys(format, Role::End),
        keys(format, Role::RequestLine)
    )
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Ip => ", an IP address",
        _ => "",
    }
}

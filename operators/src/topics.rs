//! What `list` tells besides the kinds: what stands in files of their own, and what formats there are.

use std::fmt::Write;

use engine::contract::Topic;

use crate::format::{BEGIN_TIME, BuiltIn, Format, FormatName, Kind, REPAIRED, Role, names_of};
use crate::{aggregate, detect, peers, verdict};

/// Other names of the topic of formats.
const ALSO_FORMATS: &[&str] = &[
    "format",
    "columns",
    "log_format",
    "reqin_log",
    "ja4sentinel",
    "caddy",
    "envoy_json",
    "traefik",
    "cloudflare",
    "common",
    "combined",
    "apache",
    "nginx",
    "haproxy_http",
    "haproxy_https",
    "haproxy",
    "envoy_text",
    "iis",
    "w3c",
    "aws_alb",
];

/// The topics, in the order in which a reader meets them.
pub(crate) fn topics() -> Vec<Topic> {
    vec![
        Topic {
            name: "formats",
            also: ALSO_FORMATS,
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
    for one in FormatName::ALL {
        let BuiltIn { name, summary, unit, format } = one.built_in();
        if let Some(names) = names_of(*one) {
            let _ = writeln!(out, "`{name}`: {summary}. Its columns are those of what the string has:\n\n{names}");
            continue;
        }
        let format = format(unit);
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "`{name}`: {summary}.{}{}{}\n",
            if format.is_text() {
                String::new()
            } else {
                format!(" A time that is a number counts {} (`time_unit`).", unit.words())
            },
            times(&format),
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
    let keys = format.extras.iter().filter(|extra| extra.role == role).map(|extra| match extra.kind {
        Kind::Time(_) if format.is_text() => format!("`{}`", extra.key),
        Kind::Time(unit) | Kind::Duration(unit) => format!("`{}` ({})", extra.key, unit.words()),
        _ => format!("`{}`", extra.key),
    });
    keys.collect::<Vec<_>>().join(", ")
}

/// Where a line has its times; of several keys the first that it has counts.
fn times(format: &Format) -> String {
    let (begin, end, duration) = (keys(format, Role::Begin), keys(format, Role::End), keys(format, Role::Duration));
    if !format.has_begin {
        return format!(" `time` comes from the first of these keys that a line has: {begin}.");
    }
    let mut out = format!(" The column `time` is when a request ended, and `{BEGIN_TIME}` when it began.");
    for (what, keys) in [("begin", begin), ("end", end), ("duration, beside `duration_ms`,", duration)] {
        if !keys.is_empty() {
            let _ = write!(out, " Keys of the {what} are: {keys}.");
        }
    }
    out
}

/// What a line may say beside its columns.
fn others(format: &Format) -> String {
    let mut out = String::new();
    for (role, what) in [
        (Role::RequestLine, "`path` and `query` may come from the request line, such as `GET /path?query HTTP/1.1`: "),
        (Role::Target, "`path` and `query` come from the request's target: "),
        (Role::Source, "`src_ip` and `src_port` come from one value, IPv6 in brackets: "),
        (Role::Destination, "`dst_ip` and `dst_port` come from one value: "),
        (Role::Authority, "`host` is this in lower case and without its port: "),
        (Role::Cookie, "`has_cookie` is true if this is there, and false if other headers are: "),
    ] {
        let keys = keys(format, role);
        if !keys.is_empty() {
            let _ = write!(out, " {what}{keys}.");
        }
    }
    out
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Ip => ", an IP address",
        Kind::Texts => ", the texts of a list with `, ` between them",
        _ => "",
    }
}

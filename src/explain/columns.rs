//! What a column of a group or of a request is for, told by its name and type: pipelines have columns of their own.

use crate::history::{Column, Row, Table};

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It tells groups apart.
    Key,
    /// A level or a verdict.
    Verdict,
    /// A score, or which model gave it.
    Score,
    /// A rule or a reason.
    Rules,
    /// What lists say of the client.
    Label,
    /// A number.
    Feature,
    /// Anything else.
    Other,
}

const KEYS: [&str; 4] = ["window_start", "host", "src_ip", "ja4"];

/// Of rows, not of what the client did.
const OTHER: [&str; 3] = ["time", "seq", "final"];

/// What the columns of `enrich.…`, `feedback`, `campaigns` and `recurrence` begin with.
const LABELS: [&str; 12] = [
    "src_as",
    "src_org",
    "src_country",
    "src_domain",
    "asn_",
    "bot_",
    "browser_",
    "reputation",
    "anubis_",
    "feedback",
    "campaign_",
    "recurrence",
];

/// What a column is for.
pub fn part(column: &Column) -> Part {
    let name = column.name.as_str();
    let is_float = column.ty.starts_with("Float") || column.ty.starts_with("Decimal");
    if KEYS.contains(&name) {
        Part::Key
    } else if matches!(name, "rules" | "reason") || name.ends_with("_reason") || name.ends_with("_reasons") {
        Part::Rules
    } else if name == "threat_level" || name.starts_with("verdict") {
        Part::Verdict
    } else if name == "model_name" || name.starts_with("anomaly_") || name == "raw_anomaly_score" {
        Part::Score
    } else if !is_float && LABELS.iter().any(|prefix| name.starts_with(prefix)) {
        Part::Label
    } else if is_number(&column.ty) && !OTHER.contains(&name) {
        Part::Feature
    } else {
        Part::Other
    }
}

/// Whether values of a type are numbers or truth values.
fn is_number(ty: &str) -> bool {
    ["Int", "UInt", "Float", "Decimal"].iter().any(|prefix| ty.starts_with(prefix)) || ty == "Boolean"
}

/// The columns of a table that are for this.
pub fn of(table: &Table, wanted: Part) -> Vec<&str> {
    table.columns.iter().filter(|column| part(column) == wanted).map(|column| column.name.as_str()).collect()
}

/// The values of a row that are for this and not null.
pub fn pick(row: &Row, table: &Table, wanted: Part) -> Row {
    let names = of(table, wanted).into_iter();
    let values = names.filter_map(|name| Some((name.to_owned(), row.get(name).filter(|v| !v.is_null())?.clone())));
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_told_by_name_and_type() {
        let part = |name: &str, ty: &str| part(&Column { name: name.to_owned(), ty: ty.to_owned() });
        for (name, ty, expected) in [
            ("ja4", "Utf8", Part::Key),
            ("hits", "Int64", Part::Feature),
            ("robots_txt", "Boolean", Part::Feature),
            ("browser_ratio", "Float64", Part::Feature),
            ("browser_family", "Utf8", Part::Label),
            ("bot_verified", "Boolean", Part::Label),
            ("src_asn", "UInt32", Part::Label),
            ("feedback", "Utf8", Part::Label),
            ("anomaly_score", "Float64", Part::Score),
            ("anomaly_reason", "Utf8", Part::Rules),
            ("verdict", "Utf8", Part::Verdict),
            ("verdict_reasons", "List(Utf8)", Part::Rules),
            ("rules", "Utf8", Part::Rules),
            ("final", "Boolean", Part::Other),
            ("first_seen", "Timestamp(ns, \"UTC\")", Part::Other),
        ] {
            assert_eq!(part(name, ty), expected, "{name}");
        }
    }
}

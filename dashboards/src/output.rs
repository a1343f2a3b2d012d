//! How an answer is written: its format, of `Accept`, and what the address says of it.
//!
//! | parameter | values |
//! |---|---|
//! | `integers` | `number` (the default); `string`: in JSON, whole numbers of 64 bits are texts. JavaScript's numbers are exact up to 2⁵³ only |
//! | `csv` | `plain` (the default): the data as it is; `spreadsheet`: cells that a spreadsheet would run as formulas begin with `'` |

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Format {
    /// One object: columns, rows as objects, counts.
    Json,
    /// One object a line.
    JsonLines,
    /// A header and rows (RFC 4180).
    Csv,
    /// The same with tabs between columns, as ClickHouse's `TabSeparatedWithNames`: `\t`, `\n` and `\\` in values, null is `\N`.
    Tsv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// In the order in which they are preferred where a client has no preference.
const FORMATS: [(Format, &[&str]); 6] = [
    (Format::Json, &["application/json"]),
    (Format::JsonLines, &["application/x-ndjson", "application/jsonl"]),
    (Format::Csv, &["text/csv"]),
    (Format::Tsv, &["text/tab-separated-values"]),
    (Format::Arrow, &["application/vnd.apache.arrow.stream"]),
    (Format::Parquet, &["application/vnd.apache.parquet"]),
];

impl Format {
    /// The format that an `Accept` header asks for (RFC 9110, 12.5.1): the highest weight, then the first named.
    pub(crate) fn accepted(header: Option<&str>) -> Result<Self, Error> {
        let header = header.map(str::trim).filter(|h| !h.is_empty()).unwrap_or("*/*");
        let mut best: Option<(f32, Self)> = None;
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts
                .find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")))
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let found = FORMATS.iter().find(|(_, names)| names.iter().any(|n| matches(&name, n)));
            if let Some((format, _)) = found
                && weight > 0.0
                && best.is_none_or(|(highest, _)| weight > highest)
            {
                best = Some((weight, *format));
            }
        }
        best.map(|(_, format)| format).ok_or(Error::NotAcceptable)
    }

    /// The media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Tsv => "text/tab-separated-values; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Whether whole numbers of 64 bits are texts in JSON.
    pub(crate) quoted: bool,
    /// Whether cells of a CSV are made harmless for spreadsheets.
    pub(crate) harmless: bool,
}

impl Output {
    /// Of an `Accept` header and the part of the address behind `?`.
    pub(crate) fn asked(accept: Option<&str>, parameters: Option<&str>) -> Result<Self, Error> {
        let mut output = Self { format: Format::accepted(accept)?, quoted: false, harmless: false };
        for parameter in parameters.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("integers", "number") => output.quoted = false,
                ("integers", "string") => output.quoted = true,
                ("csv", "plain") => output.harmless = false,
                ("csv", "spreadsheet") => output.harmless = true,
                (name @ ("integers" | "csv"), _) => {
                    let values = if name == "csv" { "`plain` or `spreadsheet`" } else { "`number` or `string`" };
                    return Err(Error::query(format!("the parameter `{name}` is {values}")));
                }
                _ => {
                    return Err(Error::Query {
                        message: "the address has a parameter that does not exist".to_owned(),
                        help: Some("there are `integers` (`number`, `string`) and `csv` (`plain`, `spreadsheet`); the statement is the body".to_owned()),
                    });
                }
            }
        }
        Ok(output)
    }
}

fn matches(range: &str, name: &str) -> bool {
    range == "*/*"
        || range == name
        || range.strip_suffix('*').is_some_and(|kind| kind.ends_with('/') && name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_chooses_by_weight_then_order() {
        let accepted = |header| Format::accepted(header).ok();
        assert_eq!(accepted(None), Some(Format::Json));
        assert_eq!(accepted(Some("*/*")), Some(Format::Json));
        assert_eq!(accepted(Some("text/html, text/csv;q=0.5, */*;q=0.1")), Some(Format::Csv));
        assert_eq!(accepted(Some("text/*")), Some(Format::Csv));
        assert_eq!(accepted(Some("application/json;q=0.2, application/x-ndjson")), Some(Format::JsonLines));
        assert_eq!(accepted(Some("APPLICATION/VND.APACHE.ARROW.STREAM")), Some(Format::Arrow));
        assert_eq!(accepted(Some("image/png")), None);
        assert_eq!(accepted(Some("text/csv;q=0")), None);
    }

    #[test]
    fn parameters_are_known_or_refused() {
        let asked = |parameters| Output::asked(None, parameters).map(|o| (o.quoted, o.harmless)).ok();
        assert_eq!(asked(None), Some((false, false)));
        assert_eq!(asked(Some("")), Some((false, false)));
        assert_eq!(asked(Some("integers=string&csv=spreadsheet")), Some((true, true)));
        assert_eq!(asked(Some("integers=number&csv=plain")), Some((false, false)));
        for wrong in ["integers", "integers=bigint", "csv=excel", "query=select+1"] {
            assert_eq!(asked(Some(wrong)), None, "{wrong}");
        }
    }
}

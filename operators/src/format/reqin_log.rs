//! `reqin_log`: requests as mod_reqin_log writes them.

use std::sync::Arc;

use super::options::BuiltIn;
use super::path::Path;
use super::schema::{ABSENT, Column, DurationColumn, Extra, Format, Kind, Role, endpoints, named, times};
use super::time::Unit;

pub(super) const FORMAT: BuiltIn =
    BuiltIn { name: "reqin_log", summary: "requests as mod_reqin_log writes them", format: Format::reqin_log };

impl Format {
    /// Requests as mod_reqin_log writes them, with times that are numbers in `unit`.
    pub fn reqin_log(unit: Unit) -> Arc<Self> {
        let mut columns = endpoints();
        columns[0].required = true;
        columns.extend(named(&[
            ("method", Kind::Text),
            ("scheme", Kind::Text),
            ("host", Kind::Text),
            ("path", Kind::Text),
            ("query", Kind::Text),
            ("http_version", Kind::Text),
            ("status_code", Kind::U16),
            ("response_size", Kind::U64),
            ("duration_ms", Kind::U64),
            ("client_headers", Kind::Text),
            ("header_order_signature", Kind::Text),
        ]));
        // A header that was not sent is no header, however the server writes that.
        columns.extend(HEADERS.iter().map(|header| Column {
            name: format!("header_{}", header.to_ascii_lowercase().replace('-', "_")),
            key: Path::key(format!("header_{header}")),
            kind: Kind::Text,
            absent: ABSENT.map(str::to_owned).to_vec(),
            required: false,
        }));
        columns.extend(named(&[("has_cookie", Kind::Bool)]));
        let duration = columns.iter().position(|column| column.name == "duration_ms");
        let duration = duration.map(|column| DurationColumn { column, unit: Unit::Ms });
        let mut extras = times(unit);
        extras.extend([
            Extra { key: Path::key("end_time"), kind: Kind::Time(Unit::S), role: Role::End },
            Extra { key: Path::key("request_time"), kind: Kind::Duration(Unit::S), role: Role::Duration },
            Extra { key: Path::key("duration_us"), kind: Kind::Duration(Unit::Us), role: Role::Duration },
            Extra { key: Path::key("request_line"), kind: Kind::Text, role: Role::RequestLine },
        ]);
        Arc::new(Self::new(columns, extras, duration))
    }
}

/// Request headers that have a column, as their key spells them after `header_`.
const HEADERS: [&str; 16] = [
    "User-Agent",
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Content-Type",
    "X-Request-Id",
    "X-Trace-Id",
    "X-Forwarded-For",
    "Referer",
    "Sec-CH-UA",
    "Sec-CH-UA-Mobile",
    "Sec-CH-UA-Platform",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-Fetch-User",
];

#[cfg(test)]
mod tests {
    use super::super::{BEGIN_TIME, REPAIRED};
    use super::*;

    #[test]
    fn a_header_becomes_a_column_in_lower_case() {
        let format = Format::reqin_log(Unit::Ns);
        let column = format.columns.iter().find(|c| c.key == Path::key("header_Sec-CH-UA-Mobile")).expect("there");
        assert_eq!((column.name.as_str(), column.required), ("header_sec_ch_ua_mobile", false));
        let names: Vec<&str> = format.schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names[..4], ["time", "seq", "src_ip", "src_port"]);
        assert_eq!(names[names.len() - 4..], ["header_sec_fetch_user", "has_cookie", BEGIN_TIME, REPAIRED]);
    }
}

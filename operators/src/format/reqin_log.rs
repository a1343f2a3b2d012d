//! `reqin_log`: requests as mod_reqin_log writes them.

use std::sync::Arc;

use super::options::BuiltIn;
use super::path::Path;
use super::schema::{ABSENT, Column, DurationColumn, Extra, Format, Kind, Role, endpoints, named, times};
use super::server_tls;
use super::time::Unit;

pub(super) const FORMAT: BuiltIn = BuiltIn {
    name: "reqin_log",
    summary: "requests as mod_reqin_log writes them",
    unit: Unit::Ns,
    format: Format::reqin_log,
};

impl Format {
    /// Requests as mod_reqin_log writes them, with times that are numbers in `unit`.
    pub fn reqin_log(unit: Unit) -> Arc<Self> {
        let mut columns = columns();
        let duration = duration(&columns);
        columns.extend(of_module());
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

/// The columns of a request, each under the key that mod_reqin_log gives it.
pub(super) fn columns() -> Vec<Column> {
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
    columns
}

/// What the Apache module knows of a request besides; null in the logs of others.
fn of_module() -> Vec<Column> {
    let mut columns = named(&[
        ("has_authorization", Kind::Bool),
        ("keepalive_index", Kind::U64),
        ("useragent_ip", Kind::Ip),
        ("lost_before", Kind::U64),
        ("truncated", Kind::Text),
        ("server_tls_resumed", Kind::Bool),
        ("h2_signature", Kind::Text),
        ("h2_settings", Kind::Text),
        ("h2_header_table_size", Kind::U64),
        ("h2_enable_push", Kind::U64),
        ("h2_max_concurrent_streams", Kind::U64),
        ("h2_initial_window_size", Kind::U64),
        ("h2_max_frame_size", Kind::U64),
        ("h2_max_header_list_size", Kind::U64),
        ("h2_enable_connect_protocol", Kind::U64),
        ("h2_no_rfc7540_priorities", Kind::U64),
        ("h2_window_update", Kind::U64),
        ("h2_priorities", Kind::Text),
        ("h2_headers_priority", Kind::Text),
        ("h2_pseudo_order", Kind::Text),
    ]);
    columns.extend(server_tls::columns());
    columns
}

/// The column among these that says how long a request took.
pub(super) fn duration(columns: &[Column]) -> Option<DurationColumn> {
    let column = columns.iter().position(|column| column.name == "duration_ms");
    column.map(|column| DurationColumn { column, unit: Unit::Ms })
}

/// Request headers that have a column, as their key spells them after `header_`.
pub(super) const HEADERS: [&str; 16] = [
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
        let after = names.iter().position(|name| *name == "header_sec_fetch_user").expect("there") + 1;
        assert_eq!(names[after..after + 2], ["has_cookie", "has_authorization"]);
        assert_eq!(names[names.len() - 4..], ["server_ja4", "server_ja3", BEGIN_TIME, REPAIRED]);
    }
}

//! The formats that are built in, and how a format's columns look in Arrow.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use engine::batch::{stream_schema, time_type};

use super::request::{self, Request};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text; a number is written as text.
    Text,
    /// An IP address in its canonical text, IPv4-mapped IPv6 as IPv4 (RFC 5952, RFC 4291 section 2.5.5.2).
    Ip,
    /// A whole number of 8 bits.
    U8,
    /// A whole number of 16 bits.
    U16,
    /// A whole number of 64 bits, 0 or more.
    U64,
    /// A whole number of 64 bits.
    I64,
    /// A finite number.
    F64,
    /// True or false.
    Bool,
    /// A moment: RFC 3339 text, or nanoseconds since the epoch.
    Time,
    /// Seconds with a fraction, since the epoch or of a duration; in ns.
    Seconds,
}

impl Kind {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Text | Self::Ip => DataType::Utf8,
            Self::U8 => DataType::UInt8,
            Self::U16 => DataType::UInt16,
            Self::U64 => DataType::UInt64,
            Self::I64 | Self::Seconds => DataType::Int64,
            Self::F64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Time => time_type(),
        }
    }

    /// What a line should hold, for messages.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Ip => "an IP address",
            Self::U8 => "a whole number from 0 to 255",
            Self::U16 => "a whole number from 0 to 65535",
            Self::U64 => "a whole number from 0 to 18446744073709551615",
            Self::I64 => "a whole number",
            Self::F64 => "a number",
            Self::Bool => "true or false",
            Self::Time => "a time (RFC 3339, or nanoseconds since 1970)",
            Self::Seconds => "a number of seconds, 0 or more",
        }
    }
}

/// A column besides `time` and `seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The key in a line.
    pub key: String,
    /// What it holds.
    pub kind: Kind,
    /// A line without it is refused; the column is never null.
    pub required: bool,
}

/// What keys a line has, and what columns they become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The columns after `time` and `seq`.
    pub columns: Vec<Column>,
    /// Keys that hold the event time; where a line has several, the first in this list counts.
    pub time_keys: Vec<String>,
    /// Columns of the rows.
    pub schema: SchemaRef,
    /// Columns that are also filled from other keys.
    pub(super) request: Option<Request>,
}

impl Format {
    /// A format of these columns, whose event time is under one of `time_keys`.
    pub fn new(columns: Vec<Column>, time_keys: Vec<String>) -> Self {
        let fields = columns.iter().map(|c| Field::new(&c.name, c.kind.data_type(), !c.required));
        let schema = stream_schema(fields.collect::<Vec<_>>());
        Self { columns, time_keys, schema, request: None }
    }

    /// How many cells a line has: of the columns, the keys of the event time, and other keys.
    pub(super) fn cells(&self) -> usize {
        self.columns.len() + self.time_keys.len() + self.others().len()
    }

    /// Key and kind of a cell; none behind the last.
    pub(super) fn cell(&self, at: usize) -> (&str, Kind) {
        if let Some(column) = self.columns.get(at) {
            return (&column.key, column.kind);
        }
        let at = at - self.columns.len();
        match self.time_keys.get(at) {
            Some(key) => (key, Kind::Time),
            None => self.others().get(at - self.time_keys.len()).copied().unwrap_or(("", Kind::Text)),
        }
    }

    fn others(&self) -> &'static [(&'static str, Kind)] {
        if self.request.is_some() { &request::KEYS } else { &[] }
    }

    /// Requests as mod_reqin_log writes them.
    pub fn reqin_log() -> Arc<Self> {
        let mut columns = endpoints();
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
        columns.extend(HEADERS.iter().map(|header| Column {
            name: format!("header_{}", header.to_ascii_lowercase().replace('-', "_")),
            key: format!("header_{header}"),
            kind: Kind::Text,
            required: false,
        }));
        columns.extend(named(&[("has_cookie", Kind::Bool)]));
        let mut format = Self::new(columns, times());
        format.request = Request::new(&format.columns, format.cells());
        Arc::new(format)
    }

    /// Hellos as ja4sentinel writes them.
    pub fn ja4sentinel() -> Arc<Self> {
        let mut columns = named(&[("sensor_id", Kind::Text)]);
        columns.extend(endpoints());
        columns.extend(named(&[
            ("conn_id", Kind::Text),
            ("ip_meta_ttl", Kind::U8),
            ("ip_meta_total_length", Kind::U16),
            ("ip_meta_id", Kind::U16),
            ("ip_meta_df", Kind::Bool),
            ("tcp_meta_window_size", Kind::U16),
            ("tcp_meta_mss", Kind::U16),
            ("tcp_meta_window_scale", Kind::U8),
            ("tcp_meta_options", Kind::Text),
            ("syn_to_clienthello_ms", Kind::F64),
            ("tls_version", Kind::Text),
            ("tls_sni", Kind::Text),
            ("tls_alpn", Kind::Text),
            ("ja4", Kind::Text),
            ("ja3", Kind::Text),
            ("ja3_hash", Kind::Text),
            // `tcp`, `quic`, `dtls` or `udp`; lines of older sensors have none, as of what follows.
            ("transport", Kind::Text),
            ("hello", Kind::U8),
            ("initial_ttl", Kind::U8),
            ("ech", Kind::Bool),
            ("post_quantum", Kind::Bool),
            ("ambiguous", Kind::Bool),
            ("interface", Kind::Text),
            ("ja4_r", Kind::Text),
            ("ja4_o", Kind::Text),
            ("ja4_ro", Kind::Text),
        ]));
        Arc::new(Self::new(columns, times()))
    }
}

/// Columns of a stream of hellos, from packets or from ja4sentinel's lines.
pub fn hello_schema() -> SchemaRef {
    Arc::clone(&Format::ja4sentinel().schema)
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

/// The four columns that name a connection.
fn endpoints() -> Vec<Column> {
    let mut columns =
        named(&[("src_ip", Kind::Ip), ("src_port", Kind::U16), ("dst_ip", Kind::Ip), ("dst_port", Kind::U16)]);
    columns[..2].iter_mut().for_each(|column| column.required = true);
    columns
}

/// The exact time first, the one for people last.
fn times() -> Vec<String> {
    ["timestamp", "timestamp_ns", "time"].map(str::to_owned).to_vec()
}

fn named(columns: &[(&str, Kind)]) -> Vec<Column> {
    let column = |&(name, kind): &(&str, Kind)| Column { name: name.into(), key: name.into(), kind, required: false };
    columns.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_becomes_a_column_in_lower_case() {
        let format = Format::reqin_log();
        let column = format.columns.iter().find(|c| c.key == "header_Sec-CH-UA-Mobile").expect("there");
        assert_eq!((column.name.as_str(), column.required), ("header_sec_ch_ua_mobile", false));
        let names: Vec<&str> = format.schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names[..4], ["time", "seq", "src_ip", "src_port"]);
        assert_eq!(names[names.len() - 2..], ["header_sec_fetch_user", "has_cookie"]);
    }

    #[test]
    fn only_what_names_the_client_is_required() {
        let format = Format::ja4sentinel();
        let required: Vec<&str> = format.columns.iter().filter(|c| c.required).map(|c| c.name.as_str()).collect();
        assert_eq!(required, ["src_ip", "src_port"]);
    }
}

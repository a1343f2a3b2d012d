//! The formats that are built in, and how a format's columns look in Arrow.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use engine::batch::{stream_schema, time_type};

use super::BEGIN_TIME;
use super::path::Path;
use super::time::Unit;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text; a number is taken with its digits as they stand in the line.
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
    /// A moment: a date with its zone, or a number of these units since the epoch.
    Time(Unit),
    /// A duration of these units, 0 or more; in ns.
    Duration(Unit),
}

impl Kind {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Text | Self::Ip => DataType::Utf8,
            Self::U8 => DataType::UInt8,
            Self::U16 => DataType::UInt16,
            Self::U64 => DataType::UInt64,
            Self::I64 | Self::Duration(_) => DataType::Int64,
            Self::F64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Time(_) => time_type(),
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
            Self::Time(unit) => unit.expected(),
            Self::Duration(unit) => unit.expected_duration(),
        }
    }

    /// What servers write where there is no value: Apache `-`, nginx nothing, or `unix:` for the address of a client that
    /// came over a socket; `unknown` is RFC 7239's. Text may be any text.
    pub(super) fn absent(self) -> Vec<String> {
        let texts: &[&str] = match self {
            Self::Text => &[],
            Self::Ip => &["-", "", "unix:", "unknown"],
            _ => &ABSENT,
        };
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}

/// What servers write for a variable or a header that is not there.
const ABSENT: [&str; 2] = ["-", ""];

/// The column that says whether the row's line was no JSON until it was repaired. It may be null only in rows that an
/// earlier version has logged.
pub const REPAIRED: &str = "repaired";

/// A column besides `time` and `seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Where its value stands in a line.
    pub key: Path,
    /// What it holds.
    pub kind: Kind,
    /// Texts that stand for no value: the column is null.
    pub absent: Vec<String>,
    /// A line without it is refused; the column is never null.
    pub required: bool,
}

/// A value of a line that has no column of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// Where it stands in a line.
    pub key: Path,
    /// What it is read as.
    pub kind: Kind,
    /// What it says.
    pub role: Role,
}

impl Extra {
    /// A time at which what the line tells of began.
    pub fn begin(key: Path, unit: Unit) -> Self {
        Self { key, kind: Kind::Time(unit), role: Role::Begin }
    }
}

/// What a value without a column says. Where a line has several of one role, the first in the format's list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// When what the line tells of began.
    Begin,
    /// When it ended.
    End,
    /// How long it took.
    Duration,
    /// The request line, from which path and query are taken if the line does not have them.
    RequestLine,
}

/// The column that says how long something took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationColumn {
    /// Its place among the format's columns.
    pub column: usize,
    /// Of its numbers.
    pub unit: Unit,
}

/// What keys a line has, and what columns they become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The columns after `time` and `seq`.
    pub columns: Vec<Column>,
    /// Values that have none.
    pub extras: Vec<Extra>,
    /// The column with durations, if there is one.
    pub duration: Option<DurationColumn>,
    /// Whether rows have the column [`BEGIN_TIME`].
    pub has_begin: bool,
    /// The columns `path` and `query`, where there is a request line to take them from.
    pub(super) target: Option<[usize; 2]>,
    /// Columns of the rows; the last is [`REPAIRED`] but of hellos, and before it [`BEGIN_TIME`] if the format knows when something began
    /// beside when it ended.
    pub schema: SchemaRef,
}

impl Format {
    /// A format of these columns; `extras` has at least one time.
    pub fn new(columns: Vec<Column>, extras: Vec<Extra>, duration: Option<DurationColumn>) -> Self {
        let fields = columns.iter().map(|c| Field::new(&c.name, c.kind.data_type(), !c.required));
        let has_begin = duration.is_some() || extras.iter().any(|extra| extra.role != Role::Begin);
        let begin = has_begin.then(|| Field::new(BEGIN_TIME, time_type(), true));
        let repaired = Field::new(REPAIRED, DataType::Boolean, true);
        let schema = stream_schema(fields.chain(begin).chain([repaired]).collect::<Vec<_>>());
        let place = |name: &str| columns.iter().position(|column| column.name == name);
        let target = place("path").zip(place("query")).map(|(path, query)| [path, query]);
        let target = target.filter(|_| extras.iter().any(|extra| extra.role == Role::RequestLine));
        Self { columns, extras, duration, has_begin, target, schema }
    }

    /// Where values stand in a line: of the columns, then of those without.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.columns.iter().map(|column| &column.key).chain(self.extras.iter().map(|extra| &extra.key))
    }

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

    /// Hellos as ja4sentinel writes them, with times that are numbers in `unit`.
    pub fn ja4sentinel(unit: Unit) -> Arc<Self> {
        Arc::new(Self { schema: hello_schema(), ..Self::new(hello_columns(), times(unit), None) })
    }
}

/// Columns of a stream of hellos, from packets or from ja4sentinel's lines, so that one can be merged with the other; there is
/// no [`REPAIRED`].
pub fn hello_schema() -> SchemaRef {
    stream_schema(
        hello_columns().iter().map(|c| Field::new(&c.name, c.kind.data_type(), !c.required)).collect::<Vec<_>>(),
    )
}

/// What is known of a hello.
fn hello_columns() -> Vec<Column> {
    let mut ends = endpoints();
    ends[..2].iter_mut().for_each(|column| column.required = true);
    let mut columns = named(&[("sensor_id", Kind::Text)]);
    columns.extend(ends);
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
    columns
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
    named(&[("src_ip", Kind::Ip), ("src_port", Kind::U16), ("dst_ip", Kind::Ip), ("dst_port", Kind::U16)])
}

/// The exact time first, the one for people last.
fn times(unit: Unit) -> Vec<Extra> {
    let time = |(key, unit)| Extra::begin(Path::key(key), unit);
    [("timestamp", unit), ("timestamp_ns", Unit::Ns), ("time", unit)].map(time).to_vec()
}

fn named(columns: &[(&str, Kind)]) -> Vec<Column> {
    let column = |&(name, kind): &(&str, Kind)| Column {
        name: name.into(),
        key: Path::key(name),
        kind,
        absent: kind.absent(),
        required: false,
    };
    columns.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_hello_needs_its_client_and_a_request_only_the_address() {
        for (format, needed) in
            [(Format::ja4sentinel(Unit::Ns), &["src_ip", "src_port"][..]), (Format::reqin_log(Unit::Ns), &["src_ip"])]
        {
            let required: Vec<&str> = format.columns.iter().filter(|c| c.required).map(|c| c.name.as_str()).collect();
            assert_eq!(required, needed);
        }
    }

    #[test]
    fn hellos_of_lines_have_the_columns_of_hellos_of_packets() {
        assert_eq!(Format::ja4sentinel(Unit::Ns).schema, hello_schema());
    }
}

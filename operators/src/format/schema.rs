//! The columns of a format, and how they look in Arrow.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use engine::batch::{stream_schema, time_type};

use super::BEGIN_TIME;
use super::json::Json;
use super::path::Path;
use super::syntax::Syntax;
use super::syslog;
use super::text::Layout;
use super::time::Unit;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text; a number is taken with its digits as they stand in the line.
    Text,
    /// Several texts of a list, such as a header's values, as one with `, ` between them (RFC 9110, section 5.3).
    Texts,
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
            Self::Text | Self::Texts | Self::Ip => DataType::Utf8,
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
            Self::Text | Self::Texts => "text",
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
            Self::Text | Self::Texts => &[],
            Self::Ip => &["-", "", "unix:", "unknown"],
            _ => &ABSENT,
        };
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}

/// What servers write for a variable or a header that is not there.
pub(super) const ABSENT: [&str; 2] = ["-", ""];

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
    /// The request's target, such as `/path?query`: the same.
    Target,
    /// The client's address with its port, from which `src_ip` and `src_port` are taken if the line does not have them.
    Source,
    /// The same of the server: `dst_ip` and `dst_port`.
    Destination,
    /// The host that was asked for, maybe with a port: `host` is this in lower case and without the port, if the line does not
    /// have it otherwise.
    Authority,
    /// The header Cookie: whether there is one is `has_cookie`, if the line has any header. Its value is not kept.
    Cookie,
}

/// The column that says how long something took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationColumn {
    /// Its place among the format's columns.
    pub column: usize,
    /// Of its numbers.
    pub unit: Unit,
}

/// What values a line has, and what columns they become.
#[derive(Clone, Debug)]
pub struct Format {
    /// The columns after `time` and `seq`.
    pub columns: Vec<Column>,
    /// Values that have none.
    pub extras: Vec<Extra>,
    /// The column with durations, if there is one.
    pub duration: Option<DurationColumn>,
    /// Whether rows have the column [`BEGIN_TIME`].
    pub has_begin: bool,
    /// What reads a line: JSON, unless the format says otherwise.
    pub(super) syntax: fn(&Self) -> Box<dyn Syntax>,
    /// Where a line of text has its values.
    pub(super) layout: Option<Arc<Layout>>,
    /// The columns `path` and `query`, where there is a request line to take them from.
    pub(super) target: Option<[usize; 2]>,
    /// Values that are an address with a port: the value's cell, and the columns that it is taken apart into.
    pub(super) ends: Vec<(usize, [usize; 2])>,
    /// The cell of the host as it was asked for, and the column of the host.
    pub(super) authority: Option<(usize, usize)>,
    /// The cell of the header Cookie, and the column that says whether there is one.
    pub(super) cookie: Option<(usize, usize)>,
    /// Whether rows have the columns of the header of a syslog message.
    pub(super) has_syslog: bool,
    /// Columns of the rows; the last is [`REPAIRED`] but of hellos, and before it [`BEGIN_TIME`] if the format knows when something began
    /// beside when it ended.
    pub schema: SchemaRef,
}

impl Format {
    /// A format of JSON lines with these columns; `extras` has at least one time.
    pub fn new(columns: Vec<Column>, extras: Vec<Extra>, duration: Option<DurationColumn>) -> Self {
        let fields = columns.iter().map(|c| Field::new(&c.name, c.kind.data_type(), !c.required));
        let is_moment = |extra: &Extra| matches!(extra.role, Role::End | Role::Duration | Role::RequestLine);
        let has_begin = duration.is_some() || extras.iter().any(is_moment);
        let begin = has_begin.then(|| Field::new(BEGIN_TIME, time_type(), true));
        let repaired = Field::new(REPAIRED, DataType::Boolean, true);
        let schema = stream_schema(fields.chain(begin).chain([repaired]).collect::<Vec<_>>());
        let place = |name: &str| columns.iter().position(|column| column.name == name);
        let target = place("path").zip(place("query")).map(|(path, query)| [path, query]);
        let is_target = |extra: &Extra| matches!(extra.role, Role::RequestLine | Role::Target);
        let target = target.filter(|_| extras.iter().any(is_target));
        let cells = extras.iter().enumerate().map(|(nth, extra)| (columns.len() + nth, extra.role));
        let end = |(cell, role)| {
            let [ip, port] = match role {
                Role::Source => ["src_ip", "src_port"],
                Role::Destination => ["dst_ip", "dst_port"],
                _ => return None,
            };
            Some((cell, [place(ip)?, place(port)?]))
        };
        let ends = cells.clone().filter_map(end).collect();
        let of = |wanted: Role, name: &str| {
            let cell = cells.clone().find(|(_, role)| *role == wanted)?.0;
            Some((cell, place(name)?))
        };
        let (authority, cookie) = (of(Role::Authority, "host"), of(Role::Cookie, "has_cookie"));
        Self {
            columns,
            extras,
            duration,
            has_begin,
            syntax: Json::syntax,
            layout: None,
            target,
            ends,
            authority,
            cookie,
            has_syslog: false,
            schema,
        }
    }

    /// The same with columns for what the header of a syslog message says, behind the others; they are null where a line has
    /// none.
    pub fn with_syslog_columns(mut self) -> Self {
        let mut fields: Vec<Field> = self.schema.fields().iter().map(|field| Field::clone(field)).collect();
        fields.extend(syslog::COLUMNS.map(|name| Field::new(name, DataType::Utf8, true)));
        self.schema = Arc::new(Schema::new(fields));
        self.has_syslog = true;
        self
    }

    /// Whether lines are values one after another rather than JSON.
    pub fn is_text(&self) -> bool {
        self.layout.is_some()
    }

    /// Where values stand in a line: of the columns, then of those without.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.columns.iter().map(|column| &column.key).chain(self.extras.iter().map(|extra| &extra.key))
    }
}

/// The four columns that name a connection.
pub(super) fn endpoints() -> Vec<Column> {
    named(&[("src_ip", Kind::Ip), ("src_port", Kind::U16), ("dst_ip", Kind::Ip), ("dst_port", Kind::U16)])
}

/// The exact time first, the one for people last.
pub(super) fn times(unit: Unit) -> Vec<Extra> {
    let time = |(key, unit)| Extra::begin(Path::key(key), unit);
    [("timestamp", unit), ("timestamp_ns", Unit::Ns), ("time", unit)].map(time).to_vec()
}

/// Columns of these kinds, each under the key that is named as it is.
pub(super) fn named(columns: &[(&str, Kind)]) -> Vec<Column> {
    let column = |&(name, kind): &(&str, Kind)| Column {
        name: name.into(),
        key: Path::key(name),
        kind,
        absent: kind.absent(),
        required: false,
    };
    columns.iter().map(column).collect()
}

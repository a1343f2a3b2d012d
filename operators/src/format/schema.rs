//! The columns of a format, and how they look in Arrow.

use arrow::datatypes::{DataType, Field, SchemaRef};
use engine::batch::{stream_schema, time_type};

use super::BEGIN_TIME;
use super::json::Json;
use super::path::Path;
use super::syntax::Syntax;
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
    /// The columns `path` and `query`, where there is a request line to take them from.
    pub(super) target: Option<[usize; 2]>,
    /// Columns of the rows; the last is [`REPAIRED`] but of hellos, and before it [`BEGIN_TIME`] if the format knows when something began
    /// beside when it ended.
    pub schema: SchemaRef,
}

impl Format {
    /// A format of JSON lines with these columns; `extras` has at least one time.
    pub fn new(columns: Vec<Column>, extras: Vec<Extra>, duration: Option<DurationColumn>) -> Self {
        let fields = columns.iter().map(|c| Field::new(&c.name, c.kind.data_type(), !c.required));
        let has_begin = duration.is_some() || extras.iter().any(|extra| extra.role != Role::Begin);
        let begin = has_begin.then(|| Field::new(BEGIN_TIME, time_type(), true));
        let repaired = Field::new(REPAIRED, DataType::Boolean, true);
        let schema = stream_schema(fields.chain(begin).chain([repaired]).collect::<Vec<_>>());
        let place = |name: &str| columns.iter().position(|column| column.name == name);
        let target = place("path").zip(place("query")).map(|(path, query)| [path, query]);
        let target = target.filter(|_| extras.iter().any(|extra| extra.role == Role::RequestLine));
        Self { columns, extras, duration, has_begin, syntax: Json::syntax, target, schema }
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

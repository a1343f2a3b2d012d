//! The columns of a table in ClickHouse, and whether a pipeline's rows fit them.

use arrow::datatypes::{DataType, Schema};
use clickhouse::Client;
use engine::batch::TIME;
use migrations::server::{ServerError, rows};
use migrations::sql::escaped;

use super::encode::{TICK, UPDATED_AT};

/// A column that rows can be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// As the server writes it, such as `LowCardinality(Nullable(String))`.
    pub ty: String,
}

/// What a column's type is for the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// String.
    Text,
    /// IPv6.
    Address,
    /// Whole numbers, and Bool.
    Whole,
    /// Float32, Float64.
    Real,
    /// DateTime: whole seconds.
    Second,
    /// DateTime64 with this many digits of a second.
    Moment(u8),
    /// Array.
    List,
    Other,
}

impl Column {
    /// What it is beneath LowCardinality and Nullable.
    pub fn kind(&self) -> Kind {
        let ty = bare(&self.ty);
        let name = ty.split('(').next().unwrap_or_default();
        match name {
            "String" => Kind::Text,
            "IPv6" => Kind::Address,
            "DateTime" => Kind::Second,
            "DateTime64" => {
                let digits = ty.split(['(', ',', ')']).nth(1).and_then(|digits| digits.trim().parse().ok());
                Kind::Moment(digits.unwrap_or(3))
            }
            "Float32" | "Float64" => Kind::Real,
            "Bool" => Kind::Whole,
            "Array" => Kind::List,
            name if name.trim_start_matches('U').starts_with("Int") => Kind::Whole,
            _ => Kind::Other,
        }
    }

    /// The items of an array.
    fn item(&self) -> Self {
        let ty = bare(&self.ty).strip_prefix("Array(").and_then(|item| item.strip_suffix(')')).unwrap_or_default();
        Self { name: self.name.clone(), ty: ty.to_owned() }
    }
}

/// The type within LowCardinality and Nullable.
fn bare(mut ty: &str) -> &str {
    for wrapper in ["LowCardinality(", "Nullable("] {
        ty = ty.strip_prefix(wrapper).and_then(|inner| inner.strip_suffix(')')).unwrap_or(ty);
    }
    ty
}

/// The columns of a table that are written, in its order; none if there is no such table.
///
/// # Errors
/// What the server says, or why it does not.
pub(super) async fn read(client: &Client, database: &str, table: &str) -> Result<Vec<Column>, ServerError> {
    let sql = format!(
        "SELECT name, type FROM system.columns WHERE database = '{}' AND table = '{}' AND default_kind NOT IN ('MATERIALIZED', 'ALIAS') ORDER BY position",
        escaped(database),
        escaped(table)
    );
    let found = rows(&client.clone().with_database("system"), &sql).await?;
    let column = |row: Vec<String>| {
        let mut row = row.into_iter();
        Some(Column { name: row.next()?, ty: row.next()? })
    };
    Ok(found.into_iter().filter_map(column).collect())
}

/// The server's version: its first two numbers.
///
/// # Errors
/// As [`read`].
pub(super) async fn version(client: &Client) -> Result<(u32, u32), ServerError> {
    let found = rows(&client.clone().with_database("system"), "SELECT version()").await?;
    let text = found.into_iter().flatten().next().unwrap_or_default();
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or_default());
    Ok((numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()))
}

/// What of a table is not as rows of this schema need it, each column on a line of its own; empty if it fits.
///
/// A number that does not fit its column is stored as another one, without an error (ClickHouse#41100), so a column must hold
/// all values of its type.
pub(super) fn differences(schema: &Schema, columns: &[Column]) -> Vec<String> {
    let mut found = Vec::new();
    for field in schema.fields() {
        let needed = || needed(field.data_type());
        let Some(column) = columns.iter().find(|column| column.name == *field.name()) else {
            found.push(format!("has no column `{}`, needed: {}", field.name(), needed()));
            continue;
        };
        let as_it_is = format!("has the column `{}` as {}", column.name, column.ty);
        if !fits(field.data_type(), column) {
            found.push(format!("{as_it_is}, needed: {}", needed()));
        } else if !holds(field.data_type(), column) {
            found.push(format!("{as_it_is}, which does not hold all of {}, needed: {}", field.data_type(), needed()));
        } else if is_time(field.data_type())
            && column.kind() == Kind::Second
            && !EVENT_TIMES.contains(&field.name().as_str())
        {
            found
                .push(format!("{as_it_is}, which ends in 2106 and begins again in 1970, needed: DateTime64(9, 'UTC')"));
        }
    }
    found
}

/// Times of which the sources take none that is far from now, and which therefore may be DateTime. `detected_at` is the
/// end of a window, in the tables of migration 06.
const EVENT_TIMES: [&str; 5] = [TIME, "window_start", "detected_at", TICK, UPDATED_AT];

fn is_time(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(..))
}

/// Whether a column is for values of this kind.
fn fits(ty: &DataType, column: &Column) -> bool {
    let kind = column.kind();
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            matches!(kind, Kind::Text | Kind::Address | Kind::Other)
        }
        DataType::Boolean => kind == Kind::Whole,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => kind == Kind::Real,
        DataType::Timestamp(..) => matches!(kind, Kind::Second | Kind::Moment(_)),
        DataType::List(item) => kind == Kind::List && fits(item.data_type(), &column.item()),
        ty if ty.is_integer() => matches!(kind, Kind::Whole | Kind::Real),
        // What else there is the server judges.
        _ => true,
    }
}

/// Whether a column that is for such values has room for each of them.
fn holds(ty: &DataType, column: &Column) -> bool {
    let target = bare(&column.ty);
    match ty {
        DataType::Float64 => target != "Float32",
        DataType::List(item) => holds(item.data_type(), &column.item()),
        ty if ty.is_integer() => {
            let bits = ty.primitive_width().unwrap_or(8) * 8;
            let signed = ty.is_signed_integer();
            match target {
                "Bool" => false,
                "Float32" => bits <= 16,
                "Float64" => bits <= 32,
                target => match target.strip_prefix("UInt").and_then(|bits| bits.parse::<usize>().ok()) {
                    Some(room) => !signed && bits <= room,
                    None => {
                        let room = target.strip_prefix("Int").and_then(|bits| bits.parse::<usize>().ok());
                        room.is_none_or(|room| if signed { bits <= room } else { bits < room })
                    }
                },
            }
        }
        _ => true,
    }
}

/// The type that holds all values of a column.
fn needed(ty: &DataType) -> String {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "String, or IPv6 for addresses".to_owned(),
        DataType::Boolean => "Bool or UInt8".to_owned(),
        DataType::Timestamp(..) => "DateTime64(9, 'UTC') or DateTime".to_owned(),
        DataType::List(item) => format!("Array({})", needed(item.data_type())),
        ty if ty.is_integer() => format!("{ty} or wider"),
        ty => ty.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, TimeUnit};

    use super::*;

    fn column(name: &str, ty: &str) -> Column {
        Column { name: name.to_owned(), ty: ty.to_owned() }
    }

    #[test]
    fn a_type_is_seen_through_its_wrappers() {
        let kind = |ty| column("c", ty).kind();
        assert_eq!(kind("LowCardinality(Nullable(String))"), Kind::Text);
        assert_eq!(kind("Nullable(DateTime64(6, 'UTC'))"), Kind::Moment(6));
        assert_eq!(
            (kind("DateTime"), kind("DateTime('UTC')"), kind("DateTime64(9)")),
            (Kind::Second, Kind::Second, Kind::Moment(9))
        );
        assert_eq!(
            (kind("UInt16"), kind("Int64"), kind("Bool"), kind("Float64")),
            (Kind::Whole, Kind::Whole, Kind::Whole, Kind::Real)
        );
        assert_eq!(
            (kind("IPv6"), kind("Array(String)"), kind("UUID"), kind("IPv4")),
            (Kind::Address, Kind::List, Kind::Other, Kind::Other)
        );
    }

    #[test]
    fn a_difference_names_the_column_what_it_is_and_what_is_needed() {
        let schema = Schema::new(vec![
            Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
            Field::new("src_ip", DataType::Utf8, true),
            Field::new("src_port", DataType::UInt16, true),
            Field::new("method", DataType::Utf8, true),
            Field::new("score", DataType::Float64, true),
        ]);
        let fitting = [
            column("time", "DateTime"),
            column("src_ip", "IPv6"),
            column("src_port", "UInt16"),
            column("method", "LowCardinality(String)"),
            column("score", "Nullable(Float64)"),
            column("more", "UInt8"),
        ];
        assert!(differences(&schema, &fitting).is_empty());
        let other = [
            column("time", "String"),
            column("src_ip", "IPv6"),
            column("src_port", "String"),
            column("score", "Nullable(Float32)"),
        ];
        assert_eq!(
            differences(&schema, &other),
            [
                "has the column `time` as String, needed: DateTime64(9, 'UTC') or DateTime",
                "has the column `src_port` as String, needed: UInt16 or wider",
                "has no column `method`, needed: String, or IPv6 for addresses",
                "has the column `score` as Nullable(Float32), which does not hold all of Float64, needed: Float64",
            ]
        );
    }

    #[test]
    fn a_column_that_is_too_narrow_is_named_with_the_type_to_use() {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let list = DataType::List(std::sync::Arc::new(Field::new("item", DataType::Int64, true)));
        let said = |ty: &DataType, table: &str| {
            let schema = Schema::new(vec![Field::new("c", ty.clone(), true)]);
            differences(&schema, &[column("c", table)]).join("")
        };
        for (ty, narrow, wide) in [
            (DataType::UInt64, "UInt32", "UInt64"),
            (DataType::UInt64, "Nullable(Int64)", "Int128"),
            (DataType::Int64, "UInt64", "Int64"),
            (DataType::Int64, "UInt8", "Nullable(Int256)"),
            (DataType::Int64, "Bool", "Int64"),
            (DataType::Int64, "Float64", "Int64"),
            (DataType::UInt16, "LowCardinality(UInt8)", "UInt16"),
            (DataType::UInt16, "Int16", "Float32"),
            (DataType::Int32, "Float32", "Float64"),
            (DataType::Float64, "Float32", "Float64"),
            (time, "DateTime('UTC')", "DateTime64(3)"),
            (list, "Array(UInt8)", "Array(Nullable(Int64))"),
        ] {
            assert_eq!(said(&ty, wide), "", "{ty} in {wide}");
            let narrow_says = said(&ty, narrow);
            assert!(narrow_says.contains(&format!("`c` as {narrow}, which")), "{narrow_says}");
        }
        assert!(said(&DataType::UInt64, "UInt32").ends_with("needed: UInt64 or wider"));
        for (ty, table) in [(DataType::Float32, "Float32"), (DataType::Boolean, "UInt8"), (DataType::UInt8, "Int16")] {
            assert_eq!(said(&ty, table), "");
        }
    }
}

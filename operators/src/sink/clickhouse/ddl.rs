//! The table that a stream or a relation would have, in ClickHouse's words.

use arrow::datatypes::{DataType, TimeUnit};
use engine::batch::{EdgeType, TIME};
use migrations::sql::identifier;

use super::encode::{TICK, UPDATED_AT};

/// Columns with their types, and what follows them in `CREATE TABLE`. `order` are the columns by which rows are told apart.
pub(super) fn table(ty: &EdgeType, order: &[usize]) -> (Vec<(String, String)>, String) {
    let fields = ty.schema.fields();
    let mut columns: Vec<(String, String)> = Vec::with_capacity(fields.len() + 2);
    for (at, field) in fields.iter().enumerate() {
        let nullable = field.is_nullable() && !order.contains(&at);
        columns.push((field.name().clone(), type_of(field.data_type(), nullable)));
    }
    let message_time = if ty.is_relation() { UPDATED_AT } else { TICK };
    columns.push((message_time.to_owned(), "DateTime64(3, 'UTC')".to_owned()));
    if ty.is_relation() {
        columns.push(("is_deleted".to_owned(), "UInt8".to_owned()));
    }
    let names: Vec<String> = order.iter().map(|at| identifier(fields[*at].name())).collect();
    let engine = if ty.is_relation() { format!("ReplacingMergeTree({UPDATED_AT})") } else { "MergeTree".to_owned() };
    let day = [TIME, "window_start"].into_iter().find(|name| ty.schema.index_of(name).is_ok());
    let partition = day.map(|day| format!("PARTITION BY toDate({})\n", identifier(day))).unwrap_or_default();
    // Without the window a batch that is sent again would be there twice.
    let ending = format!(
        "ENGINE = {engine}\n{partition}ORDER BY ({})\nSETTINGS non_replicated_deduplication_window = 10000",
        names.join(", ")
    );
    (columns, ending)
}

fn type_of(ty: &DataType, nullable: bool) -> String {
    let plain = match ty {
        DataType::Boolean => "Bool".to_owned(),
        DataType::Float16 | DataType::Float32 => "Float32".to_owned(),
        DataType::Float64 => "Float64".to_owned(),
        DataType::Date32 | DataType::Date64 => "Date32".to_owned(),
        DataType::Timestamp(unit, _) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            format!("DateTime64({digits}, 'UTC')")
        }
        // An array cannot be null; none is an empty one.
        DataType::List(item) => return format!("Array({})", type_of(item.data_type(), item.is_nullable())),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("Decimal({precision}, {scale})")
        }
        // ClickHouse names whole numbers as Arrow does.
        ty if ty.is_integer() => ty.to_string(),
        _ => "String".to_owned(),
    };
    if nullable { format!("Nullable({plain})") } else { plain }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};
    use engine::batch::{EdgeClass, stream_schema};

    use super::super::columns::{Column, differences};
    use super::*;

    #[test]
    fn a_table_that_is_made_so_has_no_differences() {
        let item = Field::new("item", DataType::Utf8, true);
        let schema = stream_schema([
            Field::new("n", DataType::Int64, true),
            Field::new("f", DataType::Float64, true),
            Field::new("b", DataType::Boolean, false),
            Field::new("s", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true),
            Field::new("list", DataType::List(Arc::new(item)), true),
        ]);
        let (columns, ending) = table(&EdgeType::stream(Arc::clone(&schema)), &[0, 1]);
        let of = |columns: &[(String, String)]| {
            columns.iter().map(|(name, ty)| Column { name: name.clone(), ty: ty.clone() }).collect::<Vec<_>>()
        };
        assert!(differences(&schema, &of(&columns)).is_empty());
        assert_eq!(columns[2], ("n".to_owned(), "Nullable(Int64)".to_owned()));
        assert_eq!(columns.last().map(|column| column.0.as_str()), Some(TICK));
        assert!(ending.contains("ORDER BY (`time`, `seq`)") && ending.contains("toDate(`time`)"), "{ending}");

        let schema = Arc::new(Schema::new(vec![
            Field::new("net", DataType::Utf8, true),
            Field::new("hits", DataType::Int64, true),
        ]));
        let ty = EdgeType { schema, class: EdgeClass::Relation { key: vec!["net".to_owned()] } };
        let (columns, ending) = table(&ty, &[0]);
        assert_eq!(columns[0].1, "String", "a key is not null");
        assert_eq!(columns.len(), 4);
        assert!(ending.starts_with("ENGINE = ReplacingMergeTree(updated_at)\nORDER BY (`net`)"), "{ending}");
    }
}

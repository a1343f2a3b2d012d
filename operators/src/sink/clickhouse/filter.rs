//! From conditions of DataFusion to conditions of ClickHouse with the very same result. What has no such counterpart is not
//! translated; DataFusion applies it to the rows that come back.

use std::fmt::Write;
use std::net::IpAddr;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList, Like};
use datafusion::logical_expr::{Expr, Operator};
use migrations::sql::{escaped, identifier};

use super::columns::{Column, Kind};

/// What is known of the table.
pub(super) struct Scope<'a> {
    /// The served table's columns.
    pub schema: &'a Schema,
    /// The columns in ClickHouse.
    pub columns: &'a [Column],
    /// Where nanoseconds of the column `time` are, if it has whole seconds only.
    pub nanoseconds: Option<&'a str>,
}

/// The condition in ClickHouse's SQL; `None` if there is none that is the same for every row.
pub(super) fn translate(filter: &Expr, scope: &Scope<'_>) -> Option<String> {
    match filter {
        Expr::Column(column) => {
            let target = scope.target(&column.name)?;
            (*target.ty == DataType::Boolean && target.kind == Kind::Whole).then(|| format!("({} != 0)", target.sql))
        }
        Expr::Not(inner) => Some(format!("(NOT {})", translate(inner, scope)?)),
        Expr::IsNull(inner) => Some(format!("({} IS NULL)", scope.column(inner)?.sql)),
        Expr::IsNotNull(inner) => Some(format!("({} IS NOT NULL)", scope.column(inner)?.sql)),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Some(format!("({} {op} {})", translate(left, scope)?, translate(right, scope)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Literal(value, _), column) => scope.column(column)?.compare(op.swap()?, value),
            (column, Expr::Literal(value, _)) => scope.column(column)?.compare(*op, value),
            _ => None,
        },
        Expr::Between(Between { expr, negated, low, high }) => {
            let target = scope.column(expr)?;
            let (Expr::Literal(low, _), Expr::Literal(high, _)) = (low.as_ref(), high.as_ref()) else { return None };
            let (low, high) = (target.compare(Operator::GtEq, low)?, target.compare(Operator::LtEq, high)?);
            Some(format!("({}({low} AND {high}))", if *negated { "NOT " } else { "" }))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let target = scope.column(expr)?;
            let mut out = String::new();
            for item in list {
                let Expr::Literal(value, _) = item else { return None };
                let or = if out.is_empty() { "" } else { " OR " };
                write!(out, "{or}{}", target.compare(Operator::Eq, value)?).ok()?;
            }
            Some(format!("({}({out}))", if *negated { "NOT " } else { "" })).filter(|_| !list.is_empty())
        }
        Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive: false }) => {
            let target = scope.column(expr)?;
            let Expr::Literal(value, _) = pattern.as_ref() else { return None };
            // `_` and escapes are not read alike by both.
            let pattern = text(value).filter(|pattern| !pattern.contains(['_', '\\']))?;
            let not = if *negated { "NOT " } else { "" };
            target.is_text().then(|| format!("({} {not}LIKE '{}')", target.sql, escaped(pattern)))
        }
        _ => None,
    }
}

/// A column that is compared.
struct Target<'a> {
    ty: &'a DataType,
    kind: Kind,
    sql: String,
    /// Nanoseconds since the epoch, if `sql` has whole seconds of the same time.
    nanoseconds: Option<&'a str>,
}

impl<'a> Scope<'a> {
    fn column(&self, expr: &Expr) -> Option<Target<'a>> {
        let Expr::Column(column) = expr else { return None };
        self.target(&column.name)
    }

    fn target(&self, name: &str) -> Option<Target<'a>> {
        let field = self.schema.field_with_name(name).ok()?;
        let column = self.columns.iter().find(|column| column.name == name)?;
        let nanoseconds = self.nanoseconds.filter(|_| name == engine::batch::TIME);
        Some(Target { ty: field.data_type(), kind: column.kind(), sql: identifier(name), nanoseconds })
    }
}

impl Target<'_> {
    fn is_text(&self) -> bool {
        *self.ty == DataType::Utf8 && self.kind == Kind::Text
    }

    fn compare(&self, op: Operator, value: &ScalarValue) -> Option<String> {
        let sign = match op {
            Operator::Eq => "=",
            Operator::NotEq => "!=",
            Operator::Lt => "<",
            Operator::LtEq => "<=",
            Operator::Gt => ">",
            Operator::GtEq => ">=",
            _ => return None,
        };
        let column = &self.sql;
        match (self.ty, self.kind) {
            (DataType::Utf8, Kind::Text) => Some(format!("({column} {sign} '{}')", escaped(text(value)?))),
            (DataType::Utf8, Kind::Address) if matches!(op, Operator::Eq | Operator::NotEq) => {
                // Addresses come back as they are usually written; no other text equals one.
                let address: IpAddr = text(value)?.parse().ok()?;
                (address.to_canonical().to_string() == text(value)?)
                    .then(|| format!("({column} {sign} toIPv6('{address}'))"))
            }
            (DataType::Boolean, Kind::Whole) => match value {
                ScalarValue::Boolean(Some(value)) => Some(format!("(({column} != 0) {sign} {})", u8::from(*value))),
                _ => None,
            },
            (ty, Kind::Whole) if ty.is_integer() => Some(format!("({column} {sign} {})", whole(value)?)),
            (DataType::Timestamp(TimeUnit::Nanosecond, _), Kind::Second) => {
                self.compare_seconds(op, sign, nanoseconds(value)?)
            }
            (DataType::Timestamp(TimeUnit::Nanosecond, _), Kind::Moment(_)) => {
                Some(format!("({column} {sign} fromUnixTimestamp64Nano(toInt64({}), 'UTC'))", nanoseconds(value)?))
            }
            _ => None,
        }
    }

    /// A comparison of whole seconds, for the sorting key, and where there are nanoseconds of these besides.
    fn compare_seconds(&self, op: Operator, sign: &str, value: i64) -> Option<String> {
        let column = &self.sql;
        let (second, rest) = (value.div_euclid(1_000_000_000), value.rem_euclid(1_000_000_000));
        let literal = |second: i64| u32::try_from(second).ok().map(|second| format!("toDateTime({second}, 'UTC')"));
        if let Some(nanoseconds) = self.nanoseconds {
            let exact = format!("{nanoseconds} {sign} {value}");
            let coarse = match op {
                Operator::Gt | Operator::GtEq => ">=",
                Operator::Lt | Operator::LtEq => "<=",
                Operator::Eq => "=",
                _ => return Some(format!("({exact})")),
            };
            return Some(format!("({column} {coarse} {} AND {exact})", literal(second)?));
        }
        match (op, rest) {
            (_, 0) => Some(format!("({column} {sign} {})", literal(second)?)),
            (Operator::Gt | Operator::GtEq, _) => Some(format!("({column} > {})", literal(second)?)),
            (Operator::Lt | Operator::LtEq, _) => Some(format!("({column} <= {})", literal(second)?)),
            _ => None,
        }
    }
}

fn text(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => text.as_deref(),
        _ => None,
    }
}

fn whole(value: &ScalarValue) -> Option<String> {
    if !value.data_type().is_integer() || value.is_null() {
        return None;
    }
    // Negative numbers in parentheses: `a - -1` and the like are never built, but `x = -1` reads better so, too.
    Some(format!("({value})"))
}

/// Nanoseconds since the epoch.
fn nanoseconds(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampNanosecond(Some(value), _) => Some(*value),
        ScalarValue::TimestampMicrosecond(Some(value), _) => value.checked_mul(1_000),
        ScalarValue::TimestampMillisecond(Some(value), _) => value.checked_mul(1_000_000),
        ScalarValue::TimestampSecond(Some(value), _) => value.checked_mul(1_000_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Not;

    use arrow::datatypes::Field;
    use datafusion::prelude::{col, lit};

    use super::*;

    fn translated(filter: &Expr, nanoseconds: Option<&str>) -> Option<String> {
        let time = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let schema = Schema::new(vec![
            Field::new("time", time(), false),
            Field::new("seen", time(), true),
            Field::new("src_ip", DataType::Utf8, true),
            Field::new("host", DataType::Utf8, true),
            Field::new("status", DataType::UInt16, true),
            Field::new("score", DataType::Float64, true),
            Field::new("robots", DataType::Boolean, true),
        ]);
        let column = |(name, ty): (&str, &str)| Column { name: name.to_owned(), ty: ty.to_owned() };
        let columns = [
            ("time", "DateTime"),
            ("seen", "Nullable(DateTime64(9, 'UTC'))"),
            ("src_ip", "IPv6"),
            ("host", "LowCardinality(String)"),
            ("status", "UInt16"),
            ("score", "Float64"),
            ("robots", "Nullable(UInt8)"),
        ];
        translate(filter, &Scope { schema: &schema, columns: &columns.map(column), nanoseconds })
    }

    fn at(nanoseconds: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(nanoseconds), Some("UTC".into())))
    }

    #[test]
    fn text_is_escaped_and_cannot_leave_its_quotes() {
        let filter = col("host").eq(lit("a' OR 1=1 -- \\"));
        assert_eq!(translated(&filter, None).as_deref(), Some(r"(`host` = 'a\' OR 1=1 -- \\')"));
        assert_eq!(translated(&col("host").like(lit("%x'%")), None).as_deref(), Some(r"(`host` LIKE '%x\'%')"));
        assert_eq!(translated(&col("host").like(lit("a_c")), None), None);
    }

    #[test]
    fn times_are_compared_by_the_second_without_losing_a_row() {
        let second = 1_700_000_000_000_000_000;
        let of = |filter: Expr| translated(&filter, None);
        assert_eq!(of(col("time").gt_eq(at(second))).as_deref(), Some("(`time` >= toDateTime(1700000000, 'UTC'))"));
        assert_eq!(of(col("time").gt_eq(at(second + 1))).as_deref(), Some("(`time` > toDateTime(1700000000, 'UTC'))"));
        assert_eq!(of(col("time").lt(at(second + 1))).as_deref(), Some("(`time` <= toDateTime(1700000000, 'UTC'))"));
        assert_eq!(of(col("time").eq(at(second + 1))), None);
        assert_eq!(of(col("time").gt_eq(at(-1))), None);
        let exact = translated(&at(second + 1).gt(col("time")), Some("ns"));
        assert_eq!(exact.as_deref(), Some("(`time` <= toDateTime(1700000000, 'UTC') AND ns < 1700000000000000001)"));
        let seen = of(col("seen").lt_eq(at(5)));
        assert_eq!(seen.as_deref(), Some("(`seen` <= fromUnixTimestamp64Nano(toInt64(5), 'UTC'))"));
    }

    #[test]
    fn addresses_numbers_and_combinations() {
        let of = |filter: Expr| translated(&filter, None);
        assert_eq!(of(col("src_ip").eq(lit("192.0.2.1"))).as_deref(), Some("(`src_ip` = toIPv6('192.0.2.1'))"));
        assert_eq!(of(col("src_ip").eq(lit("2001:DB8::1"))), None, "no address comes back like this");
        assert_eq!(of(col("src_ip").gt(lit("192.0.2.1"))), None, "text and addresses are sorted differently");
        assert_eq!(of(lit(400_u16).lt_eq(col("status"))).as_deref(), Some("(`status` >= (400))"));
        let list = col("status").in_list(vec![lit(1_u16), lit(2_u16)], true);
        assert_eq!(of(list).as_deref(), Some("(NOT ((`status` = (1)) OR (`status` = (2))))"));
        let null = lit(ScalarValue::UInt16(None));
        assert_eq!(of(col("status").in_list(vec![null], false)), None);
        assert_eq!(of(col("score").gt(lit(1.0))), None, "NaN is sorted differently");
        let both = col("robots").and(col("host").is_null().not());
        assert_eq!(of(both).as_deref(), Some("((`robots` != 0) AND (NOT (`host` IS NULL)))"));
        assert_eq!(of(col("host").eq(lit("x")).or(col("score").gt(lit(1.0)))), None);
        assert_eq!(of(col("nowhere").eq(lit("x"))), None);
    }
}

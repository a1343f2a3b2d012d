//! Whether a file of an earlier pipeline can be read as a part of today's table.
//!
//! Columns that the file lacks are null, columns that the table does not have any more are not read, and a type that has
//! become wider is cast:
//!
//! | in the file | in the table |
//! |---|---|
//! | a whole number | a wider one that has all of its values (`Int32` to `Int64`, `UInt32` to `Int64` …) |
//! | a whole number, Float32 | Float64; whole numbers of up to 16 bits also Float32. Beyond 2⁵³ the nearest number |
//! | a whole number, a truth value | text |
//! | a time | a time of a finer unit |
//! | a list | a list of a wider type |
//! | nothing but nulls | any |

use arrow::datatypes::{DataType, Schema, TimeUnit};

/// Why a file with these columns is none of the table's; `None` if it is one.
pub(super) fn unfit(file: &Schema, table: &Schema, required: impl IntoIterator<Item = usize>) -> Option<String> {
    for field in required.into_iter().map(|at| table.field(at)) {
        if file.field_with_name(field.name()).is_err() {
            return Some(format!("it has no column `{}`", field.name()));
        }
    }
    for field in table.fields() {
        let Ok(written) = file.field_with_name(field.name()) else { continue };
        let (from, to) = (written.data_type(), field.data_type());
        if !widens(from, to) {
            return Some(format!("its column `{}` is {from}, which is not read as {to}", field.name()));
        }
    }
    None
}

/// Whether all values of a type are values of another.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{Boolean, Float32, Float64, LargeUtf8, List, Null, Timestamp, Utf8, Utf8View};
    let is_text = matches!(to, Utf8 | LargeUtf8 | Utf8View);
    match (from, to) {
        (from, to) if from == to => true,
        (Null, _) | (Float32, Float64) => true,
        (Boolean | Utf8 | LargeUtf8 | Utf8View, _) if is_text => true,
        (from, _) if from.is_integer() && is_text => true,
        (from, Float64) => from.is_integer(),
        (from, Float32) => from.is_integer() && bits(from) <= 16,
        (Timestamp(from, a), Timestamp(to, b)) => a == b && unit(from) <= unit(to),
        (List(from), List(to)) => widens(from.data_type(), to.data_type()),
        (from, to) if from.is_signed_integer() && to.is_signed_integer() => bits(from) <= bits(to),
        (from, to) if from.is_unsigned_integer() && to.is_unsigned_integer() => bits(from) <= bits(to),
        (from, to) if from.is_unsigned_integer() && to.is_signed_integer() => bits(from) < bits(to),
        _ => false,
    }
}

fn bits(ty: &DataType) -> usize {
    ty.primitive_width().unwrap_or(usize::MAX / 8) * 8
}

fn unit(unit: &TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_wider_type_is_one_that_has_all_values() {
        use DataType::{Boolean, Float32, Float64, Int8, Int16, Int32, Int64, Null, UInt8, UInt32, UInt64, Utf8};
        for (from, to) in [
            (Int8, Int64),
            (UInt32, UInt64),
            (UInt32, Int64),
            (Int64, Float64),
            (Float32, Float64),
            (Int16, Float32),
            (UInt8, Utf8),
            (Boolean, Utf8),
            (Null, Int8),
        ] {
            assert!(widens(&from, &to), "{from} to {to}");
        }
        for (from, to) in [
            (Int64, Int32),
            (Int8, UInt64),
            (UInt64, Int64),
            (Int32, Float32),
            (Float64, Float32),
            (Utf8, Int64),
            (Boolean, Int8),
            (Float64, Utf8),
            (Int64, Boolean),
        ] {
            assert!(!widens(&from, &to), "{from} to {to}");
        }
    }

    #[test]
    fn a_file_without_a_column_fits_and_one_of_another_kind_does_not() {
        let schema = |fields: &[(&str, DataType)]| {
            Schema::new(fields.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect::<Vec<_>>())
        };
        let table = schema(&[("seq", DataType::UInt64), ("host", DataType::Utf8), ("n", DataType::Int64)]);
        assert_eq!(unfit(&schema(&[("seq", DataType::UInt64), ("gone", DataType::Date32)]), &table, [0]), None);
        assert_eq!(unfit(&schema(&[("host", DataType::Utf8)]), &table, [0]).as_deref(), Some("it has no column `seq`"));
        let other = schema(&[("seq", DataType::UInt64), ("n", DataType::Utf8)]);
        assert_eq!(unfit(&other, &table, [0]).as_deref(), Some("its column `n` is Utf8, which is not read as Int64"));
    }
}

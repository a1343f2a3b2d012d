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
//!
//! A column of any other type is null in the rows of that file, which is said; without the columns that order rows and tell them
//! apart a file is none of the table's.

use arrow::datatypes::{DataType, Schema, TimeUnit};

/// The columns of the table that are null in the rows of a file with these columns, each with the reason.
///
/// # Errors
/// Why the file is none of the table's: a required column is not there, or is of another type.
pub(super) fn unread(
    file: &Schema,
    table: &Schema,
    required: impl IntoIterator<Item = usize>,
) -> Result<Vec<(String, String)>, String> {
    let required: Vec<usize> = required.into_iter().collect();
    let mut unread = Vec::new();
    for (at, field) in table.fields().iter().enumerate() {
        let is_required = required.contains(&at);
        let Ok(written) = file.field_with_name(field.name()) else {
            if is_required {
                return Err(format!("it has no column `{}`", field.name()));
            }
            continue;
        };
        let (from, to) = (written.data_type(), field.data_type());
        if !widens(from, to) {
            let reason = format!("its column `{}` is {from}, which is not read as {to}", field.name());
            if is_required {
                return Err(reason);
            }
            unread.push((field.name().clone(), reason));
        }
    }
    Ok(unread)
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
    fn a_file_without_a_column_fits_and_one_of_another_kind_is_not_read() {
        let schema = |fields: &[(&str, DataType)]| {
            Schema::new(fields.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect::<Vec<_>>())
        };
        let table = schema(&[("seq", DataType::UInt64), ("host", DataType::Utf8), ("n", DataType::Int64)]);
        let fits = unread(&schema(&[("seq", DataType::UInt64), ("gone", DataType::Date32)]), &table, [0]);
        assert_eq!(fits, Ok(Vec::new()));
        assert_eq!(unread(&schema(&[("host", DataType::Utf8)]), &table, [0]), Err("it has no column `seq`".to_owned()));
        let other = schema(&[("seq", DataType::UInt64), ("n", DataType::Utf8)]);
        let reason = "its column `n` is Utf8, which is not read as Int64".to_owned();
        assert_eq!(unread(&other, &table, [0]), Ok(vec![("n".to_owned(), reason.clone())]), "it is null");
        assert_eq!(unread(&other, &table, [0, 2]), Err(reason), "rows are told apart by it");
    }
}

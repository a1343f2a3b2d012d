//! From the columns of an answer to those of the served table.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef, UInt64Type};
use arrow::error::ArrowError;

/// A value that does not fit is an error, not NULL.
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// Rows with these columns, by position.
///
/// # Errors
/// If a column is not of a type that becomes what is wanted, or a value does not fit.
pub(super) fn rows(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        if *field.data_type() == DataType::Utf8 {
            text(column)
        } else {
            cast_with_options(column, field.data_type(), &STRICT)
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

/// The first value of a column of whole numbers.
pub(super) fn whole(column: &ArrayRef) -> Result<u64, ArrowError> {
    let column = cast_with_options(column, &DataType::UInt64, &STRICT)?;
    Ok(column.as_primitive::<UInt64Type>().iter().next().flatten().unwrap_or_default())
}

/// Text as it is, addresses as they are usually written.
fn text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::FixedSizeBinary(16) => {
            let bytes = column.as_fixed_size_binary();
            Ok(Arc::new(bytes.iter().map(|bytes| bytes.and_then(address)).collect::<StringArray>()))
        }
        DataType::Binary => {
            let bytes = column.as_binary::<i32>();
            match StringArray::try_from_binary(bytes.clone()) {
                Ok(text) => Ok(Arc::new(text)),
                Err(_) => Ok(Arc::new(repaired(bytes))),
            }
        }
        _ => cast_with_options(column, &DataType::Utf8, &STRICT),
    }
}

/// What is not UTF-8 becomes U+FFFD: rows that did not come through the engine may have it.
fn repaired(column: &BinaryArray) -> StringArray {
    column.iter().map(|bytes| bytes.map(String::from_utf8_lossy)).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical().to_string())
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeBinaryArray, UInt8Array, UInt16Array};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn columns_get_the_types_of_the_served_table() {
        let v4 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1];
        let mut v6 = [0; 16];
        (v6[0], v6[15]) = (0x20, 1);
        let addresses = FixedSizeBinaryArray::try_from_iter([v4, v6].iter()).expect("valid");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(addresses),
            Arc::new(BinaryArray::from_iter_values([b"caf\xc3\xa9".as_slice(), b"\xff/x"])),
            Arc::new(UInt16Array::from(vec![7, 8])),
            Arc::new(UInt8Array::from(vec![0, 1])),
        ];
        let given = Schema::new(
            columns
                .iter()
                .enumerate()
                .map(|(nth, c)| Field::new(format!("_{nth}"), c.data_type().clone(), true))
                .collect::<Vec<_>>(),
        );
        let batch = RecordBatch::try_new(Arc::new(given), columns).expect("valid");
        let wanted = [DataType::Utf8, DataType::Utf8, DataType::Int64, DataType::Boolean];
        let fields: Vec<Field> =
            wanted.iter().enumerate().map(|(nth, ty)| Field::new(format!("c{nth}"), ty.clone(), true)).collect();
        let rows = rows(&Arc::new(Schema::new(fields)), &batch).expect("decoded");
        let texts = |at: usize| {
            rows.column(at).as_string::<i32>().iter().map(|t| t.unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(texts(0), ["192.0.2.1", "2000::1"]);
        assert_eq!(texts(1), ["caf\u{e9}", "\u{fffd}/x"]);
        assert!(rows.column(3).as_boolean().value(1) && !rows.column(3).as_boolean().value(0));
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error() {
        let column: ArrayRef = Arc::new(UInt16Array::from(vec![300]));
        let given = Schema::new(vec![Field::new("_0", DataType::UInt16, false)]);
        let batch = RecordBatch::try_new(Arc::new(given), vec![column]).expect("valid");
        let wanted = Schema::new(vec![Field::new("c", DataType::UInt8, true)]);
        assert!(rows(&Arc::new(wanted), &batch).is_err());
    }
}

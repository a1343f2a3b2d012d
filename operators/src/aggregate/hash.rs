//! Hashes of values and keys. Seeds are fixed: the same input gives the same rows in every run.

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

/// The hash function of everything in this operator.
pub(super) fn seeded() -> RandomState {
    RandomState::with_seeds(0x6a61_345f_656e_6769, 0x6e65_5f61_6767_7265, 0x6761_7465_5f6b_6579, 0x7365_6564_5f31_3233)
}

/// A bijection on 64 bits whose output bits all depend on all input bits (the finaliser of splitmix64).
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One hash for each value, null for null. Numbers are hashed without collisions.
pub(super) fn hashes(array: &ArrayRef) -> Result<UInt64Array, ArrowError> {
    let nulls = array.logical_nulls();
    let state = seeded();
    let text = |value: Option<&str>| value.map_or(0, |v| mix(state.hash_one(v)));
    let values: Vec<u64> = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(text).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(text).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(text).collect(),
        DataType::Boolean => array.as_boolean().iter().map(|v| mix(u64::from(v == Some(true)))).collect(),
        ty if ty.is_floating() => {
            let floats = cast(array, &DataType::Float64)?;
            // Zero and minus zero are equal, and so are all NaNs.
            let bits = |v: &f64| if v.is_nan() { f64::NAN.to_bits() } else { (v + 0.0).to_bits() };
            floats.as_primitive::<Float64Type>().values().iter().map(|v| mix(bits(v))).collect()
        }
        ty if ty.is_unsigned_integer() => {
            let numbers = cast(array, &DataType::UInt64)?;
            numbers.as_primitive::<UInt64Type>().values().iter().map(|v| mix(*v)).collect()
        }
        ty if ty.is_signed_integer() || matches!(ty, DataType::Timestamp(_, _)) => {
            let numbers = cast(array, &DataType::Int64)?;
            numbers.as_primitive::<Int64Type>().values().iter().map(|v| mix(*v as u64)).collect()
        }
        ty => {
            let rows =
                RowConverter::new(vec![SortField::new(ty.clone())])?.convert_columns(std::slice::from_ref(array))?;
            rows.iter().map(|row| mix(state.hash_one(row.data()))).collect()
        }
    };
    Ok(UInt64Array::new(values.into(), nulls))
}

/// One hash for each row of key columns, the same on every worker.
pub(super) fn key_hashes(columns: &[ArrayRef], into: &mut Vec<u64>) -> Result<(), ArrowError> {
    into.clear();
    for column in columns {
        let hashes = hashes(column)?;
        if into.is_empty() {
            into.resize(column.len(), 0);
        }
        for (row, whole) in into.iter_mut().enumerate() {
            let part = if hashes.is_null(row) { u64::MAX } else { hashes.value(row) };
            *whole = mix(whole.rotate_left(5) ^ part);
        }
    }
    Ok(())
}

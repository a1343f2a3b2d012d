//! Hellos that two sensors have seen.

use arrow::array::{Array, AsArray, RecordBatch};

use super::store::{Row, Store};

/// Whether two rows of one key are what two sensors saw of one hello: other sensors, the same message. What the network
/// changes on the way (TTL, translated addresses, options of a proxy's TCP) is not compared.
pub(super) fn is_same_hello(store: &Store, a: Row, b: Row) -> bool {
    let (Some(a), Some(b)) = (store.find(a), store.find(b)) else { return false };
    let equal = |column: &str| match (text(a, column), text(b, column)) {
        (Some(a), Some(b)) => a == b,
        (a, b) => a.is_none() && b.is_none(),
    };
    let sensors = (text(a, "sensor_id"), text(b, "sensor_id"));
    matches!(sensors, (Some(a), Some(b)) if a != b)
        && text(a, "ja4").is_some()
        && ["ja4", "ja3", "ja3_hash", "tls_sni", "tls_alpn"].into_iter().all(equal)
}

/// A text of a row, if it has one.
fn text<'a>((rows, at): (&'a RecordBatch, usize), column: &str) -> Option<&'a str> {
    let values = rows.column_by_name(column)?.as_string_opt::<i32>()?;
    values.is_valid(at).then(|| values.value(at))
}

//! Long texts cut: what a node keeps has a size that whoever sends rows cannot choose.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use sha2::{Digest, Sha256};

/// The most bytes of a text that is kept as a key.
pub(crate) const MAX_KEY: usize = 1 << 10;

/// The fewest that a pipeline may ask for: the hash needs 33 of them.
pub(crate) const MIN_KEY: usize = 64;

/// What stands between the text and its hash.
const MARK: char = '#';

/// Bytes of the hash, of which each is two characters.
const HASH: usize = 16;

/// How many units something of so many bytes counts for against a bound on rows or groups: one, and one more for each KiB.
pub(crate) fn units(bytes: usize) -> usize {
    1 + bytes / 1024
}

/// The [`units`] of each row, by the bytes of its texts.
pub(crate) fn row_units(rows: &RecordBatch) -> Vec<u32> {
    let mut bytes = vec![0_usize; rows.num_rows()];
    for texts in rows.columns().iter().filter_map(|column| column.as_string_opt::<i32>()) {
        bytes.iter_mut().zip(texts.offsets().lengths()).for_each(|(sum, length)| *sum += length);
    }
    bytes.into_iter().map(|bytes| u32::try_from(units(bytes)).unwrap_or(u32::MAX)).collect()
}

/// A column whose texts have at most `most` bytes, and how many were cut; `None` if none is longer. Of a longer one its
/// beginning stays, and behind `#` the first 128 bits of the SHA-256 of all of it: equal texts stay equal, and different
/// ones different. It depends on the text alone.
pub(crate) fn cut(column: &ArrayRef, most: usize) -> Option<(ArrayRef, usize)> {
    let texts = (*column.data_type() == DataType::Utf8).then(|| column.as_string::<i32>())?;
    let is_long = |row: usize| texts.value_length(row) as usize > most;
    let long = (0..texts.len()).filter(|row| is_long(*row)).count();
    if long == 0 {
        return None;
    }
    let cut: StringArray = (0..texts.len())
        .map(|row| {
            let text = texts.is_valid(row).then(|| texts.value(row))?;
            Some(if is_long(row) { short(text, most) } else { text.to_owned() })
        })
        .collect();
    Some((Arc::new(cut), long))
}

/// A batch whose first `keys` columns are [`cut`], and how many texts were.
pub(crate) fn cut_keys(rows: RecordBatch, keys: usize, most: usize) -> (RecordBatch, usize) {
    let mut cuts = 0;
    let mut columns = rows.columns().to_vec();
    for column in columns.iter_mut().take(keys) {
        if let Some((shorter, count)) = cut(column, most) {
            *column = shorter;
            cuts += count;
        }
    }
    if cuts == 0 {
        return (rows, 0);
    }
    match RecordBatch::try_new(rows.schema(), columns) {
        Ok(cut) => (cut, cuts),
        // Types and lengths are those of before.
        Err(_) => (rows, 0),
    }
}

/// The beginning of a text and its hash.
fn short(text: &str, most: usize) -> String {
    let room = most.saturating_sub(MARK.len_utf8() + 2 * HASH);
    let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let mut short = format!("{}{MARK}", &text[..end]);
    for byte in Sha256::digest(text).iter().take(HASH) {
        // Writing to a text never fails.
        let _ = write!(short, "{byte:02x}");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_stay_equal_and_others_different() {
        let (a, b) = ("é".repeat(5_000), format!("{}x", "é".repeat(4_999)));
        let column: ArrayRef =
            Arc::new(StringArray::from(vec![Some(a.as_str()), None, Some(&b), Some("short"), Some(&a)]));
        let (cut, count) = cut(&column, 100).expect("some are long");
        let cut = cut.as_string::<i32>();
        assert_eq!((count, cut.value(3), cut.is_null(1)), (3, "short", true));
        assert_eq!(cut.value(0), cut.value(4));
        assert_ne!(cut.value(0), cut.value(2), "they begin alike");
        assert!(cut.iter().flatten().all(|text| text.len() <= 100));
        assert!(cut.value(0).starts_with(&"é".repeat(33)));
        let same = [a.as_str(), "x"].map(|text| {
            let one: ArrayRef = Arc::new(StringArray::from(vec![text]));
            super::cut(&one, 100).map(|(column, _)| column.as_string::<i32>().value(0).to_owned())
        });
        assert_eq!(same, [Some(cut.value(0).to_owned()), None], "whatever stands beside it");
    }

    #[test]
    fn what_is_long_counts_for_more() {
        assert_eq!([0, 1_023, 1_024, 10_000].map(units), [1, 1, 2, 10]);
        let rows = RecordBatch::try_from_iter([
            ("a", Arc::new(StringArray::from(vec!["xx".to_owned(), "y".repeat(1_000)])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec![None, Some("z".repeat(1_048))])) as ArrayRef),
        ])
        .expect("rows");
        assert_eq!(row_units(&rows), [1, 3]);
        assert_eq!(row_units(&rows.slice(1, 1)), [3]);
        let (cut, count) = cut_keys(rows.clone(), 2, 2 << 10);
        assert_eq!((cut, count), (rows, 0));
    }
}

//! Expressions over one text column, computed once for each distinct value of a batch: a regular expression over a
//! User-Agent is worth some fifty look-ups in a table.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use engine::contract::Scalar;
use hashbrown::HashTable;

use super::hash::seeded;

/// Expressions over one text column.
#[derive(Debug)]
pub(super) struct Lookups {
    /// Index among the needed columns.
    pub(super) column: usize,
    /// That column alone.
    pub(super) schema: SchemaRef,
    pub(super) scalars: Vec<Scalar>,
}

impl Lookups {
    /// The results for each row.
    pub(super) fn evaluate(&self, texts: &ArrayRef) -> Result<Vec<ArrayRef>, DataFusionError> {
        let (first, codes) = distinct_rows(texts.as_string::<i32>());
        let distinct = RecordBatch::try_new(self.schema.clone(), vec![take(texts, &first, None)?])?;
        let spread = |scalar: &Scalar| Ok(take(&scalar.evaluate(&distinct)?, &codes, None)?);
        self.scalars.iter().map(spread).collect()
    }
}

/// The first row of each distinct text, null among them, and for each row which of these it equals.
fn distinct_rows(texts: &StringArray) -> (UInt32Array, UInt32Array) {
    let state = seeded();
    let mut table: HashTable<(u64, u32)> = HashTable::with_capacity(256);
    let mut first: Vec<u32> = Vec::new();
    let mut null = None;
    let mut codes = Vec::with_capacity(texts.len());
    for (row, text) in (0..).zip(texts) {
        let hash = text.map_or(0, |text| state.hash_one(text));
        let known = match text {
            None => null,
            // Texts are compared as well: whoever sends them must not be able to exchange one for another.
            Some(text) => {
                let same = |(h, code): &(u64, u32)| *h == hash && texts.value(first[*code as usize] as usize) == text;
                table.find(hash, same).map(|(_, code)| *code)
            }
        };
        let code = known.unwrap_or(first.len() as u32);
        if known.is_none() {
            first.push(row);
            match text {
                None => null = Some(code),
                Some(_) => {
                    table.insert_unique(hash, (hash, code), |(h, _)| *h);
                }
            }
        }
        codes.push(code);
    }
    (first.into(), codes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_told_the_first_row_with_its_text() {
        let texts = StringArray::from(vec![Some("a"), None, Some(""), Some("a"), None, Some("b")]);
        let (first, codes) = distinct_rows(&texts);
        assert_eq!(first.values(), &[0, 1, 2, 5]);
        assert_eq!(codes.values(), &[0, 1, 2, 0, 1, 3]);
    }
}

//! Conditions asked of rows, and the rows for which one has no answer.

use std::fmt::Arguments;

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use engine::contract::Scalar;

use crate::linear::{reason, rejected};

/// Which rows a condition holds for. Where it cannot be computed for all rows at once, it is computed for ever smaller
/// parts, so that one row does not hide its neighbours. Rows for which it cannot be computed are added to `failed`, with
/// the reason behind `what`; the condition does not hold for them.
pub(crate) fn mask(
    when: &Scalar,
    what: Arguments<'_>,
    rows: &RecordBatch,
    failed: &mut Vec<(usize, String)>,
) -> BooleanArray {
    if let Ok(mask) = when.mask(rows) {
        return mask;
    }
    let mut holds = vec![false; rows.num_rows()];
    let mut parts = vec![(0, rows.num_rows())];
    while let Some((from, len)) = parts.pop() {
        match when.mask(&rows.slice(from, len)) {
            Ok(mask) => mask.iter().enumerate().for_each(|(row, is)| holds[from + row] = is == Some(true)),
            Err(error) if len <= 1 => failed.push((from, format!("{what}: {}", reason(&error)))),
            Err(_) => parts.extend([(from + len / 2, len - len / 2), (from, len / 2)]),
        }
    }
    holds.into()
}

/// Each failed row once, with all that was said of it.
pub(crate) fn rejects(
    rows: &RecordBatch,
    mut failed: Vec<(usize, String)>,
    schema: &SchemaRef,
) -> Result<Option<RecordBatch>, ArrowError> {
    if failed.is_empty() {
        return Ok(None);
    }
    failed.sort_by_key(|(row, _)| *row);
    let (mut indices, mut reasons): (Vec<u32>, Vec<String>) = (Vec::new(), Vec::new());
    for (row, reason) in failed {
        match reasons.last_mut().filter(|_| indices.last() == Some(&(row as u32))) {
            Some(said) => said.extend(["; ", reason.as_str()]),
            None => {
                indices.push(row as u32);
                reasons.push(reason);
            }
        }
    }
    let rows = take_record_batch(rows, &UInt32Array::from(indices))?;
    rejected(&rows, &reasons, schema).map(Some)
}

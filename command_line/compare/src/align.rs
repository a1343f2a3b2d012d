//! Batches of different columns brought to the columns that they share.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

/// Two sides with one schema.
pub(crate) struct Aligned {
    pub before: Vec<RecordBatch>,
    pub after: Vec<RecordBatch>,
    /// Columns of `before` that have no like after.
    pub gone: Vec<String>,
    /// Columns of `after` that have no like before.
    pub new: Vec<String>,
}

/// Keeps the columns that both sides have, with the types that they have before; a side without batches has all.
pub(crate) fn align(before: &[RecordBatch], after: &[RecordBatch]) -> Result<Aligned, ArrowError> {
    let (mut of_before, of_after) = (columns(before), columns(after));
    if before.is_empty() {
        of_before.clone_from(&of_after);
    }
    let of_after = if after.is_empty() { of_before.clone() } else { of_after };
    let like = |columns: &[(String, DataType)], (name, ty): &(String, DataType)| {
        columns
            .iter()
            .any(|(other, of)| other == name && (of == ty || can_cast_types(of, ty) && can_cast_types(ty, of)))
    };
    let shared: Vec<(String, DataType)> = of_before.iter().filter(|column| like(&of_after, column)).cloned().collect();
    let rest = |columns: Vec<(String, DataType)>| {
        let alone = columns.into_iter().map(|(name, _)| name);
        alone.filter(|name| !shared.iter().any(|(other, _)| other == name)).collect()
    };
    let fields: Vec<Field> = shared.iter().map(|(name, ty)| Field::new(name, ty.clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let bring = |batches: &[RecordBatch]| {
        let brought = batches.iter().map(|batch| {
            let column = |(name, ty): &(String, DataType)| match batch.column_by_name(name) {
                Some(column) if column.data_type() == ty => Ok(Arc::clone(column)),
                Some(column) => cast(column, ty),
                None => Ok(new_null_array(ty, batch.num_rows())),
            };
            let columns: Vec<ArrayRef> = shared.iter().map(column).collect::<Result<_, _>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
        });
        brought.collect::<Result<Vec<_>, ArrowError>>()
    };
    let (before, after) = (bring(before)?, bring(after)?);
    Ok(Aligned { before, after, gone: rest(of_before), new: rest(of_after) })
}

/// Names and types of a side's columns in the order in which they come up; the first type of a name counts.
fn columns(batches: &[RecordBatch]) -> Vec<(String, DataType)> {
    let mut columns: Vec<(String, DataType)> = Vec::new();
    let mut last = None;
    for schema in batches.iter().map(RecordBatch::schema) {
        if last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &schema)) {
            continue;
        }
        for field in schema.fields() {
            if !columns.iter().any(|(name, _)| name == field.name()) {
                columns.push((field.name().clone(), field.data_type().clone()));
            }
        }
        last = Some(schema);
    }
    columns
}

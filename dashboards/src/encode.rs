//! The formats of an answer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
use serde::Serialize;

use crate::output::{Format, Output};
use crate::query::Answer;

impl Output {
    /// The answer as it is asked for.
    pub(crate) fn encode(self, answer: &Answer) -> Result<Vec<u8>, ArrowError> {
        match self.format {
            Format::Json => json(answer, self.quoted),
            Format::JsonLines => {
                let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
                for batch in &answer.batches {
                    writer.write(&written(batch, self.quoted)?)?;
                }
                writer.finish()?;
                Ok(writer.into_inner())
            }
            Format::Csv => csv(answer, self.harmless),
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), &answer.schema)?;
                for batch in &answer.batches {
                    writer.write(batch)?;
                }
                writer.into_inner()
            }
        }
    }
}

#[derive(Serialize)]
struct Column<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    ty: String,
}

#[derive(Serialize)]
struct Totals {
    row_count: usize,
    truncated: bool,
    elapsed_ms: f64,
}

fn json(answer: &Answer, quoted: bool) -> Result<Vec<u8>, ArrowError> {
    let external = |error: serde_json::Error| ArrowError::ExternalError(Box::new(error));
    let columns: Vec<Column<'_>> =
        answer.schema.fields().iter().map(|f| Column { name: f.name(), ty: f.data_type().to_string() }).collect();
    let mut out = b"{\"columns\":".to_vec();
    serde_json::to_writer(&mut out, &columns).map_err(external)?;
    out.extend_from_slice(b",\"rows\":");
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(out);
    for batch in &answer.batches {
        writer.write(&written(batch, quoted)?)?;
    }
    writer.finish()?;
    let mut out = writer.into_inner();
    let elapsed_ms = answer.started.elapsed().as_secs_f64() * 1000.0;
    let totals = Totals { row_count: answer.rows, truncated: answer.truncated, elapsed_ms };
    let totals = serde_json::to_vec(&totals).map_err(external)?;
    out.push(b',');
    out.extend_from_slice(&totals[1..]);
    Ok(out)
}

/// The rows as JSON has them: `quoted` makes texts of whole numbers of 64 bits.
fn written(batch: &RecordBatch, quoted: bool) -> Result<RecordBatch, ArrowError> {
    if !quoted {
        return Ok(batch.clone());
    }
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let ty = Some(without_integers(field.data_type())).filter(|ty| can_cast_types(field.data_type(), ty));
        let ty = ty.unwrap_or_else(|| field.data_type().clone());
        columns.push(if ty == *field.data_type() { Arc::clone(column) } else { cast(column, &ty)? });
        fields.push(Field::new(field.name(), ty, true));
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
}

/// The type with texts in place of whole numbers that JavaScript's numbers do not hold.
fn without_integers(ty: &DataType) -> DataType {
    match ty {
        DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => DataType::Utf8,
        DataType::List(item) => {
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(without_integers(item.data_type()))))
        }
        DataType::LargeList(item) => {
            DataType::LargeList(Arc::new(item.as_ref().clone().with_data_type(without_integers(item.data_type()))))
        }
        DataType::Struct(fields) => {
            let plain = |field: &Arc<Field>| field.as_ref().clone().with_data_type(without_integers(field.data_type()));
            DataType::Struct(fields.iter().map(plain).collect())
        }
        DataType::Dictionary(_, value) => without_integers(value),
        other => other.clone(),
    }
}

fn csv(answer: &Answer, harmless: bool) -> Result<Vec<u8>, ArrowError> {
    let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(Vec::new());
    if !harmless {
        writer.write(&RecordBatch::new_empty(Arc::clone(&answer.schema)))?;
        for batch in &answer.batches {
            writer.write(batch)?;
        }
        return Ok(writer.into_inner());
    }
    let field = |f: &Arc<Field>| {
        let ty = if is_text(f.data_type()) { DataType::Utf8 } else { f.data_type().clone() };
        Field::new(harmless_text(f.name()), ty, true)
    };
    let fields: Vec<Field> = answer.schema.fields().iter().map(field).collect();
    let schema = Arc::new(Schema::new(fields));
    writer.write(&RecordBatch::new_empty(Arc::clone(&schema)))?;
    for batch in &answer.batches {
        let columns = batch.columns().iter().map(harmless_column).collect::<Result<Vec<_>, _>>()?;
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    Ok(writer.into_inner())
}

fn is_text(ty: &DataType) -> bool {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

fn harmless_column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !is_text(column.data_type()) {
        return Ok(Arc::clone(column));
    }
    let text = cast(column, &DataType::Utf8)?;
    let text = text.as_string::<i32>();
    if !text.iter().flatten().any(is_formula) {
        return Ok(Arc::new(text.clone()));
    }
    Ok(Arc::new(text.iter().map(|cell| cell.map(harmless_text)).collect::<StringArray>()))
}

/// Spreadsheets take cells that start like this for formulas (OWASP, CSV injection).
fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r'])
}

fn harmless_text(cell: &str) -> String {
    if is_formula(cell) { format!("'{cell}") } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_defused() {
        assert_eq!(harmless_text("=1+1"), "'=1+1");
        assert_eq!(harmless_text("@SUM"), "'@SUM");
        assert_eq!(harmless_text("a=1"), "a=1");
    }
}

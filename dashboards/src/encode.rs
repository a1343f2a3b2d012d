//! The formats of an answer.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::errors::ParquetError;
use engine::text::spreadsheet;
use serde::Serialize;

use crate::output::{Format, Output};
use crate::query::{Answer, Encoded};

/// Rows that are written before the bytes are counted.
const ROWS: usize = 256;

impl Output {
    /// The answer as it is asked for, of whole rows that take at most about this many bytes.
    pub(crate) fn encode(self, answer: &Answer, max_bytes: usize) -> Result<Encoded, ArrowError> {
        let out = Counted::default();
        let mut rows = Rows { answer, written: 0, most: max_bytes, count: Rc::clone(&out.count) };
        let body = match self.format {
            Format::Json => json(&mut rows, out, self.quoted)?,
            Format::JsonLines => {
                let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
                while let Some(batch) = rows.next() {
                    writer.write(&written(&batch, self.quoted)?)?;
                }
                writer.finish()?;
                writer.into_inner().bytes
            }
            Format::Csv => csv(&mut rows, out, self.harmless)?,
            Format::Tsv => tsv(&mut rows, out)?,
            Format::Parquet => parquet(&mut rows)?,
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(out, &answer.schema)?;
                while let Some(batch) = rows.next() {
                    writer.write(&batch)?;
                }
                writer.into_inner()?.bytes
            }
        };
        Ok(Encoded { body, rows: rows.written, truncated: rows.is_truncated() })
    }
}

/// The rows of an answer, a few at a time, as long as there is room.
struct Rows<'a> {
    answer: &'a Answer,
    written: usize,
    most: usize,
    count: Rc<Cell<usize>>,
}

impl Rows<'_> {
    fn next(&mut self) -> Option<RecordBatch> {
        if self.count.get() > self.most {
            return None;
        }
        let mut before = self.written;
        let batch = self.answer.batches.iter().find(|batch| {
            let is_here = before < batch.num_rows();
            before -= if is_here { 0 } else { batch.num_rows() };
            is_here
        })?;
        let taken = batch.slice(before, (batch.num_rows() - before).min(ROWS));
        self.written += taken.num_rows();
        Some(taken)
    }

    fn is_truncated(&self) -> bool {
        self.answer.truncated || self.written < self.answer.rows
    }
}

/// Bytes, and how many they are where a writer holds them.
#[derive(Default)]
struct Counted {
    bytes: Vec<u8>,
    count: Rc<Cell<usize>>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.count.set(self.bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

fn json(rows: &mut Rows<'_>, mut out: Counted, quoted: bool) -> Result<Vec<u8>, ArrowError> {
    let external = |error: serde_json::Error| ArrowError::ExternalError(Box::new(error));
    let fields = rows.answer.schema.fields();
    let columns: Vec<Column<'_>> =
        fields.iter().map(|f| Column { name: f.name(), ty: f.data_type().to_string() }).collect();
    out.bytes = b"{\"columns\":".to_vec();
    serde_json::to_writer(&mut out, &columns).map_err(external)?;
    out.bytes.extend_from_slice(b",\"rows\":");
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(out);
    while let Some(batch) = rows.next() {
        writer.write(&written(&batch, quoted)?)?;
    }
    writer.finish()?;
    let mut out = writer.into_inner().bytes;
    let elapsed_ms = rows.answer.started.elapsed().as_secs_f64() * 1000.0;
    let totals = Totals { row_count: rows.written, truncated: rows.is_truncated(), elapsed_ms };
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

fn csv(rows: &mut Rows<'_>, out: Counted, harmless: bool) -> Result<Vec<u8>, ArrowError> {
    let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(out);
    if !harmless {
        writer.write(&RecordBatch::new_empty(Arc::clone(&rows.answer.schema)))?;
        while let Some(batch) = rows.next() {
            writer.write(&batch)?;
        }
        return Ok(writer.into_inner().bytes);
    }
    let field = |f: &Arc<Field>| {
        let ty = if is_text(f.data_type()) { DataType::Utf8 } else { f.data_type().clone() };
        Field::new(spreadsheet(f.name()), ty, true)
    };
    let fields: Vec<Field> = rows.answer.schema.fields().iter().map(field).collect();
    let schema = Arc::new(Schema::new(fields));
    writer.write(&RecordBatch::new_empty(Arc::clone(&schema)))?;
    while let Some(batch) = rows.next() {
        let columns = batch.columns().iter().map(harmless_column).collect::<Result<Vec<_>, _>>()?;
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    Ok(writer.into_inner().bytes)
}

/// A header and a line for each row. Tabs, line ends and backslashes of values are escaped, so that a line is a row.
fn tsv(rows: &mut Rows<'_>, mut out: Counted) -> Result<Vec<u8>, ArrowError> {
    let names: Vec<String> = rows.answer.schema.fields().iter().map(|f| escaped(f.name())).collect();
    out.write_all(names.join("\t").as_bytes())?;
    out.write_all(b"\n")?;
    let options = FormatOptions::new();
    while let Some(batch) = rows.next() {
        let columns = batch.columns().iter();
        let columns =
            columns.map(|c| Ok((ArrayFormatter::try_new(c, &options)?, c))).collect::<Result<Vec<_>, ArrowError>>()?;
        let mut lines = String::new();
        for row in 0..batch.num_rows() {
            for (nth, (formatter, column)) in columns.iter().enumerate() {
                lines.push_str(if nth == 0 { "" } else { "\t" });
                let value = if column.is_null(row) {
                    "\\N".to_owned()
                } else {
                    escaped(&formatter.value(row).try_to_string()?)
                };
                lines.push_str(&value);
            }
            lines.push('\n');
        }
        out.write_all(lines.as_bytes())?;
    }
    Ok(out.bytes)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out
}

fn parquet(rows: &mut Rows<'_>) -> Result<Vec<u8>, ArrowError> {
    let fault = |error: ParquetError| ArrowError::ExternalError(Box::new(error));
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&rows.answer.schema), None).map_err(fault)?;
    while let Some(batch) = rows.next() {
        writer.write(&batch).map_err(fault)?;
        rows.count.set(writer.bytes_written() + writer.in_progress_size());
    }
    writer.into_inner().map_err(fault)
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
    Ok(Arc::new(text.iter().map(|cell| cell.map(spreadsheet)).collect::<StringArray>()))
}

//! Rows as Arrow columns under construction.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, ArrowPrimitiveType, BooleanBuilder, Float64Builder, Int64Builder, PrimitiveBuilder,
    RecordBatch, StringBuilder, UInt8Builder, UInt16Builder, UInt64Array, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use engine::batch::{stream_schema, time_array};

use super::cell::Cell;
use super::schema::{Format, Kind, REPAIRED};
use super::syslog::{self, Header};

/// The most of a refused line that is kept, in bytes.
pub(super) const KEPT: usize = 4096;

/// A line that was understood.
#[derive(Clone, Copy, Debug)]
pub struct Row<'p> {
    /// Event time in ns since the epoch: when the line was written.
    pub time: i64,
    /// When what it tells of began, in ns since the epoch.
    pub begin: i64,
    /// Whether the line had bytes that JSON does not allow, and was taken all the same.
    pub repaired: bool,
    /// That of the syslog message which the line is.
    pub(super) header: Option<Header<'p>>,
    pub(super) line: &'p str,
    pub(super) scratch: &'p str,
    pub(super) cells: &'p [Cell],
}

/// Rows of one format.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    times: Vec<i64>,
    seqs: Vec<u64>,
    values: Vec<Values>,
    /// `None` if the format knows one time alone.
    begins: Option<Vec<i64>>,
    /// `None` if rows do not say it.
    repaired: Option<BooleanBuilder>,
    /// What the headers of syslog messages say; empty if rows do not have that.
    headers: Vec<StringBuilder>,
}

impl Rows {
    /// No rows yet.
    pub fn new(format: &Format) -> Self {
        let values = format.columns.iter().map(|column| Values::new(column.kind)).collect();
        let schema = Arc::clone(&format.schema);
        let repaired = schema.index_of(REPAIRED).is_ok().then(BooleanBuilder::new);
        let begins = format.has_begin.then(Vec::new);
        let headers = if format.has_syslog { syslog::COLUMNS.map(|_| StringBuilder::new()).into() } else { Vec::new() };
        Self { schema, times: Vec::new(), seqs: Vec::new(), values, begins, repaired, headers }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Adds a row that stands at `seq` in its source.
    pub fn push(&mut self, seq: u64, row: &Row<'_>) {
        self.times.push(row.time);
        self.seqs.push(seq);
        for (values, cell) in self.values.iter_mut().zip(row.cells) {
            values.push(*cell, row);
        }
        if let Some(begins) = &mut self.begins {
            begins.push(row.begin);
        }
        if let Some(repaired) = &mut self.repaired {
            repaired.append_value(row.repaired);
        }
        let values = row.header.map_or([None; syslog::COLUMNS.len()], Header::values);
        for (column, value) in self.headers.iter_mut().zip(values) {
            column.append_option(value.map(String::from_utf8_lossy));
        }
    }

    /// The rows so far; empty afterwards.
    ///
    /// # Errors
    /// If a required column has nulls, which the parser has ruled out.
    pub fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = self.times.len();
        let times = time_array(std::mem::replace(&mut self.times, Vec::with_capacity(rows)));
        let seqs: ArrayRef = Arc::new(UInt64Array::from(std::mem::replace(&mut self.seqs, Vec::with_capacity(rows))));
        let repaired = self.repaired.as_mut().map(|repaired| Arc::new(repaired.finish()) as ArrayRef);
        let begins = self.begins.as_mut().map(|begins| time_array(std::mem::replace(begins, Vec::with_capacity(rows))));
        let columns = [times, seqs].into_iter().chain(self.values.iter_mut().map(Values::finish));
        let headers = self.headers.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let columns = columns.chain(begins).chain(repaired).chain(headers);
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())
    }
}

/// One column.
#[derive(Debug)]
enum Values {
    Text(StringBuilder),
    U8(UInt8Builder),
    U16(UInt16Builder),
    U64(UInt64Builder),
    I64(Int64Builder),
    F64(Float64Builder),
    Bool(BooleanBuilder),
    Time(Int64Builder),
}

impl Values {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text | Kind::Texts | Kind::Ip => Self::Text(StringBuilder::new()),
            Kind::U8 => Self::U8(UInt8Builder::new()),
            Kind::U16 => Self::U16(UInt16Builder::new()),
            Kind::U64 => Self::U64(UInt64Builder::new()),
            Kind::I64 | Kind::Duration(_) => Self::I64(Int64Builder::new()),
            Kind::F64 => Self::F64(Float64Builder::new()),
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::Time(_) => Self::Time(Int64Builder::new()),
        }
    }

    /// The parser has matched cells and columns; a cell of another kind would be null.
    #[inline]
    fn push(&mut self, cell: Cell, row: &Row<'_>) {
        match self {
            Self::Text(values) => values.append_option(match cell {
                Cell::Line(at, len) => row.line.get(at..at + len),
                Cell::Scratch(at, len) => row.scratch.get(at..at + len),
                _ => None,
            }),
            Self::U8(values) => values.append_option(unsigned(cell)),
            Self::U16(values) => values.append_option(unsigned(cell)),
            Self::U64(values) => values.append_option(unsigned(cell)),
            Self::I64(values) | Self::Time(values) => values.append_option(match cell {
                Cell::Signed(number) => Some(number),
                _ => None,
            }),
            Self::F64(values) => values.append_option(match cell {
                Cell::Float(number) => Some(number),
                _ => None,
            }),
            Self::Bool(values) => values.append_option(match cell {
                Cell::Bool(value) => Some(value),
                _ => None,
            }),
        }
    }

    /// The values so far. The next ones get as much room: usually they are as many, and need not be moved as they grow.
    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(values) => {
                let room = StringBuilder::with_capacity(values.len(), values.values_slice().len());
                Arc::new(std::mem::replace(values, room).finish())
            }
            Self::U8(values) => finish(values),
            Self::U16(values) => finish(values),
            Self::U64(values) => finish(values),
            Self::I64(values) => finish(values),
            Self::F64(values) => finish(values),
            Self::Bool(values) => {
                let room = BooleanBuilder::with_capacity(values.len());
                Arc::new(std::mem::replace(values, room).finish())
            }
            Self::Time(values) => {
                let room = Int64Builder::with_capacity(values.len());
                let ns = std::mem::replace(values, room).finish();
                Arc::new(ns.reinterpret_cast::<TimestampNanosecondType>().with_timezone("UTC"))
            }
        }
    }
}

/// [`Values::finish`] for numbers.
fn finish<T: ArrowPrimitiveType>(values: &mut PrimitiveBuilder<T>) -> ArrayRef {
    let room = PrimitiveBuilder::with_capacity(values.len());
    Arc::new(std::mem::replace(values, room).finish())
}

fn unsigned<N: TryFrom<u64>>(cell: Cell) -> Option<N> {
    match cell {
        Cell::Unsigned(number) => N::try_from(number).ok(),
        _ => None,
    }
}

/// Lines that were not understood.
#[derive(Debug)]
pub struct Rejects {
    schema: SchemaRef,
    times: Vec<i64>,
    seqs: Vec<u64>,
    lines: StringBuilder,
    reasons: StringBuilder,
}

impl Default for Rejects {
    fn default() -> Self {
        let (lines, reasons) = (StringBuilder::new(), StringBuilder::new());
        Self { schema: Self::schema(), times: Vec::new(), seqs: Vec::new(), lines, reasons }
    }
}

impl Rejects {
    /// Columns of refused lines: `line` is the first 4 KiB, bytes that are no UTF-8 replaced, `reason` says why.
    pub fn schema() -> SchemaRef {
        stream_schema(["line", "reason"].map(|name| Field::new(name, DataType::Utf8, false)))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Adds a line that stands at `seq` in its source, where the watermark was at `time` ns since the epoch.
    pub fn push(&mut self, time: i64, seq: u64, line: &[u8], reason: &str) {
        self.times.push(time);
        self.seqs.push(seq);
        self.lines.append_value(String::from_utf8_lossy(&line[..line.len().min(KEPT)]));
        self.reasons.append_value(reason);
    }

    /// The lines so far; empty afterwards.
    ///
    /// # Errors
    /// Never: the columns are made to the schema.
    pub fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            time_array(std::mem::take(&mut self.times)),
            Arc::new(UInt64Array::from(std::mem::take(&mut self.seqs))),
            Arc::new(self.lines.finish()),
            Arc::new(self.reasons.finish()),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

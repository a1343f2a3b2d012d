//! How a row is held: as bytes that sort as its columns do.
//!
//! The columns of the partition come first, then those that the expressions read, then those that tell rows apart: the
//! relation's key, or `time` and `seq`. This is the row's head, all that its peers need. The other columns follow. So the
//! rows of a partition lie side by side, in an order that depends on nothing but themselves.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use engine::batch::{EdgeClass, EdgeType, SEQ, TIME};
use engine::contract::Windows;

/// Which of the input's columns lie where.
#[derive(Debug)]
pub(super) struct Layout {
    /// The columns of the head, and how many of them, from the first, are the partition's.
    head: Vec<usize>,
    by: usize,
    /// All others.
    rest: Vec<usize>,
}

impl Layout {
    pub fn new(input: &EdgeType, by: &[usize], read: &[usize]) -> Self {
        let names: Vec<&str> = match &input.class {
            EdgeClass::Stream => vec![TIME, SEQ],
            EdgeClass::Relation { key } => key.iter().map(String::as_str).collect(),
        };
        let identity = names.iter().filter_map(|name| input.schema.index_of(name).ok());
        let mut head = by.to_vec();
        for column in read.iter().copied().chain(identity) {
            if !head.contains(&column) {
                head.push(column);
            }
        }
        let rest = (0..input.schema.fields().len()).filter(|column| !head.contains(column)).collect();
        Self { head, by: by.len(), rest }
    }

    /// The columns that peers see.
    pub fn head_schema(&self, input: &Schema) -> Schema {
        Schema::new(self.head.iter().map(|column| input.field(*column).clone()).collect::<Vec<_>>())
    }

    /// A column that cannot be held.
    pub fn unordered(&self, input: &Schema, windows: &Windows) -> Option<String> {
        let fields = input.fields().iter().map(AsRef::as_ref).chain(windows.fields());
        let held = |field: &&arrow::datatypes::Field| {
            RowConverter::supports_fields(&[SortField::new(field.data_type().clone())])
        };
        fields.into_iter().find(|field| !held(field)).map(|field| field.name().clone())
    }
}

/// A row as it is held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Encoded {
    pub bytes: Rc<[u8]>,
    /// How many of the bytes are the partition's.
    pub by: u32,
    /// How many of them are the head's.
    pub head: u32,
}

impl Encoded {
    /// The partition.
    pub fn partition(&self) -> &[u8] {
        &self.bytes[..self.by as usize]
    }

    /// What its peers need.
    pub fn head(&self) -> &[u8] {
        &self.bytes[..self.head as usize]
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.head as usize..]
    }
}

/// Turns rows into bytes and back.
pub(super) struct Codec {
    layout: Arc<Layout>,
    by: RowConverter,
    head: RowConverter,
    rest: RowConverter,
    added: RowConverter,
    head_schema: SchemaRef,
    out: SchemaRef,
    /// Added columns that are all null.
    nulls: Rc<[u8]>,
}

impl Codec {
    /// For rows that leave with the columns `out`.
    pub fn new(layout: &Arc<Layout>, out: &SchemaRef) -> Result<Self, ArrowError> {
        let converter = |columns: &[usize]| {
            let fields = columns.iter().map(|column| SortField::new(out.field(*column).data_type().clone()));
            RowConverter::new(fields.collect())
        };
        let added: Vec<usize> = (layout.head.len() + layout.rest.len()..out.fields().len()).collect();
        let null: Vec<ArrayRef> =
            added.iter().map(|column| new_null_array(out.field(*column).data_type(), 1)).collect();
        let added = converter(&added)?;
        let nulls = added.convert_columns(&null)?.row(0).data().into();
        Ok(Self {
            by: converter(&layout.head[..layout.by])?,
            head: converter(&layout.head)?,
            rest: converter(&layout.rest)?,
            added,
            head_schema: Arc::new(layout.head_schema(out)),
            out: Arc::clone(out),
            nulls,
            layout: Arc::clone(layout),
        })
    }

    /// The partitions of rows.
    pub fn by(&self, rows: &RecordBatch) -> Result<Rows, ArrowError> {
        self.by.convert_columns(&pick(rows, &self.layout.head[..self.layout.by]))
    }

    /// Rows of the input.
    pub fn encode(&self, rows: &RecordBatch) -> Result<Vec<Encoded>, ArrowError> {
        let by = self.by(rows)?;
        let head = self.head.convert_columns(&pick(rows, &self.layout.head))?;
        let rest = match self.layout.rest.as_slice() {
            [] => None,
            rest => Some(self.rest.convert_columns(&pick(rows, rest))?),
        };
        let encode = |row: usize| {
            let (head, by) = (head.row(row).data(), by.row(row).data().len() as u32);
            let rest = rest.as_ref().map_or(&[][..], |rest| rest.row(row).data());
            Encoded { bytes: [head, rest].concat().into(), by, head: head.len() as u32 }
        };
        Ok((0..rows.num_rows()).map(encode).collect())
    }

    /// The added columns of rows.
    pub fn encode_added(&self, added: &[ArrayRef]) -> Result<Rows, ArrowError> {
        self.added.convert_columns(added)
    }

    /// Added columns that are all null.
    pub fn nulls(&self) -> &Rc<[u8]> {
        &self.nulls
    }

    /// What the expressions see of rows.
    pub fn heads<'a>(&self, heads: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch, ArrowError> {
        let parser = self.head.parser();
        let columns = self.head.convert_rows(heads.map(|head| parser.parse(head)))?;
        RecordBatch::try_new(Arc::clone(&self.head_schema), columns)
    }

    /// Rows as they leave, each with its added columns.
    pub fn decode<'a>(
        &self,
        rows: impl Iterator<Item = (&'a Encoded, &'a [u8])> + Clone,
    ) -> Result<RecordBatch, ArrowError> {
        let (head, rest, added) = (self.head.parser(), self.rest.parser(), self.added.parser());
        let heads = self.head.convert_rows(rows.clone().map(|(row, _)| head.parse(row.head())))?;
        let rests = match self.layout.rest.as_slice() {
            [] => Vec::new(),
            _ => self.rest.convert_rows(rows.clone().map(|(row, _)| rest.parse(row.rest())))?,
        };
        let added = self.added.convert_rows(rows.clone().map(|(_, bytes)| added.parse(bytes)))?;
        let mut columns: Vec<(usize, ArrayRef)> = self.layout.head.iter().copied().zip(heads).collect();
        columns.extend(self.layout.rest.iter().copied().zip(rests));
        columns.sort_unstable_by_key(|(column, _)| *column);
        let columns = columns.into_iter().map(|(_, values)| values).chain(added).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.count()));
        RecordBatch::try_new_with_options(Arc::clone(&self.out), columns, &options)
    }
}

fn pick(rows: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|column| rows.column(*column).clone()).collect()
}

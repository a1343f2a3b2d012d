//! From the rows of a cut to the bodies of inserts: sorted, in parts, as Arrow streams, each with its name.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray, UInt8Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use engine::batch::{EdgeType, Time};
use sha2::{Digest, Sha256};

/// 2286-11-20: what DateTime64 can hold, in ms.
const LATEST: Time = 9_999_999_999_999;

/// The columns of a table's inserts.
#[derive(Clone)]
pub(super) struct Layout {
    /// The rows' columns, for a relation with two more.
    pub schema: SchemaRef,
    order: Vec<usize>,
    relation: bool,
    live: bool,
}

/// One insert.
pub(super) struct Part {
    /// What the server recognises it by.
    pub token: String,
    /// An Arrow stream.
    pub body: Vec<u8>,
    pub rows: usize,
}

impl Layout {
    pub fn new(ty: &EdgeType, order: Vec<usize>, live: bool) -> Self {
        let mut fields: Vec<Arc<Field>> = ty.schema.fields().iter().cloned().collect();
        if ty.is_relation() {
            let updated = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
            fields.push(Arc::new(Field::new("updated_at", updated, false)));
            fields.push(Arc::new(Field::new("is_deleted", DataType::UInt8, false)));
        }
        Self { schema: Arc::new(Schema::new(fields)), order, relation: ty.is_relation(), live }
    }

    /// A batch with the columns of the table.
    pub fn complete(&self, tick: Time, diff: i64, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if self.relation {
            let updated = TimestampMillisecondArray::from(vec![tick.min(LATEST) as i64; rows.num_rows()]);
            columns.push(Arc::new(updated.with_timezone("UTC")));
            columns.push(Arc::new(UInt8Array::from(vec![u8::from(diff < 0); rows.num_rows()])));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }

    /// The inserts of a cut. `first` is its first tick: with part and content the name.
    pub fn parts(
        &self,
        name: &str,
        first: Time,
        batches: &[RecordBatch],
        (max_rows, max_bytes): (usize, usize),
    ) -> Result<Vec<Part>, ArrowError> {
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = concat_batches(&self.schema, batches)?;
        // Changes are kept in the order in which they were made: of the same tick a retraction is before what takes its place.
        if !(self.relation && self.live) && !self.order.is_empty() {
            let columns: Vec<SortColumn> = self
                .order
                .iter()
                .map(|at| SortColumn { values: Arc::clone(rows.column(*at)), options: None })
                .collect();
            rows = take_record_batch(&rows, &lexsort_to_indices(&columns, None)?)?;
        }
        let bytes: usize = rows.columns().iter().map(|column| column.get_array_memory_size()).sum();
        let per_row = (bytes / rows.num_rows().max(1)).max(1);
        let step = max_rows.min(max_bytes / per_row).max(1);
        let mut parts = Vec::new();
        for (nth, from) in (0..rows.num_rows()).step_by(step).enumerate() {
            let part = rows.slice(from, step.min(rows.num_rows() - from));
            let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
            writer.write(&part)?;
            let body = writer.into_inner()?;
            let digest = Sha256::digest(&body);
            let hash: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
            parts.push(Part { token: format!("{name}-{first}-{nth}-{hash}"), body, rows: part.num_rows() });
        }
        Ok(parts)
    }
}

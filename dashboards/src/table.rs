//! A served table as DataFusion sees it: the rows in memory and the stored ones, in Parquet segments or in another place,
//! read as one.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::object_store::path::Path as ObjectPath;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use engine::catalog::{History, HistoryError, Segment, Stored, Wanted};

use crate::given::Given;

/// One table for one query.
#[derive(Debug)]
pub(crate) struct ServedTable {
    table: Arc<Given>,
    /// How long a place with stored rows may take.
    timeout: Duration,
    /// The table's columns. Those of a table with segments may all be null: an older segment may be without them.
    schema: SchemaRef,
    /// Whether only rows in memory are read.
    hot: bool,
}

impl ServedTable {
    pub(crate) fn new(table: Arc<Given>, timeout: Duration) -> Self {
        let schema = schema(&table);
        Self { table, timeout, schema, hot: false }
    }

    /// Only the rows in memory.
    pub(crate) fn hot(table: Arc<Given>) -> Self {
        let schema = schema(&table);
        Self { table, timeout: Duration::ZERO, schema, hot: true }
    }

    fn segments(&self) -> &[Segment] {
        if self.hot { &[] } else { &self.table.segments }
    }

    fn elsewhere(&self) -> Option<&Stored> {
        self.table.stored.as_ref().filter(|_| !self.hot)
    }

    /// With `filters`, the rows for which all of them are true; otherwise at least `limit` rows, if there are as many.
    fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !self.table.is_read {
            return internal_err!("the rows of {} were not handed over", self.table.name);
        }
        let schema = Arc::clone(&self.schema);
        let own = match conjunction(filters.iter().cloned()) {
            None => self.own(session.config().target_partitions(), projection, limit)?,
            Some(filter) => {
                let all = self.own(session.config().target_partitions(), None, None)?;
                let filter = session.create_physical_expr(filter, &DFSchema::try_from(schema.as_ref().clone())?)?;
                let filtered = FilterExecBuilder::new(filter, all).apply_projection(projection.cloned())?.build()?;
                Arc::new(filtered)
            }
        };
        let Some(stored) = self.elsewhere() else { return Ok(own) };
        let columns = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let projected = Arc::new(schema.project(&columns)?);
        let before = self.known(stored)?;
        let wanted = Wanted { before, columns, filters: filters.to_vec(), limit, timeout: self.timeout };
        let place = Place { schema: Arc::clone(&projected), place: Arc::clone(&stored.place), wanted };
        let stored = StreamingTableExec::try_new(projected, vec![Arc::new(place)], None, [], false, limit)?;
        UnionExec::try_new(vec![own, Arc::new(stored)])
    }

    /// Up to where rows are stored, if that and all later rows are known.
    fn known(&self, stored: &Stored) -> Result<u64> {
        let name = &self.table.name;
        let fault = |text: String| Err(DataFusionError::External(Box::new(HistoryError(text))));
        match stored.before {
            Some(_) if stored.gap => fault(format!(
                "the table {name} has rows that are on their way to the store and not in memory any more (more than {} at a time); ask again when they are stored",
                self.table.hot_rows
            )),
            Some(before) => Ok(before),
            None => fault(format!("it is not known yet which rows of {name} are stored; ask again in a moment")),
        }
    }

    /// What is in memory and in segments.
    fn own(
        &self,
        partitions: usize,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::clone(&self.schema);
        let rows = |batch: &RecordBatch| batch.clone().with_schema(Arc::clone(&schema));
        let rows = self.table.hot.iter().map(rows).collect::<Result<Vec<_>, _>>()?;
        let hot = MemorySourceConfig::try_new(&[rows], Arc::clone(&schema), projection.cloned())?.with_limit(limit);
        let hot: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(hot);
        if self.segments().is_empty() {
            return Ok(hot);
        }
        let mut kinds: BTreeMap<&[String], Vec<&Segment>> = BTreeMap::new();
        for segment in self.segments() {
            kinds.entry(&segment.unread).or_default().push(segment);
        }
        let stored =
            kinds.iter().map(|(unread, segments)| self.stored(unread, segments, partitions, projection, limit));
        UnionExec::try_new(std::iter::once(Ok(hot)).chain(stored).collect::<Result<_>>()?)
    }

    /// What is in segments of which the same columns are not read: those are null.
    fn stored(
        &self,
        unread: &[String],
        segments: &[&Segment],
        partitions: usize,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let is_read = |at: &usize| !unread.contains(self.schema.field(*at).name());
        let read: Vec<usize> = (0..self.schema.fields().len()).filter(is_read).collect();
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let columns = wanted.iter().filter_map(|at| read.binary_search(at).ok()).collect();
        let source = Arc::new(ParquetSource::new(Arc::new(self.schema.project(&read)?)));
        let stored = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_file_groups(file_groups(segments, partitions)?)
            .with_projection_indices(Some(columns))?
            .with_limit(limit)
            .build();
        let stored = DataSourceExec::from_data_source(stored);
        if unread.is_empty() {
            return Ok(stored);
        }
        let mut next = 0;
        let column = |at: &usize| -> Result<ProjectionExpr> {
            let field = self.schema.field(*at);
            let expr: Arc<dyn PhysicalExpr> = if is_read(at) {
                next += 1;
                Arc::new(Column::new(field.name(), next - 1))
            } else {
                Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?))
            };
            Ok(ProjectionExpr { expr, alias: field.name().clone() })
        };
        let columns = wanted.iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, stored)?))
    }
}

/// The columns as queries see them.
fn schema(table: &Given) -> SchemaRef {
    if table.stored.is_some() {
        return Arc::clone(&table.schema);
    }
    let fields = table.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The rows of another place.
#[derive(Debug)]
struct Place {
    schema: SchemaRef,
    place: Arc<dyn History>,
    wanted: Wanted,
}

impl PartitionStream for Place {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.place.read(self.wanted.clone())
    }
}

/// The segments dealt out to at most `partitions` groups that are read at the same time.
fn file_groups(segments: &[&Segment], partitions: usize) -> Result<Vec<FileGroup>> {
    let count = partitions.clamp(1, segments.len().max(1));
    let mut groups = vec![Vec::new(); count];
    for (index, segment) in segments.iter().enumerate() {
        let mut file = PartitionedFile::new("", segment.bytes);
        file.object_meta.location = ObjectPath::from_absolute_path(&segment.path)
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        groups[index % count].push(file);
    }
    Ok(groups.into_iter().map(FileGroup::new).collect())
}

// What `#[async_trait]` makes of the trait's one asynchronous method.
type Scan<'f> = Pin<Box<dyn Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'f>>;

impl TableProvider for ServedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // Only what the place of stored rows applies by itself is taken. All other filters stay above the scan in the logical plan;
    // DataFusion's physical optimizer hands them down through the union to the Parquet reader, which uses them to skip
    // row groups and pages.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let stored = self.elsewhere();
        let applies = |filter: &&Expr| match stored {
            Some(stored) if stored.place.supports(filter) => TableProviderFilterPushDown::Exact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(applies).collect())
    }

    fn scan<'s, 'e, 'p, 'x, 'f>(
        &'s self,
        session: &'e dyn Session,
        projection: Option<&'p Vec<usize>>,
        filters: &'x [Expr],
        limit: Option<usize>,
    ) -> Scan<'f>
    where
        's: 'f,
        'e: 'f,
        'p: 'f,
        'x: 'f,
        Self: 'f,
    {
        Box::pin(ready(self.plan(session, projection, filters, limit)))
    }
}

//! A served table as DataFusion sees it: the rows in memory and the Parquet segments, read as one.

use std::fmt::Debug;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::object_store::path::Path as ObjectPath;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use engine::catalog::{Segment, Snapshot, Table};

/// One table for one query. The snapshot is taken when the query first reads the table, so that every mention of the
/// table in the query reads the same rows, and a table that is not mentioned costs nothing.
#[derive(Debug)]
pub(crate) struct ServedTable {
    table: Arc<Table>,
    snapshot: OnceLock<Snapshot>,
}

impl ServedTable {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self { table, snapshot: OnceLock::new() }
    }

    fn plan(
        &self,
        partitions: usize,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let snapshot = self.snapshot.get_or_init(|| self.table.snapshot());
        let schema = Arc::clone(&self.table.schema);
        let hot =
            MemorySourceConfig::try_new(std::slice::from_ref(&snapshot.hot), Arc::clone(&schema), projection.cloned())?
                .with_limit(limit);
        let hot: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(hot);
        if snapshot.segments.is_empty() {
            return Ok(hot);
        }
        let source = Arc::new(ParquetSource::new(schema));
        let stored = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_file_groups(file_groups(&snapshot.segments, partitions)?)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        UnionExec::try_new(vec![hot, DataSourceExec::from_data_source(stored)])
    }
}

/// The segments dealt out to at most `partitions` groups that are read at the same time.
fn file_groups(segments: &[Segment], partitions: usize) -> Result<Vec<FileGroup>> {
    let count = partitions.clamp(1, segments.len().max(1));
    let mut groups = vec![Vec::new(); count];
    for (index, segment) in segments.iter().enumerate() {
        let mut file = PartitionedFile::new("", segment.bytes);
        // An object store takes no `..`, which a pipeline's `data_dir` may have.
        file.object_meta.location = ObjectPath::from_absolute_path(segment.path.canonicalize()?)
            .map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))?;
        groups[index % count].push(file);
    }
    Ok(groups.into_iter().map(FileGroup::new).collect())
}

// What `#[async_trait]` makes of the trait's one asynchronous method.
type Scan<'f> = Pin<Box<dyn Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'f>>;

impl TableProvider for ServedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // Filters stay above the scan in the logical plan; DataFusion's physical optimizer hands them down through the
    // union to the Parquet reader, which uses them to skip row groups and pages.
    fn scan<'s, 'e, 'p, 'x, 'f>(
        &'s self,
        session: &'e dyn Session,
        projection: Option<&'p Vec<usize>>,
        _filters: &'x [Expr],
        limit: Option<usize>,
    ) -> Scan<'f>
    where
        's: 'f,
        'e: 'f,
        'p: 'f,
        'x: 'f,
        Self: 'f,
    {
        Box::pin(ready(self.plan(session.config().target_partitions(), projection, limit)))
    }
}

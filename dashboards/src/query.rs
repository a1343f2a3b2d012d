//! One read-only query: parse, check, plan, run within the limits.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::DFSchema;
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::config::Dialect;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::prelude::{SessionConfig, SessionContext};
use engine::catalog::Catalog;
use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::Limits;
use crate::error::Error;
use crate::functions::{self, BoundedConcat};
use crate::guard;
use crate::interrupt::{Interruptible, Stop};
use crate::output::Output;
use crate::table::ServedTable;

/// Rows of a batch inside a query. Smaller than DataFusion's 8192, because what an expression makes of one batch is
/// not accounted for.
const BATCH_ROWS: usize = 2048;

/// The schema whose tables have the rows in memory alone, of tables that are read from another place too.
const HOT: &str = "hot";

/// How often a query is planned at most.
const ATTEMPTS: usize = 5;

/// Stack of a thread that runs queries. Most of it is never touched; planning recurses as deep as expressions nest.
const STACK_BYTES: usize = 64 << 20;

/// Runs queries on threads of its own, so that a busy query never keeps the service from answering.
#[derive(Debug)]
pub(crate) struct Queries {
    catalog: Arc<Catalog>,
    limits: Limits,
    environment: Arc<RuntimeEnv>,
    places: Arc<Semaphore>,
    /// `None` only while it is dropped.
    threads: Option<Runtime>,
}

/// A query's rows.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rows: usize,
    /// The query has more rows than these.
    pub(crate) truncated: bool,
    pub(crate) started: Instant,
}

/// An encoded answer.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) body: Vec<u8>,
    pub(crate) rows: usize,
    pub(crate) truncated: bool,
}

impl Queries {
    pub(crate) fn new(catalog: Arc<Catalog>, limits: Limits) -> io::Result<Self> {
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(io::Error::other)?;
        let threads = Builder::new_multi_thread()
            .worker_threads(limits.concurrent.clamp(1, 4))
            .thread_name("sql")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        let places = Arc::new(Semaphore::new(limits.concurrent.max(1)));
        Ok(Self { catalog, limits, environment, places, threads: Some(threads) })
    }

    /// Queries that run now.
    pub(crate) fn running(&self) -> usize {
        self.limits.concurrent.max(1) - self.places.available_permits()
    }

    /// Runs `sql` and encodes its rows. Dropping the future stops the query at its next batch.
    ///
    /// A query is planned again if a file that it reads is removed meanwhile.
    pub(crate) async fn run(&self, sql: String, output: Output) -> Result<Encoded, Error> {
        let place = tokio::time::timeout(self.limits.queue, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(Error::Busy(self.limits.concurrent)) };
        let place = Arc::new(place);
        let until = tokio::time::Instant::now() + self.limits.timeout;
        for _ in 1..ATTEMPTS {
            match self.attempt(sql.clone(), output, Arc::clone(&place), until).await {
                Err(Error::Gone) => {}
                answer => return answer,
            }
        }
        self.attempt(sql, output, place, until).await
    }

    async fn attempt(
        &self,
        sql: String,
        output: Output,
        place: Arc<OwnedSemaphorePermit>,
        until: tokio::time::Instant,
    ) -> Result<Encoded, Error> {
        let Some(threads) = &self.threads else { return Err(Error::Internal) };
        let stop = Stop::default();
        let state = self.session(stop.clone());
        let limits = self.limits.clone();
        let catalog = Arc::clone(&self.catalog);
        let task = threads.spawn(async move {
            let _place = place;
            let answer = collect(state, &sql, &limits).await.map_err(|error| suggest(error, &catalog))?;
            let body = output.encode(&answer).map_err(DataFusionError::from)?;
            Ok(Encoded { body, rows: answer.rows, truncated: answer.truncated })
        });
        let mut task = AbortOnDrop { task, stop };
        match tokio::time::timeout_at(until, &mut task.task).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                tracing::error!(%error, "a query's task failed");
                Err(Error::Internal)
            }
            Err(_) => Err(Error::Timeout(self.limits.timeout)),
        }
    }

    /// A session that sees the served tables, reads, and does nothing else.
    fn session(&self, stop: Stop) -> SessionState {
        let mut config =
            SessionConfig::new().with_information_schema(true).with_batch_size(BATCH_ROWS).with_target_partitions(2);
        config.options_mut().execution.enable_recursive_ctes = false;
        config.options_mut().execution.time_zone = Some("UTC".to_owned());
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(BoundedConcat)];
        planners.extend(SessionStateDefaults::default_expr_planners());
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.environment))
            .with_expr_planners(planners)
            .with_scalar_functions(functions::scalar())
            .with_aggregate_functions(functions::aggregate())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_physical_optimizer_rule(Arc::new(Interruptible(stop)))
            .build();
        let defaults = &state.config_options().catalog;
        let catalog = state.catalog_list().catalog(&defaults.default_catalog);
        let public = catalog.as_ref().and_then(|catalog| catalog.schema(&defaults.default_schema));
        if let Some(public) = public {
            let hot = Arc::new(MemorySchemaProvider::new());
            for table in self.catalog.tables() {
                let served = Arc::new(ServedTable::new(Arc::clone(&table), self.limits.timeout));
                let mut registered = public.register_table(table.name.clone(), served);
                if table.has_history() {
                    let rows = Arc::new(ServedTable::hot(Arc::clone(&table)));
                    registered = registered.and(hot.register_table(table.name.clone(), rows));
                }
                if let Err(error) = registered {
                    tracing::error!(%error, table = table.name, "a table cannot be served");
                }
            }
            if !hot.table_names().is_empty()
                && let Some(Err(error)) = catalog.map(|catalog| catalog.register_schema(HOT, hot))
            {
                tracing::error!(%error, "the schema of rows in memory cannot be served");
            }
        }
        state
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        // Waiting for the threads is not allowed on a thread that drives other futures.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// Stops the query when nobody waits for it any more: by abortion where it yields, by failure where it does not.
struct AbortOnDrop<T> {
    task: JoinHandle<T>,
    stop: Stop,
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.stop.stop();
        self.task.abort();
    }
}

async fn collect(state: SessionState, sql: &str, limits: &Limits) -> Result<Answer, Error> {
    let started = Instant::now();
    guard::check_text(sql)?;
    let statement = state.sql_to_statement(sql, &Dialect::Generic)?;
    guard::check(&statement)?;
    let plan = state.statement_to_plan(statement).await?;
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan).map_err(|error| Error::Forbidden(error.strip_backtrace()))?;
    guard::check_plan(&plan)?;
    let names = names(plan.schema());
    let frame = SessionContext::new_with_state(state).execute_logical_plan(plan).await?;
    let mut stream = frame.execute_stream().await?;
    let schema = renamed(&stream.schema(), names);
    let mut answer = Answer { schema, batches: Vec::new(), rows: 0, truncated: false, started };
    let mut bytes = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let room = limits.max_rows - answer.rows;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&answer.schema), batch.columns().to_vec(), &rows)
            .map_err(DataFusionError::from)?;
        let taken = batch.slice(0, batch.num_rows().min(room));
        bytes += slice_bytes(&taken);
        answer.truncated = taken.num_rows() < batch.num_rows() || bytes > limits.memory;
        if bytes <= limits.memory {
            answer.rows += taken.num_rows();
            answer.batches.push(taken);
        }
        if answer.truncated {
            break;
        }
    }
    Ok(answer)
}

/// The names of an answer's columns, each another: one that was there before is named with its table, as ClickHouse does,
/// `b.path` beside `path`. A reader of JSON would keep one of two values under the same name.
fn names(schema: &DFSchema) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    let all: HashSet<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut taken = HashSet::new();
    for (qualifier, field) in schema.iter() {
        let mut name = field.name().clone();
        if taken.contains(&name) {
            let stem = qualifier.map_or_else(|| name.clone(), |table| format!("{}.{name}", table.table()));
            let free = |name: &String| !taken.contains(name) && !all.contains(name.as_str());
            let numbered = (2u64..).map(|nth| format!("{stem}_{nth}"));
            name = std::iter::once(stem.clone()).chain(numbered).find(free).unwrap_or(name);
        }
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

/// The schema with these names.
fn renamed(schema: &SchemaRef, names: Vec<String>) -> SchemaRef {
    if names.len() != schema.fields().len() {
        return Arc::clone(schema);
    }
    let field = |(field, name): (&Arc<Field>, String)| field.as_ref().clone().with_name(name);
    Arc::new(Schema::new(schema.fields().iter().zip(names).map(field).collect::<Vec<_>>()))
}

/// Bytes of the rows alone, where the arrays behind them may be larger.
fn slice_bytes(batch: &RecordBatch) -> usize {
    let column = |c: &Arc<dyn Array>| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size());
    batch.columns().iter().map(column).sum()
}

/// Names the nearest table for one that does not exist.
fn suggest(error: Error, catalog: &Catalog) -> Error {
    let Error::Query { message, help: None } = error else { return error };
    let unknown = message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    let help = unknown.map(|unknown| {
        let unknown = unknown.to_lowercase();
        let tables = catalog.tables();
        let nearest = tables.iter().map(|t| &t.name).min_by_key(|name| levenshtein(name, &unknown));
        match nearest {
            Some(name) if levenshtein(name, &unknown) <= 1 + unknown.len() / 3 => format!("did you mean `{name}`?"),
            Some(_) => {
                let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
                format!("there are: {}", names.join(", "))
            }
            None => "no table is served".to_owned(),
        }
    });
    Error::Query { message, help }
}

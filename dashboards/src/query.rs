//! One read-only query: parse, check, plan, run within the limits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::common::{DFSchema, ParamValues, ScalarValue};
use datafusion::config::Dialect;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use engine::functions::bounded::BoundedConcat;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::Limits;
use crate::error::Error;
use crate::functions;
use crate::given::Given;
use crate::guard;
use crate::output::Output;
use crate::table::ServedTable;

/// Rows of a batch inside a query. Smaller than DataFusion's 8192, because what an expression makes of one batch is
/// not accounted for.
const BATCH_ROWS: usize = 2048;

/// Characters of a column's name in an answer.
const MAX_NAME: usize = 256;

/// The schema whose tables have the rows in memory alone, of tables that are read from another place too.
const HOT: &str = "hot";

/// Stack of a thread that runs queries. Most of it is never touched; planning recurses as deep as expressions nest.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Statement {
    pub sql: String,
    /// Values of `$name` in it.
    pub parameters: BTreeMap<String, Parameter>,
    pub output: Output,
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Parameter {
    /// A time in ms since the epoch.
    Time(Option<i64>),
    Integer(Option<i64>),
    /// A length of time.
    Seconds(i64),
    Text(Option<String>),
    Number(f64),
    Bool(bool),
}

impl Parameter {
    /// A value of a document: texts, numbers, truth values and null.
    pub(crate) fn of_json(value: &serde_json::Value) -> Option<Self> {
        use serde_json::Value;
        Some(match value {
            Value::Null => Self::Text(None),
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Integer(Some(whole)),
                None => Self::Number(number.as_f64()?),
            },
            Value::String(text) => Self::Text(Some(text.clone())),
            Value::Array(_) | Value::Object(_) => return None,
        })
    }

    fn value(self) -> ScalarValue {
        match self {
            Self::Time(ms) => {
                ScalarValue::TimestampNanosecond(ms.map(|ms| ms.saturating_mul(1_000_000)), Some("UTC".into()))
            }
            Self::Integer(value) => ScalarValue::Int64(value),
            Self::Seconds(value) => ScalarValue::new_interval_mdn(0, 0, value.saturating_mul(1_000_000_000)),
            Self::Text(value) => ScalarValue::Utf8(value),
            Self::Number(value) => ScalarValue::Float64(Some(value)),
            Self::Bool(value) => ScalarValue::Boolean(Some(value)),
        }
    }
}

/// Runs queries in this process, within what its pool of memory accounts for.
#[derive(Debug)]
pub(crate) struct Executor {
    limits: Limits,
    environment: Arc<RuntimeEnv>,
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

impl Executor {
    pub(crate) fn new(limits: Limits) -> io::Result<Self> {
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(io::Error::other)?;
        Ok(Self { limits, environment })
    }

    /// Runs a statement over these tables and encodes its rows.
    pub(crate) async fn run(&self, statement: Statement, tables: &[Arc<Given>]) -> Result<Encoded, Error> {
        let output = statement.output;
        let answer = collect(self.session(tables), statement, &self.limits).await;
        let answer = answer.map_err(|error| suggest(error, tables))?;
        Ok(output.encode(&answer, self.limits.max_bytes).map_err(DataFusionError::from)?)
    }

    /// A session that sees the served tables, reads, and does nothing else.
    fn session(&self, tables: &[Arc<Given>]) -> SessionState {
        let mut config =
            SessionConfig::new().with_information_schema(true).with_batch_size(BATCH_ROWS).with_target_partitions(2);
        config.options_mut().execution.enable_recursive_ctes = false;
        config.options_mut().execution.time_zone = Some("UTC".to_owned());
        // It reserves memory for as many groups as LIMIT says, whether there are rows for them or not.
        config.options_mut().optimizer.enable_topk_aggregation = false;
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(BoundedConcat { most: usize::MAX })];
        planners.extend(SessionStateDefaults::default_expr_planners());
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.environment))
            .with_expr_planners(planners)
            .with_scalar_functions(functions::scalar())
            .with_aggregate_functions(functions::aggregate())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .build();
        let defaults = &state.config_options().catalog;
        let catalog = state.catalog_list().catalog(&defaults.default_catalog);
        let public = catalog.as_ref().and_then(|catalog| catalog.schema(&defaults.default_schema));
        if let Some(public) = public {
            let hot = Arc::new(MemorySchemaProvider::new());
            for table in tables {
                let served = Arc::new(ServedTable::new(Arc::clone(table), self.limits.timeout));
                let mut registered = public.register_table(table.name.clone(), served);
                if table.stored.is_some() {
                    let rows = Arc::new(ServedTable::hot(Arc::clone(table)));
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

async fn collect(state: SessionState, statement: Statement, limits: &Limits) -> Result<Answer, Error> {
    let started = Instant::now();
    guard::check_text(&statement.sql)?;
    let parsed = state.sql_to_statement(&statement.sql, &Dialect::Generic)?;
    guard::check(&parsed)?;
    let plan = state.statement_to_plan(parsed).await?;
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan).map_err(|error| Error::Forbidden(error.strip_backtrace()))?;
    // To put values in is to plan everything anew.
    let plan = if statement.parameters.is_empty() {
        plan
    } else {
        let values = statement.parameters.into_iter().map(|(name, value)| (name, value.value()));
        plan.with_param_values(ParamValues::from(values.collect::<HashMap<_, _>>()))?
    };
    guard::check_plan(&plan)?;
    let names = names(plan.schema());
    // One more than may be answered, so that it is known whether there are more.
    let plan = match plan {
        plan @ (LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) => plan,
        plan => LogicalPlanBuilder::from(plan).limit(0, Some(limits.max_rows.saturating_add(1)))?.build()?,
    };
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
///
/// A long name, which every row of JSON repeats, is cut.
fn names(schema: &DFSchema) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    let all: HashSet<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut taken = HashSet::new();
    for (qualifier, field) in schema.iter() {
        let mut name: String = field.name().chars().take(MAX_NAME).collect();
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
fn suggest(error: Error, tables: &[Arc<Given>]) -> Error {
    let Error::Query { message, help: None } = error else { return error };
    let unknown = message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    let help = unknown.map(|unknown| {
        let unknown = unknown.to_lowercase();
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

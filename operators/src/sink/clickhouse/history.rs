//! Reading back: the rows of a served table that ClickHouse has, as DataFusion sees them.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::ipc::reader::StreamDecoder;
use clickhouse::query::BytesCursor;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::prelude::Expr;
use engine::batch::TIME;
use engine::contract::printable;
use engine::contract::{History, HistoryError, Wanted};
use migrations::server::{Address, ServerError};
use migrations::sql::identifier;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc::Sender;

use super::columns::{Column, Kind};
use super::encode::{LATEST, OPTIONAL, TICK, UPDATED_AT};
use super::{decode, filter};

/// Rows of a block of the answer.
const BLOCK_ROWS: usize = 8192;

/// Batches that wait to be read.
const WAITING: usize = 2;

/// Nanoseconds of the column `time`, which has whole seconds: the end of the request or, of a hello without one, its time.
const NANOSECONDS: &str = "multiIf(intDiv(a_timestamp + duration_ms * 1000000, 1000000000) = toUnixTimestamp(time), \
    toInt64(a_timestamp + duration_ms * 1000000), intDiv(a_timestamp, 1000000000) = toUnixTimestamp(time), toInt64(a_timestamp), \
    intDiv(b_timestamp, 1000000000) = toUnixTimestamp(time), toInt64(b_timestamp), toInt64(toUnixTimestamp(time)) * 1000000000)";

/// One table in ClickHouse, to be read.
#[derive(Debug)]
pub(super) struct Stored {
    address: Address,
    database: String,
    table: String,
    /// Columns of the served table.
    schema: SchemaRef,
    /// Whether newer rows replace older ones.
    relation: bool,
    /// Columns in ClickHouse, or why they are not known.
    columns: Mutex<Result<Arc<Vec<Column>>, String>>,
}

impl Stored {
    pub fn new(address: Address, database: &str, table: &str, schema: SchemaRef, relation: bool) -> Self {
        let unknown = Mutex::new(Err("it has not answered yet".to_owned()));
        let (database, table) = (database.to_owned(), table.to_owned());
        Self { address, database, table, schema, relation, columns: unknown }
    }

    /// What the server said of the table's columns.
    pub fn set_columns(&self, columns: Result<&[Column], &str>) {
        let mut known = self.columns.lock();
        // A server that is away does not change what it has.
        if columns.is_ok() || known.is_err() {
            *known = columns.map(|columns| Arc::new(columns.to_vec())).map_err(str::to_owned);
        }
    }

    fn columns(&self) -> Result<Arc<Vec<Column>>, String> {
        self.columns.lock().clone()
    }

    /// What [`open`] takes.
    fn describe(&self) -> Description {
        Description {
            url: self.address.url.clone(),
            user: self.address.user.clone(),
            password: self.address.password.clone(),
            database: self.database.clone(),
            table: self.table.clone(),
            relation: self.relation,
            columns: self.columns().map(|columns| columns.iter().map(|c| (c.name.clone(), c.ty.clone())).collect()),
        }
    }

    fn fault(&self, message: &str) -> DataFusionError {
        let Self { address, database, table, .. } = self;
        let message = printable(message);
        DataFusionError::External(Box::new(HistoryError(format!(
            "stored rows of {database}.{table} cannot be read from ClickHouse at {}: {message}",
            address.url
        ))))
    }

    /// Sends what the server answers.
    async fn answer(
        &self,
        wanted: &Wanted,
        out: &Sender<Result<RecordBatch, DataFusionError>>,
    ) -> Result<(), DataFusionError> {
        let columns = self.columns().map_err(|message| self.fault(&message))?;
        let sql = query(&self.database, &self.table, &self.schema, self.relation, &columns, wanted);
        let sql = sql.ok_or_else(|| self.fault("the table's columns are not those that it had"))?;
        let schema = Arc::new(self.schema.project(&wanted.columns)?);
        let server = |error: clickhouse::error::Error| self.fault(&ServerError::from(error).message);
        let mut answer = self.ask(&sql, wanted).map_err(server)?;
        let mut decoder = StreamDecoder::new();
        while let Some(chunk) = answer.next().await.map_err(server)? {
            let mut buffer = Buffer::from_vec(chunk.to_vec());
            while !buffer.is_empty() {
                let Some(batch) = decoder.decode(&mut buffer).map_err(|error| self.fault(&error.to_string()))? else {
                    continue;
                };
                let rows = if wanted.columns.is_empty() {
                    counted(&schema, &batch, wanted.limit)
                } else {
                    decode::rows(&schema, &batch)
                };
                let rows = rows.map_err(|error| self.fault(&error.to_string()))?;
                if out.send(Ok(rows)).await.is_err() {
                    return Ok(());
                }
            }
        }
        decoder.finish().map_err(|error| self.fault(&format!("the answer is cut off ({error})")))
    }

    fn ask(&self, sql: &str, wanted: &Wanted) -> Result<BytesCursor, clickhouse::error::Error> {
        let seconds = wanted.timeout.as_secs_f64().ceil().max(1.0);
        // Text as bytes: the server does not promise UTF-8.
        self.address
            .client()
            .query_raw(sql)
            .with_setting("max_execution_time", seconds.to_string())
            .with_setting("max_block_size", BLOCK_ROWS.to_string())
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            .with_setting("output_format_arrow_compression_method", "none")
            .with_setting("output_format_arrow_string_as_string", "0")
            .with_setting("output_format_arrow_low_cardinality_as_dictionary", "0")
            .fetch_bytes("ArrowStream")
    }
}

/// What another process needs to read a table.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    url: String,
    user: Option<String>,
    password: Option<String>,
    database: String,
    table: String,
    relation: bool,
    /// Names and types, or why they are not known.
    columns: Result<Vec<(String, String)>, String>,
}

/// The place that [`History::describe`] has described, in another process. `schema` is that of the served table.
///
/// # Errors
/// If it is not a description of a table in ClickHouse.
pub fn open(description: &Value, schema: &SchemaRef) -> Result<Arc<dyn History>, String> {
    let described: Description =
        serde_json::from_value(description.clone()).map_err(|_| "not a table in ClickHouse".to_owned())?;
    let Description { url, user, password, database, table, relation, columns } = described;
    let address = Address { url, user, password };
    let stored = Stored::new(address, &database, &table, Arc::clone(schema), relation);
    let columns = columns.map(|all| all.into_iter().map(|(name, ty)| Column { name, ty }).collect::<Vec<_>>());
    stored.set_columns(columns.as_deref().map_err(String::as_str));
    Ok(Arc::new(Reader(Arc::new(stored))))
}

/// [`Stored`], as a served table reads it.
#[derive(Debug)]
pub(super) struct Reader(pub Arc<Stored>);

impl History for Reader {
    fn supports(&self, filter: &Expr) -> bool {
        let Ok(columns) = self.0.columns() else { return false };
        filter::translate(filter, &scope(&self.0.schema, &columns)).is_some()
    }

    fn describe(&self) -> Value {
        serde_json::to_value(self.0.describe()).unwrap_or_default()
    }

    fn read(&self, wanted: Wanted) -> SendableRecordBatchStream {
        let schema = match self.0.schema.project(&wanted.columns) {
            Ok(schema) => Arc::new(schema),
            Err(_) => Arc::clone(&self.0.schema),
        };
        let mut builder = RecordBatchReceiverStream::builder(schema, WAITING);
        let (stored, out) = (Arc::clone(&self.0), builder.tx());
        builder.spawn(async move { stored.answer(&wanted, &out).await });
        builder.build()
    }
}

/// A batch without columns that has as many rows as the server counted.
fn counted(
    schema: &SchemaRef,
    batch: &RecordBatch,
    limit: Option<usize>,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let count = batch.columns().first().map(decode::whole).transpose()?.unwrap_or_default();
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(limit.unwrap_or(usize::MAX));
    RecordBatch::try_new_with_options(
        Arc::clone(schema),
        Vec::new(),
        &RecordBatchOptions::new().with_row_count(Some(count)),
    )
}

fn scope<'a>(schema: &'a Schema, columns: &'a [Column]) -> filter::Scope<'a> {
    filter::Scope { schema, columns, nanoseconds: nanoseconds(columns) }
}

/// Where nanoseconds of `time` are, if it has none itself.
fn nanoseconds(columns: &[Column]) -> Option<&'static str> {
    let has = |name: &str, kind: Kind| columns.iter().any(|column| column.name == name && column.kind() == kind);
    let needed = ["a_timestamp", "b_timestamp", "duration_ms"];
    (has(TIME, Kind::Second) && needed.iter().all(|name| has(name, Kind::Whole))).then_some(NANOSECONDS)
}

/// The query; `None` if the table does not have what is wanted.
fn query(
    database: &str,
    table: &str,
    schema: &Schema,
    relation: bool,
    columns: &[Column],
    wanted: &Wanted,
) -> Option<String> {
    let mut sql = "SELECT ".to_owned();
    for (nth, at) in wanted.columns.iter().enumerate() {
        let field = schema.fields().get(*at)?;
        let name = identifier(field.name());
        let selected = match (field.data_type(), columns.iter().find(|column| column.name == *field.name())) {
            (ty, None) if OPTIONAL.contains(&field.name().as_str()) => absent(ty),
            (_, None) => return None,
            (ty, Some(column)) => match (ty, column.kind()) {
                (DataType::Timestamp(..), Kind::Second) if field.name() == TIME && nanoseconds(columns).is_some() => {
                    format!("fromUnixTimestamp64Nano({NANOSECONDS}, 'UTC')")
                }
                (DataType::Timestamp(unit, _), _) => format!("toDateTime64({name}, {}, 'UTC')", digits(*unit)),
                (DataType::Utf8, Kind::Text | Kind::Address) => name,
                (DataType::Utf8, _) => format!("toString({name})"),
                _ => name,
            },
        };
        // Names of columns would hide the columns themselves in the conditions.
        let comma = if nth == 0 { "" } else { ", " };
        write!(sql, "{comma}{selected} AS `_{nth}`").ok()?;
    }
    if wanted.columns.is_empty() {
        sql.push_str("count() AS `_0`");
    }
    let before = i64::try_from(wanted.before.min(LATEST)).ok()?;
    let (newest, tick) = if relation { (" FINAL", UPDATED_AT) } else { ("", TICK) };
    write!(
        sql,
        " FROM {}.{}{newest} WHERE {} < fromUnixTimestamp64Milli(toInt64({before}), 'UTC')",
        identifier(database),
        identifier(table),
        identifier(tick)
    )
    .ok()?;
    if relation {
        sql.push_str(" AND is_deleted = 0");
    }
    for condition in &wanted.filters {
        write!(sql, " AND {}", filter::translate(condition, &scope(schema, columns))?).ok()?;
    }
    if let Some(limit) = wanted.limit.filter(|_| !wanted.columns.is_empty()) {
        write!(sql, " LIMIT {limit}").ok()?;
    }
    Some(sql)
}

/// Nothing, of a type that is read as `ty`.
fn absent(ty: &DataType) -> String {
    match ty {
        DataType::Timestamp(unit, _) => format!("CAST(NULL, 'Nullable(DateTime64({}, \\'UTC\\'))')", digits(*unit)),
        _ => "CAST(NULL, 'Nullable(UInt8)')".to_owned(),
    }
}

fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::datatypes::Field;
    use datafusion::prelude::{col, lit};

    use super::*;

    fn wanted(columns: Vec<usize>, filters: Vec<Expr>, limit: Option<usize>) -> Wanted {
        Wanted { before: 1_700_000_000_123, columns, filters, limit, timeout: Duration::from_secs(10) }
    }

    fn asked(relation: bool, wanted: &Wanted) -> Option<String> {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let schema = Schema::new(vec![
            Field::new("time", time, false),
            Field::new("host", DataType::Utf8, true),
            Field::new("gone", DataType::Utf8, true),
        ]);
        let column = |(name, ty): (&str, &str)| Column { name: name.to_owned(), ty: ty.to_owned() };
        let columns = [("time", "DateTime"), ("host", "String")].map(column);
        query("d`b", "t", &schema, relation, &columns, wanted)
    }

    #[test]
    fn only_what_is_wanted_is_asked_for() {
        let filters = vec![col("host").eq(lit("x'"))];
        assert_eq!(
            asked(false, &wanted(vec![1, 0], filters, Some(5))).as_deref(),
            Some(
                r"SELECT `host` AS `_0`, toDateTime64(`time`, 9, 'UTC') AS `_1` FROM `d\`b`.`t` WHERE `tick` < fromUnixTimestamp64Milli(toInt64(1700000000123), 'UTC') AND (`host` = 'x\'') LIMIT 5"
            )
        );
        assert_eq!(
            asked(true, &wanted(vec![], vec![], Some(5))).as_deref(),
            Some(
                r"SELECT count() AS `_0` FROM `d\`b`.`t` FINAL WHERE `updated_at` < fromUnixTimestamp64Milli(toInt64(1700000000123), 'UTC') AND is_deleted = 0"
            )
        );
        assert_eq!(asked(false, &wanted(vec![2], vec![], None)), None);
    }
}

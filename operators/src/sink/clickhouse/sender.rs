//! Sends the batches of one table, several at a time, each until the server has taken it or will never take it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use clickhouse::Client;
use engine::batch::Time;
use engine::catalog::Table;
use engine::metrics::NodeMetrics;
use engine::text::printable;
use engine::time::wall_clock_ns;
use migrations::server::ServerError;
use migrations::sql::identifier;
use timely::scheduling::SyncActivator;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::columns::{self, Column};
use super::encode::{Layout, Part, TICK, UPDATED_AT};
use super::history::Stored;

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that are compressed and sent at a time.
const CHUNK: usize = 256 * 1024;

/// Exceptions that say that the rows do not fit the table; anything else may pass. Names as in ErrorCodes.cpp: 6
/// CANNOT_PARSE_TEXT, 8 THERE_IS_NO_COLUMN, 10 NOT_FOUND_COLUMN_IN_BLOCK, 16 NO_SUCH_COLUMN_IN_TABLE, 20
/// NUMBER_OF_COLUMNS_DOESNT_MATCH, 26 CANNOT_PARSE_QUOTED_STRING, 27 CANNOT_PARSE_INPUT_ASSERTION_FAILED, 38 CANNOT_PARSE_DATE,
/// 41 CANNOT_PARSE_DATETIME, 43 ILLEGAL_TYPE_OF_ARGUMENT, 44 ILLEGAL_COLUMN, 50 UNKNOWN_TYPE, 53 TYPE_MISMATCH, 69 ARGUMENT_OUT_OF_BOUND, 70
/// CANNOT_CONVERT_TYPE, 72 CANNOT_PARSE_NUMBER, 117 INCORRECT_DATA, 349 CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN, 441
/// CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING, 469 VIOLATED_CONSTRAINT, 675 CANNOT_PARSE_IPV4, 676 CANNOT_PARSE_IPV6.
const NEVER: [u32; 22] = [6, 8, 10, 16, 20, 26, 27, 38, 41, 43, 44, 50, 53, 69, 70, 72, 117, 349, 441, 469, 675, 676];

/// A table and how it is written.
pub(super) struct Target {
    pub client: Client,
    pub database: String,
    pub table: String,
    pub layout: Layout,
    /// Of the sink's node and table.
    pub name: String,
    pub dead: PathBuf,
    pub max_rows: usize,
    pub max_bytes: usize,
    pub concurrency: usize,
    pub timeout: Duration,
    pub max_pause: Duration,
    pub async_insert: bool,
    /// Reads the rows back, if that is wanted.
    pub stored: Option<Arc<Stored>>,
    /// The served table for which they are read back.
    pub shown: Option<Arc<Table>>,
}

/// The rows of some closed ticks.
pub(super) struct Job {
    pub first: Time,
    pub batches: Vec<RecordBatch>,
    /// The most rows and bytes of its inserts.
    pub limits: (usize, usize),
}

/// What the worker sees of it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// All jobs before this one are done.
    pub done: u64,
    /// The last attempt failed.
    pub troubled: bool,
    /// The table is not what the pipeline needs.
    pub failure: Option<String>,
}

/// [`State`], shared.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until the jobs end.
pub(super) async fn run(
    mut target: Target,
    mut jobs: UnboundedReceiver<Job>,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    waker: SyncActivator,
) {
    let wake = || {
        // A worker that has gone needs no waking.
        let _ = waker.activate();
    };
    match until_checked(&target, &shared, &metrics).await {
        Ok(columns) => target.layout.set_columns(&columns),
        Err(message) => {
            shared.lock().failure = Some(message);
            wake();
            return;
        }
    }
    let target = Arc::new(target);
    let mut running: JoinSet<(u64, bool)> = JoinSet::new();
    let (mut limit, mut next, mut done) = (1, 0, BTreeSet::new());
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            job = jobs.recv(), if open && running.len() < limit => match job {
                Some(job) => {
                    let (target, shared, metrics) = (Arc::clone(&target), Arc::clone(&shared), Arc::clone(&metrics));
                    running.spawn(async move { (next, send(&target, job, &shared, &metrics).await) });
                    next += 1;
                }
                None => open = false,
            },
            Some(ended) = running.join_next(), if !running.is_empty() => match ended {
                Ok((number, smooth)) => {
                    limit = if smooth { (limit + 1).min(target.concurrency) } else { (limit / 2).max(1) };
                    done.insert(number);
                    let mut state = shared.lock();
                    while done.remove(&state.done) {
                        state.done += 1;
                    }
                    drop(state);
                    wake();
                }
                Err(error) => {
                    shared.lock().failure = Some(format!("defect: a batch of {} was not sent: {error}", target.name));
                    wake();
                    return;
                }
            },
        }
    }
}

/// Waits for the server, then compares the table with the rows. The table's columns.
async fn until_checked(target: &Target, shared: &Shared, metrics: &NodeMetrics) -> Result<Vec<Column>, String> {
    let mut pause = FIRST_PAUSE;
    loop {
        let message = match tokio::time::timeout(target.timeout, check(target)).await {
            Ok(Ok(checked)) => {
                if let (Some(stored), Ok(columns)) = (&target.stored, &checked) {
                    stored.set_columns(Ok(columns));
                }
                return checked;
            }
            Ok(Err(error)) => error.message,
            Err(_) => "the server does not answer".to_owned(),
        };
        if let Some(stored) = &target.stored {
            stored.set_columns(Err(&message));
        }
        trouble(target, &message, shared, metrics);
        rest(&mut pause, target.max_pause).await;
    }
}

/// The table's columns, or what of it is not as the rows need it.
pub(super) async fn check(target: &Target) -> Result<Result<Vec<Column>, String>, ServerError> {
    let found = columns::read(&target.client, &target.database, &target.table).await?;
    let table = format!("{}.{}", target.database, target.table);
    if found.is_empty() {
        return Ok(Err(format!("there is no table {table}: ja4-engine migrate up makes the schema")));
    }
    let mut layout = target.layout.clone();
    layout.set_columns(&found);
    let mut differences = columns::differences(&layout.schema(), &found);
    if target.stored.is_some() && !found.iter().any(|column| matches!(column.name.as_str(), TICK | UPDATED_AT)) {
        differences.push(format!("has no column `{TICK}`, needed for `read_back`: DateTime64(3, 'UTC')"));
    }
    if differences.is_empty() {
        return Ok(Ok(found));
    }
    let advice = "change the table (ja4-engine migrate up brings the schema up to date), or the pipeline";
    Ok(Err(format!("the table {table} {}; {advice}", differences.join(&format!("; {table} ")))))
}

fn trouble(target: &Target, message: &str, shared: &Shared, metrics: &NodeMetrics) {
    metrics.counter("retries").fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut state = shared.lock();
    if !state.troubled {
        tracing::warn!(table = target.name, "not confirmed, sent again: {}", printable(message));
    }
    state.troubled = true;
}

/// Sleeps, longer each time, by chance up to a half shorter.
async fn rest(pause: &mut Duration, most: Duration) {
    let chance = (wall_clock_ns() / 1000 % 1024) as u32;
    tokio::time::sleep(*pause - *pause / 2 * chance / 1024).await;
    *pause = (*pause * 2).min(most);
}

/// Sends a job to its end. Whether everything went well at once.
async fn send(target: &Target, job: Job, shared: &Shared, metrics: &NodeMetrics) -> bool {
    let parts = match target.layout.parts(&target.name, job.first, &job.batches, job.limits) {
        Ok(parts) => parts,
        Err(error) => {
            shared.lock().failure = Some(format!("rows of {} cannot be encoded: {error}", target.name));
            return false;
        }
    };
    drop(job);
    let mut smooth = true;
    for part in parts {
        let mut pause = FIRST_PAUSE;
        loop {
            match insert(target, &part).await {
                Ok(()) => {
                    NodeMetrics::add(&metrics.bytes, part.body.len());
                    NodeMetrics::add(&metrics.counter("sent_rows"), part.rows);
                    let mut state = shared.lock();
                    if std::mem::take(&mut state.troubled) {
                        tracing::warn!(table = target.name, "the server takes rows again");
                    }
                    break;
                }
                Err(error) if error.code.is_some_and(|code| NEVER.contains(&code)) => {
                    smooth = false;
                    match bury(target, &part, &error.message) {
                        Ok(path) => {
                            NodeMetrics::add(&metrics.counter("dead_letter_rows"), part.rows);
                            tracing::error!(table = target.name, rows = part.rows, file = %path.display(), "refused: {}", printable(&error.message));
                            break;
                        }
                        Err(message) => trouble(target, &message, shared, metrics),
                    }
                }
                Err(error) => {
                    smooth = false;
                    trouble(target, &error.message, shared, metrics);
                }
            }
            rest(&mut pause, target.max_pause).await;
        }
    }
    smooth
}

/// One attempt. An exception anywhere in the answer, also after a status of 200, and an answer that is cut off are errors.
async fn insert(target: &Target, part: &Part) -> Result<(), ServerError> {
    let flag = |on: bool| if on { "1" } else { "0" };
    let mut insert = target
        .client
        .insert_formatted_with(statement(target))
        .with_setting("insert_deduplication_token", &part.token)
        .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
        .with_setting("async_insert", flag(target.async_insert))
        .with_setting("wait_for_async_insert", "1")
        .with_setting("input_format_skip_unknown_fields", "0")
        .with_setting("input_format_null_as_default", "1")
        .with_setting("wait_end_of_query", "1");
    let attempt = async {
        for from in (0..part.body.len()).step_by(CHUNK) {
            insert.send(part.body.slice(from..part.body.len().min(from + CHUNK))).await?;
        }
        insert.end().await
    };
    match tokio::time::timeout(target.timeout, attempt).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ServerError { code: None, message: format!("no answer within {:?}", target.timeout) }),
    }
}

/// The INSERT that a part is the data of.
fn statement(target: &Target) -> String {
    let columns: Vec<String> = target.layout.schema().fields().iter().map(|field| identifier(field.name())).collect();
    let table = format!("{}.{}", identifier(&target.database), identifier(&target.table));
    format!("INSERT INTO {table} ({}) FORMAT ArrowStream", columns.join(", "))
}

/// Keeps a batch that is not taken: the Arrow stream, and beside it the reason and a command that sends it again.
fn bury(target: &Target, part: &Part, reason: &str) -> Result<PathBuf, String> {
    let dir = &target.dead;
    let path = dir.join(format!("{}.arrows", part.token));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let again = format!("clickhouse-client --query '{}' < {}", statement(target), path.display());
        std::fs::write(path.with_extension("reason"), format!("{reason}\nTo send it again: {again}\n"))?;
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, &part.body)?;
        std::fs::File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().map(|()| path.clone()).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

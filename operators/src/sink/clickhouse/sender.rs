//! Sends the batches of one table, several inserts at a time, each until the server has taken it or will never take it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use clickhouse::Client;
use engine::batch::Time;
use engine::contract::Asking;
use engine::contract::NodeMetrics;
use engine::contract::Table;
use engine::contract::printable;
use engine::contract::wall_clock_ns;
use migrations::server::{Address, ServerError};
use parking_lot::{Mutex, MutexGuard};
use timely::scheduling::SyncActivator;
use tokio::sync::mpsc::UnboundedReceiver;

use super::columns::{self, Column};
use super::dead_letters::DeadLetters;
use super::deliver::{self, Courier};
use super::encode::{Layout, TICK, UPDATED_AT};
use super::history::Stored;
use super::refusal::is_of_access;
use super::splits::Splits;

mod dispatch;

pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How often trouble that lasts is said again.
const REMINDER: Duration = Duration::from_secs(60);

/// The first version that recognises an asynchronous insert that is sent again, in any table and in those behind views.
const ASYNC_VERSION: (u32, u32) = (26, 2);

/// A table and how it is written.
pub(super) struct Target {
    /// Whose client this is.
    pub address: Address,
    pub client: Client,
    pub database: String,
    pub table: String,
    pub layout: Layout,
    /// Of the sink's node and table.
    pub name: String,
    /// The folder of dead letters, and the most bytes there.
    pub dead: PathBuf,
    pub dead_bytes: u64,
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
    /// Inserts whose last attempt failed.
    pub troubled: usize,
    /// What was said last of that, and when.
    said: Option<(Option<u32>, Instant)>,
    /// The table is not what the pipeline needs, or the server does not let us in.
    pub failure: Option<String>,
}

/// [`State`], shared.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// An attempt has failed: counted, shown in the status, and said when that is new, and again once a minute.
    pub fn complain(&self, target: &Target, metrics: &NodeMetrics, code: Option<u32>, message: &str) {
        metrics.counter("retries").fetch_add(1, Relaxed);
        let message = printable(message);
        metrics.set_trouble(&target.table, Some(format!("not confirmed, sent again: {message}")));
        let mut state = self.lock();
        if state.said.is_none_or(|(said, at)| said != code || at.elapsed() > REMINDER) {
            state.said = Some((code, Instant::now()));
            tracing::warn!(table = target.name, "not confirmed, sent again: {message}");
        }
    }

    /// An insert of those that failed has succeeded.
    pub fn relieve(&self, target: &Target, metrics: &NodeMetrics) {
        let mut state = self.lock();
        state.troubled = state.troubled.saturating_sub(1);
        if state.troubled == 0 {
            state.said = None;
            metrics.set_trouble(&target.table, None);
            tracing::warn!(table = target.name, "the server takes rows again");
        }
    }
}

/// Runs until the jobs end. `asking` is there if its dataflow was made to take the place of another.
pub(super) async fn run(
    mut target: Target,
    jobs: UnboundedReceiver<Job>,
    asking: Option<Asking>,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    waker: SyncActivator,
) {
    let outcome = match until_checked(&target, asking, &shared, &metrics).await {
        Ok(columns) => {
            target.layout.set_columns(&columns);
            let letters = DeadLetters::new(target.dead.clone(), target.dead_bytes);
            // Not in the folder itself, which may be emptied at any time.
            let splits = Splits::new(target.dead.with_extension("splits"));
            let (shared, metrics) = (Arc::clone(&shared), Arc::clone(&metrics));
            let courier = Courier { target, letters, splits, shared, metrics };
            dispatch::send(Arc::new(courier), jobs, &waker).await
        }
        Err(message) => Err(message),
    };
    if let Err(message) = outcome {
        shared.lock().failure = Some(message);
    }
    // A worker that has gone needs no waking.
    let _ = waker.activate();
}

/// Waits for the server, then compares the table with the rows. The table's columns.
///
/// A server that does not let us in, and says so while the run starts, ends the run; one that says so at once to a dataflow
/// that is to take the place of another, ends that, and so the change is refused. Later it is waited for: rows are in the
/// spool, and a run that ends would not receive any more.
async fn until_checked(
    target: &Target,
    mut asking: Option<Asking>,
    shared: &Shared,
    metrics: &NodeMetrics,
) -> Result<Vec<Column>, String> {
    let (mut pause, began, mut failed) = (FIRST_PAUSE, Instant::now(), false);
    let takes_a_place = asking.is_some();
    loop {
        let error = match tokio::time::timeout(target.timeout, check(target)).await {
            Ok(Ok(checked)) => {
                if let (Some(stored), Ok(columns)) = (&target.stored, &checked) {
                    stored.set_columns(Ok(columns));
                }
                if failed {
                    shared.relieve(target, metrics);
                }
                if let Some(asking) = asking.filter(|_| checked.is_ok()) {
                    asking.told();
                }
                return checked;
            }
            Ok(Err(error)) => error,
            Err(_) => ServerError { code: None, message: "the server does not answer".to_owned() },
        };
        let starts = !failed || !takes_a_place && began.elapsed() < target.timeout;
        if is_of_access(&error) && starts {
            let (url, message) = (&target.address.url, printable(&error.message));
            return Err(format!(
                "ClickHouse at {url} refuses access to {}.{}: {message}",
                target.database, target.table
            ));
        }
        if let Some(stored) = &target.stored {
            stored.set_columns(Err(&error.message));
        }
        if !failed {
            failed = true;
            shared.lock().troubled += 1;
            // Away at the moment: the change need not wait for it.
            if let Some(asking) = asking.take() {
                asking.told();
            }
        }
        shared.complain(target, metrics, error.code, &error.message);
        rest(&mut pause, target.max_pause).await;
    }
}

/// The table's columns, or what of it is not as the rows need it.
pub(super) async fn check(target: &Target) -> Result<Result<Vec<Column>, String>, ServerError> {
    let found = columns::read(&target.client, &target.database, &target.table).await?;
    let table = format!("{}.{}", target.database, target.table);
    if found.is_empty() {
        return Ok(Err(format!(
            "there is no table {table}, or the user has no right to it: ja4-engine migrate up makes the schema, migrate ddl PIPELINE prints own tables"
        )));
    }
    if target.async_insert {
        let version = columns::version(&target.client).await?;
        if version < ASYNC_VERSION {
            let ((major, minor), (least, other)) = (version, ASYNC_VERSION);
            return Ok(Err(format!(
                "ClickHouse {major}.{minor} may store an asynchronous insert twice that is sent again: `async_insert` needs \
                 {least}.{other}; leave it out"
            )));
        }
    }
    let mut layout = target.layout.clone();
    layout.set_columns(&found);
    let mut differences = columns::differences(&layout.schema(), &found);
    if target.stored.is_some() && !found.iter().any(|column| matches!(column.name.as_str(), TICK | UPDATED_AT)) {
        differences.push(format!("has no column `{TICK}`, needed for `read_back`: DateTime64(3, 'UTC')"));
    }
    if differences.is_empty() {
        // Columns that are seen need not be columns that may be written.
        deliver::try_out(target, &layout).await?;
        return Ok(Ok(found));
    }
    let advice = "change the table (ja4-engine migrate up brings the schema up to date, migrate ddl PIPELINE prints own columns), or the pipeline";
    Ok(Err(format!("the table {table} {}; {advice}", differences.join(&format!("; {table} ")))))
}

/// Sleeps, longer each time, by chance up to a half shorter.
pub(super) async fn rest(pause: &mut Duration, most: Duration) {
    let chance = (wall_clock_ns() / 1000 % 1024) as u32;
    tokio::time::sleep(*pause - *pause / 2 * chance / 1024).await;
    *pause = (*pause * 2).min(most);
}

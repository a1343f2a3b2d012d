//! Tables in ClickHouse. What was sent is confirmed only after a full answer; until then the rows are in the spool.

mod canonical;
mod columns;
mod ddl;
pub(super) mod dead_letters;
mod decode;
mod deliver;
mod encode;
mod filter;
mod history;
mod insert_bounds;
mod part;
mod queue;
mod refusal;
mod sender;
mod splits;
mod table;

pub use history::open as open_history;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::datatypes::DataType;
use engine::batch::{Edge, EdgeClass, EdgeType, SEQ, Stream, TIME, Time};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::printable;
use engine::contract::{Facts, Inputs, Node, Operator, Port, ServerFault, ServerTable};
use engine::spec::Bytes;
use migrations::server::Address;
use timely::dataflow::operators::Concatenate;
use tokio::runtime::Runtime;

use super::cuts::Cuts;
use history::Stored;

/// See [`Operator::SUMMARY`].
pub struct ClickHouse;

/// What can be set.
///
/// The tables are those of `from: { table: id, … }`; a plain `from: id` is one table with the name of this node. They
/// are made by `ja4-engine migrate up`; `ja4-engine migrate ddl PIPELINE` prints what a pipeline's own need. A table must have
/// every column of its rows but `repaired` and `begin_time`, of a type that holds all of their values (a number that does not fit would be stored as
/// another one), which a run and `validate --connect` check. A time other than `time`, `window_start`, `detected_at`, `tick` and
/// `updated_at` needs DateTime64: DateTime ends in 2106. Columns that the rows do not have get their defaults. Rows of a stream get the
/// column `tick` besides, the tick in which they were made, if the table has it. Rows of a relation get two columns
/// more: `updated_at`, the tick in which they were made, and `is_deleted`, 1 for a row that was taken back. Its table
/// should be a ReplacingMergeTree by `updated_at`.
///
/// A batch is named by its position and its content (`insert_deduplication_token`). The table must know such names
/// (`non_replicated_deduplication_window`, or a replicated table), as those of `migrate` do: then a batch that is sent
/// again is there once.
///
/// An insert that the server refuses because of some of its rows, such as by a CHECK constraint, is sent in halves, and these
/// again, until the rows that it refuses are alone: at most 1,023 times, and 63 while it takes nothing, then what is left
/// together stays so. Refused rows go as files to `<data_dir>/dead_letters/<node>/<table>`, beside each the reason and a
/// command that sends it again. Which inserts were split stands in `<table>.splits` beside that folder, which must stay as long
/// as rows may be sent again. What is wrong with the table, a view behind it or the user's rights is no fault of the
/// rows: they are held, in the spool, and tried again until it is mended, as are refused rows when the dead letters are full.
/// A server that refuses the user while the run starts, within `timeout`, ends it.
///
/// Counters: `sent_rows`, `retries` (attempts that failed), `splits`, `dead_letter_rows`, `bad_addresses` (texts that are no
/// address, for columns of type IPv6, which get `::`). Values: `retried_rows` (in inserts that failed and are tried again;
/// `GET /status` says why under `troubles`), `dead_letter_bytes`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct ClickHouseOptions {
    /// The server: `http[s]://[user[:password]@]host[:port]`. Best from the environment: "${CLICKHOUSE_URL}".
    url: String,
    /// The database. Default: mabase_prod.
    #[serde(default = "mabase")]
    database: String,
    /// In place of the URL's.
    #[serde(default)]
    user: Option<String>,
    /// In place of the URL's.
    #[serde(default)]
    password: Option<String>,
    /// How much event time goes into a batch, from multiples of this to the next. Of a pipeline with a spool, batches that wait
    /// for the server go together, up to `max_rows` and `max_bytes`. Default: 1s.
    #[serde(default = "second", deserialize_with = "engine::spec::humantime_duration::deserialize")]
    #[schemars(with = "String")]
    every: Duration,
    /// Rows after which a batch ends earlier, at the next closed tick; also the most rows of an insert. About twice as
    /// many (at least 65,536) or twice `max_bytes`, whichever is less, and the batch with which that is passed, are
    /// in memory while the server is away, besides the one that is being gathered. Default: 200000.
    #[serde(default = "two_hundred_thousand")]
    max_rows: usize,
    /// The most bytes of an insert, before compression. Default: 128MiB.
    #[serde(default = "hundred_twenty_eight_mib")]
    max_bytes: Bytes,
    /// The most inserts of a table at a time. There is one at first; one more for each that goes well, half as many
    /// after one that does not. Default: 4.
    #[serde(default = "four")]
    concurrency: usize,
    /// How long one insert may take until it is answered. Default: 30s.
    #[serde(default = "half_a_minute", deserialize_with = "engine::spec::humantime_duration::deserialize")]
    #[schemars(with = "String")]
    timeout: Duration,
    /// The longest pause before an insert that failed is sent again. The first is 100 ms; each is twice the one before,
    /// less up to half of it by chance. Default: 10s.
    #[serde(default = "ten_seconds", deserialize_with = "engine::spec::humantime_duration::deserialize")]
    #[schemars(with = "String")]
    max_pause: Duration,
    /// Has the server gather small inserts (`async_insert`, always with `wait_for_async_insert`). Needs ClickHouse 26.2:
    /// older ones do not recognise such an insert when that is sent again, or not in the tables behind views.
    /// Default: false.
    #[serde(default)]
    async_insert: bool,
    /// The most bytes of a table's dead letters. When they are reached, rows that the server refuses are held and sent
    /// again, until there is room or it takes them. Default: 1GiB.
    #[serde(default = "one_gib")]
    max_dead_letter_bytes: Bytes,
    /// Of a relation, also rows that may still change, each time they do. Default: false, only those that stay.
    #[serde(default)]
    live: bool,
    /// Whether `POST /sql` reads a served table's older rows from here: a table that shows an input of this node has
    /// its rows in memory until they are confirmed, and after that in ClickHouse, each in one of the two. What a row
    /// did not have is read as '' or 0 then, unless the column is Nullable. Not with `live`. Default: false.
    #[serde(default)]
    read_back: bool,
}

fn mabase() -> String {
    "mabase_prod".to_owned()
}
fn second() -> Duration {
    Duration::from_secs(1)
}
fn two_hundred_thousand() -> usize {
    200_000
}
fn hundred_twenty_eight_mib() -> Bytes {
    Bytes(128 << 20)
}
fn one_gib() -> Bytes {
    Bytes(1 << 30)
}
fn four() -> usize {
    4
}
fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}
fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

impl Operator for ClickHouse {
    type Options = ClickHouseOptions;
    const KIND: &'static str = "sink.clickhouse";
    const SUMMARY: &'static str = "Writes tables of a ClickHouse server, each row once.";
    const INPUTS: Inputs = Inputs::Any;
    const OUTPUTS: &'static [Port] = &[];

    fn plan(options: ClickHouseOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let given: Vec<(String, EdgeType)> = context
            .inputs()
            .map(|(name, ty)| (if name.is_empty() { context.id } else { name }.to_owned(), ty.clone()))
            .collect();
        let mut problems = Vec::new();
        let (user, password) = (options.user.clone(), options.password.clone());
        let address = Address::parse(&options.url, user, password).map_err(|fault| problems.push(fault)).ok();
        let name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !name(&options.database) {
            problems.push(format!("`{}` is not a database's name: letters, digits and `_`", options.database));
        }
        let bounds = [options.max_rows, options.max_bytes.in_memory(), options.concurrency];
        if options.every.is_zero() || bounds.contains(&0) || options.max_dead_letter_bytes == Bytes(0) {
            problems.push(
                "`every`, `max_rows`, `max_bytes`, `max_dead_letter_bytes` and `concurrency` must be greater than 0"
                    .to_owned(),
            );
        }
        if options.read_back && options.live {
            problems
                .push("`read_back` is for rows that stay; `live` rows may change. Leave out one of them".to_owned());
        }
        for problem in &problems {
            context.error(context.span, problem.clone());
        }
        let mut complete = problems.is_empty();
        let mut tables = Vec::with_capacity(given.len());
        for (nth, (table, ty)) in given.iter().enumerate() {
            let span = context.input_span(nth);
            if !name(table) {
                context.error(span, format!("`{table}` is not a table's name: letters, digits and `_`"));
                complete = false;
            }
            if !ty.is_relation() && ty.schema.index_of(encode::TICK).is_ok() {
                context.error(span, format!("the column `{}` is this node's own: rename it", encode::TICK));
                complete = false;
            }
            for field in ty.schema.fields() {
                if field.data_type().is_nested() && !matches!(field.data_type(), DataType::List(_)) {
                    context.error(
                        span,
                        format!("the column `{}` is {}, which no table has", field.name(), field.data_type()),
                    );
                    complete = false;
                }
            }
            let dead = context.data_dir().join("dead_letters").join(context.id).join(table);
            tables.push(TableSpec { name: table.clone(), ty: ty.clone(), dead });
        }
        let node = ClickHouseNode { address: address?, options, tables, runtime: OnceLock::new() };
        complete.then(|| Box::new(node) as Box<dyn Node>)
    }
}

struct TableSpec {
    name: String,
    ty: EdgeType,
    /// Where batches go that the server will never take.
    dead: PathBuf,
}

struct ClickHouseNode {
    address: Address,
    options: ClickHouseOptions,
    tables: Vec<TableSpec>,
    /// Sends; started by the first worker that owns a table.
    runtime: OnceLock<Result<Runtime, String>>,
}

impl ClickHouseNode {
    fn target(&self, id: &str, table: &TableSpec) -> sender::Target {
        let client = self.address.client().with_database(&self.options.database);
        let stored = self.options.read_back.then(|| {
            let (address, schema) = (self.address.clone(), table.ty.schema.clone());
            Arc::new(Stored::new(address, &self.options.database, &table.name, schema, table.ty.is_relation()))
        });
        sender::Target {
            address: self.address.clone(),
            client,
            database: self.options.database.clone(),
            table: table.name.clone(),
            layout: encode::Layout::new(&table.ty, self.order(&table.ty), self.options.live),
            name: format!("{id}.{}", table.name),
            dead: table.dead.clone(),
            dead_bytes: self.options.max_dead_letter_bytes.0,
            max_rows: self.options.max_rows,
            max_bytes: self.options.max_bytes.in_memory(),
            concurrency: self.options.concurrency,
            timeout: self.options.timeout,
            max_pause: self.options.max_pause,
            async_insert: self.options.async_insert,
            stored,
            shown: None,
        }
    }

    /// Columns by which rows are sorted, so that equal rows are equal batches.
    fn order(&self, ty: &EdgeType) -> Vec<usize> {
        let names: Vec<&str> = match &ty.class {
            EdgeClass::Stream => vec![TIME, SEQ],
            EdgeClass::Relation { key } => key.iter().map(String::as_str).collect(),
        };
        names.iter().filter_map(|name| ty.schema.index_of(name).ok()).collect()
    }
}

impl Node for ClickHouseNode {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn facts(&self) -> Facts {
        Facts { keeps_tables: self.options.read_back, records_changes: self.options.live, ..Facts::default() }
    }

    fn check_servers(&self) -> Vec<ServerFault> {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return vec![ServerFault::Unreachable(format!("no thread to ask from: {error}"))],
        };
        let check = |table: &TableSpec| {
            let target = self.target("", table);
            let asked = async { tokio::time::timeout(target.timeout, sender::check(&target)).await };
            let place = format!("ClickHouse at {}", self.address.url);
            match runtime.block_on(asked) {
                Ok(Ok(Ok(_))) => None,
                Ok(Ok(Err(message))) => Some(ServerFault::Unfit(message)),
                Ok(Err(error)) => Some(ServerFault::Unreachable(format!("{place}: {}", printable(&error.message)))),
                Err(_) => Some(ServerFault::Unreachable(format!("{place}: no answer within {:?}", target.timeout))),
            }
        };
        self.tables.iter().filter_map(check).collect()
    }

    fn server_tables(&self) -> Vec<ServerTable> {
        let table = |table: &TableSpec| {
            let ty = &table.ty;
            let (columns, ending) = ddl::table(ty, &self.order(ty));
            ServerTable { database: self.options.database.clone(), name: table.name.clone(), columns, ending }
        };
        self.tables.iter().map(table).collect()
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let every = Time::try_from(self.options.every.as_millis()).unwrap_or(Time::MAX).max(1);
        let start = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(1).thread_name("clickhouse").enable_all().build();
            runtime.map_err(|error| format!("no thread to send from: {error}"))
        };
        let written = inputs.into_iter().zip(&self.tables).enumerate().map(|(nth, (input, table))| {
            let handle = self.runtime.get_or_init(start).as_ref().map(|runtime| runtime.handle().clone());
            let shown = context.tables.get(nth).cloned().flatten().filter(|_| self.options.read_back);
            // Rows must be on their way before the served table, which keeps only so many in memory, lets go of them.
            let most = shown.as_ref().map_or(usize::MAX, |table| (table.hot_rows() / 4).max(1));
            let cuts = Cuts::new(every, self.options.max_rows.min(most));
            let target = sender::Target { shown, ..self.target(&context.id, table) };
            table::build(
                context,
                input.stream,
                handle.map_err(Clone::clone),
                target,
                cuts,
                context.home_of(nth),
                self.options.live,
            )
        });
        let written: Vec<Stream<'s>> = written.collect();
        vec![context.scope.concatenate(written)]
    }
}

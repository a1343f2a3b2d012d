//! The embedded store: tables as Parquet files by day.

mod columns;
mod retention;
mod store;
mod stored;
mod table;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use engine::batch::{Batch, Edge, EdgeClass, EdgeType, SEQ, Stream, TIME, Time, time_type};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::wall_clock_ns;
use engine::contract::{Facts, Inputs, Node, Operator, Port};
use engine::spec::Bytes;
use sha2::{Digest, Sha256};
use timely::dataflow::operators::Concatenate;

use super::cuts::Cuts;
use engine::contract::sink;
use retention::Retention;
use store::Store;
pub use stored::{Stored, stored};
use table::Owner;

/// See [`Operator::SUMMARY`].
pub struct Parquet;

/// The column by which rows without event time are kept.
const WINDOW_START: &str = "window_start";

/// What can be set.
///
/// The tables are those of `from: { table: id, … }`; a plain `from: id` is one table with the name of this node. Files
/// are `<data_dir>/<table>/<day>/<first tick in ms>-<part>-<run>.parquet`, by the UTC day of the rows' `time` or
/// `window_start`. Of a relation only rows that will never be taken back are written.
///
/// A live run only adds files. A run whose sources all end replaces the files of the run before it that had such
/// sources, because it makes them anew: a table belongs to one pipeline.
///
/// Files of an earlier pipeline stay a part of the table that is served: columns that they lack are null, and columns whose
/// type has become wider are cast (a whole number to a wider one, to Float64 or to text, Float32 to Float64, a truth value
/// to text). A column of another type is null in the rows of that file, counted in `unread_columns`, and named among the
/// troubles of `GET /status`. Files in which a column that orders rows or tells them apart is of another type, or of groups by
/// other columns, are left out, counted in `skipped_segments` and named there. A file that somebody else removes is left out until it is back, counted in
/// `missing_segments` and named there too. Other counters: `segments`, and what `retain` and `max_bytes` have removed, in
/// `removed_segments`, `removed_rows` and `removed_bytes`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct ParquetOptions {
    /// How much event time goes into a file, from multiples of this to the next. Until then rows are in memory alone:
    /// after a crash they are made again from the sources. Default: 60s.
    #[serde(default = "minute", deserialize_with = "engine::spec::humantime_duration::deserialize")]
    #[schemars(with = "String")]
    rotate: Duration,
    /// Rows after which a file is written earlier, at the next closed tick; also the most rows of a file. Default: 500000.
    #[serde(default = "half_a_million")]
    max_rows: usize,
    /// For how long files are kept, such as `30d`: those of a UTC day are removed when it has ended so long ago, by the
    /// event time up to which the table is written. Each removal is logged. Default: for ever.
    #[serde(default, deserialize_with = "crate::source::optional_duration")]
    #[schemars(with = "Option<String>")]
    retain: Option<Duration>,
    /// The most bytes of a table's files, such as `10GiB` or `500MB`. When they are passed, the oldest files are removed, but none
    /// of the day that is being written, or later, and none while a query reads it. Each removal is logged. Default: no bound.
    #[serde(default)]
    max_bytes: Option<Bytes>,
    /// Whether a table's folder may be a symbolic link. Default false: it is refused.
    #[serde(default)]
    follow_symlinks: bool,
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn half_a_million() -> usize {
    500_000
}

impl Operator for Parquet {
    type Options = ParquetOptions;
    const KIND: &'static str = "sink.parquet";
    const SUMMARY: &'static str = "Keeps tables as Parquet files by day, beneath `data_dir`.";
    const INPUTS: Inputs = Inputs::Any;
    const OUTPUTS: &'static [Port] = &[];

    fn plan(options: ParquetOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let given: Vec<(String, EdgeType)> = context
            .inputs()
            .map(|(name, ty)| (if name.is_empty() { context.id } else { name }.to_owned(), ty.clone()))
            .collect();
        let mut tables = Vec::with_capacity(given.len());
        let mut names = HashSet::new();
        let mut complete = true;
        for (nth, (name, ty)) in given.iter().enumerate() {
            let order = table(name, ty).and_then(|order| {
                names.insert(name).then_some(order).ok_or(format!("there is another table `{name}`"))
            });
            match order {
                Ok(order) => tables.push(TableSpec {
                    dir: context.data_dir().join(name),
                    name: name.clone(),
                    ty: ty.clone(),
                    order,
                }),
                Err(message) => {
                    context.error(context.input_span(nth), message);
                    complete = false;
                }
            }
        }
        if options.max_rows == 0 || options.rotate.is_zero() {
            context.error(context.span, "`rotate` and `max_rows` must be greater than 0");
            complete = false;
        }
        if options.retain.is_some_and(|retain| retain.is_zero()) || options.max_bytes == Some(Bytes(0)) {
            context.error(
                context.span,
                "`retain` and `max_bytes` must be greater than 0; leave them out to keep everything",
            );
            complete = false;
        }
        let retention = Retention { retain: options.retain, max_bytes: options.max_bytes.map(|most| most.0) };
        let rotate = u64::try_from(options.rotate.as_millis()).unwrap_or(u64::MAX).max(1);
        let (max_rows, follows, started) = (options.max_rows, options.follow_symlinks, OnceLock::new());
        let node = ParquetNode { tables, rotate, max_rows, retention, follows, started };
        complete.then(|| Box::new(node) as Box<dyn Node>)
    }
}

/// Checks a table's name and columns; the columns by which its rows are sorted.
fn table(name: &str, ty: &EdgeType) -> Result<Vec<usize>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("`{name}` is not a table's name: letters, digits, `_` and `-`"));
    }
    let time = [TIME, WINDOW_START].into_iter().find_map(|name| ty.schema.index_of(name).ok());
    let time = time.ok_or_else(|| format!("the table `{name}` has neither a column `{TIME}` nor `{WINDOW_START}`"))?;
    if *ty.schema.field(time).data_type() != time_type() {
        return Err(format!(
            "the column `{}` is {}, not a time",
            ty.schema.field(time).name(),
            ty.schema.field(time).data_type()
        ));
    }
    let key: &[String] = match &ty.class {
        EdgeClass::Stream => &[],
        EdgeClass::Relation { key } => key,
    };
    let mut order = vec![time];
    for name in [SEQ].into_iter().chain(key.iter().map(String::as_str)) {
        order.extend(ty.schema.index_of(name).ok().filter(|at| !order.contains(at)));
    }
    Ok(order)
}

struct TableSpec {
    name: String,
    dir: PathBuf,
    ty: EdgeType,
    order: Vec<usize>,
}

struct ParquetNode {
    tables: Vec<TableSpec>,
    rotate: Time,
    max_rows: usize,
    retention: Retention,
    /// Whether a table's folder may be a link.
    follows: bool,
    /// The lineage of a live run, in ms since the epoch; a name, which no row depends on.
    started: OnceLock<i64>,
}

impl ParquetNode {
    fn store(&self, table: &TableSpec, bounded: bool) -> Store {
        let lineage = if bounded {
            let digest = Sha256::digest(format!("{}\0bounded", table.name));
            digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
        } else {
            format!("{:x}", self.started.get_or_init(|| wall_clock_ns() / 1_000_000))
        };
        let (dir, schema, order) = (table.dir.clone(), table.ty.schema.clone(), table.order.clone());
        let key = match &table.ty.class {
            EdgeClass::Stream => vec![TIME.to_owned(), SEQ.to_owned()],
            EdgeClass::Relation { key } => key.clone(),
        };
        Store { dir, schema, order, key, lineage, max_rows: self.max_rows, retention: self.retention }
    }
}

impl Node for ParquetNode {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn facts(&self) -> Facts {
        let stores = self.tables.iter().map(|table| table.name.clone()).collect();
        let folders = self.tables.iter().map(|table| table.dir.clone()).collect();
        Facts { stores, folders, follows: self.follows, keeps_tables: true, ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let written = inputs.into_iter().zip(&self.tables).enumerate().map(|(nth, (input, table))| {
            let owner = context.home_of(nth);
            // Rows must be in a file before the served table, which keeps only so many in memory, lets go of them.
            let shown = context.tables.get(nth).and_then(Option::as_ref).map_or(usize::MAX, |t| t.hot_rows() / 2);
            let cuts = Cuts::new(self.rotate, self.max_rows.min(shown.max(1)));
            let store = self.store(table, context.bounded);
            let name = format!("{}.{}", context.id, table.name);
            let keep = |batch: &Batch| batch.settled && batch.diff > 0;
            sink::build(context, input.stream, (&name, owner), keep, |_, _| {
                Ok(Owner::new(context, store, cuts, nth, &name))
            })
        });
        let written: Vec<Stream<'s>> = written.collect();
        vec![context.scope.concatenate(written)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
    use engine::batch::{Batch, stream_schema, time_array};
    use engine::contract::Table;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

    use super::table::Writer;
    use super::*;

    fn one_row(tick: Time, seq: u64) -> Batch {
        let columns: Vec<ArrayRef> =
            vec![time_array(vec![tick as i64 * 1_000_000]), Arc::new(UInt64Array::from(vec![seq]))];
        Batch::new(RecordBatch::try_new(stream_schema([]), columns).expect("valid"))
    }

    /// The rows that a table shows, sorted.
    fn shown(table: &Table) -> Vec<u64> {
        let snapshot = table.snapshot();
        let mut batches = snapshot.hot;
        for segment in snapshot.segments {
            let file = std::fs::File::open(segment.path).expect("there");
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("readable");
            batches.extend(reader.map(|rows| rows.expect("readable")));
        }
        let mut seqs: Vec<u64> = batches
            .into_iter()
            .flat_map(|rows| Batch::new(rows).seqs().map(|seqs| seqs.values().to_vec()).unwrap_or_default())
            .collect();
        seqs.sort_unstable();
        seqs
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, rng_seed: proptest::test_runner::RngSeed::Fixed(13), ..ProptestConfig::default() })]

        /// The served table and the sink hear of a row in either order and at any distance: whichever is first, the
        /// row is shown from then on, once.
        #[test]
        fn a_row_is_shown_once_from_the_first_that_hears_of_it(
            rows in prop::collection::vec((0u64..1000, 0usize..40, 0usize..40), 1..30),
            frontiers in prop::collection::vec(0u64..1100, 40),
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let schema = stream_schema([]);
            let table = Arc::new(Table::new("t", &EdgeType::stream(schema.clone()), 1000));
            let store = Store { dir: dir.path().join("t"), schema, order: vec![0, 1], key: vec![TIME.to_owned(), SEQ.to_owned()], lineage: "x".to_owned(), max_rows: 7, retention: Retention::default() };
            store.open(false).expect("opens");
            let mut writer = Writer { store, table: Some(Arc::clone(&table)), metrics: Arc::default(), segments: Arc::default(), files: retention::Files::default(), newest: 0 };
            let mut cuts = Cuts::new(100, 1000);
            let mut expected = std::collections::BTreeSet::new();
            let mut frontier = 0;
            for (step, wanted) in frontiers.iter().enumerate() {
                for (seq, (tick, to_table, to_sink)) in rows.iter().enumerate() {
                    let batch = one_row(*tick, seq as u64);
                    if *to_table == step {
                        table.push(*tick, &batch).expect("kept");
                        expected.insert(seq as u64);
                    }
                    if *to_sink == step {
                        cuts.push(*tick, batch.rows);
                    }
                }
                // A tick is not closed while the sink has not heard of all its rows.
                let coming = rows.iter().filter(|(_, _, to_sink)| *to_sink > step).map(|(tick, _, _)| *tick).min();
                frontier = frontier.max((*wanted).min(coming.unwrap_or(*wanted)));
                for cut in cuts.close(Some(frontier)) {
                    let end = cut.upto;
                    writer.write(&cut).expect("written");
                    expected.extend(rows.iter().enumerate().filter(|(_, row)| row.0 < end && row.2 <= step).map(|(seq, _)| seq as u64));
                }
                prop_assert_eq!(shown(&table), expected.iter().copied().collect::<Vec<_>>());
            }
            for cut in cuts.close(None) {
                writer.write(&cut).expect("written");
            }
            prop_assert_eq!(shown(&table), (0..rows.len() as u64).collect::<Vec<_>>());
        }
    }
}

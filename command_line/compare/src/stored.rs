//! Tables as `sink.parquet` leaves them: `<data_dir>/<table>/<day>/*.parquet`.
//!
//! A table is compared day by day if its key holds the time by which its files are sorted into days, and a day with many
//! rows hour by hour, so that memory is bounded by those and not by the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use spool::batch::{MAX_ROWS, SEQ, TIME, time_type};

use crate::{CompareError, Comparer, Comparison};

/// The entry of a Parquet file's metadata with the columns that tell rows apart, as a JSON array of names.
pub const KEY: &str = "ja4-engine.key";

/// The columns by which files are sorted into days, the first that there is.
const DAY_COLUMNS: [&str; 2] = [TIME, "window_start"];

/// A day with more rows than this on either side is compared hour by hour.
const WHOLE_DAY: u64 = 1_000_000;
const NS_PER_HOUR: i64 = 3_600_000_000_000;

/// What keeps stored tables from being compared.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// A directory cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: ParquetError,
    },
    /// Nothing says which columns tell rows apart.
    #[error("the files of `{0}` do not say which columns tell its rows apart: give them with --key")]
    NoKey(String),
    /// The rows do not go together.
    #[error("`{table}`: {error}")]
    Compare {
        /// Of which table.
        table: String,
        /// Why.
        error: CompareError,
    },
}

/// The tables of a data directory, by name.
///
/// # Errors
/// If the directory cannot be read.
pub fn tables(data_dir: &Path) -> Result<BTreeMap<String, StoredTable>, StoredError> {
    let mut tables = BTreeMap::new();
    for dir in entries(data_dir)?.into_iter().filter(|path| path.is_dir()) {
        let Some(name) = dir.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        let mut days: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for day in entries(&dir)?.into_iter().filter(|path| path.is_dir()) {
            let Some(of) = day.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
            // A name with a dot in front is a file that is not complete.
            let complete = |path: &PathBuf| {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                name.ends_with(".parquet") && !name.starts_with('.')
            };
            let files: Vec<PathBuf> = entries(&day)?.into_iter().filter(complete).collect();
            if !files.is_empty() {
                days.insert(of, files);
            }
        }
        if !days.is_empty() {
            tables.insert(name.clone(), StoredTable { name, days });
        }
    }
    Ok(tables)
}

/// The files of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTable {
    name: String,
    /// Files by UTC day.
    days: BTreeMap<String, Vec<PathBuf>>,
}

impl StoredTable {
    /// A table without rows, of which there are no files.
    pub fn empty(name: &str) -> Self {
        Self { name: name.to_owned(), days: BTreeMap::new() }
    }

    /// Whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }
}

/// Compares a table of two data directories. Without `key` its columns are those that the files name, else `time` and `seq`.
///
/// # Errors
/// If a file cannot be read, or the key is not known or not in both tables.
pub fn compare_stored(
    before: &StoredTable,
    after: &StoredTable,
    key: Option<&[String]>,
    examples: usize,
) -> Result<Comparison, StoredError> {
    compare_in_pieces(before, after, key, examples, WHOLE_DAY)
}

fn compare_in_pieces(
    before: &StoredTable,
    after: &StoredTable,
    key: Option<&[String]>,
    examples: usize,
    whole_day: u64,
) -> Result<Comparison, StoredError> {
    if before.is_empty() && after.is_empty() {
        return Ok(Comparison::default());
    }
    // A side without files says nothing of the columns.
    let [before_says, after_says] = [(before, after), (after, before)].map(|(a, b)| if a.is_empty() { b } else { a });
    let (key, day_column) = match key {
        Some(key) => (key.to_vec(), after_says.day_column()?),
        None => (after_says.key()?, after_says.day_column()?),
    };
    let fault = |error: CompareError| StoredError::Compare { table: after.name.clone(), error };
    let by_day = day_column
        .filter(|column| key.contains(column) && before_says.day_column().ok().flatten().as_ref() == Some(column));
    let mut comparer = Comparer::new(key, examples);
    let Some(column) = by_day else {
        let all = |table: &StoredTable| read(table.days.values().flatten(), None);
        comparer.add(&all(before)?, &all(after)?).map_err(fault)?;
        return Ok(comparer.finish());
    };
    let days: BTreeSet<&String> = before.days.keys().chain(after.days.keys()).collect();
    for day in days {
        let sides = [before, after].map(|table| table.days.get(day).map_or(&[][..], Vec::as_slice));
        let mut hours = BTreeSet::new();
        for files in sides {
            let (rows, found) = extent(files, &column)?;
            if rows > whole_day {
                hours.extend(found);
            }
        }
        if hours.is_empty() {
            comparer.add(&read(sides[0], None)?, &read(sides[1], None)?).map_err(fault)?;
            continue;
        }
        // Hours of both sides: what the smaller one has outside the greater one's is looked at too.
        for files in sides {
            hours.extend(extent(files, &column)?.1);
        }
        for hour in hours {
            let range = Some((column.as_str(), hour * NS_PER_HOUR, (hour + 1).saturating_mul(NS_PER_HOUR)));
            comparer.add(&read(sides[0], range)?, &read(sides[1], range)?).map_err(fault)?;
        }
    }
    Ok(comparer.finish())
}

impl StoredTable {
    /// The columns that tell rows apart.
    fn key(&self) -> Result<Vec<String>, StoredError> {
        let Some(newest) = self.newest() else { return Err(StoredError::NoKey(self.name.clone())) };
        let builder = open(newest)?;
        let entries = builder.metadata().file_metadata().key_value_metadata();
        let written = entries.and_then(|entries| entries.iter().find(|entry| entry.key == KEY)?.value.clone());
        if let Some(key) = written.and_then(|text| serde_json::from_str::<Vec<String>>(&text).ok()) {
            return Ok(key);
        }
        let has = |name: &str| builder.schema().index_of(name).is_ok();
        match has(TIME) && has(SEQ) {
            true => Ok(vec![TIME.to_owned(), SEQ.to_owned()]),
            false => Err(StoredError::NoKey(self.name.clone())),
        }
    }

    /// The column by whose days the files are sorted.
    fn day_column(&self) -> Result<Option<String>, StoredError> {
        let Some(newest) = self.newest() else { return Ok(None) };
        let schema: SchemaRef = open(newest)?.schema().clone();
        let first = DAY_COLUMNS.into_iter().find_map(|name| schema.field_with_name(name).ok());
        Ok(first.filter(|field| *field.data_type() == time_type()).map(|field| field.name().clone()))
    }

    fn newest(&self) -> Option<&PathBuf> {
        self.days.values().next_back()?.last()
    }
}

/// The entries of a directory by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoredError> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = list().map_err(|error| StoredError::Directory { path: dir.to_owned(), error })?;
    paths.sort();
    Ok(paths)
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, StoredError> {
    let fault = |error: ParquetError| StoredError::File { path: path.to_owned(), error };
    let file = File::open(path).map_err(|error| fault(error.into()))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(fault)
}

/// Rows of the files, and the hours since the epoch in which they have some.
fn extent(files: &[PathBuf], column: &str) -> Result<(u64, BTreeSet<i64>), StoredError> {
    let (mut rows, mut hours) = (0, BTreeSet::new());
    for path in files {
        let builder = open(path)?;
        for group in builder.metadata().row_groups() {
            rows += u64::try_from(group.num_rows()).unwrap_or(0);
            let (least, greatest) = bounds(group, column);
            // A file is of one day. Without statistics it may have rows in any of its hours; then the whole file is looked
            // at for its times.
            match least.zip(greatest).filter(|(least, greatest)| greatest.saturating_sub(*least) <= 48 * NS_PER_HOUR) {
                Some((least, greatest)) => {
                    hours.extend(least.div_euclid(NS_PER_HOUR)..=greatest.div_euclid(NS_PER_HOUR));
                }
                None => hours.extend(hours_of(path, column)?),
            }
        }
    }
    Ok((rows, hours))
}

fn hours_of(path: &Path, column: &str) -> Result<BTreeSet<i64>, StoredError> {
    let mut hours = BTreeSet::new();
    for batch in read([path.to_owned()].iter(), None)? {
        let times = batch.column_by_name(column).and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>());
        hours.extend(times.into_iter().flatten().flatten().map(|time| time.div_euclid(NS_PER_HOUR)));
    }
    Ok(hours)
}

/// The least and the greatest value of a column of times, as far as the file says.
fn bounds(group: &RowGroupMetaData, column: &str) -> (Option<i64>, Option<i64>) {
    let found = group.columns().iter().find(|chunk| chunk.column_path().string() == column);
    match found.and_then(|chunk| chunk.statistics()) {
        Some(Statistics::Int64(values)) => (values.min_opt().copied(), values.max_opt().copied()),
        _ => (None, None),
    }
}

/// The rows of files whose time in a column is from the first to before the second of two bounds in ns.
fn read<'a>(
    files: impl IntoIterator<Item = &'a PathBuf>,
    range: Option<(&str, i64, i64)>,
) -> Result<Vec<RecordBatch>, StoredError> {
    let mut batches = Vec::new();
    for path in files {
        let fault = |error: ParquetError| StoredError::File { path: path.clone(), error };
        let mut builder = open(path)?.with_batch_size(MAX_ROWS);
        if let Some((column, from, to)) = range {
            let outside = |group: &RowGroupMetaData| {
                let (least, greatest) = bounds(group, column);
                least.is_some_and(|least| least >= to) || greatest.is_some_and(|greatest| greatest < from)
            };
            let groups = builder.metadata().row_groups().iter().enumerate();
            let wanted: Vec<usize> = groups.filter(|(_, group)| !outside(group)).map(|(at, _)| at).collect();
            if wanted.is_empty() {
                continue;
            }
            builder = builder.with_row_groups(wanted);
        }
        for batch in builder.build().map_err(fault)? {
            let batch = batch.and_then(|batch| in_range(batch, range)).map_err(|error| fault(error.into()))?;
            if batch.num_rows() > 0 {
                batches.push(batch);
            }
        }
    }
    Ok(batches)
}

fn in_range(batch: RecordBatch, range: Option<(&str, i64, i64)>) -> Result<RecordBatch, ArrowError> {
    let Some((column, from, to)) = range else { return Ok(batch) };
    let times = batch.column_by_name(column).and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>());
    let Some(times) = times else { return Ok(batch.slice(0, 0)) };
    let mask: BooleanArray =
        times.iter().map(|time| Some(time.is_some_and(|time| (from..to).contains(&time)))).collect();
    match mask.true_count() == batch.num_rows() {
        true => Ok(batch),
        false => filter_record_batch(&batch, &mask),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, UInt64Array};
    use arrow::datatypes::{DataType, Field};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use spool::batch::{stream_schema, time_array};

    /// A file of rows (time in minutes, seq, value) in row groups of four rows.
    fn write(dir: &Path, day: &str, name: &str, key: Option<&str>, rows: &[(i64, u64, i64)]) {
        let dir = dir.join("t").join(day);
        fs::create_dir_all(&dir).expect("created");
        let columns: Vec<ArrayRef> = vec![
            time_array(rows.iter().map(|row| row.0 * 60_000_000_000).collect()),
            Arc::new(rows.iter().map(|row| Some(row.1)).collect::<UInt64Array>()),
            Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int64Array>()),
        ];
        let schema = stream_schema([Field::new("v", DataType::Int64, true)]);
        let batch = RecordBatch::try_new(schema.clone(), columns).expect("valid");
        let entry = key.map(|key| vec![KeyValue::new(KEY.to_owned(), key.to_owned())]);
        let properties =
            WriterProperties::builder().set_max_row_group_row_count(Some(4)).set_key_value_metadata(entry).build();
        let file = File::create(dir.join(name)).expect("created");
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
    }

    fn table(dir: &Path) -> StoredTable {
        tables(dir).expect("read").remove("t").expect("there")
    }

    /// Rows of a day, each in a minute of its own; every seventh has another value, the last ones are missing.
    fn rows(from: i64, count: i64, other: bool) -> Vec<(i64, u64, i64)> {
        let count = if other { count - 3 } else { count };
        (0..count).map(|n| (from + n * 7, n as u64, if other && n % 7 == 0 { -n - 1 } else { n })).collect()
    }

    #[test]
    fn pieces_find_what_the_whole_finds() {
        let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let day = 1440;
        write(a.path(), "1970-01-01", "1.parquet", None, &rows(0, 100, false));
        write(a.path(), "1970-01-01", "2.parquet", None, &[(1439, 500, 1)]);
        write(a.path(), "1970-01-01", ".3.parquet", None, &[(1439, 501, 1)]);
        write(a.path(), "1970-01-02", "3.parquet", None, &rows(day, 20, false));
        write(b.path(), "1970-01-01", "1.parquet", None, &rows(0, 100, true));
        write(b.path(), "1970-01-03", "3.parquet", None, &rows(2 * day, 5, false));
        let (a, b) = (table(a.path()), table(b.path()));
        let whole = compare_in_pieces(&a, &b, None, 1000, u64::MAX).expect("compared");
        // 97 rows left of 100, 14 of them with another value; the file of one row and a day of 20 are gone; 5 are new.
        assert_eq!((whole.before, whole.after), (121, 102));
        assert_eq!((whole.new, whole.gone, whole.changed), (5, 3 + 1 + 20, 14));
        assert_eq!(compare_in_pieces(&a, &b, None, 1000, 10).expect("compared"), whole);
        // Without the time in the key all is compared at once.
        let key = ["seq".to_owned()];
        let by_seq = compare_in_pieces(&a, &b, Some(&key), 0, 10).expect("compared");
        assert_eq!((by_seq.before, by_seq.after), (121, 102));
    }

    #[test]
    fn a_file_says_which_columns_tell_its_rows_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "1970-01-01", "1.parquet", Some("[\"time\",\"v\"]"), &[(1, 1, 1)]);
        assert_eq!(table(dir.path()).key().expect("known"), ["time", "v"]);
        write(dir.path(), "1970-01-01", "2.parquet", None, &[(1, 1, 1)]);
        assert_eq!(table(dir.path()).key().expect("known"), ["time", "seq"]);
        fs::write(dir.path().join("t/1970-01-01/3.parquet"), "no Parquet").expect("written");
        assert!(matches!(table(dir.path()).key(), Err(StoredError::File { .. })));
        assert!(matches!(tables(&dir.path().join("nowhere")), Err(StoredError::Directory { .. })));
    }
}

//! The files of one table. A file is there as a whole or not at all: it is written under another name, made durable,
//! and then renamed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat, interleave_record_batch, lexsort_to_indices, max};
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use compare::stored::KEY;
use engine::batch::{MAX_ROWS, Time};
use engine::contract::NodeMetrics;
use engine::contract::Segment;
use engine::files;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::columns::unread;
use super::retention::Retention;
use crate::value::Format;

const NS_PER_DAY: i64 = 86_400_000_000_000;
const ROW_GROUP: usize = 64 * 1024;
const ZSTD_LEVEL: i32 = 3;

/// Where and how a table's files are written.
pub(super) struct Store {
    /// The table's directory.
    pub dir: PathBuf,
    /// Columns of every file.
    pub schema: SchemaRef,
    /// Columns by which rows are sorted; the first is the time whose day a file is for.
    pub order: Vec<usize>,
    /// Columns that tell rows apart, which each file names.
    pub key: Vec<String>,
    /// Which run a file is of.
    pub lineage: String,
    /// The most rows of a file.
    pub max_rows: usize,
    /// How much is kept.
    pub retention: Retention,
}

/// What was found at the start.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Files of earlier runs, by path.
    pub segments: Vec<Segment>,
    /// Files that are left alone, each with the reason.
    pub skipped: Vec<String>,
    /// Columns of files that are null in the table, each with the reason.
    pub unread: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// For each row in order its batch and position there, and the day since the epoch.
type Sorted = (Vec<(usize, usize)>, Vec<i64>);

impl Store {
    /// Removes what a run that was cut off left unfinished, and lists what is complete. With `rebuild` the files of this
    /// lineage are removed too.
    ///
    /// # Errors
    /// If a directory cannot be made or read, or a file not removed; the message names it.
    pub fn open(&self, rebuild: bool) -> Result<Found, String> {
        let cannot =
            |what: &str, path: &Path, error: io::Error| format!("{} cannot be {what}: {error}", path.display());
        files::make_dirs(&self.dir).map_err(|error| cannot("created", &self.dir, error))?;
        let own = format!("-{}.parquet", self.lineage);
        let mut found = Found::default();
        let list = |dir: &Path| there(entries(dir)).map_err(|error| cannot("read", dir, error));
        for day in list(&self.dir)?.into_iter().filter(|path| path.is_dir()) {
            for path in list(&day)? {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if name.starts_with('.') && name.ends_with(".tmp") || rebuild && name.ends_with(&own) {
                    there(fs::remove_file(&path)).map_err(|error| cannot("removed", &path, error))?;
                } else if name.ends_with(".parquet") {
                    match self.check(&path) {
                        _ if !path.exists() => {}
                        Ok((segment, unread)) => {
                            let said = |reason: String| format!("{}: {reason}, and is null", path.display());
                            found.unread.extend(unread.into_iter().map(said));
                            found.segments.push(segment);
                        }
                        Err(reason) => found.skipped.push(format!("{} is left alone: {reason}", path.display())),
                    }
                }
            }
        }
        Ok(found)
    }

    /// Removes this lineage's files of ticks from `tick` on: they were not confirmed, and will be written again.
    ///
    /// # Errors
    /// If a directory cannot be read or a file not removed; the message names it.
    pub fn remove_from(&self, tick: Time) -> Result<(), String> {
        let own = format!("-{}.parquet", self.lineage);
        let days =
            there(entries(&self.dir)).map_err(|error| format!("{} cannot be read: {error}", self.dir.display()))?;
        for day in days.into_iter().filter(|path| path.is_dir()) {
            for path in there(entries(&day)).map_err(|error| format!("{} cannot be read: {error}", day.display()))? {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let first = name.strip_suffix(&own).and_then(|rest| rest.split('-').next()?.parse::<Time>().ok());
                if first.is_some_and(|first| first >= tick) {
                    there(fs::remove_file(&path))
                        .map_err(|error| format!("{} cannot be removed: {error}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// A file that is a part of the table, and why columns of it are not read.
    ///
    /// # Errors
    /// Why it is none.
    pub fn check(&self, path: &Path) -> Result<(Segment, Vec<String>), String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let bytes = file.metadata().map_err(|error| error.to_string())?.len();
        let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| error.to_string())?;
        let told_apart = self.key.iter().filter_map(|name| self.schema.index_of(name).ok());
        let unread = unread(footer.schema(), &self.schema, self.order.iter().copied().chain(told_apart))?;
        let entries = footer.metadata().file_metadata().key_value_metadata();
        let key = entries.and_then(|entries| entries.iter().find(|entry| entry.key == KEY)?.value.as_deref());
        // Of groups by other columns each row of today would be there several times.
        let key = key.and_then(|key| serde_json::from_str::<Vec<String>>(key).ok());
        let sorted = |key: &[String]| {
            let mut key = key.to_vec();
            key.sort_unstable();
            key
        };
        if let Some(key) = key.filter(|key| sorted(key) != sorted(&self.key)) {
            return Err(format!("its rows are told apart by {}, not by {}", key.join(", "), self.key.join(", ")));
        }
        let rows = u64::try_from(footer.metadata().file_metadata().num_rows()).map_err(|error| error.to_string())?;
        let mut segment = Segment::new(path.to_owned(), rows, bytes);
        let reasons;
        (segment.unread, reasons) = unread.into_iter().unzip();
        Ok((segment, reasons))
    }

    /// Writes rows: a file for each day, or several if they are too many for one.
    ///
    /// # Errors
    /// If a file cannot be written; the message names it. Files written before stay.
    pub fn write(&self, first: Time, batches: &[RecordBatch]) -> Result<Vec<Segment>, String> {
        let in_dir = |error: WriteError| format!("{} cannot be written: {error}", self.dir.display());
        let (places, days) = self.sorted(batches).map_err(|error| in_dir(error.into()))?;
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let mut segments = Vec::new();
        let mut start = 0;
        for of_day in days.chunk_by(|a, b| a == b) {
            let mut format = Format::default();
            let mut day = Vec::new();
            format.date(&mut day, of_day[0]);
            let dir = self.dir.join(String::from_utf8_lossy(&day).as_ref());
            for (part, places) in places[start..start + of_day.len()].chunks(self.max_rows.max(1)).enumerate() {
                let name = format!("{first:013}-{part}-{}.parquet", self.lineage);
                let path = dir.join(&name);
                let temporary = dir.join(format!(".{name}.tmp"));
                let written = self.write_file(&dir, &temporary, &path, &batches, places);
                let bytes = written.map_err(|error| {
                    // What is left of it would be removed at the next start.
                    let _ = fs::remove_file(&temporary);
                    format!("{} cannot be written: {error}", path.display())
                })?;
                segments.push(Segment::new(path, places.len() as u64, bytes));
            }
            start += of_day.len();
        }
        Ok(segments)
    }

    /// The latest time of rows, in ms since the epoch.
    pub fn newest(&self, batches: &[RecordBatch]) -> Time {
        let Some(time) = self.order.first() else { return 0 };
        let times =
            batches.iter().filter_map(|batch| batch.column(*time).as_primitive_opt::<TimestampNanosecondType>());
        let newest = times.filter_map(max).max().unwrap_or(0);
        Time::try_from(newest / 1_000_000).unwrap_or(0)
    }

    fn write_file(
        &self,
        dir: &Path,
        temporary: &Path,
        path: &Path,
        batches: &[&RecordBatch],
        places: &[(usize, usize)],
    ) -> Result<u64, WriteError> {
        if !dir.is_dir() {
            files::make_dirs(dir)?;
            sync_dir(&self.dir)?;
        }
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .set_key_value_metadata(Some(vec![KeyValue::new(KEY.to_owned(), serde_json::json!(self.key).to_string())]))
            .build();
        let mut writer = ArrowWriter::try_new(files::create(temporary)?, self.schema.clone(), Some(properties))?;
        // Gathered piece by piece: the rows are never in memory twice.
        for places in places.chunks(MAX_ROWS) {
            writer.write(&interleave_record_batch(batches, places)?)?;
        }
        let file = writer.into_inner()?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        fs::rename(temporary, path)?;
        sync_dir(dir)?;
        Ok(bytes)
    }

    /// For each row in order its batch and position there, and the day since the epoch.
    fn sorted(&self, batches: &[RecordBatch]) -> Result<Sorted, ArrowError> {
        let column = |at: &usize| {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(*at).as_ref()).collect();
            concat(&parts)
        };
        let columns: Vec<ArrayRef> = self.order.iter().map(column).collect::<Result<_, _>>()?;
        let sorted: Vec<SortColumn> = columns.iter().map(|c| SortColumn { values: c.clone(), options: None }).collect();
        let order: UInt32Array = lexsort_to_indices(&sorted, None)?;
        let mut at = Vec::with_capacity(order.len());
        for (nth, batch) in batches.iter().enumerate() {
            at.extend((0..batch.num_rows()).map(|row| (nth, row)));
        }
        let times = columns.first().and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>());
        let times = times.ok_or_else(|| ArrowError::SchemaError("the table has no time".to_owned()))?;
        let day = |row: usize| if times.is_null(row) { 0 } else { times.value(row).div_euclid(NS_PER_DAY) };
        let rows = || order.values().iter().map(|row| *row as usize);
        Ok((rows().map(|row| at[row]).collect(), rows().map(day).collect()))
    }
}

impl Found {
    /// Says which columns of files are null in a table.
    pub fn report_unread(&self, table: &str, metrics: &NodeMetrics) {
        let trouble = self.unread.first().map(|first| {
            let (columns, files) =
                (self.unread.len(), self.segments.iter().filter(|one| !one.unread.is_empty()).count());
            format!(
                "columns of another type are null in rows of earlier files: {columns} in {files} files, such as {first}"
            )
        });
        if let Some(trouble) = &trouble {
            NodeMetrics::add(&metrics.counter("unread_columns"), self.unread.len());
            tracing::warn!(table, "{trouble}");
        }
        metrics.set_trouble(&format!("{table} columns"), trouble);
    }
}

/// The entries of a directory by name.
pub(super) fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// What somebody else has removed meanwhile, such as a job for old files, is not there: no error.
pub(super) fn there<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        result => result,
    }
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

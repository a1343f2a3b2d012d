//! The tables that runs have left, for programs that read them without a run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use compare::stored::KEY;
use engine::batch::{EdgeClass, EdgeType, SEQ, TIME};
use engine::contract::Table;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::WINDOW_START;
use super::retention::Retention;
use super::store::{Store, entries, there};

/// What lies beneath a `data_dir`.
#[derive(Debug, Default)]
pub struct Stored {
    /// The tables, by name.
    pub tables: Vec<Arc<Table>>,
    /// Files and columns that are left out, each with the reason.
    pub left_out: Vec<String>,
}

/// The tables that `sink.parquet` has left beneath a `data_dir`, with the columns of their newest files. Nothing is written or
/// removed: a run may go on there.
///
/// # Errors
/// If a directory cannot be read; the message names it.
pub fn stored(data_dir: &Path) -> Result<Stored, String> {
    let list = |dir: &Path| entries(dir).map_err(|error| format!("{} cannot be read: {error}", dir.display()));
    let mut stored = Stored::default();
    for dir in list(data_dir)?.into_iter().filter(|path| path.is_dir()) {
        let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { continue };
        let mut files = Vec::new();
        for day in list(&dir)?.into_iter().filter(|path| path.is_dir()) {
            // What a run removes meanwhile is not there.
            let of_day = there(entries(&day)).map_err(|error| format!("{} cannot be read: {error}", day.display()))?;
            files.extend(of_day.into_iter().filter(|path| is_complete(path)));
        }
        if let Some(table) = table(name, &dir, &files, &mut stored.left_out) {
            stored.tables.push(table);
        }
    }
    Ok(stored)
}

/// A name with a dot in front is a file that is not complete.
fn is_complete(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".parquet") && !name.starts_with('.')
}

/// The table of these files, the oldest first.
fn table(name: &str, dir: &Path, files: &[PathBuf], left_out: &mut Vec<String>) -> Option<Arc<Table>> {
    // The columns are those of the newest that can be read; what is wrong with later ones is said below.
    let (schema, key) = files.iter().rev().find_map(|path| columns(path))?;
    let time = [TIME, WINDOW_START].into_iter().find_map(|name| schema.index_of(name).ok());
    let Some(time) = time else {
        left_out.push(format!("{} is left out: its rows have no time", dir.display()));
        return None;
    };
    let store = Store {
        dir: dir.to_owned(),
        schema: Arc::clone(&schema),
        order: vec![time],
        key: key.clone(),
        lineage: String::new(),
        max_rows: 1,
        retention: Retention::default(),
    };
    let mut segments = Vec::new();
    for path in files {
        match store.check(path) {
            Ok((segment, unread)) => {
                let said = |reason: String| format!("{}: {reason}, and is null", path.display());
                segments.push(segment);
                left_out.extend(unread.into_iter().map(said));
            }
            Err(reason) => left_out.push(format!("{} is left out: {reason}", path.display())),
        }
    }
    let is_stream = key.iter().all(|name| name == TIME || name == SEQ);
    let class = if is_stream { EdgeClass::Stream } else { EdgeClass::Relation { key } };
    let table = Table::new(name, &EdgeType { schema, class }, 1);
    table.adopt(segments);
    Some(Arc::new(table))
}

/// The columns of a file, and those that tell its rows apart.
fn columns(path: &Path) -> Option<(SchemaRef, Vec<String>)> {
    let footer = ArrowReaderMetadata::load(&File::open(path).ok()?, ArrowReaderOptions::new()).ok()?;
    let entries = footer.metadata().file_metadata().key_value_metadata();
    let key = entries.and_then(|entries| entries.iter().find(|entry| entry.key == KEY)?.value.as_deref());
    let key = key.and_then(|key| serde_json::from_str(key).ok()).unwrap_or_default();
    Some((Arc::new(Schema::new(footer.schema().fields().clone())), key))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
    use arrow::datatypes::{DataType, Field};
    use engine::batch::{stream_schema, time_array};

    use super::*;

    fn rows(host: Option<&str>) -> RecordBatch {
        let added = host.map(|_| Field::new("host", DataType::Utf8, true));
        let mut columns: Vec<ArrayRef> =
            vec![time_array(vec![86_400_000_000_000]), Arc::new(UInt64Array::from(vec![1]))];
        columns.extend(host.map(|host| Arc::new(StringArray::from(vec![host])) as ArrayRef));
        RecordBatch::try_new(stream_schema(added), columns).expect("valid")
    }

    fn write(dir: &Path, first: u64, rows: RecordBatch) {
        let store = Store {
            dir: dir.to_owned(),
            schema: rows.schema(),
            order: vec![0, 1],
            key: vec![TIME.to_owned(), SEQ.to_owned()],
            lineage: "x".to_owned(),
            max_rows: 10,
            retention: Retention::default(),
        };
        store.open(false).expect("opens");
        store.write(first, &[rows]).expect("written");
    }

    #[test]
    fn tables_have_the_columns_of_their_newest_file() {
        let dir = tempfile::tempdir().expect("a directory");
        write(&dir.path().join("requests"), 1, rows(None));
        write(&dir.path().join("requests"), 2, rows(Some("a")));
        let day = dir.path().join("requests/1970-01-02");
        fs::write(day.join("3-0-x.parquet"), "no Parquet").expect("written");
        fs::write(day.join(".4-0-x.parquet.tmp"), "not complete").expect("written");
        fs::create_dir_all(dir.path().join("spool/requests")).expect("made");
        let stored = stored(dir.path()).expect("readable");
        let [table] = &stored.tables[..] else { panic!("{:?}", stored.tables) };
        assert_eq!((table.name.as_str(), table.key.len(), table.schema.fields().len()), ("requests", 0, 3));
        assert_eq!(table.snapshot().segments.iter().map(|segment| segment.rows).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(stored.left_out.len(), 1, "{:?}", stored.left_out);
        assert!(stored.left_out[0].contains("3-0-x.parquet is left out"));
        assert!(day.join(".4-0-x.parquet.tmp").exists(), "a run may be writing it");
        assert!(super::stored(&dir.path().join("none")).is_err());
    }
}

//! What has been stored, for commands that look back: the tables of a running engine, asked over HTTP, or the Parquet files
//! beneath a `data_dir`, read in this process. Both are asked in SQL.

mod http;
pub mod roles;
pub mod sql;
pub mod text;

use std::cell::RefCell;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use arrow::ipc::reader::StreamReader;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use dashboards::{Limits, Reader};
use engine::catalog::Catalog;
use serde::Deserialize;
use serde_json::Value;

use http::Service;

/// A row: names of columns and their values.
pub type Row = serde_json::Map<String, Value>;

/// Where rows come from.
#[derive(Clone, Debug, clap::Args)]
pub struct Origin {
    /// Address of the web service of a running pipeline
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", conflicts_with = "data")]
    url: String,
    /// Read what `sink.parquet` has stored beneath this `data_dir`, without a running engine
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A file whose first line is the token that the web service, or a proxy before it, asks for (Authorization: Bearer);
    /// JA4_ENGINE_TOKEN is read otherwise. The service speaks plain HTTP: across a network use a tunnel
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    token_file: Option<PathBuf>,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Table {
    /// Its name in SQL.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    #[serde(default)]
    hot_rows: u64,
    #[serde(default)]
    stored_rows: u64,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as Arrow names it.
    #[serde(rename = "type")]
    pub ty: String,
}

impl Table {
    /// Whether it has a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
    }

    /// Rows that are known to be there.
    pub fn rows(&self) -> u64 {
        self.hot_rows.saturating_add(self.stored_rows)
    }
}

/// The rows of a query.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The rows, as columns.
    pub batches: Vec<RecordBatch>,
    /// The query has more rows than these.
    pub truncated: bool,
}

impl Answer {
    /// The rows one by one.
    ///
    /// # Errors
    /// If a column has no text.
    pub fn rows(&self) -> Result<Vec<Row>, String> {
        let fault = |error: &dyn std::fmt::Display| format!("rows cannot be shown: {error}");
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        for batch in &self.batches {
            writer.write(batch).map_err(|error| fault(&error))?;
        }
        writer.finish().map_err(|error| fault(&error))?;
        let lines = writer.into_inner();
        let rows = serde_json::Deserializer::from_slice(&lines).into_iter::<Row>();
        let mut rows = rows.collect::<Result<Vec<_>, _>>().map_err(|error| fault(&error))?;
        self.exact(&mut rows);
        Ok(rows)
    }

    /// Puts floating-point numbers into rows as they are: what is read of their text may be the number next to it.
    fn exact(&self, rows: &mut [Row]) {
        let mut rows = rows.iter_mut();
        for batch in &self.batches {
            let numbers: Vec<_> = batch
                .schema()
                .fields()
                .iter()
                .zip(batch.columns())
                .filter_map(|(field, column)| {
                    Some((field.name().clone(), column.as_primitive_opt::<Float64Type>()?.clone()))
                })
                .collect();
            for (at, row) in rows.by_ref().take(batch.num_rows()).enumerate() {
                for (name, column) in numbers.iter().filter(|(_, column)| column.is_valid(at)) {
                    row.insert(name.clone(), Value::from(column.value(at)));
                }
            }
        }
    }

    /// The number in the only row and column, such as of `count(*)`; 0 if there is none.
    ///
    /// # Errors
    /// If the rows cannot be shown.
    pub fn number(&self) -> Result<u64, String> {
        Ok(self.rows()?.first().and_then(|row| row.values().next()?.as_u64()).unwrap_or(0))
    }
}

/// The stored rows, which can be asked in SQL.
#[derive(Debug)]
pub struct History {
    place: Place,
    /// Where it is, for people.
    pub origin: String,
    /// The tables.
    pub tables: Vec<Table>,
    /// The name of the pipeline, where it is known.
    pub pipeline: Option<String>,
    /// What is left out, and why.
    pub notes: Vec<String>,
    asked: RefCell<Vec<String>>,
}

#[derive(Debug)]
enum Place {
    Service(Service),
    Files(Box<Reader>),
}

/// Bounds on a query over files. The one who asks has the machine, so they are wider than those of the web service.
fn limits() -> Limits {
    Limits {
        max_rows: 1_000_000,
        max_bytes: 1 << 30,
        timeout: Duration::from_secs(600),
        memory: 1 << 30,
        max_sql_bytes: 1 << 20,
        ..Limits::default()
    }
}

impl History {
    /// Looks which tables there are.
    ///
    /// # Errors
    /// If the service does not answer, or the directory cannot be read.
    pub fn open(from: &Origin) -> Result<Self, String> {
        match &from.data {
            Some(dir) => Self::files(dir),
            None => Self::service(from),
        }
    }

    fn service(from: &Origin) -> Result<Self, String> {
        let service = Service::new(&from.url, from.token_file.as_deref())?;
        let tables = service.get("/tables")?;
        let not_understood = |error| format!("the answer of {} is not understood: {error}", from.url);
        let tables: Vec<Table> = serde_json::from_slice(&tables).map_err(not_understood)?;
        let status: Value = serde_json::from_slice(&service.get("/status")?).map_err(not_understood)?;
        Ok(Self {
            place: Place::Service(service),
            origin: from.url.clone(),
            tables,
            pipeline: status["pipeline"].as_str().map(str::to_owned),
            notes: Vec::new(),
            asked: RefCell::default(),
        })
    }

    fn files(dir: &std::path::Path) -> Result<Self, String> {
        let stored = operators::sink::parquet::stored(dir)?;
        let tables = stored.tables.iter().map(|table| Table {
            name: table.name.clone(),
            columns: table
                .schema
                .fields()
                .iter()
                .map(|field| Column { name: field.name().clone(), ty: field.data_type().to_string() })
                .collect(),
            hot_rows: 0,
            stored_rows: table.snapshot().segments.iter().map(|segment| segment.rows).sum(),
        });
        let tables: Vec<Table> = tables.collect();
        if tables.is_empty() {
            return Err(format!("{} has no tables: `sink.parquet` of a pipeline makes them", dir.display()));
        }
        let reader = Reader::new(Arc::new(Catalog::new(stored.tables)), limits());
        Ok(Self {
            place: Place::Files(Box::new(reader.map_err(|error| format!("no threads for queries: {error}"))?)),
            origin: dir.display().to_string(),
            tables,
            pipeline: None,
            notes: stored.left_out,
            asked: RefCell::default(),
        })
    }

    /// The rows of a statement.
    ///
    /// # Errors
    /// What is wrong with it, or with the answer.
    pub fn ask(&self, sql: &str) -> Result<Answer, String> {
        self.asked.borrow_mut().push(sql.to_owned());
        let (arrow, truncated) = match &self.place {
            Place::Service(service) => service.sql(sql)?,
            Place::Files(reader) => {
                let rows = reader.ask(sql)?;
                (rows.arrow, rows.truncated)
            }
        };
        let not_understood = |error: arrow::error::ArrowError| format!("an answer is not understood: {error}");
        let reader = StreamReader::try_new(Cursor::new(arrow), None).map_err(not_understood)?;
        let batches = reader.collect::<Result<_, _>>().map_err(not_understood)?;
        Ok(Answer { batches, truncated })
    }

    /// Everything that was asked so far, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    /// The names of all tables, for messages.
    pub fn table_names(&self) -> String {
        let names: Vec<&str> = self.tables.iter().map(|table| table.name.as_str()).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn rows_have_the_very_numbers() {
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from(vec![i64::MAX, 1]))),
            ("x", Arc::new(Float64Array::from(vec![Some(0.057656958677685964), None]))),
            ("t", Arc::new(StringArray::from(vec!["a\n", "b"]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("valid");
        let answer = Answer { batches: vec![batch.clone(), batch], truncated: false };
        let rows = answer.rows().expect("rows");
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[2]["x"].as_f64(), Some(0.057656958677685964));
        assert_eq!((&rows[0]["n"], &rows[0]["t"], &rows[3]["x"]), (&i64::MAX.into(), &"a\n".into(), &Value::Null));
        assert_eq!(answer.number(), Ok(i64::MAX as u64));
    }
}

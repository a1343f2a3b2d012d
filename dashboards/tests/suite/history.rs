//! Rows in memory and rows that another place is asked for, read as one table.

use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::json::ArrayWriter;
use dashboards::{Limits, Reader};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::prelude::Expr;
use engine::batch::Batch;
use engine::catalog::{Catalog, History, HistoryError, Table, Wanted};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::common::{rows, schema, table};

/// A place with rows `0..400` that applies conditions on `seq`, all of which must be `seq >= 300` here.
#[derive(Debug, Default)]
struct Place {
    asked: Mutex<Vec<Wanted>>,
    down: Mutex<bool>,
}

#[derive(Debug)]
struct Shared(Arc<Place>);

impl History for Shared {
    fn supports(&self, filter: &Expr) -> bool {
        filter.to_string().contains("seq")
    }

    fn describe(&self) -> Value {
        Value::Null
    }

    fn read(&self, wanted: Wanted) -> SendableRecordBatchStream {
        self.0.asked.lock().push(wanted.clone());
        let projected: SchemaRef = Arc::new(schema().project(&wanted.columns).expect("columns"));
        let mut builder = RecordBatchReceiverStream::builder(projected, 1);
        let (out, down) = (builder.tx(), *self.0.down.lock());
        builder.spawn(async move {
            let from = if wanted.filters.is_empty() { 0 } else { 300 };
            let batch = rows(from, 400).project(&wanted.columns)?;
            // Half of it comes in any case.
            let half = batch.num_rows() / 2;
            let _ = out.send(Ok(batch.slice(0, half))).await;
            if down {
                return Err(DataFusionError::External(Box::new(HistoryError("the place is away".to_owned()))));
            }
            let _ = out.send(Ok(batch.slice(half, batch.num_rows() - half))).await;
            Ok(())
        });
        builder.build()
    }
}

fn reader(tables: Vec<Arc<Table>>) -> Reader {
    Reader::new(Arc::new(Catalog::new(tables)), Limits::default()).expect("threads")
}

/// The rows of a query that must succeed.
fn query(reader: &Reader, sql: &str) -> Vec<Value> {
    let answer = reader.ask(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut writer = ArrayWriter::new(Vec::new());
    for batch in StreamReader::try_new(Cursor::new(answer.arrow), None).expect("a stream") {
        writer.write(&batch.expect("a batch")).expect("written");
    }
    writer.finish().expect("written");
    serde_json::from_slice(&writer.into_inner()).expect("an array")
}

/// Rows `300..500` are in memory, of message times 3 and 4; those before 4 are in the place too.
fn both() -> (Reader, Arc<Table>, Arc<Place>) {
    let (requests, place) = (table("requests"), Arc::new(Place::default()));
    requests.set_history(Arc::new(Shared(Arc::clone(&place))));
    for time in 3..5 {
        requests.push(time, &Batch::new(rows(time * 100, time * 100 + 100))).expect("push");
    }
    (reader(vec![Arc::clone(&requests), table("plain")]), requests, place)
}

#[test]
fn a_row_is_read_from_one_of_the_two() {
    let (reader, requests, place) = both();
    let all = "SELECT count(*) AS n, count(DISTINCT seq) AS d FROM requests";
    let error = reader.ask(all).expect_err("not all rows");
    assert!(error.contains("not known yet which rows of requests are stored"), "{error}");
    requests.commit([], 4);
    assert_eq!(query(&reader, all), [json!({"n": 500, "d": 500})]);
    assert_eq!(place.asked.lock()[0].before, 4);
    assert_eq!(query(&reader, "SELECT count(*) AS n FROM hot.requests"), [json!({"n": 100})]);
    assert_eq!(query(&reader, "SELECT count(*) AS n FROM requests"), [json!({"n": 500})]);
    let twice = "SELECT count(*) AS n FROM requests a JOIN requests b ON a.seq = b.seq";
    assert_eq!(query(&reader, twice), [json!({"n": 500})]);
    assert!(reader.ask("SELECT * FROM hot.plain").is_err(), "it has no other place");
}

#[test]
fn columns_conditions_and_limits_are_handed_on() {
    let (reader, requests, place) = both();
    requests.commit([], 4);
    let found = query(&reader, "SELECT path FROM requests WHERE seq >= 300 AND path <> '/p/301' ORDER BY path");
    assert_eq!(found.len(), 199);
    {
        let asked = place.asked.lock();
        assert_eq!(asked[0].columns, [3]);
        assert_eq!(asked[0].filters.iter().map(ToString::to_string).collect::<Vec<_>>(), ["seq >= UInt64(300)"]);
        assert_eq!(asked[0].limit, None);
    }
    // More than the hundred rows of memory: else a query may have all it wants before it asks the place.
    assert_eq!(query(&reader, "SELECT host FROM requests WHERE seq >= 300 LIMIT 150").len(), 150);
    let asked = place.asked.lock();
    assert_eq!((asked[1].limit, asked[1].columns.as_slice()), (Some(150), [2].as_slice()));
    assert_eq!(asked[1].timeout, Limits::default().timeout);
}

#[test]
fn an_answer_for_a_part_of_the_rows_is_not_given() {
    let (reader, requests, place) = both();
    requests.commit([], 4);
    *place.down.lock() = true;
    let error = reader.ask("SELECT seq FROM requests").expect_err("not all rows");
    assert!(error.contains("the place is away") && error.contains("hot."), "{error}");
    assert_eq!(query(&reader, "SELECT count(*) AS n FROM hot.requests"), [json!({"n": 100})]);
}

#[test]
fn rows_that_are_nowhere_yet_are_said_to_be_missing() {
    let requests = Arc::new(Table::new("requests", &engine::batch::EdgeType::stream(schema()), 150));
    let place = Arc::new(Place::default());
    requests.set_history(Arc::new(Shared(Arc::clone(&place))));
    requests.commit([], 2);
    for time in 2..6 {
        requests.push(time, &Batch::new(rows(time * 100, time * 100 + 100))).expect("push");
    }
    let reader = reader(vec![Arc::clone(&requests)]);
    let error = reader.ask("SELECT seq FROM requests").expect_err("not all rows");
    assert!(error.contains("on their way to the store"), "{error}");
    requests.commit([], 6);
    assert!(reader.ask("SELECT seq FROM requests").is_ok());
}

#[test]
fn a_table_is_kept_by_one_node() {
    let requests = table("requests");
    assert_eq!((requests.keep("a"), requests.keep("a")), (Ok(()), Ok(())));
    assert!(requests.keep("b").expect_err("refused").contains("what a stores"));
}

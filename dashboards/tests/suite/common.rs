//! A small service and ways to ask it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use dashboards::{Limits, Program, Service, State, Status, app};
use datafusion::parquet::arrow::ArrowWriter;
use engine::batch::{Batch, EdgeType, stream_schema, time_array};
use engine::catalog::{Catalog, Segment, Table};
use engine::metrics::Metrics;
use serde_json::Value;
use tower::ServiceExt;

/// 2026-03-01T00:00:00Z in nanoseconds.
pub const START: i64 = 1_772_323_200_000_000_000;

pub fn schema() -> SchemaRef {
    stream_schema([
        Field::new("host", DataType::Utf8, true),
        Field::new("path", DataType::Utf8, true),
        Field::new("score", DataType::Float64, true),
    ])
}

/// Rows `from..to`, a second apart; the path names the row.
pub fn rows(from: u64, to: u64) -> RecordBatch {
    let seq: Vec<u64> = (from..to).collect();
    let columns: Vec<ArrayRef> = vec![
        time_array(seq.iter().map(|n| START + *n as i64 * 1_000_000_000).collect()),
        Arc::new(UInt64Array::from(seq.clone())),
        Arc::new(StringArray::from_iter(seq.iter().map(|n| (n % 7 != 0).then(|| format!("h{}.example", n % 3))))),
        Arc::new(StringArray::from_iter_values(seq.iter().map(|n| format!("/p/{n}")))),
        Arc::new(Float64Array::from_iter(seq.iter().map(|n| (n % 5 != 0).then_some(*n as f64 / 4.0)))),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns fit the schema")
}

pub fn segment(directory: &Path, name: &str, batch: &RecordBatch) -> Segment {
    let path = directory.join(name);
    let mut writer = ArrowWriter::try_new(File::create(&path).expect("file"), batch.schema(), None).expect("writer");
    writer.write(batch).expect("write");
    writer.close().expect("close");
    let bytes = std::fs::metadata(&path).expect("metadata").len();
    Segment::new(path, batch.num_rows() as u64, bytes)
}

pub fn table(name: &str) -> Arc<Table> {
    Arc::new(Table::new(name, &EdgeType::stream(schema()), 1_000_000))
}

pub fn service(tables: Vec<Arc<Table>>, limits: Limits) -> Service {
    let status = Arc::new(Status::new());
    status.set(State::Running);
    let metrics = Arc::new(Metrics::default());
    metrics.node("packets", "source.pcap");
    Service {
        hosts: vec!["dash.example.test".to_owned()],
        catalog: Arc::new(Catalog::new(tables)),
        metrics,
        status,
        limits,
        name: "test".to_owned(),
        reloads: Arc::default(),
        intakes: Arc::default(),
        program: program(""),
    }
}

/// A service with a table `requests` of `count` hot rows.
pub fn with_rows(count: u64, limits: Limits) -> Router {
    let requests = table("requests");
    requests.push(1, &Batch::new(rows(0, count))).expect("push");
    app(service(vec![requests, table("detections")], limits)).expect("app")
}

/// A query process; the mark tells those of one test from those of another.
fn program(mark: &str) -> Program {
    Program { path: env!("CARGO_BIN_EXE_query-process").into(), arguments: vec![mark.into()] }
}

/// A service of `count` rows whose query processes have this mark.
pub fn marked(mark: &str, count: u64, limits: Limits) -> Router {
    let requests = table("requests");
    requests.push(1, &Batch::new(rows(0, count))).expect("push");
    app(Service { program: program(mark), ..service(vec![requests], limits) }).expect("app")
}

/// A service of these tables.
pub fn app_of(tables: Vec<Arc<Table>>, limits: Limits) -> Router {
    app(service(tables, limits)).expect("app")
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("ascii"))
    }
}

pub async fn send(app: &Router, mut request: Request<Body>) -> Reply {
    request.headers_mut().entry("host").or_insert(HeaderValue::from_static("localhost"));
    let response = app.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("body").to_vec();
    Reply { status: parts.status, headers: parts.headers, body }
}

pub async fn get(app: &Router, path: &str) -> Reply {
    send(app, Request::get(path).body(Body::empty()).expect("request")).await
}

pub async fn post(app: &Router, accept: &str, sql: &str) -> Reply {
    post_to(app, "/sql", accept, sql).await
}

pub async fn post_to(app: &Router, address: &str, accept: &str, sql: &str) -> Reply {
    send(app, Request::post(address).header("accept", accept).body(Body::from(sql.to_owned())).expect("request")).await
}

/// The rows of a query that must succeed.
pub async fn query(app: &Router, sql: &str) -> Vec<Value> {
    let reply = post(app, "application/json", sql).await;
    assert_eq!(reply.status, StatusCode::OK, "{sql}: {}", reply.text());
    reply.json()["rows"].as_array().expect("rows").clone()
}

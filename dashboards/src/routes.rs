//! The routes that answer with data.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use engine::catalog::Table;
use engine::contract::Intakes;
use engine::reload::Done;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::assets::SECURITY_HEADERS;
use crate::error::Error;
use crate::http_metrics::HttpMetrics;
use crate::panels::Panels;
use crate::process::Pool;
use crate::status::State as RunState;
use crate::{Limits, Service, origin};

/// Documents for intakes that are taken at the same time: each waits for the disk on a thread.
const AT_ONCE: usize = 8;

/// What the routes share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Service,
    queries: Pool,
    panels: Panels,
    /// The page's own queries have a process for themselves.
    own: Pool,
    http: HttpMetrics,
    /// Of documents that are being taken.
    places: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(service: Service) -> io::Result<Self> {
        let (catalog, limits) = (Arc::clone(&service.catalog), service.limits.clone());
        let processes = limits.processes;
        let own = Pool::new("panels", Arc::clone(&catalog), limits.clone(), 1, service.program.clone())?;
        let queries = Pool::new("sql", catalog, limits, processes, service.program.clone())?;
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Self(Arc::new(Inner {
            service,
            queries,
            panels: Panels::embedded(),
            own,
            http: HttpMetrics::default(),
            places,
        })))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.service.limits
    }

    pub(crate) fn http(&self) -> &HttpMetrics {
        &self.0.http
    }

    /// For whoever asks.
    pub(crate) fn queries(&self) -> &Pool {
        &self.0.queries
    }

    pub(crate) fn panels(&self) -> &Panels {
        &self.0.panels
    }

    /// For named queries.
    pub(crate) fn own(&self) -> &Pool {
        &self.0.own
    }

    pub(crate) fn intakes(&self) -> &Intakes {
        &self.0.service.intakes
    }

    pub(crate) fn places(&self) -> &Arc<Semaphore> {
        &self.0.places
    }
}

/// Counts every request, refuses what is not meant for this service, and adds the headers that every answer has.
pub(crate) async fn observe(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    shared.0.http.requests.fetch_add(1, Relaxed);
    let mut response = match origin::check(&request, &shared.0.service.hosts) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[derive(Serialize)]
struct TableInfo {
    name: String,
    columns: Vec<ColumnInfo>,
    key: Vec<String>,
    hot_rows: usize,
    stored_rows: u64,
    segments: usize,
    stored_bytes: u64,
    missing_segments: usize,
    missing_rows: u64,
    forgotten_rows: u64,
}

#[derive(Serialize)]
struct ColumnInfo {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    nullable: bool,
}

/// `GET /tables`
pub(crate) async fn tables(State(shared): State<Shared>) -> impl IntoResponse {
    Json(shared.0.service.catalog.tables().iter().map(|table| table_info(table)).collect::<Vec<_>>())
}

fn table_info(table: &Table) -> TableInfo {
    let snapshot = table.snapshot();
    let column = |f: &Arc<arrow::datatypes::Field>| ColumnInfo {
        name: f.name().clone(),
        ty: f.data_type().to_string(),
        nullable: f.is_nullable(),
    };
    TableInfo {
        name: table.name.clone(),
        columns: table.schema.fields().iter().map(column).collect(),
        key: table.key.clone(),
        hot_rows: snapshot.hot.iter().map(|batch| batch.num_rows()).sum(),
        stored_rows: snapshot.segments.iter().map(|s| s.rows).sum(),
        segments: snapshot.segments.len(),
        stored_bytes: snapshot.segments.iter().map(|s| s.bytes).sum(),
        missing_segments: snapshot.missing.0,
        missing_rows: snapshot.missing.1,
        forgotten_rows: snapshot.forgotten,
    }
}

#[derive(Serialize)]
struct StatusInfo {
    pipeline: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Milliseconds since the Unix epoch.
    started_at_ms: u64,
    uptime_seconds: f64,
    graph: String,
    reloads: ReloadsInfo,
    nodes: Vec<NodeInfo>,
}

/// What became of changes of the pipeline while it ran.
#[derive(Serialize)]
struct ReloadsInfo {
    applied: u64,
    refused: u64,
    unchanged: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<ReloadInfo>,
}

#[derive(Serialize)]
struct ReloadInfo {
    outcome: &'static str,
    message: String,
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
}

fn reloads(done: &Done) -> ReloadsInfo {
    let last = done.last.as_ref().map(|(outcome, at)| ReloadInfo {
        outcome: outcome.name(),
        message: outcome.message().to_owned(),
        at_ms: u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or_default(),
    });
    ReloadsInfo { applied: done.applied, refused: done.refused, unchanged: done.unchanged, last }
}

#[derive(Serialize)]
struct NodeInfo {
    id: String,
    kind: String,
    rows_in: u64,
    rows_out: u64,
    bytes: u64,
    late: u64,
    rejected: u64,
    evicted: u64,
    state_rows: i64,
    watermark_ms: u64,
    events: serde_json::Map<String, Value>,
    values: serde_json::Map<String, Value>,
    references: Vec<ReferenceInfo>,
    troubles: BTreeMap<String, String>,
}

/// A file that a node looks things up in.
#[derive(Serialize)]
struct ReferenceInfo {
    file: String,
    as_of_ms: u64,
    age_seconds: u64,
}

impl ReferenceInfo {
    fn new((file, as_of): (String, SystemTime)) -> Self {
        let as_of_ms = as_of.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self {
            file,
            as_of_ms: u64::try_from(as_of_ms).unwrap_or_default(),
            age_seconds: as_of.elapsed().unwrap_or_default().as_secs(),
        }
    }
}

/// `GET /status`
pub(crate) async fn status(State(shared): State<Shared>) -> impl IntoResponse {
    let service = &shared.0.service;
    let state = service.status.state();
    let started = service.status.started_at().duration_since(UNIX_EPOCH).unwrap_or_default();
    let troubles = |id: &str, mut troubles: BTreeMap<String, String>| {
        if service.metrics.is_spool_full(id) {
            let why = "full, or its disk does not write: the source waits until sinks have confirmed more, or the disk writes";
            troubles.insert("spool".to_owned(), why.to_owned());
        }
        troubles
    };
    let nodes = service.metrics.nodes().into_iter().map(|(id, kind, m)| NodeInfo {
        troubles: troubles(&id, m.troubles()),
        references: m.references().into_iter().map(ReferenceInfo::new).collect(),
        id,
        kind,
        rows_in: m.rows_in.load(Relaxed),
        rows_out: m.rows_out.load(Relaxed),
        bytes: m.bytes.load(Relaxed),
        late: m.late.load(Relaxed),
        rejected: m.rejected.load(Relaxed),
        evicted: m.evicted.load(Relaxed),
        state_rows: m.state_rows.load(Relaxed),
        watermark_ms: m.watermark.load(Relaxed),
        events: m.named().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
        values: m.gauges().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
    });
    Json(StatusInfo {
        pipeline: service.name.clone(),
        state: state.name(),
        message: match &state {
            RunState::Failed(message) => Some(message.clone()),
            _ => None,
        },
        started_at_ms: u64::try_from(started.as_millis()).unwrap_or_default(),
        uptime_seconds: service.status.uptime().as_secs_f64(),
        graph: service.catalog.graph(),
        reloads: reloads(&service.reloads.done()),
        nodes: nodes.collect(),
    })
}

/// `GET /health`: the process answers.
pub(crate) async fn health() -> &'static str {
    "ok\n"
}

/// `GET /ready`: the tables can be asked.
pub(crate) async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let status = &shared.0.service.status;
    let code = if status.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{}\n", status.state().name()))
}

/// `GET /metrics`
pub(crate) async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let mut text = shared.0.service.metrics.render();
    text.push_str(&shared.0.service.reloads.render());
    text.push_str(&shared.0.http.render(shared.0.queries.counts(), shared.0.queries.processes()));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Any other address.
pub(crate) async fn not_found() -> Error {
    Error::NotFound
}

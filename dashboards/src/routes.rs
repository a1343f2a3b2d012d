//! The routes that answer with data.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{io, str};

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, VARY};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use engine::catalog::Table;
use engine::contract::Intakes;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::assets::SECURITY_HEADERS;
use crate::error::Error;
use crate::http_metrics::HttpMetrics;
use crate::output::Output;
use crate::query::Queries;
use crate::status::State as RunState;
use crate::{Limits, Service};
use engine::reload::Done;

const X_ROW_COUNT: HeaderName = HeaderName::from_static("x-row-count");
const X_TRUNCATED: HeaderName = HeaderName::from_static("x-truncated");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Documents for intakes that are taken at the same time: each waits for the disk on a thread.
const AT_ONCE: usize = 8;

/// What the routes share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Service,
    queries: Queries,
    http: HttpMetrics,
    /// Of documents that are being taken.
    places: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(service: Service) -> io::Result<Self> {
        let queries = Queries::new(Arc::clone(&service.catalog), service.limits.clone())?;
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Self(Arc::new(Inner { service, queries, http: HttpMetrics::default(), places })))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.service.limits
    }

    pub(crate) fn intakes(&self) -> &Intakes {
        &self.0.service.intakes
    }

    pub(crate) fn places(&self) -> &Arc<Semaphore> {
        &self.0.places
    }
}

/// Counts every request and adds the headers that every answer has.
pub(crate) async fn observe(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    shared.0.http.requests.fetch_add(1, Relaxed);
    let mut response = if is_own_host(request.headers(), &shared.0.service.hosts) {
        next.run(request).await
    } else {
        Error::Unknown.into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether the request's Host is an address, `localhost`, or a name of ours. Another site's page whose name resolves to
/// this address (DNS rebinding) is of the same origin for a browser; only its name gives it away.
fn is_own_host(headers: &HeaderMap, hosts: &[String]) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Some(authority) = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok()) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// `POST /sql`
pub(crate) async fn sql(
    State(shared): State<Shared>,
    RawQuery(parameters): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let started = Instant::now();
    let answer = answer(&shared.0, &headers, parameters.as_deref(), body).await;
    shared.0.http.query(started.elapsed(), answer.is_err());
    answer.unwrap_or_else(Error::into_response)
}

async fn answer(shared: &Inner, headers: &HeaderMap, parameters: Option<&str>, body: Body) -> Result<Response, Error> {
    // Browsers say where a request comes from; another site must not make this one work.
    if headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(Error::Forbidden("queries from another site's page are refused".to_owned()));
    }
    let output = Output::asked(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()), parameters)?;
    let limits = &shared.service.limits;
    let body = tokio::time::timeout(limits.timeout, to_bytes(body, limits.max_sql_bytes))
        .await
        .map_err(|_| Error::Slow(limits.timeout))?
        .map_err(|_| Error::TooLong(limits.max_sql_bytes))?;
    let sql = str::from_utf8(&body).map_err(|_| Error::Encoding)?.to_owned();
    let encoded = shared.queries.run(sql, output).await?;
    let mut response = encoded.body.into_response();
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(output.format.content_type()));
    out.insert(VARY, HeaderValue::from_static("accept"));
    out.insert(X_ROW_COUNT, HeaderValue::from(encoded.rows));
    if encoded.truncated {
        out.insert(X_TRUNCATED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// `/sql` with another method: a query is a body, which `GET` does not have.
pub(crate) async fn sql_by_post() -> Response {
    let mut response = Error::Method.into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
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
    events: serde_json::Map<String, serde_json::Value>,
    values: serde_json::Map<String, serde_json::Value>,
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
    text.push_str(&shared.0.http.render(shared.0.queries.running()));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Any other address.
pub(crate) async fn not_found() -> Error {
    Error::NotFound
}

//! Statements over HTTP, and named queries.

use std::collections::BTreeMap;
use std::time::Instant;
use std::{io, str};

use axum::Extension;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::header::{ACCEPT, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::origin;
use crate::output::Output;
use crate::process::{Answer, Client};
use crate::query::{Parameter, Statement};
use crate::routes::Shared;
use crate::serve::Peer;

const X_ROW_COUNT: HeaderName = HeaderName::from_static("x-row-count");
const X_TRUNCATED: HeaderName = HeaderName::from_static("x-truncated");

/// `POST /sql`
pub(crate) async fn post(
    State(shared): State<Shared>,
    RawQuery(parameters): RawQuery,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let started = Instant::now();
    let client = Client::of(peer.map(|Extension(Peer(address))| address.ip()));
    let answer = answer(&shared, client, &headers, parameters.as_deref(), body).await;
    shared.http().query(started.elapsed(), answer.is_err());
    answer.unwrap_or_else(Error::into_response)
}

async fn answer(
    shared: &Shared,
    client: Client,
    headers: &HeaderMap,
    parameters: Option<&str>,
    body: Body,
) -> Result<Response, Error> {
    let output = Output::asked(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()), parameters)?;
    let is_json = origin::statement_type(headers)?;
    let limits = shared.limits();
    let body = tokio::time::timeout(limits.timeout, to_bytes(body, limits.max_sql_bytes))
        .await
        .map_err(|_| Error::Slow(limits.timeout))?
        .map_err(|_| Error::TooLong(limits.max_sql_bytes))?;
    let Asked { query: sql, parameters } = if is_json {
        serde_json::from_slice(&body)
            .map_err(|error| Error::query(format!("the body is not {{\"query\": \"...\"}}: {error}")))?
    } else {
        let query = str::from_utf8(&body).map_err(|_| Error::Encoding)?.to_owned();
        Asked { query, parameters: BTreeMap::new() }
    };
    let value = |(name, value): (String, Value)| match Parameter::of_json(&value) {
        Some(value) => Ok((name, value)),
        None => Err(Error::query(format!("the parameter `{name}` is a text, a number, true, false or null"))),
    };
    let parameters = parameters.into_iter().map(value).collect::<Result<_, _>>()?;
    let statement = Statement { sql, parameters, output };
    Ok(response(shared.queries().run(client, statement).await?, output))
}

/// `GET /api/PAGE/NAME`
pub(crate) async fn panel(
    State(shared): State<Shared>,
    Path((page, name)): Path<(String, String)>,
    Query(mut parameters): Query<BTreeMap<String, String>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    origin::reads_from_own_page(&headers)?;
    let panel = shared.panels().find(&page, &name).ok_or(Error::NotFound)?;
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    // What says how the answer is written, the others are the query's.
    let written =
        ["csv", "integers"].into_iter().filter_map(|name| Some(format!("{name}={}", parameters.remove(name)?)));
    let output = Output::asked(accept, Some(&written.collect::<Vec<_>>().join("&")))?;
    let statement = Statement { sql: panel.sql().to_owned(), parameters: panel.bind(&parameters)?, output };
    let client = Client::of(peer.map(|Extension(Peer(address))| address.ip()));
    Ok(response(shared.own().run(client, statement).await?, output))
}

fn response(answer: Answer, output: Output) -> Response {
    let mut response = Body::from_stream(pieces(answer.body)).into_response();
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(output.format.content_type()));
    out.insert(CONTENT_LENGTH, HeaderValue::from(answer.bytes));
    out.insert(VARY, HeaderValue::from_static("accept"));
    out.insert(X_ROW_COUNT, HeaderValue::from(answer.rows));
    if answer.truncated {
        out.insert(X_TRUNCATED, HeaderValue::from_static("true"));
    }
    response
}

/// A statement in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    query: String,
    /// Values of `$name` in it.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

/// The pieces of an answer, as they come.
fn pieces(body: mpsc::Receiver<io::Result<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(body, |mut body| async { body.recv().await.map(|piece| (piece, body)) })
}

/// `GET /sql?query=...`: what is asked is in the address, with what says how the answer is written.
pub(crate) async fn get(
    State(shared): State<Shared>,
    Query(mut parameters): Query<BTreeMap<String, String>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    let started = Instant::now();
    let client = Client::of(peer.map(|Extension(Peer(address))| address.ip()));
    let answer = async {
        origin::reads_from_own_page(&headers)?;
        let sql = parameters.remove("query").ok_or(Error::Method)?;
        let limit = shared.limits().max_sql_bytes;
        if sql.len() > limit {
            return Err(Error::TooLong(limit));
        }
        let written: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let output = Output::asked(accept, Some(&written.join("&")))?;
        let statement = Statement { sql, parameters: BTreeMap::new(), output };
        Ok(response(shared.queries().run(client, statement).await?, output))
    };
    let answer = answer.await;
    shared.http().query(started.elapsed(), answer.is_err());
    answer.unwrap_or_else(Error::into_response)
}

/// `/sql` with another method.
pub(crate) async fn other() -> Response {
    let mut response = Error::Method.into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    response
}

//! `/api/NAME`: documents for the run, such as analysts' feedback, for the source that takes them.
//!
//! A document changes what the run computes, so a page of another site must not be able to send one: a browser says where a
//! request comes from, and asks first before it sends JSON elsewhere, to which nothing here says yes.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::contract::{Intake, NotTaken, document};
use serde_json::Value;

use crate::error::Error;
use crate::routes::Shared;

/// Bytes of a document.
const MAX_BYTES: usize = 16 << 10;

/// `GET /api/NAME`: what is in effect.
pub(crate) async fn show(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, Error> {
    let intake = find(&shared, &name)?;
    blocking(move || intake.shown()).await.map(Json)
}

/// `POST /api/NAME`
pub(crate) async fn take(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(&shared, &name, &headers, body).await.map_or_else(Error::into_response, |taken| Json(taken).into_response())
}

async fn answer(shared: &Shared, name: &str, headers: &HeaderMap, body: Body) -> Result<Value, Error> {
    let intake = find(shared, name)?;
    if !is_json(headers) {
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the document as application/json"));
    }
    let timeout = shared.limits().timeout;
    let body = tokio::time::timeout(timeout, to_bytes(body, MAX_BYTES)).await.map_err(|_| Error::Slow(timeout))?;
    let body = body.map_err(|_| {
        refused(StatusCode::PAYLOAD_TOO_LARGE, format!("a document has at most {MAX_BYTES} bytes and a length"))
    })?;
    let document = document(&body).map_err(|why| {
        refused(StatusCode::BAD_REQUEST, format!("the document is not JSON with each key once: {why}"))
    })?;
    let Ok(place) = Arc::clone(shared.places()).try_acquire_owned() else {
        return Err(refused(StatusCode::TOO_MANY_REQUESTS, "other documents are being taken; try again in a moment"));
    };
    // A client that goes away does not end the writing.
    let taken = blocking(move || {
        let _place = place;
        intake.take(document)
    });
    taken.await?.map_err(|why| match why {
        NotTaken::Wrong(why) => refused(StatusCode::BAD_REQUEST, why),
        NotTaken::NotNow(why) => refused(StatusCode::SERVICE_UNAVAILABLE, why),
    })
}

fn find(shared: &Shared, name: &str) -> Result<Arc<dyn Intake>, Error> {
    let nobody = || refused(StatusCode::NOT_FOUND, format!("no source of this pipeline takes `{name}`"));
    shared.intakes().find(name).ok_or_else(nobody)
}

fn refused(status: StatusCode, why: impl Into<String>) -> Error {
    Error::NotTaken(status, why.into())
}

/// Off the threads that answer requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a document could not be taken");
        Error::Internal
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok());
    let essence = given.and_then(|given| given.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

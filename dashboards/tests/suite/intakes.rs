//! Documents for the run.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use dashboards::{Limits, app};
use engine::contract::{Intake, NotTaken};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::common::{Reply, get, send, service};

/// Takes what is an object, unless it is full.
#[derive(Default)]
struct Desk {
    taken: Mutex<Vec<Value>>,
}

impl Intake for Desk {
    fn take(&self, document: Value) -> Result<Value, NotTaken> {
        let mut taken = self.taken.lock();
        match document.is_object() {
            _ if taken.len() == 2 => Err(NotTaken::NotNow("the disk is full".to_owned())),
            false => Err(NotTaken::Wrong("an object is wanted".to_owned())),
            true => {
                taken.push(document);
                Ok(json!({ "number": taken.len() }))
            }
        }
    }

    fn shown(&self) -> Value {
        Value::Array(self.taken.lock().clone())
    }
}

fn with_desk() -> (Router, Arc<Desk>) {
    let service = service(Vec::new(), Limits::default());
    let desk = Arc::new(Desk::default());
    service.intakes.open("feedback", &desk).expect("free");
    (app(service).expect("app"), desk)
}

async fn post(app: &Router, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
    let mut request = Request::post("/api/feedback").header("host", "127.0.0.1:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(app, request.body(body.into()).expect("request")).await
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[tokio::test]
async fn documents_reach_their_source_and_its_answer_is_the_answer() {
    let (app, _desk) = with_desk();
    let reply = post(&app, &[JSON], r#"{"a": 1}"#).await;
    assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({ "number": 1 })));
    assert_eq!(get(&app, "/api/feedback").await.json(), json!([{ "a": 1 }]));
    let reply = post(&app, &[JSON], "[1]").await;
    assert_eq!((reply.status, reply.text()), (StatusCode::BAD_REQUEST, r#"{"error":"an object is wanted"}"#));
    post(&app, &[JSON, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")], "{}").await;
    let reply = post(&app, &[JSON], "{}").await;
    assert_eq!((reply.status, reply.text()), (StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"the disk is full"}"#));
}

#[tokio::test]
async fn what_no_source_takes_is_not_found() {
    let (app, desk) = with_desk();
    for reply in [get(&app, "/api/other").await, get(&app, "/api/%22%3Cx").await] {
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert!(reply.text().contains("no source of this pipeline takes"), "{}", reply.text());
    }
    drop(desk);
    let reply = post(&app, &[JSON], "{}").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND, "the source has ended");
}

#[tokio::test]
async fn other_sites_and_bodies_that_are_no_document_are_refused_before_anything_is_taken() {
    let (app, desk) = with_desk();
    let long = format!("{{\"note\": \"{}\"}}", "x".repeat(20_000));
    let deep = "[".repeat(5_000);
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, StatusCode);
    let cases: [Case<'_>; 8] = [
        (&[JSON, ("sec-fetch-site", "cross-site")], "{}", StatusCode::FORBIDDEN),
        (&[JSON, ("origin", "http://evil.example")], "{}", StatusCode::FORBIDDEN),
        (&[JSON, ("origin", "null")], "{}", StatusCode::FORBIDDEN),
        (&[("content-type", "text/plain")], "{}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (&[], "{}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (&[JSON], &long, StatusCode::PAYLOAD_TOO_LARGE),
        (&[JSON], "{", StatusCode::BAD_REQUEST),
        (&[JSON], &deep, StatusCode::BAD_REQUEST),
    ];
    for (headers, body, status) in cases {
        let reply = post(&app, headers, body.to_owned()).await;
        assert_eq!(reply.status, status, "{headers:?} {}", reply.text());
    }
    assert_eq!(post(&app, &[JSON], vec![0xff, 0xfe]).await.status, StatusCode::BAD_REQUEST, "no UTF-8");
    assert!(desk.taken.lock().is_empty());
}

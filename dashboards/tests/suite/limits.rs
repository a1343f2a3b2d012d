//! Time, rows, memory, places, and clients that go away.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use dashboards::{Limits, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::{get, post, send, with_rows};

/// Would take hours.
const ENDLESS: &str = "SELECT count(*) FROM requests a, requests b, requests c WHERE a.path < concat(b.path, c.path)";

async fn running(app: &Router) -> u32 {
    let text = get(app, "/metrics").await;
    let line = text.text().lines().find(|l| l.starts_with("ja4_engine_sql_running ")).expect("gauge").to_owned();
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("number")
}

/// Waits until `count` queries run, by asking again; fails after five seconds.
pub async fn until_running(app: &Router, count: u32) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while running(app).await != count {
        assert!(Instant::now() < deadline, "{} queries run, not {count}", running(app).await);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_stopped() {
    let app = with_rows(20_000, Limits { timeout: Duration::from_millis(300), ..Limits::default() });
    for sql in [
        ENDLESS,
        "SELECT a.path FROM requests a, requests b, requests c WHERE a.seq + b.seq + c.seq = -1",
        "SELECT count(DISTINCT a.seq * b.seq * c.seq % 7) FROM requests a, requests b, requests c",
    ] {
        let started = Instant::now();
        let reply = post(&app, "*/*", sql).await;
        assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{}", reply.text());
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        until_running(&app, 0).await;
        eprintln!("{sql}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn rows_are_cut_and_the_answer_says_so() {
    let app = with_rows(5000, Limits { max_rows: 10, ..Limits::default() });
    let reply = post(&app, "application/json", "SELECT seq FROM requests").await;
    let body = reply.json();
    assert_eq!((reply.header("x-truncated"), reply.header("x-row-count")), ("true", "10"));
    assert_eq!(
        (body["rows"].as_array().map(Vec::len), &body["truncated"], &body["row_count"]),
        (Some(10), &true.into(), &10.into())
    );
    let reply = post(&app, "application/json", "SELECT seq FROM requests LIMIT 10").await;
    assert_eq!((reply.header("x-truncated"), &reply.json()["truncated"]), ("", &false.into()));
}

#[tokio::test]
async fn memory_is_bounded() {
    let app = with_rows(50_000, Limits { memory: 1 << 20, ..Limits::default() });
    let reply = post(&app, "*/*", "SELECT path, count(*) FROM requests GROUP BY path ORDER BY path").await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text());
    assert_eq!(reply.json()["error"], "the query needs more memory than it may have");
    let reply = post(&app, "*/*", "SELECT * FROM requests").await;
    assert_eq!((reply.status, reply.header("x-truncated")), (StatusCode::OK, "true"), "an answer is bounded too");
}

#[tokio::test]
async fn long_and_broken_texts_are_refused() {
    let app = with_rows(1, Limits { max_sql_bytes: 100, ..Limits::default() });
    let reply = post(&app, "*/*", &format!("SELECT {}", " ".repeat(200))).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"the statement is longer than 100 bytes".into())
    );
    let invalid = Request::post("/sql").body(Body::from(vec![0xff, 0xfe])).expect("request");
    assert_eq!(send(&app, invalid).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_query_without_a_place_is_turned_away_and_a_dropped_one_frees_its_place() {
    let limits = Limits {
        processes: 1,
        queue: Duration::from_millis(100),
        timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    let app = with_rows(20_000, limits);
    let busy = tokio::spawn({
        let app = app.clone();
        async move { post(&app, "*/*", ENDLESS).await.status }
    });
    until_running(&app, 1).await;
    let reply = post(&app, "*/*", "SELECT 1").await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "{}", reply.text());
    assert_eq!(get(&app, "/health").await.status, StatusCode::OK);
    busy.abort();
    until_running(&app, 0).await;
    assert_eq!(post(&app, "*/*", "SELECT 1").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_query() {
    let app = with_rows(20_000, Limits { timeout: Duration::from_secs(60), ..Limits::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(listen(listener, app.clone(), 16, async move {
        let _ = stopped.await;
    }));
    let mut client = TcpStream::connect(address).await.expect("connect");
    let request =
        format!("POST /sql HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{ENDLESS}", ENDLESS.len());
    client.write_all(request.as_bytes()).await.expect("send");
    until_running(&app, 1).await;
    drop(client);
    let gone = Instant::now();
    until_running(&app, 0).await;
    assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
    stop.send(()).expect("the server runs");
    server.await.expect("no panic").expect("ends well");
}

/// A connection from an address of this machine, and whether the service takes a request on it.
async fn is_served(from: [u8; 4], to: SocketAddr) -> (TcpStream, bool) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("an address of loopback");
    let mut stream = socket.connect(to).await.expect("connected");
    let sent = stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut answer = [0; 15];
    let is_served = sent.is_ok() && stream.read_exact(&mut answer).await.is_ok() && answer.ends_with(b"200 OK");
    (stream, is_served)
}

#[tokio::test]
async fn a_client_has_a_quarter_of_the_connections() {
    let app = with_rows(1, Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let server = tokio::spawn(listen(listener, app, 16, std::future::pending()));
    let mut open = Vec::new();
    for nth in 1..=6 {
        let (stream, is_served) = is_served([127, 0, 0, 1], address).await;
        assert_eq!(is_served, nth <= 4, "{nth}");
        open.push(stream);
    }
    assert!(is_served([127, 0, 0, 2], address).await.1, "another client");
    open.clear();
    let until = Instant::now() + Duration::from_secs(5);
    while !is_served([127, 0, 0, 1], address).await.1 {
        assert!(Instant::now() < until, "its connections have ended");
        tokio::task::yield_now().await;
    }
    server.abort();
}

#[tokio::test]
async fn a_request_of_http_1_1_has_one_host() {
    let app = with_rows(1, Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let server = tokio::spawn(listen(listener, app, 16, std::future::pending()));
    for (head, code) in [
        ("GET /health HTTP/1.1\r\n", "400"),
        ("GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n", "400"),
        ("GET /health HTTP/1.0\r\n", "200"),
        ("GET /health HTTP/1.1\r\nhost: localhost\r\n", "200"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        assert_eq!(answer.split(' ').nth(1), Some(code), "{head}");
    }
    server.abort();
}

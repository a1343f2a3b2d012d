//! Queries in processes of their own: what a statement does to one is felt by nobody else.

use std::fs;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use dashboards::Limits;
use engine::batch::Batch;
use nix::sys::signal::{SIGKILL, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::common::{app_of, get, marked, post, query, rows, table, with_rows};

/// The query processes of the service with this mark.
fn processes(mark: &str) -> Vec<u32> {
    let is_marked = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(mark.as_bytes())
    };
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_marked).collect()
}

fn status_of(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::trim));
    line.unwrap_or_default().to_owned()
}

async fn started(app: &Router) -> u64 {
    let text = get(app, "/metrics").await;
    let line = text
        .text()
        .lines()
        .find(|l| l.starts_with("ja4_engine_sql_processes_started_total "))
        .expect("counted")
        .to_owned();
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

/// Each of them took all memory of the machine when it ran beside the capture.
#[tokio::test]
async fn a_statement_that_takes_all_memory_ends_its_own_process() {
    let app = with_rows(50_000, Limits { process_memory: 300 << 20, memory: 8 << 30, ..Limits::default() });
    for sql in [
        "SELECT count(*) FROM (SELECT a.path, a.seq, b.seq AS s, row_number() OVER () AS n FROM requests a, requests b) WHERE n < 0",
        "SELECT path, max(seq) OVER () FROM (SELECT a.path, b.seq FROM requests a, requests b) ORDER BY 1",
    ] {
        let reply = post(&app, "*/*", sql).await;
        let is_refused = [StatusCode::BAD_REQUEST, StatusCode::GATEWAY_TIMEOUT].contains(&reply.status);
        assert!(is_refused, "{sql}: {} {}", reply.status, reply.text());
        assert_eq!(query(&app, "SELECT count(*) AS n FROM requests").await, [json!({ "n": 50_000 })]);
    }
}

#[tokio::test]
async fn a_limit_reserves_nothing_and_an_answer_is_bounded_in_bytes() {
    let app = with_rows(20_000, Limits { max_bytes: 1 << 20, ..Limits::default() });
    let reply =
        post(&app, "*/*", "SELECT path, max(seq) AS m FROM requests GROUP BY path ORDER BY m DESC LIMIT 10000000")
            .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let name = "x".repeat(60_000);
    let reply = post(&app, "application/json", &format!("SELECT true AS \"{name}\" FROM requests")).await;
    assert_eq!((reply.status, reply.header("x-truncated")), (StatusCode::OK, "true"));
    assert!(reply.body.len() < 2 << 20, "{} bytes", reply.body.len());
    assert_eq!(reply.json()["row_count"], reply.json()["rows"].as_array().map_or(0, Vec::len));
}

#[tokio::test]
async fn rows_that_come_later_are_read_too() {
    let requests = table("requests");
    let app = app_of(vec![requests.clone()], Limits { processes: 1, ..Limits::default() });
    for n in 0..30 {
        requests.push(n, &Batch::new(rows(n * 700, n * 700 + 700))).expect("push");
        let sums = query(&app, "SELECT count(*) AS n, sum(seq) AS s FROM requests").await;
        let count = (n + 1) * 700;
        assert_eq!(sums, [json!({ "n": count, "s": count * (count - 1) / 2 })]);
    }
    assert_eq!(started(&app).await, 1, "one process has read them all");
}

#[tokio::test]
async fn a_client_does_not_keep_others_from_the_page() {
    let app = with_rows(20_000, Limits { timeout: Duration::from_secs(3), ..Limits::default() });
    let heavy = "SELECT count(*) FROM requests a, requests b, requests c WHERE a.path < concat(b.path, c.path)";
    let hostile: Vec<_> = (0..8)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { post(&app, "*/*", heavy).await.status })
        })
        .collect();
    let started = Instant::now();
    let reply = get(&app, "/api/overview/extent").await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    for status in hostile {
        let status = status.await.expect("no panic");
        assert!([StatusCode::GATEWAY_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status), "{status}");
    }
}

#[tokio::test]
async fn a_killed_process_is_replaced_and_the_query_asked_again() {
    let limits = Limits { timeout: Duration::from_secs(60), processes: 1, ..Limits::default() };
    let app = marked("killed", 5_000, limits);
    for _ in 0..5 {
        let asked = tokio::spawn({
            let app = app.clone();
            async move {
                post(&app, "*/*", "SELECT count(*) FROM requests a, requests b WHERE a.seq + b.seq < 0").await.status
            }
        });
        let killed = tokio::task::spawn_blocking(|| {
            let until = Instant::now() + Duration::from_secs(20);
            while Instant::now() < until {
                let pids = processes("killed");
                // It may have ended just now.
                if pids.first().is_some_and(|pid| kill(Pid::from_raw(*pid as i32), SIGKILL).is_ok()) {
                    return true;
                }
                std::thread::yield_now();
            }
            false
        });
        assert!(killed.await.expect("no panic"), "there was a process");
        assert_eq!(asked.await.expect("no panic"), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_process_is_confined() {
    let app = marked("confined", 10, Limits::default());
    query(&app, "SELECT 1 AS one FROM requests LIMIT 1").await;
    let pids = processes("confined");
    let pid = *pids.first().expect("it waits for the next query");
    for (field, value) in
        [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000")]
    {
        assert_eq!(status_of(pid, field), value, "{field}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("readable");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(limit("Max data size").contains(&(1u64 << 30).to_string()), "{limits}");
    assert!(limit("Max file size").contains(" 0 "), "{limits}");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/environ")).map(|text| text.contains("PATH")).ok(), Some(false));
}

#[tokio::test]
async fn named_queries_take_values_and_nothing_else() {
    let app = with_rows(10, Limits::default());
    let reply = get(&app, "/api/overview/extent").await;
    assert_eq!((reply.status, reply.json()["row_count"].as_u64()), (StatusCode::OK, Some(1)), "{}", reply.text());
    for (path, status) in [
        ("/api/overview/extent?from=2026-03-01T00:00:00Z", StatusCode::BAD_REQUEST),
        ("/api/overview/requests?step=1%20OR%201", StatusCode::BAD_REQUEST),
        ("/api/overview/other", StatusCode::NOT_FOUND),
        ("/api/..%2Foverview/extent", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(get(&app, path).await.status, status, "{path}");
    }
}

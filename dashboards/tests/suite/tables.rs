//! Memory and segments read as one table.

use dashboards::{Limits, app};
use engine::batch::Batch;
use serde_json::json;

use crate::common::{get, post, query, rows, segment, service, table};

#[tokio::test]
async fn memory_and_segments_are_one_table_and_no_row_is_twice() {
    let directory = tempfile::tempdir().expect("directory");
    let requests = table("requests");
    let app = app(service(vec![requests.clone()], Limits::default())).expect("app");
    let all = "SELECT count(*) AS n, count(DISTINCT seq) AS d, min(seq) AS lo, max(seq) AS hi FROM requests";

    assert_eq!(query(&app, all).await, [json!({"n": 0, "d": 0, "lo": null, "hi": null})]);
    for time in 0..10 {
        requests.push(time, &Batch::new(rows(time * 100, time * 100 + 100))).expect("push");
    }
    let expected = [json!({"n": 1000, "d": 1000, "lo": 0, "hi": 999})];
    assert_eq!(query(&app, all).await, expected);

    requests.commit(Some(segment(directory.path(), "a b%20c.parquet", &rows(0, 400))), 4);
    assert_eq!(query(&app, all).await, expected, "rows moved to the first segment");
    requests.commit(Some(segment(directory.path(), "2.parquet", &rows(400, 700))), 7);
    requests.commit(Some(segment(directory.path(), "3.parquet", &rows(700, 900))), 9);
    assert_eq!(query(&app, all).await, expected, "rows moved to three segments");
    let twice = "SELECT count(*) AS n FROM requests a JOIN requests b ON a.seq = b.seq AND a.path = b.path";
    assert_eq!(query(&app, twice).await, [json!({"n": 1000})]);

    let info = get(&app, "/tables").await.json();
    assert_eq!(info[0]["name"], "requests");
    assert_eq!(
        (&info[0]["hot_rows"], &info[0]["stored_rows"], &info[0]["segments"]),
        (&json!(100), &json!(900), &json!(3))
    );
    assert_eq!(info[0]["columns"][0], json!({"name": "time", "type": "Timestamp(ns, \"UTC\")", "nullable": false}));
}

#[tokio::test]
async fn projection_filter_and_limit_reach_the_segments() {
    let directory = tempfile::tempdir().expect("directory");
    let requests = table("requests");
    requests.commit(Some(segment(directory.path(), "1.parquet", &rows(0, 500))), 5);
    requests.push(6, &Batch::new(rows(500, 600))).expect("push");
    let app = app(service(vec![requests], Limits::default())).expect("app");

    let plan = post(&app, "text/csv", "EXPLAIN SELECT path FROM requests WHERE seq > 490").await;
    let plan = plan.text();
    assert!(plan.contains("projection=[seq, path]") || plan.contains("projection=[path]"), "{plan}");
    assert!(plan.contains("predicate=seq@1 > 490") && plan.contains("pruning_predicate"), "{plan}");
    let plan = post(&app, "text/csv", "EXPLAIN SELECT path FROM requests LIMIT 3").await;
    assert!(plan.text().contains("limit=3") || plan.text().contains("fetch=3"), "{}", plan.text());

    let found = query(&app, "SELECT path FROM requests WHERE seq >= 498 AND seq < 502 ORDER BY seq").await;
    assert_eq!(
        found,
        [json!({"path": "/p/498"}), json!({"path": "/p/499"}), json!({"path": "/p/500"}), json!({"path": "/p/501"})]
    );
    assert_eq!(query(&app, "SELECT host FROM requests LIMIT 3").await.len(), 3);
}

#[tokio::test]
async fn time_is_binned_and_printed_with_its_zone() {
    let requests = table("requests");
    requests.push(1, &Batch::new(rows(0, 120))).expect("push");
    let app = app(service(vec![requests], Limits::default())).expect("app");
    let sql = "SELECT date_bin(INTERVAL '60 seconds', time) AS t, count(*) AS n FROM requests \
               WHERE time >= TIMESTAMP '2026-03-01T00:00:00Z' GROUP BY 1 ORDER BY 1";
    let expected = [json!({"t": "2026-03-01T00:00:00Z", "n": 60}), json!({"t": "2026-03-01T00:01:00Z", "n": 60})];
    assert_eq!(query(&app, sql).await, expected);
}

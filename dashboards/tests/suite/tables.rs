//! Memory and segments read as one table.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use dashboards::{Limits, app};
use engine::batch::{Batch, EdgeType};
use engine::catalog::Table;
use engine::metrics::NodeMetrics;
use serde_json::json;

use crate::common::{get, post, query, rows, schema, segment, service, table};

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

#[tokio::test]
async fn a_segment_whose_file_is_gone_is_left_out_and_counted() {
    let directory = tempfile::tempdir().expect("directory");
    let requests = table("requests");
    let metrics = Arc::new(NodeMetrics::default());
    requests.count_missing(metrics.clone());
    requests.commit(Some(segment(directory.path(), "1.parquet", &rows(0, 100))), 1);
    requests.commit(Some(segment(directory.path(), "2.parquet", &rows(100, 300))), 3);
    let app = app(service(vec![requests.clone()], Limits::default())).expect("app");
    let count = "SELECT count(*) AS n, max(seq) AS hi FROM requests";
    assert_eq!(query(&app, count).await, [json!({"n": 300, "hi": 299})]);

    std::fs::remove_file(directory.path().join("1.parquet")).expect("removed");
    assert_eq!(query(&app, count).await, [json!({"n": 200, "hi": 299})]);
    assert_eq!(query(&app, count).await, [json!({"n": 200, "hi": 299})]);
    let info = get(&app, "/tables").await.json();
    assert_eq!((&info[0]["missing_segments"], &info[0]["missing_rows"]), (&json!(1), &json!(100)));
    assert_eq!(metrics.named(), [("missing_segments", 1)]);
    assert!(metrics.troubles()["requests missing"].contains("with 100 rows"));

    let second = directory.path().join("2.parquet");
    requests.remove(&BTreeSet::from([second.as_path()]));
    assert_eq!(query(&app, count).await, [json!({"n": 0, "hi": null})]);
    assert_eq!(metrics.named(), [("missing_segments", 1)], "what the sink removes is not missing");
}

#[tokio::test]
async fn columns_that_a_segment_lacks_are_null_and_narrower_ones_are_cast() {
    let directory = tempfile::tempdir().expect("directory");
    let all = rows(0, 10);
    let host = all.schema().index_of("host").expect("there");
    let mut kept: Vec<usize> = (0..all.num_columns()).collect();
    kept.remove(host);
    // `score`, the last one, was a whole number once.
    let old = all.project(&kept).expect("columns");
    let mut fields: Vec<Field> = old.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut columns = old.columns().to_vec();
    let last = columns.len() - 1;
    (fields[last], columns[last]) =
        (Field::new("score", DataType::Int32, true), cast(&columns[last], &DataType::Int32).expect("casts"));
    let old = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("valid");

    // Today `host` is never null.
    let fields = all
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(f.name() != "host" && f.is_nullable()))
        .collect::<Vec<_>>();
    let requests = Arc::new(Table::new("requests", &EdgeType::stream(Arc::new(Schema::new(fields))), 1000));
    requests.commit(Some(segment(directory.path(), "1.parquet", &old)), 1);
    let app = app(service(vec![requests], Limits::default())).expect("app");
    let found =
        query(&app, "SELECT seq, host, score FROM requests WHERE host IS NULL AND score > 1.5 ORDER BY seq").await;
    assert_eq!(found[0], json!({"seq": 8, "host": null, "score": 2.0}));
    assert_eq!(found.len(), 2);
    assert_eq!(query(&app, "SELECT count(host) AS n, count(*) AS c FROM requests").await, [json!({"n": 0, "c": 10})]);
}

/// A column that an older segment has with another type is null in its rows, whatever else is asked.
#[tokio::test]
async fn a_column_that_is_not_read_is_null_in_the_rows_of_its_segment() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let requests = Arc::new(Table::new("requests", &EdgeType::stream(schema()), 1000));
    requests.commit(Some(segment(directory.path(), "2.parquet", &rows(10, 20))), 2);
    let mut old = segment(directory.path(), "1.parquet", &rows(0, 10));
    old.unread = vec!["host".to_owned()];
    requests.commit(Some(old), 2);
    let app = app(service(vec![requests], Limits::default())).expect("app");
    let found = query(&app, "SELECT seq, host IS NULL AS empty FROM requests WHERE seq IN (9, 10) ORDER BY seq").await;
    assert_eq!(found, [json!({"seq": 9, "empty": true}), json!({"seq": 10, "empty": false})]);
    let counts = query(&app, "SELECT count(host) AS n, count(*) AS c, count(score) AS s FROM requests").await;
    // The newer one has a null as well, of row 14.
    assert_eq!((&counts[0]["n"], &counts[0]["c"]), (&json!(9), &json!(20)));
    assert_eq!(query(&app, "SELECT count(*) AS c FROM requests WHERE host IS NULL").await, [json!({"c": 11})]);
    assert_eq!(query(&app, "SELECT host FROM requests WHERE host IS NULL LIMIT 3").await.len(), 3);
    assert_eq!(query(&app, "SELECT host FROM requests").await.len(), 20);
}

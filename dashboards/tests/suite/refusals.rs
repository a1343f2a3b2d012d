//! What is not answered, and what is said instead.

use std::time::Duration;

use axum::http::StatusCode;
use dashboards::Limits;
use serde_json::Value;

use crate::common::{post, query, with_rows};

async fn refusal(sql: &str) -> (StatusCode, Value) {
    let app = with_rows(100, Limits::default());
    let reply = post(&app, "*/*", sql).await;
    (reply.status, reply.json())
}

/// Each of these made the allocator give up, which ends the process.
#[tokio::test]
async fn arguments_cannot_ask_for_huge_allocations() {
    let app = with_rows(5_000, Limits::default());
    for sql in [
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(2147483647)') FROM requests",
        "SELECT approx_percentile_cont(0.5, 1000000000000) WITHIN GROUP (ORDER BY seq) FROM requests",
    ] {
        assert_eq!(post(&app, "*/*", sql).await.status, StatusCode::BAD_REQUEST, "{sql}");
    }
    let quoted = vec!["\"concat\"(path, path)"; 40].join(", ");
    assert_eq!(post(&app, "*/*", &format!("SELECT {quoted} FROM requests")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn statements_that_write_or_configure_are_forbidden() {
    let directory = tempfile::tempdir().expect("directory");
    let target = directory.path().join("out.csv");
    let copy = format!("COPY (SELECT * FROM requests) TO '{}' STORED AS CSV", target.display());
    let statements = [
        copy.as_str(),
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE EXTERNAL TABLE p (line VARCHAR) STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f(INT) RETURNS INT RETURN $1",
        "INSERT INTO requests SELECT * FROM requests",
        "UPDATE requests SET host = 'x'",
        "DELETE FROM requests",
        "DROP TABLE requests",
        "TRUNCATE TABLE requests",
        "SET datafusion.execution.enable_recursive_ctes = true",
        "RESET datafusion.execution.batch_size",
        "PREPARE p AS SELECT 1",
        "BEGIN",
        "EXPLAIN ANALYZE INSERT INTO requests SELECT * FROM requests",
        "SELECT * INTO t FROM requests",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT * FROM (WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT i FROM n)",
        "SELECT count(*) FROM requests GROUP BY CUBE(seq, host, path)",
        "SELECT count(*) FROM requests GROUP BY ROLLUP(host, path)",
        "SELECT 1 WHERE 1 IN (SELECT count(*) FROM requests GROUP BY GROUPING SETS ((host), (path)))",
        "SELECT * FROM generate_series(1, 200000000)",
        "SELECT * FROM range(1, 200000000)",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
    ];
    for sql in statements {
        let (status, body) = refusal(sql).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{sql}: {body}");
        assert!(body["error"].as_str().is_some_and(|e| !e.is_empty()), "{sql}: {body}");
    }
    assert!(!target.exists(), "COPY wrote a file");
}

#[tokio::test]
async fn files_are_out_of_reach() {
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM datafusion.public.\"/etc/passwd\"",
        "SELECT input_file_name() FROM requests",
    ] {
        let (status, body) = refusal(sql).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{sql}: {body}");
    }
}

#[tokio::test]
async fn functions_that_amplify_are_not_served_or_bounded() {
    let kib = "x".repeat(1024);
    let doubling = format!(
        "WITH a AS (SELECT concat(x, x, x, x, x, x, x, x) AS x FROM (SELECT '{kib}' AS x)), \
         b AS (SELECT concat(x, x, x, x, x, x, x, x) AS x FROM a), c AS (SELECT x || x || x || x || x || x || x || x AS x FROM b), \
         d AS (SELECT concat(x, x, x, x, x, x, x, x) AS x FROM c), e AS (SELECT concat(x, x, x, x, x, x, x, x) AS x FROM d) \
         SELECT length(x) FROM e"
    );
    let long = "y".repeat(30_000);
    let replace = format!("SELECT max(length(replace(replace(path, 'p', '{long}'), 'y', '{long}'))) FROM requests");
    let per_row =
        format!("SELECT max(length(path || '{long}' || '{long}')) FROM requests a, (SELECT 1 FROM requests) b");
    for sql in [
        "SELECT length(repeat('x', 1500000000))",
        "SELECT lpad('x', 1500000000)",
        "SELECT rpad('x', 1500000000)",
        "SELECT array_length(generate_series(1, 200000000))",
        "SELECT string_agg(path, ',') FROM requests",
        "SELECT array_agg(path) FROM requests",
        "SELECT regexp_replace(path, '.', '$0$0$0$0$0$0$0$0$0$0$0$0', 'g') FROM nowhere",
        doubling.as_str(),
        replace.as_str(),
        per_row.as_str(),
    ] {
        let (status, body) = refusal(sql).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{}: {body}", &sql[..sql.len().min(60)]);
    }
}

#[tokio::test]
async fn statements_of_exponential_plans_are_refused_before_they_are_planned() {
    let mut sql = "WITH c0 AS (SELECT * FROM requests)".to_owned();
    for n in 1..20 {
        sql.push_str(&format!(", c{n} AS (SELECT a.* FROM c{} a, c{} b)", n - 1, n - 1));
    }
    let (status, body) = refusal(&format!("{sql} SELECT count(*) FROM c19")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"], "the statement has more than 8 common table expressions");
    let joins = vec!["requests"; 30].join(", ");
    assert_eq!(refusal(&format!("SELECT 1 FROM {joins}")).await.0, StatusCode::BAD_REQUEST);
    let concats = vec!["path"; 60].join(" || ");
    assert_eq!(refusal(&format!("SELECT {concats} FROM requests")).await.0, StatusCode::BAD_REQUEST);
    for separator in ["+", " AND ", " UNION ALL SELECT ", " || ", "=", "::INT::", " - -"] {
        let chain = format!("SELECT {}", vec!["1"; 64_000 / (1 + separator.len())].join(separator));
        assert_eq!(refusal(&chain).await.0, StatusCode::BAD_REQUEST, "{separator}");
    }
    let many: Vec<String> = (0..9000).map(|n| n.to_string()).collect();
    let app = with_rows(100, Limits { timeout: Duration::from_secs(120), ..Limits::default() });
    let list = format!("SELECT count(*) AS n FROM requests WHERE seq IN ({})", many.join(","));
    assert_eq!(query(&app, &list).await, [serde_json::json!({"n": 100})]);
    let near_limit = format!("SELECT {} AS n", vec!["1"; 900].join("+"));
    assert_eq!(query(&app, &near_limit).await, [serde_json::json!({"n": 900})]);
    let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(refusal(&deep).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn errors_name_what_was_probably_meant() {
    let (status, body) = refusal("SELECT * FROM request").await;
    assert_eq!(
        (status, &body["error"], &body["help"]),
        (StatusCode::BAD_REQUEST, &"table 'request' not found".into(), &"did you mean `requests`?".into())
    );
    let (_, body) = refusal("SELECT * FROM zzz").await;
    assert_eq!(body["help"], "there are: requests, detections");
    let (_, body) = refusal("SELECT hots FROM requests").await;
    assert!(body["error"].as_str().is_some_and(|e| e.contains("host")), "{body}");
    let (_, body) = refusal("SELECT lengt(host) FROM requests").await;
    assert!(body["error"].as_str().is_some_and(|e| e.contains("Did you mean")), "{body}");
    for sql in ["SELEC 1", "", "SELECT 1; SELECT 2", "SELECT 'a", "SELECT CAST('x' AS INT)", "SELECT 1 / 0"] {
        let (status, body) = refusal(sql).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{sql}: {body}");
    }
}

#[tokio::test]
async fn reading_statements_are_served() {
    let app = with_rows(100, Limits::default());
    for sql in [
        "SELECT 1",
        "VALUES (1, 'a'), (2, 'b')",
        "WITH t AS (SELECT host, count(*) AS n FROM requests GROUP BY host) SELECT * FROM t ORDER BY n DESC",
        "EXPLAIN SELECT * FROM requests",
        "EXPLAIN ANALYZE SELECT count(*) FROM requests",
        "DESCRIBE requests",
        "SHOW TABLES",
        "SELECT table_name FROM information_schema.tables",
        "SELECT path || '!' AS p, regexp_replace(path, '[0-9]+', 'N') AS r, concat_ws('-', host, path) FROM requests",
        "SELECT seq, lag(seq) OVER (ORDER BY seq) FROM requests",
        "SELECT approx_median(score), stddev(score), count(*) FILTER (WHERE host IS NULL) FROM requests",
    ] {
        assert!(!query(&app, sql).await.is_empty(), "{sql}");
    }
    let null = query(&app, "SELECT NULL || 'a' AS n, 'a' || 'b' AS ab, 1 || 'x' AS x").await;
    assert_eq!(null, [serde_json::json!({"n": null, "ab": "ab", "x": "1x"})]);
}

#[tokio::test]
async fn regular_expressions_are_constant_and_bounded() {
    let long = format!("SELECT count(*) FROM requests WHERE path ~ '{}'", "x".repeat(1001));
    for sql in [
        "SELECT count(*) FROM requests WHERE regexp_like(path, concat(path, 'x{1000}'))",
        "SELECT count(*) FROM requests WHERE path ~ (path || 'x')",
        "SELECT regexp_replace(path, host, '') FROM requests",
        "SELECT count(*) FROM requests WHERE path ~ '('",
        "SELECT count(*) FROM requests WHERE path ~ '((\\w{100}){100}){100}'",
        "SELECT count(*) FROM requests WHERE path SIMILAR TO host",
        long.as_str(),
    ] {
        let (status, body) = refusal(sql).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{sql}: {body}");
        assert!(body["error"].as_str().is_some_and(|error| error.contains("regular expression")), "{sql}: {body}");
    }
}

/// What DataFusion calls an internal error is a statement that it cannot evaluate.
#[tokio::test]
async fn what_cannot_be_evaluated_is_the_statements_fault() {
    for sql in [
        "SELECT substr(path, seq) FROM requests",
        "SELECT log(false, -1)",
        "SELECT count(*) FROM requests WHERE time BETWEEN 1.5 AND 'x'",
    ] {
        let (status, body) = refusal(sql).await;
        assert!([StatusCode::OK, StatusCode::BAD_REQUEST].contains(&status), "{sql}: {status} {body}");
        assert!(!body.to_string().contains("likely caused by a bug"), "{sql}: {body}");
    }
}

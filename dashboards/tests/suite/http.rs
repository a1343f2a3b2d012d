//! Formats, headers, and the routes without SQL.

use arrow::ipc::reader::StreamReader;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use dashboards::{Limits, State, app};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use serde_json::{Value, json};

use crate::common::{get, post, post_to, rows, send, service, table, with_rows};
use crate::limits::until_running;

const FOUR: &str = "SELECT seq, host, path, score, time FROM requests ORDER BY seq LIMIT 4";

#[tokio::test]
async fn every_format_has_the_same_rows() {
    let app = with_rows(10, Limits::default());
    let reply = post(&app, "application/json", FOUR).await;
    assert_eq!(reply.header("content-type"), "application/json");
    let body = reply.json();
    assert_eq!(body["columns"][0], json!({"name": "seq", "type": "UInt64"}));
    let second = json!({"seq": 1, "host": "h1.example", "path": "/p/1", "score": 0.25, "time": "2026-03-01T00:00:01Z"});
    assert_eq!(body["rows"][1], second);
    assert_eq!(body["rows"][0]["host"], Value::Null);
    assert!(body["elapsed_ms"].as_f64().is_some_and(|ms| ms >= 0.0));

    let reply = post(&app, "application/x-ndjson", FOUR).await;
    let lines: Vec<Value> = reply.text().lines().map(|l| serde_json::from_str(l).expect("json")).collect();
    assert_eq!(Value::from(lines), body["rows"]);

    let reply = post(&app, "text/csv", FOUR).await;
    assert!(reply.header("content-type").starts_with("text/csv"));
    let lines: Vec<&str> = reply.text().lines().collect();
    assert_eq!(
        lines[..3],
        ["seq,host,path,score,time", "0,,/p/0,,2026-03-01T00:00:00Z", "1,h1.example,/p/1,0.25,2026-03-01T00:00:01Z"]
    );

    let reply = post(&app, "application/vnd.apache.arrow.stream", FOUR).await;
    let batches: Vec<_> =
        StreamReader::try_new(reply.body.as_slice(), None).expect("stream").map(|b| b.expect("batch")).collect();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 4);

    assert_eq!(post(&app, "image/png", FOUR).await.status, StatusCode::NOT_ACCEPTABLE);
    let empty = "SELECT host FROM requests WHERE seq < 0";
    assert_eq!(post(&app, "application/json", empty).await.json()["rows"], json!([]));
    assert_eq!(post(&app, "text/csv", empty).await.text(), "host\n");
}

#[tokio::test]
async fn a_csv_is_the_data_and_one_for_a_spreadsheet_has_no_formulas() {
    let app = with_rows(1, Limits::default());
    let sql = "SELECT * FROM (VALUES ('=1+1', -1, 'a\"b,c'), ('+x', 2, '@y'), ('-z', 3, chr(9) || 'tab'), (NULL, 4, 'a=b')) AS t(\"=a\", n, s)";
    let plain = "=a,n,s\n=1+1,-1,\"a\"\"b,c\"\n+x,2,@y\n-z,3,\ttab\n,4,a=b\n";
    assert_eq!(post(&app, "text/csv", sql).await.text(), plain);
    let reply = post_to(&app, "/sql?csv=spreadsheet", "text/csv", sql).await;
    assert_eq!(reply.text(), "'=a,n,s\n'=1+1,-1,\"a\"\"b,c\"\n'+x,2,'@y\n'-z,3,\\ttab\n,4,a=b\n");
    assert_eq!(post_to(&app, "/sql?csv=excel", "text/csv", sql).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn columns_of_equal_names_are_told_apart_in_every_format() {
    let app = with_rows(3, Limits::default());
    let sql = "SELECT a.path, b.path, a.seq, c.path FROM requests a JOIN requests b ON a.seq = b.seq + 1 JOIN requests c ON a.seq = c.seq WHERE a.seq = 2";
    let row = json!({"path": "/p/2", "b.path": "/p/1", "seq": 2, "c.path": "/p/2"});
    let body = post(&app, "application/json", sql).await.json();
    assert_eq!(body["rows"], json!([row]));
    let names: Vec<&str> =
        body["columns"].as_array().expect("list").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["path", "b.path", "seq", "c.path"]);
    let lines = post(&app, "application/x-ndjson", sql).await;
    assert_eq!(serde_json::from_str::<Value>(lines.text()).expect("json"), row);
    assert!(post(&app, "text/csv", sql).await.text().starts_with("path,b.path,seq,c.path\n"));
    let arrow = post(&app, "application/vnd.apache.arrow.stream", sql).await;
    let schema = StreamReader::try_new(arrow.body.as_slice(), None).expect("stream").schema();
    assert_eq!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), names);
    let all = post(&app, "application/json", "SELECT * FROM requests a JOIN requests b ON a.seq = b.seq").await;
    assert_eq!(all.json()["rows"][0]["b.path"], "/p/0");
}

#[tokio::test]
async fn whole_numbers_keep_their_value_for_javascript() {
    let app = with_rows(1, Limits::default());
    let sql = "SELECT 9007199254740993 AS big, -1 AS small, cast(NULL AS bigint) AS none, cast(7 AS int) AS short, 18446744073709551615 AS most, 0.5 AS half, time FROM requests";
    let reply = post(&app, "application/json", sql).await;
    assert!(reply.text().contains("\"big\":9007199254740993"), "{}", reply.text());
    let row = json!({"big": "9007199254740993", "small": "-1", "none": null, "short": 7, "most": "18446744073709551615", "half": 0.5, "time": "2026-03-01T00:00:00Z"});
    let reply = post_to(&app, "/sql?integers=string", "application/json", sql).await;
    let body = reply.json();
    assert_eq!(body["rows"][0], row);
    assert_eq!(body["columns"][0], json!({"name": "big", "type": "Int64"}));
    let lines = post_to(&app, "/sql?integers=string", "application/x-ndjson", sql).await;
    assert_eq!(serde_json::from_str::<Value>(lines.text()).expect("json"), row);
    assert_eq!(post_to(&app, "/sql?integers=text", "*/*", sql).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn sql_by_get_says_what_to_do() {
    let app = with_rows(1, Limits::default());
    for method in ["GET", "PUT", "DELETE"] {
        let request = Request::builder().method(method).uri("/sql").body(Body::empty()).expect("request");
        let reply = send(&app, request).await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (StatusCode::METHOD_NOT_ALLOWED, if method == "GET" { "" } else { "GET, POST" })
        );
        assert!(reply.json()["error"].as_str().is_some_and(|e| e.contains("POST")), "{}", reply.text());
        assert!(reply.json()["help"].as_str().is_some_and(|h| h.contains("curl")), "{}", reply.text());
    }
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let app = with_rows(1, Limits::default());
    for path in ["/", "/assets/app.js", "/tables", "/health", "/nowhere", "/assets/../Cargo.toml"] {
        let reply = get(&app, path).await;
        assert!(reply.header("content-security-policy").starts_with("default-src 'self';"), "{path}");
        assert!(!reply.header("content-security-policy").contains("unsafe"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{path}");
    }
    assert_eq!(get(&app, "/nowhere").await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&app, "/assets/../Cargo.toml").await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&app, "/sql").await.status, StatusCode::METHOD_NOT_ALLOWED, "without a statement");
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_has_nothing_inline() {
    let app = with_rows(1, Limits::default());
    let page = get(&app, "/").await;
    let html = page.text();
    assert!(page.header("content-type").starts_with("text/html"));
    for inline in ["<style", "style=", "onclick=", "onload=", "javascript:", "http://", "https://"] {
        assert!(!html.contains(inline), "{inline}");
    }
    let attribute =
        |name: &str| html.split(&format!("{name}=\"")).skip(1).filter_map(|s| s.split('"').next()).collect::<Vec<_>>();
    let links: Vec<&str> =
        attribute("src").into_iter().chain(attribute("href")).filter(|l| l.starts_with("/assets/")).collect();
    assert!(links.len() >= 4, "{links:?}");
    for link in links {
        let file = get(&app, link).await;
        assert_eq!(file.status, StatusCode::OK, "{link}");
        let again =
            Request::get(link).header("if-none-match", file.header("etag")).body(Body::empty()).expect("request");
        assert_eq!(send(&app, again).await.status, StatusCode::NOT_MODIFIED, "{link}");
    }
    assert!(!html.contains("<script>"), "scripts are files");
}

#[tokio::test]
async fn another_sites_page_cannot_send_queries() {
    let app = with_rows(1, Limits::default());
    for site in ["cross-site", "same-site"] {
        let request =
            Request::post("/sql").header("sec-fetch-site", site).body(Body::from("SELECT 1")).expect("request");
        assert_eq!(send(&app, request).await.status, StatusCode::FORBIDDEN);
    }
    // Where the service listens on a plain-HTTP address other than loopback, browsers say it by Origin alone.
    let post = |host: &str, origin: &str, ty: &str, body: &'static str| {
        let request = Request::post("/sql").header("host", host).header("origin", origin).header("content-type", ty);
        request.body(Body::from(body)).expect("request")
    };
    let (own, json) = ("192.0.2.1:8080", "application/json");
    for (request, status) in [
        (post(own, "http://evil.example", "text/plain", "SELECT 1"), StatusCode::FORBIDDEN),
        (post(own, "null", "application/sql", "SELECT 1"), StatusCode::FORBIDDEN),
        (post(own, "http://192.0.2.1:8080", "text/plain", "SELECT 1"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (post(own, "http://192.0.2.1:8080", "application/sql", "SELECT 1"), StatusCode::OK),
        (post(own, "http://192.0.2.1:8080", json, "{\"query\": \"SELECT 1\"}"), StatusCode::OK),
        (post(own, "http://192.0.2.1:8080", json, "{\"sql\": 1}"), StatusCode::BAD_REQUEST),
    ] {
        let shown = format!("{:?}", request.headers());
        assert_eq!(send(&app, request).await.status, status, "{shown}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_ours_gets_nothing() {
    let app = with_rows(1, Limits::default());
    for (host, status) in [
        ("127.0.0.1:8080", StatusCode::OK),
        ("[::1]:8080", StatusCode::OK),
        ("localhost", StatusCode::OK),
        ("dash.example.test", StatusCode::OK),
        ("evil.example", StatusCode::FORBIDDEN),
        ("127.0.0.1.evil.example:8080", StatusCode::FORBIDDEN),
        ("a b", StatusCode::FORBIDDEN),
    ] {
        for path in ["/tables", "/status", "/"] {
            let request = Request::get(path).header("host", host).body(Body::empty()).expect("request");
            assert_eq!(send(&app, request).await.status, status, "{host} {path}");
        }
    }
}

#[tokio::test]
async fn readiness_follows_the_run_and_health_does_not() {
    let service = service(vec![table("requests")], Limits::default());
    let status = service.status.clone();
    let app = app(service).expect("app");
    for (state, ready) in [
        (State::Starting, StatusCode::SERVICE_UNAVAILABLE),
        (State::Running, StatusCode::OK),
        (State::Finished, StatusCode::OK),
        (State::Failed("disk full".to_owned()), StatusCode::SERVICE_UNAVAILABLE),
    ] {
        status.set(state.clone());
        let reply = get(&app, "/ready").await;
        assert_eq!((reply.status, reply.text().trim()), (ready, state.name()));
        assert_eq!(get(&app, "/health").await.status, StatusCode::OK);
    }
    let info = get(&app, "/status").await.json();
    assert_eq!(
        (&info["pipeline"], &info["state"], &info["message"]),
        (&"test".into(), &"failed".into(), &"disk full".into())
    );
    assert_eq!(info["nodes"][0]["id"], "packets");
}

#[tokio::test]
async fn metrics_count_requests_and_queries() {
    let app = with_rows(1, Limits::default());
    post(&app, "*/*", "SELECT 1").await;
    post(&app, "*/*", "SELEC 1").await;
    // A place is held until the last byte of an answer is passed on.
    until_running(&app, 0).await;
    let reply = get(&app, "/metrics").await;
    for line in [
        "ja4_engine_sql_queries_total 2",
        "ja4_engine_sql_errors_total 1",
        "ja4_engine_sql_running 0",
        "ja4_engine_node_rows_in_total{node=\"packets\",kind=\"source.pcap\"} 0",
    ] {
        assert!(reply.text().lines().any(|l| l == line), "{line}\n{}", reply.text());
    }
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn a_statement_may_be_in_the_address() {
    let app = with_rows(10, Limits::default());
    let reply = get(&app, "/sql?query=SELECT%20count(*)%20AS%20n%20FROM%20requests&integers=string").await;
    assert_eq!((reply.status, &reply.json()["rows"]), (StatusCode::OK, &json!([{ "n": "10" }])), "{}", reply.text());
    let elsewhere = Request::get("/sql?query=SELECT%201").header("sec-fetch-site", "cross-site");
    let reply = send(&app, elsewhere.body(Body::empty()).expect("request")).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn values_are_bound_and_never_part_of_the_text() {
    let app = with_rows(10, Limits::default());
    let ask = |body: Value| {
        let request = Request::post("/sql").header("content-type", "application/json");
        request.body(Body::from(body.to_string())).expect("request")
    };
    let sql = "SELECT count(*) AS n FROM requests WHERE path = $path OR seq = $seq OR time >= $from";
    for (path, seq, from, n) in
        [("/p/1", 2, json!(null), 2), ("x' OR 1=1 --", -1, json!(null), 0), ("", -1, json!("2026-03-01T00:00:07Z"), 3)]
    {
        let parameters = json!({ "path": path, "seq": seq, "from": from });
        let reply = send(&app, ask(json!({ "query": sql, "parameters": parameters }))).await;
        assert_eq!((reply.status, &reply.json()["rows"]), (StatusCode::OK, &json!([{ "n": n }])), "{}", reply.text());
    }
    let reply = send(&app, ask(json!({ "query": sql, "parameters": { "path": [1] } }))).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let reply = send(&app, ask(json!({ "query": "SELECT $a" }))).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text());
}

#[tokio::test]
async fn rows_come_as_tsv_and_parquet() {
    let app = with_rows(3, Limits::default());
    let sql = "SELECT seq, host, 'a' || chr(9) || 'b\\' AS t FROM requests ORDER BY seq";
    let reply = post(&app, "text/tab-separated-values", sql).await;
    assert_eq!(reply.text(), "seq\thost\tt\n0\t\\N\ta\\tb\\\\\n1\th1.example\ta\\tb\\\\\n2\th2.example\ta\\tb\\\\\n");
    let reply = post(&app, "application/vnd.apache.parquet", "SELECT * FROM requests ORDER BY seq").await;
    let reader = ParquetRecordBatchReader::try_new(axum::body::Bytes::from(reply.body), 1024).expect("a Parquet file");
    let came: Vec<_> = reader.map(|batch| batch.expect("rows")).collect();
    assert_eq!((came.len(), came[0].num_rows()), (1, 3));
    assert_eq!(came[0].column_by_name("path"), rows(0, 3).column_by_name("path"));
}

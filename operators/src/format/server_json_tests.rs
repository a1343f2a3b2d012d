//! Lines as Caddy, Envoy, Traefik and Cloudflare write them, and the rows that they become.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use super::super::{Format, LineParser, Rows, Unit};

/// 2026-11-23T16:00:00Z.
const NOW: i64 = 1_795_449_600_000_000_000;

fn row(format: &Arc<Format>, line: &str) -> Result<RecordBatch, String> {
    let mut parser = LineParser::new(Arc::clone(format), NOW);
    let mut rows = Rows::new(format);
    rows.push(1, &parser.parse(line.as_bytes()).map_err(|reject| reject.to_string())?);
    Ok(rows.take().expect("rows fit"))
}

fn text(row: &RecordBatch, name: &str) -> String {
    let column = row.column_by_name(name).unwrap_or_else(|| panic!("a column {name}"));
    if column.is_null(0) { "null".to_owned() } else { array_value_to_string(column, 0).expect("shown") }
}

/// Each of these columns has this value, and all others but `seq` and `repaired` are null.
fn assert_row(row: &RecordBatch, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(text(row, name), *value, "{name}");
    }
    for field in row.schema().fields() {
        let name = field.name().as_str();
        if !["seq", "repaired"].contains(&name) && expected.iter().all(|(known, _)| *known != name) {
            assert_eq!(text(row, name), "null", "{name}");
        }
    }
}

const CADDY: &str = r#"{"level":"info","ts":1795448127.6437,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"2001:db8::7","remote_port":"41342","client_ip":"203.0.113.9","proto":"HTTP/2.0","method":"GET","host":"WWW.example.test:8443","uri":"/a%20b?c=d&e","headers":{"User-Agent":["curl/8.5.0"],"Accept":["text/html","*/*"],"X-Forwarded-For":["203.0.113.9, 198.51.100.1","192.0.2.1"],"Sec-Ch-Ua-Mobile":["?0"],"Cookie":["REDACTED"],"Authorization":["REDACTED"],"Accept-Language":[""]},"tls":{"resumed":false,"version":772,"cipher_suite":4865,"proto":"h2","server_name":"www.example.test"}},"bytes_read":0,"user_id":"","duration":0.5,"size":10900,"status":200,"resp_headers":{"Server":["Caddy"]}}"#;

#[test]
fn caddy() {
    let row = row(&Format::caddy(Unit::S), CADDY).expect("a row");
    assert_row(
        &row,
        &[
            ("time", "2026-11-23T15:35:27.643700Z"),
            ("begin_time", "2026-11-23T15:35:27.143700Z"),
            ("src_ip", "2001:db8::7"),
            ("src_port", "41342"),
            ("method", "GET"),
            ("host", "www.example.test"),
            ("path", "/a%20b"),
            ("query", "c=d&e"),
            ("http_version", "HTTP/2.0"),
            ("status_code", "200"),
            ("response_size", "10900"),
            ("duration_ms", "500"),
            ("header_user_agent", "curl/8.5.0"),
            ("header_accept", "text/html, */*"),
            ("header_x_forwarded_for", "203.0.113.9, 198.51.100.1, 192.0.2.1"),
            ("header_sec_ch_ua_mobile", "?0"),
            ("has_cookie", "true"),
            ("server_tls_version", "772"),
            ("server_tls_cipher", "4865"),
            ("server_tls_sni", "www.example.test"),
        ],
    );
}

#[test]
fn caddy_without_tls_without_headers_and_with_other_times() {
    let line = |ts: Value, request: Value| json!({ "ts": ts, "duration": 0.25, "request": request }).to_string();
    let request = json!({ "remote_ip": "192.0.2.1", "remote_port": "5", "uri": "/", "headers": { "Accept": ["a"] } });
    let format = Format::caddy(Unit::S);
    let date = row(&format, &line(json!("2026-11-23T15:35:27.500Z"), request.clone())).expect("a row");
    assert_eq!(text(&date, "begin_time"), "2026-11-23T15:35:27.250Z");
    assert_eq!((text(&date, "has_cookie"), text(&date, "server_tls_version")), ("false".into(), "null".into()));
    // As Caddy before 2.8 leaves values out.
    for redacted in [r#""Cookie":[],"#, r#""Cookie":[ ],"#, r#""Cookie":["REDACTED"],"#] {
        let line = line(json!("2026-11-23T15:35:27.500Z"), request.clone());
        for line in [&line, &line.replace("\"uri\":\"/\"", "\"uri\":\"/\\x20\"")] {
            let line = line.replace("\"headers\":{", &format!("\"headers\":{{{redacted}"));
            assert_eq!(text(&row(&format, &line).expect("a row"), "has_cookie"), "true", "{line}");
        }
    }
    let bare = json!({ "remote_ip": "192.0.2.1", "remote_port": "5" });
    let bare = row(&format, &line(json!(1_795_448_127), bare)).expect("a row");
    assert_eq!((text(&bare, "has_cookie"), text(&bare, "path")), ("null".into(), "null".into()));
    let other = row(&Format::caddy(Unit::Ms), &line(json!(1_795_448_127_500.25), request)).expect("a row");
    assert_eq!(text(&other, "time"), "2026-11-23T15:35:27.500250Z");
    let error = row(&format, &line(json!(1_795_448_127), json!({}))).expect_err("no client");
    assert_eq!(error, "`request.remote_ip` is missing");
}

const ENVOY: &str = r#"{"start_time":"2026-11-23T15:35:27.143Z","method":"POST","path":"/login?next=/","protocol":"HTTP/2","response_code":302,"response_flags":"-","bytes_received":12,"bytes_sent":345,"duration":87,"upstream_service_time":"80","x_forwarded_for":"203.0.113.9,198.51.100.1","user_agent":"Mozilla/5.0","request_id":"b5c","authority":"www.example.test:443","upstream_host":"10.0.0.1:80","downstream_remote_address":"203.0.113.9:0","downstream_direct_remote_address":"[2001:db8::7]:41342","downstream_local_address":"192.0.2.10:8443","requested_server_name":"www.example.test","downstream_tls_version":"TLSv1.3","downstream_tls_cipher":"TLS_AES_128_GCM_SHA256","tls_ja4_fingerprint":"t13d1516h2_8daaf6152771_b186095e22b6","tls_ja3_fingerprint":"773906b0efdefa24a7f2b8eb6985bf37","header_Accept":"*/*","header_Sec-Fetch-Mode":null}"#;

#[test]
fn envoy() {
    let row = row(&Format::envoy_json(Unit::S), ENVOY).expect("a row");
    assert_row(
        &row,
        &[
            ("time", "2026-11-23T15:35:27.230Z"),
            ("begin_time", "2026-11-23T15:35:27.143Z"),
            ("src_ip", "2001:db8::7"),
            ("src_port", "41342"),
            ("dst_ip", "192.0.2.10"),
            ("dst_port", "8443"),
            ("method", "POST"),
            ("host", "www.example.test"),
            ("path", "/login"),
            ("query", "next=/"),
            ("http_version", "HTTP/2"),
            ("status_code", "302"),
            ("response_size", "345"),
            ("duration_ms", "87"),
            ("header_user_agent", "Mozilla/5.0"),
            ("header_accept", "*/*"),
            ("header_x_request_id", "b5c"),
            ("header_x_forwarded_for", "203.0.113.9,198.51.100.1"),
            ("server_tls_version", "TLSv1.3"),
            ("server_tls_cipher", "TLS_AES_128_GCM_SHA256"),
            ("server_tls_sni", "www.example.test"),
            ("server_ja4", "t13d1516h2_8daaf6152771_b186095e22b6"),
            ("server_ja3", "773906b0efdefa24a7f2b8eb6985bf37"),
        ],
    );
}

#[test]
fn envoy_without_a_client_has_no_row() {
    for address in ["/run/envoy.socket", "envoy://internal/", "", "-"] {
        let line = json!({ "start_time": "2026-11-23T15:35:27.143Z", "downstream_remote_address": address });
        let error = row(&Format::envoy_json(Unit::S), &line.to_string()).expect_err(address);
        assert_eq!(error, "`src_ip` is missing", "{address}");
    }
}

const TRAEFIK: &str = r#"{"ClientAddr":"[2001:db8::7]:41342","ClientHost":"203.0.113.9","ClientPort":"41342","ClientUsername":"-","DownstreamContentSize":43,"DownstreamStatus":200,"Duration":87654321,"OriginContentSize":43,"OriginDuration":80000000,"OriginStatus":200,"Overhead":7654321,"RequestAddr":"www.example.test","RequestContentSize":0,"RequestCount":1,"RequestHost":"www.example.test","RequestMethod":"GET","RequestPath":"/a?b","RequestPort":"-","RequestProtocol":"HTTP/2.0","RequestScheme":"https","RetryAttempts":0,"RouterName":"web@file","ServiceAddr":"10.0.0.1:80","StartLocal":"2026-11-23T16:35:27.143731829+01:00","StartUTC":"2026-11-23T15:35:27.143731829Z","TLSCipher":"TLS_AES_128_GCM_SHA256","TLSVersion":"1.3","entryPointName":"websecure","level":"info","msg":"","request_User-Agent":"curl/8.5.0","request_Sec-Ch-Ua":"\"x\"","request_Cookie":"REDACTED","time":"2026-11-23T15:35:27Z"}"#;

#[test]
fn traefik() {
    let row = row(&Format::traefik(Unit::S), TRAEFIK).expect("a row");
    assert_row(
        &row,
        &[
            ("time", "2026-11-23T15:35:27.230731829Z"),
            ("begin_time", "2026-11-23T15:35:27.143731829Z"),
            ("src_ip", "2001:db8::7"),
            ("src_port", "41342"),
            ("method", "GET"),
            ("scheme", "https"),
            ("host", "www.example.test"),
            ("path", "/a"),
            ("query", "b"),
            ("http_version", "HTTP/2.0"),
            ("status_code", "200"),
            ("response_size", "43"),
            ("duration_ms", "87"),
            ("header_user_agent", "curl/8.5.0"),
            ("header_sec_ch_ua", "\"x\""),
            ("has_cookie", "true"),
            ("server_tls_version", "1.3"),
            ("server_tls_cipher", "TLS_AES_128_GCM_SHA256"),
        ],
    );
}

fn cloudflare(start: &Value, end: &Value) -> String {
    json!({
        "BotScore": 2, "BotTags": [], "ClientIP": "2001:db8::7", "ClientSrcPort": 41342, "ClientRequestHost": "www.example.test",
        "ClientRequestMethod": "GET", "ClientRequestURI": "/a?b=c", "ClientRequestPath": "/a", "ClientRequestProtocol": "HTTP/3",
        "ClientRequestScheme": "https", "ClientRequestUserAgent": "curl/8.5.0", "ClientRequestReferer": "",
        "ClientSSLProtocol": "TLSv1.3", "ClientSSLCipher": "AEAD-AES128-GCM-SHA256", "EdgeResponseBytes": 5,
        "EdgeResponseStatus": 403, "EdgeStartTimestamp": start, "EdgeEndTimestamp": end, "JA3Hash": "77390", "JA4": "q13d",
        "RayID": "8f", "RequestHeaders": { "accept": "*/*", "sec-ch-ua-platform": "\"Linux\"" },
    })
    .to_string()
}

#[test]
fn cloudflare_with_each_kind_of_times() {
    let (start, end) = (1_795_448_127_143_000_000_i64, 1_795_448_127_643_000_000_i64);
    for (unit, line) in [
        (Unit::Ns, cloudflare(&json!(start), &json!(end))),
        (Unit::Ns, cloudflare(&json!("2026-11-23T15:35:27.143Z"), &json!("2026-11-23T15:35:27.643Z"))),
        (Unit::S, cloudflare(&json!("2026-11-23T15:35:27.143Z"), &json!("2026-11-23T15:35:27.643Z"))),
    ] {
        let row = row(&Format::cloudflare(unit), &line).expect("a row");
        assert_row(
            &row,
            &[
                ("time", "2026-11-23T15:35:27.643Z"),
                ("begin_time", "2026-11-23T15:35:27.143Z"),
                ("src_ip", "2001:db8::7"),
                ("src_port", "41342"),
                ("method", "GET"),
                ("scheme", "https"),
                ("host", "www.example.test"),
                ("path", "/a"),
                ("query", "b=c"),
                ("http_version", "HTTP/3"),
                ("status_code", "403"),
                ("response_size", "5"),
                ("duration_ms", "500"),
                ("header_user_agent", "curl/8.5.0"),
                ("header_accept", "*/*"),
                ("header_sec_ch_ua_platform", "\"Linux\""),
                ("server_tls_version", "TLSv1.3"),
                ("server_tls_cipher", "AEAD-AES128-GCM-SHA256"),
                ("server_ja4", "q13d"),
                ("server_ja3", "77390"),
                ("server_bot_score", "2"),
            ],
        );
    }
    let seconds = row(&Format::cloudflare(Unit::S), &cloudflare(&json!(1_795_448_127), &json!(1_795_448_128)));
    assert_eq!(text(&seconds.expect("a row"), "duration_ms"), "1000");
    // Of the other unit a number is refused and not taken for another year.
    assert!(row(&Format::cloudflare(Unit::Ns), &cloudflare(&json!(1_795_448_127), &Value::Null)).is_err());
}

#[test]
fn absent_values_are_null() {
    let line = cloudflare(&json!("2026-11-23T15:35:27Z"), &Value::Null).replace("\"TLSv1.3\"", "\"none\"");
    let row = row(&Format::cloudflare(Unit::Ns), &line.replace("\"77390\"", "\"\"")).expect("a row");
    assert_eq!((text(&row, "server_tls_version"), text(&row, "server_ja3")), ("null".into(), "null".into()));
    assert_eq!(text(&row, "header_referer"), "null");
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(43), ..ProptestConfig::default() })]

    /// What a client puts into headers and the target comes into their columns and into no other.
    #[test]
    fn values_of_clients_stay_where_they_belong(values in prop::collection::vec("(?s).{1,20}", 1..6), target in r"/[^?]{0,20}", query in "(?s).{0,20}") {
        prop_assume!(values.iter().all(|value| value != "-"));
        let line = json!({
            "ts": 1_795_448_127.5, "duration": 0.5,
            "request": { "remote_ip": "192.0.2.1", "remote_port": "7", "uri": format!("{target}?{query}"),
                         "headers": { "X-Forwarded-For": values, "Accept": ["a"] } },
        });
        let row = row(&Format::caddy(Unit::S), &line.to_string()).expect("a row");
        prop_assert_eq!(text(&row, "header_x_forwarded_for"), values.join(", "));
        prop_assert_eq!((text(&row, "path"), text(&row, "query")), (target, query));
        prop_assert_eq!((text(&row, "src_ip"), text(&row, "header_accept")), ("192.0.2.1".to_owned(), "a".to_owned()));
    }

    /// A line that is cut off, or has bytes changed, is a row or a refused line.
    #[test]
    fn damaged_lines_do_not_panic(which in 0_usize..3, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let (format, line) = [
            (Format::caddy(Unit::S), CADDY), (Format::envoy_json(Unit::S), ENVOY), (Format::traefik(Unit::S), TRAEFIK),
        ][which].clone();
        let mut bytes = line.as_bytes().to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let _ = LineParser::new(format, NOW).parse(&bytes).map(drop);
    }
}

#[test]
fn a_long_list_of_header_lines_takes_no_longer_than_its_bytes() {
    let values: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
    let line = json!({ "ts": 1_795_448_127, "request": { "remote_ip": "192.0.2.1", "headers": { "Accept": values } } });
    let row = row(&Format::caddy(Unit::S), &line.to_string()).expect("a row");
    assert_eq!(text(&row, "header_accept"), values.join(", "));
}

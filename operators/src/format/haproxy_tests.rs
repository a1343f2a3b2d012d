//! HAProxy's own examples, and that any bytes of a client come back.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::text::tests::{check, refused, row, value, wrong};
use super::*;

fn captures(request: &[&str], response: &[&str]) -> Captures {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Captures { request: names(request), response: names(response) }
}

fn haproxy(log_format: &str, captures: &Captures) -> Arc<Format> {
    let format = Format::haproxy(log_format, captures, Zone::default());
    format.unwrap_or_else(|wrong| panic!("{log_format}: {}", wrong.said(log_format)))
}

#[test]
fn the_examples_of_its_manual() {
    // Section 8.2.3, with what it captures there.
    let format = haproxy(HTTP, &captures(&["Host", "Referer"], &["X-Cache"]));
    check(
        &format,
        "Feb  6 12:14:14 localhost haproxy[14389]: 10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 \
         2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu|} {} \"GET /index.html?a HTTP/1.1\"",
        &[
            ("begin_time", "2009-02-06T12:14:14.655Z"),
            ("time", "2009-02-06T12:14:14.764Z"),
            ("duration_ms", "109"),
            ("src_ip", "10.0.1.2"),
            ("src_port", "33317"),
            ("frontend", "http-in"),
            ("scheme", "http"),
            ("backend", "static"),
            ("server", "srv1"),
            ("status_code", "200"),
            ("response_size", "2750"),
            ("termination_state", "----"),
            ("host", "1wt.eu"),
            ("header_referer", "null"),
            ("response_header_x_cache", "null"),
            ("method", "GET"),
            ("path", "/index.html"),
            ("query", "a"),
            ("http_version", "HTTP/1.1"),
        ],
    );
    let https = haproxy(HTTPS, &Captures::default());
    check(
        &https,
        "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] https-in~ static/<NOSRV> -1/-1/-1/-1/0 400 0 - - PR-- 1/1/0/0/0 0/0 \"<BADREQ>\" \
         0/0/0/0/0 1wt.eu/TLSv1.3/TLS_AES_256_GCM_SHA384",
        &[
            ("scheme", "https"),
            ("frontend", "https-in"),
            ("duration_ms", "0"),
            ("method", "null"),
            ("path", "null"),
            ("server_tls_sni", "1wt.eu"),
            ("server_tls_version", "TLSv1.3"),
            ("server_tls_cipher", "TLS_AES_256_GCM_SHA384"),
        ],
    );
    refused(
        &https,
        "Server static/srv1 is UP.",
        "not a line of this `log-format`: no `%ci` with `:` after it, from byte 0",
    );
}

#[test]
fn the_port_is_behind_the_last_colon_and_times_before_the_request_are_added() {
    let format = haproxy("%ci:%cp %Ts%ms %Th %Ti %Ta %Tt %ST %{+Q}r", &Captures::default());
    check(
        &format,
        "2001:db8::1:5000 1795448127143 3 54 100 157 -1 \"GET / HTTP/1.1\"",
        &[
            ("src_ip", "2001:db8::1"),
            ("src_port", "5000"),
            ("begin_time", "2026-11-23T15:35:27.200Z"),
            ("duration_ms", "100"),
            ("status_code", "null"),
        ],
    );
    check(
        &format,
        "::ffff:192.0.2.1:5000 1795448127143 3 -1 0 3 200 \"\"",
        &[("src_ip", "192.0.2.1"), ("method", "null")],
    );
    let accepted = haproxy("%ci:%cp [%t] %Tt %ST", &Captures::default());
    let zoned =
        Format::haproxy("%ci:%cp [%t] %Tt %ST", &Captures::default(), "+01:00".parse().map(Zone::Fixed).expect("zone"));
    let line = "192.0.2.1:5000 [23/Nov/2026:15:35:27.143] 157 200";
    check(&accepted, line, &[("begin_time", "2026-11-23T15:35:27.143Z"), ("duration_ms", "157")]);
    check(&zoned.expect("a format"), line, &[("begin_time", "2026-11-23T14:35:27.143Z")]);
}

#[test]
fn expressions_are_columns_by_their_names() {
    let format = haproxy(
        "%{+Q,+E}o %ci:%cp %[fc_src,map(x[1])] %trl %Ta %HM %HP %HQ %HU %HV %[capture.req.hdr(1)] %{-Q}[var(txn.has_cookie)] \
         %[var(txn.host)] %[var(txn.header_accept)] %[ssl_fc_sni,lower] %[ssl_fc] %B %U %fi %fp %rt",
        &captures(&["Cookie", "User-Agent"], &[]),
    );
    check(
        &format,
        r#""192.0.2.1":5000 "x" 23/Nov/2026:16:35:27 +0100 12 "GET" "/a" "?b=#22" "/a?b=#22" "HTTP/2.0" "a \"b\" \\ [\]" 0 "WWW.example.test:8443" "*/*" "www" "1" +5 6 "192.0.2.2" 443 9"#,
        &[
            ("src_ip", "192.0.2.1"),
            ("src_port", "5000"),
            ("method", "GET"),
            ("path", "/a"),
            ("query", "b=\""),
            ("http_version", "HTTP/2.0"),
            ("header_user_agent", "a \"b\" \\ []"),
            ("has_cookie", "false"),
            ("host", "www.example.test"),
            ("header_accept", "*/*"),
            ("ssl_fc_sni_lower", "www"),
            ("scheme", "https"),
            ("response_size", "5"),
            ("request_size", "6"),
            ("dst_ip", "192.0.2.2"),
            ("dst_port", "443"),
            ("fc_src_map_x_1", "x"),
        ],
    );
}

#[test]
fn a_wrong_string_is_a_fault_with_its_place() {
    for (log_format, said) in [
        ("%ci:%cp [%tr] %xx", "character 15 of the format: `%xx` is no variable"),
        ("%ci [%tr] %{+Y}r", "character 11 of the format: `+Y` is not understood"),
        ("%ci [%tr] %[src", "character 11 of the format: `%[` without `]`"),
        ("%ci [%tr] %{+Q", "character 11 of the format: `%{` without `}`"),
        ("%cp [%tr]", "it has no address of the client"),
        ("%ci:%cp %ST", "it has no time"),
        ("%ci%cp [%tr]", "nothing tells where `%ci` ends and `%cp` begins"),
    ] {
        wrong(Format::haproxy(log_format, &Captures::default(), Zone::default()), log_format, said);
    }
}

/// As HAProxy's `lf_encode_string` with its map for headers, or for the request line.
fn encoded(bytes: &[u8], also: &[u8]) -> String {
    let is_plain = |byte: u8| (b' '..0x7f).contains(&byte) && !also.contains(&byte);
    bytes
        .iter()
        .map(|byte| if is_plain(*byte) { char::from(*byte).to_string() } else { format!("#{byte:02X}") })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(24), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_of_a_client_come_back(
        agent in proptest::collection::vec(any::<u8>(), 1..60), path in proptest::collection::vec(any::<u8>(), 1..60),
    ) {
        let format = haproxy(HTTP, &captures(&["Referer", "User-Agent"], &[]));
        let line = format!(
            "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] web web/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {{|{}}} \"GET /{}? HTTP/1.1\"",
            encoded(&agent, b"\"#{|}"), encoded(&path, b"\"#"),
        );
        let row = row(&format, line.as_bytes()).map_err(TestCaseError::fail)?;
        if agent != b"-" {
            prop_assert_eq!(value(&row, "header_user_agent"), String::from_utf8_lossy(&agent));
        }
        if !path.contains(&b'?') {
            prop_assert_eq!(value(&row, "path"), format!("/{}", String::from_utf8_lossy(&path)));
        }
        prop_assert_eq!(value(&row, "header_referer"), "null");
    }
}

//! nginx's own examples, and that any bytes of a client come back by each way to escape.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::text::tests::{check, refused, row, value, wrong};
use super::*;

/// The one of its documentation, and of its packages.
const MAIN: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
                    \"$http_user_agent\" \"$http_x_forwarded_for\"";

fn nginx(log_format: &str, escape: NginxEscape) -> Arc<Format> {
    Format::nginx(log_format, escape).unwrap_or_else(|wrong| panic!("{log_format}: {}", wrong.said(log_format)))
}

#[test]
fn the_format_of_its_packages() {
    check(
        &nginx(MAIN, NginxEscape::Default),
        r#"192.0.2.1 - - [23/Nov/2026:16:35:27 +0100] "GET /a?b=\x22c HTTP/2.0" 200 612 "-" "caf\xC3\xA9 \x5Cx" "198.51.100.7""#,
        &[
            ("time", "2026-11-23T15:35:27Z"),
            ("begin_time", "2026-11-23T15:35:27Z"),
            ("src_ip", "192.0.2.1"),
            ("remote_user", "null"),
            ("path", "/a"),
            ("query", "b=\"c"),
            ("http_version", "HTTP/2.0"),
            ("response_size", "612"),
            ("header_referer", "null"),
            ("header_user_agent", "café \\x"),
            ("forwarded_last", "198.51.100.7"),
        ],
    );
}

#[test]
fn every_variable_is_the_column_that_it_should_be() {
    let format = nginx(
        "$msec $request_time $realip_remote_addr:$realip_remote_port $remote_addr $server_addr:${server_port} $scheme $host \
         $request_method \"$request_uri\" $uri $args $server_protocol $status $bytes_sent $request_length $connection \
         $connection_requests $ssl_protocol $ssl_cipher $ssl_server_name \"$http_cookie\" \"$sent_http_content_type\" \
         \"$upstream_addr\" \"$upstream_response_time\" $time_iso8601 $pipe $ja4_has_cookie $zone_name \"$cookie_session\"",
        NginxEscape::Default,
    );
    check(
        &format,
        "1795448127.143 0.100 2001:db8::1:5000 198.51.100.7 192.0.2.2:443 https www.example.test GET \"/a%20b?c=d\" /a-b e HTTP/1.1 \
         404 700 80 12 3 TLSv1.3 TLS_AES_256_GCM_SHA384 www.example.test \"a=b\" \"text/html\" \"10.0.0.1:80, 10.0.0.2:80 : unix:/x\" \
         \"0.004, 0.120 : 0.2\" 2026-11-23T15:35:27+00:00 . 0 eu \"secret\"",
        &[
            ("time", "2026-11-23T15:35:27.143Z"),
            ("begin_time", "2026-11-23T15:35:27.043Z"),
            ("duration_ms", "100"),
            ("src_ip", "2001:db8::1"),
            ("src_port", "5000"),
            ("dst_ip", "192.0.2.2"),
            ("dst_port", "443"),
            ("scheme", "https"),
            ("host", "www.example.test"),
            ("path", "/a%20b"),
            ("query", "c=d"),
            ("status_code", "404"),
            ("bytes_sent", "700"),
            ("request_size", "80"),
            ("connection_number", "12"),
            ("keepalive_index", "3"),
            ("server_tls_version", "TLSv1.3"),
            ("server_tls_sni", "www.example.test"),
            ("has_cookie", "false"),
            ("response_header_content_type", "text/html"),
            ("upstream_addr", "10.0.0.1:80, 10.0.0.2:80 : unix:/x"),
            ("upstream_response_time", "0.004, 0.120 : 0.2"),
            ("zone_name", "eu"),
        ],
    );
    assert!(format.columns.iter().all(|column| !column.name.contains("session")), "a cookie's value goes nowhere");
}

#[test]
fn a_wrong_string_is_a_fault_with_its_place() {
    for (log_format, said) in [
        ("$remote_addr [$time_local] $", "character 28 of the format: `$` without the name"),
        ("$remote_addr [$time_local] ${status", "character 28 of the format: `${` without `}`"),
        ("$remote_addr$status $msec", "character 13 of the format: nothing tells where `$remote_addr` ends"),
        ("$remote_addr $seq $msec", "every stream of requests has its own column `seq`"),
        ("{\"a\":\"$remote_addr\"}", "this `log_format` writes JSON"),
        ("$msec $status", "it has no address of the client"),
        ("$remote_addr $status", "it has no time"),
    ] {
        wrong(Format::nginx(log_format, NginxEscape::Default), log_format, said);
    }
    refused(&nginx("$remote_addr $msec", NginxEscape::Default), "unix: 1795448127.143", "`$remote_addr` is missing");
}

/// As nginx's `ngx_http_log_escape`.
fn by_default(bytes: &[u8]) -> Vec<u8> {
    let one = |byte: &u8| match byte {
        b'"' | b'\\' | ..=31 | 127.. => format!("\\x{byte:02X}").into_bytes(),
        _ => vec![*byte],
    };
    bytes.iter().flat_map(one).collect()
}

/// As nginx's `ngx_escape_json`.
fn as_json(bytes: &[u8]) -> Vec<u8> {
    let one = |byte: &u8| match byte {
        b'"' | b'\\' => vec![b'\\', *byte],
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        b'\t' => b"\\t".to_vec(),
        8 => b"\\b".to_vec(),
        12 => b"\\f".to_vec(),
        ..=31 => format!("\\u{byte:04X}").into_bytes(),
        _ => vec![*byte],
    };
    bytes.iter().flat_map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(23), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_of_a_client_come_back(agent in proptest::collection::vec(any::<u8>(), 1..60)) {
        for (escape, escaped) in [(NginxEscape::Default, by_default as fn(&[u8]) -> Vec<u8>), (NginxEscape::Json, as_json)] {
            let format = nginx("$remote_addr \"$http_user_agent\" $msec \"$http_a\"", escape);
            let line = [&b"192.0.2.1 \""[..], &escaped(&agent), b"\" 1795448127.143 \"", &escaped(&agent), b"\""].concat();
            let row = row(&format, &line).map_err(TestCaseError::fail)?;
            if agent != b"-" {
                prop_assert_eq!(value(&row, "header_user_agent"), String::from_utf8_lossy(&agent));
                prop_assert_eq!(value(&row, "header_a"), String::from_utf8_lossy(&agent));
            }
            prop_assert_eq!(value(&row, "src_ip"), "192.0.2.1");
        }
    }
}

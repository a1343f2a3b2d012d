//! Envoy's own example, and what it does not escape.

use super::super::text::tests::{check, refused, wrong};
use super::*;

#[test]
fn the_example_of_its_documentation() {
    let format = (FORMAT.format)(Unit::S);
    let line = r#"[2016-04-15T20:17:00.310Z] "POST /api/v1/locations?a HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq2http" "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "locations" "tcp://10.0.2.1:80""#;
    check(
        &format,
        line,
        &[
            ("begin_time", "2016-04-15T20:17:00.310Z"),
            ("time", "2016-04-15T20:17:00.536Z"),
            ("duration_ms", "226"),
            ("src_ip", "10.0.35.28"),
            ("src_port", "null"),
            ("method", "POST"),
            ("path", "/api/v1/locations"),
            ("query", "a"),
            ("http_version", "HTTP/2"),
            ("status_code", "204"),
            ("request_size", "154"),
            ("response_size", "0"),
            ("response_flags", "null"),
            ("header_user_agent", "nsq2http"),
            ("header_x_request_id", "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2"),
            ("host", "locations"),
        ],
    );
    check(
        &format,
        &line.replace("10.0.35.28", "junk, 2001:db8::7,10.0.0.9"),
        &[("src_ip", "10.0.0.9"), ("forwarded_first", "null"), ("forwarded_last", "10.0.0.9")],
    );
    refused(&format, &line.replace("10.0.35.28", "-"), "is missing");
    // Quotes are not escaped: one way to read it is right, two are none.
    check(&format, &line.replace("nsq2http", "a\"b"), &[("header_user_agent", "a\"b")]);
    refused(&format, &line.replace("nsq2http", "a\" \"b"), "in two ways");
}

#[test]
fn every_command_is_the_column_that_it_should_be() {
    let log_format = "%START_TIME(%s.%6f)% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% \
                      %DOWNSTREAM_LOCAL_ADDRESS% %REQ(:method)% %REQ(:PATH):256% %TLS_JA4_FINGERPRINT% %REQUESTED_SERVER_NAME% \
                      %RESP(content-type)% %DURATION% %HOSTNAME% 100%%\\n";
    let format = Format::envoy_text(log_format, Zone::default()).expect("a format");
    check(
        &format,
        "1795448127.143731 [2001:db8::1]:5000 198.51.100.7 192.0.2.2:443 GET /a?b t13d1516h2_8daaf6152771_02713d6af862 www.example.test \
         text/html 4 envoy-1 100%",
        &[
            ("begin_time", "2026-11-23T15:35:27.143731Z"),
            ("src_ip", "2001:db8::1"),
            ("src_port", "5000"),
            ("dst_ip", "192.0.2.2"),
            ("dst_port", "443"),
            ("method", "GET"),
            ("query", "b"),
            ("server_ja4", "t13d1516h2_8daaf6152771_02713d6af862"),
            ("server_tls_sni", "www.example.test"),
            ("response_header_content_type", "text/html"),
            ("hostname", "envoy-1"),
        ],
    );
    for (log_format, said) in [
        ("%START_TIME% %DOWNSTREAM_REMOTE_ADDRESS", "character 14 of the format: `%` without one after"),
        ("%START_TIME% %lower%", "character 14 of the format: `%lower%` is no command"),
        ("%START_TIME(%Q)%", "character 1 of the format: `%Q` is no pattern"),
        ("{\"a\": \"%START_TIME%\"}", "this format writes JSON"),
        ("%START_TIME%", "it has no address of the client"),
    ] {
        wrong(Format::envoy_text(log_format, Zone::default()), log_format, said);
    }
}

//! Apache's own examples, and that any bytes of a client come back.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::text::tests::{check, refused, row, value, wrong};
use super::super::{FormatName, REPAIRED};
use super::*;

fn apache(log_format: &str) -> Arc<Format> {
    Format::apache(log_format, Zone::default())
        .unwrap_or_else(|wrong| panic!("{log_format}: {}", wrong.said(log_format)))
}

#[test]
fn the_examples_of_its_documentation() {
    let combined = built_in(COMBINED);
    let line = r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326 "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)""#;
    check(
        &combined,
        line,
        &[
            ("time", "2000-10-10T20:55:36Z"),
            ("src_ip", "127.0.0.1"),
            ("remote_user", "frank"),
            ("method", "GET"),
            ("path", "/apache_pb.gif"),
            ("query", ""),
            ("http_version", "HTTP/1.0"),
            ("status_code", "200"),
            ("response_size", "2326"),
            ("header_referer", "http://www.example.com/start.html"),
            ("header_user_agent", "Mozilla/4.08 [en] (Win98; I ;Nav)"),
            ("src_port", "null"),
        ],
    );
    let common = built_in(COMMON);
    check(
        &common,
        &line[..line.find(" \"http").expect("there")],
        &[("path", "/apache_pb.gif"), ("header_referer", "")],
    );
    assert_eq!(common.schema.index_of(REPAIRED).is_ok(), FormatName::Common.built_in().name == "common");
}

#[test]
fn what_is_absent_is_null_and_a_user_may_have_spaces() {
    let combined = built_in(COMBINED);
    let line = r#"::ffff:192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "-" 408 - "-" "-""#;
    let absent = ["remote_user", "method", "path", "query", "http_version", "header_referer", "header_user_agent"];
    check(&combined, line, &absent.map(|name| (name, "null")));
    check(&combined, line, &[("src_ip", "192.0.2.7"), ("response_size", "0"), ("status_code", "408")]);
    let user = r#"192.0.2.7 - a [1/x] \"b [10/Oct/2000:13:55:36 -0700] "GET /?a=\"b\" HTTP/1.1" 401 - "-" "-""#;
    check(&combined, user, &[("remote_user", r#"a [1/x] "b"#), ("query", "a=\"b\"")]);
}

#[test]
fn every_directive_is_the_column_that_it_should_be() {
    let format = apache(
        "%{begin:usec}t %D %{c}a:%{remote}p %a %A:%{local}p %V \\\"%r\\\" %<m %H %>s %B %O %I %k %X %L %p \"%{Cookie}i\" \
         \"%{Authorization}i\" \"%{X-Forwarded-For}i\" \"%{Server}o\" %{SSL_PROTOCOL}x %{SSL_CIPHER}x %{ja4_scheme}e \
         %400,501{Accept}i %!200{UNIQUE_ID}e %{secret}C %%",
    );
    check(
        &format,
        "1795448127143731 4700999 2001:db8::1:5000 198.51.100.7 2001:db8::2:443 WWW.example.test:443 \"GET /a?b HTTP/1.1\" GET \
         HTTP/2.0 200 12 34 56 0 - - 443 \"a=b\" \"-\" \"198.51.100.7, [2001:db8::9]:80\" \"Apache\" TLSv1.3 TLS_AES_128_GCM_SHA256 \
         https - x s=1 %",
        &[
            ("begin_time", "2026-11-23T15:35:27.143731Z"),
            ("time", "2026-11-23T15:35:31.843731Z"),
            ("duration_ms", "4700"),
            ("src_ip", "2001:db8::1"),
            ("src_port", "5000"),
            ("useragent_ip", "198.51.100.7"),
            ("dst_ip", "2001:db8::2"),
            ("dst_port", "443"),
            ("host", "www.example.test"),
            ("method", "GET"),
            ("path", "/a"),
            ("query", "b"),
            ("http_version", "HTTP/2.0"),
            ("response_size", "12"),
            ("bytes_sent", "34"),
            ("request_size", "56"),
            ("keepalive_index", "1"),
            ("connection_status", "-"),
            ("log_id", "null"),
            ("has_cookie", "true"),
            ("has_authorization", "false"),
            ("header_x_forwarded_for", "198.51.100.7, [2001:db8::9]:80"),
            ("forwarded_first", "198.51.100.7"),
            ("forwarded_last", "2001:db8::9"),
            ("response_header_server", "Apache"),
            ("server_tls_version", "TLSv1.3"),
            ("server_tls_cipher", "TLS_AES_128_GCM_SHA256"),
            ("scheme", "https"),
            ("header_accept", "null"),
            ("env_unique_id", "x"),
            (REPAIRED, "false"),
        ],
    );
}

#[test]
fn times_come_in_parts_and_in_every_unit() {
    let begin = "2026-11-23T15:35:27.143731Z";
    for (log_format, line) in [
        ("%a %{usec}t", "192.0.2.1 1795448127143731"),
        ("%a %{sec}t.%{usec_frac}t", "192.0.2.1 1795448127.143731"),
        ("%a %{sec}t%{usec_frac}t", "192.0.2.1 1795448127143731"),
        ("%a %t %{usec_frac}t", "192.0.2.1 [23/Nov/2026:16:35:27 +0100] 143731"),
        ("%a %{%Y-%m-%dT%H:%M:%S}t.%{usec_frac}t%{%z}t", "192.0.2.1 2026-11-23T16:35:27.143731+0100"),
        ("%a %{%d/%b/%Y %T}t.%{begin:usec_frac}t %{%z}t", "192.0.2.1 23/Nov/2026 15:35:27.143731 +0000"),
        ("%{begin:%d/%b/%Y %T}t.%{begin:usec_frac}t %a", "23/Nov/2026 15:35:27.143731 192.0.2.1"),
        // The most exact of several.
        ("%t %{usec}t %a", "[23/Nov/2026:15:35:27 +0000] 1795448127143731 192.0.2.1"),
    ] {
        check(&apache(log_format), line, &[("time", begin)]);
    }
    let zoned = Format::apache("%a %{%F %T}t", "+02:00".parse().map(Zone::Fixed).expect("a zone")).expect("a format");
    check(&zoned, "192.0.2.1 2026-11-23 17:35:27", &[("time", "2026-11-23T15:35:27Z")]);
    for (log_format, line, took) in [
        ("%a %{usec}t %{end:usec}t", "192.0.2.1 1795448127143731 1795448128143731", "1000"),
        ("%a %{usec}t %T %{ms}T", "192.0.2.1 1795448127143731 1 1500", "1500"),
        ("%a %{usec}t %{us}T", "192.0.2.1 1795448127143731 1500999", "1500"),
        ("%a %{end:msec}t %T", "192.0.2.1 1795448127143 3", "3000"),
    ] {
        check(&apache(log_format), line, &[("duration_ms", took)]);
    }
    refused(&apache("%a %{usec}t"), "192.0.2.1 1795448127143", "is no time");
    refused(&apache("%a %{usec}t"), "192.0.2.1 1895448127143731", "ahead of this machine's clock");
    refused(&apache("%h %{usec}t"), "client.example.test 1795448127143731", "`%h` should be an IP address");
}

#[test]
fn a_wrong_string_is_a_fault_with_its_place() {
    for (log_format, said) in [
        ("%a %t é %y", "character 9 of the format: `%y` is no directive"),
        ("%a %t %{User-Agent", "character 7 of the format: `%{` without `}`"),
        ("%a %t %", "character 7 of the format: `%` without a directive"),
        ("%a %t %{m}T", "`m` is no unit of `%T`"),
        ("%a %{%Q}t", "character 4 of the format: `%Q` is no pattern of strftime"),
        ("%a %{%H:%M}t", "character 4 of the format: this time lacks"),
        ("%t \"%r\"", "it has no address of the client"),
        ("%a \"%r\"", "it has no time"),
        ("%a %t %{}x", "character 7 of the format: `%{}x` is no name"),
        ("%a %t%u%s", "nothing tells where `%u` ends and `%s` begins"),
        ("%a %t %{seq}x", "character 7 of the format: every stream of requests has its own column `seq`"),
    ] {
        wrong(Format::apache(log_format, Zone::default()), log_format, said);
    }
}

/// As Apache's `ap_escape_logitem`.
fn escaped(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'"' => "\\\"".to_owned(),
        b'\\' => "\\\\".to_owned(),
        0x08 => "\\b".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        0x0b => "\\v".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(22), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_of_a_client_come_back(
        agent in proptest::collection::vec(any::<u8>(), 1..60), referer in proptest::collection::vec(any::<u8>(), 1..60),
    ) {
        let line = format!(
            "192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 5 \"{}\" \"{}\"",
            escaped(&referer), escaped(&agent)
        );
        let row = row(&built_in(COMBINED), line.as_bytes()).map_err(TestCaseError::fail)?;
        for (name, bytes) in [("header_referer", &referer), ("header_user_agent", &agent)] {
            if bytes != b"-" {
                prop_assert_eq!(value(&row, name), String::from_utf8_lossy(bytes));
            }
        }
        let replaced = [&agent, &referer].iter().any(|bytes| std::str::from_utf8(bytes).is_err());
        prop_assert_eq!(value(&row, REPAIRED), replaced.to_string());
        prop_assert_eq!(value(&row, "status_code"), "200");
    }
}

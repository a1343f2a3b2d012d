//! What lines of text have in common: helpers for the tests of each format, and what holds for all.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::{Captures, FormatName, LineParser, NginxEscape, Rows};
use super::*;

/// The wall clock of the tests: 2026-11-23T16:00:00Z.
pub(in crate::format) const NOW: i64 = 1_795_449_600_000_000_000;

/// The row of a line, or why it is refused.
pub(in crate::format) fn row(format: &Arc<Format>, line: &[u8]) -> Result<RecordBatch, String> {
    let mut parser = LineParser::new(Arc::clone(format), NOW);
    let mut rows = Rows::new(format);
    rows.push(0, &parser.parse(line).map_err(|reject| reject.to_string())?);
    Ok(rows.take().expect("rows fit"))
}

/// A value of the row, as text; `null` if it is none, and nothing if there is no such column.
pub(in crate::format) fn value(row: &RecordBatch, name: &str) -> String {
    let Some(column) = row.column_by_name(name) else { return String::new() };
    let options = FormatOptions::default().with_null("null");
    ArrayFormatter::try_new(column.as_ref(), &options).expect("it can be shown").value(0).to_string()
}

/// Checks values of a line's row.
pub(in crate::format) fn check(format: &Arc<Format>, line: &str, expected: &[(&str, &str)]) {
    let row = row(format, line.as_bytes()).unwrap_or_else(|reason| panic!("{line}: {reason}"));
    for (name, text) in expected {
        assert_eq!(value(&row, name), *text, "{name} of {line}");
    }
}

/// Checks why a line is refused.
pub(in crate::format) fn refused(format: &Arc<Format>, line: &str, said: &str) {
    let reason = row(format, line.as_bytes()).expect_err(line);
    assert!(reason.contains(said), "{line}: {reason}");
}

/// Checks what is wrong with a format string.
pub(in crate::format) fn wrong(built: Result<Arc<Format>, Wrong>, text: &str, said: &str) {
    let wrong = built.expect_err(text).said(text);
    assert!(wrong.contains(said), "{text}: {wrong}");
}

/// All formats of text, the strings with all that they can have.
fn formats() -> Vec<Arc<Format>> {
    let named = |name: FormatName| {
        let built_in = name.built_in();
        (built_in.format)(built_in.unit)
    };
    let captures = Captures { request: vec!["Host".into(), "User-Agent".into()], response: vec!["Server".into()] };
    let mut formats: Vec<Arc<Format>> = [
        FormatName::Common,
        FormatName::Combined,
        FormatName::HaproxyHttp,
        FormatName::HaproxyHttps,
        FormatName::EnvoyText,
        FormatName::Iis,
        FormatName::AwsAlb,
    ]
    .map(named)
    .to_vec();
    let built = [
        Format::apache("%a %{remote}p %u %t %{usec_frac}t \"%r\" %>s %D %{User-Agent}i", Zone::default()),
        Format::nginx(
            "$remote_addr $remote_user [$time_local] $msec $request_time $request $status",
            NginxEscape::Json,
        ),
        Format::haproxy(super::super::haproxy::HTTP, &captures, Zone::default()),
    ];
    formats.extend(built.map(|format| format.expect("a format")));
    formats
}

const LINES: [&str; 6] = [
    r#"192.0.2.1 - a [23/Nov/2026:15:35:27 +0000] "GET /x HTTP/1.1" 200 5 "-" "{\x22at\x22:1}""#,
    r#"2001:db8::1:5000 [23/Nov/2026:15:35:27.001] f~ b/s 1/2/3/4/5 200 5 - - ---- 1/1/1/1/0 0/0 "GET /x HTTP/1.1""#,
    r#"[2026-11-23T15:35:27.000Z] "GET /x HTTP/2" 200 - 0 5 6 - "192.0.2.1" "a" "b" "c" "d""#,
    "2026-11-23 15:35:27 192.0.2.9 GET /x - 443 - 192.0.2.1 curl - 200 0 0 15",
    r#"192.0.2.1 5000 a [23/Nov/2026:15:35:27 +0000] 123456 "GET /x HTTP/1.1" 200 100 agent"#,
    "192.0.2.1 a [23/Nov/2026:15:35:27 +0000] 1795448127.123 0.004 GET /x HTTP/1.1 200",
];

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(21), cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_row_or_a_reject(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in formats() {
            let _ = row(&format, &bytes);
        }
    }

    #[test]
    fn a_line_with_bytes_changed_is_a_row_or_a_reject(
        nth in 0..LINES.len(), at in 0_usize..100, cut in 0_usize..20, bytes in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut line = LINES[nth].as_bytes().to_vec();
        let at = at.min(line.len());
        let to = (at + cut).min(line.len());
        line.splice(at..to, bytes);
        for format in formats() {
            let _ = row(&format, &line);
        }
    }

    #[test]
    fn any_text_is_a_format_or_a_fault_with_a_place_in_it(text in r#"[ -~]{0,12}[%$({\[]?[a-zA-Z+]{0,3}[})\]]?[ -~é]{0,12}"#) {
        let captures = Captures::default();
        for built in [
            Format::apache(&text, Zone::default()),
            Format::nginx(&text, NginxEscape::Default),
            Format::haproxy(&text, &captures, Zone::default()),
            Format::envoy_text(&text, Zone::default()),
            Format::w3c(&text, super::super::W3cUnit::W3c),
        ] {
            if let Err(wrong) = built {
                prop_assert!(wrong.at.is_none_or(|at| text.is_char_boundary(at)), "{:?}", wrong);
                prop_assert!(!wrong.said(&text).is_empty());
            }
        }
    }
}

#[test]
fn each_line_is_a_row_of_its_own_format() {
    let formats = formats();
    for (line, nth) in LINES.iter().zip([1, 2, 4, 5, 7, 8]) {
        check(&formats[nth], line, &[("src_ip", if line.contains("2001:db8") { "2001:db8::1" } else { "192.0.2.1" })]);
    }
}

#[test]
fn a_header_of_syslog_is_passed_over() {
    let formats = formats();
    for header in [
        "<134>Nov 23 15:35:27 haproxy[12]: ",
        "Nov  3 15:35:27 host haproxy[12]: ",
        "2026-11-23T15:35:27.123456+00:00 host haproxy[12]: ",
        "<190>Nov 23 15:35:27 host nginx: ",
    ] {
        check(&formats[2], &format!("{header}{}", LINES[1]), &[("src_port", "5000"), ("path", "/x")]);
    }
    refused(&formats[2], "Nov 23 15:35:27 host haproxy[12]: Proxy web started.", "no `");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let format = Format::nginx("$remote_addr $msec $status $http_a $http_b", NginxEscape::Default).expect("a format");
    check(&format, "192.0.2.1 1795448127.123 200 a b", &[("header_a", "a"), ("header_b", "b")]);
    refused(&format, "192.0.2.1 1795448127.123 200 a b c", "in two ways");
    let long = format!("192.0.2.1 1795448127.123 200 {}", "a ".repeat(40_000));
    refused(&format, &long, "in two ways");
    let raw = Format::nginx("$remote_addr $msec \"$http_a\" \"$http_b\" \"$http_c\" $status", NginxEscape::None)
        .expect("a format");
    check(&raw, r#"192.0.2.1 1795448127.123 "a"b" "c" "d" 200"#, &[("header_a", "a\"b"), ("header_c", "d")]);
    let many = format!("192.0.2.1 1795448127.123 \"{}\" x", "a\" \"".repeat(3_000));
    refused(&raw, &many, "too often what ends a value");
    let values = format!("$remote_addr $msec{}", " $http_a".repeat(300));
    wrong(Format::nginx(&values, NginxEscape::None), &values, "more than 256 values");
    let quoted =
        Format::nginx("$remote_addr $msec $status \"$http_a\" \"$http_b\"", NginxEscape::Default).expect("a format");
    check(
        &quoted,
        r#"192.0.2.1 1795448127.123 200 "a b" "c\x22 \x22d""#,
        &[("header_a", "a b"), ("header_b", "c\" \"d")],
    );
}

#[test]
fn a_line_that_ends_early_or_goes_on_is_refused_with_the_place() {
    let formats = formats();
    for end in 0..LINES[0].len() {
        assert!(row(&formats[1], &LINES[0].as_bytes()[..end]).is_err(), "{end}");
    }
    refused(&formats[1], &format!("{} more", LINES[0]), "more follows at byte 87");
    refused(&formats[1], "192.0.2.1 - a 23/Nov/2026", "from byte 12");
}

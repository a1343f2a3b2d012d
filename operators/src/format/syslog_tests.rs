//! Headers as programs write them, and any bytes.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::{Format, LineParser, Rows, Unit};
use super::*;

/// Priority, host and program of a header, and the text behind it.
type Found = (Option<(u16, String, String)>, String);

fn of(line: &str) -> Found {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let known = |value: Option<&[u8]>| value.map(text).unwrap_or_default();
    let (header, rest) = split(line.as_bytes());
    (header.map(|header| (header.priority, known(header.hostname), known(header.app))), text(rest))
}

fn headed(priority: u16, host: &str, app: &str, text: &str) -> Found {
    (Some((priority, host.to_owned(), app.to_owned())), text.to_owned())
}

#[test]
fn headers_are_as_programs_write_them() {
    let object = "{\"a\":1}";
    for (line, host, app) in [
        // nginx, and with `nohostname`; HAProxy; glibc; rsyslog.
        ("<190>Nov 23 15:35:27 host.example nginx: {\"a\":1}", "host.example", "nginx"),
        ("<190>Nov  3 15:35:27 nginx: {\"a\":1}", "", "nginx"),
        ("<190>Nov 23 15:35:27 haproxy[2154]: {\"a\":1}", "", "haproxy"),
        ("<190>Nov 23 15:35:27 192.0.2.7 haproxy[2154]: {\"a\":1}", "192.0.2.7", "haproxy"),
        ("<190>Nov 23 15:35:27 2001:db8::1 a/b.c-d_e: {\"a\":1}", "2001:db8::1", "a/b.c-d_e"),
        ("<190>2026-11-23T15:35:27.143731+00:00 host nginx: {\"a\":1}", "host", "nginx"),
        ("<190>Nov 23 15:35:27 host {\"a\":1}", "host", ""),
        ("<190>nginx: {\"a\":1}", "", "nginx"),
        ("<190>{\"a\":1}", "", ""),
        ("<190>Nov 23 15:35:27 {\"a\":1}", "", ""),
        // RFC 5424.
        ("<190>1 2026-11-23T15:35:27.143Z host app 12 ID - {\"a\":1}", "host", "app"),
        ("<190>1 - - - - - - {\"a\":1}", "", ""),
        ("<190>1 - h a - - [x@1 k=\"]\\\"[\"][y] \u{feff}{\"a\":1}", "h", "a"),
        ("<190>1 - h a - - [x@1]{\"a\":1}", "h", "a"),
    ] {
        assert_eq!(of(line), headed(190, host, app, object), "{line}");
    }
}

#[test]
fn a_line_without_a_priority_is_text() {
    for line in ["", "<", "<>x", "<192>x", "<1x>x", "<0000>x", "x<13>", "192.0.2.1 - - [23/Nov/2026]", "{\"a\":1}"] {
        assert_eq!(of(line), (None, line.to_owned()));
    }
    // What is no header of RFC 5424 is text behind a priority.
    assert_eq!(of("<13>1 x"), headed(13, "", "", "1 x"));
    assert_eq!(of("<13>1 - h a - - [x"), headed(13, "", "", "1 - h a - - [x"));
    assert_eq!(of("<13>Nov 23 15:35:2 x: y"), headed(13, "", "", "Nov 23 15:35:2 x: y"));
}

#[test]
fn what_a_line_says_does_not_pass_for_its_header() {
    let format = Format::clone(&Format::reqin_log(Unit::Ns)).with_syslog_columns();
    let mut parser = LineParser::new(std::sync::Arc::new(format), 1_795_449_600_000_000_000);
    let mut rows = Rows::new(&std::sync::Arc::clone(parser.format()));
    let object = r#"{"timestamp":1795449599000000001,"src_ip":"192.0.2.1","path":"/a","syslog_app":"forged"}"#;
    let broken = object.replace("/a", "/\\x41");
    for line in [format!("<190>Nov 23 15:35:27 web nginx: {object}"), object.to_owned(), format!("<190>web: {broken}")]
    {
        rows.push(1, &parser.parse(line.as_bytes()).expect("a row"));
    }
    let rows = rows.take().expect("rows");
    let column = |name: &str| {
        use arrow::array::AsArray;
        let values = rows.column_by_name(name).expect("a column").as_string::<i32>();
        values.iter().map(|value| value.unwrap_or("null").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(column("syslog_facility"), ["local7", "null", "local7"]);
    assert_eq!(column("syslog_severity"), ["info", "null", "info"]);
    assert_eq!(column("syslog_hostname"), ["web", "null", "null"]);
    assert_eq!(column("syslog_app"), ["nginx", "null", "web"]);
    assert_eq!(column("path"), ["/a", "/a", "/A"]);
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(37), ..ProptestConfig::default() })]

    #[test]
    fn a_header_of_either_kind_comes_back(
        priority in 0_u16..=191, host in "[a-z0-9][a-z0-9.-]{0,29}", app in "[a-zA-Z_/][a-zA-Z0-9_./-]{0,30}",
        process in prop::option::of(0_u32..99999), text in "[{\"][^\r\n]{0,40}",
    ) {
        let process_id = process.map(|id| format!("[{id}]")).unwrap_or_default();
        for line in [
            format!("<{priority}>Nov 23 15:35:27 {host} {app}{process_id}: {text}"),
            format!("<{priority}>1 2026-11-23T15:35:27Z {host} {app} {} - [a@1 b=\"\\]\"] {text}", process.unwrap_or(0)),
        ] {
            prop_assert_eq!(of(&line), headed(priority, &host, &app, &text), "{}", line);
        }
    }

    /// The text is the end of the line, whatever bytes that has.
    #[test]
    fn any_bytes_have_a_text(line in prop::collection::vec(any::<u8>(), 0..80), head in 0_usize..5) {
        let heads: [&[u8]; 5] = [b"", b"<13>", b"<13>1 - - - - - ", b"<13>Nov 23 15:35:27 ", b"<13>1 - - - - - [a b=\""];
        let line = [heads[head], &line].concat();
        let (_, text) = split(&line);
        prop_assert!(line.ends_with(text));
    }
}

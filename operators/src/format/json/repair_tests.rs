//! Lines that are no JSON because of what a client sent, and values that are not there.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType, UInt16Type};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

use super::super::schema::{Column, Extra, Format, Kind, REPAIRED};
use super::super::{LineParser, Path, Reject, Unit};
use super::tests::{NOW, every_kind, parse, text};

/// A request of reqin_log with these members besides.
fn with(members: &[u8]) -> Result<RecordBatch, Reject> {
    let mut line = br#"{"timestamp":1795449599000000001,"src_ip":"192.0.2.1","src_port":40000,"#.to_vec();
    line.extend_from_slice(members);
    line.extend_from_slice(br#","path":"/after"}"#);
    let rows = parse(&mut LineParser::new(Format::reqin_log(Unit::Ns), NOW), &line)?;
    assert_eq!((text(&rows, "src_ip"), text(&rows, "path")), (Some("192.0.2.1"), Some("/after")));
    assert_eq!(rows.column_by_name("src_port").expect("there").as_primitive::<UInt16Type>().value(0), 40000);
    Ok(rows)
}

fn is_repaired(rows: &RecordBatch) -> bool {
    rows.column_by_name(REPAIRED).expect("there").as_boolean().value(0)
}

#[test]
fn what_a_server_writes_as_it_came_is_taken() {
    let agents: [(&[u8], &str, bool); 21] = [
        (b"plain", "plain", false),
        (br"a\u0022b\\x22\u0000", "a\"b\\x22\0", false),
        (br"\ud83d\ude00", "😀", false),
        ("caf\u{e9}".as_bytes(), "café", false),
        (br"a\x22b", "a\"b", true),
        (br"\x5Cx22", "\\x22", true),
        (br"caf\xc3\xa9", "café", true),
        (br"caf\xC3\xA9", "café", true),
        (b"caf\xc3\\xa9", "café", true),
        (br"caf\xe9", "caf\u{fffd}", true),
        (b"caf\xe9", "caf\u{fffd}", true),
        (b"\xff\xfe", "\u{fffd}\u{fffd}", true),
        (b"\xe2\x82", "\u{fffd}", true),
        (b"\xed\xa0\xbd", "\u{fffd}\u{fffd}\u{fffd}", true),
        (b"tab\there\0\x1f\x7f", "tab\there\0\x1f\x7f", true),
        (br"half \ud83d pair", "half \u{fffd} pair", true),
        (br"\udE00\ud83d\ud83d\ude00", "\u{fffd}\u{fffd}😀", true),
        (br"\ud83dA\u0041", "\u{fffd}AA", true),
        (br"\v\q\x\x4\xg1\u12", "\u{b}\\q\\x\\x4\\xg1\\u12", true),
        (b"\\\xff", "\\\u{fffd}", true),
        (b"\\\x01", "\\\u{1}", true),
    ];
    for (written, agent, repaired) in agents {
        let shown = String::from_utf8_lossy(written);
        let members = [br#""header_User-Agent":""#, written, b"\""].concat();
        let rows = with(&members).unwrap_or_else(|reason| panic!("{shown}: {reason}"));
        assert_eq!((text(&rows, "header_user_agent"), is_repaired(&rows)), (Some(agent), repaired), "{shown}");
        // Where nobody reads it, and in a key, it does no harm either.
        for members in [[br#""new":[{"a":""#, written, br#""}]"#].concat(), [b"\"", written, br#"":1"#].concat()] {
            let rows = with(&members).unwrap_or_else(|reason| panic!("{shown}: {reason}"));
            assert_eq!(is_repaired(&rows), repaired, "{shown}");
        }
    }
}

#[test]
fn a_value_that_is_not_there_is_null() {
    for members in [
        r#""status_code":"-","response_size":"","dst_ip":"unix:","has_cookie":"-","header_Referer":"-","header_Accept":"""#,
        r#""status_code":- ,"response_size":,"dst_ip":-,"header_Referer":-"#,
    ] {
        let rows = with(members.as_bytes()).expect(members);
        for column in ["status_code", "response_size", "dst_ip", "has_cookie", "header_referer", "header_accept"] {
            assert!(rows.column_by_name(column).expect("there").is_null(0), "{column}: {members}");
        }
        assert_eq!(is_repaired(&rows), members.contains(":-"));
    }
    let rows = with(br#""host":"-","query":"","header_User-Agent":" ""#).expect("understood");
    let columns = ["host", "query", "header_user_agent"].map(|column| text(&rows, column));
    assert_eq!(columns, [Some("-"), Some(""), Some(" ")], "other text is text");
    let line = br#"{"timestamp":1795449599000000001,"src_ip":"192.0.2.1"}"#;
    let rows = parse(&mut LineParser::new(Format::reqin_log(Unit::Ns), NOW), line).expect("needs no port");
    assert!(rows.column_by_name("src_port").expect("there").is_null(0));
}

#[test]
fn what_is_cut_off_or_run_together_is_no_row() {
    let mut parser = LineParser::new(every_kind(), NOW);
    for line in [
        r#"{"at":1795449599000000001,"text":"a"#,
        r#"{"at":1795449599000000001,"text":"a\"}"#,
        r#"{"at":1795449599000000001,"text":"a{"at":1795449599000000001,"text":"b"}"#,
        r#"{"at":1795449599000000001,"text":"a"}{"at":1795449599000000001}"#,
        r#"{"at":1795449599000000001,"text":"a"b"}"#,
        r#"{"at":1795449599000000001,"text":"\x41",}"#,
        r#"{"at":1795449599000000001,"text":"\x41","x":--}"#,
        r#"{"at":1795449599000000001,"text":"\x41","x":[-]}"#,
        r#"{"at":1795449599000000001,"text":"\x41","x":01}"#,
        r#"{"at":1795449599000000001,"text":"\x41" "x":1}"#,
        r#"{"at":1795449599000000001,"text":"\x41","x":NaN}"#,
        r#"{"at":1795449599000000001,"text":"\x41","x":[1 2]}"#,
        r#"192.0.2.1 - - [23/Nov/2026:15:35:27 +0000] "GET /{} HTTP/1.1" 200 5 "-" "{\x22at\x22:1}""#,
        r#"<190>Nov 23 15:35:27 host nginx: no object"#,
        r#"[{"at":1795449599000000001,"text":"\x41"}]"#,
    ] {
        let found = parse(&mut parser, line.as_bytes());
        assert!(matches!(found, Err(Reject::Syntax { .. })), "{line}: {found:?}");
    }
    for deep in ["[", "{\"a\":", "[{\"a\":"] {
        let line = format!(r#"{{"text":"\x41","x":{}"#, deep.repeat(100_000));
        assert!(parse(&mut parser, line.as_bytes()).is_err());
    }
    assert!(parse(&mut parser, br#"{"at":1795449599000000001,"text":"a"}"#).is_ok(), "the parser goes on");
}

#[test]
fn an_object_is_found_in_its_datagram() {
    let object = r#"{"at":1795449599000000001,"text":"a"}"#;
    for (before, behind) in [
        ("", "\0"),
        ("\0\0", "\0\n\0"),
        ("\u{feff}", ""),
        ("<190>Nov 23 15:35:27 host nginx: ", ""),
        ("<190>Nov 23 15:35:27 host nginx: \u{feff}", "\n\0"),
        ("<34>1 2026-11-23T15:35:27.143Z host nginx 8710 access - ", "\n"),
    ] {
        let line = format!("{before}{object}{behind}");
        let rows = parse(&mut LineParser::new(every_kind(), NOW), line.as_bytes()).expect(&line);
        assert_eq!((text(&rows, "text"), is_repaired(&rows)), (Some("a"), false), "{line:?}");
    }
    for before in ["x", "<>", "<1234>", "<19", "12 "] {
        let line = format!("{before}{object}");
        assert!(parse(&mut LineParser::new(every_kind(), NOW), line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn a_number_under_a_text_key_keeps_its_digits() {
    let mut parser = LineParser::new(every_kind(), NOW);
    for digits in [
        "12345678901234567890123",
        "18446744073709551616",
        "18446744073709551615",
        "-9223372036854775809",
        "1.10",
        "2.0",
        "0.1000",
        "-0",
        "-0.0",
        "0",
        "1E3",
        "1e+03",
        "1e400",
        "1e-400",
    ] {
        for line in [
            format!(r#"{{"at":1795449599000000001,"text" : {digits} ,"integer":3}}"#),
            format!(r#"{{"at":1795449599000000001,"t\u0065xt":{digits},"integer":3}}"#),
            format!(r#"{{"at":1795449599000000001,"text":{digits},"integer":3,"x":"\x41"}}"#),
            format!(r#"{{"at":1795449599000000001,"integer":3,"text":{digits}}}"#),
        ] {
            let rows = parse(&mut parser, line.as_bytes()).expect(&line);
            assert_eq!(text(&rows, "text"), Some(digits), "{line}");
            assert_eq!(rows.column_by_name("integer").expect("there").as_primitive::<Int64Type>().value(0), 3);
            assert_eq!(is_repaired(&rows), line.contains(r"\x"));
        }
    }
}

#[test]
fn a_reason_is_short_however_long_the_value_is() {
    let mut parser = LineParser::new(every_kind(), NOW);
    let long = "7".repeat(100_000);
    for value in [long.clone(), format!("{long}.5"), format!("\"{long}\""), format!("-{long}")] {
        for key in ["u8", "integer", "boolean", "ip", "when", "at"] {
            let line = format!(r#"{{"{key}":{value},"at":1795449599000000001}}"#);
            let reason = parse(&mut parser, line.as_bytes()).expect_err(key).to_string();
            assert!(reason.len() < 400, "{key}: {reason}");
        }
    }
}

/// The one row of a format with these columns and times in `unit`.
fn row(columns: &[(&str, Path, Kind)], unit: Unit, line: &str) -> Result<RecordBatch, String> {
    let column = |(name, key, kind): &(&str, Path, Kind)| Column {
        name: (*name).into(),
        key: key.clone(),
        kind: *kind,
        absent: kind.absent(),
        required: false,
    };
    let columns = columns.iter().map(column).collect();
    let format = std::sync::Arc::new(Format::new(columns, vec![Extra::begin(Path::key("t"), unit)], None));
    parse(&mut LineParser::new(format, NOW), line.as_bytes()).map_err(|reason| reason.to_string())
}

#[test]
fn times_are_of_the_unit_that_the_pipeline_says() {
    let time = |unit, value: &str| {
        let found = ["", r#","x":"\x41""#].map(|more| {
            row(&[], unit, &format!(r#"{{"t":{value}{more}}}"#))
                .map(|rows| rows.column(0).as_primitive::<TimestampNanosecondType>().value(0))
        });
        assert_eq!(found[0], found[1], "{value}");
        found[0].clone()
    };
    for (unit, value, ns) in [
        (Unit::S, "1795448127.143", 1_795_448_127_143_000_000),
        (Unit::S, "1795448127.143731829", 1_795_448_127_143_731_829),
        (Unit::S, "\"1795448127.143\"", 1_795_448_127_143_000_000),
        (Unit::S, "1795448127", 1_795_448_127_000_000_000),
        (Unit::S, "1.795448127e9", 1_795_448_127_000_000_000),
        (Unit::Ms, "1795448127143", 1_795_448_127_143_000_000),
        (Unit::Ms, "1795448127143.5", 1_795_448_127_143_500_000),
        (Unit::Us, "1795448127143731", 1_795_448_127_143_731_000),
        (Unit::Ns, "1795448127143731829", 1_795_448_127_143_731_829),
        (Unit::Ns, "\"[23/Nov/2026:15:35:27 +0000]\"", 1_795_448_127_000_000_000),
        (Unit::Ms, "\"2026-11-23T15:35:27,143Z\"", 1_795_448_127_143_000_000),
    ] {
        assert_eq!(time(unit, value), Ok(ns), "{value} in {unit:?}");
    }
    for (unit, value, reason) in [
        (Unit::Ns, "1795448127.143", "nanoseconds since 1970; `time_unit` names another unit), found 1795448127.143"),
        (Unit::S, "1795448127143", "seconds since 1970), found 1795448127143"),
        (Unit::Ms, "1795448127", "milliseconds since 1970), found 1795448127"),
        (Unit::Ms, "1.795448127e9", "found 1.795448127e9"),
        (Unit::S, "-1795448127.5", "found -1795448127.5"),
        (Unit::S, "\"-\"", "`t` is missing"),
    ] {
        let found = time(unit, value).expect_err(value);
        assert!(found.contains(reason), "{value} in {unit:?}: {found}");
    }
}

#[test]
fn lists_of_upstreams_and_addresses_in_other_spellings_are_read() {
    let columns = [("n", Path::key("n"), Kind::F64), ("ip", Path::key("ip"), Kind::Ip)];
    let number = |text: &str| {
        let rows = row(&columns, Unit::Ns, &json!({"t": NOW.to_string(), "n": text}).to_string())?;
        let array = rows.column_by_name("n").expect("there").as_primitive::<Float64Type>();
        Ok::<_, String>(array.is_valid(0).then(|| array.value(0)))
    };
    for (text, value) in [
        ("0.004, 0.120", Some(0.12)),
        ("0.004, 0.120 : 0.300", Some(0.3)),
        ("0.004 : 0.300, 0.5", Some(0.5)),
        ("0.004, -", None),
        ("12 ", Some(12.0)),
    ] {
        assert_eq!(number(text), Ok(value), "{text}");
    }
    for text in ["0.004,0.120", "a, b", "1 2", "nan", "inf", "1e400"] {
        assert!(number(text).is_err(), "{text}");
    }
    let ip = |value: &str| {
        row(&columns, Unit::Ns, &json!({"t": NOW.to_string(), "ip": value}).to_string())
            .map(|rows| text(&rows, "ip").map(str::to_owned))
    };
    for (value, address) in [
        ("192.0.2.9:52000", Some("192.0.2.9")),
        ("[2001:db8::1]", Some("2001:db8::1")),
        ("[2001:db8::1]:443", Some("2001:db8::1")),
        ("[::ffff:192.0.2.9]:443", Some("192.0.2.9")),
        ("fe80::1%eth0", Some("fe80::1")),
        ("[fe80::1%eth0]", Some("fe80::1")),
        (" 192.0.2.9 ", Some("192.0.2.9")),
        ("unknown", None),
        ("unix:", None),
        ("-", None),
    ] {
        assert_eq!(ip(value), Ok(address.map(str::to_owned)), "{value}");
    }
    for value in ["192.0.2.9, 192.0.2.8", "192.0.2.9%eth0", "fe80::1%", "localhost", "192.0.2.9:x", "1.2.3"] {
        assert!(ip(value).is_err(), "{value}");
    }
}

fn path(written: serde_json::Value) -> Path {
    serde_json::from_value(written).expect("a path")
}

#[test]
fn keys_lead_into_objects_and_lists() {
    let columns = [
        ("agent", path(json!("request.headers.User-Agent[0]")), Kind::Text),
        ("host", path(json!("request.host")), Kind::Text),
        ("status", path(json!("status")), Kind::I64),
        ("dotted", path(json!(["a.b", "c[0]"])), Kind::Text),
        ("second", path(json!("list[1].x")), Kind::F64),
    ];
    let found = |line: &str| {
        let found = ["", r#","z":"\x41""#].map(|more| {
            let line = format!("{}{more},\"t\":{NOW}}}", line.trim_end_matches('}').trim_end());
            row(&columns, Unit::Ns, &line).map(|rows| {
                let texts = ["agent", "host", "dotted"].map(|column| text(&rows, column).map(str::to_owned));
                let status = rows.column_by_name("status").expect("there").as_primitive::<Int64Type>();
                let second = rows.column_by_name("second").expect("there").as_primitive::<Float64Type>();
                (texts, status.is_valid(0).then(|| status.value(0)), second.is_valid(0).then(|| second.value(0)))
            })
        });
        assert_eq!(found[0], found[1], "{line}");
        found[0].clone()
    };
    let some = |text: &str| Some(text.to_owned());
    let none = ([None, None, None], None, None);
    // Members behind the objects, so that the braces at the end are the line's own.
    for (line, expected) in [
        (
            r#"{"request":{"remote":"x","host":"h","headers":{"Accept":["*/*"],"User-Agent":["a","b"]},"y":{"host":1}},"status":200}"#,
            ([some("a"), some("h"), None], Some(200), None),
        ),
        (r#"{"request":{"headers":{"User-Agent":[]}},"request.host":"flat","x":1}"#, none.clone()),
        (r#"{"request":"text","list":null,"a.b":[1,2],"x":1}"#, none.clone()),
        (r#"{"request":{"host":"h"},"request":{"other":1},"x":1}"#, none.clone()),
        (r#"{"request":{"host":"h"},"request":null,"x":1}"#, none),
        (
            r#"{"a.b":{"c[0]":1.10},"list":[{"x":1},{"x":2.5},{"x":3}],"a":{"b":{"c":["no"]}},"x":1}"#,
            ([None, None, some("1.10")], None, Some(2.5)),
        ),
    ] {
        assert_eq!(found(line), Ok(expected), "{line}");
    }
    let reason = found(r#"{"request":{"headers":{"User-Agent":[{"a":1}]}},"x":1}"#).expect_err("no text");
    assert_eq!(reason, "`request.headers.User-Agent[0]` should be text, found an object");
    let nested = format!(r#"{{"request":{}1{},"x":1}}"#, "{\"headers\":".repeat(100_000), "}".repeat(100_000));
    assert!(found(&nested).is_err());
}

/// How a server writes bytes of a client into a string.
#[derive(Clone, Copy, Debug)]
enum Style {
    Apache,
    NginxDefault,
    NginxJson,
    Json,
}

/// The bytes as a server would write them: from the manuals, without a look at the parser.
fn written(bytes: &[u8], style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        match (style, byte) {
            (Style::Apache, b'\n' | b'\r' | b'\t' | 8 | 11) => {
                out.extend([b'\\', b"btnv r"[[8, 9, 10, 11, 0, 13].iter().position(|c| c == byte).expect("one")]]);
            }
            (Style::Apache | Style::NginxJson | Style::Json, b'"' | b'\\') => out.extend([b'\\', *byte]),
            (Style::Apache, 0..32 | 127..) => out.extend(format!("\\x{byte:02x}").bytes()),
            (Style::NginxDefault, b'"' | b'\\' | 0..32 | 127..) => out.extend(format!("\\x{byte:02X}").bytes()),
            (Style::NginxJson, 0..32) => out.extend(format!("\\u{byte:04X}").bytes()),
            // A line feed would end the line; any other byte may come raw.
            (Style::Json, b'\n') => out.extend(b"\\n"),
            _ => out.push(*byte),
        }
    }
    out
}

/// UTF-8 with U+FFFD for each longest part of a character that is not one (Unicode 16, section 3.9).
fn decoded(mut bytes: &[u8]) -> String {
    let mut out = String::new();
    loop {
        match std::str::from_utf8(bytes) {
            Ok(rest) => return out + rest,
            Err(error) => {
                let (good, rest) = bytes.split_at(error.valid_up_to());
                out.push_str(std::str::from_utf8(good).expect("valid up to here"));
                out.push('\u{fffd}');
                match error.error_len() {
                    Some(length) => bytes = &rest[length..],
                    None => return out,
                }
            }
        }
    }
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        "[\"\\\\{}\\[\\],:\u{0}-\u{20}xuv]{1,4}".prop_map(String::into_bytes),
        "\\PC{1,3}".prop_map(String::into_bytes),
        "(\\\\x[0-9a-f]{2}|\\\\u[0-9a-f]{4}|%[0-9A-F]{2})".prop_map(String::into_bytes),
        proptest::sample::select(vec![&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\xbd", b"\xc0\x80"])
            .prop_map(<[u8]>::to_vec),
    ];
    proptest::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, rng_seed: RngSeed::Fixed(15), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_value_leave_all_others_right(
        values in proptest::collection::vec(any_bytes(), 5),
        styles in proptest::collection::vec(
            proptest::sample::select(vec![Style::Apache, Style::NginxDefault, Style::NginxJson, Style::Json]), 5),
    ) {
        const KEYS: [(&str, &str); 5] = [
            ("path", "path"),
            ("header_User-Agent", "header_user_agent"),
            ("unknown", ""),
            ("header_Referer", "header_referer"),
            ("host", "host"),
        ];
        let mut line = br#"{"timestamp":1795449599000000001"#.to_vec();
        for (((key, _), value), style) in KEYS.iter().zip(&values).zip(&styles) {
            line.extend(format!(",\"{key}\":\"").bytes());
            line.extend(written(value, *style));
            line.push(b'"');
        }
        line.extend(br#","src_ip":"192.0.2.1","src_port":40000,"status_code":200}"#);
        let rows = parse(&mut LineParser::new(Format::reqin_log(Unit::Ns), NOW), &line);
        let shown = String::from_utf8_lossy(&line);
        let rows = rows.map_err(|reason| TestCaseError::fail(format!("{shown}: {reason}")))?;
        for ((_, column), value) in KEYS.iter().zip(&values).filter(|((_, column), _)| !column.is_empty()) {
            let expected = decoded(value);
            let is_absent = column.starts_with("header_") && (expected.is_empty() || expected == "-");
            prop_assert_eq!(text(&rows, column), (!is_absent).then_some(expected.as_str()), "{} of {}", column, shown);
        }
        prop_assert_eq!(text(&rows, "src_ip"), Some("192.0.2.1"));
        prop_assert_eq!(rows.column_by_name("status_code").expect("there").as_primitive::<UInt16Type>().value(0), 200);
        let clean = serde_json::from_slice::<serde_json::Value>(&line).is_ok();
        prop_assert_eq!(is_repaired(&rows), !clean, "{}", shown);
    }

    #[test]
    fn a_line_means_the_same_to_both_parsers(
        text in "\\PC{0,8}", number in any::<f64>(), integer in any::<i64>(), member in 0_usize..3, blank in "[ \t]{0,2}",
    ) {
        let number = if number.is_finite() { number } else { 0.5 };
        let members = [json!({"text": text}), json!({"text": number, "float": number}), json!({"text": integer, "integer": integer})];
        let inner = members[member].to_string();
        let inner = inner.trim_start_matches('{').trim_end_matches('}');
        let rows = ["", r#","z":"\x41""#].map(|more| {
            let line = format!("{{{blank}\"at\"{blank}:{blank}1795449599000000005,{blank}{inner}{more}}}{blank}");
            parse(&mut LineParser::new(every_kind(), NOW), line.as_bytes()).expect("understood")
        });
        let columns = rows[0].num_columns() - 1;
        prop_assert_eq!(&rows[0].columns()[..columns], &rows[1].columns()[..columns]);
        prop_assert!(!is_repaired(&rows[0]) && is_repaired(&rows[1]));
    }
}

#[test]
fn a_socket_has_no_address() {
    for written in ["unix:/run/php.sock", "unix:"] {
        let rows = with(format!(r#""dst_ip":"{written}""#).as_bytes()).expect(written);
        assert_eq!(text(&rows, "dst_ip"), None, "{written}");
    }
}

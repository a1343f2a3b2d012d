//! Lines as they should not be, and agreement with `serde_json`.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt64Type};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use super::super::columns::Type;
use super::super::schema::{Column, Extra, Format, Kind, REPAIRED};
use super::super::{LineParser, Path, Reject, Rows, Unit};

/// The wall clock of these tests: 2026-11-23T16:00:00Z.
pub(super) const NOW: i64 = 1_795_449_600_000_000_000;

pub(super) fn parse(parser: &mut LineParser, line: &[u8]) -> Result<RecordBatch, Reject> {
    let mut rows = Rows::new(&std::sync::Arc::clone(parser.format()));
    let row = parser.parse(line)?;
    rows.push(7, &row);
    Ok(rows.take().expect("rows fit"))
}

fn request(line: &str) -> Result<RecordBatch, String> {
    parse(&mut LineParser::new(Format::reqin_log(Unit::Ns), NOW), line.as_bytes()).map_err(|e| e.to_string())
}

pub(super) fn text<'a>(rows: &'a RecordBatch, column: &str) -> Option<&'a str> {
    let array = rows.column_by_name(column).expect("a column").as_string::<i32>();
    array.is_valid(0).then(|| array.value(0))
}

/// A request with `extra` members.
fn with(extra: &str) -> Result<RecordBatch, String> {
    let comma = if extra.is_empty() { "" } else { "," };
    request(&format!(r#"{{"timestamp":1795449599000000001,"src_ip":"192.0.2.1","src_port":40000{comma}{extra}}}"#))
}

#[test]
fn a_time_with_an_exponent_is_of_its_unit() {
    for number in ["1.795449e9", "1795449000", "1795449000.0", "17.95449E+8"] {
        let line = format!(r#"{{"timestamp":{number},"src_ip":"192.0.2.1"}}"#);
        let rows = parse(&mut LineParser::new(Format::reqin_log(Unit::S), NOW), line.as_bytes()).expect(number);
        assert_eq!(rows.column(0).as_primitive::<TimestampNanosecondType>().value(0), 1_795_449_000_000_000_000);
    }
}

#[test]
fn a_request_becomes_a_row() {
    let rows = with(
        r#""dst_ip":"::ffff:198.51.100.7","dst_port":"443","host":"a\u00e9\"b","status_code":200.0,"response_size":"12",
        "duration_ms":null,"header_User-Agent":"x","header_sec-ch-ua":"y","HEADER_ACCEPT":"z","has_cookie":true,"new":[{"a":1}]"#,
    )
    .expect("understood");
    assert_eq!(rows.column(0).as_primitive::<TimestampNanosecondType>().value(0), 1_795_449_599_000_000_001);
    assert_eq!(rows.column(1).as_primitive::<UInt64Type>().value(0), 7);
    for (column, value) in [
        ("src_ip", Some("192.0.2.1")),
        ("dst_ip", Some("198.51.100.7")),
        ("host", Some("aé\"b")),
        ("path", None),
        ("header_user_agent", Some("x")),
        ("header_sec_ch_ua", Some("y")),
        ("header_accept", Some("z")),
    ] {
        assert_eq!(text(&rows, column), value, "{column}");
    }
    let number = |column: &str| rows.column_by_name(column).expect("there").as_primitive::<UInt64Type>().clone();
    assert_eq!(number("response_size").value(0), 12);
    assert!(number("duration_ms").is_null(0));
    assert_eq!(rows.column_by_name("status_code").expect("there").as_primitive::<UInt16Type>().value(0), 200);
    assert!(rows.column_by_name("has_cookie").expect("there").as_boolean().value(0));
}

#[test]
fn the_exact_time_counts_before_the_one_for_people() {
    let time = |line: &str| request(line).map(|rows| rows.column(0).as_primitive::<TimestampNanosecondType>().value(0));
    let rest = r#""src_ip":"192.0.2.1","src_port":1"#;
    assert_eq!(
        time(&format!(r#"{{"time":"1970-01-01T00:00:02Z","timestamp":1795449599000000001,{rest}}}"#)),
        Ok(1795449599000000001)
    );
    assert_eq!(time(&format!(r#"{{"timestamp":null,"time":"1970-01-01T00:00:02Z",{rest}}}"#)), Ok(2_000_000_000));
    assert_eq!(
        time(&format!(r#"{{"timestamp_ns":"1795449599000000005","time":"1970-01-01T00:00:02Z",{rest}}}"#)),
        Ok(1795449599000000005)
    );
}

#[test]
fn duplicate_keys_and_mistaken_guesses_do_no_harm() {
    let mut parser = LineParser::new(Format::reqin_log(Unit::Ns), NOW);
    for line in [
        r#"{"timestamp":1795449599000000001,"src_ip":"192.0.2.1","src_port":1,"host":"a","path":"b"}"#,
        r#"{"path":"b","x":1,"host":"a","src_port":9,"src_ip":"192.0.2.1","timestamp":1795449599000000001,"src_port":1}"#,
        r#"{"ho\u0073t":"c","timestamp":1795449599000000001,"src_ip":"192.0.2.1","src_port":1,"host":"a","path":"c","path":"b"}"#,
        r#"{"timestamp":1795449599000000001,"src_ip":"192.0.2.1","src_port":1,"host":"a","path":"b"}"#,
    ] {
        let rows = parse(&mut parser, line.as_bytes()).expect("understood");
        assert_eq!((text(&rows, "host"), text(&rows, "path")), (Some("a"), Some("b")), "{line}");
        assert_eq!(rows.column_by_name("src_port").expect("there").as_primitive::<UInt16Type>().value(0), 1, "{line}");
    }
    assert!(with(r#""host":"a","host":null"#).is_ok_and(|rows| text(&rows, "host").is_none()));
}

#[test]
fn hostile_lines_are_refused_with_a_reason() {
    for (extra, reason) in [
        (r#""dst_ip":"300.1.1.1""#, "`dst_ip` should be an IP address, found \"300.1.1.1\""),
        (r#""dst_ip":"127.000.0.1""#, "`dst_ip` should be an IP address"),
        (r#""dst_ip":7"#, "`dst_ip` should be an IP address, found 7"),
        (r#""dst_port":65536"#, "`dst_port` should be a whole number from 0 to 65535, found 65536"),
        (r#""dst_port":-1"#, "found -1"),
        (r#""dst_port":1.5"#, "found 1.5"),
        (r#""dst_port":"x""#, "found \"x\""),
        (r#""status_code":{"a":1}"#, "found an object"),
        (r#""host":["a"]"#, "`host` should be text, found a list"),
        (r#""host":true"#, "`host` should be text, found true"),
        (r#""has_cookie":"maybe""#, "`has_cookie` should be true or false"),
        (r#""has_cookie":2"#, "`has_cookie` should be true or false, found 2"),
        (r#""response_size":1e30"#, "found 1000000000000000000000000000000"),
        (
            r#""time":"yesterday""#,
            "`time` should be a time (a date with its zone, or nanoseconds since 1970; `time_unit` names another unit), found \"yesterday\"",
        ),
        (r#""src_ip":null"#, "`src_ip` is missing"),
        (r#""src_ip":"-""#, "`src_ip` is missing"),
        (r#""timestamp":null"#, "`timestamp` is missing"),
        (r#""timestamp":9223372036854775808"#, "`timestamp` should be a time"),
        (r#""timestamp":1795536000000000001"#, "more than 86400 s ahead"),
        (r#""host":01"#, "not a JSON object"),
        (r#""host":"a""#.trim_end_matches('"'), "not a JSON object"),
        (r#""new":nul"#, "not a JSON object"),
        (r#""a":1,"#, "not a JSON object"),
        (r#""a" 1"#, "not a JSON object"),
        ("a:1", "not a JSON object"),
    ] {
        let found = with(extra).expect_err(extra);
        assert!(found.contains(reason), "{extra}: {found}");
        assert!(!found.contains('\n') && found.len() < 250, "{found}");
    }
    for line in ["", "null", "[]", "7", "\"x\"", "{", "}", "{}x", "{\"a\":1}{}", "\u{0}", "not json"] {
        assert!(request(line).is_err(), "{line:?}");
    }
    assert_eq!(request("{}"), Err("`timestamp` is missing".into()));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| with(&format!("\"new\":{}1{}", "[".repeat(depth), "]".repeat(depth)));
    assert!(nested(60).is_ok());
    assert!(nested(100_000).is_err());
    assert!(with(&format!("\"new\":{}", "{\"a\":".repeat(100_000))).is_err());
    assert!(request(&"[".repeat(1_000_000)).is_err());
}

#[test]
fn text_keeps_escapes_nul_and_numbers() {
    let rows =
        with(r#""host":"a\u0000b","path":12,"query":1.5,"method":-3,"scheme":"\ud83d\ude00""#).expect("understood");
    assert_eq!(text(&rows, "host"), Some("a\0b"));
    assert_eq!((text(&rows, "path"), text(&rows, "query")), (Some("12"), Some("1.5")));
    assert_eq!((text(&rows, "method"), text(&rows, "scheme")), (Some("-3"), Some("😀")));
}

/// A format with a column of every kind.
pub(super) fn every_kind() -> std::sync::Arc<Format> {
    let kinds =
        [Type::Text, Type::Integer, Type::Float, Type::Boolean, Type::Ip, Type::Time].map(|ty| ty.kind(Unit::Ns));
    let columns = ["text", "integer", "float", "boolean", "ip", "when"].into_iter().zip(kinds);
    let column = |(name, kind): (&str, Kind)| Column {
        name: name.into(),
        key: Path::key(name),
        kind,
        absent: kind.absent(),
        required: false,
    };
    let columns = columns.chain([("u8", Kind::U8)]).map(column).collect();
    std::sync::Arc::new(Format::new(columns, vec![Extra::begin(Path::key("at"), Unit::Ns)], None))
}

/// What a value becomes by the rules written down a second time, over `serde_json`. `Err` refuses the line.
fn expected(kind: &str, value: Option<&Value>) -> Result<Value, ()> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(Value::Null) };
    let written = match value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    match (kind, value) {
        ("text", Value::String(_)) => Ok(value.clone()),
        (_, Value::String(text)) if text.is_empty() || text == "-" => Ok(Value::Null),
        ("text", Value::Number(n)) => Ok(json!(n.to_string())),
        ("integer", _) => {
            let from_text = written.and_then(|t| t.parse::<i64>().ok());
            let whole = value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 2f64.powi(53)).map(|f| f as i64);
            value.as_i64().or(from_text).or(whole.filter(|_| value.is_f64())).map(|n| json!(n)).ok_or(())
        }
        ("u8", _) => expected("integer", Some(value))?.as_u64().filter(|n| *n < 256).map(|n| json!(n)).ok_or(()),
        ("float", _) => value.as_f64().or(written.and_then(|t| t.parse().ok())).map(|n| json!(n)).ok_or(()),
        ("boolean", Value::Bool(_)) => Ok(value.clone()),
        ("boolean", _) => match value.to_string().trim_matches('"') {
            "1" | "1.0" | "true" => Ok(json!(true)),
            "0" | "0.0" | "-0.0" | "false" => Ok(json!(false)),
            _ => Err(()),
        },
        ("ip", Value::String(text)) => {
            text.parse::<std::net::IpAddr>().map(|ip| json!(ip.to_canonical().to_string())).map_err(|_| ())
        }
        _ => Err(()),
    }
}

fn found(rows: &RecordBatch, kind: &str) -> Value {
    let array = rows.column_by_name(kind).expect("a column");
    if array.is_null(0) {
        return Value::Null;
    }
    match kind {
        "integer" => json!(array.as_primitive::<Int64Type>().value(0)),
        "u8" => json!(array.as_primitive::<UInt8Type>().value(0)),
        "float" => json!(array.as_primitive::<Float64Type>().value(0)),
        "boolean" => json!(array.as_boolean().value(0)),
        _ => json!(array.as_string::<i32>().value(0)),
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let texts = "(-?[0-9]{1,4}|true|false|[a-z\"\\\\\u{0}\u{e9}\u{1f600}]{0,6}|::(ffff:)?[0-9]\\.2\\.3\\.4|[0-9a-f]{1,4}::1|1\\.5)";
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-300_i64..300).prop_map(Value::from),
        (-1e9..1e9).prop_map(|f: f64| json!(f)),
        (-9_i64..9).prop_map(|n| json!(n as f64)),
        texts.prop_map(Value::from),
        Just(json!([1, { "a": [] }])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

    #[test]
    fn the_parser_agrees_with_serde_json(
        members in proptest::collection::vec(("(text|integer|float|boolean|ip|u8|other)", any_value()), 0..8),
    ) {
        let mut members = members;
        members.push(("at".into(), json!(1_795_449_599_000_000_005_i64)));
        let written: Vec<String> = members.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
        let line = format!("{{{}}}", written.join(","));
        let rows = parse(&mut LineParser::new(every_kind(), NOW), line.as_bytes());
        let kinds = ["text", "integer", "float", "boolean", "ip", "u8"];
        let bad = members.iter().any(|(key, value)| kinds.contains(&key.as_str()) && expected(key, Some(value)).is_err());
        prop_assert_eq!(rows.is_err(), bad, "{} {:?}", line, rows.err());
        if let Ok(rows) = rows {
            for kind in kinds {
                let last = members.iter().rev().find(|(key, _)| key == kind).map(|(_, value)| value);
                prop_assert_eq!(Ok(found(&rows, kind)), expected(kind, last), "{} in {}", kind, line);
            }
        }
    }

    #[test]
    fn what_is_no_json_to_serde_json_is_none_here(
        at in 0_usize..150,
        byte in prop_oneof![any::<u8>(), proptest::sample::select(b"\"\\{}[],:0e-.ntf \x00\n".to_vec())],
        cut in any::<bool>(),
    ) {
        let mut line = br#"{"at":1795449599000000001,"text":"a\u00e9\ud83d\ude00\n","integer":-12,"float":1.5e3,"boolean":true,"ip":"::1","x":{"y":[1,null,"z",-0.5E-2]}}"#.to_vec();
        let at = at % line.len();
        if cut { line.truncate(at) } else { line[at] = byte }
        let here = parse(&mut LineParser::new(every_kind(), NOW), &line);
        let there = serde_json::from_slice::<Value>(&line);
        match (&here, &there) {
            (Ok(rows), Err(_)) if rows.column_by_name(REPAIRED).is_some_and(|r| r.as_boolean().value(0)) => {}
            (Ok(_), Err(error)) => prop_assert!(false, "accepted {:?}: {error}", String::from_utf8_lossy(&line)),
            (Err(Reject::Syntax { reason, .. }), Ok(value)) => {
                prop_assert!(!value.is_object(), "refused {value}: {reason}");
            }
            _ => {}
        }
    }
}

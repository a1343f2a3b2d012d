//! Expressions of Anubis, evaluated as SQL, against values by hand. `None` is what is an error in Anubis.

use arrow::array::{Array, AsArray};
use engine::contract::Session;

use super::super::cel;
use super::super::lower::{Column, Part, Row, Scope, condition};
use super::*;

const COLUMNS: [&str; 10] = [
    "method",
    "path",
    "query",
    "host",
    "src_ip",
    "header_user_agent",
    "header_accept",
    "header_sec_ch_ua",
    "header_content_length",
    "header_x",
];

struct Columns;

impl Columns {
    fn named(&self, name: &str) -> Result<Column, String> {
        let at = COLUMNS.iter().position(|known| *known == name).ok_or("no such column")?;
        Ok(Column { at, name: name.to_owned() })
    }
}

impl Row for Columns {
    fn part(&self, part: Part) -> Result<Column, String> {
        self.named(match part {
            Part::Method => "method",
            Part::Path => "path",
            Part::Query => "query",
            Part::Host => "host",
            Part::Address => "src_ip",
            Part::Asn | Part::Country => "none",
        })
    }

    fn header(&self, name: &str) -> Result<Column, String> {
        self.named(&format!("header_{}", name.to_lowercase().replace('-', "_")))
    }
}

/// A request of nearly nothing, one of nearly everything, and one that is strange.
fn rows() -> RecordBatch {
    let requests: [[Option<&str>; 10]; 3] = [
        [Some("GET"), Some("/"), None, Some("h"), Some("1.2.3.4"), None, None, None, None, None],
        [
            Some("POST"),
            Some("/api/x/"),
            Some("a=1&b=&a=2&%67o=x+y"),
            Some("h:1"),
            Some("::1"),
            Some("O'Neil/1.0 \\ Mozilla"),
            Some("*/*"),
            Some("\"Chromium\""),
            Some("12"),
            Some(""),
        ],
        [
            Some("GET"),
            Some("no%2Fpath"),
            Some(""),
            None,
            None,
            Some("\u{e9}"),
            Some("text/html"),
            None,
            Some("99999999999999999999"),
            None,
        ],
    ];
    let column =
        |nth: usize| -> ArrayRef { Arc::new(requests.iter().map(|request| request[nth]).collect::<StringArray>()) };
    let fields: Vec<Field> = COLUMNS.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), (0..COLUMNS.len()).map(column).collect()).expect("valid")
}

fn evaluated(source: &str) -> Vec<Option<bool>> {
    let rows = rows();
    let expr = cel::parse(source).unwrap_or_else(|fault| panic!("{source}: {fault:?}"));
    let sql = condition(&expr, Scope::Request(&Columns)).unwrap_or_else(|why| panic!("{source}: {why}")).sql;
    let scalar = Session::new().scalar(&sql, rows.schema_ref()).unwrap_or_else(|fault| panic!("{sql}: {fault:?}"));
    let values = scalar.truth().expect("a condition").evaluate(&rows).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let values = values.as_boolean();
    (0..values.len()).map(|row| values.is_valid(row).then(|| values.value(row))).collect()
}

#[test]
fn expressions_give_what_they_give_in_anubis() {
    let (yes, no, error) = (Some(true), Some(false), None);
    for (source, expected) in [
        (r#"userAgent == """#, [yes, no, no]),
        (r#"userAgent.contains("O'Neil")"#, [no, yes, no]),
        (r#"userAgent.contains("\\ Moz")"#, [no, yes, no]),
        ("userAgent.size() == 1", [no, no, yes]),
        (r#""Accept" in headers"#, [no, yes, yes]),
        (r#"headers["Accept"] == "*/*""#, [error, yes, no]),
        (r#"headers["Accept"] != "*/*""#, [error, no, yes]),
        (r#"!(headers["Accept"] == "*/*")"#, [error, no, yes]),
        (r#""Accept" in headers && headers["Accept"] == "*/*""#, [no, yes, no]),
        (r#"headers["Accept"] == "*/*" || method == "GET""#, [yes, yes, yes]),
        (r#"headers["Accept"] == "*/*" && method == "POST""#, [no, yes, no]),
        (r#"headers["Accept"] == "*/*" && method == "GET""#, [error, no, no]),
        (r#""X" in headers"#, [no, yes, no]),
        (r#"missingHeader(headers, "X")"#, [yes, no, yes]),
        (r#"path.startsWith("/api/")"#, [no, yes, no]),
        (r#"path == "no/path""#, [no, no, yes]),
        ("size(segments(path)) == 1", [yes, no, error]),
        ("size(segments(path)) == 3", [no, yes, error]),
        (r#"segments(path)[0] == "api""#, [no, yes, error]),
        (r#"segments(path)[2] == """#, [error, yes, error]),
        (r#"segments(path)[-1] == """#, [error, error, error]),
        (r#""x" in segments(path)"#, [no, yes, error]),
        (r#""" in segments(path)"#, [yes, yes, error]),
        (r#""api/x" in segments(path)"#, [no, no, error]),
        (r#""a" in query"#, [no, yes, no]),
        (r#"query["a"] == "1,2""#, [error, yes, error]),
        (r#"query["go"] == "x y""#, [error, yes, error]),
        (r#"query.b == """#, [error, yes, error]),
        ("size(query) == 0", [yes, no, yes]),
        ("size(query) == 3", [no, yes, no]),
        (r#"remoteAddress == "1.2.3.4""#, [yes, no, error]),
        (r#"remoteAddress in ["1.2.3.4", "::1"]"#, [yes, yes, error]),
        (r#"!(method in ["GET"])"#, [no, yes, no]),
        ("contentLength > 10", [no, yes, error]),
        ("contentLength + 1 - 2 == 11", [no, yes, error]),
        (r#"method == "GET" ? path == "/" : host == "h:1""#, [yes, yes, no]),
        (r#"headers["Accept"] == "x" ? true : true"#, [error, yes, yes]),
        (r#"host + path == "h/""#, [yes, no, no]),
        (r#"path.matches("^/\\w+/[a-z]+/$")"#, [no, yes, no]),
        (r#"userAgent.matches("^\\W$")"#, [no, no, yes]),
        (r#"userAgent.matches("(?i:MOZILLA)")"#, [no, yes, no]),
        (r#"matches(userAgent, regexSafe("1.0"))"#, [no, yes, no]),
        (r#"userAgent.lowerAscii().contains("o'neil")"#, [no, yes, no]),
        ("userAgent.upperAscii() == \"\u{e9}\"", [no, no, yes]),
        (r#"path < "/b""#, [yes, yes, no]),
        ("1.5 < 2.5 && -5 < 3 && 0x10 == 16", [yes, yes, yes]),
        (r#"userAgent == "\n" || method in []"#, [no, no, no]),
        (r#"has(headers.Accept) && headers.Accept.endsWith("html")"#, [no, no, yes]),
    ] {
        assert_eq!(evaluated(source), expected, "{source}");
    }
}

/// The deepest and the longest that the parser takes is SQL that DataFusion takes.
#[test]
fn what_is_within_the_bounds_is_evaluated() {
    let wrap = |times: usize, inner: &str, around: fn(&str) -> String| {
        (0..times).fold(inner.to_owned(), |inner, _| around(&inner))
    };
    let long =
        |count: usize, part: fn(usize) -> String, word: &str| (0..count).map(part).collect::<Vec<_>>().join(word);
    for source in [
        wrap(11, "method == \"GET\"", |inner| format!("({inner})")),
        wrap(10, "(method == \"GET\")", |inner| format!("!{inner}")),
        wrap(5, "path == \"/\"", |inner| format!("(method == \"GET\" ? {inner} : false)")),
        wrap(9, "method", |inner| format!("({inner} + \"a\")")) + " == \"\"",
        wrap(10, "userAgent", |inner| format!("{inner}.lowerAscii()")) + " == \"\"",
        long(240, |nth| format!("userAgent.contains(\"{nth}\")"), " || "),
        long(300, |nth| format!("path != \"{nth}\""), " && "),
        format!("method in [{}]", long(900, |nth| format!("\"{nth}\""), ", ")),
        long(150, |_| "contentLength".to_owned(), " + ") + " == 0",
    ] {
        assert_eq!(evaluated(&source).len(), 3, "{source}");
    }
}

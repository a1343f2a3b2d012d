//! What a web server writes in other keys than there are columns: the request line, and when a request ended instead of
//! when it began.

use super::cell::{Cell, Cells, Slot};
use super::json::Reject;
use super::path::Path;
use super::schema::{ABSENT, Format, Kind};
use super::time::{self, Unit};

/// Which cells of a line are taken, and which are filled in where the line has nothing for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Keys without a column of their own: `request_line`, `end_time`, `request_time`, `duration_us`.
    pub keys: Vec<(Path, Kind)>,
    path: usize,
    query: usize,
    duration_ms: usize,
    /// The cell of the first of `keys`; the others follow.
    first: usize,
}

impl Request {
    /// For a format whose columns are those that are filled in.
    pub(super) fn new(format: &Format) -> Option<Self> {
        let place = |name: &str| format.columns.iter().position(|column| column.name == name);
        let keys = [
            ("request_line", Kind::Text),
            ("end_time", Kind::Time(Unit::S)),
            // Seconds with decimals, in their digits.
            ("request_time", Kind::Text),
            ("duration_us", Kind::U64),
        ];
        Some(Self {
            keys: keys.map(|(key, kind)| (Path::key(key), kind)).to_vec(),
            path: place("path")?,
            query: place("query")?,
            duration_ms: place("duration_ms")?,
            first: format.columns.len() + format.times.len(),
        })
    }

    /// What the cells of the keys may hold.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.keys.iter().map(|(_, kind)| Slot { kind: *kind, absent: ABSENT.map(str::to_owned).to_vec() })
    }

    /// Fills in path, query and duration; returns when the request began, in ns since the epoch, if the line says when it
    /// ended.
    ///
    /// # Errors
    /// If `request_time` is no number, or longer than the time until `end_time`.
    pub(super) fn fill(&self, cells: &mut Cells, line: &str) -> Result<Option<i64>, Reject> {
        let [request_line, end_time, request_time, duration_us] = [0, 1, 2, 3].map(|key| self.first + key);
        if cells.cells[self.path] == Cell::Missing
            && cells.cells[self.query] == Cell::Missing
            && let Some((path, query)) = cells.text(request_line, line).and_then(target)
        {
            let whole = cells.cells[request_line];
            cells.cells[self.path] = whole.part(path);
            cells.cells[self.query] = whole.part(query);
        }
        let duration = match (cells.text(request_time, line), cells.cells[duration_us]) {
            (Some(text), _) => time::length(text, Unit::S).ok_or_else(|| Self::refused(text))?,
            (None, Cell::Unsigned(us)) => i64::try_from(us).unwrap_or(i64::MAX).saturating_mul(1000),
            _ => return Ok(signed(cells.cells[end_time])),
        };
        let begin = signed(cells.cells[end_time]).map(|end| end.saturating_sub(duration));
        if begin.is_some_and(|begin| !time::is_named(begin)) {
            return Err(Self::refused(&format!("{duration} ns")));
        }
        if cells.cells[self.duration_ms] == Cell::Missing {
            cells.cells[self.duration_ms] = Cell::Unsigned(duration.unsigned_abs() / 1_000_000);
        }
        Ok(begin)
    }

    fn refused(found: &str) -> Reject {
        let shown: String = found.chars().take(40).flat_map(char::escape_debug).collect();
        Reject::Mismatch { key: "request_time".into(), expected: "the duration of a request in seconds", found: shown }
    }
}

fn signed(cell: Cell) -> Option<i64> {
    match cell {
        Cell::Signed(ns) => Some(ns),
        _ => None,
    }
}

/// Where in a request line, such as `GET /path?query HTTP/1.1`, path and query stand: first byte and length. `None` if it has
/// no target: the server was sent something else.
///
/// Of a target with an origin (RFC 9112, section 3.2.2) it is what follows that. A target may have spaces, where the server took it.
fn target(request_line: &str) -> Option<((usize, usize), (usize, usize))> {
    let start = request_line.find(' ')? + 1;
    let rest = &request_line[start..];
    let text = rest.rsplit_once(' ').filter(|(_, version)| version.starts_with("HTTP/")).map_or(rest, |(text, _)| text);
    let origin = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            scheme.len() + 3 + rest.find(['/', '?']).unwrap_or(rest.len())
        }
        _ => 0,
    };
    let (at, text) = (start + origin, &text[origin..]);
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let after = at + text.len() - query.len();
    (!text.is_empty() || origin > 0).then_some(((at, path.len()), (after, query.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;
    use crate::format::{LineParser, Rows};
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::UInt64Type;

    /// Begin, path and duration of a line of the format `reqin_log`.
    fn read(members: &str) -> Result<(i64, Option<String>, Option<u64>), String> {
        let line = format!(r#"{{"src_ip":"192.0.2.1",{members}}}"#);
        let mut parser = LineParser::new(Format::reqin_log(Unit::Ns), 1_800_000_000_000_000_000);
        let mut rows = Rows::new(&Format::reqin_log(Unit::Ns));
        let row = parser.parse(line.as_bytes()).map_err(|error| error.to_string())?;
        let begin = row.time;
        rows.push(0, &row);
        let rows = rows.take().expect("rows fit");
        let (path, duration) = (rows["path"].as_string::<i32>(), rows["duration_ms"].as_primitive::<UInt64Type>());
        let path = path.is_valid(0).then(|| path.value(0).to_owned());
        Ok((begin, path, duration.is_valid(0).then(|| duration.value(0))))
    }

    #[test]
    fn a_request_that_says_when_it_ended_began_before_that() {
        const BEGIN: i64 = 1_700_000_000_123_000_000;
        for members in [
            r#""end_time":"1700000004.800","request_time":"4.677""#,
            r#""request_time":4.677,"end_time":1700000004.800"#,
            r#""end_time":"1700000004.800","duration_us":"4677000""#,
            r#""timestamp":"1700000000123000000","duration_us":"4677999""#,
            r#""timestamp":1700000000123000000,"end_time":"1700000009.000","request_time":"4.677""#,
        ] {
            assert_eq!(read(members), Ok((BEGIN, None, Some(4677))), "{members}");
        }
        assert_eq!(read(r#""end_time":"1700000000.123""#), Ok((BEGIN, None, None)));
        assert_eq!(read(r#""end_time":"1700000000.123","request_time":"-","duration_us":"""#), Ok((BEGIN, None, None)));
        let own = r#""end_time":"1700000000.123","request_time":"0.000","duration_ms":7"#;
        assert_eq!(read(own), Ok((BEGIN, None, Some(7))));
    }

    #[test]
    fn a_duration_that_is_none_or_before_all_time_is_refused() {
        for time in ["x", "-1", "1.", "9223372037", "1700000000"] {
            let error = read(&format!(r#""end_time":"1700000000.123","request_time":"{time}""#)).expect_err(time);
            assert!(error.contains("request_time") && error.contains("seconds"), "{error}");
        }
        assert!(read(r#""end_time":"123","request_time":"1""#).expect_err("1970").contains("end_time"));
        assert!(read(r#""request_time":"1""#).expect_err("no time").contains("timestamp"));
    }

    #[test]
    fn a_path_of_its_own_goes_before_the_request_line() {
        let line = |members: &str| read(&format!(r#""timestamp":1700000000123000000,{members}"#)).expect("read").1;
        for (members, path) in [
            (r#""request_line":"GET /a?b HTTP/1.1""#, Some("/a")),
            (r#""request_line":"GET /a?b HTTP/1.1","path":"/own""#, Some("/own")),
            (r#""request_line":"GET /a\"b?c HTTP/1.1""#, Some("/a\"b")),
            (r#""request_line":"GET /\xc3\xbc?c HTTP/1.1""#, Some("/ü")),
            (r#""request_line":"-""#, None),
            (r#""request_line":"""#, None),
        ] {
            assert_eq!(line(members).as_deref(), path, "{members}");
        }
    }

    fn of(request_line: &str) -> Option<(&str, &str)> {
        let text = |(at, len): (usize, usize)| &request_line[at..at + len];
        target(request_line).map(|(path, query)| (text(path), text(query)))
    }

    #[test]
    fn path_and_query_are_as_the_client_sent_them() {
        for (line, expected) in [
            ("GET / HTTP/1.1", Some(("/", ""))),
            ("GET /a%20b/../c?d=%22&e?f HTTP/2.0", Some(("/a%20b/../c", "d=%22&e?f"))),
            ("GET /a?", Some(("/a", ""))),
            ("GET /old", Some(("/old", ""))),
            ("GET /a b?c d HTTP/1.1", Some(("/a b", "c d"))),
            ("GET /to?u=http://x/ HTTP/1.1", Some(("/to", "u=http://x/"))),
            ("GET https://www.example.test:443/a?b HTTP/1.1", Some(("/a", "b"))),
            ("GET https://www.example.test HTTP/1.1", Some(("", ""))),
            ("GET https://www.example.test?b HTTP/1.1", Some(("", "b"))),
            ("OPTIONS * HTTP/1.1", Some(("*", ""))),
            ("CONNECT www.example.test:443 HTTP/1.1", Some(("www.example.test:443", ""))),
            ("GET  HTTP/1.1", None),
            ("\u{16}\u{3}\u{1}", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(of(line), expected, "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

        #[test]
        fn any_target_without_an_origin_comes_back(path in "/[^? ]*", query in "[^ ]*") {
            let line = format!("GET {path}?{query} HTTP/1.1");
            prop_assert_eq!(of(&line), Some((path.as_str(), query.as_str())));
        }

        #[test]
        fn any_text_has_parts_within_it(line in "(?s).*") {
            let _ = of(&line);
        }
    }
}

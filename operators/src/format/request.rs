//! What a web server writes in other keys than there are columns: the request line, and when a request ended instead of
//! when it began.

use super::json::Reject;
use super::schema::{Column, Kind};
use super::time;
use super::value::{Cell, Cells};

/// The keys. None has a column of its own; what a line has under a column's own key goes first.
pub(super) const KEYS: [(&str, Kind); 4] = [
    ("request_line", Kind::Text),
    ("end_time", Kind::Seconds),
    ("request_time", Kind::Seconds),
    ("duration_us", Kind::U64),
];

/// Which cells of a line are taken, and which are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    path: usize,
    query: usize,
    duration_ms: usize,
    /// The cell of the first of [`KEYS`]; the others follow.
    first: usize,
}

impl Request {
    /// For these columns, if they have all that can be filled in, where the cells of [`KEYS`] start at `first`.
    pub(super) fn new(columns: &[Column], first: usize) -> Option<Self> {
        let place = |name: &str| columns.iter().position(|column| column.name == name);
        Some(Self { path: place("path")?, query: place("query")?, duration_ms: place("duration_ms")?, first })
    }

    /// Fills in path, query and duration where the line did not have them.
    ///
    /// # Errors
    /// If `end_time` is no moment after 1973.
    pub(super) fn fill(&self, cells: &mut Cells, line: &str) -> Result<Option<i64>, Reject> {
        let [request_line, end, seconds, micros] = [0, 1, 2, 3].map(|key| cells.cells[self.first + key]);
        if cells.cells[self.path] == Cell::Missing && cells.cells[self.query] == Cell::Missing {
            let text = match request_line {
                Cell::Line(at, len) => line.get(at..at + len),
                Cell::Scratch(at, len) => cells.scratch.get(at..at + len),
                _ => None,
            };
            if let Some((path, query)) = text.and_then(target) {
                cells.cells[self.path] = request_line.part(path);
                cells.cells[self.query] = request_line.part(query);
            }
        }
        let duration = match (seconds, micros) {
            (Cell::Signed(ns), _) => Some(ns),
            (_, Cell::Unsigned(us)) => i64::try_from(us).ok().and_then(|us| us.checked_mul(1000)),
            _ => None,
        };
        if let (Cell::Missing, Some(ns)) = (cells.cells[self.duration_ms], duration) {
            cells.cells[self.duration_ms] = Cell::Unsigned(ns.unsigned_abs() / 1_000_000);
        }
        match end {
            Cell::Signed(end) => begin(end, duration.unwrap_or(0)).map(Some),
            _ => Ok(None),
        }
    }
}

/// When a request began, in ns since the epoch.
fn begin(end: i64, duration: i64) -> Result<i64, Reject> {
    let begin = end.checked_sub(duration).and_then(|ns| u64::try_from(ns).ok()).and_then(time::from_ns);
    begin.ok_or_else(|| Reject::Mismatch {
        key: "end_time".into(),
        expected: "the end of a request, in seconds since 1970",
        found: format!("{end} ns, after {duration} ns"),
    })
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

//! The request line, or its target, where a server writes that instead of path and query.

use super::cell::{Cell, Cells};
use super::schema::{Format, Role};

/// What servers take for a space in a request line (RFC 9112, section 3).
const BLANK: [char; 4] = [' ', '\t', '\r', '\u{b}'];

/// Fills in path and query from the request line, where the line has neither. `line` is the text that cells stand in.
pub(super) fn fill(format: &Format, cells: &mut Cells, line: &str) {
    let Some([path, query]) = format.target else { return };
    if cells.values[path] != Cell::Missing || cells.values[query] != Cell::Missing {
        return;
    }
    let extras = format.extras.iter().zip(&cells.values[format.columns.len()..]);
    let mut written = extras.filter(|(extra, _)| matches!(extra.role, Role::RequestLine | Role::Target));
    let Some((extra, cell)) = written.find(|(_, cell)| **cell != Cell::Missing) else { return };
    let (role, cell) = (extra.role, *cell);
    let text = match cell {
        Cell::Line(at, len) => line.get(at..at + len),
        Cell::Scratch(at, len) => cells.beside.scratch.get(at..at + len),
        _ => None,
    };
    let parts = text.and_then(|text| if role == Role::Target { parts(text, 0) } else { target(text) });
    if let Some((of_path, of_query)) = parts {
        cells.values[path] = cell.part(of_path);
        cells.values[query] = cell.part(of_query);
    }
}

/// A part of a text: first byte, and length.
type Part = (usize, usize);

/// Where in a request line, such as `GET /path?query HTTP/1.1`, path and query stand: first byte and length. `None` if it has
/// no target: the server was sent something else.
///
/// Of a target with an origin (RFC 9112, section 3.2.2) it is what follows that. A target may have spaces, where the server took
/// it; those around it are none of it, because servers take more than one (RFC 9112, section 3).
pub(super) fn target(request_line: &str) -> Option<(Part, Part)> {
    let method = request_line.trim_start_matches(BLANK).find(BLANK)?;
    let line = request_line.trim_start_matches(BLANK);
    let rest = line[method..].trim_start_matches(BLANK);
    let start = request_line.len() - rest.len();
    let rest = rest.trim_end_matches(BLANK);
    let text =
        rest.rsplit_once(BLANK).filter(|(_, version)| version.starts_with("HTTP/")).map_or(rest, |(text, _)| text);
    parts(text.trim_end_matches(BLANK), start)
}

/// Path and query of a target that stands at `start`.
fn parts(text: &str, start: usize) -> Option<(Part, Part)> {
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
        let text = |(at, len): Part| &request_line[at..at + len];
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
            ("GET  HTTP/1.1", Some(("HTTP/1.1", ""))),
            ("POST /login  HTTP/1.1", Some(("/login", ""))),
            ("GET  /x HTTP/1.1", Some(("/x", ""))),
            ("GET /b?c HTTP/1.1  ", Some(("/b", "c"))),
            ("GET\t/x\tHTTP/1.1", Some(("/x", ""))),
            (" GET /x  y HTTP/1.1", Some(("/x  y", ""))),
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
        fn any_target_without_an_origin_comes_back(path in r"/[^? \t\r\x0b]*", query in r"[^ \t\r\x0b]*") {
            let line = format!("GET {path}?{query} HTTP/1.1");
            prop_assert_eq!(of(&line), Some((path.as_str(), query.as_str())));
        }

        #[test]
        fn any_text_has_parts_within_it(line in "(?s).*") {
            let _ = of(&line);
            for (at, len) in parts(&line, 0).into_iter().flat_map(|(path, query)| [path, query]) {
                prop_assert!(line.get(at..at + len).is_some());
            }
        }
    }
}

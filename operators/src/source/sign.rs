//! What to say when lines come and none of them is understood: nearly always a log in another format.

use engine::contract::{Seen, Sign};
use engine::text::{cell, line};

/// Rejected lines after which it is said while more may come.
const MANY: u64 = 10;

/// How many characters of a line are shown.
const SHOWN: usize = 160;

/// What the counters of a source of lines say.
pub(super) fn lines(seen: &Seen) -> Sign {
    let lines = seen.rejected + seen.rows_out;
    if seen.rejected == 0 || lines < MANY && !seen.over {
        return if seen.rows_out > 0 { Sign::Fine } else { Sign::Unclear };
    }
    // Below one in twenty it is a matter of single lines, for which there is the port `rejected`.
    if seen.rejected < lines - lines / 20 {
        return Sign::Fine;
    }
    let mut said = match seen.rows_out {
        0 => format!("none of {lines} lines was understood"),
        _ => format!("{} of {lines} lines were not understood", seen.rejected),
    };
    if let Some(first) = &seen.first_rejected {
        said.push_str(&format!(", first: {}, in `{}`", line(&first.reason), excerpt(&first.line)));
        let cause = if first.reason.contains("a JSON object") { cause(&first.line) } else { None };
        if let Some(cause) = cause {
            said.push_str(&format!("; {cause}"));
        }
    }
    Sign::Wrong(said)
}

/// The beginning of a line in one line of text that a terminal does not obey.
fn excerpt(line: &str) -> String {
    cell(line, SHOWN).into_owned()
}

/// What a line looks like that is no JSON object.
fn cause(line: &str) -> Option<&'static str> {
    let line = line.trim_start();
    match line.chars().next() {
        None | Some('{') => None,
        Some('[') => Some("the format takes JSON objects, one a line, and this is an array"),
        Some(_) if line.contains('[') && line.contains("] \"") => Some(
            "this looks like the common or combined log format, which `format: combined` reads; `list formats` shows others",
        ),
        Some(_) => Some("the format takes JSON objects, one a line; `list formats` shows others"),
    }
}

#[cfg(test)]
mod tests {
    use engine::contract::Rejected;

    use super::*;

    fn seen(rejected: u64, rows_out: u64, over: bool, line: &str) -> Seen {
        let first = Rejected { reason: "not a JSON object".to_owned(), line: line.to_owned() };
        Seen { rejected, rows_out, over, first_rejected: Some(first), ..Seen::default() }
    }

    #[test]
    fn many_lines_that_are_not_understood_are_wrong_at_once_and_few_at_the_end() {
        let judge = |rejected, rows_out, over| lines(&seen(rejected, rows_out, over, "x"));
        assert_eq!(judge(9, 0, false), Sign::Unclear);
        assert!(matches!(judge(10, 0, false), Sign::Wrong(_)));
        assert!(matches!(judge(1, 0, true), Sign::Wrong(_)));
        assert_eq!(judge(0, 0, true), Sign::Unclear);
        assert_eq!(judge(9, 1, false), Sign::Fine);
        assert!(matches!(judge(96, 4, false), Sign::Wrong(_)));
        assert_eq!(judge(90, 10, false), Sign::Fine);
    }

    #[test]
    fn the_first_line_and_its_likely_cause_are_shown_escaped() {
        let line = "192.0.2.1 - - [23/Nov/2026:15:35:27 +0000] \"GET /\x1b]0;x\x07 HTTP/1.1\" 200 5\n";
        let Sign::Wrong(said) = lines(&seen(12, 0, false, line)) else { panic!("wrong") };
        assert!(said.starts_with("none of 12 lines was understood, first: not a JSON object, in `192.0.2.1"), "{said}");
        assert!(
            said.contains("combined log format") && said.contains("\\u{1b}") && !said.contains(['\x1b', '\n']),
            "{said}"
        );
        let Sign::Wrong(said) = lines(&seen(12, 0, false, &"é".repeat(4000))) else { panic!("wrong") };
        assert!(said.chars().count() < 400, "{said}");
    }
}

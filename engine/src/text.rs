//! Text of unknown origin made fit for a terminal.

use std::borrow::Cow;

/// `text` with everything that a terminal could obey or hide behind written as an escape: control characters except
/// the line feed, and the marks that change the direction of writing (Unicode TR 36, section 2.10).
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_active(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn is_active(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(printable("GET /\x1b]0;owned\x07\r\u{202e}\u{9b}"), "GET /\\u{1b}]0;owned\\u{7}\\r\\u{202e}\\u{9b}");
        assert!(matches!(printable("a straightforward\nkäse"), Cow::Borrowed(_)));
    }
}

//! Text of the network made fit for a terminal and for a line of a file.

use std::fmt::Write;

use serde_json::Value;

/// The text in one line: what does not show as itself, or changes how the text around it shows, is escaped.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

/// [`visible`], with at most so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    let mut chars = text.chars();
    let mut out = visible(&chars.by_ref().take(most).collect::<String>());
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// A value as people read it; null is `-`.
pub fn shown(value: &Value, most: usize) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => shortened(text, most),
        Value::Array(values) => values.iter().map(|value| shown(value, most)).collect::<Vec<_>>().join("; "),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, figures),
        other => shortened(&other.to_string(), most),
    }
}

/// A number with four significant digits, or all of them before the point.
pub fn figures(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || !number.is_finite() {
        return format!("{number}");
    }
    if !(1e-4..1e15).contains(&size) {
        return format!("{number:.3e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 8);
    let text = format!("{number:.*}", decimals as usize);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Says something on stderr; nobody need listen.
pub fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{}", visible(line));
}

/// JSON in lines, in which nothing is hidden: what JSON allows as it is and a terminal could obey is escaped as well.
pub fn json(value: &impl serde::Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| format!("no JSON: {error}"))?;
    let mut out = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Outside of strings JSON has no other control characters than the line feed.
        if c == '\n' || !is_hidden(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to memory does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out.push('\n');
    Ok(out)
}

/// Control characters, line and paragraph separators, the bidirectional controls of UAX #9 (CVE-2021-42574), zero-width
/// characters and tags.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use serde_json::json as made;

    use super::*;

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(visible("é\r\n\u{1b}[0m\u{202e}"), "é\\u{d}\\u{a}\\u{1b}[0m\\u{202e}");
        assert_eq!(shortened("abcdef", 3), "abc…");
        assert_eq!(shortened("abc", 3), "abc");
    }

    #[test]
    fn json_stays_json_when_hidden_characters_are_escaped() {
        let value = made!({"a": "x\u{202e}\u{7f}\n\u{e0001}\u{1b}\"", "b": [1, null]});
        let text = json(&value).expect("JSON");
        assert!(text.chars().all(|c| c == '\n' || !is_hidden(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn numbers_have_four_digits() {
        let shown: Vec<_> =
            [0.0, 1.0, 0.123456, -12.3456, 123_456.7, 0.00012346, 1e-9, 30.0, 2e15].map(figures).into_iter().collect();
        assert_eq!(shown, ["0", "1", "0.1235", "-12.35", "123457", "0.0001235", "1.000e-9", "30", "2.000e15"]);
        assert_eq!(super::shown(&made!([null, true, "a\n", 0.5, 7]), 10), "-; true; a\\u{a}; 0.5; 7");
    }
}

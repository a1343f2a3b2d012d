//! Text and numbers as people read them.

use engine::text::cell;
pub use engine::text::line as visible;
use serde_json::Value;

/// [`cell`] as a string of its own.
pub fn shortened(text: &str, most: usize) -> String {
    cell(text, most).into_owned()
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

/// JSON in lines, in which nothing is hidden.
pub fn json(value: &impl serde::Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| format!("no JSON: {error}"))?;
    Ok(format!("{}\n", engine::text::json(&text)))
}

#[cfg(test)]
mod tests {
    use serde_json::json as made;

    use super::*;

    #[test]
    fn json_has_nothing_hidden_and_ends_its_line() {
        let value = made!({"a": "x\u{202e}\u{7f}\n\u{e0001}\u{1b}\"", "b": [1, null]});
        let text = json(&value).expect("JSON");
        assert!(text.ends_with("}\n") && !text.contains(['\u{202e}', '\u{7f}', '\u{1b}', '\u{e0001}']), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn numbers_have_four_digits() {
        let shown: Vec<_> =
            [0.0, 1.0, 0.123456, -12.3456, 123_456.7, 0.00012346, 1e-9, 30.0, 2e15].map(figures).into_iter().collect();
        assert_eq!(shown, ["0", "1", "0.1235", "-12.35", "123457", "0.0001235", "1.000e-9", "30", "2.000e15"]);
        assert_eq!(super::shown(&made!([null, true, "a\n", 0.5, 7]), 10), "-; true; a\\n; 0.5; 7");
    }
}

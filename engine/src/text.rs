//! Text of unknown origin made fit for a terminal, and times for people.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

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

/// A duration in its largest unit of which there are two, rounded down: `40 days`, `25 hours`, `1 second`.
pub fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let (count, unit) = units
        .into_iter()
        .find(|(of, _)| seconds >= 2 * of)
        .map_or((seconds, "second"), |(of, unit)| (seconds / of, unit));
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// The day of a time in UTC, as `2026-12-01`. Earlier times are 1970-01-01, later ones 9999-12-31.
pub fn day(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = time.clamp(SystemTime::UNIX_EPOCH, last);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
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

    #[test]
    fn ages_and_days() {
        let shown = [0, 1, 119, 120, 7_199, 7_200, 172_799, 172_800, 86_400 * 40].map(|s| age(Duration::from_secs(s)));
        let expected = [
            "0 seconds",
            "1 second",
            "119 seconds",
            "2 minutes",
            "119 minutes",
            "2 hours",
            "47 hours",
            "2 days",
            "40 days",
        ];
        assert_eq!(shown, expected);
        assert_eq!(day(SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_083_200)), "2026-12-01");
        assert_eq!(day(SystemTime::UNIX_EPOCH - Duration::from_secs(9)), "1970-01-01");
        assert_eq!(day(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)), "9999-12-31");
    }
}

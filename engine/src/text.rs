//! Text of unknown origin made fit for where it goes: a terminal, a line of a table, JSON that somebody reads, a spreadsheet. And
//! times for people.
//!
//! Whoever sends a packet or a request chooses what stands in it, and whoever looks at it may sit at a terminal that obeys escape
//! sequences. Nothing here is taken away: what could be obeyed, or does not show, is written as an escape.

mod json_lines;
mod spreadsheet;

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

pub use json_lines::ReadableJson;
pub use spreadsheet::{csv_field, spreadsheet};

/// `text` in one line: everything that [`is_hidden`] is an escape, as in `\n`, `\u{1b}` or `\u{202e}`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// [`line()`] with at most `most` characters of the text; `…` says that there are more.
pub fn cell(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => line(text),
        Some((end, _)) => Cow::Owned(format!("{}…", line(&text[..end]))),
    }
}

/// [`line()`], but for line feeds: for text in lines whose values have been through [`line()`], and for messages.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_hidden(c))
}

/// A message that may have several lines: [`printable`], with what follows the first line set in, so that no value in it can
/// pass for a message of its own.
pub fn message(text: &str) -> Cow<'_, str> {
    match printable(text) {
        lines if lines.contains('\n') => Cow::Owned(lines.replace('\n', "\n  ")),
        line => line,
    }
}

/// JSON text that means the same: what [`is_hidden`] in its strings is an escape of JSON (RFC 8259, section 7). Line feeds, which
/// stand only between values, stay.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_active = |c| c != '\n' && is_hidden(c);
    if is_plain(text) || !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_active(c) {
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to memory does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// `text` with as many bytes in the same lines, and a sign in place of each hidden character: positions in it stay right.
pub fn masked(text: &str) -> Cow<'_, str> {
    let is_active = |c| !matches!(c, '\n' | '\r' | '\t') && is_hidden(c);
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let sign = |c: char| match c.len_utf8() {
        1 => "?",
        2 => "·",
        3 => "\u{fffd}",
        _ => "··",
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_active(c) {
            true => out.push_str(sign(c)),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// What a terminal could obey, or what does not show as itself: control characters (C0, C1, DEL), ends of lines and paragraphs,
/// marks that change the direction of writing (UAX #9, CVE-2021-42574), and all else that Unicode 16 calls a format character or
/// lets be ignored (Default_Ignorable_Code_Point), but for signs that are seen, such as those before Arabic numbers.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'
                ..='\u{180f}'
        )
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}')
        || matches!(c, '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}')
        || matches!(c, '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether there is nothing but what shows in ASCII, which most text is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn escaped(text: &str, is_active: impl Fn(char) -> bool + Copy) -> Cow<'_, str> {
    if is_plain(text) || !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
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

#[cfg(test)]
#[path = "text/tests.rs"]
mod tests;

//! Text in a CSV file that a person opens in a spreadsheet.

use std::borrow::Cow;

use super::{is_hidden, line};

/// `text` as a cell that no spreadsheet evaluates: [`line()`], with an apostrophe before what would be taken for a formula, also
/// behind blanks, quotes and hidden characters. A number stays a number.
///
/// The signs are those of the OWASP page on CSV injection: `=`, `+`, `-`, `@` and their full-width forms, as which Excel takes them
/// too, and the minus sign. Tabs and carriage returns, which stand there as well, [`line()`] escapes.
pub fn spreadsheet(text: &str) -> Cow<'_, str> {
    let before = |c: char| c.is_whitespace() || is_hidden(c) || matches!(c, '"' | '\'' | '`' | '‘' | '’' | '“' | '”');
    let begins = text.trim_start_matches(before);
    let is_formula =
        begins.starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}', '\u{2212}']);
    match is_formula && !is_number(text) {
        true => Cow::Owned(format!("'{}", line(text))),
        false => line(text),
    }
}

/// [`spreadsheet`] as a field of a CSV file (RFC 4180), in quotes where it needs them.
pub fn csv_field(text: &str) -> Cow<'_, str> {
    let cell = spreadsheet(text);
    match cell.contains(['"', ',', ';']) {
        true => Cow::Owned(format!("\"{}\"", cell.replace('"', "\"\""))),
        false => cell,
    }
}

/// Whether the text is a number in decimal digits, such as `-12.5e3`, and nothing else.
fn is_number(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = |text| str::strip_prefix(text, ['+', '-']).unwrap_or(text);
    let (number, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = unsigned(number).split_once('.').unwrap_or((unsigned(number), "0"));
    is_digits(whole) && is_digits(fraction) && is_digits(unsigned(power))
}

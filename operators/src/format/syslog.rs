//! The header of a syslog message, before the text that a program has written.
//!
//! RFC 5424, and RFC 3164 as it is met with: glibc and HAProxy leave out the host, nginx's `nohostname` too, rsyslog writes
//! the time as RFC 3339 has it, others no tag or no time at all. A line without a priority in angle brackets has no header.
//! Times are passed over: those of RFC 3164 have no year and no zone, and the program's own text has a better one.

use crate::syslog::{FACILITIES, SEVERITIES};

/// The greatest priority: facility 23, severity 7.
const MAX_PRIORITY: u16 = 191;

/// The most characters of a tag. RFC 3164 has 32, and longer names of programs are met with.
const MAX_TAG: usize = 64;

/// The most of a host's name (RFC 1034).
const MAX_HOST: usize = 255;

/// The columns that a header gives.
pub(super) const COLUMNS: [&str; 4] = ["syslog_facility", "syslog_severity", "syslog_hostname", "syslog_app"];

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header<'l> {
    /// Eight times the facility, and the severity; at most 191.
    pub priority: u16,
    /// The sender.
    pub hostname: Option<&'l [u8]>,
    /// The program.
    pub app: Option<&'l [u8]>,
}

impl<'l> Header<'l> {
    /// The values of the columns.
    pub(super) fn values(self) -> [Option<&'l [u8]>; COLUMNS.len()] {
        let facility = FACILITIES.get(usize::from(self.priority / 8)).map(|name| name.as_bytes());
        let severity = SEVERITIES.get(usize::from(self.priority % 8)).map(|name| name.as_bytes());
        [facility, severity, self.hostname, self.app]
    }
}

/// The header of a line, and the text behind it: the line itself, if it has none.
#[inline]
pub(super) fn split(line: &[u8]) -> (Option<Header<'_>>, &[u8]) {
    if line.first() != Some(&b'<') {
        return (None, line);
    }
    match header(line) {
        Some((header, text)) => (Some(header), text),
        None => (None, line),
    }
}

fn header(line: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let end = line.iter().take(5).position(|byte| *byte == b'>')?;
    let digits = line.get(1..end).filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))?;
    let priority = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if priority > MAX_PRIORITY {
        return None;
    }
    let rest = &line[end + 1..];
    let none = Header { priority, hostname: None, app: None };
    Some(match rest.strip_prefix(b"1 ").and_then(|rest| rfc_5424(none, rest)) {
        Some(found) => found,
        None => rfc_3164(none, rest),
    })
}

/// Behind the version: `TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG`.
fn rfc_5424<'l>(none: Header<'l>, rest: &'l [u8]) -> Option<(Header<'l>, &'l [u8])> {
    let (time, rest) = word(rest)?;
    let (hostname, rest) = word(rest)?;
    let (app, rest) = word(rest)?;
    let (_, rest) = word(rest)?;
    let (_, rest) = word(rest)?;
    if time != b"-" && !time.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let rest = data(rest)?;
    let text = rest.strip_prefix(b" ").unwrap_or(rest);
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let known = |value: &'l [u8]| Some(value).filter(|value| *value != b"-");
    Some((Header { hostname: known(hostname), app: known(app), ..none }, text))
}

/// A word and what follows the blank behind it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ').filter(|end| *end > 0)?;
    Some((&text[..end], &text[end + 1..]))
}

/// What follows structured data: `-`, or elements in brackets whose values may have brackets in quotes.
fn data(text: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = text.strip_prefix(b"-") {
        return Some(rest);
    }
    let (mut at, mut quoted, mut open) = (0, false, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' if open => quoted = !quoted,
            b'[' if !open => open = true,
            b']' if open && !quoted => {
                open = false;
                if text.get(at + 1) != Some(&b'[') {
                    return Some(&text[at + 1..]);
                }
            }
            _ if !open => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Behind the priority: `Mmm dd hh:mm:ss HOSTNAME TAG: text`, of which everything may be missing.
fn rfc_3164<'l>(none: Header<'l>, rest: &'l [u8]) -> (Header<'l>, &'l [u8]) {
    let Some(rest) = behind_time(rest) else {
        return match tag(rest) {
            Some((app, text)) => (Header { app: Some(app), ..none }, text),
            None => (none, rest),
        };
    };
    if let Some((app, text)) = tag(rest) {
        return (Header { app: Some(app), ..none }, text);
    }
    match word(rest) {
        Some((hostname, behind)) if is_host(hostname) => match tag(behind) {
            Some((app, text)) => (Header { hostname: Some(hostname), app: Some(app), ..none }, text),
            None => (Header { hostname: Some(hostname), ..none }, behind),
        },
        _ => (none, rest),
    }
}

/// What follows `Mmm dd hh:mm:ss ` or a time of RFC 3339.
fn behind_time(text: &[u8]) -> Option<&[u8]> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    if let Some(month) = text.first_chunk::<3>()
        && MONTHS.contains(&month)
    {
        const PATTERN: &[u8; 13] = b" _0 00:00:00 ";
        let fits = |(byte, pattern): (&u8, &u8)| match pattern {
            b'0' => byte.is_ascii_digit(),
            b'_' => byte.is_ascii_digit() || *byte == b' ',
            other => byte == other,
        };
        let rest = text.get(3..3 + PATTERN.len())?;
        return rest.iter().zip(PATTERN).all(fits).then(|| &text[3 + PATTERN.len()..]);
    }
    let (time, rest) = word(text)?;
    let is_time = time.len() >= 20 && time[4] == b'-' && time[10] == b'T' && time[..4].iter().all(u8::is_ascii_digit);
    is_time.then_some(rest)
}

/// A tag, and the text behind it: `nginx: `, `haproxy[123]: `.
fn tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let end = text.iter().take(MAX_TAG + 1).position(|byte| !is_of_name(byte)).filter(|end| *end > 0)?;
    let (name, rest) = text.split_at(end);
    let rest = match rest.strip_prefix(b"[") {
        Some(process) => &process[process.iter().take(MAX_TAG).position(|byte| *byte == b']')? + 1..],
        None => rest,
    };
    let rest = rest.strip_prefix(b":")?;
    // `2001:db8::1` is a host, and `12:30` no program.
    let text = rest.strip_prefix(b" ").or(rest.is_empty().then_some(rest))?;
    Some((name, text))
}

fn is_host(word: &[u8]) -> bool {
    word.len() <= MAX_HOST
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'%'))
}

#[cfg(test)]
#[path = "syslog_tests.rs"]
mod tests;

//! Names of files that have been rotated.

use std::ffi::OsStr;
use std::path::Path;

/// Digits that a date has at least, where a number might as well tell one program's log from another's.
const DATE: usize = 6;

/// Endings of compressed files, and whether they can be read.
const PACKED: [(&str, bool); 6] =
    [(".gz", true), (".zst", true), (".xz", true), (".bz2", false), (".lz4", false), (".Z", false)];

/// Whether a name says that a file is compressed, and if so whether such can be read.
pub(super) fn packed(path: &Path) -> Option<bool> {
    let name = path.file_name()?.as_encoded_bytes();
    PACKED.iter().find(|(end, _)| name.ends_with(end.as_bytes())).map(|(_, can)| *can)
}

/// Whether a name says that a file is compressed in a way that can be read.
pub(in crate::source) fn is_packed(path: &Path) -> bool {
    packed(path) == Some(true)
}

/// What people and programs call a file that was put aside.
const WORDS: [&str; 13] = [
    "old", "bak", "back", "backup", "prev", "previous", "last", "save", "saved", "orig", "archive", "archived",
    "rotated",
];

/// Whether a file's name is one that rotation makes of `name`: a number, a date, or a word such as `old` behind it
/// (`access.log.1`, `access.log-20261124`, `access.log.old`), before its extension (`access-20261124.log`, `access.1.log`) or
/// before all of it (`20261124-access.log`), compressed or not; and what multilog and svlogd make of `current`.
pub(super) fn is_rotated(name: &OsStr, other: &OsStr) -> bool {
    let (name, other) = (name.as_encoded_bytes(), unpacked(other));
    if name == b"current" {
        return is_tai64n(other);
    }
    if let Some(rest) = other.strip_prefix(name) {
        return match rest {
            [b'.' | b'-' | b'_', digit, ..] if digit.is_ascii_digit() => true,
            rest => is_date(rest) || is_aside(rest),
        };
    }
    if let Some(before) = other.strip_suffix(name) {
        return is_aside(before)
            || before.split_last().is_some_and(|(end, date)| b".-_".contains(end) && is_date(date));
    }
    match between(name, other) {
        Some([b'.', number @ ..]) if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => true,
        Some(rest) => {
            is_date(rest.strip_prefix(b".").or(rest.strip_prefix(b"-")).or(rest.strip_prefix(b"_")).unwrap_or(rest))
                || is_aside(rest)
        }
        None => false,
    }
}

/// Month and day of a name such as `access-1124.log`. The number might as well tell one program's log from another's; the file's
/// own time says which.
pub(super) fn short_date(name: &OsStr, other: &OsStr) -> Option<(u32, u32)> {
    let digits = match between(name.as_encoded_bytes(), unpacked(other))? {
        [b'.' | b'-' | b'_', digits @ ..] | digits => std::str::from_utf8(digits).ok()?,
    };
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (month, day) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some((month, day))
}

/// Whether a file may have been rotated away though its name is none that [`is_rotated`] knows: it has the log's whole name and
/// something behind it, or the log's name without its extension and a date.
pub(super) fn may_be_rotated(name: &OsStr, other: &OsStr) -> bool {
    let (name, other) = (name.as_encoded_bytes(), unpacked(other));
    if let Some([next, ..]) = other.strip_prefix(name) {
        return !next.is_ascii_alphanumeric();
    }
    let stem = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0).map_or(name, |dot| &name[..dot]);
    let starts = |at: &usize| other[*at..].starts_with(stem) && (*at == 0 || !other[at - 1].is_ascii_alphanumeric());
    let Some(at) = (0..other.len()).find(starts) else { return false };
    let rest = [&other[..at], &other[at + stem.len()..]];
    let ends = rest[1].first().is_none_or(|byte| !byte.is_ascii_alphabetic());
    let longest = rest.iter().flat_map(|part| part.split(|byte| !byte.is_ascii_digit() && !b"-.".contains(byte)));
    ends && name != other && longest.map(|run| run.iter().filter(|byte| byte.is_ascii_digit()).count()).max() >= Some(4)
}

/// A name without the ending that compression gives.
fn unpacked(name: &OsStr) -> &[u8] {
    let name = name.as_encoded_bytes();
    PACKED.iter().find_map(|(end, _)| name.strip_suffix(end.as_bytes())).unwrap_or(name)
}

/// What another name has between this one's stem and its extension.
fn between<'o>(name: &[u8], other: &'o [u8]) -> Option<&'o [u8]> {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0)?;
    let (stem, extension) = name.split_at(dot);
    other.strip_prefix(stem)?.strip_suffix(extension)
}

fn is_date(text: &[u8]) -> bool {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let others = |byte: &u8| byte.is_ascii_digit() || b"-_.:TWZ+".contains(byte);
    text.first().is_some_and(u8::is_ascii_digit) && digits >= DATE && text.iter().all(others)
}

/// Whether a text besides a log's name says that the file was put aside: a word for that, perhaps with numbers, or `~`.
fn is_aside(text: &[u8]) -> bool {
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit() || b"TWZ".contains(&byte));
    let is_word = |word: &str| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
    };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    // What is joined to the name without a sign between is another name.
    let is_apart = !(text.starts_with(char::is_alphanumeric) && text.ends_with(char::is_alphanumeric));
    is_apart && (text.contains('~') || words().any(is_word)) && words().all(|word| is_number(word) || is_word(word))
}

/// A label of multilog, svlogd or s6-log: `@` and the time in hexadecimal digits, and perhaps how the file was finished.
fn is_tai64n(name: &[u8]) -> bool {
    let Some(label) = name.strip_prefix(b"@") else { return false };
    let digits = label.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    digits >= 16 && matches!(&label[digits..], [] | [b'.', _])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_logrotate_gives_are_known() {
        let is = |other: &str| is_rotated(OsStr::new("access.log"), OsStr::new(other));
        for other in [
            "access.log.1",
            "access.log.12.gz",
            "access.log-20261124",
            "access.log-20261124.zst",
            "access.log.2026-11-24-1795392000",
            "access.log20261124",
            "access.log_2026-W48",
            "access-20261124.log",
            "access-20261124.log.gz",
            "access_2026-11-24T10:00:00Z.log",
            "access20261124.log",
            "access.1.log",
            "access.2.log.xz",
            "access.log.old",
            "access.log.OLD.2",
            "access.log.bak1.gz",
            "access.log~",
            "access.log.~3~",
            "access.log.backup-20261124",
            "access.old.log",
            "access-old.log",
            "access-backup-20261124.log.xz",
            "old-access.log",
            "20261124-access.log",
        ] {
            assert!(is(other), "{other}");
        }
        for other in [
            "access.log",
            "access-2.log",
            "access-1124.log",
            "access-ssl.log",
            "access-ssl-20261124.log",
            "accessold.log",
            "access.log.lock",
            "access.log2",
            "access.log.old2026x",
            "xaccess.log",
            "xaccess.log.1",
            "access.log.gz",
        ] {
            assert!(!is(other), "{other}");
        }
        assert!(is_rotated(OsStr::new("0.log"), OsStr::new("0.log.20261130-120000")));
        assert!(is_rotated(OsStr::new("log"), OsStr::new("log.1")));
        let label = "@400000006744a1b2075bcd15";
        for (other, right) in [(label, true), (&format!("{label}.s"), true), ("@4000", false), ("current.1", false)] {
            assert_eq!(is_rotated(OsStr::new("current"), OsStr::new(other)), right, "{other}");
        }
        assert!(!is_rotated(OsStr::new("access.log"), OsStr::new(label)));
        assert_eq!(["a.gz", "a.bz2", "a.1"].map(|name| packed(Path::new(name))), [Some(true), Some(false), None]);
    }

    #[test]
    fn names_that_may_be_of_a_log_are_told_from_those_that_are_not() {
        let may = |other: &str| may_be_rotated(OsStr::new("access.log"), OsStr::new(other));
        for other in ["access.log.web1", "access-1124.log", "access-web1-20261124.log.gz", "web1.access.2026-11-24.log"]
        {
            assert!(may(other), "{other}");
        }
        for other in
            ["access.log", "access-ssl.log", "access.logs", "accessory-20261124.log", "error.log.1", "xaccess-20261124"]
        {
            assert!(!may(other), "{other}");
        }
        let short = |other: &str| short_date(OsStr::new("access.log"), OsStr::new(other));
        assert_eq!(
            ["access-1124.log", "access-8443.log", "access-20261124.log"].map(short),
            [Some((11, 24)), None, None]
        );
    }
}

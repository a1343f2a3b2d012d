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

/// Whether a file's name is one that rotation makes of `name`: a number or a date behind it (`access.log.1`,
/// `access.log-20261124`) or before its extension (`access-20261124.log`, `access.1.log`), compressed or not.
pub(super) fn is_rotated(name: &OsStr, other: &OsStr) -> bool {
    let (name, mut other) = (name.as_encoded_bytes(), other.as_encoded_bytes());
    if let Some((end, _)) = PACKED.iter().find(|(end, _)| other.ends_with(end.as_bytes())) {
        other = &other[..other.len() - end.len()];
    }
    if let Some(rest) = other.strip_prefix(name) {
        return match rest {
            [b'.' | b'-' | b'_', digit, ..] => digit.is_ascii_digit(),
            rest => is_date(rest),
        };
    }
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0) else { return false };
    let (stem, extension) = name.split_at(dot);
    let between = other.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    match between {
        Some([b'.', number @ ..]) if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => true,
        Some([b'.' | b'-' | b'_', rest @ ..] | rest) => is_date(rest),
        None => false,
    }
}

fn is_date(text: &[u8]) -> bool {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let others = |byte: &u8| byte.is_ascii_digit() || b"-_.:TWZ+".contains(byte);
    text.first().is_some_and(u8::is_ascii_digit) && digits >= DATE && text.iter().all(others)
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
        ] {
            assert!(is(other), "{other}");
        }
        for other in [
            "access.log",
            "access-2.log",
            "access.old.log",
            "access.log.old",
            "access.log2",
            "xaccess.log.1",
            "access.log.gz",
        ] {
            assert!(!is(other), "{other}");
        }
        assert!(is_rotated(OsStr::new("0.log"), OsStr::new("0.log.20261130-120000")));
        assert!(is_rotated(OsStr::new("log"), OsStr::new("log.1")));
        assert_eq!(["a.gz", "a.bz2", "a.1"].map(|name| packed(Path::new(name))), [Some(true), Some(false), None]);
    }
}

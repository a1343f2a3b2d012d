//! Moments as text and as numbers.

use chrono::DateTime;

/// The latest moment that a nanosecond timestamp can hold, 2262-04-11T23:47:16Z, in ns since the epoch.
pub const LATEST_NS: i64 = i64::MAX;

/// Reads RFC 3339 (a zone without colon, as strftime's `%z` writes it, is accepted too), or nanoseconds since the
/// epoch in digits. `None` if it is neither, or after 2262, or before 1970 (digits: 1973).
pub fn parse(text: &str) -> Option<i64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return from_ns(text.parse().ok()?);
    }
    let moment = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .ok()?;
    moment.timestamp_nanos_opt().filter(|ns| *ns >= 0)
}

/// Reads seconds with or without a fraction, such as `1700000000.123`, in ns. Digits after the ninth are cut off. `None` if it
/// is something else, or above 292 years.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(9)];
    let ns = kept.parse::<i64>().ok()? * 10_i64.pow(9 - u32::try_from(kept.len()).ok()?);
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(ns)
}

/// The first moment that digits can name, in 1973: now in seconds, milliseconds or microseconds is a smaller number,
/// and must not pass for a moment of 1970.
const EARLIEST_NS: u64 = 100_000_000_000_000_000;

/// Checks that a number is nanoseconds since the epoch, in 1973..2262.
pub(super) fn from_ns(ns: u64) -> Option<i64> {
    i64::try_from(ns).ok().filter(|_| ns >= EARLIEST_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_are_one_moment() {
        let ns = Some(1_795_448_127_143_731_000);
        for text in [
            "1795448127143731000",
            "2026-11-23T15:35:27.143731Z",
            "2026-11-23t15:35:27.143731z",
            "2026-11-23 15:35:27.143731+00:00",
            "2026-11-23T17:35:27.143731+0200",
            "2026-11-23T10:05:27.143731-05:30",
        ] {
            assert_eq!(parse(text), ns, "{text}");
        }
    }

    #[test]
    fn seconds_keep_their_digits() {
        for (text, ns) in [
            ("1700000000.123", Some(1_700_000_000_123_000_000)),
            ("1700000000", Some(1_700_000_000_000_000_000)),
            ("0.000", Some(0)),
            ("0.0000000019", Some(1)),
            ("9223372036.854775807", Some(i64::MAX)),
            ("9223372036.854775808", None),
            ("9223372037", None),
            ("", None),
            (".5", None),
            ("5.", None),
            ("-1.0", None),
            ("1e3", None),
            ("1.2.3", None),
            ("1.é", None),
        ] {
            assert_eq!(seconds(text), ns, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_or_out_of_range_is_refused() {
        for text in [
            "",
            "now",
            "-1",
            "1.5",
            "1795448127",
            "1795448127143",
            "1795448127143731",
            "2026-11-23",
            "2026-11-23T15:35:27",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59.999Z",
            "2262-04-12T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "18446744073709551615",
            "9223372036854775808",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("9223372036854775807"), Some(LATEST_NS));
    }
}

//! Moments as text and as numbers.

use chrono::DateTime;

/// What a number that is a time counts since 1970.
///
/// A number never says so itself, and guessing by its size would take a wrong one for a moment of another year. So it is
/// what the pipeline says, and every other unit gives a year that is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Seconds, such as nginx's `$msec`.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    #[serde(alias = "µs", alias = "μs")]
    Us,
    /// Nanoseconds.
    #[default]
    Ns,
}

impl Unit {
    /// Its length in ns, and how many decimals of it a ns is.
    fn scale(self) -> (i64, usize) {
        match self {
            Self::S => (1_000_000_000, 9),
            Self::Ms => (1_000_000, 6),
            Self::Us => (1_000, 3),
            Self::Ns => (1, 0),
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::S => "seconds",
            Self::Ms => "milliseconds",
            Self::Us => "microseconds",
            Self::Ns => "nanoseconds",
        }
    }

    /// What a line should hold, for messages.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::S => "a time (a date with its zone, or seconds since 1970)",
            Self::Ms => "a time (a date with its zone, or milliseconds since 1970)",
            Self::Us => "a time (a date with its zone, or microseconds since 1970)",
            Self::Ns => "a time (a date with its zone, or nanoseconds since 1970; `time_unit` names another unit)",
        }
    }
}

impl Unit {
    /// What a line should hold as a duration, for messages.
    pub(super) fn expected_duration(self) -> &'static str {
        match self {
            Self::S => "a number of seconds, 0 or more",
            Self::Ms => "a number of milliseconds, 0 or more",
            Self::Us => "a number of microseconds, 0 or more",
            Self::Ns => "a number of nanoseconds, 0 or more",
        }
    }

    /// A whole number of units in ns; `None` above 292 years.
    pub(super) fn whole(self, number: u64) -> Option<i64> {
        i64::try_from(number).ok()?.checked_mul(self.scale().0)
    }

    /// How many whole units a duration in ns has.
    pub(super) fn count(self, ns: i64) -> u64 {
        u64::try_from(ns / self.scale().0).unwrap_or(0)
    }

    /// A number of units in ns; `None` if it is negative or above 292 years.
    pub(super) fn float(self, number: f64) -> Option<i64> {
        let ns = (number * self.scale().0 as f64).round();
        (0.0..i64::MAX as f64).contains(&ns).then_some(ns as i64)
    }

    /// Digits, with decimals after a point, as ns; those behind ns are cut off. Not by way of a float, which has not enough
    /// of them.
    pub(super) fn decimal(self, text: &str) -> Option<i64> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) {
            return None;
        }
        let (length, places) = self.scale();
        let kept = &decimals[..decimals.len().min(places)];
        let fraction: i64 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
        let fraction = fraction.checked_mul(10_i64.checked_pow(u32::try_from(places - kept.len()).ok()?)?)?;
        whole.parse::<i64>().ok()?.checked_mul(length)?.checked_add(fraction)
    }
}

/// The first moment that a number can name, in 1973: now in a smaller unit is a smaller number, and must not pass for a
/// moment of 1970. Now in a larger one is after 2262, which a timestamp cannot hold.
const EARLIEST_NS: i64 = 100_000_000_000_000_000;

/// Reads a date and time with its zone, or a number. `None` if it is neither, before 1970 (a number: 1973) or after 2262.
///
/// Dates are RFC 3339 and what is written beside it: a comma before the fraction (ISO 8601), a blank before the zone, a
/// zone without colon or minutes; and Apache's and nginx's own, `[10/Oct/2000:13:55:36 -0700]`, with or without brackets.
pub(super) fn parse(text: &str, unit: Unit) -> Option<i64> {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return from_decimal(text, unit);
    }
    let moment = DateTime::parse_from_rfc3339(text).ok().or_else(|| other(text))?;
    moment.timestamp_nanos_opt().filter(|ns| *ns >= 0)
}

/// The spellings beside RFC 3339.
fn other(text: &str) -> Option<DateTime<chrono::FixedOffset>> {
    if text.contains('/') {
        let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        return DateTime::parse_from_str(text, "%d/%b/%Y:%H:%M:%S%.f %z").ok();
    }
    let text = text.replacen(',', ".", 1);
    let formats = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f %#z"];
    formats.iter().find_map(|format| DateTime::parse_from_str(&text, format).ok())
}

/// Reads whole units since the epoch.
pub(super) fn from_whole(number: u64, unit: Unit) -> Option<i64> {
    unit.whole(number).filter(|ns| *ns >= EARLIEST_NS)
}

/// Reads digits, with decimals after a point, as units since the epoch.
pub(super) fn from_decimal(text: &str, unit: Unit) -> Option<i64> {
    unit.decimal(text).filter(|ns| *ns >= EARLIEST_NS)
}

/// Reads a number as JSON writes it, also one with an exponent such as `1.796e9`, as units since the epoch.
pub(super) fn from_number(text: &str, unit: Unit) -> Option<i64> {
    let Some((number, exponent)) = text.split_once(['e', 'E']) else { return from_decimal(text, unit) };
    let exponent = exponent.parse::<isize>().ok().filter(|exponent| exponent.unsigned_abs() <= MAX_EXPONENT)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    // The point among the digits of both parts.
    let point = whole.len().checked_add_signed(exponent);
    let missing = exponent.unsigned_abs().saturating_sub(whole.len());
    let digits = match point {
        Some(_) => format!("{whole}{decimals}"),
        None => format!("{}{whole}{decimals}", "0".repeat(missing)),
    };
    let point = point.unwrap_or(0);
    let decimals = digits.get(point..).filter(|decimals| !decimals.is_empty()).unwrap_or("0");
    let whole = format!("{:0<point$}", digits.get(..point).unwrap_or(&digits));
    from_decimal(&format!("{}.{decimals}", if whole.is_empty() { "0" } else { &whole }), unit)
}

/// No time has a greater exponent.
const MAX_EXPONENT: usize = 40;

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
            "2026-11-23T15:35:27,143731Z",
            "2026-11-23 15:35:27,143731 +0000",
            "2026-11-23T15:35:27.143731+00",
            "2026-11-23 16:35:27.143731 +01:00",
            "23/Nov/2026:15:35:27.143731 +0000",
            "[23/Nov/2026:08:35:27.143731 -0700]",
        ] {
            assert_eq!(parse(text, Unit::Ns), ns, "{text}");
            if text.contains(':') {
                assert_eq!(parse(text, Unit::S), ns, "the unit is that of numbers: {text}");
            }
        }
        assert_eq!(parse("[10/Oct/2000:13:55:36 -0700]", Unit::Ns), Some(971_211_336_000_000_000));
    }

    #[test]
    fn numbers_are_of_the_unit_that_is_said_and_of_no_other() {
        const NOW: i64 = 1_795_448_127_143_731_829;
        let units = [(Unit::S, 1_000_000_000), (Unit::Ms, 1_000_000), (Unit::Us, 1_000), (Unit::Ns, 1)];
        for (unit, length) in units {
            for (other, size) in units {
                let ns = (unit == other).then_some(NOW / size * size);
                let whole = (NOW / size).to_string();
                assert_eq!(parse(&whole, unit), ns, "{whole} {unit:?}");
                assert_eq!(from_whole((NOW / size) as u64, unit), ns, "{whole} {unit:?}");
            }
            let digits = length.to_string().len() - 1;
            let exact = format!("{}.{:0digits$}9999", NOW / length, NOW % length);
            assert_eq!(parse(&exact, unit), Some(NOW), "{exact} {unit:?}");
        }
        for (text, ns) in [
            ("1795448127.143", 1_795_448_127_143_000_000),
            ("1795448127.0", 1_795_448_127_000_000_000),
            ("1795448127.000000001", 1_795_448_127_000_000_001),
        ] {
            assert_eq!(parse(text, Unit::S), Some(ns), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_or_out_of_range_is_refused() {
        for text in [
            "",
            ".",
            "1795448127.",
            ".5",
            "1.7.9",
            "now",
            "-1",
            "1.5",
            "1795448127",
            "1795448127143",
            "1795448127143731",
            "1.795448127143731e18",
            "2026-11-23",
            "2026-11-23T15:35:27",
            "2026-11-23 15:35:27,143",
            "23/Nov/2026:15:35:27",
            "[23/Nov/2026:15:35:27 +0000",
            "32/Nov/2026:15:35:27 +0000",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59.999Z",
            "2262-04-12T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "18446744073709551615",
            "9223372036854775808",
        ] {
            assert_eq!(parse(text, Unit::Ns), None, "{text}");
        }
        assert_eq!(parse("9223372036854775807", Unit::Ns), Some(i64::MAX));
        assert_eq!(parse("9223372036.854775807", Unit::S), Some(i64::MAX));
        assert_eq!(parse("9223372036.854775808", Unit::S), None);
    }

    #[test]
    fn a_number_with_an_exponent_is_exact() {
        for (text, unit, ns) in [
            ("1.796e9", Unit::S, Some(1_796_000_000_000_000_000)),
            ("1.796E+9", Unit::S, Some(1_796_000_000_000_000_000)),
            ("1796e6", Unit::S, Some(1_796_000_000_000_000_000)),
            ("1.7954481271437e9", Unit::S, Some(1_795_448_127_143_700_000)),
            ("17954481271437e-4", Unit::S, Some(1_795_448_127_143_700_000)),
            ("1.795448127143731e18", Unit::Ns, Some(1_795_448_127_143_731_000)),
            ("1.7954481271437318e12", Unit::Ms, Some(1_795_448_127_143_731_800)),
            ("1.796e9", Unit::Ns, None),
            ("1.796e12", Unit::S, None),
            ("1e-3", Unit::S, None),
            ("1e-40", Unit::S, None),
            ("-1.796e9", Unit::S, None),
            ("1e99999999999999999999", Unit::S, None),
            ("1e41", Unit::S, None),
            ("1795448127", Unit::S, Some(1_795_448_127_000_000_000)),
        ] {
            assert_eq!(from_number(text, unit), ns, "{text} {unit:?}");
        }
    }
}

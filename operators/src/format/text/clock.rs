//! A moment that a line may write in several parts: seconds here, their fraction there, the zone at the end.

use std::borrow::Cow;
use std::fmt::Write;

use chrono::format::{Fixed, Item, Parsed, StrftimeItems};
use chrono::{DateTime, FixedOffset, Local, NaiveDateTime, TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error};

use super::super::time::{self, Unit};

/// The zone of times that a server writes without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// So far from UTC.
    Fixed(FixedOffset),
    /// That of the machine that reads the line, summer time included; of the hour that comes twice it is the first.
    Local,
}

impl Default for Zone {
    fn default() -> Self {
        Self::Fixed(chrono::Utc.fix_offset())
    }
}

/// The offset of UTC.
trait FixOffset {
    fn fix_offset(self) -> FixedOffset;
}

impl FixOffset for chrono::Utc {
    fn fix_offset(self) -> FixedOffset {
        chrono::Offset::fix(&self)
    }
}

impl Zone {
    /// Reads `UTC`, `local` or `+01:00`.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "UTC" | "utc" => Some(Self::default()),
            "local" => Some(Self::Local),
            _ => text.parse().ok().map(Self::Fixed),
        }
    }

    fn moment(self, naive: &NaiveDateTime) -> Option<i64> {
        match self {
            Self::Fixed(offset) => offset.from_local_datetime(naive).earliest()?.timestamp_nanos_opt(),
            Self::Local => Local.from_local_datetime(naive).earliest()?.timestamp_nanos_opt(),
        }
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no zone: `UTC`, `local`, or an offset such as `+01:00`"))
        })
    }
}

impl JsonSchema for Zone {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

/// What a value says of a moment.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::format) enum Part {
    /// All of it: a date with its zone, or a number of these units since 1970.
    Whole(Unit),
    /// All of it, in seconds since 1970 with decimals.
    Seconds,
    /// What follows its second, in so many digits.
    Fraction(usize),
    /// What a pattern of `strftime` has.
    Pattern(Vec<Item<'static>>),
    /// How much later it is than the other parts say; less than 0 stands for nothing.
    Later(Unit),
}

impl Part {
    /// Of a pattern; what is wrong with it otherwise.
    pub(in crate::format) fn pattern(text: &str) -> Result<Self, String> {
        let items = StrftimeItems::new(text).parse_to_owned();
        items.map(Self::Pattern).map_err(|_| format!("`{text}` is no pattern of strftime"))
    }

    /// How many bytes it has, if that is always as many.
    pub(in crate::format) fn width(&self) -> Option<usize> {
        match self {
            Self::Fraction(digits) => Some(*digits),
            Self::Pattern(items) if !items.contains(&Item::Fixed(Fixed::TimezoneName)) => width(items),
            _ => None,
        }
    }

    /// How exactly this part tells the moment by itself; of several the greatest counts. `None` if it only adds to another.
    pub(super) fn exactness(&self) -> Option<u8> {
        match self {
            Self::Whole(Unit::Us | Unit::Ns) => Some(5),
            Self::Whole(Unit::Ms) | Self::Seconds => Some(4),
            Self::Whole(Unit::S) => Some(3),
            Self::Pattern(_) => Some(1),
            Self::Fraction(_) | Self::Later(_) => None,
        }
    }
}

/// The parts of a moment that a line has.
#[derive(Debug, Default)]
pub(super) struct Clock {
    whole: Option<i64>,
    parsed: Option<Parsed>,
    fraction: i64,
    later: i64,
}

impl Clock {
    /// Takes a part; false if the text is none.
    pub(super) fn take(&mut self, part: &Part, text: &str) -> bool {
        match part {
            Part::Whole(unit) => {
                self.whole = time::parse(text, *unit);
                self.whole.is_some()
            }
            Part::Seconds => {
                self.whole = time::from_decimal(text, Unit::S);
                self.whole.is_some()
            }
            Part::Fraction(digits) => {
                let is_right = text.len() == *digits && text.bytes().all(|byte| byte.is_ascii_digit());
                let fraction = is_right.then(|| Unit::S.decimal(&format!("0.{text}"))).flatten();
                self.fraction = fraction.unwrap_or(0);
                fraction.is_some()
            }
            Part::Pattern(items) => {
                chrono::format::parse(self.parsed.get_or_insert_with(Parsed::new), text, items.iter()).is_ok()
            }
            Part::Later(_) if text.starts_with('-') => true,
            Part::Later(unit) => {
                let later = unit.decimal(text);
                self.later = self.later.saturating_add(later.unwrap_or(0));
                later.is_some()
            }
        }
    }

    /// The moment in ns since the epoch; `None` if its parts do not make one.
    pub(super) fn moment(&self, zone: Zone) -> Option<i64> {
        let ns = match (self.whole, &self.parsed) {
            (Some(ns), _) => ns,
            (None, Some(parsed)) if parsed.offset().is_some() => parsed.to_datetime().ok()?.timestamp_nanos_opt()?,
            (None, Some(parsed)) => {
                let naive = parsed.to_naive_datetime_with_offset(0).ok()?;
                let zone = if parsed.timestamp().is_some() { Zone::default() } else { zone };
                zone.moment(&naive)?
            }
            (None, None) => return None,
        };
        ns.checked_add(self.fraction)?.checked_add(self.later).filter(|ns| *ns >= 0)
    }

    /// Whether no part came.
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_none() && self.parsed.is_none()
    }
}

/// How many bytes a pattern has; `None` if that is another number for months, days and fractions of other lengths.
fn width(items: &[Item<'static>]) -> Option<usize> {
    // A Monday in November, and a Wednesday in May.
    let moments = [(1_795_448_127, 0), (1_778_025_600, 143_731_829), (1_778_025_600, 143_000_000)];
    let mut lengths = moments.into_iter().map(|(seconds, nanoseconds)| {
        let mut text = String::new();
        let moment = DateTime::from_timestamp(seconds, nanoseconds)?.fixed_offset();
        write!(text, "{}", moment.format_with_items(items.iter())).ok()?;
        Some(text.len())
    });
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first)
}

/// Whether these patterns together tell a moment to the second.
pub(super) fn is_complete(parts: &[&Part]) -> bool {
    const SAMPLE: i64 = 1_795_448_127;
    let Some(sample) = DateTime::from_timestamp(SAMPLE, 0) else { return false };
    let mut clock = Clock::default();
    for part in parts {
        let Part::Pattern(items) = part else { continue };
        let mut text = String::new();
        if write!(text, "{}", sample.fixed_offset().format_with_items(items.iter())).is_err()
            || !clock.take(part, &text)
        {
            return false;
        }
    }
    clock.moment(Zone::default()) == Some(SAMPLE * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: i64 = 1_795_448_127_143_731_000;

    fn moment(parts: &[(Part, &str)], zone: &str) -> Option<i64> {
        let mut clock = Clock::default();
        let all = parts.iter().all(|(part, text)| clock.take(part, text));
        all.then(|| clock.moment(Zone::parse(zone).expect("a zone"))).flatten()
    }

    fn pattern(text: &str) -> Part {
        Part::pattern(text).expect("a pattern")
    }

    #[test]
    fn parts_make_one_moment() {
        let day = pattern("%d/%b/%Y:%H:%M:%S");
        for parts in [
            vec![(Part::Whole(Unit::Us), "1795448127143731")],
            vec![(Part::Whole(Unit::S), "1795448127.143731")],
            vec![(Part::Whole(Unit::S), "1795448127"), (Part::Fraction(6), "143731")],
            vec![(Part::Whole(Unit::S), "23/Nov/2026:08:35:27 -0700"), (Part::Fraction(6), "143731")],
            vec![(day.clone(), "23/Nov/2026:15:35:27"), (Part::Fraction(6), "143731")],
            vec![(pattern("%F"), "2026-11-23"), (pattern("%T%.f %z"), "16:35:27.143731 +0100")],
            vec![(pattern("%s"), "1795448127"), (Part::Fraction(6), "143731")],
            vec![
                (Part::Whole(Unit::S), "1795448127.141000"),
                (Part::Later(Unit::Us), "2731"),
                (Part::Later(Unit::Ms), "-1"),
            ],
        ] {
            assert_eq!(moment(&parts, "UTC"), Some(NS), "{parts:?}");
        }
        assert_eq!(moment(&[(day, "23/Nov/2026:17:35:27"), (Part::Fraction(6), "143731")], "+02:00"), Some(NS));
        assert_eq!(moment(&[(Part::Fraction(6), "14373")], "UTC"), None);
        assert_eq!(moment(&[(pattern("%F"), "2026-11-31")], "UTC"), None);
    }

    #[test]
    fn a_pattern_must_tell_day_and_second() {
        assert!(is_complete(&[&pattern("%d/%b/%Y:%H:%M:%S")]));
        assert!(is_complete(&[&pattern("%F"), &pattern("%T")]));
        assert!(is_complete(&[&pattern("%s")]));
        assert!(!is_complete(&[&pattern("%H:%M:%S")]));
        assert!(!is_complete(&[&pattern("%F %H:%M")]));
        assert!(Part::pattern("%Q").is_err());
        for (text, width) in [
            ("%d/%b/%Y:%H:%M:%S%.3f", Some(24)),
            ("%Y-%m-%dT%H:%M:%S", Some(19)),
            ("%z", Some(5)),
            ("%d %B", None),
            ("%A", None),
            ("%T%.f", None),
            ("%F %Z", None),
        ] {
            assert_eq!(pattern(text).width(), width, "{text}");
        }
        assert!(Zone::parse("Mars").is_none());
    }
}

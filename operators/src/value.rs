//! A column's values as text: JSON for lines, plain for reasons. Nothing is allocated per value.

use arrow::array::PrimitiveArray;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, LargeStringArray, StringArray, StringViewArray};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};

/// A column of a batch with its type known.
pub(crate) enum Values<'a> {
    Bool(&'a BooleanArray),
    I8(&'a PrimitiveArray<Int8Type>),
    I16(&'a PrimitiveArray<Int16Type>),
    I32(&'a PrimitiveArray<Int32Type>),
    I64(&'a PrimitiveArray<Int64Type>),
    U8(&'a PrimitiveArray<UInt8Type>),
    U16(&'a PrimitiveArray<UInt16Type>),
    U32(&'a PrimitiveArray<UInt32Type>),
    U64(&'a PrimitiveArray<UInt64Type>),
    F32(&'a PrimitiveArray<Float32Type>),
    F64(&'a PrimitiveArray<Float64Type>),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    /// Days since the epoch.
    Date(&'a PrimitiveArray<Date32Type>),
    /// Times and how many ns their unit has.
    Second(&'a PrimitiveArray<TimestampSecondType>),
    Millisecond(&'a PrimitiveArray<TimestampMillisecondType>),
    Microsecond(&'a PrimitiveArray<TimestampMicrosecondType>),
    Nanosecond(&'a PrimitiveArray<TimestampNanosecondType>),
}

/// A value that is there.
pub(crate) enum Value<'a> {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    /// A number that is not finite has no text.
    Float(f64),
    /// Kept apart from [`Value::Float`]: the shortest text of a 32-bit number is shorter.
    Float32(f32),
    Text(&'a str),
    /// Days since the epoch.
    Date(i32),
    /// ns since the epoch; wider than 64 bits, because a time in seconds may be.
    Time(i128),
}

/// Whether values of this type have a text.
pub(crate) fn has_text(data_type: &DataType) -> bool {
    use DataType::{Boolean, Date32, Float32, Float64, LargeUtf8, Timestamp, Utf8, Utf8View};
    data_type.is_integer()
        || matches!(data_type, Boolean | Date32 | Float32 | Float64 | LargeUtf8 | Timestamp(..) | Utf8 | Utf8View)
}

impl<'a> Values<'a> {
    /// `None` for a type that [`has_text`] refuses.
    pub fn new(column: &'a ArrayRef) -> Option<Self> {
        Some(match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean()),
            DataType::Int8 => Self::I8(column.as_primitive()),
            DataType::Int16 => Self::I16(column.as_primitive()),
            DataType::Int32 => Self::I32(column.as_primitive()),
            DataType::Int64 => Self::I64(column.as_primitive()),
            DataType::UInt8 => Self::U8(column.as_primitive()),
            DataType::UInt16 => Self::U16(column.as_primitive()),
            DataType::UInt32 => Self::U32(column.as_primitive()),
            DataType::UInt64 => Self::U64(column.as_primitive()),
            DataType::Float32 => Self::F32(column.as_primitive()),
            DataType::Float64 => Self::F64(column.as_primitive()),
            DataType::Utf8 => Self::Text(column.as_string()),
            DataType::LargeUtf8 => Self::LargeText(column.as_string()),
            DataType::Utf8View => Self::TextView(column.as_string_view()),
            DataType::Date32 => Self::Date(column.as_primitive()),
            DataType::Timestamp(TimeUnit::Second, _) => Self::Second(column.as_primitive()),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Self::Millisecond(column.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Microsecond(column.as_primitive()),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Self::Nanosecond(column.as_primitive()),
            _ => return None,
        })
    }

    /// A row's value; the row must be there.
    #[inline]
    pub fn at(&self, row: usize) -> Option<Value<'a>> {
        macro_rules! valid {
            ($array:expr, $value:expr) => {
                if $array.is_null(row) { None } else { Some($value($array.value(row))) }
            };
        }
        match self {
            Self::Bool(a) => valid!(a, Value::Bool),
            Self::I8(a) => valid!(a, |v| Value::Signed(i64::from(v))),
            Self::I16(a) => valid!(a, |v| Value::Signed(i64::from(v))),
            Self::I32(a) => valid!(a, |v| Value::Signed(i64::from(v))),
            Self::I64(a) => valid!(a, Value::Signed),
            Self::U8(a) => valid!(a, |v| Value::Unsigned(u64::from(v))),
            Self::U16(a) => valid!(a, |v| Value::Unsigned(u64::from(v))),
            Self::U32(a) => valid!(a, |v| Value::Unsigned(u64::from(v))),
            Self::U64(a) => valid!(a, Value::Unsigned),
            Self::F32(a) => valid!(a, Value::Float32),
            Self::F64(a) => valid!(a, Value::Float),
            Self::Text(a) => valid!(a, Value::Text),
            Self::LargeText(a) => valid!(a, Value::Text),
            Self::TextView(a) => valid!(a, Value::Text),
            Self::Date(a) => valid!(a, Value::Date),
            Self::Second(a) => valid!(a, |v| Value::Time(i128::from(v) * 1_000_000_000)),
            Self::Millisecond(a) => valid!(a, |v| Value::Time(i128::from(v) * 1_000_000)),
            Self::Microsecond(a) => valid!(a, |v| Value::Time(i128::from(v) * 1_000)),
            Self::Nanosecond(a) => valid!(a, |v| Value::Time(i128::from(v))),
        }
    }
}

/// Appends numbers, dates and times; remembers the day of the last time, because rows of one batch mostly share it.
pub(crate) struct Format {
    integer: itoa::Buffer,
    float: ryu::Buffer,
    day: i64,
    date: [u8; 10],
}

impl Default for Format {
    fn default() -> Self {
        Self { integer: itoa::Buffer::new(), float: ryu::Buffer::new(), day: 0, date: *b"1970-01-01" }
    }
}

/// Days whose year has four digits, 0000-01-01 to 9999-12-31, since 1970-01-01.
const FOUR_DIGIT_YEARS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;
const NS_PER_DAY: i128 = 86_400_000_000_000;

impl Format {
    pub fn signed(&mut self, out: &mut Vec<u8>, value: i64) {
        out.extend_from_slice(self.integer.format(value).as_bytes());
    }

    pub fn unsigned(&mut self, out: &mut Vec<u8>, value: u64) {
        out.extend_from_slice(self.integer.format(value).as_bytes());
    }

    /// The shortest text that reads back as the same number; the number must be finite.
    pub fn float(&mut self, out: &mut Vec<u8>, value: f64) {
        out.extend_from_slice(self.float.format_finite(value).as_bytes());
    }

    /// As [`Format::float`] for 32 bits.
    pub fn float32(&mut self, out: &mut Vec<u8>, value: f32) {
        out.extend_from_slice(self.float.format_finite(value).as_bytes());
    }

    /// `2026-11-23`; whether the year has four digits, so that something was written.
    pub fn date(&mut self, out: &mut Vec<u8>, day: i64) -> bool {
        if !FOUR_DIGIT_YEARS.contains(&day) {
            return false;
        }
        if day != self.day {
            (self.day, self.date) = (day, civil(day));
        }
        out.extend_from_slice(&self.date);
        true
    }

    /// RFC 3339 with nine decimals: `2026-11-23T15:00:00.123456789Z`; as [`Format::date`].
    pub fn time(&mut self, out: &mut Vec<u8>, ns: i128) -> bool {
        let (day, rest) = (ns.div_euclid(NS_PER_DAY), ns.rem_euclid(NS_PER_DAY) as u64);
        if !i64::try_from(day).is_ok_and(|day| self.date(out, day)) {
            return false;
        }
        let (seconds, nanos) = (rest / 1_000_000_000, rest % 1_000_000_000);
        let mut text = *b"T00:00:00.000000000Z";
        digits(&mut text[1..3], seconds / 3600);
        digits(&mut text[4..6], seconds / 60 % 60);
        digits(&mut text[7..9], seconds % 60);
        digits(&mut text[10..19], nanos);
        out.extend_from_slice(&text);
        true
    }
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar. The year starts in March here,
/// so that the leap day is its last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(day: i64) -> [u8; 10] {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text = *b"0000-00-00";
    digits(&mut text[..4], year as u64);
    digits(&mut text[5..7], month as u64);
    digits(&mut text[8..], (of_year - (153 * from_march + 2) / 5 + 1) as u64);
    text
}

/// Writes the last digits of a number over `text`.
fn digits(text: &mut [u8], mut value: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(ns: i128) -> String {
        let mut out = Vec::new();
        assert_eq!(Format::default().time(&mut out, ns), !out.is_empty());
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn times_are_rfc_3339_with_nine_decimals() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(time(1_795_446_000_123_456_789), "2026-11-23T15:00:00.123456789Z");
        assert_eq!(time(i128::from(i64::MAX)), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(time(i128::from(i64::MAX) * 1_000_000_000), "", "no four-digit year");
    }

    #[test]
    fn every_day_of_four_digit_years_is_as_chrono_says() {
        for day in FOUR_DIGIT_YEARS.step_by(97) {
            let expected = chrono::DateTime::from_timestamp(day * 86_400, 0).expect("in range");
            assert_eq!(String::from_utf8_lossy(&civil(day)), expected.format("%Y-%m-%d").to_string());
        }
        for (day, expected) in [(*FOUR_DIGIT_YEARS.start(), b"0000-01-01"), (*FOUR_DIGIT_YEARS.end(), b"9999-12-31")] {
            assert_eq!(&civil(day), expected);
        }
    }
}

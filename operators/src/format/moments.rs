//! When what a line tells of began and when it ended.
//!
//! A server writes a request's line at its end, so that is the row's event time: a line is judged by when it was written, and a
//! request of ten minutes is not late. Where a line has its begin and how long it took, the end is the sum; where it has its
//! end, the begin is the difference; where it has one time alone, both are that.

use super::cell::Cell;
use super::parser::Reject;
use super::schema::{DurationColumn, Format, Role};

/// In ns since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moments {
    pub begin: i64,
    pub end: i64,
}

/// Finds both among a line's cells, and fills in the duration where it follows from other values.
///
/// # Errors
/// If the line has no time, or a duration that is none.
pub(super) fn moments(format: &Format, cells: &mut [Cell]) -> Result<Moments, Reject> {
    let find = |cells: &[Cell], role: Role| {
        let extras = format.extras.iter().zip(&cells[format.columns.len()..]);
        extras.filter(|(extra, _)| extra.role == role).find_map(|(_, cell)| match cell {
            Cell::Signed(ns) => Some(*ns),
            _ => None,
        })
    };
    let begin = find(cells, Role::Begin);
    if let (Some(begin), false) = (begin, format.has_begin) {
        return Ok(Moments { begin, end: begin });
    }
    let mut took = match format.duration {
        Some(of) => written(format, of, cells[of.column])?,
        None => None,
    };
    if took.is_none() {
        let end = || find(cells, Role::End).zip(begin).map(|(end, begin)| end.saturating_sub(begin).max(0));
        took = find(cells, Role::Duration).or_else(end);
        if let (Some(ns), Some(of)) = (took, format.duration) {
            // What the column says and what the times say is the same, so it counts in the column's unit.
            let whole = of.unit.count(ns);
            cells[of.column] = Cell::Unsigned(whole);
            took = of.unit.whole(whole);
        }
    }
    let took = took.unwrap_or(0);
    let (begin, end) = match (begin, find(cells, Role::End)) {
        (Some(begin), _) => (begin, begin.saturating_add(took)),
        (None, Some(end)) => (end.saturating_sub(took), end),
        (None, None) => return Err(Reject::Missing(format.extras[0].key.to_string())),
    };
    if begin < 0 {
        let expected = "less than the time since 1970";
        return Err(Reject::Mismatch { key: duration_key(format), expected, found: format!("{took} ns") });
    }
    Ok(Moments { begin, end })
}

/// The duration that a line has in its column, in ns.
fn written(format: &Format, of: DurationColumn, cell: Cell) -> Result<Option<i64>, Reject> {
    let ns = match cell {
        Cell::Unsigned(number) => of.unit.whole(number),
        Cell::Signed(number) => u64::try_from(number).ok().and_then(|number| of.unit.whole(number)),
        Cell::Float(number) => of.unit.float(number),
        _ => return Ok(None),
    };
    if ns.is_some() {
        return Ok(ns);
    }
    let found = match cell {
        Cell::Unsigned(number) => number.to_string(),
        Cell::Signed(number) => number.to_string(),
        Cell::Float(number) => number.to_string(),
        _ => String::new(),
    };
    Err(Reject::Mismatch { key: duration_key(format), expected: of.unit.expected_duration(), found })
}

fn duration_key(format: &Format) -> String {
    let column = format.duration.map(|of| &format.columns[of.column].key);
    let extra = || format.extras.iter().find(|extra| extra.role == Role::Duration).map(|extra| &extra.key);
    column.or_else(extra).unwrap_or(&format.extras[0].key).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Format, LineParser, Reject, Unit};

    const BEGIN: i64 = 1_700_000_000_123_000_000;
    const MS: i64 = 1_000_000;

    /// Begin, end and `duration_ms` of a line with these keys, or why it is refused.
    fn read(keys: &str) -> Result<(i64, i64, Option<u64>), Reject> {
        let line = format!("{{\"src_ip\":\"192.0.2.1\",{keys}}}");
        let mut parser = LineParser::new(Format::reqin_log(Unit::Ns), BEGIN);
        let row = parser.parse(line.as_bytes())?;
        let (begin, end) = (row.begin, row.time);
        let mut rows = super::super::Rows::new(&Format::reqin_log(Unit::Ns));
        rows.push(0, &row);
        let batch = rows.take().expect("rows");
        let column = batch.column_by_name("duration_ms").expect("there");
        let column = arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt64Type>(column);
        Ok((begin, end, arrow::array::Array::is_valid(column, 0).then(|| column.value(0))))
    }

    #[test]
    fn begin_end_and_duration_follow_from_two_of_them() {
        let end = BEGIN + 4_700 * MS;
        for keys in [
            r#""timestamp":1700000000123000000,"duration_ms":4700"#,
            r#""timestamp":1700000000123000000,"duration_us":"4700999""#,
            r#""time":"2023-11-14T22:13:20.123Z","request_time":4.7"#,
            r#""end_time":"1700000004.823","request_time":"4.700""#,
            r#""end_time":1700000004.823,"duration_us":4700000"#,
            r#""end_time":"1700000004.823","duration_ms":4700,"request_time":"9.000""#,
            r#""end_time":"1700000004.823","timestamp":1700000000123000000"#,
        ] {
            assert_eq!(read(keys), Ok((BEGIN, end, Some(4_700))), "{keys}");
        }
    }

    #[test]
    fn one_time_alone_is_both() {
        assert_eq!(read(r#""timestamp":1700000000123000000"#), Ok((BEGIN, BEGIN, None)));
        assert_eq!(read(r#""end_time":"1700000000.123","request_time":"-""#), Ok((BEGIN, BEGIN, None)));
        let stepped_back = r#""timestamp":1700000000123000000,"end_time":"1699999999.000""#;
        assert_eq!(read(stepped_back), Ok((BEGIN, BEGIN, Some(0))));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (keys, said) in [
            (r#""request_time":"4.700""#, "`timestamp` is missing"),
            (r#""end_time":"1700000000.123","request_time":"1800000000.000""#, "`duration_ms` should be less than"),
            (r#""timestamp":1700000000123000000,"duration_ms":-1"#, "`duration_ms` should be a whole number"),
            (
                r#""timestamp":1700000000123000000,"duration_ms":18446744073709551615"#,
                "`duration_ms` should be a number of",
            ),
            (r#""timestamp":1700000000123000000,"request_time":-0.5"#, "`request_time` should be a number of seconds"),
            (r#""timestamp":1700000000123000000,"duration_ms":9000000000000"#, "ahead of this machine's clock"),
        ] {
            let reason = read(keys).expect_err(keys).to_string();
            assert!(reason.contains(said), "{keys}: {reason}");
        }
    }
}

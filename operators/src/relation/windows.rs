//! What operators over rows with windows share: when such a row counts, and how its columns are found and compared.

use std::time::Duration;

use arrow::datatypes::{DataType, Schema};
use engine::batch::Time;
use engine::contract::PlanContext;
use engine::spec::Located;

/// When a row counts; all in ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    /// Rows take effect at the close of ticks.
    pub tick: Time,
    /// How old a window may be, from its start on.
    pub look_back: Time,
    /// Windows age in steps of this.
    pub granularity: Time,
    /// The input is a relation, whose messages' times are when its rows change.
    pub is_relation: bool,
}

impl Ages {
    /// The options `look_back` and `granularity`, checked; faults are reported.
    pub fn plan(
        look_back: Duration,
        granularity: Duration,
        is_relation: bool,
        context: &mut PlanContext<'_>,
    ) -> Option<Self> {
        let whole = |duration: Duration| {
            let ms = Time::try_from(duration.as_millis()).ok();
            ms.filter(|ms| *ms > 0 && duration.subsec_nanos().is_multiple_of(1_000_000))
        };
        let tick = Time::try_from(context.tick.as_millis()).unwrap_or(1).max(1);
        let (Some(look_back), Some(granularity)) = (whole(look_back), whole(granularity)) else {
            context.error(context.span, "`look_back` and `granularity` are whole milliseconds, at least one");
            return None;
        };
        if granularity > look_back {
            context.error(context.span, "`granularity` is at most `look_back`");
            return None;
        }
        Some(Self { tick, look_back, granularity, is_relation })
    }

    /// When a row takes effect: at the close of the tick in which it comes. What a relation gives at a tick takes
    /// effect then. `event` is the row's event time in ns.
    pub fn at(self, stamp: Time, event: Option<i64>) -> Time {
        if self.is_relation {
            return stamp.checked_next_multiple_of(self.tick).unwrap_or(stamp);
        }
        let time = event.map_or(stamp, |ns| stamp.max(millis(ns)));
        time.checked_add(1).and_then(|time| time.checked_next_multiple_of(self.tick)).unwrap_or(time)
    }

    /// When a row of a window that starts at `window`, in ns, has become too old.
    pub fn until(self, window: i64) -> Time {
        let end = millis(window).saturating_add(self.look_back);
        end.checked_next_multiple_of(self.granularity).unwrap_or(end)
    }

    /// The earliest event time whose rows may still count at `time`.
    pub fn needs_from(self, time: Time) -> Time {
        time.saturating_sub(self.look_back).saturating_sub(self.granularity)
    }
}

/// ns since the epoch as a time of the dataflow: rounded down.
pub(crate) fn millis(ns: i64) -> Time {
    Time::try_from(ns.div_euclid(1_000_000)).unwrap_or(0)
}

/// A column that need not be there unless it is named. The outer `None` means that a fault was reported.
pub(crate) fn optional(
    named: Option<&Located<String>>,
    default: &str,
    schema: &Schema,
    context: &mut PlanContext<'_>,
    fits: impl Fn(&DataType) -> bool,
) -> Option<Option<usize>> {
    let Some(name) = named else {
        return Some(schema.index_of(default).ok().filter(|index| fits(schema.field(*index).data_type())));
    };
    let index = context.column(schema, &name.value, name.span)?;
    let ty = schema.field(index).data_type();
    if !fits(ty) {
        context.error(name.span, format!("`{}` is {ty}, which cannot be used here", name.value));
        return None;
    }
    Some(Some(index))
}

/// An integer that orders as the number does. NaN has none.
pub(crate) fn ordered(score: f64) -> Option<i64> {
    // Adding zero makes one number of zero and minus zero.
    let bits = (score + 0.0).to_bits().cast_signed();
    (!score.is_nan()).then_some(bits ^ ((bits >> 63) & i64::MAX))
}

/// The number that [`ordered`] was given.
pub(crate) fn number(ordered: i64) -> f64 {
    f64::from_bits((ordered ^ ((ordered >> 63) & i64::MAX)).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_order_and_come_back() {
        let scores = [f64::NEG_INFINITY, -2.5, -0.15, -1e-300, 0.0, 1e-300, 0.7, f64::INFINITY];
        let encoded: Vec<i64> = scores.iter().filter_map(|score| ordered(*score)).collect();
        assert!(encoded.is_sorted());
        assert_eq!(encoded.iter().map(|score| number(*score)).collect::<Vec<_>>(), scores);
        assert_eq!((ordered(f64::NAN), ordered(-0.0)), (None, ordered(0.0)));
    }

    #[test]
    fn a_row_counts_from_the_close_of_its_tick_until_its_window_is_old() {
        let ages = Ages { tick: 100, look_back: 1_000, granularity: 300, is_relation: false };
        assert_eq!((ages.at(50, Some(70_000_000)), ages.at(150, None), ages.at(100, None)), (100, 200, 200));
        assert_eq!(Ages { is_relation: true, ..ages }.at(100, None), 100);
        assert_eq!((ages.until(200_000_000), ages.until(201_000_000), ages.until(-1)), (1_200, 1_500, 1_200));
        assert_eq!((ages.needs_from(2_000), ages.needs_from(5)), (700, 0));
    }
}

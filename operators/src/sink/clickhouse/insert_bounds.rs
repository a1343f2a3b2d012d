//! How the rows that are on their way were cut, kept with what is confirmed.

use engine::batch::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::cuts::Bounds;

/// How the rows of the ticks before `until` are cut, and cuts split into inserts; a cut ends at `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub until: Time,
    /// Length of a period in ms.
    pub every: Time,
    /// Rows with which a cut ends earlier.
    pub rows: usize,
    /// The most rows and bytes of an insert.
    pub insert: (usize, usize),
}

/// What was handed over under which bounds. It is noted before it is sent, so that a start with other bounds makes the same
/// inserts of what is not confirmed.
#[derive(Debug)]
pub(super) struct InsertBounds {
    /// Of earlier runs and dataflows, and of this one up to the last cuts that were joined.
    before: Vec<Shape>,
    /// Of the cuts behind those.
    own: Shape,
    /// Where what earlier runs and dataflows handed over ends.
    fixed: Time,
}

impl InsertBounds {
    /// Nothing was handed over; `own` is how it will be.
    pub fn new(own: Shape) -> Self {
        Self { before: Vec::new(), own: Shape { until: 0, ..own }, fixed: 0 }
    }

    /// Goes on behind a note.
    ///
    /// # Errors
    /// If it cannot be understood.
    pub fn resume(&mut self, detail: &Value) -> Result<(), String> {
        // Earlier versions noted nothing.
        let Some(noted) = detail.get("handed") else { return Ok(()) };
        let fault =
            |error| format!("the note of what was sent is damaged ({error}): without it rows may be written twice");
        self.before = Vec::<Shape>::deserialize(noted).map_err(fault)?;
        if self.before.iter().any(|shape| shape.every == 0 || shape.rows == 0 || shape.insert.0 == 0) {
            return Err("the note of what was sent is damaged: a bound of 0".to_owned());
        }
        self.fixed = self.before.last().map_or(0, |shape| shape.until);
        Ok(())
    }

    /// How cuts are made again.
    pub fn bounds(&self) -> Vec<Bounds> {
        let bounds = |shape: &Shape| Bounds { until: shape.until, period: shape.every, max_rows: shape.rows };
        self.before.iter().map(bounds).collect()
    }

    /// Cuts that begin before this were handed over by an earlier run, and must stay as they were then.
    pub fn fixed(&self) -> Time {
        self.fixed
    }

    /// A cut that ends at `until` will be handed over; `joined` if it was made of several. Whether that must be noted first.
    pub fn reach(&mut self, until: Time, joined: bool) -> bool {
        let known = self.before.last().map_or(0, |shape| shape.until).max(self.own.until);
        if until <= known {
            return false;
        }
        if joined {
            // A shape of its own: whatever is between the end of the one before and `until` is one cut.
            let plain = std::mem::take(&mut self.own.until);
            if plain > 0 {
                self.before.push(Shape { until: plain, ..self.own });
            }
            self.before.push(Shape { until, every: Time::MAX, rows: usize::MAX, ..self.own });
        } else {
            self.own.until = until;
        }
        true
    }

    /// Everything before `upto` is confirmed: how it was cut does not matter any more.
    pub fn confirmed(&mut self, upto: Time) {
        self.before.retain(|shape| shape.until > upto);
    }

    /// The most rows and bytes of the inserts of a cut that begins at `first`.
    pub fn limits(&self, first: Time) -> (usize, usize) {
        self.before.iter().find(|shape| first < shape.until).unwrap_or(&self.own).insert
    }

    /// The note when everything before `upto` is confirmed.
    pub fn detail(&self, upto: Time) -> Value {
        let open: Vec<&Shape> = self.before.iter().chain([&self.own]).filter(|shape| shape.until > upto).collect();
        if open.is_empty() { Value::Null } else { json!({ "handed": open }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(every: Time) -> Shape {
        Shape { until: 0, every, rows: 10, insert: (5, 100) }
    }

    #[test]
    fn what_is_not_confirmed_keeps_its_bounds_over_any_number_of_starts() {
        let mut first = InsertBounds::new(shape(100));
        assert_eq!(first.detail(0), Value::Null);
        assert!(first.reach(100, false) && first.reach(150, false) && !first.reach(150, false));
        let mut second = InsertBounds::new(Shape { insert: (7, 70), ..shape(1000) });
        second.resume(&first.detail(100)).expect("understood");
        assert_eq!(second.bounds(), [Bounds { until: 150, period: 100, max_rows: 10 }]);
        assert!(!second.reach(150, false), "it is noted already");
        assert_eq!((second.limits(149), second.limits(150)), ((5, 100), (7, 70)));
        assert!(second.reach(1000, false));
        let mut third = InsertBounds::new(shape(7));
        third.resume(&second.detail(100)).expect("understood");
        assert_eq!(
            third.bounds().iter().map(|bounds| (bounds.until, bounds.period)).collect::<Vec<_>>(),
            [(150, 100), (1000, 1000)]
        );
        assert_eq!(third.detail(1000), Value::Null);
    }

    #[test]
    fn a_damaged_note_is_an_error_and_an_old_one_is_not() {
        let mut handed = InsertBounds::new(shape(100));
        assert_eq!(handed.resume(&Value::Null), Ok(()));
        assert!(handed.resume(&json!({ "handed": "x" })).is_err_and(|error| error.contains("damaged")));
        let zero = json!({ "handed": [{ "until": 9, "every": 0, "rows": 1, "insert": [1, 1] }] });
        assert!(handed.resume(&zero).is_err_and(|error| error.contains("bound of 0")));
    }
}

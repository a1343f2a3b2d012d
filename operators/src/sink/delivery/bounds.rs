//! How ticks were cut into parcels, kept with what is confirmed.

use engine::batch::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The most rows and bytes of a parcel; each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sink) struct Most {
    pub rows: usize,
    pub bytes: usize,
}

/// Ticks before `until`, and behind those of the entry before, were cut by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    until: Time,
    most: Most,
}

/// How the ticks that are not confirmed were cut, by this run and by those before.
#[derive(Debug)]
pub(super) struct Bounds {
    own: Most,
    /// Of earlier runs.
    before: Vec<Entry>,
    /// The end of the last tick that this run has cut by its own; 0 if there is none.
    until: Time,
    /// Up to here the note says how ticks are cut.
    noted: Time,
}

impl Bounds {
    /// Nothing was cut.
    pub fn new(own: Most) -> Self {
        Self { own, before: Vec::new(), until: 0, noted: 0 }
    }

    /// Goes on behind a note.
    ///
    /// # Errors
    /// If it cannot be understood.
    pub fn resume(&mut self, detail: &Value) -> Result<(), String> {
        let Some(cut) = detail.get("cut") else { return Ok(()) };
        let damaged = "the note of what was sent is damaged: without it rows may come under another name";
        self.before = Vec::<Entry>::deserialize(cut).map_err(|error| format!("{damaged} ({error})"))?;
        if self.before.iter().any(|entry| entry.most.rows == 0 || entry.most.bytes == 0) {
            return Err(format!("{damaged} (a bound of 0)"));
        }
        self.noted = self.before.last().map_or(0, |entry| entry.until);
        Ok(())
    }

    /// By what a tick is cut.
    pub fn of(&self, tick: Time) -> Most {
        self.before.iter().find(|entry| tick < entry.until).map_or(self.own, |entry| entry.most)
    }

    /// The ticks before `until` are cut.
    pub fn reach(&mut self, until: Time) {
        if self.before.last().is_none_or(|entry| entry.until < until) {
            self.until = self.until.max(until);
        }
    }

    /// Up to where the note says how ticks are cut.
    pub fn noted(&self) -> Time {
        self.noted
    }

    /// The note has what [`Bounds::detail`] said last.
    pub fn has_been_noted(&mut self) {
        let reached = self.before.last().map_or(0, |entry| entry.until).max(self.until);
        self.noted = self.noted.max(reached);
    }

    /// Everything before `upto` is confirmed: how it was cut does not matter any more.
    pub fn confirmed(&mut self, upto: Time) {
        self.before.retain(|entry| entry.until > upto);
        if self.until <= upto {
            self.until = 0;
        }
    }

    /// The note.
    pub fn detail(&self) -> Value {
        let own = (self.until > 0).then_some(Entry { until: self.until, most: self.own });
        let open: Vec<Entry> = self.before.iter().copied().chain(own).collect();
        if open.is_empty() { Value::Null } else { json!({ "cut": open }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Most = Most { rows: 2, bytes: 100 };
    const LARGE: Most = Most { rows: 50, bytes: 1000 };

    #[test]
    fn what_is_not_confirmed_is_cut_as_it_was_over_any_number_of_starts() {
        let mut first = Bounds::new(SMALL);
        assert_eq!(first.detail(), Value::Null);
        first.reach(100);
        assert_eq!((first.noted(), first.of(5)), (0, SMALL));
        first.has_been_noted();
        assert_eq!(first.noted(), 100);
        let mut second = Bounds::new(LARGE);
        second.resume(&first.detail()).expect("understood");
        assert_eq!((second.of(99), second.of(100), second.noted()), (SMALL, LARGE, 100));
        second.reach(50);
        assert_eq!(second.detail(), first.detail(), "nothing new was cut");
        second.reach(200);
        let mut third = Bounds::new(SMALL);
        third.resume(&second.detail()).expect("understood");
        assert_eq!((third.of(99), third.of(150), third.of(200)), (SMALL, LARGE, SMALL));
        third.confirmed(100);
        assert_eq!((third.of(150), third.of(200)), (LARGE, SMALL));
        third.confirmed(200);
        assert_eq!((third.detail(), third.of(150)), (Value::Null, SMALL));
    }

    #[test]
    fn a_damaged_note_is_an_error_and_none_is_not() {
        let mut bounds = Bounds::new(SMALL);
        assert_eq!(bounds.resume(&Value::Null), Ok(()));
        for damaged in [json!({ "cut": "x" }), json!({ "cut": [{ "until": 9, "most": { "rows": 0, "bytes": 1 } }] })] {
            assert!(bounds.resume(&damaged).is_err_and(|error| error.contains("damaged")), "{damaged}");
        }
    }
}

//! JSON lines, one object a line (RFC 8259), read without an allocation per value.

use std::sync::Arc;
use std::time::Duration;

use engine::time::MAX_FUTURE;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::cell::{Cell, Cells, Slot, Target as CellTarget};
use super::keys::{Found, Keys, ROOT, Target};
use super::request::Request;
use super::rows::Row;
use super::schema::{Format, Kind};
use super::tolerant::{self, Fault};
use super::value::{CellSeed, Ignored};

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The line is not one JSON object.
    #[error("not a JSON object: {0}")]
    NotJson(String),
    /// A required key is missing or null.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A value cannot be read as its column's type.
    #[error("`{key}` should be {expected}, found {found}")]
    Mismatch {
        /// The key.
        key: String,
        /// What the column holds.
        expected: &'static str,
        /// What the line has.
        found: String,
    },
    /// The event time is too far ahead of the wall clock.
    #[error("the event time {time} ns is more than {limit} s ahead of this machine's clock")]
    Future {
        /// In ns since the epoch.
        time: i64,
        /// How far ahead it may be, in s.
        limit: u64,
    },
    /// The row's time is far ahead of the rows before it and of the row after it.
    #[error("the event time {0} ns is more than an hour ahead of the rows around it")]
    Jump(i64),
    /// The line is longer than allowed.
    #[error("longer than {0} bytes")]
    TooLong(usize),
}

/// Reads lines of one format.
#[derive(Debug)]
pub struct LineParser {
    format: Arc<Format>,
    keys: Keys,
    /// First the columns, then the keys of the event time, then those of [`Request`].
    slots: Vec<Slot>,
    cells: Cells,
    latest: i64,
    /// How far ahead of the wall clock that is.
    ahead: Duration,
}

impl LineParser {
    /// A parser that refuses event times more than [`MAX_FUTURE`] after `now_ns`.
    pub fn new(format: Arc<Format>, now_ns: i64) -> Self {
        let (keys, _) = Keys::new(format.paths());
        let columns = format.columns.iter().map(|column| Slot { kind: column.kind, absent: column.absent.clone() });
        let times = format.times.iter().map(|(_, unit)| Kind::Time(*unit));
        let others = format.request.iter().flat_map(Request::slots);
        let slots = columns.chain(times.map(|kind| Slot { kind, absent: kind.absent() })).chain(others).collect();
        let mut parser = Self { format, keys, slots, cells: Cells::default(), latest: 0, ahead: MAX_FUTURE };
        parser.set_now(now_ns);
        parser
    }

    /// Refuses event times that are further ahead of the wall clock, in ns since the epoch, than this; [`MAX_FUTURE`]
    /// without the call.
    pub fn allow_ahead(mut self, ahead: Duration, now_ns: i64) -> Self {
        self.ahead = ahead;
        self.set_now(now_ns);
        self
    }

    /// Moves the wall clock, in ns since the epoch: for sources that run for days.
    pub fn set_now(&mut self, now_ns: i64) {
        self.latest = now_ns.saturating_add(engine::time::nanos(self.ahead));
    }

    /// The format.
    pub fn format(&self) -> &Arc<Format> {
        &self.format
    }

    /// Reads one line without its line end.
    ///
    /// # Errors
    /// If the line is not understood; the parser can go on with the next one.
    pub fn parse<'p>(&'p mut self, line: &'p [u8]) -> Result<Row<'p>, Reject> {
        let line = unwrapped(line);
        let text = std::str::from_utf8(line).ok().filter(|line| self.read(line));
        let repaired = match text {
            Some(_) => false,
            None => self.read_again(line)?,
        };
        let begin = match &self.format.request {
            Some(request) => request.fill(&mut self.cells, text.unwrap_or_default())?,
            None => None,
        };
        let (cells, others) = self.cells.cells.split_at(self.format.columns.len());
        let time = others[..self.format.times.len()].iter().find_map(|cell| match cell {
            Cell::Signed(ns) => Some(*ns),
            _ => None,
        });
        let Some(time) = time.or(begin) else { return Err(Reject::Missing(self.format.times[0].0.to_string())) };
        if time > self.latest {
            return Err(Reject::Future { time, limit: self.ahead.as_secs() });
        }
        let missing = self.format.columns.iter().zip(cells).find(|(c, cell)| c.required && **cell == Cell::Missing);
        if let Some((column, _)) = missing {
            return Err(Reject::Missing(column.key.to_string()));
        }
        Ok(Row { time, repaired, line: text.unwrap_or_default(), scratch: &self.cells.scratch, cells })
    }

    /// Reads a line that is JSON. False if it is not, if a value is refused, or if this parser cannot tell its digits.
    fn read(&mut self, line: &str) -> bool {
        self.cells.clear(self.slots.len());
        let mut json = sonic_rs::Deserializer::from_str(line);
        let (keys, slots, cells) = (&mut self.keys, &self.slots, &mut self.cells);
        let object = Object { keys, slots, cells, line, level: ROOT };
        json.deserialize_any(object).and_then(|()| json.end()).is_ok()
    }

    /// Reads a line that may be no JSON. Whether it was repaired.
    #[cold]
    fn read_again(&mut self, line: &[u8]) -> Result<bool, Reject> {
        let read = if self.cells.mismatch.is_some() {
            Err(Fault::Refused)
        } else {
            self.cells.clear(self.slots.len());
            tolerant::read(line, &mut self.keys, &self.slots, &mut self.cells)
        };
        let mismatch = match read {
            Ok(repaired) => return Ok(repaired),
            Err(Fault::Syntax(reason)) => return Err(Reject::NotJson(reason)),
            Err(Fault::Refused) => self.cells.mismatch.take(),
        };
        let Some(mismatch) = mismatch else { return Err(Reject::NotJson("a value is not understood".to_owned())) };
        let key = self.format.paths().nth(mismatch.slot).map(ToString::to_string).unwrap_or_default();
        let expected = self.slots[mismatch.slot].kind.expected();
        Err(Reject::Mismatch { key, expected, found: mismatch.found })
    }
}

/// The object of a line, without what senders put around it: NUL bytes, a byte order mark, or the header with which
/// syslog's messages begin (`<190>Nov 23 15:35:27 host nginx: `; RFC 3164, RFC 5424).
fn unwrapped(line: &[u8]) -> &[u8] {
    if let [b'{', .., b'}'] = line {
        return line;
    }
    let is_around = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let start = line.iter().position(|byte| !is_around(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !is_around(byte)).map_or(start, |last| last + 1);
    let line = &line[start..end];
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let priority = line.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
    let has_header =
        (1..=3).contains(&priority) && line.first() == Some(&b'<') && line.get(1 + priority) == Some(&b'>');
    match line.iter().position(|byte| *byte == b'{') {
        Some(object) if has_header => &line[object..],
        _ => line,
    }
}

/// Reads the object of a line, or one in it that has cells.
struct Object<'p, 'l> {
    keys: &'p mut Keys,
    slots: &'p [Slot],
    cells: &'p mut Cells,
    line: &'l str,
    level: usize,
}

impl Object<'_, '_> {
    /// The seed of a value in this object or list.
    #[inline]
    fn cell(&mut self, slot: usize, after: Option<usize>) -> CellSeed<'_, '_> {
        CellSeed { target: CellTarget { cells: self.cells, slot, spec: &self.slots[slot] }, line: self.line, after }
    }

    /// What reads an object or a list in this one.
    fn inner(&mut self, level: usize) -> Inner<'_, '_> {
        self.keys.clear(level, self.cells);
        Inner(Object { keys: self.keys, slots: self.slots, cells: self.cells, line: self.line, level })
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut previous = self.keys.start(self.level);
        loop {
            let mut after = None;
            let seed = KeySeed { keys: self.keys, level: self.level, previous, after: &mut after };
            let Some(found) = map.next_key_seed(seed)? else { return Ok(()) };
            match found {
                Some((number, Target::Cell(slot))) => {
                    // Where the key ends in memory; in the line, if it stands there.
                    let after = after.and_then(|after: usize| after.checked_sub(self.line.as_ptr() as usize));
                    map.next_value_seed(self.cell(slot, after))?;
                    previous = number;
                }
                Some((number, Target::Level(level))) => {
                    map.next_value_seed(self.inner(level))?;
                    previous = number;
                }
                None => map.next_value_seed(Ignored::value())?,
            }
        }
    }
}

/// Reads a value in which cells are, if it is an object or a list.
struct Inner<'p, 'l>(Object<'p, 'l>);

impl<'de> DeserializeSeed<'de> for Inner<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inner<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let more = match self.0.keys.element(self.0.level, index) {
                Some(Target::Cell(slot)) => list.next_element_seed(self.0.cell(slot, None))?,
                Some(Target::Level(level)) => list.next_element_seed(self.0.inner(level))?,
                None => list.next_element_seed(Ignored::value())?,
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.visit_map(map)
    }
}

/// Finds a key; `None` for one that no column has.
struct KeySeed<'k> {
    keys: &'k mut Keys,
    level: usize,
    previous: usize,
    /// The address behind the key's last byte, if it stands in the line.
    after: &'k mut Option<usize>,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<Found>;
    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Found>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Option<Found>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Option<Found>, E> {
        *self.after = Some(key.as_ptr() as usize + key.len());
        Ok(self.keys.find(self.level, self.previous, key))
    }

    #[inline]
    fn visit_str<E>(self, key: &str) -> Result<Option<Found>, E> {
        Ok(self.keys.find(self.level, self.previous, key))
    }
}

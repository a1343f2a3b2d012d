//! JSON lines, one object a line (RFC 8259), read without an allocation per value.

use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use engine::time::MAX_FUTURE;
use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, Visitor};

use super::rows::Row;
use super::schema::Format;
use super::value::{Cell, CellSeed, Cells, Ignored};

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Some bytes are not UTF-8.
    #[error("not UTF-8 from byte {0} on")]
    NotUtf8(usize),
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
///
/// Keys usually come in the order of the line before, so the next column is guessed and then checked.
#[derive(Debug)]
pub struct LineParser {
    format: Arc<Format>,
    keys: Keys,
    cells: Cells,
    latest: i64,
    /// How far ahead of the wall clock that is.
    ahead: Duration,
}

impl LineParser {
    /// A parser that refuses event times more than [`MAX_FUTURE`] after `now_ns`.
    pub fn new(format: Arc<Format>, now_ns: i64) -> Self {
        let keys = Keys::new(&format);
        let mut parser = Self { format, keys, cells: Cells::default(), latest: 0, ahead: MAX_FUTURE };
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
        let line = std::str::from_utf8(line).map_err(|error| Reject::NotUtf8(error.valid_up_to()))?;
        self.cells.cells.clear();
        self.cells.cells.resize(self.format.cells(), Cell::Missing);
        self.cells.scratch.clear();
        self.cells.mismatch = None;
        let mut json = sonic_rs::Deserializer::from_str(line);
        let object = Object { format: &self.format, keys: &mut self.keys, cells: &mut self.cells, line };
        if let Err(error) = json.deserialize_any(object).and_then(|()| json.end()) {
            return Err(self.refusal(&error));
        }
        let begin = match &self.format.request {
            Some(request) => request.fill(&mut self.cells, line)?,
            None => None,
        };
        let (cells, others) = self.cells.cells.split_at(self.format.columns.len());
        let times = &others[..self.format.time_keys.len()];
        let time = times.iter().find_map(|cell| match cell {
            Cell::Signed(ns) => Some(*ns),
            _ => None,
        });
        let Some(time) = time.or(begin) else { return Err(Reject::Missing(self.format.time_keys[0].clone())) };
        if time > self.latest {
            return Err(Reject::Future { time, limit: self.ahead.as_secs() });
        }
        let missing = self.format.columns.iter().zip(cells).find(|(c, cell)| c.required && **cell == Cell::Missing);
        if let Some((column, _)) = missing {
            return Err(Reject::Missing(column.key.clone()));
        }
        Ok(Row { time, line, scratch: &self.cells.scratch, cells })
    }

    #[cold]
    fn refusal(&self, error: &sonic_rs::Error) -> Reject {
        match &self.cells.mismatch {
            Some(mismatch) => {
                let (key, kind) = self.format.cell(mismatch.slot);
                Reject::Mismatch { key: key.to_owned(), expected: kind.expected(), found: mismatch.found.clone() }
            }
            // The first line of the parser's message; the others repeat the input.
            None => {
                Reject::NotJson(error.to_string().lines().next().unwrap_or_default().trim_end_matches('.').to_owned())
            }
        }
    }
}

/// Which keys there are, and which one came after which.
#[derive(Debug)]
struct Keys {
    /// By slot.
    names: Vec<String>,
    by_name: HashMap<String, usize>,
    /// By slot, the slot that came next the last time; the last element is for the first key of a line.
    next: Vec<usize>,
    folded: String,
}

/// Names of request headers are case-insensitive (RFC 9110, section 5.1).
const HEADER: &str = "header_";

impl Keys {
    fn new(format: &Format) -> Self {
        let names: Vec<String> = (0..format.cells()).map(|cell| format.cell(cell).0.to_owned()).collect();
        let mut by_name = HashMap::default();
        for (slot, name) in names.iter().enumerate() {
            by_name.insert(name.clone(), slot);
            if let Some(folded) = fold(name, String::new()) {
                by_name.entry(folded).or_insert(slot);
            }
        }
        let next = (1..=names.len()).chain([0]).collect();
        Self { names, by_name, next, folded: String::new() }
    }

    /// The slot before the first key.
    fn start(&self) -> usize {
        self.names.len()
    }

    /// The slot of `key`, which came after that of `previous`.
    #[inline]
    fn find(&mut self, previous: usize, key: &str) -> Option<usize> {
        let guess = self.next[previous];
        if self.names.get(guess).is_some_and(|name| name == key) {
            return Some(guess);
        }
        let found = self.look_up(key)?;
        self.next[previous] = found;
        Some(found)
    }

    fn look_up(&mut self, key: &str) -> Option<usize> {
        if let Some(slot) = self.by_name.get(key) {
            return Some(*slot);
        }
        self.folded = fold(key, std::mem::take(&mut self.folded))?;
        self.by_name.get(&self.folded).copied()
    }
}

/// The name of a header's key in lower case with `_` for `-`, written into `out`; `None` if it is another key.
fn fold(key: &str, mut out: String) -> Option<String> {
    out.clear();
    let prefix = key.get(..HEADER.len())?;
    if !prefix.eq_ignore_ascii_case(HEADER) {
        return None;
    }
    out.extend(key.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }));
    Some(out)
}

/// Reads the object of a line.
struct Object<'p, 'l> {
    format: &'p Format,
    keys: &'p mut Keys,
    cells: &'p mut Cells,
    line: &'l str,
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut previous = self.keys.start();
        while let Some(found) = map.next_key_seed(KeySeed { keys: self.keys, previous })? {
            let Some(slot) = found else {
                map.next_value_seed(Ignored::value())?;
                continue;
            };
            let kind = self.format.cell(slot).1;
            map.next_value_seed(CellSeed { cells: self.cells, line: self.line, slot, kind })?;
            previous = slot;
        }
        Ok(())
    }
}

/// Finds the slot of a key; `None` for a key that no column has.
struct KeySeed<'k> {
    keys: &'k mut Keys,
    previous: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;
    #[inline]
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.keys.find(self.previous, key))
    }
}

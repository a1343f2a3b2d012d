//! JSON lines, one object a line (RFC 8259), read without an allocation per value.
//!
//! A format of JSON lines is its columns alone, each with the key under which its value stands.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::cell::Cells;
use super::schema::Format;
use super::syntax::{Fault, Syntax, Taken};
use keys::{Found, Keys, ROOT, Target};
use value::{CellSeed, Skip, Walk, Walked};

pub(super) mod keys;
mod tolerant;
mod value;

#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod tests;

/// JSON, and what servers write instead (`tolerant`).
#[derive(Debug)]
pub(super) struct Json {
    keys: Keys,
}

impl Json {
    /// Takes the values that stand under the format's keys.
    pub(super) fn syntax(format: &Format) -> Box<dyn Syntax> {
        Box::new(Self { keys: Keys::new(format.paths()).0 })
    }

    /// Reads a line that is JSON. False if it is not, if a value is refused, or if this parser cannot tell its digits.
    fn read_strictly(&mut self, line: &str, cells: &mut Cells) -> bool {
        let mut json = sonic_rs::Deserializer::from_str(line);
        let object = Object { keys: &mut self.keys, cells, line, level: ROOT };
        json.deserialize_any(object).and_then(|()| json.end()).is_ok()
    }

    /// Reads a line that may be no JSON.
    #[cold]
    fn read_again(&mut self, line: &[u8], cells: &mut Cells) -> Result<Taken<'static>, Fault> {
        if cells.beside.mismatch.is_some() {
            return Err(Fault::Refused);
        }
        cells.clear();
        let repaired = tolerant::read(line, &mut self.keys, cells)?;
        Ok(Taken { text: "", repaired })
    }
}

impl Syntax for Json {
    fn expected(&self) -> &'static str {
        "a JSON object"
    }

    fn finds_its_text(&self) -> bool {
        true
    }

    fn read<'l>(&mut self, line: &'l [u8], cells: &mut Cells) -> Result<Taken<'l>, Fault> {
        let line = unwrapped(line);
        match std::str::from_utf8(line) {
            Ok(text) if self.read_strictly(text, cells) => Ok(Taken { text, repaired: false }),
            _ => self.read_again(line, cells),
        }
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
    cells: &'p mut Cells,
    line: &'l str,
    level: usize,
}

impl Object<'_, '_> {
    /// The seed of a value in this object or list.
    #[inline(always)]
    fn cell(&mut self, slot: usize, after: usize) -> CellSeed<'_, '_> {
        CellSeed { target: self.cells.at(slot), line: self.line, after }
    }

    /// What reads an object or a list in this one.
    fn inner(&mut self, level: usize) -> Walked<Object<'_, '_>> {
        self.keys.clear(level, self.cells);
        Walked(Object { keys: self.keys, cells: self.cells, line: self.line, level })
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
            let seed = KeySeed { keys: self.keys, level: self.level, previous };
            let Some(found) = map.next_key_seed(seed)? else { return Ok(()) };
            match found {
                Some((number, Target::Cell(slot))) => {
                    let after = self.keys.after;
                    map.next_value_seed(self.cell(slot, after))?;
                    previous = number;
                }
                Some((number, Target::Level(level))) => {
                    map.next_value_seed(self.inner(level))?;
                    previous = number;
                }
                None => map.next_value_seed(Skip::value())?,
            }
        }
    }
}

impl<'de> Walk<'de> for Object<'_, '_> {
    fn list<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let more = match self.keys.element(self.level, index) {
                Some(Target::Cell(slot)) => list.next_element_seed(self.cell(slot, 0))?,
                Some(Target::Level(level)) => list.next_element_seed(self.inner(level))?,
                None => list.next_element_seed(Skip::value())?,
            };
            if more.is_none() {
                if index == 0 {
                    self.keys.take_empty_list(self.level, self.cells);
                }
                break;
            }
        }
        Ok(())
    }
    fn object<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.visit_map(map)
    }
}

/// Finds a key; `None` for one that no column has.
struct KeySeed<'k> {
    keys: &'k mut Keys,
    level: usize,
    previous: usize,
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

    #[inline(always)]
    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Option<Found>, E> {
        self.keys.after = key.as_ptr() as usize + key.len();
        Ok(self.keys.find(self.level, self.previous, key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<Found>, E> {
        self.keys.after = 0;
        Ok(self.keys.find(self.level, self.previous, key))
    }
}

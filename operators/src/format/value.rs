//! One value of a line: from JSON to a cell of the column's kind, without an allocation.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::schema::Kind;
use super::time;

/// The deepest nesting of a value that is skipped.
const MAX_DEPTH: usize = 64;

/// How much of a value a message shows, in characters.
const SHOWN: usize = 40;

/// A value of the line that is being read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    /// The key did not come, or null did.
    Missing,
    /// Text as it stands in the line: first byte and length.
    Line(usize, usize),
    /// Text that had to be written anew, in [`Cells::scratch`]: first byte and length.
    Scratch(usize, usize),
    /// A whole number, 0 or more.
    Unsigned(u64),
    /// A whole number, or ns since the epoch.
    Signed(i64),
    /// A finite number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl Cell {
    /// Text that is a part of this cell's: first byte in it, and length.
    pub(super) fn part(self, (from, len): (usize, usize)) -> Self {
        match self {
            Self::Line(at, _) => Self::Line(at + from, len),
            Self::Scratch(at, _) => Self::Scratch(at + from, len),
            _ => Self::Missing,
        }
    }
}

/// What a value was instead of what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// Which cell.
    pub slot: usize,
    /// What was found, for a message.
    pub found: String,
}

/// The cells of one line.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub cells: Vec<Cell>,
    /// Text that could not be taken from the line as it stands.
    pub scratch: String,
    /// Why the line is refused.
    pub mismatch: Option<Mismatch>,
}

/// Reads a value into `slot`.
pub(super) struct CellSeed<'c, 'l> {
    pub cells: &'c mut Cells,
    pub line: &'l str,
    pub slot: usize,
    pub kind: Kind,
}

impl CellSeed<'_, '_> {
    fn set<E>(self, cell: Cell) -> Result<(), E> {
        self.cells.cells[self.slot] = cell;
        Ok(())
    }

    /// The parser's own errors carry the input; the reason is kept aside instead.
    fn refuse<E: de::Error>(self, found: String) -> Result<(), E> {
        self.cells.mismatch = Some(Mismatch { slot: self.slot, found });
        Err(E::custom("refused"))
    }

    fn scratch<E>(self, write: impl FnOnce(&mut String)) -> Result<(), E> {
        let start = self.cells.scratch.len();
        write(&mut self.cells.scratch);
        let len = self.cells.scratch.len() - start;
        self.set(Cell::Scratch(start, len))
    }

    /// Where `text` stands in the line, if it does.
    fn place(&self, text: &str) -> Option<usize> {
        let start = (text.as_ptr() as usize).checked_sub(self.line.as_ptr() as usize)?;
        (start + text.len() <= self.line.len()).then_some(start)
    }

    fn text<E: de::Error>(self, text: &str, at: Option<usize>) -> Result<(), E> {
        let cell = match self.kind {
            Kind::Text => return self.keep(text, at),
            // Rust reads only the canonical spelling of an IPv4 address.
            Kind::Ip if text.parse::<Ipv4Addr>().is_ok() => return self.keep(text, at),
            Kind::Ip => match text.parse::<Ipv6Addr>() {
                Ok(ip) => {
                    return self.scratch(|out| {
                        let _ = write!(out, "{}", ip.to_canonical());
                    });
                }
                Err(_) => None,
            },
            Kind::U8 | Kind::U16 | Kind::U64 => {
                text.parse().ok().filter(|n| *n <= largest(self.kind)).map(Cell::Unsigned)
            }
            Kind::I64 => text.parse().ok().map(Cell::Signed),
            Kind::F64 => text.parse().ok().filter(|n: &f64| n.is_finite()).map(Cell::Float),
            Kind::Bool => match text {
                "true" | "1" => Some(Cell::Bool(true)),
                "false" | "0" => Some(Cell::Bool(false)),
                _ => None,
            },
            Kind::Time => time::parse(text).map(Cell::Signed),
            Kind::Seconds => time::seconds(text).map(Cell::Signed),
        };
        match cell {
            Some(cell) => self.set(cell),
            None => self.refuse(quoted(text)),
        }
    }

    fn keep<E>(self, text: &str, at: Option<usize>) -> Result<(), E> {
        match at {
            Some(at) => self.set(Cell::Line(at, text.len())),
            None => self.scratch(|out| out.push_str(text)),
        }
    }

    fn whole<E: de::Error>(self, number: u64) -> Result<(), E> {
        let cell = match self.kind {
            Kind::Text => return self.scratch(|out| out.push_str(itoa::Buffer::new().format(number))),
            Kind::U8 | Kind::U16 | Kind::U64 if number <= largest(self.kind) => Some(Cell::Unsigned(number)),
            Kind::I64 => i64::try_from(number).ok().map(Cell::Signed),
            Kind::F64 => Some(Cell::Float(number as f64)),
            Kind::Bool if number <= 1 => Some(Cell::Bool(number == 1)),
            Kind::Time => time::from_ns(number).map(Cell::Signed),
            Kind::Seconds => i64::try_from(number).ok().and_then(|s| s.checked_mul(1_000_000_000)).map(Cell::Signed),
            _ => None,
        };
        match cell {
            Some(cell) => self.set(cell),
            None => self.refuse(number.to_string()),
        }
    }
}

/// The largest number that a column of unsigned numbers holds.
fn largest(kind: Kind) -> u64 {
    match kind {
        Kind::U8 => u8::MAX.into(),
        Kind::U16 => u16::MAX.into(),
        _ => u64::MAX,
    }
}

/// Text for a message: short, control characters escaped.
fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

impl<'de> DeserializeSeed<'de> for CellSeed<'_, '_> {
    type Value = ();
    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.expected())
    }

    #[inline]
    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<(), E> {
        let at = self.place(text);
        self.text(text, at)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.text(text, None)
    }

    #[inline]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.whole(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        if let Ok(number) = u64::try_from(number) {
            return self.whole(number);
        }
        match self.kind {
            Kind::Text => self.scratch(|out| out.push_str(itoa::Buffer::new().format(number))),
            Kind::I64 => self.set(Cell::Signed(number)),
            Kind::F64 => self.set(Cell::Float(number as f64)),
            _ => self.refuse(number.to_string()),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        /// Above this not every whole number is a double.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self.kind {
            Kind::F64 => self.set(Cell::Float(number)),
            Kind::Text => self.scratch(|out| out.push_str(ryu::Buffer::new().format(number))),
            // A double has the microseconds of any moment of this century.
            Kind::Seconds if (0.0..EXACT / 1e6).contains(&number) => {
                self.set(Cell::Signed((number * 1e6).round() as i64 * 1000))
            }
            _ if number.fract() == 0.0 && number.abs() < EXACT => self.visit_i64(number as i64),
            _ => self.refuse(number.to_string()),
        }
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        match self.kind {
            Kind::Bool => self.set(Cell::Bool(value)),
            _ => self.refuse(value.to_string()),
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.set(Cell::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.refuse("a list".into())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.refuse("an object".into())
    }
}

/// Skips a value to a bounded depth: a parser's own skipping may recurse without one.
pub(super) struct Ignored {
    depth: usize,
}

impl Ignored {
    /// Skips a value of a line's object.
    pub(super) fn value() -> Self {
        Self { depth: MAX_DEPTH }
    }

    fn inner<E: de::Error>(&self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Ignored {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Ignored {
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
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.inner()?)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(self.inner()?)?.is_some() {
            map.next_value_seed(self.inner()?)?;
        }
        Ok(())
    }
}

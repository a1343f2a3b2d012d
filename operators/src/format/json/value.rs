//! Values of a line that is JSON, from the parser to their cells, without an allocation.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::cell::{Cell, Refused, Target};
use super::super::schema::Kind;

/// The deepest nesting of a value that is skipped.
pub(super) const MAX_DEPTH: usize = 64;

/// Reads a value into a cell.
pub(super) struct CellSeed<'c, 'l> {
    pub target: Target<'c>,
    pub line: &'l str,
    /// The address behind the value's key; 0 if it has none, or if the key does not stand in the line as it is.
    pub after: usize,
}

impl<'l> CellSeed<'_, 'l> {
    /// Where `text` stands in the line, if it does.
    #[inline]
    fn place(&self, text: &str) -> Option<usize> {
        let start = (text.as_ptr() as usize).checked_sub(self.line.as_ptr() as usize)?;
        (start + text.len() <= self.line.len()).then_some(start)
    }

    /// The digits of the number that is being read, and where they stand.
    #[cold]
    fn digits(&self) -> Option<(&'l str, usize)> {
        let after = self.after.checked_sub(self.line.as_ptr() as usize)?;
        let is_digit = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
        let rest = self.line.get(after..)?.trim_start_matches(['"', ':', ' ', '\t', '\n', '\r']);
        let digits = &rest[..rest.find(|c| !is_digit(c)).unwrap_or(rest.len())];
        Some((digits, self.line.len() - rest.len()))
    }
}

/// The parser's own errors carry the input; the reason is kept aside instead.
fn aside<E: de::Error>(_: Refused) -> E {
    E::custom("refused")
}

impl<'de> DeserializeSeed<'de> for CellSeed<'_, '_> {
    type Value = ();
    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.target.kind().expected())
    }

    #[inline]
    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<(), E> {
        let at = self.place(text);
        self.target.text(text, at).map_err(aside)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.target.text(text, None).map_err(aside)
    }

    #[inline]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.target.whole(number).map_err(aside)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.target.signed(number).map_err(aside)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        if matches!(self.target.kind(), Kind::Text | Kind::Time(_))
            && let Some((digits, at)) = self.digits()
        {
            return self.target.digits(digits, Some(at)).map_err(aside);
        }
        self.target.float(number).map_err(aside)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.target.boolean(value).map_err(aside)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.target.set(Cell::Missing).map_err(aside)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.target.refuse("a list".into()).map_err(aside)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.target.refuse("an object".into()).map_err(aside)
    }
}

/// What is done with a value that is no cell: single values are passed over, and what has others in it is gone through.
pub(super) trait Walk<'de>: Sized {
    /// Goes through a list.
    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error>;
    /// Goes through an object.
    fn object<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error>;
}

/// Reads a value by a [`Walk`].
pub(super) struct Walked<W>(pub W);

impl<'de, W: Walk<'de>> DeserializeSeed<'de> for Walked<W> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, W: Walk<'de>> Visitor<'de> for Walked<W> {
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
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.0.list(list)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.object(map)
    }
}

/// Skips a value to a bounded depth: a parser's own skipping may recurse without one.
pub(super) struct Skip {
    depth: usize,
}

impl Skip {
    /// Skips a value of a line's object.
    pub(super) fn value() -> Walked<Self> {
        Walked(Self { depth: MAX_DEPTH })
    }

    fn inner<E: de::Error>(&self) -> Result<Walked<Self>, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Walked(Self { depth })),
            None => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))),
        }
    }
}

impl<'de> Walk<'de> for Skip {
    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.inner()?)?.is_some() {}
        Ok(())
    }
    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(self.inner()?)?.is_some() {
            map.next_value_seed(self.inner()?)?;
        }
        Ok(())
    }
}

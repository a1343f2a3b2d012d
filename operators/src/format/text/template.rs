//! Where the values of a line stand: text that the server always writes, and values between.
//!
//! A client chooses some of the values, so that what ends one may stand inside it. A value takes as much as the whole line
//! allows: every way to read the line is tried, by the bytes that a value of its shape can have, and a line that can be read
//! in two ways is refused rather than guessed.

use super::clock::Part;
use super::escape::Escape;

/// How often a byte is looked at, for each byte of a line, and so many times besides. A line for which that is not enough has
/// what ends a value hundreds of times.
const LOOKS: usize = 40;
const MORE_LOOKS: usize = 4096;

/// What bytes a value can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum Shape {
    /// Any.
    Text,
    /// No white space.
    Word,
    /// Those of a number.
    Number,
    /// Those of an address, with a port or without.
    Address,
    /// Those of a date.
    Time,
    /// Those of numbers and addresses, as nginx writes one for each upstream.
    List,
}

impl Shape {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Text => true,
            Self::Word => !byte.is_ascii_whitespace() && byte != b'"',
            Self::Number => byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.'),
            Self::Address => {
                byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'[' | b']' | b'%' | b'-' | b'_')
            }
            Self::Time => !matches!(byte, b'[' | b']' | b'"' | b'|') && byte >= b' ',
            Self::List => byte.is_ascii_alphanumeric() || b" ,:.-[]/_".contains(&byte),
        }
    }
}

/// What is made of a value's text; `None` if it is nothing.
pub(in crate::format) type Transform = fn(&str) -> Option<std::borrow::Cow<'_, str>>;

/// Which moment a value is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum Moment {
    /// When the request began.
    Begin,
    /// When it ended.
    End,
}

/// A value of a line.
#[derive(Clone, Debug)]
pub(in crate::format) struct Value {
    /// As the format names it.
    pub name: String,
    pub shape: Shape,
    pub escape: Escape,
    /// If it is always as many bytes.
    pub width: Option<usize>,
    /// The cells that take it.
    pub cells: Vec<(usize, Transform)>,
    /// The moments of which it is a part.
    pub moments: Vec<(Moment, Part)>,
}

impl Value {
    fn has(&self, byte: u8) -> bool {
        self.shape.has(byte) && !self.escape.excludes(byte)
    }
}

/// A piece of a line.
#[derive(Clone, Debug)]
pub(in crate::format) enum Piece {
    /// What every line has.
    Literal(Vec<u8>),
    /// What is another in every line.
    Value(Value),
}

/// The pieces of a line.
#[derive(Clone, Debug)]
pub(in crate::format) struct Template {
    pub pieces: Vec<Piece>,
    /// Whether a line may go on behind the last.
    pub is_open: bool,
}

/// Why a line is refused that has two meanings.
pub(super) const TWO_WAYS: &str =
    "it can be read in two ways: a value has what ends it, because it is not in quotes or not escaped";

impl Template {
    /// The values, in the order of the line.
    pub(in crate::format) fn values(&self) -> impl Iterator<Item = &Value> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value(value) => Some(value),
            Piece::Literal(_) => None,
        })
    }

    /// Puts into `found` where each value stands.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    pub(super) fn find(&self, line: &[u8], found: &mut Vec<(usize, usize)>) -> Result<(), String> {
        let mut search = Search {
            template: self,
            line,
            looks: LOOKS * line.len() + MORE_LOOKS,
            path: Vec::new(),
            found,
            ways: 0,
            furthest: (0, 0),
        };
        search.from(0, 0);
        match search.ways {
            1 if search.looks > 0 => Ok(()),
            0 | 1 if search.looks == 0 => Err("its values have too often what ends a value".to_owned()),
            0 => Err(self.fault(search.furthest)),
            _ => Err(TWO_WAYS.to_owned()),
        }
    }

    /// What is missing at the furthest place that was reached.
    #[cold]
    fn fault(&self, (at, piece): (usize, usize)) -> String {
        match self.pieces.get(piece) {
            None => format!("more follows at byte {at}"),
            Some(Piece::Literal(text)) => format!("no `{}` at byte {at}", text.escape_ascii()),
            Some(Piece::Value(value)) => match self.pieces.get(piece + 1) {
                Some(Piece::Literal(text)) => {
                    format!("no `{}` with `{}` after it, from byte {at}", value.name, text.escape_ascii())
                }
                _ => format!("no `{}` at byte {at}", value.name),
            },
        }
    }
}

/// A search for the ways to read a line.
struct Search<'s> {
    template: &'s Template,
    line: &'s [u8],
    /// How many more looks there are.
    looks: usize,
    /// Where the values so far stand.
    path: Vec<(usize, usize)>,
    /// Those of the first way.
    found: &'s mut Vec<(usize, usize)>,
    /// How many there are, up to two.
    ways: u8,
    /// The furthest byte that was reached, and the piece that was not found there.
    furthest: (usize, usize),
}

impl Search<'_> {
    /// Tries to read the line from a byte on by the pieces from one on.
    fn from(&mut self, mut piece: usize, mut at: usize) {
        while let Some(Piece::Literal(text)) = self.template.pieces.get(piece) {
            if !self.line[at..].starts_with(text) {
                return self.missed(at, piece);
            }
            (piece, at) = (piece + 1, at + text.len());
        }
        match self.template.pieces.get(piece) {
            Some(Piece::Value(value)) => self.value(value, piece, at),
            _ if at == self.line.len() || self.template.is_open => {
                if self.ways == 0 {
                    self.found.clone_from(&self.path);
                }
                self.ways += 1;
            }
            _ => self.missed(at, piece),
        }
    }

    fn missed(&mut self, at: usize, piece: usize) {
        if (at, piece) > self.furthest {
            self.furthest = (at, piece);
        }
    }

    /// Tries every end that a value can have.
    fn value(&mut self, value: &Value, piece: usize, start: usize) {
        let is_last = piece + 1 == self.template.pieces.len() && !self.template.is_open;
        let next: &[u8] = match self.template.pieces.get(piece + 1) {
            Some(Piece::Literal(text)) => text,
            _ => &[],
        };
        let before = self.furthest;
        let mut end = start;
        loop {
            let ends = match value.width {
                Some(width) => end - start == width,
                None if is_last => end == self.line.len(),
                None => self.line[end..].starts_with(next),
            };
            if ends {
                self.path.push((start, end));
                self.from(piece + 1, end);
                self.path.pop();
            }
            self.looks = self.looks.saturating_sub(1);
            if self.ways > 1 || self.looks == 0 || value.width == Some(end - start) {
                break;
            }
            let Some(byte) = self.line.get(end) else { break };
            end += if value.escape.leads(*byte) && end + 1 < self.line.len() {
                2
            } else if value.has(*byte) {
                1
            } else {
                break;
            };
        }
        if self.furthest == before && self.ways == 0 {
            self.missed(start, piece);
        }
    }
}

//! Lines that are no JSON, because a server writes what a client sent as it came.
//!
//! The fast parser takes JSON only. A line that it refuses is read again here, by the same grammar but for what stands in
//! strings and for values that are not there; so nobody keeps out of every feature by one byte in a header:
//!
//! - `\xHH`, as Apache and nginx escape, is that byte, and Apache's `\v` a vertical tab;
//! - bytes that are no UTF-8 then, and halves of surrogate pairs, become U+FFFD;
//! - control characters, and a backslash before anything else, stand for themselves;
//! - no value at all, or a bare `-` for one, is null: nginx and Apache write that for a number that they do not have.
//!
//! Whatever ends a string or the object early stays a fault: a line that was cut off, or two that ran together, must not
//! become a row.

use super::super::cell::{Cell, Cells};
use super::super::syntax::Fault;
use super::keys::{Keys, ROOT, Target};
use super::value::MAX_DEPTH;

/// Reads a line's object into `cells`, which are clear. Whether it had to be repaired.
pub(super) fn read(line: &[u8], keys: &mut Keys, cells: &mut Cells) -> Result<bool, Fault> {
    let mut reader = Reader { line, at: 0, text: Vec::new(), repaired: false, keys, cells };
    if reader.next_token() != Some(b'{') {
        return Err(reader.fault("expected an object"));
    }
    reader.object(Some(ROOT), MAX_DEPTH)?;
    match reader.next_token() {
        None => Ok(reader.repaired),
        Some(_) => Err(reader.fault("something follows the object")),
    }
}

struct Reader<'p> {
    line: &'p [u8],
    at: usize,
    /// The string that is being read, before it is made UTF-8.
    text: Vec<u8>,
    repaired: bool,
    keys: &'p mut Keys,
    cells: &'p mut Cells,
}

impl<'p> Reader<'p> {
    fn fault(&self, what: &str) -> Fault {
        Fault::Syntax(format!("{what} at byte {}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    /// The next byte that is no white space; it is not passed.
    fn next_token(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.peek()
    }

    /// Passes a byte if it comes next.
    fn pass(&mut self, byte: u8) -> bool {
        let comes = self.next_token() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    /// An object, from its brace. `level` if there are cells in it.
    fn object(&mut self, level: Option<usize>, depth: usize) -> Result<(), Fault> {
        self.at += 1;
        if self.pass(b'}') {
            return Ok(());
        }
        let mut previous = level.map_or(0, |level| self.keys.start(level));
        loop {
            if !self.pass(b'"') {
                return Err(self.fault("expected a key"));
            }
            let found = self.string(|reader, key| level.and_then(|level| reader.keys.find(level, previous, key)))?;
            if !self.pass(b':') {
                return Err(self.fault("expected `:`"));
            }
            previous = found.map_or(previous, |(number, _)| number);
            self.value(found.map(|(_, target)| target), depth)?;
            if self.pass(b'}') {
                return Ok(());
            }
            if !self.pass(b',') {
                return Err(self.fault("expected `,` or `}`"));
            }
        }
    }

    /// A list, from its bracket.
    fn list(&mut self, level: Option<usize>, depth: usize) -> Result<(), Fault> {
        self.at += 1;
        if self.pass(b']') {
            if let Some(level) = level {
                self.keys.take_empty_list(level, self.cells);
            }
            return Ok(());
        }
        for index in 0.. {
            let target = level.and_then(|level| self.keys.element(level, index));
            self.value(target, depth)?;
            if self.pass(b']') {
                break;
            }
            if !self.pass(b',') {
                return Err(self.fault("expected `,` or `]`"));
            }
        }
        Ok(())
    }

    fn value(&mut self, target: Option<Target>, depth: usize) -> Result<(), Fault> {
        let (cell, level) = match target {
            Some(Target::Cell(cell)) => (Some(cell), None),
            Some(Target::Level(level)) => (None, Some(level)),
            None => (None, None),
        };
        if let Some(level) = level {
            self.keys.clear(level, self.cells);
        }
        let first = self.next_token();
        let inner = || depth.checked_sub(1);
        match first {
            Some(b'{' | b'[') => {
                if let Some(slot) = cell {
                    let found = if first == Some(b'{') { "an object" } else { "a list" };
                    return Ok(self.cells.at(slot).refuse(found.into())?);
                }
                let Some(depth) = inner() else {
                    return Err(self.fault(&format!("nested deeper than {MAX_DEPTH} levels")));
                };
                if first == Some(b'{') { self.object(level, depth) } else { self.list(level, depth) }
            }
            Some(b'"') => {
                self.at += 1;
                let put = |reader: &mut Self, text: &str| match cell {
                    Some(slot) => reader.cells.at(slot).text(text, None),
                    None => Ok(()),
                };
                Ok(self.string(put)??)
            }
            Some(b'-' | b'0'..=b'9') if !self.is_dash() => {
                let digits = self.number()?;
                match cell {
                    Some(slot) => Ok(self.cells.at(slot).digits(digits, None)?),
                    None => Ok(()),
                }
            }
            _ => self.word(cell),
        }
    }

    /// `true`, `false`, `null`, or nothing where a value should be.
    fn word(&mut self, cell: Option<usize>) -> Result<(), Fault> {
        let rest = &self.line[self.at..];
        let words: [(&[u8], Option<bool>); 3] = [(b"true", Some(true)), (b"false", Some(false)), (b"null", None)];
        let found = words.iter().find(|(word, _)| rest.starts_with(word)).copied();
        let (length, value) = match (found, rest.first()) {
            (Some((word, value)), _) => (word.len(), value),
            // A dash that begins a number is not handed to this function.
            (None, Some(b'-')) => {
                self.repaired = true;
                (1, None)
            }
            (None, Some(b',' | b'}')) => {
                self.repaired = true;
                (0, None)
            }
            _ => return Err(self.fault("expected a value")),
        };
        self.at += length;
        match (cell, value) {
            (Some(slot), Some(value)) => Ok(self.cells.at(slot).boolean(value)?),
            (Some(slot), None) => Ok(self.cells.at(slot).set(Cell::Missing)?),
            (None, _) => Ok(()),
        }
    }

    /// Whether a dash stands where a value should be.
    fn is_dash(&self) -> bool {
        let mut bytes = self.line[self.at..].iter();
        bytes.next() == Some(&b'-') && matches!(bytes.find(|byte| !byte.is_ascii_whitespace()), Some(b',' | b'}'))
    }

    /// A number by the grammar of JSON (RFC 8259, section 6).
    fn number(&mut self) -> Result<&'p str, Fault> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let zero = self.peek() == Some(b'0');
        let whole = self.digits();
        let mut valid = whole == 1 || whole > 1 && !zero;
        if self.peek() == Some(b'.') {
            self.at += 1;
            valid &= self.digits() > 0;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            valid &= self.digits() > 0;
        }
        let line = self.line;
        match std::str::from_utf8(&line[start..self.at]) {
            Ok(digits) if valid => Ok(digits),
            _ => Err(self.fault("expected a number")),
        }
    }

    /// Passes digits; how many there were.
    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// A string, from behind its quote; what `use_it` makes of it.
    fn string<T>(&mut self, use_it: impl FnOnce(&mut Self, &str) -> T) -> Result<T, Fault> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let whole = self.unescape(&mut text);
        let used = whole.map(|()| {
            // UTF-8 of the bytes as a whole: each of a character's may be escaped.
            let repaired = String::from_utf8_lossy(&text);
            self.repaired |= matches!(repaired, std::borrow::Cow::Owned(_));
            use_it(self, &repaired)
        });
        self.text = text;
        used
    }

    /// The bytes of a string up to its quote, which is passed.
    fn unescape(&mut self, text: &mut Vec<u8>) -> Result<(), Fault> {
        loop {
            let rest = &self.line[self.at..];
            let is_plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
            let Some(plain) = rest.iter().position(|byte| !is_plain(byte)) else {
                self.at = self.line.len();
                return Err(self.fault("a string has no end"));
            };
            text.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            match rest[plain] {
                b'"' => return Ok(()),
                b'\\' => self.escape(text)?,
                control => {
                    self.repaired = true;
                    text.push(control);
                }
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Fault> {
        let Some(kind) = self.peek() else { return Err(self.fault("a string has no end")) };
        self.at += 1;
        let byte = match kind {
            b'"' | b'\\' | b'/' => kind,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 12,
            b'r' => b'\r',
            b'u' if self.hex(self.at, 4).is_some() => {
                let mut utf8 = [0; 4];
                text.extend_from_slice(self.unicode().encode_utf8(&mut utf8).as_bytes());
                return Ok(());
            }
            b'x' if self.hex(self.at, 2).is_some() => {
                let byte = self.hex(self.at, 2).unwrap_or_default() as u8;
                (self.at, self.repaired) = (self.at + 2, true);
                byte
            }
            b'v' => {
                self.repaired = true;
                11
            }
            other => {
                self.repaired = true;
                text.push(b'\\');
                other
            }
        };
        text.push(byte);
        Ok(())
    }

    /// The character of four hexadecimal digits, and of the second half of a pair.
    fn unicode(&mut self) -> char {
        let first = self.hex(self.at, 4).unwrap_or_default();
        self.at += 4;
        let second = self.line[self.at..].starts_with(br"\u").then(|| self.hex(self.at + 2, 4)).flatten();
        let found = match (first, second) {
            (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) => {
                self.at += 6;
                char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
            }
            _ => char::from_u32(first),
        };
        self.repaired |= found.is_none();
        found.unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    /// Hexadecimal digits at a place, if there are so many.
    fn hex(&self, at: usize, digits: usize) -> Option<u32> {
        let bytes = self.line.get(at..at + digits)?;
        bytes.iter().try_fold(0, |number, byte| Some(number << 4 | char::from(*byte).to_digit(16)?))
    }
}

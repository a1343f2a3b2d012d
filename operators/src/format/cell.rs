//! One value of a row: what a line has, as the column's kind.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::schema::{Format, Kind};
use super::time;

/// How much of a value a message shows, in characters.
const SHOWN: usize = 40;

/// A value of the line that is being read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    /// The key did not come, or null did, or what stands for no value.
    Missing,
    /// Text as it stands in the line: first byte and length.
    Line(usize, usize),
    /// Text that had to be written anew, in [`Beside::scratch`]: first byte and length.
    Scratch(usize, usize),
    /// A whole number, 0 or more.
    Unsigned(u64),
    /// A whole number, or ns: since the epoch, or of a duration.
    Signed(i64),
    /// A finite number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl Cell {
    /// Part of a text: first byte, and length.
    pub(super) fn part(self, (at, len): (usize, usize)) -> Self {
        match self {
            Self::Line(start, _) => Self::Line(start + at, len),
            Self::Scratch(start, _) => Self::Scratch(start + at, len),
            other => other,
        }
    }
}

/// What a cell may hold.
#[derive(Clone, Debug)]
struct Slot {
    /// As what it is read.
    kind: Kind,
    /// Texts that stand for no value.
    absent: Vec<String>,
    /// The length of the longest of them: most values are longer.
    longest_absent: usize,
}

impl Slot {
    fn new(kind: Kind, absent: Vec<String>) -> Self {
        let longest_absent = absent.iter().map(String::len).max().unwrap_or(0);
        Self { kind, absent, longest_absent }
    }

    #[inline]
    fn is_absent(&self, text: &str) -> bool {
        text.len() <= self.longest_absent && self.absent.iter().any(|absent| absent == text)
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

/// A value was not taken; [`Beside::mismatch`] says why, unless it was only out of the fast parser's reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// The cells of one line: those of the format's columns, then those of its values without a column.
#[derive(Debug, Default)]
pub(super) struct Cells {
    slots: Vec<Slot>,
    pub values: Vec<Cell>,
    pub beside: Beside,
}

/// What there is beside the values.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Text that could not be taken from the line as it stands.
    pub scratch: String,
    /// Why the line is refused.
    pub mismatch: Option<Mismatch>,
}

impl Beside {
    /// The text of a cell, if it has one. `line` is the text that cells stand in.
    pub(super) fn text<'t>(&'t self, cell: Cell, line: &'t str) -> Option<&'t str> {
        match cell {
            Cell::Line(at, len) => line.get(at..at + len),
            Cell::Scratch(at, len) => self.scratch.get(at..at + len),
            _ => None,
        }
    }
}

impl Cells {
    /// For lines of a format.
    pub(super) fn new(format: &Format) -> Self {
        let columns = format.columns.iter().map(|column| Slot::new(column.kind, column.absent.clone()));
        let extras = format.extras.iter().map(|extra| Slot::new(extra.kind, extra.kind.absent()));
        Self { slots: columns.chain(extras).collect(), ..Self::default() }
    }

    /// Forgets the line before.
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.values.resize(self.slots.len(), Cell::Missing);
        self.beside.scratch.clear();
        self.beside.mismatch = None;
    }

    /// The cell with this number, to put a value into.
    #[inline]
    pub(super) fn at(&mut self, slot: usize) -> Target<'_> {
        Target { spec: &self.slots[slot], value: &mut self.values[slot], slot, beside: &mut self.beside }
    }

    /// What the cell with this number is to be, for messages.
    pub(super) fn expected(&self, slot: usize) -> &'static str {
        self.slots[slot].kind.expected()
    }
}

/// A cell to put a value into.
pub(super) struct Target<'c> {
    /// What it may hold.
    spec: &'c Slot,
    value: &'c mut Cell,
    slot: usize,
    beside: &'c mut Beside,
}

impl Target<'_> {
    #[inline]
    pub(super) fn kind(&self) -> Kind {
        self.spec.kind
    }

    #[inline]
    pub(super) fn set(self, cell: Cell) -> Result<(), Refused> {
        *self.value = cell;
        Ok(())
    }

    #[cold]
    pub(super) fn refuse(self, found: String) -> Result<(), Refused> {
        self.beside.mismatch = Some(Mismatch { slot: self.slot, found });
        Err(Refused)
    }

    fn set_or_refuse(self, cell: Option<Cell>, found: impl FnOnce() -> String) -> Result<(), Refused> {
        match cell {
            Some(cell) => self.set(cell),
            None => self.refuse(found()),
        }
    }

    fn anew(self, write: impl FnOnce(&mut String)) -> Result<(), Refused> {
        let start = self.beside.scratch.len();
        write(&mut self.beside.scratch);
        let len = self.beside.scratch.len() - start;
        self.set(Cell::Scratch(start, len))
    }

    /// Text, which stands in the line at `at` if it does.
    #[inline]
    pub(super) fn text(self, text: &str, at: Option<usize>) -> Result<(), Refused> {
        if self.kind() == Kind::Texts {
            return self.and(text);
        }
        if self.spec.is_absent(text) {
            return self.set(Cell::Missing);
        }
        match self.kind() {
            Kind::Text => self.keep(text, at),
            // What came over a socket has no address.
            Kind::Ip if text.starts_with("unix:") => self.set(Cell::Missing),
            // Rust reads only the canonical spelling of an IPv4 address.
            Kind::Ip if text.parse::<Ipv4Addr>().is_ok() => self.keep(text, at),
            Kind::Ip => match address(text.trim_ascii()) {
                Some(ip) => self.anew(|out| {
                    let _ = write!(out, "{}", ip.to_canonical());
                }),
                None => self.refuse(quoted(text)),
            },
            _ => self.parse(text),
        }
    }

    /// One more of several texts, behind those that there are.
    fn and(self, text: &str) -> Result<(), Refused> {
        let scratch = &mut self.beside.scratch;
        match *self.value {
            _ if self.spec.is_absent(text) => {}
            // Nothing else was written since: it grows where it stands, so that long lists take no longer than short ones.
            Cell::Scratch(start, len) if start + len == scratch.len() => {
                scratch.push_str(", ");
                scratch.push_str(text);
                *self.value = Cell::Scratch(start, scratch.len() - start);
            }
            // Not the first, and something stands between: a list within the list.
            Cell::Scratch(..) => {}
            _ => return self.anew(|out| out.push_str(text)),
        }
        Ok(())
    }

    /// Text that is to be a number, a time, true or false.
    fn parse(self, text: &str) -> Result<(), Refused> {
        let value = last(text).trim_ascii();
        if self.spec.is_absent(value) {
            return self.set(Cell::Missing);
        }
        let cell = match self.kind() {
            Kind::Text | Kind::Texts | Kind::Ip => None,
            Kind::U8 | Kind::U16 | Kind::U64 => {
                value.parse().ok().filter(|n| *n <= largest(self.kind())).map(Cell::Unsigned)
            }
            Kind::I64 => value.parse().ok().map(Cell::Signed),
            Kind::F64 => value.parse().ok().filter(|n: &f64| n.is_finite()).map(Cell::Float),
            Kind::Bool => match value {
                "true" | "1" => Some(Cell::Bool(true)),
                "false" | "0" => Some(Cell::Bool(false)),
                _ => None,
            },
            Kind::Time(unit) => time::parse(text.trim_ascii(), unit).map(Cell::Signed),
            Kind::Duration(unit) => unit.decimal(value).map(Cell::Signed),
        };
        self.set_or_refuse(cell, || quoted(text))
    }

    #[inline]
    fn keep(self, text: &str, at: Option<usize>) -> Result<(), Refused> {
        match at {
            Some(at) => self.set(Cell::Line(at, text.len())),
            None => self.anew(|out| out.push_str(text)),
        }
    }

    /// A whole number, 0 or more.
    #[inline]
    pub(super) fn whole(self, number: u64) -> Result<(), Refused> {
        let cell = match self.kind() {
            Kind::Text => return self.anew(|out| out.push_str(itoa::Buffer::new().format(number))),
            Kind::U8 | Kind::U16 | Kind::U64 if number <= largest(self.kind()) => Some(Cell::Unsigned(number)),
            Kind::I64 => i64::try_from(number).ok().map(Cell::Signed),
            Kind::F64 => Some(Cell::Float(number as f64)),
            Kind::Bool if number <= 1 => Some(Cell::Bool(number == 1)),
            Kind::Time(unit) => time::from_whole(number, unit).map(Cell::Signed),
            Kind::Duration(unit) => unit.whole(number).map(Cell::Signed),
            _ => None,
        };
        self.set_or_refuse(cell, || number.to_string())
    }

    /// A whole number.
    pub(super) fn signed(self, number: i64) -> Result<(), Refused> {
        if let Ok(number) = u64::try_from(number) {
            return self.whole(number);
        }
        match self.kind() {
            Kind::Text => self.anew(|out| out.push_str(itoa::Buffer::new().format(number))),
            Kind::I64 => self.set(Cell::Signed(number)),
            Kind::F64 => self.set(Cell::Float(number as f64)),
            _ => self.refuse(number.to_string()),
        }
    }

    /// Any other number. Text and times are made of its digits, of which a float has not enough: [`Target::digits`].
    pub(super) fn float(self, number: f64) -> Result<(), Refused> {
        /// Above this not every whole number is a double.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self.kind() {
            Kind::Text | Kind::Time(_) => Err(Refused),
            // There is one zero: the fast parser drops its sign.
            Kind::F64 => self.set(Cell::Float(number + 0.0)),
            Kind::Duration(unit) => {
                let ns = unit.float(number).map(Cell::Signed);
                self.set_or_refuse(ns, || number.to_string())
            }
            _ if number.fract() == 0.0 && number.abs() < EXACT => self.signed(number as i64),
            _ => self.refuse(number.to_string()),
        }
    }

    /// A number by its digits, which stand in the line at `at` if they do.
    pub(super) fn digits(self, digits: &str, at: Option<usize>) -> Result<(), Refused> {
        match self.kind() {
            Kind::Text => self.keep(digits, at),
            Kind::Time(unit) => {
                let ns = time::from_number(digits, unit);
                self.set_or_refuse(ns.map(Cell::Signed), || shown(digits))
            }
            _ => match (digits.parse(), digits.parse(), digits.parse::<f64>()) {
                (Ok(number), _, _) => self.whole(number),
                (_, Ok(number), _) => self.signed(number),
                (_, _, Ok(number)) if number.is_finite() => self.float(number),
                _ => self.refuse(shown(digits)),
            },
        }
    }

    pub(super) fn boolean(self, value: bool) -> Result<(), Refused> {
        match self.kind() {
            Kind::Bool => self.set(Cell::Bool(value)),
            _ => self.refuse(value.to_string()),
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

/// The last of several values: nginx writes one for each upstream that it tried, separated by `, `, and by ` : ` where
/// another location took over. The last is that of the answer which the client got.
fn last(text: &str) -> &str {
    // Both have a space, which most values do not: this is asked of each value that is no text. They are short.
    if !text.bytes().any(|byte| byte == b' ') {
        return text;
    }
    let text = text.rsplit_once(" : ").map_or(text, |(_, last)| last);
    text.rsplit_once(", ").map_or(text, |(_, last)| last)
}

/// An address as servers and proxies write it: with brackets, a port, or the zone of a link-local one (RFC 4007), which
/// says nothing about the client.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(ip);
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    let (ip, zone) = bare.split_once('%')?;
    ip.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv6() && !zone.is_empty())
}

/// Text for a message: short, control characters escaped.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

//! From what a format string has to columns and a template.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use engine::batch::{SEQ, TIME};

use super::super::BEGIN_TIME;
use super::super::path::Path;
use super::super::schema::{ABSENT, Column, DurationColumn, Extra, Format, Kind, REPAIRED, Role};
use super::super::time::Unit;
use super::super::{reqin_log, server_tls};
use super::clock::{Part, Zone, is_complete};
use super::escape::Escape;
use super::template::{Moment, Piece, Shape, Template, Transform, Value};
use super::transform::same;
use super::{Layout, Lines};

/// What is wrong with a format string, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// First byte of what is wrong; `None` if it is the whole.
    pub at: Option<usize>,
    /// What is wrong, in one lower-case sentence.
    pub message: String,
}

impl Wrong {
    /// At a byte of the format string.
    pub(in crate::format) fn at(at: usize, message: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into() }
    }

    /// The message with the place counted in characters of the format string, from 1.
    pub fn said(&self, format: &str) -> String {
        match self.at {
            None => self.message.clone(),
            Some(at) => {
                let before = format.get(..at).unwrap_or(format).chars().count();
                format!("character {} of the format: {}", before + 1, self.message)
            }
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a value of a line says.
#[derive(Clone, Debug)]
pub(in crate::format) enum Want {
    /// A column. Of several values for one that with the greatest rank counts, then the first.
    Column { name: Cow<'static, str>, rank: u8, with: Transform },
    /// A part of a moment.
    Moment(Moment, Part),
    /// How long the request took.
    Took(Unit, Transform),
}

/// A column of this name, from a value as it is.
pub(in crate::format) fn column(name: impl Into<Cow<'static, str>>, rank: u8) -> Want {
    Want::Column { name: name.into(), rank, with: same }
}

/// A piece of a format string.
#[derive(Clone, Debug)]
pub(in crate::format) enum Item {
    /// Text that every line has.
    Literal(Vec<u8>),
    /// A value, and where its name stands in the format string.
    Value { value: Value, at: usize, wants: Vec<Want> },
}

impl Item {
    pub(in crate::format) fn value(
        name: impl Into<String>,
        at: usize,
        shape: Shape,
        escape: Escape,
        wants: Vec<Want>,
    ) -> Self {
        let value = Value { name: name.into(), shape, escape, width: None, cells: Vec::new(), moments: Vec::new() };
        Self::Value { value, at, wants }
    }

    /// A value that is always as many bytes, if it is.
    pub(in crate::format) fn of_width(mut self, bytes: Option<usize>) -> Self {
        if let Self::Value { value, .. } = &mut self {
            value.width = bytes;
        }
        self
    }
}

/// What the lines of a format have.
#[derive(Debug)]
pub(in crate::format) struct Wants {
    /// What a line is, for messages.
    pub expected: &'static str,
    pub items: Vec<Item>,
    /// Whether lines may go on behind the last.
    pub is_open: bool,
    pub zone: Zone,
}

/// Kinds of columns that `reqin_log` does not have; others are text.
const OTHERS: [(&str, Kind); 12] = [
    ("useragent_ip", Kind::Ip),
    ("forwarded_first", Kind::Ip),
    ("forwarded_last", Kind::Ip),
    ("has_authorization", Kind::Bool),
    ("has_proxy_authorization", Kind::Bool),
    ("request_size", Kind::U64),
    ("bytes_sent", Kind::U64),
    ("keepalive_index", Kind::U64),
    ("connection_number", Kind::U64),
    ("request_processing_time", Kind::F64),
    ("target_processing_time", Kind::F64),
    ("response_processing_time", Kind::F64),
];

/// The most values of a line.
const MAX_VALUES: usize = 256;

/// Columns that requests of every format have, so that they can be joined and grouped: without a value where the string has
/// none. Headers are not among them, because one that is not logged would pass for one that was not sent.
const CORE: [&str; 10] =
    ["src_port", "dst_ip", "dst_port", "method", "scheme", "host", "path", "query", "http_version", "status_code"];

const DURATION: &str = "duration_ms";

impl Wants {
    /// The format of such lines.
    ///
    /// # Errors
    /// If two values stand side by side with nothing to tell them apart, or lines have no client or no time.
    pub(in crate::format) fn format(mut self) -> Result<Arc<Format>, Wrong> {
        self.check_neighbours()?;
        self.choose_moments()?;
        let columns = self.columns()?;
        let has = |name: &str| columns.iter().any(|column| column.name == name);
        if !has("src_ip") {
            return Err(Wrong {
                at: None,
                message: "it has no address of the client, which every request needs".to_owned(),
            });
        }
        let (extras, moments) = self.extras(columns.len());
        if moments == [None; 2] {
            return Err(Wrong { at: None, message: "it has no time, which every request needs".to_owned() });
        }
        self.fill_slots(&columns, &extras);
        let duration = columns.iter().position(|column| column.name == DURATION);
        let duration = duration.map(|column| DurationColumn { column, unit: Unit::Ms });
        let pieces = self.items.into_iter().map(|item| match item {
            Item::Literal(text) => Piece::Literal(text),
            Item::Value { value, .. } => Piece::Value(value),
        });
        let template = Template { pieces: pieces.collect(), is_open: self.is_open };
        let layout = Layout { expected: self.expected, template, moments, zone: self.zone };
        let format = Format::new(columns, extras, duration);
        Ok(Arc::new(Format { syntax: Lines::syntax, layout: Some(Arc::new(layout)), ..format }))
    }

    /// Joins text that stands side by side, and finds values that do.
    fn check_neighbours(&mut self) -> Result<(), Wrong> {
        let mut joined: Vec<Item> = Vec::with_capacity(self.items.len());
        for item in std::mem::take(&mut self.items) {
            match (joined.last_mut(), item) {
                (_, Item::Literal(text)) if text.is_empty() => {}
                (Some(Item::Literal(before)), Item::Literal(text)) => before.extend(text),
                (Some(Item::Value { value: before, .. }), Item::Value { value, at, .. })
                    if before.width.is_none() && value.width.is_none() =>
                {
                    let message = format!("nothing tells where `{}` ends and `{}` begins", before.name, value.name);
                    return Err(Wrong::at(at, message));
                }
                (_, item) => joined.push(item),
            }
        }
        let mut values = joined.iter().filter(|item| matches!(item, Item::Value { .. }));
        if let Some(Item::Value { at, .. }) = values.nth(MAX_VALUES) {
            return Err(Wrong::at(*at, format!("more than {MAX_VALUES} values")));
        }
        self.items = joined;
        self.trim();
        Ok(())
    }

    /// Takes away the blanks around a line, without which lines come.
    fn trim(&mut self) {
        if let Some(Item::Literal(text)) = self.items.first_mut() {
            *text = text.trim_ascii_start().to_vec();
        }
        if let Some(Item::Literal(text)) = self.items.last_mut().filter(|_| !self.is_open) {
            *text = text.trim_ascii_end().to_vec();
        }
        self.items.retain(|item| !matches!(item, Item::Literal(text) if text.is_empty()));
    }

    /// Keeps the parts that tell each moment the most exactly, and those that only add to them.
    fn choose_moments(&mut self) -> Result<(), Wrong> {
        for moment in [Moment::Begin, Moment::End] {
            let parts: Vec<(usize, &Part)> = self
                .items
                .iter()
                .filter_map(|item| match item {
                    Item::Value { at, wants, .. } => Some((*at, wants)),
                    Item::Literal(_) => None,
                })
                .flat_map(|(at, wants)| wants.iter().map(move |want| (at, want)))
                .filter_map(|(at, want)| match want {
                    Want::Moment(of, part) if *of == moment => Some((at, part)),
                    _ => None,
                })
                .collect();
            let best = parts.iter().filter_map(|(_, part)| part.exactness()).max();
            let patterns: Vec<&Part> = parts.iter().map(|(_, part)| *part).collect();
            if best == Some(1) && !is_complete(&patterns) {
                let at = parts.iter().find(|(_, part)| part.exactness() == Some(1)).map(|(at, _)| *at);
                let message = "this time lacks a part of the date or of the time of day".to_owned();
                return Err(Wrong { at, message });
            }
            let best_at = best.filter(|best| *best > 1);
            let first =
                parts.iter().find(|(_, part)| part.exactness() == best_at && best_at.is_some()).map(|(at, _)| *at);
            self.keep(moment, best, first);
        }
        Ok(())
    }

    /// Keeps of a moment what is that exact, which is the one at `first` if that is said, and fractions where it has none.
    fn keep(&mut self, moment: Moment, best: Option<u8>, first: Option<usize>) {
        for item in &mut self.items {
            let Item::Value { at, wants, .. } = item else { continue };
            wants.retain(|want| match want {
                Want::Moment(of, part) if *of == moment => match part.exactness() {
                    None if matches!(part, Part::Fraction(_)) => best.is_some_and(|best| best <= 3),
                    None => best.is_some(),
                    exactness => exactness == best && first.is_none_or(|first| *at == first),
                },
                _ => true,
            });
        }
    }

    /// Removes what does not count, and gives the columns of what does.
    fn columns(&mut self) -> Result<Vec<Column>, Wrong> {
        let known: Vec<Column> = reqin_log::columns().into_iter().chain(server_tls::columns()).collect();
        let mut chosen: Vec<(String, u8, usize, String)> = Vec::new();
        let mut took: Vec<&str> = Vec::new();
        for (number, item) in self.items.iter().enumerate() {
            let Item::Value { value, wants, at } = item else { continue };
            for want in wants {
                let Want::Column { name, rank, .. } = want else {
                    took.extend(matches!(want, Want::Took(..)).then_some(value.name.as_str()));
                    continue;
                };
                if name.is_empty() {
                    return Err(Wrong::at(*at, format!("`{}` is no name of a column", value.name)));
                }
                if [TIME, SEQ, BEGIN_TIME, REPAIRED, DURATION].contains(&name.as_ref()) {
                    return Err(Wrong::at(*at, format!("every stream of requests has its own column `{name}`")));
                }
                match chosen.iter_mut().find(|(other, ..)| other == name) {
                    Some(other) if other.1 < *rank => (other.1, other.2, other.3) = (*rank, number, value.name.clone()),
                    Some(_) => {}
                    None => chosen.push((name.to_string(), *rank, number, value.name.clone())),
                }
            }
        }
        let took = took.join(" ");
        for (number, item) in self.items.iter_mut().enumerate() {
            let Item::Value { wants, .. } = item else { continue };
            wants.retain(|want| match want {
                Want::Column { name, .. } => chosen.iter().any(|(other, _, of, _)| other == name && *of == number),
                _ => true,
            });
        }
        let has_both = self.has(Moment::Begin) && self.has(Moment::End);
        if !took.is_empty() || has_both {
            let key = if took.is_empty() { "end less begin".to_owned() } else { took };
            chosen.push((DURATION.to_owned(), 0, usize::MAX, key));
        }
        for name in CORE {
            if !chosen.iter().any(|(other, ..)| other == name) {
                chosen.push((name.to_owned(), 0, usize::MAX, "none".to_owned()));
            }
        }
        let place = |name: &str| known.iter().position(|column| column.name == name).unwrap_or(usize::MAX);
        chosen.sort_by_key(|(name, _, number, _)| (place(name), *number));
        Ok(chosen.into_iter().map(|(name, _, _, key)| of(&known, name, key)).collect())
    }

    fn has(&self, moment: Moment) -> bool {
        self.items.iter().any(|item| match item {
            Item::Value { wants, .. } => wants
                .iter()
                .any(|want| matches!(want, Want::Moment(of, part) if *of == moment && part.exactness().is_some())),
            Item::Literal(_) => false,
        })
    }

    /// The values without a column, and the cells of the two moments.
    fn extras(&self, columns: usize) -> (Vec<Extra>, [Option<usize>; 2]) {
        let mut extras = Vec::new();
        let mut moments = [None; 2];
        for (moment, role) in [(Moment::Begin, Role::Begin), (Moment::End, Role::End)] {
            let names: Vec<&str> = self
                .items
                .iter()
                .filter_map(|item| match item {
                    Item::Value { value, wants, .. } => wants
                        .iter()
                        .any(|want| matches!(want, Want::Moment(of, _) if *of == moment))
                        .then_some(value.name.as_str()),
                    Item::Literal(_) => None,
                })
                .collect();
            if self.has(moment) {
                moments[moment as usize] = Some(columns + extras.len());
                extras.push(Extra { key: Path::key(names.join(" ")), kind: Kind::Time(Unit::Ns), role });
            }
        }
        // The finest unit first: of several durations that one counts.
        for unit in [Unit::Ns, Unit::Us, Unit::Ms, Unit::S] {
            for item in &self.items {
                let Item::Value { value, wants, .. } = item else { continue };
                if wants.iter().any(|want| matches!(want, Want::Took(of, _) if *of == unit)) {
                    let key = Path::key(value.name.clone());
                    extras.push(Extra { key, kind: Kind::Duration(unit), role: Role::Duration });
                }
            }
        }
        (extras, moments)
    }

    /// Tells each value its cells.
    fn fill_slots(&mut self, columns: &[Column], extras: &[Extra]) {
        for item in &mut self.items {
            let Item::Value { value, wants, .. } = item else { continue };
            for want in wants.drain(..) {
                match want {
                    Want::Column { name, with, .. } => {
                        let slot = columns.iter().position(|column| column.name == name);
                        value.cells.extend(slot.map(|slot| (slot, with)));
                    }
                    Want::Moment(moment, part) => value.moments.push((moment, part)),
                    Want::Took(unit, with) => {
                        let key = Path::key(value.name.clone());
                        let is_own = |extra: &Extra| extra.kind == Kind::Duration(unit) && extra.key == key;
                        let slot = extras.iter().position(is_own);
                        value.cells.extend(slot.map(|slot| (columns.len() + slot, with)));
                    }
                }
            }
        }
    }
}

/// A column of this name: as other formats have it if they do.
fn of(known: &[Column], name: String, key: String) -> Column {
    let known = known.iter().find(|column| column.name == name);
    let kind = known.map(|column| column.kind).or_else(|| {
        let other = OTHERS.iter().find(|(other, _)| *other == name);
        other.map(|(_, kind)| *kind)
    });
    let kind = kind.unwrap_or(Kind::Text);
    let absent = match (kind, name.as_str(), known) {
        // Apache's `%X` is `-` for a connection that is closed, and no query is no missing one.
        (_, "connection_status", _) => Vec::new(),
        (_, "query", _) => vec!["-".to_owned()],
        (Kind::Text, _, Some(column)) if !column.absent.is_empty() => column.absent.clone(),
        (Kind::Text, ..) => ABSENT.map(str::to_owned).to_vec(),
        _ => kind.absent(),
    };
    let required = name == "src_ip";
    Column { name, key: Path::key(key), kind, absent, required }
}

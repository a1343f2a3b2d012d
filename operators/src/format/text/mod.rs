//! Lines of text: values that stand one after another, in the way that a server's format string says.
//!
//! A server's own file turns its format string into [`Wants`]: what each of its values is. From these come the columns and a
//! [`Template`], by which [`Lines`] reads a line.

mod build;
mod clock;
mod escape;
mod known;
mod template;
pub(super) mod transform;

pub use build::Wrong;
pub(super) use build::{Item, Want, Wants, column};
pub(super) use clock::Part;
pub use clock::Zone;
pub(super) use escape::Escape;
pub(super) use known::{Known, header, of, response_header};
pub(super) use template::{Moment, Shape};

use std::borrow::Cow;
use std::sync::Arc;

use super::cell::Cells;
use super::schema::Format;
use super::syntax::{Fault, Syntax, Taken};
use clock::Clock;
use template::{Template, Value};

/// How lines of a format are read.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// What a line is, for messages.
    pub expected: &'static str,
    pub template: Template,
    /// The cells of begin and end.
    pub moments: [Option<usize>; 2],
    /// The zone of times without one.
    pub zone: Zone,
}

/// Reads lines by a template.
#[derive(Debug)]
pub(super) struct Lines {
    layout: Arc<Layout>,
    found: Vec<(usize, usize)>,
}

impl Lines {
    /// For a format that has a layout; of another nothing is read.
    pub(super) fn syntax(format: &Format) -> Box<dyn Syntax> {
        let layout = format.layout.clone().unwrap_or_else(|| Arc::new(Layout::none()));
        Box::new(Self { layout, found: Vec::new() })
    }
}

impl Layout {
    /// For a format without one: no line has it.
    pub(super) fn none() -> Self {
        let template = Template { pieces: Vec::new(), is_open: false };
        Self { expected: "a line", template, moments: [None; 2], zone: Zone::default() }
    }
}

impl Syntax for Lines {
    fn expected(&self) -> &'static str {
        self.layout.expected
    }

    fn read<'l>(&mut self, line: &'l [u8], cells: &mut Cells) -> Result<Taken<'l>, Fault> {
        let Self { layout, found } = self;
        let mut line = line;
        if let Err(reason) = layout.template.find(line, found) {
            // What syslog has put before it, if that is so. A line that can be read in two ways has been read.
            let behind = without_header(line).filter(|_| reason != template::TWO_WAYS);
            line = behind.ok_or(Fault::Syntax(reason))?;
            layout.template.find(line, found).map_err(Fault::Syntax)?;
        }
        let mut filler = Filler::new(line, cells);
        for (value, (start, end)) in layout.template.values().zip(found.iter()) {
            filler.take(value, &line[*start..*end])?;
        }
        filler.finish(layout.moments, layout.zone)
    }
}

/// Puts the values of one line into cells.
pub(super) struct Filler<'f, 'l> {
    /// The line, or nothing if it is no UTF-8.
    text: &'l str,
    cells: &'f mut Cells,
    clocks: [Clock; 2],
    repaired: bool,
}

impl<'f, 'l> Filler<'f, 'l> {
    pub(super) fn new(line: &'l [u8], cells: &'f mut Cells) -> Self {
        let text = std::str::from_utf8(line).unwrap_or_default();
        Self { text, cells, clocks: Default::default(), repaired: false }
    }

    /// Takes a value as it stands in the line.
    pub(super) fn take(&mut self, value: &Value, raw: &[u8]) -> Result<(), Fault> {
        if value.cells.is_empty() && value.moments.is_empty() {
            return Ok(());
        }
        let bytes = value.escape.decode(raw);
        let text = String::from_utf8_lossy(&bytes);
        self.repaired |= matches!(text, Cow::Owned(_));
        for (slot, transform) in &value.cells {
            let Some(made) = transform(&text) else { continue };
            let at = self.place(&made);
            self.cells.at(*slot).text(&made, at)?;
        }
        for (moment, part) in &value.moments {
            let text = text.trim_ascii();
            if !matches!(text, "-" | "") && !self.clocks[*moment as usize].take(part, text) {
                return Err(Fault::Syntax(format!("`{}` is no time: `{}`", value.name, shown(text))));
            }
        }
        Ok(())
    }

    /// Where in the line a text stands, if it is a part of it.
    fn place(&self, text: &str) -> Option<usize> {
        let at = (text.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        (self.text.get(at..at.checked_add(text.len())?) == Some(text)).then_some(at)
    }

    /// Puts the moments into their cells; what the line was.
    pub(super) fn finish(self, moments: [Option<usize>; 2], zone: Zone) -> Result<Taken<'l>, Fault> {
        for (clock, slot) in self.clocks.iter().zip(moments) {
            if clock.is_empty() {
                continue;
            }
            let Some(ns) = clock.moment(zone) else {
                return Err(Fault::Syntax("its time is none, or before 1970 or after 2262".to_owned()));
            };
            if let Some(slot) = slot {
                self.cells.at(slot).set(super::cell::Cell::Signed(ns))?;
            }
        }
        Ok(Taken { text: self.text, repaired: self.repaired })
    }
}

/// A value for a message.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// The line behind what a syslog daemon puts before it in a file: `Nov 23 15:35:27 host nginx: `, or
/// `2026-11-23T15:35:27.123+00:00 host haproxy[12]: ` as rsyslog writes it. `None` if it does not begin so: a time, a host and a
/// tag, each one word. A client must not be able to have its line begin so.
fn without_header(line: &[u8]) -> Option<&[u8]> {
    const LONGEST: usize = 400;
    let head = &line[..line.len().min(LONGEST)];
    let like = |at: &[u8], form: &[u8]| {
        at.len() >= form.len()
            && at.iter().zip(form).all(|(byte, form)| match form {
                b'A' => byte.is_ascii_uppercase(),
                b'a' => byte.is_ascii_lowercase(),
                b'0' => byte.is_ascii_digit() || *byte == b' ',
                other => byte == other,
            })
    };
    let behind_time = if like(head, b"Aaa 00 00:00:00 ") {
        16
    } else if like(head, b"0000-00-00T00:00:00") {
        memchr::memchr(b' ', head)? + 1
    } else {
        return None;
    };
    let mut words = head[behind_time..].splitn(3, |byte| *byte == b' ');
    let (host, tag) = (words.next()?, words.next()?);
    words.next()?;
    let is_tag = tag.len() > 1 && tag.ends_with(b":") && tag.first().is_some_and(u8::is_ascii_alphanumeric);
    (!host.is_empty() && is_tag).then(|| &line[behind_time + host.len() + tag.len() + 2..])
}

#[cfg(test)]
pub(super) mod tests;

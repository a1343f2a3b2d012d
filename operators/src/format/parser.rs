//! Lines to rows: what a format's syntax finds in a line, judged as a whole.

use std::sync::Arc;
use std::time::Duration;

use engine::contract::MAX_FUTURE;

use super::cell::{Cell, Cells, Mismatch};
use super::ends;
use super::moments::{Moments, moments};
use super::request;
use super::rows::Row;
use super::schema::Format;
use super::syntax::{Fault, Syntax, Taken};
use super::syslog;

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The line does not have the format's syntax.
    #[error("not {expected}: {reason}")]
    Syntax {
        /// What the format's lines are.
        expected: &'static str,
        /// What was found wrong.
        reason: String,
    },
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
    /// The line says something of those after it: it is no row, and nothing is wrong with it.
    #[error("a directive")]
    Directive,
}

/// Reads lines of one format.
#[derive(Debug)]
pub struct LineParser {
    format: Arc<Format>,
    syntax: Box<dyn Syntax>,
    cells: Cells,
    latest: i64,
    /// How far ahead of the wall clock that is.
    ahead: Duration,
}

impl LineParser {
    /// A parser that refuses event times more than [`MAX_FUTURE`] after `now_ns`.
    pub fn new(format: Arc<Format>, now_ns: i64) -> Self {
        let (syntax, cells) = ((format.syntax)(&format), Cells::new(&format));
        let mut parser = Self { format, syntax, cells, latest: 0, ahead: MAX_FUTURE };
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
        self.latest = now_ns.saturating_add(engine::contract::nanos(self.ahead));
    }

    /// The format.
    pub fn format(&self) -> &Arc<Format> {
        &self.format
    }

    /// Whether a line is no row because it says something of those after it.
    pub fn is_directive(&self, line: &[u8]) -> bool {
        self.syntax.is_directive(line)
    }

    /// The lines that come next are of the file with this number among those of the source.
    pub fn turn_to(&mut self, file: usize) {
        self.syntax.turn_to(file);
    }

    /// A file begins, or goes on with what its directives said, which `memory` is.
    pub fn begin(&mut self, file: usize, memory: Option<&str>) {
        self.syntax.begin(file, memory);
    }

    /// What the directives of a file have said, for the next run to go on with.
    pub fn memory(&self, file: usize) -> Option<String> {
        self.syntax.memory(file)
    }

    /// Reads one line without its line end.
    ///
    /// # Errors
    /// If the line is not understood; the parser can go on with the next one.
    pub fn parse<'p>(&'p mut self, line: &'p [u8]) -> Result<Row<'p>, Reject> {
        self.cells.clear();
        let (header, behind) = syslog::split(line);
        // A JSON object is looked for behind whatever stands there.
        let is_found = self.syntax.finds_its_text() && !behind.trim_ascii_start().starts_with(b"{");
        let line = if is_found { line } else { behind };
        let Taken { text, repaired } = match self.syntax.read(line, &mut self.cells) {
            Ok(taken) => taken,
            Err(fault) => return Err(self.reject(fault)),
        };
        ends::fill(&self.format, &mut self.cells, text);
        request::fill(&self.format, &mut self.cells, text);
        let Moments { begin, end } = moments(&self.format, &mut self.cells.values)?;
        if end > self.latest {
            return Err(Reject::Future { time: end, limit: self.ahead.as_secs() });
        }
        let cells = &self.cells.values[..self.format.columns.len()];
        let missing = self.format.columns.iter().zip(cells).find(|(c, cell)| c.required && **cell == Cell::Missing);
        if let Some((column, _)) = missing {
            return Err(Reject::Missing(column.key.to_string()));
        }
        Ok(Row { time: end, begin, repaired, header, line: text, scratch: &self.cells.beside.scratch, cells })
    }

    /// Why a line is refused, in words.
    #[cold]
    fn reject(&mut self, fault: Fault) -> Reject {
        if matches!(fault, Fault::Directive) {
            return Reject::Directive;
        }
        let reason = match (fault, self.cells.beside.mismatch.take()) {
            (Fault::Refused, Some(Mismatch { slot, found })) => {
                let key = self.format.paths().nth(slot).map(ToString::to_string).unwrap_or_default();
                return Reject::Mismatch { key, expected: self.cells.expected(slot), found };
            }
            (Fault::Refused | Fault::Directive, _) => "a value is not understood".to_owned(),
            (Fault::Syntax(reason), _) => reason,
        };
        Reject::Syntax { expected: self.syntax.expected(), reason }
    }
}

//! Text to rows: JSON lines by a format, which says what keys a line has and what columns they become.
//!
//! A [`Format`] is built when the pipeline is loaded; [`LineParser`] reads lines by it, and [`Rows`] collects them as
//! Arrow columns. A line that is not quite JSON is repaired (`tolerant`); one that is not understood becomes a [`Reject`]
//! with its reason.

mod cell;
mod columns;
mod json;
mod keys;
mod moments;
mod options;
mod path;
mod request;
mod rows;
mod schema;
mod time;
mod tolerant;
mod value;

#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod repair_tests;

pub use columns::Columns;
pub use json::{LineParser, Reject};
pub use options::{Choice, FormatName, TimeIs, Took, choose};
pub use path::Path;
pub use rows::{Rejects, Row, Rows};
pub use schema::{Column, DurationColumn, Extra, Format, Kind, REPAIRED, Role, hello_schema};
pub use time::Unit;

/// When a request began, for formats that know how long it took; its event time is then its end.
pub const BEGIN_TIME: &str = "begin_time";

/// The longest line that is read if nothing else is said, in bytes.
pub const MAX_LINE: usize = 1 << 20;

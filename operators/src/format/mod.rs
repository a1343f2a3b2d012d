//! Text to rows: JSON lines by a format, which says what keys a line has and what columns they become.
//!
//! A [`Format`] is built when the pipeline is loaded; [`LineParser`] reads lines by it, and [`Rows`] collects them as
//! Arrow columns. A line that is not quite JSON is repaired (`tolerant`); one that is not understood becomes a [`Reject`]
//! with its reason.

mod cell;
mod columns;
mod json;
mod keys;
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
pub use options::{FormatName, choose};
pub use path::Path;
pub use rows::{Rejects, Row, Rows};
pub use schema::{Column, Format, Kind, REPAIRED, hello_schema};
pub use time::Unit;

/// The longest line that is read if nothing else is said, in bytes.
pub const MAX_LINE: usize = 1 << 20;

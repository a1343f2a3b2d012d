//! Text to rows: JSON lines by a format, which says what keys a line has and what columns they become.
//!
//! A [`Format`] is built when the pipeline is loaded; [`LineParser`] reads lines by it, and [`Rows`] collects them as
//! Arrow columns. A line that is not understood becomes a [`Reject`] with its reason.

mod columns;
mod json;
mod options;
mod request;
mod rows;
mod schema;
mod time;
mod value;

#[cfg(test)]
mod json_tests;

pub use columns::Columns;
pub use json::{LineParser, Reject};
pub use options::{FormatName, choose};
pub use rows::{Rejects, Row, Rows};
pub use schema::{Column, Format, Kind, hello_schema};
pub use time::{LATEST_NS, parse as parse_time};

/// The longest line that is read if nothing else is said, in bytes.
pub const MAX_LINE: usize = 1 << 20;

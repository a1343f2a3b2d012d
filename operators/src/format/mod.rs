//! Text to rows: lines by a format, which says what values a line has and what columns they become.
//!
//! A [`Format`] is built when the pipeline is loaded; [`LineParser`] reads lines by it, and [`Rows`] collects them as
//! Arrow columns. A line that is not quite JSON is repaired (`json::tolerant`); one that is not understood becomes a
//! [`Reject`] with its reason.
//!
//! Each format that is built in is a file of its own; [`FormatName`] lists them. `syntax` says what a format is.

mod apache;
mod aws_alb;
mod caddy;
mod cell;
mod cloudflare;
mod columns;
mod ends;
mod envoy_json;
mod envoy_text;
mod haproxy;
mod ja4sentinel;
mod json;
mod moments;
mod nginx;
mod options;
mod parser;
mod path;
mod reqin_log;
mod request;
mod rows;
mod schema;
mod server_json;
pub mod server_tls;
mod strings;
mod syntax;
mod syslog;
mod text;
mod time;
mod traefik;
mod w3c;

pub use columns::Columns;
pub use haproxy::Captures;
pub use ja4sentinel::hello_schema;
pub use nginx::NginxEscape;
pub use options::{BuiltIn, FormatName, LineOptions, TimeIs, Took};
pub use parser::{LineParser, Reject};
pub use path::Path;
pub use rows::{Rejects, Row, Rows};
pub use schema::{Column, DurationColumn, Extra, Format, Kind, REPAIRED, Role};
pub(crate) use strings::names_of;
pub use text::{Wrong, Zone};
pub use time::Unit;
pub use w3c::W3cUnit;

/// When a request began, for formats that know how long it took; its event time is then its end.
pub const BEGIN_TIME: &str = "begin_time";

/// The longest line that is read if nothing else is said, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// How many rejected lines of a source leave in a second.
pub const MAX_REJECTED: u32 = 1_000;

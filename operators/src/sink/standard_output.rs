//! Standard output as a place for rows.

use std::io::{self, IsTerminal, Write};

use engine::text::ReadableJson;

/// Writes whole lines of JSON. On a terminal what it could obey is escaped, as rows have what clients have sent; files and
/// programs get them as they are.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(lines: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.is_terminal() {
        true => ReadableJson::new(out).write_all(lines),
        false => out.write_all(lines),
    }
}

//! A writer that makes JSON readable on its way.

use std::io::{self, Write};

use super::json;

/// Passes JSON text on with [`json`](super::json) applied, however it is cut. What is no UTF-8 becomes U+FFFD.
#[derive(Debug)]
pub struct ReadableJson<W: Write> {
    to: W,
    /// The beginning of a character whose end has not come.
    begun: Vec<u8>,
}

impl<W: Write> ReadableJson<W> {
    /// Before another writer.
    pub fn new(to: W) -> Self {
        Self { to, begun: Vec::new() }
    }
}

impl<W: Write> Write for ReadableJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let (valid, end) = match std::str::from_utf8(rest) {
                Ok(text) => (text, None),
                Err(fault) => {
                    let valid = std::str::from_utf8(&rest[..fault.valid_up_to()]).unwrap_or_default();
                    (valid, Some(fault.error_len()))
                }
            };
            self.to.write_all(json(valid).as_bytes())?;
            rest = &rest[valid.len()..];
            match end {
                None => {}
                Some(Some(wrong)) => {
                    self.to.write_all("\u{fffd}".as_bytes())?;
                    rest = &rest[wrong..];
                }
                Some(None) => {
                    self.begun = rest.to_vec();
                    break;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

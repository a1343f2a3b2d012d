//! Hellos as lines: JSON, CSV (RFC 4180) or a table.

use std::io::{self, Write};

use clap::ValueEnum;
use engine::text::{cell, csv_field};

use super::fields::{Field, Line, Value};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

/// The most characters of a value in a table; a hello can have names of 64 kB.
const WIDEST: usize = 1000;

/// Format of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One object a line.
    #[default]
    Json,
    /// Aligned columns for people.
    Table,
    /// With a header line.
    Csv,
}

/// Writes hellos.
pub(super) struct Output<W: Write> {
    format: Format,
    fields: Vec<Field>,
    /// Width of each column of a table.
    widths: Vec<usize>,
    buffer: Vec<u8>,
    to: W,
}

impl<W: Write> Output<W> {
    pub(super) fn new(format: Format, fields: Vec<Field>, to: W) -> Self {
        let widths = fields.iter().map(|field| width(*field)).collect();
        let mut output = Self { format, fields, widths, buffer: Vec::with_capacity(BUFFER + 8192), to };
        output.header();
        output
    }

    /// Adds a hello.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub(super) fn hello(&mut self, hello: &Line<'_>) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(hello),
            Format::Csv => self.csv(hello),
            Format::Table => self.table(hello),
        }
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        self.to.flush()
    }

    fn header(&mut self) {
        let names: Vec<&str> = self.fields.iter().map(|field| field.name()).collect();
        match self.format {
            Format::Json => {}
            Format::Csv => self.buffer.extend_from_slice(format!("{}\r\n", names.join(",")).as_bytes()),
            Format::Table => {
                let cells: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
                self.line(&cells);
            }
        }
    }

    fn json(&mut self, hello: &Line<'_>) {
        let out = &mut self.buffer;
        let mut before = b'{';
        for field in &self.fields {
            out.push(before);
            before = b',';
            out.push(b'"');
            out.extend_from_slice(field.name().as_bytes());
            out.extend_from_slice(b"\":");
            match field.of(hello) {
                Value::Null => out.extend_from_slice(b"null"),
                Value::Text(text) => string(out, text),
                Value::Made(text) => string(out, &text),
                Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
                Value::Float(number) => out.extend_from_slice(ryu::Buffer::new().format(number).as_bytes()),
                Value::Bool(true) => out.extend_from_slice(b"true"),
                Value::Bool(false) => out.extend_from_slice(b"false"),
            }
        }
        out.extend_from_slice(b"}\n");
    }

    fn csv(&mut self, hello: &Line<'_>) {
        for (at, field) in self.fields.iter().enumerate() {
            if at > 0 {
                self.buffer.push(b',');
            }
            // Often opened in a spreadsheet, or looked at in a terminal.
            self.buffer.extend_from_slice(csv_field(&plain(field.of(hello))).as_bytes());
        }
        self.buffer.extend_from_slice(b"\r\n");
    }

    fn table(&mut self, hello: &Line<'_>) {
        let shown = |field: &Field| match field.of(hello) {
            Value::Null => "-".to_owned(),
            value => cell(&plain(value), WIDEST).into_owned(),
        };
        let cells: Vec<String> = self.fields.iter().map(shown).collect();
        self.line(&cells);
    }

    fn line(&mut self, cells: &[String]) {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&self.widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        self.buffer.extend_from_slice(line.trim_end().as_bytes());
        self.buffer.push(b'\n');
    }
}

/// A column's width; longer values push the rest of their line.
fn width(field: Field) -> usize {
    let content = match field {
        Field::SrcIp | Field::DstIp => 22,
        Field::Ja4 | Field::Ja4O => 36,
        Field::Ja3Hash => 32,
        Field::ConnId => 16,
        Field::Timestamp => 19,
        _ => 0,
    };
    content.max(field.name().len())
}

/// A value as text; nothing for what is not there.
fn plain(value: Value<'_>) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => text.to_owned(),
        Value::Made(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
    }
}

/// A JSON string (RFC 8259 section 7), with what could mislead a terminal escaped.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        for unit in text.chars() {
            match unit {
                '"' | '\\' => out.extend_from_slice(&[b'\\', unit as u8]),
                ' '..='~' => out.push(unit as u8),
                _ => {
                    for code in unit.encode_utf16(&mut [0; 2]) {
                        out.extend_from_slice(format!("\\u{code:04x}").as_bytes());
                    }
                }
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_ascii() {
        let mut out = Vec::new();
        string(&mut out, "a\"\\\u{1b}\u{202e}é😀");
        assert_eq!(String::from_utf8_lossy(&out), r#""a\"\\\u001b\u202e\u00e9\ud83d\ude00""#);
        assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), "a\"\\\u{1b}\u{202e}é😀");
    }
}

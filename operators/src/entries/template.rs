//! Texts with placeholders: `{column}`, `{column:%}`, `{column:.2}`; `{{` and `}}` are braces.

use std::io::Write;

use arrow::datatypes::Schema;
use engine::text::is_hidden;

use crate::value::{Format, Value, Values, has_text};

/// A text that is filled in for each row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    /// Index of the column, and how it is shown.
    Column(usize, Shown),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Plain,
    /// A share of one as a whole percentage.
    Percent,
    /// This many decimals.
    Decimals(usize),
}

/// What is wrong with a template.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// No such column.
    Unknown(String),
    /// Anything else, with the part of the text that is wrong.
    Other { message: String, part: Option<String> },
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self, Fault> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let doubled = chars.peek().is_some_and(|(_, next)| *next == c);
            match c {
                '{' | '}' if doubled => {
                    chars.next();
                    plain.push(c);
                }
                '{' => {
                    let rest = &text[at + 1..];
                    let end = rest
                        .find('}')
                        .ok_or_else(|| Fault::other("a placeholder has no `}`: write `{{` for a brace", None))?;
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(placeholder(&rest[..end], schema)?);
                    while chars.next_if(|(next, _)| *next <= at + 1 + end).is_some() {}
                }
                '}' => return Err(Fault::other("`}` without `{`: write `}}` for a brace", None)),
                c => plain.push(c),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// Appends the text for a row; `columns` are the values of every column. What is not there reads `null`.
    pub fn write(&self, out: &mut Vec<u8>, format: &mut Format, columns: &[Option<Values<'_>>], row: usize) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Column(at, shown) => {
                    let value = columns.get(*at).and_then(Option::as_ref).and_then(|values| values.at(row));
                    match value {
                        Some(value) => show(out, format, &value, *shown),
                        None => out.extend_from_slice(b"null"),
                    }
                }
            }
        }
    }
}

impl Fault {
    fn other(message: impl Into<String>, part: Option<&str>) -> Self {
        Self::Other { message: message.into(), part: part.map(str::to_owned) }
    }
}

fn placeholder(text: &str, schema: &Schema) -> Result<Part, Fault> {
    let (name, spec) = text.split_once(':').map_or((text, None), |(name, spec)| (name, Some(spec)));
    let at = schema.index_of(name).map_err(|_| Fault::Unknown(name.to_owned()))?;
    let data_type = schema.field(at).data_type();
    let shown = match spec {
        None => Shown::Plain,
        Some("%") => Shown::Percent,
        Some(spec) => {
            let decimals = spec.strip_prefix('.').and_then(|digits| digits.parse().ok()).filter(|n| *n <= 17);
            Shown::Decimals(decimals.ok_or_else(|| {
                Fault::other(format!("`:{spec}` is not a format: `:%` is a percentage, `:.2` two decimals"), Some(spec))
            })?)
        }
    };
    if !has_text(data_type) {
        return Err(Fault::other(format!("`{name}` is {data_type}, which has no text"), Some(name)));
    }
    if shown != Shown::Plain && !data_type.is_numeric() {
        return Err(Fault::other(
            format!("`{name}` is {data_type}; only a number can be shown in this way"),
            Some(name),
        ));
    }
    Ok(Part::Column(at, shown))
}

fn show(out: &mut Vec<u8>, format: &mut Format, value: &Value<'_>, shown: Shown) {
    let number = match *value {
        Value::Signed(v) => v as f64,
        Value::Unsigned(v) => v as f64,
        Value::Float(v) => v,
        Value::Float32(v) => f64::from(v),
        _ => f64::NAN,
    };
    // Writing to memory does not fail.
    let _ = match (shown, value) {
        (Shown::Percent, _) => write!(out, "{:.0}%", number * 100.0),
        (Shown::Decimals(n), _) => write!(out, "{number:.n$}"),
        (Shown::Plain, Value::Text(text)) => {
            visible(out, text);
            Ok(())
        }
        (Shown::Plain, Value::Bool(v)) => write!(out, "{v}"),
        (Shown::Plain, Value::Signed(v)) => write!(out, "{v}"),
        (Shown::Plain, Value::Unsigned(v)) => write!(out, "{v}"),
        (Shown::Plain, Value::Float(v)) => write!(out, "{v}"),
        (Shown::Plain, Value::Float32(v)) => write!(out, "{v}"),
        (Shown::Plain, Value::Date(day)) => {
            format.date(out, i64::from(*day));
            Ok(())
        }
        (Shown::Plain, Value::Time(ns)) => {
            format.time(out, *ns);
            Ok(())
        }
    };
}

/// Appends text from the network. What does not show as itself, or changes how the text around it shows, is escaped.
/// Text that has been through it stays as it is.
pub(crate) fn visible(out: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        if is_hidden(c) {
            out.extend(c.escape_unicode().map(|c| c as u8));
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};

    use super::*;

    fn rows() -> RecordBatch {
        let columns: [(&str, ArrayRef); 4] = [
            ("host", Arc::new(StringArray::from(vec![Some("a\n\u{202e}b\u{1b}[0mé"), None]))),
            ("share", Arc::new(Float64Array::from(vec![0.876, f64::NAN]))),
            ("hits", Arc::new(UInt64Array::from(vec![u64::MAX, 7]))),
            ("time", engine::batch::time_array(vec![0, 1])),
        ];
        RecordBatch::try_from_iter(columns).expect("valid")
    }

    fn filled(text: &str, row: usize) -> String {
        let rows = rows();
        let template = Template::parse(text, &rows.schema()).expect("valid");
        let columns: Vec<_> = rows.columns().iter().map(Values::new).collect();
        let mut out = Vec::new();
        template.write(&mut out, &mut Format::default(), &columns, row);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(
            filled("{hits} hits, {share:%} or {share:.2} or {share}", 0),
            "18446744073709551615 hits, 88% or 0.88 or 0.876"
        );
        assert_eq!(filled("{{{hits}}} {{x}}", 1), "{7} {x}");
        assert_eq!(filled("{host} {share:%} {hits:.1} {time}", 1), "null NaN% 7.0 1970-01-01T00:00:00.000000001Z");
        assert_eq!(filled("é{hits}é", 1), "é7é");
    }

    #[test]
    fn text_from_the_network_is_made_visible() {
        assert_eq!(filled("{host}", 0), "a\\u{a}\\u{202e}b\\u{1b}[0mé");
    }

    #[test]
    fn faults_name_the_part() {
        let fault = |text| Template::parse(text, &rows().schema()).expect_err("a fault");
        assert_eq!(fault("{hots}"), Fault::Unknown("hots".to_owned()));
        assert!(matches!(fault("{host:%}"), Fault::Other { part: Some(part), .. } if part == "host"));
        assert!(matches!(fault("{share:x}"), Fault::Other { part: Some(part), .. } if part == "x"));
        assert!(matches!(fault("{share"), Fault::Other { .. }));
        assert!(matches!(fault("share}"), Fault::Other { .. }));
    }
}

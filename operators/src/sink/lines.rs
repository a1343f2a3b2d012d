//! Rows as JSON lines (RFC 8259), written from Arrow arrays without a value tree in between.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::value::{Format, Value, Values};

/// Writes rows of one schema; holds what all rows share.
#[derive(Clone)]
pub(super) struct Lines {
    /// Index of each column and the text in front of its value: `"key":`.
    columns: Vec<(usize, Box<[u8]>)>,
    changes: bool,
}

impl Lines {
    /// The columns with these indices in this order, behind `diff` if changes are written.
    pub fn new(schema: &Schema, columns: &[usize], changes: bool) -> Self {
        let key = |at: usize| {
            let mut key = Vec::new();
            string(&mut key, schema.field(at).name());
            key.push(b':');
            (at, key.into_boxed_slice())
        };
        Self { columns: columns.iter().map(|at| key(*at)).collect(), changes }
    }

    /// Appends one line for each row. Nulls are left out, and with them numbers and times that JSON has no text for.
    pub fn write(&self, out: &mut Vec<u8>, rows: &RecordBatch, diff: i8) {
        let head = if self.changes { head(diff) } else { b"{" };
        self.each(out, rows, |out| out.extend_from_slice(head), |_| {});
    }

    /// What stands behind `diff` in the lines of these rows, one text for each: see [`head`].
    pub fn tails(&self, rows: &RecordBatch) -> Vec<Vec<u8>> {
        let mut tails = Vec::with_capacity(rows.num_rows());
        self.each(&mut Vec::new(), rows, |_| {}, |out| tails.push(std::mem::take(out)));
        tails
    }

    fn each(
        &self,
        out: &mut Vec<u8>,
        rows: &RecordBatch,
        begin: impl Fn(&mut Vec<u8>),
        mut end: impl FnMut(&mut Vec<u8>),
    ) {
        let typed = self.columns.iter().filter_map(|(at, key)| Some((key, Values::new(rows.column(*at))?)));
        let columns: Vec<(&Box<[u8]>, Values<'_>)> = typed.collect();
        let mut format = Format::default();
        for row in 0..rows.num_rows() {
            begin(out);
            for (key, values) in &columns {
                let Some(value) = values.at(row) else { continue };
                let before = out.len();
                out.extend_from_slice(key);
                if json(out, &mut format, &value) {
                    out.push(b',');
                } else {
                    out.truncate(before);
                }
            }
            if out.last() == Some(&b',') {
                out.pop();
            }
            out.extend_from_slice(b"}\n");
            end(out);
        }
    }
}

/// The beginning of a line of a change.
pub(super) fn head(diff: i8) -> &'static [u8] {
    if diff < 0 { b"{\"diff\":-1," } else { b"{\"diff\":1," }
}

/// Appends a value; whether JSON has a text for it.
fn json(out: &mut Vec<u8>, format: &mut Format, value: &Value<'_>) -> bool {
    match *value {
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Signed(v) => format.signed(out, v),
        Value::Unsigned(v) => format.unsigned(out, v),
        Value::Float(v) if v.is_finite() => format.float(out, v),
        Value::Float32(v) if v.is_finite() => format.float32(out, v),
        Value::Float(_) | Value::Float32(_) => return false,
        Value::Text(v) => string(out, v),
        Value::Date(day) => return quoted(out, |out| format.date(out, i64::from(day))),
        Value::Time(ns) => return quoted(out, |out| format.time(out, ns)),
    }
    true
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    out.push(b'"');
    let written = write(out);
    out.push(b'"');
    written
}

/// Appends a JSON string. Only what RFC 8259 section 7 requires is escaped; most text has nothing to escape, and is
/// copied in one piece.
fn string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut start = 0;
    while let Some(found) = to_escape(&bytes[start..]) {
        let at = start + found;
        out.extend_from_slice(&bytes[start..at]);
        escape(out, bytes[at]);
        start = at + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// The first byte that must be escaped.
fn to_escape(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // A byte's high bit is set if the byte is zero; bytes above it may be set wrongly, so it only says whether to look.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let v = u64::from_le_bytes(*word);
        let control = v.wrapping_sub(ONES * 0x20) & !v & HIGH;
        if control | zero(v ^ (ONES * u64::from(b'"'))) | zero(v ^ (ONES * u64::from(b'\\'))) != 0
            && let Some(at) = word.iter().position(|b| must_escape(*b))
        {
            return Some(index * 8 + at);
        }
    }
    rest.iter().position(|b| must_escape(*b)).map(|at| words.len() * 8 + at)
}

fn must_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            let hex = |nibble: u8| HEX[usize::from(nibble & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray, UInt64Array};
    use arrow::datatypes::{DataType, Field};
    use engine::batch::{stream_schema, time_array};
    use proptest::prelude::*;

    use super::*;

    fn lines(rows: &RecordBatch, changes: bool, diff: i8) -> String {
        let all: Vec<usize> = (0..rows.num_columns()).collect();
        let mut out = Vec::new();
        Lines::new(&rows.schema(), &all, changes).write(&mut out, rows, diff);
        String::from_utf8(out).expect("UTF-8")
    }

    fn one(name: &str, column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([(name, column)]).expect("valid")
    }

    #[test]
    fn columns_stand_in_order_and_nulls_are_left_out() {
        let fields = [("host", DataType::Utf8), ("share", DataType::Float64), ("ok", DataType::Boolean)];
        let schema = stream_schema(fields.map(|(name, data_type)| Field::new(name, data_type, true)));
        let columns: Vec<ArrayRef> = vec![
            time_array(vec![1_795_446_000_123_456_789, 0]),
            Arc::new(UInt64Array::from(vec![u64::MAX, 0])),
            Arc::new(StringArray::from(vec![Some("a\"b"), None])),
            Arc::new(Float64Array::from(vec![0.1, f64::NAN])),
            Arc::new(BooleanArray::from(vec![None, Some(true)])),
        ];
        let rows = RecordBatch::try_new(schema, columns).expect("valid");
        let expected = "{\"time\":\"2026-11-23T15:00:00.123456789Z\",\"seq\":18446744073709551615,\"host\":\"a\\\"b\",\"share\":0.1}\n\
            {\"time\":\"1970-01-01T00:00:00.000000000Z\",\"seq\":0,\"ok\":true}\n";
        assert_eq!(lines(&rows, false, 1), expected);
        assert!(lines(&rows, true, -1).starts_with("{\"diff\":-1,\"time\""));
    }

    #[test]
    fn a_row_of_nulls_is_an_empty_object() {
        let rows = one("a", Arc::new(StringArray::from(vec![None::<&str>])));
        assert_eq!((lines(&rows, false, 1).as_str(), lines(&rows, true, 1).as_str()), ("{}\n", "{\"diff\":1}\n"));
    }

    #[test]
    fn every_byte_is_escaped_as_serde_json_does() {
        // Each place in a word of eight bytes, beside bytes that borrow.
        for byte in 0..=0x7fu8 {
            for at in 0..20 {
                let mut text = vec![b'!'; 20];
                text[at] = byte;
                let text = String::from_utf8(text).expect("ASCII");
                let mut out = Vec::new();
                string(&mut out, &text);
                assert_eq!(String::from_utf8_lossy(&out), serde_json::to_string(&text).expect("encodes"));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(5), ..ProptestConfig::default() })]

        #[test]
        fn text_and_keys_are_as_serde_json_writes_them(key in "\\PC*|[\\x00-\\x40]*", text in "(\\PC|[\\x00-\\x40\\\\\"\u{202e}\u{7f}])*") {
            let rows = one(&key, Arc::new(StringArray::from(vec![text.as_str()])));
            prop_assert_eq!(lines(&rows, false, 1), format!("{}\n", serde_json::json!({ key: text })));
        }

        #[test]
        fn numbers_read_back_as_the_same(double in any::<f64>(), single in any::<f32>(), whole in any::<i64>()) {
            // Not read by serde_json, whose own numbers are a unit in the last place off.
            let number = |column: ArrayRef| {
                let line = lines(&one("n", column), false, 1);
                line.strip_prefix("{\"n\":").and_then(|rest| rest.strip_suffix("}\n")).map(str::to_owned)
            };
            let back = number(Arc::new(Float64Array::from(vec![double]))).and_then(|text| text.parse::<f64>().ok());
            prop_assert_eq!(back.map(f64::to_bits), double.is_finite().then_some(double.to_bits()));
            let back = number(Arc::new(Float32Array::from(vec![single]))).and_then(|text| text.parse::<f32>().ok());
            prop_assert_eq!(back.map(f32::to_bits), single.is_finite().then_some(single.to_bits()));
            prop_assert_eq!(number(Arc::new(Int64Array::from(vec![whole]))), Some(whole.to_string()));
        }
    }
}

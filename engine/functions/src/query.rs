//! Functions of URLs as clients send them.
//!
//! A query is read as browsers write forms, and as Go's `net/url` does: parts between `&`, each a name and, behind the first
//! `=`, a value; `+` is a space and `%41` a byte. A part with `;`, one that is empty, and one with a `%` that begins no byte is left out.
//! Bytes that are no UTF-8 become U+FFFD.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// How each is called, and what it gives.
pub(crate) const REFERENCE: [(&str, &str); 3] = [
    (
        "query_value(query, 'page')",
        "the value of this name in a URL's query, decoded; several with commas between them; null if the query does not have the name",
    ),
    ("query_size(query)", "how many different names a URL's query has"),
    ("url_decode(path)", "the text with `%41` and the like decoded; a `%` that begins no byte stays"),
];

/// The functions.
pub(crate) fn all() -> Vec<ScalarUDF> {
    [Call::Value, Call::Size, Call::Decode]
        .into_iter()
        .map(|call| {
            let signature = Signature::exact(vec![DataType::Utf8; call.arguments()], Volatility::Immutable);
            ScalarUDF::new_from_impl(Function { call, signature })
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    Value,
    Size,
    Decode,
}

impl Call {
    fn arguments(self) -> usize {
        if self == Self::Value { 2 } else { 1 }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    call: Call,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.call {
            Call::Value => "query_value",
            Call::Size => "query_size",
            Call::Decode => "url_decode",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.call == Call::Size { DataType::Int64 } else { DataType::Utf8 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arguments = args.args.iter().map(|text| text.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let texts: Vec<&StringArray> = arguments.iter().filter_map(|array| array.as_string_opt::<i32>()).collect();
        let result: ArrayRef = match (self.call, texts.as_slice()) {
            (Call::Value, [queries, names]) => {
                let values = queries.iter().zip(names.iter()).map(|(query, name)| value(query?, name?));
                Arc::new(values.collect::<StringArray>())
            }
            (Call::Size, [queries]) => {
                let sizes = queries
                    .iter()
                    .map(|query| Some(parts(query?).map(|(name, _)| name).collect::<HashSet<_>>().len() as i64));
                Arc::new(sizes.collect::<Int64Array>())
            }
            (Call::Decode, [texts]) => Arc::new(texts.iter().map(|text| Some(lenient(text?))).collect::<StringArray>()),
            _ => return exec_err!("{} is called with {} texts", self.name(), self.call.arguments()),
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// The values of a name, with commas between them.
fn value(query: &str, name: &str) -> Option<String> {
    let mut values = parts(query).filter(|(known, _)| known == name).map(|(_, value)| value);
    let mut joined = values.next()?.into_owned();
    for value in values {
        joined.push(',');
        joined.push_str(&value);
    }
    Some(joined)
}

/// Names and values, decoded.
fn parts(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|part| !part.is_empty() && !part.contains(';')).filter_map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Some((decoded(name)?, decoded(value)?))
    })
}

/// A name or value of a query; `None` if a `%` begins no byte.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'%' => {
                bytes.push(byte_at(text, at)?);
                at += 2;
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
        at += 1;
    }
    Some(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A path: a plus sign is one, and what is no byte stays.
fn lenient(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        match byte_at(text, at).filter(|_| *byte == b'%') {
            Some(byte) => {
                bytes.push(byte);
                at += 2;
            }
            None => bytes.push(*byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// The byte whose `%` stands at a place.
fn byte_at(text: &str, at: usize) -> Option<u8> {
    let digit = |at: usize| text.as_bytes().get(at).and_then(|digit| char::from(*digit).to_digit(16));
    Some((digit(at + 1)? * 16 + digit(at + 2)?) as u8)
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::testing;

    /// What an expression gives for one query, as text.
    fn of(sql: &str, query: Option<&str>) -> String {
        let schema = Schema::new(vec![Field::new("q", DataType::Utf8, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(vec![query]))]);
        testing::value(sql, &rows.expect("valid")).expect("valid")
    }

    #[test]
    fn a_query_is_read_as_in_go() {
        for (query, value, size) in [
            ("a=1", "1", "1"),
            ("b=2&a=1&a=3", "1,3", "2"),
            ("a", "", "1"),
            ("a=", "", "1"),
            ("a==&&x", "=", "2"),
            ("%61=x+y%21", "x y!", "1"),
            ("a=%zz&b=1", "null", "1"),
            ("a=1;b=2&c", "null", "1"),
            ("a=1%", "null", "0"),
            ("A=1", "null", "1"),
            ("a=%ff", "\u{fffd}", "1"),
            ("a=%c3%A9&b=\u{e9}", "\u{e9}", "2"),
            ("=1", "null", "1"),
            ("", "null", "0"),
        ] {
            assert_eq!(of("query_value(q, 'a')", Some(query)), value, "{query}");
            assert_eq!(of("query_size(q)", Some(query)), size, "{query}");
        }
        assert_eq!(of("query_value(q, q)", Some("a=1")), "null");
        for sql in ["query_value(q, 'a')", "query_size(q)", "url_decode(q)", "query_value('a=1', q)"] {
            assert_eq!(of(sql, None), "null", "{sql}");
        }
    }

    #[test]
    fn a_path_is_decoded_where_it_can_be() {
        for (path, decoded) in [
            ("/%2ewell-known/a+b", "/.well-known/a+b"),
            ("/100%/%4", "/100%/%4"),
            ("/%%41", "/%A"),
            ("/%C3%A9/\u{e9}", "/\u{e9}/\u{e9}"),
            ("/%ff", "/\u{fffd}"),
            ("", ""),
        ] {
            assert_eq!(of("url_decode(q)", Some(path)), decoded, "{path}");
        }
    }
}

//! Whether the server of a request has read the hello that the sensor has seen.
//!
//! Some servers log what they know of a connection's TLS. Where that is not what the hello says, the two are of different
//! connections: something between the sensor and the server ends the client's TLS, or the join was wrong.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};

use crate::format::server_tls::{JA3, JA4, SNI, VERSION};

/// The column with what differs, and its counter.
pub(super) const DIFFERS: &str = "server_tls_differs";

/// The columns that are compared: the server's, the hello's, and what they are called.
const PAIRS: [(&str, &str, &str); 4] =
    [(JA4, "ja4", "ja4"), (JA3, "ja3_hash", "ja3"), (SNI, "tls_sni", "sni"), (VERSION, "tls_version", "version")];

/// Compares rows of the output.
pub(super) struct Comparison {
    /// Places of the server's column, of the hello's, and of [`PAIRS`].
    pairs: Vec<(usize, usize, usize)>,
    /// Of the hello's JA3 as text, and whether it has an encrypted hello.
    ja3: Option<usize>,
    ech: Option<usize>,
}

impl Comparison {
    /// Whether there is anything to compare.
    pub fn is_possible(request: &Schema, hello: &Schema) -> bool {
        PAIRS.iter().any(|(server, wire, _)| is_text(request, server) && is_text(hello, wire))
    }

    /// Of rows with this schema.
    pub fn new(schema: &Schema, request: &Schema, hello: &Schema) -> Option<Self> {
        if !Self::is_possible(request, hello) {
            return None;
        }
        let place = |name: &str| schema.index_of(name).ok();
        let pair = |(nth, (server, wire, _)): (usize, &(&str, &str, &str))| {
            // A request's own column of the hello's name would be compared with itself.
            let is_of_hello = is_text(hello, wire) && request.index_of(wire).is_err();
            let is_there = is_text(request, server) && is_of_hello;
            Some((place(server).filter(|_| is_there)?, place(wire)?, nth))
        };
        let pairs = PAIRS.iter().enumerate().filter_map(pair).collect();
        let ja3 = place("ja3").filter(|_| is_text(hello, "ja3"));
        let ech = place("ech").filter(|at| *schema.field(*at).data_type() == DataType::Boolean);
        Some(Self { pairs, ja3, ech })
    }

    /// For each row what differs: its names with commas between them, nothing if nothing does, null if nothing could be
    /// compared. Only of rows that have both a request and a hello.
    pub fn differences(&self, columns: &[ArrayRef], rows: usize, is_matched: impl Fn(usize) -> bool) -> StringArray {
        let text = |at: usize| columns.get(at).and_then(|column| column.as_string_opt::<i32>());
        let pairs: Vec<(&StringArray, &StringArray, usize)> =
            self.pairs.iter().filter_map(|(server, wire, nth)| Some((text(*server)?, text(*wire)?, *nth))).collect();
        let ja3 = self.ja3.and_then(text);
        let ech = self.ech.and_then(|at| columns.get(at)?.as_boolean_opt());
        let row = |row: usize| {
            if !is_matched(row) {
                return None;
            }
            let mut said: Option<String> = None;
            for (server, wire, nth) in &pairs {
                let (name, Some(server)) = (PAIRS[*nth].2, value(server, row)) else { continue };
                let as_text = ja3.filter(|_| name == "ja3" && server.contains(','));
                let Some(wire) = value(as_text.unwrap_or(wire), row) else { continue };
                let Some(is_same) = is_same(name, server, wire, is_true(ech, row)) else { continue };
                let said = said.get_or_insert_default();
                if !is_same {
                    if !said.is_empty() {
                        said.push(',');
                    }
                    said.push_str(name);
                }
            }
            said
        };
        (0..rows).map(row).collect()
    }
}

fn is_text(schema: &Schema, name: &str) -> bool {
    schema.field_with_name(name).is_ok_and(|field| *field.data_type() == DataType::Utf8)
}

fn value(values: &StringArray, row: usize) -> Option<&str> {
    values.is_valid(row).then(|| values.value(row)).filter(|value| !value.is_empty())
}

fn is_true(values: Option<&BooleanArray>, row: usize) -> bool {
    values.is_some_and(|values| values.is_valid(row) && values.value(row))
}

/// Whether what a server says fits the hello; `None` if that cannot be told.
fn is_same(name: &str, server: &str, wire: &str, ech: bool) -> Option<bool> {
    match name {
        // The name outside of an encrypted hello is not the one that the server answers for.
        "sni" if ech => None,
        "version" => {
            let (chosen, offered) = (version(server)?, version(wire)?);
            // The hello offers versions up to the one that it has.
            Some(chosen <= offered)
        }
        _ => Some(server.trim_end_matches('.').eq_ignore_ascii_case(wire.trim_end_matches('.'))),
    }
}

/// The second number of a version of TLS 1, however it is written: `1.3`, `TLSv1.3`, `TLS 1.3`, `TLSv1`, `772`.
fn version(text: &str) -> Option<u8> {
    let text = text.strip_prefix("TLSv").or_else(|| text.strip_prefix("TLS")).unwrap_or(text).trim_start();
    match text {
        "1.3" | "772" | "13" => Some(3),
        "1.2" | "771" | "12" => Some(2),
        "1.1" | "770" | "11" => Some(1),
        "1.0" | "1" | "769" | "10" => Some(0),
        _ => None,
    }
}

/// How many rows have something that differs.
pub(super) fn count(rows: &RecordBatch) -> usize {
    let column = rows.column_by_name(DIFFERS).and_then(|column| column.as_string_opt::<i32>());
    column.map_or(0, |column| column.iter().flatten().filter(|value| !value.is_empty()).count())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::correlate::output_schema;
    use crate::format::{Format, Unit, hello_schema};

    #[test]
    fn only_what_both_sides_say_is_compared() {
        for (name, server, wire, expected) in [
            ("ja4", "t13d1516h2_8daaf6152771_b186095e22b6", "t13d1516h2_8daaf6152771_b186095e22b6", Some(true)),
            ("ja4", "t13d1516h2_8daaf6152771_b186095e22b6", "t13i1516h2_8daaf6152771_b186095e22b6", Some(false)),
            ("ja3", "773906B0EFDEFA24A7F2B8EB6985BF37", "773906b0efdefa24a7f2b8eb6985bf37", Some(true)),
            ("sni", "WWW.example.test.", "www.example.test", Some(true)),
            ("sni", "a.example.test", "b.example.test", Some(false)),
            ("version", "TLSv1.2", "1.3", Some(true)),
            ("version", "772", "1.3", Some(true)),
            ("version", "TLSv1.3", "1.2", Some(false)),
            ("version", "TLSv1", "1.0", Some(true)),
            ("version", "QUIC", "1.3", None),
            ("version", "TLSv1.3", "DTLS 1.2", None),
        ] {
            assert_eq!(is_same(name, server, wire, false), expected, "{name}: {server}, {wire}");
        }
        assert_eq!(is_same("sni", "inner.example.test", "outer.example.test", true), None);
    }

    #[test]
    fn differences_are_named_for_rows_that_were_joined() {
        let (caddy, hellos) = (Format::envoy_json(Unit::S).schema.clone(), hello_schema());
        let schema = output_schema(&caddy, &hellos);
        assert_eq!(schema.fields().last().map(|field| field.name().as_str()), Some(DIFFERS));
        let comparison = Comparison::new(&schema, &caddy, &hellos).expect("there is something to compare");
        let rows = 4;
        let values = |name: &str| match name {
            JA4 => [Some("a"), Some("a"), None, Some("a")],
            "ja4" => [Some("a"), Some("b"), Some("b"), Some("b")],
            SNI => [Some("x"), Some("x"), None, Some("x")],
            "tls_sni" => [Some("x"), Some("y"), Some("y"), Some("y")],
            _ => [None; 4],
        };
        let columns: Vec<ArrayRef> = schema
            .fields()
            .iter()
            .map(|field| match field.data_type() {
                DataType::Utf8 => Arc::new(StringArray::from(values(field.name()).to_vec())) as ArrayRef,
                other => arrow::array::new_null_array(other, rows),
            })
            .collect();
        let found = comparison.differences(&columns, rows, |row| row < 3);
        assert_eq!(found.iter().collect::<Vec<_>>(), [Some(""), Some("ja4,sni"), None, None]);
        let column: ArrayRef = Arc::new(found);
        assert_eq!(count(&RecordBatch::try_from_iter([(DIFFERS, column)]).expect("valid")), 1);
    }

    #[test]
    fn without_anything_of_the_server_there_is_no_column() {
        let (log, hellos) = (Format::reqin_log(Unit::Ns), hello_schema());
        let others = log.schema.fields().iter().filter(|field| !field.name().starts_with("server_")).cloned();
        let requests = Arc::new(Schema::new(others.collect::<Vec<_>>()));
        assert!(!Comparison::is_possible(&requests, &hellos));
        assert!(output_schema(&requests, &hellos).index_of(DIFFERS).is_err());
    }
}

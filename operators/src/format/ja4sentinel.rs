//! `ja4sentinel`: hellos as ja4sentinel writes them, and the columns of hellos from wherever.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use engine::batch::stream_schema;

use super::options::BuiltIn;
use super::schema::{Column, Format, Kind, endpoints, named, times};
use super::time::Unit;

pub(super) const FORMAT: BuiltIn = BuiltIn {
    name: "ja4sentinel",
    summary: "hellos as ja4sentinel writes them; also the columns of `tls.client_hello`",
    unit: Unit::Ns,
    format: Format::ja4sentinel,
};

impl Format {
    /// Hellos as ja4sentinel writes them, with times that are numbers in `unit`.
    pub fn ja4sentinel(unit: Unit) -> Arc<Self> {
        Arc::new(Self { schema: hello_schema(), ..Self::new(hello_columns(), times(unit), None) })
    }
}

/// Columns of a stream of hellos, from packets or from ja4sentinel's lines, so that one can be merged with the other; there is
/// no column `repaired`.
pub fn hello_schema() -> SchemaRef {
    stream_schema(
        hello_columns().iter().map(|c| Field::new(&c.name, c.kind.data_type(), !c.required)).collect::<Vec<_>>(),
    )
}

/// What is known of a hello.
fn hello_columns() -> Vec<Column> {
    let mut ends = endpoints();
    ends[..2].iter_mut().for_each(|column| column.required = true);
    let mut columns = named(&[("sensor_id", Kind::Text)]);
    columns.extend(ends);
    columns.extend(named(&[
        ("conn_id", Kind::Text),
        ("ip_meta_ttl", Kind::U8),
        ("ip_meta_total_length", Kind::U16),
        ("ip_meta_id", Kind::U16),
        ("ip_meta_df", Kind::Bool),
        ("tcp_meta_window_size", Kind::U16),
        ("tcp_meta_mss", Kind::U16),
        ("tcp_meta_window_scale", Kind::U8),
        ("tcp_meta_options", Kind::Text),
        ("syn_to_clienthello_ms", Kind::F64),
        ("tls_version", Kind::Text),
        ("tls_sni", Kind::Text),
        ("tls_alpn", Kind::Text),
        ("ja4", Kind::Text),
        ("ja3", Kind::Text),
        ("ja3_hash", Kind::Text),
        // `tcp`, `quic`, `dtls` or `udp`; lines of older sensors have none, as of what follows.
        ("transport", Kind::Text),
        ("hello", Kind::U8),
        ("initial_ttl", Kind::U8),
        ("ech", Kind::Bool),
        ("post_quantum", Kind::Bool),
        ("ambiguous", Kind::Bool),
        ("interface", Kind::Text),
        ("ja4_r", Kind::Text),
        ("ja4_o", Kind::Text),
        ("ja4_ro", Kind::Text),
    ]));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_needs_its_client_and_a_request_only_the_address() {
        for (format, needed) in
            [(Format::ja4sentinel(Unit::Ns), &["src_ip", "src_port"][..]), (Format::reqin_log(Unit::Ns), &["src_ip"])]
        {
            let required: Vec<&str> = format.columns.iter().filter(|c| c.required).map(|c| c.name.as_str()).collect();
            assert_eq!(required, needed);
        }
    }

    #[test]
    fn hellos_of_lines_have_the_columns_of_hellos_of_packets() {
        assert_eq!(Format::ja4sentinel(Unit::Ns).schema, hello_schema());
    }
}

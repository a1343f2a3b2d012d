//! What the JSON logs of servers have in common: the columns of a request, each under the key that the server gives it.

use std::sync::Arc;

use super::path::Path;
use super::reqin_log::{self, HEADERS};
use super::schema::{Column, Extra, Format, Kind, Role};
use super::server_tls;

/// Where a server's lines have the header with this name.
pub(super) type HeaderKey = fn(&str) -> Option<Path>;

/// A format of requests: `keys` says where columns stand that are not under the keys of `reqin_log`, and `header` where
/// headers do. Each column is there, so that features and rules find it; one that the server does not log is null.
pub(super) fn requests(keys: &[(&str, Path)], header: HeaderKey, own: Vec<Column>, extras: Vec<Extra>) -> Arc<Format> {
    let mut columns = reqin_log::columns();
    columns.extend(server_tls::columns());
    columns.extend(own);
    for column in &mut columns {
        if let Some((_, key)) = keys.iter().find(|(name, _)| column.name == *name) {
            column.key = key.clone();
        }
    }
    let headers = columns.iter_mut().filter(|column| column.name.starts_with("header_") && column.kind == Kind::Text);
    // `header_order_signature` is none: it comes before the headers.
    for (column, name) in headers.skip(1).zip(HEADERS) {
        if let Some(key) = header(name) {
            column.kind = if key.takes_each() { Kind::Texts } else { Kind::Text };
            column.key = key;
        }
    }
    let duration = reqin_log::duration(&columns);
    Arc::new(Format::new(columns, extras, duration))
}

/// A value without a column.
pub(super) fn extra(key: Path, kind: Kind, role: Role) -> Extra {
    Extra { key, kind, role }
}

/// A header's name as Go writes it: `Sec-Ch-Ua`.
pub(super) fn canonical(header: &str) -> String {
    let part = |part: &str| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
    };
    header.split('-').map(part).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
#[path = "server_json_tests.rs"]
mod lines;

#[cfg(test)]
mod tests {
    use super::super::FormatName;
    use super::*;

    #[test]
    fn every_server_has_the_columns_of_reqin_log_with_their_types_and_further_ones_behind() {
        let own = reqin_log::columns();
        for name in [FormatName::Caddy, FormatName::EnvoyJson, FormatName::Traefik, FormatName::Cloudflare] {
            let built_in = name.built_in();
            let format = (built_in.format)(built_in.unit);
            for (column, own) in format.columns.iter().zip(&own) {
                assert_eq!((&column.name, column.required), (&own.name, own.required), "{}", built_in.name);
                assert_eq!(column.kind.data_type(), own.kind.data_type(), "{}: {}", built_in.name, own.name);
            }
            let further: Vec<&str> = format.columns[own.len()..].iter().map(|column| column.name.as_str()).collect();
            assert_eq!(further[..server_tls::COLUMNS.len()], server_tls::COLUMNS, "{}", built_in.name);
            let (_, excluded) = super::super::json::keys::Keys::new(format.paths());
            assert_eq!(excluded, None, "{}: two columns take the same key", built_in.name);
        }
    }

    #[test]
    fn names_of_headers_are_as_go_writes_them() {
        for (header, written) in [("Sec-CH-UA-Mobile", "Sec-Ch-Ua-Mobile"), ("accept", "Accept"), ("", "")] {
            assert_eq!(canonical(header), written);
        }
    }
}

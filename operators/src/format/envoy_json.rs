//! `envoy_json`: Envoy's access log with `json_format`, under the keys of its manual's and Istio's dictionaries.
//!
//! What an operator of Envoy's is called in lower case is its key: `%DOWNSTREAM_TLS_VERSION%` is `downstream_tls_version`.
//! `docs/servers.md` has the whole dictionary.

use std::sync::Arc;

use super::options::BuiltIn;
use super::path::Path;
use super::schema::{Format, Kind, Role};
use super::server_json::{extra, requests};
use super::time::Unit;

pub(super) const FORMAT: BuiltIn = BuiltIn {
    name: "envoy_json",
    summary: "requests as Envoy's access log has them with `json_format`",
    unit: Unit::S,
    format: Format::envoy_json,
};

impl Format {
    /// Requests as Envoy writes them, with times that are numbers in `unit`.
    pub fn envoy_json(unit: Unit) -> Arc<Self> {
        let keys = [
            // `path` has the query too.
            ("path", "path_without_query"),
            ("http_version", "protocol"),
            ("status_code", "response_code"),
            ("response_size", "bytes_sent"),
            ("duration_ms", "duration"),
            ("server_tls_version", "downstream_tls_version"),
            ("server_tls_cipher", "downstream_tls_cipher"),
            ("server_tls_sni", "requested_server_name"),
            ("server_ja4", "tls_ja4_fingerprint"),
            ("server_ja3", "tls_ja3_fingerprint"),
        ];
        let keys = keys.map(|(name, key)| (name, Path::key(key)));
        let text = |key: &str, role| extra(Path::key(key), Kind::Text, role);
        let extras = vec![
            extra(Path::key("start_time"), Kind::Time(unit), Role::Begin),
            // The address of the connection: the other may be what X-Forwarded-For says.
            text("downstream_direct_remote_address", Role::Source),
            text("downstream_remote_address", Role::Source),
            text("downstream_direct_local_address", Role::Destination),
            text("downstream_local_address", Role::Destination),
            text("path", Role::Target),
            text("authority", Role::Authority),
        ];
        let header = |name: &str| match name {
            "User-Agent" => Some(Path::key("user_agent")),
            "X-Forwarded-For" => Some(Path::key("x_forwarded_for")),
            "X-Request-Id" => Some(Path::key("request_id")),
            "Referer" => Some(Path::key("referer")),
            _ => None,
        };
        requests(&keys, header, Vec::new(), extras)
    }
}

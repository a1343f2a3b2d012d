//! `caddy`: Caddy's access log in JSON, its default (<https://caddyserver.com/docs/logging>).
//!
//! A line is written when the request is over: `ts` is its end, and `duration` says how long it took, in seconds.
//! Values of the headers Cookie and Authorization it does not write, only that they were there. `remote_ip` and `remote_port` are those of the connection; `client_ip` may be what a header says, and is not taken.

use std::sync::Arc;

use super::options::BuiltIn;
use super::path::Path;
use super::schema::{Format, Kind, Role};
use super::server_json::{canonical, extra, requests};
use super::time::Unit;

pub(super) const FORMAT: BuiltIn = BuiltIn {
    name: "caddy",
    summary: "requests as Caddy's access log has them in JSON, with `duration_format` seconds",
    unit: Unit::S,
    format: Format::caddy,
};

impl Format {
    /// Requests as Caddy writes them, with times that are numbers in `unit`.
    pub fn caddy(unit: Unit) -> Arc<Self> {
        let of_request = |key: &str| Path::keys(&["request", key], false);
        let of_tls = |key: &str| Path::keys(&["request", "tls", key], false);
        let keys = [
            ("src_ip", of_request("remote_ip")),
            ("src_port", of_request("remote_port")),
            ("method", of_request("method")),
            ("http_version", of_request("proto")),
            ("status_code", Path::key("status")),
            ("response_size", Path::key("size")),
            ("server_tls_version", of_tls("version")),
            ("server_tls_cipher", of_tls("cipher_suite")),
            ("server_tls_sni", of_tls("server_name")),
        ];
        let extras = vec![
            extra(Path::key("ts"), Kind::Time(unit), Role::End),
            extra(Path::key("duration"), Kind::Duration(Unit::S), Role::Duration),
            extra(of_request("uri"), Kind::Text, Role::Target),
            extra(of_request("host"), Kind::Text, Role::Authority),
            extra(Path::keys(&["request", "headers", "Cookie"], true), Kind::Texts, Role::Cookie),
        ];
        let header = |name: &str| Some(Path::keys(&["request", "headers", &canonical(name)], true));
        requests(&keys, header, Vec::new(), extras)
    }
}

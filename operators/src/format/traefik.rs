//! `traefik`: Traefik's access log with `format: json` (<https://doc.traefik.io/traefik/observability/access-logs/>).
//!
//! `ClientAddr` is the connection's address and port. `ClientHost` is not taken: it is what X-Forwarded-For says, if there
//! is such a header. Headers are there if `fields.headers` keeps them.

use std::sync::Arc;

use super::options::BuiltIn;
use super::path::Path;
use super::schema::{Format, Kind, Role};
use super::server_json::{canonical, extra, requests};
use super::time::Unit;

pub(super) const FORMAT: BuiltIn = BuiltIn {
    name: "traefik",
    summary: "requests as Traefik's access log has them with `format: json`",
    unit: Unit::S,
    format: Format::traefik,
};

impl Format {
    /// Requests as Traefik writes them, with times that are numbers in `unit`.
    pub fn traefik(unit: Unit) -> Arc<Self> {
        let keys = [
            ("method", "RequestMethod"),
            ("scheme", "RequestScheme"),
            ("http_version", "RequestProtocol"),
            ("status_code", "DownstreamStatus"),
            ("response_size", "DownstreamContentSize"),
            ("server_tls_version", "TLSVersion"),
            ("server_tls_cipher", "TLSCipher"),
        ];
        let keys = keys.map(|(name, key)| (name, Path::key(key)));
        let extras = vec![
            extra(Path::key("StartUTC"), Kind::Time(unit), Role::Begin),
            extra(Path::key("StartLocal"), Kind::Time(unit), Role::Begin),
            extra(Path::key("Duration"), Kind::Duration(Unit::Ns), Role::Duration),
            extra(Path::key("ClientAddr"), Kind::Text, Role::Source),
            extra(Path::key("RequestPath"), Kind::Text, Role::Target),
            extra(Path::key("RequestHost"), Kind::Text, Role::Authority),
            extra(Path::key("request_Cookie"), Kind::Text, Role::Cookie),
        ];
        let header = |name: &str| Some(Path::key(format!("request_{}", canonical(name))));
        requests(&keys, header, Vec::new(), extras)
    }
}

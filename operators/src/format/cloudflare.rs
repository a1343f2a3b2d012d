//! `cloudflare`: Cloudflare's Logpush, data set `http_requests`, one object a line
//! (<https://developers.cloudflare.com/logs/logpush/logpush-job/datasets/zone/http_requests/>).
//!
//! Times are dates, or numbers in ns (`timestamp_format: unixnano`); for `unix` set `time_unit: s`. TLS ends at Cloudflare,
//! where nobody else can look: JA4 and JA3 are those of the client as Cloudflare has seen it.

use std::sync::Arc;

use super::options::BuiltIn;
use super::path::Path;
use super::schema::{Format, Kind, Role, named};
use super::server_json::{extra, requests};
use super::time::Unit;

pub(super) const FORMAT: BuiltIn = BuiltIn {
    name: "cloudflare",
    summary: "requests as Cloudflare's Logpush has them in the data set `http_requests`",
    unit: Unit::Ns,
    format: Format::cloudflare,
};

impl Format {
    /// Requests as Cloudflare writes them, with times that are numbers in `unit`.
    pub fn cloudflare(unit: Unit) -> Arc<Self> {
        let keys = [
            ("src_ip", "ClientIP"),
            ("src_port", "ClientSrcPort"),
            ("method", "ClientRequestMethod"),
            ("scheme", "ClientRequestScheme"),
            ("http_version", "ClientRequestProtocol"),
            ("status_code", "EdgeResponseStatus"),
            ("response_size", "EdgeResponseBytes"),
            ("server_tls_version", "ClientSSLProtocol"),
            ("server_tls_cipher", "ClientSSLCipher"),
            ("server_ja4", "JA4"),
            ("server_ja3", "JA3Hash"),
            ("server_bot_score", "BotScore"),
        ];
        let keys = keys.map(|(name, key)| (name, Path::key(key)));
        let extras = vec![
            extra(Path::key("EdgeStartTimestamp"), Kind::Time(unit), Role::Begin),
            extra(Path::key("EdgeEndTimestamp"), Kind::Time(unit), Role::End),
            extra(Path::key("ClientRequestURI"), Kind::Text, Role::Target),
            extra(Path::key("ClientRequestHost"), Kind::Text, Role::Authority),
        ];
        // Further headers are custom fields, whose names are as the job spells them: in lower case, as the manual does.
        let header = |name: &str| match name {
            "User-Agent" => Some(Path::key("ClientRequestUserAgent")),
            "Referer" => Some(Path::key("ClientRequestReferer")),
            _ => Some(Path::keys(&["RequestHeaders", &name.to_ascii_lowercase()], false)),
        };
        requests(&keys, header, named(&[("server_bot_score", Kind::U8)]), extras)
    }
}

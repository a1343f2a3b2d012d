//! Where a webhook is, and what a request to it says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, SecondsFormat, Utc};
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;

use crate::sink::delivery::Parcel;

/// Headers that are this sink's own.
const OWN: [&str; 7] = [
    "content-type",
    "content-length",
    "host",
    "idempotency-key",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// Where rows are posted to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address(Uri);

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// If it is none; the message does not repeat it, as it may be a secret.
    pub fn parse(url: &str) -> Result<Self, String> {
        let malformed = || "the URL is not http[s]://host[:port][/path]".to_owned();
        let uri: Uri = url.trim().parse().map_err(|_| malformed())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(malformed());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("a user in the URL is not sent: write `headers: { Authorization: … }`".to_owned());
        }
        Ok(Self(uri))
    }

    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Where it is, without what may be secret.
    pub fn place(&self) -> String {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.0.scheme_str().unwrap_or("http"))
    }

    /// All of it.
    pub fn target(&self) -> String {
        self.0.to_string()
    }

    /// Whether others can read what is sent.
    pub fn is_open(&self) -> bool {
        let host = self.0.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.0.scheme_str() == Some("http") && !is_here
    }
}

/// Headers that the pipeline adds.
///
/// # Errors
/// If one is none; the message does not repeat its value.
pub(super) fn headers(given: &BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let header = |(name, value): (&String, &String)| {
        let key: HeaderName = name.parse().map_err(|_| format!("`{name}` is not the name of a header"))?;
        if OWN.contains(&key.as_str()) {
            return Err(format!("the header `{name}` is this sink's own"));
        }
        let mut value =
            HeaderValue::from_str(value).map_err(|_| format!("the value of `{name}` is not that of a header"))?;
        value.set_sensitive(true);
        Ok((key, value))
    };
    given.iter().map(header).collect()
}

/// What is posted of a parcel.
pub(super) fn body(node: &str, parcel: &Parcel) -> Vec<u8> {
    // 0 is not a time: of a file that is read in one piece all rows are of that tick.
    let tick = i64::try_from(parcel.tick).ok().filter(|tick| *tick > 0);
    let tick = tick.and_then(DateTime::<Utc>::from_timestamp_millis);
    let tick = tick.map(|tick| tick.to_rfc3339_opts(SecondsFormat::Millis, true));
    let (name, node, tick) = (json!(parcel.name), json!(node), json!(tick));
    let mut body = format!("{{\"batch\":{name},\"node\":{node},\"tick\":{tick},\"rows\":[").into_bytes();
    for (nth, line) in parcel.each().enumerate() {
        if nth > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line);
    }
    body.extend_from_slice(b"]}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_path() {
        let address = Address::parse("https://hooks.example.test:8443/services/T0/s3cret?k=v").expect("valid");
        assert_eq!(address.place(), "https://hooks.example.test:8443");
        assert_eq!(address.target(), "https://hooks.example.test:8443/services/T0/s3cret?k=v");
        assert!(!address.is_open());
        let open = |url| Address::parse(url).map(|address| address.is_open());
        for (url, expected) in [
            ("http://127.0.0.1:9/x", false),
            ("http://[::1]/x", false),
            ("http://localhost/x", false),
            ("http://192.0.2.1/x", true),
            ("http://example.test", true),
        ] {
            assert_eq!(open(url), Ok(expected), "{url}");
        }
        for url in ["example.test/s3cret", "ftp://s3cret", "https:///s3cret", "https://me:s3cret@example.test", ""] {
            let error = open(url).expect_err(url);
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn headers_are_checked_and_their_values_are_not_shown() {
        let one = |name: &str, value: &str| headers(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(one("Authorization", "Bearer x").is_ok_and(|headers| headers[0].1.is_sensitive()));
        for (name, value) in [("a b", "x"), ("Webhook-Id", "x"), ("X", "s3cret\n")] {
            assert!(one(name, value).is_err_and(|error| !error.contains("s3cret")), "{name}");
        }
    }

    #[test]
    fn a_body_is_json_with_each_row() {
        let parcel = Parcel {
            name: "alerts-1795448127143-0-ab".into(),
            tick: 1_795_448_127_143,
            rows: 2,
            lines: b"{\"a\":\"\xc3\xa9\"}\n{\"a\":2}\n".to_vec(),
        };
        let body: serde_json::Value = serde_json::from_slice(&body("alerts", &parcel)).expect("JSON");
        let expected = json!({
            "batch": "alerts-1795448127143-0-ab", "node": "alerts", "tick": "2026-11-23T15:35:27.143Z",
            "rows": [{ "a": "é" }, { "a": 2 }],
        });
        assert_eq!(body, expected);
    }
}

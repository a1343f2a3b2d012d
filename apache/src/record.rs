//! A request as a JSON object in one line.
//!
//! A record is in two parts. The first is short whatever a client sends: times, connection, status, method, host, TLS, HTTP/2.
//! The second may be long: path, header values in the configured order, query, and the names of all headers. If both together are
//! longer than a datagram may be, the second is cut from its end, and `truncated` names what was cut.

use std::fmt::Write;

use crate::config::Limits;
use crate::connection::{Connection, Endpoint, Tls};
use crate::h2::{SETTINGS, Signature};
use crate::json;
use crate::moment::iso;

/// The longest record in bytes. A datagram on a unix socket may have more: 208 KiB unless the system says otherwise.
pub const MAX_RECORD: usize = 64_000;
/// What the first part takes at the most, with room to spare; a test holds it to that.
pub const MIN_RECORD: usize = 12_000;

/// Bytes that are taken of a method and a version, and of a name of a host.
const MAX_WORD: usize = 64;
const MAX_NAME: usize = 256;

/// A request as the server has read it. Bytes are those of the client.
pub struct Incoming<'a> {
    /// Such as `GET`.
    pub method: Option<&'a [u8]>,
    /// `http` or `https`.
    pub scheme: Option<&'a [u8]>,
    /// The name of the host, without port.
    pub host: Option<&'a [u8]>,
    /// Such as `HTTP/1.1`.
    pub version: Option<&'a [u8]>,
    /// The request's target as it was sent; `None` for what was no request.
    pub target: Option<&'a [u8]>,
    /// Names and values in their order.
    pub headers: &'a [(&'a [u8], &'a [u8])],
}

/// What is known of a request once it is over. Times are µs since the epoch.
pub struct Outcome {
    /// When the server had read its first line.
    pub begin_us: i64,
    /// When the answer was sent.
    pub end_us: i64,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer's body.
    pub response_size: u64,
    /// The address that mod_remoteip takes for the client's, if that is another one than the connection's.
    pub useragent_ip: Option<Endpoint>,
}

/// The part of a record that is known when a request has been read, before other modules change it.
pub struct Head {
    /// Number of the request on its connection.
    index: u32,
    /// Keys of the first part, each with a comma in front.
    short: String,
    /// The second part.
    long: Vec<Long>,
    /// Sequences of bytes that were no UTF-8.
    replaced: u64,
}

/// A value that may be long: its key and its text, both escaped.
#[derive(Clone)]
struct Long {
    key: String,
    text: String,
}

/// A record that can be made as short as a datagram may be.
pub struct Record {
    short: String,
    long: Vec<Long>,
}

impl Head {
    /// What of a request goes into its record.
    pub fn new(index: u32, request: &Incoming<'_>, limits: &Limits) -> Self {
        let mut head = Self { index, short: String::with_capacity(1024), long: Vec::new(), replaced: 0 };
        let is_there = |name: &str| request.headers.iter().any(|(other, _)| same(other, name));
        for (key, name) in [("has_cookie", "Cookie"), ("has_authorization", "Authorization")] {
            raw(&mut head.short, key, is_there(name));
        }
        for (key, value, max) in [
            ("method", request.method, MAX_WORD),
            ("scheme", request.scheme, MAX_WORD),
            ("host", request.host, MAX_NAME),
            ("http_version", request.version, MAX_WORD),
        ] {
            if let Some(value) = value {
                head.replaced += text(&mut head.short, key, json::prefix(value, max));
            }
        }
        let (path, query) = request.target.map_or((None, None), |target| {
            let (path, query) = parts(target);
            (Some(path), Some(query))
        });
        head.push("path".to_owned(), path);
        head.push_values(request.headers, limits);
        head.push("query".to_owned(), query);
        for (key, by) in [("client_headers", &b","[..]), ("header_order_signature", b";")] {
            let names = names(request, by);
            head.push(key.to_owned(), Some(&names).filter(|names| !names.is_empty()).map(Vec::as_slice));
        }
        head
    }

    fn push_values(&mut self, headers: &[(&[u8], &[u8])], limits: &Limits) {
        let mut left = limits.max_headers;
        for name in &limits.headers {
            let values: Vec<&[u8]> = headers.iter().filter(|(other, _)| same(other, name)).map(|(_, v)| *v).collect();
            if values.is_empty() || left == 0 {
                continue;
            }
            left -= 1;
            let value = match values[..] {
                [value] => json::prefix(value, limits.max_header_value_len).to_vec(),
                _ => json::prefix(&values.join(&b", "[..]), limits.max_header_value_len).to_vec(),
            };
            self.push(format!("header_{name}"), Some(&value));
        }
    }

    fn push(&mut self, key: String, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        let mut text = String::with_capacity(value.len().min(MAX_RECORD) + 16);
        self.replaced += json::escape(json::prefix(value, MAX_RECORD), &mut text);
        self.long.push(Long { key, text });
    }
}

impl Record {
    /// Of a request that is over.
    pub fn new(head: Head, connection: &Connection, outcome: &Outcome) -> Self {
        let took = u64::try_from(outcome.end_us.saturating_sub(outcome.begin_us)).unwrap_or(0);
        let mut short = String::with_capacity(1536 + head.short.len());
        _ = write!(
            short,
            "{{\"timestamp\":{},\"time\":\"{}\"",
            outcome.begin_us.saturating_mul(1000),
            iso(outcome.begin_us)
        );
        raw(&mut short, "duration_us", took);
        raw(&mut short, "duration_ms", took / 1000);
        short += connection.ends();
        raw(&mut short, "keepalive_index", head.index);
        raw(&mut short, "status_code", outcome.status);
        raw(&mut short, "response_size", outcome.response_size);
        short += &head.short;
        if let Some(other) = &outcome.useragent_ip {
            text(&mut short, "useragent_ip", other.ip.as_bytes());
        }
        if head.replaced > 0 {
            raw(&mut short, "replaced", head.replaced);
        }
        for facts in connection.facts() {
            short += facts;
        }
        Self { short, long: head.long }
    }

    /// The record, of at most `max` bytes if that is possible, and whether anything was cut. `lost` is how many records before it
    /// were lost.
    pub fn render(&self, max: usize, lost: u64) -> (String, bool) {
        let mut out = String::with_capacity(self.short.len() + size(&self.long) + 48);
        out += &self.short;
        if lost > 0 {
            raw(&mut out, "lost_before", lost);
        }
        if out.len() + 1 + size(&self.long) <= max {
            write_all(&mut out, &self.long);
            out.push('}');
            return (out, false);
        }
        let mut long = self.long.clone();
        let cut = shorten(&mut long, out.len() + 1, max);
        write_all(&mut out, &long);
        _ = write!(out, ",\"truncated\":\"{cut}\"}}");
        (out, true)
    }
}

fn write_all(out: &mut String, long: &[Long]) {
    for Long { key, text } in long {
        for part in [",\"", key, "\":\"", text, "\""] {
            out.push_str(part);
        }
    }
}

/// Bytes that these take in a record.
fn size(long: &[Long]) -> usize {
    long.iter().map(|one| AROUND + one.key.len() + one.text.len()).sum()
}

/// Bytes around a text and its key: `,"":""`.
const AROUND: usize = 6;

/// Cuts from the end until all has at most `max` bytes with `before` others; the keys of what was cut.
fn shorten(long: &mut Vec<Long>, before: usize, max: usize) -> String {
    let mut cut = String::new();
    let mut total = before + size(long);
    let mut at = long.len();
    while total > max && at > 0 {
        at -= 1;
        if long[at].text.is_empty() {
            continue;
        }
        if cut.is_empty() {
            total += AROUND + "truncated".len();
        } else {
            total += 1;
            cut.push(',');
        }
        let Long { key, text } = &mut long[at];
        total += key.len();
        cut += key;
        let keep = text.len().saturating_sub(total - max.min(total));
        total -= text.len();
        json::cut(text, keep);
        total += text.len();
        if text.is_empty() {
            total -= AROUND + key.len();
            long.remove(at);
        }
    }
    cut
}

/// The ends of a connection, as keys with a comma in front of each.
pub fn of_ends(client: &Endpoint, server: &Endpoint) -> String {
    let mut out = String::new();
    for (address, ip, port) in [(client, "src_ip", "src_port"), (server, "dst_ip", "dst_port")] {
        if !address.ip.is_empty() {
            text(&mut out, ip, address.ip.as_bytes());
            raw(&mut out, port, address.port);
        }
    }
    out
}

/// What mod_ssl says of a connection, likewise.
pub fn of_tls(tls: &Tls) -> String {
    let mut out = String::new();
    for (key, value, max) in [
        ("server_tls_version", &tls.protocol, MAX_WORD),
        ("server_tls_cipher", &tls.cipher, MAX_WORD),
        ("server_tls_sni", &tls.sni, MAX_NAME),
    ] {
        if !value.is_empty() {
            text(&mut out, key, json::prefix(value.as_bytes(), max));
        }
    }
    raw(&mut out, "server_tls_resumed", tls.resumed);
    out
}

/// The frames that a connection began with, likewise.
pub fn of_h2(signature: &Signature) -> String {
    let mut out = String::new();
    text(&mut out, "h2_signature", signature.text().as_bytes());
    for (id, key) in SETTINGS {
        if let Some(value) = signature.setting(id) {
            raw(&mut out, key, value);
        }
    }
    if let Some(increment) = signature.window_update {
        raw(&mut out, "h2_window_update", increment);
    }
    let texts = [
        ("h2_settings", signature.settings_text()),
        ("h2_priorities", signature.priorities_text()),
        ("h2_headers_priority", signature.headers_priority.map(|priority| priority.text())),
        ("h2_pseudo_order", signature.pseudo_order.clone()),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            text(&mut out, key, value.as_bytes());
        }
    }
    out
}

/// Path and query of a target as the client sent them, without the origin that an absolute one has (RFC 9112, section 3.2.2).
fn parts(target: &[u8]) -> (&[u8], &[u8]) {
    let of_origin = |byte: &u8| matches!(byte, b'/' | b'?');
    let mut rest = target;
    if let Some(at) = target.windows(3).position(|three| three == b"://")
        && !target[..at].iter().any(of_origin)
    {
        let after = &target[at + 3..];
        rest = &after[after.iter().position(of_origin).unwrap_or(after.len())..];
    }
    match rest.iter().position(|byte| *byte == b'?') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, b""),
    }
}

/// The names of headers as the client sent them, at most as many as there is room for in a record.
///
/// mod_http2 writes them with capitals, which no client of HTTP/2 may send (RFC 9113, section 8.2.1), and adds a `Host` behind them,
/// which is the pseudo-header `:authority`.
fn names(request: &Incoming<'_>, by: &[u8]) -> Vec<u8> {
    let is_h2 = request.version.is_some_and(|version| version.starts_with(b"HTTP/2"));
    let headers = match request.headers {
        [headers @ .., (last, _)] if is_h2 && same(last, "Host") => headers,
        headers => headers,
    };
    let mut out = Vec::with_capacity(512);
    for (name, _) in headers {
        if out.len() > MAX_RECORD {
            break;
        }
        if !out.is_empty() {
            out.extend_from_slice(by);
        }
        out.extend_from_slice(name);
    }
    if is_h2 {
        out.make_ascii_lowercase();
    }
    out
}

fn same(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

fn raw(out: &mut String, key: &str, value: impl std::fmt::Display) {
    _ = write!(out, ",\"{key}\":{value}");
}

fn text(out: &mut String, key: &str, value: &[u8]) -> u64 {
    _ = write!(out, ",\"{key}\":\"");
    let replaced = json::escape(value, out);
    out.push('"');
    replaced
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

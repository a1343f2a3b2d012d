//! A request as a JSON object in one line.
//!
//! A record is in two parts. The first is short whatever a client sends: times, connection, status, method, host, TLS, HTTP/2.
//! The second may be long: path, header values in the configured order, query, and the names of all headers. If both together are
//! longer than a datagram may be, the second is cut from its end, and `truncated` names what was cut.

use std::ops::Range;

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

/// A header's name and value.
pub type Header<'a> = (&'a [u8], &'a [u8]);

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
    pub headers: &'a [Header<'a>],
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
    long: Long,
    /// Sequences of bytes that were no UTF-8.
    replaced: u64,
}

/// The second part: keys with a comma in front of each, and where they and their texts stand.
#[derive(Default)]
struct Long {
    all: String,
    parts: Vec<Part>,
}

struct Part {
    key: Range<usize>,
    text: Range<usize>,
}

/// A record that can be made as short as a datagram may be.
pub struct Record {
    short: String,
    long: Long,
}

impl Head {
    /// What of a request goes into its record.
    pub fn new(index: u32, request: &Incoming<'_>, limits: &Limits) -> Self {
        let mut head = Self { index, short: String::with_capacity(256), long: Long::default(), replaced: 0 };
        head.long.all.reserve(1024);
        head.long.parts.reserve(limits.headers.len().min(limits.max_headers) + 4);
        let is_there = |name: &str| request.headers.iter().any(|(other, _)| same(other, name));
        for (key, name) in [("has_cookie", "Cookie"), ("has_authorization", "Authorization")] {
            flag(&mut head.short, key, is_there(name));
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
        let target = request.target.map(parts);
        if let Some((path, _)) = target {
            head.push("path", "", path);
        }
        head.push_values(request.headers, limits);
        if let Some((_, query)) = target {
            head.push("query", "", query);
        }
        let (names, is_h2) = names(request);
        if !names.is_empty() {
            for (key, by) in [("client_headers", ','), ("header_order_signature", ';')] {
                head.push_names(key, names, by, is_h2);
            }
        }
        head
    }

    fn push_values(&mut self, headers: &[Header<'_>], limits: &Limits) {
        let mut left = limits.max_headers;
        for name in &limits.headers {
            if left == 0 {
                return;
            }
            let mut values = headers.iter().filter(|(other, _)| same(other, name)).map(|(_, value)| *value);
            let Some(first) = values.next() else { continue };
            left -= 1;
            let rest: Vec<&[u8]> = values.collect();
            if rest.is_empty() {
                self.push("header_", name, json::prefix(first, limits.max_header_value_len));
            } else {
                let all = [&[first], &rest[..]].concat().join(&b", "[..]);
                self.push("header_", name, json::prefix(&all, limits.max_header_value_len));
            }
        }
    }

    /// A value whose key is in two parts.
    fn push(&mut self, key: &str, name: &str, value: &[u8]) {
        self.push_with(key, name, |out| json::escape(json::prefix(value, MAX_RECORD), out));
    }

    /// The names of headers, at most as many as there is room for in a record.
    fn push_names(&mut self, key: &str, names: &[Header<'_>], by: char, is_h2: bool) {
        self.push_with(key, "", |out| {
            let start = out.len();
            let mut replaced = 0;
            for (name, _) in names {
                if out.len() - start > MAX_RECORD {
                    break;
                }
                if out.len() > start {
                    out.push(by);
                }
                let begin = out.len();
                replaced += json::escape(json::prefix(name, MAX_RECORD), out);
                if is_h2 {
                    out[begin..].make_ascii_lowercase();
                }
            }
            replaced
        });
    }

    fn push_with(&mut self, key: &str, name: &str, write: impl FnOnce(&mut String) -> u64) {
        let Long { all, parts } = &mut self.long;
        all.push_str(",\"");
        let begin = all.len();
        all.push_str(key);
        all.push_str(name);
        let key = begin..all.len();
        all.push_str("\":\"");
        let begin = all.len();
        self.replaced += write(all);
        parts.push(Part { key, text: begin..all.len() });
        all.push('"');
    }
}

impl Record {
    /// Of a request that is over.
    pub fn new(head: Head, connection: &Connection, outcome: &Outcome) -> Self {
        let took = u64::try_from(outcome.end_us.saturating_sub(outcome.begin_us)).unwrap_or(0);
        let facts = connection.facts();
        let mut short = String::with_capacity(384 + head.short.len() + facts[0].len() + facts[1].len());
        short.push_str("{\"timestamp\":");
        json::number(&mut short, u64::try_from(outcome.begin_us).unwrap_or(0).saturating_mul(1000), 1);
        short.push_str(",\"time\":\"");
        iso(&mut short, outcome.begin_us);
        short.push('"');
        number(&mut short, "duration_us", took);
        number(&mut short, "duration_ms", took / 1000);
        short += connection.ends();
        number(&mut short, "keepalive_index", head.index.into());
        number(&mut short, "status_code", outcome.status.into());
        number(&mut short, "response_size", outcome.response_size);
        short += &head.short;
        if let Some(other) = &outcome.useragent_ip {
            text(&mut short, "useragent_ip", other.ip.as_bytes());
        }
        if head.replaced > 0 {
            number(&mut short, "replaced", head.replaced);
        }
        for facts in facts {
            short += facts;
        }
        Self { short, long: head.long }
    }

    /// The record, of at most `max` bytes if that is possible, and whether anything was cut. `lost` is how many records before it
    /// were lost.
    pub fn render(&self, max: usize, lost: u64) -> (String, bool) {
        let mut out = String::with_capacity(self.short.len() + self.long.all.len().min(max) + 48);
        out += &self.short;
        if lost > 0 {
            number(&mut out, "lost_before", lost);
        }
        let cut = self.long.write(&mut out, max.saturating_sub(1));
        out.push('}');
        (out, cut)
    }
}

/// Bytes around a text and its key: `,"":""`.
const AROUND: usize = 6;

impl Long {
    /// Appends all that makes `out` no longer than `max`, cut from the end; whether anything was cut.
    fn write(&self, out: &mut String, max: usize) -> bool {
        if out.len() + self.all.len() <= max {
            out.push_str(&self.all);
            return false;
        }
        let mut total = out.len() + self.all.len();
        let mut cut = String::new();
        // Parts before this one are whole.
        let mut whole = self.parts.len();
        let mut last = String::new();
        while total > max && whole > 0 {
            whole -= 1;
            let Part { key, text } = &self.parts[whole];
            let (key, text) = (&self.all[key.clone()], &self.all[text.clone()]);
            if text.is_empty() {
                total -= AROUND + key.len();
                continue;
            }
            // The key in the list of what was cut, behind a comma or with the key of that list.
            total += key.len() + if cut.is_empty() { AROUND + "truncated".len() } else { 1 };
            cut.push_str(if cut.is_empty() { "" } else { "," });
            cut.push_str(key);
            let keep = text.len().saturating_sub(total.saturating_sub(max));
            last = text[..text.floor_char_boundary(keep + AROUND)].to_owned();
            json::cut(&mut last, keep);
            total -= text.len() - last.len();
            if last.is_empty() {
                total -= AROUND + key.len();
            }
        }
        let end = self.parts.get(whole).map_or(self.all.len(), |part| part.key.start - ",\"".len());
        out.push_str(&self.all[..end]);
        if let (false, Some(part)) = (last.is_empty(), self.parts.get(whole)) {
            for piece in [",\"", &self.all[part.key.clone()], "\":\"", &last, "\""] {
                out.push_str(piece);
            }
        }
        if !cut.is_empty() {
            for piece in [",\"truncated\":\"", &cut, "\""] {
                out.push_str(piece);
            }
        }
        !cut.is_empty()
    }
}

/// The ends of a connection, as keys with a comma in front of each.
pub fn of_ends(client: &Endpoint, server: &Endpoint) -> String {
    let mut out = String::new();
    for (address, ip, port) in [(client, "src_ip", "src_port"), (server, "dst_ip", "dst_port")] {
        if !address.ip.is_empty() {
            text(&mut out, ip, address.ip.as_bytes());
            number(&mut out, port, address.port.into());
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
    flag(&mut out, "server_tls_resumed", tls.resumed);
    out
}

/// The frames that a connection began with, likewise.
pub fn of_h2(signature: &Signature) -> String {
    let mut out = String::new();
    text(&mut out, "h2_signature", signature.text().as_bytes());
    for (id, key) in SETTINGS {
        if let Some(value) = signature.setting(id) {
            number(&mut out, key, value.into());
        }
    }
    if let Some(increment) = signature.window_update {
        number(&mut out, "h2_window_update", increment.into());
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

/// The headers as the client sent them, and whether their names are to be in lower case.
///
/// mod_http2 writes names with capitals, which no client of HTTP/2 may send (RFC 9113, section 8.2.1), and adds a `Host` behind them,
/// which is the pseudo-header `:authority`.
fn names<'a>(request: &Incoming<'a>) -> (&'a [Header<'a>], bool) {
    let is_h2 = request.version.is_some_and(|version| version.starts_with(b"HTTP/2"));
    match request.headers {
        [headers @ .., (last, _)] if is_h2 && same(last, "Host") => (headers, is_h2),
        headers => (headers, is_h2),
    }
}

fn same(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

fn number(out: &mut String, key: &str, value: u64) {
    start(out, key);
    json::number(out, value, 1);
}

fn flag(out: &mut String, key: &str, value: bool) {
    start(out, key);
    out.push_str(if value { "true" } else { "false" });
}

fn start(out: &mut String, key: &str) {
    for piece in [",\"", key, "\":"] {
        out.push_str(piece);
    }
}

fn text(out: &mut String, key: &str, value: &[u8]) -> u64 {
    start(out, key);
    out.push('"');
    let replaced = json::escape(value, out);
    out.push('"');
    replaced
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

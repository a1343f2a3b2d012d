//! `nginx`: the access log of nginx, by its `log_format`.
//!
//! Source: ngx_http_log_module, <https://nginx.org/en/docs/http/ngx_http_log_module.html>, and the list of variables,
//! <https://nginx.org/en/docs/varindex.html>.

use std::sync::Arc;

use super::apache::request_line;
use super::schema::Format;
use super::text::transform::{self, same};
use super::text::{
    Escape, Item, Known, Moment, Part, Shape, Want, Wants, Wrong, Zone, column, header, of, response_header,
};
use super::time::Unit;

/// How nginx escapes, as `escape=` of `log_format` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NginxEscape {
    /// `\xHH`.
    #[default]
    Default,
    /// As in JSON's strings.
    Json,
    /// Not at all.
    None,
}

impl NginxEscape {
    fn of(self) -> Escape {
        match self {
            Self::Default => Escape::Backslash,
            Self::Json => Escape::Json,
            Self::None => Escape::None,
        }
    }
}

/// Variables with a column.
pub(super) const VARIABLES: [Known; 36] = [
    of("$remote_addr", "src_ip", 2, Shape::Word),
    of("$realip_remote_addr", "src_ip", 3, Shape::Word),
    of("$remote_port", "src_port", 2, Shape::Number),
    of("$realip_remote_port", "src_port", 3, Shape::Number),
    of("$server_addr", "dst_ip", 1, Shape::Word),
    of("$server_port", "dst_port", 1, Shape::Number),
    of("$request_method", "method", 2, Shape::Word),
    of("$scheme", "scheme", 2, Shape::Word),
    of("$https", "scheme", 1, Shape::Word).with(transform::scheme_if_on),
    of("$host", "host", 3, Shape::Text).with(transform::host),
    of("$server_name", "host", 1, Shape::Word).with(transform::host),
    of("$uri", "path", 1, Shape::Text),
    of("$document_uri", "path", 1, Shape::Text),
    of("$args", "query", 1, Shape::Text),
    of("$query_string", "query", 1, Shape::Text),
    of("$server_protocol", "http_version", 2, Shape::Word),
    of("$status", "status_code", 1, Shape::Number),
    of("$body_bytes_sent", "response_size", 1, Shape::Number),
    of("$bytes_sent", "bytes_sent", 1, Shape::Number),
    of("$request_length", "request_size", 1, Shape::Number),
    of("$connection", "connection_number", 1, Shape::Number),
    of("$connection_requests", "keepalive_index", 1, Shape::Number),
    of("$remote_user", "remote_user", 1, Shape::Text),
    of("$proxy_protocol_addr", "useragent_ip", 1, Shape::Word),
    of("$ssl_protocol", "server_tls_version", 1, Shape::Word),
    of("$ssl_cipher", "server_tls_cipher", 1, Shape::Word),
    of("$ssl_server_name", "server_tls_sni", 1, Shape::Text),
    of("$request_body", "", 1, Shape::Text),
    of("$upstream_addr", "upstream_addr", 1, Shape::List),
    of("$upstream_status", "upstream_status", 1, Shape::List),
    of("$upstream_response_time", "upstream_response_time", 1, Shape::List),
    of("$upstream_connect_time", "upstream_connect_time", 1, Shape::List),
    of("$upstream_header_time", "upstream_header_time", 1, Shape::List),
    of("$upstream_response_length", "upstream_response_length", 1, Shape::List),
    of("$upstream_cache_status", "upstream_cache_status", 1, Shape::Word),
    of("$pipe", "pipe", 1, Shape::Word),
];

/// Variables whose columns are not in a table.
pub(super) const OTHERS: &[[&str; 2]] = &[
    ["$msec, $time_iso8601, $time_local", "`time`, when the request ended"],
    ["$request_time", "`duration_ms`"],
    ["$request", "`method`, `path`, `query`, `http_version`"],
    ["$request_uri", "`path`, `query`"],
    ["$http_name", "`header_name`; of cookies and credentials only whether they came"],
    ["$sent_http_name", "`response_header_name`"],
    ["$ja4_name", "`name`, so that a column can be set"],
    ["$name", "`name`"],
];

impl Format {
    /// Requests as nginx logs them with a `log_format`.
    ///
    /// # Errors
    /// What is wrong with the string, and where; a string that is a JSON object is another format.
    pub fn nginx(log_format: &str, escape: NginxEscape) -> Result<Arc<Self>, Wrong> {
        if log_format.trim_start().starts_with('{') {
            let message =
                "this `log_format` writes JSON: use `format: reqin_log` with the keys of docs/servers.md, or `columns`";
            return Err(Wrong::at(0, message));
        }
        let mut items = Vec::new();
        let mut at = 0;
        while let Some(first) = log_format[at..].chars().next() {
            let rest = &log_format[at + first.len_utf8()..];
            let (item, length) = match (first, rest.chars().next()) {
                ('$', _) => variable(rest, at, escape.of())?,
                // As the file of nginx's configuration has it.
                ('\\', Some('t')) => (literal("\t"), 1),
                ('\\', Some('n' | 'r')) => (literal(""), 1),
                ('\\', Some(escaped @ ('"' | '\'' | '\\' | '$'))) => (literal(escaped.encode_utf8(&mut [0; 4])), 1),
                _ => (literal(first.encode_utf8(&mut [0; 4])), 0),
            };
            items.push(item);
            at += first.len_utf8() + length;
        }
        Wants { expected: "a line of this `log_format`", items, is_open: false, zone: Zone::default() }.format()
    }
}

fn literal(text: &str) -> Item {
    Item::Literal(text.as_bytes().to_vec())
}

/// The variable whose name follows a dollar sign at `at`, and how many bytes it has.
fn variable(rest: &str, at: usize, escape: Escape) -> Result<(Item, usize), Wrong> {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let (name, length) = match rest.strip_prefix('{') {
        Some(inner) => {
            let name = inner.split_once('}').map(|(name, _)| name);
            let name = name.ok_or_else(|| Wrong::at(at, "`${` without `}`"))?;
            (name, name.len() + 2)
        }
        None => {
            let name = &rest[..rest.len() - rest.trim_start_matches(is_letter).len()];
            (name, name.len())
        }
    };
    if name.is_empty() || !name.chars().all(is_letter) {
        return Err(Wrong::at(at, "`$` without the name of a variable behind it"));
    }
    Ok((item(name, at, escape), length))
}

/// What a variable is.
fn item(name: &str, at: usize, escape: Escape) -> Item {
    let full = format!("${name}");
    if let Some(known) = VARIABLES.iter().find(|known| known.name == full) {
        return known.item(at, escape);
    }
    let ends = |part| vec![Want::Moment(Moment::End, part)];
    let target = |name: &'static str, with| Want::Column { name: name.into(), rank: 2, with };
    let (shape, wants) = match name {
        "msec" => (Shape::Number, ends(Part::Seconds)),
        "time_local" | "time_iso8601" => {
            // `23/Nov/2026:15:35:27 +0000`, `2026-11-23T15:35:27+00:00`.
            let bytes = if name == "time_local" { 26 } else { 25 };
            return Item::value(full, at, Shape::Time, escape, ends(Part::Whole(Unit::S))).of_width(Some(bytes));
        }
        "request_time" => (Shape::Number, vec![Want::Took(Unit::S, same)]),
        "request" => (Shape::Text, request_line()),
        "request_uri" => {
            (Shape::Text, vec![target("path", transform::target_path), target("query", transform::target_query)])
        }
        _ => (Shape::Text, other(name)),
    };
    Item::value(full, at, shape, escape, wants)
}

/// What a variable is that may have any name.
fn other(name: &str) -> Vec<Want> {
    if let Some(name) = name.strip_prefix("sent_http_") {
        return response_header(name);
    }
    if let Some(name) = name.strip_prefix("http_") {
        return header(name);
    }
    if name.starts_with("cookie_") {
        return Vec::new();
    }
    match name.strip_prefix("ja4_") {
        Some(own) => vec![column(own.to_owned(), 4)],
        None => vec![column(name.to_ascii_lowercase(), 0)],
    }
}

#[cfg(test)]
#[path = "nginx_tests.rs"]
mod tests;

//! `envoy_text`: Envoy's access log as text, by its format string.
//!
//! Source: Envoy's documentation of access logging,
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>. Envoy escapes nothing: a
//! line whose values have what ends a value is refused, and JSON is the better choice.

use std::sync::Arc;

use super::options::BuiltIn;
use super::schema::Format;
use super::text::transform::{self, same};
use super::text::{
    Escape, Item, Known, Moment, Part, Shape, Want, Wants, Wrong, Zone, column, header, of, response_header,
};
use super::time::Unit;

/// What Envoy writes if nothing else is said. The client is the last address in X-Forwarded-For, to which Envoy adds the
/// connection's with `use_remote_address`; it has no port.
pub(super) const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
                       %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
                       %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
                       \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";

pub(super) const FORMAT: BuiltIn = BuiltIn {
    name: "envoy_text",
    summary: "Envoy's text log, by `log_format` or as it is by default; the default has no port, so `correlate` joins none of its rows",
    unit: Unit::S,
    format: |_| Format::envoy_text(DEFAULT, Zone::default()).unwrap_or_else(|_| Format::reqin_log(Unit::Ns)),
};

/// Commands with a column.
pub(super) const COMMANDS: [Known; 31] = [
    of("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "src_ip", 4, Shape::Word),
    of("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "src_ip", 3, Shape::Word),
    of("%DOWNSTREAM_REMOTE_ADDRESS%", "src_ip", 2, Shape::Word),
    of("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "src_ip", 1, Shape::Word),
    of("%DOWNSTREAM_DIRECT_REMOTE_PORT%", "src_port", 3, Shape::Number),
    of("%DOWNSTREAM_REMOTE_PORT%", "src_port", 1, Shape::Number),
    of("%DOWNSTREAM_LOCAL_ADDRESS%", "dst_ip", 2, Shape::Word),
    of("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "dst_ip", 1, Shape::Word),
    of("%DOWNSTREAM_LOCAL_PORT%", "dst_port", 2, Shape::Number),
    of("%REQ(:METHOD)%", "method", 1, Shape::Word),
    of("%REQ(:SCHEME)%", "scheme", 1, Shape::Word),
    of("%REQ(:AUTHORITY)%", "host", 3, Shape::Text).with(transform::host),
    of("%PROTOCOL%", "http_version", 1, Shape::Word),
    of("%RESPONSE_CODE%", "status_code", 1, Shape::Number),
    of("%RESPONSE_FLAGS%", "response_flags", 1, Shape::Word),
    of("%RESPONSE_CODE_DETAILS%", "response_code_details", 1, Shape::Text),
    of("%BYTES_SENT%", "response_size", 1, Shape::Number),
    of("%BYTES_RECEIVED%", "request_size", 1, Shape::Number),
    of("%CONNECTION_ID%", "connection_number", 1, Shape::Number),
    of("%REQUESTED_SERVER_NAME%", "server_tls_sni", 1, Shape::Text),
    of("%DOWNSTREAM_TLS_VERSION%", "server_tls_version", 1, Shape::Word),
    of("%DOWNSTREAM_TLS_CIPHER%", "server_tls_cipher", 1, Shape::Word),
    of("%TLS_JA3_FINGERPRINT%", "server_ja3", 1, Shape::Word),
    of("%TLS_JA4_FINGERPRINT%", "server_ja4", 1, Shape::Word),
    of("%UPSTREAM_HOST%", "upstream_host", 1, Shape::Word),
    of("%UPSTREAM_CLUSTER%", "upstream_cluster", 1, Shape::Text),
    of("%ROUTE_NAME%", "route_name", 1, Shape::Text),
    of("%VIRTUAL_CLUSTER_NAME%", "virtual_cluster_name", 1, Shape::Text),
    of("%UPSTREAM_TRANSPORT_FAILURE_REASON%", "upstream_transport_failure_reason", 1, Shape::Text),
    of("%REQUEST_DURATION%", "request_duration", 1, Shape::Number),
    of("%RESPONSE_DURATION%", "response_duration", 1, Shape::Number),
];

/// Commands whose columns are not in a table.
pub(super) const OTHERS: &[[&str; 2]] = &[
    ["%START_TIME%, %START_TIME(…)%", "`time`, when the request began"],
    ["%DURATION%", "`duration_ms`"],
    ["%REQ(:PATH)%, %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "`path`, `query`"],
    ["%REQ(Name)%", "`header_name`; of cookies and credentials only whether they came"],
    ["%RESP(Name)%", "`response_header_name`"],
    ["%COMMAND%", "`command`"],
];

impl Format {
    /// Requests as Envoy logs them with a format string; times without a zone are in `zone`.
    ///
    /// # Errors
    /// What is wrong with the string, and where; a string that is a JSON object is another format.
    pub fn envoy_text(log_format: &str, zone: Zone) -> Result<Arc<Self>, Wrong> {
        if log_format.trim_start().starts_with('{') {
            return Err(Wrong::at(0, "this format writes JSON: use `format: envoy_json`"));
        }
        let mut items = Vec::new();
        let mut at = 0;
        let text = log_format.strip_suffix("\\n").unwrap_or(log_format).trim_end_matches('\n');
        while let Some(length) = text.get(at..).and_then(|rest| rest.find('%')) {
            items.push(Item::Literal(text.as_bytes()[at..at + length].to_vec()));
            at += length;
            if text[at..].starts_with("%%") {
                items.push(Item::Literal(b"%".to_vec()));
                at += 2;
                continue;
            }
            let end = command_end(&text[at + 1..]).ok_or_else(|| Wrong::at(at, "`%` without one after the command"))?;
            let command = &text[at..at + end + 2];
            items.push(item(command, at)?);
            at += command.len();
        }
        items.push(Item::Literal(text.as_bytes()[at..].to_vec()));
        Wants { expected: "a line of this Envoy format", items, is_open: false, zone }.format()
    }
}

/// Where the percent sign stands that ends a command: arguments may have some of their own.
fn command_end(rest: &str) -> Option<usize> {
    match (rest.find('('), rest.find('%')) {
        (Some(open), Some(percent)) if open < percent => {
            let close = open + rest[open..].find(')')?;
            rest[close..].find('%').map(|at| close + at)
        }
        (_, percent) => percent,
    }
}

/// What a command with its percent signs is.
fn item(command: &str, at: usize) -> Result<Item, Wrong> {
    let inner = command.trim_matches('%');
    let (name, argument, _) = parts(inner);
    let valid = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    if name.is_empty() || !name.chars().all(valid) {
        return Err(Wrong::at(at, format!("`{command}` is no command of Envoy's log")));
    }
    let full = match argument {
        Some(argument) => format!("%{name}({})%", preferred(argument)),
        None => format!("%{name}%"),
    };
    let same_port = |known: &Known| match known.name {
        "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%" => Some(("src_port", 4)),
        "%DOWNSTREAM_REMOTE_ADDRESS%" => Some(("src_port", 2)),
        "%DOWNSTREAM_LOCAL_ADDRESS%" => Some(("dst_port", 1)),
        _ => None,
    };
    if let Some(known) = COMMANDS.iter().find(|known| known.name.eq_ignore_ascii_case(&full)) {
        let mut item = known.item(at, Escape::None);
        if let (Some((port, rank)), Item::Value { wants, .. }) = (same_port(known), &mut item) {
            wants.push(Want::Column { name: port.into(), rank, with: transform::port });
        }
        return Ok(item);
    }
    let text = |wants| Ok(Item::value(command, at, Shape::Text, Escape::None, wants));
    match (name, argument) {
        ("START_TIME", None) => {
            let wants = vec![Want::Moment(Moment::Begin, Part::Whole(Unit::S))];
            Ok(Item::value(command, at, Shape::Time, Escape::None, wants))
        }
        ("START_TIME", Some(pattern)) => {
            let part = Part::pattern(pattern).map_err(|message| Wrong::at(at, message))?;
            Ok(Item::value(command, at, Shape::Time, Escape::None, vec![Want::Moment(Moment::Begin, part)]))
        }
        ("DURATION", None) => {
            Ok(Item::value(command, at, Shape::Number, Escape::None, vec![Want::Took(Unit::Ms, same)]))
        }
        ("REQ", Some(argument)) => match preferred(argument) {
            ":PATH" | ":path" => {
                let want = |name: &'static str, with| Want::Column { name: name.into(), rank: 2, with };
                text(vec![want("path", transform::target_path), want("query", transform::target_query)])
            }
            name => {
                let mut wants = header(name);
                if name.eq_ignore_ascii_case("x-forwarded-for") {
                    wants.push(Want::Column { name: "src_ip".into(), rank: 0, with: transform::forwarded_last });
                }
                text(wants)
            }
        },
        ("RESP", Some(argument)) => text(response_header(preferred(argument))),
        ("TRAILER" | "DYNAMIC_METADATA" | "FILTER_STATE" | "ENVIRONMENT" | "CEL", Some(_)) => text(Vec::new()),
        (name, None) => text(vec![column(name.to_ascii_lowercase(), 0)]),
        (_, Some(_)) => text(Vec::new()),
    }
}

/// Name, argument and longest length of `NAME(argument):length`.
fn parts(command: &str) -> (&str, Option<&str>, Option<&str>) {
    match command.split_once('(') {
        Some((name, rest)) => {
            let (argument, after) = rest.rsplit_once(')').unwrap_or((rest, ""));
            (name, Some(argument), after.strip_prefix(':'))
        }
        None => match command.split_once(':') {
            Some((name, length)) => (name, None, Some(length)),
            None => (command, None, None),
        },
    }
}

/// Of two headers of which the second is taken if the first is not there, the one that has a column.
fn preferred(argument: &str) -> &str {
    match argument.split_once('?') {
        Some((_, second)) if second.starts_with(':') => second,
        Some((first, _)) => first,
        None => argument,
    }
}

#[cfg(test)]
#[path = "envoy_text_tests.rs"]
mod tests;

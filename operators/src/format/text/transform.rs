//! What is made of a value's text on the way into its column.

use std::borrow::Cow;

use super::super::cell;
use super::super::request::target;

type Made<'t> = Option<Cow<'t, str>>;

/// As it is.
pub(in crate::format) fn same(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(text))
}

/// A number that is less than 0 where there is none.
pub(in crate::format) fn not_negative(text: &str) -> Made<'_> {
    let text = text.strip_prefix('+').unwrap_or(text);
    (!text.starts_with('-')).then_some(Cow::Borrowed(text))
}

/// A size that is `-` where nothing was sent.
pub(in crate::format) fn size(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(if text == "-" { "0" } else { text.strip_prefix('+').unwrap_or(text) }))
}

/// One more than the number: requests of a connection are counted from 1.
pub(in crate::format) fn one_more(text: &str) -> Made<'_> {
    let number: u64 = text.parse().ok()?;
    Some(Cow::Owned(number.saturating_add(1).to_string()))
}

/// Whether there is a value: what it is does not leave the line.
pub(in crate::format) fn is_present(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(if matches!(text, "-" | "") { "false" } else { "true" }))
}

/// A host in lower case, without its port.
pub(in crate::format) fn host(text: &str) -> Made<'_> {
    let bare = match text.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => text,
    };
    let has_capitals = bare.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if has_capitals { Cow::Owned(bare.to_ascii_lowercase()) } else { Cow::Borrowed(bare) })
}

/// The method of a request line.
pub(in crate::format) fn method(text: &str) -> Made<'_> {
    target(text)?;
    text.split_ascii_whitespace().next().map(Cow::Borrowed)
}

/// The path of a request line, as the client sent it.
pub(in crate::format) fn path(text: &str) -> Made<'_> {
    let (path, _) = target(text)?;
    part(text, path)
}

/// The query of a request line, as the client sent it.
pub(in crate::format) fn query(text: &str) -> Made<'_> {
    let (_, query) = target(text)?;
    part(text, query)
}

/// The version that a request line ends with.
pub(in crate::format) fn protocol(text: &str) -> Made<'_> {
    let (before, version) = text.trim().rsplit_once(char::is_whitespace)?;
    let is_one = version.starts_with("HTTP/") && before.trim().contains(char::is_whitespace);
    is_one.then_some(Cow::Borrowed(version))
}

/// The host of a request line whose target has an origin: `GET https://host:443/ HTTP/1.1`.
pub(in crate::format) fn origin_host(text: &str) -> Made<'_> {
    let (_, rest) = origin(text)?;
    host(rest.split(['/', '?', ' ']).next()?)
}

/// The scheme of such a request line.
pub(in crate::format) fn origin_scheme(text: &str) -> Made<'_> {
    let (scheme, _) = origin(text)?;
    Some(Cow::Borrowed(scheme))
}

fn origin(text: &str) -> Option<(&str, &str)> {
    let target = text.split_ascii_whitespace().nth(1)?;
    let (scheme, rest) = target.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some((scheme, rest))
}

/// The path of a target: `/path?query`.
pub(in crate::format) fn target_path(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(text.split_once('?').map_or(text, |(path, _)| path)))
}

/// The query of a target.
pub(in crate::format) fn target_query(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(text.split_once('?').map_or("", |(_, query)| query)))
}

/// A query that has its question mark.
pub(in crate::format) fn marked_query(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(text.strip_prefix('?').unwrap_or(text)))
}

fn part(text: &str, (at, length): (usize, usize)) -> Made<'_> {
    text.get(at..at + length).map(Cow::Borrowed)
}

/// The first of several forwarded addresses: whom the first proxy saw, or what the client made up. None if it is no address.
pub(in crate::format) fn forwarded_first(text: &str) -> Made<'_> {
    forwarded(text.split(',').next())
}

/// The last of them: whom the proxy next to this server saw.
pub(in crate::format) fn forwarded_last(text: &str) -> Made<'_> {
    forwarded(text.rsplit(',').next())
}

fn forwarded(text: Option<&str>) -> Made<'_> {
    // IIS writes a space as `+`.
    let text = text?.trim_matches([' ', '\t', '+']);
    cell::address(text).map(|_| Cow::Borrowed(text))
}

/// The port of an address that has one.
pub(in crate::format) fn port(text: &str) -> Made<'_> {
    let (ip, port) = text.rsplit_once(':')?;
    let has_one = !ip.contains(':') || ip.ends_with(']');
    has_one.then_some(Cow::Borrowed(port))
}

/// The scheme by HAProxy's frontend, which has `~` behind its name if it ends TLS.
pub(in crate::format) fn frontend_scheme(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(if text.ends_with('~') { "https" } else { "http" }))
}

/// The name of that frontend.
pub(in crate::format) fn frontend(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(text.strip_suffix('~').unwrap_or(text)))
}

/// The scheme by whether it is `on`.
pub(in crate::format) fn scheme_if_on(text: &str) -> Made<'_> {
    Some(Cow::Borrowed(if text == "on" { "https" } else { "http" }))
}

/// Text in which spaces were written as `+`.
pub(in crate::format) fn plus(text: &str) -> Made<'_> {
    Some(if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) })
}

//! Who may ask: requests to this service by its own names, and from its own pages.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Version};

use crate::error::Error;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what is not meant for this service, or comes from another site's page.
pub(crate) fn check(request: &Request, hosts: &[String]) -> Result<(), Error> {
    let headers = request.headers();
    let mut names = headers.get_all(HOST).iter();
    match (names.next(), names.next()) {
        // RFC 9112, 3.2.
        (None, _) if request.version() >= Version::HTTP_11 => {
            return Err(Error::Refused(StatusCode::BAD_REQUEST, "a request of HTTP/1.1 has a Host"));
        }
        (Some(_), Some(_)) => return Err(Error::Refused(StatusCode::BAD_REQUEST, "a request has one Host")),
        _ => {}
    }
    if !is_own_host(headers, hosts) {
        return Err(Error::Unknown);
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && is_of_another_site(headers) {
        return Err(Error::Refused(StatusCode::FORBIDDEN, "requests from another site's page are refused"));
    }
    Ok(())
}

/// Whether the request's Host is an address, `localhost`, or a name of ours. Another site's page whose name resolves to
/// this address (DNS rebinding) is of the same origin for a browser; only its name gives it away.
fn is_own_host(headers: &HeaderMap, hosts: &[String]) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Some(authority) = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok()) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// Whether a browser says that a page from elsewhere sends this. Over plain HTTP, but for loopback, it says so by Origin alone.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let all = |name: &HeaderName| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    let host = all(&HOST).next();
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, name)| Some(name) == host);
    all(&SEC_FETCH_SITE).any(|site| site != "same-origin" && site != "none") || all(&ORIGIN).any(|origin| !own(origin))
}

/// Refuses a query of another site's page by GET. The page could not read the answer; it would still be work.
pub(crate) fn reads_from_own_page(headers: &HeaderMap) -> Result<(), Error> {
    if is_of_another_site(headers) {
        return Err(Error::Refused(StatusCode::FORBIDDEN, "requests from another site's page are refused"));
    }
    Ok(())
}

/// Whether the body is a statement in JSON; otherwise it is the statement itself. A page has to say which: what a form sends is
/// neither.
pub(crate) fn statement_type(headers: &HeaderMap) -> Result<bool, Error> {
    let given = headers.get(CONTENT_TYPE).map(|given| given.to_str().unwrap_or_default());
    let essence = given.map(|given| given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("application/json") => Ok(true),
        Some("application/sql") => Ok(false),
        _ if headers.contains_key(ORIGIN) => Err(Error::Refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the statement as application/sql, or {\"query\": \"...\"} as application/json",
        )),
        _ => Ok(false),
    }
}

//! The web service of a running engine, asked with HTTP/1.0: one request a connection, and an answer that ends with it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the service may be silent: longer than a query runs there.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most bytes of an answer.
const MAX_ANSWER: u64 = 512 << 20;

/// Where a service is.
#[derive(Debug)]
pub struct Service {
    /// Host and port.
    authority: String,
    /// What stands before the service's own paths, such as of a proxy.
    prefix: String,
    token: Option<String>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    code: u16,
    truncated: bool,
    body: Vec<u8>,
}

impl Service {
    /// The service at `url`. The token is the first line of the file, else of the environment.
    ///
    /// # Errors
    /// If the address is none that can be asked, or the token none.
    pub fn new(url: &str, token_file: Option<&Path>) -> Result<Self, String> {
        if url.starts_with("https://") {
            return Err(format!("{url}: the service speaks plain HTTP; use a tunnel, such as `ssh -L`, and http://"));
        }
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !is_plain(rest) {
            return Err(format!("`{url}` is no address of a web service: http://127.0.0.1:8080 is"));
        }
        let token = match token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file);
                Some(text.map_err(|error| format!("{} cannot be read: {error}", file.display()))?)
            }
            None => std::env::var("JA4_ENGINE_TOKEN").ok(),
        };
        let token = token.and_then(|text| text.lines().next().map(|line| line.trim().to_owned()));
        if token.as_deref().is_some_and(|token| token.is_empty() || !is_plain(token)) {
            return Err("the token is empty, or has characters that a header cannot hold".to_owned());
        }
        Ok(Self { authority: authority.to_owned(), prefix: prefix.trim_end_matches('/').to_owned(), token })
    }

    /// The answer to `GET`.
    ///
    /// # Errors
    /// If there is no answer, or another than 200.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        Ok(self.call("GET", path, "application/json", "")?.body)
    }

    /// The rows of a statement as an Arrow IPC stream, and whether there are more.
    ///
    /// # Errors
    /// If there is no answer, or another than 200: what the service says.
    pub fn sql(&self, sql: &str) -> Result<(Vec<u8>, bool), String> {
        let reply = self.call("POST", "/sql", "application/vnd.apache.arrow.stream", sql)?;
        Ok((reply.body, reply.truncated))
    }

    fn call(&self, method: &str, path: &str, accept: &str, body: &str) -> Result<Reply, String> {
        let authority = &self.authority;
        let fault = |error: io::Error| {
            format!(
                "{authority} does not answer: {error}; only a pipeline with a section `serve` does, at its `listen`"
            )
        };
        let answer = self.exchange(method, path, accept, body).map_err(fault)?;
        let reply =
            parse(&answer).map_err(|reason| format!("the answer of {authority} is not understood: {reason}"))?;
        match reply.code {
            200 => Ok(reply),
            401 | 403 if self.token.is_none() => {
                Err(format!("{authority} answers {}: {}; --token-file names a token", reply.code, said(&reply.body)))
            }
            code => Err(format!("{authority} answers {code}: {}", said(&reply.body))),
        }
    }

    fn exchange(&self, method: &str, path: &str, accept: &str, body: &str) -> io::Result<Vec<u8>> {
        let Self { authority, prefix, token } = self;
        let none = || io::Error::new(io::ErrorKind::NotFound, "no such host");
        let address = authority.to_socket_addrs()?.next().ok_or_else(none)?;
        let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = format!("{method} {prefix}{path} HTTP/1.0\r\nHost: {authority}\r\nAccept: {accept}\r\n");
        if let Some(token) = token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn parse(answer: &[u8]) -> Result<Reply, &'static str> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("it has no head")?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "its head is no text")?;
    let body = &answer[end + 4..];
    let mut lines = head.lines();
    let status = lines.next().filter(|line| line.starts_with("HTTP/1."));
    let code = status.and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or("it is not HTTP")?;
    let mut truncated = false;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("x-truncated", value) => truncated = value == "true",
            ("transfer-encoding", _) => return Err("it comes in chunks, which HTTP/1.0 does not have"),
            ("content-length", length) if length.parse() != Ok(body.len()) => return Err("a part of it is missing"),
            _ => {}
        }
    }
    Ok(Reply { code, truncated, body: body.to_owned() })
}

/// What an answer of another code than 200 says.
fn said(body: &[u8]) -> String {
    let Ok(fault) = serde_json::from_slice::<Value>(body) else {
        return String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
    };
    let error = fault["error"].as_str().unwrap_or("nothing more");
    fault["help"].as_str().map_or_else(|| error.to_owned(), |help| format!("{error}; {help}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_or_refused() {
        let reply = parse(b"HTTP/1.0 200 OK\r\nX-Truncated: true\r\nContent-Length: 2\r\n\r\nab").expect("an answer");
        assert_eq!(reply, Reply { code: 200, truncated: true, body: b"ab".to_vec() });
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\n\r\n").expect("an answer").code, 404);
        for (wrong, reason) in [
            (&b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nab"[..], "missing"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "chunks"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
            (b"", "no head"),
        ] {
            assert!(parse(wrong).expect_err("a fault").contains(reason));
        }
        assert_eq!(said(br#"{"error":"no","help":"ask"}"#), "no; ask");
        assert_eq!(said(b"plain\n"), "plain");
    }

    #[test]
    fn only_plain_addresses_are_asked() {
        let service = Service::new("http://127.0.0.1:8080/ja4/", None).expect("an address");
        assert_eq!((service.authority.as_str(), service.prefix.as_str()), ("127.0.0.1:8080", "/ja4"));
        for wrong in ["https://a:1", "http://", "http://a b:1", "http://a:1/\r\nX: y", "http://user@a:1"] {
            assert!(Service::new(wrong, None).is_err(), "{wrong}");
        }
    }
}

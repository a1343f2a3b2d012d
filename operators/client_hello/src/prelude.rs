//! What a client may send before its ClientHello: HTTP CONNECT (RFC 9110 section 9.3.6) and the requests before it, SOCKS
//! 4 and 5 (RFC 1928, RFC 1929), the PROXY protocol, and on request the plain text before STARTTLS (RFC 3207, RFC 2595).
//!
//! Only the client's side is read. Whether the server agreed shows in what follows: a ClientHello or not.

use super::bytes::{u8_at, u16_at};
use super::http;
use super::records::Walk;

/// Bytes before a hello that are looked through.
pub(crate) const MAX_PRELUDE: usize = 16 << 10;

const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of a mail protocol that is followed.
const MAX_LINE: usize = 2048;
/// The longest request of SOCKS 4 that is followed: user and host name have no length of their own.
const MAX_SOCKS4: usize = 1024;
/// `SSLRequest` of PostgreSQL: length and code.
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];

/// What stands at the front of a stream that is not TLS.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Prelude {
    /// Nothing that is known here.
    NotOurs,
    /// Undecided before the stream is this long.
    NeedMore(usize),
    /// So many bytes go before what may be a hello.
    Skip(usize),
}

/// Judges the front of a stream, which has been looked through as far as `walk` says. It is the `first` if nothing was
/// passed over before; `starttls` for lines of text too.
pub(crate) fn judge(stream: &[u8], walk: &mut Walk, first: bool, starttls: bool) -> Prelude {
    let searched = walk.searched;
    let known = match stream.first() {
        None => Some(Prelude::NeedMore(1)),
        Some(b'A'..=b'Z') => proxy_v1(stream, searched).or_else(|| http::request(stream, walk, first)),
        Some(b'\r') => proxy_v2(stream),
        Some(4) if stream.len() > MAX_SOCKS4 => Some(socks4(&stream[..MAX_SOCKS4]).unwrap_or(Prelude::NotOurs)),
        Some(4) => Some(socks4(stream).unwrap_or(Prelude::NeedMore(stream.len() + 1))),
        Some(5) => Some(socks5(stream).unwrap_or(Prelude::NeedMore(stream.len() + 1))),
        Some(_) => None,
    };
    let verdict = match known {
        Some(Prelude::NeedMore(need)) if need > MAX_PRELUDE => Prelude::NotOurs,
        Some(known) => known,
        None if starttls => line(stream, searched),
        None => Prelude::NotOurs,
    };
    walk.searched = stream.len();
    verdict
}

/// Whether these bytes are certainly the first of a client that asks for a tunnel, or that talks to a proxy.
pub(crate) fn surely_starts(stream: &[u8]) -> bool {
    http::surely_starts(stream) || stream.starts_with(b"PROXY ") || stream.starts_with(PROXY_V2)
}

/// Version 1: a line of text.
fn proxy_v1(stream: &[u8], searched: usize) -> Option<Prelude> {
    const START: &[u8] = b"PROXY ";
    let have = stream.len().min(START.len());
    if stream[..have] != START[..have] {
        return None;
    }
    // The end may have begun in what was searched.
    let from = searched.saturating_sub(1).min(stream.len());
    let found = stream[from..].windows(2).position(|window| window == b"\r\n");
    Some(found.map_or(Prelude::NeedMore(stream.len() + 1), |at| Prelude::Skip(from + at + 2)))
}

fn proxy_v2(stream: &[u8]) -> Option<Prelude> {
    let have = stream.len().min(PROXY_V2.len());
    if stream[..have] != PROXY_V2[..have] {
        return None;
    }
    let len = u16_at(stream, 14).map(|len| 16 + usize::from(len));
    Some(len.map_or(Prelude::NeedMore(16), |len| upto(stream, len)))
}

/// Version 4 and 4a: command, port, address, user name, and a host name if the address is 0.0.0.x.
fn socks4(stream: &[u8]) -> Option<Prelude> {
    if u8_at(stream, 1)? != 1 {
        return Some(Prelude::NotOurs);
    }
    let address = stream.get(4..8)?;
    let user = stream[8..].iter().position(|byte| *byte == 0)? + 9;
    if address[..3] != [0; 3] || address[3] == 0 {
        return Some(Prelude::Skip(user));
    }
    let host = stream[user..].iter().position(|byte| *byte == 0)? + 1;
    Some(Prelude::Skip(user + host))
}

/// Greeting, perhaps user name and password, request.
fn socks5(stream: &[u8]) -> Option<Prelude> {
    let methods = usize::from(u8_at(stream, 1)?);
    if methods == 0 {
        return Some(Prelude::NotOurs);
    }
    let mut at = 2 + methods;
    if u8_at(stream, at)? == 1 {
        at += 2 + usize::from(u8_at(stream, at + 1)?);
        at += 1 + usize::from(u8_at(stream, at)?);
    }
    let (version, command) = (u8_at(stream, at)?, u8_at(stream, at + 1)?);
    if version != 5 || command != 1 {
        return Some(Prelude::NotOurs);
    }
    let address = match u8_at(stream, at + 3)? {
        1 => 4,
        3 => 1 + usize::from(u8_at(stream, at + 4)?),
        4 => 16,
        _ => return Some(Prelude::NotOurs),
    };
    Some(upto(stream, at + 4 + address + 2))
}

/// A line of text of SMTP, IMAP or POP3, or PostgreSQL's request.
fn line(stream: &[u8], searched: usize) -> Prelude {
    if stream[..stream.len().min(8)] == SSL_REQUEST[..stream.len().min(8)] {
        return upto(stream, 8);
    }
    let text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | 0x80..);
    let from = searched.min(stream.len());
    let end = stream[from..].iter().position(|byte| !text(byte)).map(|at| from + at);
    match end {
        Some(at) if stream[at] == b'\n' && at <= MAX_LINE => Prelude::Skip(at + 1),
        None if stream.len() <= MAX_LINE => Prelude::NeedMore(stream.len() + 1),
        _ => Prelude::NotOurs,
    }
}

fn upto(stream: &[u8], len: usize) -> Prelude {
    if stream.len() < len { Prelude::NeedMore(len) } else { Prelude::Skip(len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(stream: &[u8], starttls: bool) -> Prelude {
        super::judge(stream, &mut Walk::default(), true, starttls)
    }

    /// The whole is skipped, and no front of it is taken for anything else.
    fn skips(stream: &[u8], starttls: bool) {
        let with_more = [stream, &[22, 3, 1]].concat();
        assert_eq!(judge(&with_more, starttls), Prelude::Skip(stream.len()), "{stream:?}");
        let mut walk = Walk::default();
        for len in 1..stream.len() {
            let verdict = super::judge(&stream[..len], &mut walk, true, starttls);
            assert!(matches!(verdict, Prelude::NeedMore(need) if need > len), "{len} {verdict:?}");
            assert_eq!(super::judge(&with_more, &mut { walk }, true, starttls), Prelude::Skip(stream.len()), "{len}");
        }
    }

    #[test]
    fn tunnels_are_skipped() {
        skips(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", false);
        for ends in [["\n", "\n"], ["\r\n", "\n"], ["\n", "\r\n"]] {
            let [line, empty] = ends;
            skips(format!("CONNECT a.example:443 HTTP/1.0{line}{empty}").as_bytes(), false);
            skips(format!("CONNECT a.example:443 HTTP/1.0{line}A: b\r{line}{empty}").as_bytes(), false);
        }
        skips(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n", false);
        skips(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02ab", false);
        skips(&[4, 1, 1, 187, 192, 0, 2, 1, b'u', 0], false);
        skips(&[4, 1, 1, 187, 0, 0, 0, 1, 0, b'a', b'.', b'b', 0], false);
        skips(&[5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 1, 187], false);
        skips(&[5, 2, 0, 2, 1, 1, b'u', 2, b'p', b'w', 5, 1, 0, 3, 2, b'a', b'b', 1, 187], false);
        skips(&[[5, 1, 0, 5, 1, 0, 4].as_slice(), &[9; 18]].concat(), false);
    }

    #[test]
    fn lines_are_skipped_on_request() {
        skips(b"EHLO example.org\r\n", true);
        skips(b"a1 STARTTLS\r\n", true);
        skips(SSL_REQUEST, true);
        assert_eq!(judge(b"EHLO example.org\r\n", false), Prelude::NotOurs);
        assert_eq!(judge(b"\0\x01", true), Prelude::NotOurs);
        assert_eq!(judge(&[b'a'; MAX_LINE + 1], true), Prelude::NotOurs);
        assert_eq!(judge(b"GETS / HTTP/1.1\r\n", false), Prelude::NotOurs);
        assert_eq!(judge(&[4, 2, 0, 0], false), Prelude::NotOurs);
    }

    #[test]
    fn names_that_never_end_are_no_socks_request() {
        let request = |name: usize| [&[4, 1, 1, 187, 192, 0, 2, 1][..], &vec![b'u'; name], &[0]].concat();
        assert_eq!(judge(&request(1000), false), Prelude::Skip(1009));
        assert_eq!(judge(&request(1100), false), Prelude::NotOurs);
    }
}

//! What a client may send before its ClientHello: HTTP CONNECT (RFC 9110 section 9.3.6), SOCKS 4 and 5 (RFC 1928,
//! RFC 1929), the PROXY protocol, and on request the plain text before STARTTLS (RFC 3207, RFC 2595).
//!
//! Only the client's side is read. Whether the server agreed shows in what follows: a ClientHello or not.

use super::bytes::{u8_at, u16_at};

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

/// Judges the front of a stream, of which so many bytes have been searched in vain; `starttls` for lines of text too.
pub(crate) fn judge(stream: &[u8], searched: usize, starttls: bool) -> Prelude {
    let known = match stream.first() {
        None => Some(Prelude::NeedMore(1)),
        Some(b'C') => header(stream, searched, b"CONNECT ", b"\r\n\r\n"),
        Some(b'P') => header(stream, searched, b"PROXY ", b"\r\n"),
        Some(b'\r') => proxy_v2(stream),
        Some(4) if stream.len() > MAX_SOCKS4 => Some(socks4(&stream[..MAX_SOCKS4]).unwrap_or(Prelude::NotOurs)),
        Some(4) => Some(socks4(stream).unwrap_or(Prelude::NeedMore(stream.len() + 1))),
        Some(5) => Some(socks5(stream).unwrap_or(Prelude::NeedMore(stream.len() + 1))),
        Some(_) => None,
    };
    match known {
        Some(Prelude::NeedMore(need)) if need > MAX_PRELUDE => Prelude::NotOurs,
        Some(known) => known,
        None if starttls => line(stream, searched),
        None => Prelude::NotOurs,
    }
}

/// Whether these bytes are certainly the first of a client that asks for a tunnel.
pub(crate) fn surely_starts(stream: &[u8]) -> bool {
    stream.starts_with(b"CONNECT ") || stream.starts_with(b"PROXY ") || stream.starts_with(PROXY_V2)
}

/// Text that begins with `start`, as far as it has come, and ends with `end`; `None` if it begins otherwise.
fn header(stream: &[u8], searched: usize, start: &[u8], end: &[u8]) -> Option<Prelude> {
    let have = stream.len().min(start.len());
    if stream[..have] != start[..have] {
        return None;
    }
    // The end may have begun in what was searched.
    let from = searched.saturating_sub(end.len() - 1).min(stream.len());
    let found = stream[from..].windows(end.len()).position(|window| window == end);
    Some(found.map_or(Prelude::NeedMore(stream.len() + 1), |at| Prelude::Skip(from + at + end.len())))
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

    /// The whole is skipped, and no front of it is taken for anything else.
    fn skips(stream: &[u8], starttls: bool) {
        let with_more = [stream, &[22, 3, 1]].concat();
        assert_eq!(judge(&with_more, 0, starttls), Prelude::Skip(stream.len()), "{stream:?}");
        for len in 1..stream.len() {
            assert!(matches!(judge(&stream[..len], len - 1, starttls), Prelude::NeedMore(need) if need > len), "{len}");
            assert_eq!(judge(&with_more, len, starttls), Prelude::Skip(stream.len()), "{len}");
        }
    }

    #[test]
    fn tunnels_are_skipped() {
        skips(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", false);
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
        assert_eq!(judge(b"EHLO example.org\r\n", 0, false), Prelude::NotOurs);
        assert_eq!(judge(b"\0\x01", 0, true), Prelude::NotOurs);
        assert_eq!(judge(&[b'a'; MAX_LINE + 1], 0, true), Prelude::NotOurs);
        assert_eq!(judge(b"GET / HTTP/1.1\r\n", 0, false), Prelude::NotOurs);
        assert_eq!(judge(&[4, 2, 0, 0], 0, false), Prelude::NotOurs);
    }

    #[test]
    fn names_that_never_end_are_no_socks_request() {
        let request = |name: usize| [&[4, 1, 1, 187, 192, 0, 2, 1][..], &vec![b'u'; name], &[0]].concat();
        assert_eq!(judge(&request(1000), 0, false), Prelude::Skip(1009));
        assert_eq!(judge(&request(1100), 0, false), Prelude::NotOurs);
    }
}

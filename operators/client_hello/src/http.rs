//! HTTP requests that a client sends before its tunnel is there (RFC 9110, RFC 9112): CONNECT, and what it asked the proxy
//! before on the same connection.
//!
//! A request to a proxy names the whole URI (RFC 9112 section 3.2.2); any number of these are passed over, a CONNECT that was
//! refused with 407 too. `GET /path` is what every web server gets, and no proxy has to answer it. One of these is passed
//! over, because a hello may follow it (a proxy asked for its own page; TLS by `Upgrade`, RFC 2817). At the second one it
//! is a web server's connection, and over. Plain HTTP on a watched port then costs the extractor 4 to 5 % more
//! instructions than if none were passed over (connections of 14 and 38 packets with one and four requests, by callgrind);
//! with all of them it would be 10 %, and 15 to 25 % more time, most of it to wait for their bytes from memory.
//!
//! What is kept is at most the part of one head, or the chunks of one content, that has come, within [`MAX_PRELUDE`].

use super::prelude::{MAX_PRELUDE, Prelude};
use super::records::Walk;

/// Methods that are followed (RFC 9110 section 9, RFC 5789), with the space behind them.
const METHODS: [&[u8]; 9] =
    [b"CONNECT ", b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"DELETE ", b"PATCH ", b"TRACE "];
/// So many of these are without content (RFC 9110 sections 9.3.1, 9.3.2 and 9.3.6), unless a client has its own idea of them.
const WITHOUT_CONTENT: usize = 3;
/// The longest line with the size of a chunk that is followed.
const MAX_CHUNK_LINE: usize = 64;

/// What follows the head of a request.
enum Content {
    Length(usize),
    Chunked,
    /// It ends where nobody can tell.
    Unknown,
}

/// Judges a stream that may begin with a request; `None` if it begins otherwise. `first` if nothing was before it.
pub(crate) fn request(stream: &[u8], walk: &mut Walk, first: bool) -> Option<Prelude> {
    let begins = |method: &&[u8]| {
        let have = stream.len().min(method.len());
        stream[..have] == method[..have]
    };
    let method = METHODS.iter().position(begins)?;
    let Some(target) = stream.get(METHODS[method].len()) else { return Some(Prelude::NeedMore(stream.len() + 1)) };
    let (to_tunnel, of_path) = (method == 0, *target == b'/');
    if of_path && !first {
        return Some(Prelude::NotOurs);
    }
    if walk.chunk == 0 {
        // The end may have begun in what was searched.
        let from = walk.searched.saturating_sub(2).min(stream.len());
        let Some(head) = empty_line(stream, from) else { return Some(Prelude::NeedMore(stream.len() + 1)) };
        // Of most requests the fields are not looked at: they have no content.
        let without = to_tunnel || of_path && method < WITHOUT_CONTENT;
        match if without { Content::Length(0) } else { content(&stream[..head]) } {
            Content::Length(len) if len <= MAX_PRELUDE => return Some(Prelude::Skip(head + len)),
            Content::Length(_) | Content::Unknown => return Some(Prelude::NotOurs),
            Content::Chunked => (walk.chunk, walk.searched) = (head as u32, 0),
        }
    }
    Some(chunks(stream, walk))
}

/// Whether these bytes are certainly the first of a request to a proxy.
pub(crate) fn surely_starts(stream: &[u8]) -> bool {
    let target = |method: &&[u8]| stream.strip_prefix(*method).map(|target| (method[0], target));
    let Some((method, target)) = METHODS.iter().find_map(target) else { return false };
    method == b'C' || target.starts_with(b"http://")
}

/// Where the line after the first empty one begins, looked for from `from`. Lines end with LF or CRLF (RFC 9112 section
/// 2.2).
fn empty_line(stream: &[u8], from: usize) -> Option<usize> {
    // Blocks without the end of a line that is followed by another are passed over at once: nearly all are such.
    const BLOCK: usize = 32;
    let is = |byte: u8, other: u8| u8::from(byte == other);
    let ends = |(here, next): (&u8, &u8)| is(*here, b'\n') & (is(*next, b'\n') | is(*next, b'\r'));
    let mut rest = stream.get(from..)?;
    while let Some(block) = rest.first_chunk::<{ BLOCK + 1 }>() {
        if block[..BLOCK].iter().zip(&block[1..]).fold(0, |found, pair| found | ends(pair)) != 0 {
            break;
        }
        rest = &rest[BLOCK..];
    }
    let at = stream.len() - rest.len();
    rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(line, _)| match rest[line + 1..] {
        [b'\n', ..] => Some(at + line + 2),
        [b'\r', b'\n', ..] => Some(at + line + 3),
        _ => None,
    })
}

/// How long the content is, by the fields of a head (RFC 9112 section 6.3).
fn content(head: &[u8]) -> Content {
    let mut length = Some(0);
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.len().saturating_sub(7);
            return if value[last..].eq_ignore_ascii_case(b"chunked") { Content::Chunked } else { Content::Unknown };
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        }
    }
    length.map_or(Content::Unknown, Content::Length)
}

/// Walks the chunks of a content (RFC 9112 section 7.1), each once.
fn chunks(stream: &[u8], walk: &mut Walk) -> Prelude {
    loop {
        let at = walk.chunk as usize;
        let rest = stream.get(at..).unwrap_or_default();
        let Some(line) = rest.iter().take(MAX_CHUNK_LINE).position(|byte| *byte == b'\n') else {
            return if rest.len() < MAX_CHUNK_LINE { Prelude::NeedMore(stream.len() + 1) } else { Prelude::NotOurs };
        };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let Some(size) =
            std::str::from_utf8(&rest[..digits]).ok().and_then(|text| usize::from_str_radix(text, 16).ok())
        else {
            return Prelude::NotOurs;
        };
        if size == 0 {
            let from = walk.searched.saturating_sub(2).max(at + line);
            return empty_line(stream, from).map_or(Prelude::NeedMore(stream.len() + 1), Prelude::Skip);
        }
        if size > MAX_PRELUDE {
            return Prelude::NotOurs;
        }
        let end = at + line + 1 + size;
        walk.chunk = match stream.get(end..).unwrap_or_default() {
            [b'\n', ..] => end as u32 + 1,
            [b'\r', b'\n', ..] => end as u32 + 2,
            [] | [b'\r'] => return Prelude::NeedMore(stream.len().max(end) + 1),
            _ => return Prelude::NotOurs,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict, however often the stream was looked at before.
    #[track_caller]
    fn judged(stream: &[u8], first: bool) -> Prelude {
        let (mut walk, whole) = (Walk::default(), request(stream, &mut Walk::default(), first));
        for len in 1..=stream.len() {
            let part = request(&stream[..len], &mut walk, first);
            walk.searched = len;
            match part {
                Some(Prelude::NeedMore(need)) => assert!(need > len, "{len} {need}"),
                part => {
                    assert_eq!(part, whole, "{len}");
                    return part.expect("a request");
                }
            }
        }
        whole.expect("a request")
    }

    #[test]
    fn requests_end_behind_their_content() {
        let head = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n";
        assert_eq!(judged(format!("{head}CONNECT").as_bytes(), false), Prelude::Skip(head.len()));
        let head = "GET http://a.example/ HTTP/1.1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(judged(format!("{head}{{}}").as_bytes(), false), Prelude::Skip(head.len() + 2));
        for line in ["\n", "\r\n"] {
            let head = format!("POST http://a.example/ HTTP/1.1{line}content-LENGTH:  12 {line}{line}");
            assert_eq!(judged(format!("{head}Hello\r\n\r\nall").as_bytes(), false), Prelude::Skip(head.len() + 12));
            let head = format!("PUT http://a.example/ HTTP/1.1{line}Transfer-Encoding: gzip, Chunked{line}{line}");
            let chunks = format!("5{line}Hello{line}00a;x=y{line}0123456789{line}0{line}");
            for trailers in ["", "A: b\r\n"] {
                let stream = format!("{head}{chunks}{trailers}{line}");
                assert_eq!(judged(format!("{stream}\n\n").as_bytes(), false), Prelude::Skip(stream.len()), "{stream}");
            }
        }
    }

    #[test]
    fn a_second_request_for_a_path_is_to_no_proxy() {
        let request = b"GET /proxy.pac HTTP/1.1\r\n\r\n";
        assert_eq!(judged(request, true), Prelude::Skip(request.len()));
        assert_eq!(judged(request, false), Prelude::NotOurs);
    }

    #[test]
    fn content_without_an_end_is_not_followed() {
        for field in [
            "Content-Length: many",
            "Content-Length: 18446744073709551615",
            "Content-Length: 16385",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: x",
        ] {
            let stream = format!("POST http://a.example/ HTTP/1.1\r\n{field}\r\n\r\n");
            assert_eq!(judged(stream.as_bytes(), true), Prelude::NotOurs, "{field}");
        }
        let long = format!("5;{}\r\n", "x".repeat(MAX_CHUNK_LINE));
        for chunk in ["\r\n", "x\r\n", "fffff\r\n", "ffffffffffffffffff\r\n", "1\r\nab", "1\r\na\rb", &long] {
            let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
            assert_eq!(judged(stream.as_bytes(), true), Prelude::NotOurs, "{chunk}");
        }
    }

    #[test]
    fn the_empty_line_is_found_wherever_it_is() {
        for len in 0..100 {
            for (end, found) in
                [("\n\n", true), ("\n\r\n", true), ("\r\n\r", false), ("\r\n", false), ("\n\r\r\n", false)]
            {
                let text = format!("{}{end}", "\n\rx".repeat(len / 3) + &"x".repeat(len % 3));
                let more = format!("{text}{}", "x".repeat(50));
                let place = found.then_some(text.len());
                assert_eq!(
                    (empty_line(text.as_bytes(), 0), empty_line(more.as_bytes(), 0)),
                    (place, place),
                    "{text:?}"
                );
            }
        }
    }
}

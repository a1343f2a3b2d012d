//! Lines of text, as servers write them by their format strings.

use std::sync::Arc;

use arrow::array::AsArray;
use operators::format::{Captures, Format, FormatName, LineParser, NginxEscape, Rows, W3cUnit, Zone};

use super::{NOW, Random, mutated_of, slowness};

/// Lines of the formats below, good and bad.
const SEEDS: [&[u8]; 9] = [
    br#"192.0.2.1 - a [23/Nov/2026:15:35:27 +0000] "GET /x?\"y HTTP/1.1" 200 5 "-" "{\x22at\x22:1}""#,
    br#"1795448127143731 157 2001:db8::1 5000 a b 404 "GET /x HTTP/1.1" caf\xc3\xa9 \" 198.51.100.7, x"#,
    br#"192.0.2.1 user [23/Nov/2026:15:35:27 +0000] 1795448127.143 0.004 "GET /x HTTP/1.1" 200 "0.004, - : 0.2" "\u00e9\ud83d""#,
    br#"<134>Nov 23 15:35:27 here haproxy[12]: 2001:db8::1:5000 [23/Nov/2026:15:35:27.001] f~ b/s -1/2/3/4/+5 -1 +200 - - LR-- 1/1/1/1/0 0/0 {a#7Cb|x} {} "GET /#22 HTTP/1.1""#,
    br#"[2026-11-23T15:35:27.000Z] "GET /x HTTP/2" 200 - 0 5 6 - "192.0.2.1, 198.51.100.7" "a" "b" "c" "d""#,
    b"#Fields: date time c-ip sc-status cs(User-Agent)",
    b"2026-11-23 15:35:27 192.0.2.9 GET /x - 443 - 192.0.2.1 curl+\"x - 200 0 0 15",
    b"#Date: 2026-11-23 15:35:27",
    br#"h2 2026-11-23T15:35:27.186641Z lb 192.0.2.1:2817 - -1 -1 -1 502 - 0 57 "GET https://a:443/b HTTP/2.0" "a" x TLSv1.2 - "r" "a" "c" 1 2026-11-23T15:35:26.000000Z "f" "-""#,
];

/// Pieces of which lines are made anew.
const PIECES: [&[u8]; 14] =
    [b"\"", b"\\\"", b"\" \"", b" ", b"\\x", b"#", b"[", b"] \"", b":", b"|", b"}", b"-", b"#Fields: ", b"\t"];

/// The formats that are tried.
pub(super) fn parsers() -> Vec<LineParser> {
    let captures =
        Captures { request: vec!["Host".to_owned(), "User-Agent".to_owned()], response: vec!["Server".to_owned()] };
    let http =
        "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r";
    let built = [
        Format::apache(
            "%{begin:usec}t %D %{c}a %{remote}p %u %>s \"%r\" %{User-Agent}i %{X-Forwarded-For}i",
            Zone::default(),
        ),
        Format::nginx(
            "$remote_addr $remote_user [$time_local] $msec $request_time \"$request\" $status \"$upstream_response_time\" \"$http_a\"",
            NginxEscape::Json,
        ),
        Format::haproxy(http, &captures, Zone::default()),
        Format::w3c("date time c-ip cs-method cs-uri-stem sc-status cs(User-Agent)", W3cUnit::W3c),
    ];
    let named =
        [FormatName::Combined, FormatName::HaproxyHttps, FormatName::EnvoyText, FormatName::Iis, FormatName::AwsAlb];
    let named = named.into_iter().map(|name| (name.built_in().format)(name.built_in().unit));
    let formats = named.chain(built.into_iter().map(|format| format.expect("a format")));
    formats.map(|format| LineParser::new(format, NOW)).collect()
}

/// Reads a line by one of them: no panic, in its time, and a value of a client comes back.
pub(super) fn try_line(parsers: &mut [LineParser], nth: usize, line: &[u8], agent: Option<&[u8]>) -> bool {
    let parser = &mut parsers[if agent.is_some() { 0 } else { nth }];
    let format = Arc::clone(parser.format());
    let row = parser.parse(line).ok().map(|row| {
        let mut rows = Rows::new(&format);
        rows.push(0, &row);
        rows.take().expect("rows fit")
    });
    if let Some(agent) = agent.filter(|agent| !matches!(*agent, b"-" | b"")) {
        let row = row.as_ref().expect("a row");
        let agents = row.column_by_name("header_user_agent").expect("a column").as_string::<i32>();
        assert_eq!(agents.value(0), String::from_utf8_lossy(agent));
    }
    assert!(slowness(parser, line) <= 1.0, "slow");
    row.is_some()
}

/// A line of a server with something changed.
pub(super) fn mutated(random: &mut Random) -> Vec<u8> {
    mutated_of(random, &SEEDS, &PIECES)
}

/// A right line in the combined format with this User-Agent, which its server escapes.
pub(super) fn around(agent: &[u8]) -> Vec<u8> {
    let mut line = br#"192.0.2.1 - - [23/Nov/2026:15:35:27 +0000] "GET / HTTP/1.1" 200 5 "-" ""#.to_vec();
    for byte in agent {
        match byte {
            b'"' | b'\\' => line.extend([b'\\', *byte]),
            b' '..=b'~' => line.push(*byte),
            _ => line.extend(format!("\\x{byte:02x}").into_bytes()),
        }
    }
    line.push(b'"');
    line
}

//! The JSON of servers, behind headers of syslog messages.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use operators::format::{Format, FormatName, LineParser, Rows};

use super::{NOW, Random, mutated_of, slowness};

/// Lines of the formats below, good and bad.
const SEEDS: [&[u8]; 6] = [
    br#"<190>1 2026-11-23T15:35:27.143Z web caddy 7 - [a@1 b="\]{"][c] {"ts":1795448127.6,"duration":0.5,"request":{"remote_ip":"2001:db8::7","remote_port":"41342","host":"a:1","uri":"/a?b","headers":{"Accept":["a","b"],"Cookie":[]},"tls":{"version":772}},"status":200}"#,
    br#"<190>Nov 23 15:35:27 web caddy[7]: {"ts":1795448127,"request":{"remote_ip":"192.0.2.1","headers":{"Accept":[[],{},null,1]}}}"#,
    br#"<13>haproxy: {"start_time":"2026-11-23T15:35:27.143Z","downstream_direct_remote_address":"[fe80::1%eth0]:5","authority":"[::1]:443","path":"x://y?z"}"#,
    br#"<191>{"StartUTC":"2026-11-23T15:35:27.143731829Z","Duration":87654321,"ClientAddr":"192.0.2.1:5","RequestPath":"/\x41","request_Cookie":""}"#,
    br#"<0>2026-11-23T15:35:27.143731+00:00 h t: {"EdgeStartTimestamp":1795448127143000000,"EdgeEndTimestamp":"x","ClientIP":"::1","RequestHeaders":{"accept":"a"},"BotScore":-1}"#,
    b"<190>1 - - - - - - \xef\xbb\xbf{\"ts\":\"2026-11-23T15:35:27Z\",\"request\":{\"remote_ip\":\"192.0.2.1\"}}",
];

/// Pieces of which lines are made anew.
const PIECES: [&[u8]; 12] =
    [b"<13>", b"<", b"1 ", b"[", b"]", b"\"", b"\\", b": ", b"[],", b"{\"request\":", b"-", b"Nov 23 15:35:27 "];

/// The formats that are tried.
pub(super) fn parsers() -> Vec<LineParser> {
    let names = [FormatName::Caddy, FormatName::EnvoyJson, FormatName::Traefik, FormatName::Cloudflare];
    let parser = |name: FormatName| {
        let built_in = name.built_in();
        let format = Format::clone(&(built_in.format)(built_in.unit)).with_syslog_columns();
        LineParser::new(Arc::new(format), NOW)
    };
    names.into_iter().map(parser).collect()
}

/// Reads a line by one of them: no panic, in its time, the same as a parser that has read nothing before, and a value of a
/// client comes back.
pub(super) fn try_line(parsers: &mut [LineParser], nth: usize, line: &[u8], agent: Option<&[u8]>) -> bool {
    let parser = &mut parsers[if agent.is_some() { 0 } else { nth }];
    let mut fresh = LineParser::new(Arc::clone(parser.format()), NOW);
    let row = parsed(parser, line);
    assert_eq!(row, parsed(&mut fresh, line), "it was remembered");
    if let Some(agent) = agent {
        let row = row.as_ref().expect("a row");
        let text = |name: &str| row.column_by_name(name).expect("a column").as_string::<i32>().value(0).to_owned();
        assert_eq!((text("syslog_app"), text("syslog_severity")), ("caddy".to_owned(), "info".to_owned()));
        if !matches!(agent, b"-" | b"") {
            assert_eq!(text("header_user_agent"), format!("{}, b", String::from_utf8_lossy(agent)));
        }
    }
    assert!(slowness(parser, line) <= 1.0, "slow");
    row.is_some()
}

fn parsed(parser: &mut LineParser, line: &[u8]) -> Option<RecordBatch> {
    let format = Arc::clone(parser.format());
    let mut rows = Rows::new(&format);
    rows.push(0, &parser.parse(line).ok()?);
    Some(rows.take().expect("rows fit"))
}

/// A line of a server with something changed.
pub(super) fn mutated(random: &mut Random) -> Vec<u8> {
    mutated_of(random, &SEEDS, &PIECES)
}

/// A right line of Caddy's in a message, with this User-Agent, of which only what would end the string is escaped.
pub(super) fn around(agent: &[u8]) -> Vec<u8> {
    let mut line =
        br#"<190>Nov 23 15:35:27 web caddy[7]: {"ts":1795448127.6,"request":{"remote_ip":"192.0.2.1","headers":{"User-Agent":[""#
            .to_vec();
    for byte in agent {
        if matches!(byte, b'"' | b'\\') {
            line.push(b'\\');
        }
        line.push(*byte);
    }
    line.extend(br#"","b"]}}}"#);
    line
}

//! Examples of IIS and of W3C's draft, and directives that come between lines.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::text::tests::{NOW, check, refused, value, wrong};
use super::super::{LineParser, Reject, Rows};
use super::*;

fn iis() -> Arc<Format> {
    (IIS_FORMAT.format)(Unit::S)
}

/// Reads lines of a file: rows as the client's address and the status, or why not.
fn read(parser: &mut LineParser, file: usize, lines: &[&str]) -> Vec<String> {
    parser.turn_to(file);
    let format = Arc::clone(parser.format());
    let mut said = Vec::new();
    for line in lines {
        match parser.parse(line.as_bytes()) {
            Ok(row) => {
                let mut rows = Rows::new(&format);
                rows.push(0, &row);
                let rows = rows.take().expect("rows");
                said.push(format!("{} {}", value(&rows, "src_ip"), value(&rows, "status_code")));
            }
            Err(Reject::Directive) => {}
            Err(reject) => said.push(reject.to_string()),
        }
    }
    said
}

#[test]
fn a_line_of_iis() {
    let line = "2026-11-23 15:35:27 192.0.2.1 GET /a+b c=d&e=+f 443 - 2001:db8::7 Mozilla/5.0+(Windows+NT+10.0) https://www.example.test/ 200 0 0 157";
    check(
        &iis(),
        line,
        &[
            ("time", "2026-11-23T15:35:27Z"),
            ("begin_time", "2026-11-23T15:35:26.843Z"),
            ("duration_ms", "157"),
            ("src_ip", "2001:db8::7"),
            ("dst_ip", "192.0.2.1"),
            ("dst_port", "443"),
            ("path", "/a+b"),
            ("query", "c=d&e=+f"),
            ("remote_user", "null"),
            ("header_user_agent", "Mozilla/5.0 (Windows NT 10.0)"),
            ("status_code", "200"),
            ("sc_substatus", "0"),
        ],
    );
    // A quote is the client's own.
    for agent in ["\"x", "\"x\"y", "a\"+b\""] {
        let line = line.replace("Mozilla/5.0+(Windows+NT+10.0)", agent);
        check(&iis(), &line, &[("header_user_agent", &agent.replace('+', " "))]);
    }
    refused(&iis(), &line[..line.len() - 4], "it has 14 values, and `#Fields:` 15 names");
    refused(&iis(), &format!("{line} 5"), "it has more values");
    refused(&iis(), &line.replace("15:35:27", "25:35:27"), "`time` is no time");
}

#[test]
fn w3c_has_seconds_and_text_in_quotes() {
    let format = Format::w3c(
        "#Fields: time cs-method cs-uri date c-ip c-port time-taken cs(User-Agent) cs(Cookie)",
        W3cUnit::W3c,
    );
    check(
        &format.expect("a format"),
        "15:35:27.5\tGET\t/foo/bar.html?a\t2026-11-23\t192.0.2.7\t5000\t0.157\t\"a \"\"b\"\" c\"\t-",
        &[
            ("time", "2026-11-23T15:35:27.500Z"),
            ("duration_ms", "157"),
            ("src_port", "5000"),
            ("path", "/foo/bar.html"),
            ("query", "a"),
            ("header_user_agent", "a \"b\" c"),
            ("has_cookie", "false"),
        ],
    );
    for (fields, said) in [
        ("date time c-ip c-ip", "character 16 of the format: `c-ip` is there twice"),
        ("time c-ip", "character 1 of the format: this time lacks"),
        ("date time", "it has no address of the client"),
    ] {
        wrong(Format::w3c(fields, W3cUnit::W3c), fields, said);
    }
}

#[test]
fn each_file_has_its_own_fields_and_they_go_on_after_a_restart() {
    const ORDER: [&str; 4] = [
        "#Software: Microsoft Internet Information Services 10.0",
        "#Version: 1.0",
        "#Date: 2026-11-23 15:35:27",
        "#Fields: c-ip sc-status date time x-new",
    ];
    let mut parser = LineParser::new(iis(), NOW);
    let (line, other) = ("192.0.2.1 200 2026-11-23 15:35:27 z", "2026-11-23 15:35:27 404 192.0.2.2");
    assert_eq!(read(&mut parser, 0, &ORDER), Vec::<String>::new());
    assert_eq!(read(&mut parser, 1, &["#Fields: date time sc-status c-ip"]), Vec::<String>::new());
    assert_eq!(read(&mut parser, 0, &[line]), ["192.0.2.1 200"]);
    assert_eq!(read(&mut parser, 1, &[other]), ["192.0.2.2 404"]);
    assert_eq!(read(&mut parser, 1, &["#Fields: c-ip date time", "192.0.2.3 2026-11-23 15:35:27"]), ["192.0.2.3 null"]);
    assert_eq!(read(&mut parser, 1, &["#Fields: date time", "2026-11-23 15:35:27"]), ["`c-ip` is missing"]);
    let memory = parser.memory(0).expect("fields");
    let mut again = LineParser::new(iis(), NOW);
    again.begin(0, Some(&memory));
    assert_eq!(read(&mut again, 0, &[line]), ["192.0.2.1 200"]);
    // A file that begins under the number of another knows nothing of that one.
    again.begin(0, None);
    assert!(read(&mut again, 0, &[line])[0].contains("`date` is no time"));
    let long = format!("#Fields: {}", "x ".repeat(MAX_FIELDS + 1));
    let said = read(&mut again, 0, &[&long, line]);
    assert!(said[0].contains("more than 256 fields") && said[1].contains("it has more values"), "{said:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(25), ..ProptestConfig::default() })]

    #[test]
    fn any_lines_are_rows_rejects_or_directives(lines in proptest::collection::vec("(#Fields: )?[ -~\\t\"]{0,60}", 0..8)) {
        let mut parser = LineParser::new(iis(), NOW);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let _ = read(&mut parser, 0, &lines);
    }

    #[test]
    fn text_in_quotes_comes_back(agent in "[^\\p{Cc}]{1,40}") {
        let format = Format::w3c("date time c-ip cs(User-Agent) sc-status", W3cUnit::W3c).expect("a format");
        let line = format!("2026-11-23 15:35:27 192.0.2.7 \"{}\" 200", agent.replace('"', "\"\""));
        let row = super::super::text::tests::row(&format, line.as_bytes()).map_err(TestCaseError::fail)?;
        if agent != "-" {
            prop_assert_eq!(value(&row, "header_user_agent"), agent);
        }
        prop_assert_eq!(value(&row, "status_code"), "200");
    }
}

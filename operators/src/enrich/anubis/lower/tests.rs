use super::super::cel::parse;
use super::*;

/// A row that has every part and a few headers, each in the column of its number.
struct Request;

const HEADERS: [&str; 4] = ["User-Agent", "Accept", "Sec-Ch-Ua", "Content-Length"];

impl Row for Request {
    fn part(&self, part: Part) -> Result<Column, String> {
        let name = format!("{part:?}").to_lowercase();
        Ok(Column { at: part as usize, name })
    }

    fn header(&self, name: &str) -> Result<Column, String> {
        let at = HEADERS.iter().position(|known| *known == name).ok_or(format!("no column for `{name}`"))?;
        Ok(Column { at: 10 + at, name: format!("h{at}") })
    }
}

fn lowered(source: &str) -> Result<Condition, String> {
    let expr = parse(source).unwrap_or_else(|fault| panic!("{source}: {fault:?}"));
    condition(&expr, Scope::Request(&Request))
}

#[test]
fn an_expression_becomes_sql() {
    for (source, sql) in [
        ("userAgent == ''", r#"(coalesce("h0", '') = '')"#),
        (r#""Accept" in headers"#, r#"("h1" is not null)"#),
        (r#"!("Accept" in headers)"#, r#"(not ("h1" is not null))"#),
        (r#"missingHeader(headers, "Sec-Ch-Ua")"#, r#"("h2" is null)"#),
        (r#"headers["Accept"] == "a'b""#, r#"("h1" = 'a''b')"#),
        ("headers.Accept.contains('x')", r#"contains("h1", 'x')"#),
        ("has(headers.Accept)", r#"("h1" is not null)"#),
        (
            "path.startsWith('/a') && (method == 'GET' || host.endsWith('.b'))",
            r#"(starts_with(url_decode(coalesce("path", '')), '/a') and ((coalesce("method", '') = 'GET') or ends_with(coalesce("host", ''), '.b')))"#,
        ),
        (r"userAgent.matches('\\d\\<')", r#"regexp_like(coalesce("h0", ''), '[0-9]<')"#),
        ("matches(userAgent, 'a' + regexSafe('1.2') + 'b')", r#"regexp_like(coalesce("h0", ''), 'a1\.2b')"#),
        ("\"go-get\" in query", r#"(query_value(coalesce("query", ''), 'go-get') is not null)"#),
        ("query['a'] == '1'", r#"(query_value(coalesce("query", ''), 'a') = '1')"#),
        ("size(query) == 0", r#"(query_size(coalesce("query", '')) = 0)"#),
        ("remoteAddress in ['1.1.1.1', '8.8.8.8']", r#"("address" in ('1.1.1.1', '8.8.8.8'))"#),
        ("method in []", "false"),
        ("-1 + 2 - size('ab') < 3", "(((0 - 1) + 2 - cast(character_length('ab') as bigint)) < 3)"),
        ("path + '?' == '/?'", r#"((url_decode(coalesce("path", '')) || '?') = '/?')"#),
        ("true ? false : true", "(case true when true then false when false then true end)"),
        ("1.5 < 2.0", "(cast(1.5e0 as double) < cast(2e0 as double))"),
        (
            "userAgent.lowerAscii().contains('b')",
            r#"contains(translate(coalesce("h0", ''), 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz'), 'b')"#,
        ),
    ] {
        assert_eq!(lowered(source).map(|condition| condition.sql), Ok(sql.to_owned()), "{source}");
    }
    let columns = lowered("\"Accept\" in headers && path == host").expect("known").columns;
    assert_eq!(columns.into_iter().collect::<Vec<_>>(), [Part::Path as usize, Part::Host as usize, 11]);
}

#[test]
fn what_cannot_be_evaluated_says_why() {
    for (source, why) in [
        (r#""X-Other" in headers"#, "no column for `X-Other`"),
        (r#""sec-ch-ua" in headers"#, "Anubis never finds the header `sec-ch-ua`: write `Sec-Ch-Ua`"),
        (r#"headers["Host"] == "a""#, "Anubis never finds the header `Host`: write `host`"),
        ("verifyFCrDNS(remoteAddress)", "`verifyFCrDNS` asks a name server"),
        ("'a' in reverseDNS(remoteAddress)", "`reverseDNS` asks a name server"),
        ("lookupHost(host).size() > 0", "`lookupHost` asks a name server"),
        ("arpaReverseIP(remoteAddress) == ''", "`arpaReverseIP` asks a name server"),
        ("randInt(16) >= 4", "`randInt` is no function of the request"),
        ("load_1m >= 10.0", "`load_1m` is the load of the machine on which Anubis runs"),
        ("weight > 1", "only thresholds know `weight`"),
        ("userAgent.matches(path)", "the regex of `matches` is not constant"),
        (
            "userAgent.matches('(?=a)')",
            "not a regex of Go: after `(?` stand a name or the flags i, m, s, U; there is no look-around",
        ),
        ("headers[path] == 'a'", "which header is looked up is not constant"),
        ("headers.exists(h, h == 'a')", "the method `exists` of 2 arguments is not known here"),
        ("path.split('/').size() > 2", "the method `split` of 1 argument is not known here"),
        ("size(headers) > 3", "how many headers a request has is not known here"),
        ("path == 1", "text is compared with a whole number"),
        ("path", "a condition is true or false, not text"),
        ("contentLength / 2 > 1", "the operator `/` is not known here"),
        ("contentLength > 9007199254740993", "the number 9007199254740993 is too large here"),
        ("1 in ['a']", "a whole number is looked for among text"),
        ("who == 'a'", "the variable `who` is not known here"),
        ("null == null", "`null` is not known here"),
        ("regexSafe(path) == ''", "what `regexSafe` is given is not constant"),
    ] {
        assert_eq!(lowered(source).map(|condition| condition.sql), Err(why.to_owned()), "{source}");
    }
}

#[test]
fn a_threshold_knows_the_weight_alone() {
    let threshold = |source: &str| condition(&parse(source).expect("valid"), Scope::Weight("weight"));
    let sql = threshold("weight >= 10 && weight < 20").map(|condition| condition.sql);
    assert_eq!(sql, Ok(r#"(("weight" >= 10) and ("weight" < 20))"#.to_owned()));
    assert_eq!(threshold("path == '/'"), Err("a threshold knows `weight`, not `path`".to_owned()));
}

#[test]
fn sql_grows_with_the_expression_and_no_faster() {
    // Each level names what is inside it several times.
    let mut source = "path".to_owned();
    for _ in 0..5 {
        source = format!("segments('/' + {source})[0]");
    }
    let why = lowered(&format!("{source} == ''")).expect_err("too much");
    assert_eq!(why, "it would become more than 65536 bytes of SQL");
    let long: Vec<String> = (0..900).map(|nth| format!("path == '{nth}'")).take(300).collect();
    let sql = lowered(&long.join(" || ")).expect("known").sql;
    let deepest = sql.chars().scan(0, |open: &mut i32, c| {
        *open += i32::from(c == '(') - i32::from(c == ')');
        Some(*open)
    });
    assert!(sql.len() < 20_000 && deepest.max() < Some(12), "halved");
}

#[test]
fn headers_have_the_names_of_go() {
    for (written, name) in [
        ("sec-CH-ua", "Sec-Ch-Ua"),
        ("DNT", "Dnt"),
        ("x-http-version", "X-Http-Version"),
        ("CF-Ray", "Cf-Ray"),
        ("no name", "no name"),
        ("\u{e9}-x", "\u{e9}-x"),
    ] {
        assert_eq!(canonical(written), name);
    }
}

use proptest::prelude::*;

use super::*;
use crate::h2::Priority;

fn limits() -> Limits {
    let headers = ["User-Agent", "Accept", "Referer"].map(str::to_owned).to_vec();
    Limits { headers, max_headers: 25, max_header_value_len: 256 }
}

fn connection() -> Connection {
    Connection::new(Endpoint::new(b"192.0.2.20", 40_000), &Endpoint::new(b"2001:db8::1", 443))
}

fn outcome() -> Outcome {
    let (begin_us, end_us) = (1_700_000_000_123_456, 1_700_000_000_130_999);
    Outcome { begin_us, end_us, status: 200, response_size: 5, useragent_ip: None }
}

fn request<'a>(target: &'a [u8], headers: &'a [(&'a [u8], &'a [u8])]) -> Incoming<'a> {
    let word = |word: &'static str| Some(word.as_bytes());
    Incoming {
        method: word("GET"),
        scheme: word("https"),
        host: word("www.example.test"),
        version: word("HTTP/1.1"),
        target: Some(target),
        headers,
    }
}

fn rendered(target: &[u8], headers: &[(&[u8], &[u8])], max: usize) -> (String, bool) {
    record(target, headers).render(max, 0)
}

fn record(target: &[u8], headers: &[(&[u8], &[u8])]) -> Record {
    Record::new(Head::new(1, &request(target, headers), &limits()), &connection(), &outcome())
}

#[test]
fn a_request_has_the_keys_of_the_format() {
    let headers: [(&[u8], &[u8]); 5] =
        [(b"Host", b"x"), (b"user-agent", b"curl \"8\""), (b"Cookie", b"secret"), (b"X-Other", b"y"), (b"Accept", b"")];
    assert_eq!(
        rendered(b"/a%20b?c=d&e?f", &headers, MAX_RECORD),
        (
            concat!(
                r#"{"timestamp":1700000000123456000,"time":"2023-11-14T22:13:20.123456Z","duration_us":7543,"duration_ms":7"#,
                r#","src_ip":"192.0.2.20","src_port":40000,"dst_ip":"2001:db8::1","dst_port":443,"keepalive_index":1"#,
                r#","status_code":200,"response_size":5,"has_cookie":true,"has_authorization":false,"method":"GET""#,
                r#","scheme":"https","host":"www.example.test","http_version":"HTTP/1.1","path":"/a%20b""#,
                r#","header_User-Agent":"curl \"8\"","header_Accept":"","query":"c=d&e?f""#,
                r#","client_headers":"Host,user-agent,Cookie,X-Other,Accept""#,
                r#","header_order_signature":"Host;user-agent;Cookie;X-Other;Accept"}"#,
            )
            .to_owned(),
            false
        )
    );
}

#[test]
fn path_and_query_are_as_the_client_sent_them() {
    let of = |target: &'static str| {
        let (path, query) = parts(target.as_bytes());
        (std::str::from_utf8(path).expect("ASCII"), std::str::from_utf8(query).expect("ASCII"))
    };
    for (target, expected) in [
        ("/", ("/", "")),
        ("/a/../b?c?d", ("/a/../b", "c?d")),
        ("/to?u=http://x/", ("/to", "u=http://x/")),
        ("//page", ("//page", "")),
        ("https://user@www.example.test:443/a?b", ("/a", "b")),
        ("https://www.example.test?b", ("", "b")),
        ("https://www.example.test", ("", "")),
        ("*", ("*", "")),
        ("www.example.test:443", ("www.example.test:443", "")),
        ("", ("", "")),
    ] {
        assert_eq!(of(target), expected, "{target}");
    }
}

#[test]
fn what_was_no_request_has_no_path_and_no_names() {
    let nothing = Incoming { method: None, scheme: None, host: None, version: None, target: None, headers: &[] };
    let (text, _) = Record::new(Head::new(1, &nothing, &limits()), &connection(), &outcome()).render(MAX_RECORD, 0);
    assert!(text.ends_with(r#""has_cookie":false,"has_authorization":false}"#), "{text}");
}

#[test]
fn values_are_limited_in_length_and_number() {
    let headers: [(&[u8], &[u8]); 4] =
        [(b"Accept", "aaaü".as_bytes()), (b"User-Agent", b"x"), (b"Referer", b"z"), (b"user-agent", b"y")];
    let limits = Limits { max_headers: 2, max_header_value_len: 4, ..limits() };
    let record = Record::new(Head::new(1, &request(b"/", &headers), &limits), &connection(), &outcome());
    let (text, cut) = record.render(MAX_RECORD, 3);
    assert!(
        text.contains(r#""lost_before":3,"path":"/","header_User-Agent":"x, y","header_Accept":"aaa","query""#),
        "{text}"
    );
    assert!(!text.contains("Referer\":") && !cut);
}

#[test]
fn names_of_http2_are_those_of_the_client() {
    let headers: [(&[u8], &[u8]); 3] = [(b"Sec-Ch-Ua", b""), (b"X-A", b""), (b"Host", b"")];
    let of = |version: &'static [u8], headers| {
        let request = Incoming { version: Some(version), ..request(b"/", headers) };
        let (text, _) = Record::new(Head::new(1, &request, &limits()), &connection(), &outcome()).render(MAX_RECORD, 0);
        let (_, names) = text.split_once("\"client_headers\":\"").expect("there");
        names.split('"').next().expect("one").to_owned()
    };
    assert_eq!(of(b"HTTP/2.0", &headers), "sec-ch-ua,x-a");
    assert_eq!(of(b"HTTP/2.0", &headers[..2]), "sec-ch-ua,x-a");
    assert_eq!(of(b"HTTP/1.1", &headers), "Sec-Ch-Ua,X-A,Host");
}

#[test]
fn no_secret_leaves() {
    let headers: [(&[u8], &[u8]); 4] = [
        (b"Cookie", b"SECRET"),
        (b"AUTHORIZATION", b"SECRET"),
        (b"Proxy-Authorization", b"SECRET"),
        (b"X-Api-Key", b"SECRET"),
    ];
    let (text, _) = rendered(b"/", &headers, MAX_RECORD);
    assert!(text.contains(r#""has_cookie":true,"has_authorization":true"#) && !text.contains("SECRET"));
}

#[test]
fn a_record_is_cut_from_its_end_and_says_what() {
    let long = [b'a'; 8000];
    let headers: [(&[u8], &[u8]); 3] = [(b"User-Agent", b"curl"), (b"Accept", b"*/*"), (&long, b"")];
    let target = [&b"/path?"[..], &[b'q'; 8000]].concat();
    let whole = rendered(&target, &headers, MAX_RECORD).0;
    let mut seen = Vec::new();
    for max in (700..whole.len()).step_by(7) {
        let (text, cut) = rendered(&target, &headers, max);
        assert!(text.len() <= max && cut, "{max}: {}", text.len());
        let (_, truncated) = text.rsplit_once("\"truncated\":\"").expect("named");
        seen.push(truncated.trim_end_matches("\"}").to_owned());
    }
    seen.reverse();
    seen.dedup();
    let all = "header_order_signature,client_headers,query,header_Accept,header_User-Agent,path";
    for (count, keys) in (1..).zip(&seen) {
        assert_eq!(*keys, all.split(',').take(count).collect::<Vec<_>>().join(","));
    }
    assert!(seen.len() >= 3, "{seen:?}");
    // As little as possible.
    let (text, _) = rendered(&target, &headers, 20_000);
    assert!(text.len() > 19_990 && text.contains(",\"header_order_signature\":\"User-Agent;Accept;aaa"));
}

#[test]
fn the_short_part_is_short_whatever_comes() {
    let junk = [1_u8; 70_000];
    let junk = &junk[..];
    let hostile = Incoming {
        method: Some(junk),
        scheme: Some(junk),
        host: Some(junk),
        version: Some(junk),
        target: Some(junk),
        headers: &[],
    };
    let connection = connection();
    let word = "\u{1}".repeat(1000);
    let tls = Tls { protocol: word.clone(), cipher: word.clone(), sni: word, resumed: true };
    connection.set_tls(&tls);
    let priority = Priority { stream: u32::MAX, exclusive: true, depends_on: u32::MAX, weight: 256 };
    let signature = Signature {
        settings: Some((0..32).map(|_| (u16::MAX, u32::MAX)).chain(SETTINGS.map(|(id, _)| (id, u32::MAX))).collect()),
        window_update: Some(u32::MAX),
        priorities: vec![priority; 16],
        headers_priority: Some(priority),
        pseudo_order: Some("?".repeat(16)),
    };
    connection.set_h2(&signature);
    let outcome = Outcome {
        begin_us: i64::MAX / 1000,
        end_us: i64::MAX,
        status: u16::MAX,
        response_size: u64::MAX,
        useragent_ip: Some(Endpoint::new(&[b'f'; 100], 0)),
    };
    let record = Record::new(Head::new(u32::MAX, &hostile, &limits()), &connection, &outcome);
    let (text, cut) = record.render(MIN_RECORD, u64::MAX);
    assert!(cut && text.len() <= MIN_RECORD, "{}", text.len());
    assert!(record.render(MAX_RECORD, u64::MAX).0.len() <= MAX_RECORD);
}

proptest! {
    #[test]
    fn any_bytes_make_a_record_within_its_limit(
        target: Vec<u8>, name: Vec<u8>, value: Vec<u8>, agent in proptest::collection::vec(any::<u8>(), 0..600),
        max in 700_usize..3000,
    ) {
        let (text, cut) = rendered(&target, &[(&name, &value), (b"User-Agent", &agent)], max);
        prop_assert!(text.len() <= max, "{}", text.len());
        prop_assert_eq!(text.contains("\"truncated\":"), cut);
        prop_assert!(!text.bytes().any(|byte| byte < b' '));
        // Quotes that are not escaped come in pairs.
        let plain = text.replace("\\\\", "").replace("\\\"", "");
        prop_assert_eq!(plain.matches('"').count() % 2, 0);
    }
}

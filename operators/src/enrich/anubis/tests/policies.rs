//! Policies that are refused, at their place, and the bounds of what is read.

use super::*;

/// The faults of a policy of one file, as a user sees them.
fn faults(policy: &str) -> String {
    match load(&[("p.yaml", policy)], "", &[]) {
        Ok(_) => "none".to_owned(),
        Err(faults) => faults,
    }
}

/// A policy of one rule that has these further entries.
fn rule(entries: &str) -> String {
    format!("bots:\n- name: r\n  action: DENY\n  {entries}\n")
}

#[test]
fn what_anubis_refuses_is_refused_at_its_place() {
    let mut wrong = Vec::new();
    for (policy, place, message) in [
        ("- name: r\n".to_owned(), "p.yaml:1:1", "a policy is a mapping with `bots`, not a list"),
        ("thresholds: []\n".to_owned(), "p.yaml:1:1", "a policy is a mapping with `bots`, a list of rules and imports"),
        ("bots: []\n".to_owned(), "p.yaml:1:7", "a policy has at least one rule"),
        ("bots: x\n".to_owned(), "p.yaml:1:7", "`bots` is a list of rules and imports"),
        ("bots:\n- x\n".to_owned(), "p.yaml:2:3", "expected a mapping, found a single value"),
        ("bots:\n- action: DENY\n  path_regex: x\n".to_owned(), "p.yaml:2:3", "a name is missing"),
        ("bots:\n- name: r\n  path_regex: x\n".to_owned(), "p.yaml:2:3", "an `action` is missing"),
        ("bots:\n- name: r\n  action: DENNY\n  path_regex: x\n".to_owned(), "p.yaml:3:11", "unknown action `DENNY`"),
        (rule("challenge: {}"), "p.yaml:2:9", "the rule asks for nothing"),
        (rule("remote_addresses: []"), "p.yaml:2:9", "the rule asks for nothing"),
        (rule("user_agent_regex: a\n  path_regex: b"), "p.yaml:5:15", "not both"),
        (rule("user_agent_regex: (?=a)"), "p.yaml:4:21", "there is no look-around"),
        (rule("user_agent_regex: >\n    a"), "p.yaml:5:5", "ends with a new line"),
        (rule("headers_regex: { Accept: '[' }"), "p.yaml:4:28", "a `[` is not closed"),
        (rule("headers_regex: [a]"), "p.yaml:4:18", "a mapping of headers to regexes"),
        (rule("remote_addresses: [192.0.2.1]"), "p.yaml:4:22", "a network is an address and a number of bits"),
        (rule("remote_addresses: 192.0.2.0/24"), "p.yaml:4:21", "`remote_addresses` is a list"),
        (rule("asns: { match: [AS1] }"), "p.yaml:4:19", "an autonomous system is a number"),
        (rule("asns: [1]"), "p.yaml:4:9", "`asns` is a mapping with `match`"),
        (rule("geoip: { countries: [BRA] }"), "p.yaml:4:24", "a country is two letters"),
        (
            rule("expression: path = 'a'"),
            "p.yaml:4:20",
            "not an expression: expected the end of the expression, found `=`",
        ),
        (rule("expression: {}"), "p.yaml:4:15", "one of `all` and `any`"),
        (rule("expression: { all: [], any: [] }"), "p.yaml:4:15", "one of `all` and `any`"),
        (rule("expression: { al: [x] }"), "p.yaml:4:17", "unknown key `al`"),
        (rule("expression: { all: [] }"), "p.yaml:4:22", "the expression is empty"),
        (rule("expression: { any: [path, [x]] }"), "p.yaml:4:29", "an expression is text, not a list"),
        (rule("expression: ''"), "p.yaml:4:15", "the expression is empty"),
        (
            "bots:\n- { name: r, action: WEIGH, path_regex: x, weight: 5 }\n".to_owned(),
            "p.yaml:2:52",
            "a mapping with `adjust`",
        ),
        (
            "bots:\n- { name: r, action: WEIGH, path_regex: x, weight: { adjust: 1.5 } }\n".to_owned(),
            "p.yaml:2:62",
            "a whole number of 32 bits",
        ),
        (rule("path_regex: x") + "thresholds: 5\n", "p.yaml:5:13", "`thresholds` is a list"),
        (
            rule("path_regex: x") + "thresholds:\n- { name: t, action: WEIGH, expression: weight > 1 }\n",
            "p.yaml:6:3",
            "cannot weigh",
        ),
        (rule("path_regex: x") + "thresholds:\n- { name: t, action: DENY }\n", "p.yaml:6:3", "needs an `expression`"),
        ("bots:\n- import: p2.yaml\n".to_owned(), "p.yaml:2:11", "p2.yaml cannot be read"),
        ("bots:\n- import: p.yaml\n".to_owned(), "p.yaml:2:11", "the file imports itself: p.yaml"),
        ("bots:\n- import: '*.yml'\n".to_owned(), "p.yaml:2:11", "no file matches *.yml"),
        ("bots:\n- import: (data)/../x.yaml\n".to_owned(), "p.yaml:2:11", "is not beneath the folder `data`"),
        ("bots:\n- { import: x.yaml, name: r }\n".to_owned(), "p.yaml:2:3", "a rule or an import, not both"),
    ] {
        let shown = faults(&policy);
        if !shown.contains(place) || !shown.contains(message) {
            wrong.push(format!("{place} {message}:\n{policy}\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_known_here_is_listed() {
    for (policy, why) in [
        (
            rule("remote_addresses_url: https://x.test/list.json"),
            "`remote_addresses_url` asks a server for its addresses",
        ),
        (rule("path_regex: x\n  domain_regex: y"), "the key `domain_regex` is not known here"),
        (rule("headers_regex: { Host: x }"), "Anubis never finds the header `Host`"),
        (rule("expression: userAgent.matches('(?=a)')"), "not a regex of Go"),
        (rule("expression: path == 5"), "text is compared with a whole number"),
        (
            rule("path_regex: x") + "thresholds:\n- { name: t, action: DENY, expression: randInt(2) > 0 }\n",
            "threshold 1 `t` is not evaluated: `randInt` is no function of the request",
        ),
    ] {
        let loaded = load(&[("p.yaml", &policy)], "", &[]).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(loaded.warnings.iter().any(|warning| warning.contains(why)), "{why}: {:?}", loaded.warnings);
    }
    let policy = rule("path_regex: x") + "dnsbl: true\n";
    let loaded = load(&[("p.yaml", &policy)], "", &[]).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(
        loaded.warnings.iter().any(|warning| warning.contains("`dnsbl` asks a name server")),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn faults_of_an_imported_file_stand_there() {
    let files = [
        ("p.yaml", "bots:\n- import: sub/a.yaml\n"),
        ("sub/a.yaml", "- import: sub/b.yaml\n"),
        ("sub/b.yaml", "# b\n- { name: r, action: NO, path_regex: x }\n"),
    ];
    let shown = load(&files, "", &[]).err().expect("a fault");
    assert!(shown.contains("sub/b.yaml:2:22") && shown.contains("unknown action `NO`"), "{shown}");
    let files = [("p.yaml", "bots:\n- import: (data)/a.yaml\n"), ("d/a.yaml", "bots: []\n")];
    let shown = load(&files, ", data: d", &[]).err().expect("a fault");
    assert!(shown.contains("d/a.yaml:1:1") && shown.contains("is a list of rules, not a mapping"), "{shown}");
}

#[test]
fn circles_end_with_a_message() {
    let files =
        [("p.yaml", "bots:\n- import: a.yaml\n"), ("a.yaml", "- import: ./b.yaml\n"), ("b.yaml", "- import: a.yaml\n")];
    let shown = load(&files, "", &[]).err().expect("a fault");
    assert!(shown.contains("b.yaml:1:11") && shown.contains("a.yaml imports b.yaml"), "{shown}");
    // Each file imports the next one twice: what is read doubles from file to file.
    let names: Vec<String> = (0..16).map(|nth| format!("{nth}.yaml")).collect();
    let texts: Vec<String> = (1..17).map(|nth| format!("- import: {nth}.yaml\n- import: {nth}.yaml\n")).collect();
    let mut files =
        vec![("p.yaml", "bots:\n- import: 0.yaml\n"), ("16.yaml", "- { name: r, action: DENY, path_regex: x }\n")];
    files.extend(names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)));
    let shown = load(&files, "", &[]).err().expect("a fault");
    assert!(shown.contains("at most 16 imports within each other and 1000 in all"), "{shown}");
}

fn many(count: usize, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect()
}

#[test]
fn rules_are_bounded() {
    let rules = many(10_000, |nth| format!("- {{ name: r{nth}, action: DENY, path_regex: p{nth} }}\n"));
    let shown = faults(&format!("bots:\n{rules}"));
    assert!(shown.contains("p.yaml:4098:3") && shown.contains("a policy has at most 4096 rules"), "{shown}");
}

#[test]
fn of_very_many_faults_some_are_shown() {
    let shown = faults(&format!("bots:\n{}", many(10_000, |_| "- {}\n".to_owned())));
    let count = shown.matches("a name is missing").count();
    assert!((10..=50).contains(&count), "{count}");
}

#[test]
fn networks_are_bounded() {
    let networks = many(60_000, |nth| format!("    - 10.{}.{}.0/24\n", nth / 256, nth % 256));
    let rule = format!("- name: r\n  action: DENY\n  remote_addresses:\n{networks}");
    let shown = faults(&format!("bots:\n{rule}{rule}"));
    assert!(shown.contains("p.yaml:60005:3") && shown.contains("at most 100000 networks"), "{shown}");
}

#[test]
fn expressions_and_regexes_are_bounded() {
    let deep = "(".repeat(1_000) + "true" + &")".repeat(1_000);
    let shown = faults(&rule(&format!("expression: '{deep}'")));
    assert!(shown.contains("p.yaml:4:16") && shown.contains("at most 12 levels deep"), "{shown}");
    let large = rule("path_regex: '(((a{1000}){1000}){1000})'");
    assert!(faults(&large).contains("the regex is too large"), "{}", faults(&large));
}

#[test]
fn as_many_rules_as_are_allowed_are_asked() {
    let rules: String = (0..4_096)
        .map(|nth| format!("- {{ name: r{nth}, action: DENY, user_agent_regex: '^agent{nth}$', remote_addresses: [10.{}.{}.0/24] }}\n", nth / 256, nth % 256))
        .collect();
    let loaded = load(&[("p.yaml", &format!("bots:\n{rules}"))], "", &[]).unwrap_or_else(|faults| panic!("{faults}"));
    let of = |agent, address| loaded.label(&[("method", "GET"), ("header_user_agent", agent), ("src_ip", address)]);
    assert_eq!(of("agent4095", "10.15.255.1"), "r4095 DENY root 4096 0");
    assert_eq!(of("agent4095", "10.15.254.1"), "- - - - 0");
    assert_eq!(of("agent0", "10.0.0.1"), "r0 DENY root 1 0");
}

#[test]
fn columns_that_options_name_must_be_there() {
    let load = |options: &str| load(&[("p.yaml", &rule("path_regex: x"))], options, &[]).err().unwrap_or_default();
    assert!(load(", path: pth").contains("no column `pth`"));
    assert!(load(", path: status_code").contains("`status_code` is UInt16, and not Utf8"));
    assert!(load(", headers: { X-A: nope }").contains("no column `nope`"));
    assert!(load(", headers: { x-a: host, X-A: path }").contains("the header `X-A` has another column already"));
    assert!(load(", polcy: x").contains("unknown"));
}

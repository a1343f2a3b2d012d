//! Requests written by hand, and what Anubis' documentation says of them (docs/admin/policies, configuration/expressions,
//! configuration/thresholds, configuration/import).

use super::*;

/// Rules as in the documentation, in several files.
const FILES: [(&str, &str); 7] = [
    ("policy.yaml", POLICY),
    ("data/bots/deny.yaml", DENY),
    ("data/crawlers/good.yaml", GOOD),
    ("data/clients/2-git.yaml", GIT),
    ("data/clients/10-go.yaml", GO),
    ("data/common/keep.yaml", KEEP),
    (
        "local/private.yaml",
        "- { name: internal-network, action: ALLOW, remote_addresses: [100.64.0.0/10, 'fd00::/8'] }\n",
    ),
];

/// Ids 1 to 3.
const DENY: &str = r#"
- name: headless-chrome
  action: DENY
  user_agent_regex: HeadlessChrome
- name: ai-crawlers
  action: DENY
  user_agent_regex: >-
    GPTBot|ClaudeBot|Kangaroo Bot
- name: deny-lightpanda
  action: DENY
  expression:
    any:
      - userAgent.matches("(?i:lightpanda)")
      - '"Sec-Ch-Ua" in headers && headers["Sec-Ch-Ua"].matches("(?i:lightpanda)")'
"#;

/// Ids 4 to 6.
const GOOD: &str = r#"
- name: googlebot
  action: ALLOW
  user_agent_regex: \+http\://www\.google\.com/bot\.html
  remote_addresses: ["66.249.64.0/19", "2001:4860:4801:10::/64"]
- name: qwantbot
  action: ALLOW
  user_agent_regex: \+https\://help\.qwant\.com/bot/
  remote_addresses: ["91.242.162.0/24"]
- name: telegrambot
  action: ALLOW
  expression:
    all:
      - userAgent.matches("TelegramBot")
      - verifyFCrDNS(remoteAddress, "ptr\\.telegram\\.org$")
"#;

/// Id 7.
const GIT: &str = r#"
- name: allow-git-clients
  action: ALLOW
  expression:
    all:
      - >
        (
          userAgent.startsWith("git/") ||
          userAgent.startsWith("JGit/")
        )
      - '"Accept" in headers'
      - headers["Accept"] == "*/*"
      - '"Pragma" in headers'
      - headers["Pragma"] == "no-cache"
"#;

/// Id 8.
const GO: &str = r#"
- name: go-get
  action: ALLOW
  expression:
    all:
      - userAgent.startsWith("Go-http-client/")
      - '"go-get" in query'
      - query["go-get"] == "1"
"#;

/// Ids 9 to 11.
const KEEP: &str = r#"
- name: well-known
  path_regex: ^/\.well-known/.*$
  action: ALLOW
- name: robots-txt
  path_regex: ^/robots\.txt$
  action: ALLOW
- name: favicon
  path_regex: ^/favicon\.(?:ico|png|gif|jpg|jpeg|svg)$
  action: ALLOW
"#;

/// Ids 13 to 26: 12 is the only one of the file beside it.
const POLICY: &str = r#"
bots:
  - import: (data)/bots/deny.yaml
  - import: (data)/crawlers/good.yaml
  - import: (data)/clients/*.yaml
  - import: (data)/common/keep.yaml
  - import: ./local/private.yaml
  - name: no-user-agent-string
    action: DENY
    expression: userAgent == ""
  - name: allow-api-requests
    action: ALLOW
    expression:
      all:
        - '"Accept" in headers'
        - 'headers["Accept"] == "application/json"'
        - 'path.startsWith("/api/")'
  - name: challenge-wiki-history-page
    action: CHALLENGE
    expression:
      all:
        - 'path == "/index.php"'
        - '"title" in query'
        - '"action" in query'
        - 'query["action"] == "history"'
  - name: cloudflare-workers
    headers_regex:
      CF-Worker: .*
    action: DENY
  - name: known-banned-user
    action: DENY
    expression:
      any:
        - remoteAddress == "8.8.8.8"
        - remoteAddress == "1.1.1.1"
  - name: high-load-average
    action: WEIGH
    expression: load_1m >= 10.0
    weight:
      adjust: 20
  - name: aggressive-countries
    action: WEIGH
    geoip: { countries: [BR, CN] }
    weight: { adjust: 10 }
  - name: aggressive-asns
    action: WEIGH
    asns: { match: [13335, 136907] }
    weight: { adjust: 10 }
  - name: old-chrome
    action: WEIGH
    weight:
      adjust: 10
    expression:
      all:
        - userAgent.matches("Chrome/[1-9][0-9]?\\.0\\.0\\.0")
        - missingHeader(headers, "Sec-Ch-Ua")
  - name: presto
    action: WEIGH
    weight: { adjust: 20 }
    expression: userAgent.contains("Presto") || userAgent.contains("MSIE")
  - name: by-script
    action: WEIGH
    headers_regex: { sec-fetch-mode: ^cors$ }
  - name: small-browsers
    action: WEIGH
    user_agent_regex: PaleMoon|NetSurf
    weight: { adjust: -15 }
  - name: generic-browser
    user_agent_regex: >-
      Mozilla|Opera
    action: WEIGH
    weight:
      adjust: 10
  - name: generic-bot-catchall
    user_agent_regex: (?i:bot|crawler)
    action: CHALLENGE
    challenge:
      difficulty: 16
      algorithm: slow
thresholds:
  - name: minimal-suspicion
    expression: weight <= 0
    action: ALLOW
  - name: mild-suspicion
    expression:
      all:
        - weight > 0
        - weight < 10
    action: CHALLENGE
    challenge: { algorithm: metarefresh, difficulty: 1 }
  - name: moderate-suspicion
    expression:
      all:
        - weight >= 10
        - weight < 30
    action: CHALLENGE
  - name: extreme-suspicion
    expression: weight >= 30
    action: DENY
"#;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const CHROME: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/87.0.0.0 Safari/537.36";
const OPERA_MINI: &str =
    "Opera/9.80 (J2ME/MIDP; Opera Mini/9.80 (S60; SymbOS; Opera Mobi/23.348; U; en) Presto/2.5.25 Version/10.54";

fn loaded() -> Loaded {
    load(&FILES, ", data: data", &["header_pragma"]).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A request with a User-Agent, from an address, for a path.
fn request<'a>(
    agent: &'a str,
    address: &'a str,
    path: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![("method", "GET"), ("path", path), ("src_ip", address)];
    if !agent.is_empty() {
        all.push(("header_user_agent", agent));
    }
    all.extend_from_slice(more);
    all
}

#[test]
fn requests_are_judged_as_the_documentation_says() {
    let loaded = loaded();
    let here = "192.0.2.1";
    let git = [("header_accept", "*/*"), ("header_pragma", "no-cache")];
    let table: Vec<(Vec<(&str, &str)>, &str)> = vec![
        // Name, action, category, id, weight.
        (request("Mozilla/5.0 HeadlessChrome/120.0.0.0", here, "/", &[]), "headless-chrome DENY bots 1 0"),
        (
            request("Mozilla/5.0 (compatible; GPTBot/1.1; +https://openai.com/gptbot)", here, "/", &[]),
            "ai-crawlers DENY bots 2 0",
        ),
        (request("Kangaroo Bot (x)", here, "/robots.txt", &[]), "ai-crawlers DENY bots 2 0"),
        (request("LIGHTPANDA/1.0", here, "/", &[]), "deny-lightpanda DENY bots 3 0"),
        (
            request(FIREFOX, here, "/", &[("header_sec_ch_ua", "\"Lightpanda\";v=\"1\"")]),
            "deny-lightpanda DENY bots 3 0",
        ),
        // A crawler from its network, and one that only says that it is one: it weighs as a browser, and then it says `bot`.
        (request(GOOGLEBOT, "66.249.66.1", "/", &[]), "googlebot ALLOW crawlers 4 0"),
        (request(GOOGLEBOT, "2001:4860:4801:10::7", "/", &[]), "googlebot ALLOW crawlers 4 0"),
        (request(GOOGLEBOT, "::ffff:66.249.66.1", "/", &[]), "googlebot ALLOW crawlers 4 0"),
        (request(GOOGLEBOT, here, "/", &[]), "generic-bot-catchall CHALLENGE root 26 10"),
        (request(FIREFOX, "66.249.66.1", "/", &[]), "- CHALLENGE - - 10"),
        (
            request("Mozilla/5.0 (Qwantify; +https://help.qwant.com/bot/)", "91.242.162.9", "/", &[]),
            "qwantbot ALLOW crawlers 5 0",
        ),
        // Clients.
        (request("git/2.47.1", here, "/repo.git/info/refs", &git), "allow-git-clients ALLOW clients 7 0"),
        (request("git/2.47.1", here, "/repo.git/info/refs", &git[..1]), "- - - - 0"),
        (request("Go-http-client/1.1", here, "/pkg", &[("query", "go-get=1")]), "go-get ALLOW clients 8 0"),
        (request("Go-http-client/1.1", here, "/pkg", &[("query", "a=b&%67o-get=1")]), "go-get ALLOW clients 8 0"),
        (request("Go-http-client/1.1", here, "/pkg", &[("query", "go-get=0")]), "- - - - 0"),
        (request("Go-http-client/1.1", here, "/pkg", &[]), "- - - - 0"),
        (request("curl/8.14.1", here, "/", &[]), "- - - - 0"),
        // Routes that keep the internet working.
        (request("curl/8.14.1", here, "/.well-known/security.txt", &[]), "well-known ALLOW common 9 0"),
        (request(FIREFOX, here, "/%2ewell-known/x", &[]), "well-known ALLOW common 9 0"),
        (request(FIREFOX, here, "/xwell-known/x", &[]), "- CHALLENGE - - 10"),
        (request("", here, "/robots.txt", &[]), "robots-txt ALLOW common 10 0"),
        (request(FIREFOX, here, "/favicon.svg", &[]), "favicon ALLOW common 11 0"),
        (request(FIREFOX, here, "/favicon.svgz", &[]), "- CHALLENGE - - 10"),
        (request(FIREFOX, "100.64.3.4", "/", &[]), "internal-network ALLOW local 12 0"),
        (request(FIREFOX, "fd00::1", "/", &[]), "internal-network ALLOW local 12 0"),
        // Expressions.
        (request("", here, "/", &[]), "no-user-agent-string DENY root 13 0"),
        (
            request(FIREFOX, here, "/api/x", &[("header_accept", "application/json")]),
            "allow-api-requests ALLOW root 14 0",
        ),
        (request(FIREFOX, here, "/api/x", &[]), "- CHALLENGE - - 10"),
        (
            request(FIREFOX, here, "/index.php", &[("query", "title=Index&action=history")]),
            "challenge-wiki-history-page CHALLENGE root 15 0",
        ),
        (request(FIREFOX, here, "/index.php", &[("query", "title=Index&action=view")]), "- CHALLENGE - - 10"),
        (request(FIREFOX, "8.8.8.8", "/", &[]), "known-banned-user DENY root 17 0"),
        // Weights and what follows.
        (request(FIREFOX, here, "/", &[]), "- CHALLENGE - - 10"),
        (request("curl/8.14.1", here, "/", &[("src_country_code", "BR")]), "- CHALLENGE - - 10"),
        (request("curl/8.14.1", here, "/", &[("header_sec_fetch_mode", "cors")]), "- CHALLENGE - - 5"),
        (request(FIREFOX, here, "/", &[("src_country_code", "cn"), ("src_asn", "13335")]), "- DENY - - 30"),
        (request(FIREFOX, here, "/", &[("src_country_code", "DE"), ("src_asn", "64496")]), "- CHALLENGE - - 10"),
        (request(CHROME, here, "/", &[]), "- CHALLENGE - - 20"),
        (request(CHROME, here, "/", &[("header_sec_ch_ua", "\"Chromium\";v=\"87\"")]), "- CHALLENGE - - 10"),
        (request(OPERA_MINI, here, "/", &[]), "- DENY - - 30"),
        (request("Mozilla/5.0 PaleMoon/33", here, "/", &[]), "- ALLOW - - -5"),
        (request("NetSurf/3.11", here, "/", &[]), "- ALLOW - - -15"),
        (request("SomeCrawler/1.0", here, "/", &[]), "generic-bot-catchall CHALLENGE root 26 0"),
        // An address that is none, and one that is not known, are in no network.
        (request(GOOGLEBOT, "unknown", "/", &[]), "generic-bot-catchall CHALLENGE root 26 10"),
        (vec![("path", "/"), ("header_user_agent", GOOGLEBOT)], "generic-bot-catchall CHALLENGE root 26 10"),
        // No request.
        (vec![("src_ip", "8.8.8.8")], "- - - - -"),
        (vec![("method", "GET"), ("src_ip", "8.8.8.8")], "no-user-agent-string DENY root 13 0"),
    ];
    let requests: Vec<Request<'_>> = table.iter().map(|(request, _)| request.as_slice()).collect();
    let labels = loaded.labels(&requests);
    for ((request, expected), labels) in table.iter().zip(&labels) {
        assert_eq!(labels.join(" "), *expected, "{request:?}");
        // What becomes of a request does not depend on its neighbours.
        assert_eq!(loaded.label(request), *expected, "alone: {request:?}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_counted_named_and_explained() {
    let warnings = loaded().warnings;
    let expected = [
        "3 of 26 rules cannot be evaluated here and never decide: `telegrambot`, `cloudflare-workers`, `high-load-average`",
        "rule 16 `cloudflare-workers` is not evaluated: there is no column `header_cf_worker`",
        "rule 18 `high-load-average` is not evaluated: `load_1m` is the load of the machine on which Anubis runs",
        "rule 6 `telegrambot` is not evaluated: `verifyFCrDNS` asks a name server",
    ];
    for expected in expected {
        assert!(warnings.iter().any(|warning| warning.ends_with(expected)), "{expected} in {warnings:#?}");
    }
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    assert!(warnings.iter().any(|warning| warning.contains("data/crawlers/good.yaml:10:9: rule 6")), "{warnings:#?}");
    let without = load(&FILES, ", data: data", &[]).unwrap_or_else(|faults| panic!("{faults}")).warnings;
    let expected = "rule 7 `allow-git-clients` is not evaluated: there is no column `header_pragma`";
    assert!(without.iter().any(|warning| warning.ends_with(expected)), "{without:#?}");
}

#[test]
fn without_thresholds_what_weighs_is_challenged() {
    let policy = "bots:\n- { name: a, action: WEIGH, user_agent_regex: a, weight: { adjust: 3 } }\n\
                  - { name: b, action: WEIGH, user_agent_regex: b, weight: { adjust: -3 } }\n\
                  - { name: c, action: DEBUG_BENCHMARK, user_agent_regex: c }\n";
    let loaded = load(&[("p.yaml", policy)], "", &[]).unwrap_or_else(|faults| panic!("{faults}"));
    let of = |agent| loaded.label(&request(agent, "192.0.2.1", "/", &[]));
    assert_eq!(
        [of("a"), of("ab"), of("b"), of("x")],
        ["- CHALLENGE - - 3", "- ALLOW - - 0", "- ALLOW - - -3", "- - - - 0"]
    );
    assert_eq!(of("abc"), "c DEBUG_BENCHMARK root 3 0");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn columns_are_named_in_options() {
    let policy = "bots:\n- { name: v, action: DENY, headers_regex: { X-Http-Version: '^HTTP/1\\.0$', x-http-version: '0$' } }\n\
                  - { name: h, action: DENY, expression: 'host == \"a\" && headers[\"X-Http-Version\"] == \"HTTP/1.1\"' }\n\
                  - { name: n, action: DENY, asns: { match: [64496] } }\n";
    let options = ", headers: { x-http-version: http_version }, host: scheme, asn: src_asn";
    let loaded = load(&[("p.yaml", policy)], options, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    let of = |more: &[(&str, &str)]| loaded.label(&request("x", "192.0.2.1", "/", more));
    assert_eq!(of(&[("http_version", "HTTP/1.0")]), "v DENY root 1 0");
    assert_eq!(of(&[("http_version", "HTTP/1.1"), ("scheme", "a")]), "h DENY root 2 0");
    assert_eq!(of(&[("http_version", "HTTP/1.1"), ("host", "a")]), "- - - - 0");
    assert_eq!(of(&[("src_asn", "64496")]), "n DENY root 3 0");
}

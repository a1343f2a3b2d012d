//! The cases: a node of each kind, and what it reads.

pub(super) use Input::{Both, Groups, GroupsInTime, InTime, Nothing, Packets, Requests};

/// What the node of a case reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// It is a source.
    Nothing,
    /// A stream of requests.
    Requests,
    /// The same without late rows: when those take effect depends on the watermark that their batch was given.
    InTime,
    /// A relation: groups of requests, corrected while their windows are open.
    Groups,
    /// The same of rows in time.
    GroupsInTime,
    /// A stream of hellos and one of requests.
    Both,
    /// Packets, in the order of a capture but for some that come late.
    Packets,
}

/// A node of a kind. Words in capitals in the options stand for what is too long for the table: see [`LONG`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) kind: &'static str,
    pub(super) input: Input,
    pub(super) options: &'static str,
}

pub(super) const fn case(kind: &'static str, input: Input, options: &'static str) -> Case {
    Case { kind, input, options }
}

pub(super) const CASES: &[Case] = &[
    case("source.pcap", Nothing, "file: RECORDED/capture.pcap, ports: [443]"),
    case("source.file", Nothing, "path: lines.jsonl, format: reqin_log, lateness: 2s"),
    case("source.unix_socket", Nothing, "path: lines, format: reqin_log, lateness: 2s, max_ahead: 6h"),
    case("tls.client_hello", Packets, "sensor_id: here, retries: true, variants: true"),
    // So many hellos of one connection are alive at a time that its bound, which does not depend on workers, is met.
    case("correlate", Both, "window: 1m"),
    case("correlate", Both, "window: 5s, keepalive_ttl: 3s, max_age: 20s, longest_request: 2s, ORPHANS"),
    case("correlate", Both, "key: connection, mode: one_to_one, exclude_source_ips: [203.0.113.0/24], ORPHANS"),
    // Whether the cast is computed for a row must not depend on its neighbours.
    case("filter", Requests, "where: flag and cast(text as bigint) > 0"),
    case("filter", Groups, "where: hits > 3 or cast(least as bigint) > 0"),
    case("derive", Requests, "columns: [{ name: value, expr: cast(text as bigint) }, COLUMNS], drop: [size]"),
    case("derive", Groups, "columns: [{ name: value, expr: cast(least as bigint) }], drop: [total]"),
    case("enrich.asn", Requests, "file: RECORDED/asn.csv"),
    case("enrich.asn", Groups, "file: RECORDED/asn.csv"),
    case("enrich.reputation", Requests, "file: LISTS/asn_reputation.csv, asn: asn"),
    case("enrich.bots", Requests, "BOT_LISTS, ja4_column: ja4, user_agent: agent"),
    case("enrich.browser", Requests, "file: LISTS/browser_ja4.csv, user_agent: agent"),
    case(
        "enrich.anubis",
        Requests,
        "policy: policy.yaml, path: text, asn: asn, headers: { User-Agent: agent, X-Big: text }",
    ),
    case("aggregate", Requests, "by: [src_ip, flag], window: 10s, FEATURES"),
    case("detect.forest", Requests, "model: model.json"),
    case("detect.forest", Groups, "model: model.json"),
    case("detect.rules", Requests, "rules: [FLAGGED, { name: cast, level: HIGH, TEXT_IS_BIG, reason: '{size}' }]"),
    case("detect.rules", Groups, "rules: [FEW, { name: cast, level: HIGH, LEAST_IS_BIG, reason: '{texts}' }]"),
    case("detect.rules", Groups, "rules: [FEW], keep: all"),
    case(
        "verdict",
        Requests,
        "scheme: [{ verdict: ODD, TEXT_IS_BIG }, { verdict: HIGH, when: flag, reason: '{real:.2}' }], reasons: [text]",
    ),
    case(
        "verdict",
        Groups,
        "scheme: [{ verdict: ODD, LEAST_IS_BIG }, { verdict: REST }], keep: hits > 2 or verdict = 'ODD'",
    ),
    case("recurrence", InTime, "look_back: 1h, level: text, score: real"),
    case("recurrence", Groups, "look_back: 15s, granularity: 5s, score: mean"),
    case("peers", InTime, "by: [window_start, src_ip], columns: PEER_COLUMNS"),
    case("peers", Groups, "by: [window_start], columns: [{ name: place, expr: rank() over (order by hits) }]"),
    case("campaigns", InTime, "link: [[ja4], [agent, asn]], look_back: 1h, min_members: 2, level: text, score: real"),
    case("campaigns", GroupsInTime, "link: [[hits]], where: hits > 1, look_back: 15s, granularity: 5s, min_members: 2"),
    case("sink.jsonl", Requests, "path: new/out.jsonl"),
    case("sink.jsonl", Groups, "path: new/out.jsonl"),
    case("sink.jsonl", Groups, "path: new/out.jsonl, mode: changes"),
    case("sink.unix_socket", Requests, "path: out, max_wait: 1m"),
    case("sink.unix_socket", Groups, "path: out, max_wait: 1m"),
    case("sink.unix_socket", Groups, "path: out, max_wait: 1m, mode: changes"),
    case("sink.parquet", Requests, "rotate: 5s, max_rows: 50"),
    case("sink.parquet", Groups, "rotate: 5s"),
];

/// Kinds without a case, and why.
pub(super) const WITHOUT: &[(&str, &str)] = &[
    ("sink.clickhouse", "needs a server: tests/clickhouse"),
    ("train.forest", "writes a model and no rows: tests/cli/test_forest.py"),
    ("source.syslog", "listens at sockets of its own: tests/cli/test_syslog.py"),
    ("sink.syslog", "needs a collector: tests/cli/test_syslog.py"),
    ("sink.webhook", "needs a receiver: tests/cli/test_webhook.py"),
    ("source.feedback", "rows come by HTTP: tests/detect/test_feedback.py"),
    ("feedback", "its second input is what analysts say: tests/detect/test_feedback.py"),
];

/// Ports at which no case has rows, and why.
pub(super) const WITHOUT_ROWS: &[(&str, &str, &str)] =
    &[("enrich.anubis", "rejected", "what is an error in Anubis does not hold; nothing else is known to fail")];

pub(super) const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/recording/demo");

/// What stands in options for something longer.
pub(super) const LONG: &[(&str, &str)] = &[
    (
        "BOT_LISTS",
        "crawlers: LISTS/crawlers.csv, networks: LISTS/bot_ip.csv, ja4: LISTS/bot_ja4.csv, \
         agents: LISTS/crawler-user-agents.json",
    ),
    ("LISTS", concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/reference")),
    ("RECORDED", RECORDED),
    ("PEER_COLUMNS_OF_GROUPS", "[{ name: place, expr: rank() over (order by hits) }]"),
    (
        "PEER_COLUMNS",
        "[{ name: place, expr: rank() over (order by number) }, { name: share, expr: 1.0 * place / count(*) over () }]",
    ),
    ("ORPHANS", "orphans: { emit_after: 1s, hello: true }"),
    ("COLUMNS", "{ name: third, expr: real / 3 }, { name: net, expr: 'ip_prefix(src_ip, 24, 64)' }"),
    ("FEW", "{ name: few, level: LOW, when: hits < 4, reason: '{hits} {mean:.2}' }"),
    ("TEXT_IS_BIG", "when: cast(text as bigint) > 5"),
    ("LEAST_IS_BIG", "when: cast(least as bigint) > 5"),
    ("FLAGGED", "{ name: flagged, level: LOW, when: flag and number > 0, reason: '{text} {real:.2}' }"),
    (
        "FEATURES",
        "features: [{ name: hits, expr: count(*) }, { name: total, expr: sum(number) }, { name: mean, expr: avg(real) }, \
         { name: spread, expr: stddev_pop(number) }, { name: least, expr: min(text) }, { name: most, expr: max(real) }, \
         { name: texts, expr: count(distinct text) }, { name: mixed, expr: entropy(text) }, \
         { name: gap, expr: avg(gap_ms * nth) }, { name: flags, expr: count(*) filter (where flag) }]",
    ),
];

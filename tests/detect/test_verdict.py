"""Verdicts: a table of rows with what they must be, by hand; schemes with mistakes; layers that contradict each other;
pipelines/detect.yaml on the recording."""

import json
import random
import re
import shutil
from collections import defaultdict

from tests.support import OK, PIPELINES, RECORDING, REFUSED, Case, lines

SEED = 23
SECOND = 10**9
# A whole hour, in ns.
START = 1_795_446_000 * SECOND

# The columns that verdicts/standard.yaml asks for, and reasons.
COLUMNS = {
    "id": "integer", "hits": "integer", "threat_level": "text", "reason": "text", "anomaly_level": "text",
    "anomaly_score": "float", "anomaly_reason": "text", "anubis_deny_ratio": "float", "anubis_bot_name": "text",
    "bot_verified_ratio": "float", "bot_ratio": "float", "bot_name": "text", "bot_tags": "text",
    "is_known_browser": "boolean", "browser_consistency_score": "integer", "ua_family": "text", "feedback": "text",
}
SOURCE = """\
name: verdict
data_dir: data
nodes:
  - id: rows
    kind: source.file
    path: rows.jsonl
    time_unit: ns
    columns: { time: time, """ + ", ".join(f"{name}: {kind}" for name, kind in COLUMNS.items()) + " }\n"
OUT = """
  - { id: out, kind: sink.jsonl, from: verdicts, path: out.jsonl }
  - { id: refused, kind: sink.jsonl, from: verdicts.rejected, path: refused.jsonl }
"""

# What a row has, what it is, and its reasons.
MADE = {"hits": 100, "anubis_deny_ratio": 0.0, "bot_verified_ratio": 0.0, "bot_ratio": 0.0, "is_known_browser": False,
        "browser_consistency_score": 0, "ua_family": "other"}
CHROME = {"is_known_browser": True, "browser_consistency_score": 4, "ua_family": "Chrome"}
LIBRARY = {"bot_ratio": 1.0, "bot_name": "curl", "bot_tags": "http-library"}
CRAWLER = {"bot_ratio": 1.0, "bot_name": "ExampleBot", "bot_tags": "search-engine"}


def rules(level: str) -> dict:
    """What rules give."""
    return {"threat_level": level, "reason": f"r-{level}"}


def model(level: str, score: float) -> dict:
    """What a model gives."""
    return {"anomaly_level": level, "anomaly_score": score, "anomaly_reason": None if level == "NORMAL" else f"m-{level}"}


TABLE = [
    # Rules alone: cold start.
    ({}, "NORMAL", None),
    (rules("LOW"), "LOW", "r-LOW"),
    (rules("MEDIUM"), "MEDIUM", "r-MEDIUM"),
    (rules("HIGH"), "HIGH", "r-HIGH"),
    (rules("CRITICAL"), "CRITICAL", "r-CRITICAL"),
    # The model alone.
    (model("NORMAL", 0.1), "NORMAL", None),
    (model("LOW", -0.01), "LOW", "m-LOW"),
    (model("MEDIUM", -0.1), "MEDIUM", "somewhat unusual (-0.10); m-MEDIUM"),
    (model("HIGH", -0.2), "HIGH", "unusual (-0.20); m-HIGH"),
    (model("CRITICAL", -0.31), "CRITICAL", "very unusual (-0.31); m-CRITICAL"),
    # The worse of both.
    (rules("LOW") | model("MEDIUM", -0.06), "MEDIUM", "somewhat unusual (-0.06); r-LOW; m-MEDIUM"),
    (rules("MEDIUM") | model("LOW", -0.02), "MEDIUM", "r-MEDIUM; m-LOW"),
    (rules("MEDIUM") | model("HIGH", -0.2), "HIGH", "by rules MEDIUM, and unusual (-0.20); r-MEDIUM; m-HIGH"),
    (rules("HIGH") | model("MEDIUM", -0.1), "HIGH", "r-HIGH; m-MEDIUM"),
    (rules("HIGH") | model("CRITICAL", -0.5), "CRITICAL", "by rules HIGH, and very unusual (-0.50); r-HIGH; m-CRITICAL"),
    (rules("LOW") | model("NORMAL", 0.2), "LOW", "r-LOW"),
    (rules("CRITICAL") | model("LOW", -0.01), "CRITICAL", "r-CRITICAL; m-LOW"),
    # Browsers: above what is somewhat unusual, below everything else.
    (CHROME, "LEGITIMATE_BROWSER", "Chrome by TLS and headers, 4 of 5 parts"),
    (CHROME | {"browser_consistency_score": 3}, "NORMAL", None),
    (CHROME | {"is_known_browser": False, "browser_consistency_score": 5}, "NORMAL", None),
    (CHROME | model("MEDIUM", -0.1), "LEGITIMATE_BROWSER", "Chrome by TLS and headers, 4 of 5 parts; m-MEDIUM"),
    (CHROME | model("HIGH", -0.16), "HIGH", "unusual (-0.16); m-HIGH"),
    (CHROME | rules("LOW"), "LOW", "r-LOW"),
    (CHROME | rules("LOW") | model("MEDIUM", -0.1), "MEDIUM", "somewhat unusual (-0.10); r-LOW; m-MEDIUM"),
    (CHROME | rules("MEDIUM"), "MEDIUM", "r-MEDIUM"),
    # Bots by name: a crawler may crawl, a library is judged by what it does, neither may attack.
    (LIBRARY, "KNOWN_BOT", "curl, in 100% of 100 requests"),
    (LIBRARY | rules("LOW") | model("CRITICAL", -0.4), "KNOWN_BOT", "curl, in 100% of 100 requests; r-LOW; m-CRITICAL"),
    (LIBRARY | rules("MEDIUM"), "MEDIUM", "r-MEDIUM"),
    (CRAWLER | rules("MEDIUM"), "KNOWN_BOT", "ExampleBot, in 100% of 100 requests; r-MEDIUM"),
    (CRAWLER | rules("MEDIUM") | {"bot_tags": None}, "MEDIUM", "r-MEDIUM"),
    (CRAWLER | rules("HIGH"), "HIGH", "r-HIGH"),
    (CRAWLER | {"bot_ratio": 0.4}, "NORMAL", None),
    (CRAWLER | {"bot_verified_ratio": 1.0}, "VERIFIED_BOT", "ExampleBot: it says so, and publishes the address"),
    (CRAWLER | {"bot_verified_ratio": 1.0} | rules("HIGH"), "VERIFIED_BOT", "ExampleBot: it says so, and publishes the address; r-HIGH"),
    (CRAWLER | {"bot_verified_ratio": 1.0} | rules("CRITICAL"), "CRITICAL", "r-CRITICAL"),
    (CRAWLER | {"bot_verified_ratio": 0.99} | rules("HIGH"), "HIGH", "r-HIGH"),
    # Anubis.
    ({"anubis_deny_ratio": 0.5, "anubis_bot_name": "scrapers"}, "ANUBIS_DENY", "the policy denies 50% of 100 requests (rule scrapers)"),
    (CRAWLER | {"bot_verified_ratio": 1.0, "anubis_deny_ratio": 1.0, "anubis_bot_name": "ai"}, "ANUBIS_DENY",
     "the policy denies 100% of 100 requests (rule ai)"),
    ({"anubis_deny_ratio": 0.4} | rules("MEDIUM"), "MEDIUM", "r-MEDIUM"),
    (rules("CRITICAL") | {"anubis_deny_ratio": 1.0}, "CRITICAL", "r-CRITICAL"),
]


class Verdict(Case):
    """The kind `verdict` over rows that are written by hand."""

    def rows(self, rows: list[dict]) -> None:
        """Writes what the source reads."""
        made = [MADE | row | {"id": number, "time": START + number * SECOND} for number, row in enumerate(rows)]
        self.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in made))

    def judged(self, node: str, *arguments: object) -> list[tuple]:
        """Number, verdict and reasons of the rows that leave, in their order."""
        self.assert_exit(self.engine("run", "-q", *arguments, self.write("p.yaml", SOURCE + node + OUT)), OK)
        found = [(row["id"], row["verdict"], row.get("verdict_reasons")) for row in lines(self.directory / "out.jsonl")]
        return sorted(found)

    def node(self, scheme: str, more: str = "") -> str:
        """A node with this scheme."""
        return f"  - {{ id: verdicts, kind: verdict, from: rows, scheme: {scheme}{more} }}"

    def test_the_standard_scheme(self) -> None:
        """Every way through it; any number of workers."""
        self.rows([row for row, _, _ in TABLE])
        standard = self.node(f"{PIPELINES}/verdicts/standard.yaml")
        expected = [(number, verdict, reasons) for number, (_, verdict, reasons) in enumerate(TABLE)]
        for workers in (1, 3):
            self.assertEqual(self.judged(standard, "--workers", workers), expected)
        self.assertEqual(lines(self.directory / "refused.jsonl"), [])
        kept = self.judged(self.node(f"{PIPELINES}/verdicts/standard.yaml", ", keep: \"verdict in ('HIGH', 'CRITICAL')\""))
        self.assertEqual(kept, [row for row in expected if row[1] in ("HIGH", "CRITICAL")])

    def test_own_entries_before_those_of_files(self) -> None:
        """And what analysts have said before all."""
        self.rows([rules("HIGH"), rules("HIGH") | {"feedback": "false_positive"}, {"feedback": "true_positive"},
                   rules("CRITICAL") | {"feedback": "true_positive"}, rules("LOW") | {"ua_family": "Lynx"},
                   CRAWLER | {"bot_verified_ratio": 1.0, "feedback": "true_positive"} | model("CRITICAL", -0.5)])
        own = "{ verdict: OUR_READER, when: \"ua_family = 'Lynx'\", reason: \"{ua_family}, {hits:.1} {{hits}}\" }"
        found = self.judged(self.node(f"[{PIPELINES}/verdicts/feedback.yaml, {own}, {PIPELINES}/verdicts/standard.yaml]"))
        self.assertEqual(found, [
            (0, "HIGH", "r-HIGH"), (1, "NORMAL", "an analyst says: a false positive; r-HIGH"),
            (2, "HIGH", "an analyst says: a true positive"), (3, "CRITICAL", "an analyst says: a true positive; r-CRITICAL"),
            (4, "OUR_READER", "Lynx, 100.0 {hits}; r-LOW"), (5, "CRITICAL", "an analyst says: a true positive; m-CRITICAL"),
        ])
        found = self.judged(self.node("[{ verdict: ODD, when: \"id % 2 = 1\" }]", ", reasons: [ua_family, threat_level]"))
        self.assertEqual(found[3:5], [(3, "ODD", "other; CRITICAL"), (4, "NORMAL", "Lynx; LOW")])

    def test_what_cannot_be_computed(self) -> None:
        """Leaves through `rejected`, and is judged by the other entries."""
        self.rows([{"ua_family": "7"}, {"ua_family": "x"}, {"ua_family": "x", "hits": 1}])
        entries = "{ verdict: ONE, when: hits = 1 }, { verdict: SEVEN, when: cast(ua_family as bigint) = 7 }, { verdict: REST }"
        found = self.judged(self.node(f"[{entries}]"))
        self.assertEqual(found, [(0, "SEVEN", None), (1, "REST", None), (2, "ONE", None)])
        refused = lines(self.directory / "refused.jsonl")
        self.assertEqual([row["id"] for row in refused], [1])
        self.assertIn("entry 2 of the scheme, `SEVEN`: ", refused[0]["reject_reason"])

    def test_mistakes_are_shown_at_their_place(self) -> None:
        """All of them, in a file and in the pipeline."""
        self.rows([])
        self.write("scheme.yaml", """\
- { verdict: HIGH, when: threat_levl = 'HIGH' }
- { verdict: LOW, when: hits }
- { verdict: LOW, when: hits > 1, reason: "{hitz}" }
- { verdict: LOW, wen: hits > 1 }
- { verdict: "", when: hits > 1 }
- { verdict: LOW }
- { verdict: HIHG }
""")
        run = self.engine("validate", self.write("p.yaml", SOURCE + self.node("scheme.yaml") + OUT))
        self.assert_exit(run, REFUSED, "scheme.yaml:1:26", "did you mean `threat_level`?", "scheme.yaml:2:25", "true or false",
                         "scheme.yaml:3:45", "did you mean `hits`?", "scheme.yaml:4:19", "unknown option `wen`",
                         "scheme.yaml:5:14", "text in one line", "scheme.yaml:6:14", "only the last entry")
        line = SOURCE.count("\n") + 1
        for scheme, more, place, says in (
            ("[{ verdict: LOW, wen: hits > 1 }]", "", "wen", "unknown option `wen`: did you mean `when`?"),
            ("[{ when: hits > 1 }]", "", "{ when", "missing field `verdict`"),
            ("[]", "", "[]", "there are no entries of a scheme"),
            ("[nowhere.yaml]", "", "nowhere", "cannot be read"),
            ("[{ verdict: LOW }]", ", keep: verdikt = 'LOW'", "verdikt", "did you mean `verdict`?"),
            ("[{ verdict: LOW }]", ", reasons: [hits]", "hits]", "a reason is text; `hits` is Int64"),
        ):
            with self.subTest(scheme + more):
                node = self.node(scheme, more)
                run = self.engine("validate", self.write("p.yaml", SOURCE + node + OUT))
                self.assert_exit(run, REFUSED, f"p.yaml:{line}:{node.index(place) + 1}", says)
        self.write("scheme.yaml", "- { verdict: HIHG, when: hits > 1 }\n")
        run = self.engine("validate", self.write("p.yaml", SOURCE + self.node("scheme.yaml") + OUT))
        self.assert_exit(run, OK, "did you mean `HIGH`?")

    def test_rules_can_keep_all_rows(self) -> None:
        """Without a match level, names and reason are null."""
        self.rows([{"hits": hits} for hits in (1, 5, 9)])
        node = """\
  - id: verdicts
    kind: detect.rules
    from: [plain]
    keep: all
    rules:
      - { name: many, level: LOW, when: hits > 4, reason: "{hits}" }
      - more.yaml
  - { id: plain, kind: derive, from: rows, drop: [threat_level, reason] }"""
        self.write("more.yaml", "- { name: most, level: HIGH, when: hits > 8, reason: most }\n")
        self.assert_exit(self.engine("run", "-q", self.write("p.yaml", SOURCE + node + OUT)), OK)
        found = [tuple(row.get(name) for name in ("hits", "threat_level", "rules", "reason")) for row in lines(self.directory / "out.jsonl")]
        self.assertEqual(found, [(1, None, None, None), (5, "LOW", "many", "5"), (9, "HIGH", "many,most", "9; most")])


CHROME_JA4, REQUESTS_JA4 = "t13d1517h2_8daaf6152771_cb7bf5808d99", "t13d4312h1_c7886603b240_b26ce05bbdd6"
OTHER_JA4 = "t12d1209h1_d34a8e72043a_b39be8c56a14"
MOZILLA = "Mozilla/5.0 (SYSTEM) AppleWebKit/537.36 (KHTML, like Gecko) "
ON_LINUX = MOZILLA.replace("SYSTEM", "X11; Linux x86_64") + "Chrome/156.0.0.0 Safari/537.36"
ON_WINDOWS = MOZILLA.replace("SYSTEM", "Windows NT 10.0; Win64; x64") + "Chrome/156.0.0.0 Safari/537.36"
CRAWLING = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/156.0.0.0 Safari/537.36"
LINUX = {"ip_meta_ttl": 60, "tcp_meta_options": "MSS,SACK,TS,NOP,WS", "post_quantum": True}
WINDOWS = {"ip_meta_ttl": 120, "tcp_meta_options": "MSS,NOP,WS,NOP,NOP,SACK", "post_quantum": True}
FULL = {
    "header_Accept": "text/html", "header_Accept-Encoding": "gzip, deflate, br, zstd", "header_Accept-Language": "en",
    "header_Sec-CH-UA": '"Chromium";v="156"', "header_Sec-CH-UA-Platform": '"Linux"', "header_Sec-CH-UA-Mobile": "?0",
    "header_Sec-Fetch-Site": "none", "header_Sec-Fetch-Mode": "navigate", "header_Sec-Fetch-Dest": "document",
    "http_version": "HTTP/2.0",
}
WINDOWS_HINTS = FULL | {"header_Sec-CH-UA-Platform": '"Windows"'}
BARE = {"header_Accept": "*/*", "header_Accept-Encoding": "gzip, deflate", "http_version": "HTTP/1.1"}
FORWARDED = {"header_X-Forwarded-For": "198.51.100.9"}
# Name, User-Agent, JA4, what else the hello has (None: there is none), what else requests have, and the rules that match.
CLIENTS = [
    ("person", ON_LINUX, CHROME_JA4, LINUX, FULL, set()),
    ("person on Windows", ON_WINDOWS, CHROME_JA4, WINDOWS, WINDOWS_HINTS, set()),
    ("person behind a VPN", ON_WINDOWS, CHROME_JA4, LINUX, WINDOWS_HINTS, {"another_system"}),
    ("person behind a company's proxy", ON_WINDOWS, OTHER_JA4, LINUX | {"post_quantum": False},
     WINDOWS_HINTS | {"http_version": "HTTP/1.1", "header_Accept-Encoding": "gzip, deflate"}, {"another_system", "old_tls", "no_zstd"}),
    ("person behind a CDN", ON_WINDOWS, OTHER_JA4, LINUX | {"post_quantum": False}, WINDOWS_HINTS | FORWARDED, set()),
    ("orphan", ON_WINDOWS, None, None, WINDOWS_HINTS, set()),
    ("coalescing", ON_LINUX, CHROME_JA4, LINUX | {"tls_sni": "cdn.example.test"}, FULL, set()),
    ("fronting", "reader/1.0", OTHER_JA4, LINUX | {"tls_sni": "cdn.example.test"}, BARE, {"sni_of_another_host"}),
    ("library", "reader/1.0", OTHER_JA4, LINUX, BARE, set()),
    ("declared crawler", CRAWLING, REQUESTS_JA4, LINUX, BARE, set()),
    ("spoof", ON_WINDOWS, REQUESTS_JA4, LINUX | {"post_quantum": False}, BARE,
     {"layers_contradict", "headers_contradict", "program_as_browser", "ja4_of_another_browser", "old_tls", "another_system", "no_zstd",
      "no_post_quantum_group", "no_fetch_metadata", "no_client_hints", "browser_without_language", "pages_of_any_type"}),
    ("spoof behind a CDN", ON_WINDOWS, REQUESTS_JA4, LINUX, BARE | FORWARDED,
     {"headers_contradict", "no_fetch_metadata", "no_client_hints", "browser_without_language", "pages_of_any_type"}),
    ("copied headers", ON_WINDOWS, REQUESTS_JA4, WINDOWS, WINDOWS_HINTS | {"http_version": "HTTP/1.1"},
     {"program_as_browser", "ja4_of_another_browser", "old_tls"}),
    ("impersonator", ON_WINDOWS, CHROME_JA4, LINUX, WINDOWS_HINTS, {"another_system"}),
]
LAYERS = f"""\
name: layers
data_dir: data
nodes:
  - {{ id: hellos, kind: source.file, path: hellos.jsonl, format: ja4sentinel }}
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }} }}
  - {{ id: browsers, kind: enrich.browser, from: correlated, file: {PIPELINES}/reference/browser_ja4.csv }}
  - {{ id: systems, kind: enrich.asn, from: browsers, file: {RECORDING}/asn.csv }}
  - {{ id: labels, kind: enrich.reputation, from: systems, file: {PIPELINES}/reference/asn_reputation.csv }}
  - {{ id: bots, kind: enrich.bots, from: labels, agents: {PIPELINES}/reference/crawler-user-agents.json }}
  - {{ id: known, kind: enrich.anubis, from: bots, policy: {PIPELINES}/reference/anubis_example.yaml }}
  - id: features
    kind: aggregate
    from: known
    by: [host, src_ip, ja4]
    features: [{PIPELINES}/features/standard.yaml, {PIPELINES}/features/labels.yaml, {PIPELINES}/features/consistency.yaml]
  - {{ id: ruled, kind: detect.rules, from: features, keep: all, rules: {PIPELINES}/rules/consistency.yaml }}
  - {{ id: out, kind: sink.jsonl, from: ruled, path: out.jsonl }}
  - {{ id: known_rows, kind: sink.jsonl, from: known, path: known.jsonl }}
"""


def share(rows: list, could: object, does: object) -> float | None:
    """Rows that do / rows that could."""
    could = [row for row in rows if could(row)]
    return sum(map(does, could)) / len(could) if could else None


def direct(row: dict) -> bool:
    """Whether TLS and TCP are the client's."""
    return row["correlated"] == 1 and row.get("header_x_forwarded_for") is None


def browser(row: dict) -> bool:
    """Whether the User-Agent names a browser and no bot."""
    return row.get("ua_family") not in (None, "other") and row.get("bot_agent") is None


def chromium(row: dict, least: int) -> bool:
    """Whether it names Chromium of this version or a later one."""
    return browser(row) and int((re.findall(r"Chrome/(\d+)[.]", row["header_user_agent"]) or [0])[0]) >= least


def expected(rows: list[dict]) -> dict:
    """Labels and contradictions of a group: without SQL, and for the User-Agents of this file alone."""
    n = len(rows)
    actions = {row.get("anubis_bot_action") for row in rows}
    has = lambda name: sum(row.get(name) is not None for row in rows)
    hints = sum((row.get("header_sec_ch_ua") is not None) if "Chrome/" in (row.get("header_user_agent") or "")
                else row.get("ua_family") not in (None, "other") and row.get("header_sec_ch_ua") is None for row in rows)
    matches = sum(row.get("browser_matches") is True for row in rows)
    other_system = lambda row: (row["ip_meta_ttl"] <= 64 or "TS" in row["tcp_meta_options"]) if "Windows" in row["header_user_agent"] \
        else row["ip_meta_ttl"] > 64 or row["tcp_meta_options"].startswith("MSS,NOP")
    secure = lambda row: chromium(row, 89) and row.get("status_code") != 101
    found = {
        "asn_number": "64505", "country_code": "SE", "asn_label": None,
        "bot_name": min((row["bot_name"] for row in rows if row.get("bot_name")), default=None),
        "bot_ratio": has("bot_name") / n,
        "ua_family": min((row["ua_family"] for row in rows if row.get("ua_family")), default=None),
        "is_known_browser": 2 * matches >= n,
        "browser_ua_mismatch": share(rows, lambda row: row.get("browser_matches") is not None, lambda row: not row["browser_matches"]),
        "browser_consistency_score": (2 * matches >= n) + (2 * hints >= n) + (2 * has("header_accept_language") >= n)
        + any(row.get("has_cookie") for row in rows) + (2 * (n - has("header_sec_fetch_mode")) < n),
        "anubis_bot_action": next((action for action in ("DENY", "CHALLENGE", "ALLOW") if action in actions), None),
        "anubis_deny_ratio": sum(row.get("anubis_bot_action") == "DENY" for row in rows) / n,
        "anubis_weight": max((row["anubis_weight"] for row in rows if row.get("anubis_weight") is not None), default=None),
        "browser_ratio": sum(map(browser, rows)) / n,
        "direct_ratio": sum(map(direct, rows)) / n,
        "ja4_ua_mismatch": share(rows, lambda row: direct(row) and row.get("bot_agent") is None and row.get("browser_matches") is not None,
                                 lambda row: not row["browser_matches"]),
        "ja4_program_ratio": share(rows, lambda row: direct(row) and browser(row), lambda row: row["ja4"] == REQUESTS_JA4),
        "browser_tls_mismatch": share(rows, lambda row: direct(row) and secure(row), lambda row: row["ja4"] != CHROME_JA4),
        "post_quantum_missing": share(rows, lambda row: direct(row) and chromium(row, 131) and row["ja4"] != OTHER_JA4,
                                      lambda row: not row["post_quantum"]),
        "system_mismatch": share(rows, lambda row: direct(row) and browser(row) and "Googlebot" not in row["header_user_agent"], other_system),
        "fetch_metadata_missing": share(rows, secure, lambda row: row.get("header_sec_fetch_site") is None),
        "client_hints_missing": share(rows, secure, lambda row: row.get("header_sec_ch_ua") is None),
        "browser_without_language": share(rows, browser, lambda row: row.get("header_accept_language") is None),
        "zstd_missing": share(rows, lambda row: direct(row) and chromium(row, 123) and row.get("header_accept_encoding") is not None,
                              lambda row: "zstd" not in row["header_accept_encoding"]),
        "h2_unused": share(rows, lambda row: direct(row) and row.get("status_code") != 101 and row["tls_alpn"] == "h2",
                           lambda row: row["http_version"] == "HTTP/1.1"),
        "sni_host_mismatch_h1": share(rows, lambda row: direct(row) and row["http_version"] == "HTTP/1.1",
                                      lambda row: row["tls_sni"] != "www.example.test"),
    }
    often = lambda *names: sum((found[name] or 0) >= 0.5 for name in names)
    found["path_contradictions"] = often("ja4_ua_mismatch", "browser_tls_mismatch", "post_quantum_missing", "system_mismatch", "zstd_missing")
    found["header_contradictions"] = often("fetch_metadata_missing", "client_hints_missing", "browser_without_language")
    return found


class Layers(Case):
    """rules/consistency.yaml over clients that are made by hand."""

    def test_each_client(self) -> None:
        """People match nothing that is more than LOW, and what a proxy changes is not looked at behind one."""
        hellos, requests = [], []
        for number, (_, agent, ja4, hello, fields, _) in enumerate(CLIENTS):
            client = {"src_ip": f"192.0.2.{number + 1}", "src_port": 40_000 + number, "dst_ip": "198.51.100.1", "dst_port": 443}
            if hello is not None:
                hellos.append(client | {"timestamp": START + number * SECOND, "ja4": ja4, "tls_sni": "www.example.test",
                                        "tls_alpn": "h2" if ja4[8:10] == "h2" else "http/1.1"} | hello)
            for nth in range(6):
                requests.append(client | {
                    "timestamp": START + number * SECOND + nth * SECOND // 100 + 1, "method": "GET", "scheme": "https",
                    "host": "www.example.test", "path": f"/{nth}", "status_code": 200, "header_User-Agent": agent,
                } | fields)
        self.run_layers(hellos, requests)
        found = {row["src_ip"]: row for row in lines(self.directory / "out.jsonl")}
        self.assertEqual(len(found), len(CLIENTS))
        for number, (name, _, _, _, _, expected) in enumerate(CLIENTS):
            with self.subTest(name):
                row = found[f"192.0.2.{number + 1}"]
                self.assertEqual(set(filter(None, (row.get("rules") or "").split(","))), expected)
                if name.startswith("person") or name == "coalescing":
                    self.assertIn(row.get("threat_level"), (None, "LOW"))
                    self.assertEqual(row["header_contradictions"], 0)
                if "CDN" in name or name == "orphan":
                    self.assertEqual(row["direct_ratio"], 0)
                    for feature in ("ja4_ua_mismatch", "browser_tls_mismatch", "system_mismatch", "post_quantum_missing"):
                        self.assertIsNone(row.get(feature))


    def run_layers(self, hellos: list[dict], requests: list[dict]) -> None:
        """Runs the pipeline over these lines."""
        self.write("hellos.jsonl", "".join(json.dumps(row) + "\n" for row in hellos))
        self.write("requests.jsonl", "".join(json.dumps(row) + "\n" for row in requests))
        self.assert_exit(self.engine("run", "-q", self.write("p.yaml", LAYERS)), OK)

    def test_features_equal_a_recomputation(self) -> None:
        """Of clients whose requests differ from each other in everything."""
        rng = random.Random(SEED)
        hellos, requests = [], []
        for number in range(80):
            client = {"src_ip": f"192.0.2.{number + 1}", "src_port": 40_000 + number, "dst_ip": "198.51.100.1", "dst_port": 443}
            start = START + number * SECOND
            ja4 = rng.choice((CHROME_JA4, CHROME_JA4, REQUESTS_JA4, OTHER_JA4))
            if number % 8:
                hellos.append(client | {
                    "timestamp": start, "ja4": ja4, "tls_alpn": rng.choice(("h2", "http/1.1")),
                    "tls_sni": rng.choice(("www.example.test", "cdn.example.test")),
                } | rng.choice((LINUX, WINDOWS)) | {"post_quantum": rng.random() < 0.5})
            agents = rng.sample((ON_LINUX, ON_WINDOWS, CRAWLING, "reader/1.0", "sqlmap/1", "curl/8", None), rng.randint(1, 3))
            for nth in range(rng.randint(1, 12)):
                fields = {name: value for name, value in FULL.items() if rng.random() < 0.6}
                agent = rng.choice(agents)
                requests.append(client | fields | {
                    "timestamp": start + nth * SECOND // 100 + 1, "method": "GET", "scheme": "https", "host": "www.example.test",
                    "path": rng.choice(("/", "/a", "/.env", "/robots.txt")), "status_code": rng.choice((200, 200, 404, 101)),
                    "http_version": rng.choice(("HTTP/1.1", "HTTP/2.0")), "has_cookie": rng.random() < 0.1,
                } | ({} if agent is None else {"header_User-Agent": agent})
                  | (FORWARDED if rng.random() < 0.2 else {})
                  | (rng.choice(({}, {"header_Accept-Encoding": "gzip"}))))
        self.run_layers(hellos, requests)
        groups = defaultdict(list)
        for row in lines(self.directory / "known.jsonl"):
            groups[row["src_ip"], row.get("ja4")].append(row)
        found = lines(self.directory / "out.jsonl")
        self.assertEqual(len(found), len(groups))
        for row in found:
            for name, value in expected(groups[row["src_ip"], row.get("ja4")]).items():
                got = row.get(name)
                same = abs(got - value) < 1e-12 if isinstance(value, float) and got is not None else got == value
                self.assertTrue(same, f"{row['src_ip']} {name}: {got}, not {value} (seed {SEED})")


class Recording(Case):
    """pipelines/detect.yaml, as it is."""

    def test_what_each_client_is(self) -> None:
        """People are nothing worse than LOW; those who attack or pretend are HIGH; a crawler that may be verified is."""
        truth = lines(RECORDING / "truth.jsonl")
        clients = {address: client for client in truth for address in client["src_ips"]}
        run = self.engine("run", "--listen", "127.0.0.1:0", PIPELINES / "detect.yaml", environment={"DATA_DIR": self.directory})
        self.assert_exit(run, OK, "rules alone decide")
        verdicts: dict[str, set] = {}
        for row in lines(self.directory / "verdicts.jsonl"):
            verdicts.setdefault(clients[row["src_ip"]]["client"], set()).add(row["verdict"])
        for client in truth:
            found = verdicts.get(client["client"], set())
            if not client["bot"]:
                self.assertLessEqual(found, {"NORMAL", "LOW", "LEGITIMATE_BROWSER"}, client)
                self.assertIn("LEGITIMATE_BROWSER", found)
            if client["expect_detected"]:
                self.assertTrue(found & {"HIGH", "CRITICAL"}, (client, found))
        for name, verdict in {"slow-crawler": "VERIFIED_BOT", "curl-h1": "KNOWN_BOT", "curl-h2": "KNOWN_BOT", "wget": "KNOWN_BOT",
                              "python-requests": "KNOWN_BOT", "credential-stuffing": "CRITICAL", "path-scanner": "HIGH",
                              "scraper-spoof": "HIGH"}.items():
            self.assertEqual(verdicts[name], {verdict}, name)
        detections = lines(self.directory / "detections.jsonl")
        kept = [row for row in lines(self.directory / "verdicts.jsonl") if row["verdict"] not in ("NORMAL", "LEGITIMATE_BROWSER")]
        self.assertEqual(sorted((row["src_ip"], row["host"], row["threat_level"]) for row in detections),
                         sorted((row["src_ip"], row["host"], row["verdict"]) for row in kept))

    def test_a_typo_in_the_scheme(self) -> None:
        """In a copy of the pipeline's files: the place in the scheme's file."""
        copy = self.directory / "copy"
        shutil.copytree(PIPELINES, copy, ignore=shutil.ignore_patterns("tests"))
        scheme = copy / "verdicts/standard.yaml"
        text = scheme.read_text()
        place = text.index("anubis_deny_ratio")
        scheme.write_text(text.replace("anubis_deny_ratio", "anubis_denied_ratio", 1))
        line = text[:place].count("\n") + 1
        column = place - text[:place].rindex("\n")
        run = self.engine("validate", copy / "detect.yaml", environment={"DATA_DIR": self.directory})
        self.assert_exit(run, REFUSED, f"standard.yaml:{line}:{column}", "did you mean `anubis_deny_ratio`?")

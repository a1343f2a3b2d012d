"""The demo and a generated day by both ways in: through http_logs_raw and its view, and written by the engine."""

import json
import os
import unittest
from collections import defaultdict
from pathlib import Path

from tests.clickhouse import day
from tests.clickhouse.server import PYTHON, ask, migrate, schema, shared
from tests.support import (
    OK, PIPELINES, RECORDING, Case, demo, engine, get, lines, nanoseconds, running, served, sql, wait_for,
)
from tests.traffic import START

SEED = int(os.environ.get("SEED") or 1)

# Features that both define alike, the engine's and the view's.
BOTH = ("hits", "hit_velocity", "fuzzing_index", "src_port_density", "max_keepalives", "modern_browser_score", "header_count",
        "temporal_entropy", "path_diversity_ratio", "url_depth_variance", "window_mss_ratio", "multiplexing_efficiency", "ua_ch_mismatch",
        "has_xff", "has_accept_language", "has_cookie", "has_referer", "has_sec_ch_ua", "is_ua_rotating", "port_exhaustion_ratio",
        "request_size_variance")
# The same over hits + 1 in the view, over hits in the engine.
SHIFTED = ("post_ratio", "head_ratio", "asset_ratio", "http10_ratio", "orphan_ratio", "sec_fetch_absence_rate",
           "login_post_concentration", "non_standard_port_ratio", "is_fake_navigation", "generic_accept_ratio", "alpn_http_mismatch",
           "ip_id_zero_ratio", "direct_access_ratio", "unusual_content_type_ratio")
# What TLS and TCP say is the client's in the engine, and of whoever ended the connection in the view.
TRANSPORT = ("window_mss_ratio", "alpn_http_mismatch", "ip_id_zero_ratio")
# What the way in does not decide: `tick` says when the engine wrote a row, and is 0 where it did not. What the Apache module and
# other servers know besides (21_server_facts) is not taken from http_logs_raw; the day has one of these.
NOT_COMPARED = ("tick", "has_authorization", "server_tls_differs")
# Labels of Anubis come from its rules, by the view alone; without rules both ways have none.
SAME_FOR_ALL = ("anubis_bot_name", "anubis_bot_action", "anubis_bot_category", "anubis_is_flagged")

DAY = """\
name: day
data_dir: data
nodes:
  - {{ id: hellos, kind: source.file, path: hellos.jsonl, format: ja4sentinel }}
  - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }}, window: 10s, keepalive_ttl: 120s }}
  - {{ id: labelled, kind: enrich.asn, from: correlated, file: iplocate-ip-to-asn.csv }}
  - {{ id: features, kind: aggregate, from: labelled, by: [host, src_ip, ja4], window: 1h, features: [{features}] }}
  - {{ id: rows_file, kind: sink.jsonl, from: correlated, path: data/correlated.jsonl }}
  - {{ id: features_file, kind: sink.jsonl, from: features, path: data/features.jsonl }}
  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: labelled, features: features }}, url: "{url}", database: {database}, every: 30m, read_back: true }}
serve:
  listen: 127.0.0.1:0
  tables: {{ http_logs: labelled, features: features }}
"""


def comparable(row: dict) -> tuple:
    """A row of features without what it does not have; times as numbers, because they are written in two ways."""
    times = {name: nanoseconds(row[name]) for name in ("window_start", "first_seen", "last_seen")}
    return tuple(sorted((name, value) for name, value in (row | times).items() if value not in (None, "")))


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Parity(Case):
    """http_logs equal column by column; the view over it equal; features that both define, within 1e-6."""

    def databases(self, name: str) -> tuple[str, str, str]:
        """The server, and two databases without rows."""
        url, raw, own = shared(), schema(shared(), f"{name}_by_view"), schema(shared(), f"{name}_by_engine")
        for table in ("http_logs", "http_logs_raw", "agg_host_ip_ja4_1h", "agg_header_fingerprint_1h", "features", "detections"):
            for database in (raw, own):
                ask(url, f"TRUNCATE TABLE {database}.{table}")
        return url, raw, own

    def send_raw(self, url: str, database: str, rows: list[dict]) -> None:
        """As a correlator sends them."""
        body = "\n".join(json.dumps({"raw_json": json.dumps(row)}) for row in rows)
        ask(url, f"INSERT INTO {database}.http_logs_raw (raw_json) FORMAT JSONEachRow\n{body}")

    def test_both_ways_give_the_same_rows_and_features(self):
        url, raw, own = self.databases("demo")
        self.write("iplocate-ip-to-asn.csv", (RECORDING / "asn.csv").read_text())
        self.assert_exit(migrate(url, raw, "load", self.directory), OK)
        rows = lines(demo() / "correlated.jsonl")
        self.send_raw(url, raw, rows)
        pipeline = (PIPELINES / "demo.yaml").read_text().replace("recording/", f"{PIPELINES}/recording/")
        pipeline = pipeline.replace("features/", f"{PIPELINES}/features/").replace("rules/standard", f"{PIPELINES}/rules/standard")
        sink = f"""
  - id: clickhouse
    kind: sink.clickhouse
    from: {{ http_logs: labelled, features: features, detections: detections }}
    url: {url}
    database: {own}
"""
        path = self.write("demo.yaml", pipeline.replace("\n# Tables of POST", sink + "\n# Tables of POST"))
        for _ in range(2):  # a second run sends the same batches
            run = engine("run", "--quiet", "--listen", "127.0.0.1:0", path, environment={"DATA_DIR": self.directory / "data"})
            self.assert_exit(run, OK)
        self.compare(url, raw, own, len(rows))
        self.assertEqual(ask(url, f"SELECT count() FROM {own}.features FINAL"), [[str(len(lines(demo() / 'features.jsonl')))]])
        self.assertEqual(ask(url, f"SELECT count() FROM {own}.detections FINAL"), [[str(len(lines(demo() / 'detections.jsonl')))]])

    def test_a_generated_day(self):
        url, raw, own = self.databases("day")
        midnight = START - START % (24 * day.HOUR)
        hellos, requests = day.generate(SEED, midnight)
        self.write("hellos.jsonl", day.lines(hellos))
        self.write("requests.jsonl", day.lines(requests))
        for name, text in day.LISTS.items():
            self.write(name, text)
        for database in (raw, own):
            self.assert_exit(migrate(url, database, "load", self.directory), OK)
        path = self.write("day.yaml", DAY.format(url=url, database=own, features=", ".join(f'"{PIPELINES}/features/{name}.yaml"' for name in ("standard", "model"))))
        self.assert_exit(self.engine("run", "--quiet", "--listen", "127.0.0.1:0", path), OK)
        rows = lines(self.directory / "data/correlated.jsonl")
        self.assertEqual(len(rows), len(requests))
        self.send_raw(url, raw, rows)
        groups = self.compare(url, raw, own, len(rows))
        self.assertEqual(ask(url, f"SELECT count() FROM {own}.features FINAL"), [[str(len(lines(self.directory / "data/features.jsonl")))]])
        self.read_back(path, lines(self.directory / "data/features.jsonl"), len(rows))
        dull = [name for name, values in groups.items() if len(values) < 2 and name not in SAME_FOR_ALL]
        self.assertEqual(dull, [], "the day has one value only of these")
        print(f"\n    SEED={SEED}: {len(rows)} rows, {len(groups)} columns of the view ", end="")

    def read_back(self, path: Path, features: list[dict], rows: int) -> None:
        """The same pipeline again, which sends the same batches; at its end all that it serves is in ClickHouse."""
        with running("run", "--serve", path, log=self.directory / "log"):
            base = served(self.directory / "log")
            wait_for("the end", lambda: json.loads(get(f"{base}/status")[1])["state"] == "finished")
            hot = sql(base, "SELECT (SELECT count(*) FROM hot.features) AS f, (SELECT count(*) FROM hot.http_logs) AS h")
            self.assertEqual(hot, [{"f": 0, "h": 0}])
            self.assertEqual(sql(base, "SELECT count(*) AS n, count(DISTINCT seq) AS d FROM http_logs"), [{"n": rows, "d": rows}])
            got = sql(base, "SELECT * FROM features WHERE hits >= 3 AND host <> 'api.example.test'")
        expected = [row for row in features if row["hits"] >= 3 and row["host"] != "api.example.test"]
        self.assertGreater(len(got), 100)
        self.assert_same_rows(map(comparable, got), map(comparable, expected))

    def compare(self, url: str, raw: str, own: str, count: int) -> dict[str, set[str]]:
        """Both databases; the values of each column of the view."""
        columns = [row[0] for row in ask(url, f"SELECT name FROM system.columns WHERE database = '{own}' AND table = 'http_logs' AND default_kind != 'ALIAS'")]
        columns = [name for name in columns if name not in NOT_COMPARED]
        got = {name: ask(url, f"SELECT {', '.join(columns)} FROM {name}.http_logs ORDER BY seq FORMAT TSV") for name in (raw, own)}
        self.assertEqual((len(got[own]), len(got[raw])), (count, count))
        for nth, column in enumerate(columns):
            self.assertEqual([row[nth] for row in got[raw]], [row[nth] for row in got[own]], column)
        names = [row[0] for row in ask(url, f"SELECT name FROM system.columns WHERE database = '{own}' AND table = 'view_ai_features_1h' ORDER BY position")]
        views = {name: ask(url, f"SELECT * FROM {name}.view_ai_features_1h ORDER BY window_start, src_ip, ja4, host FORMAT TSV") for name in (raw, own)}
        self.assertEqual(len(views[raw]), len(views[own]))
        values = defaultdict(set)
        for one, other in zip(views[raw], views[own]):
            for name, left, right in zip(names, one, other):
                values[name].add(left)
                self.assertTrue(left == right or abs(float(left) - float(right)) <= 1e-6, f"{name}: {left} {right}: {one[:4]}")
        self.features(url, own)
        return values

    def features(self, url: str, own: str) -> None:
        """The engine's features beside the view's."""
        picked = f"SELECT window_start, src_ip, ja4, host, {', '.join(f'toFloat64(ifNull({name}, 0))' for name in (*BOTH, *SHIFTED))} FROM {own}."
        engines = {tuple(row[:4]): row[4:] for row in ask(url, picked + "features FINAL FORMAT TSV")}
        view = {tuple(row[:4]): row[4:] for row in ask(url, picked + "view_ai_features_1h FORMAT TSV")}
        seen = {tuple(row[:4]): row[4] for row in ask(url, f"SELECT window_start, src_ip, ja4, host, transport_seen FROM {own}.features FINAL FORMAT TSV")}
        self.assertEqual(engines.keys(), view.keys())
        for key, values in engines.items():
            hits = float(values[0])
            for name, value, other in zip((*BOTH, *SHIFTED), values, view[key]):
                if name in TRANSPORT and float(seen[key]) < 1:
                    continue
                expected = 0.0 if other == "nan" else float(other) * ((hits + 1) / hits if name in SHIFTED else 1)
                self.assertAlmostEqual(float(value), expected, delta=1e-6 * max(1, abs(expected)), msg=f"{name} of {key}")

"""The schema is applied twice, verified, rolled back and applied again."""

import json
import unittest
import urllib.parse
import urllib.request

from tests.clickhouse.server import PYTHON, SECRETS, ask, migrate, schema, shared
from tests.support import FAILED, OK, PIPELINES, RECORDING, REFUSED, Case, demo, engine, lines

FULL = """SELECT count() FROM system.tables WHERE database = '{}' AND name IN ('http_logs_raw', 'http_logs',
'agg_host_ip_ja4_1h', 'agg_header_fingerprint_1h', 'ml_detected_anomalies', 'ml_all_scores', 'ref_bot_networks', 'anubis_ua_rules',
'anubis_ip_rules', 'anubis_asn_rules', 'anubis_country_rules', 'audit_logs', 'bot_ip', 'bot_ja4')"""


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Migrations(Case):
    """`ja4-engine migrate`."""

    def test_up_twice_verify_down_and_up_again(self):
        url, name = shared(), "up_down"
        up = ("up", "--skip-unsupported", *SECRETS)
        for _ in range(2):
            self.assert_exit(migrate(url, name, *up), OK)
            self.assertIn("nothing to do", migrate(url, name, *up).stdout)
            self.assert_exit(migrate(url, name, "verify", *SECRETS), OK)
            self.assertEqual(ask(url, FULL.format(name)), [["14"]])
            self.assert_exit(migrate(url, name, "down"), REFUSED, "--yes does it")
            run = migrate(url, name, "down", "--to", "-1", "--yes")
            self.assert_exit(run, OK)
            order = [line[:2] for line in run.stdout.splitlines()]
            self.assertEqual(order, sorted(order, reverse=True))
            self.assertEqual(ask(url, f"SHOW DATABASES LIKE '{name}'"), [])

    def test_a_server_without_users_needs_the_flag(self):
        url = shared()
        if ["1"] == (ask(url, "SELECT count() FROM system.user_directories") or [["0"]])[0]:
            pass
        run = migrate(url, "flagless", "up", *SECRETS)
        if run.returncode != OK:
            self.assert_exit(run, FAILED, "08_users", "--skip-unsupported")
        migrate(url, "flagless", "down", "--to", "-1", "--yes")

    def test_a_file_that_changed_since_it_was_applied_is_refused(self):
        url, name = shared(), "changed"
        self.assert_exit(migrate(url, name, "up", "--to", "2"), OK)
        ask(url, f"INSERT INTO {name}.schema_migrations (version, name, checksum, state) SELECT 1, 'raw_tables', 'other', 'applied'")
        self.assert_exit(migrate(url, name, "up"), REFUSED, "01_raw_tables has changed")
        self.assertIn("changed since", migrate(url, name, "status").stdout)
        migrate(url, name, "down", "--to", "-1", "--yes")

    def test_no_secret_is_planned_or_missing(self):
        url = shared()
        run = migrate(url, "planned", "plan", "--set", "analyst_password=hunter2")
        self.assert_exit(run, OK)
        self.assertNotIn("hunter2", run.stdout + run.stderr)
        self.assertEqual(ask(url, "SHOW DATABASES LIKE 'planned'"), [])
        self.assert_exit(migrate(url, "planned", "up"), REFUSED, "data_writer_password", "has no value")


def load_asn(case: Case, url: str, name: str) -> None:
    case.write("iplocate-ip-to-asn.csv", (RECORDING / "asn.csv").read_text())
    case.assert_exit(migrate(url, name, "load", case.directory), OK)


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Parity(Case):
    """The demo by both ways in: through http_logs_raw and its view, and written by the engine."""

    def test_both_ways_give_the_same_rows_and_features(self):
        url, raw, own = shared(), schema(shared(), "by_view"), schema(shared(), "by_engine")
        for table in ("http_logs", "http_logs_raw", "agg_host_ip_ja4_1h", "agg_header_fingerprint_1h"):
            for name in (raw, own):
                ask(url, f"TRUNCATE TABLE {name}.{table}")
        load_asn(self, url, raw)
        body = "\n".join(json.dumps({"raw_json": json.dumps(row)}) for row in lines(demo() / "correlated.jsonl"))
        ask(url, f"INSERT INTO {raw}.http_logs_raw (raw_json) FORMAT JSONEachRow\n{body}")
        pipeline = (PIPELINES / "demo.yaml").read_text().replace("recording/", f"{PIPELINES}/recording/")
        pipeline = pipeline.replace("features/standard", f"{PIPELINES}/features/standard").replace("rules/standard", f"{PIPELINES}/rules/standard")
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
        rows = lines(demo() / "correlated.jsonl")
        columns = [row[0] for row in ask(url, f"SELECT name FROM system.columns WHERE database = '{own}' AND table = 'http_logs' AND default_kind != 'ALIAS'")]
        got = {name: ask(url, f"SELECT {', '.join(columns)} FROM {name}.http_logs ORDER BY seq FORMAT TSV") for name in (raw, own)}
        self.assertEqual(len(got[own]), len(rows))
        for nth, column in enumerate(columns):
            self.assertEqual([row[nth] for row in got[raw]], [row[nth] for row in got[own]], column)
        views = {name: ask(url, f"SELECT * FROM {name}.view_ai_features_1h ORDER BY src_ip, ja4, host FORMAT TSV") for name in (raw, own)}
        self.assertEqual(len(views[raw]), len(views[own]))
        for one, other in zip(views[raw], views[own]):
            for left, right in zip(one, other):
                self.assertTrue(left == right or abs(float(left) - float(right)) <= 1e-6, f"{left} {right}: {one[:4]}")
        self.assertEqual(ask(url, f"SELECT count() FROM {own}.features FINAL"), [[str(len(lines(demo() / 'features.jsonl')))]])
        self.assertEqual(ask(url, f"SELECT count() FROM {own}.detections FINAL"), [[str(len(lines(demo() / 'detections.jsonl')))]])
        # Features that both define alike, the engine's and the view's.
        both = ("hits", "hit_velocity", "fuzzing_index", "src_port_density", "max_keepalives", "modern_browser_score", "header_count",
                "temporal_entropy", "path_diversity_ratio", "url_depth_variance", "window_mss_ratio")
        # The same over hits + 1 in the view, over hits in the engine.
        shifted = ("post_ratio", "head_ratio", "asset_ratio", "generic", "http10_ratio", "orphan_ratio", "sec_fetch_absence_rate",
                   "login_post_concentration", "non_standard_port_ratio", "is_fake_navigation")
        shifted = [name for name in shifted if name != "generic"]
        names = [*both, *shifted]
        picked = f"SELECT src_ip, ja4, host, {', '.join(f'toFloat64(ifNull({name}, 0))' for name in names)} FROM {own}."
        engines = {tuple(row[:3]): row[3:] for row in ask(url, picked + "features FINAL FORMAT TSV")}
        view = {tuple(row[:3]): row[3:] for row in ask(url, picked + "view_ai_features_1h FORMAT TSV")}
        self.assertEqual(engines.keys(), view.keys())
        for key, values in engines.items():
            hits = float(values[0])
            for name, value, other in zip(names, values, view[key]):
                expected = 0.0 if other == "nan" else float(other) * ((hits + 1) / hits if name in shifted else 1)
                self.assertAlmostEqual(float(value), expected, delta=1e-6 * max(1, abs(expected)), msg=f"{name} of {key}")

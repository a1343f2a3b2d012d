"""pipelines/prod.yaml fills the tables of detections: what arrives, what the views say of it, and what an analyst corrects."""

import json
import os
import re
import shutil
import signal
import time
import unittest
import urllib.request
from collections import defaultdict
from datetime import UTC, datetime

from tests.clickhouse import day
from tests.clickhouse.server import PYTHON, ask, schema, shared
from tests.support import LIMIT_S, OK, PIPELINES, RECORDING, REFUSED, Case, running, served, sql, wait_for

SEED = int(os.environ.get("SEED") or 1)
HOUR = 3600 * 10**9
DATABASE = "tables"
# Of the table ml_detected_anomalies as the platform's users know it, in its order.
ANOMALIES = (
    "detected_at src_ip ja4 host bot_name browser_family anomaly_score raw_anomaly_score threat_level model_name recurrence asn_number "
    "asn_org asn_detail asn_domain country_code asn_label hits hit_velocity fuzzing_index post_ratio port_exhaustion_ratio max_keepalives "
    "orphan_ratio tcp_jitter_variance tcp_shared_count true_window_size window_mss_ratio reason campaign_id anubis_bot_name "
    "anubis_bot_action"
).split()
SCORES = (
    "detected_at window_start src_ip ja4 host anomaly_score raw_anomaly_score threat_level campaign_id model_name bot_name browser_family "
    "asn_org country_code hits anubis_bot_name anubis_bot_action anubis_bot_category"
).split()
# Who holds connections open, and who tries forms, beside the generated day.
SLOW, TRIES = "192.0.2.77", "192.0.2.78"


def own(begin: int) -> list[dict]:
    """Requests of the two, without a hello: each hour 2 of the one that take 12 s, and 3 logins of the other that fail."""
    rows = []
    for hour in range(0, 22, 3):
        at = begin + hour * HOUR + HOUR // 2
        common = {"dst_ip": "192.0.2.10", "dst_port": 443, "scheme": "https", "host": "shop.example.test", "http_version": "HTTP/1.1",
                  "query": "", "header_User-Agent": "curl/8.5.0"}
        rows += [common | {"timestamp": at + n * 10**9, "src_ip": SLOW, "src_port": 2000 + n, "method": "GET", "path": f"/{n}",
                           "status_code": 200, "duration_ms": 12_000} for n in range(2)]
        rows += [common | {"timestamp": at + n * 10**9, "src_ip": TRIES, "src_port": 3000 + n, "method": "POST", "path": "/login",
                           "status_code": 401, "duration_ms": 30} for n in range(3)]
    return rows


def text_of(address: str) -> str:
    """An address of ClickHouse as logs have it."""
    return address.removeprefix("::ffff:")


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Tables(Case):
    """The pipeline as it is shipped, with files in the place of its interface and socket, and with its ClickHouse nodes."""

    def setUp(self) -> None:
        super().setUp()
        self.url = shared()
        schema(self.url, DATABASE)
        # The views look back a day from now.
        now = time.time_ns() // HOUR * HOUR
        self.begin = now - 22 * HOUR
        hellos, requests = day.generate(SEED, self.begin, 600)
        self.requests = sorted(requests + own(self.begin), key=lambda row: row["timestamp"])
        self.requests = [row for row in self.requests if row["timestamp"] < now]
        hellos = [row for row in hellos if row["timestamp"] < now]
        shutil.copytree(PIPELINES, self.directory / "pipelines", ignore=shutil.ignore_patterns("recording", "tests"))
        for name, rows in (("hellos", hellos), ("requests", self.requests)):
            self.write(f"pipelines/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        self.path = self.write("pipelines/prod.yaml", self.pipeline())
        self.environment = {"DATA_DIR": self.directory / "data", "ASN_CSV": RECORDING / "asn.csv", "CLICKHOUSE_URL": self.url}

    def pipeline(self) -> str:
        """prod.yaml with these inputs, and with the nodes that it has as comments."""
        text = (PIPELINES / "prod.yaml").read_text()

        def put(begin: str, end: str, nodes: str) -> None:
            nonlocal text
            before, rest = text.split(begin, 1)
            text = before + nodes + end + rest.split(end, 1)[1]

        put("  - id: packets\n", "  # One datagram", "  - { id: hellos, kind: source.file, path: hellos.jsonl, format: ja4sentinel }\n")
        put("  - id: requests\n", "  - id: correlated\n", "  - { id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }\n")
        begin, end = text.index("  # - id: clickhouse\n"), text.index("\nserve:")
        block = re.sub(r"(?m)^  # ?", "  ", text[begin:end])
        block = "\n".join(line for line in block.splitlines() if re.match(r"  - id:|    \S", line) and "read_back" not in line)
        block = block.replace('url: "${CLICKHOUSE_URL}"', f'url: "${{CLICKHOUSE_URL}}"\n    database: {DATABASE}')
        self.assertEqual(block.count("kind: sink.clickhouse"), 2, block)
        return f"{text[:begin]}{block}\n{text[end:]}"

    def rows(self, statement: str) -> list[list[str]]:
        """What a query of the database gives."""
        return ask(self.url, statement, database=DATABASE)

    def make_columns(self) -> None:
        """What `migrate ddl` says that the pipeline needs besides the schema: nothing of the tables of detections."""
        run = self.engine("migrate", "ddl", self.path, environment=self.environment)
        self.assert_exit(run, OK)
        for table in ("ml_detected_anomalies", "ml_all_scores", "campaigns", "http_logs"):
            self.assertNotIn(f"`{table}`", run.stdout, "a column of a table of the schema is missing")
        for statement in "\n".join(line for line in run.stdout.splitlines() if not line.startswith("--")).split(";\n"):
            if statement.strip():
                ask(self.url, statement)

    def test_tables_and_views_have_what_recomputation_gives_and_feedback_reaches_them(self):
        for table in ("http_logs", "agg_host_ip_ja4_1h", "ml_detected_anomalies", "ml_all_scores", "campaigns"):
            self.rows(f"TRUNCATE TABLE {table}")
        self.make_columns()
        log = self.directory / "log"
        with running("run", "--no-watch", "--listen", "127.0.0.1:0", self.path, log=log, environment=self.environment) as process:
            base = served(log)
            groups = self.groups()
            wait_for("all scores", lambda: self.count("ml_all_scores FINAL") == len(groups), LIMIT_S)
            wait_for("all requests", lambda: self.count("http_logs") == len(self.requests), LIMIT_S)
            self.check_scores(groups)
            self.check_anomalies(base)
            self.check_views()
            self.correct(base)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(LIMIT_S), OK, log.read_text())

    def count(self, table: str) -> int:
        """How many rows it has."""
        return int(self.rows(f"SELECT count() FROM {table}")[0][0])

    def groups(self) -> dict[tuple, int]:
        """The groups of the hours, and their requests, from the joined rows that ClickHouse has in the end."""
        wait_for("all requests", lambda: self.count("http_logs") == len(self.requests), LIMIT_S)
        found = self.rows("SELECT intDiv(a_timestamp, 3600000000000), src_ip, ja4, host FROM http_logs")
        groups = defaultdict(int)
        for hour, address, ja4, host in found:
            groups[int(hour) * 3600, address, ja4, host] += 1
        return groups

    def check_scores(self, groups: dict[tuple, int]) -> None:
        """Each group of each hour, with its requests."""
        self.assertEqual([name for name in self.columns("ml_all_scores") if name not in ("time", "seq", "tick")], SCORES)
        found = self.rows("SELECT toUnixTimestamp(window_start), src_ip, ja4, host, hits, toUnixTimestamp(detected_at) FROM ml_all_scores FINAL")
        self.assertEqual({(int(row[0]), *row[1:4]): int(row[4]) for row in found}, dict(groups))
        self.assertEqual({int(row[5]) - int(row[0]) for row in found}, {3600})

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns."""
        return [row[0] for row in self.rows(f"SELECT name FROM system.columns WHERE database = '{DATABASE}' AND table = '{table}' ORDER BY position")]

    def check_anomalies(self, base: str) -> None:
        """The table is what the engine serves; the view counts hours."""
        added = ("time", "seq", "window_start", "updated_at", "is_deleted")
        self.assertEqual([name for name in self.columns("ml_detected_anomalies") if name not in added], ANOMALIES)
        caught = self.count("ml_all_scores FINAL WHERE threat_level NOT IN ('NORMAL', 'LEGITIMATE_BROWSER', 'VERIFIED_BOT')")
        self.assertGreater(caught, 20)
        of = "SELECT src_ip, ja4, host, window_start, threat_level, hits, recurrence, reason, tcp_shared_count FROM ml_detected_anomalies"
        served_rows = wait_for("what is served", lambda: len(rows := sql(base, of)) == caught and rows, LIMIT_S)
        wait_for("all detections", lambda: self.count("ml_detected_anomalies_now") == caught, LIMIT_S)

        def key(row: dict) -> tuple:
            moment = datetime.fromisoformat(row["window_start"].rstrip("Z")[:19]).replace(tzinfo=UTC)
            return (row["src_ip"], row["ja4"] or "", row["host"] or "", int(moment.timestamp()), row["threat_level"], row["hits"],
                    row["recurrence"], row["reason"], row["tcp_shared_count"] or 0)

        found = self.rows("SELECT src_ip, ja4, host, toUnixTimestamp(window_start), threat_level, hits, recurrence, reason, tcp_shared_count "
                          "FROM ml_detected_anomalies_now")
        got = {(text_of(row[0]), row[1], row[2], int(row[3]), row[4], int(row[5]), int(row[6]), row[7], int(row[8])) for row in found}
        self.assertEqual(got, {key(row) for row in served_rows})
        self.check_recurrence(base)

    def check_recurrence(self, base: str) -> None:
        """By the view, by the engine, and counted here."""
        hours = defaultdict(set)
        for address, hour in self.rows("SELECT src_ip, toUnixTimestamp(window_start) FROM ml_detected_anomalies_now"):
            hours[text_of(address)].add(hour)
        expected = {address: len(of) for address, of in hours.items()}
        self.assertEqual({text_of(row[0]): int(row[1]) for row in self.rows("SELECT src_ip, recurrence FROM view_ip_recurrence")}, expected)
        self.assertEqual({row["src_ip"]: row["recurrence"] for row in sql(base, "SELECT src_ip, recurrence FROM view_ip_recurrence")}, expected)
        self.assertGreater(max(expected.values()), 3)

    def check_views(self) -> None:
        """What the views say of the day, from the rows of http_logs."""
        rows = self.rows("SELECT src_ip, host, ja4, method, duration_ms FROM http_logs")
        posts, slow, ja4s = defaultdict(int), defaultdict(int), defaultdict(set)
        for address, host, ja4, method, duration in rows:
            posts[address, host] += method == "POST"
            slow[address, host] += int(duration) >= 10_000
            ja4s[address] |= {ja4} - {""}
        expected = {key: count for key, count in posts.items() if count >= 10}
        self.assertIn(("::ffff:" + TRIES, "shop.example.test"), expected)
        found = self.rows("SELECT src_ip, host, count_post FROM view_form_brute_force")
        self.assertEqual({(row[0], row[1]): int(row[2]) for row in found}, expected)
        expected = {key: count for key, count in slow.items() if count >= 3}
        self.assertIn(("::ffff:" + SLOW, "shop.example.test"), expected)
        found = self.rows("SELECT src_ip, host, slow_requests FROM view_slow_requests")
        self.assertEqual({(row[0], row[1]): int(row[2]) for row in found}, expected)
        found = self.rows("SELECT src_ip, ja4s, identities FROM view_ja4_rotation")
        identities = {address: {ja4[:6] + ja4.split("_")[1] for ja4 in of} for address, of in ja4s.items()}
        expected = {address: (len(of), len(identities[address])) for address, of in ja4s.items() if len(of) >= 2}
        self.assertTrue(expected)
        self.assertEqual({row[0]: (int(row[1]), int(row[2])) for row in found}, expected)

    def correct(self, base: str) -> None:
        """A false positive is a detection no more, and one again when that is taken back; a true positive is at least HIGH."""
        of = f"ml_detected_anomalies_now WHERE src_ip = '{TRIES}'"
        before = self.count(of)
        self.assertGreater(before, 0)
        self.say(base, TRIES, "false_positive")
        wait_for("no detection", lambda: self.count(of) == 0)
        self.assertEqual(self.count(f"view_ip_recurrence WHERE src_ip = '{TRIES}'"), 0)
        self.say(base, TRIES, "undo")
        wait_for("the detections again", lambda: self.count(of) == before)
        self.say(base, TRIES, "true_positive")
        wait_for("HIGH", lambda: self.count(f"{of} AND threat_level = 'HIGH' AND startsWith(reason, 'an analyst says')") == before)
        self.assertEqual(self.count(of), before)

    def say(self, base: str, address: str, label: str) -> None:
        """What an analyst says."""
        document = json.dumps({"src_ip": address, "label": label, "who": "ada"}).encode()
        request = urllib.request.Request(f"{base}/api/feedback", document, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.assertEqual(answer.status, 200)

    def test_only_keeps_what_it_names(self):
        """In its order, behind what rows are found by; it cannot be mixed with `drop`, nor name what is not there."""
        self.write("in.jsonl", '{"t": 1795446000, "a": 1, "b": "x", "c": 2.5}\n')
        pipeline = (
            "name: only\nnodes:\n  - { id: rows, kind: source.file, path: in.jsonl, time: t, time_unit: s, columns: { t: time, a: integer, b: text, c: float } }\n"
            "  - { id: some, kind: derive, from: rows, columns: [{ name: d, expr: a + 1 }], OPTION }\n"
            "  - { id: out, kind: sink.jsonl, from: some, path: out.jsonl }\n"
        )
        self.assert_exit(self.engine("run", self.write("p.yaml", pipeline.replace("OPTION", "only: [d, b]"))), OK)
        row = json.loads((self.directory / "out.jsonl").read_text())
        self.assertEqual(list(row)[-2:], ["d", "b"])
        self.assertEqual((row["d"], row["b"], set(row) - {"time", "seq"}), (2, "x", {"d", "b"}))
        for option, says in (("only: [b], drop: [a]", "left out already"), ("only: [nothing]", "nothing")):
            self.assert_exit(self.engine("validate", self.write("p.yaml", pipeline.replace("OPTION", option))), REFUSED, says)

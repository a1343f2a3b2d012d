"""POST /sql over rows in memory and rows in ClickHouse: each row once, at every moment, or an error that says why not."""

import json
import os
import random
import signal
import time
import unittest

from tests.clickhouse.proxy import Proxy
from tests.clickhouse.server import PYTHON, ask, schema, shared
from tests.feeder import Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.support import REFUSED, get, nanoseconds, sql, wait_for
from tests.traffic import REQUEST, SECOND

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))

NODES = """\
  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: correlated }}, url: "{url}", database: {database}, every: 200ms,
      timeout: 5s, max_pause: 500ms, read_back: true }}
"""
TRICKY = "it's \\ \"100%\"; DROP TABLE http_logs -- \u00e9"


def bare(row: dict) -> dict:
    """A row as ClickHouse keeps it: what it does not have is '' or 0."""
    kept = {name: value for name, value in row.items() if value not in (None, "", 0, False)}
    return kept | {"time": nanoseconds(row["time"])}


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class ReadBack(LiveCase):
    """Two sockets, correlate, sink.clickhouse with read_back, a served table."""

    def setUp(self) -> None:
        super().setUp()
        self.url, self.database = shared(), schema(shared(), "read_back")
        ask(self.url, f"TRUNCATE TABLE {self.database}.http_logs")
        self.proxy = Proxy(self.url)
        self.addCleanup(self.proxy.close)
        self.write("live.yaml", pipeline(nodes=NODES.format(url=self.proxy.url, database=self.database)))

    def count(self) -> tuple[int, int]:
        """Rows and different requests, when it is known what is stored."""
        def answer() -> tuple[int, int] | None:
            status, text = get(f"{self.base}/sql", "SELECT count(*) AS n, count(DISTINCT header_x_request_id) AS d FROM requests")
            if status == 503 and ("not known yet" in text or "not answered yet" in text):
                return None
            self.assertEqual(status, 200, text)
            row = json.loads(text)["rows"][0]
            return row["n"], row["d"]
        return wait_for("what is stored", answer)

    def stored(self) -> int:
        return int(ask(self.url, f"SELECT count() FROM {self.database}.http_logs")[0][0])

    def hot(self) -> int:
        return sql(self.base, "SELECT count(*) AS n FROM hot.requests")[0]["n"]

    def all_stored(self, rows: int) -> None:
        wait_for("the last insert", lambda: self.stored() >= rows and self.hot() == 0, pause_s=0.2)

    def test_every_row_is_seen_once_hot_stored_and_after_kills(self):
        print(f"\n    SEED={SEED} ", end="", flush=True)
        rng, both, seen = random.Random(SEED), 0, 0
        with Feeder(traffic(SEED, 60, connections_per_s=100).events(), self.directory) as feeder:
            for _ in range(2):
                self.begin()
                end = time.monotonic() + rng.uniform(3, 5)
                last = 0
                while time.monotonic() < end:
                    rows, different = self.count()
                    self.assertEqual(rows, different, f"SEED={SEED}")
                    self.assertGreaterEqual(rows, last, f"rows are gone while they are stored, SEED={SEED}")
                    last, seen = rows, max(seen, rows)
                    both += 0 < self.hot() < rows
                self.kill()
            self.begin()
            since = feed_for(feeder, 2)
        self.await_requests(feeder.ids(REQUEST, since=since))
        expected = self.output("rows.jsonl")
        self.all_stored(len(expected))
        self.assertEqual(self.count(), (len(expected), len(expected)))
        self.assertGreaterEqual(len(expected), seen)
        self.assertGreater(both, 0, "no query spanned hot and stored rows")
        got = {row["header_x_request_id"]: bare(row) for row in sql(self.base, "SELECT * FROM requests")}
        for row in map(bare, expected):
            self.assertEqual(got[row["header_x_request_id"]], row)
        self.same_types()
        self.conditions(expected)
        self.spoiled(len(expected))
        print(f"{len(expected)} rows, {both} queries over both ", end="")

    def same_types(self) -> None:
        types = [json.loads(get(f"{self.base}/sql", f"SELECT * FROM {name} LIMIT 0")[1])["columns"] for name in ("requests", "hot.requests")]
        self.assertEqual(*types)

    def conditions(self, rows: list[dict]) -> None:
        """Conditions that ClickHouse applies, and conditions that it does not."""
        middle = sorted(row["time"] for row in rows)[len(rows) // 2]
        client = rows[0]["src_ip"]
        cases = {
            f"time >= '{middle}'": lambda row: row["time"] >= middle,
            f"time < '{middle}' AND src_ip = '{client}'": lambda row: row["time"] < middle and row["src_ip"] == client,
            f"NOT (src_ip = '{client}' OR src_port > 30000)": lambda row: row["src_ip"] != client and row["src_port"] <= 30000,
            "path LIKE '/s%' AND keepalives BETWEEN 1 AND 2": lambda row: row["path"].startswith("/s") and 1 <= row["keepalives"] <= 2,
            "host IN ('www.example.test', 'old.example.test')": lambda row: row["host"] in ("www.example.test", "old.example.test"),
            "length(path) > 5 AND correlated = 1": lambda row: len(row["path"]) > 5 and row["correlated"] == 1,
            "host = 'x'' OR 1 = 1 --'": lambda row: False,
        }
        for condition, holds in cases.items():
            with self.subTest(condition):
                got = sql(self.base, f"SELECT header_x_request_id FROM requests WHERE {condition}")
                self.assert_same_rows([row["header_x_request_id"] for row in got],
                                      [row["header_x_request_id"] for row in rows if holds(row)], condition)
        self.assertEqual(len(sql(self.base, "SELECT path FROM requests LIMIT 7")), 7)
        self.assertEqual(len(sql(self.base, "SELECT path FROM requests WHERE correlated = 1 LIMIT 7")), 7)
        latest = sql(self.base, "SELECT time FROM requests ORDER BY time DESC LIMIT 3")
        times = sorted((nanoseconds(row["time"]) for row in rows), reverse=True)
        self.assertEqual([nanoseconds(row["time"]) for row in latest], times[:3])
        joined = sql(self.base, "SELECT count(*) AS n FROM requests a JOIN requests b ON a.header_x_request_id = b.header_x_request_id")
        self.assertEqual(joined[0]["n"], len(rows))

    def spoiled(self, rows: int) -> None:
        """No answer is given for a part of the rows."""
        everything = "SELECT * FROM requests"
        for reads, status, says in (("cut", 503, "cannot be read from ClickHouse"), ("hang", 504, "longer than")):
            self.proxy.reads = reads
            code, text = get(f"{self.base}/sql", everything)
            self.assertEqual((code, says in text), (status, True), text)
        self.proxy.reads, self.proxy.down = "", True
        code, text = get(f"{self.base}/sql", everything)
        self.assertEqual((code, "cannot be read from ClickHouse" in text, "hot." in text), (503, True, True), text)
        self.assertEqual(sql(self.base, "SELECT count(*) AS n FROM hot.requests"), [{"n": 0}])
        self.proxy.down = False
        self.assertEqual(len(sql(self.base, everything)), rows)

    def test_rows_of_earlier_runs_and_of_others_are_there(self):
        at = time.time_ns() // SECOND * SECOND - 3600 * SECOND + 123_456_789
        ask(self.url, f"INSERT INTO {self.database}.http_logs_raw (raw_json) FORMAT JSONEachRow\n"
            + json.dumps({"raw_json": json.dumps({"timestamp": at, "src_ip": "2001:db8::7", "host": TRICKY, "path": "/other"})}))
        self.begin()
        wait_for("what is stored", lambda: self.count() == (1, 1))
        row = sql(self.base, "SELECT time, src_ip, host FROM requests WHERE host = '" + TRICKY.replace("'", "''") + "'")
        self.assertEqual(row, [{"time": f"{time.strftime('%FT%T', time.gmtime(at // SECOND))}.123456789Z",
                                "src_ip": "2001:db8::7", "host": TRICKY}])

    def test_a_pipeline_that_is_changed_meanwhile(self):
        """The island is built anew, and its table with it; rows that the old one stored are there once, too."""
        self.begin()
        with Feeder(traffic(SEED, 60, connections_per_s=60).events(), self.directory) as feeder:
            begin = feed_for(feeder, 1.5)
            changed = pipeline(nodes=NODES.format(url=self.proxy.url, database=self.database), window="4s")
            self.write("live.yaml", changed)
            self.process.send_signal(signal.SIGHUP)

            def applied() -> bool:
                rows, different = self.count()
                self.assertEqual(rows, different, f"SEED={SEED}")
                return json.loads(get(f"{self.base}/status")[1])["reloads"]["applied"] == 1
            wait_for("the change", applied)
            feed_for(feeder, 1.5)
        self.await_requests(feeder.ids(REQUEST, since=begin))
        expected = len(self.output("rows.jsonl"))
        self.all_stored(expected)
        self.assertEqual(self.count(), (expected, expected))

    def test_what_does_not_go_together_is_refused(self):
        text = pipeline(nodes=NODES.format(url=self.proxy.url, database=self.database).replace("read_back: true", "read_back: true, live: true"))
        self.write("live.yaml", text)
        self.assert_exit(self.engine("validate", self.directory / "live.yaml"), REFUSED, "leave out one of them")

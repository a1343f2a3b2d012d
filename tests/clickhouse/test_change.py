"""A pipeline that is changed while the server is away, or does not let the changed one in."""

import json
import os
import random
import signal
import unittest

from tests.clickhouse.proxy import Proxy
from tests.clickhouse.server import PYTHON, ask, schema, shared
from tests.feeder import Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.support import get, wait_for
from tests.traffic import REQUEST

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))

NODES = """\
  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: correlated }}, url: "{url}", database: {database}, every: {every},
      max_rows: {max_rows}, timeout: 2s, max_pause: 300ms }}
"""


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Change(LiveCase):
    """Two sockets, correlate, sink.clickhouse beside sink.jsonl."""

    def text(self, url: str, database: str, every: str = "300ms", max_rows: int = 1000, window: str = "3s") -> str:
        nodes = NODES.format(url=url, database=database, every=every, max_rows=max_rows)
        return pipeline(nodes=nodes, window=window, lateness="1000ms")

    def signal_with(self, text: str) -> None:
        """Another pipeline, and SIGHUP."""
        self.write("live.yaml.new", text).rename(self.directory / "live.yaml")
        self.process.send_signal(signal.SIGHUP)

    def reloads(self) -> dict:
        status, text = get(f"{self.base}/status")
        self.assertEqual(status, 200, text)
        return json.loads(text)["reloads"]

    def assert_same_as_file(self, database: str) -> None:
        """ClickHouse has what sink.jsonl has."""
        sql = f"SELECT header_x_request_id, conn_id, keepalives FROM {database}.http_logs"
        expected = {name for name, _ in self.rows()}
        wait_for("the last insert", lambda: len({name for name, *_ in ask(shared(), sql)}) >= len(expected), pause_s=0.5)
        self.stop()
        rows = [(name, (hello, number)) for name, (hello, number) in self.rows()]
        got = [(name, (hello or None, int(number))) for name, hello, number in ask(shared(), sql)]
        self.assert_same_rows(got, rows, f"SEED={SEED}\n{self.log.read_text()[-3000:]}")
        print(f"\n    {len(got)} rows, SEED={SEED} ", end="")

    def test_a_change_while_the_server_is_away_loses_and_doubles_nothing(self):
        """The answers of some inserts are lost, then the server is away; the sink changes, and correlation before it."""
        url, rng = shared(), random.Random(SEED)
        database = schema(url, "changed_away")
        ask(url, f"TRUNCATE TABLE {database}.http_logs")
        proxy = Proxy(url, seed=SEED, faults=("cut_after", "exception_after"))
        self.addCleanup(proxy.close)
        self.write("live.yaml", self.text(proxy.url, database))
        self.begin()
        with Feeder(traffic(SEED, 120, connections_per_s=100).events(), self.directory) as feeder:
            for nth in range(1, 4):
                feed_for(feeder, 1)
                lost = proxy.counts.total()
                proxy.share = 1.0
                wait_for("a lost answer", lambda: proxy.counts.total() > lost)  # noqa: B023
                proxy.down = True
                every, rows = rng.choice(("200ms", "1s", "2s")), 500 + nth
                self.signal_with(self.text(proxy.url, database, every, rows, window=rng.choice(("3s", "4s"))))
                # The change waits for the old sink, which waits for the server; rows go on into the spool.
                feed_for(feeder, rng.uniform(0.2, 2))
                self.assertEqual(self.reloads()["applied"], nth - 1, self.log.read_text()[-2000:])
                proxy.share, proxy.down = 0.0, False
                wait_for("the change", lambda: self.reloads()["applied"] == nth)  # noqa: B023
            since = feed_for(feeder, 2)
        self.await_requests(feeder.ids(REQUEST, since=since))
        self.assert_same_as_file(database)

    def test_a_changed_pipeline_that_is_not_let_in_is_refused_and_the_old_one_goes_on(self):
        url = shared()
        database = schema(url, "changed_denied")
        ask(url, f"TRUNCATE TABLE {database}.http_logs")
        self.write("live.yaml", self.text(url, database))
        self.begin()
        with Feeder(traffic(SEED, 60, connections_per_s=100).events(), self.directory) as feeder:
            feed_for(feeder, 1)
            self.signal_with(self.text(url.replace("http://", "http://me:s3cret@"), database))
            wait_for("the outcome", lambda: self.reloads()["refused"] == 1)
            message = self.reloads()["last"]["message"]
            self.assertIn("refuses access", message)
            self.assertNotIn("s3cret", message + self.log.read_text())
            since = feed_for(feeder, 1)
        self.await_requests(feeder.ids(REQUEST, since=since))
        self.assert_same_as_file(database)

"""kill -9 of the engine under load, with a proxy that fails: what was accepted is in ClickHouse exactly once."""

import os
import random
import subprocess
import time
import unittest

from tests.clickhouse.proxy import Proxy
from tests.clickhouse.server import PYTHON, ask, schema, shared
from tests.feeder import Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.support import wait_for
from tests.traffic import REQUEST

KILLS = int(os.environ.get("KILLS", 6))
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))

NODES = """\
  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: correlated }}, url: "{url}", database: {database}, every: 200ms,
      timeout: 2s, max_pause: 500ms }}
"""


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Kill(LiveCase):
    """Two sockets, correlate, sink.clickhouse beside sink.jsonl."""

    def test_what_was_accepted_is_in_clickhouse_exactly_once(self):
        print(f"\n    {KILLS} kills, SEED={SEED} ", end="", flush=True)
        url, rng = shared(), random.Random(SEED)
        database = schema(url, "kills")
        ask(url, f"TRUNCATE TABLE {database}.http_logs")
        proxy = Proxy(url, seed=SEED, share=0.2)
        self.addCleanup(proxy.close)
        self.write("live.yaml", pipeline(nodes=NODES.format(url=proxy.url, database=database)))
        with Feeder(traffic(SEED, KILLS * 4 + 60, connections_per_s=100).events(), self.directory) as feeder:
            for _ in range(KILLS):
                self.begin(wait=False)
                end = time.monotonic() + rng.uniform(0.2, 1.5)
                wait_for("the moment", lambda: time.monotonic() > end, pause_s=0.005)
                self.assertIsNone(self.process.poll(), self.log.read_text())
                self.kill()
            self.begin()
            since = feed_for(feeder, 2)
        self.await_requests(feeder.ids(REQUEST, since=since))
        sql = f"SELECT header_x_request_id, conn_id, keepalives FROM {database}.http_logs"
        expected = {name for name, _ in self.rows()}
        wait_for("the last insert", lambda: len(ask(url, sql)) >= len(expected), pause_s=0.5)
        self.stop()
        rows = [(name, (hello, number)) for name, (hello, number) in self.rows()]
        got = [(name, (hello or None, int(number))) for name, hello, number in ask(url, sql)]
        self.assert_same_rows(got, rows, f"SEED={SEED}")
        self.assertGreater(len(got), 50 * KILLS)
        print(f"{len(got)} rows, faults {dict(proxy.counts)} ", end="")

    def test_what_is_refused_is_in_clickhouse_exactly_once_when_it_was_sent_again(self):
        """Some rows are refused until the half of the kills; what was put away is sent again at the end."""
        print(f"\n    {KILLS} kills, SEED={SEED} ", end="", flush=True)
        url, rng = shared(), random.Random(SEED)
        database = schema(url, "kills_refused")
        ask(url, f"TRUNCATE TABLE {database}.http_logs")
        ask(url, f"ALTER TABLE {database}.http_logs ADD CONSTRAINT IF NOT EXISTS some CHECK cityHash64(header_x_request_id) % 10 != 0")
        proxy = Proxy(url, seed=SEED, share=0.1)
        self.addCleanup(proxy.close)
        self.write("live.yaml", pipeline(nodes=NODES.format(url=proxy.url, database=database)))
        put_away = self.data / "dead_letters/store/http_logs"
        with Feeder(traffic(SEED, KILLS * 4 + 120, connections_per_s=100).events(), self.directory) as feeder:
            for nth in range(KILLS):
                self.begin(wait=False)
                end = time.monotonic() + rng.uniform(1, 3)
                wait_for("the moment", lambda: time.monotonic() > end, pause_s=0.005)
                if nth == KILLS // 2:
                    wait_for("a letter", lambda: list(put_away.glob("*.arrows")), limit_s=60)
                self.assertIsNone(self.process.poll(), self.log.read_text())
                self.kill()
                if nth == KILLS // 2:
                    ask(url, f"ALTER TABLE {database}.http_logs DROP CONSTRAINT some")
            self.begin()
            since = feed_for(feeder, 2)
        self.await_requests(feeder.ids(REQUEST, since=since))
        letters = list(put_away.glob("*.arrows"))
        for letter in letters:
            command = letter.with_suffix(".reason").read_text().splitlines()[-1]
            subprocess.run(["bash", "-c", command.replace(proxy.url, url)], check=True, timeout=60)
        sql = f"SELECT header_x_request_id, conn_id, keepalives FROM {database}.http_logs"
        expected = {name for name, _ in self.rows()}
        wait_for("the last insert", lambda: len({name for name, *_ in ask(url, sql)}) >= len(expected), pause_s=0.5)
        self.stop()
        rows = [(name, (hello, number)) for name, (hello, number) in self.rows()]
        got = [(name, (hello or None, int(number))) for name, hello, number in ask(url, sql)]
        self.assert_same_rows(got, rows, f"SEED={SEED}, {len(letters)} letters")
        print(f"{len(got)} rows, {len(letters)} letters, faults {dict(proxy.counts)} ", end="")

"""Stops and changed options while answers are lost: what the server has taken is not written again under another name."""

import os
import random
import time
import unittest

from tests.clickhouse.proxy import Proxy
from tests.clickhouse.server import PYTHON, ask, schema, shared
from tests.feeder import Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.support import wait_for
from tests.traffic import REQUEST

STOPS = int(os.environ.get("STOPS", 6))
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))

NODES = """\
  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: correlated }}, url: "{url}", database: {database}, every: {every},
      max_rows: {max_rows}, timeout: 2s, max_pause: 300ms }}
"""


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Restart(LiveCase):
    """Two sockets, correlate, sink.clickhouse beside sink.jsonl."""

    def test_a_stop_with_other_options_while_answers_are_lost_doubles_nothing(self):
        print(f"\n    {STOPS} stops, SEED={SEED} ", end="", flush=True)
        url, rng = shared(), random.Random(SEED)
        database = schema(url, "stops")
        ask(url, f"TRUNCATE TABLE {database}.http_logs")
        proxy = Proxy(url, seed=SEED, faults=("cut_after", "exception_after"))
        self.addCleanup(proxy.close)

        def begin() -> None:
            options = {"every": rng.choice(("300ms", "1s", "3s")), "max_rows": rng.choice((7, 50, 1000))}
            self.write("live.yaml", pipeline(nodes=NODES.format(url=proxy.url, database=database, **options)))
            self.begin()

        with Feeder(traffic(SEED, STOPS * 4 + 60, connections_per_s=100).events(), self.directory) as feeder:
            for nth in range(STOPS):
                # The server does everything, and no answer arrives; in every other run first a few do.
                proxy.share = 0.3 if nth % 2 else 1.0
                begin()
                end = time.monotonic() + rng.uniform(1, 3)
                wait_for("the moment", lambda: time.monotonic() > end, pause_s=0.005)
                proxy.share = 1.0
                self.stop()
            proxy.share = 0.0
            begin()
            since = feed_for(feeder, 2)
        self.await_requests(feeder.ids(REQUEST, since=since))
        sql = f"SELECT header_x_request_id, conn_id, keepalives FROM {database}.http_logs"
        expected = {name for name, _ in self.rows()}
        wait_for("the last insert", lambda: len({name for name, *_ in ask(url, sql)}) >= len(expected), pause_s=0.5)
        self.stop()
        rows = [(name, (hello, number)) for name, (hello, number) in self.rows()]
        got = [(name, (hello or None, int(number))) for name, hello, number in ask(url, sql)]
        self.assert_same_rows(got, rows, f"SEED={SEED}")
        print(f"{len(got)} rows, faults {dict(proxy.counts)} ", end="")

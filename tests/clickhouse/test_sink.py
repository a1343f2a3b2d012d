"""What sink.clickhouse does when the network and the server fail: every row is there, once.

PLANS says how many fault plans are tried, SEED repeats them; it is printed.
"""

import os
import random
import shutil
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.clickhouse.proxy import Proxy
from tests.clickhouse.server import PYTHON, Server, ask, schema, shared
from tests.clickhouse.sink import SinkCase
from tests.support import FAILED, OK, REFUSED, running, wait_for

PLANS = int(os.environ.get("PLANS", 12))
PARALLEL = 4
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))


@unittest.skipUnless(PYTHON, "CLICKHOUSE_PYTHON: make test-tools")
class Sink(SinkCase):
    """Rows of a file in ClickHouse, through a proxy that fails."""

    def test_whatever_fails_every_row_is_there_once(self):
        url = shared()
        database = schema(url, "sink_faults")
        print(f"\n    {PLANS} fault plans, SEED={SEED} ", end="", flush=True)
        before = int(ask(url, f"SELECT sum(hits) FROM {database}.agg_host_ip_ja4_1h")[0][0])
        # A plan mostly waits for its timeouts and pauses, so several are tried at a time.
        with ThreadPoolExecutor(PARALLEL) as pool:
            done = list(pool.map(lambda plan: self.fault_plan(url, database, plan), range(PLANS)))
        total, counts = sum(rows for rows, _ in done), sum((faults for _, faults in done), Counter())
        # The views behind the table counted each row once, too.
        self.assertEqual(int(ask(url, f"SELECT sum(hits) FROM {database}.agg_host_ip_ja4_1h")[0][0]) - before, total)
        print(f"{total} rows, faults {dict(counts)} ", end="")

    def fault_plan(self, url: str, database: str, plan: int) -> tuple[int, Counter]:
        """Rows of a file through a proxy, both drawn from the seed; how many rows, and which faults there were."""
        rng = random.Random(f"{SEED} {plan}")
        prefix, count = f"{SEED}.{plan}", rng.randint(50, 600)
        folder = f"plan-{plan}"
        (self.directory / folder).mkdir()
        self.requests(prefix, count, rng.choice((1, 10, 40)) * 1_000_000, folder)
        proxy = Proxy(url, seed=rng.randrange(1 << 32), share=rng.uniform(0.1, 0.9), most=rng.randint(1, 12))
        try:
            path = self.pipeline(proxy.url, database, every=rng.choice(("100ms", "1s")), max_rows=rng.choice((7, 50, 1000)),
                                 concurrency=rng.randint(1, 4), folder=folder)
            run = self.engine("run", "--quiet", "--workers", rng.choice((1, 2)), path)
            self.assert_exit(run, OK)
        finally:
            proxy.close()
        self.assert_once(url, database, prefix, count, f"plan {plan}, SEED={SEED}: {dict(proxy.counts)}")
        shutil.rmtree(self.directory / folder)
        return count, proxy.counts

    def test_a_server_that_is_killed_during_inserts_has_every_row_once(self):
        server = Server()
        self.addCleanup(server.close)
        database = schema(server.url, "killed")
        self.requests("k", 3000)
        path = self.pipeline(server.url, database)
        rng = random.Random(SEED)
        with running("run", "--quiet", path, log=self.directory / "log") as process:
            for _ in range(3):
                goal = len(self.ids(server.url, database, "k")) + rng.randint(1, 200)
                wait_for("some rows", lambda: process.poll() is not None or len(self.ids(server.url, database, "k")) >= min(goal, 3000))
                server.kill()
                server.start()
            process.wait(120)
        self.assert_once(server.url, database, "k", 3000, f"SEED={SEED}\n{(self.directory / 'log').read_text()[-2000:]}")

    def test_a_table_that_does_not_fit_is_named_at_the_start(self):
        url = shared()
        database = schema(url, "misfit")
        ask(url, f"ALTER TABLE {database}.http_logs DROP COLUMN IF EXISTS header_referer")
        self.requests("m", 3)
        self.assert_exit(self.engine("run", "--quiet", self.pipeline(url, database)), FAILED, "has no column `header_referer`")
        self.assert_exit(self.engine("run", "--quiet", self.pipeline(url, "nowhere")), FAILED, "there is no table nowhere.http_logs")

    def test_connect_says_what_of_a_table_does_not_fit_and_what_does(self):
        url = shared()
        database = schema(url, "connect")
        self.requests("c", 3)
        path = self.pipeline(url, database)
        run = self.engine("validate", "--connect", path)
        self.assert_exit(run, OK)
        self.assertIn("tables of servers;", run.stdout)
        ask(url, f"ALTER TABLE {database}.http_logs DROP COLUMN IF EXISTS header_referer, MODIFY COLUMN src_port String")
        run = self.engine("validate", "--connect", path)
        self.assert_exit(run, REFUSED, "store:", "has no column `header_referer`, needed: String",
                         "has the column `src_port` as String, needed: UInt16")
        self.assert_exit(self.engine("validate", path), OK)
        self.assert_exit(self.engine("run", "--quiet", path), FAILED, "`src_port` as String, needed: UInt16")
        proxy = Proxy(url)
        self.addCleanup(proxy.close)
        proxy.down = True
        self.assert_exit(self.engine("validate", "--connect", self.pipeline(proxy.url, database)), FAILED, f"ClickHouse at {proxy.url}")

    def test_several_inserts_of_one_cut_are_on_their_way_at_a_time(self):
        url = shared()
        database = schema(url, "at_once")
        self.requests("n", 1000, step_ns=1000)
        proxy = Proxy(url, share=1.0, faults=("slow",))
        self.addCleanup(proxy.close)
        # All rows are of one tick, hence of one cut, whose inserts are small.
        path = self.pipeline(proxy.url, database, max_rows=50, timeout="30s", concurrency=3)
        self.assert_exit(self.engine("run", "--quiet", path), OK)
        self.assertEqual(proxy.most_at_once, 3)
        self.assert_once(url, database, "n", 1000, "")

    def test_two_cuts_of_rows_may_wait_so_that_there_is_something_to_send_at_a_time(self):
        url = shared()
        database = schema(url, "two_cuts")
        count = 210_000
        self.requests("t", count, step_ns=1_000_000)
        proxy = Proxy(url)
        self.addCleanup(proxy.close)
        proxy.allowed = 0
        with self.run_of(self.pipeline(proxy.url, database, every="1000s", max_rows=100_000, timeout="60s")) as run:
            # One of 100,000 fills what there would be room for otherwise, and the file would not be read on.
            wait_for("two cuts", lambda: run.sink()["rows_in"] >= 200_000)
            proxy.allowed = None
            run.end()
        self.assertEqual(ask(url, f"SELECT count(), uniqExact(header_x_request_id) FROM {database}.http_logs"), [[str(count)] * 2])

    def test_texts_that_are_no_address_are_counted(self):
        url = shared()
        database = schema(url, "no_address")
        self.requests("a", 70)
        odd = "  - { id: odd, kind: derive, from: requests, columns: [{ name: src_ip, expr: \"case when path = '/5' then 'nobody' else src_ip end\" }] }"
        run = self.engine("run", self.pipeline(url, database, nodes=odd, source="odd"))
        self.assert_exit(run, OK, "bad_addresses 10")
        self.assert_once(url, database, "a", 70, "")
        self.assertEqual(ask(url, f"SELECT count() FROM {database}.http_logs WHERE src_ip = '::' AND path = '/5'"), [["10"]])

    def test_options_are_checked(self):
        self.requests("o", 1)
        self.assert_exit(self.engine("validate", self.pipeline("ftp://me:secret@x", "d")), REFUSED, "not http[s]")
        self.assert_exit(self.engine("validate", self.pipeline("http://x", "d", max_rows=0)), REFUSED, "greater than 0")
        self.assert_exit(self.engine("validate", self.pipeline("http://x", "d", options=", max_dead_letter_bytes: 0")), REFUSED, "greater than 0")

    def test_what_does_not_fit_any_more_goes_to_a_file_and_the_rest_goes_on(self):
        url = shared()
        database = schema(url, "dead")
        ask(url, f"ALTER TABLE {database}.http_logs ADD CONSTRAINT IF NOT EXISTS no_five CHECK path != '/5'")
        self.requests("d", 70)
        self.assert_exit(self.engine("run", "--quiet", self.pipeline(url, database, max_rows=1)), OK, "refused")
        dead = list((self.directory / "data/dead_letters/store/http_logs").glob("*.arrows"))
        got = self.ids(url, database, "d")
        self.assertEqual(len(got), len(set(got)))
        self.assertTrue(dead and got)
        self.assertTrue(all("no_five" in file.with_suffix(".reason").read_text() for file in dead))
        # The command beside each file sends it once the table takes it; twice is not too often.
        ask(url, f"ALTER TABLE {database}.http_logs DROP CONSTRAINT no_five")
        for file in dead * 2:
            sent = self.send_again(file)
            self.assertEqual(sent.returncode, 0, sent.stderr)
        self.assert_once(url, database, "d", 70, "sent again")

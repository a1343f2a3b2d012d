"""Live change beside inputs that have ended, beside one at which time stands still, and of sinks that are apart in time."""

import json
import os
import shutil
import time

from tests.live_engine import LiveCase, pipeline
from tests.feeder import SOCKETS, connected
from tests.support import get, sql, wait_for
from tests.traffic import REQUEST, SECOND

PIPE = "old.pipe"
HELLOS = 50
# Hellos from a pipe: joined with requests that go on, and counted on their own.
NODES = """\
  - {{ id: old, kind: source.file, path: old.pipe, format: ja4sentinel, lateness: 1s }}
  - {{ id: again, kind: correlate, from: {{ hello: old, request: requests }}, window: {window} }}
  - {{ id: again_file, kind: sink.jsonl, from: again, path: data/again.jsonl }}
  - {{ id: counted, kind: aggregate, from: old, by: [src_ip], window: 1h, max_groups: {groups}, features: [ {{ name: hits, expr: count(*) }} ] }}
  - {{ id: counted_file, kind: sink.jsonl, from: counted, path: data/counted.jsonl }}
  - {{ id: stored, kind: sink.parquet, from: {{ finals: counted.final }} }}
"""

# A second way of the same requests, some seconds behind the first.
SLOW = """\
  - {{ id: slow, kind: source.unix_socket, path: slow.socket, format: reqin_log, lateness: 4s }}
  - {{ id: chosen, kind: filter, from: slow, where: "src_port > {port}" }}
  - {{ id: slow_file, kind: sink.jsonl, from: chosen, path: data/slow.jsonl }}
"""


class Inputs(LiveCase):
    """A running engine with a named pipe beside its sockets."""

    def setUp(self) -> None:
        super().setUp()
        os.mkfifo(self.directory / PIPE)

    def change(self, version: str) -> str:
        """Puts the next pipeline in place of the old one; what has become of it."""
        before = self.outcomes()
        self.put(version)
        return self.applied(before)

    def put(self, version: str) -> None:
        """Puts a pipeline in place of another in one step."""
        self.write("live.yaml.new", version).rename(self.directory / "live.yaml")

    def applied(self, before: dict, outcome: str = "applied") -> str:
        """What has become of the change after those of `before`."""
        try:
            wait_for("the change", lambda: self.outcomes() != before, limit_s=40)
        except TimeoutError:
            self.fail(self.log.read_text())
        last = self.outcomes()["last"]
        self.assertEqual(last["outcome"], outcome, last)
        return last["message"]

    def outcomes(self) -> dict:
        """Reloads so far."""
        return json.loads(get(f"{self.base}/status")[1])["reloads"]

    def request(self, name: str, port: int) -> None:
        """A request of one of the pipe's connections, now."""
        row = {"timestamp": time.time_ns(), "src_ip": "198.18.0.1", "src_port": port, "header_X-Request-Id": name}
        with connected(self.directory / SOCKETS[REQUEST]) as opened:
            opened.send(json.dumps(row).encode())

    def test_a_table_of_what_comes_before_the_spool(self):
        """Its source goes on, and so does it: what was there stays, and what comes is added."""
        self.write("live.yaml", pipeline(tables=", bad: requests.rejected"))
        self.begin()
        with connected(self.directory / SOCKETS[REQUEST]) as opened:
            opened.send(b"no JSON")
            lines = "SELECT line FROM bad"
            wait_for("a line", lambda: len(sql(self.base, lines)) == 1)
            self.change(pipeline(tables=", bad: requests.rejected", window="6s"))
            self.assertEqual(len(sql(self.base, lines)), 1)
            opened.send(b"no JSON either")
            wait_for("another line", lambda: len(sql(self.base, lines)) == 2)

    def test_sinks_of_different_lag_change_at_once(self):
        """One is three seconds further than the other: both go over, and each row is there once."""
        def version(at: int) -> str:
            return pipeline(nodes=SLOW.format(port=at), window=f"{3 + at}s")

        self.write("live.yaml", version(0))
        self.begin()
        wait_for("the third socket", (self.directory / "slow.socket").exists)
        sent = [f"row-{nth}" for nth in range(120)]
        with connected(self.directory / SOCKETS[REQUEST]) as fast, connected(self.directory / "slow.socket") as slow:
            for nth, name in enumerate(sent):
                row = {"timestamp": time.time_ns(), "src_ip": "198.18.0.1", "src_port": 40_000, "header_X-Request-Id": name}
                fast.send(json.dumps(row).encode())
                slow.send(json.dumps(row).encode())
                if nth % 40 == 20:
                    before = self.outcomes()
                    self.put(version(1 + nth // 40))
                due = time.monotonic() + 0.05
                wait_for("the next row", lambda due=due: time.monotonic() > due, pause_s=0.005)
                if nth % 40 == 39:
                    message = self.applied(before)
                    self.assertRegex(message, "^correlated, rows_file, late_file, chosen, slow_file rebuilt, from tick")
        wait_for("the rows", lambda: len(self.rows()) == len(sent) == len(self.output("slow.jsonl")))
        self.stop()
        self.assert_same_rows([name for name, _ in self.rows()], sent)
        self.assert_same_rows([row["header_x_request_id"] for row in self.output("slow.jsonl")], sent)

    def hellos(self, since: int) -> str:
        """Lines for the pipe, some of them each second."""
        rows = ({"timestamp": since + at * SECOND // 10, "src_ip": "198.18.0.1", "src_port": 40_000 + at, "conn_id": f"old-{at}"}
                for at in range(HELLOS))
        return "".join(json.dumps(row) + "\n" for row in rows)

    def text(self, window: str = "60s", groups: int = 1000) -> str:
        """The pipeline, with an option of each of the nodes behind the pipe."""
        return pipeline(nodes=NODES.format(window=window, groups=groups), tables=", counts: counted, finals: counted.final")

    def counts(self) -> list[int]:
        """Hits of the windows in the file, each of which must be there once."""
        rows = self.output("counted.jsonl")
        self.assertEqual(len({row["window_start"] for row in rows}), len(rows), rows)
        return [row["hits"] for row in rows]

    def assert_stored(self) -> None:
        """The table that is kept in files has all of them, once."""
        wait_for("the stored table", lambda: sql(self.base, "SELECT sum(hits) AS hits FROM finals") == [{"hits": HELLOS}])

    def test_an_input_that_has_ended(self):
        """Nodes behind it are made again, from what it gave; what it is joined with goes on, and nothing comes twice."""
        self.write("live.yaml", self.text())
        self.begin()
        (self.directory / PIPE).write_text(self.hellos(time.time_ns() - 4 * SECOND))
        wait_for("the end of the pipe", lambda: sum(self.counts()) == HELLOS)
        counts = self.counts()
        self.request("first", 40_001)
        wait_for("a row", lambda: self.rows("again.jsonl"))

        self.assert_stored()
        self.assertRegex(self.change(self.text(groups=1001)), r"^counted, counted_file, stored rebuilt$")
        self.assert_stored()
        self.request("second", 40_002)
        self.assertRegex(self.change(self.text(groups=1001, window="70s")), r"^again, again_file rebuilt, from tick \d+ on$")
        self.request("third", 40_003)
        # Windows of what has ended are over at once; what is live does not wait until the clock is there.
        other = self.text(groups=1002, window="80s").replace("window: 3s", "window: 6s")
        self.assertRegex(self.change(other), "^correlated, rows_file, late_file, again, again_file, counted, counted_file, stored rebuilt")
        self.assert_stored()
        before = self.outcomes()
        self.put(other.replace("lateness: 1s }", "lateness: 2s }"))
        self.assertIn("old has ended", self.applied(before, "refused"))
        self.request("fourth", 40_004)
        wait_for("the rows", lambda: len(self.rows("again.jsonl")) == 4)
        self.assertEqual(self.counts(), counts)
        shown = "SELECT sum(hits) AS hits, count(*) AS windows FROM counts WHERE final"
        wait_for("the table", lambda: sql(self.base, shown) == [{"hits": HELLOS, "windows": len(counts)}])
        self.stop()
        self.assertEqual({name: hello for name, (hello, _) in self.rows("again.jsonl")},
                         {"first": "old-1", "second": "old-2", "third": "old-3", "fourth": "old-4"})
        self.assertEqual(self.counts(), counts)

    def test_an_input_that_ends_while_the_new_nodes_come(self):
        """The pipe's writer leaves just then."""
        self.write("live.yaml", self.text())
        self.begin()
        for nth in range(4):
            with (self.directory / PIPE).open("w") as pipe:
                pipe.write(self.hellos(time.time_ns() - 4 * SECOND))
                pipe.flush()
                before = self.outcomes()
                self.put(self.text(groups=1100 + nth, window=f"{61 + nth}s"))
                # From before the change is noticed to after its end.
                until = time.monotonic() + nth * 0.2
                wait_for("the moment", lambda until=until: time.monotonic() > until, pause_s=0.002)
            self.applied(before)
            wait_for("the rows", lambda: sum(self.counts()) == HELLOS)
            self.request(f"last-{nth}", 40_002)
            wait_for("a row", lambda: self.rows("again.jsonl"))
            self.assertEqual(self.rows("again.jsonl"), [(f"last-{nth}", ("old-2", 1))])
            self.stop()
            # Another run, with a pipe that has not ended, from nothing.
            shutil.rmtree(self.data)
            self.begin()

    def test_an_input_at_which_time_stands_still(self):
        """Its last row was of another day, and it is silent: what reads it changes all the same, and what does not goes on."""
        self.write("live.yaml", self.text())
        self.begin()
        since = time.time_ns() - 86_400 * SECOND
        with (self.directory / PIPE).open("w") as pipe:
            pipe.write(self.hellos(since))
            pipe.flush()
            wait_for("rows", lambda: self.metric(r'rows_out_total\{node="old"') == HELLOS)
            self.assertRegex(self.change(self.text(groups=1001)), "^counted, counted_file, stored rebuilt")
            pipe.write(self.hellos(since + 10 * SECOND))
            pipe.flush()
            # What is not behind it is changed on its own, and with it: nobody waits until the clock there is right.
            other = self.text(groups=1001).replace("window: 3s", "window: 6s")
            self.assertRegex(self.change(other), "^correlated, rows_file, late_file rebuilt")
            both = self.text(groups=1002).replace("window: 3s", "window: 5s")
            self.assertRegex(self.change(both), "^correlated, rows_file, late_file, counted, .* rebuilt")
            self.request("live", 40_001)
            wait_for("a row", lambda: dict(self.rows()).get("live") == (None, 0))
        wait_for("the end of the pipe", lambda: sum(self.counts()) == 2 * HELLOS)
        self.stop()
        self.assertEqual(sum(self.counts()), 2 * HELLOS)



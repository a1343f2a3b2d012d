"""How far back logs reach, against how far back nodes look: what is made from a part of its rows is said."""

import json
import socket
import time
from collections import Counter
from pathlib import Path

from tests.live_engine import LiveCase
from tests.support import OK, wait_for

PIPELINE = """\
name: reach
data_dir: data
spool: {{ commit: 5ms, retain: 0s, segment_size: 4KiB }}
nodes:
  - {{ id: rows, kind: source.unix_socket, path: rows.socket, columns: {{ time: time, n: text }}, lateness: 100ms }}
  - {{ id: kept, kind: filter, from: rows, where: "n <> ''", durable: {durable} }}
  - {{ id: groups, kind: aggregate, from: kept, by: [n], window: {window}, features: [{{ name: hits, expr: count(*) }}] }}
  - {{ id: out, kind: sink.jsonl, from: groups.final, path: data/groups.jsonl }}
  - {{ id: all, kind: sink.jsonl, from: rows, path: data/all.jsonl }}
serve: {{ listen: "127.0.0.1:0", tables: {{ groups: groups }} }}
"""

DETECTIONS = """\
name: reach
data_dir: data
spool: { commit: 5ms, retain: 0s, segment_size: 4KiB }
nodes:
  - { id: rows, kind: source.unix_socket, path: rows.socket, columns: { time: time, src_ip: text, n: text }, lateness: 100ms }
  - { id: features, kind: aggregate, from: rows, by: [src_ip], window: 1s, features: [{ name: hits, expr: count(*) }] }
  - id: detections
    kind: detect.rules
    from: features.final
    rules: [{ name: any, when: hits > 0, level: HIGH, reason: any }]
    durable: true
  - { id: recurrence, kind: recurrence, from: detections, look_back: 1h, granularity: 1m }
  - { id: out, kind: sink.jsonl, from: recurrence.joined, path: data/joined.jsonl }
  - { id: all, kind: sink.jsonl, from: rows, path: data/all.jsonl }
serve: { listen: "127.0.0.1:0", tables: { recurrence: recurrence } }
"""

# Twenty hours are one window for all that a test does, but for two seconds of each twenty hours.
LONG = "20h"


class Reach(LiveCase):
    """A socket, a filter that may be durable, an aggregate."""

    sent = 0

    def receives(self) -> bool:
        """Whether somebody listens at the socket; fails if the engine has ended."""
        self.assertIsNone(self.process.poll(), f"the engine has ended:\n{self.log.read_text()}")
        return (self.directory / "rows.socket").exists()

    def configure(self, *, durable: str = "false", window: str = "1s") -> None:
        """The pipeline as it is to be."""
        self.write("live.yaml", PIPELINE.format(durable=durable, window=window))

    def send(self, rows: int = 40) -> None:
        """Rows of now, which have then come out."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self.directory / "rows.socket"))
            for _ in range(rows):
                sender.send(json.dumps({"time": time.time_ns(), "src_ip": "192.0.2.1", "n": "x" * 200}).encode())
                self.sent += 1
        wait_for("the rows", lambda: len(self.output("all.jsonl")) == self.sent)

    def trimmed(self, log: str) -> None:
        """Sends rows until the log has let go of its first segment."""
        folder = self.data / "spool" / log

        def segments() -> list[str]:
            return sorted(path.name for path in folder.iterdir() if path.name != "lock")

        self.send()
        first = segments()[0]

        def is_gone() -> bool:
            self.send()
            return segments()[0] != first

        wait_for("a segment to go", is_gone, pause_s=0.2)

    def change(self, says: str, **pipeline: str) -> str:
        """Changes the running pipeline; the line that says what became of it."""
        seen = self.log.read_text().count("reload: ")
        self.configure(**pipeline)
        wait_for("the outcome", lambda: self.log.read_text().count("reload: ") > seen)
        line = [line for line in self.log.read_text().splitlines() if "reload: " in line][seen]
        self.assertIn(f"reload: {says}", line)
        return line

    def test_a_window_that_becomes_longer_than_the_log(self) -> None:
        """The change says so, the start with the longer window too; a shorter one has all of its rows."""
        self.configure()
        self.begin()
        self.trimmed("rows")
        said = self.change("applied", window=LONG)
        self.assertRegex(said, r"the log of rows reaches back to \d{4}-.*: groups would look back to \d{4}-")
        self.assertNotIn("reaches back", self.change("applied", window="2s"))
        self.stop()
        self.begin()
        self.assertNotIn("reaches back", self.log.read_text(), "the same pipeline finds what it needs")
        self.stop()
        self.configure(window=LONG)
        self.begin()
        wait_for("the warning", lambda: "the log of rows reaches back to" in self.log.read_text())
        self.stop()
        self.begin()
        self.assertNotIn("reaches back", self.log.read_text(), "what is missing now was said once")
        self.stop()

    def test_a_node_that_was_not_durable_for_a_time(self) -> None:
        """The start with which it is durable again says from when to when its log has nothing."""
        self.configure(durable="true")
        self.begin()
        self.send()
        said = self.change("refused", durable="false")
        self.assertIn("whether `kept` is `durable`", said)
        self.assertIn("how long the log of `kept` is kept", self.change("refused", durable="{ retain: 2h }"))
        self.stop()
        self.configure(durable="false")
        self.begin()
        self.send()
        self.stop()
        self.configure(durable="true")
        self.begin()
        self.assertRegex(self.log.read_text(), r"kept was not durable from \d{4}-.* up to \d{4}-")
        self.send()
        self.stop()
        self.begin()
        self.assertNotIn("was not durable", self.log.read_text())
        self.stop()

    def test_a_replay_of_what_durable_edges_have_kept(self) -> None:
        """Rows that the sources' logs have let go of are missed without it, which is said."""
        self.write("live.yaml", DETECTIONS)
        self.begin()
        self.send()
        wait_for("the first detection", lambda: self.output("joined.jsonl"))
        self.trimmed("rows")
        self.send()
        wait_for("a later detection", lambda: len(self.output("joined.jsonl")) > 1)
        self.stop()
        live = self.joined(self.data)
        replayed = self.replay("kept", "--durable")
        self.assertFalse(live - replayed, "what was written is there again, as it was")
        detections = self.engine("spool", "export", self.data / "spool", "detections.out")
        self.assert_exit(detections, OK)
        self.assertEqual(replayed.total(), len(detections.stdout.splitlines()))
        computed = self.replay("computed", says="a part of the rows at first, which the logs do not reach back to: features, recurrence")
        self.assertTrue(live - computed, "the first window is gone, so that later ones count one less")

    def joined(self, folder: Path) -> Counter:
        """Detections with their recurrence."""
        rows = map(json.loads, (folder / "joined.jsonl").read_text().splitlines())
        return Counter((row["window_start"], row["hits"], row["recurrence"]) for row in rows)

    def replay(self, name: str, *options: str, says: str = "") -> Counter:
        """What a replay writes."""
        run = self.engine("replay", self.directory / "live.yaml", "--data-dir", self.directory / name, *options)
        self.assert_exit(run, OK, says)
        return self.joined(self.directory / name)

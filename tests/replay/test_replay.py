"""Replay: the rows of the live run from its spool, and what another pipeline would have made of them."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tests.feeder import SOCKETS
from tests.live_engine import RULES, LiveCase, pipeline, results
from tests.support import OK, lines, nanoseconds
from tests.traffic import SECOND

NODES = """\
  - { id: features, kind: aggregate, from: correlated, by: [host, src_ip], window: 2s, features: [
      { name: hits, expr: count(*) }, { name: orphans, expr: count(*) filter (where correlated = 0) } ] }
  - { id: detections, kind: detect.rules, from: features,
      rules: [{ name: no_hello, when: orphans > 0, level: LOW, reason: requests without a hello }] }
  - { id: features_file, kind: sink.jsonl, from: features, path: data/features.jsonl }
  - { id: detections_file, kind: sink.jsonl, from: detections, path: data/detections.jsonl }
  - { id: store, kind: sink.parquet, from: { detections: detections }, rotate: 2s }
"""


class Replay(LiveCase):
    """One live run, replayed."""

    def setUp(self) -> None:
        """Some seconds of traffic, through to the last window."""
        super().setUp()
        text = pipeline(nodes=NODES, window="1s", tables=", detections: detections")
        self.feeder = self.record(text, 31, seconds=5, windows=True)
        self.before = self.state()

    def state(self) -> dict[str, str]:
        """A digest of every file of the live run."""
        files = (path for path in sorted(self.data.rglob("*")) if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def replay(self, *arguments: object, into: str = "again") -> tuple[str, Path]:
        """Runs it; standard output and where the files are. The live run's files stay as they are."""
        out = self.directory / into
        run = self.engine("replay", self.directory / "live.yaml", "--spool", self.data / "spool", "--data-dir", out,
                          *arguments)
        self.assert_exit(run, OK)
        self.assertEqual(self.state(), self.before, "the live run's files have changed")
        return run.stdout, out

    def test_the_same_rows_as_live(self):
        """Correlated rows, late ones, windows and detections, for any number of workers."""
        for workers in (1, 2):
            with self.subTest(workers=workers):
                _, out = self.replay("--workers", workers, into=f"workers-{workers}")
                for name in ("rows.jsonl", "late.jsonl", "features.jsonl", "detections.jsonl"):
                    again, live = ((folder / name).read_text().splitlines() for folder in (out, self.data))
                    self.assert_same_rows(again, live, name)
        self.assertGreater(len(self.rows()), 500)

    def test_another_window(self):
        """`--set` changes an option of a node: the rows are the oracle's for it."""
        _, out = self.replay("--set", "correlated.window=30s")
        sent = {stream: self.feeder.ids(stream) for stream in SOCKETS}
        expected = self.oracle(self.feeder.sent, sent, replace(RULES, window=30 * SECOND))
        self.assert_same_rows(results(lines(out / "rows.jsonl")), expected.items())
        self.assertNotEqual(dict(self.rows()), expected)

    def test_a_part_of_the_time(self):
        """`--from` and `--to`: the rows of that time, as they were."""
        times = sorted(nanoseconds(row["time"]) for row in self.output("rows.jsonl"))
        middle = [times[len(times) * share // 4] // SECOND * SECOND for share in (1, 3)]
        since, until = (datetime.fromtimestamp(ns // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for ns in middle)
        _, out = self.replay("--from", since, "--to", until)
        expected = [row for row in self.output("rows.jsonl") if middle[0] <= nanoseconds(row["time"]) < middle[1]]
        self.assertGreater(len(expected), 50)
        self.assert_same_rows(results(lines(out / "rows.jsonl")), results(expected))

    def test_what_would_have_changed(self):
        """`--compare` names the detections that another window would not have made, and none if the window is the same."""
        same, _ = self.replay("--compare", "--set", "correlated.window=1s", into="same")
        self.assertRegex(same, "(?s)detections.*no difference")
        changed, out = self.replay("--compare", "--set", "correlated.window=30s", into="other")
        there = keys(self.output("detections.jsonl"))
        then = keys(lines(out / "after/detections.jsonl"))
        self.assertEqual(keys(lines(out / "before/detections.jsonl")), there)
        gone = there - then
        self.assertGreater(len(gone), 0)
        print(f"\n    of {len(there)} detections {len(gone)} would not have been there, {len(then - there)} more ", end="")
        self.assertIn("detections", changed)
        self.assertTrue(any(address in changed for _, _, address in gone), changed)
        self.assertRegex(changed, rf"\b{len(gone)} gone\b")


def keys(rows: list[dict]) -> set[tuple[str, str, str]]:
    """What a detection is about."""
    return {(row["window_start"], row["host"], row["src_ip"]) for row in rows}

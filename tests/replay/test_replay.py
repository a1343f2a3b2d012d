"""Replay: the rows of the live run from its spool, and what another pipeline would have made of them."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tests.feeder import SOCKETS
from tests.live_engine import RULES, LiveCase, pipeline, results
from tests.support import OK, REFUSED, lines, nanoseconds
from tests.traffic import SECOND

NODES = """\
  - { id: features, kind: aggregate, from: correlated, by: [host, src_ip], window: 2s, features: [
      { name: hits, expr: count(*) }, { name: orphans, expr: count(*) filter (where correlated = 0) } ] }
  - { id: detections, kind: detect.rules, from: features,
      rules: [{ name: no_hello, when: orphans > 0, level: LOW, reason: requests without a hello }] }
  - { id: features_file, kind: sink.jsonl, from: features, path: data/features.jsonl }
  - { id: store, kind: sink.parquet, from: { detections: detections } }
  - { id: detections_file, kind: sink.jsonl, from: detections, path: data/detections.jsonl }
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

    def test_logs_of_other_processes_are_read_by_this_one(self):
        """`process: 1` says who received what; whoever has the logs can replay them."""
        text = (self.directory / "live.yaml").read_text()
        (self.directory / "live.yaml").write_text(text.replace("kind: source.", "process: 1, kind: source."))
        _, out = self.replay(into="several")
        again, live = ((folder / "rows.jsonl").read_text().splitlines() for folder in (out, self.data))
        self.assert_same_rows(again, live)

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

    def test_recordings_in_place_of_sockets(self):
        """`--input`: what was sent, from files, for both sources or one; the other is read from the spool."""
        inputs = []
        for stream in SOCKETS:
            sent = "\n".join(json.dumps(one.row) for one in self.feeder.sent if one.stream == stream)
            inputs += ["--input", f"{stream}s={self.write(f'{stream}.recorded', sent)}"]
        for given, into in ((inputs, "both"), (inputs[:2], "one")):
            with self.subTest(into):
                _, out = self.replay(*given, into=into)
                self.assert_same_rows(results(lines(out / "rows.jsonl")), self.rows())

    def test_what_is_refused(self):
        """Nothing is written where the pipeline writes, and what cannot be read is named."""
        out = self.directory / "refused"
        for given, says in (
            (["--data-dir", self.data / "again"], "choose another folder"),
            (["--data-dir", out, "--spool", out], "choose another folder"),
            (["--data-dir", out, "--spool", self.data], "has no log of"),
            (["--data-dir", out, "--compare"], "give --set or --input"),
            (["--data-dir", out, "--compare", "--set", "tick=1s", "--table", "detectons"], "did you mean `detections`"),
            (["--data-dir", out, "--input", "request=x"], "did you mean `requests`"),
            (["--data-dir", out, "--from", "2026-05-01T12:00:00Z", "--to", "2026-05-01T12:00:00Z"], "nothing between"),
        ):
            with self.subTest(says, given=given):
                self.assert_exit(self.engine("replay", self.directory / "live.yaml", *given), REFUSED, says)
        self.assertFalse(out.exists())
        self.assertEqual(self.state(), self.before, "the live run's files have changed")

    def test_what_would_have_changed(self):
        """`--compare` names the detections that another window would not have made, and none if nothing is changed."""
        same, _ = self.replay("--compare", "--set", "correlated.window=1s", into="same")
        self.assertIn("detections", same)
        changed, _ = self.replay("--compare", "--set", "correlated.window=30s", into="other")
        self.assertIn("detections", changed)
        _, out = self.replay("--set", "correlated.window=30s", into="check")
        there = {(row["window_start"], row["host"], row["src_ip"]) for row in self.output("detections.jsonl")}
        then = {(row["window_start"], row["host"], row["src_ip"]) for row in lines(out / "detections.jsonl")}
        gone = there - then
        self.assertGreater(len(gone), 0)
        print(f"\n    of {len(there)} detections {len(gone)} would not have been there, {len(then - there)} more ", end="")
        self.assertTrue(any(address in changed for _, _, address in gone), changed)
        self.assertFalse(any(address in same for _, _, address in there), same)
        self.assertRegex(changed, rf"\b{len(gone)}\b")

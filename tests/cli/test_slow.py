"""Requests that take long: their row's time is their end, and correlate compares hellos with their begin."""

import json

from tests.support import OK, Case, lines, nanoseconds

SECOND = 10**9
START = 1_795_420_800 * SECOND  # 2026-11-23T08:00:00Z

COLUMNS = """\
name: slow
data_dir: data
nodes:
  - id: requests
    kind: source.file
    path: requests.jsonl
    columns: { at: time, took: float, host: text }
    time: at
    time_unit: ms
    duration: { column: took, unit: s }
    time_is: TIME_IS
    lateness: 100ms
  - { id: rows, kind: sink.jsonl, from: requests, path: rows.jsonl }
"""

JOINED = """\
name: slow
data_dir: data
nodes:
  - { id: hellos, kind: source.file, path: hellos.jsonl, format: ja4sentinel, lateness: 1s }
  - { id: requests, kind: source.file, path: requests.jsonl, format: reqin_log, lateness: 1s }
  - { id: joined, kind: correlate, from: { hello: hellos, request: requests } }
  - { id: rows, kind: sink.jsonl, from: joined, path: rows.jsonl }
  - { id: late, kind: sink.jsonl, from: joined.late, path: late.jsonl }
"""


class Slow(Case):
    """Lines as servers write them: in the order of the requests' ends."""

    def rows(self, pipeline: str) -> list[dict]:
        """What a run writes."""
        self.assert_exit(self.engine("run", "--quiet", self.write("slow.yaml", pipeline)), OK)
        return lines(self.directory / "rows.jsonl")

    def test_columns_of_ones_own(self):
        """A download of 4.7 s that is logged 4.7 s after its begin is on time, whichever of its times the log has."""
        begun = [(START // 10**6 + ms, took) for ms, took in ((4_000, 0.25), (0, 4.7), (5_000, 0))]
        for time_is in ("begin", "end"):
            with self.subTest(time_is):
                at = {"begin": lambda ms, took: ms, "end": lambda ms, took: ms + round(took * 1000)}[time_is]
                text = (json.dumps({"at": at(ms, took), "took": took, "host": "h"}) for ms, took in begun)
                self.write("requests.jsonl", "\n".join(text) + "\n")
                rows = self.rows(COLUMNS.replace("TIME_IS", time_is))
                got = [(nanoseconds(row["begin_time"]), nanoseconds(row["time"])) for row in rows]
                expected = [(ms * 10**6, ms * 10**6 + round(took * SECOND)) for ms, took in begun]
                self.assertEqual(sorted(got), sorted(expected))

    def test_ten_minutes(self):
        """It has its hello, in the order of ends; the port's next connection has its own."""
        client = {"src_ip": "192.0.2.1", "src_port": 40_000}
        hellos = [{"timestamp": START, "ja4": "first", **client}, {"timestamp": START + 601 * SECOND, "ja4": "second", **client}]
        quick = [{"timestamp": START + at * SECOND, "duration_ms": 1, "src_ip": "192.0.2.2", "src_port": 1_000 + at} for at in range(599)]
        slow = {"timestamp": START + 2 * SECOND, "duration_ms": 600_000, "path": "/slow", **client}
        next_one = {"timestamp": START + 603 * SECOND, "duration_ms": 5, "path": "/next", **client}
        self.write("hellos.jsonl", "".join(json.dumps(row) + "\n" for row in hellos))
        self.write("requests.jsonl", "".join(json.dumps(row) + "\n" for row in [*quick, slow, next_one]))
        rows = {row.get("path"): row for row in self.rows(JOINED)}
        self.assertEqual(lines(self.directory / "late.jsonl"), [])
        self.assertEqual({path: row.get("ja4") for path, row in rows.items()}, {None: None, "/slow": "first", "/next": "second"})
        self.assertEqual(nanoseconds(rows["/slow"]["time"]), START + 602 * SECOND)
        self.assertEqual(rows["/slow"]["a_timestamp"], START + 2 * SECOND)

    def test_what_the_options_need(self):
        """Each fault at its place."""
        for old, new, said in (
            ("column: took", "column: tok", "no column `tok` to take the duration from"),
            ("column: took", "column: host", "the column `host` holds the duration: its type must be `integer` or `float`"),
            (", unit: s }", " }", "unit"),
            ("columns: { at: time, took: float, host: text }\n    time: at\n", "format: reqin_log\n", "`duration` goes with `columns`"),
            ("host: text", "begin_time: time", "every stream of lines has its own column `begin_time`"),
        ):
            with self.subTest(said):
                text = COLUMNS.replace("TIME_IS", "begin").replace(old, new)
                self.write("requests.jsonl", "")
                self.assertIn(said, self.engine("validate", self.write("slow.yaml", text)).stderr)

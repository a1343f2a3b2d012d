"""The files of sink.parquet: removed by somebody else, of an earlier pipeline, too old, too many; and the table that shows them."""

import json
import os
import socket
import time
from pathlib import Path

from tests.support import OK, REFUSED, Case, get, running, served, sql, wait_for

DAY_NS = 86400 * 10**9
# 2026-11-23 15:35:27.
START = 1795448127143731000

FILE = """\
name: keep
data_dir: data
nodes:
  - {{ id: rows, kind: source.file, path: in.jsonl, time: t, columns: {{ t: time, n: integer }} }}
  - {{ id: store, kind: sink.parquet, from: {{ rows: rows }}, rotate: 1s{options} }}
serve: {{ listen: 127.0.0.1:0, tables: {{ rows: rows }} }}
"""

LIVE = """\
name: keep
data_dir: data
nodes:
  - {{ id: rows, kind: source.unix_socket, path: s.sock, time: t, lateness: 100ms, columns: {{ t: time, n: integer }} }}
  - {{ id: more, kind: derive, from: rows, columns: [ {columns} ] }}
  - {{ id: store, kind: sink.parquet, from: {{ rows: more }}, rotate: 1s }}
serve: {{ listen: 127.0.0.1:0, tables: {{ rows: more }} }}
"""


class Tables(Case):
    """A served table and its files."""

    def setUp(self):
        super().setUp()
        self.log = self.directory / "log"

    def days(self, count: int, of_a_day: int = 4) -> None:
        """Rows of so many days, a second apart within a day."""
        rows = [{"t": START + day * DAY_NS + nth * 2 * 10**9, "n": day} for day in range(count) for nth in range(of_a_day)]
        self.write("in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def files(self) -> list[str]:
        """The files of the table, with their day."""
        # A folder may be removed while it is read, which os.walk passes over.
        found = ((Path(folder).name, name) for folder, _, names in os.walk(self.directory / "data/rows") for name in names)
        return sorted(f"{day}/{name}" for day, name in found if name.endswith(".parquet"))

    def store(self, base: str) -> dict:
        """What the status says of the sink."""
        return next(node for node in json.loads(get(f"{base}/status")[1])["nodes"] if node["id"] == "store")

    def numbers(self, base: str) -> list[tuple]:
        """How many rows there are of each day."""
        return [(row["n"], row["c"]) for row in sql(base, "select n, count(*) c from rows group by 1 order by 1")]

    def test_a_file_that_somebody_removes_is_left_out_and_counted(self):
        """And is there again when it comes back, such as with its disk."""
        self.days(3)
        path = self.write("p.yaml", FILE.format(options=""))
        with running("run", "--serve", path, log=self.log):
            base = served(self.log)
            wait_for("all rows in files", lambda: self.numbers(base) == [(0, 4), (1, 4), (2, 4)] and len(self.files()) == 3)
            gone = self.directory / "data/rows" / self.files()[0]
            away = gone.rename(self.directory / "away")
            self.assertEqual(self.numbers(base), [(1, 4), (2, 4)])
            self.assertEqual(sql(base, "select n from rows order by time desc limit 1"), [{"n": 2}])
            store = self.store(base)
            self.assertEqual(store["events"]["missing_segments"], 1)
            self.assertIn(gone.name, " ".join(store["troubles"].values()))
            table = json.loads(get(f"{base}/tables")[1])[0]
            self.assertEqual((table["missing_segments"], table["missing_rows"], table["stored_rows"]), (1, 4, 8))
            away.rename(gone)
            wait_for("the file is found again", lambda: self.numbers(base) == [(0, 4), (1, 4), (2, 4)], pause_s=0.5)
            self.assertEqual(self.store(base)["troubles"], {})
            # With its folder, as an operator's job for old files does it.
            gone.unlink()
            gone.parent.rmdir()
            self.assertEqual(self.numbers(base), [(1, 4), (2, 4)])
            self.assertEqual(self.store(base)["events"]["missing_segments"], 2)
        self.assertIn("are gone and are left out", self.log.read_text())

    def test_a_damaged_file_is_left_out_and_counted(self):
        """Cut, emptied, or something else in its place: other rows are answered, and the file is named."""
        self.days(3)
        with running("run", "--serve", self.write("p.yaml", FILE.format(options="")), log=self.log):
            base = served(self.log)
            wait_for("all rows in files", lambda: self.numbers(base) == [(0, 4), (1, 4), (2, 4)] and len(self.files()) == 3)
            path = self.directory / "data/rows" / self.files()[0]
            whole = path.read_bytes()
            for damaged in (whole[:-20], b"", None):
                with self.subTest(length=None if damaged is None else len(damaged)):
                    path.unlink()
                    path.mkdir() if damaged is None else path.write_bytes(damaged)
                    self.assertEqual(self.numbers(base), [(1, 4), (2, 4)])
                    self.assertIn(path.name, " ".join(self.store(base)["troubles"].values()))

    def test_retain_removes_whole_days_by_event_time(self):
        """It is said and counted, the table follows, and a run again leaves the same."""
        self.days(5)
        path = self.write("p.yaml", FILE.format(options=", retain: 2d"))
        left = None
        for _ in range(2):
            with running("run", "--serve", path, log=self.log):
                base = served(self.log)
                wait_for("old days are removed", lambda: {name[:10] for name in self.files()} == {"2026-11-25", "2026-11-26", "2026-11-27"})
                wait_for("the table", lambda: self.numbers(base) == [(2, 4), (3, 4), (4, 4)])
                wait_for("the counters", lambda: self.store(base)["events"]["removed_rows"] == 8)
                store = self.store(base)
                self.assertEqual(store["events"]["removed_segments"], 2)
                self.assertEqual(store["troubles"], {})
            self.assertIn("removed files of 2026-11-23", self.log.read_text())
            left = left or self.files()
            self.assertEqual(self.files(), left)

    def test_max_bytes_removes_the_oldest_but_not_of_today(self):
        """A bound that today alone passes is a trouble."""
        self.days(3)
        path = self.write("p.yaml", FILE.format(options=", max_bytes: 1"))
        with running("run", "--serve", path, log=self.log):
            base = served(self.log)
            wait_for("older days are removed", lambda: {name[:10] for name in self.files()} == {"2026-11-25"} and self.numbers(base) == [(2, 4)])
            wait_for("the trouble", lambda: "max_bytes" in " ".join(self.store(base)["troubles"].values()))
        self.assert_exit(self.engine("validate", self.write("p.yaml", FILE.format(options=", max_bytes: 0"))), REFUSED, "greater than 0")
        self.assert_exit(self.engine("validate", self.write("p.yaml", FILE.format(options=", retain: 30d, max_bytes: 10000000"))), OK)
        self.assert_exit(self.engine("validate", self.write("p.yaml", FILE.format(options=", max_bytes: 1.5GiB"))), OK)
        self.assert_exit(self.engine("validate", self.write("p.yaml", FILE.format(options=", max_bytes: much"))), REFUSED, "such as 64MiB")

    def live(self, columns: str, values: list[int], check) -> None:
        """A run over a socket with these derived columns that gets these rows."""
        path = self.write("p.yaml", LIVE.format(columns=columns))
        with running("run", path, log=self.log):
            base = served(self.log)
            wait_for("the socket", lambda: (self.directory / "s.sock").exists())
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.connect(str(self.directory / "s.sock"))
                for value in values:
                    out.send(json.dumps({"t": time.time_ns(), "n": value}).encode())
            self.sent = getattr(self, "sent", 0) + len(values)
            wait_for("the rows", lambda: sql(base, "select count(*) c from rows")[0]["c"] == self.sent)
            check(base)

    def test_a_pipeline_with_other_columns_keeps_its_history(self):
        """Columns that a file lacks are null, wider types are cast, and what does not fit is named."""
        self.live("{ name: small, expr: \"arrow_cast(n, 'Int32')\" }, { name: kind, expr: \"'old'\" }", [1, 2], lambda base: None)

        def wider(base: str) -> None:
            found = sql(base, "select n, small, is_two, kind from rows order by n")
            self.assertEqual(found, [
                {"n": 1, "small": 1, "is_two": None, "kind": "old"}, {"n": 2, "small": 2, "is_two": None, "kind": "old"},
                {"n": 3, "small": 5000000003, "is_two": False, "kind": "new"},
            ])
            self.assertEqual(sql(base, "select count(*) c from rows where is_two is null"), [{"c": 2}])
            self.assertEqual(sql(base, "select n from rows where small < 2"), [{"n": 1}])
            self.assertEqual(self.store(base)["troubles"], {})

        self.live("{ name: small, expr: n + 5000000000 }, { name: is_two, expr: \"coalesce(n = 2, false)\" }, { name: kind, expr: \"'new'\" }", [3], wider)

        def other(base: str) -> None:
            found = sql(base, "select n, kind from rows order by n")
            self.assertEqual(found, [{"n": n, "kind": None} for n in (1, 2, 3)] + [{"n": 4, "kind": 4}])
            self.assertEqual(sql(base, "select kind from rows where kind > 0"), [{"kind": 4}])
            self.assertEqual(sql(base, "select count(*) c from rows where kind is null"), [{"c": 3}])
            store = self.store(base)
            self.assertGreaterEqual(store["events"]["unread_columns"], 2)
            self.assertEqual(store["events"]["skipped_segments"], 0)
            self.assertIn("`kind` is", " ".join(store["troubles"].values()))

        self.live("{ name: kind, expr: n }", [4], other)

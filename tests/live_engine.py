"""A live pipeline in a test's directory: the engine is killed, stopped and started again, its files and spool are read."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from tests.feeder import SOCKETS, Feeder, Sent, connected
from tests.oracle_correlate import Result, Rules, correlate
from tests.support import LIMIT_S, OK, Case, get, nanoseconds, served, start, wait_for
from tests.traffic import FILES, FORMATS, HELLO, IDS, REQUEST, SECOND, Traffic

# Connections are short, so that few seconds see them begin, rest and come back.
WINDOW, KEEPALIVE_TTL, LATENESS = 3 * SECOND, 5 * SECOND, SECOND
RULES = Rules(window=WINDOW, keepalive_ttl=KEEPALIVE_TTL)
PORTS = {HELLO: "hellos.out", REQUEST: "requests.out"}
READ_PARQUET = """\
import duckdb, json, sys
print(json.dumps(duckdb.sql(f"select {sys.argv[2]} from read_parquet('{sys.argv[1]}')").fetchall()))
"""


def traffic(seed: int, seconds: float, connections_per_s: float = 60) -> Traffic:
    """For the pipelines below: times are spread over less than the sources' lateness."""
    return Traffic(
        seed=seed, seconds=seconds, connections_per_s=connections_per_s, lateness=LATENESS // 10, window=WINDOW,
        keepalive_ttl=KEEPALIVE_TTL, idle_port=10 * SECOND,
    )


def pipeline(
    *, nodes: str = "", sections: str = "", tables: str = "", window: str = "3s", follow: bool = False,
    lateness: str = f"{LATENESS // 10**6}ms",
) -> str:
    """Two sockets, or two files that grow, into `correlated`, its rows and late rows in files of the data directory, and
    what a test adds.
    """
    inputs = {stream: f"source.file, follow: true, path: {name}" for stream, name in FILES.items()} if follow else \
        {stream: f"source.unix_socket, path: {name}" for stream, name in SOCKETS.items()}
    sources = "".join(
        f"  - {{ id: {stream}s, kind: {source}, format: {FORMATS[stream]}, lateness: {lateness} }}\n"
        for stream, source in inputs.items()
    )
    return f"""\
name: live
data_dir: data
{sections}
nodes:
{sources}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }}, window: {window}, keepalive_ttl: 5s }}
  - {{ id: rows_file, kind: sink.jsonl, from: correlated, path: data/rows.jsonl }}
  - {{ id: late_file, kind: sink.jsonl, from: correlated.late, path: data/late.jsonl }}
{nodes}
serve:
  listen: 127.0.0.1:0
  tables: {{ requests: correlated{tables} }}
"""


class LiveCase(Case):
    """A test around one engine."""

    recording: ClassVar[tuple[Path, Feeder] | None] = None

    def setUp(self) -> None:
        super().setUp()
        self.process: subprocess.Popen | None = None
        self.starts = 0
        self.data = self.directory / "data"
        self.addCleanup(self.kill)

    @property
    def log(self) -> Path:
        """Standard error of the latest start."""
        return self.directory / f"log-{self.starts}"

    def begin(self, *arguments: object, wait: bool = True) -> None:
        """Starts live.yaml; waits until it serves and receives, unless told otherwise."""
        self.starts += 1
        self.process = start("run", *arguments, self.directory / "live.yaml", log=self.log)
        if wait:
            self.await_start()

    def await_start(self) -> None:
        """Waits until the engine serves and receives; fails if it ends before."""
        wait_for("the start", lambda: "serving on" in self.log.read_text() or self.process.poll() is not None)
        wait_for("the sockets", self.receives)
        self.base = served(self.log)

    def record(self, text: str, seed: int, seconds: float, windows: bool = False, fresh: bool = False) -> Feeder:
        """A run of so many seconds that has ended well. It is made once for a class; each test has a copy of its files, or
        of `fresh` a run of its own, which can go on: sinks are known by their path.
        """
        if self.recording and not fresh:
            recorded, feeder = self.recording
            shutil.copytree(recorded, self.directory, dirs_exist_ok=True)
            return feeder
        self.write("live.yaml", text)
        self.begin()
        with Feeder(traffic(seed, seconds=60, connections_per_s=100).events(), self.directory) as feeder:
            feed_for(feeder, seconds)
        self.await_requests(feeder.ids(REQUEST))
        if windows:
            self.await_windows()
        self.stop()
        if fresh:
            return feeder
        recorded = tempfile.TemporaryDirectory(prefix="ja4-")
        self.addClassCleanup(recorded.cleanup)
        shutil.copytree(self.directory, recorded.name, ignore=shutil.ignore_patterns("*.socket"), dirs_exist_ok=True)
        type(self).recording = Path(recorded.name), feeder
        return feeder

    def receives(self) -> bool:
        """Whether somebody listens at both sockets; fails if the engine has ended."""
        self.assertIsNone(self.process.poll(), f"the engine has ended:\n{self.log.read_text()}")
        try:
            for name in SOCKETS.values():
                connected(self.directory / name).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait(LIMIT_S)

    def stop(self) -> None:
        """SIGTERM; it must end without complaint."""
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(LIMIT_S), OK, self.log.read_text())

    def logs(self) -> str:
        """Standard error of all starts."""
        return "".join((self.directory / f"log-{number}").read_text() for number in range(1, self.starts + 1))

    def metric(self, pattern: str) -> float:
        """The sum of all series of /metrics that match."""
        series = re.findall(r"^(ja4_engine_\S+) (\S+)$", get(f"{self.base}/metrics")[1], re.MULTILINE)
        return sum(float(value) for name, value in series if re.search(pattern, name))

    def output(self, name: str) -> list[dict]:
        """The complete lines of a file in the data directory, which may be written to."""
        path = self.data / name
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def rows(self, name: str = "rows.jsonl") -> list[tuple[str, Result]]:
        """Results by request in a file of correlated rows."""
        return results(self.output(name))

    def late(self) -> dict[str, list[str]]:
        """Ids of rows that came late."""
        rows = self.output("late.jsonl")
        return {HELLO: [row["conn_id"] for row in rows if row["orphan_side"] == "B"],
                REQUEST: [row["header_x_request_id"] for row in rows if row["orphan_side"] == "A"]}

    def parquet(self, columns: str, table: str = "requests") -> list[tuple]:
        """Stored rows of a table, read by DuckDB."""
        files = str(self.data / table / "**/*.parquet")
        if not list((self.data / table).rglob("*.parquet")):
            return []
        read = subprocess.run([os.environ.get("ORACLE_PYTHON", sys.executable), "-c", READ_PARQUET, files, columns],
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)
        self.assertEqual(read.returncode, 0, read.stderr)
        return [tuple(row) for row in json.loads(read.stdout)]

    def exported(self, stream: str, spool: Path | None = None, code: int = OK) -> list[str]:
        """Ids of the rows that the spool has of a stream, in its order."""
        run = self.engine("spool", "export", spool or self.data / "spool", PORTS[stream])
        self.assert_exit(run, code)
        column = IDS[stream].lower().replace("-", "_")
        return [json.loads(line)[column] for line in run.stdout.splitlines()]

    def await_requests(self, ids: set[str], limit_s: float = 60) -> None:
        """Waits until each of these requests has come out, on time or late."""
        def missing() -> set[str]:
            return ids.difference(name for name, _ in self.rows()).difference(self.late()[REQUEST])
        try:
            wait_for("rows", lambda: not missing(), limit_s, pause_s=0.2)
        except TimeoutError:
            self.fail(f"{len(missing())} of {len(ids)} requests have not come out, such as {sorted(missing())[:5]}\n"
                      f"{self.logs()[-4000:]}")

    def await_windows(self) -> None:
        """Waits until the windows of all rows have ended: idle sources let time pass."""
        rows = len({name for name, _ in self.rows()})
        with contextlib.suppress(TimeoutError):  # assert_windows says what is missing.
            wait_for("the last window", lambda: sum(row["hits"] for row in self.output("features.jsonl")) >= rows,
                     limit_s=30, pause_s=0.2)

    def assert_windows(self) -> None:
        """Each host and client has each window of 2 s once in features.jsonl, with as many hits as there are rows."""
        counted = Counter((row["host"], row["src_ip"], nanoseconds(row["time"]) // (2 * SECOND))
                          for row in self.output("rows.jsonl"))
        windows = [((row["host"], row["src_ip"], nanoseconds(row["window_start"]) // (2 * SECOND)), row["hits"])
                   for row in self.output("features.jsonl")]
        self.assert_same_rows(windows, counted.items())

    def oracle(self, sent: list[Sent], spooled: dict[str, set[str]], rules: Rules = RULES) -> dict[str, Result]:
        """The join of what was sent, is in the spool and was not late; in the order of sending."""
        on_time = {}
        for stream, late in self.late().items():
            ids = spooled[stream].difference(late)
            on_time[stream] = [one.row for one in sent if one.stream == stream and one.id in ids]
        return correlate(on_time[HELLO], on_time[REQUEST], rules)


def feed_for(feeder: Feeder, seconds: float) -> int:
    """Lets a feeder run for a while; the time in ns at which that began."""
    begin = time.time_ns()
    wait_for("traffic", lambda: time.time_ns() > begin + seconds * SECOND and feeder.sent)
    return begin


def results(rows: Iterable[dict]) -> list[tuple[str, Result]]:
    """The ids of correlated rows and what they were given."""
    return [(row["header_x_request_id"], (row.get("conn_id"), row["keepalives"])) for row in rows]

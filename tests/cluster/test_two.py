"""Two processes: the same rows as one; when one is lost the other says so and ends; together they go on again."""

import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from tests.feeder import SOCKETS, Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.namespaces import joined
from tests.support import FAILED, LIMIT_S, OK, REFUSED, Case, running, start, wait_for
from tests.traffic import REQUEST, Traffic, write

FILES = """\
name: two
nodes:
  - { id: hellos, kind: source.file, path: hellos.jsonl, format: ja4sentinel, lateness: 2s }
  - { id: requests, kind: source.file, path: requests.jsonl, format: reqin_log, lateness: 2s }
  - { id: correlated, kind: correlate, from: { hello: hellos, request: requests } }
  - { id: features, kind: aggregate, from: correlated, by: [host, src_ip, ja4], window: 1m,
      features: [{ name: hits, expr: count(*) }, { name: paths, expr: count(distinct path) }] }
  - { id: rows, kind: sink.jsonl, from: correlated, path: "${OUT}/rows.jsonl" }
  - { id: late, kind: sink.jsonl, from: correlated.late, path: "${OUT}/late.jsonl" }
  - { id: features_file, kind: sink.jsonl, from: features, path: "${OUT}/features.jsonl" }
"""
OUTPUTS = ("rows.jsonl", "late.jsonl", "features.jsonl")
LOST_S = 10


def in_second(text: str, *nodes: str) -> str:
    """The same pipeline with these nodes in process 1."""
    for node in nodes:
        text = text.replace(f"{{ id: {node}, ", f"{{ id: {node}, process: 1, ")
    return text


def free_addresses(count: int) -> list[str]:
    """Addresses of this machine on ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    finally:
        for one in sockets:
            one.close()


def contents(directory: Path) -> dict[str, bytes]:
    """The Parquet files beneath a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.parquet")}


class Files(Case):
    """From files to files."""

    def setUp(self) -> None:
        super().setUp()
        write(Traffic(seed=41, seconds=60, late=0.01).events(), self.directory)
        self.pipeline = self.write("two.yaml", FILES)

    def sorted_rows(self, out: Path) -> dict[str, list[str]]:
        """The lines of every output."""
        return {name: sorted((out / name).read_text().splitlines()) for name in OUTPUTS}

    def alone(self) -> dict[str, list[str]]:
        """What one process makes of it."""
        out = self.directory / "alone"
        self.assert_exit(self.engine("run", self.pipeline, environment={"OUT": out}), OK)
        return self.sorted_rows(out)

    def together(self, addresses: list[str], workers: int, prefix: Callable[[int], tuple] = lambda _: ()) -> dict[str, list[str]]:
        """What two processes make of it; the first owns sources and sinks, unless they say otherwise."""
        hosts = self.write("hosts", "".join(f"{address}\n" for address in addresses))
        out = self.directory / f"together-{workers}"
        arguments = ("run", "--workers", workers, "--hosts", hosts, self.pipeline, "--process")
        log = self.directory / "log-1"
        with running(*arguments, 1, environment={"OUT": out}, prefix=prefix(1), log=log) as second:
            first = self.engine(*arguments, 0, environment={"OUT": out}, prefix=prefix(0))
            self.assert_exit(first, OK)
            self.assertEqual(second.wait(LIMIT_S), OK, log.read_text())
        return self.sorted_rows(out)

    def test_the_same_rows_as_one_process(self):
        """With one and with two workers each."""
        expected = self.alone()
        self.assertGreater(min(map(len, expected.values())), 10)
        for workers in (1, 2):
            with self.subTest(workers=workers):
                got = self.together(free_addresses(2), workers)
                for name in OUTPUTS:
                    self.assert_same_rows(got[name], expected[name], name)

    def test_the_same_rows_with_sources_and_sinks_in_either_process(self):
        """`process` says where they are; segments of tables have the same bytes."""
        store = "  - { id: store, kind: sink.parquet, from: { requests: correlated, features: features } }\n"
        text = f'data_dir: "${{OUT}}"\n{FILES}{store}'
        self.pipeline = self.write("whole.yaml", text)
        expected = self.alone()
        segments = contents(self.directory / "alone")
        self.assertGreater(len(segments), 1)
        self.pipeline = self.write("apart.yaml", in_second(text, "requests", "rows", "features_file", "store"))
        run = self.engine("run", self.pipeline, environment={"OUT": self.directory})
        self.assert_exit(run, REFUSED, "`process: 1`", "--hosts")
        for workers in (1, 2):
            with self.subTest(workers=workers):
                got = self.together(free_addresses(2), workers)
                for name in OUTPUTS:
                    self.assert_same_rows(got[name], expected[name], name)
                self.assertEqual(contents(self.directory / f"together-{workers}"), segments)

    def test_a_process_that_fails_is_named_by_the_other(self):
        """With its message; both end with 1."""
        self.pipeline.write_text(in_second(FILES, "rows").replace("${OUT}/rows.jsonl", "${OUT}"))
        hosts = self.write("hosts", "".join(f"{address}\n" for address in free_addresses(2)))
        arguments = ("run", "--hosts", hosts, self.pipeline, "--process")
        log = self.directory / "log-1"
        kept = self.write("late.jsonl", "of an earlier run\n")
        with running(*arguments, 1, environment={"OUT": self.directory}, log=log) as second:
            first = self.engine(*arguments, 0, environment={"OUT": self.directory})
            self.assertEqual(second.wait(LIMIT_S), FAILED, log.read_text())
        self.assert_exit(first, FAILED, "process 1", "failed: rows: ", "cannot be created")
        self.assertIn("cannot be created", log.read_text())
        self.assertEqual(kept.read_text(), "of an earlier run\n", "the other's output: the run has not begun")

    def test_the_same_rows_from_two_hosts(self):
        """Network namespaces stand for machines."""
        names = joined(self, ("one", "link0", "192.0.2.1"), ("two", "link0", "192.0.2.2"))
        expected = self.alone()
        got = self.together(["192.0.2.1:2101", "192.0.2.2:2101"], 1, lambda k: ("ip", "netns", "exec", names[k]))
        for name in OUTPUTS:
            self.assert_same_rows(got[name], expected[name], name)

    def test_a_wrong_process_or_hosts_file_is_refused(self):
        """With what is wrong."""
        hosts = self.write("hosts", "127.0.0.1:2101\n127.0.0.1:2102\n")
        for arguments in (("--process", 2, "--hosts", hosts), ("--process", 0, "--hosts", self.directory / "nowhere")):
            with self.subTest(arguments):
                run = self.engine("run", *arguments, self.pipeline, environment={"OUT": self.directory})
                self.assertNotIn(run.returncode, (OK, 101), run.stderr)
                self.assertIn("hosts" if "nowhere" not in str(arguments) else "nowhere", run.stderr)


class Lost(LiveCase):
    """A live pipeline in two processes, of which the first owns the sockets and files."""

    nodes: ClassVar[tuple[str, ...]] = ()

    def setUp(self) -> None:
        super().setUp()
        self.write("live.yaml", in_second(pipeline(), *self.nodes))
        self.second: subprocess.Popen | None = None

    def begin(self, *arguments: object, wait: bool = True) -> None:
        """Starts both."""
        hosts = self.write("hosts", "".join(f"{address}\n" for address in free_addresses(2)))
        arguments = ("--workers", 1, "--hosts", hosts, *arguments)
        self.starts += 1
        run = ("run", *arguments, self.directory / "live.yaml", "--process")
        self.second_log = self.directory / f"second-{self.starts}"
        self.second = start(*run, 1, log=self.second_log)
        self.addCleanup(self.second.wait)
        self.addCleanup(self.second.kill)
        self.process = start(*run, 0, log=self.log)
        if wait:
            self.await_start()

    def assert_ends(self, process: subprocess.Popen, log: Path, lost: int) -> None:
        """The process that is left ends with a message that names the other."""
        self.assertEqual(process.wait(LOST_S), FAILED, log.read_text())
        self.assertIn(f"process {lost}", log.read_text())
        self.assertNotIn("panicked", log.read_text())

    def test_a_lost_process_ends_the_run_and_a_restart_recovers(self):
        """kill -9 of either: every accepted row comes out once, with the oracle's hello."""
        with Feeder(traffic(42, seconds=120).events(), self.directory) as feeder:
            self.begin()
            feed_for(feeder, 1.5)
            self.second.kill()
            self.assert_ends(self.process, self.log, lost=1)
            self.begin()
            feed_for(feeder, 1.5)
            self.kill()
            self.assert_ends(self.second, self.second_log, lost=0)
            self.begin()
            since = feed_for(feeder, 1.5)
        self.await_requests(feeder.ids(REQUEST, since))
        self.stop()
        self.assertEqual(self.second.wait(LIMIT_S), OK, self.second_log.read_text())
        spooled = {stream: self.exported(stream) for stream in SOCKETS}
        rows = self.rows()
        self.assert_same_rows([name for name, _ in rows] + self.late()[REQUEST], spooled[REQUEST], self.logs()[-2000:])
        self.assert_same_rows(rows, self.oracle(feeder.sent, {stream: set(ids) for stream, ids in spooled.items()}).items())
        self.assertGreater(len(rows), 200)

    def test_one_signal_stops_both(self):
        """SIGTERM to the second: an orderly end, of all. A change before is refused, once."""
        self.begin()
        self.process.send_signal(signal.SIGHUP)
        wait_for("the outcome", lambda: "reload: " in self.log.read_text())
        self.second.send_signal(signal.SIGTERM)
        self.assertEqual(self.second.wait(LIMIT_S), OK, self.second_log.read_text())
        self.assertEqual(self.process.wait(LIMIT_S), OK, self.log.read_text())
        outcomes = [line for line in self.log.read_text().splitlines() if line.startswith("reload: ")]
        self.assertEqual(len(outcomes), 1, outcomes)
        self.assertIn("refused a pipeline of several processes", outcomes[0])

    def test_a_sink_that_fails_ends_both(self):
        """What was received is in the spool; the other process names the one that failed."""
        (self.data / "rows.jsonl").mkdir(parents=True)
        self.begin(wait=False)
        failed, named = (self.second, self.process) if "rows_file" in self.nodes else (self.process, self.second)
        self.assertEqual(failed.wait(LIMIT_S), FAILED, self.logs())
        self.assertEqual(named.wait(LIMIT_S), FAILED, self.logs())
        log = self.log if named is self.process else self.second_log
        self.assertRegex(log.read_text(), r"process [01] \(.*\) failed: rows_file: .*cannot be opened")


class LostApart(Lost):
    """The second owns a socket, and thereby a log, and a file."""

    nodes = ("requests", "rows_file")

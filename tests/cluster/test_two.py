"""Two processes: the same rows as one; when one is lost the other says so and ends; together they go on again."""

import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.feeder import SOCKETS, Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.namespaces import joined
from tests.support import FAILED, LIMIT_S, OK, Case, running, start
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


def free_addresses(count: int) -> list[str]:
    """Addresses of this machine on ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    finally:
        for one in sockets:
            one.close()


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
        """What two processes make of it; the first owns sources and sinks."""
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
    """A live pipeline in two processes, of which the first owns the sockets."""

    def setUp(self) -> None:
        super().setUp()
        self.write("live.yaml", pipeline())
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
        """SIGTERM to the second: an orderly end, of all."""
        self.begin()
        self.second.send_signal(signal.SIGTERM)
        self.assertEqual(self.second.wait(LIMIT_S), OK, self.second_log.read_text())
        self.assertEqual(self.process.wait(LIMIT_S), OK, self.log.read_text())

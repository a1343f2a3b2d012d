"""The spool when bytes are damaged, when its disk is full, and when it is full by its own limit."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.feeder import SOCKETS, Feeder
from tests.live_engine import LiveCase, feed_for, pipeline, traffic
from tests.support import FAILED, LIMIT_S, OK, get, wait_for
from tests.traffic import FORMATS, HELLO, REQUEST, Event

MIB = 1 << 20
DISK = 80 * MIB
# More than the engine gathers in memory while it waits (64 chunks of 64 KiB, and 32 MiB that are queued for the log) by as much as
# fits the disk: on a slow machine segments are given back while rows still come.
LARGE_ROWS = 8_000

# Two sinks of the same rows, of which one is on the small disk.
BESIDE = f"""\
name: beside
data_dir: data
nodes:
  - {{ id: hellos, kind: source.unix_socket, path: {SOCKETS[HELLO]}, format: {FORMATS[HELLO]} }}
  - {{ id: hello_file, kind: sink.jsonl, from: hellos, path: data/hellos.jsonl }}
  - {{ id: requests, kind: source.unix_socket, path: {SOCKETS[REQUEST]}, format: {FORMATS[REQUEST]}, lateness: 100ms }}
  - {{ id: all_file, kind: sink.jsonl, from: requests, path: data/all.jsonl }}
  - {{ id: kept, kind: filter, from: requests, where: src_port > 0 }}
  - {{ id: kept_file, kind: sink.jsonl, from: kept, path: disk/kept.jsonl }}
serve: {{ listen: 127.0.0.1:0, tables: {{ requests: kept }} }}
"""


def segments(spool: Path) -> list[Path]:
    """The segments that have requests, in order."""
    found = [path for path in spool.rglob("*.seg") if "requests" in str(path.relative_to(spool))]
    return sorted(path for path in found if path.stat().st_size)


class Damage(LiveCase):
    """A byte that is flipped, a file that is cut."""

    def setUp(self) -> None:
        """A run of some seconds that has ended well."""
        super().setUp()
        self.spool = self.data / "spool"
        goes_on = self._testMethodName == self.test_the_engine_goes_on_and_counts_the_damage.__name__
        feeder = self.record(pipeline(sections="spool: { segment_size: 96KiB }"), 21, seconds=5, fresh=goes_on)
        self.whole = self.exported(REQUEST)
        self.assertEqual(set(self.whole), feeder.ids(REQUEST))

    def flip(self, segment: Path, share: float) -> None:
        """Changes one bit at so much of the file."""
        content = bytearray(segment.read_bytes())
        content[int(len(content) * share)] ^= 0x10
        segment.write_bytes(content)

    def lost(self, spool: Path) -> list[int]:
        """Positions of the rows that a damaged spool does not give any more."""
        left = set(self.exported(REQUEST, spool))
        self.assertLessEqual(left, set(self.whole))
        return [at for at, name in enumerate(self.whole) if name not in left]

    def check(self, spool: Path, code: int, *arguments: str, says: str = "") -> None:
        """`spool check`; what it finds is on standard output or error."""
        run = self.engine("spool", "check", *arguments, spool)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        self.assertIn(says, run.stdout + run.stderr)

    def test_only_the_damaged_record_is_lost(self):
        """Wherever the byte is; the check names the file, and repairs it."""
        for share in (0.1, 0.35, 0.5, 0.77):
            with self.subTest(share):
                spool = self.directory / f"flipped-{share}"
                shutil.copytree(self.spool, spool)
                self.check(spool, OK)
                segment = max(segments(spool), key=lambda path: path.stat().st_size)
                self.flip(segment, share)
                lost = self.lost(spool)
                self.check(spool, FAILED, says=segment.name)
                # One record: rows that came one after another, and not many of them.
                self.assertEqual(lost, list(range(lost[0], lost[0] + len(lost))) if lost else [])
                self.assertLess(len(lost), len(self.whole) // 4)
                self.check(spool, OK, "--repair")
                self.check(spool, OK)
                self.assertEqual(self.lost(spool), lost, "the repair keeps what can be read")

    def test_a_cut_segment_loses_its_end(self):
        """In the middle of the log that is damage; at its end it is what an interrupted write leaves."""
        for nth, says, code in ((1, "lost", FAILED), (-1, "interrupted write", OK)):
            with self.subTest(says):
                spool = self.directory / f"cut-{nth}"
                shutil.copytree(self.spool, spool)
                *_, last = found = segments(spool)
                self.assertGreater(len(found), 4)
                if nth == -1 and last.stat().st_size < 32 << 10:
                    # Little more than its header: half of it would have no half record.
                    last.unlink()
                segment = segments(spool)[nth]
                os.truncate(segment, segment.stat().st_size // 2)
                lost = self.lost(spool)
                self.assertEqual(lost, list(range(lost[0], lost[0] + len(lost))))
                self.assertLess(len(lost), len(self.whole) // 2)
                self.assertEqual(nth == -1, lost[-1] == len(self.whole) - 1)
                self.check(spool, code, says=says)
                self.check(spool, OK, "--repair")
                self.check(spool, OK)

    def test_the_engine_goes_on_and_counts_the_damage(self):
        """What was written stays, what comes is written once."""
        first, *_, last = segments(self.spool)
        self.flip(first, 0.6)
        os.truncate(last, last.stat().st_size // 2)
        left = self.exported(REQUEST)
        self.begin()
        with Feeder(traffic(22, seconds=60).events(), self.directory) as feeder:
            feed_for(feeder, 1)
        self.await_requests(feeder.ids(REQUEST))
        self.assertGreaterEqual(self.metric("damaged"), 1)
        self.stop()
        self.assert_same_rows([name for name, _ in self.rows()], {*self.whole, *feeder.ids(REQUEST)})
        self.assert_same_rows(self.exported(REQUEST), [*left, *feeder.ids(REQUEST)])


class Full(LiveCase):
    """A small disk."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("needs root to mount a small tmpfs")
        self.disk = self.directory / "disk"
        self.disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", self.disk], capture_output=True,
                                 text=True, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", self.disk], check=False)
        self.addCleanup(self.kill)

    def start_with(self, options: str) -> None:
        """An engine whose spool is on that disk."""
        self.write("live.yaml", pipeline(sections=f"spool: {{ dir: disk/spool, segment_size: 1MiB, {options} }}"))
        self.begin()

    def spool_trouble(self) -> str:
        """What `GET /status` says of the spool of requests."""
        nodes = json.loads(get(f"{self.base}/status")[1])["nodes"]
        return next(node for node in nodes if node["id"] == "requests")["troubles"].get("spool", "")

    def await_full(self, feeder: Feeder) -> None:
        """Until senders are refused; says what there is if they are not, or the engine has ended."""
        try:
            wait_for("a full queue", lambda: feeder.refused > 5 or self.process.poll() is not None)
            self.assertIsNone(self.process.poll(), "the engine has ended")
        except (AssertionError, TimeoutError) as fault:
            files = {str(path.relative_to(self.disk)): path.stat().st_size for path in self.disk.rglob("*") if path.is_file()}
            raise AssertionError(f"{fault}: sent {len(feeder.sent)}, refused {feeder.refused}, sends {feeder.is_alive()}, "
                                 f"disk {shutil.disk_usage(self.disk)}, {files}, log:\n{self.log.read_text()[-4000:]}") from fault

    def test_a_full_disk_holds_senders_back_and_loses_nothing(self):
        """Senders see a full queue until there is room; then everything comes out once."""
        ballast = self.disk / "ballast"
        ballast.write_bytes(bytes(DISK - 4 * MIB))
        self.start_with("when_full: block")
        with Feeder(large(23, LARGE_ROWS), self.directory, speed=1000) as feeder:
            self.await_full(feeder)
            wait_for("the status to say why", lambda: "full" in self.spool_trouble())
            before = len(feeder.sent)
            ballast.unlink()
            wait_for("all rows to be sent", lambda: not feeder.is_alive())
        self.assertEqual(len(feeder.sent), LARGE_ROWS)
        print(f"\n    {before} of {LARGE_ROWS} large rows were sent before the disk was full ", end="")
        self.assertLess(before, LARGE_ROWS)
        self.await_requests(feeder.ids(REQUEST))
        wait_for("the status to say no more", lambda: not self.spool_trouble())
        self.stop()
        self.assertEqual(sorted(self.exported(REQUEST, self.disk / "spool")), sorted(feeder.ids(REQUEST)))
        self.assertEqual(Counter(name for name, _ in self.rows()).most_common(1)[0][1], 1)

    def test_a_stop_while_the_disk_is_full_says_what_is_lost(self):
        """What was taken from senders and is in no file is no secret, and the exit code is that of a failure."""
        ballast = self.disk / "ballast"
        ballast.write_bytes(bytes(DISK - 4 * MIB))
        self.start_with("when_full: block")
        with Feeder(large(27, LARGE_ROWS), self.directory, speed=1000) as feeder:
            self.await_full(feeder)
            self.process.send_signal(signal.SIGTERM)
            self.assertEqual(self.process.wait(LIMIT_S), FAILED, self.log.read_text())
        self.assertRegex(self.log.read_text(), r"requests: the spool does not take what was received last: [1-9]\d* bytes are lost")
        ballast.unlink()
        self.begin()
        spooled = self.exported(REQUEST, self.disk / "spool")
        self.assertLess(len(spooled), len(feeder.ids(REQUEST)))
        self.await_requests(set(spooled))
        self.stop()

    def test_a_sink_on_a_full_disk_ends_the_run_and_the_next_one_writes_what_is_missing(self):
        """What the failed sink did not write is not taken for written: nothing is trimmed, nothing is skipped."""
        ballast = self.disk / "ballast"
        ballast.write_bytes(bytes(DISK - MIB))
        kept = "  - { id: kept, kind: filter, from: requests, where: src_port > 0 }\n" \
               "  - { id: kept_file, kind: sink.jsonl, from: kept, path: disk/kept.jsonl }\n"
        self.write("live.yaml", pipeline(nodes=kept))
        self.begin()
        with Feeder(large(25, LARGE_ROWS), self.directory, speed=1000):
            wait_for("the end of the run", lambda: self.process.poll() is not None)
        self.assertEqual(self.process.returncode, FAILED, self.log.read_text())
        self.assertIn("kept_file", self.log.read_text())
        ballast.unlink()
        self.begin()
        spooled = self.exported(REQUEST)

        def written() -> list[str]:
            lines = (self.disk / "kept.jsonl").read_text().rpartition("\n")[0].splitlines()
            return [json.loads(line)["header_x_request_id"] for line in lines]

        wait_for("all rows of the spool", lambda: len(written()) >= len(spooled))
        self.stop()
        print(f"\n    {len(spooled)} rows ", end="")
        self.assert_same_rows(written(), spooled)

    def test_rows_that_a_failed_sink_did_not_write_are_not_skipped(self):
        """No window makes the log longer than the sinks need, and another sink of the same rows has confirmed more."""
        ballast = self.disk / "ballast"
        ballast.write_bytes(bytes(DISK - MIB))
        self.write("live.yaml", BESIDE)
        self.begin()
        with Feeder(large(26, LARGE_ROWS), self.directory, speed=1000) as feeder:
            wait_for("the end of the run", lambda: self.process.poll() is not None)
        self.assertEqual(self.process.returncode, FAILED, self.log.read_text())
        self.assertIn("kept_file", self.log.read_text())
        spooled = self.exported(REQUEST)
        self.assert_same_rows(spooled, feeder.ids(REQUEST), "what was taken before the end is in the log")
        ballast.unlink()
        self.begin()

        def written(path: Path) -> list[str]:
            lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
            return [json.loads(line)["header_x_request_id"] for line in lines]

        wait_for("all rows of the spool", lambda: set(written(self.data / "all.jsonl")) >= set(spooled))
        wait_for("all rows of the other file",
                 lambda: len(written(self.disk / "kept.jsonl")) >= len(written(self.data / "all.jsonl")))
        self.stop()
        print(f"\n    {len(spooled)} rows in the spool ", end="")
        self.assert_same_rows(written(self.disk / "kept.jsonl"), written(self.data / "all.jsonl"))

    def test_a_spool_that_drops_its_oldest_segments_counts_them(self):
        """Nobody waits, and all rows come out: only the past is shorter."""
        self.start_with("max_size: 3MiB, when_full: drop_oldest")
        with Feeder(large(24, count=800), self.directory, speed=1000) as feeder:
            wait_for("all rows to be sent", lambda: not feeder.is_alive())
        self.await_requests(feeder.ids(REQUEST))
        self.assertGreater(self.metric("spool.*dropped"), 0)
        self.stop()
        kept = self.exported(REQUEST, self.disk / "spool")
        order = [one.id for one in feeder.sent]
        self.assertEqual(kept, order[len(order) - len(kept):], "the latest rows are kept")
        self.assertTrue(0 < len(kept) < len(order), len(kept))
        used = sum(path.stat().st_size for path in segments(self.disk / "spool"))
        self.assertLessEqual(used, 4 * MIB, "the limit, and a segment that is being written")


def large(seed: int, count: int) -> list[Event]:
    """Requests of 8 KiB that do not compress well."""
    rng = random.Random(seed)
    requests = [event for event in traffic(seed, seconds=60).events() if event.stream == REQUEST][:count]
    return [replace(event, fields=event.fields | {"query": rng.randbytes(4096).hex()}) for event in requests]

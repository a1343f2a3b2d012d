"""Logs that Debian's logrotate rotates at random moments under load, in each of its ways, with the engine running, stopped and
killed in between: every line comes out once.

ROTATIONS says how often each, SEED repeats a run; it is printed.
"""

import json
import os
import random
import shutil
import subprocess
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from tests.live_engine import LiveCase
from tests.support import lines, wait_for

ROTATIONS = int(os.environ.get("ROTATIONS", 6))
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
LOGROTATE = shutil.which("logrotate") or "/usr/sbin/logrotate"
LOG = "access.log"

PIPELINE = """\
name: live
data_dir: data
nodes:
  - { id: requests, kind: source.file, path: PATH, follow: true, format: reqin_log }
  - { id: rows, kind: sink.jsonl, from: requests, path: data/rows.jsonl }
  - { id: rejected, kind: sink.jsonl, from: requests.rejected, path: data/rejected.jsonl }
serve: { listen: 127.0.0.1:0, tables: { requests: requests } }
"""

# logrotate's own words for each way. `create` renames the log and makes a new one; `nocreate` leaves that to the program.
WAYS = {
    "create": "create",
    "nocreate": "nocreate",
    "copytruncate": "copytruncate",
    "date": "create\ndateext\ndateformat -%Y%m%d-%s",
    "date before the extension": "create\nextension .log\ndateext\ndateformat -%Y%m%d-%s",
    "number before the extension": "create\nextension .log",
    "compressed": "create\ncompress",
    "compressed later": "create\ncompress\ndelaycompress",
    "cut and compressed": "copytruncate\ncompress",
    "another folder": "create\nolddir old",
    "another folder, compressed": "create\nolddir old\ncompress",
}


# The program is told, and has opened the new log, before the old one is compressed.
POSTROTATE = """\
postrotate
touch TOLD
while [ -e TOLD ]; do sleep 0.01; done
endscript"""


class Program(threading.Thread):
    """Writes numbered lines to a log, which it opens again when it is told so."""

    def __init__(self, path: Path, first: int = 0) -> None:
        super().__init__(name="program", daemon=True)
        self.path = path
        self.first = self.written = first
        self.still = threading.Lock()
        self.again = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        """A few hundred lines a second, a part of a line at a time now and then."""
        file = self.path.open("ab", buffering=0)
        while not self.ended.wait(0.002):
            with self.still:
                told = self.path.with_name("told")
                if self.again.is_set() or told.exists():
                    file.close()
                    file = self.path.open("ab", buffering=0)
                    self.again.clear()
                    told.unlink(missing_ok=True)
                line = request(self.written)
                cut = len(line) // 2 if self.written % 7 == 0 else len(line)
                file.write(line[:cut])
                file.write(line[cut:])
                self.written += 1
        file.close()

    def stop(self) -> None:
        """No more lines."""
        self.ended.set()
        self.join()


def request(number: int) -> bytes:
    """A line."""
    row = {"timestamp": time.time_ns(), "src_ip": "192.0.2.1", "src_port": 1024 + number % 60000, "method": "GET",
           "host": "www.example.test", "path": f"/{number}"}
    return json.dumps(row).encode() + b"\n"


class Rotation(LiveCase):
    """One log, one sink."""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.directory

    def receives(self) -> bool:
        """A file needs nobody who listens."""
        self.assertIsNone(self.process.poll(), f"the engine has ended:\n{self.log.read_text()}")
        return True

    def logrotate(self, directory: Path, way: str) -> None:
        """Rotates the log now."""
        (directory / "old").mkdir(exist_ok=True)
        if "dateext" in way:
            # Of two rotations within a second logrotate refuses the later.
            time.sleep(1.1)
        config = directory / "logrotate.conf"
        config.write_text(f"{directory / LOG} {{\nrotate 1000\nmissingok\n{way}\n}}\n")
        config.chmod(0o600)
        run = subprocess.run([LOGROTATE, "--force", "--state", directory / "state", config], capture_output=True,
                             text=True, check=False, timeout=60)
        self.assertEqual(run.returncode, 0, run.stderr)

    def through(self, directory: Path, rotate: Callable[[Program], None], rng: random.Random, once: bool = False) -> None:
        """Rotates under load, stops and kills the engine in between, and looks at all that it has given."""
        program = Program(directory / LOG)
        self.addCleanup(program.stop)
        program.start()
        self.begin()
        # Before that there is no place from which a later start could go on.
        wait_for("the first rows", lambda: self.output("rows.jsonl"))
        for _ in range(ROTATIONS):
            pause(rng)
            what = rng.choice((None, self.stop, self.kill))
            if what:
                # Of files between two links that nobody has seen there is no name that could be known.
                time.sleep(1.5 if once else 0)
                what()
                pause(rng)
            for _ in range(1 if once and what else rng.choice((1, 1, 2, 3))):
                rotate(program)
                pause(rng)
            if what:
                self.begin()
        pause(rng)
        program.stop()
        wanted = {f"/{number}" for number in range(program.written)}
        rows = self.data / "rows.jsonl"
        try:
            wait_for("all lines", lambda: wanted <= {row["path"] for row in self.output(rows.name)}, 40, pause_s=0.2)
        except TimeoutError:
            pass
        self.stop()
        self.assert_same_rows([row["path"] for row in lines(rows)], wanted, f"SEED={SEED}\n{self.logs()[-6000:]}")
        self.assertEqual(lines(self.data / "rejected.jsonl"), [])
        self.assertNotRegex(self.logs(), r"\blost\b|skipped")

    @unittest.skipUnless(Path(LOGROTATE).exists(), "logrotate is not installed")
    def test_each_way_of_logrotate_gives_every_line_once(self):
        """What logrotate itself loses, lines between copy and cut, is not written."""
        print(f"\n    SEED={SEED} ", end="", flush=True)
        for way, words in WAYS.items():
            with self.subTest(way):
                rng = random.Random(f"{SEED} {way}")
                directory = self.fresh(way.replace(" ", "-").replace(",", ""), LOG)

                def rotate(program: Program, words: str = words, rng: random.Random = rng, directory: Path = directory):
                    if "copytruncate" in words:
                        with program.still:
                            self.logrotate(directory, words)
                        return
                    if "compress" in words and "delaycompress" not in words:
                        # What is written to a file that has been compressed is lost with it.
                        self.logrotate(directory, f"{words}\n{POSTROTATE.replace('TOLD', str(directory / 'told'))}")
                        return
                    self.logrotate(directory, words)
                    # Until it is told so the program goes on writing to the old file.
                    time.sleep(rng.choice((0, 0.01, 0.2)))
                    program.again.set()
                    wait_for("the program", lambda: not program.again.is_set(), pause_s=0.001)

                self.through(directory, rotate, rng)

    def test_a_link_that_is_moved_gives_every_line_once(self):
        """As container runtimes and releases do it."""
        rng = random.Random(SEED)
        directory = self.fresh("linked", f"current/{LOG}")
        (directory / "v0").mkdir()
        (directory / "current").symlink_to("v0")
        number = 0

        def rotate(program: Program) -> None:
            nonlocal number
            number += 1
            (directory / f"v{number}").mkdir()
            (directory / "next").symlink_to(f"v{number}")
            with program.still:
                (directory / "next").rename(directory / "current")
                program.again.set()
            wait_for("the program", lambda: not program.again.is_set(), pause_s=0.001)

        (directory / LOG).symlink_to(f"current/{LOG}")
        self.through(directory, rotate, rng, once=True)

    def test_several_logs_of_a_pattern_give_every_line_once(self):
        """Each goes on from its own place after a kill, also one whose other name matches too."""
        rng = random.Random(SEED)
        directory = self.fresh("several", "'logs/*.log'")
        (directory / "logs").mkdir()
        programs = [Program(directory / f"logs/app{number}.log", number * 1_000_000) for number in range(1, 4)]
        for program in programs[:2]:
            self.addCleanup(program.stop)
            program.start()
        self.begin()
        wait_for("the first rows", lambda: len(self.output("rows.jsonl")) > 10)
        for number in range(ROTATIONS):
            pause(rng)
            self.kill()
            pause(rng)
            if number == 1:
                self.addCleanup(programs[2].stop)
                programs[2].start()
            program = rng.choice(programs[:2])
            program.path.rename(program.path.with_name(f"{program.path.stem}-202611{number:02}.log"))
            program.again.set()
            self.begin(wait=False)
        self.await_start()
        pause(rng)
        for program in programs:
            program.stop()
        wanted = {f"/{number}" for program in programs for number in range(program.first, program.written)}
        try:
            wait_for("all lines", lambda: wanted <= {row["path"] for row in self.output("rows.jsonl")}, 40, pause_s=0.2)
        except TimeoutError:
            pass
        self.stop()
        rows = lines(self.data / "rows.jsonl")
        self.assert_same_rows([row["path"] for row in rows], wanted, f"SEED={SEED}\n{self.logs()[-6000:]}")
        self.assertEqual(len({row["seq"] for row in rows}), len(rows), "each line has a position of its own")

    def fresh(self, name: str, path: str) -> Path:
        """A folder of its own, and a pipeline there that follows a file in it."""
        self.kill()
        self.directory = self.root / name
        self.directory.mkdir(mode=0o700)
        self.starts, self.data = 0, self.directory / "data"
        self.write("live.yaml", PIPELINE.replace("PATH", path))
        return self.directory


def pause(rng: random.Random) -> None:
    """A random moment."""
    time.sleep(rng.uniform(0.02, 0.7))

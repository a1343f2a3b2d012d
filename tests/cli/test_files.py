"""Files that `source.file` reads and follows: lists, patterns, compressed ones, and what goes wrong while they are followed."""

import gzip
import json
import lzma
import os
import shutil
import time

from tests.live_engine import LiveCase
from tests.support import FAILED, OK, REFUSED, get, lines, start, wait_for

FOLLOW = """\
name: live
data_dir: data
nodes:
  - { id: requests, kind: source.file, path: PATH, follow: true, format: reqin_log }
  - { id: rows, kind: sink.jsonl, from: requests, path: data/rows.jsonl }
  - { id: rejected, kind: sink.jsonl, from: requests.rejected, path: data/rejected.jsonl }
serve: { listen: 127.0.0.1:0, tables: { requests: requests } }
"""

READ = """\
name: once
nodes:
  - { id: requests, kind: source.file, path: PATH, format: reqin_log, lateness: 1s }
  - { id: rows, kind: sink.jsonl, from: requests, path: OUT }
  - { id: late, kind: sink.jsonl, from: requests.rejected, path: rejected.jsonl }
"""

BEGIN = 1_795_392_000 * 10**9


def request(number: int, at: int | None = None) -> str:
    """A line."""
    row = {"timestamp": at or time.time_ns(), "src_ip": "192.0.2.1", "src_port": 1024 + number, "path": f"/{number}"}
    return json.dumps(row) + "\n"


def text(*numbers: int, at: int | None = None) -> str:
    """Lines."""
    return "".join(request(number, at) for number in numbers)


def zstd(data: bytes) -> bytes:
    """RFC 8878: a frame of a single segment with one raw block for each 200 bytes."""
    frames = [b"\x28\xb5\x2f\xfd\x20" + bytes([len(part)]) + (1 | len(part) << 3).to_bytes(3, "little") + part
              for part in (data[at : at + 200] for at in range(0, len(data), 200))]
    return b"".join(frames)


class Follow(LiveCase):
    """A pipeline that follows."""

    def receives(self) -> bool:
        """A file needs nobody who listens."""
        self.assertIsNone(self.process.poll(), f"the engine has ended:\n{self.log.read_text()}")
        return True

    def follow(self, path: str) -> None:
        """Writes the pipeline and starts it."""
        self.write("live.yaml", FOLLOW.replace("PATH", path))
        self.begin()

    def append(self, name: str, content: str) -> None:
        """Adds to a log."""
        with (self.directory / name).open("a") as file:
            file.write(content)

    def paths(self) -> list[int]:
        """The lines that have come out."""
        return sorted(int(row["path"][1:]) for row in self.output("rows.jsonl"))

    def await_paths(self, *wanted: int) -> None:
        """Waits for these lines, and checks that there are no others."""
        try:
            wait_for("rows", lambda: set(wanted) <= set(self.paths()), 20)
        except TimeoutError:
            pass
        self.assertEqual(self.paths(), sorted(wanted), self.logs()[-3000:])

    def troubles(self) -> dict[str, str]:
        """What keeps the source from going on."""
        nodes = json.loads(get(f"{self.base}/status")[1])["nodes"]
        return next(node for node in nodes if node["id"] == "requests").get("troubles", {})

    def test_an_error_while_running_is_trouble_and_no_end(self):
        """A folder or a circle of links in the log's place; the log of another user for a while."""
        log = self.write("access.log", text(1))
        self.follow("access.log")
        self.await_paths(1)
        shutil.copy(log, self.directory / "kept")
        for number, (make, remove, says) in enumerate([
            (log.mkdir, log.rmdir, "directory"),
            (lambda: log.symlink_to(log.name), log.unlink, "symbolic link"),
        ], start=2):
            log.rename(self.directory / f"access.log.{number}")
            make()
            found = wait_for("trouble", self.troubles)
            self.assertIn(says, " ".join(found.values()))
            remove()
            log.write_text(text(number))
            self.await_paths(*range(1, number + 1))
            wait_for("the end of trouble", lambda: not self.troubles())
        self.assertGreater(self.metric('node="requests".*event="read_errors"'), 1)
        self.stop()
        self.assertIn("it is tried again", self.log.read_text())

    def test_a_log_that_may_not_be_read_yet_is_trouble(self):
        """As logrotate's `create MODE OWNER`, which makes it with 0600 first. At the start it is an error."""
        if os.geteuid() != 0:
            self.skipTest("needs root, to run the engine as somebody else")
        user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        self.directory.chmod(0o755)
        self.data.mkdir()
        for path in (self.directory, self.data):
            shutil.chown(path, "nobody", "nogroup")
        log = self.write("access.log", text(1))
        log.chmod(0o644)
        self.write("live.yaml", FOLLOW.replace("PATH", "access.log"))
        self.starts += 1
        self.process = start("run", self.directory / "live.yaml", prefix=user, log=self.log)
        self.await_start()
        self.await_paths(1)
        log.rename(self.directory / "access.log.1")
        log.touch(0o600)
        found = wait_for("trouble", self.troubles)
        self.assertIn("ermission denied", " ".join(found.values()))
        log.write_text(text(2))
        log.chmod(0o644)
        self.await_paths(1, 2)
        wait_for("the end of trouble", lambda: not self.troubles())
        self.stop()
        log.chmod(0o600)
        run = self.engine("run", self.directory / "live.yaml", prefix=user)
        self.assertNotEqual(run.returncode, OK)
        self.assertIn("ermission denied", run.stderr)

    def test_zeros_after_a_cut_are_counted_and_the_line_behind_them_is_kept(self):
        """A program that does not append goes on where it was."""
        with (self.directory / "access.log").open("wb", buffering=0) as file:
            file.write(text(1, 2).encode())
            self.follow("access.log")
            self.await_paths(1, 2)
            before = file.tell()
            os.truncate(self.directory / "access.log", 0)
            file.write(text(3, 4).encode())
            self.await_paths(1, 2, 3, 4)
        self.assertEqual(self.metric('node="requests".*event="nul_bytes"'), before)
        self.assertEqual(self.output("rejected.jsonl"), [])
        self.stop()

    def test_several_files_and_a_pattern_are_followed_each_from_its_place(self):
        """Also files that come, that are rotated under names that match, and through a kill and a stop."""
        (self.directory / "logs").mkdir()
        self.write("one.log", text(1))
        self.write("logs/a.log", text(2))
        self.follow("[one.log, 'logs/*.log']")
        self.await_paths(1, 2)
        self.write("logs/b.log", text(3))
        self.await_paths(1, 2, 3)
        self.kill()
        self.append("one.log", text(4))
        self.append("logs/a.log", text(5))
        self.append("logs/b.log", text(6))
        self.write("logs/c.log", text(7))
        self.begin()
        self.await_paths(*range(1, 8))
        (self.directory / "logs/a.log").rename(self.directory / "logs/a-20261130.log")
        self.write("logs/a.log", text(8))
        self.await_paths(*range(1, 9))
        self.stop()
        (self.directory / "logs/b.log").rename(self.directory / "logs/b-20261130.log")
        self.write("logs/b.log", text(9))
        shutil.copy(self.directory / "logs/c.log", self.directory / "logs/copy.log")
        self.append("one.log", text(10))
        self.begin()
        self.await_paths(*range(1, 11))
        time.sleep(2)
        self.append("logs/c.log", text(11))
        self.await_paths(*range(1, 12))
        self.assertEqual(self.troubles(), {})
        self.stop()
        self.assertEqual(len({row["seq"] for row in lines(self.data / "rows.jsonl")}), 11, "each line has a position of its own")

    def test_a_pattern_that_matches_rotated_names_too_gives_every_line_once(self):
        """By name and by a copy, while the engine runs and while it is stopped, compressed or not."""
        log = self.write("access.log", text(1))
        self.follow("'access.log*'")
        self.await_paths(1)
        wanted = [1]

        def rotate(cut: bool) -> None:
            for number in range(8, 0, -1):
                for end in ("", ".gz"):
                    old = self.directory / f"access.log.{number}{end}"
                    if old.exists():
                        old.rename(self.directory / f"access.log.{number + 1}{end}")
            wanted.append(len(wanted) + 1)
            self.append("access.log", text(wanted[-1]))
            if cut:
                shutil.copy(log, self.directory / "access.log.1")
                os.truncate(log, 0)
            else:
                log.rename(self.directory / "access.log.1")
            wanted.append(len(wanted) + 1)
            self.append("access.log", text(wanted[-1]))

        for stopped in (False, True):
            for cut in (False, True, True, False):
                if stopped:
                    self.stop()
                rotate(cut)
                if stopped:
                    self.begin()
                self.await_paths(*wanted)
        rotated = self.directory / "access.log.4"
        (self.directory / "access.log.4.gz").write_bytes(gzip.compress(rotated.read_bytes()))
        rotated.unlink()
        time.sleep(7)
        self.await_paths(*wanted)
        self.assertEqual(self.metric('node="requests".*event="skipped_files"'), 0)
        self.stop()

    def test_inodes_that_are_used_again_lose_nothing(self):
        """As file systems do it when the oldest log is deleted just before the next one is made."""
        log = self.write("access.log", text(1))
        self.follow("'access.log*'")
        wanted = [1]
        again = 0
        inodes = {log.stat().st_ino}
        for number in range(12):
            self.await_paths(*wanted)
            wanted.append(len(wanted) + 1)
            self.append("access.log", text(wanted[-1]))
            self.await_paths(*wanted)
            if number % 4 == 3:
                self.stop()
            for old, new in ((3, None), (2, 3), (1, 2)):
                path = self.directory / f"access.log.{old}"
                if path.exists():
                    path.rename(self.directory / f"access.log.{new}") if new else path.unlink()
            log.rename(self.directory / "access.log.1")
            wanted.append(len(wanted) + 1)
            self.append("access.log", text(wanted[-1]))
            again += log.stat().st_ino in inodes
            inodes.add(log.stat().st_ino)
            if number % 4 == 3:
                self.begin()
        self.await_paths(*wanted)
        print(f"\n    inodes used again: {again} ", end="", flush=True)
        self.assertEqual(self.metric('node="requests".*event="skipped_files"'), 0)
        self.stop()

    def test_notes_of_many_files_stay_small(self):
        """Places of all of them are noted a few times a second, not for each line."""
        (self.directory / "logs").mkdir()
        for number in range(200):
            self.write(f"logs/{number}.log", text(number))
        self.follow("'logs/*.log'")
        self.await_paths(*range(200))
        spool = self.data / "spool"
        size = lambda: sum(path.stat().st_size for path in spool.rglob("*.seg"))
        before = size()
        for number in range(200, 800):
            self.append(f"logs/{number % 200}.log", text(number))
            time.sleep(0.005)
        self.await_paths(*range(800))
        self.assertLess(size() - before, 4 << 20)
        self.kill()
        self.begin()
        self.append("logs/0.log", text(800))
        self.await_paths(*range(801))
        self.stop()

    def test_more_files_than_may_be_open_are_named_and_wait(self):
        """The engine goes on, and a source that names them is refused."""
        (self.directory / "logs").mkdir()
        for number in range(60):
            # Those with the greatest numbers were written to last.
            path = self.write(f"logs/{number:02}.log", text(number))
            os.utime(path, (time.time() - 600 + number,) * 2)
        few = ("prlimit", "--nofile=400:400")
        names = ", ".join(f"logs/{number:02}.log" for number in range(60))
        path = self.write("live.yaml", FOLLOW.replace("PATH", f"[{names}]"))
        self.assert_exit(self.engine("validate", path, prefix=few), REFUSED, "these are 60 files", "ulimit -n")
        self.write("live.yaml", FOLLOW.replace("PATH", "'logs/*.log'"))
        self.starts += 1
        self.process = start("run", path, prefix=few, log=self.log)
        self.await_start()
        newest = range(12, 60)
        self.await_paths(*newest)
        self.assertIn("the newest first", self.troubles()["files"])
        self.assertIn("wait for a place", self.troubles()["files"])
        for number in newest:
            rotated = self.directory / f"logs/{number:02}.log"
            rotated.rename(rotated.with_suffix(".old"))
            self.write(f"logs/{number:02}.log", text(100 + number))
        self.await_paths(*newest, *range(112, 160))
        self.stop()

    def test_a_start_at_the_end_takes_only_what_comes(self):
        """And the start says where it begins."""
        self.write("access.log", text(1, 2))
        self.write("live.yaml", FOLLOW.replace("PATH", "access.log, start: end"))
        self.begin()
        wait_for("the file", lambda: "begins at the end" in self.log.read_text())
        self.append("access.log", text(3))
        self.await_paths(3)
        self.stop()
        self.append("access.log", text(4))
        self.begin()
        self.await_paths(3, 4)
        self.stop()
        self.assertIn("saved position", self.log.read_text())

    def test_a_sink_must_not_write_what_a_pattern_would_read(self):
        """Its rows would come back for ever."""
        path = self.write("p.yaml", FOLLOW.replace("PATH", "'data/*.jsonl'"))
        self.assert_exit(self.engine("validate", path), REFUSED, "would overwrite", "rows.jsonl")


class Read(LiveCase):
    """Files that are read to their end."""

    def rows(self, path: str, *arguments: object) -> list[dict]:
        """The rows of a run."""
        out = self.directory / "rows.jsonl"
        self.write("p.yaml", READ.replace("PATH", path).replace("OUT", "rows.jsonl"))
        self.assert_exit(self.engine("run", *arguments, self.directory / "p.yaml"), OK)
        return lines(out)

    def test_compressed_files_are_read_by_their_content(self):
        """Of several members, under any name."""
        content = "".join(request(number, BEGIN + number) for number in range(500)).encode()
        half = content.index(b"\n", 20_000) + 1
        wanted = None
        for packed in (content, gzip.compress(content[:half]) + gzip.compress(content[half:]), zstd(content),
                       lzma.compress(content)):
            self.write("log", packed)
            rows = self.rows("log")
            self.assertEqual(len(rows), 500)
            wanted = wanted or rows
            self.assertEqual(rows, wanted)
        self.write("log", gzip.compress(content)[:-2000])
        self.write("p.yaml", READ.replace("PATH", "log").replace("OUT", "rows.jsonl"))
        self.assert_exit(self.engine("run", self.directory / "p.yaml"), OK, "breaks off")
        # Of none of its lines the end is there.
        for name, packed in (("log.gz", gzip.compress(content)), ("log.zst", zstd(content)), ("log.xz", lzma.compress(content))):
            for length in (0, 3, 12, 40):
                with self.subTest(name=name, length=length):
                    self.write(name, packed[:length])
                    self.write("p.yaml", READ.replace("PATH", name).replace("OUT", "rows.jsonl"))
                    self.assert_exit(self.engine("run", self.directory / "p.yaml"), FAILED, "breaks off")
        damaged = bytearray(gzip.compress(content))
        damaged[3000:3100] = bytes(100)
        self.write("log", bytes(damaged))
        self.write("p.yaml", READ.replace("PATH", "log").replace("OUT", "rows.jsonl"))
        self.assert_exit(self.engine("run", self.directory / "p.yaml"), 1, "damaged")

    def test_a_file_that_several_paths_lead_to_is_read_once(self):
        """Twice in the list, by a pattern besides, by a symbolic and by a hard link."""
        self.write("a.log", text(1, 2, 3, at=BEGIN))
        os.symlink("a.log", self.directory / "b.log")
        os.link(self.directory / "a.log", self.directory / "c.log")
        path = self.write("once.yaml", READ.replace("PATH", '[a.log, a.log, "*.log"]').replace("OUT", "rows.jsonl"))
        self.assert_exit(self.engine("run", "--quiet", path), OK)
        self.assertEqual([row["path"] for row in lines(self.directory / "rows.jsonl")], ["/1", "/2", "/3"])

    def test_a_bomb_takes_no_memory(self):
        """A line of 300 MB in 300 KB."""
        self.write("log", gzip.compress(b"x" * (300 << 20) + b"\n" + request(1, BEGIN).encode()))
        self.write("p.yaml", READ.replace("PATH", "log").replace("OUT", "rows.jsonl"))
        run = self.engine("run", self.directory / "p.yaml", prefix=("prlimit", f"--data={1 << 30}"))
        self.assert_exit(run, OK)
        self.assertEqual([row["path"] for row in lines(self.directory / "rows.jsonl")], ["/1"])

    def test_files_of_one_time_are_read_side_by_side(self):
        """Nothing is late that is not late in its own file, and workers do not matter."""
        for name, first in (("a.log", 0), ("b.log", 1), ("c.log.gz", 2)):
            content = "".join(request(number, BEGIN + number * 10**9) for number in range(first, 3000, 3)).encode()
            self.write(name, gzip.compress(content) if name.endswith(".gz") else content)
        wanted = self.rows("['*.log', c.log.gz]", "--workers", 1)
        self.assertEqual([row["path"] for row in sorted(wanted, key=lambda row: row["seq"])],
                         [f"/{number}" for number in range(3000)])
        for workers in (2, 4):
            again = self.rows("['*.log', c.log.gz]", "--workers", workers)
            self.assertEqual(sorted(map(str, again)), sorted(map(str, wanted)))

    def test_faults_of_a_list_are_shown_at_their_place(self):
        """Before anything runs."""
        self.write("a.log", "")
        for path, says in (("[a.log, none.log]", "none.log cannot be read"), ("'*.txt'", "no file matches"),
                           ("[]", "no file to read"), ("[a.log, '-']", "cannot be one of several"),
                           ("a.log, start: end", "goes with `follow: true`")):
            self.write("p.yaml", READ.replace("PATH", path).replace("OUT", "rows.jsonl"))
            self.assert_exit(self.engine("validate", self.directory / "p.yaml"), REFUSED, says, "p.yaml:3:")


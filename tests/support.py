"""What the tests share: running the engine, asking its web service, small captures and pipelines."""

import atexit
import json
import os
import re
import struct
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIPELINES = ROOT / "pipelines"
RECORDING = PIPELINES / "recording/demo"
ENGINE = Path(os.environ.get("JA4_ENGINE", ROOT / "target/debug/ja4-engine"))

# Exit codes of the engine, as documented in README.md.
OK, FAILED, REFUSED, NO_ADDRESS, NO_PERMISSION, NOT_FOUND = 0, 1, 2, 3, 4, 6

# The longest that one run may take; a debug build on a busy machine needs a fraction of it.
LIMIT_S = 180


class Case(unittest.TestCase):
    """A test with an own directory, which is removed afterwards."""

    def setUp(self) -> None:
        if not ENGINE.exists():
            self.fail(f"{ENGINE} is not built: make build, or set JA4_ENGINE")
        # Not self.id(): a Unix socket's path has at most 107 bytes.
        directory = tempfile.TemporaryDirectory(prefix="ja4-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the test's directory."""
        path = self.directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def engine(self, *arguments: object, **options: object) -> subprocess.CompletedProcess:
        """Runs the engine to its end."""
        return engine(*arguments, **options)

    def assert_exit(self, run: subprocess.CompletedProcess, code: int, *says: str) -> None:
        """Checks the exit code and that standard error has each text; no panic, whatever happens."""
        self.assertEqual(run.returncode, code, f"stderr:\n{run.stderr}")
        self.assertNotIn("defect", run.stderr)
        for text in says:
            self.assertIn(text.lower(), run.stderr.lower())

    def assert_same_rows(self, got: Iterable, expected: Iterable, about: str = "") -> None:
        """Checks that both have each row equally often, in whatever order; shows the first differences."""
        got, expected = Counter(got), Counter(expected)
        faults = [f"{(got - expected).total()} rows too many, {(expected - got).total()} missing. {about}"]
        for what, rows in (("too many", got - expected), ("missing", expected - got)):
            faults += [f"{what}: {row}" for row in sorted(rows.elements(), key=repr)[:5]]
        if got != expected:
            self.fail("\n".join(faults))


def engine(*arguments: object, environment: dict | None = None, prefix: tuple = ()) -> subprocess.CompletedProcess:
    """Runs the engine to its end, both outputs as text. Nothing is left to the caller's environment but the basics."""
    return subprocess.run(
        [*prefix, ENGINE, *map(str, arguments)], env=_environment(environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False,
    )


def start(*arguments: object, environment: dict | None = None, prefix: tuple = (), log: Path) -> subprocess.Popen:
    """Starts the engine as a process of its own; its standard error goes to `log`."""
    with log.open("wb") as stderr:
        return subprocess.Popen(
            [*prefix, ENGINE, *map(str, arguments)], env=_environment(environment), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=stderr,
        )


@contextmanager
def running(
    *arguments: object, environment: dict | None = None, prefix: tuple = (), log: Path,
) -> Iterator[subprocess.Popen]:
    """The engine as a process of its own, ended with SIGTERM unless it has ended; its standard error goes to `log`."""
    process = start(*arguments, environment=environment, prefix=prefix, log=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _environment(variables: dict | None) -> dict:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {name: str(value) for name, value in (variables or {}).items()}


def wait_for(what: str, condition: Callable[[], object], limit_s: float = 60, pause_s: float = 0.02) -> object:
    """The first true value of `condition`; a TimeoutError names `what` if there is none in time."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit_s} s for {what}")
        time.sleep(pause_s)


def served(log: Path) -> str:
    """The base URL that an engine run with `--listen 127.0.0.1:0` says in its log, once the service is ready."""
    found = wait_for("the web service's address", lambda: re.search(r"serving on (http://\S+)", log.read_text()))
    wait_for("the web service", lambda: get(f"{found[1]}/ready")[0] == 200)
    return found[1]


def get(url: str, body: str | None = None) -> tuple[int, str]:
    """Status and text of an HTTP answer; (0, reason) if there is none."""
    request = urllib.request.Request(url, data=body.encode() if body else None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def sql(base: str, query: str) -> list[dict]:
    """The rows that POST /sql answers."""
    status, text = get(f"{base}/sql", query)
    if status != 200:
        raise AssertionError(f"POST /sql: {status} {text}")
    return json.loads(text)["rows"]


def lines(path: Path) -> list[dict]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def nanoseconds(text: str) -> int:
    """A time in UTC as rows have it, since 1970; datetime itself has only microseconds."""
    whole, _, digits = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int(digits.ljust(9, "0"))


def run_demo(directory: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Runs the demo pipeline into a directory, serving on any free port."""
    arguments = ("run", "--listen", "127.0.0.1:0", *arguments, PIPELINES / "demo.yaml")
    return engine(*arguments, environment={"DATA_DIR": directory})


@cache
def demo() -> Path:
    """The directory of one run of the demo pipeline, shared by all tests that only read it."""
    directory = tempfile.TemporaryDirectory(prefix="ja4-demo-")
    atexit.register(directory.cleanup)
    run = run_demo(Path(directory.name))
    if run.returncode != OK:
        raise AssertionError(f"the demo ended with {run.returncode}:\n{run.stderr}")
    return Path(directory.name)


def packets(capture: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Header and data of each record of a little-endian pcap file."""
    at = 24
    while at < len(capture):
        (length,) = struct.unpack_from("<I", capture, at + 8)
        yield capture[at : at + 16], capture[at + 16 : at + 16 + length]
        at += 16 + length


def as_pcapng(capture: bytes, interface: str = "") -> bytes:
    """A pcap file of microseconds in the newer format: a section, an interface, by name if it has one, and a block a packet."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)

    def option(code: int, value: bytes) -> bytes:
        return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)

    magic, linktype = struct.unpack_from("<I", capture)[0], struct.unpack_from("<I", capture, 20)[0]
    if magic != 0xA1B2C3D4:
        raise ValueError("not a little-endian pcap file of microseconds")
    blocks = [
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(1, struct.pack("<HHI", linktype, 0, 0) + (option(2, interface.encode()) + bytes(4) if interface else b"")),
    ]
    for header, data in packets(capture):
        seconds, micros, captured, original = struct.unpack("<IIII", header)
        micros += seconds * 1_000_000
        head = struct.pack("<IIIII", 0, micros >> 32, micros & 0xFFFFFFFF, captured, original)
        blocks.append(block(6, head + data))
    return b"".join(blocks)

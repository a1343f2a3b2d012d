"""The engine under attack: live, with a feed whose rows must all come out, and with another client who must be answered."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import ENGINE, get, served, start, wait_for

PIPELINE = """\
name: victim
data_dir: data
tick: 100ms
nodes:
  - { id: requests, kind: source.unix_socket, path: requests.socket, format: reqin_log, lateness: 10s }
  - { id: said, kind: source.feedback }
  - { id: groups, kind: aggregate, from: requests, by: [src_ip, host], window: 1h, features: [{ name: hits, expr: count(*) }] }
  - { id: rows, kind: sink.jsonl, from: requests, path: data/rows.jsonl }
  - { id: store, kind: sink.parquet, from: { requests: requests } }
EXTRA
serve: { listen: 127.0.0.1:0, tables: { requests: requests, rejected: requests.rejected, groups: groups } }
"""

# Rows that are there before the first attack, and of the feed each second.
PRELOADED, PER_SECOND = 20_000, 50

# Others ask from this address: who is fair between addresses tells them from the attacker, who has 127.0.0.1.
OTHER = "127.0.0.2"

# Bytes in a MiB.
MIB = 1 << 20


class Broken(Exception):
    """An attack that got through."""


@dataclass
class Bounds:
    """What must hold while somebody attacks."""

    # What the run itself may grow by, above the 5 % that any load moves it by.
    run_mib: float = 96
    # What the query processes may have of their own, all together.
    children_mib: float = 3072
    # The longest that others may wait for what the run knows, and for their small query.
    status_s: float = 3
    sql_s: float = 15


@dataclass
class Seen:
    """What was seen since the last look."""

    run: int = 0
    children: int = 0
    status_s: float = 0
    sql_s: float = 0
    asked: int = 0
    faults: list[str] = field(default_factory=list)


def own_memory(pid: int, what: str = "VmRSS") -> int:
    """Bytes of a process; 0 if it is gone."""
    try:
        found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def descendants(pid: int) -> list[int]:
    """The processes below one."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return found + [below for child in found for below in descendants(child)]


class Victim:
    """One engine; the same pipeline each time, in a fresh directory."""

    def __init__(self, bounds: Bounds | None = None, extra: str = "", preloaded: int = PRELOADED) -> None:
        self.bounds, self.extra, self.preloaded = bounds or Bounds(), extra, preloaded
        self.sent = 0

    def __enter__(self) -> "Victim":
        self.directory = Path(tempfile.mkdtemp(prefix="ja4-"))
        self.pipeline = self.directory / "p.yaml"
        self.pipeline.write_text(PIPELINE.replace("EXTRA", self.extra))
        self.log = self.directory / "log"
        self.process = start("run", "--no-watch", self.pipeline, log=self.log)
        self._ended = threading.Event()
        self._seen, self._lock = Seen(), threading.Lock()
        try:
            self.base = served(self.log)
            self.host, self.port = self.base.removeprefix("http://").rsplit(":", 1)
            self.port = int(self.port)
            self.socket = wait_for("the socket", self._connected)
            self.sent = 0
            self.feed(self.preloaded)
            wait_for("the first rows", lambda: self.count() >= self.preloaded, limit_s=120, pause_s=0.2)
        except Exception:
            self.process.kill()
            self.process.wait()
            raise
        # Warm: the first queries and ticks allocate what stays.
        for _ in range(20):
            get(f"{self.base}/sql", "select host, count(*) from requests group by host")
        self.rest = own_memory(self.process.pid)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._feeding, self._sampling, self._asking)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _connected(self) -> socket.socket | None:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sender.connect(str(self.directory / "requests.socket"))
        except OSError:
            sender.close()
            return None
        sender.settimeout(30)
        return sender

    def feed(self, count: int) -> None:
        """So many rows, each with a number of its own."""
        for _ in range(count):
            number = self.sent
            row = {
                "timestamp": time.time_ns(), "src_ip": f"192.0.2.{number % 200}", "src_port": 1024 + number % 60000,
                "host": f"h{number % 50}.example", "path": f"/p/{number}", "method": "GET", "status_code": 200 + number % 5,
                "header_User-Agent": "feed", "header_X-Request-Id": f"feed-{number}",
            }
            self.socket.send(json.dumps(row).encode())
            self.sent += 1

    def send(self, line: bytes) -> None:
        """A datagram of somebody else's."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(10)
            sender.connect(str(self.directory / "requests.socket"))
            sender.send(line)

    def count(self) -> int:
        """Rows of the feed in the output."""
        path = self.directory / "data/rows.jsonl"
        return path.read_bytes().count(b'"feed-') if path.exists() else 0

    def _feeding(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self.feed(PER_SECOND // 10)
            except OSError as error:
                self._fault(f"the feed: {error}")
                return

    def _sampling(self) -> None:
        pid = self.process.pid
        while not self._ended.wait(0.05):
            run = own_memory(pid)
            children = sum(own_memory(child, "RssAnon") for child in descendants(pid))
            with self._lock:
                self._seen.run = max(self._seen.run, run)
                self._seen.children = max(self._seen.children, children)

    def _asking(self) -> None:
        """Another client, all the time."""
        while not self._ended.wait(0.2):
            begin = time.monotonic()
            status, _ = self.ask("GET", "/status", source=OTHER, limit_s=30)
            between = time.monotonic()
            code, text = self.ask("POST", "/sql", b"select count(*) as n from requests", source=OTHER, limit_s=60)
            end = time.monotonic()
            if self._ended.is_set() or self.process.poll() is not None:
                return
            with self._lock:
                self._seen.asked += 1
                self._seen.status_s = max(self._seen.status_s, between - begin)
                self._seen.sql_s = max(self._seen.sql_s, end - between)
            for what, said in (("GET /status", status), ("another's query", code)):
                if said != 200:
                    self._fault(f"{what}: {said} {text[:100]!r}")

    def _fault(self, text: str) -> None:
        with self._lock:
            self._seen.faults.append(text)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict | None = None, source: str = "127.0.0.1",
        limit_s: float = 40,
    ) -> tuple[int, bytes]:
        """Status and body; (0, why) if there is no answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=limit_s, source_address=(source, 0))
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, f"{type(error).__name__} {error}".encode()
        finally:
            connection.close()

    def sql(self, text: str, limit_s: float = 40) -> tuple[int, bytes]:
        """What the attacker's statement is answered."""
        return self.ask("POST", "/sql", text.encode("utf-8", "surrogatepass"), limit_s=limit_s)

    def look(self) -> Seen:
        """What was seen since the last look."""
        with self._lock:
            seen, self._seen = self._seen, Seen()
        seen.run = max(seen.run, own_memory(self.process.pid))
        return seen

    def is_alive(self) -> bool:
        """Whether the run goes on."""
        return self.process.poll() is None

    def check(self, seen: Seen) -> None:
        """Raises if something has not held."""
        bounds = self.bounds
        if not self.is_alive():
            raise Broken(f"the run has ended with {self.process.returncode}: {self.log.read_text()[-300:]!r}")
        if "defect" in self.log.read_text():
            raise Broken(f"a panic: {self.log.read_text()[-300:]!r}")
        grown = (seen.run - self.rest * 1.05) / MIB
        if grown > bounds.run_mib:
            raise Broken(f"the run has grown by {grown:.0f} MiB over {self.rest / MIB:.0f}")
        if seen.children / MIB > bounds.children_mib:
            raise Broken(f"query processes have taken {seen.children / MIB:.0f} MiB")
        if seen.faults:
            raise Broken("; ".join(seen.faults[:2]))
        if seen.status_s > bounds.status_s or seen.sql_s > bounds.sql_s:
            raise Broken(f"others have waited {seen.status_s:.1f} s for the status, {seen.sql_s:.1f} s for a query")

    def end(self) -> None:
        """The feed ends, the run is stopped; raises unless all rows have come out."""
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
        try:
            wait_for("all rows", lambda: self.count() >= self.sent or not self.is_alive(), limit_s=30, pause_s=0.1)
        except TimeoutError:
            pass
        if not self.is_alive():
            raise Broken(f"the run has ended with {self.process.returncode}: {self.log.read_text()[-300:]!r}")
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise Broken("SIGTERM does not end the run in 60 s") from None
        path = self.directory / "data/rows.jsonl"
        numbers = re.findall(rb'"feed-(\d+)"', path.read_bytes())
        if code or len(numbers) != self.sent or len(set(numbers)) != self.sent:
            raise Broken(f"exit code {code}; {self.sent} rows sent, {len(numbers)} written, {len(set(numbers))} of them different")


def raise_limit() -> int:
    """As many descriptors as this process may have."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cli(*arguments: object, limit_s: float = 60, environment: dict | None = None, directory: Path | None = None) -> tuple[int, str, int]:
    """Exit code, both outputs and the most memory in bytes of a command; raises Broken if it does not end."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [ENGINE, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory,
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | (environment or {}),
        )
        end, most = time.monotonic() + limit_s, 0
        # Not the most that the kernel counts for a child, which begins with what this process has.
        while process.poll() is None:
            most = max(most, own_memory(process.pid))
            if time.monotonic() > end:
                process.kill()
                process.wait()
                raise Broken(f"not ended after {limit_s:.0f} s")
            time.sleep(0.005)
        out.seek(0)
        text = out.read(1 << 20).decode(errors="replace")
    return process.returncode, text, most

"""Question: ClickHouse is away for an hour at N rows a second. Is memory flat, does the spool grow as computed, how fast does it drain?

Recorded requests come by a named pipe at --rate rows a second of the wall clock for --minutes; their timestamps go by faster, so
that they cover --hours of event time. Meanwhile the server refuses every connection. Then it is there, and the time
is taken until it has confirmed the last row. With the default 4 minutes at 20,000 rows/s these are 4.8 million rows; the
spool of a whole hour at that rate, 72 million rows, is computed from their bytes. --into says what the server is:
`hole` reads and answers (the engine's own speed), `chdb` is ClickHouse's engine behind the tests' front, with all views.

Usage: outage.py ENGINE [--rate 20000] [--minutes 4] [--hours 1] [--into hole|chdb] [--without-views] [--data DIRECTORY]
One JSON object a line: every 10 s resident memory, rows and the spool's bytes; at the end the verdict. Needs CLICKHOUSE_PYTHON.
"""

import argparse
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
EVERY_S = 10
REQUEST = ('{"timestamp":%d,"src_ip":"198.18.%d.%d","src_port":%d,"dst_ip":"192.0.2.10","dst_port":443,"method":"GET",'
           '"scheme":"https","host":"www.example.test","path":"/page/%d","query":"","http_version":"HTTP/2.0",'
           '"has_cookie":true,"header_X-Request-Id":"%d","header_User-Agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) '
           'AppleWebKit/537.36 (KHTML, like Gecko) Chrome/152.0.0.0 Safari/537.36","header_Accept":"*/*",'
           '"header_Accept-Language":"en-US,en;q=0.9","header_Sec-Fetch-Dest":"script","header_Sec-Fetch-Mode":"no-cors",'
           '"status_code":200,"response_size":4711,"duration_ms":0}')
PIPELINE = """\
name: outage
data_dir: data
nodes:
  - {{ id: requests, kind: source.file, path: requests.pipe, format: reqin_log }}
  - {{ id: store, kind: sink.clickhouse, from: {{ http_logs: requests }}, url: "{url}", database: {database} }}
serve:
  listen: 127.0.0.1:0
  tables: {{ rejected: requests.rejected }}
"""


def send(path: Path, rate: int, rows: int, begin_ns: int, step_ns: int, done: "multiprocessing.Event") -> None:
    """Rows at their pace, and one more, which closes the time of the last; a full pipe holds it back."""
    with path.open("wb", buffering=0) as pipe:
        begin, number = time.monotonic(), 0
        while number < rows:
            due = min(rows, int((time.monotonic() - begin) * rate))
            if due <= number:
                time.sleep(0.001)
            block = range(number, min(due, number + 100))
            pipe.write(b"".join(line(begin_ns + at * step_ns, at) for at in block))
            number += len(block)
        pipe.write(line(begin_ns + rows * step_ns + 60 * 10**9, rows))
        done.wait()


def line(timestamp: int, number: int) -> bytes:
    """One request."""
    return (REQUEST % (timestamp, number >> 8 & 255, number & 255, 1024 + number % 60_000, number % 997, number)).encode() + b"\n"


class Engine:
    """The engine under test."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.directory, self.log = directory, directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([program, "run", directory / "outage.yaml"], stdout=log, stderr=log)
        from tests.support import wait_for
        found = wait_for("the engine", lambda: re.search(r"serving on (http://\S+)", self.log.read_text()) or self.process.poll())
        if isinstance(found, int):
            sys.exit(self.log.read_text())
        self.base = found[1]

    def state(self) -> dict[str, float]:
        """Resident memory, rows received and confirmed, the spool's size on disk."""
        from tests.support import get
        text = get(self.base + "/metrics")[1]

        def of(pattern: str) -> int:
            return round(sum(float(value) for name, value in re.findall(r"^ja4_engine_(\S+) (\S+)$", text, re.MULTILINE)
                             if re.search(pattern, name)))
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        spool = sum(file.stat().st_size for file in self.directory.joinpath("data/spool").rglob("*.seg"))
        return {"rss_mb": round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024 / 1e6),
                "cpu_s": (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
                "rows": of(r'node_rows_out_total\{.*node="requests"'), "sent": of(r'event="sent_rows"'), "spool_bytes": spool}


def main() -> None:
    """Measures; prints as it goes."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("engine", type=Path)
    options.add_argument("--rate", type=int, default=20_000, help="rows a second of the wall clock")
    options.add_argument("--minutes", type=float, default=4)
    options.add_argument("--hours", type=float, default=1, help="of event time")
    options.add_argument("--into", choices=("hole", "chdb"), default="hole")
    options.add_argument("--without-views", action="store_true", help="nothing is aggregated from http_logs")
    options.add_argument("--data", type=Path, help="where the spool is, rather than beneath TMPDIR")
    given = options.parse_args()
    os.environ.setdefault("JA4_ENGINE", str(given.engine.absolute()))
    from benches.clickhouse import hole
    from tests.clickhouse.server import Server, ask, schema

    server = Server()
    database = schema(server.url, "outage")
    if given.without_views:
        for (view,) in ask(server.url, f"SELECT name FROM system.tables WHERE database = '{database}' AND name LIKE 'mv_agg%'"):
            ask(server.url, f"DETACH TABLE {database}.{view}")
    url, swallower = server.url, None
    if given.into == "hole":
        listener = socket.create_server(("127.0.0.1", 0))
        swallower = multiprocessing.Process(target=hole, args=(listener, server.url, os.sched_getaffinity(0)), daemon=True)
        swallower.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # Away: nobody listens at the port.
    gate = Gate(url)
    rows = int(given.rate * given.minutes * 60)
    with tempfile.TemporaryDirectory(prefix="ja4-", dir=given.data) as name:
        directory = Path(name)
        os.mkfifo(directory / "requests.pipe")
        (directory / "outage.yaml").write_text(PIPELINE.format(url=gate.url, database=database))
        engine = Engine(given.engine, directory)
        try:
            measure(engine, gate, given, rows)
            if given.into == "chdb":
                kept = ask(server.url, f"SELECT count(), uniqExact(header_x_request_id) FROM {database}.http_logs")[0]
                print(json.dumps({"rows_in_clickhouse": int(kept[0]), "different": int(kept[1]), "sent": rows}), flush=True)
                select(lambda sql: ask(server.url, sql), database)
        finally:
            engine.process.send_signal(signal.SIGTERM)
            try:
                engine.process.wait(60)
            except subprocess.TimeoutExpired:
                engine.process.kill()
            print(json.dumps({"exit": engine.process.returncode, "log": engine.log.read_text()[-600:]}), flush=True)
            gate.close()
            if swallower:
                swallower.terminate()
            server.close()


def select(ask: Callable[[str], list[list[str]]], database: str) -> None:
    """ClickHouse's own speed with these rows: INSERT … SELECT into a table without views, once merges have ended."""
    from tests.support import wait_for
    wait_for("merges", lambda: ask("SELECT count() FROM system.merges") == [["0"]], 300)
    ask(f"CREATE TABLE {database}.copy AS {database}.http_logs")
    columns = ", ".join(row[0] for row in ask(f"SELECT name FROM system.columns WHERE table = 'copy' AND database = '{database}' AND "
                                              "default_kind NOT IN ('ALIAS', 'MATERIALIZED')"))
    for threads in (1, 1, 2, 2):
        ask(f"TRUNCATE TABLE {database}.copy")
        begin = time.monotonic()
        ask(f"INSERT INTO {database}.copy ({columns}) SELECT {columns} FROM {database}.http_logs LIMIT 2000000 "
            f"SETTINGS max_threads = {threads}, max_insert_threads = {threads}, insert_deduplicate = 0")
        took = time.monotonic() - begin
        count = int(ask(f"SELECT count() FROM {database}.copy")[0][0])
        print(json.dumps({"way": "select_without_views", "threads": threads, "rows": count, "wall_s": round(took, 2),
                          "rows_per_s": round(count / took)}), flush=True)


class Gate:
    """A port that refuses until it is opened, and from then on passes bytes on (socat's work, in a process of its own)."""

    def __init__(self, url: str) -> None:
        self.target = url.rsplit(":", 1)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url, self.process = f"http://127.0.0.1:{self.port}", None
        # When the engine tried it for the first time: its pauses grow while nobody is there.
        self.tried = multiprocessing.Value("d", 0)

    def open(self) -> None:
        """From now on the server is there."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.process = multiprocessing.Process(target=self.run, args=(listener,), daemon=True)
        self.process.start()
        listener.close()

    def run(self, listener: socket.socket) -> None:
        """Each connection with two threads, one a direction."""
        import threading
        while True:
            client, _ = listener.accept()
            self.tried.value = self.tried.value or time.monotonic()
            server = socket.create_connection(("127.0.0.1", int(self.target[1])))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(one, other), daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        if self.process:
            self.process.terminate()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Bytes from the one to the other until there are no more."""
    buffer = memoryview(bytearray(1 << 18))
    try:
        while got := source.recv_into(buffer):
            target.sendall(buffer[:got])
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def measure(engine: Engine, gate: Gate, given: argparse.Namespace, rows: int) -> None:
    """Fills, drains, judges."""
    begin = time.monotonic()

    def note(**more: object) -> dict:
        state = {"s": round(time.monotonic() - begin, 1), "load": os.getloadavg()[0], **engine.state()}
        print(json.dumps({**state, **more}), flush=True)
        return state

    done = multiprocessing.Event()
    span = int(given.hours * 3600 * 1e9)
    first = time.time_ns() - span
    sender = multiprocessing.Process(target=send, daemon=True, args=(
        engine.directory / "requests.pipe", given.rate, rows, first, span // rows, done))
    samples = [note(rate=given.rate, rows_to_come=rows, into=given.into)]
    sender.start()
    next_note = begin + EVERY_S
    while engine.state()["rows"] < rows:
        if time.monotonic() > next_note:
            next_note += EVERY_S
            samples.append(note())
        time.sleep(0.1)
    filled = time.monotonic() - begin
    samples.append(note(filled_s=round(filled, 1)))
    gate.open()
    back = time.monotonic()
    next_note, notes = back + EVERY_S, []
    while (state := engine.state())["sent"] < rows:
        if time.monotonic() > next_note:
            next_note += EVERY_S
            notes.append((time.monotonic(), note()["sent"]))
        time.sleep(0.1)
    drained, pause = time.monotonic() - back, gate.tried.value - back
    last = note()
    # From the first note at which rows were confirmed to the last: without the pause and the first inserts, which go one by one, and
    # with inserts on their way at both ends.
    notes = [found for found in notes if found[1] > 0]
    steady = (notes[-1][1] - notes[0][1]) / (notes[-1][0] - notes[0][0]) if len(notes) > 1 else None
    done.set()
    full = [sample for sample in samples if sample["rows"] > rows / 10]
    per_row = samples[-1]["spool_bytes"] / rows
    off = max(abs(sample["spool_bytes"] / (sample["rows"] * per_row) - 1) for sample in full)
    memory = [sample["rss_mb"] for sample in full]
    print(json.dumps({
        "rows": rows, "filled_s": round(filled, 1), "fill_rows_per_s": round(rows / filled), "drained_s": round(drained, 1),
        "drain_rows_per_s": round(rows / drained), "drain_over_fill": round(filled / drained, 2), "pause_s": round(pause, 1),
        "drain_over_fill_after_pause": round(filled / (drained - pause), 2), "steady_rows_per_s": steady and round(steady),
        "drain_cpu_s": round(last["cpu_s"] - samples[-1]["cpu_s"], 1), "rss_mb_while_away": [min(memory), max(memory)],
        "rss_mb_after": last["rss_mb"], "spool_bytes_per_row": round(per_row, 1), "spool_off_linear": round(off, 3),
        "hour_at_20k_gb": round(72e6 * per_row / 1e9, 1), "spool_left_mb": round(last["spool_bytes"] / 1e6, 1)}), flush=True)


if __name__ == "__main__":
    main()

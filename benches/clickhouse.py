"""Question: how many http_logs rows a second does sink.clickhouse send from one core, and how many does the engine under test take?

    benches/clickhouse.py [--rows 600000] [--runs 3] [--profile release] [--skip-build]

Builds benches/examples/clickhouse.rs and runs it three ways, pinned to the first core; what it sends to is pinned to the others:
1. `hole`: a server that reads each body and answers; nothing is parsed. The sender's own speed.
2. `chdb`: ClickHouse's engine behind the front of the tests, with all views of the schema behind http_logs; and without them.
3. `select`: the same engine copies the rows by INSERT … SELECT, one thread, into another such table with its views, and into one
   without: ClickHouse's own speed.

One JSON object a line. Needs CLICKHOUSE_PYTHON (made by `make test-tools`).
"""

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def hole(listener: socket.socket, upstream: str, cores: set[int], keep: Path | None = None) -> None:
    """Answers inserts once their bodies are read; all else, such as the check of the table, the server answers. In the folder
    `keep` each insert is kept as it came, its first line the path."""
    os.sched_setaffinity(0, cores)
    import threading
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=swallow, args=(connection, upstream, keep), daemon=True).start()


def swallow(connection: socket.socket, upstream: str, folder: Path | None) -> None:
    """The requests of one connection."""
    buffer = memoryview(bytearray(1 << 20))
    with connection, connection.makefile("rb", buffering=1 << 18) as reader:
        while line := reader.readline():
            path = line.split()[1].decode()
            headers = {}
            while (header := reader.readline().strip()):
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = bytearray()
            insert = "INSERT" in path
            keep = not insert or folder and "insert_deduplication_token" in path
            if headers.get("transfer-encoding") == "chunked":
                while size := int(reader.readline(), 16):
                    left = size
                    while left:
                        got = reader.readinto(buffer[: min(left, len(buffer))])
                        if keep:
                            body += buffer[:got]
                        left -= got
                    reader.readline()
                reader.readline()
            else:
                body += reader.read(int(headers.get("content-length", 0)))
            if insert and keep:
                folder.joinpath(f"{time.monotonic_ns()}.insert").write_bytes(path.encode() + b"\n" + body)
            if not insert:
                asked = http.client.HTTPConnection(urlsplit(upstream).netloc)
                asked.request("POST", path, bytes(body), {name: value for name, value in headers.items() if name.startswith("x-")})
                answer = asked.getresponse().read()
                asked.close()
            else:
                answer = b""
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


def main() -> None:
    """Builds, measures, prints."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=600_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--profile", default="release", choices=("release", "dev"))
    options.add_argument("--skip-build", action="store_true")
    options.add_argument("--perf", type=Path, help="write a profile of the first way here (perf record)")
    given = options.parse_args()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / ("release" if given.profile == "release" else "debug")
    if not given.skip_build:
        subprocess.run(["cargo", "build", "--locked", "--workspace", "--profile", given.profile, "--bins", "--example", "clickhouse"],
                       cwd=ROOT, check=True)
    os.environ.setdefault("JA4_ENGINE", str(target / "ja4-engine"))
    from tests.clickhouse.server import Server, ask, schema

    first, *others = sorted(os.sched_getaffinity(0))
    others = set(others) or {first}
    server = Server()
    try:
        os.sched_setaffinity(server.process.pid, others)
        for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), others)
        database, copy = schema(server.url, "bench"), schema(server.url, "bench_copy")
        listener = socket.create_server(("127.0.0.1", 0))
        swallower = multiprocessing.Process(target=hole, args=(listener, server.url, others), daemon=True)
        swallower.start()
        ask(server.url, "CREATE DATABASE bench_bare")
        ask(server.url, f"CREATE TABLE bench_bare.http_logs AS {database}.http_logs")
        ways = [("hole", f"http://127.0.0.1:{listener.getsockname()[1]}", database), ("chdb", server.url, database),
                ("chdb_without_views", server.url, "bench_bare")]
        for way, url, into in ways:
            record = ["perf", "record", "-F", "499", "-o", given.perf] if given.perf and way == "hole" else []
            sender = [*record, target / "examples/clickhouse", url, into, str(given.rows), str(given.runs)]
            run = subprocess.run(sender, stdout=subprocess.PIPE, text=True, check=True,
                                 preexec_fn=lambda: os.sched_setaffinity(0, {first}))
            for line in run.stdout.splitlines():
                print(json.dumps({"way": way, "load": os.getloadavg()[0], **json.loads(line)}), flush=True)
        swallower.terminate()
        columns = [row[0] for row in ask(server.url, "SELECT name FROM system.columns WHERE table = 'http_logs' AND "
                                         f"database = '{database}' AND default_kind NOT IN ('ALIAS', 'MATERIALIZED')")]
        names = ", ".join(columns)
        ask(server.url, f"CREATE TABLE {copy}.bare AS {copy}.http_logs")
        for way, table in [("select", "http_logs"), ("select_without_views", "bare")] * given.runs:
            ask(server.url, f"TRUNCATE TABLE {copy}.{table}")
            begin = time.monotonic()
            ask(server.url, f"INSERT INTO {copy}.{table} ({names}) SELECT {names} FROM {database}.http_logs LIMIT {given.rows} "
                "SETTINGS max_threads = 1, max_insert_threads = 1, insert_deduplicate = 0")
            took = time.monotonic() - begin
            rows = int(ask(server.url, f"SELECT count() FROM {copy}.{table}")[0][0])
            print(json.dumps({"way": way, "load": os.getloadavg()[0], "rows": rows, "wall_s": round(took, 3), "rows_per_s": round(rows / took)}), flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()

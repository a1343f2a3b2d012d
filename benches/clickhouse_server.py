"""Question: what does an insert of http_logs cost the engine under test, and what of that is parsing, the table, its views, merges?

    benches/clickhouse_server.py [--rows 270000] [--runs 2] [--target DIRECTORY]

Keeps the inserts that benches/examples/clickhouse.rs sends (which is built already; `make bench` or clickhouse.py does that), once of
some 22,000 rows and once of some 90,000, and sends them to ClickHouse's engine behind the tests' front in several ways:
1. `parse`: into a table that keeps nothing;
2. `table`: into http_logs without views;
3. `views`: with the views of the schema; `--` is without what the sink sends for their sake (optimize_on_insert and
   group_by_two_level_threshold), `wide` with parts of two or more files for each column.

What counts is the CPU time of the server's process: until the last answer, and until merges have ended. One JSON object a line.
Needs CLICKHOUSE_PYTHON.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
VIEWS = ("mv_agg_host_ip_ja4_1h", "mv_agg_header_fingerprint_1h")
TABLES = ("http_logs", "agg_host_ip_ja4_1h", "agg_header_fingerprint_1h")
FOR_VIEWS = ("optimize_on_insert", "group_by_two_level_threshold", "group_by_two_level_threshold_bytes")


def main() -> None:
    """Captures, measures, prints."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=270_000)
    options.add_argument("--runs", type=int, default=2)
    options.add_argument("--target", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release")
    given = options.parse_args()
    os.environ.setdefault("JA4_ENGINE", str(given.target / "ja4-engine"))
    from tests.clickhouse.server import Server, ask, schema

    server = Server()
    try:
        database = schema(server.url, "bench")
        columns = ask(server.url, f"SELECT name, type FROM system.columns WHERE database = '{database}' AND table = 'http_logs' "
                      "AND default_kind NOT IN ('ALIAS', 'MATERIALIZED') ORDER BY position")
        ask(server.url, f"CREATE TABLE {database}.nothing ({', '.join(f'`{name}` {ty}' for name, ty in columns)}) ENGINE = Null")
        with tempfile.TemporaryDirectory(prefix="ja4-") as name:
            inserts = {size: capture(given, server.url, database, Path(name) / size, option)
                       for size, option in (("22k", "max_rows: 100000, max_bytes: 33554432"), ("90k", "max_rows: 100000, max_bytes: 268435456"))}
            bench = Bench(server, database, given.rows)
            for _ in range(given.runs):
                for size, bodies in inserts.items():
                    bench.run("parse", size, bodies, table="nothing")
                    for wide in (True, False):
                        bench.set_wide(wide)
                        parts = " wide" if wide else ""
                        bench.set_views(False)
                        bench.run(f"table{parts}", size, bodies)
                        bench.set_views(True)
                        bench.run(f"views --{parts}", size, bodies, plain=True)
                        bench.run(f"views{parts}", size, bodies)
    finally:
        server.close()


def capture(given: argparse.Namespace, upstream: str, database: str, folder: Path, options: str) -> list[Path]:
    """What the sink sends."""
    from benches.clickhouse import hole
    folder.mkdir()
    listener = socket.create_server(("127.0.0.1", 0))
    keeper = multiprocessing.Process(target=hole, args=(listener, upstream, os.sched_getaffinity(0), folder), daemon=True)
    keeper.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    subprocess.run([given.target / "examples/clickhouse", url, database, str(given.rows), "1", options], check=True, stdout=subprocess.DEVNULL)
    keeper.terminate()
    return sorted(folder.iterdir())


class Bench:
    """A server, and what an insert costs it."""

    def __init__(self, server, database: str, rows: int) -> None:
        from tests.clickhouse.server import ask
        self.server, self.database, self.rows, self.number = server, database, rows, 0
        self.ask = lambda sql: ask(server.url, sql)

    def cpu(self) -> float:
        """Seconds."""
        stat = Path(f"/proc/{self.server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def set_views(self, there: bool) -> None:
        """With or without them."""
        found = {row[0] for row in self.ask(f"SELECT name FROM system.tables WHERE database = '{self.database}' AND name LIKE 'mv_agg%'")}
        for view in VIEWS:
            if there != (view in found):
                self.ask(f"{'ATTACH' if there else 'DETACH'} TABLE {self.database}.{view}")

    def set_wide(self, wide: bool) -> None:
        """From which size on parts have files for each column."""
        for table in TABLES:
            self.ask(f"ALTER TABLE {self.database}.{table} MODIFY SETTING min_bytes_for_wide_part = {10 << 20 if wide else 256 << 20}")

    def post(self, insert: bytes, table: str, plain: bool) -> None:
        """Sends one as it came, under another name."""
        path, _, body = insert.partition(b"\n")
        asked = dict(parse_qsl(urlsplit(path.decode()).query, keep_blank_values=True))
        self.number += 1
        asked["insert_deduplication_token"] = f"bench-{self.number}"
        asked["query"] = re.sub(r"`http_logs`", f"`{table}`", asked["query"], count=1)
        for name in FOR_VIEWS:
            if plain:
                asked.pop(name, None)
            else:
                asked[name] = "0"
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc)
        connection.request("POST", "/?" + urlencode(asked), body)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200:
            sys.exit(text.decode())

    def run(self, way: str, size: str, inserts: list[Path], table: str = "http_logs", plain: bool = False) -> None:
        """Sends all, waits for the merges."""
        for name in TABLES:
            self.ask(f"TRUNCATE TABLE {self.database}.{name}")
        bodies = [insert.read_bytes() for insert in inserts]
        begin, before = time.monotonic(), self.cpu()
        for body in bodies:
            self.post(body, table, plain)
        took, answered = time.monotonic() - begin, self.cpu() - before
        while self.ask("SELECT count() FROM system.merges") != [["0"]]:
            time.sleep(0.1)
        merged = self.cpu() - before
        groups = int(self.ask(f"SELECT count() FROM {self.database}.agg_host_ip_ja4_1h")[0][0])
        print(json.dumps({"way": way, "insert": size, "inserts": len(bodies), "rows": self.rows, "groups": groups, "wall_s": round(took, 2),
                          "cpu_us_per_row": round(answered / self.rows * 1e6, 1), "with_merges": round(merged / self.rows * 1e6, 1),
                          "rows_per_cpu_s": round(self.rows / answered), "load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    main()

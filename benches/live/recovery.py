"""Question: after kill -9, how long until rows are current again, and how fast is the spool replayed?

The pipeline of latency.py (sockets, join, with --features the 66 features in windows of an hour, served) is fed so many
requests as fast as it takes them, one hello to ten requests, and killed when it has taken the last one. What the spool has then is what
`spool ls` says. After the next start, a hello and a request are sent as soon as the sockets take them, and again each time that
their row is not there within a second: current is when such a row is in the answer of POST /sql, hello included.

Usage: recovery.py ENGINE [--rows 500000] [--features]
One JSON object on standard output.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import latency


def feed(directory: Path, rows: int) -> float:
    """Sends so many requests and their hellos; the seconds it took."""
    hellos, requests = (latency.connected(directory / f"{name}.socket") for name in ("hellos", "requests"))
    begin = time.monotonic()
    client, port = "", 0
    for number in range(rows):
        if number % latency.REQUESTS_A_HELLO == 0:
            connection = number // latency.REQUESTS_A_HELLO
            client = latency.address(connection % latency.CLIENTS)
            port = latency.PORTS.start + connection // latency.CLIENTS % len(latency.PORTS)
            hellos.send((latency.HELLO % (time.time_ns(), client, port, connection)).encode())
        requests.send((latency.REQUEST % (time.time_ns(), client, port, f"/page/{number % 997}")).encode())
    return time.monotonic() - begin


def logs(program: Path, directory: Path) -> list[dict]:
    """What `spool ls` says."""
    listed = subprocess.run([program, "spool", "ls", "--json", directory / "data/spool"], capture_output=True, text=True,
                            check=True)
    return [json.loads(line) for line in listed.stdout.splitlines()]


def main() -> None:
    """Feeds, kills, starts, measures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("engine", type=Path)
    options.add_argument("--rows", type=int, default=500_000)
    options.add_argument("--features", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="ja4-") as name:
        directory = Path(name)
        nodes = latency.FEATURES.format(latency.ROOT / "pipelines/features/standard.yaml") if given.features else ""
        tables = ", features: features" if given.features else ""
        (directory / "latency.yaml").write_text(latency.PIPELINE.format(nodes=nodes, tables=tables))
        engine = latency.Engine(given.engine, directory)
        load = os.getloadavg()[0]
        took = feed(directory, given.rows)
        end = time.monotonic() + 120
        while engine.counters()["requests"] < given.rows and time.monotonic() < end:
            time.sleep(0.05)
        before = {**engine.counters(), **engine.usage()}
        engine.process.kill()
        engine.process.wait()
        held = logs(given.engine, directory)
        begin = time.monotonic()
        engine = latency.Engine(given.engine, directory)
        served = time.monotonic() - begin
        try:
            current = wait_until_current(engine, directory) - begin
            after = {**engine.counters(), **engine.usage()}
        finally:
            engine.process.kill()
            engine.process.wait()
        rows, size = sum(log["rows"] for log in held), sum(log["bytes"] for log in held)
        print(json.dumps({
            "date": time.strftime("%FT%TZ", time.gmtime()), "load": load, "features": given.features, "requests": given.rows,
            "fed_s": round(took, 2), "fed_rows_per_s": round(given.rows * 1.1 / took), "spool_rows": rows, "spool_bytes": size,
            "bytes_a_row": round(size / rows), "sockets_after_s": round(served, 2), "current_after_s": round(current, 2),
            "replayed_rows_per_s": round(rows / current), "before": before, "after": after,
            "log": engine.log.read_text()[-300:],
        }))


def wait_until_current(engine: latency.Engine, directory: Path) -> float:
    """When the row of a request that was sent after the start is in an answer."""
    sockets = tuple(latency.connected(directory / f"{name}.socket") for name in ("hellos", "requests"))
    hellos, requests = sockets
    limit = time.monotonic() + 300
    number = 0
    while time.monotonic() < limit:
        number += 1
        client = f"203.0.113.{number % 250 + 1}"
        hellos.send((latency.HELLO % (time.time_ns(), client, 1024 + number, number)).encode())
        requests.send((latency.REQUEST % (time.time_ns(), client, 1024 + number, f"/probe/{number}")).encode())
        again = time.monotonic() + 1
        while time.monotonic() < again:
            if engine.rows("select path from requests where path like '/probe/%' and correlated = 1 limit 1"):
                return time.monotonic()
            time.sleep(0.02)
    sys.exit(f"no row within 300 s after the start:\n{engine.log.read_text()}")


if __name__ == "__main__":
    main()

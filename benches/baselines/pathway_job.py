"""Question: how fast is the join alone in Pathway, a streaming engine, JSON lines on disk to JSON lines on disk?

Each request gets the latest hello of its address and port that is not after it, if that is at most 10 s before. The
engine's job beside it is the same: no features, and `max_age: 10s`, so that a request does not keep its connection alive.
The rows, and those with a hello, must be as many. Pathway reads and writes the same columns, in its static mode, and is
told no bound after which it may forget. Two of its joins are measured: `asof_join`, which is the one that is meant, and
`interval_join`, which gives a request with several hellos within 10 s a row for each; the input has none.

Usage: pathway_job.py INPUT_DIRECTORY OUTPUT_DIRECTORY [--join asof|interval] [--engine ja4-engine] [--runs 3]
With --engine both run in turn, each as a process of its own; without, Pathway once.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from columns import HELLO, REQUEST, column

WINDOW_NS = 10 * 10**9
PIPELINE = """\
name: join
spool: off
nodes:
  - {{ id: hellos, kind: source.file, path: {input}/hellos.jsonl, format: ja4sentinel }}
  - {{ id: requests, kind: source.file, path: {input}/requests.jsonl, format: reqin_log }}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }}, window: 10s, keepalive_ttl: 10s,
      max_age: 10s, tolerance: 0s }}
  - {{ id: file, kind: sink.jsonl, from: correlated, path: {output}/engine.jsonl }}
"""
OWN = ("timestamp", "src_ip", "src_port")


def join(source: Path, target: Path, how: str) -> None:
    """Does the whole job in this process."""
    import pathway as pw

    def read(name: str, keys: dict[str, str]) -> "pw.Table":
        types = {"VARCHAR": str | None, "DOUBLE": float | None, "BOOLEAN": bool | None}
        columns = {
            column(key): pw.column_definition(dtype=int if key in ("timestamp", "src_port") else str if key == "src_ip" else
                                              types.get(kind, int | None), name=column(key),
                                              **({} if key in OWN else {"default_value": None}))
            for key, kind in keys.items()
        }
        paths = {column(key): f"/{key}" for key in keys if column(key) != key}
        return pw.io.jsonlines.read(str(source / name), schema=pw.schema_builder(columns), mode="static",
                                    json_field_paths=paths)

    hellos, requests = read("hellos.jsonl", HELLO), read("requests.jsonl", REQUEST)
    on = requests.src_ip == hellos.src_ip, requests.src_port == hellos.src_port
    if how == "asof":
        joined = requests.asof_join(hellos, requests.timestamp, hellos.timestamp, *on, how=pw.JoinMode.LEFT)
    else:
        joined = requests.interval_join_left(hellos, requests.timestamp, hellos.timestamp,
                                             pw.temporal.interval(-WINDOW_NS, 0), *on)
    hit = hellos.timestamp.is_not_none() & (requests.timestamp - pw.coalesce(hellos.timestamp, 0) <= WINDOW_NS)
    result = joined.select(
        **{column(key): requests[column(key)] for key in REQUEST},
        **{f"hello_{column(key)}" if key == "timestamp" else column(key): pw.if_else(hit, hellos[column(key)], None)
           for key in HELLO if key not in ("src_ip", "src_port")},
        correlated=pw.cast(int, hit),
    )
    pw.io.jsonlines.write(result, str(target / "pathway.jsonl"))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)  # its log goes to standard output


def measured(command: list, environment: dict[str, str]) -> tuple[float, float, float]:
    """Wall and CPU seconds and peak resident MB of a program."""
    begin = time.monotonic()
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} ended with {status}")
    return time.monotonic() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def count(file: Path) -> tuple[int, int]:
    """Rows of a result, and those that have a hello."""
    rows = [json.loads(line)["correlated"] for line in file.open()]
    return len(rows), sum(map(int, rows))


def main() -> None:
    """One run, or runs in turn beside the engine's."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("input", type=Path)
    options.add_argument("output", type=Path)
    options.add_argument("--engine", type=Path)
    options.add_argument("--join", choices=("asof", "interval"), default="asof")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--joins", nargs="*", default=["asof", "interval"], help="what runs beside the engine")
    options.add_argument("--workers", type=int, default=2)
    given = options.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    if not given.engine:
        join(given.input, given.output, given.join)
        return
    source, target = given.input.resolve(), given.output.resolve()
    pipeline = target / "join.yaml"
    pipeline.write_text(PIPELINE.format(input=source, output=target))
    # PATHWAY_THREADS is what `pathway spawn` sets.
    jobs = {
        "engine": [given.engine, "run", "--quiet", "--workers", str(given.workers), pipeline],
        **{how: [sys.executable, __file__, source, target / how, "--join", how] for how in given.joins},
    }
    events = sum(sum(1 for _ in (source / name).open("rb")) for name in ("hellos.jsonl", "requests.jsonl"))
    for run in range(given.runs):
        for name, command in jobs.items():
            load = os.getloadavg()[0]
            wall, cpu, rss = measured(command, {"PATHWAY_THREADS": str(given.workers)})
            rows, correlated = count(target / "engine.jsonl" if name == "engine" else target / name / "pathway.jsonl")
            print(f"{name:8} run {run + 1}: {wall:6.2f} s wall, {cpu:6.2f} s CPU, {events / wall:8,.0f} events/s, "
                  f"{rss:6.0f} MB, load {load:.1f}; {rows} rows, {correlated} correlated", flush=True)


if __name__ == "__main__":
    main()

"""Question: is memory flat over 20 million events, with the spool, the join and the 66 standard features?

The input of `make bench` goes through two named pipes, which are live sources, again and again, each time some hours later and the last of them before now: clients
come back, windows close, state must not grow. Features go to /dev/null. As fast as the engine takes it.

Usage: flat.py ENGINE [--events 20000000] [--input target/bench/input-1.0]
One JSON object a line on standard output: each second million events given, resident memory, bytes of the spool.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STREAMS = ("hellos", "requests")
KEY = b'"timestamp":'
DIGITS = 19  # of ns since the epoch
ROUND_NS = 5 * 3600 * 10**9  # more than the input spans, whole hours


def feed(source: Path, pipe: Path, rounds: int, given: "multiprocessing.sharedctypes.Synchronized") -> None:
    """Writes the lines so many times, each time moved on."""
    with pipe.open("wb", buffering=1 << 20) as out:
        for nth in range(rounds):
            with source.open("rb") as lines:
                for count, line in enumerate(lines, 1):
                    at = line.index(KEY) + len(KEY)
                    out.write(b"%s%d%s" % (line[:at], int(line[at : at + DIGITS]) + (nth - rounds) * ROUND_NS, line[at + DIGITS :]))
                    if count % 1000 == 0:
                        given.value += 1000
                given.value += count % 1000


def resident_mb(process: int) -> float:
    """VmRSS."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1000


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--input", type=Path, default=ROOT / "target/bench/input-1.0")
    arguments = parser.parse_args()
    files = [arguments.input / f"{stream}.jsonl" for stream in STREAMS]
    events = sum(sum(1 for _ in path.open("rb")) for path in files)
    rounds = -(-arguments.events // events)
    with tempfile.TemporaryDirectory(prefix="ja4-flat-") as folder:
        here = Path(folder)
        pipes = [here / stream for stream in STREAMS]
        for pipe in pipes:
            os.mkfifo(pipe)
        sources = "".join(
            f"  - {{ id: {stream}, kind: source.file, path: {pipe}, format: {form} }}\n"
            for stream, pipe, form in zip(STREAMS, pipes, ("ja4sentinel", "reqin_log"), strict=True))
        (here / "flat.yaml").write_text(
            f"name: flat\ndata_dir: data\nnodes:\n{sources}"
            "  - { id: correlated, kind: correlate, from: { hello: hellos, request: requests } }\n"
            "  - { id: features, kind: aggregate, from: correlated, by: [host, src_ip, ja4], window: 1h,\n"
            f"      features: {ROOT / 'pipelines/features/standard.yaml'} }}\n"
            "  - { id: features_file, kind: sink.jsonl, from: features, path: /dev/null }\n")
        given = [multiprocessing.Value("Q", 0) for _ in STREAMS]
        feeders = [multiprocessing.Process(target=feed, args=(path, pipe, rounds, count), daemon=True)
                   for path, pipe, count in zip(files, pipes, given, strict=True)]
        for feeder in feeders:
            feeder.start()
        begin = time.monotonic()
        engine = subprocess.Popen([arguments.engine, "run", here / "flat.yaml"], stderr=subprocess.PIPE, text=True)
        while engine.poll() is None:
            time.sleep(1)
            try:
                memory = resident_mb(engine.pid)
            except (OSError, KeyError):
                break
            spool = sum(path.stat().st_size for path in here.glob("data/spool/*/*.seg") if path.exists())
            print(json.dumps({"s": round(time.monotonic() - begin, 1), "events": sum(count.value for count in given),
                              "rss_mb": round(memory), "spool_mb": round(spool / 1e6)}), flush=True)
        _, summary = engine.communicate()
        print(json.dumps({"s": round(time.monotonic() - begin, 1), "exit": engine.returncode, "events": events * rounds,
                          "load": os.getloadavg()[0], "summary": summary.splitlines()}))


if __name__ == "__main__":
    main()

"""Question: does the run feel it when eight clients send the worst statements they know?

The pipeline is that of latency.py: 20,000 requests a second through two sockets, the join, a served table. Probes go through the
same sockets; their joined rows leave by a filter and a socket of their own, so that a probe's delay has no query in it. Periods
with and without hostile clients follow each other, in one run of the engine: each pair of periods has the same load otherwise.

Usage: hostile.py ENGINE [--rate 20000] [--period 15] [--pairs 6] [--clients 8]
One JSON object a line: each period, at the end the medians and their ratio, and the memory of the run.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import re
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

from latency import HELLO, REQUEST, Engine, connected, quantile, send

PIPELINE = """\
name: hostile
data_dir: data
nodes:
  - {{ id: hellos, kind: source.unix_socket, path: hellos.socket, format: ja4sentinel }}
  - {{ id: requests, kind: source.unix_socket, path: requests.socket, format: reqin_log }}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }} }}
  - {{ id: probes, kind: filter, from: correlated, where: "starts_with(path, '/probe/')" }}
  - {{ id: out, kind: sink.unix_socket, from: probes, path: {directory}/probes.socket }}
serve: {{ listen: 127.0.0.1:0, tables: {{ requests: correlated }} }}
"""

STATEMENTS = [
    "select count(*) from requests a, requests b, requests c where a.path < concat(b.path, c.path)",
    "select path, max(seq) m from requests group by path order by m desc limit 10000000",
    "select a.path, row_number() over () n, sum(a.seq) over (order by b.time) s from requests a, requests b order by 2 desc",
    "select count(distinct a.seq * b.seq) from requests a, requests b",
    "select * from requests order by header_user_agent, path, time desc",
    "select true as \"" + "x" * 60_000 + "\" from requests",
    "select " + "+".join(["1"] * 900),
    "select count(*) from requests where regexp_like(path, '(a*)*b') or regexp_like(path, '(x+x+)+y')",
]


def attack(port: int, number: int, on: "multiprocessing.Event", answers: "multiprocessing.Array") -> None:
    """One hostile client, from an address of its own."""
    nth = number
    while True:
        on.wait()
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=(f"127.0.1.{number + 1}", 0))
            client.request("POST", "/sql", STATEMENTS[nth % len(STATEMENTS)])
            answer = client.getresponse()
            answer.read()
            answers[min(answer.status // 100, 5)] += 1
            client.close()
        except OSError:
            answers[0] += 1
        nth += 1


class Probes:
    """Sends probes and notes when their rows come."""

    def __init__(self, directory: Path) -> None:
        self.sockets = connected(directory / "hellos.socket"), connected(directory / "requests.socket")
        self.sent: dict[int, float] = {}
        self.delays: list[float] = []
        self.number = 0

    def receive(self, listening: socket.socket) -> None:
        """Until the program ends."""
        while True:
            row = listening.recv(1 << 20).decode()
            number = int(re.search(r'"path":"/probe/(\d+)"', row)[1])
            if '"correlated":1' in row and (sent := self.sent.pop(number, None)):
                self.delays.append(time.monotonic() - sent)

    def period(self, seconds: float) -> list[float]:
        """The delays of the probes that were sent in so many seconds."""
        self.delays = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.number += 1
            client = f"203.0.113.{self.number % 250 + 1}"
            self.sent[self.number] = time.monotonic()
            self.sockets[0].send((HELLO % (time.time_ns(), client, 1024 + self.number, self.number)).encode())
            self.sockets[1].send((REQUEST % (time.time_ns(), client, 1024 + self.number, f"/probe/{self.number}")).encode())
            time.sleep(0.05)
        end = time.monotonic() + 30
        while self.sent and time.monotonic() < end:
            time.sleep(0.05)
        return self.delays


def main() -> None:
    """Measures; prints as it goes."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("engine", type=Path)
    options.add_argument("--rate", type=int, default=20_000, help="requests a second")
    options.add_argument("--period", type=float, default=15, help="seconds")
    options.add_argument("--pairs", type=int, default=6)
    options.add_argument("--clients", type=int, default=8)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="ja4-") as name:
        directory = Path(name)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.bind(str(directory / "probes.socket"))
        (directory / "latency.yaml").write_text(PIPELINE.format(directory=directory))
        engine = Engine(given.engine, directory)
        try:
            measure(engine, directory, listening, given)
        finally:
            engine.process.send_signal(signal.SIGTERM)
            engine.process.wait(60)


def measure(engine: Engine, directory: Path, listening: socket.socket, given: argparse.Namespace) -> None:
    """Periods in turn."""
    counted, answers, on = multiprocessing.Array("q", 4), multiprocessing.Array("q", 6), multiprocessing.Event()
    seconds = (given.pairs * 2 + 2) * (given.period + 2) + 10
    port = int(engine.base.rsplit(":", 1)[1])
    others = [multiprocessing.Process(target=send, args=(directory, given.rate, seconds, counted.get_obj()))]
    others += [multiprocessing.Process(target=attack, args=(port, n, on, answers)) for n in range(given.clients)]
    for other in others:
        other.daemon = True
        other.start()
    probes = Probes(directory)
    threading.Thread(target=probes.receive, args=(listening,), daemon=True).start()
    time.sleep(5)  # until the pace is steady
    pairs = []
    for pair in range(given.pairs):
        both = {}
        for hostile in ((False, True) if pair % 2 == 0 else (True, False)):
            on.set() if hostile else on.clear()
            time.sleep(2)
            delays = probes.period(given.period)
            both[hostile] = (quantile(delays, 0.5), quantile(delays, 0.99))
            print(json.dumps({"hostile": hostile, "probes": len(delays), "p50_s": round(both[hostile][0], 3),
                              "p99_s": round(both[hostile][1], 3), **engine.usage(), "load": os.getloadavg()[0]}), flush=True)
        pairs.append(both)
    on.clear()
    median = lambda values: sorted(values)[len(values) // 2]
    ratio = lambda at: round(median([pair[True][at] / pair[False][at] for pair in pairs]), 3)
    counters = {name: engine.counters()[name] for name in ("late", "rejected", "evicted", "orphans")}
    print(json.dumps({"ratio_p50": ratio(0), "ratio_p99": ratio(1), "sent": counted[0], "skipped": counted[2], **counters,
                      "answers": dict(zip(["none", "1xx", "2xx", "3xx", "4xx", "5xx"], answers))}), flush=True)


if __name__ == "__main__":
    main()

"""Question: at N requests a second, how long after a datagram was sent is its row in the answer of POST /sql? Is memory flat?

The pipeline is pipelines/prod.yaml without capture: hellos and requests by datagram sockets, the join, and with
--features the 66 standard features, all served; every other option has its default, the spool too. A process of its own
sends requests at their pace, and before every tenth the hello of a new connection, which this and the next nine use.
Meanwhile probes, a hello and a request whose path is unique, go through the same sockets, and /sql is asked for
the path until it answers with the row and its hello: that time includes the web service and the queries themselves, one at a time.

Usage: latency.py ENGINE [--rate 20000] [--seconds 60] [--features] [--sink]
One JSON object a line on standard output: every 30 s the resident memory and the counters, at the end the delays.
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
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUESTS_A_HELLO = 10
CLIENTS = 20_000
PORTS = range(20_000, 60_000)
PAUSE_S = 0.01  # between two questions for a probe
EVERY_S = 30

HELLO = ('{"timestamp":%d,"sensor_id":"bench","src_ip":"%s","src_port":%d,"dst_ip":"192.0.2.10","dst_port":443,'
         '"conn_id":"%x","ip_meta_ttl":57,"ip_meta_total_length":1852,"ip_meta_id":4711,"ip_meta_df":true,'
         '"tcp_meta_window_size":64240,"tcp_meta_mss":1460,"tcp_meta_window_scale":7,"tcp_meta_options":'
         '"MSS,SACK,TS,NOP,WS","syn_to_clienthello_ms":12.5,"tls_version":"1.3","tls_sni":"www.example.test",'
         '"tls_alpn":"h2","ja4":"t13d1516h2_8daaf6152771_d8a2da3f94cd","ja3":"771,4865-4866-4867,0-5-10,29-23-24,0",'
         '"ja3_hash":"cd08e31494f9531f560d64c695473da9"}')
REQUEST = ('{"timestamp":%d,"src_ip":"%s","src_port":%d,"dst_ip":"192.0.2.10","dst_port":443,"method":"GET",'
           '"scheme":"https","host":"www.example.test","path":"%s","query":"","http_version":"HTTP/2.0",'
           '"has_cookie":true,"header_User-Agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 '
           '(KHTML, like Gecko) Chrome/152.0.0.0 Safari/537.36","header_Accept":"*/*","header_Accept-Language":'
           '"en-US,en;q=0.9","header_Sec-Fetch-Dest":"script","header_Sec-Fetch-Mode":"no-cors","status_code":200,'
           '"response_size":4711,"duration_ms":0}')

PIPELINE = """\
name: latency
data_dir: data
nodes:
  - {{ id: hellos, kind: source.unix_socket, path: hellos.socket, format: ja4sentinel }}
  - {{ id: requests, kind: source.unix_socket, path: requests.socket, format: reqin_log }}
  - {{ id: correlated, kind: correlate, from: {{ hello: hellos, request: requests }} }}
{nodes}
serve:
  listen: 127.0.0.1:0
  tables: {{ requests: correlated, late: correlated.late{tables} }}
"""
FEATURES = "  - {{ id: features, kind: aggregate, from: correlated, by: [host, src_ip, ja4], window: 1h, features: {} }}\n"
SINK = "  - { id: store, kind: sink.parquet, from: { requests: correlated } }\n"


def address(number: int) -> str:
    """Of a client, in 198.18.0.0/15."""
    return f"198.18.{number >> 8 & 255}.{number & 255}" if number < 65_536 else f"198.19.{number >> 8 & 255}.{number & 255}"


def connected(path: Path) -> socket.socket:
    """A datagram socket whose other end is there; it waits while the kernel's queue is full."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened.connect(str(path))
    return opened


def send(directory: Path, rate: int, seconds: float, counted: "multiprocessing.Array") -> None:
    """Requests at their pace, a hello before every tenth; a row that is not sent when its second has gone is not sent.

    `counted`: requests and hellos sent, requests that were skipped, and the most that the sender was behind, in ns.
    """
    hellos, requests = connected(directory / "hellos.socket"), connected(directory / "requests.socket")
    begin, number, port = time.monotonic_ns(), 0, PORTS.start
    end = begin + int(seconds * 1e9)
    now, client = begin, "198.18.0.0"
    while now < end:
        due = (now - begin) * rate // 10**9
        if due - number > rate:
            counted[2] += due - number - rate
            number = due - rate
        if due <= number:
            time.sleep(0.0005)
        else:
            counted[3] = max(counted[3], (due - number) * 10**9 // rate)
        while number < due:
            if number % REQUESTS_A_HELLO == 0:
                connection = number // REQUESTS_A_HELLO
                client = address(connection % CLIENTS)
                port = PORTS.start + connection // CLIENTS % len(PORTS)
                hellos.send((HELLO % (time.time_ns(), client, port, connection)).encode())
                counted[1] += 1
            requests.send((REQUEST % (time.time_ns(), client, port, f"/page/{number % 997}")).encode())
            counted[0] += 1
            number += 1
        now = time.monotonic_ns()


class Engine:
    """The engine under test."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([program, "run", directory / "latency.yaml"], stdout=log, stderr=log)
        end = time.monotonic() + 60
        while not (found := re.search(r"serving on (http://\S+)", self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                sys.exit(f"the engine does not serve:\n{self.log.read_text()}")
            time.sleep(0.02)
        self.base = found[1]
        while not (directory / "hellos.socket").exists() or not (directory / "requests.socket").exists():
            time.sleep(0.02)
        time.sleep(0.5)

    def get(self, path: str, body: str | None = None) -> str:
        """The text of an answer."""
        request = urllib.request.Request(self.base + path, data=body.encode() if body else None)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    def rows(self, query: str) -> list[dict]:
        """The rows of POST /sql."""
        return json.loads(self.get("/sql", query))["rows"]

    def counters(self) -> dict[str, float]:
        """Of /metrics: what came in and out, what was late or lost, and the spool."""
        series = dict(re.findall(r"^ja4_engine_(\S+) (\S+)$", self.get("/metrics"), re.MULTILINE))
        def of(name: str, node: str) -> float:
            return sum(float(v) for k, v in series.items() if k.startswith(name) and f'node="{node}"' in k)
        return {
            "requests": of("node_rows_out_total", "requests"), "hellos": of("node_rows_out_total", "hellos"),
            "correlated_rows": of("node_rows_out_total", "correlated"),
            "orphans": sum(float(v) for k, v in series.items() if 'event="orphan_requests"' in k),
            "late": sum(float(v) for k, v in series.items() if k.startswith("node_late_total")),
            "rejected": sum(float(v) for k, v in series.items() if k.startswith("node_rejected_total")),
            "evicted": sum(float(v) for k, v in series.items() if k.startswith("node_evicted_total")),
            "held": of("node_state_rows", "correlated"), "groups": of("node_state_rows", "features"),
            "spool_bytes": sum(float(v) for k, v in series.items() if k.startswith("spool_bytes_total")),
            "spool_rows": sum(float(v) for k, v in series.items() if k.startswith("spool_rows_total")),
        }

    def usage(self) -> dict[str, float]:
        """Resident memory in MB and CPU seconds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return {"rss_mb": round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024 / 1e6),
                "cpu_s": round((int(stat[11]) + int(stat[12])) / ticks, 1)}


def probe(engine: Engine, sockets: tuple[socket.socket, socket.socket], number: int) -> tuple[float, float, bool]:
    """Seconds until the row is in an answer; those that sending took of it; whether the row has its hello."""
    path, client = f"/probe/{number}", f"203.0.113.{number % 250 + 1}"
    hellos, requests = sockets
    begin = time.monotonic()
    hellos.send((HELLO % (time.time_ns(), client, 1024 + number, number)).encode())
    requests.send((REQUEST % (time.time_ns(), client, 1024 + number, path)).encode())
    sent = time.monotonic()
    while time.monotonic() < begin + 30:
        rows = engine.rows(f"select correlated from requests where path = '{path}'")
        if rows:
            return time.monotonic() - begin, sent - begin, rows[0]["correlated"] == 1
        time.sleep(PAUSE_S)
    return float("inf"), sent - begin, False


def quantile(values: list[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    """Measures; prints as it goes."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("engine", type=Path)
    options.add_argument("--rate", type=int, default=20_000, help="requests a second")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--features", action="store_true")
    options.add_argument("--sink", action="store_true", help="with sink.parquet, as in production")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="ja4-") as name:
        directory = Path(name)
        nodes = FEATURES.format(ROOT / "pipelines/features/standard.yaml") if given.features else ""
        nodes += SINK if given.sink else ""
        (directory / "latency.yaml").write_text(
            PIPELINE.format(nodes=nodes, tables=", features: features" if given.features else ""))
        engine = Engine(given.engine, directory)
        try:
            measure(engine, directory, given)
        finally:
            engine.process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            try:
                engine.process.wait(60)
            except subprocess.TimeoutExpired:
                engine.process.kill()
        print(json.dumps({"stopped_after_s": round(time.monotonic() - begin, 2), "exit": engine.process.returncode,
                          "log": engine.log.read_text()[-500:]}), flush=True)


def measure(engine: Engine, directory: Path, given: argparse.Namespace) -> None:
    """Sends and probes until the time is over."""
    def note(**more: object) -> None:
        elapsed = time.monotonic() - begin
        print(json.dumps({"s": round(elapsed, 1), "load": os.getloadavg()[0], **engine.usage(), **engine.counters(),
                          "sent": counted[0], "skipped": counted[2], **more}), flush=True)

    counted = multiprocessing.Array("q", 4)
    sender = multiprocessing.Process(target=send, args=(directory, given.rate, given.seconds, counted.get_obj()))
    begin = time.monotonic()
    note(rate=given.rate, features=given.features, sink=given.sink, date=time.strftime("%FT%TZ", time.gmtime()))
    sender.start()
    sockets = connected(directory / "hellos.socket"), connected(directory / "requests.socket")
    time.sleep(3)  # until the pace is steady
    delays, sending, orphans, next_note = [], [], 0, begin + EVERY_S
    pause = min(0.5, given.seconds / 800)
    while time.monotonic() < begin + given.seconds - 1:
        delay, took, matched = probe(engine, sockets, len(delays))
        delays.append(delay)
        sending.append(took)
        orphans += not matched
        if time.monotonic() > next_note:
            note()
            next_note += EVERY_S
        time.sleep(pause)
    sender.join()
    note()
    time.sleep(3)
    note(probes=len(delays), without_hello=orphans, sender_behind_most_s=round(counted[3] / 1e9, 3),
         hellos_sent=counted[1], p50_s=round(quantile(delays, 0.5), 3), p99_s=round(quantile(delays, 0.99), 3),
         most_s=round(max(delays), 3), probe_send_p99_s=round(quantile(sending, 0.99), 4),
         delays=[round(delay, 3) for delay in delays])


if __name__ == "__main__":
    main()

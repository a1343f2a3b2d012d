#!/usr/bin/env python3
"""What the module costs: throughput and latency of Debian's Apache with it against without, in paired runs on loopback.

In each round every state has one run, in another order; a state's figure is the median over rounds of its ratio to the run without
the module in the same round. Needs h2load (Debian: nghttp2-client) and the built module (`make apache`).

Usage: apache/load.py [--rounds 15] [--requests 20000] [--clients 8] [--mpm event]
"""

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.apache.httpd import HOST, Httpd, own_network  # noqa: E402
from tests.support import wait_for  # noqa: E402

# Reads and throws away, as fast as it can.
RECEIVER = """
import socket, sys
one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
one.bind(sys.argv[1])
__import__("os").chmod(sys.argv[1], 0o666)
buffer = bytearray(1 << 18)
while True:
    one.recv_into(buffer)
"""
# No process ends during a run, and there are threads for all clients: the MPM event closes connections when it has none.
FIXED = {"prefork": "MaxSpareServers 400\n"}
THREADS = 64
STATES = ("without", "received", "stopped", "absent")


class Load(unittest.TestCase):
    """Holds what has to be ended."""

    options: argparse.Namespace

    def runTest(self) -> None:
        own_network()
        Path("/proc/sys/net/unix/max_dgram_qlen").write_text("512")
        servers = {}
        for state in STATES:
            directory = tempfile.TemporaryDirectory(prefix="ja4-")
            self.addCleanup(directory.cleanup)
            path = Path(directory.name)
            servers[state] = Httpd(self, path, self.options.mpm, without=state == "without", threads=THREADS,
                                   directives=FIXED.get(self.options.mpm, "MaxSpareThreads 400\n")).start()
            if state in ("received", "stopped"):
                receiver = subprocess.Popen([sys.executable, "-c", RECEIVER, path / "http.socket"])
                self.addCleanup(receiver.wait)
                self.addCleanup(receiver.kill)
                wait_for("the receiver", (path / "http.socket").exists)
                if state == "stopped":
                    receiver.send_signal(signal.SIGSTOP)
        versions = ("--h1", "--npn-list=h2") if self.options.mpm != "prefork" else ("--h1",)
        for version in versions:
            for state in STATES:
                self.measure(servers[state], version)
            self.compare(servers, version)
        for state in STATES[1:]:
            print(f"{state}: {servers[state].counters()}")

    def processor(self, httpd: Httpd) -> float:
        """Seconds of processor time of the server's children, those that have ended too."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == httpd.process.pid:
                ticks += int(fields[11]) + int(fields[12])
            elif path.parent.name == str(httpd.process.pid):
                ticks += int(fields[13]) + int(fields[14])
        return ticks / os.sysconf("SC_CLK_TCK")

    def compare(self, servers: dict[str, Httpd], version: str) -> None:
        """All rounds of a version of HTTP."""
        rng, rounds = random.Random(1), []
        for _ in range(self.options.rounds):
            rounds.append({state: self.measure(servers[state], version) for state in rng.sample(STATES, len(STATES))})
        for state in STATES:
            rate = statistics.median(one[state][0] for one in rounds)
            ratios = [statistics.median(one[state][at] / one["without"][at] for one in rounds) for at in range(4)]
            cost = statistics.median(one[state][3] - one["without"][3] for one in rounds)
            quartiles = statistics.quantiles([one[state][0] / one["without"][0] for one in rounds], n=4)
            print(f"{version.strip('-')[:8]:8} {state:8} {rate:7.0f} requests/s; of without: throughput {ratios[0]:.3f} "
                  f"({quartiles[0]:.3f} to {quartiles[2]:.3f}), median {ratios[1]:.3f}, p99 {ratios[2]:.3f}, "
                  f"processor {ratios[3]:.3f} (+{1e6 * cost:.1f} µs a request)", flush=True)

    def measure(self, httpd: Httpd, version: str) -> tuple[float, float, float, float]:
        """Requests a second, median and 99th percentile in µs of one run, and the server's processor time of a request in s."""
        log = httpd.directory / "load.log"
        log.unlink(missing_ok=True)
        before = self.processor(httpd)
        done = subprocess.run(
            ["h2load", version, "-n", str(self.options.requests), "-c", str(self.options.clients), "-m", "4",
             f"--log-file={log}", f"--connect-to=127.0.0.1:{httpd.https}", f"https://{HOST}:{httpd.https}/index.html"], capture_output=True, text=True, check=True)
        self.assertIn(f"{self.options.requests} succeeded, 0 failed", done.stdout)
        took = sorted(int(line.split()[2]) for line in log.read_text().splitlines())
        rate = float(re.search(r"([\d.]+) req/s", done.stdout)[1])
        used = (self.processor(httpd) - before) / self.options.requests
        return rate, took[len(took) // 2], took[len(took) * 99 // 100], used


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--mpm", default="event")
    Load.options = parser.parse_args()
    return 0 if unittest.TextTestRunner(verbosity=0).run(Load()).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())

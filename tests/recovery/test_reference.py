"""A file of networks that changes while rows come: each row has the label of exactly one version, also when it is made again."""

import json
import socket
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tests.support import OK, Case, served, start, wait_for, get

PIPELINE = """\
name: reference
data_dir: data
nodes:
  - { id: rows, kind: source.unix_socket, path: rows.socket, columns: { time: time, src_ip: text, n: text }, lateness: 200ms }
  - { id: labelled, kind: enrich.asn, from: rows, file: networks.csv }
  - { id: file, kind: sink.jsonl, from: labelled, path: data/rows.jsonl }
serve: { listen: 127.0.0.1:0, tables: { rows: labelled } }
"""
HEADER = "network,asn,country_code,name,org,domain\n"
SWAPS = 12


class References(Case):
    """One engine, one socket, one file."""

    def setUp(self) -> None:
        super().setUp()
        self.write("p.yaml", PIPELINE)
        self.sent = 0
        self.put(1)

    def put(self, asn: object) -> None:
        """Another file in place of the one that is there, in one step."""
        new = self.write("networks.new", f"{HEADER}198.51.100.0/24,{asn},FR,A,,\n")
        new.rename(self.directory / "networks.csv")

    def begin(self) -> None:
        """Starts the engine."""
        self.log = self.directory / "log"
        self.process = start("run", self.directory / "p.yaml", log=self.log)
        self.addCleanup(self.process.kill)
        self.base = served(self.log)
        wait_for("the socket", self.listens)

    def listens(self) -> bool:
        """Whether the socket takes rows. A killed engine leaves its socket behind."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            return sender.connect_ex(str(self.directory / "rows.socket")) == 0

    def send(self, count: int) -> None:
        """So many rows, now."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self.directory / "rows.socket"))
            for _ in range(count):
                row = {"time": time.time_ns(), "src_ip": "198.51.100.7", "n": str(self.sent)}
                sender.send(json.dumps(row).encode())
                self.sent += 1

    def status(self) -> dict:
        """What the engine says of the node."""
        nodes = json.loads(get(f"{self.base}/status")[1])["nodes"]
        return next(node for node in nodes if node["id"] == "labelled")

    def await_label(self, asn: int) -> None:
        """Sends rows until one has this label: a version takes effect at the next tick, which rows of now reach when `lateness` is over."""
        def is_there() -> bool:
            self.send(20)
            return f'"src_asn":{asn},' in (self.directory / "data/rows.jsonl").read_text()

        wait_for(f"a row with the label {asn}", is_there, pause_s=0.02)

    def rows(self, path: Path) -> list[dict]:
        """The rows of a file, as they were sent."""
        return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: int(row["n"]))

    def test_each_row_has_one_version_and_keeps_it(self):
        """Swaps under load, some of them broken; then kill -9, another file while stopped, and a replay."""
        self.begin()
        versions = 1
        for swap in range(2, SWAPS + 2):
            broken = swap % 4 == 0
            self.put("x" if broken else swap)
            versions += not broken
            refused = swap // 4

            def is_seen(versions: int = versions, refused: int = refused) -> bool:
                self.send(20)
                counters = self.status()["events"]
                return counters["reference_versions"] == versions and counters.get("reference_refused", 0) == refused

            wait_for("the file to be read", is_seen, pause_s=0.02)
            self.assertEqual(bool(self.status()["troubles"]), broken)
            if not broken:
                self.await_label(swap)
        self.process.kill()
        self.process.wait()
        self.put(99)
        self.begin()
        self.await_label(99)
        path = self.directory / "data/rows.jsonl"
        wait_for("the last row", lambda: f'"n":"{self.sent - 1}"' in path.read_text())
        self.stop()

        rows = self.rows(path)
        lost = self.sent - len(rows)
        self.assertLess(lost, 200, "only what the kill took")
        self.assertEqual(max(Counter(row["n"] for row in rows).values()), 1)
        labels = [row["src_asn"] for row in sorted(rows, key=lambda row: (row["time"], int(row["n"])))]
        self.assertTrue(all(a <= b for a, b in pairwise(labels)), "a row got an older version than one before it")
        self.assertEqual(set(labels), {version for version in range(1, SWAPS + 2) if version % 4 or version == 1} | {99})

        run = self.engine("replay", self.directory / "p.yaml", "--data-dir", self.directory / "again")
        self.assert_exit(run, OK)
        self.assert_same_rows([(row["n"], row["src_asn"]) for row in self.rows(self.directory / "again/rows.jsonl")],
                              [(row["n"], row["src_asn"]) for row in rows])

    def stop(self) -> None:
        """An orderly stop."""
        self.process.terminate()
        self.assertEqual(self.process.wait(60), OK)

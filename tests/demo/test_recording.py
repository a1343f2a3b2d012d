"""What the demo pipeline makes of the recording: every hello, every request, every feature, the right detections."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path

from tests.support import OK, PIPELINES, RECORDING, Case, demo, lines, run_demo, running, served, sql, wait_for

OUTPUTS = ("hellos.jsonl", "correlated.jsonl", "features.jsonl", "detections.jsonl", "rejected.jsonl")


class Recording(Case):
    """One run of pipelines/demo.yaml, looked at from several sides."""

    @unittest.skipUnless(shutil.which("tshark"), "tshark is not installed")
    def test_every_hello_that_tshark_finds(self):
        """Counted by client address; a hello after a HelloRetryRequest belongs to the same connection."""
        found = subprocess.run(
            ["tshark", "-n", "-r", RECORDING / "capture.pcap", "-Y", "tls.handshake.type == 1", "-T", "fields",
             "-e", "ip.src", "-e", "ipv6.src", "-e", "tcp.stream"],
            stdout=subprocess.PIPE, text=True, check=True,
        ).stdout.splitlines()
        connections = {tuple(line.split("\t")) for line in found}
        expected = Counter(v4 or v6 for v4, v6, _ in connections)
        self.assertEqual(Counter(row["src_ip"] for row in lines(demo() / "hellos.jsonl")), expected)
        print(f"\n    {len(connections)} connections with a ClientHello by tshark and by the engine ", end="")

    def test_the_clients_counts(self):
        """Requests and hellos as each client counted them itself."""
        requests = Counter(row["src_ip"] for row in lines(demo() / "correlated.jsonl"))
        hellos = Counter(row["src_ip"] for row in lines(demo() / "hellos.jsonl"))
        for client in lines(RECORDING / "truth.jsonl"):
            with self.subTest(client["client"]):
                self.assertEqual(sum(requests[ip] for ip in client["src_ips"]), client["requests"])
                self.assertEqual(sum(hellos[ip] for ip in client["src_ips"]), client["hellos"])
        self.assertEqual(lines(demo() / "rejected.jsonl"), [])

    def test_join_and_features_equal_an_independent_recomputation(self):
        """The oracles share no code with the engine: tshark's fields, a join in Python, features in DuckDB."""
        oracle = PIPELINES / "tests/oracle"
        python = os.environ.get("ORACLE_PYTHON", sys.executable)
        files = {"--pcap": RECORDING / "capture.pcap", "--log": RECORDING / "requests.jsonl", "--asn": RECORDING / "asn.csv",
                 "--hellos": demo() / "hellos.jsonl", "--correlated": demo() / "correlated.jsonl",
                 "--features": demo() / "features.jsonl"}
        arguments = [text for pair in files.items() for text in map(str, pair)]
        compared = subprocess.run([python, oracle / "compare.py", *arguments], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=False)
        print(f"\n{compared.stdout}", end="")
        self.assertEqual(compared.returncode, 0)

    def test_bots_are_detected_with_a_reason_and_browsers_are_not(self):
        """By the ground truth of the recording."""
        detections = {}
        for row in lines(demo() / "detections.jsonl"):
            self.assertTrue(row["reason"] and row["rules"])
            self.assertIn(row["threat_level"], ("CRITICAL", "HIGH", "MEDIUM", "LOW"))
            detections.setdefault(row["src_ip"], set()).update(row["rules"].split(","))
        kinds = {"scanner": "path_scanner", "stuffing": "credential_stuffing", "spoof": "spoofed_browser"}
        for client in lines(RECORDING / "truth.jsonl"):
            with self.subTest(client["client"]):
                for address in client["src_ips"]:
                    if client["expect_detected"] is not None:
                        self.assertEqual(address in detections, client["expect_detected"])
                    if client["kind"] in kinds:
                        self.assertIn(kinds[client["kind"]], detections[address])

    def test_the_same_rows_for_any_number_of_workers(self):
        """1, 2 and 4; the order of lines is free."""
        expected = {name: sorted((demo() / name).read_bytes().splitlines()) for name in OUTPUTS}
        for workers in (1, 2, 4):
            with self.subTest(workers=workers):
                directory = self.directory / str(workers)
                self.assert_exit(run_demo(directory, "--workers", workers), OK)
                for name, rows in expected.items():
                    self.assertEqual(sorted((directory / name).read_bytes().splitlines()), rows, name)

    def test_a_second_run_replaces_the_first(self):
        """A bounded run rebuilds its segments: each row is stored once, and nothing unfinished is left."""
        directory, log = self.directory / "data", self.directory / "log"
        self.assert_exit(run_demo(directory), OK)
        with running("run", "--serve", "--listen", "127.0.0.1:0", PIPELINES / "demo.yaml", log=log,
                     environment={"DATA_DIR": directory}):
            base = served(log)
            wait_for("the run's end", lambda: "all sources have ended" in log.read_text())
            for table, file in {"requests": "correlated", "features": "features", "detections": "detections"}.items():
                stored = sql(base, f"select count(*) as n from {table}")[0]["n"]
                self.assertEqual(stored, len(lines(directory / f"{file}.jsonl")), table)
        names = [str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()]
        self.assertFalse([name for name in names if name.endswith(".tmp")])
        segment = re.compile(r"requests/\d{4}-\d\d-\d\d/[^/]+\.parquet")
        self.assertTrue(any(segment.fullmatch(name) for name in names), names)

    def test_segments_are_the_same_bytes_in_every_run(self):
        """What a segment is called and holds depends on the input alone, not on workers or on how the run went."""
        def segments(directory):
            return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.parquet")}
        found = []
        for number, workers in enumerate((1, 2, 2)):
            directory = self.directory / f"segments{number}"
            self.assert_exit(run_demo(directory, "--workers", str(workers)), OK)
            found.append(segments(directory))
        self.assertTrue(found[0])
        self.assertEqual(found[0], found[1])
        self.assertEqual(found[1], found[2])

    def test_the_summary(self):
        """Rows per node, late, rejected, correlated share, time, rows a second."""
        with tempfile.TemporaryDirectory() as directory:
            run = run_demo(Path(directory))
        self.assert_exit(run, OK, "correlate", "late", "rejected", "correlated", "rows/s")
        self.assertIn(str(len(lines(RECORDING / "requests.jsonl"))), run.stderr.replace(",", ""))

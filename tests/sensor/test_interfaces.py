"""Several interfaces: in one source, with counters for each and one order of time; changed while the run goes on; and with
`fingerprint -i`, which says at the end what it has seen. Two veth pairs between two namespaces."""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import unittest
from collections import Counter
from pathlib import Path

from tests.namespaces import ip, joined
from tests.support import ENGINE, OK, REFUSED, ROOT, Case, start, wait_for

_spec = importlib.util.spec_from_file_location("packets", ROOT / "benches/data/packets.py")
packets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(packets)
CLIENTS = packets.CLIENTS

PIPELINE = """\
name: several
nodes:
  - {{ id: packets, kind: source.pcap, {options} }}
  - {{ id: hellos, kind: tls.client_hello, from: packets }}
  - {{ id: out, kind: sink.jsonl, from: hellos, path: out.jsonl }}
"""


@unittest.skipUnless(shutil.which("tcpreplay"), "SKIPPED: tcpreplay is not installed")
class Interfaces(Case):
    def setUp(self) -> None:
        super().setUp()
        self.near, self.far = joined(self, ("near", "eth0", "192.0.2.10"), ("far", "peer0", "192.0.2.20"))
        for name in (self.near, self.far):
            # Else the kernel sends packets of its own on a new link, which the counters have if they come before the filter.
            quiet = "for which in all default; do echo 1 > /proc/sys/net/ipv6/conf/$which/disable_ipv6; done"
            ip("netns", "exec", name, "sh", "-c", quiet)
        ip("link", "add", "eth1", "netns", self.near, "type", "veth", "peer", "name", "peer1", "netns", self.far)
        for name, device in ((self.near, "eth0"), (self.near, "eth1"), (self.far, "peer0"), (self.far, "peer1")):
            ip("-n", name, "link", "set", device, "up", "mtu", "9000")
        self.errors, self.sent = self.directory / "stderr", 0

    def replay(self, device: str, connections: int) -> int:
        """So many hellos of new clients; how many packets they were."""
        capture = self.directory / "mix.pcap"
        packets.CLIENTS = CLIENTS + self.sent
        packets.mix(str(capture), connections)
        self.sent += connections
        done = subprocess.run(["ip", "netns", "exec", self.far, "tcpreplay", "--pps", "3000", "-i", device, capture],
                              check=True, capture_output=True, text=True)
        return int(re.search(r"Successful packets:\s+(\d+)", done.stdout)[1])

    def begin(self, options: str) -> subprocess.Popen:
        self.write("several.yaml", PIPELINE.format(options=options))
        process = start("run", self.directory / "several.yaml", log=self.errors, prefix=("ip", "netns", "exec", self.near))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def threads(self, process: subprocess.Popen) -> set[str]:
        self.assertIsNone(process.poll(), self.errors.read_text())
        return {(task / "comm").read_text().strip() for task in Path(f"/proc/{process.pid}/task").iterdir()}

    def rows(self) -> list[dict]:
        path = self.directory / "out.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def test_one_source_of_two(self) -> None:
        process = self.begin("interfaces: [eth0, eth1]")
        wait_for("both captures", lambda: {"pcap eth0", "pcap eth1"} <= self.threads(process))
        on = {"eth0": self.replay("peer0", 30), "eth1": self.replay("peer1", 20)}
        wait_for("rows", lambda: len(self.rows()) == 50)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), OK, self.errors.read_text())
        self.assertEqual(Counter(row["interface"] for row in self.rows()), {"eth0": 30, "eth1": 20})
        said = self.errors.read_text()
        for interface, sent in on.items():
            found = re.search(rf"kernel_received:{interface} (\d+)", said)
            self.assertEqual(int(found[1]), sent, said)
        self.assertIn(f"kernel_received {sum(on.values())}", said)
        self.assertNotIn("late_rows", said)

    def test_what_makes_no_sense_is_refused(self) -> None:
        for options, says in {
            "interfaces: []": "no interface", "interfaces: [eth0, eth0]": "twice", "interfaces: [eth0, any]": "any",
            "interfaces: [eth0], interface: eth1": "leave out", "interfaces: [eth0], file: x.pcap": "leave out",
        }.items():
            with self.subTest(options):
                self.write("several.yaml", PIPELINE.format(options=options))
                self.assert_exit(self.engine("validate", self.directory / "several.yaml"), REFUSED, says, "several.yaml:3:")

    def test_a_change_to_another_interface_and_one_that_cannot_be(self) -> None:
        """What cannot be opened changes nothing, and the capture goes on; what was given up is not opened again."""
        process = self.begin("interface: eth0")
        wait_for("the capture", lambda: "pcap eth0" in self.threads(process))
        for interface, outcome in (("nowhere0", "refused"), ("eth1", "applied")):
            self.write("several.new", PIPELINE.format(options=f"interface: {interface}")).rename(self.directory / "several.yaml")
            wait_for(outcome, lambda outcome=outcome: f"reload: {outcome}" in self.errors.read_text())
            if outcome == "refused":
                self.replay("peer0", 5)
                wait_for("rows of the old interface", lambda: len(self.rows()) == 5)
        wait_for("the other capture", lambda: "pcap eth1" in self.threads(process))
        self.replay("peer1", 7)
        wait_for("rows of the new interface", lambda: len(self.rows()) == 12)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), OK, self.errors.read_text())

    def test_no_right_no_change(self) -> None:
        process = self.begin("interface: eth0, keep_capability: false")
        wait_for("the capture", lambda: "pcap eth0" in self.threads(process))
        wait_for("the right to go", lambda: "privileged" not in self.threads(process))
        self.write("several.new", PIPELINE.format(options="interface: eth1")).rename(self.directory / "several.yaml")
        wait_for("the outcome", lambda: "reload: refused" in self.errors.read_text())
        self.assertIn("given up", self.errors.read_text())
        self.replay("peer0", 5)
        wait_for("rows", lambda: len(self.rows()) == 5)

    def test_an_interrupted_fingerprint_says_what_it_has_seen(self) -> None:
        for sent_signal in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(sent_signal), (self.directory / "out").open("wb") as out, self.errors.open("wb") as errors:
                process = subprocess.Popen(
                    ["ip", "netns", "exec", self.near, ENGINE, "fingerprint", "-i", "eth0", "-i", "eth1", "-f", "tcp port 443"],
                    stdout=out, stderr=errors)
                self.addCleanup(process.wait)
                self.addCleanup(process.kill)
                wait_for("the captures", lambda process=process: "signals" in self.threads(process))
                on = [self.replay("peer0", 20), self.replay("peer1", 10)]
                wait_for("hellos", lambda: (self.directory / "out").read_bytes().count(b"\n") == 30)
                process.send_signal(sent_signal)
                self.assertEqual(process.wait(60), OK)
                hellos = map(json.loads, (self.directory / "out").read_text().splitlines())
                self.assertEqual(Counter(hello["interface"] for hello in hellos), {"eth0": 20, "eth1": 10})
                said = self.errors.read_text()
                for interface, sent in zip(("eth0", "eth1"), on, strict=True):
                    self.assertIn(f"{interface}: {sent} packets received, 0 dropped by the kernel, 0 dropped by the interface", said)
                self.assertIn(f"{sum(on)} packets decoded, 30 hellos", said)


if __name__ == "__main__":
    unittest.main()

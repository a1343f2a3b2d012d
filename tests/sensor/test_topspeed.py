"""Packets at top speed over a veth pair: what was sent, received and dropped by the kernel adds up; no hello of a received
packet is lost. And floods from a file stay within the connections allowed. Needs root and tcpreplay for the first."""

import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

from tests.support import ENGINE, OK, ROOT, Case, wait_for

GENERATOR = ROOT / "benches/data/packets.py"
NAMES = ("ja4top0", "ja4top1")


def counters(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", text, re.M)}


class TopSpeed(Case):
    @unittest.skipUnless(os.geteuid() == 0, "SKIPPED: a veth pair needs root")
    @unittest.skipUnless(shutil.which("tcpreplay"), "SKIPPED: tcpreplay is not installed")
    def test_sent_is_received_or_dropped(self) -> None:
        capture, connections = self.directory / "mix.pcap", 5000
        subprocess.run([sys.executable, GENERATOR, "mix", capture, str(connections)], check=True)
        subprocess.run(["ip", "link", "add", NAMES[0], "type", "veth", "peer", "name", NAMES[1]], check=True)
        self.addCleanup(subprocess.run, ["ip", "link", "del", NAMES[0]])
        for name in NAMES:
            subprocess.run(["ip", "link", "set", name, "up", "mtu", "9000"], check=True)
        # Of what the kernel itself sends on a new link nothing passes the filter.
        for buffer in (16 << 20, 64 << 10):
            with self.subTest(buffer=buffer):
                out, err = self.directory / "out", self.directory / "err"
                with out.open("wb") as stdout, err.open("wb") as stderr:
                    engine = subprocess.Popen(
                        [ENGINE, "fingerprint", "-i", NAMES[1], "-f", "tcp port 443", "--promiscuous", "--counters",
                         "--buffer-size", str(buffer), "--fields", "ja4"], stdout=stdout, stderr=stderr)
                self.addCleanup(engine.kill)
                wait_for("the capture", lambda: "capturing on" in err.read_text() or engine.poll() is not None)
                small = buffer < capture.stat().st_size // 100
                if small:
                    # Nobody reads, so that the kernel must drop.
                    engine.send_signal(signal.SIGSTOP)
                sent = subprocess.run(["tcpreplay", "--topspeed", "-i", NAMES[0], capture], capture_output=True, text=True, check=True)
                engine.send_signal(signal.SIGCONT)
                engine.send_signal(signal.SIGINT)
                self.assertEqual(engine.wait(60), OK, err.read_text())
                found, wanted = counters(err.read_text()), int(re.search(r"Successful packets:\s+(\d+)", sent.stdout)[1])
                print(f"  buffer {buffer}: sent {wanted}, decoded {found['packets_received']}, kernel received "
                      f"{found['kernel_received']}, dropped {found['kernel_dropped']}", flush=True)
                self.assertEqual(found["kernel_received"], wanted)
                self.assertEqual(found["packets_received"] + found["kernel_dropped"], wanted)
                if small:
                    self.assertGreater(found["kernel_dropped"], 0)
                if not found["kernel_dropped"]:
                    self.assertEqual(len(out.read_text().splitlines()), connections)


class Floods(Case):
    def flood(self, kind: str, count: int) -> dict[str, int]:
        capture = self.directory / "flood.pcap"
        subprocess.run([sys.executable, GENERATOR, kind, capture, str(count)], check=True)
        run = self.engine("fingerprint", "--counters", "--max-flows", "1000", "--fields", "tls_sni", capture)
        self.assert_exit(run, OK)
        self.assertEqual(run.stdout.count("established.example"), 100)
        return counters(run.stderr)

    def test_syns(self) -> None:
        found = self.flood("syns", 50_000)
        self.assertEqual((found["flows_evicted"], found["flows_evicted_syn"]), (0, 50_000 + 100 - 1000))

    def test_hellos(self) -> None:
        found = self.flood("hellos", 50_000)
        self.assertEqual((found["hellos"], found["flows_evicted"]), (50_100, 0))

    def test_quic_initials(self) -> None:
        """Halves of hellos of which the rest never comes, and Initial packets that nobody can open."""
        found = self.flood("initials", 50_000)
        self.assertEqual(found["hellos"], 100)
        self.assertEqual(found["quic_initials"], 50_000)
        self.assertEqual(found["packets_received"], 50_000 + 400)


if __name__ == "__main__":
    unittest.main()

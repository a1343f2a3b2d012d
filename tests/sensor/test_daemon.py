"""pipelines/capture.yaml in place of the old daemon: same record, a receiver that goes and comes back, rotation with SIGHUP,
SIGTERM; and the rights of its threads. A veth pair between two namespaces; hellos are replayed from a generated capture."""

import gzip
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import unittest
from pathlib import Path

from tests.namespaces import ip, joined
from tests.support import NO_PERMISSION, OK, PIPELINES, ROOT, Case, start, wait_for

_spec = importlib.util.spec_from_file_location("packets", ROOT / "benches/data/packets.py")
packets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(packets)
CLIENTS = packets.CLIENTS

# The old daemon's record; those with a question mark may be absent.
RECORD = {
    "timestamp": int, "sensor_id": str, "src_ip": str, "src_port": int, "dst_ip": str, "dst_port": int, "conn_id": str,
    "ip_meta_ttl": int, "ip_meta_total_length": int, "ip_meta_id": int, "ip_meta_df": bool, "tcp_meta_window_size?": int,
    "tcp_meta_mss?": int, "tcp_meta_window_scale?": int, "tcp_meta_options?": str, "syn_to_clienthello_ms?": float,
    "tls_version": str, "tls_sni": str, "tls_alpn": str, "ja4": str, "ja3": str, "ja3_hash": str,
}
NET_RAW = 1 << 13


class Receiver:
    """A datagram socket that another program would have."""

    def __init__(self, path: Path) -> None:
        self.path, self.socket = path, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        path.chmod(0o666)
        self.socket.setblocking(False)
        self.records: list[dict] = []

    def take(self) -> list[dict]:
        """All that has come so far."""
        try:
            while True:
                self.records.append(json.loads(self.socket.recv(1 << 16)))
        except BlockingIOError:
            return self.records

    def close(self) -> None:
        """Gone, and its file with it."""
        self.socket.close()
        self.path.unlink(missing_ok=True)


@unittest.skipUnless(shutil.which("tcpreplay"), "SKIPPED: tcpreplay is not installed")
class Daemon(Case):
    def setUp(self) -> None:
        super().setUp()
        self.near, self.far = joined(self, ("near", "eth0", "192.0.2.10"), ("far", "eth1", "192.0.2.20"))
        for name, device in ((self.near, "eth0"), (self.far, "eth1")):
            ip("-n", name, "link", "set", device, "mtu", "9000")
        self.socket, self.log, self.data = self.directory / "s", self.directory / "log/hellos.jsonl", self.directory / "data"
        self.errors, self.sent = self.directory / "stderr", 0
        self.directory.chmod(0o777)

    def begin(self, *arguments: object, prefix: tuple = (), wait: bool = True) -> subprocess.Popen:
        """The engine in the near namespace; ended with the test."""
        variables = {"INTERFACE": "eth0", "SOCKET": self.socket, "LOG": self.log, "DATA_DIR": self.data}
        process = start("run", *arguments, PIPELINES / "capture.yaml", environment=variables, log=self.errors,
                        prefix=("ip", "netns", "exec", self.near, *prefix))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if wait:
            wait_for("the capture", lambda: self.captures(process) or process.poll() is not None)
            self.assertIsNone(process.poll(), self.errors.read_text())
        return process

    def captures(self, process: subprocess.Popen) -> bool:
        """Whether the packet socket is open."""
        names = [(task / "comm").read_text().strip() for task in Path(f"/proc/{process.pid}/task").iterdir()]
        return "pcap eth0" in names

    def replay(self, connections: int) -> None:
        """So many hellos of new clients from the far end, paced so that nothing is dropped."""
        capture = self.directory / "mix.pcap"
        packets.CLIENTS = CLIENTS + self.sent
        packets.mix(str(capture), connections)
        subprocess.run(["ip", "netns", "exec", self.far, "tcpreplay", "--pps", "3000", "-i", "eth1", capture],
                       check=True, capture_output=True)
        self.sent += connections

    def stop(self, process: subprocess.Popen) -> str:
        """SIGTERM; it must end well. What it said."""
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(90), OK, self.errors.read_text())
        return self.errors.read_text()

    def hangup(self, process: subprocess.Popen) -> str:
        """SIGHUP; the one outcome that it has."""
        def outcomes() -> list[str]:
            return re.findall(r"reload: .*", self.errors.read_text())
        before = len(outcomes())
        process.send_signal(signal.SIGHUP)
        wait_for("an outcome", lambda: len(outcomes()) > before)
        self.assertEqual(len(outcomes()), before + 1)
        return outcomes()[-1]

    def lines(self, path: Path) -> list[dict]:
        """Complete lines of a file, which may be written to."""
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def assert_record(self, record: dict) -> None:
        """Each field of the old daemon with its type, and no other."""
        for name, kind in RECORD.items():
            if name.endswith("?") and name[:-1] not in record:
                continue
            self.assertIs(type(record[name.rstrip("?")]), kind, name)
        self.assertLessEqual(set(record), {name.rstrip("?") for name in RECORD})

    def test_records_a_receiver_that_comes_back_and_a_moved_file(self) -> None:
        receiver = Receiver(self.socket)
        self.addCleanup(lambda: receiver.close())
        process = self.begin()
        self.replay(70)
        wait_for("datagrams", lambda: len(receiver.take()) == 70)
        wait_for("lines", lambda: len(self.lines(self.log)) == 70)
        for record in receiver.records:
            self.assert_record(record)
        # One connection in 69 has a SYN.
        self.assertIn("tcp_meta_mss", receiver.records[0])
        self.assertEqual(receiver.records, self.lines(self.log))
        # logrotate: the file is moved, then SIGHUP.
        moved = self.log.rename(self.log.with_name("hellos.jsonl.1"))
        self.assertRegex(self.hangup(process), "reload: unchanged reopened (socket, file|file, socket)")
        receiver.close()
        receiver = Receiver(self.socket)
        self.replay(50)
        wait_for("datagrams to the new receiver", lambda: len(receiver.take()) == 50)
        wait_for("lines in the new file", lambda: len(self.lines(self.log)) == 50)
        self.assertEqual((len(self.lines(moved)), receiver.records), (70, self.lines(self.log)))
        self.stop(process)

    def test_what_a_receiver_that_is_away_does_not_get_is_counted(self) -> None:
        process = self.begin("--set", "socket.queue=20", "--set", "socket.max_wait=100ms")
        self.replay(60)
        wait_for("lines", lambda: len(self.lines(self.log)) == 60)
        wait_for("dropped rows", lambda: "oldest rows are dropped" in self.errors.read_text())
        receiver = Receiver(self.socket)
        self.addCleanup(receiver.close)
        wait_for("what waited", lambda: len(receiver.take()) >= 20)
        said = self.stop(process)
        sent = len(receiver.take())
        # Rows of the last tick may have come when the receiver was there.
        self.assertEqual(receiver.records, self.lines(self.log)[-sent:])
        self.assertIn(f"dropped {60 - sent}", said)
        self.assertIn(f"datagrams {sent}", said)

    def test_a_receiver_that_is_slow_is_waited_for(self) -> None:
        """More than its queue in the kernel holds; nothing is dropped before `max_wait`."""
        receiver = Receiver(self.socket)
        self.addCleanup(receiver.close)
        process = self.begin("--set", "socket.queue=1", "--set", "socket.max_wait=10m")
        held = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
        self.replay(held + 200)
        wait_for("lines", lambda: len(self.lines(self.log)) == self.sent)
        wait_for("datagrams", lambda: len(receiver.take()) == self.sent)
        self.assertEqual(receiver.records, self.lines(self.log))
        self.assertNotIn("dropped", self.stop(process).replace("kernel_dropped", ""))

    def test_after_a_kill_it_goes_on(self) -> None:
        """Each line once, in the file that was moved and in the new one; each datagram at least once."""
        receiver = Receiver(self.socket)
        self.addCleanup(receiver.close)
        process = self.begin()
        self.replay(40)
        wait_for("lines", lambda: len(self.lines(self.log)) == 40)
        moved = self.log.rename(self.log.with_name("hellos.jsonl.1"))
        process.kill()
        process.wait()
        process = self.begin()
        self.replay(30)
        wait_for("lines", lambda: len(self.lines(self.log)) + len(self.lines(moved)) >= 70)
        wait_for("datagrams", lambda: len({record["src_ip"] for record in receiver.take()}) == 70)
        self.stop(process)
        clients = [line["src_ip"] for path in (moved, self.log) for line in self.lines(path)]
        self.assertEqual((len(clients), len(set(clients))), (70, 70))

    def test_without_a_spool_files_are_opened_again_too(self) -> None:
        process = self.begin("--set", "spool=off")
        self.replay(20)
        wait_for("lines", lambda: len(self.lines(self.log)) == 20)
        moved = self.log.rename(self.log.with_name("hellos.jsonl.1"))
        self.assertRegex(self.hangup(process), "reload: unchanged reopened (socket, file|file, socket)")
        self.replay(10)
        wait_for("lines in the new file", lambda: len(self.lines(self.log)) == 10)
        self.assertEqual(len(self.lines(moved)), 20)
        self.stop(process)
        # What was there stays: the next run appends.
        process = self.begin("--set", "spool=off")
        self.replay(5)
        wait_for("more lines", lambda: len(self.lines(self.log)) == 15)
        self.stop(process)

    def test_a_file_that_cannot_be_opened_again_is_said_and_the_old_one_goes_on(self) -> None:
        process = self.begin()
        self.replay(20)
        wait_for("lines", lambda: len(self.lines(self.log)) == 20)
        moved = self.log.rename(self.log.with_name("hellos.jsonl.1"))
        self.log.mkdir()
        self.assertRegex(self.hangup(process), "reload: unchanged reopened socket; file goes on as it was: .* cannot be opened")
        self.replay(10)
        wait_for("lines in the old file", lambda: len(self.lines(moved)) == 30)
        self.log.rmdir()
        self.hangup(process)
        self.replay(10)
        wait_for("lines in the new file", lambda: len(self.lines(self.log)) == 10)
        self.stop(process)

    def test_files_are_put_aside_and_compressed(self) -> None:
        process = self.begin("--set", "file.rotate.size=20000", "--set", "file.rotate.keep=100")
        for _ in range(3):
            before = self.sent
            self.replay(60)
            wait_for("packed files", lambda: len(self.all_lines()) >= before + 60)
        self.stop(process)
        packed = list(self.log.parent.glob("hellos.jsonl-*.gz"))
        self.assertGreaterEqual(len(packed), 2)
        self.assertEqual(len(self.all_lines()), self.sent)
        self.assertEqual({path for path in self.log.parent.iterdir() if path.suffix != ".gz"}, {self.log})

    def all_lines(self) -> list[dict]:
        """Of all files, compressed or not."""
        rows = []
        try:
            for path in self.log.parent.glob("hellos.jsonl-*"):
                packed = path.with_name(path.name + ".gz").exists()
                if path.name.endswith(".gz"):
                    with gzip.open(path, "rt") as file:
                        rows += [json.loads(line) for line in file]
                elif not packed and not path.name.endswith(".tmp"):
                    rows += self.lines(path)
        except OSError:
            return []  # compressed meanwhile
        return rows + self.lines(self.log)

    def rights(self, process: subprocess.Popen) -> dict[str, list[int]]:
        """Effective, permitted and bounding sets and no_new_privs of each thread, by its name."""
        found = {}
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            sets = [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")]
            found.setdefault(status["Name"], []).append([*sets, int(status["NoNewPrivs"])])
        return found

    def assert_rights(self, process: subprocess.Popen, keeps: bool) -> None:
        """One thread may have CAP_NET_RAW, and nobody has anything else."""
        rights = wait_for("the threads", lambda: self.captures(process) and self.rights(process))
        if not keeps:
            wait_for("the rights to go", lambda: "privileged" not in self.rights(process))
            rights = self.rights(process)
        self.assertEqual(rights.pop("privileged", None), [[NET_RAW, NET_RAW, 0, 0, 1]] if keeps else None)
        for name, threads in rights.items():
            for thread in threads:
                self.assertEqual(thread, [0, 0, 0, 0, 1], name)

    def test_root_keeps_one_right_in_one_thread_or_none(self) -> None:
        process = self.begin()
        self.assert_rights(process, keeps=True)
        self.stop(process)
        process = self.begin("--set", "packets.keep_capability=false")
        self.assert_rights(process, keeps=False)
        self.replay(10)
        wait_for("lines", lambda: len(self.lines(self.log)) == 10)
        self.stop(process)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "SKIPPED: needs root and setpriv")
    def test_a_user_with_that_one_right_is_enough(self) -> None:
        for folder in (self.data, self.log.parent):
            folder.mkdir()
            folder.chmod(0o777)
        # Where the user can read it.
        engine = self.directory / "engine"
        shutil.copy(os.environ.get("JA4_ENGINE", ROOT / "target/debug/ja4-engine"), engine)
        pipeline = shutil.copy(PIPELINES / "capture.yaml", self.directory / "capture.yaml")
        variables = {"INTERFACE": "eth0", "SOCKET": self.socket, "LOG": self.log, "DATA_DIR": self.data}
        user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        receiver = Receiver(self.socket)
        self.addCleanup(receiver.close)
        for rights, code in (((), NO_PERMISSION), (("--inh-caps=+net_raw", "--ambient-caps=+net_raw"), OK)):
            with self.errors.open("wb") as stderr:
                process = subprocess.Popen(
                    ["ip", "netns", "exec", self.near, *user, *rights, engine, "run", pipeline], stderr=stderr,
                    env={**variables, "PATH": os.environ["PATH"]} | {k: str(v) for k, v in variables.items()})
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            if code == NO_PERMISSION:
                self.assertEqual(process.wait(60), code, self.errors.read_text())
                continue
            wait_for("the capture", lambda: self.captures(process))
            self.assert_rights(process, keeps=True)
            self.replay(20)
            wait_for("datagrams", lambda: len(receiver.take()) == 20)
            self.stop(process)


if __name__ == "__main__":
    unittest.main()

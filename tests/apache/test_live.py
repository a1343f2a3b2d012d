"""The module beside the engine: Debian's Apache under each MPM, real clients, packets captured on the way.

Each request must be a row with the hello that tshark finds on its connection, and the HTTP/2 signature of each client must be
what tshark reads from the decrypted packets. Both need root, for network namespaces.
"""

import json
import re
import shutil
import signal
import subprocess
import unittest
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

from tests.apache.httpd import Httpd, why_not
from tests.namespaces import ip, joined
from tests.servers import clients
from tests.servers.clients import Curl
from tests.servers.debian import HOST, build_site, certificate, inside
from tests.servers.test_servers import oracle
from tests.support import ENGINE, OK, Case, running, wait_for

SERVER = "192.0.2.1"
CLIENTS = {"curl": "192.0.2.20", "chromium": "192.0.2.21", "firefox": "192.0.2.22", "python": "192.0.2.23"}
PIPELINE = """\
name: module
data_dir: data
nodes:
  - { id: packets, kind: source.pcap, interface: web0, ports: [443] }
  - { id: hellos, kind: tls.client_hello, from: packets }
  - { id: requests, kind: source.unix_socket, path: http.socket, mode: "0666", format: reqin_log }
  - { id: correlated, kind: correlate, from: { hello: hellos, request: requests }, window: 70s, keepalive_ttl: 2m }
  - { id: rows, kind: sink.jsonl, from: correlated, path: rows.jsonl }
  - { id: rejected, kind: sink.jsonl, from: requests.rejected, path: rejected.jsonl }
  - { id: late, kind: sink.jsonl, from: correlated.late, path: late.jsonl }
serve: { listen: "127.0.0.1:8080", tables: { requests: correlated } }
"""


class Live:
    """One MPM."""

    mpm = ""

    def setUp(self) -> None:
        reason = why_not() or ("" if ENGINE.exists() else f"{ENGINE} is not built: make build")
        if reason:
            self.skipTest(reason)
        super().setUp()
        self.client, self.name = joined(
            self, ("client", "eth0", CLIENTS["curl"]), ("server", "web0", SERVER),
            needs=("apache2", "curl", "dumpcap", "openssl", "tshark", "mount"))
        for address in list(CLIENTS.values())[1:]:
            ip("-n", self.client, "address", "add", f"{address}/24", "dev", "eth0")
        hosts = self.directory / "client/root/etc/hosts"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(f"127.0.0.1 localhost\n{SERVER} {HOST}\n")
        self.beside = ("ip", "netns", "exec", self.name)
        # As systemd sets it.
        subprocess.run([*self.beside, "sh", "-c", "echo 512 > /proc/sys/net/unix/max_dgram_qlen"], check=True)
        self.keys = self.directory / "keys"
        self.keys.touch()
        self.keys.chmod(0o666)
        build_site(self.directory / "site")
        certificate(self.directory)

    def as_client(self, name: str) -> tuple[str, ...]:
        """In front of a client's program; what it sends has its address, and its keys are kept."""
        ip("-n", self.client, "route", "replace", f"{SERVER}/32", "dev", "eth0", "src", CLIENTS[name])
        return (*inside(self.client, self.directory / "client"), "env", f"SSLKEYLOGFILE={self.keys}")

    def rows(self, name: str = "rows") -> list[dict]:
        """The rows so far. What is null is not in the file."""

        path = self.directory / f"{name}.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [defaultdict(lambda: None, json.loads(line)) for line in lines]

    def visit(self, httpd: Httpd) -> list[clients.Sent]:
        """Lets all clients send, with a graceful restart in between; what those that count know of it."""
        curl = Curl(self.as_client("curl"), self.directory)
        curl.all()
        httpd.graceful()
        curl.run(["--http2", "--parallel", "--parallel-max", "20"], ["/style.css?n=#"] * 40)
        sent = curl.sent
        clients.fake_by_python(self.as_client("python"), self.directory)
        for name, program, visit in (("chromium", clients.CHROMIUM, clients.chromium), ("firefox", clients.FIREFOX, clients.firefox)):
            if program and shutil.which("certutil"):
                visit(self.as_client(name), self.directory, lambda name=name: self.has_visited(httpd, name))
            else:
                print(f"\n    SKIPPED: {name} or certutil is not installed ", end="")
        return sent

    def has_visited(self, httpd: Httpd, name: str) -> bool:
        """Whether a browser has come to the end of its visit."""
        return "/last" in {row["path"] for row in self.rows() if row["src_ip"] == CLIENTS[name]}

    def test_every_request_has_the_hello_of_its_connection(self):
        said = self.directory / "dumpcap.said"
        packets = self.directory / "packets.pcapng"
        with said.open("wb") as out:
            recorder = subprocess.Popen([*self.beside, "dumpcap", "-q", "-i", "web0", "-w", packets], stdout=out, stderr=out)
        self.addCleanup(recorder.wait)
        self.addCleanup(recorder.terminate)
        wait_for("the recording", lambda: "File:" in said.read_text())
        log = self.directory / "log"
        with running("run", self.write("p.yaml", PIPELINE), log=log, prefix=self.beside) as engine:
            try:
                wait_for("the engine", lambda: engine.poll() is not None or "serving on" in log.read_text())
                httpd = Httpd(self, self.directory, self.mpm, prefix=self.beside, address=SERVER, ports=(80, 443)).start()
                sent = self.visit(httpd)
                wait_for("the rows", lambda: len(self.rows()) >= len(httpd.truth()), limit_s=30)
                rows = self.rows()
                self.check_rows(rows, httpd, sent)
                recorder.send_signal(signal.SIGINT)
                recorder.wait(30)
                self.check_hellos(rows, packets)
                self.check_signatures(rows, packets)
                engine.terminate()
                self.assertEqual(engine.wait(60), OK)
            except (TimeoutError, AssertionError) as error:
                self.fail(f"{error}\n{log.read_text()[-3000:]}")

    def check_rows(self, rows: list[dict], httpd: Httpd, sent: list[clients.Sent]) -> None:
        """Each line of the server's own log is a row, and each request of curl's."""
        self.assertEqual((self.rows("rejected"), self.rows("late")), ([], []))
        got = [f"{row['src_ip']} {row['src_port']} {row['status_code']} {row['response_size']} {row['http_version']}" for row in rows]
        self.assert_same_rows(got, [" ".join([*line[:4], line[6]]) for line in httpd.truth()])
        known = Counter((row["src_port"], row["status_code"], row["method"]) for row in rows if row["src_ip"] == CLIENTS["curl"])
        self.assertEqual(Counter((one.port, one.status, one.method) for one in sent) - known, Counter())
        print(f"\n    {self.mpm}: {len(rows)} rows, {len({(row['src_ip'], row['src_port']) for row in rows})} connections", end="")

    def check_hellos(self, rows: list[dict], packets: Path) -> None:
        """Those that tshark finds on the connections."""
        hellos = {(hello.src_ip, hello.src_port): hello for hello in oracle.hellos(packets) if hello.index == 0}
        for row in rows:
            if row["scheme"] == "http":
                self.assertEqual((row["correlated"], row["ja4"]), (0, None), row)
                continue
            hello = hellos[row["src_ip"], row["src_port"]]
            self.assertEqual((row["correlated"], row["ja4"], row["tls_sni"] or None), (1, hello.ja4, hello.tls_sni), row)
            if row["status_code"] != 400:
                self.assertEqual((row["server_tls_sni"], row["server_tls_differs"]), (HOST, ""), row)

    def check_signatures(self, rows: list[dict], packets: Path) -> None:
        """Equal to what tshark reads, for each connection with HTTP/2; null for the others."""
        read = signatures(packets, self.keys)
        of_client: dict[str, set[str]] = {}
        for row in rows:
            if row["http_version"] != "HTTP/2.0":
                self.assertIsNone(row["h2_signature"], row)
                continue
            signature, priority = read[row["src_ip"], row["src_port"]]
            self.assertEqual((row["h2_signature"], row["h2_headers_priority"]), (signature, priority), row)
            of_client.setdefault(row["src_ip"], set()).add(signature)
        names = {address: name for name, address in CLIENTS.items()}
        for address, texts in sorted(of_client.items()):
            print(f"\n    {names[address]}: {', '.join(sorted(texts))}", end="")
        if self.mpm != "prefork":
            self.assertIn("curl", {names[address] for address in of_client})


def signatures(packets: Path, keys: Path) -> dict[tuple[str, int], tuple[str, str | None]]:
    """The signature of each client's connection and the priority of its first request, by tshark."""
    done = subprocess.run(["tshark", "-r", packets, "-o", f"tls.keylog_file:{keys}", "-Y", "http2 && tcp.dstport == 443", "-T", "pdml"],
                          capture_output=True, check=True)
    frames: dict[tuple[str, int], list[ElementTree.Element]] = {}
    # tshark writes values as they are, and some clients sent what XML cannot hold.
    text = re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd]", "?", done.stdout.decode(errors="replace"))
    for packet in ElementTree.fromstring(text).iter("packet"):
        at = (value(packet, "ip.src"), int(value(packet, "tcp.srcport")))
        for proto in packet.iterfind("proto[@name='http2']"):
            frames.setdefault(at, []).extend(proto.iterfind("field[@name='http2.stream']"))
    return {at: signature(of) for at, of in frames.items()}


def signature(frames: list[ElementTree.Element]) -> tuple[str, str | None]:
    """From the frames of a connection up to its first request."""
    settings, window, priorities, pseudo, of_request = None, "00", [], [], None
    for frame in frames:
        kind = value(frame, "http2.type")
        if kind == "4" and settings is None and not int(value(frame, "http2.flags"), 16) & 1:
            settings = []
            for one in frame.iterfind(".//field[@name='http2.settings']"):
                number = next(int(field.get("value"), 16) for field in one.iter("field")
                              if field.get("name", "").startswith("http2.settings.") and field.get("name") != "http2.settings.id")
                settings.append(f"{int(value(one, 'http2.settings.id'))}:{number}")
        elif kind == "8" and window == "00" and value(frame, "http2.streamid") == "0":
            window = value(frame, "http2.window_update.window_size_increment")
        elif kind == "2":
            priorities.append(priority(frame))
        elif kind == "1":
            names = [field.get("show") for field in frame.iter("field") if field.get("name") == "http2.header.name"]
            pseudo = [name[1] for name in names if name.startswith(":")]
            of_request = priority(frame) if int(value(frame, "http2.flags"), 16) & 0x20 else None
            break
    return f"{';'.join(settings or [])}|{window}|{','.join(priorities) or '0'}|{','.join(pseudo)}", of_request


def priority(frame: ElementTree.Element) -> str:
    """Stream, whether exclusive, stream it depends on, weight."""
    exclusive = int(value(frame, "http2.exclusive") in ("1", "True"))
    weight = int(next(field.get("value") for field in frame.iter("field") if field.get("name") == "http2.headers.weight"), 16) + 1
    return f"{value(frame, 'http2.streamid')}:{exclusive}:{value(frame, 'http2.stream_dependency')}:{weight}"


def value(element: ElementTree.Element, name: str) -> str:
    """What tshark shows of the first field of a name; nothing if there is none."""
    return next((field.get("show") for field in element.iter("field") if field.get("name") == name), "")


class Prefork(Live, Case):
    mpm = "prefork"


class Worker(Live, Case):
    mpm = "worker"


class Event(Live, Case):
    mpm = "event"


if __name__ == "__main__":
    unittest.main()

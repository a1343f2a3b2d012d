"""Debian's Apache with the module: an own configuration in the test's directory, a receiver of records, and a raw client of HTTP/2."""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import unittest
import urllib.request
from pathlib import Path

from tests.servers.debian import certificate
from tests.support import ROOT, wait_for

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
MODULE = Path(os.environ.get("MOD_REQIN_LOG", TARGET / "apache/release/libmod_reqin_log.so"))
MODULES = Path("/usr/lib/apache2/modules")
MPMS = ("prefork", "worker", "event")
HOST = "www.example.test"
CLONE_NEWNET = 0x40000000
QUEUE = Path("/proc/sys/net/unix/max_dgram_qlen")

# Few processes with few threads, so that a test meets all of them.
CONFIGURATION = """\
ServerRoot {dir}
ServerName {host}
PidFile {dir}/httpd.pid
ErrorLog {dir}/error.log
LogLevel info
DefaultRuntimeDir {dir}
Mutex file:{dir} default
Listen {address}:{http}
Listen {address}:{https}
{listen}
{modules}
LoadModule reqin_log_module {module}
{user}
StartServers 2
<IfModule mpm_prefork_module>
    MaxRequestWorkers {workers}
    MinSpareServers 2
</IfModule>
<IfModule !mpm_prefork_module>
    ThreadsPerChild {threads}
    MaxRequestWorkers {workers}
</IfModule>
MaxConnectionsPerChild {per_child}
KeepAliveTimeout 20
MaxKeepAliveRequests 0
TypesConfig /etc/mime.types
DocumentRoot {dir}/site
<Directory {dir}/site>
    Require all granted
</Directory>
<Location /server-status>
    SetHandler server-status
</Location>
LogFormat "%{{c}}a %{{remote}}p %>s %B %{{begin:usec}}t %D %H" truth
GlobalLog {dir}/truth.log truth
SSLSessionCache shmcb:{dir}/sessions(512000)
JsonSockLogEnabled On
JsonSockLogSocket {dir}/http.socket
{directives}
<VirtualHost *:{https}>
    ServerName {host}
    SSLEngine on
    SSLCertificateFile {dir}/cert.pem
    SSLCertificateKeyFile {dir}/key.pem
    Protocols h2 http/1.1
</VirtualHost>
{hosts}
"""


def why_not() -> str:
    """Why the module cannot be tested here; empty if it can."""
    if not MODULE.exists():
        return f"{MODULE} is not built: make apache"
    if not MODULES.exists() or not shutil.which("apache2"):
        return "Debian's apache2 is not installed"
    return ""


def own_network() -> None:
    """Puts this process into a network namespace of its own, where a socket's queue holds more than a slow test's receiver leaves
    there: Linux has 10 datagrams, systemd makes them 512. Without the right to do so all stays as it is.
    """
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        QUEUE.write_text("4096")


def queue() -> int:
    """How many datagrams wait in a socket's queue."""
    return int(QUEUE.read_text())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Receiver:
    """What the engine's source is to the module: a datagram socket. Records are kept in their order."""

    def __init__(self, path: Path) -> None:
        self.path, self.raw, self.paused = path, [], threading.Event()
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        path.chmod(0o666)
        self.socket.settimeout(0.05)
        self.is_over = False
        self.thread = threading.Thread(target=self._receive)
        self.thread.start()

    def _receive(self) -> None:
        while not self.is_over:
            if self.paused.is_set():
                self.paused.wait(0.05)
                continue
            try:
                self.raw.append(self.socket.recv(1 << 18))
            except TimeoutError:
                continue

    @property
    def records(self) -> list[dict]:
        """All records so far; each must be JSON."""
        return [json.loads(raw) for raw in list(self.raw)]

    def close(self) -> None:
        """Ends the thread."""
        self.is_over = True
        self.thread.join()
        self.socket.close()


class Httpd:
    """A server that is ended with the test."""

    def __init__(self, case: unittest.TestCase, directory: Path, mpm: str, *, prefix: tuple[str, ...] = (), address: str = "127.0.0.1",
                 directives: str = "", hosts: str = "", listen: str = "", modules: tuple[str, ...] = (), ports: tuple[int, int] | None = None,
                 per_child: int = 0, threads: int = 8, without: bool = False) -> None:
        self.case, self.directory, self.prefix, self.address = case, directory, prefix, address
        self.http, self.https = ports or (free_port(), free_port())
        directory.chmod(0o755)
        site = directory / "site"
        if not site.exists():
            site.mkdir()
            (site / "index.html").write_text("<!doctype html><title>Home</title>\n")
            (site / "large").write_bytes(bytes(3_000_000))
            certificate(directory)
        names = (f"mpm_{mpm}", "authz_core", "mime", "dir", "ssl", "socache_shmcb", "http2", "status", *modules)
        loaded = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in names)
        text = CONFIGURATION.format(
            dir=directory, host=HOST, http=self.http, https=self.https, module=MODULE, address=address, modules=loaded, listen=listen,
            user="User www-data\nGroup www-data" if os.geteuid() == 0 else "", directives=directives, hosts=hosts, per_child=per_child,
            threads=threads, workers=4 * threads)
        if without:
            text = re.sub("^(JsonSockLog|LoadModule reqin_log).*\n", "", text, flags=re.MULTILINE)
        self.configuration = directory / "httpd.conf"
        self.configuration.write_text(text)
        self.process: subprocess.Popen | None = None

    def check(self) -> subprocess.CompletedProcess:
        """What the server says of its configuration."""
        return subprocess.run([*self.prefix, "apache2", "-t", "-f", self.configuration], capture_output=True, text=True, check=False)

    def start(self) -> "Httpd":
        """Starts it and waits until it answers. In a session of its own: it ends with a signal to all of its process group."""
        with (self.directory / "said").open("ab") as said:
            self.process = subprocess.Popen([*self.prefix, "apache2", "-DFOREGROUND", "-f", self.configuration],
                                            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        self.case.addCleanup(self.stop)
        self.await_workers()
        return self

    def await_workers(self) -> None:
        """Waits until the configuration is in use; a request would be a record."""
        def ready() -> bool:
            self.case.assertIsNone(self.process.poll(), (self.directory / "said").read_text() + self.log())
            return f"pid {self.process.pid}:" in "".join(re.findall(".*resuming normal operations", self.log()))
        wait_for("the server", ready)

    def stop(self) -> None:
        """SIGTERM; the server must end by itself, and no process of it by a signal of its own making."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        # Its own signal to the group may be faster than the end of its work.
        self.case.assertIn(self.process.wait(60), (0, -signal.SIGTERM), self.log())
        self.case.assertIn("caught SIGTERM, shutting down", self.log())
        self.case.assertNotRegex(self.log(), r"exit signal|panicked|Segmentation")

    def graceful(self) -> None:
        """What `apache2ctl graceful` does."""
        before = self.log().count("resuming normal operations")
        self.process.send_signal(signal.SIGUSR1)
        wait_for("the restart", lambda: self.log().count("resuming normal operations") > before)

    def log(self) -> str:
        """The error log."""
        path = self.directory / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def truth(self) -> list[list[str]]:
        """Lines of mod_log_config's log: address, port, status, size, begin and duration in µs, version."""
        path = self.directory / "truth.log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def counters(self) -> dict[str, int]:
        """The module's numbers in mod_status."""
        with urllib.request.urlopen(f"http://{self.address}:{self.http}/server-status?auto", timeout=30) as answer:
            return {name: int(number) for name, number in re.findall(r"^ReqinLog(\w+): (\d+)$", answer.read().decode(), re.MULTILINE)}


def tls(directory: Path, *protocols: str) -> ssl.SSLContext:
    """A client's context that trusts the test's authority and offers these protocols."""
    context = ssl.create_default_context(cafile=directory / "ca.pem")
    context.set_alpn_protocols(protocols)
    return context


def connect(address: str, port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    """A connection, with TLS if there is a context."""
    plain = socket.create_connection((address, port), timeout=30)
    return context.wrap_socket(plain, server_hostname=HOST) if context else plain


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Sends bytes and reads until the answer, which has a length, is complete, or the server closes."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = connection.recv(65536)
        if not more:
            return answer
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    is_head = request.startswith(b"HEAD ")
    while length and not is_head and len(body) < int(length[1]):
        more = connection.recv(65536)
        if not more:
            break
        body += more
    return head + b"\r\n\r\n" + body


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS_OF_CHROME = ((1, 65536), (2, 0), (4, 6291456), (6, 262144))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(*parameters: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(4, 0, 0, b"".join(struct.pack(">HI", *one) for one in parameters))


def literal(name: str, value: str) -> bytes:
    """A field without the tables (RFC 7541, section 6.2.2); both shorter than 127 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text for text in (name.encode(), value.encode()))


def request(stream: int, *fields: tuple[str, str], flags: int = 0x5, before: bytes = b"") -> bytes:
    """A request without body in one HEADERS frame."""
    return frame(1, flags, stream, before + b"".join(literal(*field) for field in fields))


def read_streams(connection: socket.socket, streams: set[int]) -> None:
    """Reads until each of these streams has ended."""
    data = b""
    while streams:
        more = connection.recv(65536)
        if not more:
            raise AssertionError(f"closed before {streams} ended: {data!r}")
        data += more
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
            stream = int.from_bytes(data[5:9], "big")
            if kind == 7:
                raise AssertionError(f"GOAWAY: {data[9:9 + length]!r}")
            if kind == 3 or kind in (0, 1) and flags & 1:
                streams = streams - {stream}
            data = data[9 + length:]

"""Real clients on the loopback interface: each gives one JA4, whatever else it changes, and tshark's JA3.

Needs the right to capture (root or CAP_NET_RAW). A client that is not installed is skipped, and the skip says which.
"""

import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support import ENGINE, wait_for

HANDSHAKES = int(os.environ.get("HANDSHAKES", "100"))

GO = """package main
import ("crypto/tls"; "net/http"; "os"; "strconv")
func main() {
    n, _ := strconv.Atoi(os.Args[2])
    for i := 0; i < n; i++ {
        transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
        if answer, err := (&http.Client{Transport: transport}).Get(os.Args[1]); err == nil { answer.Body.Close() }
        transport.CloseIdleConnections()
    }
}
"""
NODE = """const https = require('https'); let left = +process.argv[2];
const next = () => left-- > 0 && https.get({host: '127.0.0.1', port: +process.argv[1], servername: 'node.example',
  rejectUnauthorized: false, agent: false}, answer => { answer.resume(); answer.on('end', next); });
next();"""


class Handler(http.server.BaseHTTPRequestHandler):
    """A page whose images lie on as many hosts as handshakes are wanted, so that a browser opens a connection to each."""

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        page = "".join(f"<img src='https://h{n}.example:{port}/x'>" for n in range(HANDSHAKES)) if self.path == "/page" else ""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Shakes hands in the thread of the connection."""

    daemon_threads = True
    request_queue_size = 128

    def finish_request(self, request: socket.socket, address: object) -> None:
        try:
            with self.tls.wrap_socket(request, server_side=True) as wrapped:
                self.RequestHandlerClass(wrapped, address, self)
        except OSError:
            pass

    def handle_error(self, *_: object) -> None:
        pass


def may_capture() -> bool:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except (PermissionError, AttributeError):
        return False
    return True


@unittest.skipUnless(may_capture(), "SKIPPED: capturing needs root or CAP_NET_RAW")
@unittest.skipUnless(shutil.which("dumpcap") and shutil.which("tshark"), "SKIPPED: tshark is not installed")
class RealClients(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.dir = Path(folder.name)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
                        "-keyout", cls.dir / "key", "-out", cls.dir / "cert"], check=True, capture_output=True)
        cls.server = Server(("127.0.0.1", 0), Handler)
        cls.server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cls.server.tls.load_cert_chain(cls.dir / "cert", cls.dir / "key")
        cls.server.tls.num_tickets = 0
        cls.port = cls.server.server_address[1]
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)

    def capture(self, client: str, run: "callable", stable_ja3: bool = True) -> None:
        """Runs a client beside the engine and dumpcap; compares."""
        recording, out, err, noise = (self.dir / f"{client}.{kind}" for kind in ("pcapng", "out", "err", "dumpcap"))
        started = []
        with out.open("wb") as stdout, err.open("wb") as stderr, noise.open("wb") as dumpcap:
            started.append(subprocess.Popen(["dumpcap", "-q", "-i", "lo", "-f", f"tcp port {self.port}", "-w", recording],
                                            stderr=dumpcap))
            self.engine = subprocess.Popen([ENGINE, "fingerprint", "-i", "lo", "-f", f"port {self.port}", "--count",
                                            str(HANDSHAKES), "--seconds", "200"], stdout=stdout, stderr=stderr)
            started.append(self.engine)
        try:
            wait_for("both captures", lambda: "capturing on" in err.read_text() and "File:" in noise.read_text())
            run()
            self.assertEqual(self.engine.wait(210), 0, err.read_text())
            enough = HANDSHAKES * 9 // 10
            theirs = wait_for("the recording", lambda: enough <= len(found := self.recorded(recording)) and found, pause_s=0.3)
        finally:
            for process in started:
                process.kill()
                process.wait()
        hellos = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual(len(hellos), HANDSHAKES)
        self.assertEqual(len({hello["ja4"] for hello in hellos}), 1, {hello["ja4"] for hello in hellos})
        self.assertTrue(all(hello["tcp_meta_mss"] and hello["syn_to_clienthello_ms"] is not None for hello in hellos))
        if stable_ja3:
            self.assertEqual(len({hello["ja3_hash"] for hello in hellos}), 1)
        ours = {str(hello["src_port"]): hello["ja3_hash"] for hello in hellos}
        both = ours.keys() & theirs.keys()
        self.assertGreaterEqual(len(both), enough)
        self.assertEqual({port: ours[port] for port in both}, {port: theirs[port] for port in both})
        print(f"  {client}: {HANDSHAKES} x {hellos[0]['ja4']}", flush=True)

    def recorded(self, recording: Path) -> dict[str, str]:
        """tshark's JA3 of each hello by its source port; the recording may still be written."""
        fields = ["-e", "tcp.srcport", "-e", "tls.handshake.ja3"]
        shown = subprocess.run(["tshark", "-r", recording, "-d", f"tcp.port=={self.port},tls", "-Y", "tls.handshake.type==1",
                                "-T", "fields", *fields], capture_output=True, text=True, check=False)
        return dict(line.split("\t") for line in shown.stdout.splitlines() if "\t" in line)

    def need(self, *programs: str) -> str:
        for program in programs:
            if shutil.which(program):
                return program
        self.skipTest(f"SKIPPED: {' or '.join(programs)} is not installed")

    def each(self, *command: str, sends: bytes = b"") -> None:
        def once(_: int) -> None:
            # What matters is the hello; a client that then waits for something is not waited for.
            try:
                subprocess.run(command, input=sends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=5)
            except subprocess.TimeoutExpired:
                pass
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(once, range(HANDSHAKES)))

    def test_curl(self) -> None:
        curl = self.need("curl")
        self.capture("curl", lambda: self.each(curl, "-sk", f"https://127.0.0.1:{self.port}/"))

    def test_openssl(self) -> None:
        openssl = self.need("openssl")
        self.capture("openssl", lambda: self.each(openssl, "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", "o.example",
                                                   "-ign_eof", sends=b"GET / HTTP/1.0\r\n\r\n"))

    def test_python(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        def run() -> None:
            for _ in range(HANDSHAKES):
                with socket.create_connection(("127.0.0.1", self.port)) as plain, context.wrap_socket(plain, server_hostname="p.example"):
                    pass
        self.capture("python", run)

    def test_node(self) -> None:
        node = self.need("node")
        self.capture("node", lambda: subprocess.run([node, "-e", NODE, str(self.port), str(HANDSHAKES)], timeout=120, check=True))

    def test_go(self) -> None:
        go = self.need("go")
        source = self.dir / "client.go"
        source.write_text(GO)
        subprocess.run([go, "build", "-o", self.dir / "client", source], check=True, env={**os.environ, "GOFLAGS": "-mod=mod"})
        url = f"https://127.0.0.1:{self.port}/"
        self.capture("go", lambda: subprocess.run([self.dir / "client", url, str(HANDSHAKES)], timeout=120, check=True))

    def test_chromium(self) -> None:
        chromium = self.need("chromium", "chromium-browser", "google-chrome")
        with tempfile.TemporaryDirectory() as profile:
            command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", "--no-first-run",
                       "--disable-background-networking", "--no-proxy-server", f"--user-data-dir={profile}", "--timeout=60000",
                       "--host-resolver-rules=MAP * 127.0.0.1", "--dump-dom", f"https://page.example:{self.port}/page"]
            # The order of its extensions changes, and with it the JA3.
            self.capture("chromium", lambda: subprocess.run(command, capture_output=True, timeout=120), stable_ja3=False)

    def test_firefox(self) -> None:
        firefox = self.need("firefox-esr", "firefox")
        with tempfile.TemporaryDirectory() as profile:
            Path(profile, "user.js").write_text(
                'user_pref("network.dns.localDomains", "%s");\nuser_pref("network.stricttransportsecurity.preloadlist", false);\n'
                'user_pref("browser.shell.checkDefaultBrowser", false);\n' % ",".join(f"h{n}.example" for n in range(HANDSHAKES)))
            def run() -> None:
                process = subprocess.Popen([firefox, "--headless", "--profile", profile, f"http://127.0.0.1:{plain}/page"],
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    wait_for("its handshakes", lambda: self.engine.poll() is not None, limit_s=200)
                finally:
                    process.terminate()
                    process.wait()
            # A page without TLS: Firefox would stop at the certificate. Its images' handshakes are enough.
            class Plain(Handler):
                def do_GET(inner) -> None:  # noqa: N805
                    page = "".join(f"<img src='https://h{n}.example:{self.port}/x'>" for n in range(HANDSHAKES)).encode()
                    inner.send_response(200)
                    inner.send_header("Content-Type", "text/html")
                    inner.send_header("Content-Length", str(len(page)))
                    inner.end_headers()
                    inner.wfile.write(page)
            pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain)
            plain = pages.server_address[1]
            threading.Thread(target=pages.serve_forever, daemon=True).start()
            self.addCleanup(pages.server_close)
            self.addCleanup(pages.shutdown)
            self.capture("firefox", run)


if __name__ == "__main__":
    unittest.main()

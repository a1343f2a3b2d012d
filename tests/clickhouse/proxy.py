"""An HTTP proxy before ClickHouse that fails as networks and servers do; which request fails how is drawn from a seed.

refuse      the connection is closed before the request is read
cut_before  the request is read, the server never sees it, the connection is closed
cut_after   the server does it, the answer is lost
hang        the server never sees it, nothing is answered until the client goes
hang_after  the server does it, nothing is answered until the client goes
slow        the answer comes late and byte by byte
exception   a status of 200, and an exception in the body; the server never sees it
exception_after  the same after the server has done it
overload    a status of 503
"""

import http.client
import random
import select
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("refuse", "cut_before", "cut_after", "hang", "hang_after", "slow", "exception", "exception_after", "overload")
DENIED = b"Code: 516. DB::Exception: me: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)\n"
NO_RIGHT = b"Code: 497. DB::Exception: reader: Not enough privileges. To execute this query, it's necessary to have the grant INSERT. (ACCESS_DENIED)\n"
EXCEPTION = b"\r\nCode: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED) (version 26.9.2.1 (official build))\n"


class Proxy:
    """Serves until it is closed. Only inserts fail, `share` of them, at most `most` in all."""

    def __init__(self, url: str, seed: int = 0, share: float = 0.0, most: int = 1 << 30, faults: tuple = FAULTS,
                 tls: ssl.SSLContext | None = None) -> None:
        self.upstream = urlsplit(url).netloc
        self.rng, self.share, self.most, self.faults = random.Random(seed), share, most, faults
        self.down = False
        # What becomes of answers with rows: "" nothing, "hang" they never come, "cut" half of them comes.
        self.reads = ""
        # Nobody is let in: every request is answered so; or nobody may write.
        self.denied = self.read_only = False
        # The version that the server says it has, in place of its own.
        self.version = ""
        # So many inserts are let through before all are refused; None for any number.
        self.allowed: int | None = None
        # Of the last insert.
        self.insert = ""
        # Inserts that are with the server or waiting for its answer, now and the most so far.
        self.at_once = self.most_at_once = 0
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                proxy.answer(self)

            do_GET = do_POST

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError, ValueError, ssl.SSLError):
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            # The handshake is done by the connection's own thread, at the first read.
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def draw(self, path: str) -> str:
        with self.lock:
            if self.down:
                return "refuse"
            # An insert without a name has no rows: it is how the sink asks whether it may write.
            insert = "INSERT" in path and "insert_deduplication_token" in path
            self.insert = path if insert else self.insert
            if insert and self.allowed is not None:
                if self.allowed <= 0:
                    self.counts["refuse"] += 1
                    return "refuse"
                self.allowed -= 1
                return ""
            if not insert or self.most <= 0 or self.rng.random() >= self.share:
                return ""
            self.most -= 1
            fault = self.rng.choice(self.faults)
            self.counts[fault] += 1
            return fault

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        fault = self.draw(handler.path)
        if fault == "refuse":
            handler.close_connection = True
            return
        body = read(handler)
        if self.denied:
            self.counts["denied"] += 1
            respond(handler, 403, {"X-ClickHouse-Exception-Code": "516"}, DENIED)
            return
        if self.read_only and "INSERT" in handler.path:
            respond(handler, 500, {"X-ClickHouse-Exception-Code": "497"}, NO_RIGHT)
            return
        if self.version and b"version()" in body:
            respond(handler, 200, {"X-ClickHouse-Format": "TabSeparatedRaw"}, f"{self.version}\n".encode())
            return
        if "INSERT" in handler.path:
            with self.counted():
                self.reply(handler, body, fault)
        else:
            self.reply(handler, body, fault)

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1

    def reply(self, handler: BaseHTTPRequestHandler, body: bytes, fault: str) -> None:
        if self.reads and "ArrowStream" in handler.path and "INSERT" not in handler.path:
            self.spoil(handler, body)
            return
        if fault in ("cut_before", "hang", "exception", "overload"):
            status, headers, data = 200, {}, b""
        else:
            status, headers, data = self.forward(handler, body)
        if fault in ("cut_before", "cut_after"):
            handler.close_connection = True
        elif fault in ("hang", "hang_after"):
            select.select([handler.connection], [], [], 60)
            handler.close_connection = True
        elif fault in ("exception", "exception_after"):
            respond(handler, 200, {"X-ClickHouse-Format": "Null"}, EXCEPTION)
        elif fault == "overload":
            respond(handler, 503, {}, b"no upstream\n")
        else:
            respond(handler, status, headers, data, pause=0.02 if fault == "slow" else 0)

    def spoil(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """An answer with rows that does not arrive as a whole."""
        handler.close_connection = True
        if self.reads == "hang":
            select.select([handler.connection], [], [], 60)
            return
        status, headers, data = self.forward(handler, body)
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])

    def forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            left_out = {"host", "transfer-encoding", "content-length", "connection"}
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in left_out}
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower().startswith(("x-", "content-enc", "content-type"))}
            return answer.status, kept, answer.read()
        except OSError:
            raise ConnectionError("the server is gone") from None
        finally:
            connection.close()


def read(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    parts = []
    while True:
        size = int(handler.rfile.readline(1024).split(b";")[0] or b"-", 16)
        parts.append(handler.rfile.read(size))
        handler.rfile.readline(1024)
        if size == 0:
            return b"".join(parts)


def respond(handler: BaseHTTPRequestHandler, status: int, headers: dict, data: bytes, pause: float = 0) -> None:
    time.sleep(pause * 10)
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    for at in range(len(data)) if pause and len(data) < 200 else [None]:
        handler.wfile.write(data if at is None else data[at : at + 1])
        time.sleep(pause)

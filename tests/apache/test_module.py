"""The module in Debian's Apache under each MPM: what clients sent and what the server's own log says against the records, hostile
requests, a graceful restart, and a receiver that is absent, full or slow.
"""

import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.apache.httpd import (
    HOST, Httpd, PREFACE, Receiver, connect, exchange, frame, free_port, literal, own_network, queue, read_streams, request, settings, tls,
    why_not,
)
from tests.support import wait_for

SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
# Hostile requests of each MPM.
HOSTILE = int(os.environ.get("HOSTILE") or 400)
LOGGED = ("User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "X-Request-Id", "X-Trace-Id",
          "X-Forwarded-For", "Referer", "Sec-CH-UA", "Sec-CH-UA-Mobile", "Sec-CH-UA-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode",
          "Sec-Fetch-Site", "Sec-Fetch-User")


def setUpModule() -> None:
    own_network()


class ModuleCase(unittest.TestCase):
    """A test with a directory, a receiver and servers of its own."""

    mpm = "event"

    def setUp(self) -> None:
        reason = why_not()
        if reason:
            self.skipTest(reason)
        directory = tempfile.TemporaryDirectory(prefix="ja4-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def receiver(self) -> Receiver:
        """One that listens."""
        receiver = Receiver(self.directory / "http.socket")
        self.addCleanup(receiver.close)
        return receiver

    def httpd(self, **options: object) -> Httpd:
        """A server that has started."""
        return Httpd(self, self.directory, self.mpm, **options).start()

    def await_records(self, receiver: Receiver, count: int, limit_s: float = 30) -> list[dict]:
        """All records, once there are so many."""
        try:
            wait_for("the records", lambda: len(receiver.raw) >= count, limit_s)
        except TimeoutError:
            self.fail(f"{len(receiver.raw)} records of {count}")
        return receiver.records


class Mpm:
    """What holds under every MPM."""

    mpm = ""

    def test_every_request_is_a_record(self):
        """On plain connections, TLS and IPv6; against what the client knows, and against mod_log_config's log."""
        receiver, port6 = self.receiver(), free_port()
        httpd = self.httpd(listen=f"Listen [::1]:{port6}")
        sent = []
        for address, port, context in (
            ("127.0.0.1", httpd.http, None), ("127.0.0.1", httpd.https, tls(self.directory, "http/1.1")),
            ("127.0.0.1", httpd.https, tls(self.directory)), ("::1", port6, None),
        ):
            with connect(address, port, context) as connection:
                own = connection.getsockname()
                for index, path in enumerate(("/", "/large", "/missing", "/", "/index.html"), 1):
                    head = f"GET {path}?n={index} HTTP/1.1\r\nhost: {HOST}\r\nUser-Agent: test\r\nX-Mine: x\r\n"
                    answer = exchange(connection, f"{head}cookie: a=SECRET\r\nAccept: */*\r\n\r\n".encode())
                    status, size = int(answer.split()[1]), len(answer.partition(b"\r\n\r\n")[2])
                    sent.append((own[0], own[1], address, port, "https" if context else "http", path, f"n={index}", index, status, size))
        records = self.await_records(receiver, len(sent))
        names = ("src_ip", "src_port", "dst_ip", "dst_port", "scheme", "path", "query", "keepalive_index", "status_code", "response_size")
        self.assertEqual([tuple(record[name] for name in names) for record in records], sent)
        for record in records:
            self.assertEqual(record["client_headers"], "host,User-Agent,X-Mine,cookie,Accept")
            self.assertEqual(record["header_order_signature"], "host;User-Agent;X-Mine;cookie;Accept")
            self.assertEqual((record["header_User-Agent"], record["header_Accept"]), ("test", "*/*"))
            self.assertEqual((record["has_cookie"], record["has_authorization"], record["method"]), (True, False, "GET"))
            self.assertEqual((record["http_version"], "h2_signature" in record), ("HTTP/1.1", False))
            self.assertEqual("server_tls_version" in record, record["scheme"] == "https")
            if record["scheme"] == "https":
                self.assertEqual((record["server_tls_version"], record["server_tls_sni"], record["host"]), ("TLSv1.3", HOST, HOST))
        self.assertNotIn(b"SECRET", b"".join(receiver.raw))
        self.check_truth(httpd, records)

    def check_truth(self, httpd: Httpd, records: list[dict]) -> None:
        """mod_log_config has the same lines; the duration is taken a moment apart, so that it may differ by a little."""
        names = ("src_ip", "src_port", "status_code", "response_size")
        lines = [[*map(str, (record[name] for name in names)), str(record["timestamp"] // 1000), record["http_version"]]
                 for record in records]
        truth = httpd.truth()
        self.assertEqual(sorted(lines), sorted([*line[:5], line[6]] for line in truth))
        took = {(line[1], line[4]): int(line[5]) for line in truth}
        for record in records:
            of_log = took[str(record["src_port"]), str(record["timestamp"] // 1000)]
            self.assertLess(abs(record["duration_us"] - of_log), 20_000)
            self.assertEqual(record["duration_ms"], record["duration_us"] // 1000)

    def test_hostile_requests_are_records_that_equal_what_was_sent(self):
        """Odd bytes, sizes and methods, up to 100 headers and values of 8 kB."""
        receiver = self.receiver()
        # Debian's limits, but for the number: the module bounds what it takes, whatever the server allows.
        httpd = self.httpd(directives="LimitRequestFields 120\n")
        rng = random.Random(SEED)
        accepted = 0
        for number in range(HOSTILE):
            sent = Hostile(rng)
            with connect("127.0.0.1", httpd.http) as connection:
                answer = exchange(connection, sent.text)
                port = connection.getsockname()[1]
            wait_for("the record", lambda number=number: len(receiver.raw) > number)
            record = json.loads(receiver.raw[number])
            about = f"seed {SEED}, request {number}: {sent.text!r}\n{record}"
            self.assertEqual(record["src_port"], port, about)
            self.assertEqual(record["status_code"], int(answer.split()[1]), about)
            if record["status_code"] not in (200, 404, 405, 501):
                continue
            accepted += 1
            for key, value in sent.expected().items():
                self.assertEqual(record.get(key), value, f"{key}: {about}")
        self.assertGreater(accepted, HOSTILE // 3)
        self.assertEqual(httpd.counters()["LostDefect"], 0)

    def test_what_is_no_request_is_no_harm(self):
        """Garbage and nothing at all, on both ports; a record where the server logs a line, and it still answers."""
        receiver = self.receiver()
        httpd = self.httpd()
        rng = random.Random(SEED)
        for number in range(60):
            context = tls(self.directory, "h2", "http/1.1") if number % 2 else None
            with connect("127.0.0.1", httpd.https if context else httpd.http, context) as connection:
                junk = rng.randbytes(rng.randrange(200))
                connection.sendall(rng.choice((b"", PREFACE, b"PRI * HTTP/2.0\r\n\r\n", b"\r\n\r\n")) + junk + b"\r\n\r\n")
                connection.settimeout(0.05)
                try:
                    connection.recv(100)
                except OSError:
                    continue
        with connect("127.0.0.1", httpd.http) as connection:
            self.assertIn(b"200", exchange(connection, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[:20])
            port = connection.getsockname()[1]
        wait_for("the record", lambda: any(record["src_port"] == port for record in receiver.records))

    def test_graceful_restarts_lose_nothing(self):
        """Requests go on while the server reads its configuration again; each that was answered is a record, once."""
        receiver = self.receiver()
        httpd = self.httpd()
        stop, answered = threading.Event(), []

        def ask(thread: int) -> None:
            number = 0
            while not stop.is_set():
                try:
                    with connect("127.0.0.1", httpd.http) as connection:
                        for _ in range(3):
                            number += 1
                            path = f"/{thread}/{number}"
                            answer = exchange(connection, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                            if not answer:
                                break
                            answered.append(path)
                except ConnectionError:
                    continue
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(ask, thread) for thread in range(4)]
            for _ in range(4):
                before = len(answered)
                wait_for("requests", lambda before=before: len(answered) > before + 50)
                httpd.graceful()
            stop.set()
            for one in running:
                one.result()
        records = self.await_records(receiver, len(answered))
        paths = [record["path"] for record in records]
        self.assertEqual(len(set(paths)), len(paths))
        self.assertLessEqual(set(answered), set(paths))
        counters = httpd.counters()
        self.assertGreaterEqual(counters["Sent"], len(paths), "the counters go on")
        self.assertEqual(sum(counters[name] for name in counters if name.startswith("Lost")), 0)

    def test_a_receiver_that_is_absent_full_or_started_again(self):
        """Every request is answered at once; every record is received or counted as lost, and the next one says so."""
        intervals = "JsonSockLogReconnectInterval 1\nJsonSockLogErrorReportInterval 3600\n"
        httpd, begin = self.httpd(directives=intervals), time.monotonic()
        self.ask(httpd, 50)
        wait_for("the losses", lambda: httpd.counters()["LostUnreachable"] >= 50)
        self.assertLess(time.monotonic() - begin, 20)
        receiver = self.receiver()
        wait_for("a record", lambda: self.ask(httpd, 1) and receiver.raw)
        receiver.paused.set()
        wait_for("a full queue", lambda: self.ask(httpd, 50) and httpd.counters()["LostFull"] > 5, limit_s=120)
        receiver.paused.clear()
        received = len(receiver.raw)
        wait_for("records again", lambda: self.ask(httpd, 1) and len(receiver.raw) > received)
        receiver.close()
        receiver = self.receiver()
        wait_for("a reconnect", lambda: self.ask(httpd, 1) and receiver.raw)
        counters = httpd.counters()
        self.assertEqual(counters["LostTooLarge"] + counters["LostDefect"], 0)
        httpd.stop()
        lines = re.findall(r"mod_reqin_log: (.*)", httpd.log())
        about = "\n".join(lines)
        processes = len(set(re.findall(r"\[pid (\d+)", httpd.log())))
        self.assertTrue(any("nobody receives there" in line for line in lines), about)
        # One an interval and process, and one at its end.
        self.assertLessEqual(len(lines), 2 * processes, about)

    def test_lost_records_are_all_said(self):
        """Of one process: what it sent, and what the records say was lost before them, is what it was asked."""
        receiver = self.receiver()
        httpd = self.httpd()
        if self.mpm == "prefork":
            self.skipTest("several processes; another test has their sum")
        receiver.paused.set()
        with connect("127.0.0.1", httpd.http) as connection:
            for _ in range(queue() + 200):
                exchange(connection, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            receiver.paused.clear()
            lost = wait_for("what was lost", lambda: exchange(connection, b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n") and [
                record["lost_before"] for record in receiver.records if "lost_before" in record])
            asked = len([line for line in httpd.truth() if line[1] == str(connection.getsockname()[1])])
        self.await_records(receiver, asked - sum(lost))
        self.assertEqual(len(receiver.raw) + sum(lost), asked)

    def ask(self, httpd: Httpd, count: int) -> int:
        """So many requests, none of which may take long."""
        with connect("127.0.0.1", httpd.http) as connection:
            connection.settimeout(5)
            for _ in range(count):
                self.assertIn(b"200", exchange(connection, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[:20])
        return count


class Prefork(Mpm, ModuleCase):
    mpm = "prefork"


class Worker(Mpm, ModuleCase):
    mpm = "worker"


class Event(Mpm, ModuleCase):
    mpm = "event"


class Hostile:
    """A request whose parts are drawn; `text` is what is sent."""

    def __init__(self, rng: random.Random) -> None:
        self.method = rng.choice((b"GET", b"GET", b"HEAD", b"POST", b"BREW", b"get", b"A" * 40, b"M-SEARCH", b"G\xe9T"))
        self.path = b"/" + self.word(rng, rng.choice((3, 30, 3000)))
        self.query = self.word(rng, rng.choice((0, 30, 4000)))
        self.headers = [(b"Host", b"www.example.test"), (b"Connection", b"close")]
        for _ in range(rng.choice((0, 3, 20, 98))):
            name = rng.choice(LOGGED).encode() if rng.random() < 0.5 else b"X-" + bytes(rng.choices(b"abcXYZ09-_.!~", k=rng.randrange(1, 30)))
            if rng.random() < 0.2:
                name = name.swapcase()
            size = rng.choice((0, 5, 5, 40, 300, 8000)) if len(self.headers) < 12 else rng.choice((0, 5, 40))
            self.headers.append((name, self.value(rng, size)))
        rng.shuffle(self.headers)
        target = self.path + (b"?" + self.query if self.query or rng.random() < 0.1 else b"")
        head = b"".join(name + b": " + value + b"\r\n" for name, value in self.headers)
        self.text = self.method + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n"

    @staticmethod
    def word(rng: random.Random, most: int) -> bytes:
        """A part of a target; now and then with bytes that no client should send."""
        parts = [*(bytes([byte]) for byte in b"abc/.;=&-_~"), b"%41", b"%C3%BC"]
        if rng.random() < 0.5:
            parts += [b'"', b"\\", b"<", b"{", b"|", b"^", b"`", b"\xc3\xbc", b"\xe2\x82\xac", b"\xff", b"\x80"]
        return b"".join(rng.choices(parts, k=rng.randrange(most + 1))).replace(b"//", b"/a")[:most]

    @staticmethod
    def value(rng: random.Random, size: int) -> bytes:
        """A header's value."""
        letters = b'abc ,;="\\/\t' + (b"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\xff\xfe" if rng.random() < 0.5 else b"")
        letters += b"\x01\x1f" if rng.random() < 0.02 else b""
        return bytes(rng.choices(letters, k=size))

    def expected(self) -> dict[str, str | None]:
        """What the record of it must have. The server takes blanks off a value's ends, and puts repeated headers into one."""
        merged: dict[bytes, list] = {}
        for name, value in self.headers:
            merged.setdefault(name.lower(), [name, []])[1].append(value.strip(b" \t"))
        values = {name: b", ".join(values) for name, (_, values) in merged.items()}
        names = b",".join(name for name, _ in merged.values()).decode("utf-8", "replace")
        logged = [name for name in LOGGED if name.lower().encode() in values]
        want = {f"header_{name}": self.cut(values[name.lower().encode()]) for name in logged}
        return want | {
            "method": self.method.decode("utf-8", "replace"), "path": self.path.decode("utf-8", "replace"),
            "query": self.query.decode("utf-8", "replace"), "client_headers": names, "header_order_signature": names.replace(",", ";"),
            "host": "www.example.test", "truncated": None, "http_version": "HTTP/1.1",
        }

    @staticmethod
    def cut(value: bytes) -> str:
        """Its first 256 bytes, without a part of a character."""
        end = min(256, len(value))
        while len(value) > 256 and end > 253 and value[end] & 0xC0 == 0x80:
            end -= 1
        if len(value) > 256 and value[end] & 0xC0 == 0x80:
            end = 256
        return value[:end].decode("utf-8", "replace")


class Configuration(ModuleCase):
    """Directives, hosts and other modules."""

    def test_faults_are_named(self):
        for directives, says in (
            ("JsonSockLogMaxHeaders many", "JsonSockLogMaxHeaders takes a whole number from 0 to 100, not `many`"),
            ("JsonSockLogEnabled maybe", "JsonSockLogEnabled takes On or Off, not `maybe`"),
            ("JsonSockLogLevel loud", "JsonSockLogLevel takes DEBUG, INFO, WARNING, ERROR or EMERG, not `loud`"),
            (f"JsonSockLogSocket /{'a' * 200}", "JsonSockLogSocket takes a path of 1 to 107 bytes"),
            ("JsonSockLogHeaders", "JsonSockLogHeaders requires at least one argument"),
            ("<Directory />\nJsonSockLogEnabled On\n</Directory>", "JsonSockLogEnabled not allowed in <Directory> context"),
        ):
            checked = Httpd(self, self.directory, self.mpm, directives=directives).check()
            self.assertNotEqual(checked.returncode, 0, directives)
            self.assertIn(says, checked.stderr)
        httpd = Httpd(self, self.directory, self.mpm)
        text = httpd.configuration.read_text()
        httpd.configuration.write_text(re.sub("^JsonSockLogSocket.*\n", "", text, flags=re.MULTILINE))
        checked = httpd.check()
        self.assertNotEqual(checked.returncode, 0)
        self.assertIn("JsonSockLogEnabled is On, but there is no JsonSockLogSocket", checked.stderr + httpd.log())

    def test_a_secret_header_is_left_out_with_a_warning(self):
        receiver = self.receiver()
        httpd = self.httpd(directives="JsonSockLogHeaders Authorization User-Agent cookie\nJsonSockLogHeaders x-Mine\n")
        with connect("127.0.0.1", httpd.http) as connection:
            exchange(connection, b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic U0VDUkVU\r\nCookie: SECRET\r\nuser-agent: a\r\nX-MINE: b\r\n"
                                 b"Accept: c\r\n\r\n")
        [record] = self.await_records(receiver, 1)
        self.assertEqual({key: value for key, value in record.items() if key.startswith(("header_", "has_"))}, {
            "has_cookie": True, "has_authorization": True, "header_User-Agent": "a", "header_x-Mine": "b",
            "header_order_signature": "Host;Authorization;Cookie;user-agent;X-MINE;Accept"})
        self.assertNotRegex(receiver.raw[0].decode(), "SECRET|U0VDUkVU")
        said = (self.directory / "said").read_text() + httpd.log()
        self.assertIn("the value of Authorization is never logged", said)

    def test_many_hosts_with_settings_of_their_own(self):
        receiver = self.receiver()
        other = Receiver(self.directory / "other.socket")
        self.addCleanup(other.close)
        port = free_port()
        hosts = "".join(
            f"<VirtualHost *:{port}>\nServerName h{number}.test\nJsonSockLogEnabled {'Off' if number % 3 == 0 else 'On'}\n"
            f"{'JsonSockLogSocket other.socket' if number % 3 == 1 else ''}\nJsonSockLogHeaders X-{number}\n</VirtualHost>\n"
            for number in range(300))
        httpd = self.httpd(hosts=hosts, listen=f"Listen 127.0.0.1:{port}")
        with connect("127.0.0.1", port) as connection:
            for number in range(300):
                exchange(connection, f"GET / HTTP/1.1\r\nHost: h{number}.test\r\nX-{number}: a\r\nX-{number + 1}: b\r\n\r\n".encode())
        for one, remainder in ((receiver, 2), (other, 1)):
            records = self.await_records(one, 100)
            numbers = range(remainder, 300, 3)
            self.assertEqual([record["host"] for record in records], [f"h{number}.test" for number in numbers])
            kept = [[key for key in record if re.match(r"header_X-\d", key)] for record in records]
            self.assertEqual(kept, [[f"header_X-{number}"] for number in numbers])
        self.assertEqual(httpd.counters()["Sent"], 200)

    def test_mod_remoteip_and_others_change_nothing_that_the_client_sent(self):
        """The connection's address is what the join needs; a rewritten path and a removed header are the client's still."""
        receiver = self.receiver()
        httpd = self.httpd(
            modules=("remoteip", "headers", "rewrite"),
            directives="RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\nRequestHeader unset Accept early\n"
                       "RequestHeader set User-Agent other\nRewriteEngine On\nRewriteRule ^/old /index.html?new [PT]\n"
                       "ErrorDocument 404 /index.html\n")
        with connect("127.0.0.1", httpd.http) as connection:
            for target in ("/old?a=b", "/missing?c", f"http://{HOST}/old?d"):
                exchange(connection, f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept: x\r\nUser-Agent: y\r\n"
                                     "X-Forwarded-For: 203.0.113.7\r\n\r\n".encode())
        records = self.await_records(receiver, 3)
        self.assertEqual([(record["path"], record["query"], record["status_code"]) for record in records],
                         [("/old", "a=b", 200), ("/missing", "c", 404), ("/old", "d", 200)])
        for record in records:
            self.assertEqual((record["src_ip"], record["useragent_ip"]), ("127.0.0.1", "203.0.113.7"))
            self.assertEqual((record["header_Accept"], record["header_User-Agent"], record["header_X-Forwarded-For"]), ("x", "y", "203.0.113.7"))
            self.assertEqual(record["client_headers"], "Host,Accept,User-Agent,X-Forwarded-For")
            self.assertGreater(record["response_size"], 0)

    def test_a_record_too_long_for_a_datagram_is_cut_and_says_so(self):
        receiver = self.receiver()
        httpd = self.httpd(directives="LimitRequestLine 100000\nLimitRequestFieldSize 100000\nLimitRequestFields 0\n")
        names = "".join(f"X-{number:03}-{'n' * 800}: v\r\n" for number in range(60))
        with connect("127.0.0.1", httpd.http) as connection:
            for path in ("/" + "p" * 10_000, "/" + "p" * 80_000):
                exchange(connection, f"GET {path}?q HTTP/1.1\r\nHost: x\r\n{names}User-Agent: a\r\n\r\n".encode())
        short, long = self.await_records(receiver, 2)
        self.assertEqual((short["path"], short["query"], short["header_User-Agent"]), ("/" + "p" * 10_000, "q", "a"))
        self.assertEqual(short["truncated"], "header_order_signature")
        self.assertEqual(len(short["client_headers"].split(",")), 62)
        self.assertEqual(long["truncated"], "header_order_signature,client_headers,query,header_User-Agent,path")
        self.assertEqual(set(long["path"][1:]), {"p"})
        for raw in receiver.raw:
            self.assertLessEqual(len(raw), 64_000)
            self.assertGreater(len(raw), 63_000)
        self.assertEqual(httpd.counters()["Cut"], 2)

    def test_children_that_end_and_begin(self):
        """A process that ends after few connections takes nothing with it."""
        receiver = self.receiver()
        httpd = self.httpd(per_child=5)
        for number in range(60):
            with connect("127.0.0.1", httpd.http) as connection:
                exchange(connection, f"GET /{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        records = self.await_records(receiver, 60)
        self.assertEqual({record["path"] for record in records}, {f"/{number}" for number in range(60)})


class Http2(ModuleCase):
    """Streams and the frames that a connection begins with."""

    FIELDS = ((":method", "GET"), (":authority", HOST), (":scheme", "https"), (":path", "/?q"), ("user-agent", "me"), ("x-a", "b"))

    def test_streams_have_their_connection(self):
        """Many at once, under both MPMs that have HTTP/2."""
        for self.mpm in ("worker", "event"):
            with self.subTest(self.mpm):
                receiver, httpd = self.receiver(), self.httpd()
                with connect("127.0.0.1", httpd.https, tls(self.directory, "h2")) as connection:
                    streams = range(1, 81, 2)
                    frames = [request(stream, *self.FIELDS[:3], (":path", f"/?{stream}"), *self.FIELDS[4:]) for stream in streams]
                    connection.sendall(PREFACE + settings((4, 65535)) + b"".join(frames))
                    read_streams(connection, set(streams))
                    port = connection.getsockname()[1]
                records = self.await_records(receiver, len(streams))
                self.assertEqual({(record["src_ip"], record["src_port"]) for record in records}, {("127.0.0.1", port)})
                self.assertEqual({(record["dst_ip"], record["dst_port"]) for record in records}, {("127.0.0.1", httpd.https)})
                self.assertEqual({record["query"] for record in records}, {str(stream) for stream in streams})
                self.assertEqual(sorted(record["keepalive_index"] for record in records), list(range(1, len(streams) + 1)))
                self.assertEqual({record["h2_signature"] for record in records}, {"4:65535|00|0|m,a,s,p"})
                self.assertEqual({record["client_headers"] for record in records}, {"user-agent,x-a"})
                self.assertEqual({record["server_tls_sni"] for record in records}, {HOST})
                httpd.stop()
                receiver.close()

    def test_each_frame_is_in_the_signature(self):
        receiver, httpd = self.receiver(), self.httpd()
        fields = dict(self.FIELDS)
        order = (":path", ":scheme", ":method", ":authority", "user-agent")
        priority = frame(2, 0, 3, b"\0\0\0\0\xc8") + frame(2, 0, 5, b"\x80\0\0\x03\0")
        cases = {
            settings((1, 65536), (2, 0), (4, 6291456), (6, 262144)) + frame(8, 0, 0, (15663105).to_bytes(4, "big"))
            + request(1, *self.FIELDS, flags=0x25, before=b"\x80\0\0\0\xff"): {
                "h2_signature": "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p", "h2_settings": "1:65536,2:0,4:6291456,6:262144",
                "h2_header_table_size": 65536, "h2_enable_push": 0, "h2_initial_window_size": 6291456, "h2_max_header_list_size": 262144,
                "h2_window_update": 15663105, "h2_headers_priority": "1:1:0:256", "h2_pseudo_order": "masp"},
            settings() + request(1, *self.FIELDS): {"h2_signature": "|00|0|m,a,s,p", "h2_settings": "", "h2_pseudo_order": "masp"},
            settings((3, 100), (5, 16384), (8, 0), (9, 1), (0x2A3A, 7)) + priority
            + request(7, *((name, fields[name]) for name in order)): {
                "h2_signature": "3:100;5:16384;8:0;9:1;GREASE|00|3:0:0:201,5:1:3:1|p,s,m,a", "h2_settings": "3:100,5:16384,8:0,9:1,10810:7",
                "h2_max_concurrent_streams": 100, "h2_max_frame_size": 16384, "h2_enable_connect_protocol": 0,
                "h2_no_rfc7540_priorities": 1, "h2_priorities": "3:0:0:201,5:1:3:1", "h2_pseudo_order": "psma"},
            settings((3, 1)) + frame(1, 0x9, 1, b"\x04" + literal(*self.FIELDS[0]) + bytes(4))
            + frame(9, 0x4, 1, b"".join(literal(*field) for field in self.FIELDS[1:])): {
                "h2_signature": "3:1|00|0|m,a,s,p", "h2_settings": "3:1", "h2_max_concurrent_streams": 1, "h2_pseudo_order": "masp"},
        }
        count = 0
        for frames, expected in cases.items():
            # A header block that comes in two frames byte by byte is too much for mod_http2, with or without the module.
            pieces = (len(frames), 1) if expected["h2_signature"] != "3:1|00|0|m,a,s,p" else (len(frames), 60)
            for piece in pieces:
                with connect("127.0.0.1", httpd.https, tls(self.directory, "h2")) as connection:
                    for at in range(0, len(PREFACE + frames), piece):
                        connection.sendall((PREFACE + frames)[at:at + piece])
                    read_streams(connection, {int.from_bytes(self.stream(frames), "big")})
                count += 1
                record = self.await_records(receiver, count)[-1]
                self.assertEqual({key: value for key, value in record.items() if key.startswith("h2_")}, expected)
        self.assertEqual((httpd.counters()["H2Connections"], httpd.counters()["H2Incomplete"]), (2 * len(cases), 0))

    @staticmethod
    def stream(frames: bytes) -> bytes:
        """The stream of the first HEADERS frame."""
        while frames[3] != 1:
            frames = frames[9 + int.from_bytes(frames[:3], "big"):]
        return frames[5:9]

    def test_broken_beginnings_do_no_harm(self):
        """Whatever follows the preface, the server goes on, and nothing panics."""
        receiver, httpd = self.receiver(), self.httpd()
        rng = random.Random(SEED)
        for _ in range(150):
            frames = settings(*((rng.randrange(1 << 16), rng.randrange(1 << 32)) for _ in range(rng.randrange(50))))
            for _ in range(rng.randrange(8)):
                frames += frame(rng.randrange(12), rng.randrange(256), rng.randrange(4), rng.randbytes(rng.choice((0, 4, 5, 8, 100))))
            with connect("127.0.0.1", httpd.https, tls(self.directory, "h2")) as connection:
                connection.settimeout(0.03)
                try:
                    connection.sendall(PREFACE + frames)
                    connection.recv(100)
                except OSError:
                    continue
        with connect("127.0.0.1", httpd.https, tls(self.directory, "h2")) as connection:
            connection.sendall(PREFACE + settings() + request(1, *self.FIELDS))
            read_streams(connection, {1})
            port = connection.getsockname()[1]
        wait_for("the record", lambda: any(record["src_port"] == port for record in receiver.records))
        counters = httpd.counters()
        self.assertEqual(counters["LostDefect"], 0)
        self.assertGreater(counters["H2Connections"], 20)

    def test_clear_text_too(self):
        """With prior knowledge, without TLS."""
        receiver, httpd = self.receiver(), self.httpd(directives="Protocols h2c http/1.1\n")
        with connect("127.0.0.1", httpd.http) as connection:
            connection.sendall(PREFACE + settings((3, 9)) + request(1, *((name, "http" if name == ":scheme" else value)
                                                                       for name, value in self.FIELDS)))
            read_streams(connection, {1})
        [record] = self.await_records(receiver, 1)
        self.assertEqual((record["h2_signature"], record["scheme"]), ("3:9|00|0|m,a,s,p", "http"))
        self.assertNotIn("server_tls_version", record)


@unittest.skipUnless(shutil.which("valgrind") and os.environ.get("VALGRIND"), "takes minutes: set VALGRIND=1")
class Valgrind(ModuleCase):
    """One process under valgrind: no invalid access of the module's."""

    mpm = "worker"

    def test_no_invalid_access(self):
        receiver = self.receiver()
        httpd = Httpd(self, self.directory, self.mpm)
        log = self.directory / "valgrind.log"
        command = ["valgrind", f"--log-file={log}", "--error-exitcode=0", "apache2", "-X", "-f", httpd.configuration]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", httpd.http)) == 0
        wait_for("the server", answers, limit_s=120, pause_s=0.5)
        rng = random.Random(SEED)
        for _ in range(60):
            with connect("127.0.0.1", httpd.http) as connection:
                exchange(connection, Hostile(rng).text)
        for _ in range(10):
            with connect("127.0.0.1", httpd.https, tls(self.directory, "h2")) as connection:
                connection.sendall(PREFACE + settings((3, 1)) + request(1, *Http2.FIELDS) + request(3, *Http2.FIELDS))
                read_streams(connection, {1, 3})
        self.await_records(receiver, 80, limit_s=60)
        process.terminate()
        process.wait(120)
        # Other libraries have findings of their own; the module's functions are in none.
        found = re.findall(r"(?:Invalid|Conditional|Use of uninit)[\s\S]*?\n==\d+== \n", log.read_text())
        self.assertEqual([one for one in found if "mod_reqin_log" in one], [])


if __name__ == "__main__":
    unittest.main()

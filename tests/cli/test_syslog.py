"""`source.syslog` with senders of every kind, good and bad; `sink.syslog` with a collector that comes and goes."""

import contextlib
import json
import re
import signal
import socket
import threading
import time

from tests.support import LIMIT_S, OK, REFUSED, Case, get, served, start, wait_for

HEADERS = [
    "<190>Nov 23 15:35:27 web nginx: ",
    "<190>Nov 23 15:35:27 haproxy[12]: ",
    "<190>1 2026-11-23T15:35:27.143Z web caddy 7 - [a@1 b=\"{\\]\"] ",
    "<190>",
    "",
]
COLUMNS = [
    {"syslog_hostname": "web", "syslog_app": "nginx"}, {"syslog_app": "haproxy"},
    {"syslog_hostname": "web", "syslog_app": "caddy"}, {}, {},
]


def free_port() -> int:
    """A port that nobody has at the moment, over UDP and TCP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return tcp.getsockname()[1]


def message(number: int, header: str = HEADERS[0]) -> bytes:
    """A request of now as a message."""
    line = {"timestamp": time.time_ns(), "src_ip": "192.0.2.1", "src_port": 7, "path": f"/{number}"}
    return (header + json.dumps(line)).encode()


class Source(Case):
    """A live pipeline with one source."""

    def setUp(self) -> None:
        super().setUp()
        self.port = free_port()
        self.process = None
        self.starts = 0

    def begin(self, options: str = "", listen: str | None = None) -> None:
        """Starts it, and waits until it listens."""
        places = listen or ", ".join(f"'{place}'" for place in (
            f"udp://127.0.0.1:{self.port}", f"tcp://127.0.0.1:{self.port}", "unix-dgram://in.dgram", "unix-stream://in.stream"))
        self.write("live.yaml", f"""\
name: live
data_dir: data
nodes:
  - {{ id: lines, kind: source.syslog, listen: [{places}], format: reqin_log, syslog_columns: true {options} }}
  - {{ id: rows, kind: sink.jsonl, from: lines, path: data/rows.jsonl }}
  - {{ id: rejected, kind: sink.jsonl, from: lines.rejected, path: data/rejected.jsonl }}
serve:
  listen: 127.0.0.1:0
  tables: {{ requests: lines }}
""")
        self.starts += 1
        self.log = self.directory / f"log-{self.starts}"
        self.process = start("run", self.directory / "live.yaml", log=self.log)
        self.addCleanup(self.end)
        self.base = served(self.log)
        wait_for("a listener", self.listens)

    def listens(self) -> bool:
        """Whether the TCP port answers, if there is one."""
        if "tcp://" not in (self.directory / "live.yaml").read_text():
            return True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def end(self) -> None:
        """Kills what is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT_S)

    def stop(self) -> None:
        """SIGTERM; it must end without complaint."""
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(LIMIT_S), OK, self.log.read_text())

    def rows(self, name: str = "rows") -> list[dict]:
        """Complete lines of an output."""
        path = self.directory / f"data/{name}.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def paths(self) -> list[str]:
        """Of all rows."""
        return [row["path"] for row in self.rows()]

    def metric(self, event: str) -> float:
        """A counter of the source."""
        series = re.findall(r"^(ja4_engine_\S+) (\S+)$", get(f"{self.base}/metrics")[1], re.MULTILINE)
        return sum(float(value) for name, value in series if 'node="lines"' in name and f'event="{event}"' in name)

    def stream(self, kind: str) -> socket.socket:
        """A connection."""
        if kind == "tcp":
            stream = socket.create_connection(("127.0.0.1", self.port), 20)
        else:
            stream = socket.socket(socket.AF_UNIX)
            stream.settimeout(20)
            stream.connect(str(self.directory / "in.stream"))
        self.addCleanup(stream.close)
        return stream

    def test_messages_come_in_every_way_with_their_headers(self):
        self.begin()
        expected, number = {}, 0
        udp, unix = socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for opened in (udp, unix):
            self.addCleanup(opened.close)
        streams = {"octets": self.stream("tcp"), "lines": self.stream("tcp"), "zeros": self.stream("unix"), "unix": self.stream("unix")}
        for header, columns in zip(HEADERS, COLUMNS, strict=True):
            for way in ("udp", "dgram", *streams):
                text = message(number, header)
                expected[f"/{number}"] = columns | (
                    {"syslog_facility": "local7", "syslog_severity": "info"} if header else {})
                number += 1
                if way == "udp":
                    udp.sendto(text + b"\n", ("127.0.0.1", self.port))
                elif way == "dgram":
                    unix.sendto(text, str(self.directory / "in.dgram"))
                elif way in ("octets", "unix") and header:
                    # The next frame begins in the middle of a write.
                    streams[way].sendall(b"%d " % len(text) + text)
                else:
                    streams[way].sendall(text + (b"\0" if way == "zeros" else b"\n"))
        wait_for("rows", lambda: len(self.rows()) >= len(expected))
        found = {row["path"]: {name: value for name, value in row.items() if name.startswith("syslog_")} for row in self.rows()}
        self.assertEqual(found, expected)
        self.assertEqual((self.rows("rejected"), self.metric("messages")), ([], len(expected)))

    def test_bytes_that_come_one_by_one_and_a_last_line_without_an_end(self):
        self.begin()
        stream = self.stream("tcp")
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first, second = message(1), message(2)
        for byte in b"%d " % len(first) + first + second:
            stream.send(bytes([byte]))
        wait_for("the first row", lambda: self.paths() == ["/1"])
        stream.close()
        wait_for("the second row", lambda: self.paths() == ["/1", "/2"])

    def test_senders_that_mean_harm_are_bounded_and_counted(self):
        self.begin(", max_line: 4KiB, max_connections: 3, idle_timeout: 500ms")
        # One message is one line, whatever it has in it.
        inside = message(1).replace(b"/1", b"/forged").split(b"{", 1)[1]
        text = b"<13>x: {no row\n{" + inside
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.sendto(text, ("127.0.0.1", self.port))
        wait_for("a refused line", lambda: len(self.rows("rejected")) == 1)
        # A message without an end, and one that says that it is very long.
        for endless in (b"<13>" + b"x" * 100_000, b"999999999 <13>" + b"y" * 100_000):
            with contextlib.suppress(OSError):
                self.stream("tcp").sendall(endless)
        wait_for("refused lines", lambda: len(self.rows("rejected")) == 3)
        self.assertEqual([row["reason"] for row in self.rows("rejected")[1:]], ["longer than 4096 bytes"] * 2)
        wait_for("idle connections", lambda: self.metric("connections_idle") >= 2)
        many = [self.stream("tcp") for _ in range(8)]
        wait_for("refused connections", lambda: self.metric("connections_refused") >= 5)
        wait_for("idle connections", lambda: self.metric("connections_idle") >= 5)
        for stream in many:
            self.assertEqual(stream.recv(1), b"", "all are closed")
        # It goes on.
        stream = self.stream("tcp")
        stream.sendall(message(2) + b"\n")
        wait_for("a row", lambda: self.paths() == ["/2"])

    def test_only_those_may_send_who_are_allowed(self):
        place = f"'udp://127.0.0.1:{self.port}', 'tcp://127.0.0.1:{self.port}'"
        self.begin(", allow: [192.0.2.0/24]", place)
        udp = socket.socket(type=socket.SOCK_DGRAM)
        self.addCleanup(udp.close)
        udp.sendto(message(1), ("127.0.0.1", self.port))
        before = self.metric("senders_refused")
        with contextlib.suppress(OSError):
            self.stream("tcp").sendall(message(2) + b"\n")
        wait_for("refused senders", lambda: self.metric("senders_refused") >= max(before, 1) + 1)
        self.stop()
        self.assertEqual(self.rows(), [])
        for listen, *says in [
            ("udp://0.0.0.0:5514", "allow"), ("tcp://[::]:5514", "allow"), ("http://127.0.0.1:1", "unix-stream://"),
            ("udp://localhost:5514", "address and a port"), ("unix-dgram://live.yaml", "not a socket"),
        ]:
            self.write("bad.yaml", f"name: bad\nnodes:\n  - {{ id: lines, kind: source.syslog, listen: '{listen}', format: reqin_log }}\n"
                       "  - { id: rows, kind: sink.jsonl, from: lines, path: rows.jsonl }\n")
            self.assert_exit(self.engine("validate", self.directory / "bad.yaml"), REFUSED, *says)

    def test_what_was_taken_is_in_the_log_through_stops_and_kills(self):
        sent = 0
        for how in ("stop", "kill", "stop"):
            self.begin()
            streams = [self.stream("tcp"), self.stream("unix")]
            first = sent
            for _ in range(300):
                text = message(sent)
                streams[sent % 2].sendall(b"%d " % len(text) + text)
                sent += 1
            if how == "kill":
                # A kill takes what was received and not committed; so all of it is waited for.
                wait_for("rows", lambda: len(set(self.paths())) >= sent)
                self.process.send_signal(signal.SIGKILL)
                self.process.wait(LIMIT_S)
            else:
                wait_for("the first of these rows", lambda: f"/{first}" in self.paths())
                self.stop()
        self.begin()
        wait_for("all rows", lambda: len(self.rows()) >= sent)
        self.stop()
        self.assert_same_rows(self.paths(), (f"/{number}" for number in range(sent)))


class Collector:
    """A syslog server over TCP: reads a connection to its end, then closes it, unless `breaks` says that it fails."""

    def __init__(self, port: int, breaks=lambda _: False) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.serve, args=(breaks,), daemon=True).start()

    def serve(self, breaks) -> None:
        """Until it is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                if breaks(self.connections):
                    connection.recv(10)
                    continue
                text = b"".join(iter(lambda: connection.recv(65536), b""))
                while text:
                    length, _, rest = text.partition(b" ")
                    self.messages.append(rest[: int(length)])
                    text = rest[int(length):]

    def close(self) -> None:
        """Nobody is answered any more."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


MESSAGE = re.compile(rb"<132>1 (20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) web ja4-engine - out - (\{.*\})")


class Sink(Case):
    """A file that is read to its end."""

    def send(self, to: str, rows: int = 200, options: str = ""):
        """Runs a pipeline that sends so many rows."""
        lines = [{"timestamp": 1_795_448_127_000_000_000 + number * 7_000_000, "src_ip": "192.0.2.1", "path": f"/{number}"}
                 for number in range(rows)]
        self.write("lines.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        self.write("send.yaml", f"""\
name: send
data_dir: data
nodes:
  - {{ id: lines, kind: source.file, path: lines.jsonl, format: reqin_log }}
  - {{ id: out, kind: sink.syslog, from: lines, to: '{to}', hostname: web, columns: [path], max_pause: 100ms {options} }}
""")
        return self.engine("run", self.directory / "send.yaml")

    def parsed(self, messages: list[bytes]) -> list[str]:
        """The paths of rows; each message is as RFC 5424 wants it."""
        found = [MESSAGE.fullmatch(one) for one in messages]
        self.assertTrue(all(found), messages[:3])
        return [json.loads(one[2])["path"] for one in found]

    def test_a_collector_over_tcp_gets_each_row_whatever_breaks(self):
        port = free_port()
        collector = Collector(port, breaks=lambda number: number % 3 == 1)
        self.addCleanup(collector.close)
        run = self.send(f"tcp://127.0.0.1:{port}")
        self.assert_exit(run, OK, "not confirmed, sent again")
        # A connection that breaks has given nothing here, so nothing comes twice.
        self.assert_same_rows(self.parsed(collector.messages), (f"/{number}" for number in range(200)))

    def test_a_collector_that_comes_late_gets_everything(self):
        port = free_port()
        collectors = []
        timer = threading.Timer(1, lambda: collectors.append(Collector(port)))
        timer.start()
        self.addCleanup(timer.join)
        self.assert_exit(self.send(f"tcp://127.0.0.1:{port}"), OK)
        self.addCleanup(collectors[0].close)
        self.assert_same_rows(self.parsed(collectors[0].messages), (f"/{number}" for number in range(200)))

    def test_datagrams_and_streams_of_unix_sockets(self):
        for way in ("unix-dgram", "udp", "unix-stream"):
            with self.subTest(way), contextlib.ExitStack() as stack:
                path = self.directory / way
                got: list[bytes] = []
                if way == "unix-stream":
                    server = stack.enter_context(socket.socket(socket.AF_UNIX))
                    server.bind(str(path))
                    server.listen()
                else:
                    family = socket.AF_UNIX if way == "unix-dgram" else socket.AF_INET
                    server = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                    server.bind(str(path) if way == "unix-dgram" else ("127.0.0.1", 0))
                    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
                to = f"udp://127.0.0.1:{server.getsockname()[1]}" if way == "udp" else f"{way}://{path}"
                thread = threading.Thread(target=self.receive, args=(server, way, got), daemon=True)
                thread.start()
                self.assert_exit(self.send(to, options=", confirm: sent, framing: newline"), OK)
                thread.join(LIMIT_S)
                self.assert_same_rows(self.parsed(got), (f"/{number}" for number in range(200)), way)

    @staticmethod
    def receive(server: socket.socket, way: str, got: list[bytes]) -> None:
        """All messages of a run."""
        if way == "unix-stream":
            connection, _ = server.accept()
            with connection:
                got += b"".join(iter(lambda: connection.recv(65536), b"")).splitlines()
            return
        while len(got) < 200:
            got.append(server.recv(65536))

    def test_options_that_cannot_be(self):
        self.write("lines.jsonl", "")
        for options, *says in [
            ("to: 127.0.0.1:514", "tcp://host:port"),
            ("to: udp://a:1, facility: local8", "local7"),
            ("to: udp://a:1, severity: bad", "warning"),
            ("to: udp://a:1, app: 'a b'", "without blanks"),
        ]:
            self.write("bad.yaml", "name: bad\nnodes:\n  - { id: lines, kind: source.file, path: lines.jsonl, format: reqin_log }\n"
                       f"  - {{ id: out, kind: sink.syslog, from: lines, {options} }}\n")
            self.assert_exit(self.engine("validate", self.directory / "bad.yaml"), REFUSED, *says)

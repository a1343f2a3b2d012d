"""docs/servers.md, as a first user would follow it: its blocks in Debian's Apache and nginx, its pipeline beside them, and curl,
Chromium, Firefox and two that only say that they are Chrome as clients.

What the engine has is compared with what the clients know, with a second log of another format, and with tshark.
"""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import time
import unittest
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.namespaces import ip, joined
from tests.servers import clients
from tests.servers.clients import Curl, Sent
from tests.servers.debian import COMMANDS, DOCUMENT, HOST, LARGE, block, inside, prepare
from tests.support import OK, PIPELINES, Case, running, wait_for

_spec = importlib.util.spec_from_file_location("hellos", PIPELINES / "tests/oracle/hellos.py")
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

SERVER = "192.0.2.1"
# Each client has an address of its own.
CLIENTS = {"curl": "192.0.2.20", "chromium": "192.0.2.21", "firefox": "192.0.2.22", "fake curl": "192.0.2.23",
           "fake python": "192.0.2.24", "slow": "192.0.2.25"}
# The engine gives up the rights of root; it reads the log as a member of the group that Debian's logs are for.
AS_MEMBER = ("setpriv", "--groups", "adm")
# How long a slow client reads at the least, in seconds; the sockets' buffers hold some of it.
SLOW_S = 8
LOGS = {"apache": Path("/var/log/apache2"), "nginx": Path("/var/log/nginx")}


class Document(Case):
    """What can be said without running a server."""

    def test_each_block_is_there_once_and_names_its_file(self):
        self.assertEqual(block("apache")[0], Path("/etc/apache2/conf-available/ja4-engine.conf"))
        self.assertEqual(block("nginx")[0], Path("/etc/nginx/conf.d/ja4-engine.conf"))

    def test_every_key_is_explained(self):
        text = DOCUMENT.read_text(encoding="utf-8")
        explained = {key for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for key in re.findall("`([^`]+)`", row)}
        for language in ("apache", "nginx"):
            keys = set(re.findall(r'"([a-z_]+)":', block(language)[1]))
            self.assertEqual(keys - explained, set())

    def test_what_it_links_to_is_there(self):
        """Files, and headings of its own; what the unit sets is what the pipeline reads."""
        text = DOCUMENT.read_text(encoding="utf-8")
        headings = re.findall("^#+ (.*)", text, re.MULTILINE)
        anchors = {re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        for link in re.findall(r"\]\(([^)]+)\)", text):
            if link.startswith("#"):
                self.assertIn(link[1:], anchors)
            else:
                self.assertTrue((DOCUMENT.parent / link).exists(), link)
        for variable in re.findall(r"^Environment=(\w+)=", block("ini")[1], re.MULTILINE):
            self.assertIn(f"${{{variable}:-", (PIPELINES / "first_log.yaml").read_text(encoding="utf-8"))

    def test_both_logs_have_the_same_headers(self):
        apache, nginx = (re.findall(r'"(header_[^"]+)":', block(language)[1]) for language in ("apache", "nginx"))
        self.assertEqual(apache, nginx)
        self.assertEqual(len(set(apache)), 16)


class Server:
    """One server and everybody around it."""

    server = ""
    program = ""

    def setUp(self) -> None:
        super().setUp()
        self.client, self.name = joined(
            self, ("client", "eth0", CLIENTS["curl"]), ("server", "web0", SERVER),
            needs=(self.program, "curl", "dumpcap", "openssl", "tshark", "mount", "setpriv"))
        for address in list(CLIENTS.values())[1:]:
            ip("-n", self.client, "address", "add", f"{address}/24", "dev", "eth0")
        prepare(self.directory, self.server)
        hosts = self.directory / "client/root/etc/hosts"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(f"127.0.0.1 localhost\n{SERVER} {HOST}\n")
        self.outside = inside(self.client, self.directory / "client")
        self.beside = inside(self.name, self.directory)
        self.logs = self.directory / "root" / LOGS[self.server].relative_to("/")

    def begin(self, name: str, *command: object) -> subprocess.Popen:
        """Starts a program beside the server, which is ended with the test; what it says is in a file."""
        with self.write(f"{name}.said", "").open("wb") as said:
            process = subprocess.Popen([*self.beside, *map(str, command)], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        return process

    def said(self, name: str) -> str:
        """What a program said."""
        return (self.directory / f"{name}.said").read_text(errors="replace")

    def ask(self, path: str, *options: str) -> str:
        """What the engine's web service answers; nothing if it does not."""
        return subprocess.run([*self.beside, "curl", "--silent", *options, f"http://127.0.0.1:8080{path}"], capture_output=True,
                              text=True, check=False).stdout

    def sql(self, query: str) -> list[dict]:
        """The rows of a query."""
        text = self.ask("/sql", "--data-binary", query)
        self.assertTrue(text.startswith('{"'), f"{query}: {text}")
        self.assertIn("rows", json.loads(text), query)
        return json.loads(text)["rows"]

    def as_client(self, name: str) -> tuple[str, ...]:
        """In front of a client's program; what it sends has its address."""
        ip("-n", self.client, "route", "replace", f"{SERVER}/32", "dev", "eth0", "src", CLIENTS[name])
        return self.outside

    def truth(self) -> list[list[str]]:
        """Lines of the second log: address, port, status, two times, request line, User-Agent."""
        found = []
        for path in self.logs.glob("truth.log*"):
            found += [line.split("\t") for line in path.read_text(encoding="latin-1").splitlines()]
        return found

    def has_visited(self, name: str) -> bool:
        """Whether a browser has come to the end of its visit."""
        return any(line[0] == CLIENTS[name] and "/last" in line[5] for line in self.truth())

    def rotate(self) -> None:
        """What logrotate does: another name, a new file with Debian's rights, and a signal."""
        log = self.logs / "ja4.log"
        log.rename(self.logs / "ja4.log.1")
        log.touch(0o640)
        shutil.chown(log, "root" if self.server == "apache" else "www-data", "adm")
        self.process.send_signal(signal.SIGUSR1)

    def visit(self) -> dict[str, list[Sent]]:
        """Lets all clients send, with a rotation in between; what those that count know of it."""
        curl = Curl(self.as_client("curl"), self.directory)
        curl.all()
        self.rotate()
        sent = {"curl": curl.sent}
        sent["fake curl"] = clients.fake_by_curl(self.as_client("fake curl"), self.directory)
        sent["fake python"] = clients.fake_by_python(self.as_client("fake python"), self.directory)
        browsers = {"chromium": (clients.CHROMIUM, clients.chromium), "firefox": (clients.FIREFOX, clients.firefox)}
        for name, (program, visit) in browsers.items():
            if program and shutil.which("certutil"):
                visit(self.as_client(name), self.directory, lambda name=name: self.has_visited(name))
                sent[name] = []
            else:
                print(f"\n    SKIPPED: {name} or certutil is not installed ", end="")
        return sent

    def answers(self) -> bool:
        """Whether the server takes connections: without TLS, so that it leaves no hello."""
        command = [*self.outside, "curl", "--silent", f"http://{HOST}/plain"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @contextmanager
    def serving(self, *options: str) -> Iterator[None]:
        """The server and, once it has its log, the engine as the document starts it; what went wrong comes with its log."""
        self.process = self.begin("server", *COMMANDS[self.server])
        wait_for("the server's log", lambda: self.process.poll() is not None or (self.logs / "ja4.log").exists())
        self.assertIsNone(self.process.poll(), self.said("server"))
        variables = {"INTERFACE": "web0", "LOG": LOGS[self.server] / "ja4.log", "DATA_DIR": self.directory / "data"}
        log = self.directory / "log"
        with running("run", *options, PIPELINES / "first_log.yaml", environment=variables, log=log,
                     prefix=(*self.beside, *AS_MEMBER)) as engine:
            try:
                wait_for("the web service", lambda: engine.poll() is not None or self.ask("/ready", "--fail"))
                threads = Path(f"/proc/{engine.pid}/task")
                wait_for("the capture", lambda: any((thread / "comm").read_text() == "pcap web0\n" for thread in threads.iterdir()))
                wait_for("the server", self.answers)
                yield
                engine.terminate()
                self.assertEqual(engine.wait(60), OK)
            except (TimeoutError, AssertionError) as error:
                self.fail(f"{error}\n{log.read_text()}")

    def test_every_request_has_the_hello_of_its_connection(self):
        """Word by word as the document says; browsers are no detections, and what pretends to be one is."""
        recorder = self.begin("dumpcap", "dumpcap", "-q", "-i", "web0", "-w", self.directory / "packets.pcapng")
        wait_for("the recording", lambda: "File:" in self.said("dumpcap"))
        with self.serving():
            sent = self.visit()
            rows = self.all_rows()
            self.check_rows(rows, sent)
            self.check_hellos(rows, recorder)
            self.check_detections(sent)
        self.assertTrue(list((self.directory / "data").rglob("*.parquet")))

    def test_a_slow_request_is_not_late(self):
        """A download that takes longer than `lateness`, while others come and go, is joined and counted."""
        prefix = self.as_client("slow")
        with self.serving():
            slow, quick = Curl(prefix, self.directory), Curl(prefix, self.directory)
            with ThreadPoolExecutor(1) as pool:
                download = pool.submit(slow.run, ["--limit-rate", str(LARGE // SLOW_S)], ["/large"])
                while not download.done():
                    quick.run([], ["/?n=#"])
                download.result()
            rows = self.all_rows()
            self.assertEqual([row["path"] for row in rows if row["scheme"] == "https" and not row["correlated"]], [])
            [row] = [row for row in rows if row["path"] == "/large"]
            self.assertGreater(row["duration_ms"], 3000)
            self.assertEqual((row["src_port"], row["status_code"]), (slow.sent[0].port, 200))
            hits = self.sql(f"select sum(hits) as hits from features where src_ip = '{CLIENTS['slow']}' and ja4 is not null")
            self.assertEqual(hits, [{"hits": len(quick.sent) + 1}])

    def all_rows(self) -> list[dict]:
        """The requests of the table, once there are as many as in the other log."""
        wait_for("the rows", lambda: self.sql("select count(*) as n from requests")[0]["n"] >= len(self.truth()), limit_s=30)
        time.sleep(1)
        self.assertEqual(self.sql("select * from rejected"), [])
        self.assertEqual(self.sql("select * from late"), [])
        return self.sql("select *, cast(time as bigint) as ns, cast(b_timestamp as bigint) as hello_ns from requests")

    def check_rows(self, rows: list[dict], sent: dict[str, list[Sent]]) -> None:
        """Each line of the other log is a row, and each request that a client knows of."""
        got = (summary(row["src_ip"], row["src_port"], row["status_code"], asked(row), row["header_user_agent"]) for row in rows)
        self.assert_same_rows(got, (summary(*line[:3], target(line[5]), unescaped(line[6])) for line in self.truth()))
        kept = {(row["src_ip"], row["src_port"], asked(row)): row for row in rows}
        for name, requests in sent.items():
            for request in requests:
                row = kept.get((CLIENTS[name], request.port, path_of(request.target)))
                self.assertIsNotNone(row, request)
                self.assertEqual((row["status_code"], row["method"]), (request.status, request.method), request)
                if not request.agent or request.agent.isprintable() or "\t" in request.agent:
                    # A header of which the value is `-` cannot be told from none.
                    self.assertEqual(row["header_user_agent"], None if request.agent == "-" else request.agent, request)
                self.assertEqual((row["host"], row["scheme"], row["dst_ip"], row["dst_port"]), (HOST, "https", SERVER, 443), request)
        self.assertEqual([row["path"] for row in rows if row["has_cookie"]], ["/"])
        hinted = [row for row in rows if row["src_ip"] == CLIENTS["fake python"]]
        for name, value in clients.HINTS.items():
            self.assertEqual({row[f"header_{name.lower().replace('-', '_')}"] for row in hinted}, {value})
        self.assertEqual({row["header_sec_fetch_mode"] for row in hinted}, {None})

    def check_hellos(self, rows: list[dict], recorder: subprocess.Popen) -> None:
        """Each request that came over TLS has the hello that tshark finds on its connection, a moment before it."""
        recorder.terminate()
        recorder.wait(30)
        hellos = oracle.hellos(self.directory / "packets.pcapng")
        found = {(hello.src_ip, hello.src_port): hello for hello in hellos if hello.index == 0}
        for row in rows:
            if row["scheme"] == "http":
                self.assertEqual((row["correlated"], row["ja4"]), (0, None), row)
                continue
            hello = found[row["src_ip"], row["src_port"]]
            joined = (row["correlated"], row["ja4"], row["tls_sni"] or None)
            self.assertEqual(joined, (1, hello.ja4, hello.tls_sni), row)
            # nginx has a millisecond, of a clock that it reads once a round.
            self.assertGreater(row["ns"], hello.time - 5_000_000, row)

    def check_detections(self, sent: dict[str, list[Sent]]) -> None:
        """The fakes are found, and no browser is more than named."""
        levels: dict[str, set[str]] = {}
        for row in self.sql("select src_ip, threat_level from detections"):
            levels.setdefault(row["src_ip"], set()).add(row["threat_level"])
        for name in sent:
            found = levels.get(CLIENTS[name], set())
            if name.startswith("fake"):
                self.assertIn("HIGH", found, name)
            elif name != "curl":
                self.assertLessEqual(found, {"LOW"}, self.sql(f"select * from detections where src_ip = '{CLIENTS[name]}'"))
                hits = self.sql(f"select sum(hits) as hits from features where src_ip = '{CLIENTS[name]}'")[0]["hits"]
                self.assertGreater(hits, 20, name)


class Apache(Server, Case):
    server, program = "apache", "apache2"


class Nginx(Server, Case):
    server, program = "nginx", "nginx"


def summary(address: str, port: object, status: object, asked: str, agent: str | None) -> str:
    """What both logs have of a request. What a server escapes is one character, whichever."""
    known = re.sub("[^ -~]", "?", agent or "")
    return f"{address} {port} {status} {asked} {'' if known == '-' else known}"


def asked(row: dict) -> str:
    """Path and query of a row."""
    return (row["path"] or "") + (f"?{row['query']}" if row["query"] else "")


def unescaped(text: str) -> str:
    """What a server's own escapes stand for."""
    plain = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "v": "\v"}

    def meant(found: re.Match) -> str:
        return chr(int(found[2], 16)) if found[2] else plain.get(found[1], found[1])
    read = re.sub(r"\\(x([0-9a-fA-F]{2})|.)", meant, text)
    return read.encode("latin-1").decode("utf-8", "replace")


def target(request_line: str) -> str:
    """Path and query of a request line as the other log has it."""
    words = unescaped(request_line).split(" ")
    return path_of(words[1]) if len(words) == 3 else ""


def path_of(text: str) -> str:
    """A target without the origin that an absolute one has."""
    return re.sub(r"^https?://[^/?]*", "", text)

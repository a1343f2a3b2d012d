"""Debian's Apache, nginx and HAProxy write their own text formats about requests with odd bytes, and the engine reads them.

What the engine has is compared with what the client sent: of the lines alone, and as root with the packets beside them.
"""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
import unittest
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tests.servers.debian import DOCUMENT, block, certificate
from tests.support import OK, PIPELINES, REFUSED, Case, lines, running, served, sql, wait_for

# User-Agents that a server has to escape; None for none. The last ones are no UTF-8.
AGENTS = [b"curl/8", None, b'quo"ted \\ agent', b"tab\tagent", "agent/ü €".encode(), b"#{a|b} 100% \\x41 \\\"", b"a\" 200 5 \"b",
          b"agent/\xff", b"agent/\xc3"]
APACHE = ('%{begin:usec}t %D %{c}a %{remote}p %A:%{local}p %>s %b \\"%r\\" \\"%{User-Agent}i\\" \\"%{X-Forwarded-For}i\\" '
          '\\"%{Cookie}i\\" %k %X %{%Y-%m-%dT%H:%M:%S}t%{usec_frac}t%{%z}t')
NGINX = ('$msec $request_time [$remote_addr]:$remote_port $server_addr:$server_port $status $body_bytes_sent "$request" '
         '"$http_user_agent" "$http_x_forwarded_for" "$http_cookie" $connection_requests $time_iso8601 $host')
FORWARDED = "198.51.100.7, 2001:db8::9"
# Modules that Debian's Apache does not have built in.
MODULES = ("mpm_event", "authz_core", "dir")


@dataclass(frozen=True)
class Sent:
    """A request as its client knows it."""

    port: int
    method: str
    path: str
    query: str
    status: int
    agent: str | None
    # What its connection's hello says; None without TLS.
    name: str | None


def shipped(name: str) -> str:
    """The format string of a pipeline, in one piece."""
    text = (PIPELINES / f"{name}.yaml").read_text(encoding="utf-8")
    return " ".join(re.search(r"log_format: >-\n((?: {6}.*\n)+)", text)[1].split())


def documented() -> str:
    """nginx's text format as the document has it."""
    text = re.search(r"log_format ja4_text\n((?: +'.*'\n| +'.*';\n)+)", DOCUMENT.read_text(encoding="utf-8"))[1]
    return "".join(re.findall("'(.*)'", text))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port: int) -> bool:
    """Whether somebody does."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def ask(port: int, tls: bool = False) -> list[Sent]:
    """One connection for each request."""
    sent = []
    for number, agent in enumerate(AGENTS):
        method, path, status = [("GET", "/", 200), ("GET", "/a%20b/../missing", 404), ("HEAD", "/", 200)][number % 3]
        query = f"n={number}&x=%22"
        head = f"{method} {path}?{query} HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\nX-Forwarded-For: {FORWARDED}\r\n"
        request = head.encode() + (b"Cookie: secret=1\r\n" if number == 0 else b"")
        request += b"" if agent is None else b"User-Agent: " + agent + b"\r\n"
        connection = socket.create_connection(("127.0.0.1", port), 10)
        own = connection.getsockname()[1]
        name = f"n{number}.example.test" if tls else None
        if name:
            context = ssl._create_unverified_context()
            connection = context.wrap_socket(connection, server_hostname=name)
        with connection:
            connection.sendall(request + b"\r\n")
            answer = connection.recv(65536)
            while connection.recv(65536):
                pass
        got = int(re.match(rb"HTTP/1\.1 (\d+)", answer)[1])
        text = None if agent is None else agent.decode(errors="replace")
        sent.append(Sent(own, method, path, query, got, text, name))
        assert got == status, answer
    return sent


class Server(Case):
    """A server that the test starts."""

    def needs(self, program: str) -> None:
        if not shutil.which(program):
            self.skipTest(f"{program} is not installed")

    def begin(self, port: int, *command: object, **environment: str) -> subprocess.Popen:
        """Starts a server, which is ended with the test, and waits until it listens."""
        said = self.write("server.said", "")
        with said.open("wb") as out:
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.directory,
                                       env=os.environ | environment)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_for("the server", lambda: listens(port) or process.poll() is not None)
        self.assertIsNone(process.poll(), said.read_text(errors="replace"))
        return process

    def site(self) -> Path:
        """A folder with one page."""
        self.directory.chmod(0o755)
        site = self.directory / "site"
        site.mkdir()
        (site / "index.html").write_text("hello")
        return site

    def both(self) -> Path:
        """A certificate and its key."""
        certificate(self.directory)
        return self.write("both.pem", (self.directory / "cert.pem").read_text() + (self.directory / "key.pem").read_text())


class TextLogs(Server):
    """Each server writes, and each line is the row that it should be."""

    def rows(self, log: str, options: str) -> list[dict]:
        """What the engine reads; nothing is refused."""
        out, refused = self.directory / f"{log}.rows", self.directory / f"{log}.refused"
        pipeline = self.write(f"{log}.yaml", f"""
name: {log}
nodes:
  - id: requests
    kind: source.file
    path: {self.directory}/{log}
{options}
  - {{ id: rows, kind: sink.jsonl, from: requests, path: {out} }}
  - {{ id: refused, kind: sink.jsonl, from: requests.rejected, path: {refused} }}
""")
        self.assert_exit(self.engine("run", pipeline), OK)
        self.assertEqual(lines(refused) if refused.exists() else [], [])
        return lines(out)

    def check(self, rows: list[dict], sent: list[Sent], since: float) -> None:
        """Each request is a row with what the client knows, as far as the format has it."""
        # Those that ask whether the server listens send nothing.
        rows = [row for row in rows if row.get("method") and row.get("path")]
        # Null has no key.
        columns = {name for row in rows for name in row}
        self.assertEqual(len(rows), len(sent))
        for row, request in zip(rows, sent, strict=True):
            self.assertEqual(row["src_ip"], "127.0.0.1")
            known = {"src_port": request.port, "method": request.method, "path": request.path, "query": request.query,
                     "http_version": "HTTP/1.1", "status_code": request.status, "header_user_agent": request.agent,
                     "header_x_forwarded_for": FORWARDED, "forwarded_first": "198.51.100.7", "forwarded_last": "2001:db8::9",
                     "has_cookie": request == sent[0]}
            for name, value in known.items():
                if name in columns:
                    self.assertEqual(row.get(name), value, f"{name} of {row}")
            for moment in (row["time"], row.get("begin_time") or row["time"]):
                at = datetime.fromisoformat(moment).timestamp()
                self.assertTrue(since - 1.1 <= at <= time.time() + 0.1, f"{row} since {since}")
        self.assertNotIn("secret", str(rows))

    def test_apache(self):
        self.needs("apache2")
        port, site, since = free_port(), self.site(), time.time()
        self.write("apache.conf", f"""
ServerRoot {self.directory}
ServerName www.example.test
Listen 127.0.0.1:{port}
PidFile {self.directory}/apache.pid
ErrorLog {self.directory}/error.log
{"".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so{chr(10)}" for name in MODULES)}
User www-data
Group www-data
DocumentRoot {site}
LogFormat "%h %l %u %t \\"%r\\" %>s %b" common
LogFormat "%h %l %u %t \\"%r\\" %>s %b \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" combined
LogFormat "{APACHE}" own
CustomLog {self.directory}/common common
CustomLog {self.directory}/combined combined
CustomLog {self.directory}/own own
""")
        process = self.begin(port, "apache2", "-X", "-f", self.directory / "apache.conf")
        sent = ask(port)
        process.terminate()
        process.wait()
        self.check(self.rows("common", "    format: common"), sent, since)
        self.check(self.rows("combined", "    format: combined"), sent, since)
        rows = self.rows("own", f"    format: apache\n    log_format: '{APACHE}'")
        self.check(rows, sent, since)
        self.assertTrue(all(row["dst_port"] == port and row["duration_ms"] is not None for row in rows))

    def test_nginx(self):
        self.needs("nginx")
        port, site, since = free_port(), self.site(), time.time()
        logs = {"own": ("default", NGINX), "json": ("json", NGINX), "shipped": ("default", shipped("nginx"))}
        self.assertEqual(documented(), shipped("nginx"))
        formats = "".join(f"log_format {name} escape={escape} '{text}';\naccess_log {self.directory}/{name} {name};\n"
                          for name, (escape, text) in logs.items())
        formats += 'map $http_cookie $ja4_has_cookie { "" 0; default 1; }\n'
        temporary = "".join(f"{kind}_temp_path {self.directory}/{kind};\n" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.write("nginx.conf", f"""
daemon off; master_process off; pid {self.directory}/nginx.pid; error_log {self.directory}/error.log;
events {{}}
http {{
{formats}{temporary}
access_log {self.directory}/combined combined;
server {{ listen 127.0.0.1:{port}; server_name www.example.test; root {site}; }}
}}
""")
        process = self.begin(port, "nginx", "-c", self.directory / "nginx.conf")
        sent = ask(port)
        process.terminate()
        process.wait()
        self.check(self.rows("combined", "    format: combined"), sent, since)
        for name, (escape, text) in logs.items():
            rows = self.rows(name, f"    format: nginx\n    escape: {escape}\n    log_format: '{text}'")
            self.check(rows, sent, since)
            self.assertTrue(all(row["dst_port"] == port and row["host"] == "www.example.test" for row in rows if row.get("path")))

    def test_haproxy(self):
        self.needs("haproxy")
        self.directory.chmod(0o755)
        pem = self.both()
        since, ports = time.time(), {name: free_port() for name in ("http", "https", "own")}
        sockets = {}
        for name in ports:
            sockets[name] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(sockets[name].close)
            sockets[name].bind(("127.0.0.1", 0))
            sockets[name].settimeout(10)
        wants = {"http": "option httplog\n capture request header User-Agent len 200\n capture request header Host len 100",
                 "https": "option httpslog\n capture request header X-Forwarded-For len 100",
                 "own": re.sub("^ *log .*\n", "", block("haproxy")[1], flags=re.MULTILINE)}
        self.assertEqual(re.search('log-format "(.*)"', wants["own"])[1], shipped("haproxy"))
        frontends = "".join(f"""
frontend {name}
 bind 127.0.0.1:{port}{f" ssl crt {pem}" if name == "https" else ""}
 log 127.0.0.1:{sockets[name].getsockname()[1]} len 16384 local0
 {wants[name]}
 http-request return status 404 content-type text/plain string no if {{ path_end missing }}
 http-request return status 200 content-type text/plain string yes
""" for name, port in ports.items())
        self.write("haproxy.cfg", f"global\n log-send-hostname here\ndefaults\n mode http\n option dontlognull\n timeout client 10s\n{frontends}")
        self.begin(ports["own"], "haproxy", "-db", "-f", self.directory / "haproxy.cfg", TZ="UTC")
        sent = {}
        for name, port in ports.items():
            sent[name] = ask(port, tls=name == "https")
            said = b"".join(sockets[name].recv(65536).rstrip(b"\n") + b"\n" for _ in sent[name])
            self.write(name, said)
        self.check(self.rows("http", "    format: haproxy_http\n    captures: { request: [User-Agent, Host] }"), sent["http"], since)
        rows = self.rows("https", "    format: haproxy_https\n    captures: { request: [X-Forwarded-For] }")
        self.check(rows, sent["https"], since)
        self.assertEqual([(row["scheme"], row["server_tls_sni"], row["server_tls_version"]) for row in rows],
                         [("https", request.name, "TLSv1.3") for request in sent["https"]])
        text = shipped("haproxy")
        rows = self.rows("own", f"    format: haproxy\n    log_format: '{text}'")
        self.check(rows, sent["own"], since)
        self.assertEqual(rows[0]["client_headers"], "host,x-forwarded-for,cookie,user-agent")
        self.assertEqual({(row["host"], row["scheme"]) for row in rows}, {("www.example.test", "http")})

    def test_a_shipped_pipeline_is_valid(self):
        for name in ("nginx", "haproxy"):
            self.assert_exit(self.engine("validate", PIPELINES / f"{name}.yaml"), OK)

    def test_a_wrong_string_is_shown_at_its_place(self):
        pipeline = self.write("p.yaml", """
name: p
nodes:
  - { id: a, kind: source.file, path: x, format: apache, log_format: "%h %t %y" }
  - { id: b, kind: source.file, path: x, format: nginx }
  - { id: c, kind: source.file, path: x, format: combined, zone: UTC }
""")
        self.assert_exit(self.engine("validate", pipeline), REFUSED, "p.yaml:4:", "character 7 of the format: `%y` is no directive",
                         "p.yaml:5:", "`format: nginx` needs `log_format`", "p.yaml:6:",
                         "`zone` does not go with `format: combined`")


@unittest.skipUnless(os.geteuid() == 0, "captures packets: as root")
class Joined(Server):
    """The pipelines as they are shipped, beside servers as the document has them: each request has its own connection's hello."""

    def check(self, pipeline: str, port: int, **environment: object) -> None:
        """Lets clients ask, and compares names in their hellos, which differ, with the requests' rows."""
        log = self.directory / "log"
        variables = {"INTERFACE": "lo", "DATA_DIR": self.directory / "data", **environment}
        with running("run", PIPELINES / f"{pipeline}.yaml", "--listen", "127.0.0.1:0", "--set", f"packets.ports=[{port}]",
                     environment=variables, log=log) as engine:
            base = served(log)
            threads = Path(f"/proc/{engine.pid}/task")
            wait_for("the capture", lambda: any((thread / "comm").read_text() == "pcap lo\n" for thread in threads.iterdir()))
            sent = ask(port, tls=True)
            query = "select src_port, correlated, tls_sni, path, status_code, header_user_agent, scheme, dst_port, host from requests"
            wait_for("the rows", lambda: len(sql(base, query)) >= len(sent))
            rows = sql(base, query)
            self.assertEqual(sql(base, "select reason from rejected"), [])
        self.assert_same_rows(
            [tuple(row.values()) for row in rows],
            [(request.port, 1, request.name, request.path, request.status, request.agent, "https", port, "www.example.test")
             for request in sent])

    def test_nginx(self):
        self.needs("nginx")
        port, site, pem = free_port(), self.site(), self.both()
        log = self.write("ja4_text.log", "")
        temporary = "".join(f"{kind}_temp_path {self.directory}/{kind};\n" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.write("nginx.conf", f"""
daemon off; master_process off; pid {self.directory}/nginx.pid; error_log {self.directory}/error.log;
events {{}}
http {{
{temporary}
map $http_cookie $ja4_has_cookie {{ "" 0; default 1; }}
log_format ja4_text '{documented()}';
access_log {log} ja4_text;
server {{ listen 127.0.0.1:{port} ssl; server_name _; root {site}; ssl_certificate {pem}; ssl_certificate_key {pem}; }}
}}
""")
        self.begin(port, "nginx", "-c", self.directory / "nginx.conf")
        self.check("nginx", port, LOG=log)

    def test_haproxy(self):
        self.needs("haproxy")
        port, pem = free_port(), self.both()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            receiver = free.getsockname()[1]
        text = block("haproxy")[1].replace("127.0.0.1:5514", f"127.0.0.1:{receiver}")
        self.write("haproxy.cfg", f"""
defaults
 mode http
 option dontlognull
 timeout client 10s
frontend web
 bind 127.0.0.1:{port} ssl crt {pem}
{text}
 http-request return status 404 content-type text/plain string no if {{ path_end missing }}
 http-request return status 200 content-type text/plain string yes
""")
        self.begin(port, "haproxy", "-db", "-f", self.directory / "haproxy.cfg")
        self.check("haproxy", port, LISTEN=f"udp://127.0.0.1:{receiver}")


class Fields(Case):
    """Files whose `#Fields:` differ, followed together and one alone."""

    FIELDS = {"u_ex1.log": ("c-ip", "sc-status", "x-new", "date", "time", "cs(User-Agent)"),
              "u_ex2.log": ("date", "time", "cs(User-Agent)", "sc-status", "c-ip")}

    def append(self, directory: Path, name: str, numbers: range, header: bool = False) -> None:
        """Lines of IIS, which have the number as the status."""
        now = datetime.now(timezone.utc)
        with (directory / name).open("a") as log:
            if header:
                log.write("#Software: Microsoft Internet Information Services 10.0\n#Fields: " + " ".join(self.FIELDS[name]) + "\n")
            for number in numbers:
                values = {"date": f"{now:%Y-%m-%d}", "time": f"{now:%H:%M:%S}", "c-ip": f"192.0.2.{name[4]}", "sc-status": str(number),
                          "cs(User-Agent)": f"Agent+{number}"}
                log.write(" ".join(values.get(field, "-") for field in self.FIELDS[name]) + "\n")

    def test_each_file_goes_on_with_its_own_after_a_restart(self):
        for pattern, names in (("u_ex1.log", ["u_ex1.log"]), ("u_ex*.log", ["u_ex1.log", "u_ex2.log"])):
            directory = self.directory / f"of {len(names)}"
            directory.mkdir()
            rows = directory / "data/rows.jsonl"
            pipeline = directory / "p.yaml"
            pipeline.write_text(f"""
name: p
data_dir: data
nodes:
  - {{ id: requests, kind: source.file, path: "{pattern}", format: iis, follow: true }}
  - {{ id: rows, kind: sink.jsonl, from: requests, path: data/rows.jsonl }}
  - {{ id: rejected, kind: sink.jsonl, from: requests.rejected, path: data/rejected.jsonl }}
""")
            for start in (200, 300):
                for name in names:
                    self.append(directory, name, range(start, start + 5), header=start == 200)
                with running("run", pipeline, log=directory / "log") as engine:
                    count = 5 * len(names) * (start // 100 - 1)
                    wait_for("the rows", lambda: engine.poll() is not None or rows.exists() and len(lines(rows)) == count)
                    self.assertIsNone(engine.poll(), (directory / "log").read_text())
            got = [(row["src_ip"], row["status_code"], row["header_user_agent"]) for row in lines(rows)]
            expected = [(f"192.0.2.{name[4]}", number, f"Agent {number}")
                        for name in names for start in (200, 300) for number in range(start, start + 5)]
            self.assert_same_rows(got, expected)

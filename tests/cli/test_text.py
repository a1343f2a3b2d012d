"""Nothing that a client, a server or a file says acts on a terminal, forges a row, or is a formula: every command, with a corpus."""

import http.server
import json
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from csv import reader
from pathlib import Path

from tests import terminal
from tests.support import FAILED, LIMIT_S, OK, REFUSED, Case, served, start, wait_for
from tests.terminal import CORPUS, hidden

START = 1_795_446_000
# In names of files and words of a command line there is no NUL.
WORD = "x\x1b[2J\r\nFORGED \u009b31m\u202e\u200b\t"
PIPELINE = """\
name: "evil \\e]0;owned\\a\\nFORGED name"
data_dir: data
nodes:
  - { id: log, kind: SOURCE }
  - { id: print, kind: derive, from: log, columns: [{ name: ja4, expr: "coalesce(header_x_request_id, 'none')" }] }
  - id: groups
    kind: aggregate
    from: print
    by: [host, src_ip, ja4]
    window: 1h
    features: [{ name: hits, expr: count(*) }, { name: worst, expr: max(path) }]
  - { id: found, kind: detect.rules, from: groups.final, rules: [{ name: one, when: hits >= 1, level: HIGH, reason: "went to {worst} at {host}" }] }
  - { id: store, kind: sink.parquet, from: { requests: print, groups: groups.final, found: found } }
OUT"""


def hello(sni: bytes, alpn: bytes) -> bytes:
    """A ClientHello in its record."""
    name = b"\x00" + struct.pack(">H", len(sni)) + sni
    protocol = bytes([len(alpn)]) + alpn
    extensions = b"".join(
        struct.pack(">HH", kind, len(body)) + body
        for kind, body in (
            (0, struct.pack(">H", len(name)) + name), (16, struct.pack(">H", len(protocol)) + protocol), (43, b"\x04\x03\x04\x03\x03"),
        )
    )
    body = b"\x03\x03" + bytes(32) + b"\x00" + struct.pack(">HHH", 4, 0x1301, 0x1302) + b"\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


def capture(words: tuple[str, ...]) -> bytes:
    """A connection a word, with the word as its SNI and its ALPN."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    for nth, word in enumerate(words):
        data = word.encode()
        tcp = struct.pack(">HHIIBBHHH", 40000 + nth, 443, 1, 1, 0x50, 0x18, 1000, 0, 0) + hello(data, data[:200] or b"h2")
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), nth, 0, 64, 6, 0, bytes([203, 0, 113, nth + 1]), bytes([192, 0, 2, 10]))
        frame = bytes(12) + b"\x08\x00" + ip + tcp
        out += struct.pack("<IIII", START, nth * 1000, len(frame), len(frame)) + frame
    return out


def requests(words: tuple[str, ...] = CORPUS) -> list[dict]:
    """A request a word, with it in all that a client chooses."""
    return [
        {"timestamp": (START + nth) * 10**9, "src_ip": f"203.0.113.{nth + 1}", "src_port": 1, "method": word[:20], "host": word, "path": word,
         "query": word, "header_user_agent": word, "header_x_request_id": word, "status_code": 200}
        for nth, word in enumerate(words)
    ]


@contextmanager
def answering(body: object, code: int = 200) -> Iterator[str]:
    """A web service that says this to whatever it is asked."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Text(Case):
    """Each command at a terminal of its own, and with its output in a file."""

    def shown(self, *arguments: object, codes: tuple[int, ...] = (OK,), environment: dict | None = None) -> str:
        """What a command shows; nothing of it may act, and no line of it may be a client's."""
        code, text = terminal.run(*arguments, directory=self.directory, environment=environment)
        self.assertIn(code, codes, text[-2000:])
        self.assert_harmless(text, arguments)
        return text

    def assert_harmless(self, text: str, about: object = "") -> None:
        """Nothing in it acts, hides, or begins a line."""
        self.assertEqual(hidden(text), set(), f"{about}: {text[:1000]!r}")
        self.assertNotRegex(text, r"(?m)^FORGED", f"{about}")

    def pipeline(self, source: str, name: str = "evil.yaml", out: str = "") -> Path:
        """The pipeline with a source and an end."""
        return self.write(name, PIPELINE.replace("SOURCE", source).replace("OUT", out))

    def stored(self) -> Path:
        """The pipeline, run over the corpus."""
        self.write("log", "".join(json.dumps(row) + "\n" for row in requests()))
        path = self.pipeline("source.file, path: log, format: reqin_log")
        self.assert_exit(self.engine("run", "-q", path), OK)
        return path

    def test_fingerprint(self) -> None:
        """A row a hello in each format; JSON has the names as they were sent, CSV no formula."""
        # A name in a hello is bytes; what is no UTF-8 is another test's.
        words = tuple(word for word in CORPUS if word)
        path = self.write("h.pcap", capture(words))
        for fields in ((), ("--fields", "src_ip,tls_sni,tls_alpn,ja4")):
            table = self.shown("fingerprint", "--format", "table", *fields, path)
            self.assertEqual(len(table.splitlines()), 1 + len(words))
            self.assertTrue(all(re.match(r"[a-z]|203\.0\.113\.", line) for line in table.splitlines()), table)
        piped = self.engine("fingerprint", "--format", "table", path)
        self.assert_harmless(piped.stdout)
        self.assertEqual(len(piped.stdout.split("\n")), 2 + len(words))
        for text in (self.shown("fingerprint", path), self.engine("fingerprint", path).stdout):
            rows = [json.loads(line) for line in text.splitlines()]
            self.assertEqual([row["tls_sni"] for row in rows], list(words))
        for text in (self.shown("fingerprint", "--format", "csv", path), self.engine("fingerprint", "--format", "csv", path).stdout):
            self.assert_harmless(text)
            head, *rows = reader(text.splitlines())
            self.assertEqual(len(rows), len(words))
            at = head.index("tls_sni")
            for row, word in zip(rows, words, strict=True):
                self.assertEqual(len(row), len(head))
                plain = row[at].removeprefix("'")
                self.assertEqual(plain.startswith(word[:1]) or plain.startswith("\\"), True, row[at])
                for cell in row:
                    self.assertNotRegex(cell.lstrip(" \"'") if cell[:1] != "'" else "", r"^[=+\-@＝＋－＠\t\r]")

    def test_run_and_its_log_lines(self) -> None:
        """Rows to a terminal, the summary, rejected lines and names of files in what is logged."""
        odd = self.directory / f"log{WORD}".replace("/", "")
        odd.write_text("".join(json.dumps(row) + "\n" for row in requests()) + "\x1b[2J not a line \u202e\nFORGED\n" * 20)
        name = json.dumps(odd.name)
        sink = "  - { id: rows, kind: sink.jsonl, from: log, path: '-' }\n"
        self.pipeline(f"source.file, path: {name}, format: reqin_log", out=sink)
        text = self.shown("run", "evil.yaml")
        rows = [json.loads(line) for line in text.splitlines() if line.startswith('{"time"')]
        self.assertEqual({row["path"] for row in rows}, set(CORPUS))
        # Not understood at all: that is said, with the first line.
        odd.write_text("\x1b[2J not a line \u202e\u009b\nFORGED\n" * 20)
        for log_format in ("text", "json"):
            text = self.shown("run", "--log-format", log_format, "evil.yaml", codes=(5,), environment={"RUST_LOG": "info"})
            self.assertIn("\\u{1b}" if log_format == "text" else "understood", text)
        # In a file it is the same: who looks at it later sits at a terminal as well.
        self.assert_harmless(self.engine("run", "evil.yaml", environment={"RUST_LOG": "info"}).stderr)
        gone = self.pipeline(f"source.file, path: {json.dumps('none' + WORD)}, format: reqin_log", "gone.yaml")
        for log_format in ("text", "json"):
            self.shown("run", "--log-format", log_format, gone, codes=(FAILED, REFUSED))

    def test_rows_in_a_file_or_a_pipe_stay_as_they_are(self) -> None:
        """JSON escapes what it must; nobody counts on more."""
        self.write("log", "".join(json.dumps(row) + "\n" for row in requests()))
        self.pipeline("source.file, path: log, format: reqin_log", out="  - { id: rows, kind: sink.jsonl, from: log, path: '-' }\n")
        run = self.engine("run", "-q", self.directory / "evil.yaml")
        self.assert_exit(run, OK)
        self.assertEqual([json.loads(line)["host"] for line in run.stdout.split("\n")[:-1]], list(CORPUS))
        self.assertIn("\u202e", run.stdout)

    def test_pipelines_that_are_wrong(self) -> None:
        """`validate`, `plan-diff`, `graph`, `list`, `schema`: names, options, expressions, files."""
        path = self.stored()
        for change in (
            ("kind: derive", f"kind: {json.dumps(WORD)}"), ("expr: count(*)", f"expr: {json.dumps(WORD)}"), ("id: print", f"id: {json.dumps(WORD)}"),
            ("window: 1h", f"window: {json.dumps(WORD)}"), ("from: log,", f"from: {json.dumps(WORD)},"), ("name: hits", f"name: {json.dumps(WORD)}"),
            ("path: log", f"{json.dumps(WORD)}: 1, path: log"), ("nodes:", "nodes: # \u202e\u009b31m \x7f \u200b"), ("level: HIGH", "level: \u202eHIGH"),
        ):
            text = path.read_text().replace(*change)
            wrong = self.write(f"wrong{WORD}.yaml".replace("/", ""), text)
            for command in ("validate", "graph", "run"):
                self.shown(command, wrong, codes=(OK, FAILED, REFUSED))
            self.shown("run", "--log-format", "json", wrong, codes=(OK, FAILED, REFUSED))
        new = self.write("new.yaml", path.read_text().replace("hits >= 1", "host = " + json.dumps("'" + WORD + "'")[1:-1].replace("\\", "\\\\"))
                         .replace('reason: "went', f'reason: "{json.dumps(WORD)[1:-1]}'))
        for kind in ("text", "json"):
            self.shown("plan-diff", "--format", kind, path, new, codes=(OK, REFUSED))
        for language in ("mermaid", "dot"):
            self.shown("graph", "--format", language, path)
        self.shown("list", WORD, codes=(REFUSED,))
        for arguments in (("list",), ("list", "--format", "json"), ("list", "--format", "markdown"), ("schema",)):
            self.shown(*arguments)
        for arguments in ((WORD,), ("run", "--workers", WORD, path), ("status", f"--{WORD}"), ("run", WORD), ("spool", "export", WORD, WORD),
                          ("explain", WORD), ("fingerprint", WORD), ("fingerprint", "--fields", WORD, "x"), ("data", "fetch", WORD),
                          ("compare", WORD, WORD), ("replay", WORD, "--data-dir", WORD), ("run", "--set", WORD, path),
                          ("migrate", "ddl", WORD), ("rules", "export", "--format", WORD, "--query", WORD)):
            self.shown(*arguments, codes=(FAILED, REFUSED))

    def test_what_a_service_says(self) -> None:
        """`status`, `feedback`, `explain`, `rules export` and `migrate` ask services, which may be anybody's."""
        node = {"id": WORD, "kind": WORD, "rows_in": 1, "references": [{"file": WORD, "age_seconds": 1}], "troubles": {WORD: WORD * 1000}}
        status = {"pipeline": WORD, "state": WORD, "uptime_seconds": 1, "nodes": [node], "reloads": {"last": {"outcome": WORD, "message": WORD}}}
        with answering(status) as url:
            self.shown("status", "--url", url)
            text = self.shown("status", "--url", url, "--format", "json")
            self.assertEqual(json.loads(text), status)
        entry = {"id": WORD, "src_ip": "192.0.2.1", "host": WORD, "label": WORD, "who": WORD, "note": WORD * 100, "given_at": WORD, "until": WORD}
        with answering([entry, entry]) as url:
            self.assertEqual(len(self.shown("feedback", "--url", url).splitlines()), 2)
        for body, code in (({"error": WORD}, 400), (WORD, 200), ({"error": WORD}, 404), ("[" * 3000, 200)):
            with answering(body, code) as url:
                for arguments in (("status",), ("feedback",), ("feedback", "192.0.2.1", "--label", "undo"), ("explain", "192.0.2.1"),
                                  ("rules", "export", "--format", "nftables", "--query", "SELECT 1"), ("migrate", "status"), ("migrate", "verify")):
                    self.shown(*arguments, "--url", url, codes=(OK, FAILED, REFUSED))

    def test_what_is_stored(self) -> None:
        """`explain`, `rules export` and `compare` of rows of the corpus; evidence folders of anybody."""
        self.stored()
        data = ("--data", self.directory / "data", "--table", "features=groups", "--table", "requests=requests")
        for nth in range(len(CORPUS)):
            text = self.shown("explain", f"203.0.113.{nth + 1}", *data)
            self.assertIn("HIGH", text)
        text = self.shown("explain", "203.0.113.2", "--format", "json", *data)
        self.assertEqual(json.loads(text)["requests"]["rows"][0]["path"], CORPUS[1])
        self.shown("explain", "203.0.113.2", "--bundle", self.directory / "case", *data)
        for kind in ("nftables", "haproxy", "nginx", "anubis", "crowdsec"):
            self.shown("rules", "export", "--format", kind, "--query", "SELECT src_ip, reason FROM found", *data)
        self.shown("rules", "export", "--dry-run", "--format", "nftables", "--query", "SELECT src_ip, reason FROM found", *data)
        for manifest in ({"format": WORD}, {WORD: 1}, WORD, {"format": 1, "engine": WORD}, json.loads((self.directory / "case/manifest.json").read_text())
                         | {"engine": WORD, "client": WORD, "files": {WORD: {"sha256": WORD, "bytes": 1}}}):
            (self.directory / "case/manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
            self.shown("explain", "--verify", self.directory / "case", codes=(FAILED,))
        (self.directory / "data").rename(self.directory / "before")
        self.write("log", "".join(json.dumps(row | {"path": row["host"][::-1]}) + "\n" for row in requests()[1:]))
        self.assert_exit(self.engine("run", "-q", self.directory / "evil.yaml"), OK)
        for kind in ("text", "json"):
            self.shown("compare", "--format", kind, "--examples", 100, "before", "data")
            self.shown("compare", "--format", kind, "--table", "found", "--key", "src_ip", "--examples", 100, "before", "data")

    def test_reference_data(self) -> None:
        """`data status` of files with odd names and content."""
        names = [self.write(f"asn{WORD}.csv".replace("/", ""), f"network,asn,country_code,name,org,domain\n192.0.2.0/24,1,DE,{WORD!r},x,y\n"),
                 self.write(f"wrong{WORD}.csv".replace("/", ""), f"network,{WORD}\nx,{WORD}\n"), self.directory / f"none{WORD}".replace("/", "")]
        notes = {path.name: {"source": WORD, "licence": WORD, "attribution": WORD, "sha256": "0", "fetched": WORD} for path in names}
        self.write("sources.json", json.dumps(notes))
        for kind in ("text", "json"):
            self.shown("data", "status", "--format", kind, *names, codes=(OK, FAILED))

    def test_the_spool(self) -> None:
        """`spool ls`, `check`, `export` and `replay`; a rejected line is in it as well."""
        path = self.pipeline("source.unix_socket, path: s.socket, format: reqin_log", out="serve: { listen: 127.0.0.1:0, tables: { log: log } }\n")
        log = self.directory / "err"
        process = start("run", path, log=log)
        try:
            served(log)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                wait_for("the socket", (self.directory / "s.socket").exists)
                sender.connect(str(self.directory / "s.socket"))
                for row in requests():
                    sender.send(json.dumps(row | {"timestamp": time.time_ns()}).encode())
                sender.send(WORD.encode())
            spool = self.directory / "data/spool"
            wait_for("the rows", lambda: len(self.engine("spool", "export", spool, "log").stdout.split("\n")) > len(CORPUS))
            for kind in ("text", "json"):
                self.shown("status", "--url", served(log), "--format", kind)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT_S)
        self.assert_harmless(log.read_text())
        text = self.shown("spool", "export", spool, "log")
        self.assertEqual([json.loads(line)["path"] for line in text.splitlines()], list(CORPUS))
        piped = self.engine("spool", "export", spool, "log")
        self.assertEqual([json.loads(line)["path"] for line in piped.stdout.split("\n")[:-1]], list(CORPUS))
        self.shown("spool", "export", spool, "log.rejected")
        self.shown("spool", "export", "--format", "arrow", spool, "log", codes=(REFUSED,))
        self.shown("spool", "export", spool, WORD, codes=(REFUSED,))
        self.shown("replay", path, "--data-dir", self.directory / "again")
        odd = self.directory / f"spool{WORD}".replace("/", "")
        spool.rename(odd)
        for name in sorted(odd.iterdir()):
            if name.is_dir():
                name.rename(odd / f"{name.name}{WORD}".replace("/", ""))
        segment = next(file for file in sorted(odd.rglob("*")) if file.is_file() and file.stat().st_size > 1000)
        content = bytearray(segment.read_bytes())
        content[len(content) // 2] ^= 0xFF
        segment.write_bytes(content)
        for arguments in (("ls", odd), ("ls", "--json", odd), ("check", odd), ("export", odd, "log"), ("export", odd, os.fsdecode(b"\xff\x9b"))):
            self.shown("spool", *arguments, codes=(OK, FAILED, REFUSED))

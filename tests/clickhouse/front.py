"""ClickHouse's HTTP interface before chdb, ClickHouse's engine as a library. For tests.

    python tests/clickhouse/front.py --data DIRECTORY [--port 8123] [--queries 4]

It answers as the server does (https://clickhouse.com/docs/interfaces/http): the query in `query`, in the body, or begun
in the one and ended in the other; `database`, `default_format`, settings and `param_…` in the URL; LZ4 blocks
(`decompress=1`) and LZ4 frames (`Accept-Encoding`); credentials in headers, URL or Basic; exceptions with their code in
a header and a status by that code; X-ClickHouse headers. What differs: no sessions, no quotas, no users but one, bodies
are read to their end before the query starts, checksums of LZ4 blocks are not verified, and a query above --queries waits.

What was inserted is on disk: a front that was killed can be started again with the same directory.
"""

import argparse
import base64
import json
import queue
import re
import struct
import sys
import tempfile
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pyarrow
from chdb.session import Session

# Parameters of the interface itself; all others are settings.
RESERVED = {"query", "database", "default_format", "user", "password", "query_id", "session_id", "session_timeout",
            "session_check", "compress", "decompress", "role", "wait_end_of_query", "buffer_size", "quota_key",
            "enable_http_compression", "client_protocol_version"}
# HTTPHandler.cpp: which status an exception gets; the others are 500.
STATUS = {
    **dict.fromkeys((516, 192, 193, 497), 403), 194: 401,
    **dict.fromkeys((60, 81, 46, 63, 50, 65, 36 + 10_000), 404),
    **dict.fromkeys((62, 26, 27, 38, 41, 53, 69, 70, 72, 43, 44, 47, 117, 16, 6, 115, 456, 457, 36), 400),
    **dict.fromkeys((164,), 500), 159: 408, 202: 429,
}
READS = re.compile(r"(?:\s|--[^\n]*\n)*(select|with|show|exists|desc|describe|explain)\b", re.IGNORECASE)
INSERT = re.compile(r"\s*insert\s+into\b", re.IGNORECASE)
# The head of an INSERT whose rows follow; not INSERT … SELECT.
HEAD = re.compile(r"(\s*insert\s+into\s+.*?)(\s+settings\s+.*?)?\s+format\s+(\w+)[ \t]*(?:\r?\n|;|\s*$)", re.IGNORECASE | re.DOTALL)
FORMAT = re.compile(r"\bformat\s+(\w+)\s*;?\s*$", re.IGNORECASE)


class Fault(Exception):
    """An exception as ClickHouse words it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        found = re.match(r"Code: (\d+)", text)
        self.code = int(found[1]) if found else 1001


class Engine:
    """Sessions of one engine: each has settings and a current database of its own, and one query at a time."""

    def __init__(self, directory: Path, queries: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = str(directory)
        self.free: queue.LifoQueue[Session] = queue.LifoQueue()
        for _ in range(max(queries, 1)):
            self.free.put(Session(self.directory))
        self.version = self.query("SELECT version()", "TabSeparatedRaw")[0].decode().strip()

    def query(self, sql: str, output: str, *, database: str = "", settings: dict | None = None,
              parameters: dict | None = None) -> tuple[bytes, dict]:
        """The answer, and how much was read and written."""
        settings = settings or {}
        session = self.free.get()
        applied = []
        try:
            if database:
                execute(session, f"USE {identifier(database)}")
            for name, value in settings.items():
                if not re.fullmatch(r"\w+", name):
                    raise Fault(f"Code: 115. DB::Exception: Unknown setting '{name}'. (UNKNOWN_SETTING)")
                execute(session, f"SET {name} = {literal(value)}")
                applied.append(name)
            answer = execute(session, sql, output, parameters)
        finally:
            try:
                for name in applied:
                    execute(session, f"SET {name} = DEFAULT")
                if database:
                    execute(session, "USE default")
            except Fault:
                # Such as after `readonly`: the next query must not have these settings.
                session = Session(self.directory)
            finally:
                self.free.put(session)
        written = {"read_rows": answer.storage_rows_read(), "read_bytes": answer.storage_bytes_read(),
                   "written_rows": answer.rows_written(), "written_bytes": answer.bytes_written(),
                   "elapsed_ns": int(answer.elapsed() * 1e9)}
        return answer.bytes(), {name: str(value) for name, value in written.items()}


def execute(session: Session, sql: str, output: str = "Null", parameters: dict | None = None):
    """What chdb answers."""
    try:
        return session.query(sql, output, params=parameters or {})
    except Exception as error:  # chdb raises several kinds, all with ClickHouse's text
        text = str(error)
        found = re.search(r"Code: \d+\. ", text)
        raise Fault(text[found.start():] if found else f"Code: 1001. DB::Exception: {text} (STD_EXCEPTION)") from None


def identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def blocks(data: bytes) -> list:
    """ClickHouse's compressed blocks: checksum (16), method, both sizes with the header of 9, data. The pieces stay apart: an
    insert may have a hundred megabytes, which are copied once, into the file that the engine reads."""
    codec, plain, at = pyarrow.Codec("lz4_raw"), [], 0
    data = memoryview(data)
    while at < len(data):
        if len(data) - at < 25:
            raise Fault("Code: 33. DB::Exception: Cannot read all data: a compressed block is cut off. (CANNOT_READ_ALL_DATA)")
        method, packed, size = struct.unpack_from("<BII", data, at + 16)
        body = data[at + 25 : at + 16 + packed]
        if len(body) != packed - 9:
            raise Fault("Code: 33. DB::Exception: Cannot read all data: a compressed block is cut off. (CANNOT_READ_ALL_DATA)")
        if method == 0x82:
            plain.append(codec.decompress(body, size))
        elif method == 0x02:
            plain.append(body)
        else:
            raise Fault(f"Code: 89. DB::Exception: Unknown compression method: {method}. (UNKNOWN_COMPRESSION_METHOD)")
        at += 16 + packed
    return plain


def several(sql: str) -> bool:
    """Whether there is anything behind a semicolon outside of texts and comments."""
    bare = re.sub(r"'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`|\"(?:\\.|[^\"\\])*\"|--[^\n]*|/\*.*?\*/", "x", sql, flags=re.DOTALL)
    return bool(bare.partition(";")[2].replace("x", "").replace(";", "").strip())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine
    user, password = "default", ""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(read_only=True)

    def do_POST(self) -> None:
        self.answer(read_only=False)

    def answer(self, *, read_only: bool) -> None:
        url = urlsplit(self.path)
        if url.path == "/ping" or read_only and url.path == "/" and not url.query:
            self.send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
            return
        self.query_id = str(uuid.uuid4())
        try:
            given = dict(parse_qsl(url.query, keep_blank_values=True))
            self.query_id = given.get("query_id") or self.query_id
            body = self.body()
            self.authenticate(given)
            pieces = blocks(body) if given.get("decompress") == "1" else [body]
            data, output, summary = self.run(given, pieces, read_only)
        except Fault as fault:
            status = STATUS.get(fault.code, 500)
            text = f"{fault} (version {self.engine.version})\n"
            self.send(status, text.encode(), {"X-ClickHouse-Exception-Code": str(fault.code), "Content-Type": "text/plain; charset=UTF-8"})
            return
        headers = {"X-ClickHouse-Format": output, "X-ClickHouse-Timezone": "UTC", "X-ClickHouse-Summary": json.dumps(summary)}
        if "lz4" in self.headers.get("Accept-Encoding", "") and data:
            data = pyarrow.compress(data, codec="lz4", asbytes=True)
            headers["Content-Encoding"] = "lz4"
        self.send(200, data, headers)

    def run(self, given: dict, pieces: list, read_only: bool) -> tuple[bytes, str, dict]:
        begun = given.get("query", "")
        # Rows that follow an INSERT may be anything; its head is text.
        if INSERT.match(begun) and FORMAT.search(begun):
            head, text = begun, b""
        else:
            body, begun = b"".join(pieces), begun.encode()
            text = begun + (b"\n" if begun and body else b"") + body
            head = text[:65536].decode(errors="replace")
        if read_only and not READS.match(head):
            raise Fault("Code: 164. DB::Exception: Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. (READONLY)")
        settings = {name: value for name, value in given.items() if name not in RESERVED and not name.startswith("param_")}
        common = {"database": given.get("database", ""), "settings": settings,
                  "parameters": {name[6:]: value for name, value in given.items() if name.startswith("param_")}}
        found = HEAD.match(head) if INSERT.match(head) else None
        if found:
            rows = [text[len(head[: found.end()].encode()) :]] if text else pieces
            with tempfile.NamedTemporaryFile(buffering=0) as file:
                empty = not sum(file.write(piece) for piece in rows)
                sql = f"{found[1]} FROM INFILE {literal(file.name)} COMPRESSION 'none'{found[2] or ''} FORMAT {found[3]}"
                data, summary = self.engine.query(sql, "Null", **common) if not empty else (b"", {})
            return data, found[3], summary
        sql = text.decode(errors="replace") if text else head
        if several(sql):
            raise Fault("Code: 62. DB::Exception: Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)")
        if not sql.strip():
            raise Fault("Code: 62. DB::Exception: Syntax error: failed at position 1 (end of query). Empty query. (SYNTAX_ERROR)")
        output = FORMAT.search(sql)
        output = output[1] if output else given.get("default_format") or "TabSeparated"
        data, summary = self.engine.query(sql, output, **common)
        return data, output, summary

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while True:
            line = self.rfile.readline(1024)
            if not line:
                raise ConnectionAbortedError("the body was cut off")
            size = int(line.split(b";")[0], 16)
            part = self.rfile.read(size)
            if len(part) < size:
                raise ConnectionAbortedError("the body was cut off")
            parts.append(part)
            self.rfile.readline(1024)
            if size == 0:
                return b"".join(parts)

    def authenticate(self, given: dict) -> None:
        user = self.headers.get("X-ClickHouse-User") or given.get("user") or "default"
        password = self.headers.get("X-ClickHouse-Key") or given.get("password") or ""
        scheme, _, basic = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            user, _, password = base64.b64decode(basic).decode().partition(":")
        if (user, password) != (self.user, self.password):
            raise Fault(f"Code: 516. DB::Exception: {user}: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)")

    def send(self, status: int, data: bytes, headers: dict) -> None:
        self.send_response(status)
        headers = {"X-ClickHouse-Server-Display-Name": "chdb", "X-ClickHouse-Query-Id": getattr(self, "query_id", ""),
                   "Content-Length": str(len(data)), "Connection": "Keep-Alive", **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--queries", type=int, default=4, help="how many at a time")
    arguments.add_argument("--user", default="default")
    arguments.add_argument("--password", default="")
    given = arguments.parse_args()
    Handler.engine, Handler.user, Handler.password = Engine(given.data, given.queries), given.user, given.password
    server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    server.daemon_threads = True
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()

"""Attacks on the web service: half requests, slow ones, requests of other sites, smuggling, sizes, paths, other protocols."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

from tests.attack.queries import Engines
from tests.attack.report import Report
from tests.attack.victim import MIB, OTHER, PRELOADED, Broken, Victim, own_memory, raise_limit

AREA = "http"

# The longest that the service may hold a request that does not get on, and a connection that does nothing.
SLOW_S, IDLE_S = 45, 120

# More than the usual soft limit of descriptors.
CONNECTIONS = 1100


@contextlib.contextmanager
def connected(victim: Victim, count: int = 1, limit_s: float = 10) -> Iterator[list[socket.socket]]:
    """So many connections, as many as are taken."""
    found: list[socket.socket] = []
    try:
        for _ in range(count):
            try:
                found.append(socket.create_connection((victim.host, victim.port), timeout=limit_s))
            except OSError:
                break
        yield found
    finally:
        for one in found:
            one.close()


def exchange(victim: Victim, data: bytes, limit_s: float = 20) -> bytes:
    """What is answered until the service closes or says nothing for a while."""
    with connected(victim) as (one,):
        with contextlib.suppress(OSError):
            one.sendall(data)
        end, answer = time.monotonic() + limit_s, b""
        one.settimeout(2)
        while time.monotonic() < end:
            try:
                piece = one.recv(1 << 16)
            except TimeoutError:
                break
            except OSError:
                break
            if not piece:
                break
            answer += piece
            # An answer is whole at once; more of them follow it without a pause.
            one.settimeout(0.5)
        return answer


def statuses(answer: bytes) -> list[int]:
    """The status of each answer in it."""
    return [int(line.split(b" ")[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]


def ended(one: socket.socket, limit_s: float, each: bytes = b"") -> float:
    """Seconds until the service ends a connection; sends `each` every second meanwhile."""
    begin = time.monotonic()
    one.settimeout(1)
    while time.monotonic() - begin < limit_s:
        try:
            if each:
                one.sendall(each)
            if not one.recv(1 << 16):
                return time.monotonic() - begin
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - begin
    raise Broken(f"still open after {limit_s} s")


def half_headers(victim: Victim, to_the_end: bool) -> str:
    """More connections than descriptors: others are served, and the run goes on. `to_the_end` waits until they are ended."""
    raise_limit()
    begin = time.monotonic()
    with connected(victim, CONNECTIONS) as many:
        for one in many:
            with contextlib.suppress(OSError):
                one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")
        # Rows come and files are opened all the while; others are not kept waiting for the time of a header.
        time.sleep(3)
        victim_answers(victim)
        taken = len(many)
        if to_the_end:
            ended(many[0], SLOW_S, b"a")
    return f"{taken} of {CONNECTIONS} connected, looked at for {time.monotonic() - begin:.0f} s"


def victim_answers(victim: Victim) -> None:
    """Another client is answered."""
    status, text = victim.ask("GET", "/health", source=OTHER, limit_s=15)
    if status != 200:
        raise Broken(f"another client's /health: {status} {text[:100]!r}")


def idle(victim: Victim) -> str:
    """Connections that say nothing at all."""
    raise_limit()
    with connected(victim, CONNECTIONS) as many:
        time.sleep(2)
        victim_answers(victim)
        took = ended(many[0], IDLE_S)
    return f"{len(many)} connected, the first one was ended after {took:.0f} s"


def kept_alive(victim: Victim) -> str:
    """A connection that has been answered, and then says nothing."""
    with connected(victim) as (one,):
        one.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        one.recv(1 << 16)
        return f"ended after {ended(one, IDLE_S):.0f} s"


def slow_body(victim: Victim) -> str:
    """A byte a second of a statement."""
    with connected(victim) as (one,):
        one.sendall(b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nselect 1 ")
        took = ended(one, SLOW_S, b" ")
    return f"ended after {took:.0f} s"


def slow_chunks(victim: Victim) -> str:
    """The same in chunks, without an end."""
    with connected(victim) as (one,):
        one.sendall(b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        took = ended(one, SLOW_S, b"1\r\n \r\n")
    return f"ended after {took:.0f} s"


def slow_readers(victim: Victim) -> str:
    """Large answers that nobody reads: they must not pile up."""
    text = b"select a.*, b.path p2 from requests a join requests b on a.host = b.host limit 100000"
    head = b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nContent-Length: %d\r\n\r\n" % len(text)
    with connected(victim, 12) as many:
        for one in many:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(head + text)
        time.sleep(15)
        victim_answers(victim)
        memory = own_memory(victim.process.pid)
        took = ended_without_reading(many[0], 90)
    return f"run at {memory / MIB:.0f} MiB with 12 of them; the first one was ended after {took:.0f} s more"


def ended_without_reading(one: socket.socket, limit_s: float) -> float:
    """Seconds until a peer that is not read ends the connection: seen by writing, which fails then."""
    begin = time.monotonic()
    while time.monotonic() - begin < limit_s:
        try:
            one.send(b"\r\n")
        except OSError:
            return time.monotonic() - begin
        time.sleep(1)
    raise Broken(f"an answer that nobody reads is still held after {limit_s:.0f} s")


def refused(victim: Victim, data: bytes, allowed: tuple[int, ...] = (400, 403, 404, 405, 411, 413, 414, 415, 417, 421, 431, 501, 505)) -> str:
    """One answer at most, and it is a refusal; or the connection is closed."""
    said = statuses(exchange(victim, data))
    if any(status not in allowed for status in said[:1]) or any(status == 200 for status in said):
        raise Broken(f"answered {said}")
    return f"{said or 'closed'}"


def no_harm(victim: Victim, data: bytes) -> str:
    """Whatever is answered, it is not 500 and no file."""
    answer = exchange(victim, data)
    if 500 in statuses(answer) or b"root:" in answer or b"[dependencies]" in answer:
        raise Broken(f"{answer[:200]!r}")
    return f"{statuses(answer)[:5] or 'closed'}"


def sql_request(headers: str, body: bytes = b"select 1", host: str = "127.0.0.1") -> bytes:
    """A statement with these headers."""
    return (f"POST /sql HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n").encode() + body


def cross_site(victim: Victim) -> list[tuple[str, bytes, bool]]:
    """Requests that a browser sends for a page: name, request, whether it is the service's own page."""
    own = f"127.0.0.1:{victim.port}"
    sql_type, text = "Content-Type: application/sql\r\n", "Content-Type: text/plain\r\n"
    found = [
        ("another site's form, no Sec-Fetch-Site", f"Origin: http://evil.example\r\n{text}", False),
        ("another site's, as application/sql", f"Origin: http://evil.example\r\n{sql_type}", False),
        ("another port's", f"Origin: http://127.0.0.1:1\r\n{text}", False),
        ("another scheme's", f"Origin: https://{own}\r\n{text}", False),
        ("an opaque origin", f"Origin: null\r\n{text}", False),
        ("an empty origin", f"Origin: \r\n{text}", False),
        ("two origins", f"Origin: http://{own}\r\nOrigin: http://evil.example\r\n{sql_type}", False),
        ("an origin that begins like ours", f"Origin: http://{own}.evil.example\r\n{sql_type}", False),
        ("an origin with a user", f"Origin: http://{own}@evil.example\r\n{sql_type}", False),
        ("Sec-Fetch-Site: cross-site", f"Sec-Fetch-Site: cross-site\r\n{text}", False),
        ("Sec-Fetch-Site: same-site", f"Sec-Fetch-Site: same-site\r\n{text}", False),
        ("our own page, as text/plain", f"Origin: http://{own}\r\n{text}", False),
        ("our own page, as a form", f"Origin: http://{own}\r\nContent-Type: application/x-www-form-urlencoded\r\n", False),
        ("our own page, as application/sql", f"Origin: http://{own}\r\n{sql_type}", True),
        ("no browser", "", True),
    ]
    return [(name, sql_request(headers, host=own), right) for name, headers, right in found]


def smuggling() -> list[tuple[str, bytes]]:
    """Requests whose end two readers may see at two places."""
    inner = b"GET /tables HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    post = b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return [
        ("two lengths", post + b"Content-Length: 8\r\nContent-Length: 0\r\n\r\nselect 1" + inner),
        ("a list of lengths", post + b"Content-Length: 8, 0\r\n\r\nselect 1" + inner),
        ("a length with a sign", post + b"Content-Length: +8\r\n\r\nselect 1" + inner),
        ("a negative length", post + b"Content-Length: -1\r\n\r\nselect 1" + inner),
        ("a length that is huge", post + b"Content-Length: 99999999999999999999\r\n\r\nselect 1" + inner),
        ("a chunk that is huge", post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nselect 1" + inner),
        ("a chunk with a sign", post + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nselect 1\r\n0\r\n\r\n" + inner),
        ("a chunk without digits", post + b"Transfer-Encoding: chunked\r\n\r\n\r\n\r\n" + inner),
        ("an encoding twice", post + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + inner),
        ("an encoding by another name", post + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner),
        ("a blank before the colon", post + b"Content-Length : 8\r\n\r\nselect 1" + inner),
        ("a folded header", post + b"Content-Length:\r\n 8\r\n\r\nselect 1" + inner),
        ("a NUL in a header", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\0b\r\n\r\n"),
        ("a CR in a header", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\rb\r\n\r\n"),
        ("no name of a header", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n: x\r\n\r\n"),
        ("no Host", b"GET /status HTTP/1.1\r\n\r\n"),
        ("no Host, a statement", b"POST /sql HTTP/1.1\r\nContent-Length: 8\r\n\r\nselect 1"),
        ("two Hosts", b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"),
        ("an empty Host", b"GET /status HTTP/1.1\r\nHost: \r\n\r\n"),
        ("another's Host", b"GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        ("a Host with a user", b"GET /status HTTP/1.1\r\nHost: 127.0.0.1@evil.example\r\n\r\n"),
        ("another's Host in the target", b"GET http://evil.example/status HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        ("TRACE", b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("CONNECT", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"),
        ("PUT", b"PUT /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8\r\n\r\nselect 1"),
        ("DELETE", b"DELETE /tables HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("no method", b" / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: 127.0.0.1\r\n\r\n"),
        ("a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("bytes", bytes(range(256)) * 64),
        ("nothing but line ends", b"\r\n" * 100_000),
    ]


def sizes() -> list[tuple[str, bytes]]:
    """Requests that are large."""
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return [
        ("a header of 4 MB", head + b"X: " + b"a" * (4 << 20) + b"\r\n\r\n"),
        ("ten thousand headers", head + b"".join(b"X-%d: a\r\n" % nth for nth in range(10_000)) + b"\r\n"),
        ("a header without an end", head + b"X" * (8 << 20)),
        ("a target of 1 MB", b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("a method of 1 MB", b"A" * (1 << 20) + b" / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("a statement of 16 MB", sql_request("", b"select '" + b"a" * (16 << 20) + b"'")),
        ("a chunk extension of 4 MB", b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n8;" + b"a" * (4 << 20) + b"\r\nselect 1\r\n0\r\n\r\n"),
        ("trailers of 4 MB", b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nselect 1\r\n0\r\n" + b"X: a\r\n" * 700_000 + b"\r\n"),
    ]


def harmless() -> list[tuple[str, bytes]]:
    """Requests that may be answered, without harm."""
    get = "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    paths = ("/../../../etc/passwd", "/assets/../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2fetc/passwd",
             "//etc/passwd", "/assets//etc/passwd", "/assets/%00", "/assets/%ff%fe", "/assets/....//....//Cargo.toml", "/%", "/%zz", "/api/../sql",
             "/api/%2e%2e/sql", "/api/" + "a" * 5000, "/api/\u202e", "/sql?" + "a=b&" * 20_000, "/?csv=spreadsheet&csv=x", "*", "/;/", "/\\..\\..\\")
    found = [(f"GET {path[:30]}", get.format(path).encode()) for path in paths]
    post = "POST /api/feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}"
    for name, body in (("a deep document", "[" * 15_000), ("a key twice", '{"host":"h","label":"undo","who":"a","who":"b"}'), ("no document", "x"),
                       ("a number that is huge", '{"host":1e999999}'), ("a lone surrogate", '{"who":"\\ud800","host":"h","label":"undo"}')):
        found.append((name, post.format(len(body), body).encode()))
    found += [
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100)),
        ("an upgrade to HTTP/2", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
        ("an upgrade to a socket", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"),
        ("HTTP/0.9", b"GET /\r\n\r\n"),
        ("HTTP/1.0 without Host", b"GET /health HTTP/1.0\r\n\r\n"),
        ("both lengths", b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nselect 1\r\n0\r\n\r\n"),
        ("an expectation", b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n"),
        ("an unknown expectation", sql_request("Expect: cake\r\n")),
        ("a body that is packed", sql_request("Content-Encoding: gzip\r\n", b"\x1f\x8b" + bytes(100))),
        ("ranges", get.format("/assets/app.js").encode().replace(b"\r\n\r\n", b"\r\nRange: bytes=" + b"0-1," * 1000 + b"0-1\r\n\r\n")),
        ("an Accept that is long", sql_request("Accept: " + "text/csv;q=0.1," * 1000 + "*/*\r\n")),
        ("an Accept of nothing", sql_request("Accept: x/y;q=0\r\n")),
        ("a thousand requests in a row", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000),
    ]
    return found


def duplicates(victim: Victim) -> str:
    """A document in which a key is there twice."""
    body = json.dumps({"host": "h", "label": "false_positive", "who": "ada"})[:-1].encode() + b', "who": "eve"}'
    status, text = victim.ask("POST", "/api/feedback", body, {"Content-Type": "application/json"})
    if status != 400:
        raise Broken(f"{status} {text[:200]!r}")
    return f"{status} {text[:80]!r}"


def all_of(cases: list[tuple[str, bytes]], check: Callable[[Victim, bytes], str], victim: Victim) -> str:
    """Each, in turn; says which were wrong."""
    wrong = []
    for name, data in cases:
        try:
            check(victim, data)
        except Broken as fault:
            wrong.append(f"{name}: {fault}")
        if not victim.is_alive():
            wrong.append(f"{name}: the run has ended")
            break
    if wrong:
        raise Broken("; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""))
    return f"{len(cases)} requests"


def of_pages(victim: Victim) -> str:
    """Requests of pages: only our own are answered."""
    wrong = []
    cases = cross_site(victim)
    for name, data, right in cases:
        said = statuses(exchange(victim, data))
        if (said == [200]) != right or not right and said and said[0] not in (400, 403, 415):
            wrong.append(f"{name}: {said}")
    if wrong:
        raise Broken("; ".join(wrong))
    return f"{len(cases)} requests"


def run(report: Report, quick: bool) -> None:
    """All of them."""
    with Engines(report, AREA, preloaded=3000 if quick else PRELOADED) as engines:
        cases: list[tuple[str, Callable[[Victim], str]]] = [
            ("pages of other sites", of_pages),
            ("requests that must be refused", lambda victim: all_of(smuggling(), refused, victim)),
            ("a key twice in a document", duplicates),
        ]
        if not quick:
            cases += [
                ("large requests", lambda victim: all_of(sizes(), refused, victim)),
                ("odd requests", lambda victim: all_of(harmless(), no_harm, victim)),
                ("a body, a byte a second", slow_body),
                ("chunks without an end", slow_chunks),
                ("a connection that is kept", kept_alive),
                ("idle connections", idle),
                ("readers that do not read", slow_readers),
            ]
        cases.append((f"half a header on {CONNECTIONS} connections", lambda victim: half_headers(victim, not quick)))
        for name, action in cases:
            if not report.attack(AREA, name, lambda action=action: action(engines.victim), engines.victim):
                engines.renew()

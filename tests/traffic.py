"""Generated traffic: hellos and requests of many connections, in files or live. It knows nothing of the join's result.

Clients open connections over IPv4 and IPv6, reuse ports, keep connections alive, and speak HTTP/3 over port numbers
that they also use for TCP. Gaps are drawn around the join's parameters, edges included. Every request has an id of its
own (`header_x_request_id`), every hello too (`conn_id`).
"""

import ipaddress
import itertools
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

MS, SECOND = 10**6, 10**9
# Around this much later another sensor sees a hello too.
SIGHTINGS = 2 * SECOND
START = 1_795_420_800 * SECOND  # 2026-11-23T08:00:00Z

HELLO, REQUEST = "hello", "request"
FILES = {HELLO: "hellos.jsonl", REQUEST: "requests.jsonl"}
FORMATS = {HELLO: "ja4sentinel", REQUEST: "reqin_log"}
IDS = {HELLO: "conn_id", REQUEST: "header_X-Request-Id"}

HOSTS = (("www.example.test", 55), ("shop.example.test", 25), ("api.example.test", 15), ("old.example.test", 5))
PATHS = ("/", "/", "/", "/static/app.js", "/static/site.css", "/login", "/api/items", "/search", "/.env", "/missing")
SERVERS = {4: "192.0.2.10", 6: "2001:db8:10::10"}
JA4 = ("13d1516h2_8daaf6152771_d8a2da3f94cd", "13d1717h2_5b57614c22b0_3cbfd9057e0d",
       "13d2014h2_a09f3c656075_e42f34c56612", "12i1011h1_61a7ad8aa9b6_3fcd1a44f3e3")
AGENTS = ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/152.0.0.0 Safari/537.36",
          "Mozilla/5.0 (X11; Linux x86_64; rv:147.0) Gecko/20100101 Firefox/147.0", "curl/8.14.1", "python-requests/2.32")


@dataclass(frozen=True, slots=True)
class Event:
    """A row of one of the two streams."""

    stream: str
    id: str
    time: int  # as the sensor writes it, ns; of a request its begin
    arrival: int  # when it reaches the engine, ns
    fields: dict

    @property
    def end(self) -> int:
        """When the sensor wrote it: a request's end."""
        return self.time + self.fields.get("duration_ms", 0) * MS

    def row(self, time: int | None = None) -> dict:
        """What the sensor writes, by default at the event's own time."""
        return {"timestamp": self.time if time is None else time, **self.fields}

    def line(self, time: int | None = None) -> bytes:
        """The row as a JSON line, without its line feed."""
        return json.dumps(self.row(time), separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Connection:
    """Which end of which client speaks which transport."""

    client: int
    port: int
    http3: bool
    begin: int


@dataclass(frozen=True)
class Traffic:
    """What is generated; shares are from 0 to 1, times in ns unless the name says otherwise."""

    seed: int = 1
    seconds: float = 60  # in which connections begin; their requests may come later
    connections_per_s: float = 20
    requests: float = 4  # mean of a connection that has any
    clients: int = 60
    ipv6: float = 0.25
    http3: float = 0.15
    reuse: float = 0.3  # connections on a port that the client has used before
    without_hello: float = 0.10
    without_request: float = 0.06
    ties: float = 0.1  # rows whose time is cut to 100 ms
    two_sensors: float = 0.0  # hellos that another sensor sees too, a little later
    skew: int = 0  # how far the hello sensor's clock is ahead
    lateness: int = 2 * SECOND
    slow: float = 0.0  # requests of up to 10 minutes
    late: float = 0.0  # rows that are held up by more than the lateness
    idle_port: int = 60 * SECOND  # the longest between two uses of a port
    # Gaps are drawn around these.
    window: int = 10 * SECOND
    keepalive_ttl: int = 120 * SECOND
    tolerance: int = SECOND // 2
    start: int = START

    def events(self) -> list[Event]:
        """All rows in the order of arrival, the same for the same parameters."""
        rng = random.Random(f"traffic {self.seed}")
        # The port and the last use of each client's latest connections.
        used: dict[int, list[tuple[int, int]]] = {}
        rows: list[Event] = []
        at = self.start
        for number in itertools.count():
            at += round(rng.expovariate(self.connections_per_s) * SECOND)
            if at >= self.start + self.seconds * SECOND:
                break
            connection = self._connection(rng, at, used)
            events = self._rows(rng, f"{self.seed:x}-{number}", connection)
            last = max((event.time for event in events), default=connection.begin)
            used[connection.client].append((connection.port, last))
            rows += events
        return in_order(rows)

    def _connection(self, rng: random.Random, at: int, used: dict[int, list[tuple[int, int]]]) -> Connection:
        """Of a client that may be busy or not, on a new port or one that it had before."""
        client = int(self.clients * rng.random() ** 2)
        http3 = rng.random() < self.http3
        before = used.setdefault(client, [])
        del before[:-8]
        if before and http3 and rng.random() < 0.6:
            return Connection(client, rng.choice(before)[0], http3, at)
        if before and rng.random() < self.reuse:
            port, last = before.pop(rng.randrange(len(before)))
            return Connection(client, port, http3, last + rng.choice((1, rng.randrange(self.idle_port))))
        return Connection(client, rng.randrange(32_768, 60_999), http3, at)

    def _rows(self, rng: random.Random, name: str, connection: Connection) -> list[Event]:
        """A connection's hello and requests."""
        rows = []
        if rng.random() >= self.without_hello:
            fields = hello(rng, connection, self.ipv6)
            rows.append(self._event(rng, HELLO, name, connection.begin, fields))
            if rng.random() < self.two_sensors:
                then = connection.begin + rng.choice((SIGHTINGS, SIGHTINGS + 1, rng.randrange(SIGHTINGS * 5 // 4)))
                rows.append(self._event(rng, HELLO, f"{name}-again", then, fields | {"sensor_id": "other"}))
        if rng.random() < self.without_request:
            return rows
        count = 30 if rng.random() < 0.02 else 1 + int(rng.expovariate(1) * (self.requests - 1))
        host = rng.choices([host for host, _ in HOSTS], [weight for _, weight in HOSTS])[0]
        agent = rng.choice(AGENTS)
        time = connection.begin + self._first(rng)
        for number in range(count):
            fields = request(rng, connection, self.ipv6, host, agent)
            if rng.random() < self.slow:
                fields["duration_ms"] = rng.randrange(600_001)
            rows.append(self._event(rng, REQUEST, f"{name}-{number}", time, fields))
            time += self._gap(rng)
        return rows

    def _event(self, rng: random.Random, stream: str, name: str, time: int, fields: dict) -> Event:
        """A row on its way: held up by up to the lateness, some by more."""
        written = time + (self.skew if stream == HELLO else 0)
        if rng.random() < self.ties:
            written -= written % (100 * MS)
        arrival = written + fields.get("duration_ms", 0) * MS + rng.randint(0, self.lateness)
        if rng.random() < self.late:
            arrival += self.lateness + rng.randint(0, 3 * self.lateness)
        if stream == HELLO:
            arrival -= self.skew
        return Event(stream, name, written, arrival, {**fields, IDS[stream]: name})

    def _first(self, rng: random.Random) -> int:
        """From a hello to the first request; negative where the request is noted first."""
        draw = rng.random()
        if draw < 0.80:
            return round(rng.expovariate(10) * SECOND)
        if draw < 0.87:
            return -rng.randint(0, self.tolerance * 3 // 2)
        if draw < 0.93:
            return rng.choice((0, self.window, self.window + 1, -self.tolerance, -self.tolerance - 1))
        return rng.randint(0, self.window * 3 // 2)

    def _gap(self, rng: random.Random) -> int:
        """From a request to the next on its connection."""
        draw = rng.random()
        if draw < 0.70:
            return round(rng.expovariate(12) * SECOND)
        if draw < 0.94:
            return round(rng.expovariate(20) * self.keepalive_ttl)
        if draw < 0.97:
            return self.keepalive_ttl + rng.choice((-1, 0, 1))
        return rng.randint(0, self.keepalive_ttl * 4 // 3)


def address(client: int, ipv6: float) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A client's address, always the same, of the ranges that RFC 2544 and RFC 3849 keep for such use."""
    if random.Random(f"address {client}").random() < ipv6:
        return ipaddress.IPv6Address("2001:db8::") + (client << 64 | client + 1)
    return ipaddress.IPv4Address("198.18.0.0") + client + 1


def hello(rng: random.Random, connection: Connection, ipv6: float) -> dict:
    """What the hellos' sensor notes."""
    source = address(connection.client, ipv6)
    ttl = rng.choice((64, 128))
    fields = {
        "sensor_id": "test", "src_ip": str(source), "src_port": connection.port, "dst_ip": SERVERS[source.version],
        "dst_port": 443, "ip_meta_ttl": ttl - rng.randrange(20), "ip_meta_id": rng.randrange(65_536), "ip_meta_df": True,
        "tls_version": "1.3", "tls_sni": rng.choice(HOSTS)[0], "tls_alpn": "h3" if connection.http3 else "h2",
        "ja4": f"{'q' if connection.http3 else 't'}{rng.choice(JA4)}",
    }
    if not connection.http3:
        fields |= {"tcp_meta_window_size": 64_240, "tcp_meta_mss": 1_460, "tcp_meta_window_scale": 7,
                   "tcp_meta_options": "MSS,SACK,TS,NOP,WS", "syn_to_clienthello_ms": round(rng.uniform(0.1, 90), 3)}
    return fields


def request(rng: random.Random, connection: Connection, ipv6: float, host: str, agent: str) -> dict:
    """What the web server notes; it may write the same address otherwise than the sensor."""
    source = address(connection.client, ipv6)
    text = str(source)
    if rng.random() < 0.1:
        text = f"::ffff:{source}" if source.version == 4 else source.exploded.upper()
    path = rng.choice(PATHS)
    return {
        "src_ip": text, "src_port": connection.port, "dst_ip": SERVERS[source.version], "dst_port": 443,
        "method": "POST" if path == "/login" else "GET", "scheme": "https", "host": host, "path": path, "query": "",
        "http_version": "HTTP/3.0" if connection.http3 else rng.choice(("HTTP/1.1", "HTTP/2.0")),
        "status_code": 404 if path in ("/.env", "/missing") else 200, "response_size": rng.randrange(20_000),
        "duration_ms": rng.randrange(200), "has_cookie": rng.random() < 0.4, "header_User-Agent": agent,
    }


def event_time(row: dict) -> int:
    """When the line was written: a request's begin and how long it took."""
    return row["timestamp"] + row.get("duration_ms", 0) * MS


def in_order(events: Iterable[Event]) -> list[Event]:
    """By arrival."""
    return sorted(events, key=lambda event: (event.arrival, event.stream, event.id))


def shuffled(events: Iterable[Event], lateness: int, seed: int) -> list[Event]:
    """The same rows in another order of arrival, in which none comes later than the lateness allows."""
    rng = random.Random(f"shuffle {seed}")
    return in_order(replace(event, arrival=event.end + rng.randint(0, lateness)) for event in events)


def write(events: Iterable[Event], directory: Path) -> None:
    """Both streams as files, in the order given."""
    directory.mkdir(parents=True, exist_ok=True)
    events = list(events)
    for stream, name in FILES.items():
        with (directory / name).open("wb") as file:
            file.writelines(event.line() + b"\n" for event in events if event.stream == stream)
